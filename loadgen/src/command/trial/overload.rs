//! What is left of a server's throughput when it is offered three times what it can do.
//!
//! First, as many senders as it admits requests send as fast as they are answered: that is its capacity. Then many
//! more senders offer three times as much at a fixed rate. What it answers with 2xx is useful, what it sheds is not.
//!
//! Senders, server and sink share the machine, and a request that is shed costs its sender as much as one that is not.
//! So the server has one core, and all the others are there to offer more than it can do. And the senders are a process
//! of their own which runs when nothing else wants to (`chrt --idle`), both times: what the server and the sink don't
//! leave them they don't get, and the offer then falls short of its rate, which is told.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use loadgen::process::Process;
use loadgen::send::{Progress, SendConfig, send};

use super::{Stage, conclude, fleet};
use crate::command::args::{OverloadArgs, TrialArgs};

/// Requests that the server admits at a time, and its budget of memory.
const CONCURRENCY: usize = 16;
const BUDGET_BYTES: u64 = 80 << 20;

/// What it takes besides its budget: its program, stacks, rings, buffers that are kept, connections.
const BESIDES_BYTES: u64 = 64 << 20;

const SENDERS: usize = 64;
const SERIES: usize = 1000;
const OFFER: f64 = 3.0;
const USEFUL_MIN: f64 = 0.9;

/// How soon after the overload a normal load has to be answered as before.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

pub(super) fn run(args: &TrialArgs, trial: &OverloadArgs) -> anyhow::Result<bool> {
    let settings = format!(
        "cores: 1\nconcurrency: {CONCURRENCY}\nlimits:\n  in_flight_bytes_max: {BUDGET_BYTES}\n  body_bytes_max: 2Mi\n  \
         inflated_bytes_max: 16Mi\n  tenant_share_percent: 100\n"
    );
    let stage = Stage::start(args, &settings, None)?;
    let server = Process::new(stage.server.pid())?;
    let mut out = io::stdout();
    offer(&stage, CONCURRENCY, 2.0, None)?;
    let capacity = offer(&stage, CONCURRENCY, trial.capacity_seconds, None)?;
    writeln!(out, "capacity    {:.0} requests/s of {SERIES} series, answered with 2xx", capacity.useful)?;
    let before = normal(&stage)?;
    let over = offer(&stage, SENDERS, trial.seconds, Some(capacity.useful * OFFER))?;
    let recovery = recovery(&stage, before)?;
    let resident = server.resident_bytes_peak()?;
    let (share, offered) = (over.useful / capacity.useful, over.attempts / capacity.useful);
    writeln!(
        out,
        "overload    {:.0} s: offered {:.1} times that ({OFFER} wanted), useful {:.0} requests/s: {:.1} % of capacity\n\
         answers     {}\n\
         memory      {:.1} MB at most; its budget is {:.1} MB, besides its program, stacks, rings and connections\n\
         recovery    a normal load is answered as before ({:.1} ms) after {:.2} s",
        trial.seconds,
        offered,
        over.useful,
        share * 100.0,
        over.statuses,
        megabytes(resident),
        megabytes(BUDGET_BYTES),
        before.as_secs_f64() * 1e3,
        recovery.as_secs_f64(),
    )?;
    stage.server.stop()?;
    let claims = [
        (share >= USEFUL_MIN, "useful throughput stays at 90 % of capacity or above"),
        (resident <= BUDGET_BYTES + BESIDES_BYTES, "memory stays within its budget"),
        (recovery <= RECOVERY_MAX, "it recovers within 2 s"),
    ];
    claims.into_iter().try_fold(true, |all, (holds, claim)| Ok(conclude(holds, claim)? && all))
}

/// What came of an offer, a second.
struct Offered {
    useful: f64,
    attempts: f64,
    statuses: String,
}

/// Has another process send.
fn offer(stage: &Stage, senders: usize, seconds: f64, rate: Option<f64>) -> anyhow::Result<Offered> {
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(std::env::current_exe()?).arg("send").arg("--json");
    command.arg("--url").arg(format!("http://{}/push", stage.server.addr()));
    command.args(["--tenant-label", super::TENANT_LABEL, "--tenants", "10", "--bodies", "1"]);
    command.arg("--senders").arg(senders.to_string()).arg("--series").arg(SERIES.to_string());
    command.arg("--duration").arg(format!("{}ms", (seconds * 1e3).round()));
    if let Some(rate) = rate {
        command.arg("--rate").arg(format!("{rate:.1}"));
    }
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start senders")?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).context("senders told nothing")?;
    let number =
        |key: &str| told.get(key).and_then(serde_json::Value::as_f64).context("senders left a figure out");
    let elapsed = number("elapsed_ms")? / 1e3;
    Ok(Offered {
        useful: number("acknowledged")? / elapsed,
        attempts: number("attempts")? / elapsed,
        statuses: told.get("statuses").map(ToString::to_string).unwrap_or_default(),
    })
}

/// How long a request takes when there are few: p99.
fn normal(stage: &Stage) -> anyhow::Result<Duration> {
    let fleet = fleet(loadgen::fleet::numbered_tenants(10), 2, SERIES, 3)?;
    let config = SendConfig { rate: Some(50.0), ..stage.sending(Duration::from_secs(2))? };
    let outcome = send(&fleet, &config, &Progress::default(), |_| {})?;
    anyhow::ensure!(outcome.failed() == 0, "a normal load fails: {:?}", outcome.statuses);
    Ok(outcome.latency_at(99.0))
}

/// How long it takes until requests are answered, none of them refused and none slower than twice the p99 before.
fn recovery(stage: &Stage, before: Duration) -> anyhow::Result<Duration> {
    let fleet = fleet(loadgen::fleet::numbered_tenants(10), 2, SERIES, 4)?;
    let begun = std::time::Instant::now();
    loop {
        let at = begun.elapsed();
        let config = SendConfig { rate: Some(50.0), ..stage.sending(Duration::from_millis(200))? };
        let outcome = send(&fleet, &config, &Progress::default(), |_| {})?;
        if (outcome.failed() == 0 && outcome.latency_at(100.0) <= before * 2) || at > RECOVERY_MAX * 5 {
            return Ok(at);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no memory has 2^53 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
