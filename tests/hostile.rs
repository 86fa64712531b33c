//! People who mean harm, or might as well: what they send must cost little, reach nobody, and leave the others be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::client::push_head;
use support::server::free_port;
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

/// What two servers may read in two ways. Each is to be followed by a request that one of them would not see as such.
fn ambiguous() -> Vec<String> {
    let heads = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "content-length: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\n",
        "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\0\r\nContent-Length: 0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        "Content-Length: 0, 44\r\n\r\n",
        "Content-Length: 0x0\r\n\r\n",
        "Content-Length: +0\r\n\r\n",
        "Content-Length: 0 0\r\n\r\n",
        "Content-Length: \r\n\r\n",
        "Content-Length: 18446744073709551616\r\n\r\n",
        "Host: y\r\nContent-Length: 0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1_0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n 0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1;a=\n\r\na\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
        "Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n",
    ];
    let mut all: Vec<String> = heads.iter().map(|head| format!("{POST}{head}")).collect();
    all.push("POST /push HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into());
    all.push("POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\n".into());
    all.push("POST /push\r\nHost: x\r\n\r\n".into());
    all.push("POST\t/push\tHTTP/1.1\r\nHost: x\r\n\r\n".into());
    all.push("POST /push HTTP/1.1 \r\nHost: x\r\n\r\n".into());
    all
}

#[test]
fn nothing_is_smuggled_behind_an_ambiguous_request() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "");
        for bytes in ambiguous() {
            let mut client = server.client();
            client.try_send(&[bytes.as_bytes(), &whole("smuggled")].concat());
            let response = client.response();
            assert_eq!(response.status, 400, "{bytes:?}: {response:?}");
            assert_eq!(response.header("connection"), Some("close"), "{bytes:?}");
            assert!(client.is_closed(), "{bytes:?}");
        }
        assert_eq!(upstream.received().len(), 0);
        assert_eq!(server.client().push(&body(vec![series("honest", "up", 1.0)])).status, 200);
    });
}

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

/// What a label's value may not smuggle into a header or a path.
const EVIL: [&str; 8] = [
    "a\r\nX-Scope-OrgID: other",
    "a\nX: y",
    "a\0b",
    "a\tb",
    "\u{e9}",
    "a b",
    "a\r\n\r\nPOST /evil HTTP/1.1\r\n\r\n",
    "..",
];

fn loki_json(tenant: &str) -> Vec<u8> {
    let stream = serde_json::json!({ "tenant": tenant });
    let values = serde_json::json!([["1700000000000000000", "line"]]);
    serde_json::json!({ "streams": [{ "stream": stream, "values": values }] }).to_string().into_bytes()
}

#[test]
fn a_label_can_forge_neither_headers_nor_paths() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let target = upstream.address;
        for (rules, header) in [("mimir", "X-Scope-OrgID"), ("thanos", "THANOS-TENANT")] {
            let server = Server::start(
                driver,
                target,
                &format!(
                    "target_loki: http://{target}/loki\ntenant: {{label: tenant, header: {header}, id_rules: {rules}}}\n"
                ),
            );
            for evil in EVIL.iter().copied().chain([&*"x".repeat(300), ""]) {
                let v1 = support::remote_write::WriteRequest {
                    timeseries: vec![series(evil, "up", 1.0)],
                    metadata: vec![],
                };
                let v2 = loadgen_v2(evil);
                let bodies = [
                    ("/push", "Content-Encoding: snappy\r\n", support::remote_write::deflate(&v1)),
                    ("/push", V2, v2),
                    ("/loki/api/v1/push", "Content-Type: application/json\r\n", loki_json(evil)),
                ];
                for (path, fields, body) in bodies {
                    let mut client = server.client();
                    client.send(
                        format!(
                            "POST {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {}\r\n\r\n",
                            body.len()
                        )
                        .as_bytes(),
                    );
                    client.send(&body);
                    let response = client.response();
                    assert_eq!(response.status, 400, "{rules} {path} {evil:?}: {response:?}");
                    let text = response.text();
                    assert!(!text.trim_end().contains(|c: char| c.is_control()), "{text:?}");
                }
            }
        }
        assert_eq!(upstream.received().len(), 0);
    });
}

const V2: &str = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
                  Content-Encoding: snappy\r\n";

fn loadgen_v2(tenant: &str) -> Vec<u8> {
    use loadgen::proto::{TimeSeries, WriteRequest};
    let labels = [("__name__", "up"), ("tenant", tenant)];
    let series = TimeSeries::new(&labels, &[(1_700_000_000_000, 1.0)]);
    let request = WriteRequest { timeseries: vec![series], metadata: Vec::new() };
    loadgen::proto_v2::Request::from(&request).to_block().to_vec()
}

#[test]
fn a_tenant_in_the_path_stays_one_segment_of_it() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let metrics = free_port();
        let config = format!(
            "listen: 127.0.0.1:0\nlisten_metrics_address: {metrics}\ntenant: {{label: tenant}}\n\
             target: http://{}/api/{{tenant}}/push\nlog_level: warn\ndriver: {}\n",
            upstream.address,
            driver.name(),
        );
        let server = Server::start_with(&config, metrics, &[]);
        for tenant in ["a!b", "(c)", "d'e*f"] {
            assert_eq!(server.client().push(&body(vec![series(tenant, "up", 1.0)])).status, 200);
        }
        let paths: Vec<_> = upstream.received().iter().map(|request| request.path.clone()).collect();
        assert!(paths.iter().all(|path| path.split('/').count() == 4), "{paths:?}");
        for tenant in ["a/b", "..", "%2e%2e", "a?b", "a#b", "a\\b"] {
            let status = server.client().push(&body(vec![series(tenant, "up", 1.0)])).status;
            assert_eq!(status, 400, "{tenant}");
        }
        assert_eq!(upstream.received().len(), 3);
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
            match (&stream).write(&alive) {
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
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
