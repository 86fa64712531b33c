//! The messages of an export, and what is known of their fields.
#![forbid(unsafe_code)]

use crate::wire::protobuf;

/// A kind of telemetry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signal {
    /// `ExportMetricsServiceRequest`; its items are data points.
    Metrics,
    /// `ExportLogsServiceRequest`; its items are log records.
    Logs,
    /// `ExportTraceServiceRequest`; its items are spans.
    Traces,
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Logs, Self::Traces];

    /// The name of its message, for error texts.
    pub fn message(self) -> &'static str {
        match self {
            Self::Metrics => "ExportMetricsServiceRequest",
            Self::Logs => "ExportLogsServiceRequest",
            Self::Traces => "ExportTraceServiceRequest",
        }
    }
}

/// How an export is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notation {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json` (OTLP specification, "JSON Protobuf Encoding").
    Json,
}

/// Why a message is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It is not protobuf, or a known field has another wire type.
    #[error(transparent)]
    Protobuf(#[from] protobuf::Fault),
    /// A field that may be there once is there twice, and decoders would read that differently.
    #[error("a field that may be there only once is there twice")]
    Repeated,
    /// A value in JSON is not of the kind that its key demands.
    #[error("{0}")]
    Json(&'static str),
}

/// The bytes are not an export. The sender is at fault, and a retry does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body is not a valid {}: {fault}, in the resource at byte {at_byte}", .signal.message())]
pub struct Malformed {
    /// The signal.
    pub signal: Signal,
    /// How it is written.
    pub notation: Notation,
    /// What is wrong.
    pub fault: Fault,
    /// Offset of the resource that contains the fault, in inflated bytes.
    pub at_byte: usize,
}

/// The kind of data of a metric, which decides where its points have their attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Points {
    /// `gauge`.
    Gauge,
    /// `sum`.
    Sum,
    /// `histogram`.
    Histogram,
    /// `exponential_histogram`.
    Exponential,
    /// `summary`.
    Summary,
}

impl Points {
    /// Its field in a metric.
    fn field(self) -> u32 {
        match self {
            Self::Gauge => 5,
            Self::Sum => 7,
            Self::Histogram => 9,
            Self::Exponential => 10,
            Self::Summary => 11,
        }
    }

    /// The field of a point that holds its attributes.
    fn attributes(self) -> u32 {
        match self {
            Self::Gauge | Self::Sum | Self::Summary => 7,
            Self::Histogram => 9,
            Self::Exponential => 1,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Sum => "sum",
            Self::Histogram => "histogram",
            Self::Exponential => "exponentialHistogram",
            Self::Summary => "summary",
        }
    }
}

/// A kind of message in an export, from the outside in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// The whole export.
    Export,
    /// `ResourceMetrics`, `ResourceLogs` or `ResourceSpans`.
    Resource,
    /// `ScopeMetrics`, `ScopeLogs` or `ScopeSpans`.
    Scope,
    /// A metric.
    Metric,
    /// The data of a metric, which holds its points.
    Data(Points),
    /// A data point.
    Point(Points),
    /// A log record.
    LogRecord,
    /// A span.
    Span,
}

impl Level {
    /// Whether it is what an export is counted and split by: a data point, a log record or a span.
    pub fn is_item(self) -> bool {
        matches!(self, Self::Point(_) | Self::LogRecord | Self::Span)
    }

    /// The field by which its parent holds it.
    pub fn field(self) -> u32 {
        match self {
            Self::Export => 0,
            Self::Resource => 1,
            Self::Scope | Self::Metric | Self::LogRecord | Self::Span => 2,
            Self::Data(points) => points.field(),
            Self::Point(_) => 1,
        }
    }

