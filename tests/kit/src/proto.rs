//! Remote Write 1.0 as Prometheus defines it (`prompb/remote.proto` and `prompb/types.proto`), for prost.
//!
//! The messages are written by hand: they are one page, and need no protoc. A `string` of Prometheus is `Bytes` here.
//! The wire format is the same, nothing has to be UTF-8, and decoding from `Bytes` copies nothing.

use bytes::Bytes;
use prost::{Enumeration, Message, Oneof};

/// `prometheus.WriteRequest`. Field 2 is reserved.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// The series, each with its samples.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    /// What is known about metric families; Prometheus sends it in requests of its own.
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<MetricMetadata>,
}

/// `prometheus.TimeSeries`: labels sorted by name, and what was measured under them.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Name and labels of the series.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Float samples, oldest first.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Exemplars.
    #[prost(message, repeated, tag = "3")]
    pub exemplars: Vec<Exemplar>,
    /// Native histograms.
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<Histogram>,
}

/// `prometheus.Label`.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Label {
    /// The label's name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// The label's value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `prometheus.Sample`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// The value; a stale marker is a NaN with the bits 0x7ff0000000000002.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// `prometheus.Exemplar`.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    /// Labels of the exemplar, usually a trace ID.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// The value.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// `prometheus.Histogram`: a native histogram, with integer or with float counts. In Remote Write 2.0 it has one more
/// field.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// How many observations.
    #[prost(oneof = "HistogramCount", tags = "1, 2")]
    pub count: Option<HistogramCount>,
    /// Sum of the observations.
    #[prost(double, tag = "3")]
    pub sum: f64,
    /// Resolution, -4 to 8, or -53 for custom buckets.
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    /// Breadth of the zero bucket.
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    #[prost(oneof = "HistogramZeroCount", tags = "6, 7")]
    pub zero_count: Option<HistogramZeroCount>,
    /// Spans of negative buckets.
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<BucketSpan>,
    /// Counts of negative buckets, each as the difference to the one before.
    #[prost(sint64, repeated, tag = "9")]
    pub negative_deltas: Vec<i64>,
    /// Counts of negative buckets of a float histogram.
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    /// Spans of positive buckets.
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    /// Counts of positive buckets, each as the difference to the one before.
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    /// Counts of positive buckets of a float histogram.
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    /// Whether the counter was reset before this histogram.
    #[prost(enumeration = "ResetHint", tag = "14")]
    pub reset_hint: i32,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    /// Bucket bounds of a histogram with custom buckets.
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
    /// When it began to count, in milliseconds since the epoch; 0 if not known. Only Remote Write 2.0 has this field.
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}

/// The count of a [`Histogram`].
#[derive(Clone, Copy, PartialEq, Oneof)]
pub enum HistogramCount {
    /// Of an integer histogram.
    #[prost(uint64, tag = "1")]
    Int(u64),
    /// Of a float histogram.
    #[prost(double, tag = "2")]
    Float(f64),
}

/// The zero bucket's count of a [`Histogram`].
#[derive(Clone, Copy, PartialEq, Oneof)]
pub enum HistogramZeroCount {
    /// Of an integer histogram.
    #[prost(uint64, tag = "6")]
    Int(u64),
    /// Of a float histogram.
    #[prost(double, tag = "7")]
    Float(f64),
}

/// `prometheus.BucketSpan`: so many consecutive buckets, after a gap.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct BucketSpan {
    /// Gap to the span before, or the first bucket's index.
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    /// How many buckets.
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// `prometheus.Histogram.ResetHint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum ResetHint {
    /// The receiver has to find out.
    Unknown = 0,
    /// It was reset.
    Yes = 1,
    /// It was not.
    No = 2,
    /// A gauge histogram, which is never reset.
    Gauge = 3,
}

/// `prometheus.MetricMetadata`. Field 3 does not exist.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MetricMetadata {
    /// Type of the metric.
    #[prost(enumeration = "MetricType", tag = "1")]
    pub r#type: i32,
    /// The family that this describes.
    #[prost(bytes = "bytes", tag = "2")]
    pub metric_family_name: Bytes,
    /// Its help text.
    #[prost(bytes = "bytes", tag = "4")]
    pub help: Bytes,
    /// Its unit.
    #[prost(bytes = "bytes", tag = "5")]
    pub unit: Bytes,
}

/// `prometheus.MetricMetadata.MetricType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum MetricType {
    /// Not said.
    Unknown = 0,
    /// Counter.
    Counter = 1,
    /// Gauge.
    Gauge = 2,
    /// Histogram, classic or native.
    Histogram = 3,
    /// Gauge histogram (OpenMetrics).
    GaugeHistogram = 4,
    /// Summary.
    Summary = 5,
    /// Info (OpenMetrics).
    Info = 6,
    /// State set (OpenMetrics).
    StateSet = 7,
}

