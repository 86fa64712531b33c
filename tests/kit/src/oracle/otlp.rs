//! The oracle of OTLP: the items of an export as prost decodes them, each with what it is in.

use prost::{DecodeError, Message};

use crate::proto_otlp::{
    ExponentialHistogram, ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest,
    Gauge, Histogram, InstrumentationScope, KeyValue, Metric, Resource, ResourceLogs, ResourceMetrics,
    ResourceSpans, ScopeLogs, ScopeMetrics, ScopeSpans, Sum, Summary, metric::Data,
};

/// A data point, a log record or a span.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The attributes of its resource, of its scope, and its own, with the values that can name a tenant.
    pub attributes: [Pairs; 3],
    /// Its number among the resources.
    pub resource: usize,
    /// The messages that it is in without what else these hold, and itself, encoded by prost.
    pub encoded: Vec<Vec<u8>>,
}

impl Item {
    /// The value of the attribute that names its tenant, by the priority of `names`.
    #[must_use]
    pub fn named(&self, names: &[&[u8]]) -> Option<&str> {
        self.attributes.iter().find_map(|level| Some(naming(level, names)?.1.as_str()))
    }
}

/// Attributes with the values that can name a tenant.
type Pairs = Vec<(String, String)>;

/// The one of these attributes that names a tenant, by the priority of `names`.
#[must_use]
pub fn naming<'p>(pairs: &'p Pairs, names: &[&[u8]]) -> Option<&'p (String, String)> {
    let of = |name: &[u8]| pairs.iter().find(|(key, value)| key.as_bytes() == name && !value.is_empty());
    names.iter().find_map(|name| of(name))
}

/// Removes the attribute that names a tenant, as often as it is there.
pub fn remove_naming(attributes: &mut Vec<KeyValue>, names: &[&[u8]]) {
    let pairs = pairs(attributes);
    if let Some((key, _)) = naming(&pairs, names) {
        attributes.retain(|pair| pair.key != *key);
    }
}

/// A resource as a tenant gets it: without the attribute that names the tenant, if it is one of `removed`.
fn kept(resource: Option<&Resource>, removed: &[&[u8]]) -> Option<Resource> {
    let mut resource = resource?.clone();
    remove_naming(&mut resource.attributes, removed);
    Some(resource)
}

fn pairs(attributes: &[KeyValue]) -> Pairs {
    attributes.iter().map(|pair| (pair.key.clone(), pair.name().unwrap_or_default())).collect()
}

fn of_resource(resource: Option<&Resource>) -> Pairs {
    resource.map_or_else(Vec::new, |resource| pairs(&resource.attributes))
}

fn of_scope(scope: Option<&InstrumentationScope>) -> Pairs {
    scope.map_or_else(Vec::new, |scope| pairs(&scope.attributes))
}

/// The log records of an export; their resources without the attribute that names a tenant, if it is one of `removed`.
///
/// # Errors
/// When it is none.
pub fn logs(export: &[u8], removed: &[&[u8]]) -> Result<Vec<Item>, DecodeError> {
    let mut items = Vec::new();
    for (number, resource) in ExportLogsServiceRequest::decode(export)?.resource_logs.into_iter().enumerate()
    {
        let kept = kept(resource.resource.as_ref(), removed);
        let outer =
            ResourceLogs { resource: kept, scope_logs: Vec::new(), ..resource.clone() }.encode_to_vec();
        for scope in resource.scope_logs {
            let inner = ScopeLogs { log_records: Vec::new(), ..scope.clone() }.encode_to_vec();
            for record in scope.log_records {
                items.push(Item {
                    attributes: [
                        of_resource(resource.resource.as_ref()),
                        of_scope(scope.scope.as_ref()),
                        pairs(&record.attributes),
                    ],
                    resource: number,
                    encoded: vec![outer.clone(), inner.clone(), record.encode_to_vec()],
                });
            }
        }
    }
    Ok(items)
}

