//! How many connections to one upstream address the process may have, over all its cores.
//!
//! A permit is held as long as its connection is open, in use or idle. A core that finds none says that it wants
//! one: whoever releases a permit then tells one such core. The same store-buffering race as in
//! [`mailbox`](crate::queue::mailbox) is decided the same way: announce, fence, look again — release, fence, look
//! who has announced. The model at the end puts that before loom.
//!
//! A permit moves to another core by closing one connection and opening another. Where all cores want more than there
//! are, that must not happen for each request: so a core keeps its equal share, unless another one gets none at all
//! ([`Permits::owes`]).

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{CONNECTION_SPARE_MILLIS, PERMIT_PRESSING_MILLIS};
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
    max: usize,
    free: AtomicUsize,
    /// How many each core has. Each is written by its own core only.
    held: Box<[AtomicUsize]>,
    /// For each core since when it has wanted one and got none, in milliseconds after `epoch`; or [`CONTENT`].
    wanted: Box<[AtomicU64]>,
    epoch: Instant,
}

/// What a core that wants no permit says.
const CONTENT: u64 = u64::MAX;

/// What a core would do with a connection if it kept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Send what waits for one.
    Now,
    /// Let it lie, as it has for so long.
    IdleFor(Duration),
}

impl Permits {
    fn new(cores: usize, max: usize) -> Self {
        Self {
            max,
            free: AtomicUsize::new(max),
            held: (0..cores).map(|_| AtomicUsize::new(0)).collect(),
            wanted: (0..cores).map(|_| AtomicU64::new(CONTENT)).collect(),
            epoch: Instant::now(),
        }
    }

