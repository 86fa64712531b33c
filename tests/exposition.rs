//! /metrics of the real server: formats and codings by negotiation, exemplars, and what is counted by texts from
//! outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io::Read;
use std::time::Duration;

use support::{Reply, Server, Upstream, body, eventually, on_both, one, series};
use testkit::client::{RawClient, Response};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The answer to a request for /metrics with these header lines.
fn ask(server: &Server, method: &str, lines: &str) -> Response {
    let mut client = RawClient::connect(server.metrics, TIMEOUT).unwrap();
    client.send(format!("{method} /metrics HTTP/1.1\r\nHost: t\r\n{lines}\r\n").as_bytes()).unwrap();
    client.any_response(method == "HEAD").unwrap()
}

/// The page's text, whatever its coding.
fn inflated(response: &Response) -> String {
    let mut text = String::new();
    match response.header("content-encoding") {
        Some("gzip") => _ = flate2::read::GzDecoder::new(&*response.body).read_to_string(&mut text).unwrap(),
        Some("zstd") => text = String::from_utf8(zstd::decode_all(&*response.body).unwrap()).unwrap(),
        None => text = String::from_utf8(response.body.clone()).unwrap(),
        other => panic!("{other:?}"),
    }
    text
}

#[test]
fn a_scraper_gets_the_format_and_the_coding_that_it_asks_for() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "metrics_include_tenant: true\n");
        assert_eq!(server.client().push(&one("a")).status, 200);
        let (classic, open) = ("text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0");
        for (lines, media, coding) in [
            ("", classic, None),
            ("Accept: text/html, */*;q=0.8\r\nAccept-Encoding: br\r\n", classic, None),
            ("Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n", open, None),
            ("Accept: application/openmetrics-text;q=0.4, text/plain\r\n", classic, None),
            ("Accept-Encoding: gzip\r\n", classic, Some("gzip")),
            ("Accept-Encoding: gzip, zstd\r\nAccept: application/openmetrics-text\r\n", open, Some("zstd")),
            ("Accept-Encoding: identity;q=0, gzip;q=0.1\r\n", classic, Some("gzip")),
            ("Accept: \x01\r\n", classic, None),
        ] {
            let response = ask(&server, "GET", lines);
            if lines.contains('\x01') {
                assert_eq!(response.status, 400, "{lines}");
                continue;
            }
            let of = |name| response.header(name);
            assert_eq!(response.status, 200, "{lines}");
            assert_eq!(of("content-type"), Some(&*format!("{media}; charset=utf-8")), "{lines}");
            assert_eq!(of("content-encoding"), coding, "{lines}");
            assert_eq!(of("vary"), Some("Accept, Accept-Encoding"), "{lines}");
            let text = inflated(&response);
            assert!(text.contains("\ncortex_tenant_timeseries_received{tenant=\"a\"} 1\n"), "{text}");
            assert_eq!(text.ends_with("\n# EOF\n"), media == open, "{lines}");
            // The length is that of about the same page: the process goes on.
            let head = ask(&server, "HEAD", lines);
            assert_eq!((head.status, head.header("content-encoding")), (200, coding), "{lines}");
            let length: usize = head.header("content-length").unwrap().parse().unwrap();
            assert!(length.abs_diff(response.body.len()) < 500, "{length} and {}", response.body.len());
        }
    });
}

#[test]
fn latencies_have_exemplars_with_the_id_that_the_upstream_got() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        assert_eq!(server.client().push(&one("a")).status, 200);
        let received = upstream.received();
        let id = received[0].header("x-cortex-tenant-reqid").unwrap();
        let text = inflated(&ask(&server, "GET", "Accept: application/openmetrics-text\r\n"));
        for name in ["tenantry_request_duration_seconds_bucket{", "tenantry_lane_wait_seconds_bucket{"] {
            let exemplar = format!(" # {{request_id=\"{id}\"}} ");
            let found = text.lines().filter(|line| line.starts_with(name) && line.contains(&exemplar));
            assert_eq!(found.count(), 1, "{name} {exemplar}\n{text}");
        }
        // The old format has none.
        assert!(!server.metrics_text().contains(id));
    });
}

#[test]
fn senders_and_errors_and_work_are_counted() {
    on_both(|driver| {
        let upstream = Upstream::start(|request| match request.tenant() {
            "bad" => Reply::new(400, "no series (err-mimir-missing-metric-name), \u{202e} err-mimir-second"),
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "metrics_include_tenant: true\n");
        let mut client = server.client();
        assert_eq!(client.push(&body(vec![series("a", "up", 1.0), series("b", "up", 1.0)])).status, 200);
        assert_eq!(client.push(&one("bad")).status, 400);
        let is = |name: &str, label: &str, value: f64| {
            assert_eq!(server.metric(name, label), value, "{name} {label}")
        };
        is("tenantry_sender_requests_total", "sender=\"127.0.0.1\"", 2.0);
        is("tenantry_sender_samples_total", "sender=\"127.0.0.1\"", 3.0);
        is("tenantry_upstream_error_ids_total", "id=\"err-mimir-missing-metric-name\"", 1.0);
        is("tenantry_metrics_tenants_hidden", "reason=\"idle\"", 0.0);
        assert!(!server.metrics_text().contains("err-mimir-second"));
        // The cores' CPU time of all pages so far is shared by the tenants.
        for tenant in ["a", "b", "bad"] {
            let label = format!("tenant=\"{tenant}\"");
            assert!(server.metric("tenantry_tenant_cpu_seconds_total", &label) > 0.0, "{tenant}");
        }
        let shared = server.metric("tenantry_tenant_cpu_seconds_total", "");
        assert!(shared <= server.metric("tenantry_core_cpu_seconds_total", ""), "{shared}");
    });
}

#[test]
fn a_core_that_does_not_turn_says_for_how_long() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        // A core with a connection has something to sweep.
        let mut clients = [server.client(), server.client(), server.client(), server.client()];
        clients.iter_mut().for_each(|client| assert_eq!(client.push(&one("a")).status, 200));
        let name = "tenantry_core_longest_stall_seconds";
        let longest = || {
            let text = server.metrics_text();
            let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.split_once("} "));
            lines.map(|(_, value)| value.parse::<f64>().unwrap()).fold(0.0, f64::max)
        };
        let before = longest();
        server.signal("STOP");
        std::thread::sleep(Duration::from_millis(1_500));
        server.signal("CONT");
        eventually("the stall is seen", || longest() > 1.3);
        let after = longest();
        assert!(before < 1.3 && after < 10.0, "{before} {after}");
    });
}
