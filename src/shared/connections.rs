//! Counts of the inbound connections of each core. They enforce the limit on all connections, and let a core hand an
//! accepted connection to a core that serves fewer.
//!
//! The counts need no lock. Two cores that accept at the same moment may both see room for the last connection, so the
//! limit can be exceeded by less than the number of cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The connection counts of all cores.
#[derive(Debug)]
pub struct Connections {
    by_core: Box<[AtomicUsize]>,
    max: usize,
}

impl Connections {
    /// Creates the counts for `cores` cores, which may serve `max` connections together.
    pub fn new(cores: usize, max: usize) -> Arc<Self> {
        Arc::new(Self { by_core: (0..cores).map(|_| AtomicUsize::new(0)).collect(), max })
    }

    /// Returns how many connections all cores together may serve.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Counts a connection of `core` until the guard is dropped. A core that hands a connection over counts it for the
    /// other core at once, so that a burst spreads before the first connection has arrived there.
    pub fn count(self: &Arc<Self>, core: usize) -> ConnectionGuard {
        if let Some(count) = self.by_core.get(core) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        ConnectionGuard { connections: Arc::clone(self), core }
    }

    /// Whether there is no room for another connection.
    pub fn is_full(&self) -> bool {
        self.by_core.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>() >= self.max
    }

    /// Returns the core that should serve a connection that `core` has just accepted: the one with the fewest
    /// connections, or `core` itself if no other has fewer.
    pub fn least_loaded(&self, core: usize) -> usize {
        let load = |k: usize| self.by_core.get(k).map_or(usize::MAX, |count| count.load(Ordering::Relaxed));
        let least = (0..self.by_core.len()).min_by_key(|&k| load(k)).unwrap_or(core);
        if load(least) < load(core) { least } else { core }
    }
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    connections: Arc<Connections>,
    core: usize,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if let Some(count) = self.connections.by_core.get(self.core) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_least_loaded_core() {
        let connections = Connections::new(3, 100);
        assert_eq!(connections.least_loaded(2), 2, "all are equal, so it stays");
        let _first = connections.count(2);
        assert_eq!(connections.least_loaded(2), 0);
        let _second = connections.count(0);
        assert_eq!(connections.least_loaded(2), 1);
        let _third = connections.count(1);
        assert_eq!(connections.least_loaded(2), 2);
    }

    #[test]
    fn a_dropped_guard_makes_room() {
        let connections = Connections::new(2, 2);
        let (a, b) = (connections.count(0), connections.count(1));
        assert!(connections.is_full());
        drop(a);
        assert!(!connections.is_full());
        drop(b);
        assert_eq!(connections.least_loaded(1), 1);
    }
}
