//! The log, as whoever reads it sees it, and what the server does when nobody does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::time::{Duration, Instant};

use support::{Driver, Reply, Server, Upstream, body, eventually, on_both, series};

const ALIVE: &[u8] = b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n";
/// What an upstream says of each tenant whose name begins with `bad`.
const REFUSAL: &str = "there is a lot to be said against this sample";
/// Refused tenants: no more than whose lines are limited apart from each other.
const TENANTS: usize = 1_000;
/// What each of them may log in a window.
const TIMES: usize = 5;
const TENANTS_EACH: usize = 250;

/// An upstream that refuses bad tenants at length.
fn strict() -> Upstream {
    Upstream::start(|request| match request.tenant().starts_with("bad") {
        true => Reply::status(400, &REFUSAL.repeat(20)),
        false => Reply::ok(),
    })
}

/// A server on two cores that logs into a pipe, and the pipe's other end.
fn start(driver: Driver, upstream: &Upstream) -> (Server, ChildStderr) {
    let more = "log_response_errors: true\ncores: 2\n";
    Server::start_piped(driver, upstream.address, more)
}

/// Has the server log 5 MB, far more than a pipe holds and a queue keeps.
fn fill(server: &Server) {
    let mut client = server.client();
    for first in (0..TENANTS).step_by(TENANTS_EACH) {
        let tenants = (first..first + TENANTS_EACH).map(|n| series(&format!("bad-{n}"), "up", 1.0));
        let request = body(tenants.collect());
        for _ in 0..TIMES {
            assert_eq!(client.push(&request).status, 400);
        }
    }
}

fn serves(server: &Server) {
    let begun = Instant::now();
    assert_eq!(server.client().push(&body(vec![series("good", "up", 1.0)])).status, 200);
    let mut probe = server.client();
    probe.send(ALIVE);
    assert_eq!(probe.response().status, 200);
    assert!(server.metrics_text().contains("tenantry_requests_total"));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_reader_of_the_log_that_stalls_stops_nothing() {
    on_both(|driver| {
        let upstream = strict();
        let (mut server, pipe) = start(driver, &upstream);
        fill(&server);
        serves(&server);
        server.signal("HUP");
        serves(&server);
        assert!(server.metric("tenantry_log_lines_dropped_total", "") > 0.0);
        server.signal("TERM");
        let begun = Instant::now();
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        drop(pipe);
    });
}

#[test]
fn a_reader_that_resumes_finds_whole_lines_and_is_told_how_many_are_missing() {
    on_both(|driver| {
        let upstream = strict();
        let (mut server, pipe) = start(driver, &upstream);
        fill(&server);
        let dropped = server.metric("tenantry_log_lines_dropped_total", "");
        let reading = std::thread::spawn(move || {
            let lines = BufReader::new(pipe).lines();
            lines.map(|line| line.unwrap()).collect::<Vec<_>>()
        });
        eventually("all is written", || server.metric("tenantry_log_lines_waiting", "") == 0.0);
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
        let lines = reading.join().unwrap();
        for line in &lines {
            let level = line.split_whitespace().nth(1);
            assert!(line.starts_with("20") && matches!(level, Some("INFO" | "WARN" | "ERROR")), "{line}");
        }
        let missing: usize = lines
            .iter()
            .filter_map(|line| {
                line.split_once(" lines are missing here")?.0.rsplit(' ').next()?.parse::<usize>().ok()
            })
            .sum();
        assert!(missing > 0 && missing as f64 == dropped, "{missing} of {dropped}");
        let refusals = lines.iter().filter(|line| line.contains(REFUSAL)).count();
        assert_eq!(refusals + missing, TENANTS * TIMES, "each line was written or counted");
        assert!(lines.last().unwrap().contains("finishing what is in flight"), "the last words are there");
    });
}
