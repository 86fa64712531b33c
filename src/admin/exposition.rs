//! /metrics, in the classic Prometheus text format (version 0.0.4; "Exposition formats" in Prometheus' documentation).
//!
//! Design constraints:
//! - Dashboards and alerts made for cortex-tenant go on working: its names, its types, its bucket labels, byte for
//!   byte. Its counters lack the suffix `_total`, which OpenMetrics demands of counters, and the classic format does
//!   not. It is also what every scraper reads, whatever it asks for; so it is the one format here, and as it has but
//!   three kinds of lines, we write them ourselves.
//! - A label's value may be a tenant's ID, which is somebody else's text: it is escaped.
//!
//! New names are `tenantry_…`, with base units.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;

use super::process::{Process, thread_cpu_seconds};
use crate::log;
use crate::metrics::{
    CoreMetrics, Distribution, Histogram, Metrics, Rejection, Reloads, TenantMetrics, UpstreamClass,
};
use crate::model::Destination;
use crate::shared::Commons;

/// All metrics as they are now.
pub(super) fn text(metrics: &Metrics, commons: &Commons, driver: &str) -> String {
    let mut page = Page { out: String::new(), cores: metrics.cores() };
    old_names(&mut page, metrics);
    inbound(&mut page);
    outbound(&mut page);
    by_core(&mut page);
    reloads(&mut page, &metrics.reloads);
    process(&mut page, commons, driver);
    page.out
}

/// cortex-tenant's names. Its `streams` are those of Loki.
fn old_names(page: &mut Page<'_>, metrics: &Metrics) {
    for destination in Destination::ALL {
        let kind = match destination {
            Destination::Metrics => "timeseries",
            Destination::Logs => "streams",
        };
        let tenants = metrics.tenants(destination);
        let tenants = &by_label(&tenants);
        let bytes = &page.total(|c| c.batch_bytes.of(destination));
        let name = |what: &str| format!("cortex_tenant_{kind}_{what}");
        page.counter(&name("batches_received"), "Batches received.", bytes.count());
        let help = "Sizes of batches received, in bytes, as they came.";
        page.histogram(&name("batches_received_bytes"), help, bytes);
        page.tenants(&name("received"), "Series or streams received.", tenants, |t| t.series.get());
        page.tenants(&name("requests"), "Upstream requests.", tenants, |t| t.requests.get());
        let help = "Upstream requests without an answer.";
        page.tenants(&name("request_errors"), help, tenants, |t| t.request_errors.get());
        page.durations(&name("request_duration_milliseconds"), tenants);
        let (name, help) = match destination {
            Destination::Metrics => {
                ("tenantry_tenant_samples_total", "Samples and histograms received, by tenant.")
            }
            Destination::Logs => ("tenantry_tenant_entries_total", "Log entries received, by tenant."),
        };
        page.tenants(name, help, tenants, |t| t.samples.get());
    }
}

