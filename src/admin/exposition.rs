//! /metrics, in the classic Prometheus text format (version 0.0.4; "Exposition formats" in Prometheus' documentation).
//!
//! Design constraints:
//! - Dashboards and alerts made for cortex-tenant keep working: its names, types and bucket labels are the same byte
//!   for byte. Its counters lack the suffix `_total`, which OpenMetrics requires and the classic format does not. Every
//!   scraper reads the classic format, whatever it asks for, so it is the only format here. It has only three kinds of
//!   lines, so this module writes them itself.
//! - A label's value may be a tenant's ID, which is untrusted text, so label values are escaped.
//!
//! Names, help texts and types are in the tables of [`crate::metrics`]. Here are only the values that no counter holds:
//! those of the process. New names are `tenantry_…`, with base units.

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::process::{Process, thread_cpu_seconds};
use crate::config::Plan;
use crate::config::tls::ListenerTls;
use crate::log;
use crate::metrics::table::{Family, Value};
use crate::metrics::{
    CoreMetrics, CredentialMetrics, CredentialTenant, DestinationFamilies, Distribution, Metrics, Reloads,
    TenantMetrics,
};
use crate::model::Destination;
use crate::shared::Shared;

/// The page with the current values.
pub(super) fn text(metrics: &Metrics, shared: &Shared, driver: &str) -> String {
    let mut page = Page { out: String::new() };
    for destination in Destination::ALL {
        let families = DestinationFamilies::of(destination);
        page.parts(families.of_cores, metrics.cores(), None);
        page.tenants(families.of_tenants, &by_label(&metrics.tenants(destination)));
    }
    page.credentials(&metrics.credentials());
    page.parts(CoreMetrics::FAMILIES, metrics.cores(), Some("core"));
    page.parts(Reloads::FAMILIES, std::slice::from_ref(&metrics.reloads), None);
    process(&mut page, shared, driver);
    page.out
}

/// The days until the first certificate of each side expires; negative afterwards.
pub(super) fn certificates(plan: &Plan, now: SystemTime) -> String {
    let now =
        now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let days = |not_after: i64| not_after.saturating_sub(now) as f64 / 86_400.0;
    let upstream = plan.tls.upstream.iter().flatten().chain(plan.upstreams.tls());
    let upstream = upstream.filter_map(|tls| tls.client.not_after()).min();
    let listener = |tls: &Option<Arc<ListenerTls>>| tls.as_ref().map(|tls| tls.not_after());
    let sides =
        [("in", listener(&plan.tls.ingress)), ("out", upstream), ("admin", listener(&plan.tls.admin))];
    let mut page = Page { out: String::new() };
    if sides.iter().any(|(_, not_after)| not_after.is_some()) {
        let help = "Days until our certificate for senders (in), targets (out) or operators (admin) expires.";
        page.family("tenantry_tls_certificate_days_left", "gauge", help);
    }
    for (side, not_after) in sides {
        if let Some(not_after) = not_after {
            page.sample("tenantry_tls_certificate_days_left", &[("direction", side)], days(not_after));
        }
    }
    page.out
}

fn process(page: &mut Page, shared: &Shared, driver: &str) {
    page.gauge("tenantry_in_flight_bytes", "Bytes of requests in flight.", shared.bytes.in_flight());
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

/// A tenant's label and its counters, one set for each core that has some.
type Labelled<'a> = (&'a str, Vec<&'a TenantMetrics>);

/// Names and values of a sample's labels.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// Groups the counters by label; the list is sorted by label.
fn by_label(tenants: &[(Arc<str>, Arc<TenantMetrics>)]) -> Vec<Labelled<'_>> {
    let groups = tenants.chunk_by(|(a, _), (b, _)| a == b);
    groups.filter_map(|g| Some((&*g.first()?.0, g.iter().map(|(_, t)| &**t).collect()))).collect()
}

/// The page that is being written.
struct Page {
    out: String,
}

