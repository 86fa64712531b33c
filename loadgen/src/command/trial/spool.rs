//! What it costs to spool one tenant of ten, and how fast the spool is sent once the upstream takes it.
//!
//! Each request holds all ten tenants, as those of one Prometheus do. They come at half of the capacity, which is
//! measured first; latency counts from when a request should have left. In phases by turns, all tenants are well, and
//! the tenth fails. Every request has to be acknowledged in either, and in the end all that was acknowledged has to be
//! stored.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use loadgen::child::pause;
use loadgen::fleet::{Fleet, FleetConfig, numbered_tenants};
use loadgen::send::{Outcome, SendConfig};
use loadgen::sink::faults::Fault;

use super::phase::{Phase, Usual, spread};
use super::{END_PATIENCE, Patient, conclude};
use crate::command::args::{SpoolArgs, TrialArgs};
use crate::command::report::told;
use crate::command::rig::{Rig, RigConfig, fleet_config, send_all};
use crate::command::text::figure;

const TENANTS: usize = 10;
const SENDERS: usize = 16;

/// How long the capacity is measured.
const CAPACITY: Duration = Duration::from_secs(3);

/// How long the spool may take to send all that it has.
const PATIENCE: Duration = Duration::from_secs(120);

/// Requests to the upstream.
const UPSTREAM_REQUESTS: &str = "tenantry_upstream_requests_total";

/// What was found in one phase.
struct Found {
    phase: Phase,
    /// CPU time of a request, in milliseconds.
    cpu_ms: f64,
    /// What a request had the spool write, in bytes.
    written: f64,
}

pub(super) fn run(args: &TrialArgs, trial: &SpoolArgs) -> anyhow::Result<bool> {
    let tenants = numbered_tenants(TENANTS);
    let ill = tenants.last().map(|(name, _)| name.clone()).unwrap_or_default();
    let fault = Fault::Status { code: 500, headers: Vec::new(), body: "not now".to_owned() };
    let patient = Patient::new(&ill, fault, Duration::from_millis(trial.upstream_ms));
    let rig = Rig::start(RigConfig {
        server: args.server.clone(),
        script: Some(Arc::clone(&patient) as _),
        has_spool: true,
        end_patience: END_PATIENCE,
        ..RigConfig::default()
    })?;
    let fleet = Fleet::build(&FleetConfig {
        senders: SENDERS,
        format: trial.format,
        ha_pairs: trial.ha_pairs,
        series: trial.series,
        run_length: trial.series.div_ceil(TENANTS),
        ..fleet_config(tenants)
    })?;
    let capacity = send_all(&fleet, &rig.sending(CAPACITY)?)?;
    let rate = capacity.requests as f64 / capacity.elapsed.as_secs_f64() / 2.0;
    let config = SendConfig { rate: Some(rate), ..rig.sending(Duration::from_secs_f64(trial.seconds))? };
    let mut out = io::stdout();
    writeln!(
        out,
        "{} requests a second, half of the capacity, each of {} series of {TENANTS} tenants; {ill} fails by turns",
        figure(rate),
        trial.series
    )?;
    let (mut of_well, mut of_ill, mut replays, mut outcomes) =
        (Vec::new(), Vec::new(), Vec::new(), vec![capacity]);
    for _ in 0..trial.rounds {
        for (is_ill, phases) in [(false, &mut of_well), (true, &mut of_ill)] {
            patient.is(is_ill);
            let (found, outcome) = measure(&rig, &fleet, &config)?;
            phases.push(found);
            outcomes.push(outcome);
        }
        patient.is(false);
        replays.push(replay(&rig)?);
    }
    report(&mut out, &of_well, &of_ill, &replays)?;
    rig.server.stop()?;
    let stored = rig.sink.stop();
    let acknowledged = |tenant: &str| -> u64 {
        let of = |outcome: &Outcome| outcome.ledger.get(tenant).map_or(0, |entry| entry.acknowledged.samples);
        outcomes.iter().map(of).sum()
    };
    let is_stored =
        fleet.tenants.iter().all(|tenant| stored.tenant(tenant).stored.samples >= acknowledged(tenant));
    let failed: u64 = outcomes.iter().map(Outcome::failed).sum();
    conclude(&[
        (failed == 0, "one tenant's failure fails no request"),
        (is_stored, "all that was acknowledged is stored in the end"),
    ])
}

fn measure(rig: &Rig, fleet: &Fleet, config: &SendConfig) -> anyhow::Result<(Found, Outcome)> {
    let process = rig.process()?;
    let (cpu, written) = (process.cpu_time()?, metric(rig, "tenantry_spool_written_bytes_total")?);
    let outcome = send_all(fleet, config)?;
    let requests = outcome.requests as f64;
    let cpu = process.cpu_time()?.saturating_sub(cpu);
    let written = metric(rig, "tenantry_spool_written_bytes_total")? - written;
    let found = Found {
        phase: Phase::new(&outcome),
        cpu_ms: cpu.as_secs_f64() * 1e3 / requests,
        written: written / requests,
    };
    Ok((found, outcome))
}

/// How a spool was sent.
struct Replay {
    parts: f64,
    bytes: f64,
    /// From the first to the last.
    took: Duration,
    requests: f64,
}

/// Waits until the spool has sent all that it has.
fn replay(rig: &Rig) -> anyhow::Result<Replay> {
    let bytes = metric(rig, "tenantry_spool_bytes")?;
    let parts = metric(rig, "tenantry_spool_parts")?;
    let requests = metric(rig, UPSTREAM_REQUESTS)?;
    let mut begun = Instant::now();
    let until = begun + PATIENCE;
    loop {
        let left = metric(rig, "tenantry_spool_parts")?;
        if left == 0.0 {
            let requests = metric(rig, UPSTREAM_REQUESTS)? - requests;
            return Ok(Replay { parts, bytes, took: begun.elapsed(), requests });
        }
        if left == parts {
            // The pause after the last failure is not over.
            begun = Instant::now();
        }
        anyhow::ensure!(Instant::now() < until, "the spool still has {left} parts");
        pause(Duration::from_millis(5));
    }
}

fn metric(rig: &Rig, name: &str) -> anyhow::Result<f64> {
    let page = rig.server.page("metrics")?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("the server has no {name}"))?.parse()?)
}

fn report(out: &mut impl Write, well: &[Found], ill: &[Found], replays: &[Replay]) -> anyhow::Result<()> {
    for (name, all) in [("all well", well), ("one ill", ill)] {
        let phases: Vec<Phase> = all.iter().map(|found| found.phase).collect();
        let usual = Usual::new(&phases)?;
        let of = |read: fn(&Found) -> f64| spread(all.iter().map(read)).map(told);
        writeln!(
            out,
            "{name:9} p50 {} ms, p99 {} ms; CPU {} ms a request; {} bytes written a request",
            figure(usual.p50_ms.median),
            told(usual.p99_ms),
            of(|found| found.cpu_ms)?,
            of(|found| found.written)?,
        )?;
    }
    let of = |read: fn(&Replay) -> f64| spread(replays.iter().map(read)).map(|all| figure(all.median));
    writeln!(
        out,
        "replay    {} parts and {} MB of parts a second; {} parts a request",
        of(|replay| replay.parts / replay.took.as_secs_f64().max(1e-3))?,
        of(|replay| replay.bytes / 1e6 / replay.took.as_secs_f64().max(1e-3))?,
        of(|replay| replay.parts / replay.requests.max(1.0))?,
    )?;
    Ok(())
}
