//! What a process costs: its CPU time and its memory, read from outside.

use std::fs;
use std::io;
use std::time::Duration;

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: libc::pid_t,
}

impl Process {
    /// The process with this ID; whether there is one shows when it is read.
    ///
    /// # Errors
    /// When no process can have this ID.
    pub fn new(pid: u32) -> io::Result<Self> {
        match libc::pid_t::try_from(pid) {
            Ok(pid) if pid > 0 => Ok(Self { pid }),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is no process ID"))),
        }
    }

    /// This process.
    ///
    /// # Errors
    /// Does not happen on Linux.
    pub fn own() -> io::Result<Self> {
        Self::new(std::process::id())
    }

    /// CPU time so far, user and system together, of all its threads, those that have ended included; child
    /// processes are not.
    ///
    /// The process' CPU clock counts in nanoseconds what `/proc/P/stat` tells in ticks of 10 ms.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        self.cpu_clock().or_else(|_| self.cpu_ticks())
    }

    fn cpu_clock(&self) -> io::Result<Duration> {
        let mut clock: libc::clockid_t = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `clock` is a valid place for the result; the call keeps no pointer to it.
        let error = unsafe { libc::clock_getcpuclockid(self.pid, &raw mut clock) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: `time` is a valid place for the result; the call keeps no pointer to it.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Ok(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
    }

    /// Fields 14 and 15 of `/proc/P/stat` (proc_pid_stat(5)), in ticks.
    fn cpu_ticks(&self) -> io::Result<Duration> {
        /// USER_HZ, which the kernel has fixed for its interfaces on every architecture that we run on.
        const TICKS_PER_SECOND: u64 = 100;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The second field is the program's name in parentheses and may hold anything, so count from its end.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 =
            after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes =
            line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
        kibibytes.map(|kibibytes| kibibytes * 1024).ok_or_else(|| io::Error::other("the process has ended"))
    }
}

/// Resident memory over a run, one reading a second.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    readings: Vec<u64>,
}

/// The window that is compared with everything before it.
const LAST_SECONDS: usize = 30;

/// How much the last window may be above what was before and still be called flat: a page cache of an allocator.
const FLAT_SLACK_BYTES: u64 = 1 << 20;

impl Memory {
    /// One reading more.
    pub fn record(&mut self, resident_bytes: u64) {
        self.readings.push(resident_bytes);
    }

    /// In the middle of the run.
    #[must_use]
    pub fn middle(&self) -> u64 {
        self.readings.get(self.readings.len() / 2).copied().unwrap_or_default()
    }

    /// At its end.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.readings.last().copied().unwrap_or_default()
    }

    /// The most before the last 30 s, and the most within them. A run of less than a minute is halved instead.
    #[must_use]
    pub fn before_and_last(&self) -> (u64, u64) {
        let border = self.readings.len().saturating_sub(LAST_SECONDS.min(self.readings.len() / 2));
        let (before, last) = self.readings.split_at(border);
        let most = |readings: &[u64]| readings.iter().max().copied().unwrap_or_default();
        (most(before), most(last))
    }

    /// Whether the last window took no more than was taken before: 2 % and a MiB of slack.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        let (before, last) = self.before_and_last();
        last <= before + before / 50 + FLAT_SLACK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    #[test]
    fn own_cpu_time_grows_with_work_and_both_sources_agree() {
        let own = Process::own().unwrap();
        let (clock, ticks) = (own.cpu_clock().unwrap(), own.cpu_ticks().unwrap());
        let mut worked = Duration::ZERO;
        let thread_clock = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
        };
        // A thread that has ended must still count.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (begin, wall) = (thread_clock(), Instant::now());
                while worked < Duration::from_millis(300) && wall.elapsed() < Duration::from_secs(30) {
                    black_box((0..10_000u64).sum::<u64>());
                    worked = thread_clock() - begin;
                }
            });
        });
        let (clock, ticks) = (own.cpu_clock().unwrap() - clock, own.cpu_ticks().unwrap() - ticks);
        assert!(clock >= worked, "{clock:?} for {worked:?} of work");
        let apart = clock.abs_diff(ticks);
        assert!(apart <= Duration::from_millis(100), "clock {clock:?}, ticks {ticks:?}");
        assert!(own.resident_bytes().unwrap() > 100_000);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Process::new(0).is_err());
        let gone = Process::new(4_000_000).unwrap();
        assert!(gone.cpu_time().is_err() && gone.resident_bytes().is_err());
    }

    #[test]
    fn memory_is_flat_when_the_last_half_minute_adds_nothing() {
        let memory = |readings: &mut dyn Iterator<Item = u64>| {
            let mut memory = Memory::default();
            readings.for_each(|mib| memory.record(mib << 20));
            memory
        };
        let settled = memory(&mut (0..60).map(|second| second.min(20) + 10));
        assert!(settled.is_flat());
        assert_eq!((settled.middle(), settled.end()), (30 << 20, 30 << 20));
        let leaking = memory(&mut (0..60).map(|second| second + 10));
        assert!(!leaking.is_flat());
        assert_eq!(leaking.before_and_last(), (39 << 20, 69 << 20));
    }
}
