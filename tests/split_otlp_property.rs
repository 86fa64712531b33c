//! Properties of splitting exports of OTLP, for arbitrary exports of all signals in both notations, and for broken
//! ones. Each tenant gets exactly its items, in the resources, scopes and metrics that they were in.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: what fails is a finding")]

#[path = "../fuzz/checks/otlp.rs"]
mod otlp;
mod strategies;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use serde_json::{Value as Json, json};
use strategies::{double, mutate, mutations, tenant_rules};
use tenantry::model::{Coding, Compression, MergeKey, Part, Protocol, Signal};
use tenantry::split::{Merger, ReplicaReader};
use tenantry::tenant::{IdRules, NamedBy, TenantId, TenantRules};
use testkit::oracle::otlp::remove_naming;
use testkit::proto_otlp::any_value::Value;
use testkit::proto_otlp::metric::Data;
use testkit::proto_otlp::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, ExportLogsServiceRequest,
    ExportMetricsServiceRequest, ExportTraceServiceRequest, Gauge, Histogram, HistogramDataPoint,
    InstrumentationScope, KeyValue, LogRecord, Metric, NumberDataPoint, Resource, ResourceLogs,
    ResourceMetrics, ResourceSpans, ScopeLogs, ScopeMetrics, ScopeSpans, Span, Sum, Summary,
    SummaryDataPoint, number_data_point,
};

// ---- Exports ----

fn attribute() -> impl Strategy<Value = KeyValue> {
    let keys = select(vec!["t", "t", "tenant", "x", "service.name", ""]);
    let texts = select(vec!["a", "b", "ab", "ba", "cab", "", "..", "two words"]).prop_map(str::to_owned);
    let value = prop_oneof![
        8 => texts.prop_map(Value::Text),
        1 => "\\PC{0,6}".prop_map(Value::Text),
        1 => any::<i64>().prop_map(Value::Number),
        1 => any::<bool>().prop_map(Value::Truth),
        1 => double().prop_map(Value::Fraction),
        1 => vec(any::<u8>(), 0..4).prop_map(Value::Bytes),
    ];
    (keys, value).prop_map(|(key, value)| KeyValue::new(key, value))
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop_oneof![2 => Just(Vec::new()), 3 => vec(attribute(), 0..4)]
}

/// A resource as a model: its attributes, and its scopes with their attributes and items. An item has a number and
/// attributes.
type Model = (Vec<KeyValue>, Vec<(Vec<KeyValue>, Vec<(u8, Vec<KeyValue>)>)>);

fn models() -> impl Strategy<Value = Vec<Model>> {
    let item = (0..6_u8, attributes());
    let scope = (attributes(), vec(item, 0..5));
    vec((attributes(), vec(scope, 0..4)), 0..4)
}

fn resource(attributes: &[KeyValue]) -> Option<Resource> {
    let resource =
        Resource { attributes: attributes.to_vec(), dropped_attributes_count: 3, ..Resource::default() };
    (!attributes.is_empty()).then_some(resource)
}

fn scope(attributes: &[KeyValue]) -> Option<InstrumentationScope> {
    let scope =
        InstrumentationScope { name: "lib".into(), attributes: attributes.to_vec(), ..Default::default() };
    (!attributes.is_empty()).then_some(scope)
}

fn record((number, attributes): &(u8, Vec<KeyValue>)) -> LogRecord {
    LogRecord { time_unix_nano: (*number).into(), attributes: attributes.clone(), ..LogRecord::default() }
}

fn span((number, attributes): &(u8, Vec<KeyValue>)) -> Span {
    Span { trace_id: vec![*number; 16], attributes: attributes.clone(), ..Span::default() }
}

