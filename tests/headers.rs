//! Headers of upstream requests: those that the sender passes on, of remote write and of OTLP, and the two of
//! VictoriaMetrics. And headers of upstream replies that report what Remote Write 2.0 wrote. On both rings.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message;
use support::client::{Response, push_head};
use support::upstream::Received;
use support::{Client, Driver, Reply, Server, Upstream, body, eventually, on_both, otlp, post, series};
use tenantry::model::Signal;
use testkit::proto_otlp::{ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest};

const TRACE: [&str; 3] = [
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-2af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
];

/// A server whose upstream takes so long for the first request that all others wait for it.
fn slow_at_first(driver: Driver, extra: &str) -> (Server, Upstream) {
    let slow = |r: &Received| r.names() == ["first"];
    let upstream = Upstream::start(move |r| match slow(r) {
        true => Reply::ok().after(Duration::from_secs(1)),
        false => Reply::ok(),
    });
    (Server::start(driver, upstream.address, extra), upstream)
}

/// Sends `first`, and while it is in flight a request of one series for each of `headers`. Returns when all have 200.
fn behind_the_first(server: &Server, headers: &[String]) {
    let send = |name: &str, headers: &str| {
        let body = body(vec![series("a", name, 1.0)]);
        let mut client = server.client();
        client.send(&[push_head(body.len(), headers).as_bytes(), &body].concat());
        client
    };
    let mut clients = vec![send("first", "")];
    eventually("it is under way", || server.metric("tenantry_upstream_requests_total", "") == 1.0);
    for (number, headers) in headers.iter().enumerate() {
        clients.push(send(&format!("m{number}"), headers));
        let before = number as f64 + 1.0;
        eventually("it waits", || server.metric("tenantry_lane_waiting_fragments", "") >= before);
    }
    clients.iter_mut().for_each(|client: &mut Client| assert_eq!(client.response().status, 200));
}

#[test]
fn a_merged_request_has_the_first_trace_of_its_parts() {
    on_both(|driver| {
        let (server, upstream) = slow_at_first(driver, "");
        let headers =
            TRACE.map(|trace| format!("TraceParent: {trace}\r\ntracestate: a={}\r\n", &trace[3..5]));
        behind_the_first(&server, &headers);
        let received = upstream.received();
        assert_eq!(received.len(), 2, "requests with different traces merge");
        assert_eq!((received[0].header("traceparent"), received[0].header("tracestate")), (None, None));
        let traces: Vec<_> =
            received[1].headers.0.iter().filter(|(name, _)| name.starts_with("trace")).collect();
        assert_eq!(traces.len(), 2, "{traces:?}");
        assert_eq!(received[1].header("traceparent"), Some(TRACE[0]));
        assert_eq!(received[1].header("tracestate"), Some("a=0a"));
        // Each tenant's part has the trace, unless it is malformed.
        let two = body(vec![series("b", "up", 1.0), series("c", "up", 1.0)]);
        let mut client = server.client();
        assert_eq!(client.push_with(&two, &format!("traceparent: {}\r\n", TRACE[1])).status, 200);
        for tenant in ["b", "c"] {
            assert_eq!(upstream.of(tenant)[0].header("traceparent"), Some(TRACE[1]));
        }
        assert_eq!(client.push_with(&two, "traceparent: 00-xyz\r\ntracestate: a=1\r\n").status, 200);
        assert_eq!(upstream.of("b")[1].header("traceparent"), None);
        assert_eq!(upstream.of("b")[1].header("tracestate"), None);
    });
}

