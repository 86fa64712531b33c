//! The data port as senders see it: raw bytes against the real server, on both rings. Over plain TCP, and where the
//! transport matters over TLS, too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::client::push_head;
use support::remote_write::{WriteRequest, deflate, metadata_of_up};
use support::{
    Client, Driver, Reply, Server, Transport, Upstream, body, eventually, on_all, on_both, series,
};

fn start(driver: Driver, extra: &str) -> (Server, Upstream) {
    start_over(Transport::Plain, driver, extra)
}

fn start_over(transport: Transport, driver: Driver, extra: &str) -> (Server, Upstream) {
    let upstream = Upstream::start(|_| Reply::ok());
    (Server::start_over(transport, driver, upstream.address, extra), upstream)
}

fn one_series() -> Vec<u8> {
    body(vec![series("a", "up", 1.0)])
}

/// Sends bytes that must be refused with `status` and one line of text, after which the connection ends.
fn refused(server: &Server, bytes: &[u8], status: u16) -> support::Response {
    let mut client = server.client();
    client.try_send(bytes);
    let response = client.response();
    let shown = String::from_utf8_lossy(bytes).chars().take(200).collect::<String>();
    assert_eq!(response.status, status, "for {shown:?}: {response:?}");
    assert_eq!(response.text().trim_end().lines().count(), 1, "one line of text: {response:?}");
    assert!(client.is_closed(), "{shown:?}");
    response
}

#[test]
fn a_request_is_split_by_tenant_and_answered() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "");
        let request = body(vec![series("a", "m1", 1.0), series("b", "m2", 2.0), series("a", "m3", 3.0)]);
        assert_eq!(server.client().push(&request).status, 200);
        assert_eq!(upstream.received().len(), 2);
        assert_eq!(upstream.of("a")[0].names(), ["m1", "m3"]);
        assert_eq!(upstream.of("b")[0].names(), ["m2"]);
    });
}

#[test]
fn requests_on_one_connection_are_answered_in_order_also_when_pipelined() {
    on_all(|driver, transport| {
        let (server, _upstream) = start_over(transport, driver, "");
        let mut client = server.client();
        let good = one_series();
        let bad = body(vec![series("", "up", 1.0)]);
        let mut bytes = Vec::new();
        for part in [&good, &bad, &good] {
            bytes.extend_from_slice(push_head(part.len(), "").as_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
        client.send(&bytes);
        let statuses: Vec<u16> = (0..4).map(|_| client.response().status).collect();
        assert_eq!(statuses, [200, 400, 200, 200]);
        assert_eq!(client.push(&good).status, 200, "the connection stays");
    });
}

#[test]
fn a_request_may_come_byte_by_byte() {
    on_all(|driver, transport| {
        let (server, upstream) = start_over(transport, driver, "");
        let mut client = server.client();
        let request = one_series();
        let mut bytes = push_head(request.len(), "").into_bytes();
        bytes.extend_from_slice(&request);
        bytes.iter().for_each(|byte| client.send(&[*byte]));
        assert_eq!(client.response().status, 200);
        assert_eq!(upstream.of("a").len(), 1);
    });
}

#[test]
fn a_chunked_body_is_taken() {
    on_all(|driver, transport| {
        let (server, upstream) = start_over(transport, driver, "");
        let mut client = server.client();
        let request = one_series();
        client.send(b"POST /api/v1/push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in request.chunks(7) {
            client.send(format!("{:x}\r\n", chunk.len()).as_bytes());
            client.send(chunk);
            client.send(b"\r\n");
        }
        client.send(b"0\r\n\r\n");
        assert_eq!(client.response().status, 200);
        assert_eq!(client.push(&request).status, 200, "the next request is found after it");
        assert_eq!(upstream.of("a").len(), 2);
    });
}

#[test]
fn a_sender_that_expects_100_continue_is_told_to_go_on() {
    on_all(|driver, transport| {
        let (server, _upstream) = start_over(transport, driver, "");
        let mut client = server.client();
        let request = one_series();
        client.send(push_head(request.len(), "Expect: 100-continue\r\n").as_bytes());
        assert_eq!(client.response().status, 100);
        client.send(&request);
        assert_eq!(client.response().status, 200);
        let refused = refused(&server, push_head(1 << 30, "Expect: 100-continue\r\n").as_bytes(), 413);
        assert!(refused.text().contains("limit"), "refused before the body: {refused:?}");
    });
}

#[test]
fn alive_answers_get_and_head() {
    on_all(|driver, transport| {
        let (server, _upstream) = start_over(transport, driver, "");
        let mut client = server.client();
        client.send(b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response().status, 200);
        client.send(b"HEAD /alive HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response_to(true).status, 200);
        client.send(b"GET /alive HTTP/1.0\r\n\r\n");
        assert_eq!(client.response().status, 200);
        assert!(client.is_closed(), "HTTP/1.0 closes by default");
    });
}

#[test]
fn bad_heads_are_refused_with_400_and_the_connection_closed() {
    on_all(|driver, transport| {
        let (server, upstream) = start_over(transport, driver, "");
        for bytes in [
            &b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
            b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc",
            b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST /push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"POST /push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST /push HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
            b"POST /push HTTP/1.1\r\nHost: x\r\nX: a\n\r\n\r\n",
            b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc",
            b"POST /push HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
            b"PO ST /push HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /push HTTP/2.0\r\nHost: x\r\n\r\n",
            b"POST /push HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n",
        ] {
            refused(&server, bytes, 400);
        }
        assert!(upstream.received().is_empty());
        assert!(server.metric("tenantry_rejections_total", "bad_request") >= 16.0);
    });
}

#[test]
fn bad_chunks_are_refused_with_400() {
    on_all(|driver, transport| {
        let (server, upstream) = start_over(transport, driver, "");
        for chunks in
            ["zz\r\n", "3\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "-1\r\n\r\n", "fffffffffffffffff\r\n"]
        {
            let head = "POST /push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            refused(&server, format!("{head}{chunks}").as_bytes(), 400);
        }
        assert!(upstream.received().is_empty());
    });
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "");
        refused(&server, b"POST /pull HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404);
        let get = refused(&server, b"GET /push HTTP/1.1\r\nHost: x\r\n\r\n", 405);
        assert_eq!(get.header("allow"), Some("POST"));
        let post = refused(&server, b"POST /alive HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405);
        assert_eq!(post.header("allow"), Some("GET, HEAD"));
    });
}

#[test]
fn unknown_content_types_and_encodings_are_refused_with_415() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "");
        for headers in [
            "Content-Type: text/plain\r\n",
            "Content-Type: application/json\r\n",
            "Content-Type: application/x-protobuf;proto=io.prometheus.write.v3.Request\r\n",
            "Content-Encoding: gzip\r\n",
        ] {
            let head = format!("POST /push HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 3\r\n\r\nabc");
            refused(&server, head.as_bytes(), 415);
        }
        assert!(upstream.received().is_empty());
    });
}