    /// The key by which its parent holds it in JSON.
    pub fn key(self, signal: Signal) -> &'static str {
        match (self, signal) {
            (Self::Export, _) => "",
            (Self::Resource, Signal::Metrics) => "resourceMetrics",
            (Self::Resource, Signal::Logs) => "resourceLogs",
            (Self::Resource, Signal::Traces) => "resourceSpans",
            (Self::Scope, Signal::Metrics) => "scopeMetrics",
            (Self::Scope, Signal::Logs) => "scopeLogs",
            (Self::Scope, Signal::Traces) => "scopeSpans",
            (Self::Metric, _) => "metrics",
            (Self::Data(points), _) => points.key(),
            (Self::Point(_), _) => "dataPoints",
            (Self::LogRecord, _) => "logRecords",
            (Self::Span, _) => "spans",
        }
    }

    /// Whether its parent holds a list of it.
    pub fn is_listed(self) -> bool {
        !matches!(self, Self::Data(_))
    }

    /// The key of the list of its children in JSON; `None` if they are in no list.
    pub fn list_key(self, signal: Signal) -> Option<&'static str> {
        let child = self.children(signal).first().filter(|child| child.is_listed())?;
        Some(child.key(signal))
    }

    /// The levels that a message of this one holds.
    pub(super) fn children(self, signal: Signal) -> &'static [Self] {
        const DATA: [Level; 5] = [
            Level::Data(Points::Gauge),
            Level::Data(Points::Sum),
            Level::Data(Points::Histogram),
            Level::Data(Points::Exponential),
            Level::Data(Points::Summary),
        ];
        match self {
            Self::Export => &[Self::Resource],
            Self::Resource => &[Self::Scope],
            Self::Scope => match signal {
                Signal::Metrics => &[Self::Metric],
                Signal::Logs => &[Self::LogRecord],
                Signal::Traces => &[Self::Span],
            },
            Self::Metric => &DATA,
            Self::Data(points) => match points {
                Points::Gauge => &[Self::Point(Points::Gauge)],
                Points::Sum => &[Self::Point(Points::Sum)],
                Points::Histogram => &[Self::Point(Points::Histogram)],
                Points::Exponential => &[Self::Point(Points::Exponential)],
                Points::Summary => &[Self::Point(Points::Summary)],
            },
            Self::Point(_) | Self::LogRecord | Self::Span => &[],
        }
    }

    /// The one of [its children](Self::children) that this field holds. Each field of an export is looked up.
    #[inline(always)]
    pub(super) fn child(self, signal: Signal, field: u32) -> Option<Self> {
        match (self, field) {
            (Self::Export, 1) => Some(Self::Resource),
            (Self::Resource, 2) => Some(Self::Scope),
            (Self::Scope, 2) => Some(match signal {
                Signal::Metrics => Self::Metric,
                Signal::Logs => Self::LogRecord,
                Signal::Traces => Self::Span,
            }),
            (Self::Metric, 5) => Some(Self::Data(Points::Gauge)),
            (Self::Metric, 7) => Some(Self::Data(Points::Sum)),
            (Self::Metric, 9) => Some(Self::Data(Points::Histogram)),
            (Self::Metric, 10) => Some(Self::Data(Points::Exponential)),
            (Self::Metric, 11) => Some(Self::Data(Points::Summary)),
            (Self::Data(points), 1) => Some(Self::Point(points)),
            _ => None,
        }
    }

    /// Whether this field is one of the [common](Self::common) ones.
    #[inline(always)]
    pub(super) fn is_common(self, field: u32) -> bool {
        match self {
            Self::Resource | Self::Scope => field == 3,
            Self::Metric => matches!(field, 1 | 2 | 3 | 12),
            _ => false,
        }
    }

    /// The holder of its attributes, if that is a message in its field 1: the resource, or the scope.
    pub fn owner(self) -> Option<Holder> {
        match self {
            Self::Resource => Some(Holder { field: 1, key: "resource" }),
            Self::Scope => Some(Holder { field: 3, key: "scope" }),
            _ => None,
        }
    }

    /// The item as a holder of attributes.
    pub fn holder(self) -> Option<Holder> {
        let field = match self {
            Self::Point(points) => points.attributes(),
            Self::LogRecord => 6,
            Self::Span => 9,
            _ => return None,
        };
        Some(Holder { field, key: "" })
    }

    /// The fields that belong to the message as a whole and hold bytes, with their keys in JSON. Its numbers, known or
    /// not, belong to it in any case.
    pub(super) fn common(self) -> &'static [(u32, &'static str)] {
        match self {
            Self::Resource | Self::Scope => &[(3, "schemaUrl")],
            Self::Metric => &[(1, "name"), (2, "description"), (3, "unit"), (12, "metadata")],
            _ => &[],
        }
    }
}

/// A message that has attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The field of its attributes.
    pub(super) field: u32,
    /// Its key in JSON, in the message that it belongs to.
    pub(super) key: &'static str,
}

/// A field of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Member<'a> {
    /// A message of the next level.
    Child(Level, &'a [u8]),
    /// The resource of a `Resource…`, or the scope of a `Scope…`.
    Owner(&'a [u8]),
    /// A known field that belongs to the message as a whole.
    Common,
    /// Another field that holds one number.
    Scalar,
    /// An unknown field that holds bytes or a group.
    Other,
}
