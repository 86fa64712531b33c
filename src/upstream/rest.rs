//! Which of an upstream's addresses rest. Pure: no I/O, no clock of its own.
//!
//! Constraints that shaped it:
//!
//! * Each request that goes to a dead address costs its sender time, though a live one stands beside it. So an address
//!   that has failed [`REST_AFTER_FAILURES`] times in a row rests, and the others take over.
//! * It may be back at any time. When its rest is over, one request goes there as a probe; what becomes of it decides
//!   between an end of all rest and one twice as long, up to [`REST_MILLIS_MAX`].
//! * One event is one rest. When a host dies, everything that was under way to it fails, within moments or, where
//!   nobody sends a reset, later: failures of requests that were no probe don't make a rest longer.
//! * Rest is a choice among addresses, never an answer: where all rest, requests go to the one whose rest ends first,
//!   at once. It goes behind the others then, so that no single one gets them all. Nobody hears 502 because we chose
//!   not to ask, be it that the others have just failed. And an address that is the only one has nobody to take over,
//!   so that there is nothing to remember of it.
//! * What fails must be the address, not a request: refused, unreachable, reset. An answer that does not come in time
//!   may be one tenant's trouble, and counts only if the address has answered nobody meanwhile. A stale connection
//!   never counts.
//!
//! A resting address is not asked only because all connections to the others are in use: to wait for one of them is
//! better than an error.
//!
//! Each core finds out for itself: it costs a few requests, and no word between cores.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::limits::{REST_AFTER_FAILURES, REST_MILLIS_MAX, REST_MILLIS_MIN};

/// The addresses that have failed since they worked last; no others are known.
#[derive(Debug, Default)]
pub struct Rests {
    troubled: HashMap<SocketAddr, Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    length: Duration,
    end: Instant,
    /// Whether a request goes there, or went there, because the rest was over.
    probed: bool,
}

/// An address was put to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// For how long.
    pub length: Duration,
    /// Whether it had worked until then; otherwise it had rested, and a probe found it as it was.
    pub first: bool,
}

impl Rests {
    /// Whether there is nothing to be looked at: no address has failed.
    pub fn is_quiet(&self) -> bool {
        self.troubled.is_empty()
    }

