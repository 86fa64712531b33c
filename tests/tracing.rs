//! Spans of sampled requests, as a receiver of OTLP gets them, and what a bad receiver does to pushes: nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::collections::HashMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use prost::Message;
use testkit::proto_otlp::{ExportTraceServiceRequest, Span};

use support::{Driver, Reply, Server, Upstream, body, eventually, on_both, series};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\ntracestate: a=1\r\n")
}

struct Rig {
    server: Server,
    upstream: Upstream,
    receiver: Upstream,
}

impl Rig {
    fn start(driver: Driver, one_in: u32, more: &str) -> Self {
        let (upstream, receiver) = (Upstream::start(|_| Reply::ok()), Upstream::start(|_| Reply::ok()));
        let server = Server::start(driver, upstream.address, &settings(&receiver.address, one_in, more));
        Self { server, upstream, receiver }
    }

    /// Pushes series of these tenants.
    fn push(&self, tenants: &[&str], headers: &str) {
        let body = body(tenants.iter().map(|tenant| series(tenant, "up", 1.0)).collect());
        assert_eq!(self.server.client().push_with(&body, headers).status, 200);
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.receiver.received();
        assert!(received.iter().all(|request| request.path == "/v1/traces"));
        assert!(received.iter().all(|r| r.header("content-type") == Some("application/x-protobuf")));
        let decode = |body: &[u8]| ExportTraceServiceRequest::decode(body).unwrap();
        received.iter().flat_map(|request| decode(&request.body).spans()).collect()
    }

    /// The spans once there are as many, by their names.
    fn await_spans(&self, count: usize) -> HashMap<String, Vec<Span>> {
        eventually("the spans are exported", || self.spans().len() >= count);
        let mut by_name = HashMap::<_, Vec<_>>::new();
        self.spans().into_iter().for_each(|span| by_name.entry(span.name.clone()).or_default().push(span));
        assert_eq!(by_name.values().map(Vec::len).sum::<usize>(), count, "{by_name:#?}");
        by_name
    }
}

fn settings(receiver: &impl std::fmt::Display, one_in: u32, more: &str) -> String {
    format!("tracing:\n  otlp:\n    endpoint: http://{receiver}\n  sample_one_in: {one_in}\n{more}")
}

