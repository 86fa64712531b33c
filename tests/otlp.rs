//! OTLP over HTTP, between a raw client and a scripted upstream, on both rings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message;
use support::otlp::{JSON, PROTOBUF, coded, fields_of, is_full_success, plain, start};
use support::upstream::Received;
use support::{Reply, Upstream, eventually, on_both, post};
use tenantry::model::{Notation, Signal};
use tenantry::wire::otlp::answer::{
    PartialSuccess, read_partial_success, read_status, write_status, write_success,
};
use testkit::proto_otlp::{
    ExportLogsServiceRequest, ExportTraceServiceRequest, KeyValue, LogRecord, Resource, ResourceLogs,
    ResourceSpans, ScopeLogs, ScopeSpans, Span,
};

/// A resource of a tenant with so many log records.
fn logs_of(tenant: &str, records: u64) -> ResourceLogs {
    let attributes =
        vec![KeyValue::text("service.name", "shop"), KeyValue::text("k8s.namespace.name", tenant)];
    let record = |time_unix_nano| LogRecord { time_unix_nano, ..LogRecord::default() };
    ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs: vec![ScopeLogs {
            log_records: (1..=records).map(record).collect(),
            ..ScopeLogs::default()
        }],
        schema_url: "schema".into(),
    }
}

fn export(resource_logs: &[ResourceLogs]) -> Vec<u8> {
    ExportLogsServiceRequest { resource_logs: resource_logs.to_vec() }.encode_to_vec()
}

fn stored(upstream: &Upstream, tenant: &str) -> Vec<ResourceLogs> {
    let requests = upstream.of(tenant);
    requests
        .iter()
        .flat_map(|r| ExportLogsServiceRequest::decode(&plain(r)[..]).unwrap().resource_logs)
        .collect()
}

#[test]
fn resources_go_to_their_tenants_in_the_coding_that_they_came_in() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "", |_| Reply::ok());
        let (a, b) = (logs_of("a", 2), logs_of("b", 3));
        let bytes = export(&[a.clone(), b.clone(), a.clone()]);
        let mut expected = 0;
        for encoding in ["", "gzip", "zstd", "snappy", "x-snappy-framed"] {
            for path in ["/v1/logs", "/otlp/v1/logs"] {
                let response = post(&server, path, &fields_of(encoding), &coded(encoding, &bytes));
                assert!(is_full_success(&response), "{encoding}: {response:?}");
                expected += 1;
            }
        }
        assert_eq!(stored(&upstream, "a"), vec![a.clone(); 2 * expected]);
        assert_eq!(stored(&upstream, "b"), vec![b.clone(); expected]);
        let received = upstream.received();
        let codings: Vec<_> =
            received.iter().map(|one| one.header("content-encoding").unwrap_or("")).collect();
        for (coding, count) in [("", 4), ("gzip", 4), ("zstd", 4), ("snappy", 8)] {
            assert_eq!(codings.iter().filter(|one| **one == coding).count(), count, "{coding}");
        }
        assert!(received.iter().all(|one| one.path == "/otlp/v1/logs"));
        assert_eq!(received[0].header("content-type"), Some("application/x-protobuf"));
        assert_eq!(received[0].header("x-prometheus-remote-write-version"), None);
        assert_eq!(server.metric("cortex_tenant_otlp_logs_batches_received", ""), expected as f64);
        assert_eq!(server.metric("tenantry_tenant_otlp_log_records_total", ""), 7.0 * expected as f64);
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
    });
}

