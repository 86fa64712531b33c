//! What the page says, line by line.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::limits::{SENDERS_COUNTED_MAX, TENANT_STATUSES_MAX};
use crate::metrics::ledger::Auditor;
use crate::metrics::{Exemplar, Rejection};
use crate::model::UpstreamId;
use crate::tenant::{IdRules, TenantId};

fn page() -> String {
    text(&metrics(), Format::Classic)
}

/// Some counters, with texts that are hostile where they come from outside.
fn metrics() -> Metrics {
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
    metrics.credential(0, "jwt", "a\u{202e}\u{7}b\nc\\\"", "t").received(3);
    let sender = metrics.sender("::ffff:10.0.0.1".parse().unwrap());
    metrics.count_request_of(0, sender);
    metrics.count_samples_of(1, sender, 7);
    metrics.count_error(0, b"rejected (err-mimir-missing-metric-name)");
    for (core, id) in [(0, 7), (1, 8)] {
        let exemplar = Exemplar::new(id, 0.3, Instant::now() + Duration::from_secs(core as u64 * 5));
        metrics.core(core).request_duration.observe_as(&exemplar);
    }
    metrics.core(1).rejected(Rejection::Memory);
    metrics.core(0).replied(503);
    metrics.core(1).replied(503);
    metrics
}

/// The first page about these counters.
fn text(metrics: &Metrics, format: Format) -> String {
    let plan = crate::config::parse("", "metrics_include_tenant: true", []).unwrap();
    let shared = Shared::new(2, 100, 10, 10);
    let sources =
        Sources { metrics, shared: &shared, driver: "epoll", plan: &plan, auditor: &Auditor::default() };
    render(&sources, &mut TenantsSeen::default(), format)
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
            r#"tenantry_tenant_cpu_seconds_total{destination="metrics",tenant="a\"b{}=,#"} 0"#,
            r#"tenantry_metrics_tenants_hidden{reason="cap"} 0"#,
            r#"tenantry_sender_requests_total{sender="10.0.0.1"} 1"#,
            r#"tenantry_sender_samples_total{sender="10.0.0.1"} 7"#,
            r#"tenantry_upstream_error_ids_total{id="err-mimir-missing-metric-name"} 1"#,
            r#"tenantry_core_longest_stall_seconds{core="1"} 0"#,
            concat!(r#"tenantry_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#"",driver="epoll"} 1"#),
        ],
    );
}

