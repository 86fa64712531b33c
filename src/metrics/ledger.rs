//! The ledger: where each sample and log entry of an accepted request is, or what became of it.
//!
//! # Constraints
//! - The balance must be able to fail. So its sides are counted at different places: what came in, where a body was
//!   scanned; what was stored, where an upstream request is put together; what is in flight, by the [`Entry`] that each
//!   fragment carries. A number is never computed as the difference of others.
//! - It is on the path of every fragment. So a tenant's cells are those of its home core, and plain counters.
//! - A core changes both sides of a balance in one turn, without waiting in between. So the cells of a core agree
//!   whenever it is between two turns.
//!
//! # Design
//!
//! ```text
//! received ─┬─► refused: no tenant, mapped, downgraded, overloaded   (the core that received the request)
//!           └─► open ─► in transit ─► arrived: in flight ─┬─► stored
//!                                                        ├─► repeated: stored before, not sent
//!                                                        ├─► spooled: acknowledged, and sent later
//!                                                        └─► refused, by reason                (the home core)
//! ```
//!
//! Each core has a balance of arrivals, over all tenants, and each tenant has one on its home core. What is missing, or
//! too much, in any of them is *unaccounted*. A core may be interrupted between two stores, and then a reader sees a
//! difference that is gone a moment later. So [`Auditor`] believes what it has seen twice.
//!
//! What it cannot see: a part that never gets an outcome stays in flight, and a body that has lost bytes on its way
//! counts with all of its samples. The chaos runs compare what upstreams have stored, sample by sample.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use super::Metrics;
use super::core::CoreMetrics;
use super::labels::Unstored;
use super::tenant::TenantMetrics;
use crate::model::Destination;

/// A fragment's samples, as long as they are in flight on the home core. Dropping it ends that. Before,
/// they were counted as stored; or else they are counted here as something else.
#[derive(Debug, Default)]
pub struct Entry {
    samples: u64,
    tenant: Option<Arc<TenantMetrics>>,
}

impl Entry {
    /// Counts so many samples of a tenant as in flight.
    pub fn open(samples: u64, tenant: &Arc<TenantMetrics>) -> Self {
        tenant.in_flight.up_by(samples);
        Self { samples, tenant: Some(Arc::clone(tenant)) }
    }

    /// Takes up to `samples` out of this entry.
    #[must_use]
    pub fn split_off(&mut self, samples: u64) -> Self {
        let samples = samples.min(self.samples);
        self.samples -= samples;
        Self { samples, tenant: self.tenant.clone() }
    }

    /// Adds the samples of another entry of the same tenant.
    pub fn join(&mut self, mut other: Self) {
        self.samples += std::mem::take(&mut other.samples);
    }

    /// Ends it: the samples were not stored.
    pub fn refuse(self, reason: Unstored) {
        if let Some(tenant) = &self.tenant {
            tenant.refused.add(reason, self.samples);
        }
    }

    /// Ends it: the samples are durably in the spool.
    pub fn spool(self) {
        if let Some(tenant) = &self.tenant {
            tenant.spooled.add(self.samples);
        }
    }

    /// Ends it: the samples had been stored before, and were not sent again.
    pub fn repeat(self) {
        if let Some(tenant) = &self.tenant {
            tenant.repeated.add(self.samples);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(tenant) = &self.tenant {
            tenant.in_flight.down_by(self.samples);
        }
    }
}

/// What was not stored, in the order of [`Unstored::ALL`].
type Reasons = [u64; Unstored::ALL.len()];

/// Readings of cells that do not agree, at most, before the last one counts.
const STEADY_READS_MAX: usize = 8;

/// A ledger as it was read: of a tenant, or of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Samples that came in.
    pub received: u64,
    /// Of these, what upstreams have stored.
    pub stored: u64,
    /// What had been stored before, and was not sent again.
    pub repeated: u64,
    /// What went into the spool. What becomes of it there is counted apart, as it outlives the process.
    pub spooled: u64,
    /// What was not stored, by [`Unstored::ALL`].
    pub refused: Reasons,
    /// What has no outcome yet.
    pub in_flight: u64,
}

