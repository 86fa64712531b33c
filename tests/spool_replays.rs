//! What replays send, in what order, and what they give up: parts that an upstream takes together, in pieces, or not at
//! all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use support::client::Response;
use support::upstream::Received;
use support::{Driver, Reply, Server, Upstream, eventually, on_both};
use tenantry::spool::DeadLetter;
use testkit::proto_v2::{Request, Sample, SymbolTable, TimeSeries};

const HEAD: &str = "POST /api/v1/write HTTP/1.1\r\nHost: tenantry\r\nContent-Encoding: snappy\r\n\
                    Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";

fn start(driver: Driver, upstream: &Upstream, folder: &Path, more: &str) -> Server {
    let (spool, letters) = (folder.join("spool"), folder.join("letters"));
    let extra = format!(
        "timeout: 2s\nspool: {{dir: {}, dead_letter: {}}}\n{more}",
        spool.display(),
        letters.display()
    );
    Server::start(driver, upstream.address, &extra)
}

/// Waits until the spool has nothing more to send.
fn until_empty(server: &Server) {
    eventually("the spool is empty", || server.metric("tenantry_spool_parts", "") == 0.0);
}

/// The dead letters, once there are so many.
fn letters(folder: &Path, count: usize) -> Vec<DeadLetter> {
    let read = || std::fs::read_to_string(folder.join("letters")).unwrap_or_default();
    eventually("the dead letters are written", || read().lines().count() >= count);
    read().lines().map(|line| DeadLetter::read(line).unwrap()).collect()
}

/// A request in Remote Write 2.0 with one series of a tenant, with one sample of this value.
fn of_2(tenant: &str, name: &str, value: f64) -> Vec<u8> {
    let mut table = SymbolTable::default();
    let labels = [("__name__", name), ("tenant", tenant)];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let series = TimeSeries {
        labels_refs: table.references(labels),
        samples: vec![Sample { value, timestamp: 7, start_timestamp: 3 }],
        ..TimeSeries::default()
    };
    Request { symbols: table.into_symbols(), timeseries: vec![series] }.to_block().to_vec()
}

fn push_2(server: &Server, body: &[u8]) -> Response {
    let mut client = server.client();
    let head = format!("{HEAD}Content-Length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), body].concat());
    client.response()
}

#[test]
fn an_answer_that_does_not_say_what_it_wrote_is_not_spooled_and_ends_a_replay() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let answers = Arc::new(AtomicU16::new(200));
        let script = Arc::clone(&answers);
        let upstream = Upstream::start(move |_: &Received| Reply::new(script.load(Ordering::SeqCst), ""));
        let server = start(driver, &upstream, folder.path(), "remote_write_v2_require_written: true\n");
        let hears_of_it = || {
            let response = push_2(&server, &of_2("t", "direct", 1.0));
            assert_eq!(response.status, 502, "{}", response.text());
            assert!(response.text().contains("remote_write_v2_require_written"), "{}", response.text());
        };
        hears_of_it();
        assert_eq!(server.metric("tenantry_spooled_parts_total", ""), 0.0);
        answers.store(500, Ordering::SeqCst);
        for value in 0..20 {
            assert_eq!(push_2(&server, &of_2("t", "up", f64::from(value))).status, 200);
        }
        let before = upstream.received().len();
        answers.store(200, Ordering::SeqCst);
        until_empty(&server);
        assert_eq!(server.metric("tenantry_spool_rejected_parts_total", ""), 20.0);
        assert_eq!(server.metric("tenantry_spool_replayed_parts_total", ""), 0.0);
        let letters = letters(folder.path(), 20);
        assert_eq!(letters.len(), 20);
        assert!(letters.iter().all(|letter| letter.reason.starts_with("502: the upstream took")));
        let requests = upstream.received().len() - before;
        assert!(requests < 15, "{requests} requests: those that it takes together are given up together");
        eventually("the tenant is back on the direct way", || {
            server.metric("tenantry_spool_parts", "") == 0.0
                && push_2(&server, &of_2("t", "direct", 1.0)).status == 502
        });
        hears_of_it();
    });
}
