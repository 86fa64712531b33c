//! Metrics: a sample is a data point of a gauge, or of a sum if the name is that of a counter.

use itertools::Itertools;
use testkit::proto_otlp::metric::Data;
use testkit::proto_otlp::number_data_point::Value;
use testkit::proto_otlp::{
    ExportMetricsServiceRequest, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};

use super::{Reader, Series, Target, attributes, expect, expect_scope, scope, strange};
use crate::translate::{Unreadable, nanoseconds, read_nanoseconds};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: i32 = 2;

/// What the names of counters end with, and those of the series of histograms and summaries.
const COUNTERS: [&str; 4] = ["_total", "_bucket", "_count", "_sum"];

pub(super) fn export(targets: &[Target<'_>]) -> ExportMetricsServiceRequest {
    let resource = |target: &Target<'_>| {
        let families = target.series.iter().chunk_by(|series| series.name.as_str());
        let metrics = families.into_iter().map(|(name, series)| metric(name, series)).collect();
        ResourceMetrics {
            resource: target.resource(),
            scope_metrics: vec![ScopeMetrics { scope: scope(), metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }
    };
    ExportMetricsServiceRequest { resource_metrics: targets.iter().map(resource).collect() }
}

fn metric<'a>(name: &str, series: impl Iterator<Item = &'a Series<'a>>) -> Metric {
    let points = |series: &Series<'a>| {
        let attributes = attributes(&series.labels);
        let point = move |sample| NumberDataPoint {
            attributes: attributes.clone(),
            time_unix_nano: nanoseconds(sample).cast_unsigned(),
            value: Some(Value::Double(sample.value)),
            ..NumberDataPoint::default()
        };
        series.samples.iter().map(point).collect::<Vec<_>>()
    };
    let data_points = series.flat_map(points).collect();
    Metric { name: name.to_owned(), data: Some(data(name, data_points)), ..Metric::default() }
}

fn data(name: &str, data_points: Vec<NumberDataPoint>) -> Data {
    match COUNTERS.iter().any(|end| name.ends_with(end)) {
        true => Data::Sum(Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic: true }),
        false => Data::Gauge(Gauge { data_points }),
    }
}

pub(super) fn read(export: ExportMetricsServiceRequest, reader: &mut Reader) -> Result<(), Unreadable> {
    for resource in export.resource_metrics {
        reader.resource(resource.resource, &resource.schema_url)?;
        for scope in resource.scope_metrics {
            expect_scope(scope.scope.as_ref(), &scope.schema_url)?;
            scope.metrics.into_iter().try_for_each(|metric| read_metric(metric, reader))?;
        }
    }
    Ok(())
}

fn read_metric(mut metric: Metric, reader: &mut Reader) -> Result<(), Unreadable> {
    let points = match &mut metric.data {
        Some(Data::Gauge(gauge)) => std::mem::take(&mut gauge.data_points),
        Some(Data::Sum(sum)) => std::mem::take(&mut sum.data_points),
        _ => Vec::new(),
    };
    let name = metric.name.clone();
    let ours = Metric { name: name.clone(), data: Some(data(&name, Vec::new())), ..Metric::default() };
    expect(metric == ours, &metric)?;
    for point in points {
        let sample = match point.value {
            Some(Value::Double(value)) if point.exemplars.is_empty() => {
                read_nanoseconds(point.time_unix_nano.cast_signed(), value)
            }
            _ => None,
        };
        let sample = sample.ok_or_else(|| strange(&point))?;
        reader.item(&name, point.attributes, sample)?;
    }
    Ok(())
}
