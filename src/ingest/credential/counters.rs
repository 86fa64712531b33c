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
    /// By kind and name of the credential, and by the tenant as metrics show it.
    known: HashMap<Box<str>, HashMap<Box<str>, Arc<CredentialMetrics>>>,
    pairs: usize,
    /// Those of all pairs beyond the bound.
    other: Option<Arc<CredentialMetrics>>,
}

impl CredentialCounters {
    /// The counters of `identity` for `tenant`.
    pub(in crate::ingest) fn of(
        &mut self,
        identity: &Identity,
        tenant: &TenantId,
        metrics: &Metrics,
        core: usize,
    ) -> Arc<CredentialMetrics> {
        let credential = format!("{} {}", identity.kind(), identity.name());
        let tenant = metrics.tenant_label(tenant);
        if let Some(counters) = self.known.get(&*credential).and_then(|tenants| tenants.get(tenant)) {
            return Arc::clone(counters);
        }
        if self.pairs >= CREDENTIAL_TENANTS_MAX {
            return Arc::clone(self.other.get_or_insert_with(|| metrics.other_credentials(core)));
        }
        let counters = metrics.credential(core, identity.kind(), identity.name(), tenant);
        self.pairs += 1;
        self.known.entry(credential.into()).or_default().insert(tenant.into(), Arc::clone(&counters));
        counters
    }
}
