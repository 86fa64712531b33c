//! One test per rule on hand-made bytes, then properties of all bytes.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

/// 6 November 1994, 08:49:00 GMT: 37 seconds before the date that RFC 9110 takes for its examples.
const NOW_SECS: u64 = 784_111_740;

/// What Mimir 2.x answers on success, and when it throttles.
const MIMIR_OK: &str = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:00 GMT\r\nContent-Length: 0\r\n\r\n";
const MIMIR_429: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Retry-After: 8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 42\r\n\r\n";

fn parse(text: impl AsRef<[u8]>) -> Result<Option<(ResponseHead, usize)>, BadResponse> {
    ResponseHead::parse(text.as_ref(), UNIX_EPOCH + Duration::from_secs(NOW_SECS))
}

fn whole(text: impl AsRef<[u8]>) -> ResponseHead {
    let text = text.as_ref();
    let (head, head_bytes) = parse(text).expect("accepted").expect("complete");
    assert_eq!(head_bytes, text.len());
    head
}

fn answer(status: u16, fields: &str) -> String {
    format!("HTTP/1.1 {status} Words\r\n{fields}\r\n")
}

fn assert_bad(text: impl AsRef<[u8]>, why: &'static str) {
    assert_eq!(parse(text), Err(BadResponse(why)));
}

fn retry_after(value: &str) -> Option<u32> {
    whole(answer(503, &format!("Retry-After: {value}\r\n"))).retry_after_secs
}

#[test]
fn mimirs_answers_are_parsed() {
    assert_eq!(
        whole(MIMIR_OK),
        ResponseHead {
            status: 200,
            framing: ResponseFraming::Length(0),
            keep_alive: true,
            retry_after_secs: None,
            written: None,
            has_location: false,
        }
    );
    assert_eq!(
        whole(MIMIR_429),
        ResponseHead {
            status: 429,
            framing: ResponseFraming::Length(42),
            keep_alive: true,
            retry_after_secs: Some(8),
            written: None,
            has_location: false,
        }
    );
}

#[test]
fn written_counts_are_parsed_where_present() {
    let written = |fields: &str| whole(answer(200, &format!("{fields}Content-Length: 0\r\n"))).written;
    assert_eq!(written(""), None);
    let all = "X-Prometheus-Remote-Write-Samples-Written: 20\r\n\
               x-prometheus-remote-write-histograms-written: 3\r\n\
               X-Prometheus-Remote-Write-Exemplars-Written: 0\r\n";
    assert_eq!(written(all), Some(Written { samples: 20, histograms: 3, exemplars: 0 }));
    let histograms_only = "X-Prometheus-Remote-Write-Histograms-Written: 7\r\n";
    assert_eq!(written(histograms_only), Some(Written { histograms: 7, ..Written::default() }));
    assert_eq!(written("X-Prometheus-Remote-Write-Samples-Written: many\r\n"), None);
}

#[test]
fn head_ends_before_content_and_before_next_response() {
    let two = format!("HTTP/1.1 100 Continue\r\n\r\n{MIMIR_429}");
    let (first, first_bytes) = parse(&two).unwrap().unwrap();
    assert_eq!((first.status, first_bytes), (100, 25));
    let (second, second_bytes) = parse(&two[first_bytes..]).unwrap().unwrap();
    assert_eq!((second.status, first_bytes + second_bytes), (429, two.len()));
}

#[test]
fn every_prefix_is_incomplete() {
    for good in [MIMIR_OK, MIMIR_429, "HTTP/1.0 500\r\n\r\n"] {
        for end in 0..good.len() {
            assert_eq!(parse(&good[..end]), Ok(None), "{:?}", &good[..end]);
        }
        assert_eq!(parse(good), parse(format!("{good}\n\0 and more")));
    }
}

