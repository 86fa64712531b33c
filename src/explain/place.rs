//! The place that a tenant's data is sent to.
#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::sender::Sender;
use crate::config::Plan;
use crate::model::Destination;
use crate::tenant::TenantId;

/// An upstream, and how a request to it names the tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// `main`, or the upstream's name.
    pub upstream: String,
    /// The URL, without credentials.
    pub target: String,
    /// The headers that name the tenant: one, or two for VictoriaMetrics.
    pub headers: Vec<(String, String)>,
}

impl Place {
    /// The place of a tenant's data.
    pub fn of(plan: &Plan, tenant: &TenantId, sender: &Sender, destination: Destination) -> Self {
        let source = sender.source.as_deref().map(str::as_bytes);
        let (id, terms) = plan.upstream_of(tenant, source, &sender.grant, destination);
        let upstream = plan.upstreams.get(id).map_or("main", |upstream| &upstream.name);
        let mut lines = Vec::new();
        terms.tenant_header.write(tenant, &mut lines);
        let lines = String::from_utf8_lossy(&lines);
        let headers = lines.lines().filter_map(|line| line.split_once(": "));
        Self {
            upstream: upstream.to_owned(),
            target: terms.targets.of(destination).url_for(tenant),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    /// The first of its headers, and all of them.
    pub(super) fn headers_json(&self) -> (Value, Value) {
        let one = |(name, value): &(String, String)| json!({"name": name, "value": value});
        (self.headers.first().map_or(Value::Null, one), self.headers.iter().map(one).collect())
    }
}
