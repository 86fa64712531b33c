//! Which of an upstream's addresses are in backoff. Pure: no I/O, no clock of its own.
//!
//! # Constraints
//!
//! * Each request that goes to a dead address costs its sender time, although another address would answer. So an
//!   address that has failed [`BACKOFF_AFTER_FAILURES`] times in a row is passed over.
//! * The address may recover at any time. When its backoff ends, one request probes it. If the probe fails, the next
//!   backoff is twice as long, up to [`BACKOFF_MILLIS_MAX`]; if it succeeds, the address is in use again.
//! * One event causes one backoff. When a host dies, everything in flight to it fails, at once or, without a reset,
//!   later. So failures of requests that were no probe do not lengthen a backoff.
//! * Backoff orders addresses; it never refuses a request. If all addresses are in backoff, a request goes at once to
//!   the one whose backoff ends first, and that address goes to the end of the order. So no sender gets a 502 because
//!   of a choice made here. A single address has no alternative, so nothing is remembered of it.
//! * A failure must be the fault of the address, not of a request: connection refused, unreachable, reset. A timeout
//!   may be the fault of one tenant. It counts only if the address has answered no other request meanwhile. A stale
//!   connection never counts.
//!
//! If all connections to the other addresses are in use, an address in backoff is still passed over: waiting for a
//! connection is better than an error.
//!
//! Each core learns by itself. That costs a few failed requests per core, and no messages between cores.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::limits::{BACKOFF_AFTER_FAILURES, BACKOFF_MILLIS_MAX, BACKOFF_MILLIS_MIN};

/// The addresses that have failed since they last answered.
#[derive(Debug, Default)]
pub struct Backoffs {
    failing: HashMap<SocketAddr, Failing>,
}

#[derive(Debug, Default)]
struct Failing {
    failures: u32,
    backoff: Option<Backoff>,
}

#[derive(Debug)]
struct Backoff {
    length: Duration,
    end: Instant,
    /// Whether a request has been sent as a probe since the backoff ended.
    probed: bool,
}

/// A backoff has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// For how long.
    pub length: Duration,
    /// Whether the address answered before. If not, this follows a failed probe.
    pub first: bool,
}

impl Backoffs {
    /// Whether no address has failed.
    pub fn is_quiet(&self) -> bool {
        self.failing.is_empty()
    }

