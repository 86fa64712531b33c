//! Bodies that look like what a Kubernetes fleet sends, built once and before anything is measured.
//!
//! Constraints that shaped it:
//! - The same seed gives the same bytes, so that two servers can be put through the same work.
//! - Tenants are spread as scrape jobs spread them: consecutive series of one target share a tenant. (A tenant drawn
//!   per series would be the worst case for a splitter and is nobody's case; `run_length: 1` gives it.)
//! - Each body brings its sums along, tenant by tenant, so that counting what was acknowledged costs an addition.
//!
//! ```text
//! spread: whose series ─► sender: targets ─► their series (native: histograms, exemplars) ─► format ─► Body
//! ```
//!
//! Within a body, targets are dealt to tenants by systematic sampling: one random offset, then equal steps over the
//! tenants' weights. So a body holds each tenant in proportion, to within one target, and when there are more
//! tenants than targets the next body takes others (unless its targets are those of the body before: see
//! [`FleetConfig::churn`]).

mod format;
mod native;
mod sender;
mod spread;

#[cfg(test)]
mod tests;

use std::thread;

use bytes::Bytes;

use crate::account::Tally;
use crate::catalogue;
use crate::proto::WriteRequest;

pub use format::{Format, UnknownFormat};
pub use spread::Distribution;

use sender::{Catalogue, Sender};
use spread::is_share;

/// Fewest labels of a series: name, tenant, pod, and what tells a family's series apart.
pub const LABELS_MIN: usize = 4;

/// Fewest labels of a series of an HA pair, which have the cluster and the replica besides.
pub const LABELS_MIN_HA: usize = 6;

/// The timestamp of the first body, unless told otherwise: fixed, so that the bytes are.
const TIMESTAMP_MS: i64 = 1_764_000_000_000;

/// What to build.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Same seed (and same rest), same bytes.
    pub seed: u64,
    /// How bodies are written.
    pub format: Format,
    /// How many senders; each has bodies, a cluster and pods of its own.
    pub senders: usize,
    /// Bodies for each sender, which it sends in turn.
    pub bodies_per_sender: usize,
    /// Series in a body.
    pub series: usize,
    /// Labels of a series, name and tenant among them; at least [`LABELS_MIN`], or [`LABELS_MIN_HA`] with `ha_pairs`.
    pub labels: usize,
    /// Samples of a series in one body; Prometheus sends 1 while it keeps up, an agent that catches up sends more.
    pub samples: usize,
    /// Share of the series, from 0 to 1, that are of a new pod in each further body of a sender. 1: every body is of
    /// pods that no other has. Below 1 a sender keeps its targets, with their tenants, and a share of the pods is
    /// replaced, as in a deployment that is rolled out.
    pub churn: f64,
    /// Tenants, and each one's share of the targets relative to the others.
    pub tenants: Vec<(String, u32)>,
    /// How the targets are spread over the tenants.
    pub distribution: Distribution,
    /// Consecutive series that share a target, and so a tenant.
    pub run_length: usize,
    /// Name of the label that names the tenant. One that targets have anyway, such as `namespace`, takes its place.
    pub tenant_label: String,
    /// Share of the series, from 0 to 1, that are native histograms instead of floats; an eighth of them have float
    /// counts.
    pub histograms: f64,
    /// Share of the series, from 0 to 1, that carry an exemplar with a `trace_id` in each body.
    pub exemplars: f64,
    /// Senders are pairs: two Prometheus that scrape the same targets, and whose series differ in `__replica__` only.
    pub ha_pairs: bool,
    /// One of so many requests of a sender is metadata and nothing else; 0 for none. Prometheus sends it once a minute.
    pub metadata_every: u32,
    /// Milliseconds since the epoch of the first body's samples.
    pub timestamp_ms: i64,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            format: Format::default(),
            senders: 8,
            bodies_per_sender: 4,
            series: 2000,
            labels: 9,
            samples: 1,
            churn: 1.0,
            tenants: numbered_tenants(10),
            distribution: Distribution::default(),
            run_length: 20,
            tenant_label: "__tenant__".to_owned(),
            histograms: 0.0,
            exemplars: 0.0,
            ha_pairs: false,
            metadata_every: 0,
            timestamp_ms: TIMESTAMP_MS,
        }
    }
}

/// `count` tenants of equal weight: `team-000`, `team-001`, …
#[must_use]
pub fn numbered_tenants(count: usize) -> Vec<(String, u32)> {
    (0..count).map(|index| (format!("team-{index:03}"), 1)).collect()
}