/// An export of one resource, with a span of each of these tenants.
fn spans_of(tenants: &[&str]) -> Vec<u8> {
    let span = |tenant: &&str| Span {
        trace_id: vec![7; 16],
        attributes: vec![KeyValue::text("tenant", tenant)],
        ..Span::default()
    };
    let spans = tenants.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource = ResourceSpans { scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
}

#[test]
fn one_tenant_passes_byte_for_byte_and_targets_may_have_codings() {
    on_both(|driver| {
        let extra = "target_otlp_traces_coding: gzip\n";
        let (server, upstream) = start(driver, extra, |_| Reply::ok());
        let bytes = [&export(&[logs_of("a", 2)])[..], &[0x9a, 6, 1, b'?']].concat();
        for encoding in ["", "gzip", "zstd", "snappy"] {
            let sent = coded(encoding, &bytes);
            assert!(is_full_success(&post(&server, "/v1/logs", &fields_of(encoding), &sent)));
            assert_eq!(upstream.received().last().unwrap().body, sent, "{encoding}");
        }
        let passed_on = || server.metric("tenantry_passthrough_requests_total", "");
        assert_eq!(passed_on(), 4.0);
        // One tenant, but in another coding.
        assert!(is_full_success(&post(&server, "/v1/traces", PROTOBUF, &spans_of(&["a"]))));
        assert_eq!(passed_on(), 4.0);
        let response = post(&server, "/v1/traces", PROTOBUF, &spans_of(&["a", "b"]));
        assert!(is_full_success(&response), "{response:?}");
        for tenant in ["a", "b"] {
            let received = upstream.of(tenant).pop().unwrap();
            assert_eq!(
                (received.path.as_str(), received.header("content-encoding")),
                ("/v1/traces", Some("gzip"))
            );
            let decoded = ExportTraceServiceRequest::decode(&plain(&received)[..]).unwrap();
            let spans: Vec<_> = decoded.spans().collect();
            assert_eq!((spans.len(), spans[0].attribute("tenant").as_deref()), (1, Some(tenant)));
        }
    });
}

#[test]
fn waiting_parts_of_a_tenant_share_a_request_that_every_receiver_reads() {
    on_both(|driver| {
        for (encoding, coding) in [("", "as-received"), ("gzip", "as-received"), ("", "zstd"), ("", "snappy")]
        {
            let extra = format!("target_otlp_logs_coding: {coding}\nmerge: {{linger: 200ms}}\n");
            let (server, upstream) = start(driver, &extra, |_| Reply::ok());
            let bytes = coded(encoding, &export(&[logs_of("a", 1)]));
            let head = format!(
                "POST /v1/logs HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n",
                fields_of(encoding),
                bytes.len()
            );
            let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
            clients.iter_mut().for_each(|client| client.send(&[head.as_bytes(), &bytes].concat()));
            clients.iter_mut().for_each(|client| assert!(is_full_success(&client.response())));
            assert_eq!(stored(&upstream, "a"), vec![logs_of("a", 1); 4], "{encoding} {coding}");
            assert!(upstream.received().len() < 4, "{encoding} {coding}: nothing was merged");
        }
    });
}

#[test]
fn json_is_forwarded_as_json_and_answered_in_json() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "", |received| match received.header("x-scope-orgid") {
            Some("c") => Reply::new(400, "{\"code\":3,\"message\":\"never\"}"),
            _ => Reply::ok(),
        });
        let of = |tenant: &str| {
            format!(
                r#"{{"resource":{{"attributes":[{{"key":"tenant","value":{{"stringValue":"{tenant}"}}}}]}},"scopeLogs":[{{"logRecords":[{{"body":{{"doubleValue":1e0}}}}]}}]}}"#
            )
        };
        let all = |tenants: &[&str]| {
            format!(
                r#"{{"resourceLogs":[{}]}}"#,
                tenants.iter().map(|tenant| of(tenant)).collect::<Vec<_>>().join(",")
            )
        };
        let response = post(&server, "/v1/logs", JSON, all(&["a", "b", "a"]).as_bytes());
        assert_eq!((response.status, response.text().as_str()), (200, "{}"));
        assert_eq!(response.header("content-type"), Some("application/json"));
        let sent = upstream.of("a").pop().unwrap();
        assert_eq!(sent.header("content-type"), Some("application/json"));
        assert_eq!(String::from_utf8(sent.body).unwrap(), all(&["a", "a"]));
        let gzipped = format!("{JSON}Content-Encoding: gzip\r\n");
        let response = post(&server, "/v1/logs", &gzipped, &coded("gzip", all(&["a", "c"]).as_bytes()));
        assert_eq!(response.status, 200);
        let text = response.text();
        assert_eq!(
            text,
            r#"{"partialSuccess":{"errorMessage":"1 log records rejected: c: 1 with status 400 never","rejectedLogRecords":"1"}}"#
        );
        assert_eq!(plain(&upstream.of("c").pop().unwrap()), all(&["c"]).as_bytes());
        let bad = post(&server, "/v1/logs", JSON, b"{\"resourceLogs\":[}");
        assert_eq!((bad.status, bad.header("content-type")), (400, Some("application/json")));
        assert!(read_status(&bad.body).unwrap().contains("not JSON"), "{}", bad.text());
    });
}

