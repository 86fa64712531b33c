//! What the tenants that are slow have together, and may have, over all cores. [`pace`](super::pace) tells who is slow.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::plan::Share;

/// Whether a tenant's upstream answers in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It does.
    Prompt,
    /// It has lately not.
    Slow,
}

impl Class {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Prompt, Self::Slow];
}

/// How a tenant waits for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// In which queue.
    pub class: Class,
    /// Its requests that were cut or timed out in a row, if it is slow.
    pub strikes: u32,
}

impl Standing {
    /// Of a tenant whose upstream answers in time.
    pub const PROMPT: Self = Self { class: Class::Prompt, strikes: 0 };
}

/// What all slow tenants together have: one for the process.
#[derive(Debug, Default)]
pub struct SlowTotals {
    parts: AtomicUsize,
    bytes: AtomicUsize,
}

impl SlowTotals {
    /// Counts so much more.
    pub fn add(&self, parts: usize, bytes: usize) {
        // Relaxed: the numbers guard no other memory.
        self.parts.fetch_add(parts, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts so much less.
    pub fn sub(&self, parts: usize, bytes: usize) {
        self.parts.fetch_sub(parts, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether a slow tenant that has `held` parts may have one more.
    ///
    /// Half of the share is for tenants that have none, so that a few that send much can't keep the others from ever
    /// showing that they are well again.
    pub fn admit(&self, held: usize, share: &Share) -> bool {
        let of = |max: usize| if held == 0 { max } else { max / 2 };
        self.parts.load(Ordering::Relaxed) < of(share.parts_max)
            && self.bytes.load(Ordering::Relaxed) < of(share.bytes_max)
    }

    /// Whether they have more than their share.
    pub fn exceed(&self, share: &Share) -> bool {
        self.parts.load(Ordering::Relaxed) > share.parts_max
            || self.bytes.load(Ordering::Relaxed) > share.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_share_is_for_those_who_have_nothing() {
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
