//! Response times of an upstream address: when a request to it is slow, and how many slow requests may be cut. Pure: no
//! I/O, no clock of its own.
//!
//! Constraints that shaped it:
//!
//! * A tenant's own share limits one tenant that stalls. Many that stall together would take every connection and
//!   every slot for requests in work: 64 unanswered requests are enough. So all slow tenants *together* get a share,
//!   and the rest stays free for prompt tenants.
//! * No one can predict which tenant will stall, and a request that was sent can't be taken back. So a tenant counts as
//!   slow as soon as one of its requests takes far longer than usual for its address ([`Pace::slow_after`]), not only
//!   when that request times out. The first answer in time makes it prompt again.
//! * While others wait, requests of slow tenants beyond the share are cut: the sender gets 504, as it would a little
//!   later anyway. But an address that pauses for a moment must not have all its requests cut. A few may be cut to find
//!   out; after that, each request sent *since* and answered in time allows two more cuts ([`Pace::may_cut`]).
//! * A tenant may be slow by nature, or classed as slow by mistake. So slow tenants don't only wait for each other's
//!   timeouts: a request is cut for another slow tenant's, too. Each consecutive cut doubles the time that the tenant's
//!   requests may take ([`slow_timeout`]) and moves it back in the queue ([`queue_penalty`]). So tenants classed as
//!   slow by mistake come before those whose upstream never answers, and a tenant that needs two seconds gets them.
//!
//! The usual time of an address is a moving average that adapts within some fifty answers, so an upstream that becomes
//! slow for every tenant soon counts as usual. All cores share it: a core whose tenants all stall could not learn it
//! alone. The atomics need no ordering between them, as each value only has to be about right.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::{
    SLOW_CUTS_AT_ONCE_MAX, SLOW_CUTS_PER_ANSWER, SLOW_CUTS_RENEW_MILLIS, SLOW_MILLIS_MIN, SLOW_STRIKES_MAX,
    SLOW_TIMES_USUAL, SLOW_USUAL_MICROS_MIN,
};

/// The response times of one address; see the module.
#[derive(Debug)]
pub struct Pace {
    epoch: Instant,
    /// The moving average of the response time in microseconds; [`NEVER`] before the first answer.
    usual: AtomicU64,
    cuts_left: AtomicU32,
    /// The time of the last cut, in microseconds after `epoch`, or [`NEVER`].
    cut_at: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Pace {
    /// Creates the pace of an address without any answer, at time `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            usual: AtomicU64::new(NEVER),
            cuts_left: AtomicU32::new(0),
            cut_at: AtomicU64::new(NEVER),
        }
    }

    /// Returns the usual response time of the address, once it has answered.
    pub fn usual(&self) -> Option<Duration> {
        let usual = self.usual.load(Ordering::Relaxed);
        (usual != NEVER).then(|| Duration::from_micros(usual))
    }

    /// Returns how long a request to this address may take before its tenant counts as slow, at most `timeout`.
    pub fn slow_after(&self, timeout: Duration) -> Duration {
        match self.usual.load(Ordering::Relaxed) {
            NEVER => timeout,
            usual => {
                let many_times = Duration::from_micros(usual.saturating_mul(SLOW_TIMES_USUAL));
                many_times.max(Duration::from_millis(SLOW_MILLIS_MIN)).min(timeout)
            }
        }
    }

    /// Records that a request sent at `begun` was answered at `now`, with whatever status. Returns whether it was
    /// answered in time.
    pub fn answered(&self, begun: Instant, now: Instant, timeout: Duration) -> bool {
        let took = now.saturating_duration_since(begun);
        let in_time = took <= self.slow_after(timeout);
        let took = micros(took);
        // The latest answer has a weight of one eighth, and counts for at most twice the usual time: a few very late
        // answers must not raise the average so far that later ones pass as usual.
        let average = match self.usual.load(Ordering::Relaxed) {
            NEVER => took,
            usual => usual - usual / 8 + took.min((2 * usual).max(SLOW_USUAL_MICROS_MIN)) / 8,
        };
        self.usual.store(average, Ordering::Relaxed);
        let cut_at = self.cut_at.load(Ordering::Relaxed);
        if in_time && cut_at != NEVER && self.micros(begun) >= cut_at {
            let more =
                (self.cuts_left.load(Ordering::Relaxed) + SLOW_CUTS_PER_ANSWER).min(SLOW_CUTS_AT_ONCE_MAX);
            self.cuts_left.store(more, Ordering::Relaxed);
        }
        in_time
    }

    /// Returns how many requests may be cut at `now`. `first` may be cut to find out whether the address answers
    /// others.
    pub fn may_cut(&self, first: usize, now: Instant) -> usize {
        match self.cut_at.load(Ordering::Relaxed) {
            cut_at if cut_at != NEVER && self.micros(now) < cut_at + SLOW_CUTS_RENEW_MILLIS * 1_000 => {
                self.cuts_left.load(Ordering::Relaxed) as usize
            }
            _ => first,
        }
    }

    /// Records a cut at `now`; `first` is as for [`Self::may_cut`].
    pub fn cut(&self, first: usize, now: Instant) {
        let left = u32::try_from(self.may_cut(first, now)).unwrap_or(u32::MAX);
        self.cuts_left.store(left.saturating_sub(1), Ordering::Relaxed);
        self.cut_at.store(self.micros(now), Ordering::Relaxed);
    }

    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.epoch))
    }
}

