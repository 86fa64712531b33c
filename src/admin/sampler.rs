//! What the counters did lately: rates, short histories, and balances that are off.
//!
//! Counters only say how much there was since the start. A page wants to know how much there is now. So the admin
//! thread reads all counters every [`SAMPLE_SECS`], whether anybody looks or not: the histories should be there when
//! somebody does. With ten thousand tenants that takes some milliseconds. The memory for each tenant is bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::process::thread_cpu_seconds;
use crate::limits::{HISTORY_SAMPLES, SAMPLE_SECS, TENANT_HISTORY_SAMPLES};
use crate::metrics::ledger::Auditor;
use crate::metrics::{CoreMetrics, Metrics, TenantMetrics, UpstreamClass};
use crate::model::Destination;

/// The share of the latest sample in a tenant's rates: they cover about the last ten seconds.
const LATEST_WEIGHT: f64 = 0.3;

/// Samples that the rates of the process cover.
const RATE_SAMPLES: usize = 5;

/// Counters of the process, summed over its cores.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) series: u64,
    pub(super) samples: u64,
    pub(super) inflated_bytes: u64,
    pub(super) upstream_requests: u64,
    pub(super) upstream_bytes: u64,
    /// Requests that were refused here, and upstream requests that stored nothing.
    pub(super) errors: u64,
    pub(super) merges: u64,
    pub(super) merged_fragments: u64,
    pub(super) rejections: u64,
}

/// The totals of one time.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    totals: Totals,
    /// The CPU time of each core, in seconds.
    cpu_seconds: Box<[f64]>,
}

/// A tenant's counters, summed over its cores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct TenantTotals {
    pub(super) samples: u64,
    pub(super) series: u64,
    pub(super) bytes: u64,
    pub(super) requests: u64,
    pub(super) errors: u64,
    /// See [`TenantMetrics::work`].
    pub(super) work: u64,
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct TenantRates {
    pub(super) samples: f64,
    pub(super) series: f64,
    pub(super) bytes: f64,
    pub(super) requests: f64,
    pub(super) errors: f64,
    work: f64,
}

#[derive(Debug, Default)]
struct Track {
    last: TenantTotals,
    rates: TenantRates,
    /// Samples per second, oldest first.
    history: VecDeque<f64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sampler {
    samples: VecDeque<Sample>,
    tenants: HashMap<(Destination, Arc<str>), Track>,
    /// The work for all tenants, per second.
    work: f64,
    pub(super) auditor: Auditor,
}

impl Totals {
    pub(super) fn of(cores: &[CoreMetrics]) -> Self {
        let mut totals = Self::default();
        for core in cores {
            let rejections = core.rejections.counts().iter().sum::<u64>();
            let mut outcomes = core.upstream_outcomes.counts();
            outcomes[UpstreamClass::Delivered as usize] = 0;
            let stored_nothing = outcomes.iter().sum::<u64>();
            totals.requests += core.requests.get();
            totals.series += core.series.get();
            totals.samples += core.samples.get();
            totals.inflated_bytes += core.inflated_bytes.get();
            totals.upstream_requests += core.upstream_requests.get();
            totals.upstream_bytes += core.upstream_bytes.get();
            totals.merges += core.merges.get();
            totals.merged_fragments += core.merged_fragments.get();
            totals.rejections += rejections;
            totals.errors += rejections + stored_nothing;
        }
        totals
    }
}

impl TenantTotals {
    pub(super) fn of<'a>(cores: impl Iterator<Item = &'a TenantMetrics>) -> Self {
        let mut totals = Self::default();
        for core in cores {
            totals.samples += core.samples.get();
            totals.series += core.series.get();
            totals.bytes += core.upstream_bytes.get();
            totals.requests += core.requests.get();
            totals.errors += core.unsuccessful.get();
            totals.work += core.work.get();
        }
        totals
    }

