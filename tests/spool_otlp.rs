//! The spool and OTLP: in which coding parts leave it, how many requests they take, and what it keeps when its target
//! is gone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use support::otlp::{JSON, coded, fields_of, is_full_success, numbered, numbers, path, plain, start};
use support::upstream::Received;
use support::{Reply, Server, eventually, on_both_at_once, post};
use tenantry::model::{Notation, Signal};

fn spool(folder: &Path) -> String {
    format!("timeout: 5s\nspool: {{dir: {}}}\n", folder.display())
}

/// Waits until the spool has nothing more to send.
fn until_empty(server: &Server) {
    eventually("the spool is empty", || server.metric("tenantry_spool_parts", "") == 0.0);
}

/// An export of a tenant, with so many records from this number on. A record has some 45 bytes.
fn records(tenant: &str, from: u64, count: u64) -> Vec<u8> {
    let all: Vec<u64> = (from..from + count).collect();
    numbered(Signal::Logs, &[(tenant, &all)])
}

fn push(server: &Server, encoding: &str, export: &[u8]) {
    let answer = post(server, path(Signal::Logs), &fields_of(encoding), &coded(encoding, export));
    assert!(is_full_success(&answer), "{answer:?}");
}

#[test]
fn what_is_spooled_leaves_in_the_coding_that_its_target_has_by_then() {
    on_both_at_once(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let is_well = Arc::new(AtomicBool::new(false));
        let script = Arc::clone(&is_well);
        let settings = format!("target_otlp_logs_coding: as-received\n{}", spool(folder.path()));
        let (server, upstream) =
            start(driver, &settings, move |received: &Received| match received.header("content-encoding") {
                _ if !script.load(Ordering::SeqCst) => Reply::new(500, ""),
                Some("gzip") => Reply::ok(),
                coding => Reply::new(415, &format!("{coding:?}")),
            });
        for round in 0..4 {
            // One that waits as it came, and one that waits inflated.
            push(&server, "zstd", &records("a", round * 1_000, 400));
            push(&server, "zstd", &records("a", round * 1_000 + 400, 2));
        }
        let json = br#"{"resourceLogs":[{"resource":{"attributes":[{"key":"tenant","value":{"stringValue":"b"}}]},"scopeLogs":[{"logRecords":[{}]}]}]}"#;
        let fields = format!("{JSON}Content-Encoding: zstd\r\n");
        let answer = post(&server, path(Signal::Logs), &fields, &coded("zstd", json));
        assert_eq!(answer.status, 200, "{answer:?}");
        server.reload_with("target_otlp_logs_coding: as-received", "target_otlp_logs_coding: gzip");
        let before = (upstream.of("a").len(), upstream.of("b").len());
        is_well.store(true, Ordering::SeqCst);
        until_empty(&server);
        assert_eq!(server.metric("tenantry_spool_rejected_parts_total", ""), 0.0);
        assert_eq!(server.metric("tenantry_spool_replayed_parts_total", ""), 9.0);
        let came: Vec<u64> = upstream.of("a")[before.0..].iter().flat_map(numbers).collect();
        let expected: Vec<u64> = (0..4).flat_map(|round| round * 1_000..round * 1_000 + 402).collect();
        assert!(came.ends_with(&expected), "{} of {}", came.len(), expected.len());
        assert_eq!(plain(upstream.of("b")[before.1..].last().unwrap()), json);
    });
}

/// An export of a tenant in JSON, with so many records from this number on. A record has some 45 bytes.
fn json_records(tenant: &str, from: u64, count: u64) -> Vec<u8> {
    let record = |number: u64| json!({"timeUnixNano": number.to_string(), "severityText": "INFO"});
    let records: Json = (from..from + count).map(record).collect();
    let attributes = json!([{"key": "tenant", "value": {"stringValue": tenant}}]);
    let scopes = json!([{"logRecords": records}]);
    let export = json!({"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": scopes}]});
    export.to_string().into_bytes()
}

/// The numbers of the items that a request has.
fn numbers_of(received: &Received) -> Vec<u64> {
    if received.header("content-type") != Some("application/json") {
        return numbers(received);
    }
    let export: Json = serde_json::from_slice(&plain(received)).unwrap();
    let resources = export["resourceLogs"].as_array().unwrap().iter();
    let scopes = resources.flat_map(|resource| resource["scopeLogs"].as_array().unwrap());
    let records = scopes.flat_map(|scope| scope["logRecords"].as_array().unwrap());
    records.map(|record| record["timeUnixNano"].as_str().unwrap().parse().unwrap()).collect()
}

