//! A real Prometheus scrapes /metrics and finds cortex-tenant's names with their types: by itself in OpenMetrics, and
//! in the classic format if it asks for nothing.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenantry::admin::{Admin, Inbox, Listeners, Pages};
use tenantry::metrics::{Exemplar, Metrics, Rejection};
use tenantry::model::Destination;
use tenantry::shared::Shared;
use tenantry::tenant::{IdRules, TenantId};
use testkit::port::free_addr;

/// A Prometheus with one target. Dropping it ends it.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// `None` where Prometheus is not installed.
    fn start(target: SocketAddr) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "scrape_configs:\n- job_name: tenantry\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  \
             static_configs:\n  - targets: ['{target}']\n"
        );
        std::fs::write(&config, text).unwrap();
        let address = free_addr().unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { process, address, _directory: directory })
    }

    /// The answer of its HTTP API. Empty while it does not answer.
    fn ask(&self, path_and_query: &str) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET /api/v1/{path_and_query} HTTP/1.0\r\nHost: prometheus\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().unwrap_or_default()
    }

    /// Asks until the answer has `text` in it.
    fn expect(&self, path_and_query: &str, text: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.ask(path_and_query);
            if answer.contains(text) {
                return;
            }
            assert!(
                Instant::now() < until,
                "{path_and_query}: no {text} in {answer}\n{}",
                self.ask("targets?state=active")
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn counted() -> Arc<Metrics> {
    let metrics = Arc::new(Metrics::new(2, 10, true));
    let hostile = TenantId::new("a\"b{}=,#", IdRules::Thanos).unwrap();
    for core in [0, 1] {
        metrics.core(core).batch_bytes.of(Destination::Metrics).observe(700.0);
        metrics.core(core).rejected(Rejection::Memory);
        let tenant = metrics.tenant(core, Destination::Metrics, &hostile);
        tenant.received(3, 4);
        tenant.answered(200, 7.0);
        tenant.failed();
    }
    let exemplar = Exemplar::new(0x1234, 0.3, Instant::now());
    metrics.core(0).request_duration.observe_as(&exemplar);
    metrics
}

/// Takes scrapes to the target without saying which format they ask for.
fn asking_for_nothing(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut scrape in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && scrape.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            let Ok(mut stream) = TcpStream::connect(target) else { continue };
            let mut page = Vec::new();
            if write!(stream, "GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n").is_ok() {
                let _ = stream.read_to_end(&mut page).and_then(|_| scrape.write_all(&page));
            }
        }
    });
    address
}

#[test]
fn prometheus_finds_every_old_name_with_its_type_and_value_in_both_formats() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let plan = tenantry::config::parse("", "metrics_include_tenant: true", []).unwrap();
    let inbox = Inbox::new().unwrap();
    plan.admin_auth.start(None, &inbox.deliver()).unwrap();
    let plan = Arc::new(arc_swap::ArcSwap::from_pointee(plan));
    let pages = Pages::new(counted(), Shared::new(2, 100, 10, 10), "epoll", plan);
    let listeners = Listeners { pages: vec![listener], ..Listeners::default() };
    let admin = Admin::start(listeners, Arc::new(pages), inbox).unwrap();
    // In OpenMetrics a counter without `_total` can only be of an unknown type.
    for (target, counter) in [(target, "unknown"), (asking_for_nothing(target), "counter")] {
        let Some(prometheus) = Prometheus::start(target) else {
            assert!(std::env::var_os("CI").is_none(), "CI has prometheus");
            return eprintln!("prometheus is not installed: skipped");
        };
        finds_the_old_names(&prometheus, counter);
    }
    admin.stop();
}

fn finds_the_old_names(prometheus: &Prometheus, counter: &str) {
    prometheus.expect("targets?state=active", r#""health":"up""#);
    for (query, value) in [
        ("cortex_tenant_timeseries_batches_received", "2"),
        ("cortex_tenant_timeseries_batches_received_bytes_count", "2"),
        ("cortex_tenant_timeseries_batches_received_bytes_bucket%7Ble=%221.8e%2B06%22%7D", "2"),
        ("cortex_tenant_timeseries_batches_received_bytes_bucket%7Ble=%221000%22%7D", "2"),
        ("cortex_tenant_timeseries_received", "6"),
        ("cortex_tenant_timeseries_requests", "4"),
        ("cortex_tenant_timeseries_request_errors", "2"),
        ("cortex_tenant_timeseries_request_duration_milliseconds_sum%7Bcode=%22200%22%7D", "14"),
        ("cortex_tenant_streams_batches_received", "0"),
        ("cortex_tenant_streams_batches_received_bytes_count", "0"),
        ("tenantry_rejections_total%7Breason=%22memory%22%7D", "2"),
        ("tenantry_request_duration_seconds_bucket%7Ble=%221%22%7D", "1"),
    ] {
        prometheus.expect(&format!("query?query={query}"), &format!(r#","{value}"]}}]"#));
    }
    prometheus.expect("query?query=cortex_tenant_timeseries_received", r#""tenant":"a\"b{}=,#""#);
    for (what, kind) in [
        ("batches_received", counter),
        ("batches_received_bytes", "histogram"),
        ("received", counter),
        ("requests", counter),
        ("request_errors", counter),
        ("request_duration_milliseconds", "histogram"),
    ] {
        for data in ["timeseries", "streams"] {
            let metadata = format!("metadata?metric=cortex_tenant_{data}_{what}");
            prometheus.expect(&metadata, &format!(r#""type":"{kind}""#));
        }
    }
    let series = "metadata?metric=tenantry_series";
    match counter {
        "unknown" => {
            prometheus.expect(series, r#""type":"counter""#);
            let exemplars =
                "query_exemplars?query=tenantry_request_duration_seconds_bucket&start=0&end=9999999999";
            prometheus.expect(exemplars, r#""request_id":"00000000-0000-0000-0000-000000001234""#);
        }
        _ => prometheus.expect(&format!("{series}_total"), r#""type":"counter""#),
    }
}
