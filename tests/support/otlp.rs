//! Exports of OTLP: how they are made, sent, and read again.

use std::io::{Read, Write};

use prost::Message;
use tenantry::model::Signal;
use testkit::proto_otlp::{
    ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest, Gauge, KeyValue,
    LogRecord, Metric, NumberDataPoint, Resource, ResourceLogs, ResourceMetrics, ResourceSpans, ScopeLogs,
    ScopeMetrics, ScopeSpans, Span, metric,
};

use super::client::Response;
use super::server::{Driver, Server};
use super::upstream::{Received, Reply, Upstream};

pub const SIGNALS: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

pub const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";
pub const JSON: &str = "Content-Type: application/json\r\n";

/// A server that sends all of OTLP to a scripted upstream. Its upstream for series does not exist.
pub fn start(
    driver: Driver,
    extra: &str,
    script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> (Server, Upstream) {
    let upstream = Upstream::start(script);
    (towards(driver, extra, &upstream), upstream)
}

/// A further server towards the same upstream.
pub fn towards(driver: Driver, extra: &str, upstream: &Upstream) -> Server {
    let at = upstream.address;
    let settings = format!(
        "target_otlp_metrics: http://{at}/otlp/v1/metrics\ntarget_otlp_logs: http://{at}/otlp/v1/logs\n\
         target_otlp_traces: http://{at}/v1/traces\n{extra}"
    );
    let tenant = "tenant: {attributes: [tenant, k8s.namespace.name]}\n";
    let settings = if extra.contains("tenant:") { settings } else { settings + tenant };
    Server::start(driver, "127.0.0.1:9", &settings)
}

/// Where exports of a signal are sent to.
pub fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "/v1/metrics",
        Signal::Logs => "/v1/logs",
        Signal::Traces => "/v1/traces",
    }
}

/// The header lines of an export in protobuf with this coding; "" for none.
pub fn fields_of(encoding: &str) -> String {
    match encoding {
        "" => PROTOBUF.to_owned(),
        encoding => format!("{PROTOBUF}Content-Encoding: {encoding}\r\n"),
    }
}

pub fn coded(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::bulk::compress(bytes, 1).unwrap(),
        "snappy" => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
        "x-snappy-framed" => {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).unwrap();
            encoder.into_inner().unwrap()
        }
        _ => bytes.to_vec(),
    }
}

/// What an upstream reads of a body that may be one member or frame only.
pub fn plain(received: &Received) -> Vec<u8> {
    let mut out = Vec::new();
    match received.header("content-encoding") {
        Some("gzip") => {
            let mut decoder = flate2::read::GzDecoder::new(&received.body[..]);
            decoder.read_to_end(&mut out).unwrap();
        }
        Some("zstd") => out = zstd::bulk::decompress(&received.body, 1 << 20).unwrap(),
        Some("snappy") => out = snap::raw::Decoder::new().decompress_vec(&received.body).unwrap(),
        Some(other) => panic!("{other}"),
        None => out.clone_from(&received.body),
    }
    out
}

/// Whether an export in protobuf was stored as a whole.
pub fn is_full_success(response: &Response) -> bool {
    response.status == 200
        && response.body.is_empty()
        && response.header("content-type") == Some("application/x-protobuf")
}

/// An export with a resource for each tenant, whose items have these numbers as their times. The scope and what the
/// items say name the tenant, too.
pub fn numbered(signal: Signal, resources: &[(&str, &[u64])]) -> Vec<u8> {
    let resource = |tenant: &str| {
        let attributes =
            vec![KeyValue::text("service.name", "shop"), KeyValue::text("k8s.namespace.name", tenant)];
        Some(Resource { attributes, ..Resource::default() })
    };
    let about = |tenant: &str| vec![KeyValue::text("about", &format!("<{tenant}>"))];
    let all = resources.iter();
    match signal {
        Signal::Metrics => {
            let one = |(tenant, numbers): &(&str, &[u64])| {
                let point = |&time_unix_nano: &u64| NumberDataPoint {
                    time_unix_nano,
                    attributes: about(tenant),
                    ..NumberDataPoint::default()
                };
                let gauge = Gauge { data_points: numbers.iter().map(point).collect() };
                let data = Some(metric::Data::Gauge(gauge));
                let metrics = vec![Metric { name: "up".into(), data, ..Metric::default() }];
                let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
                ResourceMetrics { resource: resource(tenant), scope_metrics, ..ResourceMetrics::default() }
            };
            ExportMetricsServiceRequest { resource_metrics: all.map(one).collect() }.encode_to_vec()
        }
        Signal::Logs => {
            let one = |(tenant, numbers): &(&str, &[u64])| {
                let record = |&time_unix_nano: &u64| LogRecord {
                    time_unix_nano,
                    attributes: about(tenant),
                    ..LogRecord::default()
                };
                let log_records = numbers.iter().map(record).collect();
                let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
                ResourceLogs { resource: resource(tenant), scope_logs, ..ResourceLogs::default() }
            };
            ExportLogsServiceRequest { resource_logs: all.map(one).collect() }.encode_to_vec()
        }
        Signal::Traces => {
            let one = |(tenant, numbers): &(&str, &[u64])| {
                let span = |&start_time_unix_nano: &u64| Span {
                    start_time_unix_nano,
                    attributes: about(tenant),
                    ..Span::default()
                };
                let spans = numbers.iter().map(span).collect();
                let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
                ResourceSpans { resource: resource(tenant), scope_spans, ..ResourceSpans::default() }
            };
            ExportTraceServiceRequest { resource_spans: all.map(one).collect() }.encode_to_vec()
        }
    }
}

/// The numbers of the items that a request of [`numbered`] exports has.
pub fn numbers(received: &Received) -> Vec<u64> {
    let bytes = plain(received);
    if received.path.ends_with("metrics") {
        let export = ExportMetricsServiceRequest::decode(&bytes[..]).unwrap();
        let scopes = export.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        let points = scopes.flat_map(|scope| scope.metrics).flat_map(|metric| match metric.data {
            Some(metric::Data::Gauge(gauge)) => gauge.data_points,
            other => panic!("{other:?}"),
        });
        points.map(|point| point.time_unix_nano).collect()
    } else if received.path.ends_with("logs") {
        let export = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
        let scopes = export.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        scopes.flat_map(|scope| scope.log_records).map(|record| record.time_unix_nano).collect()
    } else {
        let export = ExportTraceServiceRequest::decode(&bytes[..]).unwrap();
        export.spans().map(|span| span.start_time_unix_nano).collect()
    }
}
