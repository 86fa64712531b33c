//! What requests to an upstream have in common.
#![forbid(unsafe_code)]

use super::header::TenantHeader;
use super::target::Target;
use crate::auth::Secret;
use crate::model::{PerDestination, TargetCoding};

/// Everything in upstream requests except the tenant.
///
/// A fragment is sent under the terms that applied when its request arrived, even if a reload happens in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The target for each destination.
    pub targets: PerDestination<Target>,
    /// How what is sent to each of them is coded. It counts only for OTLP.
    pub codings: PerDestination<TargetCoding>,
    /// The header that names the tenant to the upstream.
    pub tenant_header: TenantHeader,
    /// The full value of the `Authorization` header for the upstream.
    pub authorization: Option<Secret>,
    /// The lines of further headers, each with its line end.
    pub headers: Option<Secret>,
    /// Which upstream it is, and how often a reload has moved its data to another place. Data delivered to one place is
    /// not in another.
    pub place: u32,
}

/// The bits of [`Terms::place`] that count. Those above them are the upstream's number.
const MOVES_BITS: u32 = 24;

impl Terms {
    /// Stands in for terms with mistakes, where only what refers to them is checked.
    pub(super) fn unknown() -> Self {
        Self {
            targets: PerDestination::new(|_| Target::unknown()),
            codings: PerDestination::default(),
            tenant_header: TenantHeader::AccountAndProject,
            authorization: None,
            headers: None,
            place: 0,
        }
    }

    /// The place of an upstream's data at the start.
    pub(super) fn first_place(index: u8) -> u32 {
        u32::from(index) << MOVES_BITS
    }

    /// Makes these the terms after `running` ones of the same upstream.
    #[must_use]
    pub(super) fn after(self, running: &Self) -> Self {
        // A header may choose where an upstream stores what it gets.
        let moved = self.targets != running.targets
            || self.tenant_header != running.tenant_header
            || self.headers != running.headers;
        let moves_max = (1 << MOVES_BITS) - 1;
        let moves = (running.place & moves_max).wrapping_add(u32::from(moved)) & moves_max;
        Self { place: (running.place & !moves_max) | moves, ..self }
    }
}
