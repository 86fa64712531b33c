//! Exports of OTLP: targets are resources, and samples are data points, log records or spans.
//!
//! Constraints that shaped it:
//! - Consecutive series of one target are one resource: its attributes are the labels that tell targets apart, the
//!   tenant's among them. The name of a series and the labels that tell the series of a family apart belong to the
//!   item.
//! - The way back puts items that follow each other with the same name and attributes together to one series, with
//!   its labels sorted. So labels have to be sorted, and no two neighbours may be the same series.
//! - Native histograms are left behind. Their spans tell a bucket that is empty from one that does not exist, and the
//!   buckets of an exponential histogram are a row without gaps. Exemplars are left behind, too, as are series without
//!   samples and metadata.

mod logs;
mod metrics;
mod traces;

use std::collections::HashSet;
use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use testkit::proto_otlp::any_value::Value;
use testkit::proto_otlp::{AnyValue, InstrumentationScope, KeyValue, Resource};

use super::Unreadable;
use crate::catalogue;
use crate::proto::{Label, Sample, TimeSeries, WriteRequest};
use crate::stamp::{SENDER_LABEL, SERIES_LABEL, TENANT_LABEL};

/// The label that holds a series' name.
const NAME: &str = "__name__";

/// What an export holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
    /// Spans.
    Traces,
}

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// Protobuf.
    Protobuf,
    /// JSON.
    Json,
}

impl Notation {
    /// What a head calls it.
    pub fn media(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    fn write(self, export: &(impl Message + Serialize)) -> Vec<u8> {
        match self {
            Self::Protobuf => export.encode_to_vec(),
            // What is written here has neither keys that are no texts nor values that JSON lacks.
            Self::Json => serde_json::to_vec(export).unwrap_or_default(),
        }
    }

    fn read<T: Message + Default + DeserializeOwned>(self, bytes: &[u8]) -> Result<T, Unreadable> {
        match self {
            Self::Protobuf => Ok(T::decode(bytes)?),
            Self::Json => Ok(serde_json::from_slice(bytes)?),
        }
    }
}

/// The export that says what a request says of samples.
pub fn to_otlp(signal: Signal, notation: Notation, request: &WriteRequest) -> Vec<u8> {
    let targets = targets(request);
    match signal {
        Signal::Metrics => notation.write(&metrics::export(&targets)),
        Signal::Logs => notation.write(&logs::export(&targets)),
        Signal::Traces => notation.write(&traces::export(&targets)),
    }
}

/// The 1.0 request that an inflated export says, if it was written by [`to_otlp`].
///
/// # Errors
/// See [`Unreadable`].
pub fn from_otlp(signal: Signal, notation: Notation, inflated: &[u8]) -> Result<WriteRequest, Unreadable> {
    let mut reader = Reader::default();
    match signal {
        Signal::Metrics => metrics::read(notation.read(inflated)?, &mut reader)?,
        Signal::Logs => logs::read(notation.read(inflated)?, &mut reader)?,
        Signal::Traces => traces::read(notation.read(inflated)?, &mut reader)?,
    }
    Ok(WriteRequest { timeseries: reader.timeseries, metadata: Vec::new() })
}

/// Whether a label tells the series of one target apart.
fn is_of_item(name: &[u8]) -> bool {
    static NAMES: LazyLock<HashSet<&'static [u8]>> = LazyLock::new(|| {
        let stamps = [NAME, SENDER_LABEL, SERIES_LABEL, TENANT_LABEL];
        let variants = catalogue::variant_labels().filter(|name| !name.is_empty());
        stamps.into_iter().chain(variants).map(str::as_bytes).collect()
    });
    NAMES.contains(name)
}

/// What is scraped at once.
struct Target<'a> {
    labels: Vec<&'a Label>,
    series: Vec<Series<'a>>,
}

/// A series without what its target tells.
struct Series<'a> {
    name: String,
    labels: Vec<&'a Label>,
    samples: &'a [Sample],
}

