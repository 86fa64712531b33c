//! /metrics, in the classic Prometheus text format (version 0.0.4; "Exposition formats" in Prometheus' documentation)
//! and in OpenMetrics 1.0.0.
//!
//! Design constraints:
//! - Dashboards and alerts made for cortex-tenant keep working: its names, types and bucket labels are the same byte
//!   for byte in the classic format. Prometheus asks for OpenMetrics by itself, so its series must be the same in both
//!   formats, name by name and label by label. Therefore OpenMetrics differs from its specification in one place: a
//!   bound is `le="1"` there, too, and not `le="1.0"`. (Prometheus 2 takes it as it is. Prometheus 3 makes `1.0` of it
//!   in every format.) And cortex-tenant's counters, which lack the suffix `_total`, are of type `unknown` there.
//! - A label's value may be a tenant's ID, which is untrusted text, so label values are escaped.
//! - With ten thousand tenants the page stays under 8 MB and takes well under 100 ms. Module `tenants` says what is
//!   left out for that, and module `page` formats nothing twice.
//!
//! There is no protobuf, and so no native histogram: scrapers that ask for it also take text, and it would be a third
//! writer of all families.
//!
//! Names, help texts and types are in the tables of [`crate::metrics`]. Here are only the values that no counter holds.
//! New names are `tenantry_…`, with base units.

mod ledger;
mod page;
mod spool;
mod tenants;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use self::page::Page;
pub(super) use self::tenants::TenantsSeen;
use self::tenants::{Row, Shown};
use super::negotiation::Format;
use super::process::{Process, thread_cpu_seconds};
use crate::config::Plan;
use crate::config::tls::ListenerTls;
use crate::log;
use crate::metrics::ledger::Auditor;
use crate::metrics::table::{Family, Kind, Value};
use crate::metrics::{
    CoreMetrics, CredentialMetrics, CredentialTenant, DestinationFamilies, Metrics, OTHER, Reloads,
    SpoolMetrics, TenantMetrics,
};
use crate::model::Destination;
use crate::shared::Shared;

/// What the page is about.
pub(super) struct Sources<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) shared: &'a Shared,
    pub(super) driver: &'a str,
    pub(super) plan: &'a Plan,
    pub(super) auditor: &'a Auditor,
}

/// The page with the current values. `seen` is what earlier pages found out about tenants.
pub(super) fn render(sources: &Sources<'_>, seen: &mut TenantsSeen, format: Format) -> String {
    let Sources { metrics, shared, driver, plan, auditor } = sources;
    let mut page = Page::new(format);
    let shown = seen.look(metrics, plan, Instant::now());
    for destination in Destination::ALL {
        let families = DestinationFamilies::of(destination);
        page.parts(families.of_cores, metrics.cores(), None);
        page.tenants(families.of_tenants, shown.rows.of(destination), *shown.bounds.of(destination));
    }
    page.shares(&shown);
    page.ledger(metrics, &shown, auditor);
    page.credentials(&metrics.credentials());
    page.parts(CoreMetrics::FAMILIES, metrics.cores(), Some("core"));
    page.parts(Reloads::FAMILIES, std::slice::from_ref(&metrics.reloads), None);
    if metrics.spool.bytes_max.get() > 0 {
        page.parts(SpoolMetrics::FAMILIES, std::slice::from_ref(&metrics.spool), None);
        page.spool(&shown);
    }
    page.senders(metrics);
    process(&mut page, shared, driver);
    certificates(&mut page, plan, SystemTime::now());
    page.finish()
}

/// When the first certificate of each side expires.
fn certificates(page: &mut Page, plan: &Plan, now: SystemTime) {
    let now =
        now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let upstream = plan.tls.upstream.iter().flatten().chain(plan.upstreams.tls());
    let upstream = upstream.filter_map(|tls| tls.client.not_after()).min();
    let listener = |tls: &Option<Arc<ListenerTls>>| tls.as_ref().map(|tls| tls.not_after());
    let sides =
        [("in", listener(&plan.tls.ingress)), ("out", upstream), ("admin", listener(&plan.tls.admin))];
    let known = sides.iter().filter_map(|&(side, not_after)| Some((side, not_after?)));
    if known.clone().next().is_none() {
        return;
    }
    let days = "tenantry_tls_certificate_days_left";
    let help = "Days until our certificate for senders (in), targets (out) or operators (admin) expires.";
    page.family(days, "gauge", help);
    for (side, not_after) in known.clone() {
        page.sample(days, &[("direction", side)], not_after.saturating_sub(now) as f64 / 86_400.0);
    }
    let seconds = "tenantry_tls_certificate_not_after_seconds";
    page.family(seconds, "gauge", "When that certificate expires, in seconds since 1970.");
    for (side, not_after) in known {
        page.sample(seconds, &[("direction", side)], not_after as f64);
    }
}

