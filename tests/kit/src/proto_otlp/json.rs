//! How JSON writes what it has no word for (OTLP specification, "JSON Protobuf Encoding", and ProtoJSON): whole numbers
//! of 64 bits as decimal texts, IDs in hexadecimal, and of doubles those that are no numbers as texts.

/// Whether a field is left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Whole numbers: a text, and read from a number, too.
pub(super) mod decimal {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Unsigned(u64),
        Signed(i64),
    }

    pub(in crate::proto_otlp) fn serialize<T: Display, S: Serializer>(
        number: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(in crate::proto_otlp) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        let text = match Written::deserialize(from)? {
            Written::Text(text) => text,
            Written::Unsigned(number) => number.to_string(),
            Written::Signed(number) => number.to_string(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

/// IDs.
pub(super) mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::proto_otlp) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&crate::proto_otlp::hex(bytes))
    }

    pub(in crate::proto_otlp) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let pair = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.ok_or_else(|| D::Error::custom("an ID must be hexadecimal"))
    }
}

/// Doubles. Parsers that round numbers of many digits as they like see those as texts, which are read exactly.
pub(super) mod double {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// The most digits that every parser reads exactly, without an exponent.
    const PLAIN_DIGITS_MAX: usize = 15;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    pub(in crate::proto_otlp) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        let text = format!("{value:?}");
        let is_plain = value.is_finite()
            && !text.contains('e')
            && text.chars().filter(char::is_ascii_digit).count() <= PLAIN_DIGITS_MAX;
        match value {
            _ if is_plain => to.serialize_f64(*value),
            _ if value.is_nan() => to.serialize_str("NaN"),
            _ if value.is_infinite() && *value > 0.0 => to.serialize_str("Infinity"),
            _ if value.is_infinite() => to.serialize_str("-Infinity"),
            _ => to.serialize_str(&text),
        }
    }

    pub(in crate::proto_otlp) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        match Written::deserialize(from)? {
            Written::Number(number) => Ok(number),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proto_otlp::metric::Data;
    use crate::proto_otlp::number_data_point::Value;
    use crate::proto_otlp::{
        ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest, Gauge, KeyValue,
        LogRecord, Metric, NumberDataPoint, Resource, ResourceLogs, ResourceMetrics, ResourceSpans,
        ScopeLogs, ScopeMetrics, ScopeSpans, Span,
    };

    #[test]
    fn the_json_is_that_of_the_specification() {
        let resource =
            || Some(Resource { attributes: vec![KeyValue::text("a", "b")], ..Resource::default() });
        let point =
            NumberDataPoint { time_unix_nano: 7, value: Some(Value::Double(0.5)), ..Default::default() };
        let metric = Metric {
            name: "m".into(),
            data: Some(Data::Gauge(Gauge { data_points: vec![point] })),
            ..Default::default()
        };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }];
        let metrics = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: resource(),
                scope_metrics,
                ..Default::default()
            }],
        };
        let text = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":{"stringValue":"b"}}]},"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"timeUnixNano":"7","asDouble":0.5}]}}]}]}]}"#;
        assert_eq!(serde_json::to_string(&metrics).unwrap(), text);
        assert_eq!(serde_json::from_str::<ExportMetricsServiceRequest>(text).unwrap(), metrics);

        let span = Span {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            end_time_unix_nano: u64::MAX,
            ..Default::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
        let traces = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource: None, scope_spans, ..Default::default() }],
        };
        let text = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"abababababababababababababababab","spanId":"0101010101010101","startTimeUnixNano":"0","endTimeUnixNano":"18446744073709551615"}]}]}]}"#;
        assert_eq!(serde_json::to_string(&traces).unwrap(), text);
        assert_eq!(serde_json::from_str::<ExportTraceServiceRequest>(text).unwrap(), traces);

        let log_records = vec![LogRecord { time_unix_nano: 5, severity_number: 9, ..Default::default() }];
        let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
        let logs = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource: resource(), scope_logs, ..Default::default() }],
        };
        let text = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"a","value":{"stringValue":"b"}}]},"scopeLogs":[{"logRecords":[{"timeUnixNano":5,"severityNumber":9}]}]}]}"#;
        assert_eq!(serde_json::from_str::<ExportLogsServiceRequest>(text).unwrap(), logs, "numbers, too");
    }

    #[test]
    fn doubles_come_back_bit_by_bit() {
        for value in [
            0.0,
            -0.0,
            0.1,
            123_456.789,
            999_999_999_999_999.0,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            1.0 / 3.0,
            9_007_199_254_740_993.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ] {
            let point = NumberDataPoint { value: Some(Value::Double(value)), ..Default::default() };
            let text = serde_json::to_string(&point).unwrap();
            let read: NumberDataPoint = serde_json::from_str(&text).unwrap();
            let Some(Value::Double(back)) = read.value else { panic!("{text}") };
            assert_eq!(back.to_bits(), value.to_bits(), "{text}");
        }
    }
}
