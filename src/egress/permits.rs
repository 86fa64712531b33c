//! How many connections to one upstream address the process may have, over all its cores.
//!
//! A permit is held as long as its connection is open, in use or idle. A core that finds none says that it wants
//! one: whoever releases a permit then tells one such core. The same store-buffering race as in
//! [`mailbox`](crate::queue::mailbox) is decided the same way: announce, fence, look again — release, fence, look
//! who has announced. The model at the end puts that before loom.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use crate::queue::exchange::Exchange;
use crate::queue::fragment::Message;

/// The permits of all addresses; asked only when a core meets an address for the first time.
#[derive(Debug)]
pub struct Directory {
    per_address_max: usize,
    cores: usize,
    addresses: Mutex<HashMap<SocketAddr, Arc<Permits>>>,
}

impl Directory {
    /// For `cores` cores, with at most `per_address_max` connections to each address.
    pub fn new(cores: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { per_address_max, cores, addresses: Mutex::default() })
    }

    /// The permits of `address`.
    pub fn permits(&self, address: SocketAddr) -> Arc<Permits> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = addresses.get(&address) {
            return Arc::clone(permits);
        }
        // Addresses come and go with DNS: those that no core holds any more are forgotten here.
        addresses.retain(|_, permits| Arc::strong_count(permits) > 1);
        let permits = Arc::new(Permits::new(self.cores, self.per_address_max));
        addresses.insert(address, Arc::clone(&permits));
        permits
    }
}

/// The permits of one address.
#[derive(Debug)]
pub struct Permits {
    free: AtomicUsize,
    /// For each core whether it wants one and found none.
    wanted: Box<[AtomicBool]>,
}

impl Permits {
    fn new(cores: usize, max: usize) -> Self {
        Self { free: AtomicUsize::new(max), wanted: (0..cores).map(|_| AtomicBool::new(false)).collect() }
    }

    /// Takes a permit if one is free.
    pub fn try_take(self: &Arc<Self>, exchange: &Rc<Exchange>) -> Option<Permit> {
        self.take().then(|| Permit { permits: Arc::clone(self), exchange: Rc::clone(exchange) })
    }

    fn take(&self) -> bool {
        self.free.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
    }

    /// Gives back one that `core` had taken, and says which core is to be told.
    fn release(&self, core: usize) -> Option<usize> {
        self.free.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        self.next_wanting(core)
    }

    /// Whether a permit is free.
    pub fn any_free(&self) -> bool {
        self.free.load(Ordering::Acquire) > 0
    }

    /// Announces that `core` wants a permit; true when it had not announced it before. The caller must try once
    /// more after this, and may wait only if that fails too.
    pub fn announce(&self, core: usize) -> bool {
        let first = self.wanted.get(core).is_some_and(|w| !w.swap(true, Ordering::Relaxed));
        fence(Ordering::SeqCst);
        first
    }

    /// Whether a core other than `core` wants a permit.
    pub fn wanted_elsewhere(&self, core: usize) -> bool {
        self.wanted.iter().enumerate().any(|(k, w)| k != core && w.load(Ordering::Relaxed))
    }

    /// One core that has announced, and its announcement is taken back: the first after `core`, so that cores
    /// take turns and the one that releases comes last.
    fn next_wanting(&self, core: usize) -> Option<usize> {
        let cores = self.wanted.len();
        (1..=cores).map(|step| (core + step) % cores).find(|&k| {
            self.wanted.get(k).is_some_and(|w| w.load(Ordering::Relaxed) && w.swap(false, Ordering::Relaxed))
        })
    }
}

