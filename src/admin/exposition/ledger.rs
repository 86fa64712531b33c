//! The families of the ledger: see [`crate::metrics::ledger`].

use std::sync::Arc;

use super::page::{self, Page};
use super::tenants::Shown;
use crate::metrics::Metrics;
use crate::metrics::ledger::{Auditor, Ledger};
use crate::model::Destination;

/// A tenant's ledger, and its labels as text.
type Labelled = (String, Ledger);

impl Page {
    /// Writes the ledger of the process, and those of the tenants that the page shows.
    pub(super) fn ledger(&mut self, metrics: &Metrics, shown: &Shown, auditor: &Auditor) {
        let total = metrics.ledger();
        self.counter(
            "tenantry_ledger_received_samples_total",
            "Samples and log entries of requests that were accepted.",
            total.received,
        );
        self.gauge("tenantry_ledger_in_flight_samples", "Those that have no outcome yet.", total.in_flight);
        self.gauge(
            "tenantry_unaccounted_samples",
            "Those of which nobody knows what became. Anything but 0 is a fault of this server.",
            auditor.unaccounted(),
        );
        let tenants = labelled(shown);
        self.by_tenant(
            "tenantry_ledger_stored_samples_total",
            "Those that upstreams have stored.",
            tenants.iter().map(|(labels, ledger)| (labels, ledger.stored)),
        );
        self.by_tenant(
            "tenantry_ledger_repeated_samples_total",
            "Those that came again after they had been stored, and were not sent again.",
            tenants.iter().map(|(labels, ledger)| (labels, ledger.repeated)).filter(|(_, n)| *n > 0),
        );
        self.by_tenant(
            "tenantry_ledger_spooled_samples_total",
            "Those that are in the spool, or were, and of which senders were told that they are stored.",
            tenants.iter().map(|(labels, ledger)| (labels, ledger.spooled)).filter(|(_, n)| *n > 0),
        );
        self.refused(metrics, &tenants);
        let name = "tenantry_ledger_tenant_unaccounted_samples";
        self.family(
            name,
            "gauge",
            "Tenants of which samples are unaccounted; negative if there are too many.",
        );
        for (destination, tenant, difference) in auditor.tenants() {
            let tenant = if metrics.includes_tenant() { tenant } else { "" };
            self.sample(name, &[("destination", destination.name()), ("tenant", tenant)], difference as f64);
        }
    }

    fn by_tenant<'a>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (&'a String, u64)>) {
        self.family(name, "counter", help);
        values.for_each(|(labels, value)| self.line(name, "", labels, value));
    }

    /// Writes what was not stored: first what has no tenant.
    fn refused(&mut self, metrics: &Metrics, tenants: &[Labelled]) {
        let name = "tenantry_ledger_refused_samples_total";
        self.family(name, "counter", "Those that were not stored, by reason.");
        for (reason, count) in metrics.refused_on_arrival().refused() {
            self.sample(name, &[("tenant", ""), ("reason", reason.name())], count);
        }
        for (labels, ledger) in tenants {
            for (reason, count) in ledger.refused() {
                let reason = page::labels(&[("reason", reason.name())]);
                self.line(name, "", &page::join(labels, &reason), count);
            }
        }
    }
}

fn labelled(shown: &Shown) -> Vec<Labelled> {
    let rows = Destination::ALL.into_iter().flat_map(|destination| {
        let own = page::labels(&[("destination", destination.name())]);
        shown.rows.of(destination).iter().map(move |row| (own.clone(), row))
    });
    let ledger = |(own, row): (String, &super::Row)| {
        (page::join(&own, &row.labels), Ledger::of_tenant(row.parts.iter().map(Arc::as_ref)))
    };
    rows.map(ledger).collect()
}
