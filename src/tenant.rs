//! t
use std::sync::Arc;
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
/// t
pub struct TenantId(Arc<str>);
impl TenantId {
    /// t
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl From<&str> for TenantId {
    fn from(s: &str) -> Self {
        Self(s.into())
    }
}