#[test]
fn status_is_three_digits_from_100_to_599() {
    for status in [200, 202, 204, 301, 400, 460, 599] {
        assert_eq!(whole(answer(status, "")).status, status);
    }
    for status in ["099", "000", "600", "999"] {
        assert_bad(format!("HTTP/1.1 {status} Words\r\n\r\n"), "a status code outside 100 to 599");
    }
    for status in ["20", "2000", "2x0", "", "-20", "OK"] {
        assert_bad(format!("HTTP/1.1 {status} Words\r\n\r\n"), "malformed status line");
    }
}

#[test]
fn an_upgrade_is_refused() {
    assert_bad(answer(101, "Upgrade: h2c\r\n"), "an upgrade that was not asked for");
}

#[test]
fn only_http_1_0_and_1_1_are_accepted() {
    for version in ["HTTP/2.0", "HTTP/1.2", "http/1.1", "ICY"] {
        assert_bad(format!("{version} 200 OK\r\n\r\n"), "neither HTTP/1.0 nor HTTP/1.1");
    }
}

#[test]
fn the_reason_phrase_may_be_missing() {
    assert_eq!(whole("HTTP/1.1 200\r\n\r\n").status, 200);
    assert_eq!(whole("HTTP/1.1 200 \r\n\r\n").status, 200);
}

#[test]
fn bare_lf_is_refused_wherever_it_ends_a_line() {
    for (at, _) in MIMIR_429.match_indices("\r\n") {
        let mut bad = MIMIR_429.to_owned();
        bad.remove(at);
        assert_bad(&bad, "a line ends in a bare LF");
    }
    assert_bad("HTTP/1.1 200 OK\n", "a line ends in a bare LF");
}

#[test]
fn malformed_fields_are_refused() {
    for field in ["X: a\r\n b: c\r\n", "X : a\r\n", "X\r\n", ": a\r\n"] {
        assert_bad(answer(200, field), "malformed field name");
    }
    assert_bad(answer(200, "X: a\0b\r\n"), "malformed field value");
}

#[test]
fn fields_are_counted() {
    whole(answer(200, &"X: y\r\n".repeat(HEAD_FIELDS_MAX)));
    assert_bad(answer(200, &"X: y\r\n".repeat(HEAD_FIELDS_MAX + 1)), "too many fields");
}

#[test]
fn content_is_delimited_by_length_coding_or_close() {
    for (fields, framing, keep_alive) in [
        ("Content-Length: 5\r\n", ResponseFraming::Length(5), true),
        ("Content-Length: 0\r\n", ResponseFraming::Length(0), true),
        ("Transfer-Encoding: Chunked\r\n", ResponseFraming::Chunked, true),
        ("", ResponseFraming::UntilClose, false),
        ("Connection: keep-alive\r\n", ResponseFraming::UntilClose, false),
    ] {
        let head = whole(answer(200, fields));
        assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{fields:?}");
    }
}

#[test]
fn some_statuses_have_no_content() {
    for (status, fields, keep_alive) in [
        (100, "", true),
        (103, "", true),
        (204, "", true),
        (204, "Content-Length: 0\r\n", true),
        (204, "Connection: close\r\n", false),
        (204, "Content-Length: 5\r\n", false),
        (204, "Transfer-Encoding: chunked\r\n", false),
        (100, "Content-Length: 5\r\n", false),
        (304, "Content-Length: 5\r\n", true),
    ] {
        let head = whole(answer(status, fields));
        let expected = (ResponseFraming::None, keep_alive);
        assert_eq!((head.framing, head.keep_alive), expected, "{status} {fields:?}");
    }
}

#[test]
fn content_that_could_end_in_two_places_is_refused() {
    for (fields, why) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "both Content-Length and Transfer-Encoding"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "repeated Content-Length"),
        ("Content-Length: 5, 5\r\n", "malformed Content-Length"),
        ("Content-Length: +5\r\n", "malformed Content-Length"),
        ("Content-Length:\r\n", "malformed Content-Length"),
        ("Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding other than chunked"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "repeated Transfer-Encoding"),
    ] {
        assert_bad(answer(200, fields), why);
    }
    assert_bad("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in HTTP/1.0");
}

