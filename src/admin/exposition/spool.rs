//! The families of tenants' parts in the spool.

use std::sync::Arc;

use super::page::{self, Page};
use super::tenants::{Row, Shown};
use crate::metrics::TenantMetrics;
use crate::model::Destination;

impl Page {
    /// Writes what the tenants that the page shows have in the spool.
    pub(super) fn spool(&mut self, shown: &Shown) {
        type Read = fn(&TenantMetrics) -> u64;
        let families: [(_, _, _, Read); 3] = [
            (
                "tenantry_spool_tenant_bytes",
                "gauge",
                "What the tenant's parts in the spool hold.",
                |tenant| tenant.spool_bytes.get(),
            ),
            (
                "tenantry_spool_replayed_samples_total",
                "counter",
                "Samples out of the spool that upstreams have stored.",
                |tenant| tenant.replayed.get(),
            ),
            (
                "tenantry_spool_rejected_samples_total",
                "counter",
                "Samples out of the spool that the upstream refused for good.",
                |tenant| tenant.spool_refused.get(),
            ),
        ];
        let rows = rows(shown);
        for (name, kind, help, read) in families {
            self.family(name, kind, help);
            for (labels, parts) in &rows {
                let value: u64 = parts.iter().map(|part| read(part)).sum();
                if value > 0 {
                    self.line(name, "", labels, value);
                }
            }
        }
        let name = "tenantry_spool_oldest_timestamp_seconds";
        self.family(name, "gauge", "When the tenant's oldest part in the spool came.");
        for (labels, parts) in &rows {
            let oldest = parts.iter().map(|part| part.spool_oldest.get()).filter(|at| *at > 0).min();
            oldest.into_iter().for_each(|at| self.line(name, "", labels, at));
        }
    }
}

/// The labels of each row, the destination included, and its counters on each core.
fn rows(shown: &Shown) -> Vec<(String, &[Arc<TenantMetrics>])> {
    let of = |destination: Destination| {
        let own = page::labels(&[("destination", destination.name())]);
        let row = move |row: &'_ Row| page::join(&own, &row.labels);
        shown.rows.of(destination).iter().map(move |it| (row(it), &it.parts[..]))
    };
    Destination::ALL.into_iter().flat_map(of).collect()
}
