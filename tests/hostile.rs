//! People who mean harm, or might as well: what they send must cost little, reach nobody, and leave the others be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::client::push_head;
use support::{Client, Driver, Reply, Server, Upstream, body, eventually, on_both, series};

fn start(driver: Driver, extra: &str) -> (Server, Upstream) {
    let upstream = Upstream::start(|_| Reply::ok());
    (Server::start(driver, upstream.address, extra), upstream)
}

/// A whole push request of this tenant.
fn whole(tenant: &str) -> Vec<u8> {
    let body = body(vec![series(tenant, "up", 1.0)]);
    [push_head(body.len(), "").as_bytes(), &body].concat()
}

const POST: &str = "POST /push HTTP/1.1\r\nHost: x\r\n";

#[test]
fn unusual_but_lawful_framing_is_read_as_it_is_meant() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "");
        let body = body(vec![series("first", "up", 1.0)]);
        let (size, half) = (body.len(), body.len() / 2);
        let chunk = |bytes: &[u8], extension: &str| {
            [format!("{:x}{extension}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
        };
        let chunked = |extension: &str, trailers: &str| {
            let end = format!("000{extension}\r\n{trailers}\r\n").into_bytes();
            let head = format!("{POST}Transfer-Encoding: Chunked\r\n\r\n").into_bytes();
            [head, chunk(&body[..half], extension), chunk(&body[half..], ""), end].concat()
        };
        let lawful = [
            chunked("", ""),
            chunked(";name=value", ""),
            chunked(";q=\"a b\"", "Digest: 1\r\nContent-Length: 999\r\n"),
            [format!("\r\n{POST}Content-Length: {size}\r\n\r\n").as_bytes(), &body].concat(),
            [format!("{POST}content-length:\t{size} \r\n\r\n").as_bytes(), &body].concat(),
            [format!("{POST}Content-Length: 000{size}\r\n\r\n").as_bytes(), &body].concat(),
        ];
        for (at, bytes) in lawful.iter().enumerate() {
            let mut client = server.client();
            client.send(&[&bytes[..], &whole("second")].concat());
            for _ in 0..2 {
                let response = client.response();
                assert_eq!(response.status, 200, "{:?}: {response:?}", String::from_utf8_lossy(bytes));
            }
            assert_eq!((upstream.of("first").len(), upstream.of("second").len()), (at + 1, at + 1));
        }
    });
}

#[test]
fn ever_new_tenants_cost_bounded_memory_and_metrics() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "metrics_include_tenant: true\nlimits: {tenants_max: 100}\n");
        let mut client = server.client();
        let many =
            |round: usize| body((0..1_000).map(|n| series(&format!("r{round}t{n}"), "up", 1.0)).collect());
        assert_eq!(client.push(&many(0)).status, 200);
        let (page, resident) = (server.metrics_text().len(), resident_kib(&server));
        for round in 1..10 {
            assert_eq!(client.push(&many(round)).status, 200);
        }
        for n in 0..2_000 {
            assert_eq!(client.push(&body(vec![series(&format!("single{n}"), "up", 1.0)])).status, 200);
        }
        assert_eq!(upstream.received().len(), 12_000);
        let (page_now, resident_now) = (server.metrics_text().len(), resident_kib(&server));
        assert!(page_now < page + 2_000, "the page grew from {page} to {page_now} bytes");
        assert!(server.metric("tenantry_lanes", "") <= 400.0, "lanes of tenants that are gone, by core");
        let grown = resident_now.saturating_sub(resident);
        eprintln!("12,000 tenants: {grown} KiB more");
        assert!(grown < 30_000, "{grown} KiB for tenants that are gone");
    });
}

#[test]
fn a_buffer_takes_the_pages_that_it_needs_and_no_huge_ones() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "");
        assert_eq!(server.client().push(&body(vec![series("a", "up", 1.0)])).status, 200);
        assert_eq!(status(&server, "THP_enabled:"), 0);
    });
}

#[test]
fn more_tenants_than_a_request_may_have_are_refused() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "limits: {tenants_per_request_max: 50}\n");
        let of = |count: usize| body((0..count).map(|n| series(&format!("t{n}"), "up", 1.0)).collect());
        assert_eq!(server.client().push(&of(51)).status, 413);
        assert_eq!(upstream.received().len(), 0);
        assert_eq!(server.client().push(&of(50)).status, 200);
    });
}

