//! What the parts for each upstream hold of the requests and bytes in flight, if there are several upstreams.
//!
//! # Constraints
//! - An upstream that answers nothing keeps its parts for as long as they may wait. It must not use up what the parts
//!   for the others need. Which upstream that will be, and how many at once, is not known before.
//! - What one upstream does not use is for the others.
//!
//! # Design
//! The parts for an upstream may hold as much as is free. So if all are stuck at one upstream, they hold half, and half
//! is left; at two upstreams, a third each, and a third is left. There is always room for an upstream that holds less.
//! Buffers of switches are shared in this way (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory
//! packet switches", 1998).
//!
//! Without named upstreams nothing is counted.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::budget::Budget;

/// The loads of all upstreams. One per process.
#[derive(Debug)]
pub struct Loads(Box<[Load]>);

#[derive(Debug, Default)]
struct Load {
    /// Requests with parts for this upstream that have no outcome yet.
    requests: AtomicUsize,
    /// The bytes of these parts.
    bytes: AtomicUsize,
}

impl Loads {
    /// The loads of the main upstream and of `named` others.
    pub fn new(named: usize) -> Arc<Self> {
        let count = if named == 0 { 0 } else { named + 1 };
        Arc::new(Self((0..count).map(|_| Load::default()).collect()))
    }

    /// Whether there are several upstreams.
    pub fn are_used(&self) -> bool {
        !self.0.is_empty()
    }

    /// Begins to hold the parts of one request for the upstream of this number. Returns `None` if its parts hold as
    /// many requests as are free.
    pub fn begin(self: &Arc<Self>, upstream: usize, requests: &Budget) -> Option<Arc<Held>> {
        let load = self.0.get(upstream)?;
        // Relaxed is enough: the numbers guard no other memory.
        let before = load.requests.fetch_add(1, Ordering::Relaxed);
        let held = Held { loads: Arc::clone(self), upstream, bytes: AtomicUsize::new(0) };
        // The request is among those in flight already. One is always possible.
        (before == 0 || before < requests.room()).then(|| Arc::new(held))
    }

    /// Returns how many requests have parts for the upstream of this number.
    pub fn requests(&self, upstream: usize) -> usize {
        self.0.get(upstream).map_or(0, |load| load.requests.load(Ordering::Relaxed))
    }
}

/// The parts of one request for one upstream. Dropping it ends what they hold: each of its parts has a reference.
#[derive(Debug)]
pub struct Held {
    loads: Arc<Loads>,
    upstream: usize,
    bytes: AtomicUsize,
}

impl Held {
    /// Adds a part of this size. Returns false, with nothing added, if the parts for the upstream would hold more bytes
    /// than are free.
    pub fn add(&self, bytes: usize, budget: &Budget) -> bool {
        let Some(load) = self.loads.0.get(self.upstream) else { return true };
        let room = budget.room();
        let sum = |before: usize| {
            let sum = before.saturating_add(bytes);
            (before == 0 || sum <= room).then_some(sum)
        };
        let fits = load.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok();
        if fits {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(load) = self.loads.0.get(self.upstream) {
            load.requests.fetch_sub(1, Ordering::Relaxed);
            load.bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests that are in flight for as long as the value lives.
    struct Flight {
        loads: Arc<Loads>,
        requests: Arc<Budget>,
    }

    impl Flight {
        fn new(max: usize) -> Self {
            Self { loads: Loads::new(2), requests: Budget::new(max) }
        }

        /// A request for an upstream; `None` if it is refused.
        fn begin(&self, upstream: usize) -> Option<(Arc<Held>, crate::shared::budget::Charge)> {
            let charge = self.requests.charge(1)?;
            Some((self.loads.begin(upstream, &self.requests)?, charge))
        }

        /// As many requests as are taken.
        fn fill(&self, upstream: usize) -> Vec<(Arc<Held>, crate::shared::budget::Charge)> {
            std::iter::from_fn(|| self.begin(upstream)).collect()
        }
    }

    #[test]
    fn one_stuck_upstream_leaves_half_and_two_a_third() {
        let flight = Flight::new(300);
        let stuck = flight.fill(1);
        assert!((149..=151).contains(&stuck.len()), "{}", stuck.len());
        let second = flight.fill(2);
        assert!((74..=76).contains(&second.len()), "a half of what is left: {}", second.len());
        assert!(flight.begin(0).is_some(), "there is room for the third");
        drop(stuck);
        drop(second);
        assert_eq!((flight.loads.requests(1), flight.loads.requests(2)), (0, 0));
        assert_eq!(flight.requests.in_flight(), 0);
    }

    #[test]
    fn an_upstream_without_requests_has_room_for_one() {
        let flight = Flight::new(1);
        let one = flight.begin(1).expect("the first");
        assert!(flight.begin(1).is_none());
        drop(one);
        assert!(flight.begin(2).is_some());
    }

    #[test]
    fn bytes_have_the_same_rule() {
        let flight = Flight::new(100);
        let bytes = Budget::new(1_000);
        let (held, _request) = flight.begin(1).unwrap();
        let charge = bytes.charge(400).unwrap();
        assert!(held.add(400, &bytes), "the first part may be of any size");
        assert!(held.add(100, &bytes) && !held.add(101, &bytes), "600 are free");
        let (other, _request) = flight.begin(2).unwrap();
        assert!(other.add(600, &bytes));
        drop((held, charge));
        let (again, _request) = flight.begin(1).unwrap();
        assert!(again.add(900, &bytes), "what was held is free");
    }

    #[test]
    fn a_refused_part_holds_nothing_while_an_accepted_one_of_its_request_is_in_flight() {
        let flight = Flight::new(100);
        let bytes = Budget::new(1_000);
        let (held, _request) = flight.begin(1).unwrap();
        assert!(held.add(10, &bytes), "the first part may be of any size");
        assert!(!held.add(2_000, &bytes), "larger than all that is free");
        assert_eq!(flight.loads.0[1].bytes.load(Ordering::Relaxed), 10);
        let (other, _request) = flight.begin(1).unwrap();
        assert!(held.add(490, &bytes) && other.add(500, &bytes), "1000 are free");
        assert!(!other.add(1, &bytes), "no more than that");
        drop(held);
        assert_eq!(flight.loads.0[1].bytes.load(Ordering::Relaxed), 500);
        drop(other);
        assert_eq!(flight.loads.0[1].bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_named_upstreams_nothing_is_counted() {
        let loads = Loads::new(0);
        assert!(!loads.are_used() && loads.begin(0, &Budget::new(1)).is_none());
    }
}
