//! Bodies that look like what a Kubernetes fleet sends, built once and before anything is measured.
//!
//! Constraints that shaped it:
//! - The same seed gives the same bytes, so that two servers can be put through the same work.
//! - Tenants are spread as scrape jobs spread them: consecutive series of one target share a tenant. (A tenant drawn
//!   per series would be the worst case for a splitter and is not realistic; `run_length: 1` gives it.)
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
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Parser;

use crate::account::Tally;
use crate::catalogue;
use crate::proto::WriteRequest;
use crate::typed::{count, share, tenants};

pub use format::Format;
pub use spread::Distribution;

use sender::{Catalogue, Sender};

/// Fewest labels of a series: name, tenant, pod, and what tells a family's series apart.
pub const LABELS_MIN: usize = 4;

/// Fewest labels of a series of an HA pair, which have the cluster and the replica besides.
pub const LABELS_MIN_HA: usize = 6;

/// Tenants and their weights. (An alias, since clap takes a bare `Vec` for an option that may be repeated.)
pub type Tenants = Vec<(String, u32)>;

/// What the bodies look like. The default has the defaults of the command line.
#[derive(Clone, Debug, Parser)]
#[command(next_help_heading = "What is sent")]
pub struct FleetConfig {
    /// Senders, each with a connection of its own and one request in flight
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count(65_535))]
    pub senders: usize,
    /// How bodies are written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Series in a request
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = count(10_000_000))]
    pub series: usize,
    /// Labels of a series, name and tenant among them; at least 4, or 6 with --ha-pairs
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = count(65_535))]
    pub labels: usize,
    /// Samples of a series in one request; more than 1 as from an agent that catches up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(65_535))]
    pub samples: usize,
    /// Share of the series whose pod is new in each further body
    ///
    /// At 1, each body is of targets of its own. Below it a sender keeps its targets and their tenants, and a share of
    /// their pods is replaced, as in a rollout.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share)]
    pub churn: f64,
    /// Share of the series that are native histograms instead of floats
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub histograms: f64,
    /// Share of the series that carry an exemplar with a trace ID
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub exemplars: f64,
    /// Senders are pairs: two Prometheus with the same targets, told apart by `__replica__`
    #[arg(long)]
    pub ha_pairs: bool,
    /// Every Nth request of a sender is metadata only; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub metadata_every: u32,
    /// Tenants: a number, or names with weights as in `payments:5,search:2`
    #[arg(long, default_value = "10", value_parser = tenants)]
    pub tenants: Tenants,
    /// How series are spread over tenants: uniform, zipf[:EXPONENT], one-giant[:SHARE]
    ///
    /// uniform: by the tenants' weights, which are equal unless given. zipf: the larger the rank the fewer, with
    /// exponent 1 unless given. one-giant: the first has the share, 0.9 unless given, and the others have the rest.
    #[arg(long, value_name = "HOW", default_value = "uniform")]
    pub distribution: Distribution,
    /// Consecutive series that share a target, and so a tenant
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = count(u64::MAX))]
    pub run_length: usize,
    /// Name of the tenant's label; one that targets have anyway, such as `namespace`, takes its place
    #[arg(long, value_name = "NAME", default_value = "__tenant__")]
    pub tenant_label: String,
    /// Different bodies of each sender, which it sends in turn
    #[arg(long = "bodies", value_name = "N", default_value_t = 4, value_parser = count(65_535))]
    pub bodies_per_sender: usize,
    /// Same seed and timestamp, same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// When the first samples were taken, in milliseconds since the epoch; now, if not given
    #[arg(long = "timestamp", value_name = "MS")]
    pub timestamp_ms: Option<i64>,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self::parse_from(["fleet"])
    }
}

/// `count` tenants of equal weight: `team-000`, `team-001`, …
pub fn numbered_tenants(count: usize) -> Tenants {
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
    /// Metadata, and of how many requests of a sender one is this; None if it is not sent.
    pub metadata: Option<(u32, Body)>,
}

/// A [`FleetConfig`] that cannot be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FleetError(&'static str);

impl FleetConfig {
    /// What options say together; each alone was checked when it was parsed.
    fn check(&self) -> Result<(), FleetError> {
        let native = self.histograms > 0.0 || self.exemplars > 0.0;
        let faults = [
            (
                native && !self.format.has_histograms(),
                "only remote write has native histograms and exemplars here",
            ),
            (
                self.metadata_every > 0 && !self.format.has_metadata_requests(),
                "only 1.0 has requests of metadata",
            ),
            (self.labels < LABELS_MIN, "a series needs at least 4 labels"),
            (self.ha_pairs && self.labels < LABELS_MIN_HA, "a series of an HA pair needs at least 6 labels"),
            (self.ha_pairs && !self.senders.is_multiple_of(2), "HA pairs need an even number of senders"),
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
    /// When options contradict each other, or there are too few labels.
    pub fn build(config: &FleetConfig) -> Result<Self, FleetError> {
        config.check()?;
        let threads = thread::available_parallelism().map_or(1, usize::from).min(config.senders);
        let catalogue = Catalogue::new();
        let weights = config.distribution.weights(&config.tenants);
        let timestamp_ms = config.timestamp_ms.unwrap_or_else(now_ms);
        let mut senders: Vec<Vec<Body>> = Vec::new();
        senders.resize_with(config.senders, Vec::new);
        thread::scope(|scope| {
            for (chunk, bodies) in senders.chunks_mut(config.senders.div_ceil(threads)).enumerate() {
                let first = chunk * config.senders.div_ceil(threads);
                let (catalogue, weights) = (&catalogue, &weights);
                scope.spawn(move || {
                    for (offset, bodies) in bodies.iter_mut().enumerate() {
                        *bodies =
                            Sender::new(config, catalogue, weights, first + offset).bodies(timestamp_ms);
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

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// One body for all senders: what a family means does not depend on its scraper.
fn metadata(config: &FleetConfig) -> Option<(u32, Body)> {
    if config.metadata_every == 0 {
        return None;
    }
    let request = WriteRequest { timeseries: Vec::new(), metadata: catalogue::metadata() };
    let (inflated, block) = config.format.encode(&request);
    let body = Body { block, inflated_bytes: inflated.len(), shares: Vec::new() };
    Some((config.metadata_every, body))
}
