//! The demo's server: a child process, its configuration, its start and its end.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loadgen::client::{Url, get};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long the server may take to answer its first request, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Lines of the server's log that are shown when it fails.
const LOG_LINES_MAX: usize = 12;

/// A running server. Dropping it kills it.
pub(super) struct Server {
    child: Child,
    addr: SocketAddr,
    /// Holds its configuration and its log, for as long as it runs.
    dir: TempDir,
}

impl Server {
    /// Starts it on free ports and waits until it answers.
    pub(super) fn start(target: &str, tenant_label: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("no place for the server's configuration")?;
        let [addr, metrics_addr] = free_addrs()?;
        let config = dir.path().join("tenantry.yml");
        fs::write(
            &config,
            format!(
                "listen: {addr}\nlisten_metrics_address: {metrics_addr}\ntarget: {target}\nlog_level: warn\n\
                 tenant:\n  label: {tenant_label}\n"
            ),
        )?;
        let log = File::create(dir.path().join("log"))?;
        let child = Command::new(env::current_exe().context("where is this program?")?)
            .arg("server")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Out of reach of the terminal's Ctrl-C: the demo ends it when the senders have ended.
            .process_group(0)
            .spawn()
            .context("cannot start the server")?;
        let mut server = Self { child, addr, dir };
        server.wait_until_alive()?;
        Ok(server)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn push_url(&self) -> anyhow::Result<Url> {
        Ok(format!("http://{}/push", self.addr).parse()?)
    }

    /// Asks it to end, as a service manager does, and waits until it has.
    pub(super) fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process ID")?;
        if let Some(ended) = self.child.try_wait()? {
            bail!("it had ended already, with {ended}{}", self.log());
        }
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(ended) = self.child.try_wait()? {
                return Ok(ended);
            }
            look_again();
        }
        bail!("it still ran {} s after SIGTERM{}", PATIENCE.as_secs(), self.log())
    }

    fn wait_until_alive(&mut self) -> anyhow::Result<()> {
        let alive: Url = format!("http://{}/alive", self.addr).parse()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.child.try_wait()? {
                bail!("the server did not start: {ended}{}", self.log());
            }
            match get(&alive, PATIENCE) {
                Ok((200, _)) => return Ok(()),
                _ if Instant::now() > deadline => {
                    bail!("the server does not answer at {alive}{}", self.log());
                }
                _ => look_again(),
            }
        }
    }

    /// The last lines that the server wrote, indented, or nothing.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LOG_LINES_MAX));
        last.map(|line| format!("\n  | {line}")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two addresses that nobody listens at: taken from the system, and given back for the server to take.
fn free_addrs() -> anyhow::Result<[SocketAddr; 2]> {
    let take = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (first, second) = (take()?, take()?);
    Ok([first.local_addr()?, second.local_addr()?])
}

#[expect(clippy::disallowed_methods, reason = "the demo's own thread, which waits for a process")]
fn look_again() {
    thread::sleep(LOOK_INTERVAL);
}
