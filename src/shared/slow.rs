//! Counts and limits of what all slow tenants hold together, over all cores. [`pace`](super::pace) defines slow.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::config::plan::Share;

/// The class of a tenant, by the response times of its latest requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Its upstream answers in time.
    Prompt,
    /// Its upstream has lately not answered in time.
    Slow,
}

impl Class {
    /// Both classes, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Prompt, Self::Slow];
}

/// A tenant's position when it waits for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The class, which selects the queue.
    pub class: Class,
    /// Consecutive requests that were cut or timed out, if the tenant is slow.
    pub strikes: u32,
    /// Since when it waits, if that is longer than the request does.
    pub since: Option<Instant>,
}

impl Standing {
    /// The standing of a prompt tenant.
    pub const PROMPT: Self = Self { class: Class::Prompt, strikes: 0, since: None };
}

/// Parts and bytes that all slow tenants hold together. One per process.
#[derive(Debug, Default)]
pub struct SlowTotals {
    parts: AtomicUsize,
    bytes: AtomicUsize,
}

impl SlowTotals {
    /// Adds `parts` and `bytes` to the totals.
    pub fn add(&self, parts: usize, bytes: usize) {
        // Relaxed is enough: the numbers guard no other memory.
        self.parts.fetch_add(parts, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Subtracts `parts` and `bytes` from the totals.
    pub fn sub(&self, parts: usize, bytes: usize) {
        self.parts.fetch_sub(parts, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether a slow tenant that holds `held` parts may have one more.
    ///
    /// Half of the share is reserved for tenants that hold none. Otherwise a few busy slow tenants could keep the
    /// others from ever sending the request that shows their recovery.
    pub fn admit(&self, held: usize, share: &Share) -> bool {
        let of = |max: usize| if held == 0 { max } else { max / 2 };
        self.parts.load(Ordering::Relaxed) < of(share.parts_max)
            && self.bytes.load(Ordering::Relaxed) < of(share.bytes_max)
    }

    /// Whether slow tenants hold more than their share.
    pub fn exceed(&self, share: &Share) -> bool {
        self.parts.load(Ordering::Relaxed) > share.parts_max
            || self.bytes.load(Ordering::Relaxed) > share.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_share_is_for_tenants_that_hold_nothing() {
        let totals = SlowTotals::default();
        let share = Share { parts_max: 10, bytes_max: 1_000 };
        totals.add(5, 100);
        assert!(totals.admit(0, &share) && !totals.admit(1, &share));
        totals.add(5, 100);
        assert!(!totals.admit(0, &share) && !totals.exceed(&share));
        totals.add(1, 0);
        assert!(totals.exceed(&share));
        totals.sub(10, 0);
        assert!(totals.admit(1, &share));
        totals.add(0, 400);
        assert!(totals.admit(0, &share) && !totals.admit(1, &share), "bytes count, too");
    }
}