impl Page {
    /// Starts a family. The lines of its samples must follow.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.out.push_str(name);
        for (i, (key, text)) in labels.iter().enumerate() {
            self.out.push(if i == 0 { '{' } else { ',' });
            self.out.push_str(key);
            self.out.push_str("=\"");
            escape(text, &mut self.out);
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

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
                            self.value(name, &[(key, &number.to_string())], &value);
                        }
                    }
                    _ => self.total(name, sample.label.as_slice(), values),
                }
            }
        }
    }

    /// Writes the families of the tenants' table, with one sample per tenant.
    fn tenants(&mut self, families: &[Family<TenantMetrics>], tenants: &[Labelled<'_>]) {
        for &Family { name, help, kind, samples } in families {
            self.family(name, kind.name(), help);
            for (tenant, parts) in tenants {
                for sample in samples {
                    self.total(name, &[("tenant", tenant)], parts.iter().map(|part| (sample.read)(part)));
                }
            }
        }
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
                let labels = [("kind", of.kind), ("name", &of.name), ("tenant", &of.tenant)];
                for sample in samples {
                    self.total(name, &labels, group.iter().map(|(_, counters)| (sample.read)(counters)));
                }
            }
        }
    }

    fn total(&mut self, name: &str, labels: Labels<'_>, mut values: impl Iterator<Item = Value>) {
        if let Some(mut total) = values.next() {
            values.for_each(|value| total.add(value));
            self.value(name, labels, &total);
        }
    }

    fn value(&mut self, name: &str, labels: Labels<'_>, value: &Value) {
        match value {
            Value::Number(number) => self.sample(name, labels, number),
            Value::Upstreams(main, named) => {
                self.sample(name, labels, main);
                for (upstream, number) in named {
                    self.sample(name, &[labels, &[("upstream", &**upstream)]].concat(), number);
                }
            }
            Value::ThreadCpu(id) => self.sample(name, labels, thread_cpu_seconds(*id).unwrap_or_default()),
            Value::Histogram(values) => self.distribution(name, labels, values),
            Value::Counters(counters) => {
                for (text, count) in counters.shown() {
                    self.sample(name, &[&[(counters.key, &*text)], labels].concat(), count);
                }
            }
            Value::ByStatus(statuses) => {
                for (status, values) in statuses {
                    let code = if *status == 0 { OTHER_CODES.to_owned() } else { status.to_string() };
                    self.distribution(name, &[&[("code", &*code)], labels].concat(), values);
                }
            }
        }
    }

    /// Writes a histogram's samples: the number of values up to each bound, their sum and their count.
    fn distribution(&mut self, name: &str, labels: Labels<'_>, values: &Distribution) {
        let bucket = format!("{name}_bucket");
        let mut up_to_here = 0;
        for &(bound, n) in &values.buckets {
            up_to_here += n;
            let bound = go_float(bound);
            let labels: Vec<_> = labels.iter().copied().chain([("le", &*bound)]).collect();
            self.sample(&bucket, &labels, up_to_here);
        }
        self.sample(&format!("{name}_sum"), labels, values.sum);
        self.sample(&format!("{name}_count"), labels, values.count());
    }
}

/// The `code` that stands for all statuses without a histogram of their own.
const OTHER_CODES: &str = "other";

