//! Faults and looks for tests of the ledger, in test builds only. The name of a tenant plants one.

use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use super::Egress;
use super::tenant_lane::TenantLane;
use crate::metrics::ledger::Ledger;
use crate::tenant::TenantId;

/// How often the elements of a fragment go into an upstream request.
pub(super) fn copies(tenant: &TenantId) -> usize {
    match tenant.as_str() {
        "planted-lost" => 0,
        "planted-doubled" => 2,
        _ => 1,
    }
}

/// The lane that a fragment is put into.
pub(super) fn lane(egress: &Egress, of: Rc<TenantLane>) -> Rc<TenantLane> {
    let other = || egress.lanes.borrow().get("a").map(Rc::clone);
    if of.tenant.as_str() == "planted-misrouted" { other().unwrap_or(of) } else { of }
}

/// What of a tenant was unaccounted whenever an outcome left.
static LOOKS: Mutex<Vec<(TenantId, i64)>> = Mutex::new(Vec::new());

/// Reads the ledger of a tenant whose name begins with `planted-look`, as an audit would at this moment.
pub(super) fn look(lane: &TenantLane) {
    if lane.tenant.as_str().starts_with("planted-look") {
        let unaccounted = Ledger::of_tenant(std::iter::once(&*lane.metrics)).unaccounted();
        LOOKS.lock().unwrap_or_else(PoisonError::into_inner).push((lane.tenant.clone(), unaccounted));
    }
}

/// What the looks at a tenant have found, in order.
pub(crate) fn looks(tenant: &str) -> Vec<i64> {
    let all = LOOKS.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter(|(of, _)| of.as_str() == tenant).map(|(_, unaccounted)| *unaccounted).collect()
}
