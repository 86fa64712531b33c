//! Why a request cannot be split.
#![forbid(unsafe_code)]

use crate::tenant::TenantError;
use crate::wire::inflate::InflateError;
use crate::wire::loki::json::JsonError;
use crate::wire::loki::{self as wire_loki, labels};
use crate::wire::otlp;
use crate::wire::remote_write_v1::Malformed;
use crate::wire::remote_write_v2::Malformed as MalformedV2;

/// A request that cannot be split. It is always the sender's fault, and a retry does not help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SplitError {
    /// The inflated body is too large, or the body does not match its encoding.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// The inflated body is not a `WriteRequest`.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The inflated body is not a Remote Write 2.0 `Request`.
    #[error(transparent)]
    MalformedV2(#[from] MalformedV2),
    /// The inflated body is not a `PushRequest`.
    #[error(transparent)]
    MalformedPush(#[from] wire_loki::Malformed),
    /// The inflated body is not an export of OTLP.
    #[error(transparent)]
    MalformedExport(#[from] otlp::Malformed),
    /// The body of an export is not JSON.
    #[error(transparent)]
    NotJson(#[from] otlp::json::NotJson),
    /// The body is not a push in JSON, or it is too large.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A stream's labels cannot be parsed.
    #[error("stream {place} ({labels}): malformed labels: {fault}")]
    Labels {
        /// The stream's position in the request, from 1.
        place: u64,
        /// The labels, escaped and truncated.
        labels: String,
        /// The error.
        fault: labels::Malformed,
    },
    /// The request has neither series nor metadata.
    #[error("no timeseries found in the request")]
    Empty,
    /// The push has no streams. Loki answers 422.
    #[error("no streams found in the push")]
    EmptyPush,
    /// Content that several tenants each need a copy of, such as the labels of a stream with entries of several
    /// tenants, or routed metadata, would take too much room.
    #[error(
        "the request cannot be split: its copies for several tenants would take more than {bytes_max} bytes"
    )]
    TooManyCopies {
        /// The limit.
        bytes_max: usize,
    },
    /// The request has too many series, metadata entries and unknown fields.
    #[error("the request has more than {fields_max} series and metadata entries")]
    TooManyFields {
        /// The limit.
        fields_max: usize,
    },
    /// The resources of an export would be taken apart into too many pieces: fields and messages that are copied.
    #[error(
        "the export cannot be split: its resources would be taken apart into more than {pieces_max} pieces"
    )]
    TooManyPieces {
        /// The limit.
        pieces_max: usize,
    },
    /// The request has too many symbols.
    #[error("the request has more than {symbols_max} symbols")]
    TooManySymbols {
        /// The limit.
        symbols_max: usize,
    },
    /// The parts would grow too much, as several tenants, or in Remote Write 1.0 several series, each get a copy of a
    /// symbol.
    #[error("the request cannot be split: its parts would inflate to more than {bytes_max} bytes together")]
    TooMuchGrowth {
        /// The limit.
        bytes_max: usize,
    },
    /// The request has too many bytes of unknown numeric fields, which would be copied into every part.
    #[error("the request cannot be split: it has more than {bytes_max} bytes of unknown fields")]
    TooManyScalars {
        /// The limit.
        bytes_max: usize,
    },
    /// The request has too many distinct tenants.
    #[error("the request has more than {tenants_max} tenants")]
    TooManyTenants {
        /// The limit.
        tenants_max: usize,
    },
    /// A series or stream has no usable tenant, and the policy is to reject.
    #[error("{noun} {place} ({name}): {error}")]
    Tenant {
        /// `series`, `stream` or `resource`.
        noun: &'static str,
        /// Its position in the request, from 1.
        place: u64,
        /// The metric name, the stream's labels or the resource's `service.name`, escaped and truncated.
        name: String,
        /// The error.
        error: TenantError,
    },
}

impl SplitError {
    /// Returns the reason as one word, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Inflate(error) if error.is_too_large() => "too_large",
            Self::Inflate(_) => "bad_compression",
            Self::MalformedExport(otlp::Malformed { notation: otlp::Notation::Json, .. }) => "bad_json",
            Self::Malformed(_) | Self::MalformedV2(_) | Self::MalformedPush(_) | Self::MalformedExport(_) => {
                "bad_protobuf"
            }
            Self::NotJson(_) => "bad_json",
            Self::Json(JsonError::TooLarge { .. })
            | Self::TooManyCopies { .. }
            | Self::TooMuchGrowth { .. } => "too_large",
            Self::Json(JsonError::Malformed { .. }) => "bad_json",
            Self::Labels { .. } => "bad_labels",
            Self::Empty | Self::EmptyPush => "empty",
            Self::TooManyFields { .. }
            | Self::TooManyPieces { .. }
            | Self::TooManySymbols { .. }
            | Self::TooManyScalars { .. } => "too_many_fields",
            Self::TooManyTenants { .. } => "too_many_tenants",
            Self::Tenant { error, .. } => error.reason(),
        }
    }
}