fn process(page: &mut Page, shared: &Shared, driver: &str) {
    page.gauge("tenantry_in_flight_bytes", "Bytes of requests in flight.", shared.bytes.in_flight());
    page.gauge("tenantry_in_flight_bytes_max", "How many there may be.", shared.bytes.max());
    page.gauge("tenantry_requests_in_flight_max", "Push requests in work, at most.", shared.requests.max());
    page.gauge("tenantry_connections_max", "Inbound connections, at most.", shared.connections.max());
    page.gauge(
        "tenantry_requests_in_flight",
        "Push requests in work: read, and not answered yet.",
        shared.requests.in_flight(),
    );
    page.counter(
        "tenantry_log_lines_dropped_total",
        "Log lines lost: the log was not read as fast as it was written.",
        log::dropped_lines(),
    );
    page.gauge("tenantry_log_lines_waiting", "Log lines that are not written yet.", log::waiting_lines());
    let spans = shared.tracer().map_or((0, 0), |tracer| (tracer.exported(), tracer.dropped()));
    page.counter("tenantry_trace_spans_exported_total", "Spans that the receiver has accepted.", spans.0);
    page.counter(
        "tenantry_trace_spans_dropped_total",
        "Spans lost: the receiver did not accept them in time.",
        spans.1,
    );
    page.family("tenantry_build_info", "gauge", "What runs.");
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("driver", driver)];
    page.sample("tenantry_build_info", &labels, 1);
    let process = Process::read();
    page.family("process_cpu_seconds_total", "counter", "CPU time.");
    page.sample("process_cpu_seconds_total", &[], process.cpu_seconds);
    page.gauge("process_resident_memory_bytes", "Resident memory.", process.resident_bytes);
    page.gauge("process_open_fds", "Open descriptors.", process.open_descriptors);
    page.gauge("process_max_fds", "Limit of open descriptors.", process.descriptors_max);
    page.gauge("process_start_time_seconds", "Start, in seconds since 1970.", process.start_seconds);
}

impl Page {
    /// Writes the families of a table. Values are summed over `parts`. With `by`, families that are shown by core have
    /// one sample per part instead, with the part's number in the label `by`.
    fn parts<T>(&mut self, families: &[Family<T>], parts: &[T], by: Option<&str>) {
        for &Family { name, help, kind, samples } in families {
            self.family(name, kind.name(), help);
            for sample in samples {
                let values = parts.iter().map(sample.read);
                match by {
                    Some(key) if kind.is_by_core() => {
                        for (number, value) in values.enumerate() {
                            self.value(name, &page::labels(&[(key, &number.to_string())]), &value);
                        }
                    }
                    _ => self.total(name, &page::labels(sample.label.as_slice()), values),
                }
            }
        }
    }

    /// Writes the families of the tenants' table, with one sample per tenant. Histograms have the buckets in `bounds`.
    fn tenants(&mut self, families: &[Family<TenantMetrics>], rows: &[Row], bounds: u32) {
        self.show_buckets(bounds);
        for &Family { name, help, kind, samples } in families {
            self.family(name, kind.name(), help);
            for row in rows.iter().filter(|row| kind != Kind::Histogram || row.has_histograms) {
                for sample in samples {
                    self.total(name, &row.labels, row.parts.iter().map(|part| (sample.read)(part)));
                }
            }
        }
        self.show_buckets(u32::MAX);
    }