#[test]
fn without_a_content_type_it_is_taken_as_remote_write() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "");
        let request = one_series();
        let mut client = server.client();
        client.send(
            format!("POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", request.len()).as_bytes(),
        );
        client.send(&request);
        assert_eq!(client.response().status, 200);
        assert_eq!(upstream.received().len(), 1);
    });
}

#[test]
fn bodies_and_heads_over_their_limits_are_refused() {
    on_all(|driver, transport| {
        let (server, upstream) =
            start_over(transport, driver, "limits:\n  body_bytes_max: 10000\n  head_bytes_max: 2048\n");
        refused(&server, push_head(10_001, "").as_bytes(), 413);
        // The sender may have sent the whole body already. It must still get the answer, and no reset.
        let mut all = push_head(3_000_000, "").into_bytes();
        all.resize(all.len() + 3_000_000, 0);
        refused(&server, &all, 413);
        let chunked = b"POST /push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\n";
        refused(&server, &[&chunked[..], &[0; 0x4000]].concat(), 413);
        refused(&server, push_head(1, &format!("X: {}\r\n", "y".repeat(2_048))).as_bytes(), 431);
        refused(&server, format!("POST /push?{}", "y".repeat(4_096)).as_bytes(), 431);
        assert!(upstream.received().is_empty());
    });
}

#[test]
fn a_decompression_bomb_is_refused_before_it_is_inflated() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "");
        // A block that declares 4 GiB minus a byte.
        let mut bomb = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
        bomb.extend_from_slice(&[0xfe, 0x01, 0x00].repeat(1_000));
        assert_eq!(server.client().push(&bomb).status, 413);
        let zeros = snap::raw::Encoder::new().compress_vec(&vec![0; 100 << 20]).unwrap();
        assert_eq!(server.client().push(&zeros).status, 413);
        assert!(upstream.received().is_empty());
    });
}

