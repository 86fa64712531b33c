//! Merged requests in Remote Write 2.0: what they hold, what each sender hears, and what happens when they are refused.
//! The real server between a raw client and a scripted upstream, on both rings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use support::client::Response;
use support::upstream::Received;
use support::{Client, Reply, Server, Upstream, body, eventually, on_both, series};
use testkit::proto_v2::{Exemplar, Metadata, Request, Sample, SymbolTable, TimeSeries};

const HEAD: &str = "POST /api/v1/write HTTP/1.1\r\nHost: tenantry\r\nContent-Encoding: snappy\r\n\
                    Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";

/// A series with its labels, as many samples, an exemplar and metadata.
fn one(table: &mut SymbolTable, labels: &[(&str, &str)], samples: usize) -> TimeSeries {
    let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let exemplar = table.references([("trace_id".to_owned(), "t1".to_owned())]);
    TimeSeries {
        labels_refs: table.references(labels),
        samples: vec![Sample { value: 1.0, timestamp: 7, start_timestamp: 3 }; samples],
        exemplars: vec![Exemplar { labels_refs: exemplar, value: 0.5, timestamp: 7 }],
        metadata: Some(Metadata {
            r#type: 1,
            help_ref: table.reference("some help"),
            unit_ref: table.reference("s"),
        }),
        ..TimeSeries::default()
    }
}

/// The body of a request with a series of this name for each tenant.
fn request(tenants: &[&str], name: &str, samples: usize) -> Vec<u8> {
    let mut table = SymbolTable::default();
    // A symbol of its own in front, so that the same label has another reference in each request.
    table.reference(format!("before {name}"));
    let labels = |tenant| [("__name__", name), ("job", "test"), ("tenant", tenant)];
    let series = tenants.iter().map(|&tenant| one(&mut table, &labels(tenant), samples)).collect::<Vec<_>>();
    Request { symbols: table.into_symbols(), timeseries: series }.to_block().to_vec()
}

/// Sends requests over separate connections, so that they are in flight together.
fn send(server: &Server, bodies: impl IntoIterator<Item = Vec<u8>>) -> Vec<Client> {
    let send = |body: Vec<u8>| {
        let mut client = server.client();
        let head = format!("{HEAD}Content-Length: {}\r\n\r\n", body.len());
        client.send(&[head.as_bytes(), &body].concat());
        client
    };
    bodies.into_iter().map(send).collect()
}

fn answers(clients: &mut [Client]) -> Vec<Response> {
    clients.iter_mut().map(Client::response).collect()
}

fn decode(received: &Received) -> Request {
    assert_eq!(received.header("x-prometheus-remote-write-version"), Some("2.0.0"));
    Request::from_block(&received.body).expect("a request of 2.0")
}

/// The value of a label of each series, in order.
fn values(received: &Received, label: &str) -> Vec<String> {
    let request = decode(received);
    let value = |series: &TimeSeries| {
        let labels = request.labels(&series.labels_refs).expect("all references have symbols");
        let value = labels.into_iter().find(|(name, _)| name == label).expect("it has the label").1;
        String::from_utf8(value.to_vec()).unwrap()
    };
    request.timeseries.iter().map(value).collect()
}

fn names(received: &Received) -> Vec<String> {
    values(received, "__name__")
}

/// An upstream that takes some time, so that requests gather, and answers by what a request holds.
fn slow_upstream(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |received| answer(received).after(Duration::from_millis(80)))
}

/// An answer that says how many samples and exemplars were written.
fn written(samples: usize, exemplars: usize) -> Reply {
    let fields = format!(
        "X-Prometheus-Remote-Write-Samples-Written: {samples}\r\n\
         X-Prometheus-Remote-Write-Exemplars-Written: {exemplars}\r\n"
    );
    Reply::with(200, &fields, "")
}

fn count(received: &Received) -> (usize, usize) {
    let all = decode(received).timeseries;
    let sum = |of: fn(&TimeSeries) -> usize| all.iter().map(of).sum();
    (sum(|series| series.samples.len()), sum(|series| series.exemplars.len()))
}

fn says(response: &Response) -> [Option<&str>; 2] {
    ["Samples", "Exemplars"].map(|what| response.header(&format!("X-Prometheus-Remote-Write-{what}-Written")))
}

/// Sends a first request, and these while it is on its way. Returns the answers to these.
fn send_behind_the_first(server: &Server, upstream: &Upstream, bodies: Vec<Vec<u8>>) -> Vec<Response> {
    let mut first = send(server, [request(&["a"], "first", 1)]);
    eventually("the first is under way", || upstream.of("a").len() == 1);
    let mut clients = send(server, bodies);
    assert_eq!(first[0].response().status, 200);
    answers(&mut clients)
}

