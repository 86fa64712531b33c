//! What reaches the upstream, and what its answers become: the real server between a raw client and a scripted
//! upstream, on both rings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::remote_write::label;
use support::server::free_port;
use support::{
    Client, Close, Driver, Reply, Server, Upstream, body, eventually, on_both, one, send_together, series,
    start,
};

#[test]
fn the_upstream_gets_the_headers_it_knows_from_cortex_tenant() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let extra = "auth:\n  egress:\n    username: tenantry\n    password: secret\n";
        let server = Server::start(driver, upstream.address, extra);
        let mut client = server.client();
        assert_eq!(client.push(&one("a")).status, 200);
        let received = &upstream.received()[0];
        assert_eq!(received.path, "/api/v1/push");
        assert_eq!(received.header("host"), Some(upstream.address.to_string().as_str()));
        assert_eq!(received.header("x-scope-orgid"), Some("a"));
        assert_eq!(received.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(received.header("content-encoding"), Some("snappy"));
        assert_eq!(received.header("x-prometheus-remote-write-version"), Some("0.1.0"));
        assert_eq!(received.header("x-cortex-tenant-client"), Some(client.local().to_string().as_str()));
        assert_eq!(received.header("authorization"), Some("Basic dGVuYW50cnk6c2VjcmV0"));
        assert!(received.header("user-agent").unwrap().starts_with("tenantry/"));
        let id = received.header("x-cortex-tenant-reqid").unwrap();
        assert_eq!((id.len(), id.matches('-').count(), &id[14..15]), (36, 4, "4"), "a random UUID: {id}");
        assert!(!server.log().join("\n").contains("secret"), "the password is in the log");
    });
}

#[test]
fn a_request_of_one_tenant_goes_on_as_the_bytes_that_came_in() {
    on_both(|driver| {
        let (server, upstream) = start(driver, |_| Reply::ok());
        let request = body((0..50).map(|i| series("a", &format!("m{i}"), f64::from(i))).collect());
        assert_eq!(server.client().push(&request).status, 200);
        assert_eq!(upstream.received()[0].body, request);
        assert_eq!(server.metric("tenantry_passthrough_requests_total", ""), 1.0);
    });
}

#[test]
fn the_tenant_may_stand_in_the_path() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let target = format!("http://{}/insert/{{tenant}}/prometheus/api/v1/write", upstream.address);
        let metrics = free_port();
        let config = format!(
            "listen: 127.0.0.1:0\nlisten_metrics_address: {metrics}\ntarget: {target}\ntenant:\n  label: tenant\n\
             driver: {}\n",
            if driver == Driver::Epoll { "epoll" } else { "io_uring" }
        );
        let server = Server::start_with(&config, metrics, &[]);
        assert_eq!(server.client().push(&one("team(1)*")).status, 200);
        let path = &upstream.received()[0].path;
        assert!(path.starts_with("/insert/team") && path.ends_with("/prometheus/api/v1/write"), "{path}");
    });
}

#[test]
fn the_senders_answer_is_the_truth_about_all_parts() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, |r| match r.tenant() {
            "ok" => Reply::ok(),
            "accepted" => Reply::new(202, "queued"),
            "bad" => Reply::new(400, "out of order sample"),
            "limited" => Reply::with(429, "Retry-After: 7\r\n", "slow down"),
            "down" => Reply::with(503, "Retry-After: 3\r\n", "no ingesters"),
            "moved" => Reply::with(307, "Location: /elsewhere\r\n", ""),
            _ => Reply::from(Close::BeforeReply),
        });
        let mut client = server.client();
        let mut push =
            |tenants: &[&str]| client.push(&body(tenants.iter().map(|t| series(t, "up", 1.0)).collect()));
        assert_eq!(push(&["ok"]).status, 200);
        let accepted = push(&["ok", "accepted"]);
        assert_eq!((accepted.status, accepted.text().as_str()), (202, "queued"));
        let bad = push(&["bad"]);
        assert_eq!((bad.status, bad.text().as_str()), (400, "out of order sample"));
        let limited = push(&["limited"]);
        assert_eq!((limited.status, limited.header("retry-after")), (429, Some("7")));
        let mixed = push(&["ok", "bad", "limited", "down"]);
        assert_eq!((mixed.status, mixed.header("retry-after")), (503, Some("7")), "{mixed:?}");
        assert!(mixed.text().contains("no ingesters") && mixed.text().contains("slow down"), "{mixed:?}");
        assert!(!mixed.text().contains("ok:"), "only parts that failed are named: {mixed:?}");
        assert_eq!(push(&["ok", "bad"]).status, 400);
        assert_eq!(push(&["moved"]).status, 502, "the redirect is not followed");
        assert_eq!(push(&["gone", "bad", "ok"]).status, 502, "a retry may help");
    });
}

