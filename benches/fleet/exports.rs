//! Exports of OTLP, in both notations: what a Collector sends of a fleet's targets. The same targets and names as in
//! remote write, with the labels of a target as attributes of its resource.

use std::io::Write as _;

use bytes::Bytes;
use prost::Message;
use serde_json::{Value as Json, json};
use tenantry::model::{Notation, Protocol, Signal};
use tenantry::split::{Body, Compression};
use tenantry::tenant::{NamedBy, TenantRules};
use testkit::proto_otlp::any_value::Value;
use testkit::proto_otlp::{
    AnyValue, ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest, Gauge,
    InstrumentationScope, KeyValue, LogRecord, Metric, NumberDataPoint, Resource, ResourceLogs,
    ResourceMetrics, ResourceSpans, ScopeLogs, ScopeMetrics, ScopeSpans, Span, metric, number_data_point,
};

pub(crate) const RESOURCES: usize = 100;
/// Metrics of one point, log records or spans of a resource.
pub(crate) const ITEMS: usize = 20;
const TENANTS: usize = 10;
const TENANT: &str = "tenant";
const NANOS: u64 = 1_760_000_000_000_000_000;

/// The body of an export.
pub(crate) fn body(signal: Signal, notation: Notation, compression: Compression, named: Named) -> Body {
    let (protocol, bytes) = match notation {
        Notation::Protobuf => (Protocol::Otlp(signal), protobuf(signal, named)),
        Notation::Json => (Protocol::OtlpJson(signal), json(signal, named).into_bytes()),
    };
    Body { protocol, compression, bytes: coded(&bytes, compression) }
}

/// As senders compress it: the Collector and SDKs use the levels that their libraries have by default.
fn coded(bytes: &[u8], compression: Compression) -> Bytes {
    match compression {
        Compression::Snappy => testkit::proto::deflate(bytes),
        Compression::Zstd => zstd::bulk::compress(bytes, 3).expect("compresses").into(),
        Compression::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gzip.write_all(bytes).expect("compresses");
            gzip.finish().expect("compresses").into()
        }
        Compression::Identity => Bytes::copy_from_slice(bytes),
    }
}

/// The name of a signal, as targets have it.
pub(crate) fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "metrics",
        Signal::Logs => "logs",
        Signal::Traces => "traces",
    }
}

/// Rules with the tenant in an attribute.
pub(crate) fn tenant_rules() -> TenantRules {
    TenantRules { named_by: NamedBy::Attribute, ..TenantRules::of_label(TENANT.as_bytes()) }
}

/// What names the tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// The resource. All it holds is of one tenant.
    ByResource,
    /// Each item, and those of one resource belong to several tenants.
    ByItem,
}

