//! Which tenants /metrics shows, with which buckets, and their shares of the CPU time.
//!
//! A tenant's counters take 250 bytes and more, and each of its histograms with all bounds 2 kB, so ten thousand
//! tenants would take over 20 MB. Three things keep the page small:
//!
//! - *Idle tenants* are left out, once nothing was heard of them for `metrics_tenant_idle`. Their counters stay, so
//!   they go on where they were when the tenant comes back.
//! - *A cap*, `metrics_tenant_histograms_max`, on the number of histograms. The tenants that came first keep theirs
//!   until they are idle, so that histograms do not come and go. All other tenants have their counters only.
//! - *Bounds that tell nothing* are left out once there are more than a thousand histograms: those that no value of any
//!   tenant shown is next to.
//!
//! The last is the same set of bounds for all tenants of a destination. Each tenant's histogram alone could do without
//! more of them: every bucket with the same number as the one below. But then `sum by (le)` over tenants would add, for
//! one bound, only the tenants that happen to have it, and `histogram_quantile` of that is wrong. With one set, sums
//! are right. A bound stays if its bucket, or the one above it, holds a value, so quantiles interpolate between the
//! same bounds as before. A bound that was shown once stays. When one appears, it has no earlier sample: `rate` misses
//! the first values in it for one interval, and a quantile there is too high for as long. Below a thousand histograms
//! all bounds are shown, and queries for a single bound always find it.
//!
//! The CPU time of a tenant is an estimate. The time that the cores have used between two pages is divided by what was
//! done in that time for each tenant: bytes after inflating, and a constant for each fragment. It adds up to what the
//! cores used, save the time in which no tenant had work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::page;
use super::thread_cpu_seconds;
use crate::config::Plan;
use crate::limits::TENANT_HISTOGRAMS_FULL_MAX;
use crate::metrics::{Metrics, TenantMetrics};
use crate::model::{Destination, PerDestination};

/// What earlier pages have found out about tenants.
#[derive(Debug, Default)]
pub(in crate::admin) struct TenantsSeen {
    tenants: PerDestination<HashMap<Arc<str>, Seen>>,
    /// The CPU time that the cores had used at the last page.
    cpu_seconds: f64,
    /// The buckets that histograms have, by their bits.
    bounds: PerDestination<u32>,
    /// Whether there have been too many histograms to show all bounds.
    is_sparse: bool,
}

/// What is known of a tenant.
#[derive(Debug)]
struct Seen {
    activity: u64,
    /// When its activity last changed, as far as pages know.
    active: Instant,
    work: u64,
    cpu_seconds: f64,
    has_histograms: bool,
}

/// A tenant on the page.
#[derive(Debug)]
pub(super) struct Row {
    /// Its label, as text.
    pub(super) labels: String,
    /// Its counters, one set for each core that has some.
    pub(super) parts: Vec<Arc<TenantMetrics>>,
    pub(super) cpu_seconds: f64,
    pub(super) has_histograms: bool,
}

/// What a page shows of tenants.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) rows: PerDestination<Vec<Row>>,
    /// The buckets of their histograms, by their bits.
    pub(super) bounds: PerDestination<u32>,
    /// Tenants left out because they are idle.
    pub(super) idle: usize,
    /// Tenants without their histograms, because there are too many.
    pub(super) capped: usize,
}

impl TenantsSeen {
    /// Looks at all tenants and decides what a page at `now` shows of them.
    pub(super) fn look(&mut self, metrics: &Metrics, plan: &Plan, now: Instant) -> Shown {
        let cores = metrics.cores().iter();
        let cpu_seconds = cores.filter_map(|core| thread_cpu_seconds(core.thread())).sum();
        self.look_at(metrics, plan, now, cpu_seconds)
    }

