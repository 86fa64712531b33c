//! What is known about the sender of a request that is explained.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::auth::{Denied, Identity, Login};
use crate::config::Plan;
use crate::tenant::Grant;

/// What a request brings besides its body.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The value of its tenant header.
    pub source: Option<String>,
    /// What its credentials allow.
    pub grant: Arc<Grant>,
}

impl Sender {
    /// A sender with this tenant header. Without a login, access rules are left out.
    ///
    /// # Errors
    /// If the access rules allow the login no tenant at all. The server answers 403.
    pub fn new(plan: &Plan, source: Option<&str>, login: Login) -> Result<Self, Denied> {
        let identity = Identity { login, certificate: None };
        let grant = match plan.auth.access() {
            Some(access) if identity.login != Login::None => access.grant(&identity)?,
            _ => Arc::new(Grant::Any),
        };
        Ok(Self { source: None, grant }.with_source(plan, source))
    }

    /// The same, with the tenant header of one request.
    #[must_use]
    pub fn with_source(&self, plan: &Plan, source: Option<&str>) -> Self {
        // The header `AccountID+ProjectID` is never read from a request.
        let is_read = !plan.terms.tenant_header.inbound().is_empty();
        let source = source.filter(|source| is_read && !source.is_empty()).map(str::to_owned);
        Self { source, grant: Arc::clone(&self.grant) }
    }
}
