//! The server under test, its predecessors, and the upstream.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loadgen::chaos::{Event, FaultyUpstream, Plan, Planned, Pulse, Tuning};
use loadgen::child::pause;
use loadgen::client::Url;
use loadgen::duration::ms;
use loadgen::sink::{Script, Sink};
use serde::Serialize;
use tempfile::TempDir;

use super::ledger::Auditor;
use super::profiles::Profiles;
use super::spooled::SpoolUse;
use crate::command::args::{ChaosArgs, ServerArgs};
use crate::command::rig::RigConfig;
use crate::command::server::{Server, Setup};

/// How long a server may take to end. One that drains ends within three timeouts and a grace of 5 s.
const END_PATIENCE: Duration = Duration::from_secs(12);

/// How long the spool may take to send what it has, once all is mended: its longest pause, and then some.
const SPOOL_PATIENCE: Duration = Duration::from_secs(60);

/// How often it is asked whether it has.
const TICK: Duration = Duration::from_millis(100);

/// A value that can't be read, and a setting that does not exist. The third would be valid, but must not change either.
const MISTAKES: &str = "timeout: soon\nmerge:\n  in_flight_max: 3\n  linger: 7ms\n";

/// Of OTLP, metrics leave as they came; the others are coded anew.
const CODINGS: &str = "target_otlp_logs_coding: zstd\ntarget_otlp_traces_coding: snappy\n";

/// An event that has happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Happened {
    /// When it was over, after the run's start.
    pub(super) at_ms: u64,
    /// When it was to begin.
    pub(super) planned_ms: u64,
    /// Which one.
    pub(super) event: &'static str,
    /// More of it.
    pub(super) detail: String,
}

pub(super) struct ChaosRig {
    setup: Setup,
    args: ServerArgs,
    /// Whether the server has a spool.
    has_spool: bool,
    /// None while it is killed.
    server: Option<Server>,
    pub(super) profiles: Profiles,
    /// Predecessors that were told to end.
    leaving: Vec<Server>,
    pub(super) sink: Sink,
    dir: TempDir,
    upstream: Arc<FaultyUpstream>,
    begun: Instant,
    /// Reads the server's ledger.
    pub(super) auditor: Auditor,
    /// What its spool was used for.
    pub(super) spool_use: SpoolUse,
    pub(super) happened: Vec<Happened>,
}

impl ChaosRig {
    /// Starts upstream and server.
    pub(super) fn set(args: &ChaosArgs, seed: u64, plan: &Plan, tenants: &[String]) -> anyhow::Result<Self> {
        let mut rules = plan.rules();
        // Last, so that it strikes what is well otherwise.
        rules.extend(args.steal.map(|theft| theft.rule(tenants)));
        let upstream = Arc::new(FaultyUpstream::new(seed, rules));
        let config = RigConfig {
            server: args.server.clone(),
            settings: settings(&Tuning::FIRST),
            has_spool: args.spool,
            disk: args.disk.clone(),
            script: Some(Arc::clone(&upstream) as Arc<dyn Script>),
            full_account: true,
            profiles: true,
            end_patience: END_PATIENCE,
            ..RigConfig::default()
        };
        let (setup, sink, dir) = config.prepare()?;
        let server = Server::start(&setup)?;
        let profiles = Profiles::of(server.profiles().context("it serves no profiles")?);
        Ok(Self {
            setup,
            args: args.server.clone(),
            has_spool: args.spool,
            server: Some(server),
            profiles,
            leaving: Vec::new(),
            sink,
            dir,
            upstream,
            begun: Instant::now(),
            auditor: Auditor::default(),
            spool_use: SpoolUse::default(),
            happened: Vec::new(),
        })
    }

    pub(super) fn push_url(&self) -> anyhow::Result<Url> {
        self.server.as_ref().context("there is no server")?.push_url()
    }

