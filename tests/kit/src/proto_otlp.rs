//! Exports of OTLP (opentelemetry-proto): what they have in common, and traces. Numbers and texts that no test looks at
//! are left out. With serde they are JSON, as the specification of OTLP has it, but for values that are no
//! text, number or truth, and for histograms and summaries.

#![allow(missing_docs)]

mod answer;
mod json;
mod logs;
mod metrics;

use prost::Message;
use serde::{Deserialize, Serialize};

pub use answer::{Answer, ErrorStatus, PartialSuccess};

pub use logs::{ExportLogsServiceRequest, LogRecord, ResourceLogs, ScopeLogs};
pub use metrics::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, ExportMetricsServiceRequest, Gauge,
    Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, metric, number_data_point,
};

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub schema_url: String,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub dropped_attributes_count: u32,
    #[prost(message, repeated, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub entity_refs: Vec<EntityRef>,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct EntityRef {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub schema_url: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub kind: String,
    #[prost(string, repeated, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub id_keys: Vec<String>,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct InstrumentationScope {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: String,
    #[prost(message, repeated, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub dropped_attributes_count: u32,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub spans: Vec<Span>,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub schema_url: String,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    #[serde(with = "json::hexadecimal", skip_serializing_if = "json::is_default")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    #[serde(with = "json::hexadecimal", skip_serializing_if = "json::is_default")]
    pub span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    #[serde(with = "json::hexadecimal", skip_serializing_if = "json::is_default")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    #[prost(int32, tag = "6")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    #[serde(with = "json::decimal")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    #[serde(with = "json::decimal")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub status: Option<Status>,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Status {
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub message: String,
    #[prost(int32, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub code: i32,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AnyValue {
    #[prost(oneof = "any_value::Value", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub value: Option<any_value::Value>,
}

pub mod any_value {
    use serde::{Deserialize, Serialize};

    use super::json;

    #[derive(Clone, PartialEq, prost::Oneof, Serialize, Deserialize)]
    pub enum Value {
        #[prost(string, tag = "1")]
        #[serde(rename = "stringValue")]
        Text(String),
        #[prost(bool, tag = "2")]
        #[serde(rename = "boolValue")]
        Truth(bool),
        #[prost(int64, tag = "3")]
        #[serde(rename = "intValue", with = "json::decimal")]
        Number(i64),
        #[prost(double, tag = "4")]
        #[serde(rename = "doubleValue", with = "json::double")]
        Fraction(f64),
        /// An `ArrayValue`, undecoded.
        #[prost(bytes = "vec", tag = "5")]
        #[serde(skip)]
        Array(Vec<u8>),
        /// A `KeyValueList`, undecoded.
        #[prost(bytes = "vec", tag = "6")]
        #[serde(skip)]
        Map(Vec<u8>),
        #[prost(bytes = "vec", tag = "7")]
        #[serde(skip)]
        Bytes(Vec<u8>),
    }
}

impl KeyValue {
    pub fn new(key: &str, value: any_value::Value) -> Self {
        Self { key: key.into(), value: Some(AnyValue { value: Some(value) }) }
    }

    /// Its value as text, if it is a text, a whole number or a truth value.
    pub fn name(&self) -> Option<String> {
        match self.value.as_ref()?.value.as_ref()? {
            any_value::Value::Text(text) => Some(text.clone()),
            any_value::Value::Number(number) => Some(number.to_string()),
            any_value::Value::Truth(truth) => Some(truth.to_string()),
            _ => None,
        }
    }

    /// An attribute with a text.
    pub fn text(key: &str, value: &str) -> Self {
        Self::new(key, any_value::Value::Text(value.into()))
    }
}

impl ExportTraceServiceRequest {
    /// All spans.
    pub fn spans(self) -> impl Iterator<Item = Span> {
        let scopes = self.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans)
    }
}

impl Span {
    /// The trace's ID in hexadecimal.
    pub fn trace(&self) -> String {
        hex(&self.trace_id)
    }

    /// The span's ID in hexadecimal.
    pub fn id(&self) -> String {
        hex(&self.span_id)
    }

    /// The parent's ID in hexadecimal; empty without one.
    pub fn parent(&self) -> String {
        hex(&self.parent_span_id)
    }

    /// An attribute's value as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        self.attributes.iter().find(|pair| pair.key == key)?.name()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
