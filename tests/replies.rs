//! Unusual replies of an upstream: replies that come too early or over a connection that is out of step, and statuses
//! that are no answer to the request. The real server between a raw client and a scripted upstream, on both rings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use prost::Message;
use support::remote_write::{WriteRequest, deflate, metadata_of_up};
use support::{Close, Reply, Server, Upstream, body, eventually, on_both, one, series, start};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// An upstream that serves each connection with `talk`, in a thread of its own. Its receive buffers are small, so that
/// a sender of a large request notices when it does not read.
fn unruly(talk: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).set_recv_buffer_size(4_096).unwrap();
    let (address, talk) = (listener.local_addr().unwrap(), Arc::new(talk));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let talk = Arc::clone(&talk);
            std::thread::spawn(move || talk(stream));
        }
    });
    address
}

/// Reads at least the first bytes of a request.
fn begin_to_read(stream: &mut TcpStream) -> usize {
    stream.read(&mut [0; 1_024]).unwrap_or(0)
}

/// Reads a head and the body that it announces. False when there is none.
fn read_request(stream: &mut TcpStream) -> bool {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            if bytes.len() >= head.len() + 4 + length.parse::<usize>().unwrap() {
                return true;
            }
        }
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return false,
        }
    }
}

/// A request of one tenant that exceeds the buffers of a socket: 7 MiB that can't be compressed.
fn huge() -> Vec<u8> {
    let mut state = 1_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
    };
    let name = |n: usize, letter: &mut dyn FnMut() -> char| {
        let mut series = series("a", &format!("m{n}"), 1.0);
        series.labels[1].value = (0..1 << 16).map(|_| letter()).collect::<String>().into();
        series
    };
    let request = body((0..112).map(|n| name(n, &mut letter)).collect());
    assert!(request.len() > 6 << 20 && request.len() < 8 << 20, "{}", request.len());
    request
}

#[test]
fn a_2xx_before_all_of_the_request_was_sent_is_no_success() {
    let request = huge();
    let closes = |mut stream: TcpStream| {
        begin_to_read(&mut stream);
        stream.write_all(OK).unwrap();
        sleep(Duration::from_millis(200));
    };
    let stalls = |mut stream: TcpStream| {
        begin_to_read(&mut stream);
        stream.write_all(OK).unwrap();
        sleep(Duration::from_secs(10));
    };
    let reads_on = |mut stream: TcpStream| {
        begin_to_read(&mut stream);
        stream.write_all(OK).unwrap();
        // A server that had no CPU until now would find an answer to a request that it has sent.
        sleep(Duration::from_secs(1));
        while stream.read(&mut [0; 65_536]).is_ok_and(|n| n > 0) {}
    };
    on_both(|driver| {
        for (what, address, status) in [
            ("and closes", unruly(closes), 502),
            ("and stalls", unruly(stalls), 502),
            ("and reads on", unruly(reads_on), 502),
        ] {
            let server = Server::start(driver, address, "timeout: 2s\n");
            let response = server.client().push(&request);
            assert_eq!(response.status, status, "it says 200 {what}: {response:?}");
        }
    });
}

/// An upstream may refuse a request before it has read all of it.
#[test]
fn an_early_refusal_stays_as_it_is() {
    let request = huge();
    let refuses = |mut stream: TcpStream| {
        begin_to_read(&mut stream);
        stream.write_all(b"HTTP/1.1 422 X\r\nContent-Length: 7\r\n\r\ntoo old").unwrap();
        sleep(Duration::from_millis(200));
    };
    on_both(|driver| {
        let server = Server::start(driver, unruly(refuses), "timeout: 2s\n");
        let response = server.client().push(&request);
        assert_eq!((response.status, response.text().as_str()), (422, "too old"));
    });
}