#[test]
fn what_parts_reject_is_told_as_a_partial_success_and_refused_in_the_ledger() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "", |received| match received.header("x-scope-orgid") {
            Some("partial") => {
                let partial = PartialSuccess { rejected: 2, message: "too old".into() };
                let body = write_success(Notation::Protobuf, Signal::Logs, &partial);
                Reply { body, ..Reply::ok() }
            }
            Some("bad") => {
                let body = write_status(Notation::Protobuf, 400, "no such thing");
                Reply { status: 400, body, ..Reply::ok() }
            }
            Some("down") => Reply::new(500, "oops"),
            _ => Reply::ok(),
        });
        let send = |tenants: &[&str]| {
            let all: Vec<_> = tenants.iter().map(|tenant| logs_of(tenant, 5)).collect();
            post(&server, "/v1/logs", PROTOBUF, &export(&all))
        };
        let told = send(&["good", "partial", "bad"]);
        assert_eq!(told.status, 200);
        let partial = read_partial_success(&told.body).unwrap();
        assert_eq!(partial.rejected, 7);
        assert_eq!(
            partial.message,
            "7 log records rejected: partial: 2 too old; bad: 5 with status 400 no such thing"
        );
        // Nothing is stored: an error, which no sender repeats.
        let bad = send(&["bad"]);
        assert_eq!((bad.status, read_status(&bad.body).as_deref()), (400, Some("no such thing")));
        // Senders of OTLP retry on 503, not on 500.
        let down = send(&["good", "down"]);
        assert_eq!(down.status, 503);
        let text = read_status(&down.body).unwrap();
        assert!(text.starts_with("an upstream answered 500, told as 503 to be retried: "), "{text}");
        let refused = server.metric("tenantry_ledger_refused_samples_total", "reason=\"rejected\"");
        assert_eq!(refused, 2.0 + 5.0 + 5.0);
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
        // The retry of what was stored is answered by its receipt.
        let before = upstream.of("good").len();
        let _ = send(&["good", "down"]);
        assert_eq!(upstream.of("good").len(), before);
    });
}

#[test]
fn what_upstreams_reject_in_json_counts_whatever_white_space_stands_before_it() {
    on_both(|driver| {
        let partial = PartialSuccess { rejected: 2, message: "too old".into() };
        let json = String::from_utf8(write_success(Notation::Json, Signal::Logs, &partial)).unwrap();
        let (server, _upstream) = start(driver, "", move |received| match received.header("x-scope-orgid") {
            Some("line-feed") => Reply::new(200, &format!("\n{json}\n")),
            Some("blank") => Reply::new(200, &format!(" {json}")),
            _ => Reply::new(400, "\n {\"code\":3,\"message\":\"never\"}"),
        });
        for (tenant, count) in [("line-feed", 1.0), ("blank", 2.0)] {
            let told = post(&server, "/v1/logs", PROTOBUF, &export(&[logs_of(tenant, 5)]));
            assert_eq!(
                (told.status, read_partial_success(&told.body).unwrap().rejected),
                (200, 2),
                "{tenant}"
            );
            let refused = server.metric("tenantry_ledger_refused_samples_total", "reason=\"rejected\"");
            assert_eq!(refused, 2.0 * count, "{tenant}");
        }
        let bad = post(&server, "/v1/logs", PROTOBUF, &export(&[logs_of("bad", 5)]));
        assert_eq!((bad.status, read_status(&bad.body).as_deref()), (400, Some("never")));
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
    });
}

