//! The name lookups of all upstreams: one for each host and port, however many upstreams have it.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use crate::config::plan::Plan;
use crate::limits::FIRST_RESOLUTION_SECS;
use crate::model::{PerUpstream, UpstreamId};
use crate::upstream::resolve::{Addresses, Question, Resolver};

/// Starts the lookups, and waits for the first answers of all together, but not for long.
///
/// # Errors
/// If no thread can be started.
pub(super) fn start(plan: &Plan) -> io::Result<(Vec<Resolver>, PerUpstream<Addresses>)> {
    let mut known: HashMap<(&str, u16), Addresses> = HashMap::new();
    let mut resolvers = Vec::new();
    let addresses = PerUpstream::try_new(plan.upstream_ids(), |id| {
        let place = place(plan, id);
        if let Some(addresses) = known.get(&place) {
            return Ok(Addresses::clone(addresses));
        }
        let resolver = Resolver::start(Question {
            host: place.0.to_owned(),
            port: place.1,
            ipv6: plan.enable_ipv6,
            interval: plan.resolve_interval,
        })?;
        let addresses = resolver.addresses();
        resolvers.push(resolver);
        known.insert(place, Addresses::clone(&addresses));
        io::Result::Ok(addresses)
    })?;
    let deadline = Instant::now() + Duration::from_secs(FIRST_RESOLUTION_SECS);
    resolvers.iter().for_each(|resolver| resolver.wait(deadline));
    Ok((resolvers, addresses))
}

/// The number of different hosts and ports.
pub(super) fn hosts(plan: &Plan) -> usize {
    let places: std::collections::HashSet<_> = plan.upstream_ids().map(|id| place(plan, id)).collect();
    places.len()
}

fn place(plan: &Plan, id: UpstreamId) -> (&str, u16) {
    let target = plan.terms_of(id).targets.of(id.destination());
    (&target.host, target.port)
}