impl Ledger {
    /// A tenant's ledger, from its cells on all cores.
    pub fn of_tenant<'a>(cores: impl Iterator<Item = &'a TenantMetrics> + Clone) -> Self {
        steady(|| {
            let mut ledger = Self::default();
            cores.clone().for_each(|core| ledger.add_cells(core));
            ledger
        })
    }

    fn add_cells(&mut self, core: &TenantMetrics) {
        self.received = self.received.wrapping_add(core.samples.get());
        self.stored = self.stored.wrapping_add(core.stored.get());
        self.repeated = self.repeated.wrapping_add(core.repeated.get());
        self.spooled = self.spooled.wrapping_add(core.spooled.get());
        self.in_flight = self.in_flight.wrapping_add(core.in_flight.get());
        add_each(&mut self.refused, core.refused.counts());
    }

    /// The samples that are missing; negative if there are too many.
    pub fn unaccounted(&self) -> i64 {
        let kept = self.stored.wrapping_add(self.repeated).wrapping_add(self.spooled);
        let out = self.refused.iter().fold(kept, |sum, n| sum.wrapping_add(*n));
        self.received.wrapping_sub(out).wrapping_sub(self.in_flight).cast_signed()
    }

    /// What was not stored, by reason; reasons that never occurred are left out.
    pub fn refused(&self) -> impl Iterator<Item = (Unstored, u64)> {
        Unstored::ALL.iter().copied().zip(self.refused).filter(|(_, count)| *count > 0)
    }

    /// Adds what became of another ledger's samples.
    fn add_ends(&mut self, other: &Self) {
        self.stored = self.stored.wrapping_add(other.stored);
        self.repeated = self.repeated.wrapping_add(other.repeated);
        self.spooled = self.spooled.wrapping_add(other.spooled);
        self.in_flight = self.in_flight.wrapping_add(other.in_flight);
        add_each(&mut self.refused, other.refused);
    }
}

fn add_each(sums: &mut Reasons, counts: impl IntoIterator<Item = u64>) {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.wrapping_add(count));
}

/// Reads until two readings agree, so that a core in the middle of a turn is seldom seen. Gives up after a few.
fn steady<T: PartialEq>(read: impl Fn() -> T) -> T {
    let mut last = read();
    for _ in 0..STEADY_READS_MAX {
        let next = read();
        if next == last {
            break;
        }
        last = next;
    }
    last
}

/// A core's part in the way of samples from their requests to the home cores. What is in transit leaves one core and
/// comes to another, so each core's share of it may be negative.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arrivals {
    received: u64,
    refused: Reasons,
    open: u64,
    transit: u64,
    arrived: u64,
}

impl Arrivals {
    fn read(core: &CoreMetrics) -> Self {
        steady(|| {
            let mut refused = Reasons::default();
            add_each(&mut refused, core.ledger_refused.counts());
            Self {
                received: core.ledger_received.get(),
                refused,
                open: core.ledger_open.get(),
                transit: core.ledger_transit.get(),
                arrived: core.ledger_arrived.get(),
            }
        })
    }

    fn unaccounted(&self) -> i64 {
        let known = [self.open, self.transit, self.arrived].into_iter().chain(self.refused);
        known.fold(self.received, u64::wrapping_sub).cast_signed()
    }
}

/// A balance: of a core's arrivals, or of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Balance {
    Arrivals(usize),
    Tenant(Destination, Arc<str>),
}

/// What is unaccounted, by balance.
type Differences = HashMap<Balance, i64>;

/// Reads the ledgers now and then, and tells what is unaccounted.
#[derive(Debug, Default)]
pub struct Auditor {
    /// Balances that were off when they were last read.
    suspects: Differences,
    /// Of these, the ones that were off before, too, by at least so much.
    confirmed: Differences,
}

