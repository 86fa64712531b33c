//! The bodies of one sender: a Prometheus with its targets, scrape after scrape.
//!
//! Three streams of random numbers serve targets, values, and histograms with exemplars. So asking for histograms does
//! not change the targets or the other values. The two senders of an HA pair draw the same numbers.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::native::{exemplar, histogram};
use super::spread::{Portion, deal};
use super::{Body, FleetConfig};
use crate::account::{Tally, walk};
use crate::catalogue::{APPS, CLUSTERS, MORE_LABELS, Metric, Values, metrics, native_metrics};
use crate::proto::{Label, Sample, TimeSeries, WriteRequest};
use crate::random::Random;

/// How far apart two samples of a series are: a usual scrape interval.
const SCRAPE_INTERVAL_MS: u64 = 15_000;

/// What targets export.
pub(super) struct Catalogue {
    floats: Vec<Metric<Values>>,
    natives: Vec<Metric<bool>>,
    apps: Vec<&'static str>,
}

impl Catalogue {
    pub(super) fn new() -> Self {
        Self { floats: metrics(), natives: native_metrics(), apps: APPS.split_whitespace().collect() }
    }
}

/// Builds the bodies of one sender.
pub(super) struct Sender<'a> {
    config: &'a FleetConfig,
    catalogue: &'a Catalogue,
    /// What each tenant weighs.
    weights: &'a [f64],
    /// Draws targets.
    shape: Random,
    /// Draws the values of float series.
    values: Random,
    /// Draws native histograms and exemplars.
    extras: Random,
    cluster: Bytes,
    /// Which of an HA pair this is; None without pairs.
    replica: Option<Bytes>,
    /// Counts pods, so that no two of a fleet have the same name.
    pods: u64,
    /// Which of the /16 networks this sender's pods live in.
    network: usize,
    tenant_names: Vec<Bytes>,
    tenant_label: Bytes,
}

/// A pod that is scraped: what all its series have in common.
struct Target {
    app: &'static str,
    tenant: Bytes,
    /// What its scrape job gives to everything that it exports.
    labels: Vec<Label>,
    /// When it is scraped, within the interval.
    scraped_at_ms: u64,
    /// Where in the catalogue its scrape starts.
    metric: usize,
    /// How many series it exports.
    series: usize,
}

impl<'a> Sender<'a> {
    pub(super) fn new(
        config: &'a FleetConfig,
        catalogue: &'a Catalogue,
        weights: &'a [f64],
        index: usize,
    ) -> Self {
        let (network, replica) = match (config.ha_pairs, index % 2) {
            (false, _) => (index, None),
            (true, 0) => (index / 2, Some(Bytes::from_static(b"a"))),
            (true, _) => (index / 2, Some(Bytes::from_static(b"b"))),
        };
        let random = |kind: u64| Random::new(config.seed, network as u64 | kind << 32);
        Self {
            config,
            catalogue,
            weights,
            shape: random(0),
            values: random(1),
            extras: random(2),
            cluster: cluster(network, config.ha_pairs),
            replica,
            pods: 0,
            network,
            tenant_names: config.tenants.iter().map(|(name, _)| Bytes::from(name.clone())).collect(),
            tenant_label: Bytes::from(config.tenant_label.clone()),
        }
    }

    /// All bodies; `first_ms` is when the first samples were taken.
    pub(super) fn bodies(mut self, first_ms: i64) -> Vec<Body> {
        let index: HashMap<Bytes, usize> =
            self.tenant_names.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        let mut offset = self.shape.unit();
        let mut targets = Vec::new();
        // Where a body ends the next goes on: a series that stays has no timestamp twice.
        let scrapes = (0u64..).step_by(self.config.samples.max(1));
        (0..self.config.bodies_per_sender)
            .zip(scrapes)
            .map(|(body, scrape)| {
                // Steps of the golden ratio reach every place between two steps of the sampling soon.
                offset = (offset + 0.618_033_988_749_895).fract();
                if body == 0 || self.config.churn >= 1.0 {
                    targets = self.targets(offset);
                } else {
                    self.replace_pods(&mut targets);
                }
                let begin = first_ms.saturating_add_unsigned(scrape * SCRAPE_INTERVAL_MS);
                let request = self.request(&targets, begin);
                self.body(&request, &index)
            })
            .collect()
    }

