//! What a Kubernetes cluster exports: the names that kubelet, kube-state-metrics, node exporter and an ordinary
//! HTTP service use, the label that tells their series apart, and what their values look like.

use bytes::Bytes;

use crate::proto::{MetricMetadata, MetricType};
use crate::random::Random;

/// How the values of a metric look.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values {
    /// A count of events: a whole number.
    Count,
    /// Seconds that add up: a fraction.
    Seconds,
    /// A size in memory: whole pages.
    Pages,
    /// One of a few states: 0 or 1.
    Flag,
    /// A share between 0 and 1.
    Ratio,
    /// Seconds since the epoch.
    Time,
}

/// One metric of the catalogue, or one of its variants.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) name: Bytes,
    /// A label of its own, such as `le`.
    pub(crate) variant: Option<(Bytes, Bytes)>,
    pub(crate) values: Values,
}

/// A line for each family, in the order of a scrape: name, values, and the label that tells its series apart with what
/// it takes.
const FAMILIES: &str = include_str!("catalogue/families.tsv");

/// What is known of each family: its type and its help text, as its exporter gives them.
const METADATA: &str = include_str!("catalogue/metadata.tsv");

/// The fields of each line; those that a line has not are empty.
fn lines<const N: usize>(table: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    table.lines().map(|line| {
        let mut fields = line.split('\t');
        [(); N].map(|()| fields.next().unwrap_or_default())
    })
}

/// What Prometheus sends about the catalogue's families once a minute.
pub(crate) fn metadata() -> Vec<MetricMetadata> {
    let entry = |[name, kind, help]: [&'static str; 3]| MetricMetadata {
        r#type: match kind {
            "counter" => MetricType::Counter,
            "gauge" => MetricType::Gauge,
            "histogram" => MetricType::Histogram,
            "gauge histogram" => MetricType::GaugeHistogram,
            "summary" => MetricType::Summary,
            _ => MetricType::Unknown,
        } as i32,
        metric_family_name: Bytes::from_static(name.as_bytes()),
        help: Bytes::from_static(help.as_bytes()),
        unit: Bytes::new(),
    };
    lines(METADATA).map(entry).collect()
}

/// A native histogram of the catalogue.
#[derive(Clone, Debug)]
pub(crate) struct NativeMetric {
    pub(crate) name: Bytes,
    /// The label that tells the family's series apart.
    pub(crate) variant: (Bytes, Bytes),
    /// Whether it has values below zero, and so is a gauge histogram.
    pub(crate) signed: bool,
}

/// Names of native histograms, and whether they are signed.
const NATIVE_FAMILIES: &[(&str, bool)] = &[
    ("http_server_clock_offset_seconds", true),
    ("http_server_duration_seconds", false),
    ("http_server_queue_seconds", false),
    ("http_server_request_size_bytes", false),
    ("http_server_response_size_bytes", false),
];

/// The label that tells the series of a native histogram apart.
const NATIVE_LABEL: &str = "handler";

/// What a service's handlers are called.
const HANDLERS: &str = "/ /api/v1/accounts /api/v1/accounts/{id} \
    /api/v1/carts /api/v1/carts/{id} /api/v1/carts/{id}/items /api/v1/events /api/v1/invoices /api/v1/invoices/{id} \
    /api/v1/orders /api/v1/orders/{id} /api/v1/payments /api/v1/payments/{id} \
    /api/v1/products /api/v1/products/{id} /api/v1/search /api/v1/sessions /api/v1/users /healthz /metrics /readyz";

/// Every native histogram of the catalogue: at least as many as there are [`metrics`], so that any series of a target
/// can be one and still be the only one of its name and label.
pub(crate) fn native_metrics() -> Vec<NativeMetric> {
    let family = |&(name, signed): &(&'static str, bool)| {
        HANDLERS.split_whitespace().map(move |handler| NativeMetric {
            name: Bytes::from_static(name.as_bytes()),
            variant: (Bytes::from_static(NATIVE_LABEL.as_bytes()), Bytes::from_static(handler.as_bytes())),
            signed,
        })
    };
    NATIVE_FAMILIES.iter().flat_map(family).collect()
}

