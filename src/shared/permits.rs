//! Permits: the limit on connections to one upstream address, over all cores, and their handover between cores.
//!
//! Design constraints:
//! - A connection holds its permit for as long as it is open, in use or idle. A permit that comes free is *handed* to
//!   the longest waiter on any core. A core that returns a permit cannot take it again ahead of the waiters.
//! - Cores share no lock on this path. Each core publishes in atomic words since when its first waiter has waited. A
//!   core with a permit or a connection to give away reads these words.
//! - Slow tenants must leave some connections for prompt tenants. The connections that they use are counted here, as
//!   the limit spans all cores. See [`pace`](super::pace).
//!
//! A core that announces a want races with a core that releases a permit. It is the store-buffering race of the
//! [mailbox](crate::exchange::mailbox), with the same solution. The waiter announces its want, fences, then looks for a
//! free permit. The releaser frees the permit, fences, then looks for wants. A core *claims* a want before it sends
//! anything for it, so two cores never serve the same want. Its loom tests (`model`) check the protocol.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::pace::Pace;
use super::slow::Class;
use crate::config::tls::UpstreamTls;
use crate::model::{Destination, UpstreamId};
use crate::tls::session::Session;

/// A permit, perhaps with an open connection, that one core hands to another core whose waiter has waited longer.
#[derive(Debug)]
pub struct Handed {
    /// The upstream's address.
    pub address: SocketAddr,
    /// The permit for a connection to it.
    pub permit: Permit,
    /// An open, idle connection; `None` if only the permit is handed over.
    pub connection: Option<HandedConnection>,
}

/// An open, idle connection that one core hands to another.
#[derive(Debug)]
pub struct HandedConnection {
    /// Its socket.
    pub socket: OwnedFd,
    /// The TLS session over it.
    pub session: Option<Box<Session>>,
    /// What the session was opened with.
    pub tls: Option<Arc<UpstreamTls>>,
    /// When it was opened.
    pub opened: Instant,
}

/// Delivers a handed permit to its claimant.
type Carrier = dyn Fn(Claimant, Handed) + Send + Sync;

/// The permits of all addresses. A core locks it only when it meets an address for the first time.
pub struct Directory {
    cores: usize,
    /// The main upstream and the named ones.
    upstreams: usize,
    per_address_max: usize,
    /// Maximum of connections to one address for slow tenants; changes with the plan.
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
    /// Creates the directory for `cores` cores and `upstreams` upstreams, with at most `per_address_max` connections to
    /// each address. Slow tenants may use `slow_max` of them. `carrier` is called, on any core, with each permit that
    /// comes free while a claimant waits for it.
    pub fn new(
        cores: usize,
        upstreams: usize,
        per_address_max: usize,
        slow_max: usize,
        carrier: impl Fn(Claimant, Handed) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            cores,
            upstreams,
            per_address_max,
            slow_max: Arc::new(AtomicUsize::new(slow_max)),
            carrier: Arc::new(carrier),
            addresses: Mutex::default(),
        })
    }

    /// Sets how many connections to one address slow tenants may use.
    pub fn limit_slow(&self, slow_max: usize) {
        self.slow_max.store(slow_max, Ordering::Relaxed);
    }

    /// Returns the permits of `address`.
    pub fn permits(&self, address: SocketAddr) -> Arc<Permits> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = addresses.get(&address) {
            return Arc::clone(permits);
        }
        // Addresses come and go with DNS: drop those that no core uses any more.
        addresses.retain(|_, permits| Arc::strong_count(permits) > 1);
        let (carrier, slow_max) = (Arc::clone(&self.carrier), Arc::clone(&self.slow_max));
        let queues = Queues { cores: self.cores, upstreams: self.upstreams };
        let permits = Arc::new(Permits::new(address, queues, self.per_address_max, slow_max, carrier));
        addresses.insert(address, Arc::clone(&permits));
        permits
    }
}

