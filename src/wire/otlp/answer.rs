//! The answers of OTLP over HTTP (OTLP specification, "OTLP/HTTP Response"): an `Export…ServiceResponse`, or a
//! `google.rpc.Status` for an error. Both are read as they come from upstreams, and written for senders.
//!
//! Upstreams are trusted no more than elsewhere: what is no answer is read as none, and the start of an answer that was
//! cut short as far as it goes.
#![forbid(unsafe_code)]

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::level::{Notation, Signal};
use crate::wire::message::Message;
use crate::wire::protobuf::{Value, take_field};
use crate::wire::varint;

/// What an upstream says that it has not taken of an export which it otherwise stored.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PartialSuccess {
    /// `rejected_data_points`, `rejected_log_records` or `rejected_spans`.
    pub rejected: u64,
    /// `error_message`. If nothing is rejected it is a warning.
    pub message: String,
}

/// Reads the body of a 2xx in either notation; `None` if it reports nothing.
pub fn read_partial_success(body: &[u8]) -> Option<PartialSuccess> {
    let found = if is_json(body) { partial_of_json(body) } else { partial_of_protobuf(body) };
    found.filter(|partial| *partial != PartialSuccess::default())
}

/// Reads the message of a `google.rpc.Status` in either notation; `None` if the body is none, such as plain text.
pub fn read_status(body: &[u8]) -> Option<String> {
    if is_json(body) {
        #[derive(Deserialize)]
        struct Status {
            message: String,
        }
        return serde_json::from_slice::<Status>(body).ok().map(|status| status.message);
    }
    let mut rest = body;
    let mut message = None;
    while !rest.is_empty() {
        match field(&mut rest)? {
            // Details, which are not shown.
            (1, Content::Number(_)) | (3, Content::Bytes(_)) => {}
            (2, Content::Bytes(text)) => message = Some(String::from_utf8_lossy(text).into_owned()),
            _ => return None,
        }
    }
    message
}

/// Writes an `Export…ServiceResponse`. Without rejected items and without a message it is empty.
pub fn write_success(notation: Notation, signal: Signal, partial: &PartialSuccess) -> Vec<u8> {
    let PartialSuccess { rejected, message } = partial;
    let is_full = *partial == PartialSuccess::default();
    match notation {
        Notation::Protobuf if is_full => Vec::new(),
        Notation::Protobuf => {
            let mut response = Message::default();
            response.message(1, |partial| {
                partial.number(1, (*rejected).min(i64::MAX.cast_unsigned()));
                partial.bytes(2, message.as_bytes());
            });
            response.into_bytes()
        }
        Notation::Json if is_full => b"{}".to_vec(),
        Notation::Json => {
            let key = match signal {
                Signal::Metrics => "rejectedDataPoints",
                Signal::Logs => "rejectedLogRecords",
                Signal::Traces => "rejectedSpans",
            };
            // 64-bit numbers are texts in ProtoJSON.
            json!({"partialSuccess": {key: rejected.to_string(), "errorMessage": message}})
                .to_string()
                .into_bytes()
        }
    }
}

/// Writes a `google.rpc.Status` for an answer with this HTTP status.
pub fn write_status(notation: Notation, status: u16, message: &str) -> Vec<u8> {
    let code = code_of(status);
    match notation {
        Notation::Protobuf => {
            let mut written = Message::default();
            written.number(1, code);
            written.bytes(2, message.as_bytes());
            written.into_bytes()
        }
        Notation::Json => json!({"code": code, "message": message}).to_string().into_bytes(),
    }
}

/// The `google.rpc.Code` that an HTTP status stands for (googleapis, google/rpc/code.proto).
fn code_of(status: u16) -> u64 {
    match status {
        401 => 16,
        403 => 7,
        404 => 5,
        405 => 12,
        409 => 10,
        429 => 8,
        502 | 503 => 14,
        504 => 4,
        400..500 => 3,
        _ => 13,
    }
}

/// Whether a body is in JSON. White space may stand before it (RFC 8259 section 2), but a line feed also begins a
/// protobuf message with a field 1, whose length may be the code of white space or of `{`. So the bytes up to JSON's
/// first key decide: the message in field 1 begins with a field 1 or 2, and so with a byte that JSON has nowhere. The
/// `Content-Type` is not asked, as it may be wrong.
fn is_json(body: &[u8]) -> bool {
    let object = body.trim_ascii_start().strip_prefix(b"{");
    object.is_some_and(|inside| matches!(inside.trim_ascii_start(), [b'"' | b'}', ..]))
}

fn partial_of_json(body: &[u8]) -> Option<PartialSuccess> {
    let response: Json = serde_json::from_slice(body).ok()?;
    let of = |object: &Json, names: &[&str]| names.iter().find_map(|name| object.get(name)).cloned();
    let partial = of(&response, &["partialSuccess", "partial_success"])?;
    let rejected = of(
        &partial,
        &[
            "rejectedDataPoints",
            "rejectedLogRecords",
            "rejectedSpans",
            "rejected_data_points",
            "rejected_log_records",
            "rejected_spans",
        ],
    );
    let rejected = rejected.and_then(|number| match number {
        Json::String(digits) => digits.parse().ok(),
        number => number.as_u64(),
    });
    let message = of(&partial, &["errorMessage", "error_message"]);
    let message = message.and_then(|text| text.as_str().map(str::to_owned));
    Some(PartialSuccess { rejected: rejected.unwrap_or_default(), message: message.unwrap_or_default() })
}

