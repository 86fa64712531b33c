//! What receivers answer (OTLP specification, "OTLP/HTTP Response").

use prost::Message;
use serde::{Deserialize, Serialize};

use super::json;

/// `Export…ServiceResponse`, of any signal.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Answer {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub partial_success: Option<PartialSuccess>,
}

/// `Export…PartialSuccess`. In JSON each signal has its own name for the number.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PartialSuccess {
    /// Items that were not stored, and never will be.
    #[prost(int64, tag = "1")]
    #[serde(
        with = "json::decimal",
        rename = "rejectedDataPoints",
        alias = "rejectedLogRecords",
        alias = "rejectedSpans"
    )]
    pub rejected: i64,
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// `google.rpc.Status`, which comes with errors.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}