    fn look_at(&mut self, metrics: &Metrics, plan: &Plan, now: Instant, cpu_seconds: f64) -> Shown {
        let all = PerDestination::new(|destination| metrics.tenants(destination));
        let work = Destination::ALL.map(|destination| self.note(destination, all.of(destination), now));
        let used = (cpu_seconds - self.cpu_seconds).max(0.0);
        self.cpu_seconds = self.cpu_seconds.max(cpu_seconds);
        let mut shown = Shown {
            rows: PerDestination::default(),
            bounds: PerDestination::new(|_| u32::MAX),
            idle: 0,
            capped: 0,
        };
        let total: u64 = work.iter().flatten().sum();
        let mut histograms = self.histograms(&all, plan, now);
        for (destination, work) in Destination::ALL.into_iter().zip(work) {
            let seen = self.tenants.of_mut(destination);
            let groups = all.of(destination).chunk_by(|(a, _), (b, _)| a == b);
            for (group, work) in groups.zip(work) {
                let Some((label, tenant)) =
                    group.first().and_then(|(label, _)| Some((label, seen.get_mut(label)?)))
                else {
                    continue;
                };
                if total > 0 {
                    tenant.cpu_seconds += used * work as f64 / total as f64;
                }
                if tenant.is_idle(plan, now) {
                    tenant.has_histograms = false;
                    shown.idle += 1;
                    continue;
                }
                tenant.admit(group, plan, &mut histograms);
                shown.capped += usize::from(!tenant.has_histograms && statuses(group) > 0);
                shown.rows.of_mut(destination).push(Row {
                    labels: page::labels(&[("tenant", label)]),
                    parts: group.iter().map(|(_, counters)| Arc::clone(counters)).collect(),
                    cpu_seconds: tenant.cpu_seconds,
                    has_histograms: tenant.has_histograms,
                });
            }
        }
        self.is_sparse |= histograms > TENANT_HISTOGRAMS_FULL_MAX;
        if self.is_sparse {
            shown.bounds = PerDestination::new(|destination| {
                let rows = shown.rows.of(destination).iter().filter(|row| row.has_histograms);
                let bounds = self.bounds.of_mut(destination);
                rows.flat_map(|row| &row.parts).for_each(|part| *bounds |= bounds_of(part));
                *bounds
            });
        }
        shown
    }

    /// Notes what has changed about each tenant. Returns the work for each since the last page.
    fn note(
        &mut self,
        destination: Destination,
        all: &[(Arc<str>, Arc<TenantMetrics>)],
        now: Instant,
    ) -> Vec<u64> {
        let seen = self.tenants.of_mut(destination);
        let groups = all.chunk_by(|(a, _), (b, _)| a == b);
        let note = |group: &[(Arc<str>, Arc<TenantMetrics>)]| {
            let Some((label, _)) = group.first() else { return 0 };
            let sum = |read: fn(&TenantMetrics) -> u64| group.iter().map(|(_, part)| read(part)).sum::<u64>();
            let (activity, work) = (sum(TenantMetrics::activity), sum(|part| part.work.get()));
            if !seen.contains_key(label) {
                seen.insert(Arc::clone(label), Seen::new(now));
            }
            let Some(tenant) = seen.get_mut(label) else { return 0 };
            if tenant.activity != activity {
                (tenant.activity, tenant.active) = (activity, now);
            }
            let before = std::mem::replace(&mut tenant.work, work);
            work.saturating_sub(before)
        };
        groups.map(note).collect()
    }

    /// The number of histograms of the tenants that have a place for theirs and are not idle.
    fn histograms(
        &self,
        all: &PerDestination<Vec<(Arc<str>, Arc<TenantMetrics>)>>,
        plan: &Plan,
        now: Instant,
    ) -> usize {
        let of_destination = |destination: Destination| {
            let seen = self.tenants.of(destination);
            let groups = all.of(destination).chunk_by(|(a, _), (b, _)| a == b);
            let with = groups.filter(|group| {
                let tenant = group.first().and_then(|(label, _)| seen.get(label));
                tenant.is_some_and(|tenant| tenant.has_histograms && !tenant.is_idle(plan, now))
            });
            with.map(statuses).sum::<usize>()
        };
        Destination::ALL.into_iter().map(of_destination).sum()
    }
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self { activity: 0, active: now, work: 0, cpu_seconds: 0.0, has_histograms: false }
    }

    fn is_idle(&self, plan: &Plan, now: Instant) -> bool {
        let idle = plan.metrics_tenant_idle;
        // Without tenants in metrics, all have one label, which stays.
        plan.metrics_include_tenant && !idle.is_zero() && now.saturating_duration_since(self.active) >= idle
    }

    /// Gives the tenant a place for its histograms, if there is one and it has some.
    fn admit(&mut self, group: &[(Arc<str>, Arc<TenantMetrics>)], plan: &Plan, histograms: &mut usize) {
        let (max, own) = (plan.metrics_tenant_histograms_max, statuses(group));
        if !self.has_histograms && own > 0 && (max == 0 || *histograms < max) {
            self.has_histograms = true;
            *histograms += own;
        }
    }
}