#[test]
fn requests_that_come_while_one_is_on_its_way_leave_as_one_and_each_sender_gets_its_own_answer() {
    on_both(|driver| {
        let upstream = slow_upstream(|received| {
            let (samples, exemplars) = count(received);
            written(samples, exemplars)
        });
        let server = Server::start(driver, upstream.address, "");
        // Some are split, and some go on as they came.
        let bodies = (1..=6).map(|at| match at % 2 {
            0 => request(&["a"], &format!("m{at}"), at),
            _ => request(&["a", "b"], &format!("m{at}"), at),
        });
        let responses = send_behind_the_first(&server, &upstream, bodies.collect());
        for (at, response) in (1..=6).zip(&responses) {
            let tenants = if at % 2 == 0 { 1 } else { 2 };
            let (samples, exemplars) = ((at * tenants).to_string(), tenants.to_string());
            assert_eq!(response.status, 200);
            assert_eq!(says(response), [Some(&samples[..]), Some(&exemplars[..])], "of request {at} alone");
        }
        let received = upstream.of("a");
        assert_eq!(received.len(), 2, "one request for the six");
        let mut seen = names(&received[1]);
        seen.sort();
        assert_eq!(seen, (1..=6).map(|at| format!("m{at}")).collect::<Vec<_>>());
        let merged = decode(&received[1]);
        let mut symbols = merged.symbols.clone();
        symbols.sort();
        symbols.dedup();
        assert_eq!((symbols.len(), &merged.symbols[0][..]), (merged.symbols.len(), &b""[..]));
        assert!(!symbols.iter().any(|symbol| symbol.starts_with(b"before") || &symbol[..] == b"b"));
        for series in &merged.timeseries {
            let metadata = series.metadata.as_ref().unwrap();
            assert_eq!(merged.symbol(metadata.help_ref).unwrap(), "some help");
            assert_eq!(merged.symbol(metadata.unit_ref).unwrap(), "s");
            let exemplar = merged.labels(&series.exemplars[0].labels_refs).unwrap();
            assert_eq!(exemplar, [("trace_id".into(), "t1".into())]);
            assert_eq!(series.samples[0], Sample { value: 1.0, timestamp: 7, start_timestamp: 3 });
        }
        assert!(server.metric("tenantry_merges_total", "") >= 1.0);
        let sent: usize = upstream.received().iter().map(|received| received.body.len()).sum();
        let counted = server.metric("tenantry_upstream_bytes_total", "");
        let lengths = 2 * upstream.received().len();
        assert!(counted <= sent as f64 && counted >= (sent - lengths) as f64, "{counted} of {sent}");
        eventually("nothing is held any more", || server.metric("tenantry_in_flight_bytes", "") == 0.0);
    });
}

#[test]
fn a_merged_request_that_was_written_in_part_is_not_told_as_more() {
    on_both(|driver| {
        let upstream = slow_upstream(|received| written(count(received).0.min(4), 0));
        let server = Server::start(driver, upstream.address, "");
        let bodies = [2, 6].map(|samples| request(&["a"], &format!("m{samples}"), samples));
        let responses = send_behind_the_first(&server, &upstream, bodies.to_vec());
        assert_eq!(upstream.of("a").len(), 2);
        assert_eq!(says(&responses[0]), [Some("1"), Some("0")]);
        assert_eq!(says(&responses[1]), [Some("3"), Some("0")]);
    });
}