/// Adjacent items of one kind are points of one metric.
fn metrics(items: &[(u8, Vec<KeyValue>)]) -> Vec<Metric> {
    let metric = |items: &[(u8, Vec<KeyValue>)]| {
        let all = || items.iter().map(|(number, attributes)| (u64::from(*number), attributes.clone()));
        let number = |(time_unix_nano, attributes)| NumberDataPoint {
            attributes,
            time_unix_nano,
            value: Some(number_data_point::Value::Double(f64::NAN.copysign(-1.0))),
            exemplars: vec![Exemplar { filtered_attributes: vec![KeyValue::text("t", "never")], value: 1.0 }],
        };
        let data = match items[0].0 {
            0 => Data::Gauge(Gauge { data_points: all().map(number).collect() }),
            1 => Data::Sum(Sum {
                data_points: all().map(number).collect(),
                aggregation_temporality: 2,
                is_monotonic: true,
            }),
            2 => {
                let point = |(time_unix_nano, attributes)| HistogramDataPoint {
                    attributes,
                    time_unix_nano,
                    count: 9,
                    bucket_counts: vec![4, 5],
                };
                Data::Histogram(Histogram {
                    data_points: all().map(point).collect(),
                    aggregation_temporality: 1,
                })
            }
            3 => {
                let point = |(time_unix_nano, attributes)| ExponentialHistogramDataPoint {
                    attributes,
                    time_unix_nano,
                    count: 9,
                    scale: -3,
                };
                let data_points = all().map(point).collect();
                Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality: 1 })
            }
            _ => {
                let point =
                    |(time_unix_nano, attributes)| SummaryDataPoint { attributes, time_unix_nano, count: 9 };
                Data::Summary(Summary { data_points: all().map(point).collect() })
            }
        };
        let metadata = vec![KeyValue::text("t", "not this")];
        Metric { name: "m".into(), unit: "1".into(), data: Some(data), metadata, ..Metric::default() }
    };
    items.chunk_by(|a, b| a.0 == b.0).map(metric).collect()
}

fn export(signal: Signal, models: &[Model]) -> Vec<u8> {
    let schema_url = || "schema".to_owned();
    match signal {
        Signal::Metrics => {
            let resource_metrics = models.iter().map(|(attributes, scopes)| ResourceMetrics {
                resource: resource(attributes),
                scope_metrics: scopes
                    .iter()
                    .map(|(attributes, items)| ScopeMetrics {
                        scope: scope(attributes),
                        metrics: metrics(items),
                        schema_url: schema_url(),
                    })
                    .collect(),
                schema_url: schema_url(),
            });
            ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() }.encode_to_vec()
        }
        Signal::Logs => {
            let resource_logs = models.iter().map(|(attributes, scopes)| ResourceLogs {
                resource: resource(attributes),
                scope_logs: scopes
                    .iter()
                    .map(|(attributes, items)| ScopeLogs {
                        scope: scope(attributes),
                        log_records: items.iter().map(record).collect(),
                        schema_url: schema_url(),
                    })
                    .collect(),
                schema_url: schema_url(),
            });
            ExportLogsServiceRequest { resource_logs: resource_logs.collect() }.encode_to_vec()
        }
        Signal::Traces => {
            let resource_spans = models.iter().map(|(attributes, scopes)| ResourceSpans {
                resource: resource(attributes),
                scope_spans: scopes
                    .iter()
                    .map(|(attributes, items)| ScopeSpans {
                        scope: scope(attributes),
                        spans: items.iter().map(span).collect(),
                        schema_url: schema_url(),
                    })
                    .collect(),
                schema_url: schema_url(),
            });
            ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec()
        }
    }
}

// ---- JSON ----

fn json_attributes(attributes: &[KeyValue]) -> Json {
    let value = |pair: &KeyValue| match pair.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::Text(text)) => json!({"stringValue": text}),
        Some(Value::Number(number)) => json!({"intValue": number.to_string()}),
        Some(Value::Truth(truth)) => json!({"boolValue": truth}),
        _ => json!({"doubleValue": 1.5}),
    };
    attributes.iter().map(|pair| json!({"key": pair.key, "value": value(pair)})).collect()
}

fn json_of(signal: Signal, models: &[Model]) -> Json {
    let item = |(number, attributes): &(u8, Vec<KeyValue>)| json!({"n": number, "attributes": json_attributes(attributes)});
    let of_scope = |(attributes, items): &(Vec<KeyValue>, Vec<(u8, Vec<KeyValue>)>)| {
        let list: Json = items.iter().map(item).collect();
        let scope = json!({"name": "lib", "attributes": json_attributes(attributes)});
        match signal {
            Signal::Metrics => {
                let metric = |items: &[(u8, Vec<KeyValue>)]| {
                    json!({"name": "m", "sum": {"aggregationTemporality": "DELTA", "isMonotonic": true,
                        "dataPoints": items.iter().map(item).collect::<Json>()}})
                };
                json!({"scope": scope, "metrics": items.chunk_by(|a, b| a.0 == b.0).map(metric).collect::<Json>()})
            }
            Signal::Logs => json!({"scope": scope, "logRecords": list}),
            Signal::Traces => json!({"scope": scope, "spans": list}),
        }
    };
    let names = match signal {
        Signal::Metrics => ["resourceMetrics", "scopeMetrics"],
        Signal::Logs => ["resourceLogs", "scopeLogs"],
        Signal::Traces => ["resourceSpans", "scopeSpans"],
    };
    let of_resource = |(attributes, scopes): &Model| {
        json!({"resource": {"attributes": json_attributes(attributes)}, "schemaUrl": "schema",
            names[1]: scopes.iter().map(of_scope).collect::<Json>()})
    };
    json!({names[0]: models.iter().map(of_resource).collect::<Json>()})
}

