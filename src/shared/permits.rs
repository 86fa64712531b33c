//! How many connections to one upstream address the process may have, over all its cores, and who gets the next one.
//!
//! Design constraints:
//! - A permit is held as long as its connection is open, in use or idle. One that comes free is *handed* to whoever has
//!   waited longest, on whichever core: nobody who gives one back takes it again past those who wait.
//! - Cores share no lock. Each says in a word of its own since when its first waiter has waited; whoever has something
//!   to give reads these words.
//! - Tenants that are slow must leave connections to those that are not: how many they use is counted here, as it
//!   concerns all cores. See [`pace`](super::pace).
//!
//! The race between a core that announces and one that gives is the store-buffering race of
//! [`mailbox`](super::mailbox), and is decided the same way: announce, fence, look for a free permit — free the
//! permit, fence, look who has announced. A want is *claimed* before something is sent for it, so that two cores never
//! answer the same one. The model at the end puts this before loom.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::pace::Pace;
use super::slow::Class;
use crate::model::Destination;

/// What one core hands to another that has waited longer.
#[derive(Debug)]
pub struct Handed {
    /// The upstream's address.
    pub address: SocketAddr,
    /// The right to have a connection open to it.
    pub permit: Permit,
    /// A connection that is open and idle, and when it was opened.
    pub socket: Option<(OwnedFd, Instant)>,
}

/// Brings to a claimant what it is handed.
type Carrier = dyn Fn(Claimant, Handed) + Send + Sync;

/// The permits of all addresses; asked only when a core meets an address for the first time.
pub struct Directory {
    cores: usize,
    per_address_max: usize,
    /// Connections to one address that slow tenants may take; changes with the plan.
    slow_max: Arc<AtomicUsize>,
    carrier: Arc<Carrier>,
    addresses: Mutex<HashMap<SocketAddr, Arc<Permits>>>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Directory {
    /// For `cores` cores, with at most `per_address_max` connections to each address, of which slow tenants may take
    /// `slow_max`. `carrier` is called, on any core, with each permit that comes free while somebody waits for it.
    pub fn new(
        cores: usize,
        per_address_max: usize,
        slow_max: usize,
        carrier: impl Fn(Claimant, Handed) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            cores,
            per_address_max,
            slow_max: Arc::new(AtomicUsize::new(slow_max)),
            carrier: Arc::new(carrier),
            addresses: Mutex::default(),
        })
    }

    /// From now on slow tenants may take so many connections to an address.
    pub fn limit_slow(&self, slow_max: usize) {
        self.slow_max.store(slow_max, Ordering::Relaxed);
    }

    /// The permits of `address`.
    pub fn permits(&self, address: SocketAddr) -> Arc<Permits> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = addresses.get(&address) {
            return Arc::clone(permits);
        }
        // Addresses come and go with DNS: those that no core holds any more are forgotten here.
        addresses.retain(|_, permits| Arc::strong_count(permits) > 1);
        let (carrier, slow_max) = (Arc::clone(&self.carrier), Arc::clone(&self.slow_max));
        let permits = Arc::new(Permits::new(address, self.cores, self.per_address_max, slow_max, carrier));
        addresses.insert(address, Arc::clone(&permits));
        permits
    }
}

/// Whose want it is: there is one word for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The core that waits.
    pub core: usize,
    /// For a connection to be used by its pool of this destination.
    pub destination: Destination,
    /// By a tenant of this class.
    pub class: Class,
}

impl Claimant {
    const PER_CORE: usize = Destination::ALL.len() * Class::ALL.len();

    fn place(self) -> usize {
        self.core * Self::PER_CORE + self.destination as usize * Class::ALL.len() + self.class as usize
    }

    fn at(place: usize) -> Self {
        let within = place % Self::PER_CORE;
        Self {
            core: place / Self::PER_CORE,
            destination: Destination::ALL[within / Class::ALL.len()],
            class: Class::ALL[within % Class::ALL.len()],
        }
    }
}

/// The permits of one address.
pub struct Permits {
    address: SocketAddr,
    carrier: Arc<Carrier>,
    free: AtomicUsize,
    /// How fast the address answers.
    pub pace: Pace,
    /// Connections in use by tenants that are slow.
    slow: AtomicUsize,
    /// How many these may be.
    slow_max: Arc<AtomicUsize>,
    /// For each [`Claimant`] since when its first waiter has waited, in microseconds after `epoch`; or [`CONTENT`].
    wanted: Box<[AtomicU64]>,
    epoch: Instant,
}

