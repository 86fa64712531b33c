//! The nouns of a push: what comes in, the parts that go out, and what became of them.
//!
//! Every layer speaks of these, and each speaks to the next in them; so they stand below all of them and know none.
#![forbid(unsafe_code)]

mod failure;
mod outcome;

pub use failure::Failure;
pub(crate) use outcome::cut;
pub use outcome::{Answer, Fate, Outcome, Source, Written, blames_content};

use bytes::Bytes;

use crate::tenant::TenantId;

/// What a request's body says, and in which words. Its parts go on in the same, unless [`V2Handling`] says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// `prometheus.WriteRequest` (prometheus.io, "Remote-Write 1.0 specification").
    RemoteWriteV1,
    /// `io.prometheus.write.v2.Request` (prometheus.io, "Remote-Write 2.0 specification").
    RemoteWriteV2,
    /// `logproto.PushRequest` (grafana/loki, pkg/push/push.proto). Its series are streams, its samples entries.
    Loki,
    /// The same as JSON (Grafana Loki's HTTP API, "Ingest logs"). Parts go on as [`Self::Loki`].
    LokiJson,
}

impl Protocol {
    /// Where it goes.
    pub fn destination(self) -> Destination {
        match self {
            Self::RemoteWriteV1 | Self::RemoteWriteV2 => Destination::Metrics,
            Self::Loki | Self::LokiJson => Destination::Logs,
        }
    }

    /// Whether its senders are told how much was written; where the specification doesn't have it, they must not be.
    pub fn tells_written(self) -> bool {
        match self {
            Self::RemoteWriteV2 => true,
            Self::RemoteWriteV1 | Self::Loki | Self::LokiJson => false,
        }
    }

    /// In which words the parts of such a request go on.
    pub(crate) fn of_parts(self, remote_write_v2: V2Handling) -> Self {
        match self {
            Self::RemoteWriteV1 => self,
            Self::RemoteWriteV2 if remote_write_v2 == V2Handling::Downgrade => Self::RemoteWriteV1,
            Self::RemoteWriteV2 => self,
            Self::Loki | Self::LokiJson => Self::Loki,
        }
    }
}

/// In which words a Remote Write 2.0 request goes on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum V2Handling {
    /// In its own.
    #[default]
    Pass,
    /// In those of Remote Write 1.0, for upstreams that know no other. What they cannot say is [`Lost`].
    Downgrade,
}

/// An upstream of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Series: the setting `target`.
    Metrics,
    /// Loki's streams: the setting `target_loki`.
    Logs,
}

impl Destination {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Logs];
}

/// One of something for each [`Destination`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerDestination<T>([T; Destination::ALL.len()]);

impl<T> PerDestination<T> {
    /// Makes one for each.
    pub fn new(make: impl FnMut(Destination) -> T) -> Self {
        Self(Destination::ALL.map(make))
    }

    /// The one for `destination`.
    pub fn of(&self, destination: Destination) -> &T {
        let [metrics, logs] = &self.0;
        match destination {
            Destination::Metrics => metrics,
            Destination::Logs => logs,
        }
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

/// What is to become of metadata, as it is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataRule {
    /// It is dropped.
    Drop,
    /// See [`Metadata::ToDefault`].
    ToDefault,
    /// See [`Metadata::Route`].
    Route,
}

/// The labels by which an upstream tells the replicas of a highly available sender apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HaLabels {
    /// Names the group of replicas: `cluster` by default in Mimir and Cortex.
    pub cluster: Box<[u8]>,
    /// Names the replica within it: `__replica__` by default.
    pub replica: Box<[u8]>,
}

/// Series left out because they have no tenant that they could go to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RefusedSeries {
    /// Series without a tenant, and streams with entries without one.
    pub missing: u64,
    /// Series whose tenant ID is invalid, and streams with entries of which it is.
    pub invalid: u64,
    /// The samples, histograms and entries of both.
    pub samples: u64,
    /// Why, for the first of them.
    pub example: Option<String>,
    /// Series and streams that the tenants' map leaves out. That is no fault: nobody is told.
    pub dropped: u64,
    /// The samples, histograms and entries of those.
    pub dropped_samples: u64,
}

impl RefusedSeries {
    /// Series left out, for whatever reason.
    pub fn series(&self) -> u64 {
        self.missing + self.invalid + self.dropped
    }
}

/// What goes to one tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// To whom.
    pub tenant: TenantId,
    /// What it says.
    pub protocol: Protocol,
    /// A snappy block without its length: parts merge by putting elements behind the sum of their lengths.
    pub elements: Bytes,
    /// That length: what the elements inflate to.
    pub inflated_bytes: u32,
    /// Series or streams in it; none when it is metadata only. A stream with entries of many tenants counts for each.
    pub series: u32,
    /// Their samples and histograms, or their entries.
    pub samples: u32,
    /// The histograms among them, and exemplars: counted where Remote Write 2.0 goes on as 1.0, whose receivers don't.
    pub histograms: u32,
    /// See there.
    pub exemplars: u32,
    /// With which parts of the same tenant it may share a request.
    pub merge: MergeKey,
}

/// Parts of a tenant may share a request when their keys are equal, and neither is `Alone`:
/// see [`Self::merges_with`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MergeKey {
    /// It carries fields for the request as a whole, which would apply to others.
    Alone,
    /// The replica that the first series names: upstreams read it there and apply it to the whole request.
    Ha(Option<Box<HaReplica>>),
}

impl MergeKey {
    /// The key of a part whose first series names this pair, of which either half may be missing.
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
    /// Value of the cluster label.
    pub cluster: Box<[u8]>,
    /// Value of the replica label.
    pub replica: Box<[u8]>,
}

/// Bounds of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SplitLimits {
    /// What its body may inflate to.
    pub inflated_bytes_max: usize,
    /// Distinct tenants in it.
    pub tenants_max: usize,
}