/// The items with what they are in, as texts.
fn json_items(signal: Signal, export: &Json) -> Vec<String> {
    let list = |of: &Json, key: &str| of.get(key).and_then(Json::as_array).cloned().unwrap_or_default();
    let names = match signal {
        Signal::Metrics => ["resourceMetrics", "scopeMetrics", "metrics"],
        Signal::Logs => ["resourceLogs", "scopeLogs", "logRecords"],
        Signal::Traces => ["resourceSpans", "scopeSpans", "spans"],
    };
    let mut all = Vec::new();
    for resource in list(export, names[0]) {
        for scope in list(&resource, names[1]) {
            for item in list(&scope, names[2]) {
                let context =
                    format!("{} {} {}", resource["resource"], resource["schemaUrl"], scope["scope"]);
                match signal {
                    Signal::Metrics => {
                        let sum = &item["sum"];
                        let metric = format!(
                            "{} {} {}",
                            item["name"], sum["isMonotonic"], sum["aggregationTemporality"]
                        );
                        let points = list(sum, "dataPoints");
                        all.extend(points.iter().map(|point| format!("{context} {metric} {point}")));
                    }
                    _ => all.push(format!("{context} {item}")),
                }
            }
        }
    }
    all
}

/// An export in JSON in one of the spellings of its list, and with or without white space.
fn spelled(signal: Signal, models: &[Model], is_snake: bool, is_spaced: bool) -> String {
    let export = json_of(signal, models);
    let text = if is_spaced { format!("\n{export:#}\r\n\t ") } else { export.to_string() };
    let (camel, snake) = match signal {
        Signal::Metrics => ("resourceMetrics", "resource_metrics"),
        Signal::Logs => ("resourceLogs", "resource_logs"),
        Signal::Traces => ("resourceSpans", "resource_spans"),
    };
    if is_snake { text.replacen(camel, snake, 1) } else { text }
}

/// All of an export as a part.
fn whole(signal: Signal, text: &str) -> Part {
    Part {
        tenant: TenantId::new("whole", IdRules::Mimir).unwrap(),
        protocol: Protocol::OtlpJson(signal),
        elements: text.as_bytes().to_vec().into(),
        coding: Coding::of(Compression::Identity),
        inflated_bytes: text.len().try_into().unwrap(),
        series: 1,
        samples: 1,
        histograms: 0,
        exemplars: 0,
        merge: MergeKey::Alone,
    }
}

/// Merges parts in JSON as a replay does, in as many requests as it takes. Each has the elements of its parts, as
/// serde_json reads them, and as many parts as it has room for.
fn merge_all(parts: &[Part], bytes_max: usize) -> Result<(), TestCaseError> {
    let (mut merger, mut reader) = (Merger::default(), ReplicaReader::new(None));
    let mut left = parts;
    while !left.is_empty() {
        let merged = merger.merge(left, bytes_max).unwrap();
        let bytes = merged.elements.len();
        let (these, later) = left.split_at(merged.parts);
        let expected: Vec<Json> =
            these.iter().flat_map(|part| otlp::elements(&part.elements).unwrap()).collect();
        prop_assert_eq!(otlp::elements(&merged.elements), Some(expected));
        prop_assert_eq!(merged.inflated_bytes as usize, bytes);
        prop_assert!(these.len() == 1 || bytes <= bytes_max, "{} bytes", bytes);
        prop_assert!(later.first().is_none_or(|next| bytes + next.elements.len() > bytes_max));
        for part in these {
            prop_assert_eq!(reader.read(part).key, MergeKey::Ha(None));
        }
        left = later;
    }
    Ok(())
}

// ---- Rules ----

