//! What a Kubernetes cluster exports: the names that kubelet, kube-state-metrics, node exporter and an ordinary
//! HTTP service use, the label that tells their series apart, and what their values look like.

use bytes::Bytes;

use crate::proto::{MetricMetadata, MetricType};
use crate::random::Random;

/// The families, as the file says of itself.
const TABLE: &str = include_str!("catalogue.txt");

/// What a service's handlers are called.
const HANDLERS: &str = "\
    / /api/v1/accounts /api/v1/accounts/{id} /api/v1/carts /api/v1/carts/{id} /api/v1/carts/{id}/items \
    /api/v1/events /api/v1/invoices /api/v1/invoices/{id} /api/v1/orders /api/v1/orders/{id} \
    /api/v1/payments /api/v1/payments/{id} /api/v1/products /api/v1/products/{id} /api/v1/search \
    /api/v1/sessions /api/v1/users /healthz /metrics /readyz";

/// Programs that people run.
pub(crate) const APPS: &str = "\
    api auth billing cart catalog cron etcd frontend gateway ingress-nginx ledger mailer notifier postgres \
    pricing redis scheduler search session worker";

/// Draws a value that a metric may have.
pub(crate) type Values = fn(&mut Random) -> f64;

/// How the values of a metric look, by the word for it in the table.
fn values(word: &str) -> Option<Values> {
    Some(match word {
        // A count of events: a whole number.
        "count" => |random| random.below(2_000_000) as f64,
        // Seconds that add up: a fraction.
        "seconds" => |random| (random.unit() * 1e9).round() / 1e4,
        // A size in memory: whole pages.
        "pages" => |random| (random.below(1 << 19) * 4096) as f64,
        // One of two states.
        "flag" => |random| random.below(2) as f64,
        // A share of a whole.
        "ratio" => |random| (random.unit() * 1e4).round() / 1e4,
        // Seconds since the epoch.
        "time" => |random| 1_760_000_000.0 + random.below(10_000_000) as f64,
        _ => return None,
    })
}

/// A line of the table.
struct Family {
    name: &'static str,
    values: &'static str,
    kind: &'static str,
    /// The label that tells the family's series apart; empty for none.
    label: &'static str,
    /// What the label takes.
    variants: Vec<&'static str>,
    help: &'static str,
}

fn families() -> impl Iterator<Item = Family> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (columns, help) = line.split_once(" | ").unwrap_or((line, ""));
        let mut columns = columns.split_whitespace();
        let (name, values, kind) = (columns.next()?, columns.next()?, columns.next()?);
        let (label, variants) = columns.next()?.split_once('=').unwrap_or_default();
        let variants = match variants {
            "" => Vec::new(),
            "*" => HANDLERS.split_whitespace().collect(),
            variants => variants.split(',').collect(),
        };
        Some(Family { name, values, kind, label, variants, help })
    })
}

/// One metric of the catalogue, or one of its variants.
#[derive(Clone, Debug)]
pub(crate) struct Metric<V> {
    pub(crate) name: Bytes,
    /// A label of its own, such as `le`.
    pub(crate) variant: Option<(Bytes, Bytes)>,
    pub(crate) values: V,
}

/// Every metric whose family has `values`, a family's variants one after the other.
fn all<V: Copy>(values: impl Fn(&Family) -> Option<V>) -> Vec<Metric<V>> {
    let mut metrics = Vec::new();
    for family in families() {
        let Some(values) = values(&family) else { continue };
        let name = Bytes::from(family.name);
        let variant = |value: &&'static str| Some((Bytes::from(family.label), Bytes::from(*value)));
        let mut variants: Vec<_> = family.variants.iter().map(variant).collect();
        if variants.is_empty() {
            variants.push(None);
        }
        metrics.extend(variants.into_iter().map(|variant| Metric { name: name.clone(), variant, values }));
    }
    metrics
}

/// Every metric of the catalogue that has floats.
pub(crate) fn metrics() -> Vec<Metric<Values>> {
    all(|family| values(family.values))
}

/// Every native histogram of the catalogue, and whether it has values below zero, and so is a gauge histogram. They are
/// at least as many as there are [`metrics`], so that any series of a target can be one and still be the only one of
/// its name and label.
pub(crate) fn native_metrics() -> Vec<Metric<bool>> {
    all(|family| match family.values {
        "signed" => Some(true),
        "unsigned" => Some(false),
        _ => None,
    })
}

/// Names of the labels that tell a family's series apart.
pub(crate) fn variant_labels() -> impl Iterator<Item = &'static str> {
    families().map(|family| family.label)
}

/// What Prometheus sends about the catalogue's families once a minute.
pub(crate) fn metadata() -> Vec<MetricMetadata> {
    let entry = |family: Family| {
        let kind = match family.kind {
            "counter" => MetricType::Counter,
            "gauge" => MetricType::Gauge,
            "histogram" => MetricType::Histogram,
            "gaugehistogram" => MetricType::GaugeHistogram,
            "summary" => MetricType::Summary,
            _ => return None,
        };
        Some(MetricMetadata {
            r#type: kind as i32,
            metric_family_name: family.name.strip_suffix("_bucket").unwrap_or(family.name).into(),
            help: family.help.into(),
            unit: Bytes::new(),
        })
    };
    families().filter_map(entry).collect()
}

/// Places where clusters stand.
pub(crate) const CLUSTERS: &[&str] =
    &["prod-eu-1", "prod-eu-2", "prod-us-1", "prod-us-2", "prod-ap-1", "stage-eu-1"];

/// Labels that a series gets when it is to have more than the usual ones.
pub(crate) const MORE_LABELS: &[(&str, &[&str])] = &[
    ("endpoint", &["http-metrics", "https", "metrics"]),
    ("environment", &["production", "staging"]),
    ("prometheus", &["monitoring/k8s"]),
    ("region", &["ap-southeast-1", "eu-central-1", "us-east-1"]),
    ("service", &["backend", "frontend", "internal"]),
    ("team", &["data", "growth", "platform", "sre"]),
    ("version", &["v1.18.2", "v2.4.0", "v2.4.1"]),
    ("zone", &["a", "b", "c"]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(families().count(), lines.count());
        for family in families() {
            let is_native = matches!(family.values, "signed" | "unsigned");
            assert!(is_native || values(family.values).is_some(), "{}", family.name);
            assert_eq!(family.label.is_empty(), family.variants.is_empty(), "{}", family.name);
            assert_eq!(family.kind == "-", family.help.is_empty(), "{}", family.name);
        }
    }

    #[test]
    fn every_family_is_described_once() {
        let families: BTreeSet<_> = families()
            .map(|family| match family.name.strip_prefix("http_request_duration_seconds") {
                Some(_) => "http_request_duration_seconds",
                None => family.name,
            })
            .collect();
        let metadata = metadata();
        let described: BTreeSet<_> =
            metadata.iter().map(|entry| std::str::from_utf8(&entry.metric_family_name).unwrap()).collect();
        assert_eq!(described, families);
        assert_eq!(described.len(), metadata.len());
    }

    #[test]
    fn any_series_of_a_target_can_be_native() {
        let native = native_metrics();
        assert!(native.len() >= metrics().len(), "{} and {}", native.len(), metrics().len());
        let distinct: BTreeSet<_> = native.iter().map(|metric| (&metric.name, &metric.variant)).collect();
        assert_eq!(distinct.len(), native.len());
    }
}
