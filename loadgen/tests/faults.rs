//! Every fault that a file can ask for, as a client of the sink sees it.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may sleep and fail"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use loadgen::http::HttpError;
use loadgen::proto::{TimeSeries, WriteRequest};
use loadgen::sink::faults::FaultScript;
use loadgen::sink::{Faults, Sink, SinkConfig};
use support::Client;

fn sink(rules: &str) -> Sink {
    let faults = Faults::from_yaml(&format!("rules:\n{rules}")).unwrap();
    let script = Some(Arc::new(FaultScript::new(faults)) as _);
    Sink::start(SinkConfig { script, ..SinkConfig::default() }).unwrap()
}

fn request(labels: &[(&str, &str)]) -> WriteRequest {
    WriteRequest { timeseries: vec![TimeSeries::new(labels, &[(1, 1.0)])], metadata: vec![] }
}

fn up() -> WriteRequest {
    request(&[("__name__", "up")])
}

fn push(sink: &Sink, tenant: &str) -> Result<(u16, String), HttpError> {
    Client::connect(sink).push(tenant, &up())
}

fn stored(sink: &Sink, tenant: &str) -> u64 {
    sink.snapshot().tenant(tenant).stored.samples
}

/// Nothing comes for a while, and the connection is still there.
fn is_silent(client: &mut Client) -> bool {
    client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = client.stream.read(&mut [0]).map_err(|error| error.kind());
    matches!(error, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

fn is_reset(result: &Result<(u16, String), HttpError>) -> bool {
    matches!(result, Err(HttpError::Io(error)) if error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn the_example_file_is_read_and_shows_every_key() {
    let text = include_str!("../faults.example.yml");
    Faults::from_yaml(text).unwrap();
    let is_comment = |line: &&str| line.trim_start().starts_with('#');
    let rules: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
    let keys = "seed tenant from to share latency status half_open stall read_bytes_per_second body_bytes_max \
        retry_after lie lose duplicate misplace reorder";
    let resets = ["before_body", "before_reply", "mid_reply"].map(|at| format!("reset: {at}"));
    for key in keys.split_whitespace().map(|key| format!("{key}:")).chain(resets) {
        let is_shown = |line: &&str| line.trim_start_matches([' ', '-']).starts_with(&key);
        assert!(rules.iter().any(is_shown), "{key}");
    }
}

#[test]
fn latency() {
    let sink = sink("- {tenant: slow, latency: 150ms..200ms}");
    let timed = |tenant| {
        let begun = Instant::now();
        assert_eq!(push(&sink, tenant).unwrap().0, 200);
        begun.elapsed()
    };
    assert!(timed("slow") >= Duration::from_millis(150));
    assert!(timed("quick") < Duration::from_millis(150));
}

#[test]
fn a_rule_begins_and_ends() {
    let sink = sink("- {from: 0.4, to: 0.8, status: 503}");
    let begun = Instant::now();
    let mut seen = Vec::new();
    while begun.elapsed() < Duration::from_millis(1200) {
        let status = push(&sink, "a").unwrap().0;
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(seen, [200, 503, 200]);
}

#[test]
fn status_with_headers_and_body() {
    let sink = sink("- status: {code: 503, headers: {X-Reason: tests}, body: not now}");
    let mut client = Client::connect(&sink);
    client.post("a", &up().to_block());
    let head = client.reader.response_head().unwrap();
    let mut body = Vec::new();
    client.reader.body(head.framing, &mut body).unwrap();
    assert_eq!((head.status, head.headers.get("x-reason"), &body[..]), (503, Some("tests"), &b"not now"[..]));
    assert_eq!(stored(&sink, "a"), 0);
}

#[test]
fn too_many_requests_and_when_to_come_again() {
    let sink = sink("- retry_after: 7s");
    let mut client = Client::connect(&sink);
    client.post("a", &up().to_block());
    let head = client.reader.response_head().unwrap();
    assert_eq!((head.status, head.headers.get("retry-after")), (429, Some("7")));
    assert_eq!(stored(&sink, "a"), 0);
}

#[test]
fn resets_before_the_body_before_the_reply_and_in_the_middle_of_it() {
    let sink = sink(
        "- {tenant: body, reset: before_body}\n- {tenant: reply, reset: before_reply}\n- {tenant: mid, reset: mid_reply}",
    );
    assert!(is_reset(&push(&sink, "body")));
    assert_eq!(sink.snapshot().requests, 0, "nothing of it was looked at");
    assert!(is_reset(&push(&sink, "reply")));
    assert_eq!(sink.snapshot().requests, 1);

    let mut client = Client::connect(&sink);
    client.post("mid", &up().to_block());
    let mut all = Vec::new();
    let error = client.stream.read_to_end(&mut all).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(all.starts_with(b"HTTP/1.1 200 OK") && !all.ends_with(b"cut short"), "{all:?}");
    for tenant in ["body", "reply", "mid"] {
        assert_eq!(stored(&sink, tenant), 0);
    }
}

/// What tells the two apart is whether a body that no buffer holds can be sent.
#[test]
fn half_open_reads_nothing_and_a_stall_reads_all_and_both_keep_the_connection() {
    let sink = sink("- {tenant: half, half_open: true}\n- {tenant: stall, stall: true}");
    let large = vec![0x5a; 64 << 20];
    let mut half = Client::connect(&sink);
    half.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let length = large.len();
    half.send(&format!("POST / HTTP/1.1\r\nX-Scope-OrgID: half\r\nContent-Length: {length}\r\n\r\n"), b"");
    let written = half.stream.write_all(&large).map_err(|error| error.kind());
    assert!(matches!(written, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{written:?}");
    assert!(is_silent(&mut half));

    let mut stall = Client::connect(&sink);
    stall.post("stall", &up().to_block());
    assert!(is_silent(&mut stall));
    let counts = sink.snapshot();
    assert_eq!((counts.tenant("stall").requests, counts.tenant("stall").refused), (1, 1));
    assert_eq!(counts.tenant("half").requests, 0);

    // Their threads end with their peers, and don't hold up the sink's end.
    drop(stall);
    let begun = Instant::now();
    drop(sink);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn reads_slowly() {
    let sink = sink("- {tenant: slow, read_bytes_per_second: 200000}");
    // No snappy block, but what is read slowly is read before it is looked at.
    let body = vec![0xff; 100_000];
    let timed = |tenant: &str| {
        let mut client = Client::connect(&sink);
        let begun = Instant::now();
        client.post(tenant, &body);
        assert_eq!(client.reply().unwrap().0, 400);
        begun.elapsed()
    };
    let slow = timed("slow");
    assert!((0.5..3.0).contains(&slow.as_secs_f64()), "{slow:?}");
    assert!(timed("quick") < Duration::from_millis(400));
}

#[test]
fn bodies_above_a_size_are_too_large() {
    let size = up().to_block().len();
    let sink = sink(&format!("- {{tenant: fits, body_bytes_max: {size}}}\n- body_bytes_max: {}", size - 1));
    assert_eq!(push(&sink, "tight").unwrap().0, 413);
    assert_eq!(push(&sink, "fits").unwrap().0, 413, "the second rule holds for all");
    let sink = self::sink(&format!("- body_bytes_max: {size}"));
    assert_eq!(push(&sink, "fits").unwrap().0, 200);
}

#[test]
fn lies_and_thefts() {
    let sink = sink(
        "- {tenant: lie, lie: 503}\n- {tenant: lose, lose: true}\n- {tenant: twice, duplicate: true}\n\
         - {tenant: misplace, misplace: other}\n- {tenant: reorder, reorder: true}",
    );
    let mut answers = [("lie", 503), ("lose", 200), ("twice", 200), ("misplace", 200)].into_iter();
    assert!(answers.all(|(tenant, status)| push(&sink, tenant).unwrap().0 == status));
    let samples = ["lie", "lose", "twice", "misplace", "other"].map(|tenant| stored(&sink, tenant));
    assert_eq!(samples, [1, 0, 2, 0, 1]);

    let mut client = Client::connect(&sink);
    let mut seen = Vec::new();
    for _ in 0..4 {
        assert_eq!(client.push("reorder", &up()).unwrap().0, 200);
        seen.push(stored(&sink, "reorder"));
    }
    assert_eq!(seen, [0, 2, 2, 4], "held back until the next is stored");
    client.push("reorder", &up()).unwrap();
    drop(client);
    assert_eq!(sink.stop().tenant("reorder").stored.samples, 5, "or until the end");
}

#[test]
fn a_share_is_a_share() {
    let sink = sink("- {share: 0.3, status: 503}");
    let mut client = Client::connect(&sink);
    let failed = (0..1000).filter(|_| client.push("a", &up()).unwrap().0 == 503).count();
    assert!((230..370).contains(&failed), "{failed}");
}
