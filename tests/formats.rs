//! What senders may send besides Remote Write 1.0 with snappy, between a raw client and a scripted upstream, on both
//! rings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use prost::Message;
use support::client::Response;
use support::upstream::Received;
use support::{Driver, Reply, Server, Upstream, body, on_both, post, series};
use testkit::proto_loki::{Entry, PushRequest, Stream, Timestamp};

/// A server that sends logs to a scripted upstream. Its upstream for series does not exist.
fn for_logs(
    driver: Driver,
    extra: &str,
    script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> (Server, Upstream) {
    let upstream = Upstream::start(script);
    let settings = format!("target_loki: http://{}/loki/api/v1/push\n{extra}", upstream.address);
    (Server::start(driver, "127.0.0.1:9", &settings), upstream)
}

fn entry(nanoseconds: i64, line: &str) -> Entry {
    let timestamp = Timestamp {
        seconds: nanoseconds / 1_000_000_000,
        nanos: i32::try_from(nanoseconds % 1_000_000_000).unwrap(),
    };
    Entry { timestamp: Some(timestamp), line: line.to_owned().into(), structured_metadata: Vec::new() }
}

fn stream(labels: &str, entries: &[Entry]) -> Stream {
    Stream { labels: labels.to_owned().into(), entries: entries.to_vec(), hash: 0 }
}

fn push(streams: &[Stream]) -> PushRequest {
    PushRequest { streams: streams.to_vec() }
}

/// The streams that the upstream got for a tenant, decoded as by Loki.
fn stored(upstream: &Upstream, tenant: &str) -> Vec<Stream> {
    let inflate = |body: &[u8]| snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let requests = upstream.of(tenant);
    requests.iter().flat_map(|r| PushRequest::decode(&inflate(&r.body)[..]).unwrap().streams).collect()
}

#[test]
fn zstd_is_taken_and_goes_on_as_snappy() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        for tenants in [&["a"][..], &["a", "b"]] {
            let snappy = body(tenants.iter().map(|tenant| series(tenant, "up", 1.0)).collect());
            let plain = snap::raw::Decoder::new().decompress_vec(&snappy).unwrap();
            let zstd = zstd::bulk::compress(&plain, 1).unwrap();
            assert_eq!(post(&server, "/push", "Content-Encoding: zstd\r\n", &zstd).status, 200);
        }
        assert_eq!((upstream.of("a").len(), upstream.of("b").len()), (2, 1));
        for received in upstream.received() {
            assert_eq!(received.header("content-encoding"), Some("snappy"));
            assert_eq!(received.names(), ["up"]);
        }
    });
}

#[test]
fn bodies_in_another_encoding_than_they_say_are_refused_and_bombs_too() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let limits = "limits: {inflated_bytes_max: 9Mi, body_bytes_max: 8Mi}\n";
        let server = Server::start(driver, upstream.address, limits);
        let zstd = |bytes: &[u8]| post(&server, "/push", "Content-Encoding: zstd\r\n", bytes);
        let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 1).unwrap();
        assert!(bomb.len() < 100_000);
        assert_eq!(zstd(&bomb).status, 413);
        assert_eq!(zstd(b"no zstd at all").status, 400);
        assert_eq!(post(&server, "/push", "Content-Encoding: gzip\r\n", b"x").status, 415);
        assert!(upstream.received().is_empty());
    });
}

