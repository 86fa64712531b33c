//! A server under test: a child process, its configuration, its start, and the ways to end it.
//!
//! It listens at an address that the system gives to no outgoing connection. So the address is still free when the server is started
//! again, and nobody who tries to connect meanwhile is connected with himself.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loadgen::client::{Url, get};
use loadgen::port::free_addr;
use rustix::process::{Pid, Signal, kill_process};

/// How long the server may take to answer its first request.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Lines of the server's log that are shown when it fails.
const LOG_LINES_MAX: usize = 12;

/// What a server is started with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Its own program; None for this one, under its hidden command.
    pub(crate) program: Option<PathBuf>,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Its upstream.
    pub(crate) target: String,
    /// Name of the label that names the tenant.
    pub(crate) tenant_label: String,
    /// Lines of its configuration besides these.
    pub(crate) settings: String,
    /// Where its configuration and its log are; the log of all servers that were ever started there.
    pub(crate) dir: PathBuf,
    /// How long it may take to end after SIGTERM.
    pub(crate) end_patience: Duration,
}

impl Setup {
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("tenantry.yml")
    }

    fn write_config(&self, metrics: SocketAddr) -> anyhow::Result<()> {
        let Self { listen, target, tenant_label, settings, .. } = self;
        let config = format!(
            "listen: {listen}\nlisten_metrics_address: {metrics}\ntarget: {target}\nlog_level: warn\n\
             tenant:\n  label: {tenant_label}\n{settings}"
        );
        fs::write(self.config(), config).context("cannot write the server's configuration")
    }

    fn command(&self) -> anyhow::Result<Command> {
        Ok(match &self.program {
            Some(program) => Command::new(program),
            None => {
                let mut command = Command::new(env::current_exe().context("where is this program?")?);
                command.arg("server");
                command
            }
        })
    }

    /// The last lines that were logged, indented, or nothing.
    fn last_log_lines(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LOG_LINES_MAX));
        last.map(|line| format!("\n  | {line}")).collect()
    }
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    setup: Setup,
    metrics: SocketAddr,
    /// When it was asked to end.
    leaving: Option<Instant>,
}

impl Server {
    /// Starts it and waits until it listens.
    pub(crate) fn start(setup: &Setup) -> anyhow::Result<Self> {
        let metrics = free_addr()?;
        setup.write_config(metrics)?;
        let log: File = OpenOptions::new().create(true).append(true).open(setup.log())?;
        let child = setup
            .command()?
            .arg("--config")
            .arg(setup.config())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Out of reach of the terminal's Ctrl-C: it is ended when the senders have ended.
            .process_group(0)
            .spawn()
            .context("cannot start the server")?;
        let mut server = Self { child, setup: setup.clone(), metrics, leaving: None };
        server.wait_until_alive()?;
        Ok(server)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.setup.listen
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn push_url(&self) -> anyhow::Result<Url> {
        Ok(format!("http://{}/push", self.addr()).parse()?)
    }

    /// Its /metrics.
    pub(crate) fn metrics_url(&self) -> anyhow::Result<Url> {
        Ok(format!("http://{}/metrics", self.metrics).parse()?)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Has it read its configuration again, in which `settings` take the place of those that it runs on, and waits until it does.
    pub(crate) fn reload(&mut self, settings: &str) -> anyhow::Result<()> {
        settings.clone_into(&mut self.setup.settings);
        self.setup.write_config(self.metrics)?;
        self.hang_up("done").context("reload")
    }

    /// Has it read a configuration with `mistakes` in it, waits until it refuses that, and makes sure that nothing has changed.
    pub(crate) fn reload_badly(&mut self, mistakes: &str) -> anyhow::Result<()> {
        let before = self.settings_in_effect()?;
        let bad = Setup { settings: mistakes.to_owned(), ..self.setup.clone() };
        bad.write_config(self.metrics)?;
        self.hang_up("refused").context("reload of a configuration with mistakes")?;
        // For whoever looks, and for a successor.
        self.setup.write_config(self.metrics)?;
        let after = self.settings_in_effect()?;
        if after != before {
            bail!("mistakes in its configuration changed process {}: {before}{after}", self.pid());
        }
        Ok(())
    }

    /// Sends SIGHUP, and waits until it says that a reload has come to this result.
    fn hang_up(&mut self, result: &str) -> anyhow::Result<()> {
        let series = format!("tenantry_config_reloads_total{{result=\"{result}\"}} ");
        let count = |page: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(&*series));
            line.and_then(|number| number.parse::<u64>().ok()).context("it does not count its reloads")
        };
        let before = count(&self.page("metrics")?)?;
        self.signal(Signal::HUP)?;
        let deadline = Instant::now() + START_PATIENCE;
        while count(&self.page("metrics")?)? == before {
            if Instant::now() > deadline {
                let log = self.setup.last_log_lines();
                bail!("process {} has not come to the result `{result}`{log}", self.pid());
            }
            look_again();
        }
        Ok(())
    }

    /// What its status page says.
    fn settings_in_effect(&self) -> anyhow::Result<String> {
        let page = self.page("")?;
        let settings = page.split_once("\nsettings\n").map(|(_, settings)| settings.to_owned());
        settings.context("its status page shows no settings")
    }

    fn page(&self, name: &str) -> anyhow::Result<String> {
        let url: Url = format!("http://{}/{name}", self.metrics).parse()?;
        let (_, body) =
            get(&url, START_PATIENCE).with_context(|| format!("no answer from {}", self.metrics))?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn terminate(&mut self) -> anyhow::Result<()> {
        if let Some(ended) = self.ended()? {
            bail!("it had ended already, with {ended}{}", self.setup.last_log_lines());
        }
        self.leaving = Some(Instant::now());
        self.signal(Signal::TERM)
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether a server that was asked to end has ended, and how.
    ///
    /// It is an error if it takes too long.
    pub(crate) fn left(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let ended = self.ended()?;
        let patience = self.setup.end_patience;
        if ended.is_none() && self.leaving.is_some_and(|since| since.elapsed() > patience) {
            let log = self.setup.last_log_lines();
            bail!("process {} still ran {} s after SIGTERM{log}", self.pid(), patience.as_secs());
        }
        Ok(ended)
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.terminate()?;
        self.wait_until_left()
    }

    /// Waits until a server that was asked to end has ended.
    pub(crate) fn wait_until_left(mut self) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(ended) = self.left()? {
                return Ok(ended);
            }
            look_again();
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("no process ID")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Asks on the port of its metrics, which is its own even where a predecessor still listens at its address. Its address is bound before that one.
    fn wait_until_alive(&mut self) -> anyhow::Result<()> {
        let alive: Url = format!("http://{}/alive", self.metrics).parse()?;
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(ended) = self.ended()? {
                bail!("the server did not start: {ended}{}", self.setup.last_log_lines());
            }
            match get(&alive, START_PATIENCE) {
                Ok((200, _)) => return Ok(()),
                _ if Instant::now() > deadline => {
                    bail!("the server does not answer at {alive}{}", self.setup.last_log_lines());
                }
                _ => look_again(),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the command's own thread, which waits for a process")]
fn look_again() {
    thread::sleep(LOOK_INTERVAL);
}
