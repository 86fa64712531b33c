//! `loadgen chaos`: a server's bad day, and what survived it.

mod ledger;
mod profiles;
mod report;
mod rig;
mod spooled;

use std::fs;
use std::io::{self, Write};
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use loadgen::audit::Audit;
use loadgen::chaos::{Liveness, Plan, Pulse, Tuning, excuses};
use loadgen::child::pause;
use loadgen::client::Url;
use loadgen::fleet::{Format, now_ms, numbered_tenants};
use loadgen::journal::Journal;
use loadgen::send::{Outcome, Progress, RetryRules, SendConfig};
use loadgen::stamped::{StampedConfig, send};

use super::args::ChaosArgs;
use super::rig::TENANT_LABEL;
use report::Report;
use rig::ChaosRig;

/// Tenants of a run.
const TENANTS: usize = 6;

/// How long a sender waits for an answer: a little less than a server may take that waits for a place to send and then
/// for the upstream. So senders, too, hang up on what may still arrive.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2500);

/// How long a request is sent again. Calms come far more often.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// The longest pause of a sender: shorter than Prometheus' own, so that more attempts meet more troubles.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long something of a tenant may wait while its upstream is well: two of the longest timeouts that the server
/// runs with.
const PATIENCE: Duration = Duration::from_millis(2 * Tuning::FIRST.timeout_ms);

/// How often it is looked after server and senders.
const TICK: Duration = Duration::from_millis(20);

/// Senders that are alike.
struct Crowd {
    senders: u32,
    config: StampedConfig,
}

/// Runs it; false when something acknowledged did not survive, or server or senders did not end as they should.
pub(crate) fn run(args: &ChaosArgs) -> anyhow::Result<bool> {
    let interrupted = super::stop_flag()?;
    let began = u64::try_from(now_ms()).unwrap_or_default();
    let seed = args.seed.unwrap_or(began);
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let tenants: Vec<String> = numbered_tenants(TENANTS).into_iter().map(|(name, _)| name).collect();
    let plan = Plan::new(seed, length, &tenants);
    let plan = if args.spool { plan.without_refusals() } else { plan };
    let mut rig = ChaosRig::set(args, seed, &plan, &tenants)?;
    let crowds = crowds(&rig.push_url()?, length, &tenants, rig.pulse());
    let senders = crowds.iter().map(|crowd| crowd.senders).sum();
    write!(io::stdout(), "{}", report::title(args, seed, senders, &tenants, &rig))?;

    let begun = Instant::now();
    let (journal, outcome, mut failures) = play(&mut rig, &plan, &crowds, began, &interrupted)?;
    let beats = rig.pulse().so_far();
    let is_interrupted = interrupted.load(Ordering::Relaxed);
    failures.extend(rig.end());
    // Nothing is on its way any more: the server has ended.
    let account = rig.sink.account().context("the sink keeps no account")?;
    let report = Report {
        args,
        seed,
        is_interrupted,
        elapsed: begun.elapsed(),
        audit: if args.spool { Audit::at_least_once } else { Audit::new }(&journal, &account, ""),
        journal: &journal,
        liveness: Liveness::new(&beats, &excuses(&plan, &rig.over()), PATIENCE),
        outcome: &outcome,
        rig: &rig,
        failures,
    };
    let holds = report.holds();
    let json = format!("{:#}\n", report.json());
    if let Some(file) = &args.json {
        fs::write(file, &json).with_context(|| format!("--json: cannot write {}", file.display()))?;
    }
    write!(io::stdout(), "{}", report.text())?;
    if !holds {
        let dir = rig.keep()?;
        fs::write(dir.join("report.json"), &json)?;
        writeln!(io::stdout(), "kept       {}: server.log, tenantry.yml and report.json", dir.display())?;
    }
    Ok(holds)
}

