//! A server under test: a child process, its configuration, and the ways to reload and end it.
//!
//! It listens at an address that the system gives to no outgoing connection. So the address is still free when the
//! server is started again, and a client that connects meanwhile is not connected with itself.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loadgen::child::{Child, wait_for};
use loadgen::client::{Url, get};
use loadgen::destination::Destination;
use loadgen::port::free_addr_besides;
use loadgen::tls::Certificates;
use rustix::process::Signal;

use super::disk::Disk;
use super::rig::TENANT_LABEL;

/// How long the server may take to answer its first request.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Where each kind of data goes: scheme and address.
#[derive(Clone, Debug)]
pub(crate) struct Targets(BTreeMap<Destination, String>);

impl Targets {
    /// One upstream for all but those in `others`.
    pub(crate) fn of(origin: String, others: BTreeMap<Destination, String>) -> Self {
        let mut targets: BTreeMap<_, _> = Destination::ALL.map(|all| (all, origin.clone())).into();
        targets.extend(others);
        Self(targets)
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.values().filter_map(|origin| origin.split('/').nth(2)?.parse().ok())
    }
}

/// Lines of a server's configuration.
impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (destination, origin) in &self.0 {
            let key = match destination {
                Destination::Metrics => "target",
                Destination::Logs => "target_loki",
                Destination::OtlpMetrics => "target_otlp_metrics",
                Destination::OtlpLogs => "target_otlp_logs",
                Destination::OtlpTraces => "target_otlp_traces",
            };
            writeln!(f, "{key}: {origin}{}", destination.path())?;
        }
        Ok(())
    }
}

/// What a server is started with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Its own program; None for this one, under its hidden command.
    pub(crate) program: Option<PathBuf>,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Its upstreams.
    pub(crate) targets: Targets,
    /// What it speaks TLS with; None for plain HTTP.
    pub(crate) certificates: Option<Certificates>,
    /// Lines of its configuration besides these.
    pub(crate) settings: String,
    /// Where its configuration and its log are; the log of all servers that were ever started there.
    pub(crate) dir: PathBuf,
    /// Whether it has a spool there, too.
    pub(crate) has_spool: bool,
    /// The disk that it lies on.
    pub(crate) disk: Disk,
    /// Whether it serves profiles.
    pub(crate) profiles: bool,
    /// How long it may take to end after SIGTERM.
    pub(crate) end_patience: Duration,
}

impl Setup {
    /// The lines about its spool.
    pub(crate) fn spool(&self) -> String {
        match self.has_spool {
            true => format!("spool: {{dir: {}}}\n", self.spool_dir().display()),
            false => String::new(),
        }
    }

    /// Where the spool is, if it has one.
    pub(crate) fn spool_dir(&self) -> PathBuf {
        self.dir.join("spool")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("tenantry.yml")
    }

    fn write_config(&self, metrics: SocketAddr, profiles: Option<SocketAddr>) -> anyhow::Result<()> {
        let Self { listen, targets, settings, .. } = self;
        let tls = self.certificates.as_ref().map(Certificates::settings).unwrap_or_default();
        let profiles = profiles.map(|address| format!("listen_pprof: {address}\n")).unwrap_or_default();
        let config = format!(
            "listen: {listen}\nlisten_metrics_address: {metrics}\n{targets}log_level: warn\n\
             tenant:\n  label: {TENANT_LABEL}\n{profiles}{tls}{settings}"
        );
        fs::write(self.config(), config).context("cannot write the server's configuration")
    }
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    setup: Setup,
    metrics: SocketAddr,
    profiles: Option<SocketAddr>,
    /// When it was asked to end.
    leaving: Option<Instant>,
}

impl Server {
    /// Starts it and waits until it listens. It is asked on the port of its metrics, which is its own even where a
    /// predecessor still listens at its address; its address is bound before that one.
    pub(crate) fn start(setup: &Setup) -> anyhow::Result<Self> {
        // Its own address is free while it is down, and so may be that of its upstream.
        let mut taken = vec![setup.listen];
        taken.extend(setup.targets.addresses());
        let metrics = free_addr_besides(&taken)?;
        taken.push(metrics);
        let profiles = setup.profiles.then(|| free_addr_besides(&taken)).transpose()?;
        setup.write_config(metrics, profiles)?;
        let own = || env::current_exe().context("where is this program?");
        let mut command = setup.disk.command(&setup.program.clone().map_or_else(own, Ok)?);
        if setup.program.is_none() {
            command.arg("server");
        }
        command.arg("--config").arg(setup.config());
        let child = Child::start(command, setup.dir.join("server.log")).context("cannot start the server")?;
        let mut server = Self { child, setup: setup.clone(), metrics, profiles, leaving: None };
        let alive = format!("http://{metrics}/alive").parse()?;
        let look = || match get(&alive, START_PATIENCE) {
            Ok((200, _)) => Ok(()),
            _ => Err(format!("no answer at {alive}")),
        };
        let ready = server.child.wait_until_ready(START_PATIENCE, || false, look);
        ready.map_err(|why| anyhow::anyhow!("the server did not start: {why}"))?;
        Ok(server)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.setup.listen
    }