/// Appends a label's value, escaped for the format.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// A positive number as Go's `strconv.FormatFloat(v, 'g', -1, 64)` writes it. The label `le` is text, and a query for
/// cortex-tenant's `le="1.8e+06"` must match here.
fn go_float(value: f64) -> String {
    if value.is_infinite() {
        return "+Inf".to_owned();
    }
    if (1e-4..1e6).contains(&value) {
        return value.to_string();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::limits::TENANT_STATUSES_MAX;
    use crate::metrics::Rejection;
    use crate::model::UpstreamId;
    use crate::tenant::{IdRules, TenantId};

    fn page() -> String {
        let metrics = Metrics::new(2, 10, true);
        for core in [0, 1] {
            metrics.core(core).batch_bytes.of(Destination::Metrics).observe(700.0);
            metrics.core(core).series.add(5);
            metrics.core(core).lanes.of(UpstreamId::main(Destination::Metrics)).set(core + 1);
            let hostile = TenantId::new("a\"b{}=,#", IdRules::Thanos).unwrap();
            let tenant = metrics.tenant(core, Destination::Metrics, &hostile);
            tenant.received(3, 4);
            tenant.answered(200, 7.0);
            tenant.failed();
        }
        metrics.core(1).rejected(Rejection::Memory);
        metrics.core(0).replied(503);
        metrics.core(1).replied(503);
        text(&metrics, &Shared::new(2, 100, 10, 10), "epoll")
    }

    fn assert_lines(page: &str, lines: &[&str]) {
        for line in lines {
            assert!(page.lines().any(|l| l == *line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn the_old_names_types_and_buckets_are_exact_and_summed_over_cores() {
        let page = page();
        assert_lines(
            &page,
            &[
                "cortex_tenant_timeseries_batches_received 2",
                "cortex_tenant_timeseries_batches_received_bytes_sum 1400",
                "cortex_tenant_timeseries_batches_received_bytes_count 2",
                r#"cortex_tenant_timeseries_batches_received_bytes_bucket{le="0.5"} 0"#,
                r#"cortex_tenant_timeseries_batches_received_bytes_bucket{le="500"} 0"#,
                r#"cortex_tenant_timeseries_batches_received_bytes_bucket{le="1000"} 2"#,
                r#"cortex_tenant_timeseries_batches_received_bytes_bucket{le="600000"} 2"#,
                r#"cortex_tenant_timeseries_batches_received_bytes_bucket{le="3.6e+06"} 2"#,
                r#"cortex_tenant_timeseries_batches_received_bytes_bucket{le="+Inf"} 2"#,
                r#"cortex_tenant_timeseries_received{tenant="a\"b{}=,#"} 6"#,
                r#"cortex_tenant_timeseries_requests{tenant="a\"b{}=,#"} 4"#,
                r#"cortex_tenant_timeseries_request_errors{tenant="a\"b{}=,#"} 2"#,
                r#"cortex_tenant_timeseries_request_duration_milliseconds_bucket{code="200",tenant="a\"b{}=,#",le="5"} 0"#,
                r#"cortex_tenant_timeseries_request_duration_milliseconds_bucket{code="200",tenant="a\"b{}=,#",le="10"} 2"#,
                r#"cortex_tenant_timeseries_request_duration_milliseconds_sum{code="200",tenant="a\"b{}=,#"} 14"#,
                "cortex_tenant_streams_batches_received 0",
                "cortex_tenant_streams_batches_received_bytes_count 0",
            ],
        );
        for kind in ["timeseries", "streams"] {
            for counter in ["batches_received", "received", "requests", "request_errors"] {
                assert_lines(&page, &[&format!("# TYPE cortex_tenant_{kind}_{counter} counter")]);
            }
            for histogram in ["batches_received_bytes", "request_duration_milliseconds"] {
                assert_lines(&page, &[&format!("# TYPE cortex_tenant_{kind}_{histogram} histogram")]);
            }
        }
    }

    #[test]
    fn new_names_are_summed_or_shown_by_core() {
        assert_lines(
            &page(),
            &[
                "tenantry_series_total 10",
                r#"tenantry_rejections_total{reason="memory"} 1"#,
                r#"tenantry_rejections_total{reason="timeout"} 0"#,
                r#"tenantry_replies_total{code="503"} 2"#,
                r#"tenantry_lanes{core="0"} 1"#,
                r#"tenantry_lanes{core="1"} 2"#,
                r#"tenantry_tenant_samples_total{tenant="a\"b{}=,#"} 8"#,
                concat!(
                    r#"tenantry_build_info{version=""#,
                    env!("CARGO_PKG_VERSION"),
                    r#"",driver="epoll"} 1"#
                ),
            ],
        );
    }

    #[test]
    fn statuses_past_the_first_few_share_a_code() {
        let metrics = Metrics::new(1, 10, false);
        let tenant = metrics.tenant(0, Destination::Metrics, &TenantId::new("a", IdRules::Mimir).unwrap());
        (400..).take(TENANT_STATUSES_MAX + 2).for_each(|status| tenant.answered(status, 1.0));
        let name = "cortex_tenant_timeseries_request_duration_milliseconds_count";
        let page = text(&metrics, &Shared::new(1, 100, 10, 10), "epoll");
        assert_lines(
            &page,
            &[
                &format!(r#"{name}{{code="400",tenant=""}} 1"#),
                &format!(r#"{name}{{code="other",tenant=""}} 2"#),
            ],
        );
    }

    #[test]
    fn every_sample_follows_the_type_of_its_own_name_declared_once() {
        let page = page();
        let (mut declared, mut current) = (Vec::new(), String::new());
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().unwrap().to_owned();
                assert!(!declared.contains(&current), "{current} twice");
                declared.push(current.clone());
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let suffix = name.strip_prefix(&*current).unwrap_or("of another");
                assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line} under {current}");
            }
        }
        assert!(declared.len() > 50 && page.ends_with('\n'));
    }

    #[test]
    fn label_values_are_escaped() {
        let mut out = String::new();
        escape("a\"\\\n}ü", &mut out);
        assert_eq!(out, r#"a\"\\\n}ü"#);
    }

    #[test]
    fn bounds_are_written_as_go_does() {
        let bounds = [0.00005, 0.0001, 0.5, 1.0, 2500.0, 3e5, 1e6, 1.8e6, f64::INFINITY];
        let written = ["5e-05", "0.0001", "0.5", "1", "2500", "300000", "1e+06", "1.8e+06", "+Inf"];
        assert_eq!(bounds.map(go_float), written);
    }

    /// Runs where promtool is installed. It exits with 3 if it only objects to a name, as it does for the old names.
    #[test]
    fn promtool_accepts_the_page_and_all_new_names() {
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = promtool else {
            assert!(std::env::var_os("CI").is_none(), "CI has promtool");
            return eprintln!("promtool is not installed: skipped");
        };
        std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), page().as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
        let others: Vec<_> = said.lines().filter(|l| !l.starts_with("cortex_tenant_")).collect();
        assert!(others.is_empty(), "{others:#?}");
    }
}