#[test]
fn a_body_that_is_not_remote_write_is_refused_and_the_connection_stays() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "");
        let mut client = server.client();
        assert_eq!(client.push(b"this is not snappy").status, 400);
        let no_protobuf = snap::raw::Encoder::new().compress_vec(b"\xff\xff\xff\xff").unwrap();
        assert_eq!(client.push(&no_protobuf).status, 400);
        assert_eq!(client.push(&body(vec![])).status, 400, "no timeseries");
        assert_eq!(client.push(&one_series()).status, 200);
        assert_eq!(upstream.received().len(), 1);
    });
}

#[test]
fn a_slow_head_or_body_is_cut_with_503() {
    on_all(|driver, transport| {
        let (server, _upstream) = start_over(transport, driver, "timeout: 300ms\n");
        for bytes in ["POST /push HT".to_owned(), push_head(10, "") + "abc"] {
            let begun = Instant::now();
            let slow = refused(&server, bytes.as_bytes(), 503);
            assert!(slow.header("retry-after").is_some(), "it is to come again: {slow:?}");
            let took = begun.elapsed();
            // Without the setting it would be ten seconds.
            assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(8), "{took:?}");
        }
        eventually("both are counted", || server.metric("tenantry_rejections_total", "timeout") == 2.0);
    });
}

#[test]
fn an_idle_connection_is_closed_after_idle_timeout_and_not_before() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "idle_timeout: 3s\ntimeout: 500ms\n");
        let begun = Instant::now();
        let mut fresh = server.client();
        let mut used = server.client();
        assert_eq!(used.push(&one_series()).status, 200);
        assert!(used.is_quiet_for(1_000), "timeout is not for idle connections");
        assert!(used.is_closed() && fresh.is_closed());
        let took = begun.elapsed();
        // Without the setting it would be a minute.
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(20), "{took:?}");
    });
}

#[test]
fn over_concurrency_requests_get_503_with_retry_after() {
    on_all(|driver, transport| {
        let held = Arc::new(AtomicBool::new(true));
        let is_held = Arc::clone(&held);
        let upstream = Upstream::start(move |_| {
            while is_held.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Reply::ok()
        });
        let server = Server::start_over(
            transport,
            driver,
            upstream.address,
            "concurrency: 2\nlimits: {tenant_share_percent: 100}\n",
        );
        let request = one_series();
        let mut waiting: Vec<Client> = (0..2).map(|_| server.client()).collect();
        for client in &mut waiting {
            client.send(&[push_head(request.len(), "").as_bytes(), &request].concat());
        }
        eventually("both are in work", || server.metric("tenantry_requests_in_flight", "") == 2.0);
        let mut patient = server.client();
        let refused = patient.push(&request);
        assert_eq!(refused.status, 503);
        assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
        assert_eq!(
            patient.push(&request).status,
            503,
            "its connection stays, and where its body ended is known"
        );
        held.store(false, Ordering::SeqCst);
        waiting.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        assert_eq!(patient.push(&request).status, 200, "their places are free again");
    });
}

#[test]
fn over_the_memory_budget_requests_get_503_before_their_body_is_read() {
    on_all(|driver, transport| {
        let (server, _upstream) = start_over(
            transport,
            driver,
            "limits: {head_bytes_max: 1024, body_bytes_max: 4000, inflated_bytes_max: 6000, \
             in_flight_bytes_max: 11024}\n",
        );
        let mut slow: Vec<Client> = (0..2).map(|_| server.client()).collect();
        for client in &mut slow {
            client.send(push_head(4_000, "").as_bytes());
            client.send(&[0; 3_999]);
        }
        eventually("both are charged", || server.metric("tenantry_in_flight_bytes", "") == 7_998.0);
        let refused = refused(&server, push_head(4_000, "").as_bytes(), 503);
        assert!(refused.header("retry-after").is_some());
        drop(slow);
        eventually("what they held is given back", || server.metric("tenantry_in_flight_bytes", "") == 0.0);
        assert_eq!(server.client().push(&one_series()).status, 200);
    });
}