#[test]
fn configured_headers_are_passed_on_and_keep_requests_apart() {
    on_both(|driver| {
        let (server, upstream) = slow_at_first(driver, "upstream: {pass_headers: [X-Shard, X-Mode]}\n");
        let headers =
            ["x-shard: 1\r\n", "x-shard: 2\r\n", "X-Shard: 1\r\nX-Other: x\r\n", "", "X-Mode: 1\r\n"];
        behind_the_first(&server, &headers.map(str::to_owned));
        let mut batches: Vec<_> = upstream.received()[1..]
            .iter()
            .map(|r| {
                assert_eq!(r.header("X-Other"), None, "not asked for");
                let field = |name: &str| r.header(name).map(str::to_owned);
                (r.names(), field("X-Shard"), field("X-Mode"))
            })
            .collect();
        batches.sort();
        let batch = |names: &[&str], shard: Option<&str>, mode: Option<&str>| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            (names, shard.map(str::to_owned), mode.map(str::to_owned))
        };
        assert_eq!(
            batches,
            [
                batch(&["m0", "m2"], Some("1"), None),
                batch(&["m1"], Some("2"), None),
                batch(&["m3"], None, None),
                batch(&["m4"], None, Some("1")),
            ]
        );
        let more = format!("X-Shard: {}\r\n", "x".repeat(5_000));
        let answer = server.client().push_with(&body(vec![series("a", "up", 1.0)]), &more);
        assert_eq!(answer.status, 400, "{}", answer.text());
    });
}

/// Lets one header of Mimir's for OTLP pass.
const OTLP: &str = "upstream: {pass_headers: [X-Mimir-OTLP-AddSuffixes]}\nmerge: {inflight_max: 1}\n";
const SUFFIXES: &str = "X-Mimir-OTLP-AddSuffixes";

/// An export in protobuf as JSON.
fn json_of(signal: Signal, export: &[u8]) -> Vec<u8> {
    match signal {
        Signal::Metrics => serde_json::to_vec(&ExportMetricsServiceRequest::decode(export).unwrap()),
        Signal::Logs => serde_json::to_vec(&ExportLogsServiceRequest::decode(export).unwrap()),
        Signal::Traces => serde_json::to_vec(&ExportTraceServiceRequest::decode(export).unwrap()),
    }
    .unwrap()
}

#[test]
fn exports_take_the_headers_and_the_trace_of_their_request_to_each_tenant() {
    on_both(|driver| {
        let (server, upstream) = otlp::start(driver, OTLP, |_| Reply::ok());
        let with = |fields: &str, suffixes: bool| {
            format!(
                "{fields}x-mimir-otlp-addsuffixes: {suffixes}\r\nX-Mimir-OTLP-Other: x\r\n\
                 traceparent: {}\r\ntracestate: a=1\r\n",
                TRACE[1]
            )
        };
        for (signal, of_one) in otlp::SIGNALS.into_iter().flat_map(|signal| [(signal, false), (signal, true)])
        {
            let resources: &[(&str, &[u64])] =
                if of_one { &[("a", &[1])] } else { &[("a", &[1]), ("b", &[2])] };
            let protobuf = otlp::numbered(signal, resources);
            let json = json_of(signal, &protobuf);
            for (fields, body) in [(otlp::PROTOBUF, protobuf), (otlp::JSON, json)] {
                let answer = post(&server, otlp::path(signal), &with(fields, of_one), &body);
                assert_eq!(answer.status, 200, "{}", answer.text());
                for (tenant, _) in resources {
                    let sent = upstream.of(tenant).pop().unwrap();
                    let field = |name| sent.header(name).map(str::to_owned);
                    let kind = fields.strip_prefix("Content-Type: ").unwrap().trim_end().to_owned();
                    assert!(sent.path.ends_with(otlp::path(signal)), "{}", sent.path);
                    assert_eq!(field("content-type"), Some(kind));
                    assert_eq!(field(SUFFIXES), Some(of_one.to_string()), "{signal:?} {fields}");
                    assert_eq!(field("X-Mimir-OTLP-Other"), None, "not asked for");
                    assert_eq!(field("traceparent").as_deref(), Some(TRACE[1]), "{signal:?} {fields}");
                    assert_eq!(field("tracestate").as_deref(), Some("a=1"));
                }
            }
        }
        assert_eq!((upstream.of("a").len(), upstream.of("b").len()), (12, 6));
    });
}