#[test]
fn a_merged_request_that_is_refused_is_sent_again_part_by_part() {
    on_both(|driver| {
        let upstream = slow_upstream(|received| match names(received).iter().any(|name| name == "bad") {
            true => Reply::new(400, "bad is out of order"),
            false => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "");
        let bodies = ["m1", "bad", "m2", "m3"].map(|name| request(&["a"], name, 1));
        let bodies = [&bodies[..], &[request(&["a", "b"], "m4", 1)]].concat();
        let responses = send_behind_the_first(&server, &upstream, bodies);
        assert_eq!(responses.iter().map(|r| r.status).collect::<Vec<_>>(), [200, 400, 200, 200, 200]);
        assert_eq!(responses[1].text(), "bad is out of order");
        let received = upstream.of("a");
        assert_eq!(names(&received[1]).len(), 5, "they were merged at first");
        let mut alone: Vec<_> = received[2..].iter().map(names).collect();
        alone.sort();
        assert_eq!(alone, [["bad"], ["m1"], ["m2"], ["m3"], ["m4"]]);
    });
}

#[test]
fn what_is_too_large_is_sent_in_pieces_and_stored_once() {
    on_both(|driver| {
        let upstream = slow_upstream(|received| match decode(received).timeseries.len() > 3 {
            true => Reply::new(413, "too large"),
            false => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "");
        let many = |name: &str, tenants: &[&str]| {
            let mut table = SymbolTable::default();
            let labels = (0..5).map(|at| format!("{name}{at}"));
            let timeseries = labels.flat_map(|label| {
                let of = |tenant| [("__name__", &label[..]), ("tenant", tenant)];
                tenants.iter().map(|&tenant| one(&mut table, &of(tenant), 1)).collect::<Vec<_>>()
            });
            let timeseries = timeseries.collect();
            Request { symbols: table.into_symbols(), timeseries }.to_block().to_vec()
        };
        let bodies = vec![many("x", &["a"]), many("y", &["a", "b"]), request(&["a"], "z", 1)];
        let responses = send_behind_the_first(&server, &upstream, bodies);
        assert!(responses.iter().all(|response| response.status == 200));
        let received = upstream.of("a");
        let taken = received.iter().filter(|r| decode(r).timeseries.len() <= 3);
        let mut stored: Vec<_> = taken.flat_map(names).collect();
        stored.sort();
        let mut all: Vec<_> = ["first", "z"].map(str::to_owned).to_vec();
        all.extend((0..5).flat_map(|at| [format!("x{at}"), format!("y{at}")]));
        all.sort();
        assert_eq!(stored, all, "each once");
        assert!(received.iter().any(|r| names(r).len() == 11), "they were merged at first");
    });
}

#[test]
fn replicas_never_share_a_request() {
    on_both(|driver| {
        let upstream = slow_upstream(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        let of = |replica: &str, name: &str| {
            let mut table = SymbolTable::default();
            let labels = [("__name__", name), ("__replica__", replica), ("cluster", "c"), ("tenant", "a")];
            let timeseries = vec![one(&mut table, &labels, 1)];
            Request { symbols: table.into_symbols(), timeseries }.to_block().to_vec()
        };
        let bodies = (0..8).map(|at| of(["r1", "r2"][at % 2], &format!("m{at}"))).collect();
        let responses = send_behind_the_first(&server, &upstream, bodies);
        assert!(responses.iter().all(|response| response.status == 200));
        let received = upstream.of("a");
        let mut replicas: Vec<_> = received[1..].iter().map(|r| values(r, "__replica__")).collect();
        replicas.sort();
        assert_eq!(replicas, [["r1"; 4], ["r2"; 4]]);
    });
}

#[test]
fn requests_of_both_protocols_never_share_a_request() {
    on_both(|driver| {
        let upstream = slow_upstream(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        let mut first = send(&server, [request(&["a"], "first", 1)]);
        eventually("the first is under way", || upstream.of("a").len() == 1);
        let mut clients = Vec::new();
        for at in 0..3 {
            let one = body(vec![series("a", &format!("one{at}"), 1.0)]);
            clients.extend(support::send_together(&server, [one]));
            clients.extend(send(&server, [request(&["a"], &format!("two{at}"), 1)]));
        }
        assert_eq!(first[0].response().status, 200);
        assert!(answers(&mut clients).iter().all(|response| response.status == 200));
        let (two, one): (Vec<_>, Vec<_>) = upstream.of("a")[1..]
            .iter()
            .cloned()
            .partition(|r| r.header("x-prometheus-remote-write-version") == Some("2.0.0"));
        assert_eq!((one.len(), two.len()), (1, 1));
        assert_eq!((one[0].names().len(), names(&two[0]).len()), (3, 3));
    });
}

#[test]
fn a_delivered_part_is_known_again_whether_it_was_merged_or_not() {
    on_both(|driver| {
        let upstream = slow_upstream(|received| match received.tenant() {
            "down" => Reply::new(503, "no"),
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "");
        let bodies: Vec<_> = ["m1", "m2"].map(|name| request(&["a", "down"], name, 1)).to_vec();
        let responses = send_behind_the_first(&server, &upstream, bodies.clone());
        assert!(responses.iter().all(|response| response.status == 503));
        assert_eq!(upstream.of("a").len(), 2, "both in one");
        for body in bodies {
            assert_eq!(answers(&mut send(&server, [body]))[0].status, 503);
        }
        assert_eq!(upstream.of("a").len(), 2, "not again");
        assert_eq!(server.metric("tenantry_receipts_used_total", ""), 2.0);
    });
}

/// References into the larger table take more bytes, so a merged request may be larger than its parts together.
#[test]
fn a_merged_request_stays_within_its_size() {
    on_both(|driver| {
        let wide = |name: &str| {
            let mut table = SymbolTable::default();
            let values: Vec<_> = (0..60).map(|at| (format!("{name}{at}"), format!("v{name}{at}"))).collect();
            let mut labels = vec![("__name__", name), ("tenant", "a")];
            labels.extend(values.iter().map(|(name, value)| (&name[..], &value[..])));
            let timeseries = vec![one(&mut table, &labels, 1)];
            Request { symbols: table.into_symbols(), timeseries }.to_block().to_vec()
        };
        let inflated = |body: &[u8]| snap::raw::decompress_len(body).unwrap();
        let bodies: Vec<_> = ["x", "y", "z"].map(wide).to_vec();
        let bytes_max: usize = bodies.iter().map(|body| inflated(body)).sum();
        let upstream = slow_upstream(|_| Reply::ok());
        let config = format!("merge:\n  inflated_bytes_max: {bytes_max}\n");
        let server = Server::start(driver, upstream.address, &config);
        let responses = send_behind_the_first(&server, &upstream, bodies);
        assert!(responses.iter().all(|response| response.status == 200));
        let received = upstream.of("a");
        assert_eq!(received.iter().map(|r| names(r).len()).collect::<Vec<_>>(), [1, 2, 1]);
        assert!(received.iter().all(|r| inflated(&r.body) <= bytes_max));
        let seen: Vec<_> = received[1..].iter().flat_map(names).collect();
        assert_eq!(seen.len(), 3);
    });
}