/// Has a part of 20 KB spooled.
fn push_records(server: &Server, notation: Notation, encoding: &str, from: u64) {
    if notation == Notation::Protobuf {
        return push(server, encoding, &records("a", from, 450));
    }
    let named = if encoding.is_empty() { String::new() } else { format!("Content-Encoding: {encoding}\r\n") };
    let body = coded(encoding, &json_records("a", from, 450));
    let answer = post(server, path(Signal::Logs), &format!("{JSON}{named}"), &body);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Has `parts` parts of 20 KB spooled, each coded as the next of `encodings`, and then sent to an upstream that takes
/// 50 ms for each request. Few requests have to carry them all, and in order.
fn a_stream_is_sent_in_few_requests(notation: Notation, encodings: &[&str], parts: u64, requests_max: usize) {
    on_both_at_once(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let is_well = Arc::new(AtomicBool::new(false));
        let script = Arc::clone(&is_well);
        let (server, upstream) =
            start(driver, &spool(folder.path()), move |_| match script.load(Ordering::SeqCst) {
                true => Reply::ok().after(Duration::from_millis(50)),
                false => Reply::new(500, ""),
            });
        for (part, encoding) in (0..parts).zip(encodings.iter().cycle()) {
            push_records(&server, notation, encoding, part * 450);
        }
        let before = upstream.received().len();
        is_well.store(true, Ordering::SeqCst);
        until_empty(&server);
        let requests = &upstream.received()[before..];
        let came: Vec<u64> = requests.iter().flat_map(numbers_of).collect();
        // Probes that came too early are sent again.
        assert!(came.ends_with(&(0..parts * 450).collect::<Vec<_>>()), "{} items", came.len());
        let bytes = requests.iter().map(|received| plain(received).len()).max().unwrap();
        assert!(bytes <= 1 << 20, "a request inflates to {bytes} bytes");
        assert!(requests.len() <= requests_max, "{} requests with {parts} parts", requests.len());
        assert_eq!(server.metric("tenantry_spool_rejected_parts_total", ""), 0.0);
        #[allow(clippy::cast_precision_loss)]
        let parts = parts as f64;
        assert_eq!(server.metric("tenantry_spool_replayed_parts_total", ""), parts);
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
    });
}

#[test]
fn large_compressed_parts_share_requests_at_the_replay() {
    a_stream_is_sent_in_few_requests(Notation::Protobuf, &["gzip"], 200, 20);
}

#[test]
fn parts_in_different_codings_share_requests_at_the_replay() {
    a_stream_is_sent_in_few_requests(Notation::Protobuf, &["gzip", "", "zstd", "snappy"], 80, 12);
}

#[test]
fn compressed_parts_in_json_share_requests_at_the_replay() {
    a_stream_is_sent_in_few_requests(Notation::Json, &["gzip"], 200, 20);
}

#[test]
fn parts_in_json_without_a_coding_share_requests_at_the_replay() {
    a_stream_is_sent_in_few_requests(Notation::Json, &[""], 200, 20);
}

#[test]
fn parts_in_json_in_different_codings_share_requests_at_the_replay() {
    a_stream_is_sent_in_few_requests(Notation::Json, &["gzip", "", "zstd", "snappy"], 80, 12);
}

/// Without its target, the rest of the configuration would send the data to the program itself, which answers 404.
#[test]
fn a_spool_with_exports_whose_target_is_not_set_any_more_is_not_opened() {
    on_both_at_once(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let (server, _upstream) = start(driver, &spool(folder.path()), |_| Reply::new(500, ""));
        push(&server, "", &records("a", 0, 1));
        let text = std::fs::read_to_string(server.file()).unwrap();
        drop(server);
        let without = |key: &str| {
            let line = |line: &&str| line.starts_with("listen:") || line.starts_with(key);
            let kept: Vec<&str> = text.lines().filter(|one| !line(one)).collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), format!("listen: 127.0.0.1:4318\n{}\n", kept.join("\n"))).unwrap();
            file
        };
        let run = |file: &Path| {
            let mut child = Command::new(env!("CARGO_BIN_EXE_tenantry"))
                .arg("-config")
                .arg(file)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            for _ in 0..400 {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(25));
            }
            // If it runs, it must not be left behind.
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8(text).unwrap())
        };
        let (code, told) = run(without("target_otlp_logs:").path());
        assert!(matches!(code, Some(1..)), "{code:?}: {told}");
        let told: Vec<_> = told.lines().filter(|line| line.contains("target_otlp_logs")).collect();
        assert!(told.iter().any(|line| line.contains("1 parts")), "{told:?}");
    });
}