#[test]
fn exports_share_a_request_only_with_those_of_the_same_headers() {
    on_both(|driver| {
        for encoding in ["", "gzip"] {
            let (server, upstream) = otlp::start(driver, OTLP, |r| match otlp::numbers(r)[..] {
                [0] => Reply::ok().after(Duration::from_secs(1)),
                _ => Reply::ok(),
            });
            let send = |number: u64, lines: &str| {
                let body = otlp::coded(encoding, &otlp::numbered(Signal::Logs, &[("a", &[number])]));
                let fields = otlp::fields_of(encoding) + lines;
                let length = body.len();
                let head =
                    format!("POST /v1/logs HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {length}\r\n\r\n");
                let mut client = server.client();
                client.send(&[head.as_bytes(), &body].concat());
                client
            };
            let mut clients = vec![send(0, "")];
            eventually("the first is under way", || upstream.received().len() == 1);
            let suffixes =
                |value: bool, trace: &str| format!("{SUFFIXES}: {value}\r\ntraceparent: {trace}\r\n");
            let lines = [
                suffixes(true, TRACE[0]),
                suffixes(false, TRACE[1]),
                suffixes(true, TRACE[1]),
                String::new(),
            ];
            for (number, lines) in (1..).zip(&lines) {
                clients.push(send(number, lines));
                eventually("it waits", || {
                    server.metric("tenantry_lane_waiting_fragments", "") >= number as f64
                });
            }
            clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
            let received = upstream.received();
            let mut batches: Vec<_> = received[1..]
                .iter()
                .map(|r| (otlp::numbers(r), r.header(SUFFIXES), r.header("traceparent")))
                .collect();
            batches.sort();
            let expected = [
                // Other traces are no reason to send two requests.
                (vec![1, 3], Some("true"), Some(TRACE[0])),
                (vec![2], Some("false"), Some(TRACE[1])),
                (vec![4], None, None),
            ];
            assert_eq!(batches, expected, "{encoding}");
        }
    });
}

#[test]
fn a_part_with_other_headers_is_another_part() {
    on_both(|driver| {
        let well = Arc::new(AtomicBool::new(false));
        let is_well = Arc::clone(&well);
        let upstream = Upstream::start(move |r| match r.tenant() {
            "b" if !is_well.load(Ordering::SeqCst) => Reply::new(503, "not now"),
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "upstream: {pass_headers: [X-Shard]}\n");
        let two = body(vec![series("a", "up", 1.0), series("b", "up", 1.0)]);
        let mut client = server.client();
        let mut push = |shard: u32| client.push_with(&two, &format!("X-Shard: {shard}\r\n")).status;
        assert_eq!(push(1), 503);
        assert_eq!(push(1), 503);
        assert_eq!(upstream.of("a").len(), 1, "a part with the same headers is not sent again");
        assert_eq!(push(2), 503);
        assert_eq!(upstream.of("a").len(), 2, "a part with other headers is sent");
        well.store(true, Ordering::SeqCst);
        assert_eq!((push(1), push(2)), (200, 200));
        assert_eq!((upstream.of("a").len(), upstream.of("b").len()), (2, 5));
    });
}

#[test]
fn victoriametrics_gets_account_and_project_as_headers() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let extra = "tenant: {label: tenant, header: AccountID+ProjectID, on_invalid: drop}\n";
        let server = Server::start(driver, upstream.address, extra);
        let tenants = ["12:34", "12", "4294967296", "a"];
        let request = body(tenants.iter().map(|tenant| series(tenant, "up", 1.0)).collect());
        let answer = server.client().push_with(&request, "AccountID: 7\r\nProjectID: 8\r\n");
        assert_eq!(answer.status, 400, "{}", answer.text());
        let field = |r: &Received, name: &str| {
            let values: Vec<_> = r.headers.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).collect();
            assert_eq!(values.len(), 1, "{name}: {values:?}");
            values[0].1.clone()
        };
        let mut ids: Vec<_> =
            upstream.received().iter().map(|r| (field(r, "AccountID"), field(r, "ProjectID"))).collect();
        ids.sort();
        let id = |account: &str, project: &str| (account.to_owned(), project.to_owned());
        assert_eq!(ids, [id("12", "0"), id("12", "34")]);
    });
}

