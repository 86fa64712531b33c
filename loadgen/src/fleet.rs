//! Bodies that look like what a Kubernetes fleet sends, built once and before anything is measured.
//!
//! Constraints that shaped it:
//! - The same seed gives the same bytes, so that two servers can be put through the same work.
//! - Tenants are spread as scrape jobs spread them: consecutive series of one target share a tenant. (A tenant drawn
//!   per series would be the worst case for a splitter and is nobody's case; `run_length: 1` gives it.)
//! - Each body brings its sums along, tenant by tenant, so that counting what was acknowledged costs an addition.
//!
//! Within a body, targets are dealt to tenants by systematic sampling: one random offset, then equal steps over the
//! tenants' weights. So a body holds each tenant in proportion, to within one target, and when there are more
//! tenants than targets the next body takes others.

use std::collections::HashMap;
use std::thread;

use bytes::Bytes;
use prost::Message;

use crate::account::{Tally, walk};
use crate::catalogue::{APPS, CLUSTERS, MORE_LABELS, Metric, metrics};
use crate::proto::{Label, Sample, TimeSeries, WriteRequest, deflate};
use crate::random::Random;

/// Fewest labels of a series: name, tenant, pod, and what tells a family's series apart.
pub const LABELS_MIN: usize = 4;

/// How far apart two bodies of a sender are in time, and two samples of a series: a usual scrape interval.
const SCRAPE_INTERVAL_MS: u64 = 15_000;

/// The timestamp of the first body, unless told otherwise: fixed, so that the bytes are.
const TIMESTAMP_MS: i64 = 1_764_000_000_000;

/// What to build.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Same seed (and same rest), same bytes.
    pub seed: u64,
    /// How many senders; each has bodies, a cluster and pods of its own.
    pub senders: usize,
    /// Bodies for each sender, which it sends in turn.
    pub bodies_per_sender: usize,
    /// Series in a body.
    pub series: usize,
    /// Labels of a series, name and tenant among them; at least [`LABELS_MIN`].
    pub labels: usize,
    /// Samples of a series in one body; Prometheus sends 1 while it keeps up.
    pub samples: usize,
    /// Tenants, and each one's share of the targets relative to the others.
    pub tenants: Vec<(String, u32)>,
    /// Consecutive series that share a target, and so a tenant.
    pub run_length: usize,
    /// Name of the label that names the tenant.
    pub tenant_label: String,
    /// Milliseconds since the epoch of the first body's samples.
    pub timestamp_ms: i64,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            senders: 8,
            bodies_per_sender: 4,
            series: 2000,
            labels: 9,
            samples: 1,
            tenants: numbered_tenants(10),
            run_length: 20,
            tenant_label: "__tenant__".to_owned(),
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
    /// A snappy block.
    pub block: Bytes,
    /// What it inflates to.
    pub inflated_bytes: usize,
    /// What it holds: the tenant's index in [`Fleet::tenants`] and its sums; ascending, each tenant once.
    pub shares: Vec<(usize, Tally)>,
}

/// All bodies of all senders.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The tenants' names.
    pub tenants: Vec<String>,
    /// Each sender's bodies.
    pub senders: Vec<Vec<Body>>,
}

/// A [`FleetConfig`] that cannot be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FleetError(&'static str);

impl FleetConfig {
    fn check(&self) -> Result<(), FleetError> {
        let faults = [
            (self.labels < LABELS_MIN, "a series needs at least 4 labels"),
            (self.series == 0, "a body needs at least one series"),
            (self.run_length == 0, "a run has at least one series"),
            (self.senders == 0 || self.bodies_per_sender == 0, "there must be a sender with a body"),
            (!self.tenants.iter().any(|&(_, weight)| weight > 0), "there must be a tenant with a weight"),
        ];
        faults.into_iter().find(|(fault, _)| *fault).map_or(Ok(()), |(_, why)| Err(FleetError(why)))
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
        let metrics = metrics();
        let mut senders: Vec<Vec<Body>> = Vec::new();
        senders.resize_with(config.senders, Vec::new);
        thread::scope(|scope| {
            for (chunk, bodies) in senders.chunks_mut(config.senders.div_ceil(threads)).enumerate() {
                let first = chunk * config.senders.div_ceil(threads);
                let metrics = &metrics;
                scope.spawn(move || {
                    for (offset, bodies) in bodies.iter_mut().enumerate() {
                        *bodies = Sender::new(config, metrics, first + offset).bodies();
                    }
                });
            }
        });
        Ok(Self { tenants: config.tenants.iter().map(|(name, _)| name.clone()).collect(), senders })
    }
}