impl Target<'_> {
    fn resource(&self) -> Option<Resource> {
        Some(Resource { attributes: attributes(&self.labels), ..Resource::default() })
    }
}

fn targets(request: &WriteRequest) -> Vec<Target<'_>> {
    let mut targets: Vec<Target<'_>> = Vec::new();
    for series in request.timeseries.iter().filter(|series| !series.samples.is_empty()) {
        let (of_item, labels): (Vec<&Label>, Vec<&Label>) =
            series.labels.iter().partition(|label| is_of_item(&label.name));
        let (name, of_item): (Vec<&Label>, Vec<&Label>) =
            of_item.into_iter().partition(|label| label.name == NAME);
        let name = name.first().map(|label| text(&label.value)).unwrap_or_default();
        let series = Series { name, labels: of_item, samples: &series.samples };
        match targets.last_mut().filter(|target| target.labels == labels) {
            Some(target) => target.series.push(series),
            None => targets.push(Target { labels, series: vec![series] }),
        }
    }
    targets
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn attributes(labels: &[&Label]) -> Vec<KeyValue> {
    labels.iter().map(|label| KeyValue::text(&text(&label.name), &text(&label.value))).collect()
}

/// What writes all items.
fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "loadgen".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    })
}

/// An error that shows what was found.
fn strange(found: &impl std::fmt::Debug) -> Unreadable {
    Unreadable::Export(format!("{found:?}").chars().take(200).collect())
}

/// Fails if something is not as it is written here.
fn expect(is_ours: bool, found: &impl std::fmt::Debug) -> Result<(), Unreadable> {
    if is_ours { Ok(()) } else { Err(strange(found)) }
}

/// Fails if the scope, or what stands beside it, was not written here.
fn expect_scope(found: Option<&InstrumentationScope>, schema_url: &str) -> Result<(), Unreadable> {
    expect(found == scope().as_ref(), &found)?;
    expect(schema_url.is_empty(), &schema_url)
}

/// Puts items together to series.
#[derive(Default)]
struct Reader {
    timeseries: Vec<TimeSeries>,
    resource: Vec<KeyValue>,
    /// Name and attributes of the series that came last, if it is of this resource.
    last: Option<(String, Vec<KeyValue>)>,
}

impl Reader {
    /// Another resource begins.
    fn resource(&mut self, resource: Option<Resource>, schema_url: &str) -> Result<(), Unreadable> {
        let resource = resource.unwrap_or_default();
        let is_ours = resource.dropped_attributes_count == 0 && resource.entity_refs.is_empty();
        expect(is_ours && schema_url.is_empty(), &resource)?;
        self.resource = resource.attributes;
        self.last = None;
        Ok(())
    }