    /// The addresses to be tried now, out of `in_turn` and in their order: those that neither rest nor have been
    /// `tried` for the same request. If there are none, all of them: those that were not tried first, by the end of
    /// their rest.
    pub fn choose(
        &self,
        mut in_turn: Vec<SocketAddr>,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Vec<SocketAddr> {
        let end = |address: &SocketAddr| self.troubled.get(address)?.rest.as_ref().map(|rest| rest.end);
        let is_last =
            |address: &SocketAddr| tried.contains(address) || end(address).is_some_and(|end| now < end);
        if in_turn.iter().all(is_last) {
            in_turn.sort_by_key(|address| (tried.contains(address), end(address)));
        } else {
            in_turn.retain(|address| !is_last(address));
        }
        in_turn
    }

    /// A request goes to `address`. If its rest was over, that is the probe, and no other goes there until its
    /// outcome is known or it has taken as long as the rest. If not, all rest, and it is the others' turn.
    pub fn goes_to(&mut self, address: SocketAddr, now: Instant) {
        if let Some(Trouble { rest: Some(rest), .. }) = self.troubled.get_mut(&address) {
            rest.probed |= now >= rest.end;
            rest.end = now + rest.length;
        }
    }

    /// `address` has failed; whether it is put to rest for that.
    pub fn failed(&mut self, address: SocketAddr, now: Instant) -> Option<Begun> {
        let trouble = self.troubled.entry(address).or_default();
        trouble.failures = trouble.failures.saturating_add(1);
        let (length, first) = match &trouble.rest {
            None if trouble.failures < REST_AFTER_FAILURES => return None,
            None => (Duration::from_millis(REST_MILLIS_MIN), true),
            Some(rest) if !rest.probed => return None,
            Some(rest) => ((rest.length * 2).min(Duration::from_millis(REST_MILLIS_MAX)), false),
        };
        trouble.rest = Some(Rest { length, end: now + length, probed: false });
        Some(Begun { length, first })
    }

    /// `address` has answered, whatever it said. Whether it had been put to rest.
    pub fn worked(&mut self, address: SocketAddr) -> bool {
        !self.is_quiet() && self.troubled.remove(&address).is_some_and(|trouble| trouble.rest.is_some())
    }

    /// Forgets all but these addresses, and a single one too.
    pub fn keep(&mut self, addresses: &[SocketAddr]) {
        self.troubled.retain(|address, _| addresses.len() > 1 && addresses.contains(address));
    }

    /// How many addresses have been put to rest and have not worked since.
    pub fn resting(&self) -> usize {
        self.troubled.values().filter(|trouble| trouble.rest.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(REST_MILLIS_MIN);
    const JUST: Duration = Duration::from_millis(1);

    fn addresses() -> [SocketAddr; 3] {
        [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// One address that has been put to rest.
    fn resting(address: SocketAddr, now: Instant) -> Rests {
        let mut rests = Rests::default();
        for _ in 1..REST_AFTER_FAILURES {
            assert_eq!(rests.failed(address, now), None);
        }
        assert_eq!(rests.failed(address, now), Some(Begun { length: MIN, first: true }));
        rests
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let ([a, ..], now) = (addresses(), Instant::now());
        let mut rests = Rests::default();
        for _ in 0..10 {
            for _ in 1..REST_AFTER_FAILURES {
                assert_eq!(rests.failed(a, now), None);
            }
            assert!(!rests.worked(a));
            assert!(rests.is_quiet());
        }
    }

    #[test]
    fn the_others_take_over_while_one_rests() {
        let ([a, b, c], now) = (addresses(), Instant::now());
        let rests = resting(b, now);
        assert_eq!(rests.choose(vec![b, c, a], &[], now + MIN - JUST), [c, a]);
        assert_eq!(rests.choose(vec![b, c, a], &[], now + MIN), [b, c, a], "its rest is over");
        assert_eq!(rests.resting(), 1);
    }

    #[test]
    fn one_probe_goes_when_the_rest_is_over() {
        let ([a, b, _], now) = (addresses(), Instant::now());
        let mut rests = resting(a, now);
        let over = now + MIN;
        rests.goes_to(a, over);
        assert_eq!(rests.choose(vec![a, b], &[], over), [b], "the probe is on its way");
        assert_eq!(rests.choose(vec![a, b], &[], over + MIN), [a, b], "nothing was heard of it: another one");
        assert!(rests.worked(a));
        assert_eq!(rests.choose(vec![a, b], &[], over), [a, b]);
        assert!(rests.is_quiet());
    }

    #[test]
    fn a_probe_that_fails_doubles_the_rest_up_to_its_bound() {
        let ([a, b, _], mut now) = (addresses(), Instant::now());
        let mut rests = resting(a, now);
        let mut length = MIN;
        for _ in 0..20 {
            now += length;
            rests.goes_to(a, now);
            length = (length * 2).min(Duration::from_millis(REST_MILLIS_MAX));
            assert_eq!(rests.failed(a, now), Some(Begun { length, first: false }));
            assert_eq!(rests.choose(vec![a, b], &[], now + length - JUST), [b]);
        }
        assert_eq!(length.as_millis(), u128::from(REST_MILLIS_MAX));
        rests.worked(a);
        assert_eq!(rests.failed(a, now), None, "it begins anew");
    }

    #[test]
    fn what_was_under_way_when_an_address_died_makes_its_rest_no_longer() {
        let ([a, b, _], now) = (addresses(), Instant::now());
        let mut rests = resting(a, now);
        for late in 0..50 {
            assert_eq!(rests.failed(a, now + JUST * late), None);
        }
        assert_eq!(rests.choose(vec![a, b], &[], now + MIN - JUST), [b]);
        assert_eq!(rests.choose(vec![a, b], &[], now + MIN), [a, b]);
        // Nor do they after its rest, while nobody has gone there again.
        assert_eq!(rests.failed(a, now + MIN), None);
        rests.goes_to(a, now + MIN);
        assert_eq!(rests.failed(a, now + MIN), Some(Begun { length: MIN * 2, first: false }));
    }

    #[test]
    fn a_request_whose_other_addresses_have_failed_goes_to_one_that_rests() {
        let ([a, b, c], now) = (addresses(), Instant::now());
        let rests = resting(a, now);
        assert_eq!(rests.choose(vec![b, c, a], &[b], now), [c]);
        assert_eq!(rests.choose(vec![b, c, a], &[b, c], now), [a, b, c]);
    }

    #[test]
    fn where_all_rest_the_one_that_is_due_first_is_asked_and_then_the_next() {
        let ([a, b, c], now) = (addresses(), Instant::now());
        let mut rests = resting(a, now);
        for later in [b, c] {
            for _ in 0..REST_AFTER_FAILURES {
                rests.failed(later, now + JUST * u32::from(later.port()));
            }
        }
        let mut asked = Vec::new();
        for nth in 4..10 {
            let now = now + JUST * nth;
            let all = rests.choose(vec![c, b, a], &[], now);
            assert_eq!(all.len(), 3, "none is passed over");
            rests.goes_to(all[0], now);
            rests.failed(all[0], now);
            asked.push(all[0]);
        }
        assert_eq!(asked, [a, b, c, a, b, c]);
        rests.worked(b);
        assert_eq!(rests.choose(vec![c, b, a], &[], now + JUST * 10), [b], "whichever works gets them all");
    }

    #[test]
    fn addresses_that_are_gone_are_forgotten_and_a_sole_one_never_rests() {
        let ([a, b, c], now) = (addresses(), Instant::now());
        let mut rests = resting(a, now);
        rests.failed(b, now);
        rests.keep(&[b, c]);
        assert_eq!((rests.resting(), rests.is_quiet()), (0, false));
        let mut rests = resting(a, now);
        rests.keep(&[a, b]);
        assert_eq!(rests.resting(), 1);
        rests.keep(&[a]);
        assert!(rests.is_quiet());
    }
}
