//! Settings that contradict each other, also after a reload; bodies that cost more than their bytes; secrets in
//! targets. On both rings.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::remote_write::Label;
use support::{Client, Close, Reply, Server, Upstream, body, on_both, series};

#[test]
fn a_reload_that_contradicts_a_setting_that_needs_a_restart_changes_nothing() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let extra = "limits:\n  in_flight_bytes_max: 80Mi\n";
        let server = Server::start(driver, upstream.address, extra);
        let to = "timeout: 7s\nlimits:\n  inflated_bytes_max: 200Mi\n  in_flight_bytes_max: 1Gi\n";
        let lines = server.reload_with(extra, to);
        let told = |parts: &[&str]| lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        let name = server.file().display().to_string();
        assert!(told(&[&name, "limits.inflated_bytes_max: ", "stays 80Mi"]), "{lines:#?}");
        assert!(told(&["nothing changes"]), "{lines:#?}");
        assert_eq!(server.metric("tenantry_config_last_reload_successful", ""), 0.0);
        // 100 MiB never fit. With 503 the sender would try for ever.
        let mut giant = series("a", "up", 1.0);
        giant.labels.push(Label { name: "x".into(), value: "x".repeat(100 << 20).into() });
        assert_eq!(server.client().push(&body(vec![giant])).status, 413);
        assert_eq!(server.client().push(&body(vec![series("a", "up", 1.0)])).status, 200);
    });
}

#[test]
fn many_empty_gzip_members_cost_no_second() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "cores: 1\n");
        let member =
            flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()).finish().unwrap();
        let body = member.repeat((8 << 20) / member.len());
        let head = format!(
            "POST /loki/api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let before = server.cpu_ticks();
        let mut client = server.client();
        client.send(&[head.as_bytes(), &body].concat());
        let response = client.response();
        assert_eq!(response.status, 400, "{}", response.text());
        let ticks = server.cpu_ticks() - before;
        eprintln!("{ticks} hundredths of a second");
        assert!(response.text().contains("gzip members"), "{}", response.text());
        assert!(ticks < 30, "{ticks} hundredths of a second");
    });
}

#[test]
fn a_token_in_a_target_is_sent_and_never_shown() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::from(Close::BeforeReply));
        let metrics = support::server::free_port();
        let config = format!(
            "listen: 127.0.0.1:0\nlisten_metrics_address: {metrics}\ntarget: http://{0}/push?token=hunter2\n\
             target_loki: http://{0}/loki?hunter2\nmetrics_include_tenant: true\nlog_level: debug\n\
             log_response_errors: true\ntenant: {{label: tenant}}\ndriver: {1}\n",
            upstream.address,
            driver.name(),
        );
        let server = Server::start_with(&config, metrics, &[]);
        let answer = server.client().push(&body(vec![series("a", "up", 1.0)]));
        assert_eq!(answer.status, 502);
        assert_eq!(upstream.received()[0].path, "/push?token=hunter2");
        let lines = server.reload_with("token=hunter2", "token=hunter22");
        assert!(lines.iter().any(|line| line.contains("target")), "{lines:#?}");
        let mut status = Client::connect(server.metrics);
        status.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let page = status.response().text();
        assert!(page.contains("/push?***"), "{page}");
        for shown in [page, server.metrics_text(), server.log().join("\n"), answer.text()] {
            assert!(!shown.contains("hunter"), "{shown}");
        }
    });
}
