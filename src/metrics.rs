//! The counters of the process, their writers and their readers.
//!
//! Design constraints:
//! - Counting is on the path of every request, so it must cost next to nothing. Every number has *one writer*, its
//!   core, which adds with a plain load and store. No cache line is written by two cores.
//! - Reading is rare and may be slow: the admin thread sums over the cores.
//! - Tenants come from untrusted input, and each costs memory. Beyond the bound of [`Metrics::new`] they share one
//!   label.
//!
//! A metric is one entry of a table: its name, help text, type, labels and cell. [`table`] defines the form of an
//! entry. The structs of cells and the lists that the exposition walks over come from the tables:
//!
//! | Table | What it counts | Its writer |
//! |---|---|---|
//! | `metrics/core.rs` | [`CoreMetrics`] | each core |
//! | `metrics/credential.rs` | [`CredentialMetrics`] | the core that received the request |
//! | `metrics/tenant.rs` | [`TenantMetrics`], and cortex-tenant's names | the tenant's home core |
//! | `metrics/reloads.rs` | [`Reloads`] | the thread that handles signals |
//! | `metrics/spool.rs` | [`SpoolMetrics`] | the spool's thread |
//!
//! [`ledger`] holds some of them against each other, and [`Notes`] keep what happened to a tenant lately.
#![forbid(unsafe_code)]

mod cells;
mod core;
mod credential;
mod error_ids;
mod exemplar;
mod labels;
pub mod ledger;
mod named;
mod notes;
mod reloads;
mod spool;
mod stalls;
pub mod table;
mod tenant;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

pub use self::cells::{
    ByLabel, Counter, Counters, Distribution, Gauge, Histogram, Label, Moment, ThreadId, UpstreamGauges,
};
pub use self::core::CoreMetrics;
use self::credential::Credentials;
pub use self::credential::{CredentialMetrics, CredentialTenant};
use self::error_ids::{ErrorId, KNOWN_MAX, error_id};
pub use self::exemplar::Exemplar;
pub use self::labels::{Rejection, Status, Unstored, UpstreamClass};
pub use self::named::{Named, Place};
pub use self::notes::{ErrorNote, Noted, Notes};
pub use self::reloads::Reloads;
pub use self::spool::SpoolMetrics;
pub use self::stalls::Stalls;
pub use self::tenant::{DestinationFamilies, TenantMetrics};
use crate::limits::SENDERS_COUNTED_MAX;
use crate::model::{Destination, PerDestination};
use crate::tenant::TenantId;

/// The label that all tenants beyond the bound share.
pub const OTHER_TENANTS: &str = "__other__";

/// The same for senders, and for the IDs of errors.
pub const OTHER: &str = OTHER_TENANTS;

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    /// The counters of reloads.
    pub reloads: Reloads,
    /// The spool's files.
    pub spool: SpoolMetrics,
    cores: Box<[CoreMetrics]>,
    tenants: PerDestination<Mutex<Tenants>>,
    credentials: Mutex<Credentials>,
    /// Requests and samples by the sender's address.
    senders: Named<IpAddr, 2>,
    /// Errors of upstreams by their ID.
    error_ids: Named<&'static str, 1>,
    tenants_max: usize,
    include_tenant: bool,
}

/// The tenants' counters, and the number of labels besides [`OTHER_TENANTS`].
#[derive(Debug, Default)]
struct Tenants {
    /// By label and core: each core that counts under a label has its own counters, because they have one writer.
    by_label: BTreeMap<(Arc<str>, usize), Arc<TenantMetrics>>,
    labels: usize,
}

impl Tenants {
    fn knows(&self, label: &Arc<str>) -> bool {
        self.by_label.range((Arc::clone(label), 0)..=(Arc::clone(label), usize::MAX)).next().is_some()
    }
}

