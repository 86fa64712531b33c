//! What a process costs, or a tree of them: CPU time and memory, read from outside.

use std::io;
use std::time::Duration;

use procfs::process::{Stat, Status};

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: i32,
}

impl Process {
    /// The process with this ID; whether there is one shows when it is read.
    ///
    /// # Errors
    /// When no process can have this ID.
    pub fn new(pid: u32) -> io::Result<Self> {
        match i32::try_from(pid) {
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
    /// processes are not. In ticks of 10 ms.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let stat = self.stat()?;
        Ok(ticks(stat.utime + stat.stime))
    }

    fn proc(&self) -> io::Result<procfs::process::Process> {
        procfs::process::Process::new(self.pid).map_err(io::Error::other)
    }

    fn stat(&self) -> io::Result<Stat> {
        self.proc()?.stat().map_err(io::Error::other)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        self.status_bytes(|status| status.vmrss)
    }

    /// The most resident memory that it ever had, in bytes.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn resident_bytes_peak(&self) -> io::Result<u64> {
        self.status_bytes(|status| status.vmhwm)
    }

    /// A figure of `/proc/P/status`, which counts in KiB.
    fn status_bytes(&self, kibibytes: fn(&Status) -> Option<u64>) -> io::Result<u64> {
        let status = self.proc()?.status().map_err(io::Error::other)?;
        let kibibytes = kibibytes(&status).ok_or_else(|| io::Error::other("the process has ended"))?;
        Ok(kibibytes * 1024)
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / procfs::ticks_per_second())
}

/// A process, all that descend from it, and all of its process group: a server with its workers.
#[derive(Clone, Copy, Debug)]
pub struct ProcessTree {
    root: Process,
}

/// What a tree has cost so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeCost {
    /// CPU time, user and system, of all its processes. Those that have ended count once they have been waited for.
    pub cpu: Duration,
    /// The sum of what each process that still runs had at most; pages that several share count for each.
    pub resident_bytes_peak: u64,
}

impl ProcessTree {
    /// The tree under `root`. Its group counts if `root` leads one: then children whose parent has ended still belong.
    pub fn new(root: Process) -> Self {
        Self { root }
    }

    /// The IDs of its processes, the root first; none when all have ended.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn members(&self) -> io::Result<Vec<u32>> {
        let root = self.root.pid;
        // One that has ended and only waits to be waited for does not count; one that ends just now can't be read.
        let stats: Vec<Stat> = procfs::process::all_processes()
            .map_err(io::Error::other)?
            .filter_map(|process| process.and_then(|process| process.stat()).ok())
            .filter(|stat| !matches!(stat.state, 'Z' | 'X'))
            .collect();
        let mut members: Vec<&Stat> = stats.iter().filter(|stat| stat.pid == root).collect();
        members.extend(stats.iter().filter(|stat| stat.pgrp == root && stat.pid != root));
        let mut next = 0;
        while let Some(parent) = members.get(next).map(|member| member.pid) {
            next += 1;
            for stat in stats.iter().filter(|stat| stat.ppid == parent) {
                if !members.iter().any(|member| member.pid == stat.pid) {
                    members.push(stat);
                }
            }
        }
        Ok(members.iter().filter_map(|member| u32::try_from(member.pid).ok()).collect())
    }

    /// What it has cost so far.
    ///
    /// # Errors
    /// When its root has ended.
    pub fn cost(&self) -> io::Result<TreeCost> {
        let mut cost = TreeCost { cpu: Duration::ZERO, resident_bytes_peak: 0 };
        cost.add(&self.root)?;
        for pid in self.members()? {
            let process = Process::new(pid)?;
            // One that ends just now is its parent's to account for.
            if process.pid != self.root.pid {
                let _ = cost.add(&process);
            }
        }
        Ok(cost)
    }
}

impl TreeCost {
    fn add(&mut self, process: &Process) -> io::Result<()> {
        let stat = process.stat()?;
        let children = u64::try_from(stat.cutime + stat.cstime).unwrap_or_default();
        let peak = process.resident_bytes_peak()?;
        self.cpu += ticks(stat.utime + stat.stime + children);
        self.resident_bytes_peak += peak;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    #[test]
    fn own_cpu_time_grows_with_work() {
        let own = Process::own().unwrap();
        let before = own.cpu_time().unwrap();
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
        let cost = own.cpu_time().unwrap() - before;
        assert!(cost + ticks(2) >= worked, "{cost:?} for {worked:?} of work");
        assert!(own.resident_bytes().unwrap() > 100_000);
    }

    /// A shell with two children, one of which burns CPU and ends; the other stays, then loses its parent.
    #[test]
    fn a_tree_counts_children_that_run_and_children_that_have_ended() {
        use std::io::{BufRead, BufReader};
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};

        let burn = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'";
        let mut shell = Command::new("sh")
            .args(["-c", &format!("sleep 60 & {burn}; echo burnt; read _; exit")])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let tree = ProcessTree::new(Process::new(shell.id()).unwrap());
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let members = tree.members().unwrap();
        assert_eq!((members.len(), members[0]), (2, shell.id()), "{members:?}");
        let cost = tree.cost().unwrap();
        let shell_alone = Process::new(shell.id()).unwrap();
        let (own, peak) = (shell_alone.cpu_time().unwrap(), shell_alone.resident_bytes_peak().unwrap());
        assert!(cost.cpu >= own + Duration::from_millis(50), "{cost:?}, of which the shell's own {own:?}");
        assert!(cost.resident_bytes_peak > peak, "{cost:?}, of which the shell's own {peak}");

        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(tree.cost().is_err());
        // The orphan is found by its group.
        assert_eq!(tree.members().unwrap(), members[1..]);
        let orphan = rustix::process::Pid::from_raw(i32::try_from(members[1]).unwrap()).unwrap();
        rustix::process::kill_process(orphan, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Process::new(0).is_err());
        let gone = Process::new(4_000_000).unwrap();
        assert!(gone.cpu_time().is_err() && gone.resident_bytes().is_err());
    }
}