    /// The growth since `before`, per second over `seconds`.
    fn rates(&self, before: &Self, seconds: f64) -> TenantRates {
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        TenantRates {
            samples: rate(self.samples, before.samples),
            series: rate(self.series, before.series),
            bytes: rate(self.bytes, before.bytes),
            requests: rate(self.requests, before.requests),
            errors: rate(self.errors, before.errors),
            work: rate(self.work, before.work),
        }
    }
}

impl TenantRates {
    fn blend(&mut self, latest: &Self) {
        for (rate, latest) in [
            (&mut self.samples, latest.samples),
            (&mut self.series, latest.series),
            (&mut self.bytes, latest.bytes),
            (&mut self.requests, latest.requests),
            (&mut self.errors, latest.errors),
            (&mut self.work, latest.work),
        ] {
            *rate += (latest - *rate) * LATEST_WEIGHT;
            // It would never get there by itself.
            if *rate < 1e-3 {
                *rate = 0.0;
            }
        }
    }
}

impl Sampler {
    /// Begins with the current counters.
    pub(super) fn new(metrics: &Metrics, now: Instant) -> Self {
        let mut sampler = Self {
            samples: VecDeque::new(),
            tenants: HashMap::new(),
            work: 0.0,
            auditor: Auditor::default(),
        };
        sampler.sample(metrics, now);
        sampler
    }

    /// Reads all counters.
    pub(super) fn sample(&mut self, metrics: &Metrics, now: Instant) {
        let seconds = self.samples.back().map_or(SAMPLE_SECS as f64, |last| (now - last.at).as_secs_f64());
        let cpu = metrics.cores().iter().map(|core| thread_cpu_seconds(core.thread()).unwrap_or_default());
        if self.samples.len() > HISTORY_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            at: now,
            totals: Totals::of(metrics.cores()),
            cpu_seconds: cpu.collect(),
        });
        for destination in Destination::ALL {
            let all = metrics.all_tenants(destination);
            for group in all.chunk_by(|(a, _), (b, _)| a == b) {
                let Some((tenant, _)) = group.first() else { continue };
                let totals = TenantTotals::of(group.iter().map(|(_, cells)| &**cells));
                self.track(destination, tenant, totals, seconds.max(1e-3));
            }
        }
        self.work = self.tenants.values().map(|track| track.rates.work).sum();
        self.auditor.audit(metrics);
    }

    fn track(&mut self, destination: Destination, tenant: &Arc<str>, totals: TenantTotals, seconds: f64) {
        let track = self.tenants.entry((destination, Arc::clone(tenant))).or_default();
        let latest = totals.rates(&track.last, seconds);
        track.last = totals;
        track.rates.blend(&latest);
        if track.history.len() >= TENANT_HISTORY_SAMPLES {
            track.history.pop_front();
        }
        track.history.push_back(latest.samples);
    }

    /// A tenant's share in the work for all tenants, from 0 to 1.
    pub(super) fn share_of_work(&self, rates: &TenantRates) -> f64 {
        if self.work > 0.0 { (rates.work / self.work).min(1.0) } else { 0.0 }
    }

    /// A tenant's rates.
    pub(super) fn rates(&self, destination: Destination, tenant: &Arc<str>) -> TenantRates {
        self.tenants.get(&(destination, Arc::clone(tenant))).map(|track| track.rates).unwrap_or_default()
    }

    /// A tenant's samples per second, oldest first.
    pub(super) fn history_of(&self, destination: Destination, tenant: &Arc<str>) -> Vec<f64> {
        let track = self.tenants.get(&(destination, Arc::clone(tenant)));
        track.map(|track| track.history.iter().copied().collect()).unwrap_or_default()
    }

    /// The growth of a total over about the last ten seconds, per second.
    pub(super) fn rate(&self, of: fn(&Totals) -> u64) -> f64 {
        let Some(last) = self.samples.back() else { return 0.0 };
        let Some(first) = self.samples.get(self.samples.len().saturating_sub(RATE_SAMPLES + 1)) else {
            return 0.0;
        };
        growth(first, last, of)
    }

    /// The growth of a total from one sample to the next, per second, oldest first.
    pub(super) fn history(&self, of: fn(&Totals) -> u64) -> Vec<f64> {
        let next = self.samples.iter().skip(1);
        self.samples.iter().zip(next).map(|(first, last)| growth(first, last, of)).collect()
    }

    /// The CPU time of a core over about the last ten seconds, in percent of one CPU.
    pub(super) fn cpu_percent(&self, core: usize) -> f64 {
        let Some(last) = self.samples.back() else { return 0.0 };
        let Some(first) = self.samples.get(self.samples.len().saturating_sub(RATE_SAMPLES + 1)) else {
            return 0.0;
        };
        let of = |sample: &Sample| sample.cpu_seconds.get(core).copied().unwrap_or_default();
        let seconds = (last.at - first.at).as_secs_f64();
        if seconds > 0.0 { 100.0 * (of(last) - of(first)).max(0.0) / seconds } else { 0.0 }
    }
}

