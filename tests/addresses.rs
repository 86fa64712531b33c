//! An upstream whose name has several addresses, of which one fails: the real server between a raw client and scripted
//! upstreams, on both rings. The name exists in a mount namespace of the server. Without mount namespaces, nothing is
//! tested.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::client::push_head;
use support::server::free_port;
use support::{Client, Close, Driver, Reply, Server, Upstream, eventually, on_both, one};
use tenantry::limits::BACKOFF_AFTER_FAILURES;

const HOSTS: &str = "127.0.0.1 localhost\n127.0.0.1 twins\n127.0.0.2 twins\n";

/// The twins' listeners, on one port.
fn twins() -> [TcpListener; 2] {
    for _ in 0..20 {
        let port = free_port().port();
        let twins = ["127.0.0.1", "127.0.0.2"].map(|ip| TcpListener::bind((ip, port)));
        if let [Ok(first), Ok(second)] = twins {
            return [first, second];
        }
    }
    panic!("no port that is free on both addresses")
}

/// A server of one core that sends to both twins, on the port of `twin`.
fn start(driver: Driver, twin: SocketAddr, extra: &str) -> Option<Server> {
    let target = format!("twins:{}", twin.port());
    Server::start_knowing(driver, HOSTS, target, &format!("cores: 1\n{extra}"))
}

fn statuses(client: &mut Client, count: usize) -> Vec<u16> {
    (0..count).map(|_| client.push(&one("a")).status).collect()
}

/// How many lines of the log contain `what`.
fn lines(server: &Server, what: &str) -> usize {
    server.log().iter().filter(|line| line.contains(what)).count()
}

/// How many requests may have gone to an address that always fails: those before its first backoff, and one probe a
/// second at most.
fn failures_max(since: Instant) -> usize {
    BACKOFF_AFTER_FAILURES as usize + since.elapsed().as_secs() as usize
}

#[test]
fn a_name_with_two_addresses_has_both_used_evenly() {
    on_both(|driver| {
        let [first, second] = twins().map(|listener| Upstream::start_on(listener, |_| Reply::ok()));
        let Some(server) = start(driver, first.address, "") else { return };
        assert_eq!(statuses(&mut server.client(), 40), [200; 40]);
        assert_eq!((first.received().len(), second.received().len()), (20, 20));
        assert_eq!(server.metric("tenantry_upstream_backoffs_total", ""), 0.0);
    });
}

#[test]
fn an_address_that_refuses_rests_unnoticed_and_is_used_again_when_it_is_back() {
    on_both(|driver| {
        let [live, dead] = twins();
        let address = dead.local_addr().unwrap();
        drop(dead);
        let live = Upstream::start_on(live, |_| Reply::ok());
        let Some(server) = start(driver, live.address, "") else { return };
        let mut client = server.client();
        assert_eq!(statuses(&mut client, 30), [200; 30]);
        assert_eq!(live.received().len(), 30, "nothing was sent twice");
        assert_eq!(server.metric("tenantry_upstream_addresses_in_backoff", ""), 1.0);
        assert_eq!(lines(&server, "WARN an upstream address fails again and again"), 1);
        // Whenever its backoff ends, one request probes it, fails, and is sent to the other address.
        eventually("it was probed", || {
            assert_eq!(client.push(&one("a")).status, 200);
            server.metric("tenantry_upstream_backoffs_total", "") >= 2.0
        });
        assert_eq!(lines(&server, "WARN an upstream address fails again and again"), 1, "logged once");

        let back = Upstream::start_on(TcpListener::bind(address).unwrap(), |_| Reply::ok());
        eventually("it is used again", || {
            assert_eq!(client.push(&one("a")).status, 200);
            !back.received().is_empty()
        });
        assert_eq!(lines(&server, "INFO an upstream address is back"), 1);
        assert_eq!(server.metric("tenantry_upstream_addresses_in_backoff", ""), 0.0);
        let before = back.received().len();
        assert_eq!(statuses(&mut client, 20), [200; 20]);
        assert_eq!(back.received().len() - before, 10, "as evenly as before");
    });
}

#[test]
fn an_address_that_breaks_off_costs_a_few_requests_and_no_more() {
    on_both(|driver| {
        let [live, dead] = twins();
        let live = Upstream::start_on(live, |_| Reply::ok());
        let dead = Upstream::start_on(dead, |_| Reply::from(Close::BeforeReply));
        let Some(server) = start(driver, live.address, "") else { return };
        let begun = Instant::now();
        let statuses = statuses(&mut server.client(), 60);
        let failed = statuses.iter().filter(|&&status| status == 502).count();
        assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 60 - failed);
        assert!((BACKOFF_AFTER_FAILURES as usize..=failures_max(begun)).contains(&failed), "{failed}");
        assert_eq!(dead.connections(), failed, "no other connection was opened to it");
    });
}

