//! The laws that hold for series and streams, for metrics, logs and traces by OTLP: the answer is the truth, no byte of
//! a tenant reaches another, a tenant's trouble is its own, bytes are copied, and what is under way is finished.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use support::client::Client;
use support::otlp::{
    JSON, PROTOBUF, SIGNALS, coded, fields_of, is_full_success, numbered, numbers, path, plain, start,
    towards,
};
use support::upstream::Received;
use support::{Close, Reply, Response, Server, Upstream, eventually, on_both, on_both_at_once, post};
use tenantry::model::Signal;
use tenantry::wire::otlp::answer::{read_partial_success, read_status};
use testkit::proto_otlp::{
    Exemplar, ExponentialHistogramDataPoint, ExportTraceServiceRequest, InstrumentationScope, KeyValue,
    Metric, Resource, ResourceSpans, ScopeSpans, Span,
};

fn export(server: &Server, signal: Signal, resources: &[(&str, &[u64])]) -> Response {
    post(server, path(signal), PROTOBUF, &numbered(signal, resources))
}

/// Sends an export over a connection of its own, and does not wait for the answer.
fn begin(server: &Server, signal: Signal, encoding: &str, resources: &[(&str, &[u64])]) -> Client {
    let bytes = coded(encoding, &numbered(signal, resources));
    let fields = fields_of(encoding);
    let path = path(signal);
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {}\r\n\r\n", bytes.len());
    let mut client = server.client();
    client.send(&[head.as_bytes(), &bytes].concat());
    client
}

/// The numbers that came for a tenant and a signal, request after request.
fn came(upstream: &Upstream, tenant: &str, signal: Signal) -> Vec<u64> {
    let all = upstream.of(tenant);
    all.iter().filter(|received| received.path.ends_with(path(signal))).flat_map(numbers).collect()
}

#[test]
fn the_answer_is_the_truth_about_all_parts() {
    let script = |received: &Received| match received.tenant() {
        "bad" => Reply::new(400, "never"),
        "large" => Reply::new(413, ""),
        "limited" => Reply::with(429, "Retry-After: 7\r\n", "slow down"),
        "broken" => Reply::new(500, ""),
        "unknown" => Reply::new(501, ""),
        "down" => Reply::with(503, "Retry-After: 3\r\n", ""),
        "moved" => Reply::with(307, "Location: /elsewhere\r\n", ""),
        "gone" => Reply::from(Close::BeforeReply),
        "torn" => Reply::raw(b"HTTP/1.1 200 O").close(Close::AfterReply),
        "silent" => Reply::from(Close::Stall),
        _ => Reply::ok(),
    };
    // What each tenant's trouble is alone, and beside another tenant's data that was stored.
    let answers = [
        ("ok", 200, 200),
        ("bad", 400, 200),
        ("large", 413, 200),
        ("limited", 429, 429),
        ("broken", 503, 503),
        ("unknown", 503, 503),
        ("down", 503, 503),
        ("moved", 502, 502),
        ("gone", 502, 502),
        ("torn", 502, 502),
        ("silent", 504, 504),
    ];
    on_both_at_once(|driver| {
        let (server, _upstream) = start(driver, "timeout: 700ms\n", script);
        for signal in SIGNALS {
            for (tenant, alone, beside) in answers {
                let answer = export(&server, signal, &[(tenant, &[1])]);
                assert_eq!(answer.status, alone, "{signal:?} of {tenant} alone: {answer:?}");
                let answer = export(&server, signal, &[("good", &[1]), (tenant, &[2, 3])]);
                assert_eq!(answer.status, beside, "{signal:?} of {tenant} beside another's: {answer:?}");
                let retry_after = match tenant {
                    "limited" => Some("7"),
                    "down" => Some("3"),
                    _ => None,
                };
                if let Some(seconds) = retry_after {
                    assert_eq!(answer.header("retry-after"), Some(seconds), "{answer:?}");
                }
                if beside == 200 {
                    let rejected = read_partial_success(&answer.body).map_or(0, |partial| partial.rejected);
                    assert_eq!(rejected, if tenant == "ok" { 0 } else { 2 }, "{signal:?} of {tenant}");
                } else {
                    let text = read_status(&answer.body).unwrap();
                    assert!(!text.contains("good"), "only parts that failed are named: {text}");
                }
            }
        }
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
    });
}

