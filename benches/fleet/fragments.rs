//! Parts as they come to a lane.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenantry::config::plan::Terms;
use tenantry::exchange::fragment::{Fragment, RequestId, ReturnAddress};
use tenantry::model::{Destination, Part, UpstreamId};
use tenantry::shared::budget::Budget;
use tenantry::split::{Body, Splitter};

use super::{SERIES, split_rules, tenant_rules};

/// The part of one of ten tenants.
pub(crate) fn a_part() -> Part {
    let body = Body::snappy_v1(super::request(SERIES, 10).to_block());
    let mut splitter = Splitter::new();
    splitter.scan(body, &split_rules(&tenant_rules(false)), None).expect("scans");
    splitter.next_part().expect("there are ten")
}

/// A part on its way to its tenant's lane.
pub(crate) fn fragment(part: Part, terms: &Arc<Terms>) -> Box<Fragment> {
    let now = Instant::now();
    Box::new(Fragment {
        passed: None,
        part,
        terms: Arc::clone(terms),
        upstream: UpstreamId::main(Destination::Metrics),
        sender: Some(ReturnAddress { core: 0, slot: 0, part: 0 }),
        start_by: now + Duration::from_secs(10),
        arrived: now,
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        request_id: RequestId(1),
        receipt: None,
        alone: false,
        traced: None,
        entry: Default::default(),
        charge: Budget::new(1).charge(1).expect("fits"),
        held: None,
    })
}
