//! Remote Write 2.0 as Prometheus defines it (`prompb/io/prometheus/write/v2/types.proto`), for prost.
//!
//! The messages are written by hand and have `Bytes` for `string`, for the reasons that [`crate::proto`] gives.
//! Histograms and metric types are shared with Remote Write 1.0.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;

pub use crate::proto::Histogram;
use crate::proto::{self, BlockError, MetricType};

/// `io.prometheus.write.v2.Request`. Fields 1 to 3 are reserved: Remote Write 1.0 has them.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// All strings of the request, each once; the first is empty.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub symbols: Vec<Bytes>,
    /// The series, each with its samples.
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeries>,
}

/// `io.prometheus.write.v2.TimeSeries`.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Names and values of the labels, in turn, as indexes of [`Request::symbols`].
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// Float samples, oldest first.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Native histograms.
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<Histogram>,
    /// Exemplars.
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<Exemplar>,
    /// What is known about the series' metric family.
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata>,
    /// Milliseconds since the epoch. Newer senders set the start timestamps of samples and histograms instead.
    #[prost(int64, tag = "6")]
    pub created_timestamp: i64,
}

/// `io.prometheus.write.v2.Sample`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// The value; a stale marker is a NaN with the bits 0x7ff0000000000002.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    /// When the counter began to count, in milliseconds since the epoch; 0 if not known.
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

/// `io.prometheus.write.v2.Exemplar`.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    /// Labels of the exemplar, usually a trace ID, as indexes of [`Request::symbols`].
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// The value.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// `io.prometheus.write.v2.Metadata`. Field 2 does not exist.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Metadata {
    /// Type of the metric.
    #[prost(enumeration = "MetricType", tag = "1")]
    pub r#type: i32,
    /// Its help text, as an index of [`Request::symbols`].
    #[prost(uint32, tag = "3")]
    pub help_ref: u32,
    /// Its unit, as an index of [`Request::symbols`].
    #[prost(uint32, tag = "4")]
    pub unit_ref: u32,
}

impl Request {
    /// The request as a snappy block: the body of a remote-write POST.
    #[must_use]
    pub fn to_block(&self) -> Bytes {
        proto::deflate(&self.encode_to_vec())
    }

    /// Reads a snappy block.
    ///
    /// # Errors
    /// When it does not inflate, inflates to more than [`proto::INFLATED_BYTES_MAX`], or is no `Request`.
    pub fn from_block(block: &[u8]) -> Result<Self, BlockError> {
        proto::read_block(block)
    }

    /// The symbol at `reference`, if there is one.
    #[must_use]
    pub fn symbol(&self, reference: u32) -> Option<&Bytes> {
        self.symbols.get(reference as usize)
    }

    /// The names and values that references stand for. `None` if one is out of range or a name has no value.
    #[must_use]
    pub fn labels(&self, references: &[u32]) -> Option<Vec<(Bytes, Bytes)>> {
        let pairs = references.chunks(2).map(|pair| match *pair {
            [name, value] => Some((self.symbol(name)?.clone(), self.symbol(value)?.clone())),
            _ => None,
        });
        pairs.collect()
    }
}

/// Collects the symbols of a request, each once, in the order in which they come.
#[derive(Debug)]
pub struct SymbolTable {
    symbols: Vec<Bytes>,
    places: HashMap<Bytes, u32>,
}

impl Default for SymbolTable {
    fn default() -> Self {
        Self { symbols: vec![Bytes::new()], places: HashMap::from([(Bytes::new(), 0)]) }
    }
}

impl SymbolTable {
    /// The index of a symbol, which is added if it is not there yet. A table has at most `u32::MAX` of them.
    pub fn reference(&mut self, symbol: impl Into<Bytes>) -> u32 {
        let symbol = symbol.into();
        let next = u32::try_from(self.symbols.len()).unwrap_or(u32::MAX);
        *self.places.entry(symbol).or_insert_with_key(|symbol| {
            self.symbols.push(symbol.clone());
            next
        })
    }

    /// References to the names and values of labels.
    pub fn references<T: Into<Bytes>>(&mut self, labels: impl IntoIterator<Item = (T, T)>) -> Vec<u32> {
        let mut references = Vec::new();
        for (name, value) in labels {
            references.extend([self.reference(name), self.reference(value)]);
        }
        references
    }

    /// All symbols, for [`Request::symbols`].
    #[must_use]
    pub fn into_symbols(self) -> Vec<Bytes> {
        self.symbols
    }
}