/// The spans of an export; their resources without the attribute that names a tenant, if it is one of `removed`.
///
/// # Errors
/// When it is none.
pub fn traces(export: &[u8], removed: &[&[u8]]) -> Result<Vec<Item>, DecodeError> {
    let mut items = Vec::new();
    for (number, resource) in
        ExportTraceServiceRequest::decode(export)?.resource_spans.into_iter().enumerate()
    {
        let kept = kept(resource.resource.as_ref(), removed);
        let outer =
            ResourceSpans { resource: kept, scope_spans: Vec::new(), ..resource.clone() }.encode_to_vec();
        for scope in resource.scope_spans {
            let inner = ScopeSpans { spans: Vec::new(), ..scope.clone() }.encode_to_vec();
            for span in scope.spans {
                items.push(Item {
                    attributes: [
                        of_resource(resource.resource.as_ref()),
                        of_scope(scope.scope.as_ref()),
                        pairs(&span.attributes),
                    ],
                    resource: number,
                    encoded: vec![outer.clone(), inner.clone(), span.encode_to_vec()],
                });
            }
        }
    }
    Ok(items)
}

/// The data points of an export; their resources without the attribute that names a tenant, if it is one of `removed`.
///
/// # Errors
/// When it is none.
pub fn metrics(export: &[u8], removed: &[&[u8]]) -> Result<Vec<Item>, DecodeError> {
    let mut items = Vec::new();
    for (number, resource) in
        ExportMetricsServiceRequest::decode(export)?.resource_metrics.into_iter().enumerate()
    {
        let kept = kept(resource.resource.as_ref(), removed);
        let outer =
            ResourceMetrics { resource: kept, scope_metrics: Vec::new(), ..resource.clone() }.encode_to_vec();
        for scope in resource.scope_metrics {
            let inner = ScopeMetrics { metrics: Vec::new(), ..scope.clone() }.encode_to_vec();
            for metric in scope.metrics {
                let (empty, points) = points(&metric);
                for (attributes, point) in points {
                    items.push(Item {
                        attributes: [
                            of_resource(resource.resource.as_ref()),
                            of_scope(scope.scope.as_ref()),
                            pairs(&attributes),
                        ],
                        resource: number,
                        encoded: vec![outer.clone(), inner.clone(), empty.clone(), point],
                    });
                }
            }
        }
    }
    Ok(items)
}

/// What exports of all signals have in common.
#[derive(Clone, PartialEq, Message)]
struct Outline {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OutlineResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OutlineResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OutlineScope>,
}

#[derive(Clone, PartialEq, Message)]
struct OutlineScope {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
}

/// The attributes of each scope of an export of any signal, those of its resource before it. Scopes may be empty.
///
/// # Errors
/// When it is none.
pub fn scopes(export: &[u8]) -> Result<Vec<[Pairs; 2]>, DecodeError> {
    let mut all = Vec::new();
    for OutlineResource { resource, scopes } in Outline::decode(export)?.resources {
        let scopes = scopes.iter().map(|one| [of_resource(resource.as_ref()), of_scope(one.scope.as_ref())]);
        all.extend(scopes);
    }
    Ok(all)
}

/// The attributes of a point, and the point.
type Point = (Vec<KeyValue>, Vec<u8>);

/// A metric without its points, and its points.
fn points(metric: &Metric) -> (Vec<u8>, Vec<Point>) {
    macro_rules! taken {
        ($data:ident, $variant:ident) => {{
            let points = $data.data_points.iter();
            let points = points.map(|point| (point.attributes.clone(), point.encode_to_vec())).collect();
            (Data::$variant($variant { data_points: Vec::new(), ..$data.clone() }), points)
        }};
    }
    #[allow(clippy::needless_update, reason = "some have nothing else")]
    let (data, points) = match &metric.data {
        None => return (metric.encode_to_vec(), Vec::new()),
        Some(Data::Gauge(data)) => taken!(data, Gauge),
        Some(Data::Sum(data)) => taken!(data, Sum),
        Some(Data::Histogram(data)) => taken!(data, Histogram),
        Some(Data::ExponentialHistogram(data)) => taken!(data, ExponentialHistogram),
        Some(Data::Summary(data)) => taken!(data, Summary),
    };
    (Metric { data: Some(data), ..metric.clone() }.encode_to_vec(), points)
}
