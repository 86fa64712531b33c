//! How the server goes away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::time::{Duration, Instant};

use support::client::push_head;
use support::{Reply, Server, Upstream, body, eventually, on_both, series};

const ALIVE: &[u8] = b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n";

fn one() -> Vec<u8> {
    body(vec![series("a", "up", 1.0)])
}

#[test]
fn sigterm_and_sigint_end_it_with_exit_code_0() {
    on_both(|driver| {
        for signal in ["TERM", "INT"] {
            let upstream = Upstream::start(|_| Reply::ok());
            let mut server = Server::start(driver, upstream.address, "");
            let mut client = server.client();
            assert_eq!(client.push(&one()).status, 200);
            server.signal(signal);
            assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
            assert!(client.is_closed(), "an idle connection is closed, not reset");
        }
    });
}

#[test]
fn alive_says_503_during_timeout_shutdown_while_requests_are_still_served() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let mut server = Server::start(driver, upstream.address, "timeout_shutdown: 1s\n");
        let mut client = server.client();
        client.send(ALIVE);
        assert_eq!(client.response().status, 200);
        server.signal("TERM");
        let begun = Instant::now();
        eventually("alive says 503", || {
            let mut probe = server.client();
            probe.send(ALIVE);
            probe.response().status == 503
        });
        assert_eq!(server.client().push(&one()).status, 200);
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    });
}

#[test]
fn what_is_in_flight_is_finished_and_answered() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::After(Duration::from_millis(700), Box::new(Reply::ok())));
        let mut server = Server::start(driver, upstream.address, "");
        let mut clients: Vec<_> = (0..10)
            .map(|i| {
                let request = body((0..5).map(|t| series(&format!("t{t}"), &format!("m{i}"), 1.0)).collect());
                let mut client = server.client();
                client.send(&[push_head(request.len(), "").as_bytes(), &request].concat());
                client
            })
            .collect();
        eventually("all are under way", || server.metric("tenantry_requests_in_flight", "") == 10.0);
        server.signal("TERM");
        for client in &mut clients {
            let response = client.response();
            assert_eq!(response.status, 200);
            assert_eq!(response.header("connection"), Some("close"));
        }
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
    });
}

#[test]
fn a_request_that_is_being_read_is_finished() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let mut server = Server::start(driver, upstream.address, "");
        let request = one();
        let mut client = server.client();
        client.send(push_head(request.len(), "").as_bytes());
        eventually("its head was read", || server.metric("tenantry_requests_in_flight", "") == 1.0);
        server.signal("TERM");
        std::thread::sleep(Duration::from_millis(200));
        assert!(server.is_running());
        client.send(&request);
        assert_eq!(client.response().status, 200);
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
        assert_eq!(upstream.received().len(), 1);
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::Stall);
        let mut server = Server::start(driver, upstream.address, "timeout_shutdown: 30s\n");
        server.signal("TERM");
        eventually("it is leaving", || server.log().iter().any(|l| l.contains("leaving")));
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(2)).code(), Some(143));
    });
}

#[test]
fn a_stalled_upstream_does_not_keep_it_longer_than_the_timeout() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::Stall);
        let mut server = Server::start(driver, upstream.address, "timeout: 500ms\n");
        let mut client = server.client();
        let request = one();
        client.send(&[push_head(request.len(), "").as_bytes(), &request].concat());
        eventually("it is under way", || !upstream.received().is_empty() || upstream.connections() > 0);
        server.signal("TERM");
        assert_eq!(client.response().status, 504);
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
    });
}