#[test]
fn accept_all_answers_204_whatever_the_upstream_says() {
    on_both(|driver| {
        let upstream =
            Upstream::start(|r| if r.tenant() == "bad" { Reply::new(500, "") } else { Reply::ok() });
        let server =
            Server::start(driver, upstream.address, "tenant:\n  label: tenant\n  accept_all: true\n");
        let request = body(vec![series("bad", "up", 1.0), series("ok", "up", 1.0)]);
        let response = server.client().push(&request);
        assert_eq!((response.status, response.body.len()), (204, 0));
        assert_eq!(upstream.received().len(), 2, "both parts are sent");
        assert_eq!(server.client().push(b"no snappy").status, 400, "a body that can't be read is refused");
    });
}

#[test]
fn one_failing_tenant_neither_fails_nor_delays_another() {
    on_both(|driver| {
        let delay = Duration::from_secs(3);
        let (server, upstream) = start(driver, move |r| match r.tenant() {
            "slow" => Reply::ok().after(delay),
            _ => Reply::ok(),
        });
        let begun = Instant::now();
        let mut slow = send_together(&server, &[one("slow")]);
        eventually("the slow tenant is under way", || upstream.of("slow").len() == 1);
        // More requests of that tenant wait behind it.
        slow.extend(send_together(&server, &[one("slow"), one("slow"), one("slow"), one("slow")]));
        (0..20).for_each(|_| assert_eq!(server.client().push(&one("quick")).status, 200));
        assert!(begun.elapsed() < delay, "{:?}", begun.elapsed());
        assert_eq!(upstream.of("quick").len(), 20);
        slow.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    });
}

#[test]
fn an_upstream_that_does_not_answer_is_504_after_the_timeout() {
    on_both(|driver| {
        let upstream =
            Upstream::start(|r| if r.tenant() == "sick" { Reply::from(Close::Stall) } else { Reply::ok() });
        let server = Server::start(driver, upstream.address, "timeout: 400ms\n");
        let begun = Instant::now();
        let response = server.client().push(&body(vec![series("sick", "up", 1.0), series("ok", "up", 1.0)]));
        let took = begun.elapsed();
        assert_eq!(response.status, 504, "{response:?}");
        assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(2), "{took:?}");
        assert_eq!(upstream.of("ok").len(), 1);
        assert_eq!(server.client().push(&one("ok")).status, 200);
    });
}

#[test]
fn a_retry_sends_only_what_is_missing_over_whatever_connection_it_comes() {
    on_both(|driver| {
        let healed = Arc::new(AtomicBool::new(false));
        let heals = Arc::clone(&healed);
        let upstream = Upstream::start(move |r| match r.tenant() {
            "sick" if !heals.load(Ordering::SeqCst) => Reply::new(503, "sick"),
            _ => Reply::new(202, "stored"),
        });
        let server = Server::start(driver, upstream.address, "cores: 2\n");
        let tenants = ["a", "sick", "b", "c"];
        let request = body(tenants.map(|tenant| series(tenant, "up", 1.0)).to_vec());
        // Each push has a connection of its own. The connections are spread over the cores.
        let push = || server.client().push(&request).status;
        for _ in 0..6 {
            assert_eq!(push(), 503);
        }
        healed.store(true, Ordering::SeqCst);
        assert_eq!(push(), 202);
        for tenant in ["a", "b", "c"] {
            assert_eq!(upstream.of(tenant).len(), 1, "{tenant} was sent once");
        }
        assert_eq!(upstream.of("sick").len(), 7);
        assert_eq!(server.metric("tenantry_receipts_used_total", ""), 18.0);
        // A request that differs is sent.
        let other = body(tenants.map(|tenant| series(tenant, "up", 2.0)).to_vec());
        assert_eq!(server.client().push(&other).status, 202);
        assert_eq!(upstream.of("a").len(), 2);
    });
}

