//! What TLS handshakes cost the server: each request is a small push over a connection of its own.
//!
//! Four kinds of load have the same rate and take turns: kept connections, new connections without TLS, new ones with a
//! full handshake, and new ones that resume a session. The server's CPU time for a new connection is in all of the last
//! three. So what a handshake costs is what a request over TLS costs more than one over a new plain connection.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use loadgen::compare::Spread;
use loadgen::fleet::{Fleet, numbered_tenants};
use loadgen::process::Process;
use loadgen::send::{Handshake, Outcome, SendConfig};

use super::{conclude, fleet, raise_limit};
use crate::command::args::{HandshakesArgs, ServerArgs, TrialArgs};
use crate::command::report::told;
use crate::command::rig::{Rig, RigConfig, send_all};
use crate::command::text::{Table, figure, per_second};

const SERIES: usize = 5;
const SENDERS: usize = 32;

/// The rate is reached if so much of it is.
const RATE_MIN: f64 = 0.95;

/// Of so many connections that ask for it, a session has to be resumed.
const RESUMED_MIN: f64 = 0.95;

/// What new connections do.
#[derive(Clone, Copy, PartialEq)]
struct Kind {
    name: &'static str,
    tls: bool,
    new: Option<Handshake>,
}

const KINDS: [Kind; 5] = [
    Kind { name: "kept, plain", tls: false, new: None },
    Kind { name: "kept, TLS", tls: true, new: None },
    Kind { name: "new, plain", tls: false, new: Some(Handshake::Full) },
    Kind { name: "new, full handshake", tls: true, new: Some(Handshake::Full) },
    Kind { name: "new, resumed", tls: true, new: Some(Handshake::Resumed) },
];

/// What came of one kind, a figure for each round.
#[derive(Default)]
struct Found {
    per_second: Vec<f64>,
    cpu_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    failed: u64,
    complaint: Option<String>,
}

pub(super) fn run(args: &TrialArgs, trial: &HandshakesArgs) -> anyhow::Result<bool> {
    raise_limit();
    let start = |tls| {
        let server = ServerArgs { tls, ..args.server.clone() };
        let config = RigConfig { server, end_patience: super::END_PATIENCE, ..RigConfig::default() };
        Rig::start(RigConfig { allows_anonymous: !trial.mutual, ..config })
    };
    let (plain, tls) = (start(false)?, start(true)?);
    let fleet = fleet(numbered_tenants(1), SENDERS, SERIES, 1)?;
    let mut found = KINDS.map(|_| Found::default());
    // One round more to begin with, which is not counted.
    for round in 0..=trial.rounds {
        for (kind, found) in KINDS.iter().zip(&mut found) {
            let rig = if kind.tls { &tls } else { &plain };
            let outcome = send(rig, &fleet, *kind, trial)?;
            if round > 0 {
                found.add(&outcome)?;
            }
        }
    }
    let resumed = tls.server.sum("tenantry_tls_handshakes_total{result=\"resumed\"}")?;
    plain.server.stop()?;
    tls.server.stop()?;
    write!(io::stdout(), "{}", table(&found)?)?;
    let complaint = found.iter().find_map(|found| found.complaint.as_ref());
    if let Some(complaint) = complaint {
        writeln!(io::stdout(), "{complaint}")?;
    }
    let expected = trial.rate * trial.seconds * f64::from(trial.rounds + 1);
    let reached =
        found.iter().all(|found| found.per_second.iter().all(|rate| *rate >= trial.rate * RATE_MIN));
    conclude(&[
        (found.iter().all(|found| found.failed == 0), "every push over a new connection is acknowledged"),
        (resumed as f64 >= expected * RESUMED_MIN, "sessions are resumed where clients ask for it"),
        (reached, "the rate is reached"),
    ])
}

fn send(rig: &Rig, fleet: &Fleet, kind: Kind, trial: &HandshakesArgs) -> anyhow::Result<Outcome> {
    let mut config = SendConfig {
        rate: Some(trial.rate),
        server: Some(Process::new(rig.server.pid())?),
        new_connections: kind.new,
        ..rig.sending(Duration::from_secs_f64(trial.seconds))?
    };
    if let Some(certificates) = rig.server.certificates() {
        let client = if trial.mutual { &certificates.client } else { &certificates.anonymous };
        let resumes = kind.new == Some(Handshake::Resumed);
        config.url =
            config.url.with_tls(Some(if resumes { client.clone() } else { client.never_resuming() }));
    }
    send_all(fleet, &config)
}

impl Found {
    fn add(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        self.per_second.push(per_second(outcome.requests, outcome.elapsed));
        self.cpu_ms.push(outcome.cpu_ms_per_request().context("the server's CPU time is unknown")?);
        self.p99_ms.push(outcome.latency_at(99.0).as_secs_f64() * 1e3);
        self.failed += outcome.failed();
        let complaint = outcome.complaints.iter().next();
        self.complaint =
            self.complaint.take().or(complaint.map(|(status, text)| format!("{status}: {text}")));
        Ok(())
    }
}

fn table(found: &[Found; KINDS.len()]) -> anyhow::Result<Table> {
    let spread = |figures: &[f64]| Spread::new(figures.iter().copied()).context("nothing was measured");
    let base = KINDS.iter().position(|kind| kind.new.is_some() && !kind.tls);
    let base = base.and_then(|index| found.get(index)).context("no plain connections were measured")?;
    let mut table =
        Table::new(["connections", "requests/s", "CPU ms a request", "CPU ms a handshake", "p99 ms"]);
    for (kind, found) in KINDS.iter().zip(found) {
        let handshakes = found.cpu_ms.iter().zip(&base.cpu_ms).map(|(with, without)| with - without);
        let handshake = match kind.tls && kind.new.is_some() {
            true => told(Spread::new(handshakes).context("nothing was measured")?),
            false => String::new(),
        };
        table.row([
            kind.name.to_owned(),
            figure(spread(&found.per_second)?.median),
            told(spread(&found.cpu_ms)?),
            handshake,
            figure(spread(&found.p99_ms)?.median),
        ]);
    }
    Ok(table)
}
