//! The demo of everything at once: each signal has senders of its own and a sink of its own, and all go through one
//! server.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use console::style;
use loadgen::audit::Comparison;
use loadgen::child::pause;
use loadgen::destination::Destination;
use loadgen::fleet::{Fleet, FleetConfig, Format};
use loadgen::send::{Outcome, Progress, SendConfig, ServerCost, send};
use loadgen::sink::{Sink, SinkConfig, Snapshot, TenantCount};

use super::screen::{Scene, Screen};
use super::{END_PATIENCE, shown_and_next, title};
use crate::command::args::DemoArgs;
use crate::command::rig::{Rig, RigConfig, TENANT_LABEL, fleet_config};
use crate::command::send::{forward_stop, report};
use crate::command::text::{Table, grouped};

/// How often the screen is drawn.
const TICK: Duration = Duration::from_millis(200);

/// What is sent.
const SIGNALS: [Format; 5] =
    [Format::RemoteWrite1, Format::Loki, Format::OtlpMetrics, Format::OtlpLogs, Format::OtlpTraces];

/// One of the signals.
struct Signal {
    destination: Destination,
    fleet: Fleet,
    sink: Sink,
    progress: Progress,
}

impl Signal {
    fn new(args: &DemoArgs, format: Format) -> anyhow::Result<Self> {
        let senders = usize::from(args.senders).div_ceil(SIGNALS.len());
        let fleet = Fleet::build(&FleetConfig { format, senders, ..fleet_config(args.tenants.clone()) })?;
        let tenant_labels = vec![TENANT_LABEL.to_owned()];
        let sink = Sink::start(SinkConfig { tenant_labels, ..SinkConfig::default() })?;
        Ok(Self { destination: format.destination(), fleet, sink, progress: Progress::default() })
    }
}

/// What came of one.
struct Proof {
    destination: Destination,
    outcome: Outcome,
    stored: TenantCount,
    comparison: Comparison,
}

impl Proof {
    fn is_exact(&self) -> bool {
        self.comparison.is_exact() && self.outcome.failed() == 0 && self.outcome.requests > 0
    }
}

/// Shows it; false when anything differs.
pub(super) fn run(args: &DemoArgs) -> anyhow::Result<bool> {
    let stop = crate::command::stop_flag()?;
    let signals = SIGNALS.iter().map(|&format| Signal::new(args, format));
    let signals = signals.collect::<anyhow::Result<Vec<_>>>()?;
    let targets: BTreeMap<_, _> =
        signals.iter().map(|signal| (signal.destination, signal.sink.origin())).collect();
    let rig = Rig::start(RigConfig { end_patience: END_PATIENCE, targets, ..RigConfig::default() })?;
    write!(io::stdout(), "{}", title(args, &rig, "a sink for each signal"))?;
    let names: Vec<_> = signals.iter().map(|signal| signal.destination.to_string()).collect();
    let mut screen = Screen::new("signal", &names);
    let config = rig.sending(Duration::from_secs(args.seconds.into()))?;
    let process = rig.process()?;
    let cpu_before = process.cpu_time()?;
    let outcomes = send_all(&signals, &config, &stop, &mut screen)?;
    let cpu = process.cpu_time()?.saturating_sub(cpu_before);
    let server = ServerCost { cpu, resident_bytes_peak: process.resident_bytes_peak()? };
    let ended = rig.server.stop().context("the server did not end as it should")?;
    let proof = |(signal, outcome): (Signal, Outcome)| {
        let counts = signal.sink.stop();
        let comparison = Comparison::new(&outcome.ledger, &Snapshot::default(), &counts, "");
        Proof { destination: signal.destination, outcome, stored: counts.total(), comparison }
    };
    let proofs: Vec<_> = signals.into_iter().zip(outcomes).map(proof).collect();
    screen.clear()?;
    let proven = proofs.iter().all(Proof::is_exact) && ended.success();
    let table = table(&proofs);
    let all =
        proofs.into_iter().map(|proof| proof.outcome).reduce(together).context("there was no signal")?;
    let all = Outcome { server: Some(server), ..all };
    let mut report = report(&all, None);
    let exit = ended.code().map_or_else(|| ended.to_string(), |code| format!("exit {code}"));
    report.line("ended", format_args!("SIGTERM, then {exit}"));
    let end = if proven { shown_and_next(&all) } else { style("✗ The proof failed.\n").red().to_string() };
    write!(io::stdout(), "{table}\n{report}\n{end}")?;
    Ok(proven)
}

/// Sends all signals at once, and shows how it goes.
fn send_all(
    signals: &[Signal],
    config: &SendConfig,
    stop: &AtomicBool,
    screen: &mut Screen,
) -> anyhow::Result<Vec<Outcome>> {
    let begun = Instant::now();
    thread::scope(|scope| {
        let work = |signal| move || send_one(signal, config);
        let threads: Vec<_> = signals.iter().map(|signal| scope.spawn(work(signal))).collect();
        let mut shown = Ok(());
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            pause(TICK);
            signals.iter().for_each(|signal| forward_stop(stop, &signal.progress));
            if shown.is_ok() {
                shown = screen.draw(&scene(signals, begun.elapsed()));
            }
        }
        shown?;
        let join = |thread: thread::ScopedJoinHandle<'_, io::Result<Outcome>>| {
            Ok(thread.join().map_err(|_| io::Error::other("a signal's thread panicked"))??)
        };
        threads.into_iter().map(join).collect()
    })
}

fn send_one(signal: &Signal, config: &SendConfig) -> io::Result<Outcome> {
    send(&signal.fleet, config, &signal.progress, |_| {})
}

fn scene(signals: &[Signal], elapsed: Duration) -> Scene {
    let mut total = TenantCount::default();
    let rows: Vec<_> = signals.iter().map(|signal| signal.sink.snapshot().total()).collect();
    rows.iter().for_each(|row| total += *row);
    let sum = |count: fn(&Progress) -> u64| signals.iter().map(|signal| count(&signal.progress)).sum();
    Scene {
        elapsed,
        acknowledged: sum(|progress| progress.acknowledged.load(Ordering::Relaxed)),
        answered: sum(|progress| progress.answered.load(Ordering::Relaxed)),
        rows,
        total,
    }
}

/// Both together, with what each tenant's data came to.
fn together(one: Outcome, other: Outcome) -> Outcome {
    let mut ledger = one.ledger.clone();
    for (tenant, entry) in &other.ledger {
        let sum = ledger.entry(tenant.clone()).or_default();
        sum.acknowledged += entry.acknowledged;
        sum.unsettled += entry.unsettled;
    }
    Outcome { ledger, ..one + other }
}

/// Acknowledged against stored, signal by signal.
fn table(proofs: &[Proof]) -> Table {
    let mut table = Table::new([
        "signal",
        "requests in",
        "acknowledged",
        "stored",
        "requests out",
        "checksums of all tenants",
    ]);
    for proof in proofs {
        let tenants = proof.comparison.lines.len();
        let sums = match proof.is_exact() {
            true => style(format!("✓ equal for {tenants} tenants")).green(),
            false => {
                style(format!("✗ {} of {tenants} tenants differ", proof.comparison.faults().count())).red()
            }
        };
        table.row([
            proof.destination.to_string(),
            grouped(proof.outcome.requests),
            grouped(proof.outcome.acknowledged_tally().samples),
            grouped(proof.stored.stored.samples),
            grouped(proof.comparison.requests),
            sums.to_string(),
        ]);
    }
    table
}
