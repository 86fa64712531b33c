//! Arbitrary exports of OTLP in the types of `opentelemetry-proto`, with all that its messages have.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z.]{0,6}", 1 => "\\PC{0,6}"]
}

/// Numbers that JSON has, too.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(-1.5), Just(0.1), any::<i32>().prop_map(f64::from)]
}

fn id(bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => Just(Vec::new()), 3 => vec(any::<u8>(), bytes)]
}

fn plain_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        number().prop_map(Value::DoubleValue),
        vec(any::<u8>(), 0..5).prop_map(Value::BytesValue),
    ]
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = plain_value().prop_map(|value| AnyValue { value: Some(value) });
    leaf.prop_recursive(3, 8, 3, |inner| {
        let list = vec(inner.clone(), 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values }));
        // Its keys are those that name a tenant, but not here.
        let map = vec((select(vec!["t", "tenant", "x"]), inner), 0..3).prop_map(|pairs| {
            let values = pairs.into_iter().map(|(key, value)| pair(key, Some(value))).collect();
            Value::KvlistValue(KeyValueList { values })
        });
        prop_oneof![list, map].prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn pair(key: &str, value: Option<AnyValue>) -> KeyValue {
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Attributes, each key once as the specification asks for. Some name a tenant.
fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let tenant = prop_oneof![
        6 => select(vec!["a", "b"]).prop_map(|name| Value::StringValue(name.to_owned())),
        1 => Just(Value::IntValue(7)),
        1 => Just(Value::BoolValue(true)),
        1 => number().prop_map(Value::DoubleValue),
    ]
    .prop_map(|value| Some(AnyValue { value: Some(value) }));
    let tenant = option::weighted(0.4, btree_map(select(vec!["t", "tenant"]), tenant, 1..3));
    let others = btree_map("[a-z]{1,3}\\.[a-z]{1,3}", option::weighted(0.9, any_value()), 0..3);
    (tenant, others).prop_flat_map(|(tenants, others)| {
        let tenants = tenants.into_iter().flatten().map(|(key, value)| pair(key, value));
        let others = others.into_iter().map(|(key, value)| pair(&key, value));
        Just(tenants.chain(others).collect::<Vec<_>>()).prop_shuffle()
    })
}

fn resource() -> impl Strategy<Value = Option<Resource>> {
    let entity = (text(), vec(text(), 0..2)).prop_map(|(schema_url, id_keys)| EntityRef {
        schema_url,
        r#type: "service".to_owned(),
        description_keys: id_keys.clone(),
        id_keys,
    });
    let resource = (attributes(), any::<u32>(), vec(entity, 0..2));
    option::weighted(
        0.9,
        resource.prop_map(|(attributes, dropped_attributes_count, entity_refs)| Resource {
            attributes,
            dropped_attributes_count,
            entity_refs,
        }),
    )
}

fn scope() -> impl Strategy<Value = Option<InstrumentationScope>> {
    let scope = (text(), text(), attributes(), any::<u32>());
    option::weighted(
        0.9,
        scope.prop_map(|(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        }),
    )
}

fn span() -> impl Strategy<Value = Span> {
    let event = (any::<u64>(), text(), attributes(), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    );
    let link = (id(16), id(8), text(), attributes(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count: flags,
            flags,
        },
    );
    let status = option::of((text(), 0..3).prop_map(|(message, code)| Status { message, code }));
    let ids = (id(16), id(8), id(8), text(), any::<u32>());
    let what = (text(), 0..6, any::<u64>(), any::<u64>(), attributes());
    let more = (vec(event, 0..3), vec(link, 0..3), status, any::<u32>());
    (ids, what, more).prop_map(|(ids, what, more)| Span {
        trace_id: ids.0,
        span_id: ids.1,
        parent_span_id: ids.2,
        trace_state: ids.3,
        flags: ids.4,
        name: what.0,
        kind: what.1,
        start_time_unix_nano: what.2,
        end_time_unix_nano: what.3,
        attributes: what.4,
        events: more.0,
        links: more.1,
        status: more.2,
        dropped_attributes_count: more.3,
        dropped_events_count: more.3,
        dropped_links_count: more.3,
    })
}

fn record() -> impl Strategy<Value = LogRecord> {
    let when = (any::<u64>(), any::<u64>(), 0..25, text());
    let what = (option::of(any_value()), attributes(), any::<u32>(), text());
    (when, what, id(16), id(8)).prop_map(|(when, what, trace_id, span_id)| LogRecord {
        time_unix_nano: when.0,
        observed_time_unix_nano: when.1,
        severity_number: when.2,
        severity_text: when.3,
        body: what.0,
        attributes: what.1,
        dropped_attributes_count: what.2,
        flags: what.2,
        event_name: what.3,
        trace_id,
        span_id,
    })
}

