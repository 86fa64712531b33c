//! `loadgen demo`: a server, a sink and senders, and the proof that every sample arrived.
//!
//! The server is a second process of this program, started with a hidden command. So its CPU time and memory can be
//! measured apart from the sink's and the senders', and it is stopped as a service manager would stop it.

mod screen;
mod signals;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use console::style;
use loadgen::audit::{Comparison, Verdict};
use loadgen::fleet::{Fleet, FleetConfig};
use loadgen::send::{Outcome, Progress, SendConfig, send};
use loadgen::sink::Snapshot;

use super::args::DemoArgs;
use super::rig::{Rig, RigConfig, fleet_config};
use super::send::{forward_stop, report};
use super::text::{Table, counted, grouped, ratio};
use screen::{Scene, Screen};

/// How long the server may take to end.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Tenants that the last table lists; the rest is in the total.
const ROWS_MAX: usize = 24;

/// The server's own process: runs it as its program would. Ends with the demo, also when that is killed.
pub(crate) fn serve(args: Vec<OsString>) -> ExitCode {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    let args = std::iter::once(OsString::from("tenantry")).chain(args);
    tenantry::run_from_args(args, tenantry::Build::UNKNOWN)
}

/// Shows it; false when anything differs.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<bool> {
    if args.all_signals {
        return signals::run(args);
    }
    let stop = super::stop_flag()?;
    let tenants = args.tenants.clone();
    let fleet = Fleet::build(&FleetConfig { senders: usize::from(args.senders), ..fleet_config(tenants) })?;
    let rig = Rig::start(RigConfig { end_patience: END_PATIENCE, ..RigConfig::default() })?;
    let duration = Duration::from_secs(u64::from(args.seconds));
    let config = SendConfig { server: Some(rig.process()?), ..rig.sending(duration)? };
    write!(io::stdout(), "{}", title(args, &rig, &format!("sink at {}", rig.sink.addr())))?;
    let mut screen = Screen::new("tenant", &fleet.tenants);
    let begun = Instant::now();
    let mut shown = Ok(());
    let outcome = send(&fleet, &config, &Progress::default(), |progress| {
        forward_stop(&stop, progress);
        let stored = rig.sink.snapshot();
        let scene = Scene {
            elapsed: begun.elapsed(),
            acknowledged: progress.acknowledged.load(Ordering::Relaxed),
            answered: progress.answered.load(Ordering::Relaxed),
            rows: fleet.tenants.iter().map(|tenant| stored.tenant(tenant)).collect(),
            total: stored.total(),
        };
        if shown.is_ok() {
            shown = screen.draw(&scene);
        }
    })?;
    shown?;
    let ended = rig.server.stop().context("the server did not end as it should")?;
    let counts = rig.sink.stop();
    let comparison = Comparison::new(&outcome.ledger, &Snapshot::default(), &counts, "");
    screen.clear()?;
    let proven = comparison.is_exact() && outcome.failed() == 0 && outcome.requests > 0 && ended.success();
    let mut report = report(&outcome, Some(&comparison));
    report.line("merged", merged(&outcome, &comparison));
    let exit = ended.code().map_or_else(|| ended.to_string(), |code| format!("exit {code}"));
    report.line("ended", format_args!("SIGTERM, then {exit}"));
    let end =
        if proven { shown_and_next(&outcome) } else { style("✗ The proof failed.\n").red().to_string() };
    write!(io::stdout(), "{}\n{report}\n{end}", table(&comparison))?;
    Ok(proven)
}

fn title(args: &DemoArgs, rig: &Rig, behind: &str) -> String {
    let (senders, tenants) =
        (counted(args.senders.into(), "sender"), counted(args.tenants.len() as u64, "tenant"));
    let (server, pid) = (rig.server.addr(), rig.server.pid());
    let path =
        format!("senders ─► tenantry at {server} (process {pid}) ─► one request per tenant ─► {behind}");
    format!("\n{}: {senders}, {tenants}\n{}\n\n", style("Tenantry at work").bold(), style(path).dim())
}

/// Acknowledged against stored, tenant by tenant, the largest first.
fn table(comparison: &Comparison) -> String {
    let mut lines: Vec<_> = comparison.lines.iter().collect();
    lines.sort_by_key(|line| (line.verdict == Verdict::Exact, std::cmp::Reverse(line.stored.samples)));
    let mut table =
        Table::new(["tenant", "acknowledged", "stored", "requests out", "checksum, sent and stored"]);
    for line in lines.iter().take(ROWS_MAX) {
        let sums = match line.verdict {
            Verdict::Exact => style(format!("✓ {:016x}", line.stored.checksum)).green(),
            _ => style(format!("✗ {:016x} {:016x}", line.acknowledged.checksum, line.stored.checksum)).red(),
        };
        table.row([
            line.tenant.clone(),
            grouped(line.acknowledged.samples),
            grouped(line.stored.samples),
            grouped(line.requests),
            sums.to_string(),
        ]);
    }
    let hidden = lines.len().saturating_sub(ROWS_MAX);
    if hidden == 0 {
        return table.to_string();
    }
    let exact = lines.iter().skip(ROWS_MAX).filter(|line| line.verdict == Verdict::Exact).count();
    format!("{table}… and {hidden} more, {exact} of them equal\n")
}

fn merged(outcome: &Outcome, comparison: &Comparison) -> String {
    format!(
        "{} tenant parts into {} to the sink: {:.1} in each",
        grouped(outcome.parts),
        counted(comparison.requests, "request"),
        ratio(outcome.parts, comparison.requests),
    )
}

fn shown_and_next(outcome: &Outcome) -> String {
    let samples = grouped(outcome.acknowledged_tally().samples);
    format!(
        "{} All {samples} acknowledged samples arrived once, unchanged, each under its own tenant. Next, your own \
         Prometheus:\n\n  cargo run --release -- --config FILE     # with `target:` your Mimir, Cortex or \
         Thanos\n  remote_write: [{{ url: http://127.0.0.1:8081/push }}]     # in prometheus.yml\n\n",
        style("✓").green().bold(),
    )
}

#[cfg(test)]
mod tests {
    use loadgen::account::Tally;
    use loadgen::audit::Line;

    use super::*;

    #[test]
    fn a_tenant_that_lost_samples_comes_first_and_is_named() {
        let line = |tenant: &str, stored, verdict| Line {
            tenant: tenant.to_owned(),
            acknowledged: Tally { samples: 1000, ..Tally::default() },
            stored: Tally { samples: stored, ..Tally::default() },
            requests: 1,
            verdict,
        };
        let mut lines: Vec<Line> =
            (0..30).map(|index| line(&format!("t{index:02}"), 1000, Verdict::Exact)).collect();
        lines.push(line("unlucky", 999, Verdict::Lost));
        let comparison = Comparison { lines, broken: 0, requests: 31 };
        let text = console::strip_ansi_codes(&table(&comparison)).into_owned();
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[1].starts_with("unlucky ") && rows[1].contains('✗'), "{text}");
        assert!(rows[2].contains('✓'), "{text}");
        assert_eq!(*rows.last().unwrap(), "… and 7 more, 7 of them equal");
    }
}