    /// New targets for a whole body, dealt to the tenants.
    fn targets(&mut self, offset: f64) -> Vec<Target> {
        let runs = self.config.series.div_ceil(self.config.run_length);
        let mut tenants = deal(self.weights, runs, offset);
        self.shape.shuffle(&mut tenants);
        let mut targets = Vec::with_capacity(tenants.len());
        let mut series_left = self.config.series;
        for tenant in tenants {
            let mut run = self.config.run_length.min(series_left);
            series_left -= run;
            // A run longer than the catalogue goes on in another pod, lest a series come twice.
            while run > 0 {
                let series = run.min(self.catalogue.floats.len());
                run -= series;
                targets.push(self.target(tenant, series));
            }
        }
        targets
    }

    fn target(&mut self, tenant: usize, series: usize) -> Target {
        let app = self.shape.pick(&self.catalogue.apps).copied().unwrap_or_default();
        let tenant = self.tenant_names.get(tenant).cloned().unwrap_or_default();
        let labels = self.job_labels(app, &tenant);
        Target {
            app,
            tenant,
            labels,
            scraped_at_ms: self.shape.below(SCRAPE_INTERVAL_MS),
            metric: self.shape.index(self.catalogue.floats.len()),
            series,
        }
    }

    /// The labels that a scrape job gives to all series of a new pod, the most needed first.
    fn job_labels(&mut self, app: &'static str, tenant: &Bytes) -> Vec<Label> {
        let wanted = self.config.labels - 2;
        let (pod, instance) = self.pod(app);
        let app = Bytes::from_static(app.as_bytes());
        let mut labels = vec![label("pod", pod), label("cluster", self.cluster.clone())];
        labels.extend(self.replica.clone().map(|replica| label("__replica__", replica)));
        labels.extend([
            label("namespace", tenant.clone()),
            label("instance", instance),
            label("job", app.clone()),
            label("container", app),
            label("node", format!("worker-{:03}", self.shape.below(200)).into()),
        ]);
        let more = labels.len();
        for (name, values) in MORE_LABELS.iter().take(wanted.saturating_sub(more)) {
            let value = self.shape.pick(values).copied().unwrap_or_default();
            labels.push(label(name, Bytes::from_static(value.as_bytes())));
        }
        // The tenant's label takes the place of one that has its name.
        labels.retain(|label| label.name != self.tenant_label);
        while labels.len() < wanted {
            let name = Bytes::from(format!("annotation_{:02}", labels.len()));
            labels.push(Label { name, value: format!("value-{:02}", self.shape.below(100)).into() });
        }
        labels
    }

    /// Name and address of a new pod.
    fn pod(&mut self, app: &str) -> (Bytes, Bytes) {
        let (pod, network) = (self.pods, self.network);
        self.pods += 1;
        let replica_set = self.shape.next() & 0xff_ffff;
        let name = format!("{app}-{replica_set:06x}-{network:02x}{pod:04x}");
        let instance = format!("10.{}.{}.{}:8080", network % 256, pod / 250 % 256, pod % 250);
        (name.into(), instance.into())
    }

    /// Gives new pods to as many targets as make up the share of churn, whichever they are.
    fn replace_pods(&mut self, targets: &mut [Target]) {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        self.shape.shuffle(&mut order);
        let mut portion = Portion::new(self.config.churn);
        for index in order {
            let Some(target) = targets.get_mut(index).filter(|target| portion.takes(target.series)) else {
                continue;
            };
            let (pod, instance) = self.pod(target.app);
            for label in &mut target.labels {
                match &label.name[..] {
                    b"pod" => label.value = pod.clone(),
                    b"instance" => label.value = instance.clone(),
                    _ => {}
                }
            }
        }
    }