impl Auditor {
    /// Reads all ledgers. Called every few seconds; the cost grows with the number of tenants.
    pub fn audit(&mut self, metrics: &Metrics) {
        let found = differences(metrics);
        let seen_before = |(key, now): (&_, &i64)| {
            let before = *self.suspects.get(key)?;
            let least = now.signum() * before.abs().min(now.abs());
            (before.signum() == now.signum()).then(|| (Balance::clone(key), least))
        };
        self.confirmed = found.iter().filter_map(seen_before).collect();
        self.suspects = found;
    }

    /// The samples that are unaccounted, over all balances: too many here do not make up for too few there.
    pub fn unaccounted(&self) -> u64 {
        self.confirmed.values().map(|difference| difference.unsigned_abs()).sum()
    }

    /// What is unaccounted of a tenant; negative if there are too many.
    pub fn of_tenant(&self, destination: Destination, tenant: &str) -> i64 {
        if self.confirmed.is_empty() {
            return 0;
        }
        self.confirmed.get(&Balance::Tenant(destination, tenant.into())).copied().unwrap_or_default()
    }

    /// The tenants whose balances are off, and by how much.
    pub fn tenants(&self) -> impl Iterator<Item = (Destination, &str, i64)> {
        self.confirmed.iter().filter_map(|(balance, n)| match balance {
            Balance::Tenant(destination, tenant) => Some((*destination, &**tenant, *n)),
            Balance::Arrivals(_) => None,
        })
    }
}

/// The balances that are off.
fn differences(metrics: &Metrics) -> Differences {
    let mut found = Differences::new();
    for (number, core) in metrics.cores().iter().enumerate() {
        found.insert(Balance::Arrivals(number), Arrivals::read(core).unaccounted());
    }
    for destination in Destination::ALL {
        for (tenant, ledger) in metrics.ledgers(destination) {
            found.insert(Balance::Tenant(destination, tenant), ledger.unaccounted());
        }
    }
    found.retain(|_, unaccounted| *unaccounted != 0);
    found
}

impl Metrics {
    /// The ledgers of all tenants.
    pub fn ledgers(&self, destination: Destination) -> Vec<(Arc<str>, Ledger)> {
        let all = self.all_tenants(destination);
        let of_group = |group: &[(Arc<str>, Arc<TenantMetrics>)]| {
            let (tenant, _) = group.first()?;
            Some((Arc::clone(tenant), Ledger::of_tenant(group.iter().map(|(_, cells)| &**cells))))
        };
        all.chunk_by(|(a, _), (b, _)| a == b).filter_map(of_group).collect()
    }

    /// What went no further than the cores that received it. It has no tenant, or its tenant's home core does not know
    /// it.
    pub fn refused_on_arrival(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for core in &self.cores {
            add_each(&mut ledger.refused, core.ledger_refused.counts());
        }
        ledger
    }