fn partial_of_protobuf(mut body: &[u8]) -> Option<PartialSuccess> {
    let mut found = None;
    while let Some(taken) = field(&mut body) {
        if let (1, Content::Bytes(partial)) = taken {
            found = Some(partial_message(partial));
        }
    }
    found
}

fn partial_message(mut partial: &[u8]) -> PartialSuccess {
    let mut found = PartialSuccess::default();
    while let Some(taken) = field(&mut partial) {
        match taken {
            // A negative count is no count.
            (1, Content::Number(number)) => {
                found.rejected = u64::try_from(number.cast_signed()).unwrap_or_default();
            }
            (2, Content::Bytes(text)) => found.message = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    found
}

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Takes a field. One that was cut short has the bytes that are there; `None` at the end, and if nothing can be read.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Content<'a>)> {
    if rest.is_empty() {
        return None;
    }
    let mut inner = *rest;
    let key = varint::take(&mut inner).ok()?;
    match take_field(rest) {
        Ok((number, Value::Bytes(bytes))) => Some((number, Content::Bytes(bytes))),
        Ok((number, Value::Scalar)) if key & 7 == 0 => {
            Some((number, Content::Number(varint::take(&mut inner).ok()?)))
        }
        Ok((number, _)) => Some((number, Content::Other)),
        Err(_) if key & 7 == 2 => {
            varint::take(&mut inner).ok()?;
            *rest = &[];
            Some((u32::try_from(key >> 3).ok()?, Content::Bytes(inner)))
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTATIONS: [Notation; 2] = [Notation::Protobuf, Notation::Json];

    #[test]
    fn what_is_written_is_read() {
        let partial = PartialSuccess { rejected: 300, message: "a: 400 \"too old\"\n".into() };
        for notation in NOTATIONS {
            for signal in Signal::ALL {
                let body = write_success(notation, signal, &partial);
                assert_eq!(read_partial_success(&body), Some(partial.clone()), "{notation:?}");
                let full = write_success(notation, signal, &PartialSuccess::default());
                assert_eq!(read_partial_success(&full), None);
            }
            let body = write_status(notation, 503, "wait");
            assert_eq!(read_status(&body).as_deref(), Some("wait"), "{notation:?}");
        }
        assert_eq!(write_success(Notation::Protobuf, Signal::Logs, &PartialSuccess::default()), b"");
        assert_eq!(write_success(Notation::Json, Signal::Logs, &PartialSuccess::default()), b"{}");
        assert_eq!(write_status(Notation::Protobuf, 400, "no"), [8, 3, 18, 2, b'n', b'o']);
    }

    #[test]
    fn the_start_of_an_answer_is_read_as_far_as_it_goes() {
        let partial = PartialSuccess { rejected: 7, message: "m".repeat(500) };
        let body = write_success(Notation::Protobuf, Signal::Traces, &partial);
        let read = read_partial_success(&body[..100]).unwrap();
        assert_eq!(read.rejected, 7);
        assert!(partial.message.starts_with(&read.message) && read.message.len() > 80);
    }

    #[test]
    fn json_may_begin_with_white_space() {
        let partial = PartialSuccess { rejected: 5, message: "old".into() };
        let success = String::from_utf8(write_success(Notation::Json, Signal::Logs, &partial)).unwrap();
        let status = String::from_utf8(write_status(Notation::Json, 400, "never")).unwrap();
        for before in [" ", "\t", "\n", "\r\n", "\n\n", "\n  ", " \n\t"] {
            for within in ["", " ", "\n  "] {
                let padded =
                    |text: &str| format!("{before}{}", text.replacen('{', &format!("{{{within}"), 1));
                let read = read_partial_success(padded(&success).as_bytes());
                assert_eq!(read.as_ref(), Some(&partial), "{before:?} {within:?}");
                assert_eq!(read_status(padded(&status).as_bytes()).as_deref(), Some("never"));
                assert_eq!(read_partial_success(padded("{}").as_bytes()), None);
            }
        }
    }

    #[test]
    fn a_length_that_looks_like_json_is_none() {
        let mut beginnings = Vec::new();
        for (rejected, bytes) in (0..200).flat_map(|bytes| [(0, bytes), (5, bytes), (300, bytes)]).skip(1) {
            // What begins an object in JSON may also begin a message.
            for filler in ["{", " ", "\"", "}", "\n"] {
                let partial = PartialSuccess { rejected, message: filler.repeat(bytes) };
                let body = write_success(Notation::Protobuf, Signal::Logs, &partial);
                assert_eq!(read_partial_success(&body), Some(partial));
                beginnings.push([body[0], body[1]]);
            }
        }
        for alike in [b"\n{", b"\n ", b"\n\n", b"\n\t", b"\n\r"] {
            assert!(beginnings.contains(alike), "{alike:?}");
        }
    }

    #[test]
    fn other_bodies_are_no_answers() {
        for text in
            [&b"rate limited"[..], b"", b"<html>", b"{", b"{\"error\":\"x\"}", b"{}", b"\x0a\xff\xff", b"ok"]
        {
            assert_eq!(read_status(text), None, "{text:?}");
            assert_eq!(read_partial_success(text), None, "{text:?}");
        }
        let negative = [10, 11, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(read_partial_success(&negative), None);
        assert_eq!(
            read_partial_success(b"{\"partial_success\":{\"rejected_spans\":5}}").unwrap().rejected,
            5
        );
    }
}