#[test]
fn a_request_that_will_not_come_again_leaves_no_receipts() {
    on_both(|driver| {
        let upstream = Upstream::start(|r| match r.tenant() {
            "bad" => Reply::new(400, "out of order"),
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "");
        let request = body(vec![series("a", "up", 1.0), series("bad", "up", 1.0)]);
        assert_eq!(server.client().push(&request).status, 400);
        let good = body(vec![series("a", "up", 1.0), series("b", "up", 1.0)]);
        assert_eq!(server.client().push(&good).status, 200);
        assert_eq!(server.metric("tenantry_receipts", ""), 0.0);
    });
}

#[test]
fn odd_but_valid_answers_of_the_upstream_are_understood() {
    on_both(|driver| {
        let replies: Vec<&[u8]> = vec![
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ];
        let (nth, count) = (Arc::new(AtomicUsize::new(0)), replies.len());
        let (server, upstream) =
            start(driver, move |_| Reply::raw(replies[nth.fetch_add(1, Ordering::SeqCst) % count]));
        let mut client = server.client();
        let statuses: Vec<_> = (0..8).map(|_| client.push(&one("a")).status).collect();
        assert_eq!(statuses, [200, 204, 200, 200, 200, 204, 200, 200]);
        assert_eq!(upstream.connections(), 1, "each was read to its end, so that the connection could go on");
    });
}

#[test]
fn answers_that_end_with_the_connection_or_are_huge_are_understood() {
    on_both(|driver| {
        let (server, upstream) = start(driver, |r| match r.tenant() {
            "close" => Reply::raw(b"HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\nuntil the end")
                .close(Close::AfterReplyUnannounced),
            "old" => Reply::raw(b"HTTP/1.0 200 OK\r\n\r\n").close(Close::AfterReplyUnannounced),
            "huge" => Reply::new(400, &"x".repeat(300_000)),
            _ => Reply::raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        });
        let mut client = server.client();
        let closed = client.push(&one("close"));
        assert_eq!((closed.status, closed.text().as_str()), (400, "until the end"));
        assert_eq!(client.push(&one("old")).status, 200);
        let huge = client.push(&one("huge"));
        assert_eq!((huge.status, huge.body.len()), (400, 1_024));
        assert_eq!(client.push(&one("ssh")).status, 502);
        assert_eq!(upstream.received().len(), 4);
    });
}

#[test]
fn an_answer_that_comes_before_the_request_was_read_is_taken() {
    on_both(|driver| {
        // An upstream that refuses by the head and closes without reading the body.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = [0u8; 1_000];
                let _ = stream.read(&mut head);
                let _ = stream.write_all(
                    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad",
                );
                let _ = stream.shutdown(std::net::Shutdown::Write);
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let server = Server::start(driver, address, "timeout: 3s\n");
        let noise: Vec<_> =
            (0..2_000).map(|i| series("a", &format!("{:x}", i * 7_919 + i * i), f64::from(i))).collect();
        assert_eq!(server.client().push(&body(noise)).status, 403);
    });
}

#[test]
fn counts_and_milliseconds_under_the_old_names_are_right() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(30)));
        let server = Server::start(driver, upstream.address, "metrics_include_tenant: true\n");
        let request = body(vec![series("a", "m1", 1.0), series("a", "m2", 1.0), series("b", "m3", 1.0)]);
        let mut client = server.client();
        (0..3).for_each(|_| assert_eq!(client.push(&request).status, 200));
        assert_eq!(server.metric("cortex_tenant_timeseries_batches_received", ""), 3.0);
        assert_eq!(server.metric("cortex_tenant_timeseries_batches_received_bytes_count", ""), 3.0);
        let bytes = server.metric("cortex_tenant_timeseries_batches_received_bytes_sum", "");
        assert_eq!(bytes, 3.0 * request.len() as f64);
        assert_eq!(server.metric("cortex_tenant_timeseries_received", "tenant=\"a\""), 6.0);
        assert_eq!(server.metric("cortex_tenant_timeseries_requests", "tenant=\"b\""), 3.0);
        let millis =
            server.metric("cortex_tenant_timeseries_request_duration_milliseconds_sum", "tenant=\"a\"");
        assert!((90.0..1_000.0).contains(&millis), "three requests of 30 ms: {millis}");
        assert_eq!(
            server.metric("cortex_tenant_timeseries_request_duration_milliseconds_count", "code=\"200\""),
            6.0
        );
        assert_eq!(server.metric("tenantry_in_flight_bytes", ""), 0.0);
    });
}

