//! Exports of OTLP as a receiver takes them (OTLP specification, "OTLP/HTTP Request" and "OTLP/HTTP Response"): which
//! signal, in which notation, how compressed, and what is answered.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use prost::Message;
use testkit::proto::INFLATED_BYTES_MAX;
use testkit::proto_otlp::ErrorStatus;
use testkit::upstream::Reply;

use crate::destination::Destination;
use crate::http::RequestHead;
use crate::proto::{WriteRequest, inflate};
use crate::translate::{Notation, Signal, Unreadable, from_otlp};

/// What a head says of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    signal: Signal,
    /// None for one that is not taken.
    notation: Option<Notation>,
}

impl Export {
    /// Of a request that goes to where exports go.
    pub(crate) fn of(head: &RequestHead) -> Option<Self> {
        let signal = match Destination::of(&head.path) {
            Destination::OtlpMetrics => Signal::Metrics,
            Destination::OtlpLogs => Signal::Logs,
            Destination::OtlpTraces => Signal::Traces,
            Destination::Metrics | Destination::Logs => return None,
        };
        let media = head.headers.get("content-type").unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        let notation = [Notation::Protobuf, Notation::Json]
            .into_iter()
            .find(|notation| media.eq_ignore_ascii_case(notation.media()));
        Some(Self { signal, notation })
    }

    /// Inflates a body into `out`.
    pub(crate) fn inflate(self, head: &RequestHead, body: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let coding = head.headers.get("content-encoding").unwrap_or("identity");
        out.clear();
        let read = match coding {
            "snappy" => return inflate(body, out).map_err(|error| error.to_string()),
            "identity" => {
                out.extend_from_slice(body);
                return Ok(());
            }
            "gzip" => read_all(MultiGzDecoder::new(body), out),
            "zstd" => zstd::stream::read::Decoder::new(body).and_then(|decoder| read_all(decoder, out)),
            _ => return Err(format!("unsupported Content-Encoding: {coding}")),
        };
        match read {
            Ok(()) if out.len() > INFLATED_BYTES_MAX => {
                Err(format!("it inflates to more than {INFLATED_BYTES_MAX} bytes"))
            }
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{coding}: {error}")),
        }
    }

    /// The 1.0 request that an inflated export says.
    pub(crate) fn read(self, inflated: &[u8]) -> Result<WriteRequest, Unreadable> {
        match self.notation {
            Some(notation) => from_otlp(self.signal, notation, inflated),
            None => Err(Unreadable::Export("its Content-Type is neither protobuf nor JSON".to_owned())),
        }
    }

    /// The same reply in OTLP's words: an empty `Export…ServiceResponse`, or a `google.rpc.Status` with the reply's
    /// text. A script that has set a Content-Type has chosen its own words.
    pub(crate) fn worded(self, mut reply: Reply) -> Reply {
        let is_worded = reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if is_worded || reply.raw.is_some() || reply.status == 204 {
            return reply;
        }
        let notation = self.notation.unwrap_or(Notation::Protobuf);
        reply.body = match (reply.status, notation) {
            (200..300, Notation::Protobuf) => Vec::new(),
            (200..300, Notation::Json) => b"{}".to_vec(),
            (_, notation) => {
                let message = String::from_utf8_lossy(&reply.body).trim().to_owned();
                let status = ErrorStatus { code: 0, message };
                match notation {
                    Notation::Protobuf => status.encode_to_vec(),
                    Notation::Json => serde_json::to_vec(&status).unwrap_or_default(),
                }
            }
        };
        reply.header("Content-Type", notation.media())
    }
}

/// Reads to the end, or a byte past what is taken.
fn read_all(from: impl Read, out: &mut Vec<u8>) -> std::io::Result<()> {
    from.take(INFLATED_BYTES_MAX as u64 + 1).read_to_end(out).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Framing, Headers};

    fn head(path: &str, media: &str, coding: Option<&str>) -> RequestHead {
        let mut headers = vec![("content-type".to_owned(), media.to_owned())];
        headers.extend(coding.map(|coding| ("content-encoding".to_owned(), coding.to_owned())));
        let (method, framing) = ("POST".to_owned(), Framing::Length(0));
        RequestHead { method, path: path.to_owned(), headers: Headers(headers), framing, keep_alive: true }
    }

    #[test]
    fn path_and_media_say_what_it_is() {
        let of = |path, media| Export::of(&head(path, media, None));
        let logs = |notation| Some(Export { signal: Signal::Logs, notation });
        assert_eq!(of("/v1/logs", "application/x-protobuf"), logs(Some(Notation::Protobuf)));
        assert_eq!(of("/otlp/v1/logs?x=1", "application/json; charset=utf-8"), logs(Some(Notation::Json)));
        assert_eq!(of("/v1/logs", "text/plain"), logs(None));
        assert!(logs(None).unwrap().read(b"").is_err());
        for path in ["/api/v1/push", "/loki/api/v1/push"] {
            assert_eq!(of(path, "application/x-protobuf"), None, "{path}");
        }
    }

    #[test]
    fn every_coding_is_inflated_and_what_is_none_is_refused() {
        use std::io::Write as _;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"content").unwrap();
        let mut out = b"old".to_vec();
        for (coding, body) in [
            (None, b"content".to_vec()),
            (Some("identity"), b"content".to_vec()),
            (Some("gzip"), gzip.finish().unwrap()),
            (Some("zstd"), zstd::bulk::compress(b"content", 1).unwrap()),
            (Some("snappy"), crate::proto::deflate(b"content").to_vec()),
        ] {
            let head = head("/v1/logs", "application/json", coding);
            let export = Export::of(&head).unwrap();
            export.inflate(&head, &body, &mut out).unwrap();
            assert_eq!(out, b"content", "{coding:?}");
            let cut = export.inflate(&head, &body[..body.len() - 1], &mut out);
            assert_eq!(cut.is_ok(), matches!(coding, None | Some("identity")), "{coding:?}");
        }
        let head = head("/v1/logs", "application/json", Some("br"));
        assert!(Export::of(&head).unwrap().inflate(&head, b"", &mut out).is_err());
    }

    #[test]
    fn answers_are_in_the_words_of_the_request() {
        let worded = |media, reply| {
            let reply = Export::of(&head("/v1/traces", media, None)).unwrap().worded(reply);
            (reply.headers, reply.body)
        };
        let content_type = |media: &str| vec![("Content-Type".to_owned(), media.to_owned())];
        let (protobuf, json) = ("application/x-protobuf", "application/json");
        assert_eq!(worded(protobuf, Reply::default()), (content_type(protobuf), Vec::new()));
        assert_eq!(worded(json, Reply::default()), (content_type(json), b"{}".to_vec()));
        let (_, status) = worded(protobuf, Reply::new(503, "later\n"));
        assert_eq!(ErrorStatus::decode(&status[..]).unwrap().message, "later");
        let (_, status) = worded(json, Reply::new(400, "no"));
        assert_eq!(serde_json::from_slice::<ErrorStatus>(&status).unwrap().message, "no");
        let own = Reply::new(400, "mine").header("content-type", "text/plain");
        assert_eq!(worded(json, own).1, b"mine");
    }
}
