//! Statuses for each kind of sender, which must drop what can never succeed and repeat what may succeed later. The real
//! server, on both rings. `src/verdict/sender.rs` says why the senders differ.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::client::{Response, push_head};
use support::{Driver, Reply, Server, Upstream, body, on_both, post, series};

/// Headers by which senders are recognised.
const PROMETHEUS: &str = "User-Agent: Prometheus/3.14.0\r\n";
const ALLOY: &str = "User-Agent: Alloy/v1.11.0\r\n";
const COLLECTOR: &str = "User-Agent: opentelemetry-collector-contrib/0.139.0\r\n";
const VMAGENT: &str = "User-Agent: vmagent\r\n";
const VMAGENT_BEHIND_A_PROXY: &str = "User-Agent: proxy/1.0\r\nX-VictoriaMetrics-Remote-Write-Version: 1\r\n";
const FLUENT_BIT: &str = "User-Agent: Fluent-Bit\r\n";
const UNNAMED: &str = "";

/// Each sender, with the one status for which it drops a request. `None` for senders that drop on any 4xx.
const SENDERS: [(&str, Option<u16>); 7] = [
    (PROMETHEUS, None),
    (ALLOY, None),
    (COLLECTOR, None),
    (UNNAMED, None),
    (VMAGENT, Some(409)),
    (VMAGENT_BEHIND_A_PROXY, Some(409)),
    (FLUENT_BIT, Some(400)),
];

fn start(driver: Driver, extra: &str) -> (Server, Upstream) {
    let upstream = Upstream::start(|r| match r.tenant() {
        "ok" => Reply::new(204, ""),
        "limited" => Reply::with(429, "Retry-After: 7\r\n", "slow down"),
        "down" => Reply::new(503, "no ingesters"),
        other => Reply::new(other.parse().unwrap(), "the upstream's words"),
    });
    (Server::start(driver, upstream.address, extra), upstream)
}

/// The response must make this sender drop a request that was refused with `status`.
fn assert_dropped(response: &Response, status: u16, drops_for: Option<u16>, what: &str) {
    assert_eq!(response.status, drops_for.unwrap_or(status), "{what}: {response:?}");
    if drops_for.is_some_and(|drops_for| drops_for != status) {
        assert!(response.text().starts_with(&format!("{status}: ")), "the text has the status: {response:?}");
    }
}

#[test]
fn requests_refused_by_their_head_are_dropped_by_each_sender() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "limits: {head_bytes_max: 2Ki, body_bytes_max: 1Ki}\n");
        for (sender, drops_for) in SENDERS {
            let refused = |path, fields: &str, body: &[u8], status| {
                let response = post(&server, path, &format!("{sender}{fields}"), body);
                assert_dropped(&response, status, drops_for, &format!("{sender}{path} {fields:.20}"));
            };
            refused("/pull", "", b"", 404);
            refused("/alive", "", b"", 405);
            refused("/push", "", &[0; 2_000], 413);
            refused("/push", "Content-Type: text/plain\r\n", b"x", 415);
            refused("/push", "Content-Encoding: gzip\r\n", b"x", 415);
            refused("/push", &format!("X: {}\r\n", "y".repeat(2_000)), b"", 431);
            refused("/push", &format!("X: {}\r\n", "y".repeat(200_000)), b"", 431);
            refused("/push", &"X: y\r\n".repeat(300), b"", 431);
            refused("/push", "Content-Length: 0\r\n", b"", 400);
        }
        assert!(upstream.received().is_empty());
    });
}

#[test]
fn unreadable_bodies_are_dropped_by_each_sender() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "limits: {inflated_bytes_max: 8Mi}\n");
        let plain = b"\xff\xff\xff\xff";
        for (sender, drops_for) in SENDERS {
            let refused = |encoding, body: &[u8], status| {
                let fields = format!("{sender}Content-Encoding: {encoding}\r\n");
                let response = post(&server, "/push", &fields, body);
                assert_dropped(&response, status, drops_for, sender);
            };
            refused("zstd", b"no zstd at all", 400);
            refused("zstd", &zstd::bulk::compress(plain, 1).unwrap(), 400);
            refused("snappy", b"no snappy at all", 400);
            refused("snappy", &body(vec![series("", "up", 1.0)]), 400);
            refused("zstd", &zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap(), 413);
        }
        assert!(upstream.received().is_empty());
    });
}

#[test]
fn each_sender_drops_what_an_upstream_refuses_and_repeats_what_it_may_accept_later() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "");
        for (sender, drops_for) in SENDERS {
            let mut client = server.client();
            let mut push = |tenants: &[&str]| {
                let body = body(tenants.iter().map(|tenant| series(tenant, "up", 1.0)).collect());
                client.send(&[push_head(body.len(), sender).as_bytes(), &body].concat());
                client.response()
            };
            for status in [400, 401, 403, 404, 409, 413, 415, 422, 431] {
                assert_dropped(&push(&[&status.to_string()]), status, drops_for, sender);
            }
            assert_dropped(&push(&["401", "ok", "422"]), 401, drops_for, sender);
            assert_eq!(push(&["ok"]).status, 204, "{sender}");
            let limited = push(&["limited", "ok", "404"]);
            assert_eq!((limited.status, limited.header("retry-after")), (429, Some("7")), "{sender}");
            assert_eq!(push(&["down", "limited", "404"]).status, 503, "{sender}");
        }
    });
}

#[test]
fn the_kind_of_sender_is_found_anew_for_each_request() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "");
        let mut client = server.client();
        let body = body(vec![series("404", "up", 1.0)]);
        for (sender, status) in [(VMAGENT, 409), (UNNAMED, 404), (FLUENT_BIT, 400), (PROMETHEUS, 404)] {
            assert_eq!(client.push_with(&body, sender).status, status, "{sender}");
        }
    });
}
