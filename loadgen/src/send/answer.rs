//! What answers of OTLP say (OTLP specification, "OTLP/HTTP Response"): in protobuf, or in JSON if they say so.

use prost::Message;
use serde::de::DeserializeOwned;
use testkit::proto_otlp::{self, ErrorStatus, PartialSuccess};

use crate::client::Answer;

/// Whether it is a success, and tells that some items are not stored and never will be.
pub(crate) fn is_partial(answer: &Answer, body: &[u8]) -> bool {
    (200..300).contains(&answer.status)
        && partial_success(answer, body).is_some_and(|partial| partial.rejected > 0)
}

/// The text in it.
pub(super) fn otlp_text(answer: &Answer, body: &[u8]) -> String {
    let told = match answer.status {
        200..300 => partial_success(answer, body).map(|partial| partial.error_message),
        _ => read::<ErrorStatus>(answer, body).map(|status| status.message),
    };
    told.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

fn partial_success(answer: &Answer, body: &[u8]) -> Option<PartialSuccess> {
    read::<proto_otlp::Answer>(answer, body)?.partial_success
}

fn read<T: Message + Default + DeserializeOwned>(answer: &Answer, body: &[u8]) -> Option<T> {
    match answer.headers.get("content-type") {
        Some(media) if media.starts_with("application/json") => serde_json::from_slice(body).ok(),
        _ => T::decode(body).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Headers;

    fn answer(status: u16, media: &str) -> Answer {
        Answer { status, headers: Headers(vec![("Content-Type".to_owned(), media.to_owned())]) }
    }

    #[test]
    fn both_notations_are_read() {
        let partial = PartialSuccess { rejected: 3, error_message: "too old".to_owned() };
        let told = proto_otlp::Answer { partial_success: Some(partial) };
        let error = ErrorStatus { code: 3, message: "bad".to_owned() };
        let (protobuf, json) = ("application/x-protobuf", "application/json");
        for (media, told, error) in [
            (protobuf, told.encode_to_vec(), error.encode_to_vec()),
            (json, serde_json::to_vec(&told).unwrap(), serde_json::to_vec(&error).unwrap()),
        ] {
            assert!(is_partial(&answer(200, media), &told) && !is_partial(&answer(400, media), &told));
            assert_eq!(otlp_text(&answer(200, media), &told), "too old");
            assert_eq!(otlp_text(&answer(400, media), &error), "bad");
        }
        for signal in ["LogRecords", "Spans"] {
            let text = format!("{{\"partialSuccess\":{{\"rejected{signal}\":\"2\"}}}}");
            assert!(is_partial(&answer(200, json), text.as_bytes()), "{text}");
        }
        assert!(!is_partial(&answer(200, json), b"{}") && !is_partial(&answer(200, protobuf), b""));
        assert_eq!(otlp_text(&answer(500, json), b"no JSON"), "no JSON");
    }
}