    /// The targets' series; `begin` is when the interval begins in which they are first scraped.
    fn request(&mut self, targets: &[Target], begin: i64) -> WriteRequest {
        let mut timeseries = Vec::with_capacity(self.config.series);
        // Begun anew in each body, so that a series which stays is what it was.
        let mut histograms = Portion::new(self.config.histograms);
        let mut exemplars = Portion::new(self.config.exemplars);
        for target in targets {
            let timestamp = begin.saturating_add_unsigned(target.scraped_at_ms);
            for nth in target.metric..target.metric + target.series {
                let mut series = if histograms.takes(1) {
                    self.native_series(target, nth, timestamp)
                } else {
                    self.float_series(target, nth, timestamp)
                };
                if exemplars.takes(1) {
                    series.exemplars.push(exemplar(&mut self.extras, timestamp));
                }
                timeseries.push(series);
            }
        }
        WriteRequest { timeseries, metadata: Vec::new() }
    }

    fn float_series(&mut self, target: &Target, nth: usize, timestamp: i64) -> TimeSeries {
        let floats = &self.catalogue.floats;
        let Some(metric) = floats.get(nth % floats.len().max(1)) else { return TimeSeries::default() };
        let labels = self.labels(target, &metric.name, metric.variant.as_ref());
        let samples = scrapes(timestamp, self.config.samples)
            .map(|timestamp| Sample { value: (metric.values)(&mut self.values), timestamp })
            .collect();
        TimeSeries { labels, samples, ..TimeSeries::default() }
    }

    fn native_series(&mut self, target: &Target, nth: usize, timestamp: i64) -> TimeSeries {
        let natives = &self.catalogue.natives;
        let Some(metric) = natives.get(nth % natives.len().max(1)) else { return TimeSeries::default() };
        let labels = self.labels(target, &metric.name, metric.variant.as_ref());
        let histograms = scrapes(timestamp, self.config.samples)
            .map(|timestamp| histogram(&mut self.extras, metric.values, timestamp))
            .collect();
        TimeSeries { labels, histograms, ..TimeSeries::default() }
    }

    /// All labels of a series, sorted as Prometheus sorts them: by the bytes of their names.
    fn labels(&self, target: &Target, name: &Bytes, variant: Option<&(Bytes, Bytes)>) -> Vec<Label> {
        let mut labels = Vec::with_capacity(self.config.labels);
        labels.push(label("__name__", name.clone()));
        labels.push(Label { name: self.tenant_label.clone(), value: target.tenant.clone() });
        labels.extend(variant.cloned().map(|(name, value)| Label { name, value }));
        let room = self.config.labels - labels.len();
        labels.extend(target.labels.iter().take(room).cloned());
        labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        labels
    }

    fn body(&self, request: &WriteRequest, index: &HashMap<Bytes, usize>) -> Body {
        let (inflated, block) = self.config.format.encode(request);
        let mut sums: BTreeMap<usize, Tally> = BTreeMap::new();
        let walked = walk(&inflated, &[&self.tenant_label], |series| {
            if let Some(&tenant) = series.tenant.and_then(|name| index.get(name)) {
                *sums.entry(tenant).or_default() += series.tally;
            }
        });
        debug_assert!(walked.is_ok(), "what prost encodes can be walked");
        Body { block, inflated_bytes: inflated.len(), shares: sums.into_iter().collect() }
    }
}

/// Where a sender's targets run. The pair of an HA cluster is found by the cluster's name, so that must be its own.
fn cluster(network: usize, ha_pairs: bool) -> Bytes {
    let name = CLUSTERS.get(network % CLUSTERS.len()).copied().unwrap_or_default();
    match network / CLUSTERS.len() {
        round if ha_pairs && round > 0 => format!("{name}-{round}").into(),
        _ => Bytes::from_static(name.as_bytes()),
    }
}

fn label(name: &'static str, value: Bytes) -> Label {
    Label { name: Bytes::from_static(name.as_bytes()), value }
}

/// The timestamps of `count` scrapes.
fn scrapes(first: i64, count: usize) -> impl Iterator<Item = i64> {
    (0u64..).take(count).map(move |scrape| first.saturating_add_unsigned(scrape * SCRAPE_INTERVAL_MS))
}
