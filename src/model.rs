//! The data types of a push: protocols, parts and their outcomes.
//!
//! All layers exchange these types, so this module is below all of them and imports none.
#![forbid(unsafe_code)]

mod failure;
mod outcome;
mod upstream;

pub use failure::Failure;
pub(crate) use outcome::cut;
pub use outcome::{Answer, Fate, Outcome, Source, Via, Written, blames_content};
pub use upstream::{PerUpstream, UpstreamId};

use bytes::Bytes;

use crate::tenant::TenantId;

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
}

impl Protocol {
    /// Returns the destination of its requests.
    pub fn destination(self) -> Destination {
        match self {
            Self::RemoteWriteV1 | Self::RemoteWriteV2 => Destination::Metrics,
            Self::Loki | Self::LokiJson => Destination::Logs,
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
            Self::Loki | Self::LokiJson => "Content-Type: application/x-protobuf\r\n",
        }
    }

    /// Whether its answers report how much was written. Only Remote Write 2.0 specifies that; other answers must not.
    pub fn reports_written(self) -> bool {
        match self {
            Self::RemoteWriteV2 => true,
            Self::RemoteWriteV1 | Self::Loki | Self::LokiJson => false,
        }
    }

    /// Returns the protocol of the parts of a request in this one.
    pub(crate) fn for_parts(self, remote_write_v2: V2Handling) -> Self {
        match self {
            Self::RemoteWriteV1 => self,
            Self::RemoteWriteV2 if remote_write_v2 == V2Handling::Downgrade => Self::RemoteWriteV1,
            Self::RemoteWriteV2 => self,
            Self::Loki | Self::LokiJson => Self::Loki,
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
}

impl Destination {
    /// All destinations, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Logs];

    /// The name of the destination, as labels of metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// One value for each [`Destination`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerDestination<T>([T; Destination::ALL.len()]);

impl<T> PerDestination<T> {
    /// Creates the value of each destination with `make`.
    pub fn new(make: impl FnMut(Destination) -> T) -> Self {
        Self(Destination::ALL.map(make))
    }

    /// Returns the value of `destination`.
    pub fn of(&self, destination: Destination) -> &T {
        let [metrics, logs] = &self.0;
        match destination {
            Destination::Metrics => metrics,
            Destination::Logs => logs,
        }
    }

    /// Returns the value of `destination`, to change it.
    pub fn of_mut(&mut self, destination: Destination) -> &mut T {
        let [metrics, logs] = &mut self.0;
        match destination {
            Destination::Metrics => metrics,
            Destination::Logs => logs,
        }
    }

    /// Iterates over the values, in the order of [`Destination::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

/// The setting for Remote Write 1.0 metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataRule {
    /// Metadata is dropped.
    Drop,
    /// See [`Metadata::ToDefault`](crate::split::Metadata::ToDefault).
    ToDefault,
    /// See [`Metadata::Route`](crate::split::Metadata::Route).
    Route,
}

/// The labels by which an upstream distinguishes the replicas of a highly available sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HaLabels {
    /// The label that names the group of replicas: `cluster` by default in Mimir and Cortex.
    pub cluster: Box<[u8]>,
    /// The label that names the replica within it: `__replica__` by default.
    pub replica: Box<[u8]>,
}

/// Series and streams of a request that are not forwarded, because they have no usable tenant or are dropped.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RefusedSeries {
    /// Series without a tenant, and streams with such entries.
    pub missing: u64,
    /// Series with an invalid tenant ID, and streams with such entries.
    pub invalid: u64,
    /// Series and entries of tenants that the sender may not write to.
    pub denied: u64,
    /// The samples, histograms and entries of `missing`, `invalid` and `denied`.
    pub samples: u64,
    /// The error of the first series in `missing`, `invalid` or `denied`.
    pub example: Option<String>,
    /// Series and streams that the tenant map drops. That is no error, so the answer does not mention them.
    pub dropped: u64,
    /// The samples, histograms and entries of `dropped`.
    pub dropped_samples: u64,
}

impl RefusedSeries {
    /// Returns the number of series that are not forwarded, for any reason.
    pub fn series(&self) -> u64 {
        self.missing + self.invalid + self.denied + self.dropped
    }
}

/// The part of a request that goes to one tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The tenant.
    pub tenant: TenantId,
    /// The protocol of `elements`.
    pub protocol: Protocol,
    /// A snappy block without its length prefix. Parts are merged by concatenating their elements after a prefix with
    /// the sum of their lengths. Those in Remote Write 2.0 are merged by a [`Merger`](crate::split::Merger); the elements
    /// of small ones are [stored](crate::wire::snappy::stored), not compressed, until they are sent.
    pub elements: Bytes,
    /// The size of the inflated elements: the length prefix that `elements` lacks.
    pub inflated_bytes: u32,
    /// Number of series or streams; 0 if the part holds only metadata. A stream with entries of several tenants counts
    /// for each of them.
    pub series: u32,
    /// Number of their samples and histograms, or of their entries.
    pub samples: u32,
    /// Number of the histograms among `samples`. Counted only for requests in Remote Write 2.0, whose senders hear how
    /// many were written.
    pub histograms: u32,
    /// Number of exemplars. Counted as `histograms` are.
    pub exemplars: u32,
    /// Decides which parts of the same tenant it may share a request with.
    pub merge: MergeKey,
}

/// Parts of a tenant may share a request if their keys are equal and not `Alone`; see [`Self::merges_with`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MergeKey {
    /// The part shares no request. It has content that belongs to its request as a whole, such as fields that would
    /// also apply to other parts.
    Alone,
    /// The HA replica of the first series. Upstreams read it there and apply it to the whole request.
    Ha(Option<Box<HaReplica>>),
}

impl MergeKey {
    /// Returns the key of a part whose first series has these label values. If either is empty, there is no replica.
    pub(crate) fn replica(cluster: &[u8], replica: &[u8]) -> Self {
        if cluster.is_empty() || replica.is_empty() {
            return Self::Ha(None);
        }
        Self::Ha(Some(Box::new(HaReplica { cluster: cluster.into(), replica: replica.into() })))
    }

    /// Whether two parts of the same tenant may share a request.
    pub fn merges_with(&self, other: &Self) -> bool {
        !matches!(self, Self::Alone) && self == other
    }
}

/// One replica of a highly available sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HaReplica {
    /// The value of the cluster label.
    pub cluster: Box<[u8]>,
    /// The value of the replica label.
    pub replica: Box<[u8]>,
}

/// Limits of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SplitLimits {
    /// Maximum size of its inflated body.
    pub inflated_bytes_max: usize,
    /// Maximum number of distinct tenants in it.
    pub tenants_max: usize,
}
