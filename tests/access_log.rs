//! The access log: a line for each request that its settings ask for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use serde_json::Value;

use support::{Driver, Reply, Server, Upstream, body, eventually, on_both, series};

/// The lines about requests, once there are so many.
fn lines(server: &Server, count: usize) -> Vec<Value> {
    let found = || {
        let lines = server.log();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "request").collect::<Vec<_>>()
    };
    eventually("the lines are written", || found().len() >= count);
    let lines = found();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

fn start(driver: Driver, upstream: &Upstream, access_log: &str) -> Server {
    let settings = format!("log_format: json\ncores: 1\naccess_log:\n{access_log}");
    Server::start(driver, upstream.address, &settings)
}

#[test]
fn a_request_has_one_line_with_what_it_was() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = start(driver, &upstream, "  enabled: true\n");
        let push = body(vec![series("a", "up", 1.0), series("b", "up", 1.0)]);
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let parent = format!("traceparent: 00-{trace}-b7ad6b7169203331-00\r\n");
        let mut client = server.client();
        assert_eq!(client.push_with(&push, &parent).status, 200);
        let line = lines(&server, 1).remove(0);
        assert_eq!(line["level"], "info");
        for (key, value) in [
            ("status", 200.into()),
            ("protocol", "remote_write_v1".into()),
            ("tenants", 2.into()),
            ("series", 2.into()),
            ("samples", 2.into()),
            ("bytes", push.len().into()),
            ("client", client.local().to_string().into()),
            ("trace_id", Value::from(trace)),
        ] {
            assert_eq!(line[key], value, "{key}");
        }
        assert!(line["duration_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0 && seconds < 10.0));
        // The ID leads to the upstream's log.
        for tenant in ["a", "b"] {
            let got = upstream.of(tenant);
            assert_eq!(got[0].header("x-cortex-tenant-reqid"), line["request_id"].as_str());
        }
        // Refused requests have one, too; probes have none.
        client.send(b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response().status, 200);
        assert_eq!(client.push(b"nonsense").status, 400);
        let mut other = server.client();
        other.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(other.response().status, 404);
        let mut bad = server.client();
        bad.send(b"nonsense\r\n\r\n");
        assert_eq!(bad.response().status, 400);
        let lines = lines(&server, 4);
        let told: Vec<_> = lines.iter().map(|line| (&line["status"], line["protocol"].is_null())).collect();
        assert_eq!(told[1..], [(&400.into(), false), (&404.into(), true), (&400.into(), true)]);
        let ids: std::collections::HashSet<_> =
            lines.iter().map(|line| line["request_id"].to_string()).collect();
        assert_eq!(ids.len(), 4);
    });
}

#[test]
fn it_is_off_by_default_and_a_reload_switches_it_on() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = start(driver, &upstream, "  enabled: false\n");
        let push = body(vec![series("a", "up", 1.0)]);
        let mut client = server.client();
        assert_eq!(client.push(&push).status, 200);
        server.reload_with("enabled: false", "enabled: true");
        lines(&server, 0);
        assert_eq!(client.push(&push).status, 200);
        lines(&server, 1);
    });
}

#[test]
fn status_duration_and_sampling_choose_requests() {
    on_both(|driver| {
        let upstream = Upstream::start(|request| match request.tenant() {
            "slow" => Reply::ok().after(Duration::from_millis(400)),
            "bad" => Reply::new(400, "no"),
            _ => Reply::ok(),
        });
        let server = start(driver, &upstream, "  enabled: true\n  status_min: 400\n  duration_min: 300ms\n");
        let mut client = server.client();
        let mut push = |tenant: &str| client.push(&body(vec![series(tenant, "up", 1.0)])).status;
        let statuses = ["fine", "slow", "bad", "fine"].map(&mut push);
        assert_eq!(statuses, [200, 200, 400, 200]);
        let chosen = lines(&server, 2);
        assert_eq!((&chosen[0]["status"], &chosen[1]["status"]), (&200.into(), &400.into()));
        assert!(chosen[0]["duration_seconds"].as_f64() >= Some(0.3));

        let sampled = start(driver, &upstream, "  enabled: true\n  sample_one_in: 5\n");
        let mut client = sampled.client();
        for _ in 0..11 {
            assert_eq!(client.push(&body(vec![series("fine", "up", 1.0)])).status, 200);
        }
        lines(&sampled, 3);
    });
}