/// Returns how long a request of a slow tenant may take while other slow tenants wait, at most `timeout`. `slow_after`
/// is that of its address, `strikes` the number of the tenant's consecutive requests that were cut or timed out.
pub fn slow_timeout(slow_after: Duration, strikes: u32, timeout: Duration) -> Duration {
    slow_after.saturating_mul(1 << strikes.min(SLOW_STRIKES_MAX)).min(timeout)
}

/// Returns the delay that is added to the queueing time of a slow tenant's request, which may wait for `wait_max`. The
/// delay is at most half of `wait_max`: even with all connections in use, the request's turn has to come before it
/// times out.
pub fn queue_penalty(strikes: u32, wait_max: Duration) -> Duration {
    Duration::from_millis(SLOW_MILLIS_MIN * ((1 << strikes.min(SLOW_STRIKES_MAX)) - 1)).min(wait_max / 2)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// The pace of an address whose answers take `usual`.
    fn pace(usual: Duration, start: Instant) -> Pace {
        let pace = Pace::new(start);
        (0..50).for_each(|_| _ = pace.answered(start, start + usual, TIMEOUT));
        pace
    }

    #[test]
    fn patience_is_a_multiple_of_the_usual_time_within_bounds() {
        let start = Instant::now();
        assert_eq!(Pace::new(start).slow_after(TIMEOUT), TIMEOUT, "nothing is known");
        assert_eq!(pace(millis(1), start).slow_after(TIMEOUT), millis(SLOW_MILLIS_MIN));
        assert_eq!(pace(millis(100), start).slow_after(TIMEOUT), millis(100 * SLOW_TIMES_USUAL));
        assert_eq!(pace(Duration::from_secs(5), start).slow_after(TIMEOUT), TIMEOUT);
    }

    #[test]
    fn an_upstream_that_becomes_slow_for_all_soon_counts_as_usual() {
        let start = Instant::now();
        let pace = pace(millis(5), start);
        let late = (0..200).filter(|_| !pace.answered(start, start + millis(1_000), TIMEOUT)).count();
        assert!((10..=40).contains(&late), "{late} answers were late");
    }

    #[test]
    fn a_few_very_late_answers_do_not_hide_late_ones_after_them() {
        let start = Instant::now();
        let pace = pace(millis(5), start);
        (0..8).for_each(|_| _ = pace.answered(start, start + TIMEOUT, TIMEOUT));
        assert_eq!(pace.slow_after(TIMEOUT), millis(SLOW_MILLIS_MIN));
    }

    #[test]
    fn repeated_cuts_allow_more_time_and_longer_waits() {
        let slow_after = millis(250);
        assert_eq!(
            [0, 1, 3].map(|strikes| slow_timeout(slow_after, strikes, TIMEOUT)),
            [250, 500, 2_000].map(millis)
        );
        assert_eq!(slow_timeout(slow_after, u32::MAX, TIMEOUT), TIMEOUT);
        assert_eq!(queue_penalty(0, TIMEOUT), Duration::ZERO);
        assert!(queue_penalty(1, TIMEOUT) < queue_penalty(2, TIMEOUT));
        assert_eq!(queue_penalty(u32::MAX, TIMEOUT), TIMEOUT / 2, "its turn comes in time");
    }

    #[test]
    fn few_requests_are_cut_until_answers_come_in_time() {
        let start = Instant::now();
        let pace = pace(millis(5), start);
        let later = start + millis(20);
        assert_eq!(pace.may_cut(3, start), 3);
        (0..3).for_each(|_| pace.cut(3, start + millis(10)));
        assert_eq!(pace.may_cut(3, later), 0, "no answer since");
        // Requests sent before the cut do not count, nor do late answers.
        pace.answered(start + millis(9), start + millis(14), TIMEOUT);
        pace.answered(start + millis(10), start + millis(900), TIMEOUT);
        assert_eq!(pace.may_cut(3, later), 0);
        pace.answered(start + millis(10), start + millis(15), TIMEOUT);
        assert_eq!(pace.may_cut(3, later), SLOW_CUTS_PER_ANSWER as usize);
        (0..1_000).for_each(|_| _ = pace.answered(start + millis(11), start + millis(16), TIMEOUT));
        assert_eq!(pace.may_cut(3, later), SLOW_CUTS_AT_ONCE_MAX as usize);
        let renewed = start + millis(10 + SLOW_CUTS_RENEW_MILLIS);
        assert_eq!(pace.may_cut(3, renewed), 3, "a later stall starts afresh");
        pace.cut(3, renewed);
        assert_eq!(pace.may_cut(3, renewed), 2);
    }
}
