//! A contender's processes, from their start to their end.
//!
//! Constraints that shaped it:
//! - Nothing of it may be left: its processes end and its directory goes, whether a run was good, failed, or was
//!   interrupted. So dropping does all of that, and processes are ended by their IDs, the orphans included.
//! - It leads a process group of its own: the terminal's Ctrl-C does not reach it, and its orphans can be found.

use std::env;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::Stopped;
use super::config::{Contender, TCP};
use super::results::{Failure, FailureKind};
use super::template::Values;
use crate::child::{Child, send_signal, wait_for};
use crate::client::{Url, get};
use crate::fleet::Format;
use crate::port::free_addr;
use crate::process::{Process, ProcessTree};
use crate::tls::Tls;

/// How long it has after SIGTERM, and its orphans after theirs.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How long one look at whether it is ready may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Name of the log in its directory.
const LOG: &str = "contender.log";

/// A contender that runs. Dropping it ends it.
pub(super) struct Running {
    child: Child,
    tree: ProcessTree,
    values: Values,
    tls: Option<Tls>,
    _dir: TempDir,
}

impl Running {
    /// Starts `contender` in its directory in front of the sink at `sink`, and waits until it is ready. `tls` is what
    /// its senders need.
    pub(super) fn start(
        contender: &Contender,
        sink: SocketAddr,
        dir: TempDir,
        tls: Option<Tls>,
        stop: &AtomicBool,
    ) -> Result<Self, Stopped> {
        let mut running = Self::spawn(contender, sink, dir, tls).map_err(does_not_start)?;
        let stopped = || stop.load(Ordering::Relaxed);
        let look = || look(&running.values, &contender.ready, running.tls.as_ref());
        match running.child.wait_until_ready(contender.ready_within, stopped, look) {
            Ok(()) => Ok(running),
            Err(_) if stopped() => Err(Stopped::Interrupted),
            Err(why) => Err(does_not_start(why).into()),
        }
    }

    fn spawn(
        contender: &Contender,
        sink: SocketAddr,
        dir: TempDir,
        tls: Option<Tls>,
    ) -> Result<Self, String> {
        let free_port = || free_addr().map_err(told("no free port"));
        let values = Values([
            ("listen", free_port()?.to_string()),
            ("metrics", free_port()?.to_string()),
            ("sink", sink.to_string()),
            ("dir", dir.path().to_string_lossy().into_owned()),
            ("loadgen", own_program().map_err(told("where is this program?"))?),
        ]);
        for (name, text) in &contender.files {
            fs::write(dir.path().join(name), values.fill(text)).map_err(told(name))?;
        }
        let mut words = contender.command.iter().map(|text| values.fill(text));
        let program = words.next().ok_or("there is no command")?;
        let mut command = Command::new(&program);
        command.args(words);
        command.envs(contender.environment.iter().map(|(name, value)| (name, values.fill(value))));
        let child = Child::start(command, dir.path().join(LOG)).map_err(told(&program))?;
        let tree = ProcessTree::new(Process::new(child.pid()).map_err(told(&program))?);
        Ok(Self { child, tree, values, tls, _dir: dir })
    }

    /// Its processes.
    pub(super) fn tree(&self) -> ProcessTree {
        self.tree
    }

    /// Where to push to.
    pub(super) fn push_url(&self, contender: &Contender, format: Format) -> Result<Url, Failure> {
        let path = match format.export() {
            Some(_) => format!("{}{}", contender.push_otlp, format.path()),
            None if format.is_loki() => contender.push_loki.clone(),
            None => contender.push.clone(),
        };
        let scheme = if contender.tls_in { "https" } else { "http" };
        let url = format!("{scheme}://{}{path}", self.values.fill("{listen}"));
        let parsed: Result<Url, _> = url.parse();
        let parsed = parsed.map_err(|error| does_not_start(format!("{url}: {error}")))?;
        Ok(parsed.with_tls(self.tls.clone()))
    }

    /// A failure, if it has ended.
    pub(super) fn still_runs(&mut self) -> Result<(), Failure> {
        self.child.still_runs().map_err(|reason| Failure { kind: FailureKind::Ends, reason })
    }
}

/// SIGTERM to the process that was started, then to what it left behind; SIGKILL to whatever does not end.
impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.ended(), Ok(None)) {
            let _ = self.child.signal(Signal::TERM);
            let _ = self.child.wait(END_WITHIN);
            let _ = self.child.kill();
        }
        // Workers end with their master, if it tells them; those that it left alone are still to be found by its group.
        let members = || self.tree.members().unwrap_or_default();
        let signal = |signal| members().into_iter().for_each(|pid| drop(send_signal(pid, signal)));
        signal(Signal::TERM);
        wait_for(END_WITHIN, || members().is_empty());
        signal(Signal::KILL);
    }
}

/// Looks once whether it is ready; else why not.
fn look(values: &Values, ready: &str, tls: Option<&Tls>) -> Result<(), String> {
    if ready == TCP {
        let addr: SocketAddr = values.fill("{listen}").parse().map_err(|_| "no address".to_owned())?;
        return TcpStream::connect_timeout(&addr, LOOK_TIMEOUT).map(drop).map_err(|error| error.to_string());
    }
    let url: Url = values.fill(ready).parse().map_err(|error| format!("{error}"))?;
    match get(&url.clone().with_tls(tls.cloned()), LOOK_TIMEOUT) {
        Ok((200..=299, _)) => Ok(()),
        Ok((status, _)) => Err(format!("{url} answers {status}")),
        Err(error) => Err(format!("{url}: {error}")),
    }
}

fn told(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn does_not_start(reason: String) -> Failure {
    Failure { kind: FailureKind::DoesNotStart, reason }
}

/// Path of this program.
pub(super) fn own_program() -> io::Result<String> {
    Ok(env::current_exe()?.to_string_lossy().into_owned())
}
