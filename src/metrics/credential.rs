//! The table of what each credential has sent, by tenant.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cells::Counter;
use super::table::metrics;
use crate::limits::CREDENTIAL_TENANTS_MAX;

metrics! {
    /// What one credential has sent for one tenant, counted by the core that received it.
    pub struct CredentialMetrics {
        "tenantry_credential_requests_total", "Push requests, by credential and tenant." => requests: Counter;
        "tenantry_credential_series_total", "Series or streams received, by credential and tenant." =>
            series: Counter;
    }
}

impl CredentialMetrics {
    /// Counts a part of a request.
    pub fn received(&self, series: u64) {
        self.requests.add(1);
        self.series.add(series);
    }
}

/// A credential and a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CredentialTenant {
    /// The kind of credential.
    pub kind: &'static str,
    /// The credential's name.
    pub name: Box<str>,
    /// The tenant; empty if metrics have no tenants.
    pub tenant: Box<str>,
}

impl CredentialTenant {
    /// What stands for all pairs beyond the bound.
    pub(super) fn other() -> Self {
        Self { kind: "other", name: "".into(), tenant: "".into() }
    }
}

/// The counters of all pairs, by pair and core.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    by_pair: BTreeMap<(CredentialTenant, usize), Arc<CredentialMetrics>>,
    pairs: usize,
}

impl Credentials {
    /// The counters of a pair on a core. Pairs beyond [`CREDENTIAL_TENANTS_MAX`] share them.
    pub(super) fn counters(&mut self, core: usize, pair: CredentialTenant) -> Arc<CredentialMetrics> {
        let (first, last) = ((pair.clone(), 0), (pair.clone(), usize::MAX));
        let is_known = self.by_pair.range(first..=last).next().is_some();
        let pair = match is_known || self.pairs < CREDENTIAL_TENANTS_MAX {
            true => pair,
            false => CredentialTenant::other(),
        };
        self.pairs += usize::from(!is_known && pair != CredentialTenant::other());
        Arc::clone(self.by_pair.entry((pair, core)).or_default())
    }

    /// All pairs with their counters, sorted. A pair occurs once for each core that counts under it.
    pub(super) fn all(&self) -> Vec<(CredentialTenant, Arc<CredentialMetrics>)> {
        self.by_pair.iter().map(|((pair, _), counters)| (pair.clone(), Arc::clone(counters))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(number: usize) -> CredentialTenant {
        CredentialTenant { kind: "jwt", name: number.to_string().into(), tenant: "t".into() }
    }

    #[test]
    fn pairs_beyond_the_bound_share_their_counters() {
        let mut credentials = Credentials::default();
        for number in 0..CREDENTIAL_TENANTS_MAX + 3 {
            credentials.counters(0, pair(number)).received(2);
        }
        // A known pair keeps its counters, on every core.
        credentials.counters(0, pair(0)).received(2);
        credentials.counters(1, pair(0)).received(5);
        let all = credentials.all();
        assert_eq!(all.len(), CREDENTIAL_TENANTS_MAX + 2);
        let count = |pair: &CredentialTenant| -> Vec<(u64, u64)> {
            let of = all.iter().filter(|(other, _)| other == pair);
            of.map(|(_, counters)| (counters.requests.get(), counters.series.get())).collect()
        };
        assert_eq!(count(&pair(0)), [(2, 4), (1, 5)]);
        assert_eq!(count(&CredentialTenant::other()), [(3, 6)]);
    }
}
