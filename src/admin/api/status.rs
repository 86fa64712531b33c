//! `/api/v1/status`: the process at a glance.

use std::time::{Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::{rounded, time, time_of, unix_time};
use crate::admin::Server;
use crate::admin::process::thread_cpu_seconds;
use crate::admin::sampler::{Sampler, Totals};
use crate::limits::SAMPLE_SECS;
use crate::log;
use crate::metrics::ledger::Ledger;
use crate::metrics::{CoreMetrics, Metrics};
use crate::model::Destination;

/// A name, and the total of that name.
type Named = (&'static str, fn(&Totals) -> u64);

/// The totals that have rates, by their names.
const RATED: [Named; 7] = [
    ("requests", |totals| totals.requests),
    ("series", |totals| totals.series),
    ("samples", |totals| totals.samples),
    ("inflated_bytes", |totals| totals.inflated_bytes),
    ("upstream_requests", |totals| totals.upstream_requests),
    ("upstream_bytes", |totals| totals.upstream_bytes),
    ("errors", |totals| totals.errors),
];

/// Those that have none.
const UNRATED: [Named; 3] = [
    ("merges", |totals| totals.merges),
    ("merged_fragments", |totals| totals.merged_fragments),
    ("rejections", |totals| totals.rejections),
];

impl Server {
    pub(super) fn status(&self) -> Value {
        let (pages, sampler) = (&self.pages, self.sampler.borrow());
        let (metrics, shared, plan) = (&pages.metrics, &pages.shared, pages.plan());
        let totals = Totals::of(metrics.cores());
        let of = |list: &[Named]| {
            list.iter().map(|(name, of)| ((*name).to_owned(), json!(of(&totals)))).collect::<Map<_, _>>()
        };
        let rates = RATED.map(|(name, of)| (name.to_owned(), json!(rounded(sampler.rate(of)))));
        let history = |of| sampler.history(of).into_iter().map(rounded).collect::<Vec<_>>();
        let tenants: usize = Destination::ALL.map(|to| metrics.tenants_known(to)).iter().sum();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": pages.commit,
            "driver": pages.driver,
            "started_at": time_of(pages.started),
            "now": time(SystemTime::now()),
            "uptime_seconds": rounded(pages.started.elapsed().as_secs_f64()),
            "shutting_down": shared.is_shutting_down(),
            "requests_in_flight": shared.requests.in_flight(),
            "requests_in_flight_max": plan.concurrency,
            "bytes_in_flight": shared.bytes.in_flight(),
            "bytes_in_flight_max": plan.limits.in_flight_bytes_max,
            "rates": Map::from_iter(rates),
            "totals": Map::from_iter(of(&RATED).into_iter().chain(of(&UNRATED))),
            "history": {
                "step_seconds": SAMPLE_SECS,
                "samples": history(|totals| totals.samples),
                "upstream_requests": history(|totals| totals.upstream_requests),
                "errors": history(|totals| totals.errors),
            },
            "cores": cores(metrics, &sampler),
            "slow": {
                "tenants": sum(metrics, |core| core.slow_tenants.total()),
                "refused_total": sum(metrics, |core| core.slow_refused.get()),
                "cut_total": sum(metrics, |core| core.slow_cut.get()),
                "share_percent": plan.limits.slow_share_percent,
            },
            "tenants": tenants,
            "taps": shared.taps.all().len(),
            "reload": reload(metrics),
            "ledger": ledger_json(&metrics.ledger(), sampler.auditor.unaccounted().cast_signed()),
            "log_lines_dropped_total": log::dropped_lines(),
        })
    }
}

/// A ledger, and what of it is known to be unaccounted.
pub(super) fn ledger_json(ledger: &Ledger, unaccounted: i64) -> Value {
    let refused = ledger.refused().map(|(reason, n)| (reason.name().to_owned(), json!(n)));
    json!({
        "received": ledger.received,
        "stored": ledger.stored,
        "repeated": ledger.repeated,
        "spooled": ledger.spooled,
        "refused": Map::from_iter(refused),
        "in_flight": ledger.in_flight,
        "unaccounted": unaccounted,
    })
}

fn sum(metrics: &Metrics, of: impl Fn(&CoreMetrics) -> u64) -> u64 {
    metrics.cores().iter().map(of).sum()
}

fn cores(metrics: &Metrics, sampler: &Sampler) -> Vec<Value> {
    let now = Instant::now();
    let core = |(number, core): (usize, &CoreMetrics)| {
        json!({
            "core": number,
            "cpu_percent": rounded(sampler.cpu_percent(number)),
            "cpu_seconds": rounded(thread_cpu_seconds(core.thread()).unwrap_or_default()),
            "connections": core.connections_open.get(),
            "requests_total": core.requests.get(),
            "lanes": core.lanes.total(),
            "waiting_fragments": core.lanes_waiting.total(),
            "upstream_requests_total": core.upstream_requests.get(),
            "merges_total": core.merges.get(),
            "longest_stall_seconds": rounded(core.stalls.longest(now).as_secs_f64()),
        })
    };
    metrics.cores().iter().enumerate().map(core).collect()
}

fn reload(metrics: &Metrics) -> Value {
    let reloads = &metrics.reloads;
    let loaded_at = Some(reloads.loaded_at.get()).filter(|seconds| *seconds > 0);
    json!({
        "succeeded_total": reloads.done.get(),
        "failed_total": reloads.refused.get(),
        "last_succeeded": reloads.last_successful.get() == 1,
        "last_success_at": loaded_at.map(unix_time),
    })
}
