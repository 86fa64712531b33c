//! The format of a push, by its path and its head.
//!
//! The data port and `tenantry explain` share this: what is captured is explained as the server would take it.
#![forbid(unsafe_code)]

use crate::http::head::{Encoding, Media};
use crate::http::refusal::Refusal;
use crate::model::{Destination, Protocol, Signal};
use crate::split::Compression;

/// Paths for remote write: that of cortex-tenant, and those of upstreams. A sender that was configured for either works
/// unchanged.
const PUSH: [&[u8]; 4] = [b"/push", b"/api/v1/push", b"/api/v1/write", b"/api/v1/receive"];

/// Paths for Loki pushes: that of cortex-tenant, and that of Loki.
const LOKI_PUSH: [&[u8]; 2] = [b"/loki/push", b"/loki/api/v1/push"];

/// Paths for exports of OTLP: that of the specification, and those of Loki, Mimir, Prometheus and VictoriaMetrics.
const OTLP: [(&[u8], Signal); 8] = [
    (b"/v1/metrics", Signal::Metrics),
    (b"/otlp/v1/metrics", Signal::Metrics),
    (b"/api/v1/otlp/v1/metrics", Signal::Metrics),
    (b"/opentelemetry/v1/metrics", Signal::Metrics),
    (b"/v1/logs", Signal::Logs),
    (b"/otlp/v1/logs", Signal::Logs),
    (b"/v1/traces", Signal::Traces),
    (b"/otlp/v1/traces", Signal::Traces),
];

/// The kind of data that is pushed to this path; `None` if nothing is. A query after the path is ignored.
pub fn destination_of(target: &[u8]) -> Option<Destination> {
    let path = target.split(|&b| b == b'?').next().unwrap_or_default();
    if PUSH.contains(&path) {
        Some(Destination::Metrics)
    } else if LOKI_PUSH.contains(&path) {
        Some(Destination::Logs)
    } else {
        let known = OTLP.iter().find(|(known, _)| *known == path);
        known.map(|(_, signal)| Destination::of_signal(*signal))
    }
}

/// Determines the format and compression of a request, if its path supports them.
///
/// Without a Content-Encoding, protobuf is taken to be snappy (Remote Write prescribes it, and Loki supports nothing
/// else), and JSON and OTLP to be uncompressed.
///
/// # Errors
/// [`Refusal::UnsupportedMedia`], [`Refusal::RemoteWriteV2`] or [`Refusal::UnsupportedEncoding`].
pub fn format(
    destination: Destination,
    media: Media,
    encoding: Encoding,
    takes_v2: bool,
) -> Result<(Protocol, Compression), Refusal> {
    if let Some(signal) = destination.signal() {
        return otlp_format(signal, media, encoding);
    }
    let protocol = match (destination, media) {
        (Destination::Metrics, Media::Protobuf | Media::RemoteWriteV1) => Protocol::RemoteWriteV1,
        (Destination::Metrics, Media::RemoteWriteV2) if takes_v2 => Protocol::RemoteWriteV2,
        (Destination::Metrics, Media::RemoteWriteV2) => return Err(Refusal::RemoteWriteV2),
        (Destination::Logs, Media::Protobuf) => Protocol::Loki,
        (Destination::Logs, Media::Json) => Protocol::LokiJson,
        (Destination::Metrics, _) => {
            return Err(Refusal::UnsupportedMedia {
                taken: "application/x-protobuf (prometheus.WriteRequest)",
            });
        }
        (_, _) => {
            let taken = "application/x-protobuf (logproto.PushRequest) and application/json";
            return Err(Refusal::UnsupportedMedia { taken });
        }
    };
    let compression = match (protocol, encoding) {
        (Protocol::LokiJson, Encoding::Absent | Encoding::Identity) => Compression::Identity,
        (Protocol::LokiJson, Encoding::Gzip) => Compression::Gzip,
        (Protocol::LokiJson, _) => return Err(Refusal::UnsupportedEncoding { taken: "gzip for JSON" }),
        (_, Encoding::Absent | Encoding::Snappy) => Compression::Snappy,
        (_, Encoding::Zstd) => Compression::Zstd,
        _ => return Err(Refusal::UnsupportedEncoding { taken: "snappy and zstd for protobuf" }),
    };
    Ok((protocol, compression))
}

fn otlp_format(signal: Signal, media: Media, encoding: Encoding) -> Result<(Protocol, Compression), Refusal> {
    let protocol = match media {
        Media::Protobuf => Protocol::Otlp(signal),
        Media::Json => Protocol::OtlpJson(signal),
        _ => {
            let taken = "application/x-protobuf and application/json (OTLP/HTTP; gRPC is not supported)";
            return Err(Refusal::UnsupportedMedia { taken });
        }
    };
    let compression = match encoding {
        Encoding::Absent | Encoding::Identity => Compression::Identity,
        Encoding::Gzip => Compression::Gzip,
        Encoding::Zstd => Compression::Zstd,
        Encoding::Snappy => Compression::Snappy,
        Encoding::Other => return Err(Refusal::UnsupportedEncoding { taken: "gzip, zstd and snappy" }),
    };
    Ok((protocol, compression))
}
