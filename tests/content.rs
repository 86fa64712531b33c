//! Hostile bodies: bombs, and values that have another meaning in a header or a path. Against the real server, on both
//! rings, in every format.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::io::Write;

use prost::Message;
use support::otlp::{JSON, PROTOBUF, fields_of};
use support::remote_write::{WriteRequest, deflate};
use support::server::free_port;
use support::{Driver, Reply, Response, Server, Upstream, on_both, one, post, series};
use tenantry::wire::otlp::answer::read_status;
use testkit::{proto_loki, proto_otlp, proto_v2};

const V2: &str = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";

fn block(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Frames one after another, without a size in their headers.
fn zstd_frames(plain: &[u8], frames: usize) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap().repeat(frames)
}

/// An export of traces in JSON with these resources.
fn json_of(resources: &[u8]) -> Vec<u8> {
    [br#"{"resourceSpans":["#, resources, b"{}]}"].concat()
}

/// Small bodies that inflate to much, or of which much has to be kept: path, fields, body.
fn bombs() -> Vec<(&'static str, String, Vec<u8>)> {
    let zeros = vec![0; 96 << 20];
    let members = gzip(&zeros[..1 << 20]).repeat(96);
    let (zstd, gzip_json) = ("Content-Encoding: zstd\r\n", "Content-Encoding: gzip\r\n");
    let json = "Content-Type: application/json\r\n";
    let mut declared = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    declared.extend_from_slice(&[0xfe, 0x01, 0x00].repeat(1_000));
    vec![
        ("/push", String::new(), declared.clone()),
        ("/push", V2.into(), declared.clone()),
        ("/loki/push", String::new(), declared),
        ("/push", String::new(), block(&zeros[..24 << 20])),
        ("/push", zstd.into(), zstd::bulk::compress(&zeros, 1).unwrap()),
        ("/push", zstd.into(), zstd_frames(&zeros, 1)),
        ("/push", zstd.into(), zstd_frames(&zeros[..1 << 20], 96)),
        ("/push", format!("{V2}{zstd}"), zstd_frames(&zeros, 1)),
        ("/loki/push", zstd.into(), zstd_frames(&zeros, 1)),
        ("/loki/push", format!("{json}{gzip_json}"), gzip(&zeros[..9 << 20])),
        ("/loki/push", format!("{json}{gzip_json}"), members),
        ("/loki/push", format!("{json}{gzip_json}"), gzip(&b"[".repeat(3 << 19))),
        ("/loki/push", format!("{json}{gzip_json}"), gzip(&br#"{"streams":["#.repeat(200_000))),
        // Series, symbols and streams of two bytes, which cost more to keep than to send.
        ("/push", String::new(), block(&[0x0a, 0x00].repeat(3 << 19))),
        ("/push", V2.into(), block(&[0x22, 0x00].repeat(3 << 19))),
        ("/push", V2.into(), block(&[0x2a, 0x00].repeat(3 << 19))),
        ("/loki/push", String::new(), block(&[0x0a, 0x00].repeat(3 << 19))),
        // Groups within groups.
        ("/push", String::new(), block(&[0x13].repeat(3 << 20))),
        // The same by OTLP: zeros, resources of two bytes, groups, and JSON that is too deep or too wide.
        ("/v1/metrics", fields_of("gzip"), gzip(&zeros)),
        ("/v1/logs", fields_of("zstd"), zstd_frames(&zeros, 1)),
        ("/v1/traces", fields_of("snappy"), block(&zeros[..24 << 20])),
        ("/v1/logs", fields_of("gzip"), gzip(&zeros[..1 << 20]).repeat(96)),
        ("/v1/metrics", fields_of("gzip"), gzip(&[0x0a, 0x00].repeat(3 << 20))),
        ("/v1/traces", fields_of("gzip"), gzip(&[0x13].repeat(3 << 20))),
        ("/v1/logs", format!("{JSON}{gzip_json}"), gzip(&b"[".repeat(3 << 19))),
        ("/v1/logs", format!("{JSON}{gzip_json}"), gzip(&br#"{"resourceLogs":["#.repeat(200_000))),
        ("/v1/traces", format!("{JSON}{gzip_json}"), gzip(&json_of(&b"{},".repeat(2 << 20)))),
    ]
}

#[test]
fn bombs_are_refused_and_memory_stays_flat() {
    let bombs = bombs();
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let settings = format!(
            "target_loki: http://{}/loki\nlimits: {{inflated_bytes_max: 4Mi, body_bytes_max: 4Mi}}\n",
            upstream.address
        );
        let server = Server::start(driver, upstream.address, &settings);
        assert_eq!(server.client().push(&one("a")).status, 200);
        let before = server.status_kib("VmRSS");
        server.forget_peak();
        for round in 0..2 {
            for (nth, (path, fields, bomb)) in bombs.iter().enumerate() {
                let response = post(&server, path, fields, bomb);
                assert!(matches!(response.status, 400 | 413), "{nth} in round {round}: {response:?}");
            }
        }
        let peak = server.status_kib("VmHWM").saturating_sub(before);
        // Each of two cores holds one body at a time, what it inflates to, and what the scan notes. Nothing is left of
        // earlier ones. One bomb alone would exceed this if it were inflated.
        assert!(peak < 64 << 10, "they cost {peak} KiB");
        assert_eq!(upstream.received().len(), 1);
        assert_eq!(server.metric("tenantry_in_flight_bytes", ""), 0.0);
        assert_eq!(server.client().push(&one("a")).status, 200);
    });
}

/// Values that have another meaning in a header, in a path, or in a log.
const HARMFUL: &[&[u8]] = &[
    b"a\r\nX-Scope-OrgID: other",
    b"a\nX-Scope-OrgID: other",
    b"a\rX-Scope-OrgID: other",
    b"a\r\n\r\nPOST /api/v1/push HTTP/1.1",
    b"a\r\n folded",
    b"a\0b",
    b"\0",
    b"a\x7f",
    b"a\x1b[31m",
    b"a\tb",
    b" a",
    b"a ",
    "ü".as_bytes(),
    "a\u{2028}b".as_bytes(),
    b"a\xff",
    b"\xc0\xaf",
    b"a,b",
    b"a|b",
    b"a:b",
    b"a/b",
    b"/",
    b".",
    b"..",
    b"../b",
    b"..\\b",
    b"../../api/v1/push",
    b"a%2fb",
    b"%2e%2e",
    b"a?b",
    b"a#b",
    b"a;b",
    b"a&b=c",
    b"\"a\"",
    b"{tenant}",
    b"__mimir_cluster",
    &[b'x'; 257],
];

/// A placeholder of the same length, which is replaced by the value in the encoded request: prost's strings are UTF-8.
fn stand_in(value: &[u8]) -> String {
    "q".repeat(value.len())
}

fn replaced(mut encoded: Vec<u8>, value: &[u8]) -> Vec<u8> {
    let stand_in = stand_in(value);
    let at = encoded.windows(value.len()).rposition(|w| w == stand_in.as_bytes()).unwrap();
    encoded[at..at + value.len()].copy_from_slice(value);
    encoded
}

fn with_value_v1(value: &[u8]) -> Vec<u8> {
    let request = WriteRequest { timeseries: vec![series(&stand_in(value), "up", 1.0)], metadata: vec![] };
    block(&replaced(request.encode_to_vec(), value))
}

fn with_value_v2(value: &[u8]) -> Vec<u8> {
    let symbols = [&b""[..], b"__name__", b"up", b"tenant", value];
    let sample = proto_v2::Sample { value: 1.0, timestamp: 7, start_timestamp: 0 };
    let timeseries = proto_v2::TimeSeries {
        labels_refs: vec![1, 2, 3, 4],
        samples: vec![sample],
        ..proto_v2::TimeSeries::default()
    };
    let symbols = symbols.map(|s| s.to_vec().into()).to_vec();
    block(&proto_v2::Request { symbols, timeseries: vec![timeseries] }.encode_to_vec())
}

/// A label's value as Loki has it: quoted as in Go.
fn quoted(value: &[u8]) -> Vec<u8> {
    let escape = |&byte: &u8| match byte {
        b'"' | b'\\' => vec![b'\\', byte],
        0..=0x1f | 0x7f => format!("\\x{byte:02x}").into_bytes(),
        _ => vec![byte],
    };
    [b"{tenant=\"", &value.iter().flat_map(escape).collect::<Vec<_>>()[..], b"\"}"].concat()
}

fn with_value_loki(value: &[u8]) -> Vec<u8> {
    let timestamp = Some(proto_loki::Timestamp { seconds: 1_700_000_000, nanos: 0 });
    let entry = proto_loki::Entry { timestamp, line: b"x".to_vec().into(), structured_metadata: vec![] };
    let stream = proto_loki::Stream { labels: quoted(value).into(), entries: vec![entry], hash: 0 };
    block(&proto_loki::PushRequest { streams: vec![stream] }.encode_to_vec())
}

/// What stands in the quotes of a text in JSON.
fn json_text(value: &[u8]) -> Vec<u8> {
    let escape = |&byte: &u8| match byte {
        b'"' | b'\\' => vec![b'\\', byte],
        0..=0x1f | 0x7f => format!("\\u{byte:04x}").into_bytes(),
        _ => vec![byte],
    };
    value.iter().flat_map(escape).collect()
}

fn with_value_json(value: &[u8]) -> Vec<u8> {
    let (front, back) = (
        &br#"{"streams":[{"stream":{"tenant":""#[..],
        &br#""},"values":[["1700000000000000000","x"]]}]}"#[..],
    );
    [front, &json_text(value), back].concat()
}

fn with_value_otlp(value: &[u8]) -> Vec<u8> {
    let attributes = vec![proto_otlp::KeyValue::text("tenant", &stand_in(value))];
    let resource_logs = vec![proto_otlp::ResourceLogs {
        resource: Some(proto_otlp::Resource { attributes, ..proto_otlp::Resource::default() }),
        scope_logs: vec![proto_otlp::ScopeLogs {
            log_records: vec![proto_otlp::LogRecord::default()],
            ..proto_otlp::ScopeLogs::default()
        }],
        ..proto_otlp::ResourceLogs::default()
    }];
    replaced(proto_otlp::ExportLogsServiceRequest { resource_logs }.encode_to_vec(), value)
}

fn with_value_otlp_json(value: &[u8]) -> Vec<u8> {
    let (front, back) = (
        &br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"tenant","value":{"stringValue":""#[..],
        &br#""}}]},"scopeSpans":[{"spans":[{"name":"x"}]}]}]}"#[..],
    );
    [front, &json_text(value), back].concat()
}

/// A server that sends series and logs to one upstream, at `path`.
fn towards(driver: Driver, upstream: &Upstream, path: &str, rules: &str) -> Server {
    let metrics = free_port();
    let address = upstream.address;
    let driver = driver.name();
    let config = format!(
        "listen: 127.0.0.1:0\nlisten_metrics_address: {metrics}\ntarget: http://{address}{path}\n\
         target_loki: http://{address}{path}\ntarget_otlp_logs: http://{address}{path}\n\
         target_otlp_traces: http://{address}{path}\ndriver: {driver}\n\
         tenant:\n  label: tenant\n  id_rules: {rules}\n"
    );
    Server::start_with(&config, metrics, &[])
}

/// The text of an answer, which OTLP puts into a message.
fn text_of(response: &Response) -> String {
    match response.header("content-type") {
        Some("application/x-protobuf") => read_status(&response.body).unwrap(),
        _ => response.text(),
    }
}

/// Sends a value in each of the formats.
fn send_in_every_format(server: &Server, value: &[u8]) -> [Response; 6] {
    [
        post(server, "/push", "", &with_value_v1(value)),
        post(server, "/push", V2, &with_value_v2(value)),
        post(server, "/loki/push", "", &with_value_loki(value)),
        post(server, "/loki/push", JSON, &with_value_json(value)),
        post(server, "/v1/logs", PROTOBUF, &with_value_otlp(value)),
        post(server, "/v1/traces", JSON, &with_value_otlp_json(value)),
    ]
}

#[test]
fn no_label_value_gets_into_a_header_or_out_of_its_place_in_the_path() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = towards(driver, &upstream, "/insert/{tenant}/push", "mimir");
        for response in send_in_every_format(&server, b"good") {
            assert_eq!(response.status, 200, "the requests are good ones: {response:?}");
        }
        for value in HARMFUL {
            for (format, response) in send_in_every_format(&server, value).into_iter().enumerate() {
                let shown = value.escape_ascii();
                assert_eq!(response.status, 400, "{shown} in format {format}: {response:?}");
                let text = text_of(&response);
                let text = text.strip_suffix('\n').unwrap_or(&text);
                assert!(!text.contains(char::is_control), "{shown} is quoted unescaped: {text:?}");
            }
        }
        assert_eq!(upstream.received().len(), 6);
        assert!(upstream.received().iter().all(|r| r.path == "/insert/good/push"));
    });
}

#[test]
fn a_tenant_that_thanos_accepts_stays_one_segment_of_the_path() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = towards(driver, &upstream, "/insert/{tenant}/push", "thanos");
        let mut sent = 0;
        for value in HARMFUL {
            let responses = send_in_every_format(&server, value);
            sent += responses.iter().filter(|r| r.status == 200).count();
            assert!(responses.iter().all(|r| matches!(r.status, 200 | 400)), "{}", value.escape_ascii());
        }
        let received = upstream.received();
        assert!(sent >= 40 && received.len() == sent, "{sent} sent, {} received", received.len());
        for request in received {
            let segment = request.path.strip_prefix("/insert/").unwrap().strip_suffix("/push").unwrap();
            let plain = segment.bytes().all(|b| b.is_ascii_graphic() && !b"/\\?#&;\"<>".contains(&b));
            assert!(plain && segment != "." && segment != "..", "{}", request.path);
            assert!(!segment.to_ascii_lowercase().contains("%2f"), "{}", request.path);
            let tenant = request.tenant().as_bytes();
            assert!(tenant.iter().all(u8::is_ascii_graphic) && HARMFUL.contains(&tenant));
            assert_eq!(
                request.headers.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case("x-scope-orgid")).count(),
                1
            );
        }
    });
}

/// The limits above refuse bombs, and not every large request.
#[test]
fn large_requests_that_are_no_bombs_go_through() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        let many = (0..50_000).map(|i| series("a", &format!("metric_{i}"), 1.0)).collect();
        let request = deflate(&WriteRequest { timeseries: many, metadata: vec![] });
        assert_eq!(server.client().push(&request).status, 200);
        assert_eq!(upstream.of("a").len(), 1);
    });
}