#[test]
fn a_series_without_a_tenant_is_refused_or_dropped_or_defaulted() {
    on_both(|driver| {
        let mixed = body(vec![series("a", "m1", 1.0), series("", "m2", 2.0), series("a/b", "m3", 3.0)]);
        let (server, upstream) = start(driver, "");
        let rejected = server.client().push(&mixed);
        assert_eq!(rejected.status, 400);
        assert!(rejected.text().contains("tenant"), "{}", rejected.text());
        assert!(upstream.received().is_empty(), "the whole request is refused");

        let rules = "tenant:\n  label: tenant\n  on_missing: drop\n  on_invalid: drop\n";
        let (server, upstream) = start(driver, rules);
        let dropped = server.client().push(&mixed);
        assert_eq!(dropped.status, 400);
        assert!(dropped.text().contains('2'), "says how many: {}", dropped.text());
        assert_eq!(upstream.of("a")[0].names(), ["m1"]);
        assert_eq!(server.metric("tenantry_series_dropped_total", "missing"), 1.0);
        assert_eq!(server.metric("tenantry_series_dropped_total", "invalid"), 1.0);

        let (server, upstream) = start(driver, "tenant:\n  label: tenant\n  default: nobody\n");
        assert_eq!(server.client().push(&body(vec![series("", "m1", 1.0)])).status, 200);
        assert_eq!(upstream.of("nobody")[0].names(), ["m1"]);
    });
}

#[test]
fn prefixes_come_from_the_settings_or_from_the_sender() {
    on_both(|driver| {
        let rules = "tenant:\n  label: tenant\n  prefix: dc1-\n  prefix_prefer_source: true\n";
        let (server, upstream) = start(driver, rules);
        let mut client = server.client();
        assert_eq!(client.push(&one_series()).status, 200);
        assert_eq!(client.push_with(&one_series(), "X-Scope-OrgID: prom-a\r\n").status, 200);
        let tenants: Vec<_> = upstream.received().iter().map(|r| r.tenant().to_owned()).collect();
        assert_eq!(tenants, ["dc1-a", "prom-a-a"]);
        let smuggled = client.push_with(&one_series(), "X-Scope-OrgID: a b\r\n");
        assert_eq!(smuggled.status, 400, "a space is no part of a tenant ID");
    });
}

#[test]
fn the_tenant_label_is_removed_on_request_and_the_others_keep_their_order() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "tenant:\n  label: job\n  label_remove: true\n");
        assert_eq!(server.client().push(&one_series()).status, 200);
        let request = upstream.of("test")[0].request();
        let names: Vec<_> = request.timeseries[0].labels.iter().map(|l| l.name.clone()).collect();
        assert_eq!(names, ["__name__", "tenant"]);
    });
}

#[test]
fn metadata_is_dropped_or_sent_to_the_default_tenant() {
    on_both(|driver| {
        let metadata = vec![metadata_of_up()];
        let alone = deflate(&WriteRequest { timeseries: vec![], metadata: metadata.clone() });
        let riding =
            deflate(&WriteRequest { timeseries: vec![series("a", "up", 1.0)], metadata: metadata.clone() });

        let (server, upstream) = start(driver, "tenant:\n  label: tenant\n  default: nobody\n");
        assert_eq!(server.client().push(&alone).status, 200);
        assert_eq!(server.client().push(&riding).status, 200);
        assert_eq!(upstream.received().len(), 1);
        assert!(upstream.of("a")[0].request().metadata.is_empty());

        let (server, upstream) =
            start(driver, "metadata: true\ntenant:\n  label: tenant\n  default: nobody\n");
        assert_eq!(server.client().push(&alone).status, 200);
        assert_eq!(server.client().push(&riding).status, 200);
        assert!(upstream.of("a")[0].request().metadata.is_empty());
        let sent = upstream.of("nobody");
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|r| r.request().metadata == metadata));
    });
}

#[test]
fn two_thousand_idle_connections_hold_no_buffers() {
    on_all(|driver, transport| {
        let (server, _upstream) = start_over(transport, driver, "");
        // A page of metrics and a first connection come before the measurement.
        assert_eq!(server.client().push(&one_series()).status, 200);
        assert!(server.metric("tenantry_connections_open", "") >= 0.0);
        let before = server.status_kib("VmRSS");
        let clients: Vec<_> = (0..2_000).map(|_| server.client()).collect();
        eventually("all are accepted", || server.metric("tenantry_connections_open", "") >= 2_000.0);
        let grown = server.status_kib("VmRSS").saturating_sub(before);
        assert!(grown < 20_000, "2,000 idle connections cost {grown} KiB");
        drop(clients);
        eventually("all are gone", || server.metric("tenantry_connections_open", "") < 10.0);
    });
}

#[test]
fn few_connections_are_spread_evenly_over_the_cores() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "cores: 2\n");
        let _clients: Vec<_> = (0..8)
            .map(|_| {
                let mut client = server.client();
                assert_eq!(client.push(&one_series()).status, 200);
                client
            })
            .collect();
        for core in ["core=\"0\"", "core=\"1\""] {
            assert_eq!(server.metric("tenantry_connections_open", core), 4.0, "{core}");
        }
    });
}
