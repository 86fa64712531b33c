//! The sink over a real socket: what it counts, what it notices, and what it answers on demand.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may sleep and fail"
)]

mod support;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use loadgen::account::{Tally, walk};
use loadgen::http::HttpError;
use loadgen::proto::{MetricMetadata, TimeSeries, WriteRequest, deflate};
use loadgen::sink::{Arrival, Close, Reply, Sink, SinkConfig, Snapshot};
use prost::Message;
use support::Client;

fn series(tenant: &str, pod: &str, samples: &[(i64, f64)]) -> TimeSeries {
    TimeSeries::new(&[("__name__", "up"), ("pod", pod), ("tenant", tenant)], samples)
}

fn request(timeseries: Vec<TimeSeries>) -> WriteRequest {
    WriteRequest { timeseries, metadata: vec![] }
}

fn sum_of(request: &WriteRequest) -> Tally {
    let mut sum = Tally::default();
    walk(&request.encode_to_vec(), &["tenant"], |series| sum += series.tally).unwrap();
    sum
}

fn scripted(script: impl Fn(&Arrival<'_>) -> Reply + Send + Sync + 'static) -> Sink {
    Sink::start(SinkConfig { script: Some(Arc::new(script)), ..SinkConfig::default() }).unwrap()
}

/// What a sink has after these requests of tenant `a` (and, as second, what came for `b`).
fn after(requests: &[(&str, WriteRequest)]) -> Snapshot {
    let sink = Sink::start(SinkConfig::default()).unwrap();
    let mut client = Client::connect(&sink);
    for (tenant, request) in requests {
        assert_eq!(client.push(tenant, request).unwrap().0, 200);
    }
    sink.stop()
}

#[test]
fn loss_duplication_misplacement_and_corruption_are_each_seen() {
    let whole = || vec![series("a", "p1", &[(1, 1.0), (2, 2.0)]), series("a", "p2", &[(1, 3.0)])];
    let expected = sum_of(&request(whole()));
    let stored = |requests: &[(&str, WriteRequest)]| after(requests).tenant("a").stored;

    assert_eq!(stored(&[("a", request(whole()))]), expected);
    let halves = || whole().into_iter().map(|series| ("a", request(vec![series])));
    assert_eq!(stored(&halves().collect::<Vec<_>>()), expected, "splitting changes no sum");
    assert_eq!(stored(&halves().rev().collect::<Vec<_>>()), expected, "nor does order");

    let lost = stored(&[("a", request(vec![whole().remove(0)]))]);
    assert_ne!((lost.samples, lost.checksum), (expected.samples, expected.checksum));

    let duplicated = stored(&[("a", request(whole())), ("a", request(vec![whole().remove(1)]))]);
    assert_ne!((duplicated.samples, duplicated.checksum), (expected.samples, expected.checksum));

    let mut swapped = whole();
    swapped[1] = swapped[0].clone();
    swapped[1].samples.pop();
    let swapped = stored(&[("a", request(swapped))]);
    assert_eq!(swapped.samples, expected.samples, "one lost and another duplicated keep the count");
    assert_ne!(swapped.checksum, expected.checksum, "but not the checksum");

    let mut corrupted = whole();
    corrupted[1].samples[0].value = f64::from_bits(3.0f64.to_bits() ^ 1);
    assert_ne!(stored(&[("a", request(corrupted))]).checksum, expected.checksum);

    let misplaced =
        after(&[("a", request(vec![whole().remove(0)])), ("b", request(vec![whole().remove(1)]))]);
    assert_ne!(misplaced.tenant("a").stored.checksum, expected.checksum);
    assert_eq!((misplaced.tenant("a").misplaced, misplaced.tenant("b").misplaced), (0, 1));
}

#[test]
fn the_prefix_belongs_to_the_header_only() {
    let sink = Sink::start(SinkConfig { prefix: "eu-".to_owned(), ..SinkConfig::default() }).unwrap();
    let mut client = Client::connect(&sink);
    let one = request(vec![series("a", "p", &[(1, 1.0)])]);
    client.push("eu-a", &one).unwrap();
    client.push("a", &one).unwrap();
    let counts = sink.stop();
    assert_eq!((counts.tenant("eu-a").misplaced, counts.tenant("a").misplaced), (0, 1));
}

#[test]
fn what_is_no_remote_write_is_broken_and_400() {
    let sink = Sink::start(SinkConfig::default()).unwrap();
    let mut client = Client::connect(&sink);
    let post = "POST / HTTP/1.1\r\nHost: s\r\n";
    client.send(&format!("{post}Content-Length: 0\r\n\r\n"), b"");
    assert_eq!(client.reply().unwrap(), (400, "no tenant header".to_owned()));
    client.post("a", b"\xff\xff\xff");
    assert_eq!(client.reply().unwrap().0, 400);
    let no_protobuf = deflate(&[0x0a, 100, 1]);
    client.post("a", &no_protobuf);
    assert_eq!(client.reply().unwrap().0, 400);
    client.send("nonsense\r\n\r\n", b"");
    assert_eq!(client.reply().unwrap().0, 400);
    assert!(
        matches!(client.reply(), Err(HttpError::Closed | HttpError::Io(_))),
        "closed after what is not HTTP"
    );
    let counts = sink.stop();
    assert_eq!((counts.broken, counts.requests), (4, 0));
    assert!(counts.tenants.is_empty());
}

#[test]
fn takes_chunks_other_headers_metadata_and_tells_its_counts() {
    let sink = Sink::start(SinkConfig::default()).unwrap();
    let mut client = Client::connect(&sink);
    let mut both = request(vec![series("a", "p", &[(1, 1.0)])]);
    both.metadata.push(MetricMetadata::default());
    let block = both.to_block();
    let (first, second) = block.split_at(10);
    client.send("POST / HTTP/1.1\r\nHost: s\r\nTHANOS-TENANT: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"");
    for chunk in [first, second, &[]] {
        client.send(&format!("{:x}\r\n", chunk.len()), chunk);
        client.send("\r\n", b"");
    }
    assert_eq!(client.reply().unwrap().0, 200);
    client.send("GET /stats HTTP/1.1\r\nHost: s\r\n\r\n", b"");
    let (status, json) = client.reply().unwrap();
    let counts: Snapshot = serde_json::from_str(&json).unwrap();
    assert_eq!((status, counts.requests, counts.tenant("a").metadata), (200, 1, 1));
    assert_eq!(counts.tenant("a").stored, sum_of(&both));
    assert_eq!(counts, sink.stop());
}

#[test]
fn a_script_answers_by_tenant_and_by_count() {
    let sink = scripted(|arrival| match (arrival.tenant, arrival.nth_of_tenant) {
        ("limited", 1..=2) => Reply::new(429, "slow down").header("Retry-After", "7"),
        ("slow", _) => Reply::default().after(Duration::from_millis(200)),
        _ => Reply { status: 204, ..Reply::default() },
    });
    let mut client = Client::connect(&sink);
    let one = request(vec![series("limited", "p", &[(1, 1.0)])]);
    assert_eq!(client.push("limited", &one).unwrap(), (429, "slow down".to_owned()));
    assert_eq!(client.push("limited", &one).unwrap().0, 429);
    assert_eq!(client.push("limited", &one).unwrap().0, 204);
    let before = Instant::now();
    assert_eq!(client.push("slow", &one).unwrap().0, 200);
    assert!(before.elapsed() >= Duration::from_millis(200));
    let counts = sink.stop();
    let limited = counts.tenant("limited");
    assert_eq!((limited.requests, limited.refused), (3, 2));
    assert_eq!(limited.stored, sum_of(&one), "what was refused is not stored");
}

#[test]
fn a_script_closes_connections() {
    let sink = scripted(|arrival| {
        let close = match arrival.tenant {
            "before" => Close::BeforeReply,
            "reset" => Close::Reset,
            "after" => Close::AfterReply,
            _ => Close::AfterReplyUnannounced,
        };
        Reply::new(200, "ok").close(close)
    });
    let one = request(vec![series("x", "p", &[(1, 1.0)])]);
    assert!(matches!(Client::connect(&sink).push("before", &one), Err(HttpError::Closed)));
    match Client::connect(&sink).push("reset", &one) {
        Err(HttpError::Io(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        other => panic!("{other:?}"),
    }
    for (tenant, announced) in [("after", true), ("stale", false)] {
        let mut client = Client::connect(&sink);
        client.post(tenant, &one.to_block());
        let mut all = String::new();
        client.stream.read_to_string(&mut all).unwrap();
        assert!(all.starts_with("HTTP/1.1 200 OK\r\n") && all.ends_with("\r\n\r\nok"), "{all}");
        assert_eq!(all.contains("Connection: close"), announced);
    }
    let counts = sink.stop();
    assert_eq!(counts.tenant("before").stored, Tally::default());
    assert_eq!(counts.tenant("stale").stored, sum_of(&one));
}

#[test]
fn stopping_lets_a_request_in_work_end_and_is_quick_about_idle_ones() {
    let sink = scripted(|_| Reply::default().after(Duration::from_secs(60)));
    let _idle = Client::connect(&sink);
    let mut client = Client::connect(&sink);
    let worker = thread::spawn(move || client.push("x", &request(vec![series("x", "p", &[(1, 1.0)])])));
    while sink.snapshot().requests == 0 {
        thread::yield_now();
    }
    let before = Instant::now();
    let counts = sink.stop();
    assert!(before.elapsed() < Duration::from_secs(3));
    assert_eq!(worker.join().unwrap().unwrap().0, 200);
    assert_eq!(counts.tenant("x").stored.samples, 1);
}

#[test]
fn connections_are_bounded() {
    let sink = Sink::start(SinkConfig { connections_max: 1, ..SinkConfig::default() }).unwrap();
    let one = request(vec![series("x", "p", &[(1, 1.0)])]);
    let mut first = Client::connect(&sink);
    first.push("x", &one).unwrap();
    let mut second = Client::connect(&sink);
    let waiting = thread::spawn(move || second.push("x", &request(vec![])));
    thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished(), "served past the bound");
    drop(first);
    assert_eq!(waiting.join().unwrap().unwrap().0, 200);
}

#[test]
fn a_sink_that_went_down_comes_up_at_the_same_address_with_all_that_it_had() {
    let mut sink = Sink::start(SinkConfig::default()).unwrap();
    let request = request(vec![series("a", "p1", &[(1, 1.0)])]);
    let mut client = Client::connect(&sink);
    for times in 1..4 {
        assert_eq!(client.push("a", &request).unwrap().0, 200);
        sink.go_down();
        assert!(matches!(client.stream.read(&mut [0]), Ok(0) | Err(_)), "open connections are closed");
        assert!(TcpStream::connect(sink.addr()).is_err(), "nobody listens");
        sink.come_up().unwrap();
        client = Client::connect(&sink);
        assert_eq!(sink.snapshot().tenant("a").stored.samples, times);
    }
    sink.go_down();
    assert_eq!(sink.stop().tenant("a").stored.samples, 3, "what is down can be stopped");
}

#[test]
fn every_format_comes_to_the_same_sums() {
    use clap::ValueEnum as _;
    use loadgen::client::{Client, Url};
    use loadgen::fleet::{Fleet, FleetConfig, Format};
    for &format in Format::value_variants() {
        // The sink is an upstream, and the server tells it these in another way.
        if matches!(format, Format::RemoteWrite1Zstd | Format::LokiJson | Format::LokiJsonGzip) {
            continue;
        }
        let config = FleetConfig { format, senders: 1, series: 100, samples: 2, ..FleetConfig::default() };
        let native = if format.has_histograms() { 0.3 } else { 0.0 };
        let fleet = Fleet::build(&FleetConfig { histograms: native, exemplars: native, ..config }).unwrap();
        let sink = Sink::start(SinkConfig::default()).unwrap();
        let url: Url = sink.origin().parse::<Url>().unwrap().or_path(format.path());
        let mut client = Client::new(url.clone(), Duration::from_secs(5));
        let body = &fleet.senders[0][0];
        let headers = [("X-Scope-OrgID".to_owned(), "all".to_owned())];
        client.connect().unwrap();
        let answer = client.exchange(&url.push(format.headers(), &headers, &body.block)).unwrap();
        assert_eq!(answer.status, 200, "{format}");
        let told = answer.headers.get("X-Prometheus-Remote-Write-Samples-Written").is_some();
        assert_eq!(told, format == Format::RemoteWrite2);
        if let Some((_, notation)) = format.export() {
            assert_eq!(answer.headers.get("content-type"), Some(notation.media()), "{format}");
        }
        let mut sent = loadgen::account::Tally::default();
        body.shares.iter().for_each(|&(_, tally)| sent += tally);
        assert_eq!(sink.snapshot().tenant("all").stored, sent, "{format}");
    }
}

#[test]
fn an_export_that_is_none_is_refused_in_words_of_otlp() {
    use testkit::proto_otlp::ErrorStatus;
    let sink = Sink::start(SinkConfig::default()).unwrap();
    let mut client = Client::connect(&sink);
    for (media, coding, why) in [
        ("application/x-protobuf", "identity", "an export says something else"),
        ("text/plain", "identity", "neither protobuf nor JSON"),
        ("application/x-protobuf", "br", "unsupported Content-Encoding"),
        ("application/x-protobuf", "gzip", "gzip: "),
    ] {
        // A resource with a schema's URL.
        let body = [0x0a, 3, 0x1a, 1, b'u'];
        let head = format!(
            "POST /v1/logs HTTP/1.1\r\nX-Scope-OrgID: a\r\nContent-Type: {media}\r\nContent-Encoding: {coding}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(&head, &body);
        let (status, body) = client.reply().unwrap();
        let error: ErrorStatus = prost::Message::decode(body.as_bytes()).unwrap();
        assert!(status == 400 && error.message.contains(why), "{status} {error:?}");
    }
    assert_eq!(sink.stop().broken, 4);
}
