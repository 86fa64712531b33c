//! Remote Write 1.0 for prost, written down from Prometheus' prompb/remote.proto and prompb/types.proto: the
//! oracle that the scanner is held against. It knows what the specification knows, and no more.

use prost::Message;

/// A request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteRequest {
    /// What it is about.
    #[prost(message, repeated, tag = "1")]
    pub(crate) timeseries: Vec<TimeSeries>,
    /// What is known of the metrics.
    #[prost(message, repeated, tag = "3")]
    pub(crate) metadata: Vec<MetricMetadata>,
}

/// A series with some of its samples.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimeSeries {
    /// What names it.
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<Label>,
    /// Its values.
    #[prost(message, repeated, tag = "2")]
    pub(crate) samples: Vec<Sample>,
    /// What points at traces.
    #[prost(message, repeated, tag = "3")]
    pub(crate) exemplars: Vec<Exemplar>,
    /// Its native histograms.
    #[prost(message, repeated, tag = "4")]
    pub(crate) histograms: Vec<Histogram>,
}

/// A name and a value.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Label {
    /// The name.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// A value at a time.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sample {
    /// The value: a NaN of one bit pattern marks a series as stale.
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub(crate) timestamp: i64,
}

/// A value that points at a trace.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exemplar {
    /// The trace.
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<Label>,
    /// The value.
    #[prost(double, tag = "2")]
    pub(crate) value: f64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub(crate) timestamp: i64,
}

/// A native histogram, with the fields of integer ones.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Histogram {
    /// Observations.
    #[prost(uint64, tag = "1")]
    pub(crate) count_int: u64,
    /// Their sum.
    #[prost(double, tag = "3")]
    pub(crate) sum: f64,
    /// Resolution.
    #[prost(sint32, tag = "4")]
    pub(crate) schema: i32,
    /// Width of the bucket at zero.
    #[prost(double, tag = "5")]
    pub(crate) zero_threshold: f64,
    /// Runs of buckets.
    #[prost(message, repeated, tag = "11")]
    pub(crate) positive_spans: Vec<BucketSpan>,
    /// What the buckets hold, as differences.
    #[prost(sint64, repeated, tag = "12")]
    pub(crate) positive_deltas: Vec<i64>,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "15")]
    pub(crate) timestamp: i64,
}

/// A run of buckets.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BucketSpan {
    /// Gap in front.
    #[prost(sint32, tag = "1")]
    pub(crate) offset: i32,
    /// How many.
    #[prost(uint32, tag = "2")]
    pub(crate) length: u32,
}

/// What is known of a metric.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricMetadata {
    /// Counter, gauge and so on.
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    /// Its name.
    #[prost(string, tag = "2")]
    pub(crate) metric_family_name: String,
    /// What it tells.
    #[prost(string, tag = "4")]
    pub(crate) help: String,
    /// In what.
    #[prost(string, tag = "5")]
    pub(crate) unit: String,
}
