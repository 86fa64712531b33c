//! One test per rule on hand-made bytes, then properties of all bytes.

mod framing;
mod properties;
mod request_line;

use super::*;
use crate::limits::HEAD_FIELDS_MAX;

const TENANT_HEADER: &str = "X-Scope-OrgID";

/// What Prometheus 2.42 sends.
const PROMETHEUS: &str = "POST /api/v1/push HTTP/1.1\r\nHost: tenantry:8081\r\nUser-Agent: Prometheus/2.42.0\r\n\
    Content-Length: 4711\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n\
    X-Prometheus-Remote-Write-Version: 0.1.0\r\n\r\n";

/// Accepted heads: one for each rule.
const GOOD: &[&str] = &[
    PROMETHEUS,
    "GET /alive HTTP/1.0\r\n\r\n",
    "HEAD /alive?verbose HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
    "\r\n\r\nPOST http://proxy.example:80/push HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /push HTTP/1.1\r\nHost: [::1]:8081\r\nExpect: 100-continue\r\nContent-Length: 1\r\nX-Scope-OrgID: a\r\n\r\n",
];

/// Refused heads: one for each rule.
const BAD: &[&str] = &[
    "POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
    "POST /push HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "POST /push HTTP/1.1\r\nHost: a\nContent-Length: 5\r\n\r\n",
    "POST /push HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
    "POST /push HTTP/1.1\r\nHost : a\r\n\r\n",
    "POST /push HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "POST /push HTTP/1.1\r\n\r\n",
    "POST /push HTTP/2.0\r\nHost: a\r\n\r\n",
    "PO(ST /push HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST push HTTP/1.1\r\nHost: a\r\n\r\n",
];

fn parse(text: impl AsRef<[u8]>) -> Result<Option<(RequestHead, usize)>, Refusal> {
    RequestHead::parse(text.as_ref(), TENANT_HEADER)
}

/// Parses the head in `text`, which must contain nothing else.
fn whole(text: impl AsRef<[u8]>) -> RequestHead {
    let text = text.as_ref();
    let (head, head_bytes) = parse(text).expect("accepted").expect("complete");
    assert_eq!(head_bytes, text.len());
    head
}