/// One request's body, ready to be sent.
#[derive(Clone, Debug)]
pub struct Body {
    /// As it is sent, compressed.
    pub block: Bytes,
    /// What it inflates to.
    pub inflated_bytes: usize,
    /// What it holds: the tenant's index in [`Fleet::tenants`] and its sums; ascending, each tenant once.
    pub shares: Vec<(usize, Tally)>,
    /// Metadata entries in it. A body has either these or series.
    pub metadata: u64,
}

/// The metadata that senders send now and then.
#[derive(Clone, Debug)]
pub struct MetadataTurn {
    /// One of so many requests of a sender is this; at least 1.
    pub every: u32,
    /// The request's body.
    pub body: Body,
}

/// All bodies of all senders.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// How the bodies are written.
    pub format: Format,
    /// The tenants' names.
    pub tenants: Vec<String>,
    /// Each sender's bodies.
    pub senders: Vec<Vec<Body>>,
    /// What is sent in between; None for nothing.
    pub metadata: Option<MetadataTurn>,
}

/// A [`FleetConfig`] that cannot be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FleetError(&'static str);

impl FleetConfig {
    fn check(&self) -> Result<(), FleetError> {
        let native = self.histograms > 0.0 || self.exemplars > 0.0;
        let faults = [
            (native && !self.format.has_histograms(), "logs have neither histograms nor exemplars"),
            (
                self.metadata_every > 0 && !self.format.has_metadata_requests(),
                "only 1.0 has requests of metadata",
            ),
            (self.labels < LABELS_MIN, "a series needs at least 4 labels"),
            (self.ha_pairs && self.labels < LABELS_MIN_HA, "a series of an HA pair needs at least 6 labels"),
            (self.ha_pairs && !self.senders.is_multiple_of(2), "HA pairs need an even number of senders"),
            (self.series == 0, "a body needs at least one series"),
            (self.run_length == 0, "a run has at least one series"),
            (self.senders == 0 || self.bodies_per_sender == 0, "there must be a sender with a body"),
            (!self.tenants.iter().any(|&(_, weight)| weight > 0), "there must be a tenant with a weight"),
            (!self.distribution.is_sound(), "a share is from 0 to 1, and an exponent is not below 0"),
            (!is_share(self.churn), "the share of churn is from 0 to 1"),
            (!is_share(self.histograms), "the share of native histograms is from 0 to 1"),
            (!is_share(self.exemplars), "the share of exemplars is from 0 to 1"),
            (self.tenant_label_is_taken(), "series have a label of the tenant label's name, and need it"),
        ];
        faults.into_iter().find(|(fault, _)| *fault).map_or(Ok(()), |(_, why)| Err(FleetError(why)))
    }

    /// Whether the tenant's label has the name of one without which series could not be told apart.
    fn tenant_label_is_taken(&self) -> bool {
        let name = self.tenant_label.as_str();
        let is_variant = || catalogue::variant_labels().any(|variant| variant == name);
        matches!(name, "" | "__name__" | "pod")
            || (self.ha_pairs && matches!(name, "cluster" | "__replica__"))
            || name.starts_with("annotation_")
            || is_variant()
    }
}

impl Fleet {
    /// Builds all bodies, on as many threads as there are cores.
    ///
    /// # Errors
    /// When the configuration is of something that cannot be: no series, no tenant, too few labels.
    pub fn build(config: &FleetConfig) -> Result<Self, FleetError> {
        config.check()?;
        let threads = thread::available_parallelism().map_or(1, usize::from).min(config.senders);
        let catalogue = Catalogue::new();
        let weights = config.distribution.weights(&config.tenants);
        let mut senders: Vec<Vec<Body>> = Vec::new();
        senders.resize_with(config.senders, Vec::new);
        thread::scope(|scope| {
            for (chunk, bodies) in senders.chunks_mut(config.senders.div_ceil(threads)).enumerate() {
                let first = chunk * config.senders.div_ceil(threads);
                let (catalogue, weights) = (&catalogue, &weights);
                scope.spawn(move || {
                    for (offset, bodies) in bodies.iter_mut().enumerate() {
                        *bodies = Sender::new(config, catalogue, weights, first + offset).bodies();
                    }
                });
            }
        });
        Ok(Self {
            format: config.format,
            tenants: config.tenants.iter().map(|(name, _)| name.clone()).collect(),
            senders,
            metadata: metadata(config),
        })
    }
}

/// One body for all senders: what a family means does not depend on who scraped it.
fn metadata(config: &FleetConfig) -> Option<MetadataTurn> {
    if config.metadata_every == 0 {
        return None;
    }
    let request = WriteRequest { timeseries: Vec::new(), metadata: catalogue::metadata() };
    let (inflated, block) = config.format.encode(&request);
    let body = Body {
        block,
        inflated_bytes: inflated.len(),
        shares: Vec::new(),
        metadata: request.metadata.len() as u64,
    };
    Some(MetadataTurn { every: config.metadata_every, body })
}