fn growth(first: &Sample, last: &Sample, of: fn(&Totals) -> u64) -> f64 {
    let seconds = (last.at - first.at).as_secs_f64();
    let grown = of(&last.totals).saturating_sub(of(&first.totals)) as f64;
    if seconds > 0.0 { grown / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::metrics::Rejection;
    use crate::tenant::{IdRules, TenantId};

    #[test]
    fn rates_are_of_the_last_seconds_and_histories_are_bounded() {
        let metrics = Metrics::new(1, 10, true);
        let id = TenantId::new("a", IdRules::Mimir).unwrap();
        let tenant = metrics.tenant(0, Destination::Metrics, &id);
        let mut now = Instant::now();
        let mut sampler = Sampler::new(&metrics, now);
        for _ in 0..200 {
            tenant.received(2, 20);
            metrics.core(0).samples.add(20);
            now += Duration::from_secs(SAMPLE_SECS);
            sampler.sample(&metrics, now);
        }
        let per_second = 20.0 / SAMPLE_SECS as f64;
        let rates = sampler.rates(Destination::Metrics, &"a".into());
        let history = sampler.history_of(Destination::Metrics, &"a".into());
        assert!((rates.samples - per_second).abs() < 0.01 && (rates.series - per_second / 10.0).abs() < 0.01);
        assert_eq!((history.len(), history[3]), (TENANT_HISTORY_SAMPLES, per_second));
        assert_eq!(sampler.rate(|totals| totals.samples), per_second);
        assert_eq!(sampler.history(|totals| totals.samples), vec![per_second; HISTORY_SAMPLES]);
        for _ in 0..60 {
            now += Duration::from_secs(SAMPLE_SECS);
            sampler.sample(&metrics, now);
        }
        assert_eq!(sampler.rates(Destination::Metrics, &"a".into()), TenantRates::default());
        assert_eq!(sampler.rate(|totals| totals.samples), 0.0);
        assert_eq!(sampler.history_of(Destination::Logs, &"a".into()), Vec::<f64>::new());
    }

    /// What was delivered must be read once: if it were subtracted from a sum of before, errors would wrap.
    #[test]
    fn errors_do_not_wrap_while_a_core_counts() {
        let (metrics, over) = (Metrics::new(1, 10, true), AtomicBool::new(false));
        let core = metrics.core(0);
        core.upstream_outcome(UpstreamClass::Expired);
        core.rejected(Rejection::Memory);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    core.upstream_outcome(UpstreamClass::Delivered);
                }
            });
            let delivered = || core.upstream_outcomes.counts()[UpstreamClass::Delivered as usize];
            let until = Instant::now() + Duration::from_secs(10);
            let (mut wrong, mut meanwhile) = (None, 0);
            // So often both threads were running at the same time.
            while wrong.is_none() && meanwhile < 10_000 && Instant::now() < until {
                let before = delivered();
                wrong = Some(Totals::of(metrics.cores()).errors).filter(|errors| *errors != 2);
                meanwhile += u32::from(delivered() != before);
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(wrong, None);
        });
    }
}