    /// Which tenants get on.
    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        self.upstream.pulse()
    }

    /// When each event that has happened was over, after the run's start.
    pub(super) fn over(&self) -> Vec<Duration> {
        self.happened.iter().map(|happened| Duration::from_millis(happened.at_ms)).collect()
    }

    /// Begins the upstream's troubles, and the time of all others.
    pub(super) fn begin(&mut self) -> Instant {
        self.upstream.begin();
        self.begun = Instant::now();
        self.begun
    }

    /// Has an event happen.
    pub(super) fn perform(&mut self, planned: &Planned) -> anyhow::Result<()> {
        let event = &planned.event;
        let detail = match event {
            // The upstream has it by itself.
            Event::Trouble(..) => event.to_string(),
            Event::UpstreamDown => {
                self.sink.go_down();
                String::new()
            }
            Event::UpstreamUp => {
                self.sink.come_up().context("the upstream cannot listen again")?;
                String::new()
            }
            Event::Reload(tuning) => self.reload(tuning)?,
            Event::BadReload => self.reload_badly()?,
            Event::Handover => self.hand_over()?,
            Event::Kill => self.kill()?,
            Event::Start => self.start()?,
        };
        let happened = Happened {
            at_ms: ms(self.begun.elapsed()),
            planned_ms: ms(planned.at),
            event: event.name(),
            detail,
        };
        writeln!(io::stdout(), "{happened}")?;
        self.happened.push(happened);
        Ok(())
    }

    fn server(&mut self) -> anyhow::Result<&mut Server> {
        self.server.as_mut().context("there is no server")
    }

    fn reload(&mut self, tuning: &Tuning) -> anyhow::Result<String> {
        let settings = self.args.settings(&settings(tuning)) + &self.setup.spool();
        self.setup.settings.clone_from(&settings);
        let server = self.server()?;
        server.reload(&settings)?;
        Ok(format!("process {}: {tuning}", server.pid()))
    }

    fn reload_badly(&mut self) -> anyhow::Result<String> {
        let server = self.server()?;
        server.reload_badly(MISTAKES)?;
        Ok(format!("process {}", server.pid()))
    }

    /// For a moment both listen at the same address.
    fn hand_over(&mut self) -> anyhow::Result<String> {
        if self.has_spool {
            return self.start_again();
        }
        let successor = Server::start(&self.setup).context("handover")?;
        if let Some(address) = successor.profiles() {
            self.profiles.follow(address);
        }
        let mut old = self.server.replace(successor).context("there is no server")?;
        old.terminate().context("handover")?;
        let detail = format!("process {} to {}", old.pid(), self.server()?.pid());
        self.leaving.push(old);
        Ok(detail)
    }

    /// One process has the spool at a time.
    fn start_again(&mut self) -> anyhow::Result<String> {
        let old = self.server.take().context("there is no server")?;
        self.spool_use.add(&old);
        let pid = old.pid();
        check(pid, old.stop()?)?;
        Ok(format!("process {pid} has ended; {}", self.start()?))
    }

    fn kill(&mut self) -> anyhow::Result<String> {
        let mut server = self.server.take().context("there is no server")?;
        if self.has_spool {
            self.spool_use.add(&server);
        }
        server.kill()?;
        Ok(format!("process {}", server.pid()))
    }

    fn start(&mut self) -> anyhow::Result<String> {
        let server = self.server.insert(Server::start(&self.setup).context("after a kill")?);
        if let Some(address) = server.profiles() {
            self.profiles.follow(address);
        }
        Ok(format!("process {}", server.pid()))
    }

    /// Looks whether the server still runs, and whether its predecessors end as they should.
    pub(super) fn look_after(&mut self) -> anyhow::Result<()> {
        if let Some(server) = &mut self.server
            && let Some(ended) = server.ended()?
        {
            bail!("the server (process {}) ended by itself: {ended}", server.pid());
        }
        if let Some(server) = &self.server {
            self.auditor.look(server)?;
        }
        let leaving = std::mem::take(&mut self.leaving);
        for mut server in leaving {
            match server.wait(Duration::ZERO)? {
                None => self.leaving.push(server),
                Some(ended) => check(server.pid(), ended)?,
            }
        }
        Ok(())
    }

    /// Mends all and ends the server; returns what went wrong with that.
    pub(super) fn end(&mut self) -> Vec<String> {
        self.upstream.heal();
        let mut failures = Vec::new();
        failures.extend(self.profiles.end());
        if let Err(error) = self.sink.come_up() {
            failures.push(format!("the upstream cannot listen again: {error}"));
        }
        let note = |failures: &mut Vec<String>, pid, ended: anyhow::Result<ExitStatus>| {
            let ended = ended.and_then(|ended| check(pid, ended));
            failures.extend(ended.err().map(|error| format!("{error:#}")));
        };
        for server in self.leaving.drain(..) {
            note(&mut failures, server.pid(), server.end());
        }
        if let Some(server) = self.server.take() {
            if self.has_spool {
                failures.extend(empty_spool(&server).err().map(|error| format!("{error:#}")));
                self.spool_use.add(&server);
            }
            failures.extend(self.auditor.settle(&server).err().map(|error| format!("{error:#}")));
            note(&mut failures, server.pid(), server.stop());
        }
        failures
    }

    /// Keeps the server's configuration, its log, and its spool.
    pub(super) fn keep(self) -> io::Result<PathBuf> {
        let Self { setup, dir, .. } = self;
        let dir = dir.keep();
        setup.disk.save(&setup.spool_dir())?;
        Ok(dir)
    }
}

/// For the title.
impl fmt::Display for ChaosRig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server at {}, upstream at {}", self.setup.listen, self.sink.addr())
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = format!("{}  {:<18}  {}", seconds(self.at_ms), self.event, self.detail);
        f.write_str(line.trim_end())
    }
}

fn settings(tuning: &Tuning) -> String {
    let Tuning { timeout_ms, fragments_max, max_conns_per_host, .. } = tuning;
    let inflight_max = tuning.inflight_text();
    format!(
        "timeout: {timeout_ms}ms\nmax_conns_per_host: {max_conns_per_host}\nmerge:\n  \
         inflight_max: {inflight_max}\n  fragments_max: {fragments_max}\n{CODINGS}"
    )
}

/// Waits until the spool has sent all that it has: what it has acknowledged must have arrived.
fn empty_spool(server: &Server) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let page = server.page("metrics")?;
        let parts = page.lines().find_map(|line| line.strip_prefix("tenantry_spool_parts "));
        let parts = parts.context("the server has no spool")?;
        if parts == "0" {
            return Ok(());
        }
        if begun.elapsed() > SPOOL_PATIENCE {
            bail!("the spool still has {parts} parts, though the upstream is well");
        }
        pause(TICK);
    }
}

/// A server that is asked to end exits with 0.
fn check(pid: u32, ended: ExitStatus) -> anyhow::Result<()> {
    if !ended.success() {
        bail!("the server (process {pid}) was asked to end and ended with {ended}");
    }
    Ok(())
}

fn seconds(ms: u64) -> String {
    format!("{:>7.2} s", ms as f64 / 1e3)
}