#[test]
fn refusals_are_in_the_words_of_otlp() {
    on_both(|driver| {
        let (server, upstream) =
            start(driver, "tenant: {attributes: [tenant], on_missing: drop}\n", |_| Reply::new(503, ""));
        let status = |fields: &str, body: &[u8]| {
            let response = post(&server, "/v1/logs", fields, body);
            (response.status, read_status(&response.body).unwrap_or_default())
        };
        let (code, text) = status("Content-Type: text/plain\r\n", b"x");
        assert!(code == 415 && text.contains("gRPC is not supported"), "{code} {text}");
        assert_eq!(status(&fields_of("br"), b"x").0, 415);
        assert_eq!(status(PROTOBUF, &[0x0a, 9]).0, 400);
        assert_eq!(status(&fields_of("gzip"), b"no gzip").0, 400);
        let (code, text) = status(PROTOBUF, &export(&[logs_of("a", 3)]));
        assert_eq!(code, 400);
        assert!(text.starts_with("1 resources with 3 log records refused: 1 without a tenant"), "{text}");
        assert!(is_full_success(&post(&server, "/v1/logs", PROTOBUF, b"")));
        assert!(upstream.received().is_empty());
        assert_eq!(post(&server, "/v1/profiles", PROTOBUF, b"").status, 404);
    });
}

#[test]
fn a_part_that_is_too_large_is_sent_in_halves() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "", |received| {
            let items = ExportLogsServiceRequest::decode(&plain(received)[..]).unwrap();
            let records: usize =
                items.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum();
            Reply::new(if records > 2 { 413 } else { 200 }, "")
        });
        let mut large = logs_of("a", 8);
        for record in &mut large.scope_logs[0].log_records {
            record.attributes = vec![KeyValue::text("text", &"x".repeat(1000))];
        }
        for encoding in ["", "gzip"] {
            let response = post(
                &server,
                "/v1/logs",
                &fields_of(encoding),
                &coded(encoding, &export(std::slice::from_ref(&large))),
            );
            assert!(is_full_success(&response), "{response:?}");
        }
        let small: Vec<_> = stored_ok(&upstream);
        assert_eq!(small, [2; 8]);
        assert_eq!(upstream.received().len(), 1 + 8, "the size is known once one was refused");
    });
}

#[test]
fn items_of_pieces_that_are_refused_are_rejected_once_others_are_stored() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, "", |received| {
            let items = ExportLogsServiceRequest::decode(&plain(received)[..]).unwrap();
            let times: Vec<_> = items
                .resource_logs
                .iter()
                .flat_map(|r| &r.scope_logs)
                .flat_map(|s| &s.log_records)
                .map(|record| record.time_unix_nano)
                .collect();
            match &times[..] {
                [3] => Reply::new(400, "the third one is bad"),
                [_] => Reply::ok(),
                _ => Reply::new(413, ""),
            }
        });
        let response = post(&server, "/v1/logs", PROTOBUF, &export(&[logs_of("a", 4)]));
        assert_eq!(response.status, 200, "{}", response.text());
        let partial = read_partial_success(&response.body).unwrap();
        assert_eq!(partial.rejected, 1);
        assert!(partial.message.contains("status 400: the third one is bad"), "{}", partial.message);
        assert_eq!(server.metric("tenantry_ledger_refused_samples_total", "reason=\"rejected\""), 1.0);
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
    });
}