/// Why a block is no write request.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Not a snappy block.
    #[error("snappy: {0}")]
    Snappy(#[from] snap::Error),
    /// The block's own length is over the limit.
    #[error("inflates to {declared} bytes, more than {limit}")]
    TooLarge {
        /// What the block says.
        declared: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Not a protobuf message, or not this one.
    #[error("protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

/// What a block may inflate to. A test may go past the server's own limit, which is 64 MiB.
pub const INFLATED_BYTES_MAX: usize = 256 << 20;

impl WriteRequest {
    /// The request as a snappy block: the body of a remote-write POST.
    #[must_use]
    pub fn to_block(&self) -> Bytes {
        deflate(&self.encode_to_vec())
    }

    /// Reads a snappy block.
    ///
    /// # Errors
    /// When it does not inflate, inflates to more than [`INFLATED_BYTES_MAX`], or is not a `WriteRequest`.
    pub fn from_block(block: &[u8]) -> Result<Self, BlockError> {
        read_block(block)
    }
}

impl TimeSeries {
    /// A series with these labels, in this order, and these `(timestamp in ms, value)` samples.
    #[must_use]
    pub fn new(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Self {
        Self {
            labels: labels.iter().map(|(name, value)| Label::new(name, value)).collect(),
            samples: samples.iter().map(|&(timestamp, value)| Sample { value, timestamp }).collect(),
            ..Self::default()
        }
    }

    /// The value of the first label of this name.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&[u8]> {
        self.labels.iter().find(|label| label.name == name.as_bytes()).map(|label| &label.value[..])
    }
}

impl Label {
    /// A label of copied strings.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            name: Bytes::copy_from_slice(name.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
        }
    }
}

/// Any bytes as a snappy block.
#[must_use]
pub fn deflate(bytes: &[u8]) -> Bytes {
    // This fails only past 4 GiB, the limit of the format.
    Bytes::from(snap::raw::Encoder::new().compress_vec(bytes).unwrap_or_default())
}

/// Reads the message in a snappy block.
///
/// # Errors
/// When the block does not inflate, inflates to more than [`INFLATED_BYTES_MAX`], or is no such message.
pub(crate) fn read_block<M: Message + Default>(block: &[u8]) -> Result<M, BlockError> {
    let mut inflated = Vec::new();
    inflate(block, &mut inflated)?;
    Ok(M::decode(Bytes::from(inflated))?)
}

/// Inflates a block into `out`. This overwrites the old content and keeps the memory.
///
/// # Errors
/// When it is not a snappy block, or inflates to more than [`INFLATED_BYTES_MAX`].
pub fn inflate(block: &[u8], out: &mut Vec<u8>) -> Result<(), BlockError> {
    let declared = snap::raw::decompress_len(block)?;
    if declared > INFLATED_BYTES_MAX {
        return Err(BlockError::TooLarge { declared, limit: INFLATED_BYTES_MAX });
    }
    out.resize(declared, 0);
    let written = snap::raw::Decoder::new().decompress(block, out)?;
    out.truncate(written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field numbers, written out as the bytes that Prometheus sends.
    #[test]
    fn the_wire_is_prometheus_wire() {
        let request = WriteRequest {
            timeseries: vec![TimeSeries {
                labels: vec![Label::new("a", "b")],
                samples: vec![Sample { value: 1.0, timestamp: 5 }],
                exemplars: vec![Exemplar { labels: vec![], value: 0.0, timestamp: 7 }],
                histograms: vec![Histogram {
                    count: Some(HistogramCount::Int(0)),
                    zero_count: Some(HistogramZeroCount::Float(0.0)),
                    positive_spans: vec![BucketSpan { offset: -1, length: 2 }],
                    positive_deltas: vec![-2, 3],
                    reset_hint: ResetHint::Gauge as i32,
                    timestamp: 9,
                    ..Histogram::default()
                }],
            }],
            metadata: vec![MetricMetadata {
                r#type: MetricType::StateSet as i32,
                metric_family_name: Bytes::from_static(b"f"),
                help: Bytes::from_static(b"h"),
                unit: Bytes::from_static(b"u"),
            }],
        };
        let series: &[u8] = &[
            0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b', // label
            0x12, 11, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 5, // sample
            0x1a, 2, 0x18, 7, // exemplar
            0x22, 25, 0x08, 0, 0x39, 0, 0, 0, 0, 0, 0, 0, 0, // histogram: count_int, zero_count_float
            0x5a, 4, 0x08, 1, 0x10, 2, // positive span
            0x62, 2, 3, 6, // positive deltas, packed zigzag
            0x70, 3, 0x78, 9, // reset hint, timestamp
        ];
        let mut expected = vec![0x0a, u8::try_from(series.len()).unwrap()];
        expected.extend_from_slice(series);
        expected.extend_from_slice(&[0x1a, 11, 0x08, 7, 0x12, 1, b'f', 0x22, 1, b'h', 0x2a, 1, b'u']);
        assert_eq!(request.encode_to_vec(), expected);
        assert_eq!(WriteRequest::from_block(&request.to_block()).unwrap(), request);
    }

    #[test]
    fn a_block_that_claims_too_much_is_refused_before_memory_is_taken() {
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert!(matches!(WriteRequest::from_block(&bomb), Err(BlockError::TooLarge { .. })));
        assert!(matches!(WriteRequest::from_block(b""), Ok(_) | Err(BlockError::Snappy(_))));
        assert!(matches!(WriteRequest::from_block(&deflate(&[0x0a, 5, 1])), Err(BlockError::Protobuf(_))));
    }
}