/// A queue of waiters. Each has one word in [`Permits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The core of the waiters.
    pub core: usize,
    /// The upstream whose pool wants the connection.
    pub upstream: UpstreamId,
    /// The class of the waiting tenants.
    pub class: Class,
}

/// The numbers of queues: each core has one for each upstream, destination and class.
#[derive(Clone, Copy, Debug)]
struct Queues {
    cores: usize,
    upstreams: usize,
}

impl Queues {
    /// The queues of one upstream and destination. They have words in a row, as most upstreams do not have the address.
    fn per_slot(self) -> usize {
        self.cores * Class::ALL.len()
    }

    fn slots(self) -> usize {
        self.upstreams * Destination::ALL.len()
    }

    fn index(self, claimant: Claimant) -> usize {
        let Claimant { core, upstream, class } = claimant;
        upstream.slot() * self.per_slot() + core * Class::ALL.len() + class as usize
    }

    fn at(self, index: usize) -> Claimant {
        let within = index % self.per_slot();
        Claimant {
            core: within / Class::ALL.len(),
            upstream: UpstreamId::at(index / self.per_slot()),
            class: Class::ALL[within % Class::ALL.len()],
        }
    }
}

/// The permits of one address.
pub struct Permits {
    address: SocketAddr,
    carrier: Arc<Carrier>,
    free: AtomicUsize,
    /// Response times of the address.
    pub pace: Pace,
    /// Connections that slow tenants use.
    slow: AtomicUsize,
    /// Maximum of `slow` for new requests.
    slow_max: Arc<AtomicUsize>,
    queues: Queues,
    /// Whether an upstream and destination has ever waited for this address.
    used: Box<[AtomicBool]>,
    /// By [`Claimant`]: since when its first waiter has waited, in microseconds after `epoch`, or [`NO_WAITER`].
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

/// The word of a claimant without waiters.
const NO_WAITER: u64 = u64::MAX;

/// A snapshot of a want. Another core may serve it before this one [claims](Permits::claim) it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The claimant that announced it.
    pub claimant: Claimant,
    since: u64,
}

