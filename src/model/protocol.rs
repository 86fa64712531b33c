//! Protocols, and the destinations of what they carry.
#![forbid(unsafe_code)]

use super::{Notation, Signal};

/// The protocol of a request's body. Its parts keep it, unless [`V2Handling`] says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// `prometheus.WriteRequest` (prometheus.io, "Remote-Write 1.0 specification").
    RemoteWriteV1,
    /// `io.prometheus.write.v2.Request` (prometheus.io, "Remote-Write 2.0 specification").
    RemoteWriteV2,
    /// `logproto.PushRequest` (grafana/loki, pkg/push/push.proto). Streams count as series, entries as samples.
    Loki,
    /// A Loki push as JSON (Grafana Loki's HTTP API, "Ingest logs"). Its parts are forwarded as [`Self::Loki`].
    LokiJson,
    /// An export (open-telemetry/opentelemetry-proto). Resources count as series; data points, log records and spans as
    /// samples.
    Otlp(Signal),
    /// An export as JSON. Its parts stay JSON.
    OtlpJson(Signal),
}

impl Protocol {
    /// All protocols, in the order of their [numbers](Self::number).
    pub const ALL: [Self; 10] = [
        Self::RemoteWriteV1,
        Self::RemoteWriteV2,
        Self::Loki,
        Self::LokiJson,
        Self::Otlp(Signal::Metrics),
        Self::Otlp(Signal::Logs),
        Self::Otlp(Signal::Traces),
        Self::OtlpJson(Signal::Metrics),
        Self::OtlpJson(Signal::Logs),
        Self::OtlpJson(Signal::Traces),
    ];

    /// Its number, from 1. It never changes: files have it.
    pub fn number(self) -> u8 {
        match self {
            Self::RemoteWriteV1 => 1,
            Self::RemoteWriteV2 => 2,
            Self::Loki => 3,
            Self::LokiJson => 4,
            Self::Otlp(signal) => 5 + signal as u8,
            Self::OtlpJson(signal) => 8 + signal as u8,
        }
    }

    /// The signal and the notation of an export; `None` for other protocols.
    pub fn export(self) -> Option<(Signal, Notation)> {
        match self {
            Self::Otlp(signal) => Some((signal, Notation::Protobuf)),
            Self::OtlpJson(signal) => Some((signal, Notation::Json)),
            _ => None,
        }
    }

    /// Returns the destination of its requests.
    pub fn destination(self) -> Destination {
        match self {
            Self::RemoteWriteV1 | Self::RemoteWriteV2 => Destination::Metrics,
            Self::Loki | Self::LokiJson => Destination::Logs,
            Self::Otlp(signal) | Self::OtlpJson(signal) => Destination::of_signal(signal),
        }
    }

    /// The header lines that describe the body of a request in it, apart from its compression.
    pub fn content_fields(self) -> &'static str {
        match self {
            Self::RemoteWriteV1 => {
                "Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n"
            }
            Self::RemoteWriteV2 => {
                "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
                 X-Prometheus-Remote-Write-Version: 2.0.0\r\n"
            }
            Self::Loki | Self::LokiJson | Self::Otlp(_) => "Content-Type: application/x-protobuf\r\n",
            Self::OtlpJson(_) => "Content-Type: application/json\r\n",
        }
    }

    /// Whether its answers report how much was written. Only Remote Write 2.0 specifies that; other answers must not.
    pub fn reports_written(self) -> bool {
        match self {
            Self::RemoteWriteV2 => true,
            Self::RemoteWriteV1 | Self::Loki | Self::LokiJson | Self::Otlp(_) | Self::OtlpJson(_) => false,
        }
    }

    /// Returns the protocol of the parts of a request in this one.
    pub(crate) fn for_parts(self, remote_write_v2: V2Handling) -> Self {
        match self {
            Self::RemoteWriteV1 => self,
            Self::RemoteWriteV2 if remote_write_v2 == V2Handling::Downgrade => Self::RemoteWriteV1,
            Self::RemoteWriteV2 => self,
            Self::Loki | Self::LokiJson => Self::Loki,
            Self::Otlp(_) | Self::OtlpJson(_) => self,
        }
    }
}