/// A push with a Host and these `fields`, each with its line end.
fn push(fields: &str) -> String {
    format!("POST /push HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn assert_bad(text: impl AsRef<[u8]>, why: &'static str) {
    assert_eq!(parse(text), Err(Refusal::BadRequest(why)));
}

fn path(text: &str) -> &str {
    &text[whole(text).path]
}

#[test]
fn what_prometheus_sends_is_read_whole() {
    let head = whole(PROMETHEUS);
    assert_eq!(
        head,
        RequestHead {
            method: Method::Post,
            path: 5..17,
            query: 17..17,
            framing: Framing::Length(4711),
            media: Media::Protobuf,
            encoding: Encoding::Snappy,
            expect_continue: false,
            keep_alive: true,
            source_tenant: None,
            authorization: None,
            sender: Sender::Usual,
            passed: None,
        }
    );
    assert_eq!(&PROMETHEUS[head.path], "/api/v1/push");
}

#[test]
fn the_kind_of_sender_is_read() {
    let sender = |fields: &str| whole(push(fields)).sender;
    assert_eq!(sender("User-Agent: vmagent\r\n"), Sender::Vmagent);
    assert_eq!(sender("X-VictoriaMetrics-Remote-Write-Version: 1\r\nUser-Agent: a\r\n"), Sender::Vmagent);
    assert_eq!(sender("User-Agent: Fluent-Bit\r\n"), Sender::FluentBit);
    assert_eq!(sender(""), Sender::Usual);
}

#[test]
fn the_authorization_is_found_and_must_not_be_repeated() {
    let text = push("authorization: Basic YTpi\r\n");
    let head = whole(text.as_str());
    assert_eq!(&text[head.authorization.unwrap()], "Basic YTpi");
    assert_bad(push("Authorization: a\r\nauthorization: a\r\n"), "repeated Authorization");
}

#[test]
fn head_ends_before_body_and_before_next_request() {
    let two = format!("{PROMETHEUS}GET /alive HTTP/1.1\r\nHost: a\r\n\r\n");
    let (first, first_bytes) = parse(&two).unwrap().unwrap();
    assert_eq!((first.method, first_bytes), (Method::Post, PROMETHEUS.len()));
    let (second, second_bytes) = parse(&two[first_bytes..]).unwrap().unwrap();
    assert_eq!((second.method, first_bytes + second_bytes), (Method::Get, two.len()));
    assert_eq!(parse(&two[first_bytes + second_bytes..]), Ok(None));
}

#[test]
fn bytes_after_the_head_are_not_judged() {
    let (_, head_bytes) = parse(format!("{PROMETHEUS}\n\0\nPOST\n")).unwrap().unwrap();
    assert_eq!(head_bytes, PROMETHEUS.len());
}

#[test]
fn every_prefix_of_a_good_head_asks_for_more() {
    for good in GOOD {
        for end in 0..good.len() {
            assert_eq!(parse(&good[..end]), Ok(None), "{:?}", &good[..end]);
        }
        let alone = parse(good).unwrap().unwrap();
        let followed = parse(format!("{good}{PROMETHEUS}")).unwrap().unwrap();
        assert_eq!(alone, followed);
    }
}

#[test]
fn every_prefix_of_a_bad_head_asks_for_more_or_is_refused_for_good() {
    for bad in BAD {
        let whole = parse(bad).expect_err(bad);
        let mut refused = false;
        for end in 0..bad.len() {
            match parse(&bad[..end]) {
                Ok(None) => assert!(!refused, "an error went away: {:?}", &bad[..end]),
                Ok(Some(head)) => panic!("{:?} is no {head:?}", &bad[..end]),
                Err(refusal) => {
                    assert_eq!(refusal, whole, "{:?}", &bad[..end]);
                    refused = true;
                }
            }
        }
    }
}

#[test]
fn bare_lf_is_refused_wherever_it_ends_a_line() {
    let good = "POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    for (at, _) in good.match_indices("\r\n") {
        let mut bad = good.to_owned();
        bad.remove(at);
        assert!(parse(&bad).is_err(), "{bad:?}");
    }
    assert_bad("\nGET /alive HTTP/1.1\r\nHost: a\r\n\r\n", "a line ends in a bare LF");
    assert_bad("GET /alive HTTP/1.1\r\nHost: a\r\n\n", "a line ends in a bare LF");
    assert_bad("GET /alive HTTP/1.1\n", "a line ends in a bare LF");
}