/// Builds the bodies of one sender.
struct Sender<'a> {
    config: &'a FleetConfig,
    metrics: &'a [Metric],
    random: Random,
    cluster: Bytes,
    /// Counts pods, so that no two series of a fleet are the same.
    pods: u64,
    /// Which of the /16 networks this sender's pods live in.
    network: usize,
    tenant_names: Vec<Bytes>,
    tenant_label: Bytes,
}

/// What all series of one run have in common.
struct Target {
    tenant: Bytes,
    labels: Vec<Label>,
    timestamp: i64,
    /// Where in the catalogue its scrape starts.
    metric: usize,
}

impl<'a> Sender<'a> {
    fn new(config: &'a FleetConfig, metrics: &'a [Metric], index: usize) -> Self {
        let cluster = CLUSTERS.get(index % CLUSTERS.len()).copied().unwrap_or_default();
        Self {
            config,
            metrics,
            random: Random::new(config.seed, index as u64),
            cluster: Bytes::from_static(cluster.as_bytes()),
            pods: 0,
            network: index,
            tenant_names: config.tenants.iter().map(|(name, _)| Bytes::from(name.clone())).collect(),
            tenant_label: Bytes::from(config.tenant_label.clone()),
        }
    }

    fn bodies(mut self) -> Vec<Body> {
        let index: HashMap<Bytes, usize> =
            self.tenant_names.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        let mut offset = self.random.unit();
        (0..self.config.bodies_per_sender)
            .map(|body| {
                // Steps of the golden ratio reach every place between two steps of the sampling soon.
                offset = (offset + 0.618_033_988_749_895).fract();
                let scraped = i64::try_from(body as u64 * SCRAPE_INTERVAL_MS).unwrap_or_default();
                let request = self.request(offset, self.config.timestamp_ms.saturating_add(scraped));
                self.body(&request, &index)
            })
            .collect()
    }

    fn request(&mut self, offset: f64, timestamp: i64) -> WriteRequest {
        let run_length = self.config.run_length;
        let mut tenants = self.deal(self.config.series.div_ceil(run_length), offset);
        self.random.shuffle(&mut tenants);
        let mut timeseries = Vec::with_capacity(self.config.series);
        for tenant in tenants {
            let run = run_length.min(self.config.series - timeseries.len());
            let mut target = self.target(tenant, timestamp);
            for nth in 0..run {
                // A run longer than the catalogue goes on in another pod, lest a series come twice.
                if nth > 0 && nth % self.metrics.len() == 0 {
                    target = self.target(tenant, timestamp);
                }
                timeseries.push(self.series(&target, nth));
            }
        }
        WriteRequest { timeseries, metadata: Vec::new() }
    }

    /// The tenants of `targets` targets, by systematic sampling over the weights.
    #[expect(clippy::cast_precision_loss, reason = "weights and counts are far below 2^53")]
    fn deal(&self, targets: usize, offset: f64) -> Vec<usize> {
        let total: f64 = self.config.tenants.iter().map(|&(_, weight)| f64::from(weight)).sum();
        let step = total / targets as f64;
        let mut dealt = Vec::with_capacity(targets);
        let mut end = 0.0;
        for (tenant, &(_, weight)) in self.config.tenants.iter().enumerate() {
            end += f64::from(weight);
            while dealt.len() < targets && (dealt.len() as f64 + offset) * step < end {
                dealt.push(tenant);
            }
        }
        dealt
    }

