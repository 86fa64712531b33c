//! t
use std::sync::Arc;
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
/// t
pub struct TenantId(Arc<str>);
#[derive(Clone, Copy)]
/// t
#[allow(missing_docs)]
pub enum IdRules {
    Mimir,
    Thanos,
}
impl TenantId {
    /// t
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// t
    pub fn new(id: &str, _rules: IdRules) -> Result<Self, ()> {
        Ok(Self(id.into()))
    }
}