#[test]
fn a_retry_sends_only_what_is_missing_over_whatever_connection_it_comes() {
    on_both_at_once(|driver| {
        let status = Arc::new(AtomicU16::new(503));
        let script = Arc::clone(&status);
        let (server, upstream) = start(driver, "", move |received| match received.tenant() {
            "ill" => Reply::new(script.load(Ordering::SeqCst), ""),
            _ => Reply::ok(),
        });
        for signal in SIGNALS {
            for (encoding, number) in ["", "gzip", "zstd", "snappy"].into_iter().zip(1..) {
                status.store(503, Ordering::SeqCst);
                // Of the same data there would be a receipt.
                let body = coded(encoding, &numbered(signal, &[("ill", &[number]), ("well", &[number])]));
                let before = (upstream.of("ill").len(), upstream.of("well").len());
                let push = || post(&server, path(signal), &fields_of(encoding), &body);
                assert_eq!((push().status, push().status), (503, 503));
                status.store(200, Ordering::SeqCst);
                assert!(is_full_success(&push()));
                let sent = (upstream.of("ill").len() - before.0, upstream.of("well").len() - before.1);
                assert_eq!(sent, (3, 1), "{signal:?} {encoding}");
            }
        }
    });
}

/// Every level may name the tenant, senders' exports wait for each other and share requests, and all that the items of
/// a tenant say has its name in it.
#[test]
fn no_byte_of_one_tenant_reaches_another() {
    let tenants: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    let by_item = |round: usize| {
        let span = |tenant: &String| Span {
            name: format!("<{tenant}>"),
            attributes: vec![KeyValue::text("tenant", tenant)],
            ..Span::default()
        };
        let scope = |tenant: &String| ScopeSpans {
            scope: Some(InstrumentationScope {
                name: format!("<{tenant}>"),
                attributes: vec![KeyValue::text("tenant", tenant)],
                ..InstrumentationScope::default()
            }),
            spans: vec![Span { name: format!("<{tenant}>"), ..Span::default() }],
            ..ScopeSpans::default()
        };
        let turned = tenants.iter().cycle().skip(round).take(tenants.len());
        let mut scope_spans: Vec<_> = turned.clone().map(scope).collect();
        scope_spans
            .insert(round % 12, ScopeSpans { spans: turned.map(span).collect(), ..ScopeSpans::default() });
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    };
    let json = |round: usize| {
        let record = |tenant: &String| {
            format!(
                r#"{{"body":{{"stringValue":"<{tenant}>"}},"attributes":[{{"key":"tenant","value":{{"stringValue":"{tenant}"}}}}]}}"#
            )
        };
        let turned: Vec<_> = tenants.iter().cycle().skip(round).take(tenants.len() * 2).map(record).collect();
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, turned.join(","))
    };
    on_both_at_once(|driver| {
        let (server, upstream) = start(driver, "merge: {linger: 20ms}\n", |_| Reply::ok());
        std::thread::scope(|scope| {
            for round in 0..24 {
                let (server, tenants) = (&server, &tenants);
                scope.spawn(move || {
                    let resources: Vec<(&str, &[u64])> =
                        tenants.iter().cycle().skip(round).take(24).map(|t| (&t[..], &[7, 8][..])).collect();
                    let encoding = ["", "gzip", "zstd", "snappy"][round % 4];
                    for signal in SIGNALS {
                        let body = coded(encoding, &numbered(signal, &resources));
                        let answer = post(server, path(signal), &fields_of(encoding), &body);
                        assert!(is_full_success(&answer), "{answer:?}");
                    }
                    let answer =
                        post(server, "/v1/traces", &fields_of(encoding), &coded(encoding, &by_item(round)));
                    assert!(is_full_success(&answer), "{answer:?}");
                    let answer = post(server, "/v1/logs", JSON, json(round).as_bytes());
                    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
                });
            }
        });
        for received in upstream.received() {
            let bytes = plain(&received);
            let text = String::from_utf8_lossy(&bytes);
            let named: Vec<_> = text.split('<').skip(1).filter_map(|rest| rest.split_once('>')).collect();
            assert!(!named.is_empty());
            assert!(named.iter().all(|(tenant, _)| *tenant == received.tenant()), "{text}");
        }
        let items = server.metric("tenantry_tenant_otlp_spans_total", "");
        assert_eq!(items, f64::from(24 * (48 + 24)));
    });
}

#[test]
fn a_tenant_that_is_slow_delays_no_other() {
    on_both_at_once(|driver| {
        let delay = Duration::from_secs(3);
        let (server, upstream) = start(driver, "", move |received| match received.tenant() {
            "slow" => Reply::ok().after(delay),
            _ => Reply::ok(),
        });
        let begun = Instant::now();
        let mut slow: Vec<_> =
            SIGNALS.iter().map(|&signal| begin(&server, signal, "", &[("slow", &[1])])).collect();
        eventually("the slow tenant's are under way", || upstream.of("slow").len() == 3);
        // More of that tenant wait behind them.
        slow.extend(SIGNALS.map(|signal| begin(&server, signal, "", &[("slow", &[2])])));
        for number in 0..10 {
            for signal in SIGNALS {
                assert!(is_full_success(&export(&server, signal, &[("quick", &[number])])));
            }
        }
        assert!(begun.elapsed() < delay, "{:?}", begun.elapsed());
        slow.iter_mut().for_each(|client| assert!(is_full_success(&client.response())));
    });
}