#[test]
fn a_cortex_tenant_configuration_that_is_in_use_starts_unchanged_and_forwards() {
    let upstream = Upstream::start(|_| Reply::ok());
    let (metrics, pprof) = (free_port().to_string(), free_port().to_string());
    let target = format!("http://{}/api/v1/receive", upstream.address);
    // The environment overrides the file, and sets only addresses of this machine.
    let environment = [
        ("CT_LISTEN", "127.0.0.1:0"),
        ("CT_LISTEN_METRICS_ADDRESS", metrics.as_str()),
        ("CT_LISTEN_PPROF", pprof.as_str()),
        ("CT_TARGET", target.as_str()),
        ("CT_TIMEOUT_SHUTDOWN", "0s"),
    ];
    let config = include_str!("fixtures/seed-cortex-tenant.yml");
    let mut server = Server::start_with(config, metrics.parse().unwrap(), &environment);
    assert_eq!(
        server.client().push(&body(vec![series("grafana", "up", 1.0), series("", "up", 1.0)])).status,
        200
    );
    let mut tenants: Vec<_> =
        upstream.received().iter().map(|r| r.header("THANOS-TENANT").unwrap().to_owned()).collect();
    tenants.sort();
    assert_eq!(tenants, ["cortex-tenant-default", "grafana"]);
    assert_eq!(upstream.received()[0].path, "/api/v1/receive");
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn many_senders_and_tenants_lose_and_misplace_nothing() {
    on_both(|driver| {
        let stored = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&stored);
        let upstream = Upstream::start(move |r| {
            let request = r.request();
            let mut sink = sink.lock().unwrap();
            for series in &request.timeseries {
                let tenant = label(series, "tenant").unwrap();
                assert_eq!(tenant, r.tenant(), "misplaced");
                sink.push((tenant, series.samples[0].value as u64));
            }
            Reply::ok()
        });
        let server = Server::start(driver, upstream.address, "");
        let address = server.address;
        let senders: Vec<_> = (0..8u64)
            .map(|sender| {
                std::thread::spawn(move || {
                    let mut client = Client::connect(address);
                    for request in 0..30 {
                        let series = (0..40).map(|i| {
                            let id = sender * 100_000 + request * 100 + i;
                            series(&format!("t{}", id % 13), "m", id as f64)
                        });
                        assert_eq!(client.push(&body(series.collect())).status, 200);
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|s| s.join().unwrap());
        let mut stored = stored.lock().unwrap();
        assert_eq!(stored.len(), 8 * 30 * 40);
        stored.sort();
        stored.dedup();
        assert_eq!(stored.len(), 8 * 30 * 40, "each sample once");
    });
}