impl Permits {
    fn new(
        address: SocketAddr,
        queues: Queues,
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
            queues,
            used: (0..queues.slots()).map(|_| AtomicBool::new(false)).collect(),
            wanted: (0..queues.slots() * queues.per_slot()).map(|_| AtomicU64::new(NO_WAITER)).collect(),
            epoch: Instant::now(),
        }
    }

    /// Takes a permit, if one is free.
    pub fn try_take(self: &Arc<Self>) -> Option<Permit> {
        self.take().then(|| Permit { permits: Arc::clone(self) })
    }

    fn take(&self) -> bool {
        self.free.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
    }

    /// The number of free permits.
    pub fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// Whether a permit is free.
    pub fn any_free(&self) -> bool {
        self.free.load(Ordering::Acquire) > 0
    }

    /// Announces that `claimant` has waited for a connection since `since`. Returns whether it had no announced want
    /// before.
    ///
    /// The caller must look for a free permit once more after this, and may wait only if there is none.
    pub fn announce(&self, claimant: Claimant, since: Instant) -> bool {
        let Some(wanted) = self.wanted.get(self.queues.index(claimant)) else { return false };
        if let Some(used) = self.used.get(claimant.upstream.slot())
            && !used.load(Ordering::Relaxed)
        {
            used.store(true, Ordering::Relaxed);
        }
        let first = wanted.swap(self.micros(since), Ordering::Relaxed) == NO_WAITER;
        fence(Ordering::SeqCst);
        first
    }

    /// Withdraws the want of `claimant`, if it has announced one.
    pub fn withdraw(&self, claimant: Claimant) {
        if let Some(wanted) = self.wanted.get(self.queues.index(claimant))
            && wanted.load(Ordering::Relaxed) != NO_WAITER
        {
            wanted.store(NO_WAITER, Ordering::Relaxed);
        }
    }

    /// Returns the oldest want among those of claimants for which `counts` returns true.
    pub fn oldest_want(&self, counts: impl Fn(Claimant) -> bool) -> Option<Want> {
        let per_slot = self.queues.per_slot();
        let used = self.used.iter().enumerate().filter(|(_, used)| used.load(Ordering::Relaxed));
        let indexes = used.flat_map(|(slot, _)| slot * per_slot..(slot + 1) * per_slot);
        let wants = indexes.filter_map(|index| {
            let since = self.wanted.get(index)?.load(Ordering::Relaxed);
            let claimant = self.queues.at(index);
            (since != NO_WAITER && counts(claimant)).then_some(Want { claimant, since })
        });
        wants.min_by_key(|want| want.since)
    }

    /// Claims a want. Returns false if another core has claimed it or if it has changed. After a successful claim the
    /// caller must hand the claimant a permit.
    pub fn claim(&self, want: Want) -> bool {
        self.wanted.get(self.queues.index(want.claimant)).is_some_and(|wanted| {
            wanted.compare_exchange(want.since, NO_WAITER, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        })
    }

    /// Returns the waiting times of `want` and of a waiter that has waited since `other`, both in microseconds at
    /// `now`.
    pub fn waited(&self, want: Want, other: Instant, now: Instant) -> (u64, u64) {
        let now = self.micros(now);
        (now.saturating_sub(want.since), now.saturating_sub(self.micros(other)))
    }

    /// Gives back a permit. If a claimant waits for it, takes the permit again and returns that claimant: the caller
    /// must hand it the permit.
    fn release(&self) -> Option<Claimant> {
        self.free.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        loop {
            // Slow tenants without room could only give the permit back.
            let has_room_for_slow = self.has_room_for_slow();
            let want = self.oldest_want(|claimant| has_room_for_slow || claimant.class == Class::Prompt)?;
            if !self.take() {
                // Another core took it first.
                return None;
            }
            if self.claim(want) {
                return Some(want.claimant);
            }
            self.free.fetch_add(1, Ordering::AcqRel);
            fence(Ordering::SeqCst);
        }
    }

    /// Counts one more connection in use by a slow tenant; `None` if slow tenants use their maximum.
    pub fn begin_slow(self: &Arc<Self>) -> Option<SlowUse> {
        let max = self.slow_max();
        let counted = self
            .slow
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |slow| (slow < max).then_some(slow + 1));
        counted.is_ok().then(|| SlowUse { permits: Arc::clone(self) })
    }

    /// Counts a connection in use whose tenant has turned out to be slow, even beyond the maximum.
    pub fn begin_slow_unbounded(self: &Arc<Self>) -> SlowUse {
        self.slow.fetch_add(1, Ordering::Relaxed);
        SlowUse { permits: Arc::clone(self) }
    }

    /// Whether slow tenants may use another connection.
    pub fn has_room_for_slow(&self) -> bool {
        self.slow() < self.slow_max()
    }

    /// Returns how many connections slow tenants may use. At least 1.
    pub fn slow_max(&self) -> usize {
        self.slow_max.load(Ordering::Relaxed)
    }

    /// Returns how many connections slow tenants use.
    pub fn slow(&self) -> usize {
        self.slow.load(Ordering::Relaxed)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(NO_WAITER - 1)
    }
}

/// The right to have one connection open. Dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<Permits>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(claimant) = self.permits.release() {
            let permit = Permit { permits: Arc::clone(&self.permits) };
            let handed = Handed { address: self.permits.address, permit, connection: None };
            (self.permits.carrier)(claimant, handed);
        }
    }
}

/// Counts a connection as used by a slow tenant until it is dropped.
#[derive(Debug)]
pub struct SlowUse {
    permits: Arc<Permits>,
}

