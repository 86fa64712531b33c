//! Which rule names a series' tenant.
#![forbid(unsafe_code)]

use super::grant::Grant;

/// The rule that decided about the tenant of a series. Cheap to keep: it refers to the rules by number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rule {
    /// The label's value is the tenant.
    Label,
    /// The rule of the tenant map at this index, from 0.
    Map(usize),
    /// The series has no label with a value, and goes to the default tenant.
    Default,
    /// The request's tenant header, which the sender may use for it, names the tenant of all series.
    Header,
    /// The sender's access rule names the tenant of all series.
    Grant,
}

impl Rule {
    /// The rule if a grant [forces](Grant::forced) a tenant.
    pub(super) fn of_forced(grant: &Grant) -> Self {
        match grant {
            Grant::Header => Self::Header,
            Grant::Any | Grant::Tenants(_) | Grant::Named(_) | Grant::Forced(_) => Self::Grant,
        }
    }

    /// Its kind, as one word.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Map(_) => "map",
            Self::Default => "default",
            Self::Header => "header",
            Self::Grant => "grant",
        }
    }
}
