//! A contender's processes, from their start to their end.
//!
//! Constraints that shaped it:
//! - Nothing of it may be left: its processes end and its directory goes, whether a run was good, failed, or was
//!   interrupted. So dropping does all of that, and processes are ended by their IDs, the orphans included.
//! - It leads a process group of its own: the terminal's Ctrl-C does not reach it, and its orphans can be found.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tempfile::TempDir;

use super::Stopped;
use super::config::{Contender, Ready};
use super::results::{Failure, FailureKind};
use super::template::Values;
use crate::client::{Url, get};
use crate::fleet::Format;
use crate::port::free_addr;
use crate::process::{Process, ProcessTree};

/// How long it has after SIGTERM, and its orphans after theirs.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How long one look at whether it is ready may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What is told of the log of one that failed.
const LOG_LINES_MAX: usize = 4;
const LOG_LINE_CHARS_MAX: usize = 300;

/// Name of the log in its directory.
const LOG: &str = "contender.log";

/// A contender that runs. Dropping it ends it.
pub(super) struct Running {
    child: Child,
    tree: ProcessTree,
    dir: TempDir,
    values: Values,
}

impl Running {
    /// Starts `contender` in front of the sink at `sink` and waits until it is ready.
    pub(super) fn start(contender: &Contender, sink: SocketAddr, stop: &AtomicBool) -> Result<Self, Stopped> {
        let mut running = Self::spawn(contender, sink).map_err(|reason| does_not_start(&reason))?;
        running.wait_until_ready(contender, stop)?;
        Ok(running)
    }

    fn spawn(contender: &Contender, sink: SocketAddr) -> Result<Self, String> {
        let dir =
            tempfile::Builder::new().prefix("loadgen-").tempdir().map_err(told("no directory for it"))?;
        let free_port = || free_addr().map_err(told("no free port"));
        let (listen, metrics) = (free_port()?, free_port()?);
        let values = Values {
            listen: listen.to_string(),
            metrics: metrics.to_string(),
            sink: sink.to_string(),
            dir: dir.path().to_string_lossy().into_owned(),
            loadgen: own_program().map_err(told("where is this program?"))?,
        };
        for (name, text) in &contender.files {
            fs::write(dir.path().join(name), values.fill(text)).map_err(told(name))?;
        }
        let log = File::create(dir.path().join(LOG)).map_err(told(LOG))?;
        let command: Vec<String> = contender.command.iter().map(|text| values.fill(text)).collect();
        let Some((program, args)) = command.split_first() else {
            return Err("there is no command".to_owned());
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(contender.environment.iter().map(|(name, value)| (name, values.fill(value))))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(told(LOG))?)
            .stderr(log)
            .process_group(0);
        // SAFETY: between fork and exec only what is safe in a signal handler may be called; this is one system call.
        unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
        let mut child = command.spawn().map_err(told(program))?;
        match Process::new(child.id()) {
            Ok(root) => Ok(Self { child, tree: ProcessTree::new(root), dir, values }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.to_string())
            }
        }
    }

    /// Its processes.
    pub(super) fn tree(&self) -> ProcessTree {
        self.tree
    }

    /// Where to push to.
    pub(super) fn push_url(&self, contender: &Contender, format: Format) -> Result<Url, Failure> {
        let path = if format.is_loki() { &contender.push_loki } else { &contender.push };
        let url = format!("http://{}{path}", self.values.listen);
        url.parse().map_err(|error| does_not_start(&format!("{url}: {error}")))
    }

    /// A failure, if it has ended.
    pub(super) fn still_runs(&mut self, kind: FailureKind) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(ended)) => Err(Failure { kind, reason: format!("it ended with {ended}{}", self.log()) }),
            Err(error) => Err(Failure { kind, reason: error.to_string() }),
        }
    }

    fn wait_until_ready(&mut self, contender: &Contender, stop: &AtomicBool) -> Result<(), Stopped> {
        let deadline = Instant::now() + contender.ready_within;
        loop {
            self.still_runs(FailureKind::DoesNotStart)?;
            let seen = self.look(&contender.ready);
            let why = match seen {
                // One that ends within its first look may have answered from another's port.
                Ok(()) => return Ok(self.still_runs(FailureKind::DoesNotStart)?),
                Err(why) => why,
            };
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped::Interrupted);
            }
            if Instant::now() >= deadline {
                let within = contender.ready_within.as_secs_f64();
                return Err(
                    does_not_start(&format!("not ready within {within} s: {why}{}", self.log())).into()
                );
            }
            pause(LOOK_INTERVAL);
        }
    }

    /// Looks once whether it is ready; else why not.
    fn look(&self, ready: &Ready) -> Result<(), String> {
        match ready {
            Ready::Tcp => {
                let addr: SocketAddr = self.values.listen.parse().map_err(|_| "no address".to_owned())?;
                TcpStream::connect_timeout(&addr, LOOK_TIMEOUT).map(drop).map_err(|error| error.to_string())
            }
            Ready::Url(url) => {
                let url: Url = self.values.fill(url).parse().map_err(|error| format!("{error}"))?;
                match get(&url, LOOK_TIMEOUT) {
                    Ok((200..=299, _)) => Ok(()),
                    Ok((status, _)) => Err(format!("{url} answers {status}")),
                    Err(error) => Err(format!("{url}: {error}")),
                }
            }
        }
    }

    /// The last lines that it wrote, or nothing.
    fn log(&self) -> String {
        let log = fs::read(self.dir.path().join(LOG)).unwrap_or_default();
        let log = console::strip_ansi_codes(&String::from_utf8_lossy(&log)).into_owned();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LOG_LINES_MAX));
        last.map(|line| format!("\n| {}", line.chars().take(LOG_LINE_CHARS_MAX).collect::<String>()))
            .collect()
    }

    /// SIGTERM to the process that was started, then to what it left behind; SIGKILL to whatever does not end.
    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), Signal::TERM);
            let deadline = Instant::now() + END_WITHIN;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                pause(LOOK_INTERVAL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Workers end with their master, if it tells them; those that it left alone are still to be found by its group.
        let members = || self.tree.members().unwrap_or_default();
        members().into_iter().for_each(|pid| signal(pid, Signal::TERM));
        let deadline = Instant::now() + END_WITHIN;
        while Instant::now() < deadline && !members().is_empty() {
            pause(LOOK_INTERVAL);
        }
        members().into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn told(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn does_not_start(reason: &str) -> Failure {
    Failure { kind: FailureKind::DoesNotStart, reason: reason.to_owned() }
}

/// Path of this program.
pub(super) fn own_program() -> io::Result<String> {
    Ok(env::current_exe()?.to_string_lossy().into_owned())
}

/// Two addresses that nobody listens at: taken from the system, and given back for the contender to take.
#[expect(clippy::disallowed_methods, reason = "a thread that waits for another process")]
pub(super) fn pause(time: Duration) {
    thread::sleep(time);
}