#[test]
fn bare_cr_is_refused() {
    for bad in ["GET /alive HTTP/1.1\rHost: a\r\n\r\n", "GET /alive HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
    assert!(parse("GET /alive HTTP/1.1\r\nHost: a\r\r\n\r\n").is_err());
}

#[test]
fn folded_lines_are_refused() {
    for fold in [" ", "\t", "  b"] {
        assert!(parse(push(&format!("X: a\r\n{fold}b\r\n"))).is_err());
        assert!(parse(format!("POST /push HTTP/1.1\r\n{fold}Host: a\r\n\r\n")).is_err());
    }
}

#[test]
fn space_around_a_field_name_is_refused() {
    for field in [
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Content Length: 5",
        ": 5",
        "Content-Length",
        "X\u{e9}: 5",
    ] {
        assert_bad(push(&format!("{field}\r\n")), "malformed field name");
    }
}

#[test]
fn control_characters_in_values_are_refused() {
    for byte in (0..b' ').chain([0x7f]) {
        let mut text = b"POST /push HTTP/1.1\r\nHost: a\r\nX: a".to_vec();
        text.push(byte);
        text.extend_from_slice(b"b\r\n\r\n");
        assert_eq!(parse(&text).is_err(), byte != b'\t', "{byte:#x}");
    }
}

#[test]
fn space_around_a_value_is_no_part_of_it() {
    assert_eq!(whole(push("Content-Length: \t 5 \t\r\n")).framing, Framing::Length(5));
    assert_eq!(whole(push("Content-Length:5\r\n")).framing, Framing::Length(5));
}

#[test]
fn http_1_1_needs_one_host() {
    assert_bad("GET /alive HTTP/1.1\r\n\r\n", "no Host");
    assert_bad("GET /alive HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "repeated Host");
    whole("GET /alive HTTP/1.0\r\n\r\n");
    assert_bad("GET /alive HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "repeated Host");
}

#[test]
fn host_is_an_authority_or_empty() {
    for value in ["", "a", "a.example:8081", "[2001:db8::1]:80", "under_score", "10.0.0.1"] {
        whole(format!("GET /alive HTTP/1.1\r\nHost: {value}\r\n\r\n"));
    }
    for value in ["a b", "a/b", "u@a", "http://a", "a?b", "a#b", "a\\b", "\u{e9}", "a\"b"] {
        assert_bad(format!("GET /alive HTTP/1.1\r\nHost: {value}\r\n\r\n"), "malformed Host");
    }
}

#[test]
fn connections_persist_by_version_and_option() {
    for (version, fields, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: CLOSE\r\n", false),
        ("1.1", "Connection: te, close\r\n", false),
        ("1.1", "Connection: te\r\nConnection: close\r\n", false),
        ("1.1", "Connection: close\r\nConnection: te\r\n", false),
        ("1.0", "Connection: keep-alive\r\nConnection: te\r\n", true),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: Keep-Alive , te\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Keep-Alive: timeout=5\r\n", false),
    ] {
        let text = format!("GET /alive HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(whole(&text).keep_alive, keep_alive, "{text:?}");
    }
}

#[test]
fn continue_is_expected_only_where_a_body_is_to_come() {
    for (version, fields, expected) in [
        ("1.1", "Expect: 100-continue\r\nContent-Length: 5\r\n", true),
        ("1.1", "expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n", true),
        ("1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false),
        ("1.1", "Expect: 100-continue\r\n", false),
        ("1.1", "Content-Length: 5\r\n", false),
        ("1.1", "Expect: 200-ok\r\nContent-Length: 5\r\n", false),
        ("1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n", false),
    ] {
        let text = format!("POST /push HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(whole(&text).expect_continue, expected, "{text:?}");
    }
}

#[test]
fn content_type_names_the_message() {
    use Media::{Json, Other, Protobuf, RemoteWriteV1, RemoteWriteV2};
    assert_eq!(whole(push("")).media, Protobuf);
    for (value, media) in [
        ("", Protobuf),
        ("application/x-protobuf", Protobuf),
        ("Application/X-Protobuf", Protobuf),
        ("application/x-protobuf;proto=prometheus.WriteRequest", RemoteWriteV1),
        ("application/x-protobuf ; PROTO=prometheus.WriteRequest ", RemoteWriteV1),
        ("application/x-protobuf; charset=utf-8", Protobuf),
        ("application/x-protobuf; proto=\"prometheus.WriteRequest\"", RemoteWriteV1),
        ("application/x-protobuf;", Protobuf),
        ("application/x-protobuf;proto=io.prometheus.write.v2.Request", RemoteWriteV2),
        ("application/x-protobuf; a=\"b;c\\\";\"; proto=\"io.prometheus.write.v2.Request\"", RemoteWriteV2),
        ("application/x-protobuf;a=\"b\\\\\";proto=io.prometheus.write.v2.Request", RemoteWriteV2),
        ("application/x-protobuf;a=\";proto=io.prometheus.write.v2.Request\"", Protobuf),
        ("application/x-protobuf;proto=PROMETHEUS.WRITEREQUEST", Other),
        ("application/x-protobuf;proto=other.Message", Other),
        ("application/x-protobuf;proto=", Other),
        ("application/x-protobuf;proto", Other),
        ("application/x-protobuf;proto=\"prometheus.WriteRequest", Other),
        ("application/x-protobuf;proto=\"prometheus.WriteRequest\"x", Other),
        ("application/x-protobuf;proto=prometheus.WriteRequest;proto=io.prometheus.write.v2.Request", Other),
        ("application/x-protobuf, application/json", Other),
        ("application/x-protobuffer", Other),
        ("application/json", Json),
        ("Application/JSON; charset=utf-8", Json),
        ("application/json;proto=io.prometheus.write.v2.Request", Json),
        ("application/json;charset", Other),
        ("text/plain", Other),
    ] {
        assert_eq!(whole(push(&format!("Content-Type: {value}\r\n"))).media, media, "{value:?}");
    }
}

#[test]
fn repeated_content_types_are_refused() {
    let fields = "Content-Type: application/x-protobuf\r\nContent-Type: application/json\r\n";
    assert_bad(push(fields), "repeated Content-Type");
}

#[test]
fn content_encoding_names_one_compression() {
    assert_eq!(whole(push("")).encoding, Encoding::Absent);
    for (value, encoding) in [
        ("snappy", Encoding::Snappy),
        ("Snappy", Encoding::Snappy),
        ("", Encoding::Absent),
        ("gzip", Encoding::Gzip),
        ("zstd", Encoding::Zstd),
        ("identity", Encoding::Identity),
        ("deflate", Encoding::Other),
        ("snappy, gzip", Encoding::Other),
        ("snappy\r\nContent-Encoding: snappy", Encoding::Other),
        ("gzip\r\nContent-Encoding: snappy", Encoding::Other),
    ] {
        assert_eq!(whole(push(&format!("Content-Encoding: {value}\r\n"))).encoding, encoding, "{value:?}");
    }
}

#[test]
fn tenant_header_is_found_by_the_name_given() {
    let text = push("x-scope-orgid: \t team-a \r\nTHANOS-TENANT: team-b\r\n");
    assert_eq!(&text[whole(&text).source_tenant.unwrap()], "team-a");
    let (head, _) = RequestHead::parse(text.as_bytes(), "thanos-tenant").unwrap().unwrap();
    assert_eq!(&text[head.source_tenant.unwrap()], "team-b");
    let (head, _) = RequestHead::parse(text.as_bytes(), "").unwrap().unwrap();
    assert_eq!(head.source_tenant, None);
}

#[test]
fn empty_tenant_header_counts_as_absent() {
    assert_eq!(whole(push("X-Scope-OrgID:  \r\n")).source_tenant, None);
}

#[test]
fn repeated_tenant_headers_are_refused() {
    for fields in ["X-Scope-OrgID: a\r\nX-Scope-OrgID: a\r\n", "X-Scope-OrgID:\r\nX-Scope-OrgID: a\r\n"] {
        assert_bad(push(fields), "repeated tenant header");
        assert!(RequestHead::parse(push(fields).as_bytes(), "").is_ok());
    }
}

#[test]
fn tenant_header_must_be_ascii() {
    assert_bad(push("X-Scope-OrgID: \u{e9}\r\n"), "the tenant header is not ASCII");
}

#[test]
fn a_tenant_header_that_is_also_known_keeps_its_meaning() {
    let text = push("");
    let (head, _) = RequestHead::parse(text.as_bytes(), "host").unwrap().unwrap();
    assert_eq!(&text[head.source_tenant.unwrap()], "a");
    assert!(RequestHead::parse(b"GET / HTTP/1.1\r\n\r\n", "host").is_err());
}

#[test]
fn fields_are_counted() {
    let others = |count: usize| push(&"X: y\r\n".repeat(count));
    whole(others(HEAD_FIELDS_MAX - 1));
    assert_eq!(parse(others(HEAD_FIELDS_MAX)), Err(Refusal::TooManyFields));
}

#[test]
fn headers_that_go_on_are_taken_by_the_names_given() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let text = push(&format!("x-shard: 7\r\ntraceparent: {trace}\r\nX-Other: 1\r\n"));
    let passed = |names: &[Box<str>]| {
        let (head, _) = RequestHead::parse_passing(text.as_bytes(), "", names).unwrap().unwrap();
        head.passed.map(|passed| String::from_utf8(passed.lines().to_vec()).unwrap())
    };
    assert_eq!(passed(&[]), Some(format!("traceparent: {trace}\r\n")));
    assert_eq!(passed(&["X-Shard".into()]), Some(format!("X-Shard: 7\r\ntraceparent: {trace}\r\n")));
    assert_eq!(whole(PROMETHEUS).passed, None);
    let beyond_ascii = push("x-shard: \u{e9}\r\n");
    let refused = RequestHead::parse_passing(beyond_ascii.as_bytes(), "", &["X-Shard".into()]);
    assert!(matches!(refused, Err(Refusal::BadRequest(_))));
}

#[test]
fn the_query_is_what_follows_the_first_question_mark() {
    let query = |target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        text[whole(text.as_str()).query].to_owned()
    };
    for (target, expected) in
        [("/a", ""), ("/a?", ""), ("/a?b=c?d", "b=c?d"), ("http://h?x", "x"), ("http://h/p?q=%3f", "q=%3f")]
    {
        assert_eq!(query(target), expected, "{target}");
    }
}