fn inbound(page: &mut Page<'_>) {
    page.counters(&[
        ("tenantry_connections_accepted_total", "Inbound connections accepted.", |c| {
            c.connections_accepted.get()
        }),
        ("tenantry_connections_handed_over_total", "Connections handed to the core with the fewest.", |c| {
            c.connections_handed_over.get()
        }),
        ("tenantry_connections_timed_out_total", "Connections cut by a deadline.", |c| {
            c.connections_timed_out.get()
        }),
        ("tenantry_requests_total", "Push requests read.", |c| c.requests.get()),
        ("tenantry_inflated_bytes_total", "What they inflated to.", |c| c.inflated_bytes.get()),
        ("tenantry_series_total", "Series received.", |c| c.series.get()),
        ("tenantry_samples_total", "Samples and histograms received.", |c| c.samples.get()),
        ("tenantry_metadata_dropped_total", "Metadata entries that went nowhere.", |c| {
            c.metadata_dropped.get()
        }),
        ("tenantry_unknown_fields_dropped_total", "Unknown fields that no tenant could be given.", |c| {
            c.unknown_fields_dropped.get()
        }),
        ("tenantry_passthrough_requests_total", "Requests that went on as they came.", |c| {
            c.passthrough.get()
        }),
        ("tenantry_fragments_total", "Tenants' parts of requests.", |c| c.fragments.get()),
    ]);
    let dropped = [
        ("missing", page.sum(|c| c.series_dropped_missing.get())),
        ("invalid", page.sum(|c| c.series_dropped_invalid.get())),
        ("mapped", page.sum(|c| c.series_dropped_mapped.get())),
    ];
    let lost = [
        ("custom_histograms", page.sum(|c| c.lost_custom_histograms.get())),
        ("start_timestamps", page.sum(|c| c.lost_start_timestamps.get())),
        ("series", page.sum(|c| c.lost_series.get())),
        ("fields", page.sum(|c| c.lost_fields.get())),
    ];
    let lost_help = "What Remote Write 2.0 lost where it goes on as 1.0.";
    page.labelled("tenantry_downgrade_lost_total", lost_help, "what", lost);
    let help = "Series without a usable tenant, left out.";
    page.labelled("tenantry_series_dropped_total", help, "reason", dropped);
    let rejected: Vec<_> =
        Rejection::ALL.iter().map(|&r| (r.name(), page.sum(|c| c.rejections(r)))).collect();
    page.labelled("tenantry_rejections_total", "Requests refused here.", "reason", rejected);
    let mut replies = BTreeMap::<usize, u64>::new();
    for (status, n) in page.cores.iter().flat_map(CoreMetrics::replies) {
        *replies.entry(status).or_default() += n;
    }
    page.labelled("tenantry_replies_total", "Replies to senders.", "code", replies);
    let duration = page.total(|c| &c.request_duration);
    page.histogram("tenantry_request_duration_seconds", "From a request's head to its answer.", &duration);
}

fn outbound(page: &mut Page<'_>) {
    page.counters(&[
        ("tenantry_upstream_requests_total", "Upstream requests started.", |c| c.upstream_requests.get()),
        ("tenantry_merges_total", "Upstream requests of several fragments.", |c| c.merges.get()),
        ("tenantry_merged_fragments_total", "Fragments in those.", |c| c.merged_fragments.get()),
        ("tenantry_upstream_bytes_total", "Bytes of elements sent.", |c| c.upstream_bytes.get()),
        ("tenantry_upstream_retries_total", "Requests sent again as their connection was stale.", |c| {
            c.upstream_retries.get()
        }),
        ("tenantry_pieces_total", "Pieces sent of parts that the upstream found too large.", |c| {
            c.pieces.get()
        }),
        (
            "tenantry_receipts_used_total",
            "Parts that had got through before, and were not sent again.",
            |c| c.receipts_used.get(),
        ),
        ("tenantry_over_share_total", "Parts refused as their tenant had its share in flight.", |c| {
            c.over_share.get()
        }),
        ("tenantry_slow_refused_total", "Parts refused as slow tenants had their share in flight.", |c| {
            c.slow_refused.get()
        }),
        ("tenantry_slow_cut_total", "Requests of slow tenants given up as others waited.", |c| {
            c.slow_cut.get()
        }),
        ("tenantry_upstream_connections_opened_total", "Upstream connections opened.", |c| {
            c.upstream_opened.get()
        }),
        (
            "tenantry_upstream_unwritten_total",
            "Answers of 2xx to Remote Write 2.0 that don't say what was written.",
            |c| c.upstream_unwritten.get(),
        ),
        ("tenantry_upstream_rests_total", "Times that an upstream address was put to rest.", |c| {
            c.upstream_rests.get()
        }),
        ("tenantry_upstream_connections_reused_total", "Requests over a connection used before.", |c| {
            c.upstream_reused.get()
        }),
    ]);
    let outcomes: Vec<_> =
        UpstreamClass::ALL.iter().map(|&o| (o.name(), page.sum(|c| c.upstream_outcomes(o)))).collect();
    page.labelled("tenantry_upstream_outcomes_total", "Ends of upstream requests.", "outcome", outcomes);
    let wait = page.total(|c| &c.lane_wait);
    page.histogram("tenantry_lane_wait_seconds", "From a request's head until its part is sent.", &wait);
}