impl Drop for SlowUse {
    fn drop(&mut self) {
        self.permits.slow.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1));

    /// The permits of one address, and a receiver of the permits that are handed over.
    fn permits(cores: usize, max: usize) -> (Arc<Permits>, crossbeam_channel::Receiver<(usize, Handed)>) {
        let (hand, handed) = crossbeam_channel::unbounded();
        let carrier = move |claimant: Claimant, handed| _ = hand.send((claimant.core, handed));
        (Directory::new(cores, 3, max, 1, carrier).permits(AT), handed)
    }

    fn of_core(core: usize) -> Claimant {
        Claimant { core, upstream: UpstreamId::main(Destination::Metrics), class: Class::Prompt }
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn each_claimant_has_its_own_index() {
        let queues = Queues { cores: 3, upstreams: 4 };
        let count = queues.slots() * queues.per_slot();
        assert_eq!(count, 3 * 4 * Destination::ALL.len() * Class::ALL.len());
        assert!((0..count).all(|index| queues.index(queues.at(index)) == index));
    }

    #[test]
    fn the_longest_waiter_is_found_among_all_upstreams() {
        let (permits, handed) = permits(2, 1);
        let held = permits.try_take().unwrap();
        let of = |upstream, millis| {
            let claimant = Claimant { upstream, ..of_core(1) };
            permits.announce(claimant, after(permits.epoch, millis));
            claimant
        };
        of(UpstreamId::main(Destination::Logs), 30);
        let second = of(UpstreamId::named(2, Destination::Metrics), 10);
        of(UpstreamId::named(1, Destination::Logs), 20);
        assert_eq!(permits.oldest_want(|_| true).unwrap().claimant, second);
        drop(held);
        assert_eq!(handed.try_recv().unwrap().0, 1);
    }

    #[test]
    fn the_maximum_holds_over_all_cores() {
        let directory = Directory::new(2, 1, 2, 1, |_, _| ());
        let a = directory.permits(AT).try_take().unwrap();
        let _b = directory.permits(AT).try_take().unwrap();
        assert!(directory.permits(AT).try_take().is_none());
        drop(a);
        assert!(directory.permits(AT).try_take().is_some());
    }

    #[test]
    fn a_free_permit_is_handed_to_the_longest_waiter() {
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
        assert!(handed.is_empty() && permits.try_take().is_some(), "no waiter is left");
    }

    #[test]
    fn a_want_is_claimed_once() {
        let (permits, _) = permits(2, 1);
        permits.announce(of_core(1), permits.epoch);
        let want = permits.oldest_want(|claimant| claimant.core != 0).unwrap();
        assert!(permits.oldest_want(|claimant| claimant.core != 1).is_none());
        assert!(permits.claim(want) && !permits.claim(want));
        assert!(permits.oldest_want(|_| true).is_none());
        permits.announce(of_core(1), after(permits.epoch, 1));
        assert!(!permits.claim(want), "the want has changed");
        permits.withdraw(of_core(1));
        assert!(permits.oldest_want(|_| true).is_none());
    }

    #[test]
    fn the_slow_maximum_applies_only_when_a_use_begins() {
        let (permits, _) = permits(1, 9);
        let begun = permits.begin_slow().unwrap();
        assert!(permits.begin_slow().is_none());
        let turned = permits.begin_slow_unbounded();
        assert_eq!(permits.slow(), 2);
        drop((begun, turned));
        assert_eq!(permits.slow(), 0);
    }

    #[test]
    fn slow_tenants_without_room_are_handed_no_permit() {
        let (permits, handed) = permits(2, 2);
        let slow = Claimant { class: Class::Slow, ..of_core(1) };
        let (held, used) = (permits.try_take().unwrap(), permits.begin_slow().unwrap());
        permits.announce(slow, permits.epoch);
        drop(held);
        assert!(handed.is_empty() && permits.any_free(), "it would be returned at once");
        let held = permits.try_take().unwrap();
        drop(used);
        drop(held);
        assert_eq!(handed.try_recv().unwrap().0, 1);
    }

    #[test]
    fn unused_addresses_are_dropped() {
        let directory = Directory::new(1, 1, 1, 1, |_, _| ());
        (1..100u16).for_each(|port| _ = directory.permits(([127, 0, 0, 1], port).into()));
        assert_eq!(directory.addresses.lock().unwrap().len(), 1);
    }
}

#[cfg(all(test, feature = "loom"))]
mod model;
