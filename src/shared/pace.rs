//! How fast an upstream address answers, when a request to it is slow, and how many slow ones may be cut. Pure: no
//! I/O, no clock of its own.
//!
//! Constraints that shaped it:
//!
//! * One tenant that stalls is held by its own share. Many that stall together would take every connection and every
//!   place in work: 64 requests that nobody answers are enough. So all slow tenants *together* get a share, and what is
//!   prompt always finds the rest.
//! * Nobody knows beforehand who will stall, and a request on its way can't be taken back. So a tenant counts as slow
//!   as soon as one of its requests has been on its way for far longer than is usual for its address
//!   ([`Pace::patience`]), not only when that request times out; and it is prompt again with the first answer that
//!   comes in time.
//! * Requests of slow tenants that are on their way beyond the share are cut when others wait: the sender gets 504,
//!   as it would a little later. But an address that answers nobody for a moment must not have all its requests cut.
//!   A few may be cut to find out; after that, each answer that came in time *since* pays for two more
//!   ([`Pace::may_cut`]).
//!
//! * A tenant may be taken for slow by mistake, or be slow by nature. So slow tenants don't only wait for each other's
//!   timeouts: a request is cut for another slow tenant's, too, but each time that this happens to a tenant in a row its
//!   requests may take twice as long ([`leash`]), and wait a little longer ([`penalty`]). Who was taken for slow by
//!   mistake comes before those who never answer, and who needs two seconds gets them.
//!
//! An address's usual time is an average that follows within some fifty answers, so that an upstream which becomes
//! slow for everybody is soon the usual one. All cores learn it together: a core whose tenants all stall would never
//! know it. Its words are read and written without order between them, as each only has to be about right.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::{
    SLOW_CUTS_AT_ONCE_MAX, SLOW_CUTS_PER_ANSWER, SLOW_CUTS_RENEW_MILLIS, SLOW_MILLIS_MIN, SLOW_STRIKES_MAX,
    SLOW_TIMES_USUAL, SLOW_USUAL_MICROS_MIN,
};

/// What the process knows of one address; see the module.
#[derive(Debug)]
pub struct Pace {
    epoch: Instant,
    /// The average time to an answer in microseconds, the latest answers counting most; [`NEVER`] before the first.
    usual: AtomicU64,
    cuts_left: AtomicU32,
    /// When one was cut last, in microseconds after `epoch`; or [`NEVER`].
    cut_at: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Pace {
    /// Nothing is known yet at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            usual: AtomicU64::new(NEVER),
            cuts_left: AtomicU32::new(0),
            cut_at: AtomicU64::new(NEVER),
        }
    }

    /// How long a request to this address may take before its tenant counts as slow; `timeout` at most.
    pub fn patience(&self, timeout: Duration) -> Duration {
        match self.usual.load(Ordering::Relaxed) {
            NEVER => timeout,
            usual => {
                let many_times = Duration::from_micros(usual.saturating_mul(SLOW_TIMES_USUAL));
                many_times.max(Duration::from_millis(SLOW_MILLIS_MIN)).min(timeout)
            }
        }
    }

    /// A request that was sent at `begun` has been answered at `now`, whatever the answer says. Whether it came in
    /// time.
    pub fn answered(&self, begun: Instant, now: Instant, timeout: Duration) -> bool {
        let took = now.saturating_duration_since(begun);
        let in_time = took <= self.patience(timeout);
        let took = micros(took);
        // The latest answer has an eighth of the weight, and counts for no more than twice what was usual: a few that
        // come very late must not hide all that come late afterwards.
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

    /// How many requests may be cut at `now`, if `first` are to find out whether the address answers others.
    pub fn may_cut(&self, first: usize, now: Instant) -> usize {
        match self.cut_at.load(Ordering::Relaxed) {
            cut_at if cut_at != NEVER && self.micros(now) < cut_at + SLOW_CUTS_RENEW_MILLIS * 1_000 => {
                self.cuts_left.load(Ordering::Relaxed) as usize
            }
            _ => first,
        }
    }

    /// One was cut at `now`.
    pub fn cut(&self, first: usize, now: Instant) {
        let left = u32::try_from(self.may_cut(first, now)).unwrap_or(u32::MAX);
        self.cuts_left.store(left.saturating_sub(1), Ordering::Relaxed);
        self.cut_at.store(self.micros(now), Ordering::Relaxed);
    }

    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.epoch))
    }
}

