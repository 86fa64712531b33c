//! Hostile or broken clients: their requests must cost little, reach no upstream, and not disturb other senders. Over
//! plain TCP, and where the transport matters over TLS, too.
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

use prost::Message;
use support::client::push_head;
use support::remote_write::WriteRequest;
use support::{
    Client, Close, Driver, Reply, Server, Transport, Upstream, body, eventually, on_all, on_both, series,
};

fn start(driver: Driver, extra: &str) -> (Server, Upstream) {
    start_over(Transport::Plain, driver, extra)
}

fn start_over(transport: Transport, driver: Driver, extra: &str) -> (Server, Upstream) {
    let upstream = Upstream::start(|_| Reply::ok());
    (Server::start_over(transport, driver, upstream.address, extra), upstream)
}

/// A whole push request of this tenant.
fn whole(tenant: &str) -> Vec<u8> {
    let body = body(vec![series(tenant, "up", 1.0)]);
    [push_head(body.len(), "").as_bytes(), &body].concat()
}

const POST: &str = "POST /push HTTP/1.1\r\nHost: x\r\n";

#[test]
fn unusual_but_valid_framing_is_accepted() {
    on_all(|driver, transport| {
        let (server, upstream) = start_over(transport, driver, "");
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
        let (page, resident) = (server.metrics_text().len(), server.status_kib("VmRSS"));
        for round in 1..10 {
            assert_eq!(client.push(&many(round)).status, 200);
        }
        for n in 0..2_000 {
            assert_eq!(client.push(&body(vec![series(&format!("single{n}"), "up", 1.0)])).status, 200);
        }
        assert_eq!(upstream.received().len(), 12_000);
        let (page_now, resident_now) = (server.metrics_text().len(), server.status_kib("VmRSS"));
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
        assert_eq!(server.status_kib("THP_enabled"), 0);
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
fn incomplete_requests_are_cut_and_their_memory_is_freed() {
    on_all(|driver, transport| {
        let (server, upstream) = start_over(transport, driver, "timeout: 700ms\nconcurrency: 400\n");
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
        // A few bytes now and then do not extend the time.
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(100));
            clients.iter_mut().for_each(|client| client.try_send(b"x"));
            assert_eq!(server.client().push(&body(vec![series("well", "up", 1.0)])).status, 200);
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 503);
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

/// Only a byte of each body is sent, so only that byte counts against the budget.
#[test]
fn announced_bodies_that_never_come_keep_no_sender_out() {
    on_all(|driver, transport| {
        let limits = "concurrency: 4\n\
                      limits: {body_bytes_max: 8Mi, inflated_bytes_max: 8Mi, in_flight_bytes_max: 20Mi}\n";
        let (server, _upstream) = start_over(transport, driver, limits);
        let _waiting: Vec<Client> = [8, 8 << 20]
            .repeat(20)
            .into_iter()
            .map(|length| {
                let mut client = server.client();
                client.send(push_head(length, "").as_bytes());
                client.send(b"x");
                client
            })
            .collect();
        eventually("all have begun", || server.metric("tenantry_in_flight_bytes", "") == 40.0);
        for _ in 0..10 {
            assert_eq!(server.client().push(&body(vec![series("well", "up", 1.0)])).status, 200);
        }
    });
}

/// A body counts with the bytes that it inflates to, and so do its parts. Zstd finds repetitions beyond snappy's 64
/// KiB, so a small body can have large parts.
#[test]
fn inflated_bytes_count_against_the_memory_budget() {
    const INFLATED: usize = 30 << 20;
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(300)));
        let limits =
            "cores: 2\nlimits: {in_flight_bytes_max: 70Mi, body_bytes_max: 1Mi, inflated_bytes_max: 32Mi}\n";
        let server = Server::start(driver, upstream.address, limits);
        let mut noise = 1u64;
        let mut random = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{noise:016x}")
        };
        // Many tenants, as each may use only its share.
        let all = (0..500).map(|n| {
            let name: String = (0..8).map(|_| random()).collect();
            series(&format!("t{}", n % 50), &name, 1.0)
        });
        let some = WriteRequest { timeseries: all.collect(), metadata: vec![] }.encode_to_vec();
        let plain = some.repeat(INFLATED / some.len());
        let small = zstd::encode_all(&plain[..], 3).unwrap();
        assert!(small.len() < plain.len() / 100, "{} of {}", small.len(), plain.len());
        server.forget_peak();
        let head = format!("{POST}Content-Encoding: zstd\r\nContent-Length: {}\r\n\r\n", small.len());
        let mut clients: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = server.client();
                client.send(&[head.as_bytes(), &small].concat());
                client
            })
            .collect();
        let statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
        assert!(statuses.iter().all(|s| [200, 503].contains(s)) && statuses.contains(&200), "{statuses:?}");
        let peak = server.status_kib("VmHWM");
        eprintln!("{peak} KiB at most, {} of 20 got through", statuses.iter().filter(|s| **s == 200).count());
        assert!(peak < 210 << 10, "{peak} KiB");
        eventually("all is given back", || server.metric("tenantry_in_flight_bytes", "") == 0.0);
    });
}

