//! When the next request is due.

use std::thread;
use std::time::{Duration, Instant};

/// How long a sender sleeps at most before it looks whether it is to stop.
const NAP_MAX: Duration = Duration::from_millis(50);

/// Past the end of time is never: a year is as good.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// One sender's timetable.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the next is due, from the start.
    next: Duration,
    interval: Duration,
    /// Whether what is late leaves at once, and all that is late after it. If not, the timetable begins anew.
    catches_up: bool,
}

impl Pace {
    /// The timetable of sender `index` of `senders`, which together send `rate` requests a second. Senders take
    /// turns: they are offset by equal parts of the interval. Without a rate the next is due when the last is answered.
    pub(crate) fn new(rate: Option<f64>, index: usize, senders: usize) -> Self {
        let Some(rate) = rate.filter(|rate| *rate > 0.0) else { return Self::every(Duration::ZERO) };
        let turn = |turns: usize| {
            let turns = u32::try_from(turns).map_or(f64::from(u32::MAX), f64::from);
            Duration::try_from_secs_f64(turns / rate).unwrap_or(NEVER).min(NEVER)
        };
        Self { next: turn(index), interval: turn(senders), catches_up: true }
    }

    /// The timetable of a sender that, behind its time after retries, does not hurry to catch up: neither does
    /// Prometheus.
    pub(crate) fn every(interval: Duration) -> Self {
        Self { next: Duration::ZERO, interval, catches_up: false }
    }

    /// When the next request is due.
    pub(super) fn due(&mut self, started: Instant, now: Instant) -> Instant {
        let due = started + self.next.min(NEVER);
        let due = if self.catches_up { due } else { due.max(now) };
        self.next = (due - started).saturating_add(self.interval);
        due
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
        let mut pace = Pace::new(None, 3, 4);
        assert_eq!([pace.due(start, now), pace.due(start, now)], [now, now]);
    }

    #[test]
    fn with_an_interval_the_late_one_begins_the_timetable_anew() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::every(Duration::from_millis(100));
        let due = [0, 30, 450, 460].map(|now| pace.due(start, at(now)));
        assert_eq!(due, [0, 100, 450, 550].map(at));
    }

    #[test]
    fn a_stop_ends_the_sleep() {
        let begun = Instant::now();
        assert!(!sleep_until(begun + Duration::from_secs(60), || begun.elapsed() > Duration::from_millis(50)));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