/// Translates a request of Remote Write 1.0. Metadata is dropped, as in 1.0 it belongs to no series.
impl From<&proto::WriteRequest> for Request {
    fn from(request: &proto::WriteRequest) -> Self {
        let mut table = SymbolTable::default();
        let timeseries =
            request.timeseries.iter().map(|series| TimeSeries::upgraded(series, &mut table)).collect();
        Self { symbols: table.into_symbols(), timeseries }
    }
}

impl TimeSeries {
    fn upgraded(series: &proto::TimeSeries, table: &mut SymbolTable) -> Self {
        let mut references = |labels: &[proto::Label]| {
            table.references(labels.iter().map(|label| (label.name.clone(), label.value.clone())))
        };
        let sample = |&proto::Sample { value, timestamp }| Sample { value, timestamp, start_timestamp: 0 };
        Self {
            labels_refs: references(&series.labels),
            samples: series.samples.iter().map(sample).collect(),
            histograms: series.histograms.clone(),
            exemplars: series
                .exemplars
                .iter()
                .map(|exemplar| Exemplar {
                    labels_refs: references(&exemplar.labels),
                    value: exemplar.value,
                    timestamp: exemplar.timestamp,
                })
                .collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field numbers, written out as the bytes that Prometheus sends.
    #[test]
    fn the_wire_is_prometheus_wire() {
        let request = Request {
            symbols: vec![Bytes::new(), Bytes::from_static(b"a")],
            timeseries: vec![TimeSeries {
                labels_refs: vec![1, 300],
                samples: vec![Sample { value: 1.0, timestamp: 5, start_timestamp: 4 }],
                histograms: vec![Histogram { schema: -53, start_timestamp: 3, ..Histogram::default() }],
                exemplars: vec![Exemplar { labels_refs: vec![1], value: 0.0, timestamp: 7 }],
                metadata: Some(Metadata { r#type: MetricType::StateSet as i32, help_ref: 1, unit_ref: 2 }),
                created_timestamp: 9,
            }],
        };
        let series: &[u8] = &[
            0x0a, 3, 1, 0xac, 0x02, // references, packed
            0x12, 13, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 5, 0x18, 4, // sample
            0x1a, 5, 0x20, 105, 0x88, 1, 3, // histogram: schema, zigzag; start timestamp
            0x22, 5, 0x0a, 1, 1, 0x18, 7, // exemplar
            0x2a, 6, 0x08, 7, 0x18, 1, 0x20, 2, // metadata
            0x30, 9, // created timestamp
        ];
        let mut expected = vec![0x22, 0, 0x22, 1, b'a', 0x2a, u8::try_from(series.len()).unwrap()];
        expected.extend_from_slice(series);
        assert_eq!(request.encode_to_vec(), expected);
        assert_eq!(Request::from_block(&request.to_block()).unwrap(), request);
    }

    #[test]
    fn an_upgrade_says_the_same_with_each_string_once() {
        let label = |name: &str, value: &str| proto::Label::new(name, value);
        let exemplar = proto::Exemplar { labels: vec![label("trace", "up")], value: 1.5, timestamp: 6 };
        let series = proto::TimeSeries {
            exemplars: vec![exemplar],
            histograms: vec![proto::Histogram { sum: 2.5, ..proto::Histogram::default() }],
            ..proto::TimeSeries::new(&[("__name__", "up"), ("job", "up"), ("empty", "")], &[(5, 1.0)])
        };
        let request = proto::WriteRequest { timeseries: vec![series.clone(), series], metadata: Vec::new() };
        let upgraded = Request::from(&request);
        let symbols: Vec<_> = upgraded.symbols.iter().map(|symbol| &symbol[..]).collect();
        assert_eq!(symbols, [&b""[..], b"__name__", b"up", b"job", b"empty", b"trace"]);
        let [first, second] = &upgraded.timeseries[..] else { panic!("two series") };
        assert_eq!(first, second);
        assert_eq!(first.labels_refs, [1, 2, 3, 2, 4, 0]);
        assert_eq!(first.samples, [Sample { value: 1.0, timestamp: 5, start_timestamp: 0 }]);
        assert_eq!(first.histograms[0].sum, 2.5);
        assert_eq!(first.exemplars, [Exemplar { labels_refs: vec![5, 2], value: 1.5, timestamp: 6 }]);
        assert_eq!(upgraded.labels(&first.labels_refs).unwrap()[1], ("job".into(), "up".into()));
        assert_eq!(upgraded.labels(&[1]), None);
        assert_eq!(upgraded.labels(&[1, 6]), None);
    }
}
