//! What connections cost that say nothing: most of a large fleet's, most of the time.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Context;
use loadgen::client::{Url, get};
use loadgen::process::Process;

use super::{Stage, conclude, raise_limit};
use crate::command::args::{IdleArgs, TrialArgs};
use crate::command::text::{counted, grouped};

/// What as many connections as are asked for by default may cost the server, together.
const BYTES_MAX: u64 = 100_000_000;
const CONNECTIONS: u64 = 20_000;

/// Descriptors of this process and of the server that are none of these connections.
const DESCRIPTORS_BESIDES: u64 = 400;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(args: &TrialArgs, trial: &IdleArgs) -> anyhow::Result<bool> {
    let wanted = u64::from(trial.connections);
    let possible = raise_limit().saturating_sub(DESCRIPTORS_BESIDES);
    let count = wanted.min(possible);
    let mut out = io::stdout();
    if count < wanted {
        writeln!(out, "the limit of open files allows {} only", counted(count, "connection"))?;
    }
    let stage = Stage::start(args, "idle_timeout: 10m\nmax_conns_per_host: 1\n", None)?;
    let server = Process::new(stage.server.pid())?;
    // The first ones pay for what is there once.
    let first: Vec<TcpStream> = connect(&stage, 100)?;
    wait_until_open(&stage, 100)?;
    let before = server.resident_bytes()?;
    let idle = connect(&stage, count.saturating_sub(100))?;
    wait_until_open(&stage, count)?;
    let grown = server.resident_bytes()?.saturating_sub(before);
    let each = grown / (count - 100).max(1);
    writeln!(
        out,
        "{} that say nothing: {} bytes more in the server, {} each",
        counted(count, "connection"),
        grouped(grown),
        grouped(each)
    )?;
    drop((first, idle));
    stage.server.stop()?;
    conclude(each * CONNECTIONS < BYTES_MAX, "20,000 idle connections cost less than 100 MB")
}

fn connect(stage: &Stage, count: u64) -> anyhow::Result<Vec<TcpStream>> {
    let connect = |_| TcpStream::connect(stage.server.addr()).context("cannot connect");
    (0..count).map(connect).collect()
}

fn wait_until_open(stage: &Stage, count: u64) -> anyhow::Result<()> {
    let url: Url = stage.server.metrics_url()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, page) = get(&url, PATIENCE)?;
        let page = String::from_utf8_lossy(&page);
        let open = page.lines().filter(|line| line.starts_with("tenantry_connections_open{"));
        let open: u64 = open.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
        if open >= count {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "{open} of {count} connections are open after {PATIENCE:?}"
        );
        super::pause(Duration::from_millis(50));
    }
}
