//! The service manager's watchdog: it ends a process that does not notify it in time (`WatchdogSec=`).
//!
//! A server is alive if every core turns: if it takes the messages in its mailbox. So the supervisor sends each core a
//! beat, and notifies the service manager only after all of them have answered. A core that hangs in one task, or in
//! the kernel, does not.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::exchange::fragment::Beat;
use crate::service::{self, Notice};

/// Beats come often enough that two of them fit into half of the time that the service manager allows.
const BEATS_PER_TIMEOUT: u32 = 4;

/// The least time between two beats. A watchdog that wants to be fed more often is not satisfied.
const EVERY_MIN: Duration = Duration::from_millis(1);

/// How long a wait may take when there is no watchdog.
const NO_WATCHDOG: Duration = Duration::from_secs(3_600);

/// The watchdog, which may be off.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// The time between two beats. None if the service manager does not watch.
    every: Option<Duration>,
    due: Instant,
    cores: usize,
    /// The beat that the cores answer now. None before the first.
    beat: Option<Arc<Beat>>,
    /// Whether cores were late at the last look.
    is_late: bool,
}

impl Watchdog {
    /// A watchdog that must be fed within `timeout`, if it is on, for a server with so many cores.
    pub(super) fn new(timeout: Option<Duration>, cores: usize, now: Instant) -> Self {
        let timeout = timeout.filter(|timeout| !timeout.is_zero());
        let every = timeout.map(|timeout| (timeout / BEATS_PER_TIMEOUT).max(EVERY_MIN));
        Self { every, due: now, cores, beat: None, is_late: false }
    }

    /// Receives once when [`look`](Self::look) is due, and never if the watchdog is off.
    pub(super) fn alarm(&self) -> Receiver<Instant> {
        match self.every {
            Some(_) => crossbeam_channel::at(self.due),
            None => crossbeam_channel::never(),
        }
    }

    /// The longest time to wait for anything else.
    pub(super) fn every(&self) -> Duration {
        self.every.unwrap_or(NO_WATCHDOG)
    }

    /// If the next look is due: notifies the service manager if all cores have answered, and returns the next beat for
    /// them. Otherwise the cores that are late are logged, and nothing is sent.
    pub(super) fn look(&mut self, now: Instant) -> Option<Arc<Beat>> {
        let every = self.every.filter(|_| now >= self.due)?;
        self.due = now + every;
        if let Some(beat) = &self.beat {
            let late = beat.late();
            if !late.is_empty() {
                // A core that turns again is noticed soon.
                self.due = now + every / BEATS_PER_TIMEOUT;
                if !self.is_late {
                    tracing::error!(cores = ?late, "these cores do not turn: the watchdog is not fed");
                }
                self.is_late = true;
                return None;
            }
            self.is_late = false;
            service::notify(&Notice::Alive);
        }
        let next = Arc::new(Beat::new(self.cores));
        self.beat = Some(Arc::clone(&next));
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_next_beat_comes_only_when_all_cores_have_answered() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(Some(4 * SECOND), 2, start);
        let first = watchdog.look(start).unwrap();
        first.answer(1);
        assert!(watchdog.look(start + SECOND / 2).is_none(), "not due");
        assert!(watchdog.look(start + SECOND).is_none(), "core 0 has not answered");
        assert_eq!(first.late(), [0]);
        first.answer(0);
        assert!(watchdog.look(start + SECOND + SECOND / 8).is_none(), "not due");
        let second = watchdog.look(start + SECOND + SECOND / 4).unwrap();
        assert_eq!(second.late(), [0, 1]);
    }

    #[test]
    fn without_a_service_manager_there_are_no_beats() {
        let start = Instant::now();
        for timeout in [None, Some(Duration::ZERO)] {
            let mut watchdog = Watchdog::new(timeout, 2, start);
            assert!(watchdog.look(start + 100 * SECOND).is_none());
            assert!(watchdog.alarm().recv_timeout(Duration::from_millis(1)).is_err());
        }
    }
}