    /// A pod, with the labels that its scrape job gives to everything that it exports.
    fn target(&mut self, tenant: usize, timestamp: i64) -> Target {
        let random = &mut self.random;
        let pod = self.pods;
        self.pods += 1;
        let app = random.pick(APPS).copied().unwrap_or_default();
        let tenant = self.tenant_names.get(tenant).cloned().unwrap_or_default();
        let label =
            |name: &'static str, value: Bytes| Label { name: Bytes::from_static(name.as_bytes()), value };
        let replica_set = random.next() & 0xff_ffff;
        let mut labels = vec![
            label("pod", format!("{app}-{replica_set:06x}-{:02x}{pod:04x}", self.network).into()),
            label("namespace", tenant.clone()),
            label(
                "instance",
                format!("10.{}.{}.{}:8080", self.network % 256, pod / 250 % 256, pod % 250).into(),
            ),
            label("job", Bytes::from_static(app.as_bytes())),
            label("cluster", self.cluster.clone()),
            label("container", Bytes::from_static(app.as_bytes())),
            label("node", format!("worker-{:03}", random.below(200)).into()),
        ];
        let wanted = self.config.labels - 2;
        for (name, values) in MORE_LABELS.iter().take(wanted.saturating_sub(labels.len())) {
            let value = random.pick(values).copied().unwrap_or_default();
            labels.push(label(name, Bytes::from_static(value.as_bytes())));
        }
        while labels.len() < wanted {
            let name = Bytes::from(format!("annotation_{:02}", labels.len()));
            labels.push(Label { name, value: format!("value-{:02}", random.below(100)).into() });
        }
        let jitter = i64::try_from(random.below(SCRAPE_INTERVAL_MS)).unwrap_or_default();
        let metric = random.index(self.metrics.len());
        Target { tenant, labels, timestamp: timestamp.saturating_add(jitter), metric }
    }

    /// The `nth` series of a target, labels sorted as Prometheus sorts them.
    fn series(&mut self, target: &Target, nth: usize) -> TimeSeries {
        let mut labels = Vec::with_capacity(self.config.labels);
        let mut samples = Vec::with_capacity(self.config.samples);
        if let Some(metric) = self.metrics.get((target.metric + nth) % self.metrics.len()) {
            labels.push(Label { name: Bytes::from_static(b"__name__"), value: metric.name.clone() });
            labels.push(Label { name: self.tenant_label.clone(), value: target.tenant.clone() });
            labels.extend(metric.variant.clone().map(|(name, value)| Label { name, value }));
            let room = self.config.labels - labels.len();
            labels.extend(target.labels.iter().take(room).cloned());
            labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let mut timestamp = target.timestamp;
            samples.resize_with(self.config.samples, || {
                let sample = Sample { value: metric.values.draw(&mut self.random), timestamp };
                timestamp = timestamp.saturating_add_unsigned(SCRAPE_INTERVAL_MS);
                sample
            });
        }
        TimeSeries { labels, samples, ..TimeSeries::default() }
    }

