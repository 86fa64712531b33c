//! A server as a child process: its log, its start, and that nothing of it is left.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// How often it is looked at while something is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What is told of the log of one that failed.
const LOG_LINES_MAX: usize = 12;
const LOG_LINE_CHARS_MAX: usize = 300;

/// A child process. Dropping it kills it, and it does not outlive this process.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts it with its output in `log`, and out of reach of the terminal's Ctrl-C: it leads a process group.
    ///
    /// # Errors
    /// When there is no such program, or the log cannot be written.
    pub fn start(mut command: Command, log: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        // SAFETY: between fork and exec only what is safe in a signal handler may be called; this is one system call.
        unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
        Ok(Self { child: command.spawn()?, log })
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Does not happen on Linux.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Fails if it has ended, and says how.
    ///
    /// # Errors
    /// When it has ended.
    pub fn still_runs(&mut self) -> Result<(), String> {
        match self.ended() {
            Ok(None) => Ok(()),
            Ok(Some(ended)) => Err(format!("it ended with {ended}{}", self.last_log_lines())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Looks at it until `look` finds it ready. `give_up` ends the wait early.
    ///
    /// # Errors
    /// When it ends, is not ready in time, or is given up.
    pub fn wait_until_ready(
        &mut self,
        within: Duration,
        give_up: impl Fn() -> bool,
        look: impl Fn() -> Result<(), String>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            self.still_runs()?;
            let Err(why) = look() else {
                // One that ends within its first look may have answered from another's port.
                return self.still_runs();
            };
            if Instant::now() >= deadline || give_up() {
                return Err(format!(
                    "not ready within {} s: {why}{}",
                    within.as_secs_f64(),
                    self.last_log_lines()
                ));
            }
            pause(LOOK_INTERVAL);
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has been waited for.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        send_signal(self.pid(), signal)
    }

    /// Waits for its end; None if it still runs after so long.
    ///
    /// # Errors
    /// Does not happen on Linux.
    pub fn wait(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        wait_for(within, || self.child.try_wait().map_or(true, |ended| ended.is_some()));
        self.child.try_wait()
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// Does not happen on Linux.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// The last lines that it wrote, or nothing.
    pub fn last_log_lines(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = console::strip_ansi_codes(&String::from_utf8_lossy(&log)).into_owned();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LOG_LINES_MAX));
        last.map(|line| format!("\n| {}", line.chars().take(LOG_LINE_CHARS_MAX).collect::<String>()))
            .collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Sends a process a signal.
///
/// # Errors
/// When there is no such process.
pub fn send_signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}

/// Looks until something is so, or so long; whether it was.
pub fn wait_for(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        pause(LOOK_INTERVAL);
    }
}

/// Has this thread wait.
#[expect(
    clippy::disallowed_methods,
    reason = "a thread that waits for other processes, and drives no connection"
)]
pub fn pause(time: Duration) {
    thread::sleep(time);
}
