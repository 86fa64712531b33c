//! What replays send, in what order, and what they give up: parts that an upstream takes together, in pieces, or not at
//! all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use support::client::Response;
use support::remote_write::{TimeSeries as Series, label};
use support::upstream::Received;
use support::{Driver, Reply, Server, Upstream, body, eventually, on_both};
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

/// A request in Remote Write 2.0 with so many series of a tenant, each with one sample of this value.
fn of_2(tenant: &str, name: &str, series: usize, value: f64) -> Vec<u8> {
    let mut table = SymbolTable::default();
    let mut one = |number: usize| {
        let labels = [("__name__", name), ("tenant", tenant), ("instance", &format!("{number:090}"))];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let samples = vec![Sample { value, timestamp: 7, start_timestamp: 3 }];
        TimeSeries { labels_refs: table.references(labels), samples, ..TimeSeries::default() }
    };
    let timeseries = (0..series).map(&mut one).collect();
    Request { symbols: table.into_symbols(), timeseries }.to_block().to_vec()
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
            let response = push_2(&server, &of_2("t", "direct", 1, 1.0));
            assert_eq!(response.status, 502, "{}", response.text());
            assert!(response.text().contains("remote_write_v2_require_written"), "{}", response.text());
        };
        hears_of_it();
        assert_eq!(server.metric("tenantry_spooled_parts_total", ""), 0.0);
        answers.store(500, Ordering::SeqCst);
        for value in 0..20 {
            assert_eq!(push_2(&server, &of_2("t", "up", 1, f64::from(value))).status, 200);
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
                && push_2(&server, &of_2("t", "direct", 1, 1.0)).status == 502
        });
        hears_of_it();
    });
}

/// An upstream that fails until it is well.
fn failing() -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(500));
    let script = Arc::clone(&status);
    (Upstream::start(move |_: &Received| Reply::new(script.load(Ordering::SeqCst), "")), status)
}

#[test]
fn large_parts_in_remote_write_2_are_merged_at_the_replay_in_their_order() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let (upstream, status) = failing();
        let server = start(driver, &upstream, folder.path(), "");
        for value in 0..60 {
            // Far more than what is merged on the direct way.
            assert_eq!(push_2(&server, &of_2("t", "up", 200, f64::from(value))).status, 200);
        }
        let before = upstream.received().len();
        status.store(200, Ordering::SeqCst);
        until_empty(&server);
        let received = upstream.received();
        let mut values = Vec::new();
        let mut requests = 0;
        for received in received[before..].iter().filter(|received| received.body.len() > 100) {
            let request = Request::from_block(&received.body).unwrap();
            requests += 1;
            assert!(request.timeseries.len().is_multiple_of(200), "{}", request.timeseries.len());
            values.extend(request.timeseries.iter().map(|series| series.samples[0].value));
        }
        let expected: Vec<_> = (0..60).flat_map(|value| vec![f64::from(value); 200]).collect();
        // Probes that came too early are sent again.
        assert!(values.ends_with(&expected), "{} of {}", values.len(), expected.len());
        assert!(requests < 20, "{requests} requests with 60 parts");
        assert_eq!(server.metric("tenantry_spool_replayed_parts_total", ""), 60.0);
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
    });
}

fn of_replica(replica: &str, name: &str, value: f64) -> Series {
    let labels = [("__name__", name), ("tenant", "t"), ("cluster", "c"), ("__replica__", replica)];
    Series::new(&labels, &[(7, value)])
}

#[test]
fn the_replicas_of_an_ha_pair_are_replayed_each_in_its_order_and_never_in_one_request() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let (upstream, status) = failing();
        let server = start(driver, &upstream, folder.path(), "");
        let mut client = server.client();
        for value in 0..60 {
            for replica in ["r0", "r1"] {
                let mut series = vec![of_replica(replica, "up", f64::from(value))];
                if value == 30 {
                    // Behind the first series, one of the other replica: nothing may pass this part.
                    let other = if replica == "r0" { "r1" } else { "r0" };
                    series.push(of_replica(other, "mixed", 0.0));
                }
                assert_eq!(client.push(&body(series)).status, 200);
            }
        }
        let before = upstream.received().len();
        status.store(200, Ordering::SeqCst);
        until_empty(&server);
        let received = &upstream.received()[before..];
        let firsts = |received: &Received| {
            let mut all = received.request().timeseries;
            all.retain(|series| label(series, "__name__").unwrap() == "up");
            let replica = |series: &Series| label(series, "__replica__").unwrap();
            all.iter().map(|series| (replica(series), series.samples[0].value)).collect::<Vec<_>>()
        };
        let requests: Vec<_> = received.iter().map(firsts).collect();
        for request in &requests {
            assert!(request.iter().all(|(replica, _)| *replica == request[0].0), "{request:?}");
        }
        for of in ["r0", "r1"] {
            let all = requests.iter().flatten().filter(|(replica, _)| replica == of);
            let values: Vec<_> = all.map(|(_, value)| *value).collect();
            let expected: Vec<_> = (0..60).map(f64::from).collect();
            assert!(values.ends_with(&expected), "{values:?}");
        }
        assert!(requests.len() < 20, "{} requests with 120 parts", requests.len());
        assert_eq!(server.metric("tenantry_spool_replayed_parts_total", ""), 120.0);
    });
}

#[test]
fn of_a_part_that_is_sent_in_pieces_only_those_that_are_refused_become_dead_letters() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let is_well = Arc::new(AtomicU16::new(0));
        let script = Arc::clone(&is_well);
        let upstream = Upstream::start(move |received: &Received| match received.names() {
            _ if script.load(Ordering::SeqCst) == 0 => Reply::new(500, ""),
            names if names.len() > 1 => Reply::new(413, "too large"),
            names if names[0].starts_with("bad") => Reply::new(400, "out of order"),
            _ => Reply::ok(),
        });
        let server = start(driver, &upstream, folder.path(), "");
        let series = |names: &[&str]| names.iter().map(|name| support::series("t", name, 1.0)).collect();
        for names in [&["a", "bad1", "b", "c", "bad2"][..], &["bad3", "bad4"], &["d", "e"]] {
            assert_eq!(server.client().push(&body(series(names))).status, 200);
        }
        is_well.store(1, Ordering::SeqCst);
        until_empty(&server);
        let letters = letters(folder.path(), 3);
        let told = letters.iter().map(|letter| {
            let part = letter.spooled().unwrap();
            assert_eq!(letter.reason, "400: out of order");
            let names = support::remote_write::names(&support::remote_write::inflate(
                &tenantry::split::body_of(&part.part),
            ));
            assert_eq!((part.part.series, part.part.samples), (names.len() as u32, names.len() as u32));
            names
        });
        // If nothing of a part was stored, it stays whole.
        assert_eq!(told.collect::<Vec<_>>(), [vec!["bad1"], vec!["bad2"], vec!["bad3", "bad4"]]);
        let stored: Vec<_> =
            upstream.received().iter().map(Received::names).filter(|names| names.len() == 1).collect();
        for name in ["a", "b", "c", "d", "e"] {
            assert_eq!(stored.iter().filter(|names| names[0] == name).count(), 1, "{stored:?}");
        }
        assert_eq!(server.metric("tenantry_spool_rejected_parts_total", ""), 2.0);
        assert_eq!(server.metric("tenantry_spool_rejected_samples_total", ""), 4.0);
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
    });
}