impl Metrics {
    /// Metrics of `cores` cores. The first `tenants_max` tenants of the process are counted apart, and with
    /// `include_tenant` they have their own labels.
    pub fn new(cores: usize, tenants_max: usize, include_tenant: bool) -> Self {
        Self {
            reloads: Reloads::default(),
            spool: SpoolMetrics::default(),
            cores: (0..cores.max(1)).map(|_| CoreMetrics::default()).collect(),
            tenants: PerDestination::default(),
            credentials: Mutex::default(),
            senders: Named::new(cores, SENDERS_COUNTED_MAX),
            error_ids: Named::new(cores, KNOWN_MAX),
            tenants_max,
            include_tenant,
        }
    }

    /// Adds gauges for named upstreams.
    #[must_use]
    pub fn with_upstreams(self, names: &[Arc<str>]) -> Self {
        self.cores.iter().for_each(|core| core.name_upstreams(names));
        self
    }

    /// The counters of core number `core`.
    pub fn core(&self, core: usize) -> &CoreMetrics {
        // The remainder only tells the compiler that the index is in range.
        &self.cores[core % self.cores.len()]
    }

    /// The counters of all cores.
    pub fn cores(&self) -> &[CoreMetrics] {
        &self.cores
    }

    /// The counters in which `core` counts `tenant`'s data for a destination. It takes a lock, so callers keep the
    /// result.
    pub fn tenant(&self, core: usize, destination: Destination, tenant: &TenantId) -> Arc<TenantMetrics> {
        let label: Arc<str> = tenant.as_str().into();
        let tenants = self.tenants.of(destination);
        let mut tenants = tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let label = if tenants.knows(&label) {
            label
        } else if tenants.labels < self.tenants_max {
            tenants.labels += 1;
            label
        } else {
            OTHER_TENANTS.into()
        };
        let counters = tenants.by_label.entry((label, core)).or_default();
        Arc::clone(counters)
    }

