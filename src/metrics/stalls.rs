//! How long a core's loop did not turn.
//!
//! The sweeper of each core sleeps for a moment, again and again. A timer that fires late says that the core did not
//! turn meanwhile: a task ran on, a call blocked, or the kernel gave the CPU to others. The lateness is never more than
//! the stall, and less by at most one period of the sweeper. A core without connections has nothing to sweep, and
//! measures nothing.
#![forbid(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How far back a stall is remembered.
const WINDOW_SECS: usize = 60;
/// The window is kept in slots of this length, so a stall is remembered for up to so much longer.
const SLOT_SECS: usize = 5;
const SLOTS: usize = WINDOW_SECS / SLOT_SECS + 1;

/// The longest stalls of a core. The core writes, and any thread may read.
#[derive(Debug, Default)]
pub struct Stalls {
    /// When the first timer was to fire.
    began: OnceLock<Instant>,
    /// Since `began`, in nanoseconds: when the sweeper's timer fires next; 0 if none is set.
    due: AtomicU64,
    /// Each slot in turn. Number and stall are two words, so a reader may see an old stall under a new number for a
    /// moment. It then tells a stall of a minute ago for a little too long.
    slots: [SlotOfTime; SLOTS],
}

#[derive(Debug, Default)]
struct SlotOfTime {
    /// Which slot of time it is for, from 1; 0 before its first use.
    number: AtomicU64,
    longest_nanos: AtomicU64,
}

impl Stalls {
    /// Records when the sweeper's timer fires next. `None` if it has nothing to do.
    pub fn expect(&self, due: Option<Instant>) {
        let nanos = due.map_or(0, |due| {
            self.began.get_or_init(|| due);
            self.nanos(due).max(1)
        });
        self.due.store(nanos, Ordering::Relaxed);
    }

    /// Records that the timer has fired.
    pub fn turned(&self, now: Instant) {
        let now = self.nanos(now);
        let late = now.saturating_sub(self.due.load(Ordering::Relaxed));
        let number = slot_number(now);
        let at = usize::try_from(number % SLOTS as u64).unwrap_or_default();
        let Some(slot) = self.slots.get(at) else { return };
        if slot.number.load(Ordering::Relaxed) != number {
            slot.longest_nanos.store(late, Ordering::Relaxed);
            slot.number.store(number, Ordering::Relaxed);
        } else if late > slot.longest_nanos.load(Ordering::Relaxed) {
            slot.longest_nanos.store(late, Ordering::Relaxed);
        }
    }

    /// The longest stall of the minute before `now`.
    pub fn longest(&self, now: Instant) -> Duration {
        self.read().longest(now)
    }

    /// Reads all.
    pub fn read(&self) -> Stalled {
        let slot = |slot: &SlotOfTime| {
            (slot.number.load(Ordering::Relaxed), slot.longest_nanos.load(Ordering::Relaxed))
        };
        Stalled {
            began: self.began.get().copied(),
            due: self.due.load(Ordering::Relaxed),
            slots: self.slots.iter().map(slot).collect(),
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        nanos_since(self.began.get().copied(), at)
    }
}

/// [`Stalls`] as they were read.
#[derive(Clone, Debug)]
pub struct Stalled {
    began: Option<Instant>,
    due: u64,
    /// Numbers, and the longest stalls in nanoseconds.
    slots: Vec<(u64, u64)>,
}

impl Stalled {
    /// The longest stall of the minute before `now`. One that lasts counts as far as it goes.
    pub fn longest(&self, now: Instant) -> Duration {
        let now = nanos_since(self.began, now);
        let lasting = if self.due == 0 { 0 } else { now.saturating_sub(self.due) };
        let first = slot_number(now).saturating_sub(SLOTS as u64 - 1).max(1);
        let past = self.slots.iter().filter(|(number, _)| *number >= first).map(|(_, nanos)| *nanos);
        Duration::from_nanos(past.max().unwrap_or(0).max(lasting))
    }
}

fn nanos_since(began: Option<Instant>, at: Instant) -> u64 {
    let since = began.map(|began| at.saturating_duration_since(began));
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The number of the slot of time that a moment is in, from 1.
fn slot_number(nanos: u64) -> u64 {
    nanos / (SLOT_SECS as u64 * 1_000_000_000) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_longest_stall_is_remembered_for_a_minute() {
        let (stalls, began) = (Stalls::default(), Instant::now());
        assert_eq!(stalls.longest(began), Duration::ZERO);
        for (due, fired) in [(0, 300), (1_000, 1_010), (6_000, 6_020)] {
            stalls.expect(Some(began + millis(due)));
            stalls.turned(began + millis(fired));
            stalls.expect(None);
        }
        assert_eq!(stalls.longest(began + millis(7_000)), millis(300));
        assert_eq!(stalls.longest(began + millis(60_000)), millis(300));
        assert_eq!(stalls.longest(began + millis(66_000)), millis(20));
        assert_eq!(stalls.longest(began + millis(80_000)), Duration::ZERO);
        // A slot that is used again forgets what it held.
        stalls.expect(Some(began + millis(66_000)));
        stalls.turned(began + millis(66_001));
        stalls.expect(None);
        assert_eq!(stalls.longest(began + millis(66_100)), millis(20));
    }

    #[test]
    fn a_stall_that_lasts_is_seen() {
        let (stalls, began) = (Stalls::default(), Instant::now());
        stalls.expect(Some(began));
        stalls.turned(began);
        stalls.expect(Some(began + millis(100)));
        assert_eq!(stalls.longest(began + millis(50)), Duration::ZERO);
        assert_eq!(stalls.longest(began + millis(1_100)), millis(1_000));
    }
}