/// Names of the labels that tell a family's series apart.
pub(crate) fn variant_labels() -> impl Iterator<Item = &'static str> {
    lines(FAMILIES).map(|[_, _, label]| label).chain(std::iter::once(NATIVE_LABEL))
}

/// Every metric of the catalogue, a family's variants one after the other.
pub(crate) fn metrics() -> Vec<Metric> {
    let mut metrics = Vec::new();
    for [name, values, label, variants] in lines(FAMILIES) {
        let name = Bytes::from_static(name.as_bytes());
        let values = Values::named(values);
        if variants.is_empty() {
            metrics.push(Metric { name: name.clone(), variant: None, values });
        }
        for variant in variants.split("; ").filter(|variant| !variant.is_empty()) {
            let variant = (Bytes::from_static(label.as_bytes()), Bytes::from_static(variant.as_bytes()));
            metrics.push(Metric { name: name.clone(), variant: Some(variant), values });
        }
    }
    metrics
}

impl Values {
    fn named(name: &str) -> Self {
        match name {
            "seconds" => Self::Seconds,
            "pages" => Self::Pages,
            "flag" => Self::Flag,
            "ratio" => Self::Ratio,
            "time" => Self::Time,
            _ => Self::Count,
        }
    }

    /// A value that such a metric may have.
    #[expect(clippy::cast_precision_loss, reason = "a value has 53 bits, like everybody's")]
    pub(crate) fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Count => random.below(2_000_000) as f64,
            Self::Seconds => (random.unit() * 1e9).round() / 1e4,
            Self::Pages => (random.below(1 << 19) * 4096) as f64,
            Self::Flag => random.below(2) as f64,
            Self::Ratio => (random.unit() * 1e4).round() / 1e4,
            Self::Time => 1_760_000_000.0 + random.below(10_000_000) as f64,
        }
    }
}

/// Programs that people run.
pub(crate) const APPS: &[&str] = &[
    "api",
    "auth",
    "billing",
    "cart",
    "catalog",
    "cron",
    "etcd",
    "frontend",
    "gateway",
    "ingress-nginx",
    "ledger",
    "mailer",
    "notifier",
    "postgres",
    "pricing",
    "redis",
    "scheduler",
    "search",
    "session",
    "worker",
];

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
    fn every_family_is_described_once() {
        let classic = lines(FAMILIES).map(|[name]| {
            let base = name.strip_prefix("http_request_duration_seconds");
            if base.is_some() { "http_request_duration_seconds" } else { name }
        });
        let families: BTreeSet<_> = classic.chain(NATIVE_FAMILIES.iter().map(|&(name, _)| name)).collect();
        let described: BTreeSet<_> = lines(METADATA).map(|[name]| name).collect();
        assert_eq!(described, families);
        assert_eq!(described.len(), metadata().len());
        for [name, kind, help] in lines(METADATA) {
            let known = ["counter", "gauge", "histogram", "gauge histogram", "summary"].contains(&kind);
            assert!(known && help.ends_with('.'), "{name}: {kind}, {help}");
        }
        for [name, values] in lines(FAMILIES) {
            assert!(
                ["count", "seconds", "pages", "flag", "ratio", "time"].contains(&values),
                "{name}: {values}"
            );
        }
    }

    #[test]
    fn any_series_of_a_target_can_be_native() {
        let native = native_metrics();
        assert!(native.len() >= metrics().len(), "{} and {}", native.len(), metrics().len());
        let distinct: BTreeSet<_> = native.iter().map(|metric| (&metric.name, &metric.variant)).collect();
        assert_eq!(distinct.len(), native.len());
    }
}
