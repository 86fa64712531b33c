//! Remote Write 1.0 for prost, written down from Prometheus' prompb/remote.proto and prompb/types.proto: the
//! oracle that the scanner is held against. It knows what the specification knows, and no more.

use prost::Message;

/// A request.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// What it is about.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    /// What is known of the metrics.
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<MetricMetadata>,
}

/// A series with some of its samples.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// What names it.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Its values.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// What points at traces.
    #[prost(message, repeated, tag = "3")]
    pub exemplars: Vec<Exemplar>,
    /// Its native histograms.
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<Histogram>,
}

/// A name and a value.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A value at a time.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// The value: a NaN of one bit pattern marks a series as stale.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// A value that points at a trace.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    /// The trace.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// The value.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// A native histogram, with the fields of integer ones.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Observations.
    #[prost(uint64, tag = "1")]
    pub count_int: u64,
    /// Their sum.
    #[prost(double, tag = "3")]
    pub sum: f64,
    /// Resolution.
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    /// Width of the bucket at zero.
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    /// Runs of buckets.
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    /// What the buckets hold, as differences.
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
}

/// A run of buckets.
#[derive(Clone, PartialEq, Message)]
pub struct BucketSpan {
    /// Gap in front.
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    /// How many.
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// What is known of a metric.
#[derive(Clone, PartialEq, Message)]
pub struct MetricMetadata {
    /// Counter, gauge and so on.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// Its name.
    #[prost(string, tag = "2")]
    pub metric_family_name: String,
    /// What it tells.
    #[prost(string, tag = "4")]
    pub help: String,
    /// In what.
    #[prost(string, tag = "5")]
    pub unit: String,
}