    /// Where it serves profiles.
    pub(crate) fn profiles(&self) -> Option<SocketAddr> {
        self.profiles
    }

    pub(crate) fn certificates(&self) -> Option<&Certificates> {
        self.setup.certificates.as_ref()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Where to send to. The path follows from what is sent.
    pub(crate) fn push_url(&self) -> anyhow::Result<Url> {
        let tls = self.setup.certificates.as_ref().map(|certificates| certificates.client.clone());
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.addr()).parse::<Url>()?.with_tls(tls))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.ended()?)
    }

    /// Has it read its configuration again, in which `settings` take the place of those that it runs on, and waits
    /// until it does.
    pub(crate) fn reload(&mut self, settings: &str) -> anyhow::Result<()> {
        settings.clone_into(&mut self.setup.settings);
        self.setup.write_config(self.metrics, self.profiles)?;
        self.hang_up("done").context("reload")
    }

    /// Has it read a configuration with `mistakes` in it, waits until it refuses that, and makes sure that nothing has
    /// changed.
    pub(crate) fn reload_badly(&mut self, mistakes: &str) -> anyhow::Result<()> {
        let before = self.settings_in_effect()?;
        let bad = Setup { settings: mistakes.to_owned(), ..self.setup.clone() };
        bad.write_config(self.metrics, self.profiles)?;
        self.hang_up("refused").context("reload of a configuration with mistakes")?;
        // For a successor.
        self.setup.write_config(self.metrics, self.profiles)?;
        let after = self.settings_in_effect()?;
        if after != before {
            bail!("mistakes in its configuration changed process {}: {before}{after}", self.pid());
        }
        Ok(())
    }

    /// Sends SIGHUP, and waits until it says that a reload has come to this result.
    fn hang_up(&mut self, result: &str) -> anyhow::Result<()> {
        let series = format!("tenantry_config_reloads_total{{result=\"{result}\"}} ");
        let before = self.sum(&series)?;
        self.child.signal(Signal::HUP)?;
        if !wait_for(START_PATIENCE, || self.sum(&series).is_ok_and(|now| now != before)) {
            let log = self.child.last_log_lines();
            bail!("process {} has not come to the result `{result}`{log}", self.pid());
        }
        Ok(())
    }

    /// The sum of the metrics whose lines begin so.
    pub(crate) fn sum(&self, series: &str) -> anyhow::Result<u64> {
        let page = self.page("metrics")?;
        let lines = page.lines().filter(|line| line.starts_with(series));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
    }

    /// What its status page says.
    fn settings_in_effect(&self) -> anyhow::Result<String> {
        let page = self.page("")?;
        let settings = page.split_once("\nsettings\n").map(|(_, settings)| settings.to_owned());
        settings.context("its status page shows no settings")
    }

    pub(crate) fn page(&self, name: &str) -> anyhow::Result<String> {
        let (status, body) = get(&format!("http://{}/{name}", self.metrics).parse()?, START_PATIENCE)
            .with_context(|| format!("no answer from {}", self.metrics))?;
        // At its start it may answer 503.
        anyhow::ensure!(status == 200, "{} answers {status} for /{name}", self.metrics);
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn terminate(&mut self) -> anyhow::Result<()> {
        if let Some(ended) = self.ended()? {
            bail!("it had ended already, with {ended}{}", self.child.last_log_lines());
        }
        self.leaving = Some(Instant::now());
        Ok(self.child.signal(Signal::TERM)?)
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill()?)
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.terminate()?;
        self.end()
    }

    /// Waits until a server that was asked to end has ended.
    pub(crate) fn end(mut self) -> anyhow::Result<ExitStatus> {
        self.wait(self.setup.end_patience)?.context("it still runs")
    }

    /// How a server that was asked to end has ended, if it has within this time.
    ///
    /// It is an error if it takes too long.
    pub(crate) fn wait(&mut self, within: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let ended = self.child.wait(within)?;
        let patience = self.setup.end_patience;
        if ended.is_none() && self.leaving.is_some_and(|since| since.elapsed() >= patience) {
            let log = self.child.last_log_lines();
            bail!("process {} still ran {} s after SIGTERM{log}", self.pid(), patience.as_secs());
        }
        Ok(ended)
    }
}