    /// Writes what each tenant costs: bytes sent, and its share of the CPU time; and how many tenants are left out.
    fn shares(&mut self, shown: &Shown) {
        let name = "tenantry_tenant_upstream_bytes_total";
        self.family(name, "counter", "Bytes of elements sent, by tenant.");
        for destination in Destination::ALL {
            let destination_label = page::labels(&[("destination", destination.name())]);
            for row in shown.rows.of(destination) {
                let bytes: u64 = row.parts.iter().map(|part| part.upstream_bytes.get()).sum();
                self.line(name, "", &page::join(&destination_label, &row.labels), bytes);
            }
        }
        let name = "tenantry_tenant_cpu_seconds_total";
        let help = "Estimated share in the CPU time of the cores, by the work for each tenant.";
        self.family(name, "counter", help);
        for destination in Destination::ALL {
            let destination_label = page::labels(&[("destination", destination.name())]);
            for row in shown.rows.of(destination) {
                let labels = [&*destination_label, &row.labels].join(",");
                self.line(name, "", &labels, (row.cpu_seconds * 1e6).floor() / 1e6);
            }
        }
        let name = "tenantry_metrics_tenants_hidden";
        let help = "Tenants left out of this page (idle), or without their histograms (cap).";
        self.family(name, "gauge", help);
        self.sample(name, &[("reason", "idle")], shown.idle);
        self.sample(name, &[("reason", "cap")], shown.capped);
    }

    /// Writes what is counted by texts from outside.
    fn senders(&mut self, metrics: &Metrics) {
        let senders: Vec<_> = metrics
            .senders()
            .map(|(sender, requests, samples)| {
                let sender = sender.map_or_else(|| OTHER.to_owned(), |address| address.to_string());
                (page::labels(&[("sender", &sender)]), requests, samples)
            })
            .collect();
        let name = "tenantry_sender_requests_total";
        self.family(name, "counter", "Push requests read, by the address of the sender.");
        senders.iter().for_each(|(labels, requests, _)| self.line(name, "", labels, *requests));
        let name = "tenantry_sender_samples_total";
        self.family(name, "counter", "Samples and histograms received, by the address of the sender.");
        senders.iter().for_each(|(labels, _, samples)| self.line(name, "", labels, *samples));
        let name = "tenantry_upstream_error_ids_total";
        self.family(name, "counter", "Errors of upstreams that have an ID like err-mimir-…, by this ID.");
        metrics.error_ids().for_each(|(id, count)| self.sample(name, &[("id", id)], count));
    }

    /// Writes the families of the credentials' table, with one sample per credential and tenant. Without authentication
    /// there are none.
    fn credentials(&mut self, all: &[(CredentialTenant, Arc<CredentialMetrics>)]) {
        if all.is_empty() {
            return;
        }
        for &Family { name, help, kind, samples } in CredentialMetrics::FAMILIES {
            self.family(name, kind.name(), help);
            for group in all.chunk_by(|(a, _), (b, _)| a == b) {
                let Some((of, _)) = group.first() else { continue };
                let labels = page::labels(&[("kind", of.kind), ("name", &of.name), ("tenant", &of.tenant)]);
                for sample in samples {
                    self.total(name, &labels, group.iter().map(|(_, counters)| (sample.read)(counters)));
                }
            }
        }
    }

    /// Writes the sum of a cell over several parts.
    fn total(&mut self, name: &str, labels: &str, mut values: impl Iterator<Item = Value>) {
        if let Some(mut total) = values.next() {
            values.for_each(|value| total.add(value));
            self.value(name, labels, &total);
        }
    }

    fn value(&mut self, name: &str, labels: &str, value: &Value) {
        match value {
            Value::Number(number) => self.line(name, "", labels, *number),
            Value::Stall(stalled) => {
                self.line(name, "", labels, stalled.longest(Instant::now()).as_secs_f64());
            }
            Value::Upstreams(main, named) => {
                self.line(name, "", labels, *main);
                for (upstream, number) in named {
                    let upstream = page::labels(&[("upstream", upstream)]);
                    self.line(name, "", &page::join(labels, &upstream), *number);
                }
            }
            Value::ThreadCpu(id) => {
                self.line(name, "", labels, thread_cpu_seconds(*id).unwrap_or_default());
            }
            Value::Histogram(values) => self.distribution(name, labels, values),
            Value::Counters(counters) => {
                for (text, count) in counters.shown() {
                    let own = page::labels(&[(counters.key, &*text)]);
                    self.line(name, "", &page::join(&own, labels), count);
                }
            }
            Value::ByStatus(statuses) => {
                for (status, values) in statuses {
                    let code = if *status == 0 { OTHER_CODES.to_owned() } else { status.to_string() };
                    let code = page::labels(&[("code", &*code)]);
                    self.distribution(name, &page::join(&code, labels), values);
                }
            }
        }
    }
}

/// The `code` that stands for all statuses without a histogram of their own.
const OTHER_CODES: &str = "other";