type Pairs = Vec<(&'static str, String)>;

fn mix(at: usize) -> u64 {
    (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The attributes of a target.
fn resource_pairs(at: usize, named: Named) -> Pairs {
    let mix = mix(at);
    let (namespace, container) = (format!("team-{}", at % 17), format!("app-{}", at % 23));
    let mut pairs = vec![
        ("service.name", format!("service-{}", at % 23)),
        ("service.namespace", namespace.clone()),
        ("service.instance.id", format!("10.{}.{}.{}:8080", mix >> 56, (mix >> 48) & 255, (mix >> 40) & 255)),
        ("k8s.cluster.name", "eu-central-1-prod".to_owned()),
        ("k8s.namespace.name", namespace),
        ("k8s.pod.name", format!("{container}-{:010x}-{:05x}", mix & 0xff_ffff_ffff, (mix >> 20) & 0xf_ffff)),
        ("k8s.container.name", container),
    ];
    if named == Named::ByResource {
        pairs.insert(3, (TENANT, format!("tenant-{}", at % TENANTS)));
    }
    pairs
}

/// The attributes of an item of a resource.
fn item_pairs(item: usize, named: Named) -> Pairs {
    let mut pairs = vec![("http.route", format!("/api/v{}/items", item % 3))];
    if named == Named::ByItem {
        pairs.push((TENANT, format!("tenant-{}", item % TENANTS)));
    }
    pairs
}

fn metric_name(item: usize) -> String {
    let names = [
        "container_network_receive_packets_dropped_total",
        "kube_pod_container_resource_requests",
        "container_memory_working_set_bytes",
        "http_server_requests_seconds_bucket",
        "process_cpu_seconds_total",
    ];
    format!("{}_{}", names[item % names.len()], item / names.len())
}

fn line(at: usize) -> String {
    format!("level=info caller=handler.go:{} msg=\"request done\" id={:016x} status=200", at % 997, mix(at))
}

// ---- Protobuf ----

fn attributes(pairs: Pairs) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| KeyValue::text(key, value)).collect()
}

fn resource(at: usize, named: Named) -> Option<Resource> {
    Some(Resource { attributes: attributes(resource_pairs(at, named)), ..Resource::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "fleet".into(), version: "1.2.3".into(), ..Default::default() })
}

fn metric(at: usize, item: usize, named: Named) -> Metric {
    let point = NumberDataPoint {
        attributes: attributes(item_pairs(item, named)),
        time_unix_nano: NANOS + at as u64,
        value: Some(number_data_point::Value::Double(mix(at) as f64 / 1e9)),
        exemplars: Vec::new(),
    };
    Metric {
        name: metric_name(item),
        description: "what it counts".into(),
        unit: "1".into(),
        data: Some(metric::Data::Gauge(Gauge { data_points: vec![point] })),
        metadata: Vec::new(),
    }
}

fn record(at: usize, item: usize, named: Named) -> LogRecord {
    LogRecord {
        time_unix_nano: NANOS + at as u64,
        severity_number: 9,
        body: Some(AnyValue { value: Some(Value::Text(line(at))) }),
        attributes: attributes(item_pairs(item, named)),
        trace_id: u128::from(mix(at)).to_be_bytes().to_vec(),
    }
}

fn span(at: usize, item: usize, named: Named) -> Span {
    let end_time_unix_nano = NANOS + at as u64;
    Span {
        trace_id: u128::from(mix(at)).to_be_bytes().to_vec(),
        span_id: mix(at).to_be_bytes().to_vec(),
        parent_span_id: mix(at / 2).to_be_bytes().to_vec(),
        name: "GET /api/items".into(),
        kind: 2,
        start_time_unix_nano: end_time_unix_nano - 1_000_000,
        end_time_unix_nano,
        attributes: attributes(item_pairs(item, named)),
        status: None,
    }
}

fn items<T>(at: usize, item: impl Fn(usize, usize) -> T) -> Vec<T> {
    (0..ITEMS).map(|n| item(at * ITEMS + n, n)).collect()
}

/// An export in protobuf.
pub(crate) fn protobuf(signal: Signal, named: Named) -> Vec<u8> {
    let schema_url = String::new;
    let (all, scope) = (0..RESOURCES, scope());
    match signal {
        Signal::Metrics => {
            let resource = |at| {
                let metrics = items(at, |at, item| metric(at, item, named));
                let scope = ScopeMetrics { scope: scope.clone(), metrics, schema_url: schema_url() };
                let (resource, schema_url) = (resource(at, named), schema_url());
                ResourceMetrics { resource, scope_metrics: vec![scope], schema_url }
            };
            ExportMetricsServiceRequest { resource_metrics: all.map(resource).collect() }.encode_to_vec()
        }
        Signal::Logs => {
            let resource = |at| {
                let log_records = items(at, |at, item| record(at, item, named));
                let scope = ScopeLogs { scope: scope.clone(), log_records, schema_url: schema_url() };
                let (resource, schema_url) = (resource(at, named), schema_url());
                ResourceLogs { resource, scope_logs: vec![scope], schema_url }
            };
            ExportLogsServiceRequest { resource_logs: all.map(resource).collect() }.encode_to_vec()
        }
        Signal::Traces => {
            let resource = |at| {
                let spans = items(at, |at, item| span(at, item, named));
                let scope = ScopeSpans { scope: scope.clone(), spans, schema_url: schema_url() };
                let (resource, schema_url) = (resource(at, named), schema_url());
                ResourceSpans { resource, scope_spans: vec![scope], schema_url }
            };
            ExportTraceServiceRequest { resource_spans: all.map(resource).collect() }.encode_to_vec()
        }
    }
}

// ---- JSON ----

fn json_attributes(pairs: Pairs) -> Json {
    let pair = |(key, value)| json!({ "key": key, "value": { "stringValue": value } });
    pairs.into_iter().map(pair).collect::<Vec<_>>().into()
}

fn json_item(signal: Signal, at: usize, item: usize, named: Named) -> Json {
    let attributes = json_attributes(item_pairs(item, named));
    let (nanos, id) = ((NANOS + at as u64).to_string(), format!("{:016x}", mix(at)));
    match signal {
        Signal::Metrics => json!({
            "name": metric_name(item),
            "description": "what it counts",
            "unit": "1",
            "gauge": { "dataPoints": [
                { "attributes": attributes, "timeUnixNano": nanos, "asDouble": mix(at) as f64 / 1e9 },
            ] },
        }),
        Signal::Logs => json!({
            "timeUnixNano": nanos,
            "severityNumber": 9,
            "body": { "stringValue": line(at) },
            "attributes": attributes,
            "traceId": format!("{:032x}", mix(at)),
        }),
        Signal::Traces => json!({
            "traceId": format!("{:032x}", mix(at)),
            "spanId": id,
            "parentSpanId": format!("{:016x}", mix(at / 2)),
            "name": "GET /api/items",
            "kind": 2,
            "startTimeUnixNano": (NANOS + at as u64 - 1_000_000).to_string(),
            "endTimeUnixNano": nanos,
            "attributes": attributes,
        }),
    }
}

/// The same export in JSON.
pub(crate) fn json(signal: Signal, named: Named) -> String {
    let (resources, scopes, listed) = match signal {
        Signal::Metrics => ("resourceMetrics", "scopeMetrics", "metrics"),
        Signal::Logs => ("resourceLogs", "scopeLogs", "logRecords"),
        Signal::Traces => ("resourceSpans", "scopeSpans", "spans"),
    };
    let resource = |at| {
        let all = items(at, |at, item| json_item(signal, at, item, named));
        let scope = json!({ "scope": { "name": "fleet", "version": "1.2.3" }, listed: all });
        let attributes = json_attributes(resource_pairs(at, named));
        json!({ "resource": { "attributes": attributes }, scopes: [scope] })
    };
    json!({ resources: (0..RESOURCES).map(resource).collect::<Vec<_>>() }).to_string()
}