#[test]
fn an_address_that_never_answers_rests_and_one_that_answers_others_does_not() {
    on_both(|driver| {
        let [live, silent] = twins();
        let live = Upstream::start_on(live, |_| Reply::ok());
        let _silent = Upstream::start_on(silent, |_| Reply::from(Close::Stall));
        let Some(server) = start(driver, live.address, "timeout: 300ms\n") else { return };
        let begun = Instant::now();
        let statuses = statuses(&mut server.client(), 30);
        let failed = statuses.iter().filter(|&&status| status == 504).count();
        assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 30 - failed);
        assert!((BACKOFF_AFTER_FAILURES as usize..=failures_max(begun)).contains(&failed), "{failed}");
    });
    on_both(|driver| {
        let script = |r: &support::upstream::Received| match r.tenant() {
            "slow" => Reply::from(Close::Stall),
            _ => Reply::ok(),
        };
        let [first, second] = twins().map(|listener| Upstream::start_on(listener, script));
        let settings = "timeout: 500ms\nmerge: {inflight_max: 20, fragments_max: 1}\n";
        let Some(server) = start(driver, first.address, settings) else { return };
        let slow = one("slow");
        let request = [push_head(slow.len(), "").as_bytes(), &slow].concat();
        let mut waiting: Vec<_> = (0..20).map(|_| server.client()).collect();
        waiting.iter_mut().for_each(|client| client.send(&request));
        let mut client = server.client();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(700) {
            assert_eq!(client.push(&one("a")).status, 200);
        }
        waiting.iter_mut().for_each(|client| assert_eq!(client.response().status, 504));
        assert!(first.of("slow").len() >= 3 && second.of("slow").len() >= 3);
        assert_eq!(
            server.metric("tenantry_upstream_backoffs_total", ""),
            0.0,
            "one tenant's trouble is its own"
        );
    });
}

#[test]
fn a_request_finds_the_other_address_in_time_where_one_drops_what_it_is_sent() {
    on_both(|driver| {
        let [live, dropping] = twins();
        // With a full backlog, Linux answers no SYN.
        rustix::net::listen(&dropping, 0).unwrap();
        let address = dropping.local_addr().unwrap();
        let _fills = TcpStream::connect(address).unwrap();
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            return eprintln!("a full backlog still answers here");
        }
        let live = Upstream::start_on(live, |_| Reply::ok());
        let Some(server) = start(driver, live.address, "timeout: 2s\n") else { return };
        assert_eq!(statuses(&mut server.client(), 20), [200; 20]);
        assert!(server.metric("tenantry_upstream_backoffs_total", "") >= 1.0);
    });
}

/// An answer after which the connection ends, so that the next request needs another one.
fn last_answer() -> Reply {
    Reply::raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .close(Close::AfterReplyUnannounced)
}

/// Ends an upstream, and waits until its address refuses connections.
fn end(upstream: Upstream) {
    let address = upstream.address;
    drop(upstream);
    eventually("it refuses", || TcpStream::connect(address).is_err());
}

#[test]
fn an_address_that_rests_is_asked_at_once_when_the_other_refuses() {
    on_both(|driver| {
        let [live, dead] = twins();
        let address = dead.local_addr().unwrap();
        drop(dead);
        let live = Upstream::start_on(live, |_| last_answer());
        let Some(server) = start(driver, live.address, "") else { return };
        let mut client = server.client();
        assert_eq!(statuses(&mut client, 10), [200; 10]);
        assert_eq!(server.metric("tenantry_upstream_addresses_in_backoff", ""), 1.0);
        let back = Upstream::start_on(TcpListener::bind(address).unwrap(), |_| last_answer());
        end(live);
        assert_eq!(statuses(&mut client, 10), [200; 10]);
        assert_eq!(back.received().len(), 10);
    });
}

#[test]
fn where_all_addresses_rest_they_are_asked_all_the_same() {
    on_both(|driver| {
        let [first, second] = twins();
        let addresses = [&first, &second].map(|listener| listener.local_addr().unwrap());
        drop((first, second));
        let Some(server) = start(driver, addresses[0], "") else { return };
        let mut client = server.client();
        for back in addresses {
            assert_eq!(statuses(&mut client, 10), [502; 10]);
            assert_eq!(server.metric("tenantry_upstream_addresses_in_backoff", ""), 2.0);
            let upstream = Upstream::start_on(TcpListener::bind(back).unwrap(), |_| last_answer());
            assert_eq!(client.push(&one("a")).status, 200, "at once");
            end(upstream);
        }
        // Each address once, and again the one that was back.
        assert_eq!(lines(&server, "WARN an upstream address fails again and again"), 3);
    });
}
