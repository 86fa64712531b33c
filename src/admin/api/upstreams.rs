//! `/api/v1/upstreams`: the upstreams and their addresses, as the cores see them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{rounded, time_of};
use crate::admin::Server;
use crate::config::plan::Plan;
use crate::exchange::fragment::Message;
use crate::exchange::inquiry::{AddressState, Inquiry};
use crate::limits::{INQUIRY_MILLIS, INQUIRY_POLL_MILLIS};
use crate::model::UpstreamId;

impl Server {
    pub(super) async fn upstreams(&self) -> Value {
        let plan = self.pages.plan();
        let states = self.ask_cores().await;
        let upstreams = plan.upstream_ids().map(|id| self.upstream(&plan, id, &states));
        json!({ "upstreams": upstreams.collect::<Vec<_>>() })
    }

    /// Asks all cores about their addresses. A core that does not answer soon is left out.
    async fn ask_cores(&self) -> Vec<AddressState> {
        let (inquiry, posts) = (Arc::new(Inquiry::default()), &self.pages.posts);
        for post in posts {
            post.post(Message::Inquiry(Arc::clone(&inquiry)));
        }
        let until = Instant::now() + Duration::from_millis(INQUIRY_MILLIS);
        while inquiry.answered() < posts.len() && Instant::now() < until {
            monoio::time::sleep(Duration::from_millis(INQUIRY_POLL_MILLIS)).await;
        }
        inquiry.take()
    }

    fn upstream(&self, plan: &Plan, id: UpstreamId, states: &[AddressState]) -> Value {
        let name = plan.upstreams.get(id).map_or("main", |upstream| &upstream.name);
        let mut by_address = BTreeMap::<SocketAddr, Vec<&AddressState>>::new();
        for state in states.iter().filter(|state| state.upstream == id) {
            by_address.entry(state.address).or_default().push(state);
        }
        let addresses = by_address.iter().map(|(at, own)| {
            let all_idle = states.iter().filter(|state| state.address == *at).map(|state| state.idle).sum();
            address(plan, *at, own, all_idle)
        });
        let sum = |of: fn(&crate::metrics::CoreMetrics) -> &crate::metrics::UpstreamGauges| {
            self.pages.metrics.cores().iter().map(|core| of(core).of(id).get()).sum::<u64>()
        };
        json!({
            "upstream": name,
            "destination": id.destination().name(),
            "target": plan.terms_of(id).targets.of(id.destination()).to_string(),
            "addresses": addresses.collect::<Vec<_>>(),
            "connections_open": sum(|core| &core.upstream_open),
            "connections_idle": sum(|core| &core.upstream_idle),
            "in_backoff": sum(|core| &core.upstream_in_backoff),
            "lanes": sum(|core| &core.lanes),
            "waiting_fragments": sum(|core| &core.lanes_waiting),
            "slow_tenants": sum(|core| &core.slow_tenants),
            "receipts": sum(|core| &core.receipts),
        })
    }
}

/// An address, as all cores together see it. Upstreams at the same address share its permits; `all_idle` counts the
/// idle connections of all of them.
fn address(plan: &Plan, address: SocketAddr, states: &[&AddressState], all_idle: usize) -> Value {
    let idle: usize = states.iter().map(|state| state.idle).sum();
    let free = states.iter().filter_map(|state| state.permits_free).min();
    let open = free.map_or(0, |free| plan.max_conns_per_host.saturating_sub(free));
    let backoff_left = states.iter().filter_map(|state| state.backoff_left).max();
    let state = match (backoff_left, free) {
        (Some(_), _) => "backoff",
        (None, Some(_)) => "up",
        (None, None) => "unused",
    };
    json!({
        "address": address.to_string(),
        "state": state,
        "backoff_seconds_left": rounded(backoff_left.unwrap_or_default().as_secs_f64()),
        "failures_in_a_row": states.iter().map(|state| state.failures).max().unwrap_or_default(),
        "connections_in_use": open.saturating_sub(all_idle),
        "connections_idle": idle,
        "usual_seconds": states.iter().find_map(|state| state.usual).map(|usual| usual.as_secs_f64()),
        "last_answer_at": states.iter().filter_map(|state| state.answered).max().map(time_of),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Destination;

    #[test]
    fn connections_that_another_upstream_keeps_idle_are_not_in_use() {
        let plan = crate::config::parse("", "listen: 127.0.0.1:1\nmax_conns_per_host: 64", []).unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], 9009));
        let state = |destination, idle| AddressState {
            upstream: UpstreamId::main(destination),
            address: at,
            idle,
            permits_free: Some(64 - 10),
            failures: 0,
            backoff_left: None,
            usual: None,
            answered: None,
        };
        let (metrics, logs) = (state(Destination::Metrics, 5), state(Destination::Logs, 3));
        for one in [metrics, logs] {
            let value = address(&plan, at, &[&one], 8);
            assert_eq!(
                (&value["connections_in_use"], &value["connections_idle"]),
                (&json!(2), &json!(one.idle))
            );
        }
    }
}