#[test]
fn a_merged_request_that_is_refused_is_sent_again_part_by_part() {
    on_both_at_once(|driver| {
        let (server, upstream) = start(driver, "merge: {linger: 200ms}\n", |received| {
            if numbers(received).contains(&13) { Reply::new(400, "thirteen") } else { Reply::ok() }
        });
        for signal in SIGNALS {
            // A tenant whose request was refused sends alone for a while.
            for (encoding, tenant) in [("", "a"), ("gzip", "b")] {
                let of = |number| begin(&server, signal, encoding, &[(tenant, &[number])]);
                let before = upstream.received().len();
                let mut clients: Vec<_> = (11..15).map(|number| (number, of(number))).collect();
                for (number, client) in &mut clients {
                    let answer = client.response();
                    let status = if *number == 13 { 400 } else { 200 };
                    assert_eq!(answer.status, status, "{signal:?} {encoding} {number}: {answer:?}");
                }
                let requests: Vec<Vec<u64>> = upstream.received()[before..].iter().map(numbers).collect();
                assert!(requests.iter().any(|numbers| numbers.len() > 1), "nothing was merged: {requests:?}");
                let stored: Vec<_> = requests.iter().filter(|numbers| !numbers.contains(&13)).collect();
                let mut stored: Vec<_> = stored.into_iter().flatten().copied().collect();
                stored.sort_unstable();
                assert_eq!(stored, [11, 12, 14], "each is stored once: {requests:?}");
            }
        }
    });
}

#[test]
fn an_outage_is_outlived_in_a_spool_and_by_a_crash() {
    on_both_at_once(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let extra = format!("timeout: 2s\nspool: {{dir: {}}}\n", folder.path().display());
        let status = Arc::new(AtomicU16::new(500));
        let script = Arc::clone(&status);
        let (server, upstream) = start(driver, &extra, move |received| match received.tenant() {
            "ill" => Reply::new(script.load(Ordering::SeqCst), "as it is"),
            _ => Reply::ok(),
        });
        let encodings = ["", "", "gzip", "gzip", "zstd", "zstd", "", "snappy", "snappy", "gzip"];
        for (number, encoding) in (0..20).zip(encodings.into_iter().cycle()) {
            for signal in SIGNALS {
                let resources: &[(&str, &[u64])] = &[("ill", &[number]), ("well", &[number])];
                let body = coded(encoding, &numbered(signal, resources));
                let answer = post(&server, path(signal), &fields_of(encoding), &body);
                assert!(is_full_success(&answer), "{signal:?}: {answer:?}");
            }
        }
        let expected: Vec<u64> = (0..20).collect();
        for signal in SIGNALS {
            assert_eq!(came(&upstream, "well", signal), expected, "{signal:?}");
        }
        // It is killed: nothing is written at the end.
        drop(server);
        let before = SIGNALS.map(|signal| came(&upstream, "ill", signal).len());
        status.store(200, Ordering::SeqCst);
        let server = towards(driver, &extra, &upstream);
        eventually("the spool is empty", || server.metric("tenantry_spool_parts", "") == 0.0);
        for (signal, before) in SIGNALS.into_iter().zip(before) {
            assert_eq!(came(&upstream, "ill", signal)[before..], expected, "{signal:?}");
        }
        let requests = upstream.of("ill").iter().filter(|received| numbers(received).len() > 1).count();
        assert!(requests > 0, "replayed parts share requests");
    });
}

/// A field, length-delimited.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut out);
    encode_varint(bytes.len() as u64, &mut out);
    [&out[..], bytes].concat()
}

/// A resource of which a re-modelling proxy would lose something: fields that nobody knows on each level, an
/// exponential histogram with an exemplar, and a value that is the stale marker.
fn peculiar(tenant: &str) -> Vec<u8> {
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let exemplar = Exemplar { value: stale, ..Exemplar::default() };
    let point = ExponentialHistogramDataPoint { scale: -4, ..ExponentialHistogramDataPoint::default() };
    // Field 11 are the exemplars.
    let point = [point.encode_to_vec(), field(11, &exemplar.encode_to_vec()), field(1000, b"?")].concat();
    let metric = Metric { name: "latency".into(), ..Metric::default() };
    let metric = [metric.encode_to_vec(), field(10, &field(1, &point))].concat();
    let scope = [field(2, &metric), field(1000, b"in the scope")].concat();
    let resource = Resource { attributes: vec![KeyValue::text("tenant", tenant)], ..Resource::default() };
    let resource = [resource.encode_to_vec(), field(1000, b"in the resource")].concat();
    [field(1, &resource), field(2, &scope), field(1000, tenant.as_bytes())].concat()
}