    /// The counters in which `core` counts what a credential sends for a tenant, given by its
    /// [`tenant_label`](Self::tenant_label). It takes a lock, so callers keep the result.
    pub fn credential(
        &self,
        core: usize,
        kind: &'static str,
        name: &str,
        tenant: &str,
    ) -> Arc<CredentialMetrics> {
        let pair = CredentialTenant { kind, name: name.into(), tenant: tenant.into() };
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).counters(core, pair)
    }

    /// The counters in which `core` counts all pairs of a credential and a tenant beyond the bound.
    pub fn other_credentials(&self, core: usize) -> Arc<CredentialMetrics> {
        let mut credentials = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        credentials.counters(core, CredentialTenant::other())
    }

    /// Whether metrics name tenants.
    pub fn includes_tenant(&self) -> bool {
        self.include_tenant
    }

    /// How metrics name a tenant: by its ID, or not at all.
    pub fn tenant_label<'a>(&self, tenant: &'a TenantId) -> &'a str {
        if self.include_tenant { tenant.as_str() } else { "" }
    }

    /// All credentials and their tenants with their counters, sorted. A pair occurs once for each core that counts
    /// under it.
    pub fn credentials(&self) -> Vec<(CredentialTenant, Arc<CredentialMetrics>)> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// The place of a sender among those that are counted by their address. Callers keep it.
    pub fn sender(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        self.senders.place(|known| *known == address, || address)
    }

    /// Counts a request of a sender that `core` has read.
    pub fn count_request_of(&self, core: usize, sender: Place) {
        self.senders.count(core, sender, 0, 1);
    }

    /// Counts samples of a sender that `core` has read.
    pub fn count_samples_of(&self, core: usize, sender: Place, samples: u64) {
        self.senders.count(core, sender, 1, samples);
    }

    /// What each sender has sent: its address, or none for all senders beyond the bound, with requests and samples.
    pub fn senders(&self) -> impl Iterator<Item = (Option<IpAddr>, u64, u64)> {
        let totals = self.senders.totals().into_iter();
        totals.map(|(sender, [requests, samples])| (sender.copied(), requests, samples))
    }

    /// Counts an upstream's error on `core` by the ID in its body, if there is one.
    pub fn count_error(&self, core: usize, body: &[u8]) {
        let place = match error_id(body) {
            Some(ErrorId::Known(id)) => self.error_ids.place(|known| *known == id, || id),
            Some(ErrorId::Unknown) => self.error_ids.other(),
            None => return,
        };
        self.error_ids.count(core, place, 0, 1);
    }

    /// How often each ID occurred in errors of upstreams. The last may be [`OTHER`], for all IDs that are not known.
    pub fn error_ids(&self) -> impl Iterator<Item = (&str, u64)> {
        self.error_ids.totals().into_iter().map(|(id, [count])| (id.copied().unwrap_or(OTHER), count))
    }

    /// All labels of a destination's tenants with their counters, sorted by label. A label occurs once for each core
    /// that counts under it. If metrics have no tenants, all have the same, empty label.
    pub fn tenants(&self, destination: Destination) -> Vec<(Arc<str>, Arc<TenantMetrics>)> {
        let mut all = self.all_tenants(destination);
        if !self.include_tenant {
            let none: Arc<str> = "".into();
            all.iter_mut().for_each(|(label, _)| *label = Arc::clone(&none));
        }
        all
    }

    /// The number of a destination's tenants, those beyond the bound left out.
    pub fn tenants_known(&self, destination: Destination) -> usize {
        self.tenants.of(destination).lock().unwrap_or_else(PoisonError::into_inner).labels
    }

    /// As [`tenants`](Self::tenants), by their IDs, whether metrics have tenants or not.
    pub fn all_tenants(&self, destination: Destination) -> Vec<(Arc<str>, Arc<TenantMetrics>)> {
        let tenants = self.tenants.of(destination).lock().unwrap_or_else(PoisonError::into_inner);
        let all = tenants.by_label.iter();
        all.map(|((label, _), counters)| (Arc::clone(label), Arc::clone(counters))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::IdRules;

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id, IdRules::Mimir).unwrap()
    }

    #[test]
    fn the_first_tenants_of_the_process_have_labels_and_the_others_share_one() {
        let metrics = Metrics::new(2, 3, true);
        for (core, id) in [(0, "a"), (1, "b"), (0, "c"), (0, "d"), (1, "e"), (1, "a"), (0, "f")] {
            metrics.tenant(core, Destination::Metrics, &tenant(id)).received(1, 1);
        }
        let labels: Vec<_> = metrics
            .tenants(Destination::Metrics)
            .iter()
            .map(|(label, t)| (label.to_string(), t.series.get()))
            .collect();
        let expected = [(OTHER_TENANTS, 2), (OTHER_TENANTS, 1), ("a", 1), ("a", 1), ("b", 1), ("c", 1)];
        assert_eq!(labels, expected.map(|(label, n)| (label.to_owned(), n)));
    }

    #[test]
    fn each_core_has_its_own_counters() {
        let metrics = Metrics::new(2, 1, true);
        for id in ["a", "past-the-bound"].map(tenant) {
            assert!(Arc::ptr_eq(
                &metrics.tenant(0, Destination::Metrics, &id),
                &metrics.tenant(0, Destination::Metrics, &id)
            ));
            assert!(!Arc::ptr_eq(
                &metrics.tenant(0, Destination::Metrics, &id),
                &metrics.tenant(1, Destination::Metrics, &id)
            ));
        }
    }

    #[test]
    fn tenants_share_one_label_unless_configured() {
        let metrics = Metrics::new(1, 10, false);
        for id in ["a", "b"] {
            metrics.tenant(0, Destination::Metrics, &tenant(id)).received(1, 1);
        }
        let labels =
            |all: Vec<(Arc<str>, _)>| all.iter().map(|(label, _)| label.to_string()).collect::<Vec<_>>();
        assert_eq!(labels(metrics.tenants(Destination::Metrics)), ["", ""]);
        assert_eq!(labels(metrics.all_tenants(Destination::Metrics)), ["a", "b"]);
    }
}