    /// The ledger of the whole process.
    pub fn ledger(&self) -> Ledger {
        let mut total = Ledger::default();
        // Before what was received: no reader then finds more stored than received, however long this thread waits in
        // between.
        let tenants = Destination::ALL.into_iter().flat_map(|destination| self.ledgers(destination));
        tenants.for_each(|(_, ledger)| total.add_ends(&ledger));
        for core in &self.cores {
            let Arrivals { received, refused, open, transit, .. } = Arrivals::read(core);
            total.received = total.received.wrapping_add(received);
            total.in_flight = total.in_flight.wrapping_add(open).wrapping_add(transit);
            add_each(&mut total.refused, refused);
        }
        // Cores are read one after the other. What went from one that was read to one that was not is missing.
        total.in_flight = u64::try_from(total.in_flight.cast_signed()).unwrap_or(0);
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{IdRules, TenantId};

    fn metrics() -> (Metrics, Arc<TenantMetrics>) {
        let metrics = Metrics::new(2, 10, true);
        let id = TenantId::new("a", IdRules::Mimir).unwrap();
        let tenant = metrics.tenant(1, Destination::Logs, &id);
        (metrics, tenant)
    }

    fn unaccounted(metrics: &Metrics) -> (u64, i64) {
        let mut auditor = Auditor::default();
        (0..2).for_each(|_| auditor.audit(metrics));
        (auditor.unaccounted(), auditor.of_tenant(Destination::Logs, "a"))
    }

    #[test]
    fn an_entry_is_in_flight_until_it_is_dropped_whatever_becomes_of_it() {
        let (metrics, tenant) = metrics();
        tenant.received(1, 10);
        let mut entry = Entry::open(10, &tenant);
        let (stored, refused, repeated) = (entry.split_off(5), entry.split_off(2), entry.split_off(2));
        assert_eq!((tenant.in_flight.get(), unaccounted(&metrics)), (10, (0, 0)));
        tenant.stored.add(5);
        drop(stored);
        refused.refuse(Unstored::Limited);
        repeated.repeat();
        entry.refuse(Unstored::Failed);
        let ledger = Ledger::of_tenant([&*tenant].into_iter());
        assert_eq!((ledger.received, ledger.stored, ledger.repeated, ledger.in_flight), (10, 5, 2, 0));
        assert_eq!(ledger.refused().collect::<Vec<_>>(), [(Unstored::Limited, 2), (Unstored::Failed, 1)]);
        assert_eq!(unaccounted(&metrics), (0, 0));
    }

    #[test]
    fn pieces_that_are_put_back_count_once() {
        let (_, tenant) = metrics();
        let mut whole = Entry::open(10, &tenant);
        let piece = whole.split_off(4);
        whole.join(piece);
        // More than there is.
        let all = whole.split_off(99);
        assert_eq!(tenant.in_flight.get(), 10);
        drop(whole);
        assert_eq!(tenant.in_flight.get(), 10);
        drop(all);
        assert_eq!(tenant.in_flight.get(), 0);
    }

    #[test]
    fn what_is_lost_or_doubled_is_unaccounted_and_does_not_make_up_for_each_other() {
        let (metrics, tenant) = metrics();
        tenant.received(1, 10);
        drop(Entry::open(10, &tenant));
        assert_eq!(unaccounted(&metrics), (10, 10), "lost");
        tenant.stored.add(13);
        assert_eq!(unaccounted(&metrics), (3, -3), "doubled");
        metrics.core(0).ledger_received.add(3);
        assert_eq!(unaccounted(&metrics), (6, -3), "too many of a tenant, too few of the arrivals");
    }

    #[test]
    fn what_is_in_transit_is_accounted_for_though_no_core_has_it() {
        let (metrics, tenant) = metrics();
        let (ingest, home) = (metrics.core(0), metrics.core(1));
        ingest.ledger_received.add(7);
        ingest.ledger_refused.add(Unstored::NoTenant, 2);
        ingest.ledger_open.up_by(5);
        assert_eq!((unaccounted(&metrics).0, metrics.ledger().in_flight), (0, 5));
        ingest.ledger_open.down_by(5);
        ingest.ledger_transit.up_by(5);
        assert_eq!((unaccounted(&metrics).0, metrics.ledger().in_flight), (0, 5));
        home.ledger_transit.down_by(5);
        home.ledger_arrived.add(5);
        tenant.received(1, 5);
        let entry = Entry::open(5, &tenant);
        assert_eq!((unaccounted(&metrics).0, metrics.ledger().in_flight), (0, 5));
        entry.refuse(Unstored::Rejected);
        let ledger = metrics.ledger();
        assert_eq!((ledger.received, ledger.in_flight, ledger.unaccounted()), (7, 0, 0));
    }

    #[test]
    fn a_difference_that_is_gone_the_next_time_was_none() {
        let (metrics, tenant) = metrics();
        let mut auditor = Auditor::default();
        for (received, stored) in [(10, 10), (0, 0), (5, 9)] {
            tenant.received(1, received);
            auditor.audit(&metrics);
            assert_eq!(auditor.unaccounted(), 0);
            tenant.stored.add(stored);
        }
        // Four too many; before, there were five too few.
        auditor.audit(&metrics);
        assert_eq!(auditor.unaccounted(), 0);
        auditor.audit(&metrics);
        assert_eq!(
            (auditor.unaccounted(), auditor.tenants().collect::<Vec<_>>()),
            (4, vec![(Destination::Logs, "a", -4)])
        );
    }
}
