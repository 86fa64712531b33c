//! When the next request is due.

use std::thread;
use std::time::{Duration, Instant};

/// How long a sender sleeps at most before it looks whether it is to stop.
const NAP_MAX: Duration = Duration::from_millis(100);

/// One sender's timetable.
#[derive(Debug)]
pub(super) enum Pace {
    /// The next is due when the last is answered.
    Closed,
    /// The next is due when the timetable says so, and at once if that is past.
    Fixed {
        /// When the next is due, from the start.
        next: Duration,
        interval: Duration,
    },
}

impl Pace {
    /// The timetable of sender `index` of `senders`, which together send `rate` requests a second. Senders take
    /// turns: they are offset by equal parts of the interval.
    pub(super) fn new(rate: Option<f64>, index: usize, senders: usize) -> Self {
        let Some(rate) = rate.filter(|rate| *rate > 0.0) else { return Self::Closed };
        let turn = |turns: usize| {
            let turns = u32::try_from(turns).map_or(f64::from(u32::MAX), f64::from);
            Duration::try_from_secs_f64(turns / rate).unwrap_or(Duration::MAX)
        };
        Self::Fixed { next: turn(index), interval: turn(senders) }
    }

    /// When the next request is due; `now` for a sender without a timetable.
    pub(super) fn due(&mut self, started: Instant, now: Instant) -> Instant {
        match self {
            Self::Closed => now,
            Self::Fixed { next, interval } => {
                // Past the end of time is never: a year is as good.
                const NEVER: Duration = Duration::from_secs(365 * 86_400);
                let due = started + (*next).min(NEVER);
                *next = next.saturating_add(*interval);
                due
            }
        }
    }
}

/// Sleeps until `due`; false if `stopped` said so before.
#[expect(clippy::disallowed_methods, reason = "a sender's thread has nothing else to do")]
pub(super) fn sleep_until(due: Instant, stopped: impl Fn() -> bool) -> bool {
    loop {
        if stopped() {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(NAP_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_take_turns_and_the_timetable_does_not_slip() {
        let start = Instant::now();
        let mut due = Vec::new();
        for sender in 0..4 {
            let mut pace = Pace::new(Some(100.0), sender, 4);
            // However late it is asked.
            due.extend((0..3).map(|_| pace.due(start, start + Duration::from_secs(9)) - start));
        }
        due.sort_unstable();
        let expected: Vec<_> = (0..12).map(|turn| Duration::from_millis(10 * turn)).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn without_a_rate_it_is_always_time() {
        let start = Instant::now();
        let now = start + Duration::from_secs(3);
        assert_eq!(Pace::new(None, 3, 4).due(start, now), now);
    }

    #[test]
    fn a_stop_ends_the_sleep() {
        let begun = Instant::now();
        assert!(!sleep_until(begun + Duration::from_secs(60), || begun.elapsed() > Duration::from_millis(50)));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