/// Senders of small, frequent requests, in each format.
const SMALL: [(u32, Format); 10] = [
    (7, Format::RemoteWrite1),
    (2, Format::RemoteWrite2),
    (2, Format::Loki),
    (1, Format::LokiJson),
    (2, Format::OtlpMetrics),
    (1, Format::OtlpMetricsGzip),
    (2, Format::OtlpLogs),
    (1, Format::OtlpLogsJson),
    (1, Format::OtlpTraces),
    (1, Format::OtlpTracesGzip),
];

/// Senders of large requests.
const LARGE: [(u32, Format); 2] = [(1, Format::RemoteWrite1), (1, Format::OtlpLogsGzip)];

/// Many senders of small, frequent requests, and few of large ones: an upstream that limits sizes refuses some only.
fn crowds(url: &Url, length: Duration, tenants: &[String], pulse: &Arc<Pulse>) -> Vec<Crowd> {
    let rules = RetryRules {
        backoff_max: BACKOFF_MAX,
        give_up_after: Some(GIVE_UP_AFTER),
        ..RetryRules::prometheus(true)
    };
    let send = SendConfig {
        url: url.clone(),
        duration: Some(length),
        retry: Some(rules),
        timeout: ANSWER_TIMEOUT,
        ..SendConfig::default()
    };
    let config = |format, tenants_per_request, series, interval| StampedConfig {
        send: send.clone(),
        format,
        tenants: tenants.to_vec(),
        tenant_label: TENANT_LABEL.to_owned(),
        tenants_per_request,
        series,
        interval: Duration::from_millis(interval),
        pulse: Some(Arc::clone(pulse)),
        ..StampedConfig::default()
    };
    let small = SMALL.map(|(senders, format)| Crowd { senders, config: config(format, Some(3), 4, 30) });
    let large = LARGE.map(|(senders, format)| Crowd { senders, config: config(format, None, 60, 200) });
    small.into_iter().chain(large).collect()
}

/// Sends while the plan is followed, and until all is settled. The last value says what went wrong with server and
/// upstream.
fn play(
    rig: &mut ChaosRig,
    plan: &Plan,
    crowds: &[Crowd],
    began: u64,
    interrupted: &AtomicBool,
) -> anyhow::Result<(Journal, Outcome, Vec<String>)> {
    let progress = &Progress::default();
    thread::scope(|scope| {
        // A run of its own for each crowd: no two senders may be the same.
        let mut threads = Vec::new();
        for (run, crowd) in (began..).zip(crowds) {
            let work = move || send(&crowd.config, run, crowd.senders, progress, |_| {});
            threads.push(thread::Builder::new().name("crowd".to_owned()).spawn_scoped(scope, work)?);
        }
        let are_over = || threads.iter().all(ScopedJoinHandle::is_finished);
        let followed = follow(rig, plan, &are_over, interrupted, &progress.stop);
        progress.stop.store(true, Ordering::Relaxed);
        let mut journal = Journal::default();
        let mut outcomes = Vec::new();
        for thread in threads {
            let (noted, outcome) = thread.join().map_err(|_| io::Error::other("a crowd panicked"))??;
            journal.merge(noted);
            outcomes.push(outcome);
        }
        let outcome = outcomes.into_iter().reduce(Outcome::add).context("there was no crowd")?;
        Ok((journal, outcome, followed.err().map(|error| format!("{error:#}")).into_iter().collect()))
    })
}

/// Follows the plan to its end, and until all senders are over.
fn follow(
    rig: &mut ChaosRig,
    plan: &Plan,
    are_over: &dyn Fn() -> bool,
    interrupted: &AtomicBool,
    enough: &AtomicBool,
) -> anyhow::Result<()> {
    let begun = rig.begin();
    let mut events = plan.events.iter().peekable();
    loop {
        let is_interrupted = interrupted.load(Ordering::Relaxed);
        if is_interrupted {
            enough.store(true, Ordering::Relaxed);
        }
        if are_over() && (is_interrupted || events.peek().is_none()) {
            return Ok(());
        }
        if let Some(planned) = events.next_if(|planned| !is_interrupted && planned.at <= begun.elapsed()) {
            rig.perform(planned)?;
        } else {
            pause(TICK);
        }
        rig.look_after()?;
    }
}
