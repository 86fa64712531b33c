//! What connections cost that say nothing: most of a large fleet's, most of the time.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use loadgen::child::wait_for;
use loadgen::client::Client;

use super::{conclude, raise_limit, rig};
use crate::command::args::{IdleArgs, TrialArgs};
use crate::command::rig::Rig;
use crate::command::text::{counted, grouped};

/// What as many connections as are asked for by default may cost the server, together. A TLS session has keys and
/// buffers of its own.
const BYTES_MAX: u64 = 100_000_000;
const TLS_BYTES_MAX: u64 = 160_000_000;
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
    let rig = rig(args, "idle_timeout: 10m\nmax_conns_per_host: 1\n", None)?;
    let server = rig.process()?;
    // The first ones pay for what is there once.
    let first = connect(&rig, 100, 100)?;
    let before = server.resident_bytes()?;
    let idle = connect(&rig, count.saturating_sub(100), count)?;
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
    rig.server.stop()?;
    let all = each * CONNECTIONS;
    conclude(&[match args.server.tls {
        false => (all < BYTES_MAX, "20,000 idle connections cost less than 100 MB"),
        true => (all < TLS_BYTES_MAX, "20,000 idle TLS connections cost less than 160 MB"),
    }])
}

/// Opens so many more, and waits until the server has taken all.
fn connect(rig: &Rig, more: u64, all: u64) -> anyhow::Result<Vec<Client>> {
    let url = rig.server.push_url()?;
    let connect = |_| {
        let mut client = Client::new(url.clone(), PATIENCE);
        client.connect().context("cannot connect")?;
        Ok(client)
    };
    let connections = (0..more).map(connect).collect::<anyhow::Result<_>>()?;
    let open = || rig.server.sum("tenantry_connections_open{");
    let opened = wait_for(PATIENCE, || open().is_ok_and(|open| open >= all));
    anyhow::ensure!(opened, "{} of {all} connections are open after {PATIENCE:?}", open()?);
    Ok(connections)
}