impl std::fmt::Debug for Permits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permits")
            .field("address", &self.address)
            .field("free", &self.free)
            .finish_non_exhaustive()
    }
}

/// What a claimant says for whom nobody waits.
const CONTENT: u64 = u64::MAX;

/// A want, as it was read. It may be answered by another core before this one [claims](Permits::claim) it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Whose it is.
    pub claimant: Claimant,
    since: u64,
}

impl Permits {
    fn new(
        address: SocketAddr,
        cores: usize,
        max: usize,
        slow_max: Arc<AtomicUsize>,
        carrier: Arc<Carrier>,
    ) -> Self {
        Self {
            address,
            carrier,
            free: AtomicUsize::new(max),
            pace: Pace::new(Instant::now()),
            slow: AtomicUsize::new(0),
            slow_max,
            wanted: (0..cores * Claimant::PER_CORE).map(|_| AtomicU64::new(CONTENT)).collect(),
            epoch: Instant::now(),
        }
    }

    /// Takes a permit if one is free.
    pub fn try_take(self: &Arc<Self>) -> Option<Permit> {
        self.take().then(|| Permit { permits: Arc::clone(self) })
    }

    fn take(&self) -> bool {
        self.free.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
    }

    /// Whether a permit is free.
    pub fn any_free(&self) -> bool {
        self.free.load(Ordering::Acquire) > 0
    }

    /// Announces since when `claimant` wants a connection; true when it had announced none. The caller must look for a
    /// free permit once more after this, and may wait only if there is none.
    pub fn announce(&self, claimant: Claimant, since: Instant) -> bool {
        let Some(wanted) = self.wanted.get(claimant.place()) else { return false };
        let first = wanted.swap(self.micros(since), Ordering::Relaxed) == CONTENT;
        fence(Ordering::SeqCst);
        first
    }

    /// Nobody waits for `claimant` any more.
    pub fn withdraw(&self, claimant: Claimant) {
        if let Some(wanted) = self.wanted.get(claimant.place())
            && wanted.load(Ordering::Relaxed) != CONTENT
        {
            wanted.store(CONTENT, Ordering::Relaxed);
        }
    }

    /// Of the wants that `counts` lets count, the one that is oldest.
    pub fn oldest_want(&self, counts: impl Fn(Claimant) -> bool) -> Option<Want> {
        let wants = self.wanted.iter().enumerate().filter_map(|(place, wanted)| {
            let since = wanted.load(Ordering::Relaxed);
            let claimant = Claimant::at(place);
            (since != CONTENT && counts(claimant)).then_some(Want { claimant, since })
        });
        wants.min_by_key(|want| want.since)
    }

    /// Whether this core may answer the want: false when another has, or when it has changed. Who claims must send.
    pub fn claim(&self, want: Want) -> bool {
        self.wanted.get(want.claimant.place()).is_some_and(|wanted| {
            wanted.compare_exchange(want.since, CONTENT, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        })
    }

    /// How long the want has waited, and how long one has that waits since `other`; in microseconds.
    pub fn waited(&self, want: Want, other: Instant, now: Instant) -> (u64, u64) {
        let now = self.micros(now);
        (now.saturating_sub(want.since), now.saturating_sub(self.micros(other)))
    }

    /// Gives back a permit. Whose want it is to answer, if there is one, and then the permit is taken again for that.
    fn release(&self) -> Option<Claimant> {
        self.free.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        loop {
            // Who has no room for it could only give it back.
            let slow_have_room = self.slow_have_room();
            let want = self.oldest_want(|claimant| slow_have_room || claimant.class == Class::Prompt)?;
            if !self.take() {
                // Somebody has it already.
                return None;
            }
            if self.claim(want) {
                return Some(want.claimant);
            }
            self.free.fetch_add(1, Ordering::AcqRel);
            fence(Ordering::SeqCst);
        }
    }

    /// Counts a use by a slow tenant, if there is room for it.
    pub fn begin_slow(self: &Arc<Self>) -> Option<SlowUse> {
        let max = self.slow_max();
        let counted = self
            .slow
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |slow| (slow < max).then_some(slow + 1));
        counted.is_ok().then(|| SlowUse { permits: Arc::clone(self) })
    }