/// How long a request of a slow tenant may take while other slow tenants wait, when so many of its requests in a row
/// were cut or timed out. `patience` is its address's.
pub fn leash(patience: Duration, strikes: u32, timeout: Duration) -> Duration {
    patience.saturating_mul(1 << strikes.min(SLOW_STRIKES_MAX)).min(timeout)
}

/// How much later than it did a request of a slow tenant counts as having come to wait, which it may do for `patience`.
/// No more than half of that: where all connections are in use, its turn has to come before it has waited in vain.
pub fn penalty(strikes: u32, patience: Duration) -> Duration {
    Duration::from_millis(SLOW_MILLIS_MIN * ((1 << strikes.min(SLOW_STRIKES_MAX)) - 1)).min(patience / 2)
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

    /// A pace at which answers take so long.
    fn pace(usual: Duration, start: Instant) -> Pace {
        let pace = Pace::new(start);
        (0..50).for_each(|_| _ = pace.answered(start, start + usual, TIMEOUT));
        pace
    }

    #[test]
    fn patience_is_many_times_the_usual_within_bounds() {
        let start = Instant::now();
        assert_eq!(Pace::new(start).patience(TIMEOUT), TIMEOUT, "nothing is known");
        assert_eq!(pace(millis(1), start).patience(TIMEOUT), millis(SLOW_MILLIS_MIN));
        assert_eq!(pace(millis(100), start).patience(TIMEOUT), millis(100 * SLOW_TIMES_USUAL));
        assert_eq!(pace(Duration::from_secs(5), start).patience(TIMEOUT), TIMEOUT);
    }

    #[test]
    fn an_upstream_that_becomes_slow_for_all_is_soon_the_usual_one() {
        let start = Instant::now();
        let pace = pace(millis(5), start);
        let late = (0..200).filter(|_| !pace.answered(start, start + millis(1_000), TIMEOUT)).count();
        assert!((10..=40).contains(&late), "{late} answers were late");
    }

    #[test]
    fn a_few_answers_that_come_very_late_do_not_hide_those_that_come_late_then() {
        let start = Instant::now();
        let pace = pace(millis(5), start);
        (0..8).for_each(|_| _ = pace.answered(start, start + TIMEOUT, TIMEOUT));
        assert_eq!(pace.patience(TIMEOUT), millis(SLOW_MILLIS_MIN));
    }

    #[test]
    fn who_is_cut_again_and_again_gets_more_time_and_waits_longer() {
        let patience = millis(250);
        assert_eq!([0, 1, 3].map(|strikes| leash(patience, strikes, TIMEOUT)), [250, 500, 2_000].map(millis));
        assert_eq!(leash(patience, u32::MAX, TIMEOUT), TIMEOUT);
        assert_eq!(penalty(0, TIMEOUT), Duration::ZERO);
        assert!(penalty(1, TIMEOUT) < penalty(2, TIMEOUT));
        assert_eq!(penalty(u32::MAX, TIMEOUT), TIMEOUT / 2, "its turn comes all the same");
    }

    #[test]
    fn few_are_cut_until_answers_come_in_time() {
        let start = Instant::now();
        let pace = pace(millis(5), start);
        let later = start + millis(20);
        assert_eq!(pace.may_cut(3, start), 3);
        (0..3).for_each(|_| pace.cut(3, start + millis(10)));
        assert_eq!(pace.may_cut(3, later), 0, "nobody was answered since");
        // What had begun before says nothing of now; nor does what comes late.
        pace.answered(start + millis(9), start + millis(14), TIMEOUT);
        pace.answered(start + millis(10), start + millis(900), TIMEOUT);
        assert_eq!(pace.may_cut(3, later), 0);
        pace.answered(start + millis(10), start + millis(15), TIMEOUT);
        assert_eq!(pace.may_cut(3, later), SLOW_CUTS_PER_ANSWER as usize);
        (0..1_000).for_each(|_| _ = pace.answered(start + millis(11), start + millis(16), TIMEOUT));
        assert_eq!(pace.may_cut(3, later), SLOW_CUTS_AT_ONCE_MAX as usize);
        let renewed = start + millis(10 + SLOW_CUTS_RENEW_MILLIS);
        assert_eq!(pace.may_cut(3, renewed), 3, "another trouble begins anew");
        pace.cut(3, renewed);
        assert_eq!(pace.may_cut(3, renewed), 2);
    }
}
