//! Faults for tests of the ledger, in test builds only. The name of a tenant plants one.

use std::rc::Rc;

use super::Egress;
use super::tenant_lane::TenantLane;
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