    /// The addresses to try now, out of `in_turn` and in its order: those that are neither in backoff nor `tried` for
    /// the same request. If there are none, all addresses: first those not tried, ordered by the end of their backoff.
    pub fn choose(
        &self,
        mut in_turn: Vec<SocketAddr>,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Vec<SocketAddr> {
        let end =
            |address: &SocketAddr| self.failing.get(address)?.backoff.as_ref().map(|backoff| backoff.end);
        let is_last =
            |address: &SocketAddr| tried.contains(address) || end(address).is_some_and(|end| now < end);
        if in_turn.iter().all(is_last) {
            in_turn.sort_by_key(|address| (tried.contains(address), end(address)));
        } else {
            in_turn.retain(|address| !is_last(address));
        }
        in_turn
    }

    /// A request goes to `address`. If the backoff of the address has ended, this request is the probe, and no other
    /// goes there until the outcome is known or the length of the backoff has passed again. If it has not ended, all
    /// addresses are in backoff, and the others come next.
    pub fn goes_to(&mut self, address: SocketAddr, now: Instant) {
        if let Some(Failing { backoff: Some(backoff), .. }) = self.failing.get_mut(&address) {
            backoff.probed |= now >= backoff.end;
            backoff.end = now + backoff.length;
        }
    }

    /// `address` has failed. Returns the backoff that starts for that reason.
    pub fn failed(&mut self, address: SocketAddr, now: Instant) -> Option<Started> {
        let failing = self.failing.entry(address).or_default();
        failing.failures = failing.failures.saturating_add(1);
        let (length, first) = match &failing.backoff {
            None if failing.failures < BACKOFF_AFTER_FAILURES => return None,
            None => (Duration::from_millis(BACKOFF_MILLIS_MIN), true),
            Some(backoff) if !backoff.probed => return None,
            Some(backoff) => ((backoff.length * 2).min(Duration::from_millis(BACKOFF_MILLIS_MAX)), false),
        };
        failing.backoff = Some(Backoff { length, end: now + length, probed: false });
        Some(Started { length, first })
    }

    /// `address` has answered, with any status. Returns whether it was in backoff.
    pub fn worked(&mut self, address: SocketAddr) -> bool {
        !self.is_quiet() && self.failing.remove(&address).is_some_and(|failing| failing.backoff.is_some())
    }

    /// Forgets all addresses but these; forgets these, too, if there is only one.
    pub fn keep(&mut self, addresses: &[SocketAddr]) {
        self.failing.retain(|address, _| addresses.len() > 1 && addresses.contains(address));
    }

    /// How often in a row `address` has failed, and how much of its backoff is left, if it is in backoff.
    pub fn state_of(&self, address: SocketAddr, now: Instant) -> (u32, Option<Duration>) {
        let failing = self.failing.get(&address);
        let left = failing.and_then(|failing| failing.backoff.as_ref());
        (
            failing.map_or(0, |failing| failing.failures),
            left.map(|left| left.end.saturating_duration_since(now)),
        )
    }

    /// How many addresses are in backoff: they have not answered since it started.
    pub fn in_backoff(&self) -> usize {
        self.failing.values().filter(|failing| failing.backoff.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(BACKOFF_MILLIS_MIN);
    const JUST: Duration = Duration::from_millis(1);

    fn addresses() -> [SocketAddr; 3] {
        [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// One address in backoff.
    fn in_backoff(address: SocketAddr, now: Instant) -> Backoffs {
        let mut backoffs = Backoffs::default();
        for _ in 1..BACKOFF_AFTER_FAILURES {
            assert_eq!(backoffs.failed(address, now), None);
        }
        assert_eq!(backoffs.failed(address, now), Some(Started { length: MIN, first: true }));
        backoffs
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let ([a, ..], now) = (addresses(), Instant::now());
        let mut backoffs = Backoffs::default();
        for _ in 0..10 {
            for _ in 1..BACKOFF_AFTER_FAILURES {
                assert_eq!(backoffs.failed(a, now), None);
            }
            assert!(!backoffs.worked(a));
            assert!(backoffs.is_quiet());
        }
    }

    #[test]
    fn others_take_over_from_an_address_in_backoff() {
        let ([a, b, c], now) = (addresses(), Instant::now());
        let backoffs = in_backoff(b, now);
        assert_eq!(backoffs.choose(vec![b, c, a], &[], now + MIN - JUST), [c, a]);
        assert_eq!(backoffs.choose(vec![b, c, a], &[], now + MIN), [b, c, a], "its backoff has ended");
        assert_eq!(backoffs.in_backoff(), 1);
    }

    #[test]
    fn one_probe_goes_when_the_backoff_has_ended() {
        let ([a, b, _], now) = (addresses(), Instant::now());
        let mut backoffs = in_backoff(a, now);
        let over = now + MIN;
        backoffs.goes_to(a, over);
        assert_eq!(backoffs.choose(vec![a, b], &[], over), [b], "the probe is on its way");
        assert_eq!(backoffs.choose(vec![a, b], &[], over + MIN), [a, b], "no outcome yet: another probe");
        assert!(backoffs.worked(a));
        assert_eq!(backoffs.choose(vec![a, b], &[], over), [a, b]);
        assert!(backoffs.is_quiet());
    }

    #[test]
    fn a_failed_probe_doubles_the_backoff_up_to_its_bound() {
        let ([a, b, _], mut now) = (addresses(), Instant::now());
        let mut backoffs = in_backoff(a, now);
        let mut length = MIN;
        for _ in 0..20 {
            now += length;
            backoffs.goes_to(a, now);
            length = (length * 2).min(Duration::from_millis(BACKOFF_MILLIS_MAX));
            assert_eq!(backoffs.failed(a, now), Some(Started { length, first: false }));
            assert_eq!(backoffs.choose(vec![a, b], &[], now + length - JUST), [b]);
        }
        assert_eq!(length.as_millis(), u128::from(BACKOFF_MILLIS_MAX));
        backoffs.worked(a);
        assert_eq!(backoffs.failed(a, now), None, "it begins anew");
    }

    #[test]
    fn requests_in_flight_when_an_address_died_do_not_lengthen_its_backoff() {
        let ([a, b, _], now) = (addresses(), Instant::now());
        let mut backoffs = in_backoff(a, now);
        for late in 0..50 {
            assert_eq!(backoffs.failed(a, now + JUST * late), None);
        }
        assert_eq!(backoffs.choose(vec![a, b], &[], now + MIN - JUST), [b]);
        assert_eq!(backoffs.choose(vec![a, b], &[], now + MIN), [a, b]);
        // Nor do they after its end, until a probe has been sent.
        assert_eq!(backoffs.failed(a, now + MIN), None);
        backoffs.goes_to(a, now + MIN);
        assert_eq!(backoffs.failed(a, now + MIN), Some(Started { length: MIN * 2, first: false }));
    }

    #[test]
    fn a_request_whose_other_addresses_have_failed_goes_to_one_in_backoff() {
        let ([a, b, c], now) = (addresses(), Instant::now());
        let backoffs = in_backoff(a, now);
        assert_eq!(backoffs.choose(vec![b, c, a], &[b], now), [c]);
        assert_eq!(backoffs.choose(vec![b, c, a], &[b, c], now), [a, b, c]);
    }

    #[test]
    fn if_all_are_in_backoff_the_one_that_ends_first_is_asked_and_then_the_next() {
        let ([a, b, c], now) = (addresses(), Instant::now());
        let mut backoffs = in_backoff(a, now);
        for later in [b, c] {
            for _ in 0..BACKOFF_AFTER_FAILURES {
                backoffs.failed(later, now + JUST * u32::from(later.port()));
            }
        }
        let mut asked = Vec::new();
        for nth in 4..10 {
            let now = now + JUST * nth;
            let all = backoffs.choose(vec![c, b, a], &[], now);
            assert_eq!(all.len(), 3, "none is passed over");
            backoffs.goes_to(all[0], now);
            backoffs.failed(all[0], now);
            asked.push(all[0]);
        }
        assert_eq!(asked, [a, b, c, a, b, c]);
        backoffs.worked(b);
        assert_eq!(
            backoffs.choose(vec![c, b, a], &[], now + JUST * 10),
            [b],
            "the one that answers gets all requests"
        );
    }

    #[test]
    fn addresses_that_left_dns_are_forgotten_and_a_sole_one_has_no_backoff() {
        let ([a, b, c], now) = (addresses(), Instant::now());
        let mut backoffs = in_backoff(a, now);
        backoffs.failed(b, now);
        backoffs.keep(&[b, c]);
        assert_eq!((backoffs.in_backoff(), backoffs.is_quiet()), (0, false));
        let mut backoffs = in_backoff(a, now);
        backoffs.keep(&[a, b]);
        assert_eq!(backoffs.in_backoff(), 1);
        backoffs.keep(&[a]);
        assert!(backoffs.is_quiet());
    }
}
