//! Where a body ends: `Content-Length` and `Transfer-Encoding`.

use super::*;

#[test]
fn without_length_there_is_no_body() {
    assert_eq!(whole(push("")).framing, Framing::None);
}

#[test]
fn lengths_are_decimal_digits() {
    for (value, length) in [("0", 0), ("007", 7), ("18446744073709551615", u64::MAX)] {
        assert_eq!(whole(push(&format!("CONTENT-LENGTH: {value}\r\n"))).framing, Framing::Length(length));
    }
}

#[test]
fn malformed_lengths_are_refused() {
    for value in [
        "",
        "+5",
        "-5",
        "5 5",
        "5,5",
        "5, 5",
        "0x5",
        "5.0",
        "5e1",
        "five",
        "\"5\"",
        "5;",
        "\u{665}",
        "18446744073709551616",
        "99999999999999999999999999",
    ] {
        assert_bad(push(&format!("Content-Length: {value}\r\n")), "malformed Content-Length");
    }
}

#[test]
fn repeated_lengths_are_refused_even_when_equal() {
    for second in ["5", "6"] {
        let fields = format!("Content-Length: 5\r\nX: y\r\ncontent-length: {second}\r\n");
        assert_bad(push(&fields), "repeated Content-Length");
    }
}

#[test]
fn chunked_is_the_only_transfer_encoding() {
    assert_eq!(whole(push("transfer-encoding: CHUNKED\r\n")).framing, Framing::Chunked);
    for value in [
        "",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked;a=b",
        "identity",
        "xchunked",
        "chunked,",
        "\u{b}chunked",
    ] {
        let answer = parse(push(&format!("Transfer-Encoding: {value}\r\n")));
        assert!(answer.is_err(), "{value:?}");
    }
    assert_bad(push("Transfer-Encoding: chunked, gzip\r\n"), "Transfer-Encoding other than chunked");
}

#[test]
fn repeated_transfer_encodings_are_refused() {
    assert_bad(
        push("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        "repeated Transfer-Encoding",
    );
    assert!(parse(push("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")).is_err());
}

#[test]
fn length_and_transfer_encoding_together_are_refused() {
    let why = "both Content-Length and Transfer-Encoding";
    assert_bad(push("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), why);
    assert_bad(push("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), why);
}

#[test]
fn transfer_encoding_in_http_1_0_is_refused() {
    assert_bad("POST /push HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in HTTP/1.0");
}
