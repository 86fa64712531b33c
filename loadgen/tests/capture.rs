//! What is recorded of pushes, what is not, and what is sent on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use loadgen::capture::{Capture, CaptureConfig};
use loadgen::http::MessageReader;
use loadgen::proto::{TimeSeries, WriteRequest};
use loadgen::sink::{Sink, SinkConfig};
use serde_json::{Value, json};
use support::{refuses, text};

fn capture(dir: &Path, more: &[&str]) -> Capture {
    let args = ["capture", "--listen", "127.0.0.1:0", "--dir", dir.to_str().unwrap()];
    Capture::start(CaptureConfig::parse_from(args.iter().chain(more)).ready().unwrap()).unwrap()
}

/// Posts bodies over one connection, and returns the statuses and texts of the answers.
fn post(address: SocketAddr, lines: &str, bodies: &[&[u8]]) -> Vec<(u16, String)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reader = MessageReader::new(stream.try_clone().unwrap());
    let mut answers = Vec::new();
    for body in bodies {
        let head = format!("POST {lines}Host: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let head = reader.response_head().unwrap();
        let mut answer = Vec::new();
        reader.body(head.framing, &mut answer).unwrap();
        answers.push((head.status, String::from_utf8(answer).unwrap()));
    }
    answers
}

fn body() -> Vec<u8> {
    let timeseries = vec![TimeSeries::new(&[("__name__", "up"), ("tenant", "a")], &[(1, 1.0)])];
    WriteRequest { timeseries, metadata: vec![] }.to_block().to_vec()
}

const SECRETS: &str = "Authorization: Basic Y2FuYXJ5\r\nCookie: canary\r\nX-Canary: canary\r\n";

#[test]
fn a_push_becomes_two_files_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("captures");
    let capture = capture(&dir, &[]);
    let lines = format!(
        "/api/v1/push?token=canary HTTP/1.1\r\nContent-Type: application/x-protobuf\r\n{SECRETS}\
         Content-Encoding: snappy\r\nX-Scope-OrgID: eu\r\n"
    );
    assert_eq!(post(capture.addr(), &lines, &[&body()]), [(204, String::new())]);
    assert_eq!(post(capture.addr(), "/push HTTP/1.1\r\n", &[b"other"]), [(204, String::new())]);
    assert_eq!(fs::read(dir.join("000001.bin")).unwrap(), body());
    assert_eq!(fs::read(dir.join("000002.bin")).unwrap(), b"other");
    let description = |name: &str| {
        let text = fs::read_to_string(dir.join(name)).unwrap();
        assert!(!text.contains("canary") && !text.contains("Y2FuYXJ5"), "{text}");
        let mut description: Value = serde_json::from_str(&text).unwrap();
        let time = description.as_object_mut().unwrap().remove("received_at").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
        description
    };
    let expected = json!({"path": "/api/v1/push", "content_type": "application/x-protobuf",
        "content_encoding": "snappy", "tenant_header": {"name": "X-Scope-OrgID", "value": "eu"},
        "bytes": body().len()});
    assert_eq!(description("000001.json"), expected);
    let expected = json!({"path": "/push", "content_type": null, "content_encoding": null,
        "tenant_header": null, "bytes": 5});
    assert_eq!(description("000002.json"), expected);
    for file in ["000001.bin", "000001.json"] {
        assert_eq!(fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn bounds_end_the_recording_and_not_the_sending() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start(SinkConfig::default()).unwrap();
    let origin = sink.origin();
    let mut capture = capture(dir.path(), &["--bodies", "2", "--forward", &origin]);
    let lines = format!("/api/v1/push HTTP/1.1\r\nX-Scope-OrgID: a\r\n{SECRETS}");
    let answers = post(capture.addr(), &lines, &[&body(), b"broken", &body(), &body()]);
    assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 400, 200, 200]);
    capture.stop();
    let recorded = capture.recorded();
    assert_eq!((recorded.requests, recorded.bytes), (2, body().len() + 6));
    assert!(recorded.is_over && recorded.failure.is_none());
    assert_eq!(capture.forwarded(), (4, 0));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    assert_eq!(sink.stop().tenant("a").stored.samples, 3, "unchanged, under its header");
}

#[test]
fn bytes_are_bounded_too_and_a_dead_target_is_a_502() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = Sink::start(SinkConfig::default()).unwrap();
    let origin = sink.origin();
    sink.go_down();
    let capture = capture(dir.path(), &["--bytes-max", "10", "--forward", &origin]);
    let answers = post(capture.addr(), "/push HTTP/1.1\r\n", &[b"12345678", b"123", b"1"]);
    assert!(answers.iter().all(|(status, text)| *status == 502 && text.contains("no answer")), "{answers:?}");
    assert_eq!((capture.recorded().bytes, capture.recorded().is_over), (8, true));
    assert_eq!(capture.forwarded(), (0, 3));
}

#[test]
fn a_failure_to_write_ends_the_recording_only() {
    let dir = tempfile::tempdir().unwrap();
    let capture = capture(dir.path(), &[]);
    fs::write(dir.path().join("000001.bin"), "in the way").unwrap();
    assert_eq!(post(capture.addr(), "/push HTTP/1.1\r\n", &[b"a", b"b"]), vec![(204, String::new()); 2]);
    let recorded = capture.recorded();
    assert_eq!((recorded.requests, recorded.bytes, recorded.is_over), (0, 0, true));
    assert!(recorded.failure.is_some());
    assert_eq!(fs::read(dir.path().join("000001.bin")).unwrap(), b"in the way");
}

#[test]
fn bad_usage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("7.bin"), "").unwrap();
    let used = dir.path().to_str().unwrap();
    let below_file = dir.path().join("7.bin/x");
    let any = ["capture", "--listen", "127.0.0.1:0", "--dir"];
    let with = |more: &[&'static str]| [&any[..], more].concat();
    refuses(&[
        (&[&any[..], &[used]].concat(), "has recorded requests already"),
        (&[&any[..], &[below_file.to_str().unwrap()]].concat(), "cannot record"),
        (&with(&["none", "--bodies", "0"]), "--bodies"),
        (&with(&["none", "--forward", "https://x"]), "an https URL needs --ca"),
        (&["capture"], "--dir"),
    ]);
}

#[test]
fn what_is_recorded_can_be_explained() {
    let dir = tempfile::tempdir().unwrap();
    let captures = dir.path().join("captures");
    let mut capture = capture(&captures, &[]);
    let encoded = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n";
    post(capture.addr(), &format!("/push HTTP/1.1\r\n{encoded}"), &[&body()]);
    capture.stop();
    let config = dir.path().join("c.yml");
    fs::write(&config, "target: http://mimir/push\ntenant: {label: tenant}\n").unwrap();
    let (config, file) = (config.to_str().unwrap(), captures.join("000001.bin"));
    let explained = support::loadgen(&["server", "explain", "--config", config, file.to_str().unwrap()]);
    let report = text(&explained);
    assert!(explained.status.success() && report.contains("a: 1 series, 1 samples"), "{report}");
    let same = ["server", "plan", "--old", config, "--new", config, captures.to_str().unwrap()];
    assert_eq!(support::loadgen(&same).status.code(), Some(0));
}