#[test]
fn a_sampled_request_is_traced_from_its_arrival_to_the_upstreams_answer() {
    on_both(|driver| {
        let rig = Rig::start(driver, 0, "");
        rig.push(&["a", "b"], &traceparent("01"));
        let spans = rig.await_spans(6);
        let [ingest] = spans["ingest"].as_slice() else { panic!("{spans:#?}") };
        assert_eq!((ingest.trace(), ingest.parent(), ingest.kind), (TRACE.into(), PARENT.into(), 2));
        for (key, value) in [
            ("http.response.status_code", "200"),
            ("tenantry.tenants", "2"),
            ("tenantry.series", "2"),
            ("tenantry.samples", "2"),
            ("tenantry.protocol", "remote_write_v1"),
            ("client.address", "127.0.0.1"),
        ] {
            assert_eq!(ingest.attribute(key).as_deref(), Some(value), "{key}");
        }
        assert_eq!((spans["split"].len(), spans["wait"].len(), spans["upstream"].len()), (1, 2, 2));
        for span in spans.values().flatten().filter(|span| span.name != "ingest") {
            assert_eq!((span.trace(), span.parent()), (TRACE.into(), ingest.id()));
            assert!(ingest.start_time_unix_nano <= span.start_time_unix_nano);
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
            assert!(span.status.is_none());
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let ago = now - Duration::from_nanos(ingest.start_time_unix_nano);
        assert!(ago < Duration::from_secs(30), "{ago:?}");

        // The upstream continues the trace at the span of its own request, and the state goes along.
        for span in &spans["upstream"] {
            assert_eq!((span.kind, span.attribute("http.response.status_code").as_deref()), (3, Some("200")));
            let got = rig.upstream.of(&span.attribute("tenantry.tenant").unwrap());
            let expected = format!("00-{TRACE}-{}-01", span.id());
            assert_eq!(got[0].header("traceparent"), Some(expected.as_str()));
            assert_eq!(got[0].header("tracestate"), Some("a=1"));
        }
        let request_id = ingest.attribute("tenantry.request_id").unwrap();
        assert_eq!(rig.upstream.of("a")[0].header("x-cortex-tenant-reqid"), Some(request_id.as_str()));
        eventually("they are counted", || {
            rig.server.metric("tenantry_trace_spans_exported_total", "") == 6.0
        });
        assert_eq!(rig.server.metric("tenantry_trace_spans_dropped_total", ""), 0.0);
    });
}

#[test]
fn the_senders_flag_decides_and_hostile_traces_are_none() {
    on_both(|driver| {
        let rig = Rig::start(driver, 0, "");
        // Not sampled: passed on as it is, and not traced.
        rig.push(&["a"], &traceparent("00"));
        let unchanged = format!("00-{TRACE}-{PARENT}-00");
        assert_eq!(rig.upstream.of("a")[0].header("traceparent"), Some(unchanged.as_str()));
        let zero = "0".repeat(32);
        for hostile in [
            "traceparent: 00-xyz\r\n".to_owned(),
            format!("traceparent: 00-{zero}-{PARENT}-01\r\n"),
            format!("traceparent: ff-{TRACE}-{PARENT}-01\r\n"),
            format!("traceparent: 00-{TRACE}-{PARENT}-0g\r\n"),
            format!("traceparent: 00-{TRACE}-{PARENT}-01-more\r\n"),
            format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n"),
            format!("traceparent: {}\r\n", "a".repeat(4_000)),
        ] {
            rig.push(&["b"], &hostile);
        }
        assert!(rig.upstream.of("b").iter().all(|request| request.header("traceparent").is_none()));
        rig.push(&["c"], &traceparent("01"));
        // Those of the last one, and none before.
        let spans = rig.await_spans(4);
        assert!(spans.values().flatten().all(|span| span.trace() == TRACE));
    });
}

#[test]
fn a_rate_samples_requests_without_a_trace() {
    on_both(|driver| {
        let rig = Rig::start(driver, 4, "cores: 1\n");
        for _ in 0..8 {
            rig.push(&["a"], "");
        }
        let spans = rig.await_spans(8);
        let traces: Vec<_> = spans["ingest"].iter().map(Span::trace).collect();
        assert!(traces.len() == 2 && traces[0] != traces[1], "{traces:?}");
        assert!(spans["ingest"].iter().all(|span| span.parent().is_empty()));
        let continued = rig.upstream.of("a").iter().filter(|r| r.header("traceparent").is_some()).count();
        assert_eq!(continued, 2);
        // A sender that says no is heard.
        (0..8).for_each(|_| rig.push(&["b"], &traceparent("00")));
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(rig.spans().len(), 8);
        // A reload changes the rate.
        rig.server.reload_with("sample_one_in: 4", "sample_one_in: 1");
        (0..3).for_each(|_| rig.push(&["c"], ""));
        rig.await_spans(8 + 3 * 4);
    });
}

#[test]
fn failures_are_told() {
    on_both(|driver| {
        let (upstream, receiver) =
            (Upstream::start(|_| Reply::new(500, "broken")), Upstream::start(|_| Reply::ok()));
        let server = Server::start(driver, upstream.address, &settings(&receiver.address, 0, ""));
        let rig = Rig { server, upstream, receiver };
        let push = body(vec![series("a", "up", 1.0)]);
        assert_eq!(rig.server.client().push_with(&push, &traceparent("01")).status, 500);
        assert_eq!(rig.server.client().push_with(b"nonsense", &traceparent("01")).status, 400);
        let spans = rig.await_spans(5);
        let error = |name: &str| spans[name][0].status.clone().map(|status| (status.code, status.message));
        assert_eq!(error("upstream"), Some((2, "the upstream answered 500".into())));
        let statuses: Vec<_> =
            spans["ingest"].iter().filter_map(|span| span.attribute("http.response.status_code")).collect();
        assert_eq!(statuses, ["500", "400"]);
        assert!(spans["ingest"][0].status.is_some() && spans["ingest"][1].status.is_none());
    });
}

/// A client without a credential could otherwise fill the queue of spans, and write into traces of others.
#[test]
fn a_client_that_is_refused_starts_no_trace() {
    on_both(|driver| {
        let directory = tempfile::tempdir().unwrap();
        let (token, tokens) = (directory.path().join("token"), directory.path().join("tokens.yml"));
        std::fs::write(&token, "the-token-of-a-sender\n").unwrap();
        std::fs::write(&tokens, format!("- name: sender\n  token_file: {}\n", token.display())).unwrap();
        let auth = format!("auth: {{ingress: {{tokens_file: {}}}}}\n", tokens.display());
        for one_in in [0, 1] {
            let rig = Rig::start(driver, one_in, &auth);
            let push = |token: &str, trace: &str| {
                let headers = format!("Authorization: Bearer {token}\r\n{trace}");
                rig.server.client().push_with(&body(vec![series("a", "up", 1.0)]), &headers).status
            };
            for trace in [&*traceparent("01"), ""] {
                assert_eq!(push("the-token-of-another", trace), 401);
            }
            assert!(rig.upstream.received().is_empty());
            assert_eq!(push("the-token-of-a-sender", &traceparent("01")), 200);
            // Spans come in the order of their requests' ends, so those of a refused one would be among the first.
            let spans = rig.await_spans(4);
            let [ingest] = spans["ingest"].as_slice() else { panic!("{spans:#?}") };
            assert_eq!(ingest.attribute("http.response.status_code").as_deref(), Some("200"));
        }
    });
}

/// Pushes traced requests, each of which must be answered soon.
fn pushes_are_prompt(server: &Server) {
    let mut client = server.client();
    let body = body(vec![series("a", "up", 1.0)]);
    for _ in 0..200 {
        let begun = Instant::now();
        assert_eq!(client.push(&body).status, 200);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_receiver_that_refuses_answers_wrongly_or_hangs_delays_no_push() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let refusing = support::server::free_port();
        let failing = Upstream::start(|_| Reply::new(503, ""));
        let babbling = Upstream::start(|_| Reply::raw(b"nonsense from the receiver\r\n"));
        for address in [refusing, failing.address, babbling.address] {
            let server = Server::start(driver, upstream.address, &settings(&address, 1, ""));
            pushes_are_prompt(&server);
            eventually("they are counted", || {
                server.metric("tenantry_trace_spans_dropped_total", "") == 800.0
            });
            assert_eq!(server.metric("tenantry_trace_spans_exported_total", ""), 0.0);
            let told = server.log().iter().filter(|line| line.contains("spans can't be exported")).count();
            assert_eq!(told, 1, "{:#?}", server.log());
        }
        // Accepts nothing: the kernel completes the connections, and the requests stay unread.
        let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut server =
            Server::start(driver, upstream.address, &settings(&hanging.local_addr().unwrap(), 1, ""));
        for _ in 0..12 {
            pushes_are_prompt(&server);
        }
        // Beyond what the queue holds, spans are dropped at once.
        assert!(server.metric("tenantry_trace_spans_dropped_total", "") > 1_000.0);
        let begun = Instant::now();
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(20)).code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    });
}

#[test]
fn spans_of_the_last_requests_are_exported_before_the_end() {
    on_both(|driver| {
        let mut rig = Rig::start(driver, 1, "");
        rig.push(&["a"], "");
        rig.server.signal("TERM");
        assert_eq!(rig.server.wait(Duration::from_secs(20)).code(), Some(0));
        assert_eq!(rig.spans().len(), 4);
    });
}
