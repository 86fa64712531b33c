//! What all cores share: a few numbers that they agree by, none of them guarding other memory.

pub mod budget;
pub mod pace;
pub mod permits;
pub mod receipt;
pub mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use self::budget::Budget;
use self::receipt::ReceiptKey;
use self::slow::SlowTotals;
use crate::split::Families;

/// One for the process.
#[derive(Debug)]
pub struct Commons {
    /// Bytes of requests in flight.
    pub bytes: Arc<Budget>,
    /// Push requests in work: read, and not answered yet.
    pub requests: Arc<Budget>,
    /// What the parts of slow tenants take of both.
    pub slow: SlowTotals,
    /// What receipts are made with.
    pub receipt_key: ReceiptKey,
    /// Which tenants have which metric families: for metadata.
    pub families: Families,
    /// Whether the log has told that Remote Write 2.0 loses something on its way to 1.0.
    pub lost_was_told: AtomicBool,
    leaving: AtomicBool,
    connections: Box<[AtomicUsize]>,
    connections_max: usize,
}

impl Commons {
    /// For `cores` cores, with the bounds on bytes, requests and inbound connections in flight.
    pub fn new(cores: usize, bytes_max: usize, requests_max: usize, connections_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: Budget::new(bytes_max),
            requests: Budget::new(requests_max),
            slow: SlowTotals::default(),
            receipt_key: ReceiptKey::random(),
            families: Families::default(),
            lost_was_told: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            connections: (0..cores).map(|_| AtomicUsize::new(0)).collect(),
            connections_max,
        })
    }

    /// From now on `/alive` says that we are going away.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether we are going away.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Counts a connection to `core`, until the returned seat is dropped. A core that hands a connection over
    /// takes the seat for it at the other, so that a burst spreads before the first of it has arrived.
    pub fn seat(self: &Arc<Self>, core: usize) -> Seat {
        if let Some(connections) = self.connections.get(core) {
            connections.fetch_add(1, Ordering::Relaxed);
        }
        Seat { commons: Arc::clone(self), core }
    }

    /// Whether requests or bytes in flight come near their bound: then others will soon be refused for what is there.
    pub fn is_crowded(&self) -> bool {
        self.requests.is_nearly_full() || self.bytes.is_nearly_full()
    }

    /// Whether one more inbound connection is one too many.
    pub fn is_full(&self) -> bool {
        self.connections.iter().map(|c| c.load(Ordering::Relaxed)).sum::<usize>() >= self.connections_max
    }

    /// The core that should have the connection which `core` has just accepted: the one with the fewest, itself
    /// if it is among them.
    pub fn least_loaded(&self, core: usize) -> usize {
        let load = |k: usize| self.connections.get(k).map_or(usize::MAX, |c| c.load(Ordering::Relaxed));
        let least = (0..self.connections.len()).min_by_key(|&k| load(k)).unwrap_or(core);
        if load(least) < load(core) { least } else { core }
    }
}

/// A connection's count towards its core's load.
#[derive(Debug)]
pub struct Seat {
    commons: Arc<Commons>,
    core: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(connections) = self.commons.connections.get(self.core) {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_there_are_fewest() {
        let commons = Commons::new(3, 1, 1, 100);
        assert_eq!(commons.least_loaded(2), 2, "all equal: stay");
        let _first = commons.seat(2);
        assert_eq!(commons.least_loaded(2), 0);
        let _second = commons.seat(0);
        assert_eq!(commons.least_loaded(2), 1);
        let _third = commons.seat(1);
        assert_eq!(commons.least_loaded(2), 2);
    }

    #[test]
    fn a_seat_is_given_back() {
        let commons = Commons::new(2, 1, 1, 2);
        let (a, b) = (commons.seat(0), commons.seat(1));
        assert!(commons.is_full());
        drop(a);
        assert!(!commons.is_full());
        drop(b);
        assert_eq!(commons.least_loaded(1), 1);
    }
}
