//! How a body is written, and what a request's head says of it.
//!
//! Everything that depends on the format is here: a new one is a variant with its name, its headers and its
//! encoding.

use std::fmt;
use std::io::Write as _;

use bytes::Bytes;
use clap::ValueEnum;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::destination::Destination;
use crate::proto::{WriteRequest, deflate};
use crate::translate::{Notation, Signal, to_otlp};
use crate::{proto_v2, translate};

/// A protocol together with its compression. In files it stands under the name under which it is typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Prometheus Remote Write 1.0: `prometheus.WriteRequest` as a snappy block
    #[default]
    #[value(name = "remote-write-1")]
    #[serde(rename = "remote-write-1")]
    RemoteWrite1,
    /// The same with zstd, as vmagent sends it
    #[value(name = "remote-write-1-zstd")]
    #[serde(rename = "remote-write-1-zstd")]
    RemoteWrite1Zstd,
    /// Prometheus Remote Write 2.0: `io.prometheus.write.v2.Request` as a snappy block
    #[value(name = "remote-write-2")]
    #[serde(rename = "remote-write-2")]
    RemoteWrite2,
    /// A Loki push: `logproto.PushRequest` as a snappy block. Series are streams, and samples are entries
    Loki,
    /// The same as JSON
    LokiJson,
    /// The same as JSON with gzip
    LokiJsonGzip,
    /// Metrics by OTLP: `ExportMetricsServiceRequest`. Targets are resources, and samples are data points
    OtlpMetrics,
    /// The same with gzip
    OtlpMetricsGzip,
    /// The same as JSON
    OtlpMetricsJson,
    /// Logs by OTLP: `ExportLogsServiceRequest`. Samples are log records
    OtlpLogs,
    /// The same with gzip
    OtlpLogsGzip,
    /// The same as JSON
    OtlpLogsJson,
    /// Traces by OTLP: `ExportTraceServiceRequest`. Samples are spans
    OtlpTraces,
    /// The same with gzip
    OtlpTracesGzip,
    /// The same as JSON
    OtlpTracesJson,
}

impl Format {
    /// Whether it goes to where logs are pushed.
    pub fn is_loki(self) -> bool {
        matches!(self, Self::Loki | Self::LokiJson | Self::LokiJsonGzip)
    }

    /// What it is as an export of OTLP, if it is one.
    pub fn export(self) -> Option<(Signal, Notation)> {
        Some(match self {
            Self::OtlpMetrics | Self::OtlpMetricsGzip => (Signal::Metrics, Notation::Protobuf),
            Self::OtlpMetricsJson => (Signal::Metrics, Notation::Json),
            Self::OtlpLogs | Self::OtlpLogsGzip => (Signal::Logs, Notation::Protobuf),
            Self::OtlpLogsJson => (Signal::Logs, Notation::Json),
            Self::OtlpTraces | Self::OtlpTracesGzip => (Signal::Traces, Notation::Protobuf),
            Self::OtlpTracesJson => (Signal::Traces, Notation::Json),
            _ => return None,
        })
    }

    /// Where it goes.
    pub fn destination(self) -> Destination {
        match self.export() {
            Some((Signal::Metrics, _)) => Destination::OtlpMetrics,
            Some((Signal::Logs, _)) => Destination::OtlpLogs,
            Some((Signal::Traces, _)) => Destination::OtlpTraces,
            None if self.is_loki() => Destination::Logs,
            None => Destination::Metrics,
        }
    }

    /// The path to which it is sent, if nothing else is said.
    pub fn path(self) -> &'static str {
        self.destination().path()
    }

    /// Whether it can carry native histograms and exemplars, and nothing of them changes. OTLP's exponential histograms
    /// cannot say which empty buckets there are, see [`translate`].
    pub fn has_histograms(self) -> bool {
        !self.is_loki() && self.export().is_none()
    }

    /// Whether it has requests that hold metadata alone.
    pub fn has_metadata_requests(self) -> bool {
        matches!(self, Self::RemoteWrite1 | Self::RemoteWrite1Zstd)
    }

    /// The headers that tell a receiver what the body is ("Protocol" in the Remote Write specifications; for Loki
    /// "Ingest logs" in its HTTP API; "OTLP/HTTP Request" in OTLP's).
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::RemoteWrite1 => &[
                ("Content-Type", "application/x-protobuf"),
                ("Content-Encoding", "snappy"),
                ("X-Prometheus-Remote-Write-Version", "0.1.0"),
            ],
            Self::RemoteWrite1Zstd => &[
                ("Content-Type", "application/x-protobuf"),
                ("Content-Encoding", "zstd"),
                ("X-Prometheus-Remote-Write-Version", "0.1.0"),
            ],
            Self::RemoteWrite2 => &[
                ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
                ("Content-Encoding", "snappy"),
                ("X-Prometheus-Remote-Write-Version", "2.0.0"),
            ],
            Self::Loki => &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")],
            Self::LokiJson | Self::OtlpMetricsJson | Self::OtlpLogsJson | Self::OtlpTracesJson => {
                &[("Content-Type", "application/json")]
            }
            Self::LokiJsonGzip => &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
            Self::OtlpMetrics | Self::OtlpLogs | Self::OtlpTraces => {
                &[("Content-Type", "application/x-protobuf")]
            }
            Self::OtlpMetricsGzip | Self::OtlpLogsGzip | Self::OtlpTracesGzip => {
                &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")]
            }
        }
    }

    /// The request as 1.0 has it, which is what is counted, and the body that says it as it is sent.
    pub(crate) fn encode(self, request: &WriteRequest) -> (Vec<u8>, Bytes) {
        let inflated = request.encode_to_vec();
        let body = match self {
            Self::RemoteWrite1 => deflate(&inflated),
            Self::RemoteWrite1Zstd => {
                // Level 1 is what vmagent uses. There is memory for it, or nothing works.
                zstd::bulk::compress(&inflated, 1).unwrap_or_default().into()
            }
            Self::RemoteWrite2 => deflate(&proto_v2::Request::from(request).encode_to_vec()),
            Self::Loki => deflate(&translate::to_loki(request).encode_to_vec()),
            Self::LokiJson => translate::to_loki_json(request).into(),
            Self::LokiJsonGzip => gzip(&translate::to_loki_json(request)).into(),
            _ => self.encode_export(request).into(),
        };
        (inflated, body)
    }

    fn encode_export(self, request: &WriteRequest) -> Vec<u8> {
        let Some((signal, notation)) = self.export() else { return Vec::new() };
        let export = to_otlp(signal, notation, request);
        match self {
            Self::OtlpMetricsGzip | Self::OtlpLogsGzip | Self::OtlpTracesGzip => gzip(&export),
            _ => export,
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to a Vec can't fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_name_of_its_own_and_says_what_it_is() {
        for &format in Format::value_variants() {
            assert_eq!(serde_json::to_value(format).unwrap(), format.to_string());
            assert!(format.headers().iter().any(|(name, _)| *name == "Content-Type"), "{format}");
        }
    }
}