/// The body is freed once it is split. While the upstream takes its time, only the part that was sent counts.
#[test]
fn dropped_series_take_no_memory_while_the_others_are_in_flight() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::from(Close::Stall));
        let server = Server::start(
            driver,
            upstream.address,
            "timeout: 3s\ntenant: {label: tenant, on_missing: drop}\n",
        );
        let nobodys = (0..5_000).map(|n| series("", &format!("up_{n}_{}", n * 7_919), 1.0));
        let all = nobodys.chain([series("a", "up", 1.0)]).collect();
        let body = body(all);
        let mut client = server.client();
        client.send(&[push_head(body.len(), "").as_bytes(), &body].concat());
        eventually("its one part is on its way", || upstream.received().len() == 1);
        let in_flight = server.metric("tenantry_in_flight_bytes", "");
        assert!(in_flight > 0.0 && in_flight < 1_000.0, "{in_flight} of {} bytes", body.len());
    });
}

/// The sender can read the reason, also if it goes on sending or announces that the connection ends.
#[test]
fn a_refused_sender_can_finish_its_body_and_read_the_answer() {
    on_all(|driver, transport| {
        let upstream = Upstream::start(|_| Reply::from(Close::Stall));
        let server = Server::start_over(transport, driver, upstream.address, "concurrency: 1\ntimeout: 3s\n");
        let mut first = server.client();
        first.send(&whole("a"));
        eventually("it is in work", || server.metric("tenantry_requests_in_flight", "") == 1.0);
        for connection in ["keep-alive", "close"] {
            let mut client = server.client();
            client.send(push_head(400_000, &format!("Connection: {connection}\r\n")).as_bytes());
            std::thread::sleep(Duration::from_millis(100));
            for _ in 0..40 {
                client.send(&[0; 10_000]);
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(client.response().status, 503, "{connection}");
        }
    });
}

#[test]
fn a_client_that_never_reads_answers_is_cut() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "timeout: 500ms\nidle_timeout: 60s\n");
        // The buffer is set before the connection is opened. If the window shrinks later, the kernel drops what comes,
        // acknowledgements included, and no byte moves in either direction.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&server.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true).unwrap();
        // Requests without end, until the server can't send its answers any more.
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
fn a_client_that_pipelines_without_end_leaves_turns_to_others() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "timeout: 500ms\ncores: 1\n");
        let greedy = TcpStream::connect(server.address).unwrap();
        let (mut reads, mut writes) = (greedy.try_clone().unwrap(), greedy.try_clone().unwrap());
        let writing = std::thread::spawn(move || while writes.write_all(&ALIVE.repeat(5_000)).is_ok() {});
        let reading = std::thread::spawn(move || while reads.read(&mut [0; 1 << 16]).is_ok_and(|n| n > 0) {});
        eventually("it is served", || server.metric("tenantry_replies_total", "200") > 1_000.0);
        // Requests and deadlines of other connections, which share the core.
        let mut slow = server.client();
        slow.send(b"POST /push HT");
        let begun = Instant::now();
        for _ in 0..5 {
            let mut client = server.client();
            client.send(ALIVE);
            assert_eq!(client.response().status, 200);
        }
        assert_eq!(slow.response().status, 503);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        greedy.shutdown(std::net::Shutdown::Both).unwrap();
        let _ = (writing.join(), reading.join());
    });
}

#[test]
fn a_server_without_descriptors_waits_and_does_not_spin() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        // The server keeps its connections below its limit of descriptors, so the limit is lowered while it runs.
        let server = Server::start(driver, upstream.address, "cores: 2\nidle_timeout: 60s\n");
        let mut kept = server.client();
        assert_eq!(kept.push(&body(vec![series("a", "up", 1.0)])).status, 200);
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
        limit_descriptors(&server, open + 12);
        let mut crowd: Vec<Client> = (0..60).map(|_| server.client()).collect();
        std::thread::sleep(Duration::from_millis(300));
        let before = server.cpu_ticks();
        std::thread::sleep(Duration::from_secs(1));
        let spent = server.cpu_ticks() - before;
        assert!(spent <= 30, "{spent} ticks of CPU time in a second in which nothing can be done");
        assert_eq!(
            kept.push(&body(vec![series("a", "up", 1.0)])).status,
            200,
            "an open connection is served"
        );
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