    /// Another item of this resource.
    fn item(&mut self, name: &str, attributes: Vec<KeyValue>, sample: Sample) -> Result<(), Unreadable> {
        let goes_on = self.last.as_ref().is_some_and(|(last, of)| last == name && *of == attributes);
        if !goes_on {
            let mut labels = vec![Label::new(NAME, name)];
            for pair in self.resource.iter().chain(&attributes) {
                let Some(AnyValue { value: Some(Value::Text(value)) }) = &pair.value else {
                    return Err(strange(pair));
                };
                labels.push(Label::new(&pair.key, value));
            }
            labels.sort_by(|a, b| a.name.cmp(&b.name));
            self.timeseries.push(TimeSeries { labels, ..TimeSeries::default() });
            self.last = Some((name.to_owned(), attributes));
        }
        if let Some(series) = self.timeseries.last_mut() {
            series.samples.push(sample);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use testkit::proto_otlp::{
        ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest,
    };

    use super::super::tests::request;
    use super::*;
    use crate::random::Random;
    use crate::stamp::{SenderId, Stamp};

    const ALL: [(Signal, Notation); 6] = [
        (Signal::Metrics, Notation::Protobuf),
        (Signal::Metrics, Notation::Json),
        (Signal::Logs, Notation::Protobuf),
        (Signal::Logs, Notation::Json),
        (Signal::Traces, Notation::Protobuf),
        (Signal::Traces, Notation::Json),
    ];

    fn floats() -> WriteRequest {
        let mut request = request();
        request.timeseries.retain(|series| !series.samples.is_empty());
        for series in &mut request.timeseries {
            series.exemplars.clear();
        }
        request
    }

    #[test]
    fn otlp_says_of_samples_the_same() {
        let mut request = floats();
        for (series, value) in request.timeseries.iter_mut().zip([
            -0.0,
            1.0 / 3.0,
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::NEG_INFINITY,
            9_007_199_254_740_993.0,
            f64::NAN,
            1e-7,
        ]) {
            series.samples[0].value = value;
        }
        let pod = request.timeseries[9].labels.iter_mut().find(|label| label.name == "pod").unwrap();
        pod.value = Bytes::from_static("a \"quoted\" \\ välue\n\u{1}".as_bytes());
        for (signal, notation) in ALL {
            let same = from_otlp(signal, notation, &to_otlp(signal, notation, &request)).unwrap();
            assert_eq!(same.encode_to_vec(), request.encode_to_vec(), "{signal:?} {notation:?}");
        }
    }

    /// Series with labels, values and times as they may be, but for NaN, of which JSON knows one.
    fn any_request(random: &mut Random) -> WriteRequest {
        let names =
            ["__name__", "code", "instance", "job", "le", SENDER_LABEL, "pod", "quantile", "tenant", "zöne"];
        let mut number = 0;
        let mut series = || {
            // Numbered, as no two neighbours may be the same.
            number += 1;
            let mut labels: Vec<Label> = Vec::new();
            for name in names {
                let value =
                    format!("{}\u{1f980}\"\\{}", random.below(2), ["", "_total", "\n"][random.index(3)]);
                if name == "__name__" || random.below(3) > 0 {
                    labels.push(Label::new(name, &value));
                }
            }
            labels.push(Label::new("loadgen_series", &number.to_string()));
            labels.sort_by(|a, b| a.name.cmp(&b.name));
            let mut sample = |_| {
                let value = f64::from_bits(random.next());
                let timestamp = i64::try_from(random.below(1 << 43)).unwrap();
                Sample { value: if value.is_nan() { 1.5 } else { value }, timestamp }
            };
            let samples = (0..=number % 3).map(&mut sample).collect();
            TimeSeries { labels, samples, ..TimeSeries::default() }
        };
        WriteRequest { timeseries: (0..20).map(|_| series()).collect(), metadata: Vec::new() }
    }

    #[test]
    fn whatever_is_said_comes_back() {
        for seed in 0..200 {
            let request = any_request(&mut Random::new(seed, 0));
            for (signal, notation) in ALL {
                let back = from_otlp(signal, notation, &to_otlp(signal, notation, &request)).unwrap();
                assert_eq!(back, request, "seed {seed}, {signal:?}, {notation:?}");
            }
        }
    }

    #[test]
    fn the_bits_of_a_stale_marker_come_through_or_are_missed() {
        let mut request = floats();
        request.timeseries[0].samples[0].value = f64::from_bits(0x7ff0_0000_0000_0002);
        for (signal, notation) in ALL {
            let back = from_otlp(signal, notation, &to_otlp(signal, notation, &request));
            match (signal, notation) {
                // JSON knows one NaN.
                (Signal::Metrics, Notation::Json) => assert!(matches!(back, Err(Unreadable::Export(_)))),
                _ => assert_eq!(back.unwrap().encode_to_vec(), request.encode_to_vec()),
            }
        }
    }

    #[test]
    fn series_of_a_target_share_its_resource_and_families_their_metric() {
        let stamped = |tenant: &'static str, series| {
            let stamp = Stamp { tenant, sender: SenderId { run: 5, index: 1 }, series, sequence: 7 };
            let mut labels = vec![Label::new(NAME, "stamped"), Label::new("tenant", tenant)];
            labels.extend(stamp.labels().map(|(name, value)| Label::new(name, &value)));
            labels.sort_by(|a, b| a.name.cmp(&b.name));
            let samples = vec![Sample { value: 7.0, timestamp: 12 }];
            TimeSeries { labels, samples, ..TimeSeries::default() }
        };
        let timeseries = vec![stamped("a", 0), stamped("a", 1), stamped("b", 0)];
        let request = WriteRequest { timeseries, metadata: Vec::new() };
        let bytes = to_otlp(Signal::Metrics, Notation::Protobuf, &request);
        let export = ExportMetricsServiceRequest::decode(&bytes[..]).unwrap();
        let resources: Vec<_> = export
            .resource_metrics
            .iter()
            .map(|resource| {
                let [pair] = &resource.resource.as_ref().unwrap().attributes[..] else {
                    panic!("{resource:?}")
                };
                (pair.key.as_str(), pair.name().unwrap(), resource.scope_metrics[0].metrics.len())
            })
            .collect();
        assert_eq!(resources, [("tenant", "a".to_owned(), 1), ("tenant", "b".to_owned(), 1)]);
    }

    #[test]
    fn what_was_changed_is_refused() {
        let request = floats();
        let strange = |signal, bytes: Vec<u8>| {
            let read = from_otlp(signal, Notation::Protobuf, &bytes);
            assert!(matches!(read, Err(Unreadable::Export(_))), "{signal:?}: {read:?}");
        };
        let written = |signal| to_otlp(signal, Notation::Protobuf, &request);

        let logs = ExportLogsServiceRequest::decode(&written(Signal::Logs)[..]).unwrap();
        let changed = |change: fn(&mut ExportLogsServiceRequest)| {
            let mut logs = logs.clone();
            change(&mut logs);
            strange(Signal::Logs, logs.encode_to_vec());
        };
        changed(|logs| logs.resource_logs[1].scope_logs[0].log_records[0].time_unix_nano ^= 1);
        changed(|logs| logs.resource_logs[1].scope_logs[0].log_records[0].body = None);
        changed(|logs| logs.resource_logs[1].scope_logs[0].scope = None);
        changed(|logs| logs.resource_logs[1].schema_url = "x".to_owned());
        changed(|logs| {
            logs.resource_logs[0].resource.as_mut().unwrap().attributes[0] =
                KeyValue::new("a", Value::Number(1));
        });

        let traces = ExportTraceServiceRequest::decode(&written(Signal::Traces)[..]).unwrap();
        let changed = |change: fn(&mut testkit::proto_otlp::Span)| {
            let mut traces = traces.clone();
            change(&mut traces.resource_spans[0].scope_spans[0].spans[0]);
            strange(Signal::Traces, traces.encode_to_vec());
        };
        changed(|span| span.trace_id[3] ^= 1);
        changed(|span| span.trace_id[12] ^= 1);
        changed(|span| span.span_id[0] ^= 1);
        changed(|span| span.start_time_unix_nano ^= 1);
        changed(|span| span.end_time_unix_nano += 1);
        changed(|span| span.kind = 0);

        let metrics = ExportMetricsServiceRequest::decode(&written(Signal::Metrics)[..]).unwrap();
        let changed = |change: fn(&mut testkit::proto_otlp::Metric)| {
            let mut metrics = metrics.clone();
            change(&mut metrics.resource_metrics[0].scope_metrics[0].metrics[0]);
            strange(Signal::Metrics, metrics.encode_to_vec());
        };
        changed(|metric| metric.data = None);
        changed(|metric| metric.unit = "s".to_owned());
        changed(|metric| {
            // A counter is no gauge.
            "a_total".clone_into(&mut metric.name);
            metric.data = Some(testkit::proto_otlp::metric::Data::Gauge(Default::default()));
        });
        assert!(from_otlp(Signal::Logs, Notation::Json, b"{\"resourceLog\":[]}").is_err());
        assert!(from_otlp(Signal::Logs, Notation::Protobuf, b"x").is_err());
    }
}