    /// A use has turned out to be slow: it counts, however many there are.
    pub fn turned_slow(self: &Arc<Self>) -> SlowUse {
        self.slow.fetch_add(1, Ordering::Relaxed);
        SlowUse { permits: Arc::clone(self) }
    }

    /// Whether slow tenants may use one more connection.
    pub fn slow_have_room(&self) -> bool {
        self.slow() < self.slow_max()
    }

    /// How many connections slow tenants may use. At least 1.
    pub fn slow_max(&self) -> usize {
        self.slow_max.load(Ordering::Relaxed)
    }

    /// How many connections slow tenants use.
    pub fn slow(&self) -> usize {
        self.slow.load(Ordering::Relaxed)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(CONTENT - 1)
    }
}

/// The right to have one connection open; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<Permits>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(claimant) = self.permits.release() {
            let permit = Permit { permits: Arc::clone(&self.permits) };
            let handed = Handed { address: self.permits.address, permit, socket: None };
            (self.permits.carrier)(claimant, handed);
        }
    }
}

/// A connection counts as used by a slow tenant as long as this lives.
#[derive(Debug)]
pub struct SlowUse {
    permits: Arc<Permits>,
}

impl Drop for SlowUse {
    fn drop(&mut self) {
        self.permits.slow.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1));

    /// The permits of one address, and where what comes free is handed to.
    fn permits(cores: usize, max: usize) -> (Arc<Permits>, crossbeam_channel::Receiver<(usize, Handed)>) {
        let (hand, handed) = crossbeam_channel::unbounded();
        let carrier = move |claimant: Claimant, handed| _ = hand.send((claimant.core, handed));
        (Directory::new(cores, max, 1, carrier).permits(AT), handed)
    }

    fn of_core(core: usize) -> Claimant {
        Claimant { core, destination: Destination::Metrics, class: Class::Prompt }
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn every_claimant_has_a_place_of_its_own() {
        let places = (0..3 * Claimant::PER_CORE).map(|place| Claimant::at(place).place());
        assert!(places.eq(0..3 * Claimant::PER_CORE));
    }

    #[test]
    fn there_are_no_more_than_the_maximum_over_all_cores() {
        let directory = Directory::new(2, 2, 1, |_, _| ());
        let a = directory.permits(AT).try_take().unwrap();
        let _b = directory.permits(AT).try_take().unwrap();
        assert!(directory.permits(AT).try_take().is_none());
        drop(a);
        assert!(directory.permits(AT).try_take().is_some());
    }

    #[test]
    fn a_permit_that_comes_free_is_handed_to_who_has_waited_longest() {
        let (permits, handed) = permits(3, 1);
        let held = permits.try_take().unwrap();
        let start = permits.epoch;
        assert!(permits.announce(of_core(2), after(start, 20)));
        assert!(permits.announce(of_core(1), after(start, 10)));
        assert!(!permits.announce(of_core(1), after(start, 10)), "announced already");
        drop(held);
        let (core, permit) = handed.try_recv().unwrap();
        assert_eq!(core, 1, "it has waited longest");
        assert!(handed.is_empty() && permits.try_take().is_none(), "there is one, and core 1 has it");
        drop(permit);
        assert_eq!(handed.try_recv().unwrap().0, 2);
        assert!(handed.is_empty() && permits.try_take().is_some(), "nobody waits any more");
    }

    #[test]
    fn a_want_is_answered_once() {
        let (permits, _) = permits(2, 1);
        permits.announce(of_core(1), permits.epoch);
        let want = permits.oldest_want(|claimant| claimant.core != 0).unwrap();
        assert!(permits.oldest_want(|claimant| claimant.core != 1).is_none());
        assert!(permits.claim(want) && !permits.claim(want));
        assert!(permits.oldest_want(|_| true).is_none());
        permits.announce(of_core(1), after(permits.epoch, 1));
        assert!(!permits.claim(want), "it is another want by now");
        permits.withdraw(of_core(1));
        assert!(permits.oldest_want(|_| true).is_none());
    }

    #[test]
    fn slow_uses_are_counted_and_only_those_that_begin_as_such_are_bounded() {
        let (permits, _) = permits(1, 9);
        let begun = permits.begin_slow().unwrap();
        assert!(permits.begin_slow().is_none());
        let turned = permits.turned_slow();
        assert_eq!(permits.slow(), 2);
        drop((begun, turned));
        assert_eq!(permits.slow(), 0);
    }

    #[test]
    fn a_permit_is_not_handed_to_slow_tenants_that_have_no_room_for_it() {
        let (permits, handed) = permits(2, 2);
        let slow = Claimant { class: Class::Slow, ..of_core(1) };
        let (held, used) = (permits.try_take().unwrap(), permits.begin_slow().unwrap());
        permits.announce(slow, permits.epoch);
        drop(held);
        assert!(handed.is_empty() && permits.any_free(), "it would go round and round");
        let held = permits.try_take().unwrap();
        drop(used);
        drop(held);
        assert_eq!(handed.try_recv().unwrap().0, 1);
    }

    #[test]
    fn addresses_that_are_gone_are_forgotten() {
        let directory = Directory::new(1, 1, 1, |_, _| ());
        (1..100u16).for_each(|port| _ = directory.permits(([127, 0, 0, 1], port).into()));
        assert_eq!(directory.addresses.lock().unwrap().len(), 1);
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test --lib queue::permits`
#[cfg(all(test, loom))]
mod model {
    use loom::thread;

    use super::*;

    fn permits(cores: usize, max: usize) -> Arc<Permits> {
        let slow_max = Arc::new(AtomicUsize::new(1));
        Arc::new(Permits::new(([127, 0, 0, 1], 1).into(), cores, max, slow_max, Arc::new(|_, _| ())))
    }

    fn of_core(core: usize) -> Claimant {
        Claimant { core, destination: Destination::Metrics, class: Class::Prompt }
    }

    /// A core that found none and waits is handed the one that came free, or has got it: never neither, never both.
    #[test]
    fn no_permit_that_comes_free_is_waited_for_in_vain() {
        loom::model(|| {
            let permits = permits(2, 1);
            assert!(permits.take());
            let releasing = {
                let permits = Arc::clone(&permits);
                thread::spawn(move || permits.release())
            };
            permits.announce(of_core(1), Instant::now());
            let got = permits.take();
            let handed = releasing.join().unwrap();
            assert!(got != (handed == Some(of_core(1))), "got {got}, handed {handed:?}");
            assert!(!permits.take(), "there is only one");
        });
    }

    /// Two cores want the one permit: who waits is handed it when it comes free, and it is neither lost nor doubled.
    #[test]
    fn of_two_that_want_it_the_one_that_waits_is_handed_it() {
        // Three threads have more interleavings than can be tried; two switches find what fences can get wrong.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let permits = permits(3, 1);
            assert!(permits.take());
            let wanting = |core: usize| {
                let permits = Arc::clone(&permits);
                thread::spawn(move || {
                    permits.announce(of_core(core), Instant::now());
                    // Who gets it withdraws, and gives it back to the other.
                    permits.take().then(|| {
                        permits.withdraw(of_core(core));
                        permits.release()
                    })
                })
            };
            let threads = [wanting(1), wanting(2)];
            let mut handed = vec![permits.release()];
            let mut waits = Vec::new();
            for (core, thread) in [1, 2].into_iter().zip(threads) {
                match thread.join().unwrap() {
                    Some(next) => handed.push(next),
                    None => waits.push(core),
                }
            }
            let handed: Vec<_> = handed.into_iter().flatten().map(|claimant| claimant.core).collect();
            assert!(
                waits.is_empty() || handed.iter().any(|core| waits.contains(core)),
                "{waits:?} {handed:?}"
            );
            assert!(handed.len() <= 1, "one permit was handed out twice: {handed:?}");
            assert_eq!(permits.take(), handed.is_empty(), "one permit, neither lost nor doubled");
        });
    }

    /// However cores take and give back, no more are out than there are.
    #[test]
    fn there_are_never_more_out_than_the_maximum() {
        loom::model(|| {
            let permits = permits(2, 1);
            let out = Arc::new(AtomicUsize::new(0));
            let take_and_release = |permits: &Permits, out: &AtomicUsize| {
                if permits.take() {
                    assert_eq!(out.fetch_add(1, Ordering::SeqCst), 0, "two are out");
                    out.fetch_sub(1, Ordering::SeqCst);
                    permits.release();
                }
            };
            let other = {
                let (permits, out) = (Arc::clone(&permits), Arc::clone(&out));
                thread::spawn(move || take_and_release(&permits, &out))
            };
            take_and_release(&permits, &out);
            other.join().unwrap();
            assert!(permits.take());
        });
    }
}
