//! `loadgen send`.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use loadgen::audit::{Comparison, Line};
use loadgen::client::Url;
use loadgen::fleet::Fleet;
use loadgen::send::{Outcome, Percentiles, Progress, send};
use loadgen::sink::Snapshot;
use serde_json::json;

use super::args::SendArgs;
use super::text::{Report, bytes, counted, figure, grouped, listed, per_second, ratio, time, whole};
use super::verify::settled;

/// Tenants that a report names when something is wrong with them.
const FAULTS_SHOWN_MAX: usize = 10;

/// Sends and reports; false when something was to hold and does not.
pub(crate) fn run(args: &SendArgs) -> anyhow::Result<bool> {
    let config = args.config()?;
    if let Some(server) = config.server {
        server.cpu_time().context("--server-pid: no such process")?;
    }
    let stop = super::stop_flag()?;
    let fleet = Fleet::build(&args.fleet)?;
    let stats =
        |url: &Url, timeout| super::fetch::<Snapshot>("--verify", &url.with_tls_of(&config.url), timeout, "");
    let before = args.report.verify.as_ref().map(|url| stats(url, config.timeout)).transpose()?;
    let progress = Progress::default();
    let bar = ProgressBar::new_spinner();
    let outcome = send(&fleet, &config, &progress, |progress| {
        forward_stop(&stop, progress);
        draw(&bar, progress);
    })?;
    bar.finish_and_clear();
    let comparison = match (&args.report.verify, before) {
        (Some(url), Some(before)) => {
            let after = stats(url, config.timeout)?;
            Some(Comparison::new(&outcome.ledger, &before, &after, &args.report.prefix))
        }
        _ => None,
    };
    let mut out = io::stdout();
    if args.report.json {
        writeln!(out, "{}", as_json(&outcome, comparison.as_ref()))?;
    } else {
        write!(out, "{}", report(&outcome, comparison.as_ref()))?;
    }
    let verified = comparison.is_none_or(|comparison| comparison.holds());
    Ok(verified && outcome.requests > 0 && !(args.report.fail_on_error && outcome.failed() > 0))
}

pub(crate) fn forward_stop(stop: &AtomicBool, progress: &Progress) {
    if stop.load(Ordering::Relaxed) {
        progress.stop.store(true, Ordering::Relaxed);
    }
}

/// How it goes, on a terminal.
fn draw(bar: &ProgressBar, progress: &Progress) {
    let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (answered, acknowledged) = (now(&progress.answered), now(&progress.acknowledged));
    let rate = figure(per_second(acknowledged, bar.elapsed()));
    let besides = [(answered.saturating_sub(acknowledged), "failed"), (now(&progress.retries), "sent again")];
    bar.set_message(format!("{}, {rate}/s, {}", counted(answered, "request"), listed(besides)));
    bar.tick();
}

/// The report for a person.
pub(crate) fn report(outcome: &Outcome, comparison: Option<&Comparison>) -> Report {
    let mut report = Report::default();
    let tally = outcome.acknowledged_tally();
    let each = |count: u64| figure(per_second(count, outcome.elapsed));
    let (requests, elapsed) = (grouped(outcome.requests), time(outcome.elapsed));
    let (requests_per_s, series_per_s) = (each(outcome.requests), each(tally.series));
    let bytes_per_s = bytes(whole(per_second(outcome.bytes, outcome.elapsed)));
    let rates = format!("{requests_per_s}/s, {series_per_s} series/s, {bytes_per_s}/s");
    report.line("requests", format_args!("{requests} in {elapsed}: {rates}"));
    settled(&mut report, outcome);
    let Percentiles { p50, p99, p99_9, max } = Percentiles::new(&outcome.latency);
    let [p50, p99, p99_9, max] = [p50, p99, p99_9, max].map(|ms| time(Duration::from_secs_f64(ms / 1e3)));
    report.line("latency", format_args!("p50 {p50}, p99 {p99}, p99.9 {p99_9}, most {max}"));
    if let (Some(cost), Some(cpu_ms)) = (&outcome.server, outcome.cpu_ms_per_request()) {
        let per_million = cost.cpu.as_secs_f64() * 1e6 * ratio(1, tally.samples);
        let all = time(cost.cpu);
        report.line(
            "server",
            format_args!("CPU {cpu_ms:.3} ms a request ({all} in all, {per_million:.2} s a million samples)"),
        );
        report.line("", format_args!("memory {} at most", bytes(cost.resident_bytes_peak)));
    }
    if let Some(comparison) = comparison {
        report.line("verified", verdict(comparison));
        faults(comparison).take(FAULTS_SHOWN_MAX).for_each(|fault| report.line("", fault));
    }
    report
}

fn verdict(comparison: &Comparison) -> String {
    let tenants = counted(comparison.lines.len() as u64, "tenant");
    if comparison.is_exact() {
        format!("{tenants}: every acknowledged sample is stored, once, unchanged, where it belongs")
    } else if comparison.holds() {
        format!("{tenants}: nothing acknowledged is missing; of requests that failed, some is stored")
    } else {
        format!("NO: {} in {tenants}", counted(faults(comparison).count() as u64, "fault"))
    }
}

/// What is wrong, a line for each.
fn faults(comparison: &Comparison) -> impl Iterator<Item = String> + '_ {
    let broken = (comparison.broken > 0).then(|| counted(comparison.broken, "broken request"));
    broken.into_iter().chain(comparison.faults().map(Line::to_string))
}

/// The same for a program. Times in milliseconds, memory in bytes.
fn as_json(outcome: &Outcome, comparison: Option<&Comparison>) -> serde_json::Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let tally = outcome.acknowledged_tally();
    let server = outcome.server.as_ref().map(|cost| {
        json!({
            "cpu_ms": ms(cost.cpu),
            "cpu_ms_per_request": outcome.cpu_ms_per_request(),
            "resident_bytes_peak": cost.resident_bytes_peak,
        })
    });
    json!({
        "elapsed_ms": ms(outcome.elapsed),
        "requests": outcome.requests,
        "acknowledged": outcome.acknowledged(),
        "failed": outcome.failed(),
        "refused": outcome.refused,
        "attempts": outcome.attempts(),
        "retries": outcome.retries(),
        "statuses": outcome.statuses,
        "complaints": outcome.complaints,
        "bytes": outcome.bytes,
        "parts": outcome.parts,
        "series": tally.series,
        "samples": tally.samples,
        "histograms": tally.histograms,
        "exemplars": tally.exemplars,
        "latency_ms": Percentiles::new(&outcome.latency),
        "server": server,
        "verified": comparison.map(Comparison::holds),
        "exact": comparison.map(Comparison::is_exact),
        "tenants": comparison.map(|comparison| &comparison.lines),
        "upstream_requests": comparison.map(|comparison| comparison.requests),
    })
}
