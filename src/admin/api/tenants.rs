//! `/api/v1/tenants`: the tenants, sorted, filtered, and a page at a time.
//!
//! Sorting reads the numbers of all tenants that match. Texts are made for the tenants of the page only.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Fault, Query, error_json, rounded, time_of};
use crate::admin::Server;
use crate::admin::sampler::{Sampler, TenantRates, TenantTotals};
use crate::metrics::TenantMetrics;
use crate::metrics::ledger::Ledger;
use crate::model::Destination;

/// Tenants on a page unless the request says otherwise.
const LIMIT: usize = 50;
/// Tenants on a page, at most.
const LIMIT_MAX: usize = 500;

/// The columns to sort by.
const SORTS: [&str; 9] =
    ["tenant", "samples", "bytes", "requests", "errors", "waiting", "oldest", "merges", "in_flight"];

/// A tenant's numbers.
pub(super) struct Row {
    pub(super) tenant: Arc<str>,
    pub(super) destination: Destination,
    /// Its cells on each core that has some.
    pub(super) cores: Vec<Arc<TenantMetrics>>,
    totals: TenantTotals,
    rates: TenantRates,
    waiting: u64,
    oldest_waiting: f64,
    merged: u64,
    in_flight: u64,
}

impl Row {
    pub(super) fn read(
        sampler: &Sampler,
        destination: Destination,
        group: &[(Arc<str>, Arc<TenantMetrics>)],
        now: Instant,
    ) -> Option<Self> {
        let (tenant, _) = group.first()?;
        let cells = || group.iter().map(|(_, cells)| &**cells);
        let oldest = cells().filter_map(|cells| cells.oldest_waiting.get()).min();
        Some(Self {
            tenant: Arc::clone(tenant),
            destination,
            cores: group.iter().map(|(_, cells)| Arc::clone(cells)).collect(),
            totals: TenantTotals::of(cells()),
            rates: sampler.rates(destination, tenant),
            waiting: cells().map(|cells| cells.waiting.get()).sum(),
            oldest_waiting: oldest.map_or(0.0, |oldest| now.saturating_duration_since(oldest).as_secs_f64()),
            merged: cells().map(|cells| cells.merged_fragments.get()).sum(),
            in_flight: cells().map(|cells| cells.in_flight.get()).sum(),
        })
    }

    fn key(&self, sort: &str) -> f64 {
        match sort {
            "bytes" => self.rates.bytes,
            "requests" => self.rates.requests,
            "errors" => self.rates.errors,
            "waiting" => self.waiting as f64,
            "oldest" => self.oldest_waiting,
            "merges" => self.merged as f64,
            "in_flight" => self.in_flight as f64,
            _ => self.rates.samples,
        }
    }

    /// What tells rows apart whose keys are the same: the total, so that a tenant that sent something comes first.
    fn total(&self, sort: &str) -> u64 {
        match sort {
            "bytes" => self.totals.bytes,
            "requests" => self.totals.requests,
            "errors" => self.totals.errors,
            _ => self.totals.samples,
        }
    }

    pub(super) fn json(&self, sampler: &Sampler) -> Value {
        let cells = || self.cores.iter();
        let last_error = cells().filter_map(|cells| cells.notes.last_error()).max_by_key(|note| note.at);
        let history = sampler.history_of(self.destination, &self.tenant);
        let last_seen = cells().filter_map(|cells| cells.last_seen.get()).max();
        json!({
            "tenant": &*self.tenant,
            "destination": self.destination.name(),
            "rates": {
                "samples": rounded(self.rates.samples),
                "series": rounded(self.rates.series),
                "bytes": rounded(self.rates.bytes),
                "requests": rounded(self.rates.requests),
                "errors": rounded(self.rates.errors),
            },
            "totals": {
                "samples": self.totals.samples,
                "series": self.totals.series,
                "bytes": self.totals.bytes,
                "requests": self.totals.requests,
                "errors": self.totals.errors,
                "merged_fragments": self.merged,
            },
            "waiting_fragments": self.waiting,
            "oldest_waiting_seconds": rounded(self.oldest_waiting),
            "in_flight_samples": self.in_flight,
            "unaccounted_samples": sampler.auditor.of_tenant(self.destination, &self.tenant),
            "slow": cells().any(|cells| cells.slow.get() > 0),
            "cpu_share": rounded(sampler.share_of_work(&self.rates)),
            "last_seen_at": last_seen.map(time_of),
            "last_error": last_error.as_ref().map(error_json),
            "history": history.into_iter().map(rounded).collect::<Vec<_>>(),
        })
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger::of_tenant(self.cores.iter().map(|cells| &**cells))
    }
}

impl Server {
    pub(super) fn tenants(&self, query: &Query) -> Result<Value, Fault> {
        let sort = query.get("sort").unwrap_or("samples");
        if !SORTS.contains(&sort) {
            return Err((400, format!("sort must be one of {}", SORTS.join(", "))));
        }
        let descending = match query.get("order") {
            None => sort != "tenant",
            Some("desc") => true,
            Some("asc") => false,
            Some(_) => return Err((400, "order must be asc or desc".into())),
        };
        let limit = query.number("limit", LIMIT, 1, LIMIT_MAX)?;
        let offset = query.number("offset", 0, 0, usize::MAX)?;
        let only = query.destination()?;
        let (mut rows, total) = self.rows(only, query.get("q").unwrap_or_default());
        let compare = |a: &Row, b: &Row| match sort {
            "tenant" => a.tenant.cmp(&b.tenant),
            _ => a.key(sort).total_cmp(&b.key(sort)).then(a.total(sort).cmp(&b.total(sort))),
        };
        rows.sort_by(|a, b| {
            let order = compare(a, b);
            if descending { order.reverse() } else { order }
        });
        let sampler = self.sampler.borrow();
        let page: Vec<_> = rows.iter().skip(offset).take(limit).map(|row| row.json(&sampler)).collect();
        Ok(json!({
            "total": total, "matched": rows.len(), "offset": offset, "limit": limit, "tenants": page,
        }))
    }

    /// The tenants whose IDs contain `text`, without regard to case, and the number of all tenants.
    fn rows(&self, only: Option<Destination>, text: &str) -> (Vec<Row>, usize) {
        let (now, sampler) = (Instant::now(), self.sampler.borrow());
        let (mut rows, mut total) = (Vec::new(), 0);
        for destination in Destination::ALL.into_iter().filter(|to| only.is_none_or(|only| only == *to)) {
            let all = self.pages.metrics.all_tenants(destination);
            for group in all.chunk_by(|(a, _), (b, _)| a == b) {
                total += 1;
                let matches = |(tenant, _): &(Arc<str>, _)| contains(tenant.as_bytes(), text.as_bytes());
                if group.first().is_some_and(matches) {
                    rows.extend(Row::read(&sampler, destination, group, now));
                }
            }
        }
        (rows, total)
    }
}

/// Whether `text` is in `id`, without regard to the case of ASCII letters. IDs of tenants are ASCII.
fn contains(id: &[u8], text: &[u8]) -> bool {
    text.is_empty() || id.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_finds_parts_of_ids_in_any_case() {
        for (id, text, found) in
            [("Team-A", "m-a", true), ("a", "", true), ("a", "aa", false), ("ab", "c", false)]
        {
            assert_eq!(contains(id.as_bytes(), text.as_bytes()), found, "{id} {text}");
        }
    }
}