/// The protocol that a Remote Write 2.0 request is forwarded in.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum V2Handling {
    /// Remote Write 2.0.
    #[default]
    Pass,
    /// Remote Write 1.0, for upstreams that support no other. [`Lost`](crate::split::Lost) counts the data that it
    /// cannot express.
    Downgrade,
}

/// A kind of data with its own upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Destination {
    /// Series: the setting `target`.
    Metrics,
    /// Loki streams: the setting `target_loki`.
    Logs,
    /// Metrics by OTLP: the setting `target_otlp_metrics`.
    OtlpMetrics,
    /// Logs by OTLP: the setting `target_otlp_logs`.
    OtlpLogs,
    /// Traces by OTLP: the setting `target_otlp_traces`.
    OtlpTraces,
}

impl Destination {
    /// All destinations, in the order of their discriminants.
    pub const ALL: [Self; 5] =
        [Self::Metrics, Self::Logs, Self::OtlpMetrics, Self::OtlpLogs, Self::OtlpTraces];

    /// Returns the destination of exports of this signal.
    pub fn of_signal(signal: Signal) -> Self {
        match signal {
            Signal::Metrics => Self::OtlpMetrics,
            Signal::Logs => Self::OtlpLogs,
            Signal::Traces => Self::OtlpTraces,
        }
    }

    /// Returns the signal of what it takes; `None` if that is no OTLP.
    pub fn signal(self) -> Option<Signal> {
        match self {
            Self::Metrics | Self::Logs => None,
            Self::OtlpMetrics => Some(Signal::Metrics),
            Self::OtlpLogs => Some(Signal::Logs),
            Self::OtlpTraces => Some(Signal::Traces),
        }
    }

    /// Returns the destination of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|destination| destination.name() == name)
    }

    /// The setting that names its target.
    pub fn key(self) -> &'static str {
        match self {
            Self::Metrics => "target",
            Self::Logs => "target_loki",
            Self::OtlpMetrics => "target_otlp_metrics",
            Self::OtlpLogs => "target_otlp_logs",
            Self::OtlpTraces => "target_otlp_traces",
        }
    }

    /// The words for a series and for several, and for samples, in texts.
    pub fn nouns(self) -> Nouns {
        let (one, many, samples) = match self {
            Self::Metrics => ("series", "series", "samples"),
            Self::Logs => ("stream", "streams", "entries"),
            Self::OtlpMetrics => ("resource", "resources", "data points"),
            Self::OtlpLogs => ("resource", "resources", "log records"),
            Self::OtlpTraces => ("resource", "resources", "spans"),
        };
        Nouns { one, many, samples }
    }

    /// The name of the destination, as labels of metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::OtlpMetrics => "otlp_metrics",
            Self::OtlpLogs => "otlp_logs",
            Self::OtlpTraces => "otlp_traces",
        }
    }
}

/// The words for the data of a [`Destination`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nouns {
    /// A series, a stream or a resource.
    pub one: &'static str,
    /// Several of them.
    pub many: &'static str,
    /// Samples, entries, data points, log records or spans.
    pub samples: &'static str,
}

/// One value for each [`Destination`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerDestination<T>([T; Destination::ALL.len()]);

impl<T> From<[T; Destination::ALL.len()]> for PerDestination<T> {
    /// The values are in the order of [`Destination::ALL`].
    fn from(values: [T; Destination::ALL.len()]) -> Self {
        Self(values)
    }
}

impl<T> PerDestination<T> {
    /// Creates the value of each destination with `make`.
    pub fn new(make: impl FnMut(Destination) -> T) -> Self {
        Self(Destination::ALL.map(make))
    }

    /// Returns the value of `destination`.
    pub fn of(&self, destination: Destination) -> &T {
        &self.0[destination as usize]
    }

    /// Returns the value of `destination`, to change it.
    pub fn of_mut(&mut self, destination: Destination) -> &mut T {
        &mut self.0[destination as usize]
    }

    /// Iterates over the values, in the order of [`Destination::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}