const V2: &str = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
                  Content-Encoding: snappy\r\n";

fn push_v2(server: &Server, tenants: &[&str]) -> Response {
    use testkit::proto_v2::{Request, Sample, TimeSeries};
    let mut symbols: Vec<_> = ["", "__name__", "up", "tenant"].map(|text| text.to_owned().into()).into();
    symbols.extend(tenants.iter().map(|&tenant| tenant.to_owned().into()));
    let timeseries = (0_u32..).zip(tenants).map(|(at, _)| TimeSeries {
        labels_refs: vec![1, 2, 3, 4 + at],
        samples: vec![Sample { value: 1.0, timestamp: 1_700_000_000_000, ..Sample::default() }],
        ..TimeSeries::default()
    });
    let request = Request { symbols, timeseries: timeseries.collect() };
    let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
    let head =
        format!("POST /api/v1/write HTTP/1.1\r\nHost: x\r\n{V2}Content-Length: {}\r\n\r\n", body.len());
    let mut client = server.client();
    client.send(&[head.as_bytes(), &body].concat());
    client.response()
}

#[test]
fn an_upstream_that_does_not_say_what_it_wrote_is_logged_and_counted() {
    on_both(|driver| {
        let upstream = Upstream::start(|r| match r.tenant() {
            "says" => Reply::with(204, "X-Prometheus-Remote-Write-Samples-Written: 1\r\n", ""),
            "nothing" => Reply::with(204, "X-Prometheus-Remote-Write-Samples-Written: 0\r\n", ""),
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "");
        let unwritten = || server.metric("tenantry_upstream_unwritten_total", "");
        for tenant in ["says", "nothing"] {
            assert_eq!(push_v2(&server, &[tenant]).status, 204);
        }
        assert_eq!(server.client().push(&body(vec![series("silent", "up", 1.0)])).status, 200);
        assert_eq!(unwritten(), 0.0);
        for _ in 0..20 {
            assert_eq!(push_v2(&server, &["silent"]).status, 200);
        }
        assert_eq!(unwritten(), 20.0);
        // The tenant has one home core, and each core logs a few such lines in a while.
        let told = || server.log().iter().filter(|line| line.contains("does not say what it wrote")).count();
        eventually("it is told", || told() > 0);
        assert!(told() <= 5, "{}", told());
    });
}

#[test]
fn an_upstream_that_does_not_say_what_it_wrote_can_count_as_failed() {
    on_both(|driver| {
        let upstream = Upstream::start(|r| match r.tenant() {
            "says" => Reply::with(204, "X-Prometheus-Remote-Write-Samples-Written: 1\r\n", ""),
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "remote_write_v2_require_written: true\n");
        assert_eq!(push_v2(&server, &["says"]).status, 204);
        let answer = push_v2(&server, &["says", "silent"]);
        assert_eq!(answer.status, 502);
        assert!(answer.text().contains("remote_write_v2_require_written"), "{}", answer.text());
        // The part that is known to be stored is not sent again. The other is.
        assert_eq!(push_v2(&server, &["says", "silent"]).status, 502);
        assert_eq!((upstream.of("says").len(), upstream.of("silent").len()), (2, 2));
        let as_1_0 = server.client().push(&body(vec![series("silent", "up", 1.0)]));
        assert_eq!(as_1_0.status, 200, "1.0 has no such word");
    });
}

#[test]
fn the_log_says_what_it_costs_to_refuse_remote_write_2() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "remote_write_v2: refuse\ncores: 1\n");
        let told = || server.log().iter().filter(|line| line.contains("does not fall back")).count();
        eventually("it is told at the start", || told() == 1);
        for _ in 0..30 {
            assert_eq!(push_v2(&server, &["a"]).status, 415);
        }
        eventually("it is told of requests", || told() > 1);
        assert!(told() <= 6, "{}", told());
    });
}
