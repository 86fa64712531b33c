//! The driver of a core: io_uring where the kernel allows it, otherwise epoll.
//!
//! Containers often forbid io_uring, or a part of it, by seccomp, and old kernels lack operations that we need. So the
//! server probes it at the start, before anything depends on it: on a separate thread, with the flags that the cores
//! will use.

use std::future::Future;
use std::io;

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::stream::Blocking;
use crate::config::DriverChoice;

/// A driver that is known to work on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, with the best mode of completing operations that this kernel supports.
    IoUring(TaskRun),
    /// epoll.
    Epoll,
}

/// When the kernel runs the task work that completes operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRun {
    /// When the core asks for completions, and never in between (Linux 6.1).
    Deferred,
    /// At any system call, without an interrupt (Linux 5.19).
    Cooperative,
    /// At once, by an interrupt.
    Eager,
}

/// Entries of a core's submission queue. A full queue is submitted, so this does not limit the load.
const ENTRIES: u32 = 1_024;

impl Driver {
    /// Returns the driver for `choice`, if it works here. If `auto` falls back to epoll, also returns the reason why
    /// io_uring does not work.
    ///
    /// # Errors
    /// If `choice` is io_uring and that does not work.
    pub fn probe(choice: DriverChoice) -> io::Result<(Self, Option<io::Error>)> {
        match (choice, probe_io_uring()) {
            (DriverChoice::Epoll, _) => Ok((Self::Epoll, None)),
            (_, Ok(driver)) => Ok((driver, None)),
            (DriverChoice::Auto, Err(why)) => Ok((Self::Epoll, Some(why))),
            (DriverChoice::IoUring, Err(why)) => Err(why),
        }
    }

    /// Returns the driver's name for the log and the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring(_) => "io_uring",
            Self::Epoll => "epoll",
        }
    }

    /// Returns the socket mode that the driver needs.
    pub fn blocking(self) -> Blocking {
        match self {
            Self::IoUring(_) => Blocking::Yes,
            Self::Epoll => Blocking::No,
        }
    }

    /// Runs a future and all tasks that it spawns on a new ring on this thread.
    ///
    /// # Errors
    /// If the ring can't be set up.
    pub fn block_on<F: Future>(self, future: F) -> io::Result<F::Output> {
        match self {
            Self::IoUring(task_run) => {
                let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES);
                Ok(builder.uring_builder(flags(task_run)).enable_timer().build()?.block_on(future))
            }
            Self::Epoll => {
                let builder = RuntimeBuilder::<LegacyDriver>::new().with_entries(ENTRIES);
                Ok(builder.enable_timer().build()?.block_on(future))
            }
        }
    }
}

fn flags(task_run: TaskRun) -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    match task_run {
        TaskRun::Deferred => builder.setup_single_issuer().setup_defer_taskrun(),
        TaskRun::Cooperative => builder.setup_coop_taskrun(),
        TaskRun::Eager => &mut builder,
    };
    builder
}

/// Tries the modes from the best to the plainest, on a thread that ends with its ring.
fn probe_io_uring() -> io::Result<Driver> {
    let probe = std::thread::Builder::new().name("probe".into()).spawn(|| {
        if !monoio::utils::detect_uring() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel forbids io_uring or lacks an operation",
            ));
        }
        let mut why = io::Error::from(io::ErrorKind::Unsupported);
        for task_run in [TaskRun::Deferred, TaskRun::Cooperative, TaskRun::Eager] {
            if let Err(e) = enter_ring(task_run) {
                why = e;
                continue;
            }
            let driver = Driver::IoUring(task_run);
            let nap = async { monoio::time::sleep(std::time::Duration::from_millis(1)).await };
            match driver.block_on(nap) {
                Ok(()) => return Ok(driver),
                Err(e) => why = e,
            }
        }
        Err(why)
    })?;
    probe.join().unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
}

/// Submits one no-op to a ring. A seccomp profile may allow creating rings and forbid entering them. monoio ignores
/// that error and would wait forever.
fn enter_ring(task_run: TaskRun) -> io::Result<()> {
    let mut ring: io_uring::IoUring = flags(task_run).build(2)?;
    let nothing = io_uring::opcode::Nop::new().build();
    // SAFETY: a no-op refers to no memory.
    unsafe { ring.submission().push(&nothing) }.map_err(io::Error::other)?;
    let entered = ring.submit_and_wait(1);
    entered.map_err(|e| io::Error::new(e.kind(), format!("io_uring_enter: {e}")))?;
    ring.completion().next().map(drop).ok_or_else(|| io::Error::other("io_uring_enter did nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_always_works() {
        let (driver, why_not) = Driver::probe(DriverChoice::Epoll).unwrap();
        assert_eq!(driver, Driver::Epoll);
        assert!(why_not.is_none());
        assert_eq!(driver.block_on(async { 7 }).unwrap(), 7);
    }

    #[test]
    fn auto_finds_a_ring_that_works() {
        let (driver, _) = Driver::probe(DriverChoice::Auto).unwrap();
        assert_eq!(driver.block_on(async { 7 }).unwrap(), 7);
    }
}
