//! Scrapes while slow clients hold connections to the admin port. The port listens on every interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tenantry::limits::ADMIN_TIMEOUT_MILLIS;

use support::{Client, Reply, Server, Upstream, body, eventually, on_both, series};

/// More clients than may be connected at a time.
const CLIENTS: usize = 500;

/// A server with some hundred tenants, so that its page exceeds what the kernel buffers for a client.
fn start(driver: support::Driver, upstream: &Upstream) -> Server {
    let server = Server::start(driver, upstream.address, "metrics_include_tenant: true\n");
    let tenants = (0..400).map(|n| series(&format!("tenant-{n}"), "up", 1.0));
    assert_eq!(server.client().push(&body(tenants.collect())).status, 200);
    server
}

/// How long each of five scrapes takes, a moment apart; the fastest first.
fn scrapes(server: &Server) -> Vec<Duration> {
    let scrapes = (0..5).map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let begun = Instant::now();
        assert!(server.metrics_text().ends_with('\n'));
        begun.elapsed()
    });
    let mut times: Vec<_> = scrapes.collect();
    times.sort_unstable();
    times
}

/// Scrapes wait for no slow client, which may take [`ADMIN_TIMEOUT_MILLIS`]. `alone` is what scrapes take on this
/// machine without such clients. One of five may be held up by the machine.
fn scrapes_are_prompt(server: &Server, alone: &[Duration]) {
    let (times, usual, timeout) = (scrapes(server), alone[4], Duration::from_millis(ADMIN_TIMEOUT_MILLIS));
    let (most, all) = (timeout / 4 + 4 * usual, timeout / 2 + 8 * usual);
    assert!(times[3] < most && times[4] < all, "{times:?}; without slow clients: {alone:?}");
}

fn connect(server: &Server) -> Vec<TcpStream> {
    (0..CLIENTS).map(|_| TcpStream::connect(server.metrics).unwrap()).collect()
}

#[test]
fn slow_clients_delay_neither_scrapes_nor_the_end_of_the_server() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let mut server = start(driver, &upstream);
        let alone = scrapes(&server);
        let memory = server.status_kib("VmRSS");

        let silent = connect(&server);
        scrapes_are_prompt(&server, &alone);

        let mut slow = connect(&server);
        // A write to a client that was closed to make room fails.
        slow.iter_mut().for_each(|client| _ = client.write_all(b"GET /metrics HTTP/1.1\r\nX: "));
        scrapes_are_prompt(&server, &alone);
        slow.iter_mut().for_each(|client| _ = client.write_all(b"x"));
        scrapes_are_prompt(&server, &alone);

        let mut unread = connect(&server);
        unread
            .iter_mut()
            .for_each(|client| _ = client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        scrapes_are_prompt(&server, &alone);

        let grown = server.status_kib("VmRSS").saturating_sub(memory);
        assert!(grown < 64 << 10, "{grown} KiB");
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(20)).code(), Some(0));
        drop((silent, slow, unread));
    });
}

#[test]
fn a_successor_shows_its_metrics_on_the_same_port() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let mut server = start(driver, &upstream);
        let alone = scrapes(&server);
        let config = std::fs::read_to_string(server.file()).unwrap();
        let successor = Server::start_with(&config, server.metrics, &[]);
        let silent = connect(&server);
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(20)).code(), Some(0));
        drop(silent);
        eventually("only the successor is left", || {
            let mut client = Client::connect(successor.metrics);
            client.send(b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
            client.response().status == 200
        });
        scrapes_are_prompt(&successor, &alone);
    });
}
