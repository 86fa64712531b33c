//! The data types of a push: protocols, parts and their outcomes.
//!
//! All layers exchange these types, so this module is below all of them but the wire formats.
#![forbid(unsafe_code)]

mod failure;
mod outcome;
mod protocol;
mod upstream;

pub use failure::Failure;
pub(crate) use outcome::cut;
pub use outcome::{Answer, Content, Fate, Outcome, Source, Via, Written, blames_content};
pub use protocol::{Destination, Nouns, PerDestination, Protocol, V2Handling};
pub use upstream::{PerUpstream, UpstreamId};

pub use crate::wire::inflate::Compression;
pub use crate::wire::otlp::{Notation, Signal};

use bytes::Bytes;

use crate::tenant::TenantId;

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
    /// the sum of their lengths. Those in Remote Write 2.0 are merged by a [`Merger`](crate::split::Merger); the
    /// elements of small ones are [stored](crate::wire::snappy::stored), not compressed, until they are sent. Parts in
    /// OTLP may have another `coding`. A merger also joins those that are in JSON.
    pub elements: Bytes,
    /// How the elements are coded.
    pub coding: Coding,
    /// The size of the inflated elements: the length prefix that `elements` lacks.
    pub inflated_bytes: u32,
    /// Number of series, streams or resources; 0 if the part holds only metadata. A stream or resource with entries or
    /// items of several tenants counts for each of them.
    pub series: u32,
    /// Number of their samples and histograms, of their entries, or of their data points, log records or spans.
    pub samples: u32,
    /// Number of the histograms among `samples`. Counted only for requests in Remote Write 2.0, whose senders hear how
    /// many were written.
    pub histograms: u32,
    /// Number of exemplars. Counted as `histograms` are.
    pub exemplars: u32,
    /// Decides which parts of the same tenant it may share a request with.
    pub merge: MergeKey,
}

/// How the elements of a part are coded. Only those in OTLP are ever coded other than as snappy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coding {
    /// As they are.
    pub now: Compression,
    /// As they are sent. If it differs, the part may share a request, and is compressed with it before it leaves.
    pub sent: Compression,
}

impl Coding {
    /// The coding of all parts but those in OTLP.
    pub const SNAPPY: Self = Self::of(Compression::Snappy);

    /// The coding of elements that are sent as they are.
    pub const fn of(compression: Compression) -> Self {
        Self { now: compression, sent: compression }
    }
}

/// The setting for the coding of what is sent to an OTLP target.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum TargetCoding {
    /// That of the request that the data came with.
    #[default]
    AsReceived,
    /// Always this one.
    Always(Compression),
}

impl TargetCoding {
    /// The coding for what came as `received`.
    pub fn sent(self, received: Compression) -> Compression {
        match self {
            Self::AsReceived => received,
            Self::Always(compression) => compression,
        }
    }
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