fn exemplars() -> impl Strategy<Value = Vec<Exemplar>> {
    let value = prop_oneof![
        number().prop_map(exemplar::Value::AsDouble),
        any::<i64>().prop_map(exemplar::Value::AsInt),
    ];
    let exemplar = (attributes(), any::<u64>(), id(8), id(16), option::of(value)).prop_map(
        |(filtered_attributes, time_unix_nano, span_id, trace_id, value)| Exemplar {
            filtered_attributes,
            time_unix_nano,
            span_id,
            trace_id,
            value,
        },
    );
    vec(exemplar, 0..3)
}

/// What all data points have: attributes, start, time, flags, exemplars.
fn point() -> impl Strategy<Value = (Vec<KeyValue>, u64, u64, u32, Vec<Exemplar>)> {
    (attributes(), any::<u64>(), any::<u64>(), any::<u32>(), exemplars())
}

fn number_point() -> impl Strategy<Value = NumberDataPoint> {
    let value = prop_oneof![
        number().prop_map(number_data_point::Value::AsDouble),
        any::<i64>().prop_map(number_data_point::Value::AsInt),
    ];
    (point(), option::of(value)).prop_map(|(point, value)| NumberDataPoint {
        attributes: point.0,
        start_time_unix_nano: point.1,
        time_unix_nano: point.2,
        flags: point.3,
        exemplars: point.4,
        value,
    })
}

fn histogram_point() -> impl Strategy<Value = HistogramDataPoint> {
    let sums = (any::<u64>(), option::of(number()), vec(any::<u64>(), 0..4), vec(number(), 0..3));
    (point(), sums).prop_map(|(point, (count, sum, bucket_counts, explicit_bounds))| HistogramDataPoint {
        attributes: point.0,
        start_time_unix_nano: point.1,
        time_unix_nano: point.2,
        flags: point.3,
        exemplars: point.4,
        count,
        sum,
        bucket_counts,
        explicit_bounds,
        min: sum,
        max: sum,
    })
}

fn exponential_point() -> impl Strategy<Value = ExponentialHistogramDataPoint> {
    let buckets = || {
        let buckets = (any::<i32>(), vec(any::<u64>(), 0..4));
        option::of(buckets.prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts }))
    };
    let sums = (any::<u64>(), option::of(number()), any::<i32>(), number());
    (point(), sums, buckets(), buckets()).prop_map(
        |(point, (count, sum, scale, zero_threshold), positive, negative)| ExponentialHistogramDataPoint {
            attributes: point.0,
            start_time_unix_nano: point.1,
            time_unix_nano: point.2,
            flags: point.3,
            exemplars: point.4,
            count,
            sum,
            scale,
            zero_count: count,
            positive,
            negative,
            min: sum,
            max: sum,
            zero_threshold,
        },
    )
}

fn summary_point() -> impl Strategy<Value = SummaryDataPoint> {
    let at = (number(), number()).prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    (point(), any::<u64>(), number(), vec(at, 0..3)).prop_map(|(point, count, sum, quantile_values)| {
        SummaryDataPoint {
            attributes: point.0,
            start_time_unix_nano: point.1,
            time_unix_nano: point.2,
            flags: point.3,
            count,
            sum,
            quantile_values,
        }
    })
}

fn metric() -> impl Strategy<Value = Metric> {
    let temporality = || 0..3;
    let data = prop_oneof![
        vec(number_point(), 0..4).prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (vec(number_point(), 0..4), temporality(), any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| Data::Sum(Sum {
                data_points,
                aggregation_temporality,
                is_monotonic,
            })
        ),
        (vec(histogram_point(), 0..4), temporality()).prop_map(|(data_points, aggregation_temporality)| {
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (vec(exponential_point(), 0..4), temporality()).prop_map(|(data_points, aggregation_temporality)| {
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }),
        vec(summary_point(), 0..4).prop_map(|data_points| Data::Summary(Summary { data_points })),
    ];
    (text(), text(), text(), attributes(), option::weighted(0.9, data)).prop_map(
        |(name, description, unit, metadata, data)| Metric { name, description, unit, metadata, data },
    )
}

pub(crate) fn spans() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = (scope(), vec(span(), 0..4), text()).prop_map(|(scope, spans, schema_url)| ScopeSpans {
        scope,
        spans,
        schema_url,
    });
    let resource = (resource(), vec(scope, 0..3), text())
        .prop_map(|(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url });
    vec(resource, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

pub(crate) fn logs() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope = (scope(), vec(record(), 0..4), text())
        .prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url });
    let resource = (resource(), vec(scope, 0..3), text())
        .prop_map(|(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url });
    vec(resource, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

pub(crate) fn metrics() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let scope = (scope(), vec(metric(), 0..4), text())
        .prop_map(|(scope, metrics, schema_url)| ScopeMetrics { scope, metrics, schema_url });
    let resource =
        (resource(), vec(scope, 0..3), text()).prop_map(|(resource, scope_metrics, schema_url)| {
            ResourceMetrics { resource, scope_metrics, schema_url }
        });
    vec(resource, 0..3).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}