/// The right to have one connection open; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<Permits>,
    exchange: Rc<Exchange>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(core) = self.permits.release(self.exchange.core()) {
            self.exchange.send(core, Message::PermitFreed);
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::queue::mailbox::Mailbox;

    fn two_cores() -> (Rc<Exchange>, Rc<Exchange>) {
        let (box0, post0, _) = Mailbox::new().unwrap();
        let (box1, post1, _) = Mailbox::new().unwrap();
        let posts: Box<[_]> = [post0, post1].into();
        (Exchange::new(0, box0, posts.clone()).into(), Exchange::new(1, box1, posts).into())
    }

    fn was_told(exchange: &Exchange) -> bool {
        let received = pin!(exchange.receive()).poll(&mut Context::from_waker(Waker::noop()));
        matches!(received, Poll::Ready(Message::PermitFreed))
    }

    #[test]
    fn there_are_no_more_than_the_maximum_over_all_cores() {
        let (zero, one) = two_cores();
        let directory = Directory::new(2, 2);
        let address = "127.0.0.1:1".parse().unwrap();
        let a = directory.permits(address).try_take(&zero).unwrap();
        let _b = directory.permits(address).try_take(&one).unwrap();
        assert!(directory.permits(address).try_take(&zero).is_none());
        drop(a);
        assert!(directory.permits(address).try_take(&one).is_some());
    }

    #[test]
    fn a_core_that_wants_one_is_told_once() {
        let (zero, one) = two_cores();
        let directory = Directory::new(2, 1);
        let permits = directory.permits("127.0.0.1:1".parse().unwrap());
        let held = permits.try_take(&zero).unwrap();
        assert!(permits.announce(1));
        assert!(!permits.announce(1), "announced already");
        assert!(permits.wanted_elsewhere(0) && !permits.wanted_elsewhere(1));
        drop(held);
        assert!(was_told(&one));
        assert!(!was_told(&one) && !was_told(&zero));
        assert!(!permits.wanted_elsewhere(0));
    }

    #[test]
    fn the_other_core_comes_before_the_one_that_releases() {
        let (zero, one) = two_cores();
        let permits = Directory::new(2, 1).permits("127.0.0.1:1".parse().unwrap());
        let held = permits.try_take(&zero).unwrap();
        permits.announce(0);
        permits.announce(1);
        drop(held);
        assert!(was_told(&one) && !was_told(&zero));
        drop(permits.try_take(&one).unwrap());
        assert!(was_told(&zero));
    }

    #[test]
    fn addresses_that_are_gone_are_forgotten() {
        let directory = Directory::new(1, 1);
        (1..100u16).for_each(|port| _ = directory.permits(([127, 0, 0, 1], port).into()));
        assert_eq!(directory.addresses.lock().unwrap().len(), 1);
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test --lib egress::permits`
#[cfg(all(test, loom))]
mod model {
    use loom::thread;

    use super::*;

    /// A core that found none and waits has been told of the one that came free, or has got it: never both missed.
    #[test]
    fn no_permit_that_comes_free_is_waited_for_in_vain() {
        loom::model(|| {
            let permits = Arc::new(Permits::new(2, 1));
            assert!(permits.take());
            let releasing = {
                let permits = Arc::clone(&permits);
                thread::spawn(move || permits.release(0))
            };
            permits.announce(1);
            let got = permits.take();
            let told = releasing.join().unwrap();
            assert!(got || told == Some(1), "it waits, and nobody tells it");
        });
    }

    /// Two cores want the one permit: whoever waits is told when it comes free, and it is neither lost nor doubled.
    #[test]
    fn of_two_that_want_it_the_one_that_waits_is_told() {
        // Three threads have more interleavings than can be tried; two switches find what fences can get wrong.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let permits = Arc::new(Permits::new(3, 1));
            assert!(permits.take());
            let wanting = |core: usize| {
                let permits = Arc::clone(&permits);
                thread::spawn(move || {
                    permits.announce(core);
                    // Whoever gets it gives it back, and tells the other.
                    permits.take().then(|| permits.release(core))
                })
            };
            let threads = [wanting(1), wanting(2)];
            let mut told = vec![permits.release(0)];
            let mut waits = Vec::new();
            for (core, thread) in [1, 2].into_iter().zip(threads) {
                match thread.join().unwrap() {
                    Some(next) => told.push(next),
                    None => waits.push(core),
                }
            }
            assert!(waits.is_empty() || told.iter().flatten().any(|core| waits.contains(core)));
            assert!(permits.take() && !permits.take(), "one permit, neither lost nor doubled");
        });
    }

    /// However cores take and give back, no more are out than there are.
    #[test]
    fn there_are_never_more_out_than_the_maximum() {
        loom::model(|| {
            let permits = Arc::new(Permits::new(2, 1));
            let out = Arc::new(AtomicUsize::new(0));
            let take_and_release = |permits: &Permits, out: &AtomicUsize, core| {
                if permits.take() {
                    assert_eq!(out.fetch_add(1, Ordering::SeqCst), 0, "two are out");
                    out.fetch_sub(1, Ordering::SeqCst);
                    permits.release(core);
                }
            };
            let other = {
                let (permits, out) = (Arc::clone(&permits), Arc::clone(&out));
                thread::spawn(move || take_and_release(&permits, &out, 1))
            };
            take_and_release(&permits, &out, 0);
            other.join().unwrap();
            assert!(permits.take());
        });
    }
}
