//! Connections to the upstream: how they are used again, what becomes of those that die, and how many there may be. The
//! real server between a raw client and a scripted upstream, on both rings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::net::TcpListener;
use std::time::Duration;

use support::server::free_port;
use support::{Close, Driver, Reply, Server, Upstream, on_both, one, send_together, start};

#[test]
fn connections_are_used_again() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "cores: 1\n");
        let mut client = server.client();
        (0..50).for_each(|_| assert_eq!(client.push(&one("a")).status, 200));
        assert_eq!(upstream.connections(), 1);
        assert_eq!(server.metric("tenantry_upstream_connections_reused_total", ""), 49.0);
    });
}

#[test]
fn a_connection_that_went_stale_is_no_error() {
    on_both(|driver| {
        // The upstream closes each connection after the answer without saying so, as after an idle timeout.
        let (server, upstream) = start(driver, |_| {
            Reply::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").close(Close::AfterReplyUnannounced)
        });
        let mut client = server.client();
        for _ in 0..20 {
            assert_eq!(client.push(&one("a")).status, 200);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(upstream.received().len(), 20, "nothing is sent twice");
    });
}

#[test]
fn a_stale_connection_that_dies_under_the_request_is_tried_once_more_on_a_fresh_one() {
    on_both(|driver| {
        // The connection dies when the second request has been read, so the check before its use can't notice.
        let (server, upstream) =
            start(driver, |r| if r.nth == 1 { Reply::from(Close::BeforeReply) } else { Reply::ok() });
        let mut client = server.client();
        assert_eq!(client.push(&one("a")).status, 200);
        assert_eq!(client.push(&one("a")).status, 200);
        assert_eq!(upstream.connections(), 2);
        assert_eq!(server.metric("tenantry_upstream_retries_total", ""), 1.0);
    });
}

#[test]
fn a_connection_that_dies_behind_an_interim_answer_is_not_tried_again() {
    on_both(|driver| {
        // A 100 says that the upstream has seen the request. Whether it stored the request can't be known.
        let interim = || Reply::raw(b"HTTP/1.1 100 Continue\r\n\r\n").close(Close::AfterReplyUnannounced);
        let (server, upstream) = start(driver, move |r| if r.nth == 1 { interim() } else { Reply::ok() });
        let mut client = server.client();
        assert_eq!(client.push(&one("a")).status, 200);
        assert_eq!(client.push(&one("a")).status, 502);
        assert_eq!(upstream.received().len(), 2, "nothing is sent twice");
    });
}

#[test]
fn a_fresh_connection_that_dies_is_not_tried_again_and_says_502() {
    on_both(|driver| {
        let (server, upstream) = start(driver, |_| Reply::from(Close::BeforeReply));
        let response = server.client().push(&one("a"));
        assert_eq!(response.status, 502, "{response:?}");
        assert_eq!(upstream.received().len(), 1, "it may have been stored: only its sender may repeat it");
        assert_eq!(server.metric("cortex_tenant_timeseries_request_errors", ""), 1.0);
    });
}

#[test]
fn an_upstream_that_is_not_there_is_502_and_comes_back() {
    on_both(|driver| {
        let address = free_port();
        let server = Server::start(driver, address, "");
        let mut client = server.client();
        let response = client.push(&one("a"));
        assert_eq!(response.status, 502, "{response:?}");
        let _upstream = Upstream::start_on(TcpListener::bind(address).unwrap(), |_| Reply::ok());
        assert_eq!(client.push(&one("a")).status, 200);
    });
}

#[test]
fn a_name_that_does_not_resolve_is_502_and_no_failure_to_start() {
    on_both(|driver| {
        let server = Server::start(driver, "upstream.invalid:9009", "resolve_interval: 1s\n");
        let response = server.client().push(&one("a"));
        assert_eq!(response.status, 502, "{response:?}");
        assert!(response.text().contains("resolve"), "{response:?}");
    });
}

#[test]
fn a_request_that_waits_for_a_connection_for_too_long_is_not_sent_and_says_503() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::from(Close::Stall));
        let server = Server::start(driver, upstream.address, "timeout: 400ms\nmax_conns_per_host: 1\n");
        let mut clients =
            send_together(&server, &[one("a"), one("b"), one("c"), one("d"), one("e"), one("f")]);
        let mut statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
        statuses.sort_unstable();
        assert!(statuses.iter().all(|s| [503, 504].contains(s)) && statuses.contains(&503), "{statuses:?}");
        assert_eq!(upstream.open_most(), 1);
        let sent = statuses.iter().filter(|&&s| s == 504).count();
        assert_eq!(upstream.received().len(), sent, "what says 503 was never sent: {statuses:?}");
    });
}

#[test]
fn max_conns_per_host_holds_for_the_whole_process_and_no_request_starves() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(5)));
        let server = Server::start(driver, upstream.address, "max_conns_per_host: 3\ncores: 2\n");
        let bodies: Vec<_> = (0..40).map(|i| one(&format!("t{i}"))).collect();
        for _ in 0..5 {
            let mut clients = send_together(&server, &bodies);
            clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        }
        assert_eq!(upstream.open_most(), 3);
        assert_eq!(upstream.received().len(), 200);
    });
}

/// However much two cores want of them, connections stay: each that moves to the other core is closed, and one is
/// opened.
#[test]
fn cores_that_want_more_connections_than_there_are_keep_those_they_have() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(2)));
        let server = Server::start(driver, upstream.address, "max_conns_per_host: 6\ncores: 2\n");
        let bodies: Vec<_> = (0..40).map(|i| one(&format!("t{i}"))).collect();
        for _ in 0..25 {
            let mut clients = send_together(&server, &bodies);
            clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        }
        let sent = upstream.received().len();
        assert_eq!((sent, upstream.open_most()), (1_000, 6));
        let opened = upstream.connections();
        eprintln!("{opened} connections");
        assert!(opened < 100, "{opened} connections for {sent} requests");
    });
}

#[test]
fn a_connection_is_not_used_past_max_connection_duration() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "max_connection_duration: 200ms\n");
        let mut client = server.client();
        for _ in 0..4 {
            assert_eq!(client.push(&one("a")).status, 200);
            std::thread::sleep(Duration::from_millis(110));
        }
        assert!(upstream.connections() >= 2, "{}", upstream.connections());
    });
}

#[test]
fn all_addresses_of_a_name_are_used_evenly() {
    // The test needs a `localhost` that is both 127.0.0.1 and ::1.
    let Ok(v6) = TcpListener::bind("[::1]:0") else { return eprintln!("no IPv6 here") };
    let port = v6.local_addr().unwrap().port();
    let Ok(v4) = TcpListener::bind(("127.0.0.1", port)) else { return eprintln!("the port is taken") };
    use std::net::ToSocketAddrs;
    if ("localhost", port).to_socket_addrs().map_or(0, Iterator::count) < 2 {
        return eprintln!("localhost has one address here");
    }
    let (four, six) = (Upstream::start_on(v4, |_| Reply::ok()), Upstream::start_on(v6, |_| Reply::ok()));
    let server = Server::start(Driver::Epoll, format!("localhost:{port}"), "enable_ipv6: true\ncores: 1\n");
    let mut client = server.client();
    (0..40).for_each(|_| assert_eq!(client.push(&one("a")).status, 200));
    assert_eq!((four.received().len(), six.received().len()), (20, 20));
}