#[test]
fn logs_go_to_their_tenants_as_they_came() {
    on_both(|driver| {
        let (server, upstream) = for_logs(driver, "", |_| Reply::new(204, ""));
        let a = stream(
            r#"{tenant="a", app="shop"}"#,
            &[entry(1_700_000_000_123_456_789, "one"), entry(1, "two")],
        );
        let b = stream(r#"{tenant="b"}"#, &[entry(1_700_000_000_999_999_999, "three")]);
        let request = push(&[a.clone(), b.clone(), a.clone()]);
        for path in ["/loki/push", "/loki/api/v1/push"] {
            assert_eq!(
                post(&server, path, "Content-Type: application/x-protobuf\r\n", &request.to_block()).status,
                204
            );
        }
        assert_eq!(stored(&upstream, "a"), [a.clone(), a.clone(), a.clone(), a]);
        assert_eq!(stored(&upstream, "b"), [b.clone(), b]);
        let received = &upstream.received()[0];
        assert_eq!(received.path, "/loki/api/v1/push");
        assert_eq!(received.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(received.header("x-prometheus-remote-write-version"), None);
        assert_eq!(server.metric("cortex_tenant_streams_batches_received", ""), 2.0);
        assert_eq!(server.metric("cortex_tenant_streams_received", ""), 6.0);
        assert_eq!(server.metric("cortex_tenant_streams_requests", ""), 4.0);
        assert_eq!(server.metric("cortex_tenant_timeseries_batches_received", ""), 0.0);
    });
}

#[test]
fn json_becomes_protobuf_to_the_nanosecond() {
    on_both(|driver| {
        let (server, upstream) = for_logs(driver, "", |_| Reply::new(204, ""));
        let stream = r#"{"app":"a \"b\"","tenant":"a"}"#;
        let json = format!(
            r#"{{"streams":[{{"stream":{stream},"values":[["1700000000123456789","one",{{"id":"7"}}]]}}]}}"#
        );
        let gzip = {
            use std::io::Write;
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(json.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let kind = "Content-Type: application/json\r\n";
        assert_eq!(post(&server, "/loki/api/v1/push", kind, json.as_bytes()).status, 204);
        let fields = format!("{kind}Content-Encoding: gzip\r\n");
        assert_eq!(post(&server, "/loki/api/v1/push", &fields, &gzip).status, 204);
        let found = stored(&upstream, "a");
        assert_eq!(found.len(), 2);
        for stream in found {
            assert_eq!(&stream.labels[..], br#"{app="a \"b\"", tenant="a"}"#);
            assert_eq!(stream.entries[0].timestamp.unwrap().nanos, 123_456_789);
            assert_eq!(&stream.entries[0].structured_metadata[0].value[..], b"7");
        }
        let bad = post(&server, "/loki/api/v1/push", kind, br#"{"streams":[{"stream":"#);
        assert_eq!(bad.status, 400);
        assert!(bad.text().contains("JSON"), "{}", bad.text());
    });
}

#[test]
fn pushes_that_loki_refuses_are_refused_with_its_status() {
    on_both(|driver| {
        let (server, upstream) = for_logs(driver, "", |_| Reply::new(204, ""));
        let protobuf = "Content-Type: application/x-protobuf\r\n";
        let refused = |body: &[u8]| post(&server, "/loki/api/v1/push", protobuf, body);
        assert_eq!(refused(&push(&[]).to_block()).status, 422);
        let unclosed = push(&[stream(r#"{tenant="a""#, &[entry(1, "x")])]);
        let answer = refused(&unclosed.to_block());
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("labels"), "{}", answer.text());
        let wrong = "Content-Type: text/plain\r\n";
        assert_eq!(post(&server, "/loki/api/v1/push", wrong, b"x").status, 415);
        let wrong = "Content-Type: application/json\r\nContent-Encoding: snappy\r\n";
        assert_eq!(post(&server, "/loki/api/v1/push", wrong, b"x").status, 415);
        assert!(upstream.received().is_empty());
    });
}

#[test]
fn a_streams_tenant_label_is_removed_only_when_that_is_set() {
    on_both(|driver| {
        let extra = "tenant: {label: team, loki_label_remove: true}\n";
        let (server, upstream) = for_logs(driver, extra, |_| Reply::new(204, ""));
        let request = push(&[stream(r#"{app="x", team="a"}"#, &[entry(1, "x")])]);
        assert_eq!(post(&server, "/loki/push", "", &request.to_block()).status, 204);
        assert_eq!(&stored(&upstream, "a")[0].labels[..], br#"{app="x"}"#);
        let (server, upstream) =
            for_logs(driver, "tenant: {label: team, label_remove: true}\n", |_| Reply::new(204, ""));
        assert_eq!(post(&server, "/loki/push", "", &request.to_block()).status, 204);
        assert_eq!(&stored(&upstream, "a")[0].labels[..], br#"{app="x", team="a"}"#);
    });
}

#[test]
fn a_map_turns_values_into_tenants_and_leaves_some_out() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let map = tempfile::NamedTempFile::new().unwrap();
        let rules = "- {prefix: dev-, tenant: development}\n- {exact: noise, drop: true}\n\
                     - {regex: '(.+)-(eu|us)', tenant: $1}\n";
        std::fs::write(map.path(), rules).unwrap();
        let extra = format!(
            "tenant: {{label: tenant, map: {}, allow: [development, 'shop*'], on_invalid: drop}}\n",
            map.path().display()
        );
        let server = Server::start(driver, upstream.address, &extra);
        let request = |values: &[&str]| {
            let named =
                values.iter().map(|value| series(value, &format!("of_{}", value.replace('-', "_")), 1.0));
            body(named.collect())
        };
        let first = request(&["dev-1", "noise", "shop-eu", "dev-2", "shop-us"]);
        assert_eq!(server.client().push(&first).status, 200);
        assert_eq!(upstream.of("development")[0].names(), ["of_dev_1", "of_dev_2"]);
        assert_eq!(upstream.of("shop")[0].names(), ["of_shop_eu", "of_shop_us"]);
        assert_eq!(upstream.received().len(), 2);
        assert_eq!(server.client().push(&request(&["noise"])).status, 200, "nothing to send");
        let stranger = server.client().push(&request(&["stranger", "shop-eu"]));
        assert_eq!(stranger.status, 400);
        assert!(stranger.text().contains("stranger"), "{}", stranger.text());
        assert_eq!(upstream.received().len(), 3, "the good series went on");
    });
}

#[test]
fn metadata_finds_the_tenants_of_its_families_whichever_core_it_comes_to() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "metadata: route\ncores: 2\n");
        assert_eq!(
            server.client().push(&body(vec![series("a", "up", 1.0), series("b", "down", 1.0)])).status,
            200
        );
        // MetricMetadata: a gauge, its family, its help text. Each connection goes to another core.
        let metadata =
            [&[3 << 3 | 2, 9, 1 << 3, 2, 2 << 3 | 2, 2][..], b"up", &[4 << 3 | 2, 1, b'h']].concat();
        let block = snap::raw::Encoder::new().compress_vec(&metadata).unwrap();
        for _ in 0..4 {
            assert_eq!(server.client().push(&block).status, 200);
        }
        let inflate = |r: &Received| snap::raw::Decoder::new().decompress_vec(&r.body).unwrap();
        let routed: Vec<_> =
            upstream.of("a").iter().map(inflate).filter(|request| *request == metadata).collect();
        assert_eq!((routed.len(), upstream.of("b").len()), (4, 1));
    });
}

/// A Remote Write 2.0 request: a series for each tenant, with a sample, a histogram with an integer count, and an
/// exemplar.
fn v2(tenants: &[&str]) -> Vec<u8> {
    use testkit::proto_v2::{Exemplar, Histogram, Request, Sample, TimeSeries};
    let mut symbols: Vec<String> =
        ["", "__name__", "up", "tenant", "trace_id", "t1"].map(str::to_owned).to_vec();
    symbols.extend(tenants.iter().map(|&tenant| tenant.to_owned()));
    let timeseries = (6..).zip(tenants).map(|(value, _)| TimeSeries {
        labels_refs: vec![1, 2, 3, value],
        samples: vec![Sample { value: 1.0, timestamp: 7, ..Sample::default() }],
        histograms: vec![Histogram { timestamp: 7, ..Histogram::default() }],
        exemplars: vec![Exemplar { labels_refs: vec![4, 5], value: 0.5, timestamp: 7 }],
        ..TimeSeries::default()
    });
    let request =
        Request { symbols: symbols.into_iter().map(Into::into).collect(), timeseries: timeseries.collect() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
}

const V2: &str = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
                  Content-Encoding: snappy\r\n";

fn written(response: &Response) -> [Option<&str>; 3] {
    ["Samples", "Histograms", "Exemplars"]
        .map(|what| response.header(&format!("X-Prometheus-Remote-Write-{what}-Written")))
}

#[test]
fn remote_write_2_is_split_and_what_was_written_is_summed_on_success_and_failure() {
    on_both(|driver| {
        let counted = "X-Prometheus-Remote-Write-Samples-Written: 1\r\n\
                       X-Prometheus-Remote-Write-Histograms-Written: 1\r\n\
                       X-Prometheus-Remote-Write-Exemplars-Written: 1\r\n";
        let upstream = Upstream::start(move |r| match r.tenant() {
            "bad" => Reply::new(500, "no"),
            _ => Reply::with(200, counted, ""),
        });
        let server = Server::start(driver, upstream.address, "");
        let stored = post(&server, "/api/v1/write", V2, &v2(&["a", "b"]));
        assert_eq!((stored.status, written(&stored)), (200, [Some("2"), Some("2"), Some("2")]));
        let failed = post(&server, "/api/v1/write", V2, &v2(&["a", "bad"]));
        assert_eq!((failed.status, written(&failed)), (500, [Some("1"), Some("1"), Some("1")]));
        let received = &upstream.of("b")[0];
        assert_eq!(
            received.header("content-type"),
            Some("application/x-protobuf;proto=io.prometheus.write.v2.Request")
        );
        assert_eq!(received.header("x-prometheus-remote-write-version"), Some("2.0.0"));
        let plain = snap::raw::Decoder::new().decompress_vec(&received.body).unwrap();
        let request = testkit::proto_v2::Request::decode(&plain[..]).unwrap();
        assert_eq!(
            request.symbols.iter().filter(|symbol| &symbol[..] == b"a").count(),
            0,
            "no symbol of another tenant"
        );
        // A sender of 1.0 never gets these headers.
        let one = server.client().push(&body(vec![series("a", "up", 1.0)]));
        assert_eq!((one.status, written(&one)), (200, [None; 3]));
        let odd = post(
            &server,
            "/api/v1/write",
            V2,
            &snap::raw::Encoder::new().compress_vec(&[0x22, 1, b'x']).unwrap(),
        );
        assert_eq!(odd.status, 400);
    });
}

#[test]
fn an_upstream_that_does_not_know_remote_write_2_says_so_to_the_sender() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::new(415, "only 1.0 here"));
        let server = Server::start(driver, upstream.address, "");
        assert_eq!(post(&server, "/api/v1/write", V2, &v2(&["a", "b"])).status, 415);
        let refusing = Server::start(driver, upstream.address, "remote_write_v2: refuse\n");
        assert_eq!(post(&refusing, "/api/v1/write", V2, &v2(&["a"])).status, 415);
    });
}

#[test]
fn remote_write_2_goes_on_as_1_0_when_that_is_set_and_the_sender_hears_what_was_written() {
    on_both(|driver| {
        let upstream =
            Upstream::start(|r| if r.tenant() == "bad" { Reply::new(503, "") } else { Reply::ok() });
        let server = Server::start(driver, upstream.address, "remote_write_v2: downgrade\n");
        let stored = post(&server, "/api/v1/write", V2, &v2(&["a", "b"]));
        assert_eq!((stored.status, written(&stored)), (200, [Some("2"), Some("2"), Some("2")]));
        let received = &upstream.of("a")[0];
        assert_eq!(received.header("x-prometheus-remote-write-version"), Some("0.1.0"));
        assert_eq!(received.names(), ["up"]);
        let failed = post(&server, "/api/v1/write", V2, &v2(&["a", "bad"]));
        assert_eq!((failed.status, written(&failed)), (503, [Some("1"), Some("1"), Some("1")]));
    });
}
