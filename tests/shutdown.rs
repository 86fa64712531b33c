//! How the server shuts down.
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
use support::load::{Push, push_while, stored};
use support::{Close, Reply, Server, Upstream, body, eventually, on_both, series};

const ALIVE: &[u8] = b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n";

fn one() -> Vec<u8> {
    body(vec![series("a", "up", 1.0)])
}

#[test]
fn sigterm_and_sigint_end_the_server_with_exit_code_0() {
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
fn requests_in_flight_are_finished_and_answered() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(700)));
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
        client.send(&request[..1]);
        eventually("its body has begun", || server.metric("tenantry_in_flight_bytes", "") == 1.0);
        server.signal("TERM");
        std::thread::sleep(Duration::from_millis(200));
        assert!(server.is_running());
        client.send(&request[1..]);
        assert_eq!(client.response().status, 200);
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
        assert_eq!(upstream.received().len(), 1);
    });
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::from(Close::Stall));
        let mut server = Server::start(driver, upstream.address, "timeout_shutdown: 30s\n");
        server.signal("TERM");
        eventually("it is shutting down", || server.log().iter().any(|l| l.contains("shutting down")));
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(2)).code(), Some(143));
    });
}

#[test]
fn a_stalled_upstream_does_not_keep_the_server_longer_than_the_timeout() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::from(Close::Stall));
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

#[test]
fn under_load_nothing_that_was_acknowledged_is_lost() {
    on_both(|driver| {
        for notice in ["0s", "300ms"] {
            let upstream = Upstream::start(|_| Reply::ok());
            let settings = format!("timeout_shutdown: {notice}\n");
            let mut server = Server::start(driver, upstream.address, &settings);
            let pushes = push_while(server.address, || {
                std::thread::sleep(Duration::from_millis(300));
                server.signal("TERM");
                assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(0));
            });
            let stored = stored(&upstream);
            let mut acknowledged = 0;
            for push in &pushes {
                if let Push::Acknowledged(name) = push {
                    acknowledged += 1;
                    assert!(stored.iter().all(|names| names.contains(name)), "{name} is lost");
                }
            }
            assert!(acknowledged > 50, "{acknowledged}");
        }
    });
}

#[test]
fn a_successor_on_the_same_port_takes_over_without_a_failed_request() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let (port, metrics) = (support::server::free_port(), support::server::free_port());
        let start = || {
            let config = format!(
                "listen: {port}\nlisten_metrics_address: {metrics}\ntarget: http://{}/api/v1/push\n\
                 timeout_shutdown: 200ms\ntenant: {{label: tenant}}\nlog_level: warn\ndriver: {}\n",
                upstream.address,
                driver.name(),
            );
            Server::start_with(&config, metrics, &[])
        };
        let mut server = start();
        let pushes = push_while(port, || {
            for _ in 0..5 {
                let successor = start();
                server.signal("TERM");
                assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(0));
                server = successor;
            }
        });
        let broken = |push: &Push| if let Push::Broken(why) = push { Some(why.clone()) } else { None };
        let broken: Vec<String> = pushes.iter().filter_map(broken).collect();
        eprintln!("{} pushes over five successions, {} broken: {broken:?}", pushes.len(), broken.len());
        // A connection is reset if it comes in the microseconds between a listener's last accept and its close. This
        // was seen once in some hundred successions. More than one is a bug.
        assert!(broken.len() <= 1, "of {}: {broken:?}", pushes.len());
        let stored = stored(&upstream);
        for push in &pushes {
            let Push::Acknowledged(name) = push else { continue };
            assert!(stored.iter().all(|names| names.contains(name)), "{name} is lost");
        }
    });
}