/// Otherwise the next request, of another tenant, would get those bytes as its answer.
#[test]
fn a_connection_with_bytes_waiting_is_not_used() {
    on_both(|driver| {
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opened, read) = (Arc::clone(&connections), Arc::clone(&requests));
        let address = unruly(move |mut stream| {
            opened.fetch_add(1, Ordering::SeqCst);
            while read_request(&mut stream) {
                read.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(OK);
                sleep(Duration::from_millis(3));
                let _ = stream.write_all(OK);
            }
        });
        let server = Server::start(driver, address, "cores: 1\n");
        let mut client = server.client();
        for pushed in 1..=5 {
            assert_eq!(client.push(&one("a")).status, 200);
            assert_eq!(connections.load(Ordering::SeqCst), pushed, "each request has its own connection");
            assert_eq!(requests.load(Ordering::SeqCst), pushed, "the upstream has it");
            sleep(Duration::from_millis(15));
        }
    });
}

#[test]
fn a_408_on_a_used_connection_is_its_idle_timeout_and_tried_once_more() {
    on_both(|driver| {
        let gone = || {
            Reply::raw(b"HTTP/1.1 408 X\r\nConnection: close\r\n\r\nidle").close(Close::AfterReplyUnannounced)
        };
        let (server, upstream) = start(driver, move |r| if r.nth == 1 { gone() } else { Reply::ok() });
        let mut client = server.client();
        assert_eq!(client.push(&one("a")).status, 200);
        let response = client.push(&one("a"));
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(upstream.connections(), 2);
        assert_eq!(server.metric("tenantry_upstream_retries_total", ""), 1.0);
    });
}

#[test]
fn a_408_or_499_says_nothing_of_the_content() {
    on_both(|driver| {
        for status in [408, 499] {
            let (server, upstream) = start(driver, move |r| {
                let reply = if r.nth == 0 { Reply::new(status, "gone") } else { Reply::ok() };
                reply.after(Duration::from_millis(50))
            });
            let response = server.client().push(&one("a"));
            assert_eq!(response.status, 502, "{response:?}");
            assert_eq!(response.text(), format!("the upstream answered with status {status}. gone"));
            assert_eq!(upstream.received().len(), 1, "only its sender may repeat it");
        }
    });
}

#[test]
fn a_merged_request_is_not_sent_again_for_a_499() {
    on_both(|driver| {
        let (server, upstream) = start(driver, |r| {
            let first = r.names() == ["up"];
            let reply = if first { Reply::ok() } else { Reply::new(499, "") };
            reply.after(Duration::from_millis(100))
        });
        let send = |name: &str| {
            let (mut client, body) = (server.client(), body(vec![series("a", name, 1.0)]));
            client.send(&[support::client::push_head(body.len(), "").as_bytes(), &body].concat());
            client
        };
        let mut first = send("up");
        eventually("the first is under way", || upstream.received().len() == 1);
        let mut merged = ["m1", "m2", "m3"].map(send);
        assert_eq!(first.response().status, 200);
        assert_eq!(merged.each_mut().map(|client| client.response().status), [502; 3]);
        assert_eq!(upstream.received().len(), 2, "one request for the three, once");
    });
}

#[test]
fn a_redirect_is_a_mistake_of_configuration_and_says_so_without_its_secrets() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, |r| {
            let headers = "Location: http://user:secret@elsewhere/\r\n";
            match r.tenant() {
                "moved" => Reply::with(308, headers, "<a href=\"http://user:secret@elsewhere/\">"),
                _ => Reply::with(302, "", ""),
            }
        });
        let mut client = server.client();
        for _ in 0..20 {
            let moved = client.push(&one("moved"));
            assert_eq!(moved.status, 502);
            let expected = "the upstream redirects (status 308, with a Location); redirects are not followed: the \
                            target setting has to name the place itself";
            assert_eq!(moved.text(), expected);
        }
        let nowhere = client.push(&one("nowhere"));
        assert!(nowhere.text().contains("status 302, without a Location"), "{nowhere:?}");
        let log = server.log();
        let lines = log.iter().filter(|line| line.contains("redirects")).count();
        assert!((2..10).contains(&lines), "told, and rate-limited: {log:#?}");
        assert!(!log.join("\n").contains("secret"), "{log:#?}");
    });
}

