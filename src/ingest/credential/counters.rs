//! One core's counters of credentials.

use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::Identity;
use crate::limits::CREDENTIAL_TENANTS_MAX;
use crate::metrics::{CredentialMetrics, Metrics};
use crate::tenant::TenantId;

/// The counters of the credentials that this core has seen, so that counting takes no lock.
#[derive(Debug, Default)]
pub(in crate::ingest) struct CredentialCounters {
    /// By what [`Identity::to_string`] gives, and by tenant.
    known: HashMap<Box<str>, HashMap<TenantId, Arc<CredentialMetrics>>>,
    pairs: usize,
}

impl CredentialCounters {
    /// The counters of `identity` for `tenant`. There may be more pairs than have counters; those are not kept here.
    pub(in crate::ingest) fn of(
        &mut self,
        identity: &Identity,
        tenant: &TenantId,
        metrics: &Metrics,
        core: usize,
    ) -> Arc<CredentialMetrics> {
        let shown = identity.to_string();
        if let Some(counters) = self.known.get(&*shown).and_then(|tenants| tenants.get(tenant)) {
            return Arc::clone(counters);
        }
        let counters = metrics.credential(core, identity.kind(), identity.name(), tenant);
        if self.pairs < CREDENTIAL_TENANTS_MAX {
            self.pairs += 1;
            self.known.entry(shown.into()).or_default().insert(tenant.clone(), Arc::clone(&counters));
        }
        counters
    }
}