fn by_core(page: &mut Page<'_>) {
    let gauges: [(&str, &str, Read); 8] = [
        ("tenantry_connections_open", "Inbound connections open.", |c| c.connections_open.get()),
        ("tenantry_lanes", "Tenants' lanes.", |c| c.lanes.total()),
        ("tenantry_lane_waiting_fragments", "Fragments waiting in lanes.", |c| c.lanes_waiting.total()),
        ("tenantry_slow_tenants", "Tenants whose upstream does not answer in time.", |c| {
            c.slow_tenants.total()
        }),
        ("tenantry_receipts", "Parts remembered that got through in requests that failed.", |c| {
            c.receipts.total()
        }),
        ("tenantry_upstream_connections_open", "Upstream connections open, in use or idle.", |c| {
            c.upstream_open.total()
        }),
        ("tenantry_upstream_connections_idle", "Upstream connections open and idle.", |c| {
            c.upstream_idle.total()
        }),
        ("tenantry_upstream_addresses_resting", "Upstream addresses put to rest after failures.", |c| {
            c.upstream_resting.total()
        }),
    ];
    for (name, help, read) in gauges {
        page.each_core(name, "gauge", help, read);
    }
    page.each_core("tenantry_core_cpu_seconds_total", "counter", "CPU time of each core's thread.", |c| {
        thread_cpu_seconds(c.thread()).unwrap_or_default()
    });
    page.counters(&[("tenantry_doorbells_rung_total", "Times that a core woke another.", |c| {
        c.doorbells_rung.get()
    })]);
}

fn reloads(page: &mut Page<'_>, reloads: &Reloads) {
    let results = [("done", reloads.done.get()), ("refused", reloads.refused.get())];
    page.labelled("tenantry_config_reloads_total", "The configuration was read again.", "result", results);
    let (name, help) = ("tenantry_config_last_reload_successful", "0 if its latest text had mistakes.");
    page.gauge(name, help, u64::from(reloads.refused_last.get() == 0));
    let (name, help) =
        ("tenantry_config_last_reload_success_timestamp_seconds", "When the one that holds was read.");
    page.gauge(name, help, reloads.loaded_at.get());
}

fn process(page: &mut Page<'_>, commons: &Commons, driver: &str) {
    page.gauge("tenantry_in_flight_bytes", "Bytes of requests in flight.", commons.bytes.in_flight());
    page.gauge(
        "tenantry_requests_in_flight",
        "Push requests in work: read, and not answered yet.",
        commons.requests.in_flight(),
    );
    page.counter(
        "tenantry_log_lines_dropped_total",
        "Log lines lost: the log was not read as fast as it was written.",
        log::dropped_lines(),
    );
    page.gauge("tenantry_log_lines_waiting", "Log lines that are not written yet.", log::waiting_lines());
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

/// One tenant label, with the counters of each core that has some.
type Labelled<'a> = (&'a str, Vec<&'a TenantMetrics>);

/// Names and values of a sample's labels.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// Reads one number of a core.
type Read = fn(&CoreMetrics) -> u64;

/// Brings the counters of equal labels together; the list is sorted by label.
fn by_label(tenants: &[(Arc<str>, Arc<TenantMetrics>)]) -> Vec<Labelled<'_>> {
    let groups = tenants.chunk_by(|(a, _), (b, _)| a == b);
    groups.filter_map(|g| Some((&*g.first()?.0, g.iter().map(|(_, t)| &**t).collect()))).collect()
}

/// The page that is being written.
struct Page<'c> {
    out: String,
    cores: &'c [CoreMetrics],
}