#[test]
fn what_is_not_known_arrives_bit_for_bit_and_in_order() {
    on_both(|driver| {
        for coding in ["as-received", "gzip", "zstd", "snappy", "none"] {
            let extra = format!("target_otlp_metrics_coding: {coding}\n");
            let (server, upstream) = start(driver, &extra, |_| Reply::ok());
            let all = ["a", "b", "a", "c", "a"].map(|tenant| field(1, &peculiar(tenant))).concat();
            for encoding in ["", "gzip", "zstd", "snappy", "x-snappy-framed"] {
                let answer = post(&server, "/v1/metrics", &fields_of(encoding), &coded(encoding, &all));
                assert!(is_full_success(&answer), "{answer:?}");
                for (tenant, times) in [("a", 3), ("b", 1), ("c", 1)] {
                    let received = upstream.of(tenant).pop().unwrap();
                    assert_eq!(
                        plain(&received),
                        field(1, &peculiar(tenant)).repeat(times),
                        "{encoding} {coding}"
                    );
                }
            }
        }
    });
}

#[test]
fn exports_in_flight_are_finished_and_answered_at_a_shutdown() {
    on_both_at_once(|driver| {
        let (mut server, _upstream) = start(driver, "", |_| Reply::ok().after(Duration::from_millis(700)));
        let resources: &[(&str, &[u64])] = &[("a", &[1]), ("b", &[2])];
        let mut clients: Vec<_> = ["", "gzip", "zstd"]
            .into_iter()
            .flat_map(|encoding| SIGNALS.map(|signal| begin(&server, signal, encoding, resources)))
            .collect();
        eventually("all are under way", || server.metric("tenantry_requests_in_flight", "") == 9.0);
        server.signal("TERM");
        for client in &mut clients {
            let answer = client.response();
            assert!(is_full_success(&answer), "{answer:?}");
            assert_eq!(answer.header("connection"), Some("close"));
        }
        assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
    });
}

#[test]
fn more_tenants_than_an_export_may_have_are_refused() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "limits: {tenants_per_request_max: 50}\n", |_| Reply::ok());
        let names: Vec<String> = (0..51).map(|number| format!("t{number}")).collect();
        let of = |count: usize| -> Vec<(&str, &[u64])> {
            names.iter().take(count).map(|name| (name.as_str(), &[1][..])).collect()
        };
        for signal in SIGNALS {
            let before = upstream.received().len();
            assert_eq!(export(&server, signal, &of(51)).status, 413);
            assert_eq!(upstream.received().len(), before);
            assert!(is_full_success(&export(&server, signal, &of(50))));
        }
    });
}

#[test]
fn under_reloads_every_export_is_of_one_configuration_and_none_fails() {
    on_both_at_once(|driver| {
        let (server, upstream) =
            start(driver, "tenant: {attributes: [tenant, k8s.namespace.name], prefix: one-}\n", |_| {
                Reply::ok()
            });
        std::thread::scope(|scope| {
            let pushing: Vec<_> = SIGNALS
                .into_iter()
                .map(|signal| {
                    let server = &server;
                    scope.spawn(move || {
                        for number in 0..150 {
                            let answer = export(server, signal, &[("a", &[number]), ("b", &[number])]);
                            assert!(is_full_success(&answer), "{answer:?}");
                        }
                    })
                })
                .collect();
            let mut turn = 0;
            while !pushing.iter().all(std::thread::ScopedJoinHandle::is_finished) && turn < 50 {
                let (from, to) = if turn % 2 == 0 { ("one-", "two-") } else { ("two-", "one-") };
                server.reload_with(from, to);
                turn += 1;
            }
            assert!(turn > 1, "it was reloaded {turn} times");
        });
        for signal in SIGNALS {
            let of = |prefix: &str, tenant: &str| came(&upstream, &format!("{prefix}{tenant}"), signal);
            for prefix in ["one-", "two-"] {
                assert_eq!(of(prefix, "a"), of(prefix, "b"), "both parts of an export have one prefix");
            }
            assert_eq!(of("one-", "a").len() + of("two-", "a").len(), 150);
        }
    });
}