    /// Takes a permit if one is free.
    pub fn try_take(self: &Arc<Self>, exchange: &Rc<Exchange>) -> Option<Permit> {
        self.take().then(|| {
            self.count_held(exchange.core(), 1);
            Permit { permits: Arc::clone(self), exchange: Rc::clone(exchange) }
        })
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

    /// Announces at `now` that `core` wants a permit; true when it had not announced it before. The caller must try once
    /// more after this, and may wait only if that fails too.
    pub fn announce(&self, core: usize, now: Instant) -> bool {
        let since = self.millis(now);
        let first = self.wanted.get(core).is_some_and(|w| {
            w.compare_exchange(CONTENT, since, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        });
        fence(Ordering::SeqCst);
        first
    }

    /// `core` has got a connection at `now`, and wants another: it is waiting for that one from now on.
    pub fn renew(&self, core: usize, now: Instant) {
        self.replace(core, self.millis(now));
    }

    /// `core` wants no permit any more.
    pub fn withdraw(&self, core: usize) {
        self.replace(core, CONTENT);
    }

    fn replace(&self, core: usize, with: u64) {
        let Some(wanted) = self.wanted.get(core) else { return };
        let since = wanted.load(Ordering::Relaxed);
        if since != CONTENT {
            // Fails when another core has just taken it back to tell this one of a permit.
            let _ = wanted.compare_exchange(since, with, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether a core other than `core` wants a permit.
    pub fn wanted_elsewhere(&self, core: usize) -> bool {
        self.wanted_since(core).is_some()
    }

    /// Whether `core` should close a connection that it could keep for `what_for`, because another core wants one.
    ///
    /// It should if that core has got none for a while. Else it keeps an equal share: rounded up of what it has a use
    /// for, rounded down of what it has used just now.
    pub fn owes(&self, core: usize, what_for: Use, now: Instant) -> bool {
        let Some(since) = self.wanted_since(core) else { return false };
        let pressing = self.millis(now).saturating_sub(since) >= PERMIT_PRESSING_MILLIS;
        let held = self.held.get(core).map_or(0, |h| h.load(Ordering::Relaxed));
        let cores = self.held.len();
        let beyond_share = match what_for {
            Use::Now => held > self.max.div_ceil(cores),
            Use::IdleFor(idle) => {
                held > self.max / cores || idle.as_millis() >= CONNECTION_SPARE_MILLIS.into()
            }
        };
        pressing || beyond_share
    }

    /// Since when, of the cores other than `core`, the one has wanted a permit that has wanted it for longest.
    fn wanted_since(&self, core: usize) -> Option<u64> {
        let others = self.wanted.iter().enumerate().filter(|(k, _)| *k != core);
        others.map(|(_, w)| w.load(Ordering::Relaxed)).filter(|&since| since != CONTENT).min()
    }

    /// One core that has announced, and its announcement is taken back: the first after `core`, so that cores
    /// take turns and the one that releases comes last.
    fn next_wanting(&self, core: usize) -> Option<usize> {
        let cores = self.wanted.len();
        (1..=cores).map(|step| (core + step) % cores).find(|&k| {
            self.wanted.get(k).is_some_and(|w| {
                w.load(Ordering::Relaxed) != CONTENT && w.swap(CONTENT, Ordering::Relaxed) != CONTENT
            })
        })
    }

    fn count_held(&self, core: usize, by: isize) {
        if let Some(held) = self.held.get(core) {
            held.store(held.load(Ordering::Relaxed).saturating_add_signed(by), Ordering::Relaxed);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(CONTENT - 1)
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
        let core = self.exchange.core();
        self.permits.count_held(core, -1);
        if let Some(wanting) = self.permits.release(core) {
            self.exchange.send(wanting, Message::PermitFreed);
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
        let now = Instant::now();
        assert!(permits.announce(1, now));
        assert!(!permits.announce(1, now), "announced already");
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
        permits.announce(0, Instant::now());
        permits.announce(1, Instant::now());
        drop(held);
        assert!(was_told(&one) && !was_told(&zero));
        drop(permits.try_take(&one).unwrap());
        assert!(was_told(&zero));
    }

    #[test]
    fn a_core_keeps_its_equal_share_of_what_it_uses() {
        let (zero, one) = two_cores();
        let permits = Directory::new(2, 5).permits("127.0.0.1:1".parse().unwrap());
        let now = Instant::now();
        let mut held: Vec<_> = (0..4).map(|_| permits.try_take(&zero).unwrap()).collect();
        let owes = |what_for| permits.owes(0, what_for, now);
        let idle = Use::IdleFor(Duration::ZERO);
        assert!(!owes(Use::Now) && !owes(idle), "nobody wants one");
        let _one = permits.try_take(&one).unwrap();
        permits.announce(1, now);
        assert!(owes(Use::Now) && owes(idle), "4 of 5");
        drop(held.pop());
        assert!(was_told(&one));
        permits.announce(1, now);
        assert!(!owes(Use::Now) && owes(idle), "3 of 5: half of them, rounded up");
        drop(held.pop());
        permits.announce(1, now);
        assert!(!owes(Use::Now) && !owes(idle), "2 of 5: half of them, rounded down");
        assert!(owes(Use::IdleFor(Duration::from_millis(CONNECTION_SPARE_MILLIS))), "it is not needed here");
    }

    #[test]
    fn a_core_that_gets_none_for_a_while_is_given_one() {
        let (zero, _one) = two_cores();
        let permits = Directory::new(2, 1).permits("127.0.0.1:1".parse().unwrap());
        let _held = permits.try_take(&zero).unwrap();
        let now = Instant::now();
        permits.announce(1, now);
        assert!(permits.owes(0, Use::IdleFor(Duration::ZERO), now));
        let pressing = Duration::from_millis(PERMIT_PRESSING_MILLIS);
        assert!(!permits.owes(0, Use::Now, now + pressing / 2));
        assert!(permits.owes(0, Use::Now, now + pressing));
        // Another request that wants one there makes it no less urgent; that the core got one does.
        permits.announce(1, now + pressing);
        assert!(permits.owes(0, Use::Now, now + pressing));
        permits.renew(1, now + pressing);
        assert!(!permits.owes(0, Use::Now, now + pressing));
        assert!(permits.owes(0, Use::Now, now + 2 * pressing));
        permits.withdraw(1);
        assert!(!permits.wanted_elsewhere(0));
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
            permits.announce(1, Instant::now());
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
                    permits.announce(core, Instant::now());
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