    fn body(&self, request: &WriteRequest, index: &HashMap<Bytes, usize>) -> Body {
        let inflated = request.encode_to_vec();
        let mut sums: HashMap<usize, Tally> = HashMap::new();
        let walked = walk(&inflated, &[&self.tenant_label], |series| {
            if let Some(&tenant) = series.tenant.and_then(|name| index.get(name)) {
                *sums.entry(tenant).or_default() += series.tally;
            }
        });
        debug_assert!(walked.is_ok(), "what prost encodes can be walked");
        let mut shares: Vec<(usize, Tally)> = sums.into_iter().collect();
        shares.sort_unstable_by_key(|&(tenant, _)| tenant);
        Body { block: deflate(&inflated), inflated_bytes: inflated.len(), shares }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn small() -> FleetConfig {
        FleetConfig { senders: 3, bodies_per_sender: 2, series: 500, ..FleetConfig::default() }
    }

    fn decoded(body: &Body) -> WriteRequest {
        WriteRequest::from_block(&body.block).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_gives_others() {
        let blocks = |config: &FleetConfig| -> Vec<Bytes> {
            Fleet::build(config).unwrap().senders.into_iter().flatten().map(|body| body.block).collect()
        };
        let all = blocks(&small());
        assert_eq!(all.len(), 6);
        assert_eq!(all, blocks(&small()));
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 6, "each body is another");
        assert_ne!(all, blocks(&FleetConfig { seed: 2, ..small() }));
    }

    #[test]
    fn series_are_distinct_sorted_and_of_the_size_asked_for() {
        for labels in [LABELS_MIN, 9, 30] {
            let fleet = Fleet::build(&FleetConfig { labels, samples: 2, ..small() }).unwrap();
            let mut seen = HashSet::new();
            for body in fleet.senders.iter().flatten() {
                let request = decoded(body);
                assert_eq!(request.timeseries.len(), 500);
                for series in request.timeseries {
                    assert_eq!(series.labels.len(), labels);
                    assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "{series:?}");
                    assert_eq!(series.samples.len(), 2);
                    assert!(series.label("__name__").is_some() && series.label("__tenant__").is_some());
                    assert!(seen.insert(series.labels), "a series came twice");
                }
            }
        }
    }

    #[test]
    fn a_series_is_of_ordinary_size() {
        let fleet = Fleet::build(&small()).unwrap();
        let bytes: usize = fleet.senders.iter().flatten().map(|body| body.inflated_bytes).sum();
        let mean = bytes / (6 * 500);
        assert!((230..=270).contains(&mean), "{mean} bytes a series");
    }

    #[test]
    fn shares_are_what_the_body_holds() {
        let fleet = Fleet::build(&small()).unwrap();
        for body in fleet.senders.iter().flatten() {
            let request = decoded(body);
            let mut total = Tally::default();
            for &(tenant, tally) in &body.shares {
                let name = fleet.tenants[tenant].as_bytes();
                let own = request.timeseries.iter().filter(|series| series.label("__tenant__") == Some(name));
                assert_eq!(tally.series, own.count() as u64);
                assert_ne!(tally.checksum, 0);
                total += tally;
            }
            assert_eq!((total.series, total.samples), (500, 500));
        }
    }

    #[test]
    fn tenants_come_in_runs_and_in_proportion() {
        let tenants = vec![("big".to_owned(), 6), ("middle".to_owned(), 3), ("small".to_owned(), 1)];
        let fleet = Fleet::build(&FleetConfig { tenants, series: 2000, ..small() }).unwrap();
        for body in fleet.senders.iter().flatten() {
            let series: Vec<u64> = body.shares.iter().map(|(_, tally)| tally.series).collect();
            assert_eq!(series, [1200, 600, 200]);
            let request = decoded(body);
            for run in request.timeseries.chunks(20) {
                let tenant = run[0].label("__tenant__");
                assert!(run.iter().all(|series| series.label("__tenant__") == tenant));
            }
        }
    }

    #[test]
    fn more_tenants_than_targets_take_turns() {
        let config =
            FleetConfig { tenants: numbered_tenants(50), series: 200, bodies_per_sender: 8, ..small() };
        let fleet = Fleet::build(&config).unwrap();
        let seen: HashSet<usize> = fleet
            .senders
            .iter()
            .flatten()
            .flat_map(|body| body.shares.iter().map(|&(tenant, _)| tenant))
            .collect();
        assert!(seen.len() > 45, "{} of 50 tenants", seen.len());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for config in [
            FleetConfig { tenants: vec![], ..small() },
            FleetConfig { series: 0, ..small() },
            FleetConfig { labels: 3, ..small() },
            FleetConfig { run_length: 0, ..small() },
            FleetConfig { senders: 0, ..small() },
        ] {
            assert!(Fleet::build(&config).is_err(), "{config:?}");
        }
    }
}