#[test]
fn statuses_past_the_first_few_share_a_code() {
    let metrics = Metrics::new(1, 10, false);
    let tenant = metrics.tenant(0, Destination::Metrics, &TenantId::new("a", IdRules::Mimir).unwrap());
    (400..).take(TENANT_STATUSES_MAX + 2).for_each(|status| tenant.answered(status, 1.0));
    let name = "cortex_tenant_timeseries_request_duration_milliseconds_count";
    let page = text(&metrics, Format::Classic);
    assert_lines(
        &page,
        &[&format!(r#"{name}{{code="400",tenant=""}} 1"#), &format!(r#"{name}{{code="other",tenant=""}} 2"#)],
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

/// The names and labels of a page's samples.
fn series(page: &str) -> BTreeSet<&str> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split(" # ").next().unwrap().rsplit_once(' ').unwrap().0).collect()
}

#[test]
fn openmetrics_has_the_same_series_under_its_own_types() {
    let metrics = metrics();
    let (classic, open) = (text(&metrics, Format::Classic), text(&metrics, Format::OpenMetrics));
    assert_eq!(series(&classic), series(&open));
    assert!(open.ends_with("\n# EOF\n") && !classic.contains("# EOF") && !classic.contains("# UNIT"));
    assert_lines(
        &open,
        &[
            "# TYPE cortex_tenant_timeseries_received unknown",
            "# TYPE cortex_tenant_timeseries_batches_received_bytes histogram",
            "# UNIT cortex_tenant_timeseries_batches_received_bytes bytes",
            "# TYPE cortex_tenant_timeseries_request_duration_milliseconds histogram",
            "# UNIT cortex_tenant_timeseries_request_duration_milliseconds milliseconds",
            "# TYPE tenantry_series counter",
            "# TYPE tenantry_core_cpu_seconds counter",
            "# UNIT tenantry_core_cpu_seconds seconds",
            "# TYPE tenantry_lanes gauge",
            r#"cortex_tenant_timeseries_batches_received_bytes_bucket{le="1000"} 2"#,
        ],
    );
}

#[test]
fn openmetrics_has_the_latest_exemplar_of_each_bucket() {
    let metrics = metrics();
    let open = text(&metrics, Format::OpenMetrics);
    let exemplars: Vec<_> = open.lines().filter_map(|line| line.split_once(" # ")).collect();
    let [(sample, exemplar)] = exemplars[..] else { panic!("{exemplars:?}") };
    assert_eq!(sample, r#"tenantry_request_duration_seconds_bucket{le="0.5"} 2"#);
    let (labels, numbers) = exemplar.rsplit_once("} ").unwrap();
    assert_eq!(labels, r#"{request_id="00000000-0000-0000-0000-000000000008""#);
    let (value, at) = numbers.split_once(' ').unwrap();
    assert!(value == "0.3" && at.parse::<f64>().unwrap() > 1.6e9, "{numbers}");
    assert!(!text(&metrics, Format::Classic).contains("request_id"));
}

#[test]
fn what_comes_from_outside_is_bounded() {
    let metrics = Metrics::new(2, 10, true);
    for n in 0..300u32 {
        let sender = metrics.sender(std::net::IpAddr::V4(n.into()));
        metrics.count_request_of(0, sender);
        metrics.count_error(1, format!("err-mimir-{n}").as_bytes());
    }
    let page = text(&metrics, Format::Classic);
    let senders = 300 - SENDERS_COUNTED_MAX;
    assert_lines(
        &page,
        &[
            &format!(r#"tenantry_sender_requests_total{{sender="__other__"}} {senders}"#),
            r#"tenantry_sender_samples_total{sender="__other__"} 0"#,
            r#"tenantry_upstream_error_ids_total{id="__other__"} 300"#,
        ],
    );
    let count = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(count("tenantry_sender_requests_total{"), SENDERS_COUNTED_MAX + 1);
    assert_eq!(count("tenantry_upstream_error_ids_total{"), 1);
}

/// Ten thousand tenants with two statuses each, whose answers take from 1 ms to 1 s.
fn many_tenants() -> Metrics {
    let metrics = Metrics::new(2, 10_000, true);
    for n in 0..10_000_u32 {
        let id = TenantId::new(&format!("tenant-{n:05}"), IdRules::Mimir).unwrap();
        let tenant = metrics.tenant(n as usize % 2, Destination::Metrics, &id);
        tenant.received(1_000_000 + u64::from(n), 1_000_000 + u64::from(n));
        tenant.worked(100_000);
        for k in 0..10 {
            tenant.answered(200, f64::from(1 + n % 7) * 2f64.powi(k % 8));
            tenant.answered(503, f64::from(1 + n % 7) * 2f64.powi(k % 8));
        }
    }
    metrics
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

#[test]
fn ten_thousand_tenants_take_less_than_8_mb_and_100_ms() {
    let metrics = many_tenants();
    let plan = crate::config::parse("", "metrics_include_tenant: true", []).unwrap();
    let shared = Shared::new(2, 100, 10, 10);
    let sources = Sources {
        metrics: &metrics,
        shared: &shared,
        driver: "epoll",
        plan: &plan,
        auditor: &Auditor::default(),
    };
    for format in [Format::Classic, Format::OpenMetrics] {
        let mut seen = TenantsSeen::default();
        let mut times = Vec::new();
        let mut page = String::new();
        for _ in 0..7 {
            let begun = cpu_time();
            page = render(&sources, &mut seen, format);
            times.push(cpu_time() - begun);
        }
        times.sort_unstable();
        eprintln!("{format:?}: {} bytes, {} lines, {times:?}", page.len(), page.lines().count());
        assert!(page.len() < 8_000_000, "{}", page.len());
        // Other tests run beside this one and use its caches, so the fastest counts.
        assert!(times[0] < Duration::from_millis(100), "{times:?}");
        assert_lines(&page, &[r#"tenantry_metrics_tenants_hidden{reason="cap"} 9250"#]);
        let received =
            page.lines().filter(|line| line.starts_with("cortex_tenant_timeseries_received{")).count();
        assert_eq!(received, 10_000);
    }
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
