//! `/api/v1/tenants/{tenant}`: one tenant in detail.

use std::sync::Arc;
use std::time::Instant;

use percent_encoding::percent_decode;
use serde_json::{Value, json};

use super::status::ledger_json;
use super::tenants::Row;
use super::{Fault, Query, error_json, time_of};
use crate::admin::Server;
use crate::auth::Login;
use crate::explain::{Place, Sender};
use crate::metrics::Noted;
use crate::model::Destination;
use crate::tenant::TenantId;

impl Server {
    /// `encoded` is the tenant as it stands in the path.
    pub(super) fn tenant(&self, encoded: &[u8], query: &Query) -> Result<Value, Fault> {
        let destination = query.destination()?.unwrap_or(Destination::Metrics);
        let id =
            percent_decode(encoded).decode_utf8().map_err(|_| (400, "the tenant is not UTF-8".to_owned()))?;
        let all = self.pages.metrics.all_tenants(destination);
        let group: Vec<_> = all.into_iter().filter(|(tenant, _)| **tenant == *id).collect();
        let sampler = self.sampler.borrow();
        let row = Row::read(&sampler, destination, &group, Instant::now());
        let row = row.ok_or_else(|| (404, "no data of this tenant has come since the start".to_owned()))?;
        let mut page = row.json(&sampler);
        let unaccounted = sampler.auditor.of_tenant(destination, &row.tenant);
        let more = json!({ "ledger": ledger_json(&row.ledger(), unaccounted) });
        for part in [more, self.limits(), notes(&row), self.way(&row.tenant, destination)] {
            if let (Value::Object(page), Value::Object(part)) = (&mut page, part) {
                page.extend(part);
            }
        }
        Ok(page)
    }

    /// What a tenant may hold.
    fn limits(&self) -> Value {
        let plan = self.pages.plan();
        let share = plan.tenant_share();
        json!({ "limits": {
            "connections_max": plan.tenant_connections_max(),
            "parts_max": share.parts_max,
            "bytes_max": share.bytes_max,
        } })
    }

    /// The rule that names it, and where its data goes.
    fn way(&self, tenant: &Arc<str>, destination: Destination) -> Value {
        let plan = self.pages.plan();
        let rule = self.rules.of(&self.pages.shared.taps, destination, tenant, Instant::now());
        let place = TenantId::new(tenant, plan.tenant.id_rules).ok().and_then(|id| {
            // Requests that name a prefix themselves may go elsewhere; the tenant's ID does not tell.
            let sender = Sender::new(&plan, None, Login::None).ok()?;
            Some(Place::of(&plan, &id, &sender, destination))
        });
        let header = place.as_ref().and_then(|place| place.headers.first());
        json!({
            "rule": rule.map(|(kind, detail)| json!({ "kind": kind, "detail": detail })),
            "upstream": place.as_ref().map(|place| &place.upstream),
            "target": place.as_ref().map(|place| &place.target),
            "header": header.map(|(name, value)| json!({ "name": name, "value": value })),
        })
    }
}

/// What happened to the tenant lately.
fn notes(row: &Row) -> Value {
    let mut noted = Noted::default();
    for cells in &row.cores {
        let Noted { errors, senders, sizes } = cells.notes.read();
        noted.errors.extend(errors);
        noted.senders.extend(senders);
        noted.sizes.extend(sizes);
    }
    noted.errors.make_contiguous().sort_by_key(|note| std::cmp::Reverse(note.at));
    noted.senders.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
    let senders = noted.senders.iter();
    let sizes = noted.sizes.iter();
    json!({
        "errors": noted.errors.iter().map(error_json).collect::<Vec<_>>(),
        "senders": senders
            .map(|(ip, at)| json!({ "sender": ip.to_string(), "last_seen_at": time_of(*at) }))
            .collect::<Vec<_>>(),
        "sizes": sizes
            .map(|(address, bytes)| json!({ "address": address.to_string(), "bytes_max": bytes }))
            .collect::<Vec<_>>(),
    })
}