fn rules() -> impl Strategy<Value = TenantRules> {
    let labels = vec![vec!["t"], vec!["tenant", "t"], vec!["service.name", "t"]];
    tenant_rules(labels).prop_map(|rules| TenantRules { named_by: NamedBy::Attribute, ..rules })
}

/// The models as the tenants get them: if the rules remove it, without the attribute that names a resource's tenant.
/// What scopes and items say stays.
fn as_sent(models: &[Model], rules: &TenantRules) -> Vec<Model> {
    let mut models = models.to_vec();
    if rules.label_remove {
        let resources = models.iter_mut().map(|(attributes, _)| attributes);
        resources.for_each(|attributes| remove_naming(attributes, &otlp::names(rules)));
    }
    models
}

fn signals() -> impl Strategy<Value = Signal> {
    select(Signal::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn each_tenant_gets_exactly_its_items(models in models(), rules in rules(), signal in signals()) {
        let export = export(signal, &models);
        let _ = otlp::compare(signal, &export, &rules);
        otlp::check(signal, &export);
    }

    #[test]
    fn broken_exports_do_no_harm(
        models in models(), mutations in mutations(), rules in rules(), signal in signals(),
    ) {
        let broken = mutate(export(signal, &models), &mutations);
        let _ = otlp::compare(signal, &broken, &rules);
        otlp::check(signal, &broken);
    }

    #[test]
    fn json_splits_as_the_protobuf_of_the_same_content(
        models in models(), rules in rules(), signal in signals(),
    ) {
        // A scope's own attributes decide in both; an empty resource is the same as none.
        let text = json_of(signal, &models).to_string();
        let of_protobuf = otlp::split(Protocol::Otlp(signal), &export(signal, &models), &rules);
        let of_json = otlp::split(Protocol::OtlpJson(signal), text.as_bytes(), &rules);
        let (expected, got) = match (of_protobuf, of_json) {
            (Ok(expected), Ok(got)) => (expected, got),
            (expected, got) => {
                prop_assert_eq!(got.map(|_| ()), expected.map(|_| ()));
                return Ok(());
            }
        };
        otlp::consistent(Protocol::OtlpJson(signal), &got.0, &got.1, &rules);
        let of = |parts: &[Part]| -> Vec<_> {
            parts.iter().map(|part| (part.tenant.clone(), part.series, part.samples)).collect()
        };
        prop_assert_eq!(of(&got.1), of(&expected.1));
        prop_assert_eq!(&got.0.refused, &expected.0.refused);
        // Together the parts have the items of the whole, each in what it was in.
        let whole = json_items(signal, &json_of(signal, &as_sent(&models, &rules)));
        let mut together: Vec<String> = Vec::new();
        for part in &got.1 {
            let part: Json = serde_json::from_slice(&part.elements).unwrap();
            let items = json_items(signal, &part);
            // In their order.
            let mut left = whole.iter();
            prop_assert!(items.iter().all(|item| left.any(|one| one == item)));
            together.extend(items);
        }
        let refused = got.0.refused.samples + got.0.refused.dropped_samples;
        prop_assert_eq!(together.len() as u64 + refused, whole.len() as u64);
    }

    #[test]
    fn json_is_joined_as_serde_json_joins_it(
        exports in vec((models(), any::<bool>(), any::<bool>()), 1..6), rules in rules(), signal in signals(),
        bytes_max in select(vec![0, 1_000, 4_000, usize::MAX]),
    ) {
        let texts: Vec<String> = exports
            .iter()
            .map(|(models, is_snake, is_spaced)| spelled(signal, models, *is_snake, *is_spaced))
            .collect();
        merge_all(&texts.iter().map(|text| whole(signal, text)).collect::<Vec<_>>(), bytes_max)?;
        let mut by_tenant: BTreeMap<TenantId, Vec<Part>> = BTreeMap::new();
        for text in &texts {
            let split = otlp::split(Protocol::OtlpJson(signal), text.as_bytes(), &rules);
            for part in split.map(|(_, parts)| parts).unwrap_or_default() {
                by_tenant.entry(part.tenant.clone()).or_default().push(part);
            }
        }
        for parts in by_tenant.values() {
            merge_all(parts, bytes_max)?;
        }
    }

    #[test]
    fn broken_json_does_no_harm(models in models(), mutations in mutations(), signal in signals()) {
        let text = json_of(signal, &models).to_string();
        otlp::check_json(text.as_bytes());
        otlp::check_json(&mutate(text.into_bytes(), &mutations));
    }
}