#[test]
fn what_a_replay_loses_to_a_partial_success_is_counted_and_logged() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let is_down = Arc::new(AtomicBool::new(true));
        let down = Arc::clone(&is_down);
        let extra = format!("spool: {{dir: {}}}\n", folder.path().join("spool").display());
        let (server, _upstream) = start(driver, &extra, move |_| {
            if down.load(Ordering::Relaxed) {
                return Reply::new(503, "");
            }
            let partial = PartialSuccess { rejected: 2, message: "too old".into() };
            Reply { body: write_success(Notation::Protobuf, Signal::Logs, &partial), ..Reply::ok() }
        });
        let response = post(&server, "/v1/logs", PROTOBUF, &export(&[logs_of("a", 5)]));
        assert!(is_full_success(&response), "{response:?}");
        is_down.store(false, Ordering::Relaxed);
        eventually("the spool is empty", || server.metric("tenantry_spool_parts", "") == 0.0);
        assert_eq!(server.metric("tenantry_spool_rejected_parts_total", ""), 1.0);
        assert_eq!(server.metric("tenantry_spool_rejected_samples_total", ""), 2.0);
        let log = server.log().join("\n");
        assert!(log.contains("spooled data was stored only in part: 2 items rejected: too old"), "{log}");
    });
}

/// The numbers of log records in the requests that were taken.
fn stored_ok(upstream: &Upstream) -> Vec<usize> {
    let all = upstream.received();
    let counts = all.iter().map(|received| {
        let decoded = ExportLogsServiceRequest::decode(&plain(received)[..]).unwrap();
        decoded.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum::<usize>()
    });
    counts.filter(|count| *count <= 2).collect()
}

/// Each half repeats the resource, so none is ever small enough. What is beside it is sent.
#[test]
fn a_resource_that_is_too_large_by_itself_is_refused_after_few_requests() {
    on_both(|driver| {
        let (server, upstream) = start(driver, "timeout: 5s\n", refuses_large);
        for resources in [[logs_of("a", 40), with_wide_resource()], [with_wide_resource(), logs_of("a", 400)]]
        {
            let before = upstream.received().len();
            let response = post(&server, "/v1/logs", PROTOBUF, &export(&resources));
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(read_partial_success(&response.body).unwrap().rejected, 400);
            let requests = upstream.received().len() - before;
            assert!((10..100).contains(&requests), "{requests} requests for 400 records");
        }
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
    });
}

#[test]
fn a_spooled_resource_that_is_too_large_by_itself_holds_up_its_tenant_for_a_moment_only() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let is_down = Arc::new(AtomicBool::new(true));
        let down = Arc::clone(&is_down);
        let (dir, letters) = (folder.path().join("spool"), folder.path().join("letters"));
        let extra =
            format!("timeout: 1s\nspool: {{dir: {}, dead_letter: {}}}\n", dir.display(), letters.display());
        let (server, upstream) = start(driver, &extra, move |received| {
            if down.load(Ordering::Relaxed) { Reply::new(503, "") } else { refuses_large(received) }
        });
        for resource in [logs_of("a", 1), with_wide_resource(), logs_of("a", 2)] {
            assert!(is_full_success(&post(&server, "/v1/logs", PROTOBUF, &export(&[resource]))));
        }
        is_down.store(false, Ordering::Relaxed);
        eventually("the spool is empty", || server.metric("tenantry_spool_parts", "") == 0.0);
        assert_eq!(stored(&upstream, "a").last(), Some(&logs_of("a", 2)));
        assert_eq!(std::fs::read_to_string(letters).unwrap().lines().count(), 1);
    });
}

/// An upstream that takes no more than 50,000 bytes, slowly.
fn refuses_large(received: &Received) -> Reply {
    std::thread::sleep(Duration::from_millis(10));
    Reply::new(if plain(received).len() > 50_000 { 413 } else { 200 }, "")
}

/// 400 records of a resource whose attributes have 60,000 bytes.
fn with_wide_resource() -> ResourceLogs {
    let mut wide = logs_of("a", 400);
    let resource = wide.resource.get_or_insert_default();
    resource.attributes.push(KeyValue::text("about", &"x".repeat(60_000)));
    wide
}
