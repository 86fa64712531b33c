//! How much of a server's throughput is left when it is offered three times its capacity.
//!
//! As many senders as the server admits requests send as fast as they are answered. This gives the capacity. Then many
//! more senders offer three times as much at a fixed rate. Requests answered with 2xx are useful, shed ones are not.
//!
//! The speed of a shared machine changes within a minute, by more than the overload may cost. So there are several
//! rounds: each measures the capacity, overloads the server, and compares the two. The median of the rounds counts.
//!
//! Senders, server and sink share the machine, and a shed request costs its sender as much as any other. So the server
//! has one core, and the others are there to offer more than it can do. Both times, the senders are a process of their
//! own that runs only when nothing else wants to (`chrt --idle`). If server and sink leave them too little time, the
//! offer falls short of its rate, and the report says so.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use loadgen::fleet::{Fleet, numbered_tenants};
use loadgen::send::{Outcome, SendConfig};
use loadgen::tls::Certificates;

use super::{conclude, fleet, rig};
use crate::command::args::{LengthArgs, TrialArgs};
use crate::command::rig::{Rig, TENANT_LABEL, send_all};
use crate::command::text::{bytes, time};

/// Requests that the server admits at a time, and its budget of memory.
const CONCURRENCY: usize = 16;
const BUDGET_BYTES: u64 = 80 << 20;

/// What it takes besides its budget: its program, stacks, rings, buffers that are kept, connections.
const BESIDES_BYTES: u64 = 64 << 20;

/// How often the capacity is measured and the server overloaded.
const ROUNDS: usize = 5;

/// How long the capacity is measured in a round.
const CAPACITY_SECONDS: f64 = 4.0;

const SENDERS: usize = 64;
const SERIES: usize = 1000;
const OFFER: f64 = 3.0;
const USEFUL_MIN: f64 = 0.9;

/// How soon after the overload a normal load has to be answered as before.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

pub(super) fn run(args: &TrialArgs, trial: &LengthArgs) -> anyhow::Result<bool> {
    let settings = format!(
        "cores: 1\nconcurrency: {CONCURRENCY}\nlimits:\n  in_flight_bytes_max: {BUDGET_BYTES}\n  body_bytes_max: 2Mi\n  \
         inflated_bytes_max: 16Mi\n  tenant_share_percent: 100\n"
    );
    let rig = rig(args, &settings, None)?;
    let server = rig.process()?;
    let mut out = io::stdout();
    offer(&rig, CONCURRENCY, 2.0, None)?;
    let normal = fleet(numbered_tenants(10), 2, SERIES, 3)?;
    let before = some(&rig, &normal, Duration::from_secs(2))?;
    anyhow::ensure!(before.failed() == 0, "a normal load fails: {:?}", before.statuses);
    let before = before.latency_at(99.0);
    let (mut shares, mut recovery) = (Vec::new(), Duration::ZERO);
    for round in 1..=ROUNDS {
        let capacity = offer(&rig, CONCURRENCY, CAPACITY_SECONDS, None)?.useful;
        let over = offer(&rig, SENDERS, trial.seconds / ROUNDS as f64, Some(capacity * OFFER))?;
        recovery = recovery.max(recovered(&rig, &normal, before)?);
        shares.push(over.useful / capacity);
        writeln!(out, "round {round}     {}", over.compared_with(capacity))?;
    }
    let resident = server.resident_bytes_peak()?;
    shares.sort_by(f64::total_cmp);
    let share = shares.get(ROUNDS / 2).copied().unwrap_or_default();
    writeln!(
        out,
        "overload    the median of useful throughput is {:.1} % of capacity\n\
         memory      {} at most; its budget is {}, besides its program, stacks, rings and connections\n\
         recovery    a normal load is answered as before ({}) after {:.2} s",
        share * 100.0,
        bytes(resident),
        bytes(BUDGET_BYTES),
        time(before),
        recovery.as_secs_f64(),
    )?;
    rig.server.stop()?;
    conclude(&[
        (share >= USEFUL_MIN, "useful throughput stays at 90 % of capacity or above"),
        (resident <= BUDGET_BYTES + BESIDES_BYTES, "memory stays within its budget"),
        (recovery <= RECOVERY_MAX, "it recovers within 2 s"),
    ])
}

/// What came of an offer, a second.
struct Offered {
    useful: f64,
    attempts: f64,
    statuses: String,
}

impl Offered {
    fn compared_with(&self, capacity: f64) -> String {
        format!(
            "capacity {capacity:.0} requests/s of {SERIES} series; offered {:.1} times that ({OFFER} wanted), useful \
             {:.0} requests/s: {:.1} %; answers {}",
            self.attempts / capacity,
            self.useful,
            self.useful / capacity * 100.0,
            self.statuses,
        )
    }
}

/// Has another process send.
fn offer(rig: &Rig, senders: usize, seconds: f64, rate: Option<f64>) -> anyhow::Result<Offered> {
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(std::env::current_exe()?).arg("send").arg("--json");
    command.arg("--url").arg(rig.server.push_url()?.to_string());
    command.args(rig.server.certificates().map(Certificates::options).into_iter().flatten());
    command.args(["--tenant-label", TENANT_LABEL, "--tenants", "10", "--bodies", "1"]);
    command.arg("--senders").arg(senders.to_string()).arg("--series").arg(SERIES.to_string());
    command.arg("--duration").arg(format!("{}ms", (seconds * 1e3).round()));
    if let Some(rate) = rate {
        command.arg("--rate").arg(format!("{rate:.1}"));
    }
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start senders")?;
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("senders reported nothing")?;
    let number = |key: &str| report[key].as_f64().with_context(|| format!("senders reported no {key}"));
    let seconds = number("elapsed_ms")? / 1e3;
    Ok(Offered {
        useful: number("acknowledged")? / seconds,
        attempts: number("attempts")? / seconds,
        statuses: report["statuses"].to_string(),
    })
}

/// A load that no server minds.
fn some(rig: &Rig, fleet: &Fleet, time: Duration) -> anyhow::Result<Outcome> {
    send_all(fleet, &SendConfig { rate: Some(50.0), ..rig.sending(time)? })
}

/// How long it takes until requests are answered, none of them refused and none slower than twice the p99 before.
fn recovered(rig: &Rig, fleet: &Fleet, before: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    loop {
        let at = begun.elapsed();
        let outcome = some(rig, fleet, Duration::from_millis(200))?;
        if (outcome.failed() == 0 && outcome.latency_at(100.0) <= before * 2) || at > RECOVERY_MAX * 5 {
            return Ok(at);
        }
    }
}
