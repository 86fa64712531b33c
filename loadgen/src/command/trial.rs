//! `loadgen trial`: each trial measures one claim, with a server, a sink and senders.
//!
//! A trial prints what it found and whether its claim holds; its exit code says the same. `chaos` looks for what is
//! lost, a trial measures what a fault costs.

mod epidemic;
mod fairness;
mod handshakes;
mod idle;
mod isolation;
mod overload;
mod phase;
mod replicas;
mod retry;
mod spool;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use console::style;
use loadgen::fleet::{Body, Fleet, FleetConfig};
use loadgen::send::{Outcome, Progress, SendConfig, send};
use loadgen::sink::faults::{Fault, FaultScript, Rule};
use loadgen::sink::{Admission, Approach, Arrival, Faults, Reply, Script};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::args::{TrialArgs, TrialCommand};
use super::rig::{Rig, RigConfig, fleet_config};

/// How long the server may take to end.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// Runs one; false when its claim does not hold.
pub(crate) fn run(args: &TrialArgs) -> anyhow::Result<bool> {
    match &args.trial {
        TrialCommand::Fairness(trial) => fairness::run(args, trial),
        TrialCommand::Isolation(trial) if trial.ill > 1 => epidemic::run(args, trial),
        TrialCommand::Isolation(trial) => isolation::run(args, trial),
        TrialCommand::Retry(trial) => retry::run(args, trial),
        TrialCommand::Overload(trial) => overload::run(args, trial),
        TrialCommand::Idle(trial) => idle::run(args, trial),
        TrialCommand::Replicas => replicas::run(args),
        TrialCommand::Spool(trial) => spool::run(args, trial),
        TrialCommand::Handshakes(trial) => handshakes::run(args, trial),
    }
}

/// Starts server and upstream; `settings` are lines of the server's configuration.
fn rig(args: &TrialArgs, settings: &str, script: Option<Arc<dyn Script>>) -> anyhow::Result<Rig> {
    let settings = settings.to_owned();
    let server = args.server.clone();
    Rig::start(RigConfig { server, settings, script, end_patience: END_PATIENCE, ..RigConfig::default() })
}

/// Senders of these tenants.
fn fleet(tenants: Vec<(String, u32)>, senders: usize, series: usize, seed: u64) -> anyhow::Result<Fleet> {
    Ok(Fleet::build(&FleetConfig { seed, senders, series, ..fleet_config(tenants) })?)
}

/// Has a fleet send until something else is done; what came of both.
fn beside<T>(
    fleet: &Fleet,
    config: &SendConfig,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Outcome)> {
    let progress = Progress::default();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(fleet, config, &progress, |_| {}));
        let done = work();
        progress.stop.store(true, Ordering::Relaxed);
        let outcome = sending.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        Ok((done?, outcome))
    })
}

/// One fleet of many: each `group` of consecutive tenants has `senders` senders of its own. Their requests hold all
/// tenants of the group, with equally many series, and no other tenant.
fn fleets(
    tenants: &[(String, u32)],
    group: usize,
    senders: usize,
    series: usize,
    seed: u64,
) -> anyhow::Result<Fleet> {
    let mut all: Option<Fleet> = None;
    for (group, seed) in tenants.chunks(group).zip(seed..) {
        // A run for each tenant of the group.
        let run_length = series.div_ceil(group.len());
        let config = FleetConfig { seed, senders, series, run_length, ..fleet_config(group.to_vec()) };
        let mut fleet = Fleet::build(&config)?;
        let Some(all) = &mut all else {
            all = Some(fleet);
            continue;
        };
        let before = all.tenants.len();
        let shares = fleet.senders.iter_mut().flatten().flat_map(|body: &mut Body| &mut body.shares);
        shares.for_each(|(tenant, _)| *tenant += before);
        all.tenants.append(&mut fleet.tenants);
        all.senders.append(&mut fleet.senders);
    }
    all.context("there is no tenant")
}

/// As many descriptors as this process, and the server after it, may have.
fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // What can't be raised stays as it is.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The line of the server's configuration for a `timeout` of so many seconds.
fn timeout(seconds: f64) -> String {
    format!("timeout: {:.0}ms\n", seconds * 1e3)
}

/// An upstream that takes its time, and that falls ill for some tenants and recovers on demand.
struct Patient {
    ill: AtomicBool,
    script: FaultScript,
    takes: Duration,
}

impl Patient {
    /// Ill are those whose name is what `tenants` says, in which a `*` stands for any text.
    fn new(tenants: &str, fault: Fault, takes: Duration) -> Arc<Self> {
        let rule =
            Rule { tenants: vec![tenants.to_owned()], from: Duration::ZERO, to: None, share: 1.0, fault };
        let script = FaultScript::new(Faults::new(1, vec![rule]));
        Arc::new(Self { ill: AtomicBool::new(false), script, takes })
    }

    fn is(&self, ill: bool) {
        self.ill.store(ill, Ordering::SeqCst);
    }
}

impl Script for Patient {
    fn admit(&self, approach: &Approach<'_>) -> Admission {
        if self.ill.load(Ordering::Relaxed) { self.script.admit(approach) } else { Admission::Read }
    }

    fn answer(&self, arrival: &Arrival<'_>) -> Reply {
        let is_ill = self.ill.load(Ordering::Relaxed);
        let reply = if is_ill { self.script.answer(arrival) } else { Reply::default() };
        reply.after(self.takes)
    }
}

/// Says of each claim whether it holds; whether all do.
fn conclude(claims: &[(bool, &str)]) -> anyhow::Result<bool> {
    for (holds, claim) in claims {
        let mark = if *holds { style("✓ holds").green() } else { style("✗ DOES NOT HOLD").red() };
        writeln!(io::stdout(), "{mark}: {claim}")?;
    }
    Ok(claims.iter().all(|(holds, _)| *holds))
}