impl Page<'_> {
    fn sum(&self, read: impl Fn(&CoreMetrics) -> u64) -> u64 {
        self.cores.iter().map(read).sum()
    }

    fn total(&self, read: impl Fn(&CoreMetrics) -> &Histogram) -> Distribution {
        let all = Distribution::total(self.cores.iter().map(|c| read(c).read()));
        all.unwrap_or(Distribution { buckets: Vec::new(), sum: 0.0 })
    }

    /// Starts a metric: the lines of its samples have to follow.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail, here and below.
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

    /// Counters, summed over the cores.
    fn counters(&mut self, counters: &[(&str, &str, Read)]) {
        for (name, help, read) in counters {
            self.counter(name, help, self.sum(read));
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A counter for each value of one label.
    fn labelled<L: ToString>(
        &mut self,
        name: &str,
        help: &str,
        key: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        self.family(name, "counter", help);
        for (label, value) in values {
            self.sample(name, &[(key, &label.to_string())], value);
        }
    }

    fn each_core<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        read: impl Fn(&CoreMetrics) -> V,
    ) {
        self.family(name, kind, help);
        for (k, core) in self.cores.iter().enumerate() {
            self.sample(name, &[("core", &k.to_string())], read(core));
        }
    }

    fn tenants(
        &mut self,
        name: &str,
        help: &str,
        tenants: &[Labelled<'_>],
        read: impl Fn(&TenantMetrics) -> u64,
    ) {
        self.family(name, "counter", help);
        for (label, parts) in tenants {
            let total: u64 = parts.iter().map(|t| read(t)).sum();
            self.sample(name, &[("tenant", label)], total);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, values: &Distribution) {
        self.family(name, "histogram", help);
        self.distribution(name, &[], values);
    }

    fn durations(&mut self, name: &str, tenants: &[Labelled<'_>]) {
        let help = "Durations of upstream requests by status (rare ones together), in milliseconds.";
        self.family(name, "histogram", help);
        for (label, parts) in tenants {
            let mut by_code = BTreeMap::<u16, Vec<Distribution>>::new();
            for (code, values) in parts.iter().flat_map(|t| t.durations()) {
                by_code.entry(code).or_default().push(values);
            }
            for (code, values) in by_code {
                let code = if code == 0 { OTHER_CODES.to_owned() } else { code.to_string() };
                if let Some(total) = Distribution::total(values) {
                    self.distribution(name, &[("code", &code), ("tenant", label)], &total);
                }
            }
        }
    }

    /// A histogram's samples: how many values there are up to each bound, their sum, their number.
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

/// The `code` of the statuses that a tenant's durations are not told apart by.
const OTHER_CODES: &str = "other";

/// Appends a label's value as the format has it.
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

/// A positive number as Go's `strconv.FormatFloat(v, 'g', -1, 64)` writes it. The label `le` is text: whoever asks for
/// `le="1.8e+06"` of cortex-tenant is to find it here.
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
    use crate::tenant::{IdRules, TenantId};

    fn page() -> String {
        let metrics = Metrics::new(2, 10, true);
        for core in [0, 1] {
            metrics.core(core).batch_bytes.of(Destination::Metrics).observe(700.0);
            metrics.core(core).series.add(5);
            metrics.core(core).lanes.of(Destination::Metrics).set(core + 1);
            let hostile = TenantId::new("a\"b{}=,#", IdRules::Thanos).unwrap();
            let tenant = metrics.tenant(core, Destination::Metrics, &hostile);
            tenant.received(3, 4);
            tenant.answered(200, 7.0);
            tenant.failed();
        }
        metrics.core(1).rejected(Rejection::Memory);
        metrics.core(0).replied(503);
        metrics.core(1).replied(503);
        text(&metrics, &Commons::new(2, 100, 10, 10), "epoll")
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
    fn new_names_are_summed_or_told_apart_by_core() {
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
        let page = text(&metrics, &Commons::new(1, 100, 10, 10), "epoll");
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

    /// Where promtool is installed. It exits with 3 when it only dislikes a name, as it does the old ones'.
    #[test]
    fn promtool_takes_the_page_and_dislikes_no_new_name() {
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
