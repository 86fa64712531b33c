//! Which sizes of requests an upstream takes, as far as it has shown. Pure: no I/O, no clock of its own.
//!
//! No upstream tells its limit beforehand; it answers 413. Without a memory every large request would be sent once in
//! vain and then in halves. So an address that refused a request for its size is not sent another as large, for
//! a while: limits are raised, too, and then what is larger should be tried again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::limits::SIZE_REMEMBERED_SECS;

/// What addresses have shown; see the module. It holds those that have refused something lately.
#[derive(Debug, Default)]
pub struct Sizes {
    known: HashMap<SocketAddr, Known>,
}

#[derive(Debug)]
struct Known {
    /// The largest that was taken since; 0 when none was.
    taken: usize,
    /// The smallest that was refused.
    refused: usize,
    until: Instant,
}

impl Sizes {
    /// The address has refused a request that inflates to so many bytes, for its size.
    pub fn refused(&mut self, address: SocketAddr, bytes: usize, now: Instant) {
        self.forget_old(now);
        let until = now + Duration::from_secs(SIZE_REMEMBERED_SECS);
        let known = self.known.entry(address).or_insert(Known { taken: 0, refused: bytes, until });
        known.refused = known.refused.min(bytes);
        // What was taken when it was larger: the limit has become smaller.
        known.taken = if known.taken < bytes { known.taken } else { 0 };
        known.until = until;
    }

    /// The address has taken one.
    pub fn taken(&mut self, address: SocketAddr, bytes: usize) {
        if let Some(known) = self.known.get_mut(&address) {
            known.taken = known.taken.max(bytes);
            // What was refused when it was smaller: the limit has become larger.
            known.refused = known.refused.max(bytes + 1);
        }
    }

    /// The most bytes that a request should inflate to, whichever address it goes to.
    pub fn bytes_max(&mut self, now: Instant) -> Option<usize> {
        if self.known.is_empty() {
            return None;
        }
        self.forget_old(now);
        let bytes_max = |known: &Known| if known.taken > 0 { known.taken } else { known.refused / 2 };
        self.known.values().map(bytes_max).min()
    }

    fn forget_old(&mut self, now: Instant) {
        self.known.retain(|_, known| now < known.until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1));
    const B: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 2));

    #[test]
    fn nothing_is_known_of_who_refused_nothing() {
        let (mut sizes, now) = (Sizes::default(), Instant::now());
        sizes.taken(A, 1_000);
        assert_eq!(sizes.bytes_max(now), None);
    }

    #[test]
    fn half_of_what_was_refused_and_then_the_most_that_was_taken() {
        let (mut sizes, now) = (Sizes::default(), Instant::now());
        sizes.refused(A, 1_000, now);
        assert_eq!(sizes.bytes_max(now), Some(500));
        sizes.refused(A, 500, now);
        assert_eq!(sizes.bytes_max(now), Some(250));
        sizes.taken(A, 240);
        sizes.taken(A, 100);
        assert_eq!(sizes.bytes_max(now), Some(240));
        // The smallest of all addresses, as it is not known which will be next.
        sizes.refused(B, 300, now);
        assert_eq!(sizes.bytes_max(now), Some(150));
    }

    #[test]
    fn a_limit_that_changes_is_found_again() {
        let (mut sizes, now) = (Sizes::default(), Instant::now());
        sizes.refused(A, 1_000, now);
        sizes.taken(A, 2_000);
        assert_eq!(sizes.bytes_max(now), Some(2_000), "raised");
        sizes.refused(A, 800, now);
        assert_eq!(sizes.bytes_max(now), Some(400), "lowered");
        assert_eq!(sizes.bytes_max(now + Duration::from_secs(SIZE_REMEMBERED_SECS)), None, "forgotten");
    }
}