#[test]
fn connections_persist_by_version_and_option() {
    for (version, fields, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: upgrade, Close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
    ] {
        let text = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
        assert_eq!(whole(&text).keep_alive, keep_alive, "{text:?}");
    }
}

#[test]
fn retry_after_in_seconds() {
    assert_eq!(retry_after("0"), Some(0));
    assert_eq!(retry_after(" 120 "), Some(120));
    assert_eq!(retry_after("007"), Some(7));
}

#[test]
fn retry_after_as_imf_fixdate() {
    assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(37));
}

#[test]
fn retry_after_as_rfc_850_date() {
    assert_eq!(retry_after("Sunday, 06-Nov-94 08:49:37 GMT"), Some(37));
}

#[test]
fn retry_after_as_asctime_date() {
    assert_eq!(retry_after("Sun Nov  6 08:49:37 1994"), Some(37));
}

#[test]
fn retry_after_in_the_past_is_now() {
    assert_eq!(retry_after("Sun, 06 Nov 1994 08:48:59 GMT"), Some(0));
    assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
}

#[test]
fn retry_after_rounds_up() {
    let now = UNIX_EPOCH + Duration::from_secs(NOW_SECS) + Duration::from_millis(1);
    let text = answer(503, "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    let (head, _) = ResponseHead::parse(text.as_bytes(), now).unwrap().unwrap();
    assert_eq!(head.retry_after_secs, Some(37));
}

#[test]
fn retry_after_saturates() {
    assert_eq!(retry_after("4294967296"), Some(u32::MAX));
    assert_eq!(retry_after("99999999999999999999999999"), Some(u32::MAX));
    assert_eq!(retry_after("Fri, 31 Dec 9999 23:59:59 GMT"), Some(u32::MAX));
}

#[test]
fn retry_after_malformed_is_none() {
    for value in [
        "",
        "-1",
        "+1",
        "1.5",
        "1, 2",
        "soon",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "\u{e9}",
    ] {
        assert_eq!(retry_after(value), None, "{value:?}");
    }
}

#[test]
fn retry_after_twice_is_the_longer() {
    let head = whole(answer(429, "Retry-After: 3\r\nRetry-After: 9\r\nRetry-After: soon\r\n"));
    assert_eq!(head.retry_after_secs, Some(9));
}

/// A result for a prefix of `buf` must also be the result for `buf`.
fn assert_consistent(buf: &[u8]) {
    let whole = parse(buf);
    if let Ok(Some((head, head_bytes))) = &whole {
        assert!(*head_bytes <= buf.len() && buf[..*head_bytes].ends_with(b"\r\n\r\n"));
        assert!((100..600).contains(&head.status));
        assert_eq!(parse(&buf[..*head_bytes]), whole);
    }
    for end in 0..buf.len() {
        match parse(&buf[..end]) {
            Ok(None) => {}
            Ok(found) => assert_eq!(Ok(found), whole),
            Err(_) => assert!(whole.is_err()),
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_consistently(buf in prop::collection::vec(any::<u8>(), 0..256)) {
        assert_consistent(&buf);
    }

    #[test]
    fn mutated_heads_are_read_consistently(
        head in prop::sample::select(vec![
            MIMIR_OK,
            MIMIR_429,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..5),
    ) {
        let mut head = head.as_bytes().to_vec();
        for (at, byte, insert) in edits {
            let at = at.index(head.len());
            if insert { head.insert(at, byte) } else { head[at] = byte }
        }
        assert_consistent(&head);
    }
}

#[test]
fn a_location_is_noticed_in_any_case() {
    assert!(whole(answer(302, "lOCATION: http://user:secret@elsewhere/\r\n")).has_location);
    assert!(!whole(answer(302, "Content-Location: /here\r\n")).has_location);
}