/// The number of histograms that a tenant has on the page.
fn statuses(group: &[(Arc<str>, Arc<TenantMetrics>)]) -> usize {
    let mut statuses: Vec<u16> = group.iter().flat_map(|(_, part)| part.statuses()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses.len()
}

/// The buckets that a tenant's histograms need: those with values, and the one below each.
fn bounds_of(part: &TenantMetrics) -> u32 {
    let mut bounds = 0;
    for (_, distribution) in part.durations() {
        let with_values = distribution.buckets.iter().enumerate().filter(|(_, (_, n))| *n > 0);
        with_values
            .take_while(|(at, _)| *at < 32)
            .for_each(|(at, _)| bounds |= (1u32 << at) | (1u32 << at) >> 1);
    }
    bounds
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tenant::{IdRules, TenantId};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn plan(more: &str) -> Plan {
        crate::config::parse("", &format!("metrics_include_tenant: true\n{more}"), []).unwrap()
    }

    fn tenant(metrics: &Metrics, core: usize, id: &str) -> Arc<TenantMetrics> {
        metrics.tenant(core, Destination::Metrics, &TenantId::new(id, IdRules::Mimir).unwrap())
    }

    fn labels(shown: &Shown) -> Vec<&str> {
        shown.rows.of(Destination::Metrics).iter().map(|row| &*row.labels).collect()
    }

    #[test]
    fn a_tenant_is_left_out_while_it_is_idle() {
        let (metrics, all) = (Metrics::new(2, 10, true), plan("metrics_tenant_idle: 0s"));
        let (plan, now) = (plan(""), Instant::now());
        let (a, b) = (tenant(&metrics, 0, "a"), tenant(&metrics, 1, "b"));
        a.worked(1);
        b.worked(1);
        let mut seen = TenantsSeen::default();
        assert_eq!(labels(&seen.look_at(&metrics, &plan, now, 0.0)), [r#"tenant="a""#, r#"tenant="b""#]);
        b.answered(200, 1.0);
        assert_eq!(seen.look_at(&metrics, &plan, now + HOUR / 2, 0.0).idle, 0);
        let shown = seen.look_at(&metrics, &plan, now + HOUR, 0.0);
        assert_eq!((labels(&shown), shown.idle), (vec![r#"tenant="b""#], 1));
        // It comes back with the counters that it had.
        a.worked(1);
        let shown = seen.look_at(&metrics, &plan, now + 2 * HOUR, 0.0);
        assert_eq!((labels(&shown), shown.idle), (vec![r#"tenant="a""#], 1));
        assert_eq!(shown.rows.of(Destination::Metrics)[0].parts[0].work.get(), a.work.get());
        assert_eq!(labels(&seen.look_at(&metrics, &all, now + 9 * HOUR, 0.0)).len(), 2);
    }

    #[test]
    fn without_tenants_in_metrics_nothing_is_left_out() {
        let (metrics, now) = (Metrics::new(1, 10, false), Instant::now());
        tenant(&metrics, 0, "a").worked(1);
        let plan = crate::config::parse("", "", []).unwrap();
        let mut seen = TenantsSeen::default();
        for after in [0, 9] {
            let shown = seen.look_at(&metrics, &plan, now + after * HOUR, 0.0);
            assert_eq!((labels(&shown), shown.idle), (vec![r#"tenant="""#], 0));
        }
    }

    #[test]
    fn the_first_tenants_keep_their_histograms_until_they_are_idle() {
        let (metrics, plan, now) =
            (Metrics::new(1, 10, true), plan("metrics_tenant_histograms_max: 3"), Instant::now());
        let with = |shown: &Shown| -> Vec<String> {
            let rows = shown.rows.of(Destination::Metrics).iter().filter(|row| row.has_histograms);
            rows.map(|row| row.labels.clone()).collect()
        };
        let (c, d) = (tenant(&metrics, 0, "c"), tenant(&metrics, 0, "d"));
        [200, 429].iter().for_each(|&status| c.answered(status, 1.0));
        d.answered(200, 1.0);
        // Those that have no histogram yet take no place.
        ["b0", "b1", "b2"].iter().for_each(|id| tenant(&metrics, 0, id).failed());
        let mut seen = TenantsSeen::default();
        assert_eq!(with(&seen.look_at(&metrics, &plan, now, 0.0)), [r#"tenant="c""#, r#"tenant="d""#]);
        // One that sorts before them gets none, and they keep theirs, whatever statuses they have later.
        let a = tenant(&metrics, 0, "a");
        a.answered(200, 1.0);
        d.answered(503, 1.0);
        let shown = seen.look_at(&metrics, &plan, now + HOUR / 2, 0.0);
        assert_eq!(
            (with(&shown), shown.capped),
            (vec![r#"tenant="c""#.to_owned(), r#"tenant="d""#.to_owned()], 1)
        );
        assert_eq!(labels(&shown).len(), 6, "its counters are shown");
        // Once one is idle, its place is free.
        let shown = seen.look_at(&metrics, &plan, now + HOUR, 0.0);
        assert_eq!(
            (with(&shown), shown.capped),
            (vec![r#"tenant="a""#.to_owned(), r#"tenant="d""#.to_owned()], 0)
        );
    }

    #[test]
    fn with_many_histograms_all_have_the_same_bounds_and_none_that_tells_nothing() {
        let (metrics, plan, now) = (Metrics::new(1, 2_000, true), plan(""), Instant::now());
        let tenants: Vec<_> =
            (0..TENANT_HISTOGRAMS_FULL_MAX).map(|n| tenant(&metrics, 0, &format!("t{n}"))).collect();
        tenants.iter().for_each(|tenant| tenant.answered(200, 7.0));
        let mut seen = TenantsSeen::default();
        let bounds =
            |seen: &mut TenantsSeen| *seen.look_at(&metrics, &plan, now, 0.0).bounds.of(Destination::Metrics);
        assert_eq!(bounds(&mut seen), u32::MAX, "they are few");
        tenant(&metrics, 0, "one-more").answered(503, 7.0);
        // Those of 5 and 10 ms.
        assert_eq!(bounds(&mut seen), 0b1100);
        tenants[0].answered(200, 400.0);
        assert_eq!(bounds(&mut seen), 0b1_1000_1100);
        tenants[1].answered(200, 0.1);
        assert_eq!(bounds(&mut seen), 0b1_1000_1101);
    }

    #[test]
    fn cpu_time_is_shared_by_work_and_never_falls() {
        let (metrics, plan, now) = (Metrics::new(2, 10, true), plan(""), Instant::now());
        let (a, b) = (tenant(&metrics, 0, "a"), tenant(&metrics, 1, "b"));
        let logs = metrics.tenant(0, Destination::Logs, &TenantId::new("a", IdRules::Mimir).unwrap());
        let mut seen = TenantsSeen::default();
        let mut shares = |cpu_seconds| {
            let shown = seen.look_at(&metrics, &plan, now, cpu_seconds);
            [Destination::Metrics, Destination::Logs]
                .map(|of| shown.rows.of(of).iter().map(|row| row.cpu_seconds).collect::<Vec<_>>())
        };
        assert_eq!(shares(1.0), [vec![0.0, 0.0], vec![0.0]], "no work, so it is no tenant's time");
        a.worked(100_000);
        tenant(&metrics, 1, "a").worked(100_000);
        logs.worked(200_000);
        b.worked(0);
        b.worked(0);
        let [of_metrics, of_logs] = shares(3.0);
        let sum = of_metrics.iter().chain(&of_logs).sum::<f64>();
        assert!((sum - 2.0).abs() < 1e-9, "{of_metrics:?} {of_logs:?}");
        assert!((of_metrics[0] / of_metrics[1] - (200_000.0 + 2.0 * 8_192.0) / (2.0 * 8_192.0)).abs() < 1e-9);
        assert!(of_logs[0] < of_metrics[0] && of_logs[0] > 0.9);
        assert_eq!(shares(3.5), [of_metrics.clone(), of_logs.clone()], "the cores were busy with themselves");
        b.worked(10);
        // A clock that goes back takes nothing away.
        assert_eq!(shares(3.2), [of_metrics.clone(), of_logs.clone()]);
        b.worked(10);
        let [after, _] = shares(4.5);
        assert!(after[0] == of_metrics[0] && (after[1] - of_metrics[1] - 1.0).abs() < 1e-9, "{after:?}");
    }
}