#[test]
fn half_requests_are_cut_and_give_everything_back() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "timeout: 700ms\nconcurrency: 400\n");
        let begun = Instant::now();
        let mut clients: Vec<Client> = (0..200)
            .map(|n| {
                let mut client = server.client();
                let head = push_head(100_000, "");
                let bytes = if n % 2 == 0 { head.as_bytes() } else { &head.as_bytes()[..55 + n / 20] };
                client.send(bytes);
                client
            })
            .collect();
        // A few bytes now and then buy no time.
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(100));
            clients.iter_mut().for_each(|client| client.try_send(b"x"));
            assert_eq!(server.client().push(&body(vec![series("well", "up", 1.0)])).status, 200);
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 408);
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}");
        eventually("all is given back", || {
            server.metric("tenantry_in_flight_bytes", "") == 0.0
                && server.metric("tenantry_requests_in_flight", "") == 0.0
        });
        assert_eq!(upstream.of("well").len(), 4);
    });
}

#[test]
fn one_who_never_reads_the_answers_is_cut() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "timeout: 500ms\nidle_timeout: 60s\n");
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_nonblocking(true).unwrap();
        socket2::SockRef::from(&stream).set_recv_buffer_size(4_096).unwrap();
        // Questions without end, until the server can't get rid of its answers.
        let alive = b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
        let until = Instant::now() + Duration::from_secs(15);
        let mut sent = 0usize;
        loop {
            match (&stream).write(&alive[sent % alive.len()..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(_) => break,
            }
            assert!(Instant::now() < until, "still open after {sent} bytes");
        }
        eventually("it is gone", || server.metric("tenantry_connections_open", "") == 0.0);
        assert_eq!(server.client().push(&body(vec![series("well", "up", 1.0)])).status, 200);
    });
}

const ALIVE: &[u8] = b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn who_always_has_another_request_leaves_turns_to_others() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "timeout: 500ms\ncores: 1\n");
        let greedy = TcpStream::connect(server.address).unwrap();
        let (mut reads, mut writes) = (greedy.try_clone().unwrap(), greedy.try_clone().unwrap());
        let writing = std::thread::spawn(move || while writes.write_all(&ALIVE.repeat(5_000)).is_ok() {});
        let reading = std::thread::spawn(move || while reads.read(&mut [0; 1 << 16]).is_ok_and(|n| n > 0) {});
        eventually("it is served", || server.metric("tenantry_replies_total", "200") > 1_000.0);
        // Somebody else's requests, and somebody else's deadlines: both need a core that looks up now and then.
        let mut slow = server.client();
        slow.send(b"POST /push HT");
        let begun = Instant::now();
        for _ in 0..5 {
            let mut client = server.client();
            client.send(ALIVE);
            assert_eq!(client.response().status, 200);
        }
        assert_eq!(slow.response().status, 408);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        greedy.shutdown(std::net::Shutdown::Both).unwrap();
        let _ = (writing.join(), reading.join());
    });
}

#[test]
fn without_descriptors_it_waits_and_does_not_spin() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        // The server holds connections below its limit by itself; so the limit is lowered behind its back.
        let server = Server::start(driver, upstream.address, "cores: 2\nidle_timeout: 60s\n");
        let mut kept = server.client();
        assert_eq!(kept.push(&body(vec![series("a", "up", 1.0)])).status, 200);
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
        limit_descriptors(&server, open + 12);
        let mut crowd: Vec<Client> = (0..60).map(|_| server.client()).collect();
        std::thread::sleep(Duration::from_millis(300));
        let before = cpu_ticks(&server);
        std::thread::sleep(Duration::from_secs(1));
        let spent = cpu_ticks(&server) - before;
        assert!(spent <= 30, "{spent} ticks of CPU time in a second in which nothing can be done");
        assert_eq!(kept.push(&body(vec![series("a", "up", 1.0)])).status, 200, "who is in is served");
        limit_descriptors(&server, 1_024);
        for client in &mut crowd {
            assert_eq!(client.push(&body(vec![series("b", "up", 1.0)])).status, 200);
        }
    });
}

fn limit_descriptors(server: &Server, limit: u64) {
    let pid = server.pid().to_string();
    let limit = format!("--nofile={limit}:");
    assert!(std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

/// User and system time, in hundredths of a second.
fn cpu_ticks(server: &Server) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn resident_kib(server: &Server) -> u64 {
    status(server, "VmRSS:")
}

/// A number of /proc/PID/status (proc_pid_status(5)).
fn status(server: &Server, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
