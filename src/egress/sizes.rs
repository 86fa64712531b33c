//! Which request sizes an upstream accepts from one tenant, as far as is known. Pure: no I/O, no clock of its own.
//!
//! # Constraints
//!
//! * No upstream announces its limit; it answers 413. Without a memory every large request would be sent once in vain
//!   and then in halves.
//! * A limit may belong to the upstream or to the tenant, and it may apply to deflated bytes. So each tenant learns for
//!   each address.
//! * Only a refusal lowers the known size. A small request that was accepted says nothing about larger ones.
//! * Operators raise limits. So every [`SIZE_GROWS_SECS`] a request of twice the size may be tried, which costs one
//!   refusal if the limit is still the same. A limit that no request has met for long is forgotten.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::limits::{SIZE_ADDRESSES_MAX, SIZE_FORGOTTEN_SECS, SIZE_GROWS_SECS};

/// The known sizes of one tenant, for the addresses that have refused one of its requests lately.
#[derive(Debug, Default)]
pub struct Sizes {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    address: SocketAddr,
    /// The number of bytes that a request may inflate to, as of `since`.
    bytes_max: usize,
    since: Instant,
}

impl Known {
    fn bytes_max(&self, now: Instant) -> usize {
        let doublings = now.saturating_duration_since(self.since).as_secs() / SIZE_GROWS_SECS;
        let factor =
            u32::try_from(doublings).ok().and_then(|by| 1usize.checked_shl(by)).unwrap_or(usize::MAX);
        self.bytes_max.saturating_mul(factor)
    }
}

impl Sizes {
    /// The address has refused a request of this inflated size because of the size. Half of it may fit.
    pub fn refused(&mut self, address: SocketAddr, bytes: usize, now: Instant) {
        let half = (bytes / 2).max(1);
        self.forget_old(now);
        let bytes_max = match self.known.iter().position(|known| known.address == address) {
            Some(place) => self.known.swap_remove(place).bytes_max(now).min(half),
            None => half,
        };
        if self.known.len() >= SIZE_ADDRESSES_MAX {
            // The oldest one would soon be tried again anyway.
            self.known.remove(0);
        }
        self.known.push(Known { address, bytes_max, since: now });
    }

    /// The address has accepted a request of this inflated size.
    pub fn taken(&mut self, address: SocketAddr, bytes: usize, now: Instant) {
        let known = self.known.iter_mut().find(|known| known.address == address);
        if let Some(known) = known.filter(|known| known.bytes_max < bytes) {
            (known.bytes_max, known.since) = (bytes, now);
        }
    }

    /// Returns the number of bytes that a request may inflate to, whichever address it goes to. `None` if nothing is
    /// known.
    pub fn bytes_max(&mut self, now: Instant) -> Option<usize> {
        if self.known.is_empty() {
            return None;
        }
        self.forget_old(now);
        self.known.iter().map(|known| known.bytes_max(now)).min()
    }

    /// The sizes by address.
    pub fn all(&self, now: Instant) -> Vec<(SocketAddr, usize)> {
        self.known.iter().map(|known| (known.address, known.bytes_max(now))).collect()
    }

    fn forget_old(&mut self, now: Instant) {
        let keep = Duration::from_secs(SIZE_FORGOTTEN_SECS);
        self.known.retain(|known| now.saturating_duration_since(known.since) < keep);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn later(now: Instant, secs: u64) -> Instant {
        now + Duration::from_secs(secs)
    }

    #[test]
    fn nothing_is_known_of_an_address_that_refused_nothing() {
        let (mut sizes, now) = (Sizes::default(), Instant::now());
        sizes.taken(address(1), 1_000, now);
        assert_eq!(sizes.bytes_max(now), None);
    }

    #[test]
    fn a_refusal_halves_it_and_a_success_never_lowers_it() {
        let (mut sizes, now) = (Sizes::default(), Instant::now());
        sizes.refused(address(1), 1_000, now);
        assert_eq!(sizes.bytes_max(now), Some(500));
        sizes.taken(address(1), 10, now);
        assert_eq!(sizes.bytes_max(now), Some(500), "that ten fit says nothing");
        sizes.refused(address(1), 400, now);
        assert_eq!(sizes.bytes_max(now), Some(200));
        sizes.refused(address(1), 900, now);
        assert_eq!(sizes.bytes_max(now), Some(200), "what was on its way already");
        sizes.taken(address(1), 300, now);
        assert_eq!(sizes.bytes_max(now), Some(300));
        // The smallest of all addresses, as it is not known which will be next.
        sizes.refused(address(2), 300, now);
        assert_eq!(sizes.bytes_max(now), Some(150));
    }

    #[test]
    fn after_a_while_the_next_larger_size_is_tried_and_at_last_any() {
        let (mut sizes, now) = (Sizes::default(), Instant::now());
        sizes.refused(address(1), 1_000, now);
        assert_eq!(sizes.bytes_max(later(now, SIZE_GROWS_SECS - 1)), Some(500));
        let then = later(now, SIZE_GROWS_SECS);
        assert_eq!(sizes.bytes_max(then), Some(1_000));
        // It is still too much: what fitted before is believed again.
        sizes.refused(address(1), 1_000, then);
        assert_eq!(sizes.bytes_max(then), Some(500));
        assert_eq!(sizes.bytes_max(later(then, 2 * SIZE_GROWS_SECS)), Some(2_000));
        assert_eq!(sizes.bytes_max(later(then, SIZE_FORGOTTEN_SECS)), None);
    }

    #[test]
    fn addresses_are_bounded_in_number() {
        let (mut sizes, now) = (Sizes::default(), Instant::now());
        (1..1_000).for_each(|port| sizes.refused(address(port), 1_000, now));
        assert_eq!(sizes.known.len(), SIZE_ADDRESSES_MAX);
    }

    /// Sends a request of so many bytes, halving what is refused or known to be too large, to an upstream that takes
    /// `limit`. How many attempts it took.
    fn attempts(sizes: &mut Sizes, bytes: usize, limit: usize, now: Instant) -> usize {
        let (mut left, mut attempts) = (vec![bytes], 0);
        while let Some(piece) = left.pop() {
            let is_known_too_large = piece > 1 && sizes.bytes_max(now).is_some_and(|max| piece > max);
            if !is_known_too_large {
                attempts += 1;
                if piece <= limit {
                    sizes.taken(address(1), piece, now);
                    continue;
                }
                sizes.refused(address(1), piece, now);
            }
            left.extend([piece / 2, piece - piece / 2]);
        }
        attempts
    }

    proptest! {
        /// Once learnt, a part goes in few pieces, whatever small requests are taken in between.
        #[test]
        fn a_limit_that_is_known_costs_few_pieces(bytes in 1_000usize..1_000_000, limit in 100usize..100_000) {
            let (mut sizes, now) = (Sizes::default(), Instant::now());
            let pieces = bytes.div_ceil(limit);
            let first = attempts(&mut sizes, bytes, limit, now);
            prop_assert!(first <= 8 * pieces + 20, "{first} attempts for {pieces} at first");
            sizes.taken(address(1), 10, now);
            let then = attempts(&mut sizes, bytes, limit, now);
            prop_assert!(then <= 4 * pieces, "{then} attempts for {pieces} then");
        }
    }
}