#[test]
fn a_retry_after_is_passed_on_up_to_its_limit() {
    on_both(|driver| {
        for (settings, expected) in [("", "60"), ("retry_after_max: 1500ms\n", "2")] {
            let upstream = Upstream::start(|r| match r.tenant() {
                "greedy" => Reply::with(429, "Retry-After: 4294967295\r\n", "slow down"),
                _ => Reply::with(503, "Retry-After: 1\r\n", ""),
            });
            let server = Server::start(driver, upstream.address, settings);
            let mut client = server.client();
            for (tenants, status, expected) in [
                (&["greedy"][..], 429, expected),
                (&["greedy", "sick"], 503, expected),
                (&["sick"], 503, "1"),
            ] {
                let push = body(tenants.iter().map(|tenant| series(tenant, "up", 1.0)).collect());
                let response = client.push(&push);
                assert_eq!((response.status, response.header("retry-after")), (status, Some(expected)));
            }
        }
    });
}

#[test]
fn the_same_metadata_again_is_no_retry() {
    on_both(|driver| {
        let upstream =
            Upstream::start(|r| if r.tenant() == "sick" { Reply::new(503, "") } else { Reply::ok() });
        let settings = "metadata: true\ntenant: {label: tenant, default: nobody}\n";
        let server = Server::start(driver, upstream.address, settings);
        let metadata = vec![metadata_of_up()];
        let timeseries = vec![series("sick", "up", 1.0), series("well", "up", 1.0)];
        let request = deflate(&WriteRequest { timeseries, metadata });
        for _ in 0..3 {
            assert_eq!(server.client().push(&request).status, 503);
        }
        assert_eq!(upstream.of("well").len(), 1, "stored series are not sent again");
        assert_eq!(upstream.of("nobody").len(), 3, "metadata is sent again");
    });
}

#[test]
fn a_replys_text_ends_where_its_length_says() {
    on_both(|driver| {
        let (server, upstream) = start(driver, |_| {
            Reply::raw(b"HTTP/1.1 400 X\r\nContent-Length: 5\r\n\r\nwrongHTTP/1.1 200 OK\r\nX: secret")
        });
        let mut client = server.client();
        for pushed in 1..=2 {
            let response = client.push(&one("a"));
            assert_eq!((response.status, response.text().as_str()), (400, "wrong"));
            assert_eq!(upstream.connections(), pushed, "such a connection is not used again");
        }
    });
}

/// A Remote Write 2.0 request with a series of each of these tenants.
fn request_v2(tenants: &[&str]) -> Vec<u8> {
    use testkit::proto_v2::{Request, Sample, TimeSeries};
    let mut symbols: Vec<String> = ["", "__name__", "up", "tenant"].map(str::to_owned).to_vec();
    symbols.extend(tenants.iter().map(|tenant| (*tenant).to_owned()));
    let timeseries = (4..symbols.len()).map(|tenant| TimeSeries {
        labels_refs: vec![1, 2, 3, u32::try_from(tenant).unwrap()],
        samples: vec![Sample { value: 1.0, timestamp: 7, start_timestamp: 0 }],
        ..TimeSeries::default()
    });
    let timeseries = timeseries.collect();
    let symbols = symbols.into_iter().map(Into::into).collect();
    snap::raw::Encoder::new().compress_vec(&Request { symbols, timeseries }.encode_to_vec()).unwrap()
}

#[test]
fn written_counts_that_only_some_parts_have_are_not_summed() {
    on_both(|driver| {
        let written = "X-Prometheus-Remote-Write-Samples-Written: 1\r\n";
        let (server, _upstream) = start(driver, move |r| match r.tenant() {
            "silent" => Reply::ok(),
            _ => Reply::with(200, written, ""),
        });
        let mut client = server.client();
        let mut samples_written = |tenants: &[&str]| {
            let body = request_v2(tenants);
            let kind = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";
            let head =
                format!("POST /push HTTP/1.1\r\nHost: x\r\n{kind}Content-Length: {}\r\n\r\n", body.len());
            client.send(&[head.as_bytes(), &body].concat());
            let response = client.response();
            assert_eq!(response.status, 200, "{response:?}");
            response.header("x-prometheus-remote-write-samples-written").map(str::to_owned)
        };
        assert_eq!(samples_written(&["a", "b"]), Some("2".to_owned()));
        assert_eq!(samples_written(&["a", "silent"]), None);
        assert_eq!(samples_written(&["silent"]), None);
    });
}
