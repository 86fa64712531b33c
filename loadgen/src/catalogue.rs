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

type Family = (&'static str, Values, &'static str, &'static [&'static str]);

const LE: &[&str] = &["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];

/// Name, values, and the label that tells a family's series apart with what it takes; in the order of a scrape.
const FAMILIES: &[Family] = &[
    ("container_cpu_cfs_periods_total", Values::Count, "", &[]),
    ("container_cpu_cfs_throttled_periods_total", Values::Count, "", &[]),
    ("container_cpu_usage_seconds_total", Values::Seconds, "", &[]),
    ("container_fs_reads_bytes_total", Values::Pages, "device", &["/dev/nvme0n1", "/dev/nvme1n1"]),
    ("container_fs_writes_bytes_total", Values::Pages, "device", &["/dev/nvme0n1", "/dev/nvme1n1"]),
    ("container_memory_cache", Values::Pages, "", &[]),
    ("container_memory_rss", Values::Pages, "", &[]),
    ("container_memory_usage_bytes", Values::Pages, "", &[]),
    ("container_memory_working_set_bytes", Values::Pages, "", &[]),
    ("container_network_receive_bytes_total", Values::Count, "interface", &["eth0", "eth1"]),
    ("container_network_transmit_bytes_total", Values::Count, "interface", &["eth0", "eth1"]),
    ("container_start_time_seconds", Values::Time, "", &[]),
    ("go_gc_duration_seconds", Values::Seconds, "quantile", &["0", "0.25", "0.5", "0.75", "1"]),
    ("go_goroutines", Values::Count, "", &[]),
    ("go_memstats_alloc_bytes", Values::Pages, "", &[]),
    ("go_memstats_heap_inuse_bytes", Values::Pages, "", &[]),
    ("grpc_server_handled_total", Values::Count, "grpc_code", &["OK", "Canceled", "Unavailable"]),
    ("http_request_duration_seconds_bucket", Values::Count, "le", LE),
    ("http_request_duration_seconds_count", Values::Count, "", &[]),
    ("http_request_duration_seconds_sum", Values::Seconds, "", &[]),
    ("http_requests_total", Values::Count, "code", &["200", "204", "301", "400", "404", "500", "503"]),
    ("kube_pod_container_resource_limits", Values::Pages, "resource", &["cpu", "memory"]),
    ("kube_pod_container_resource_requests", Values::Pages, "resource", &["cpu", "memory"]),
    ("kube_pod_container_status_ready", Values::Flag, "", &[]),
    ("kube_pod_container_status_restarts_total", Values::Count, "", &[]),
    ("kube_pod_created", Values::Time, "", &[]),
    ("kube_pod_info", Values::Flag, "created_by_kind", &["ReplicaSet"]),
    (
        "kube_pod_status_phase",
        Values::Flag,
        "phase",
        &["Failed", "Pending", "Running", "Succeeded", "Unknown"],
    ),
    ("node_cpu_seconds_total", Values::Seconds, "mode", &["idle", "iowait", "irq", "nice", "system", "user"]),
    ("node_filesystem_avail_bytes", Values::Pages, "mountpoint", &["/", "/boot", "/var/lib/kubelet"]),
    ("node_load1", Values::Ratio, "", &[]),
    ("node_memory_MemAvailable_bytes", Values::Pages, "", &[]),
    ("process_cpu_seconds_total", Values::Seconds, "", &[]),
    ("process_open_fds", Values::Count, "", &[]),
    ("process_resident_memory_bytes", Values::Pages, "", &[]),
    ("scrape_duration_seconds", Values::Ratio, "", &[]),
    ("up", Values::Flag, "", &[]),
];

/// What is known of each family: its type and its help text, as its exporter gives them.
const METADATA: &[(&str, MetricType, &str)] = &[
    ("container_cpu_cfs_periods_total", MetricType::Counter, "Elapsed enforcement periods."),
    ("container_cpu_cfs_throttled_periods_total", MetricType::Counter, "Periods in which CPU was throttled."),
    ("container_cpu_usage_seconds_total", MetricType::Counter, "CPU time consumed, in seconds."),
    ("container_fs_reads_bytes_total", MetricType::Counter, "Bytes read from the device."),
    ("container_fs_writes_bytes_total", MetricType::Counter, "Bytes written to the device."),
    ("container_memory_cache", MetricType::Gauge, "Bytes of page cache."),
    ("container_memory_rss", MetricType::Gauge, "Resident set size in bytes."),
    ("container_memory_usage_bytes", MetricType::Gauge, "Memory in use, whenever it was last touched."),
    ("container_memory_working_set_bytes", MetricType::Gauge, "The working set in bytes."),
    ("container_network_receive_bytes_total", MetricType::Counter, "Bytes received."),
    ("container_network_transmit_bytes_total", MetricType::Counter, "Bytes transmitted."),
    ("container_start_time_seconds", MetricType::Gauge, "When the container started, in Unix time."),
    ("go_gc_duration_seconds", MetricType::Summary, "Pauses of garbage collection cycles."),
    ("go_goroutines", MetricType::Gauge, "Goroutines that exist."),
    ("go_memstats_alloc_bytes", MetricType::Gauge, "Bytes allocated in heap and in use."),
    ("go_memstats_heap_inuse_bytes", MetricType::Gauge, "Heap bytes in spans in use."),
    ("grpc_server_handled_total", MetricType::Counter, "RPCs completed, whatever their result."),
    ("http_request_duration_seconds", MetricType::Histogram, "Latency of HTTP requests."),
    ("http_requests_total", MetricType::Counter, "HTTP requests by status."),
    ("kube_pod_container_resource_limits", MetricType::Gauge, "Limits of a container's resources."),
    ("kube_pod_container_resource_requests", MetricType::Gauge, "Resources that a container asks for."),
    ("kube_pod_container_status_ready", MetricType::Gauge, "Whether the readiness check succeeded."),
    ("kube_pod_container_status_restarts_total", MetricType::Counter, "Restarts of the container."),
    ("kube_pod_created", MetricType::Gauge, "When the pod was made, in Unix time."),
    ("kube_pod_info", MetricType::Gauge, "What is known about the pod."),
    ("kube_pod_status_phase", MetricType::Gauge, "The phase that the pod is in."),
    ("node_cpu_seconds_total", MetricType::Counter, "Seconds that the CPUs spent in each mode."),
    ("node_filesystem_avail_bytes", MetricType::Gauge, "Space left for users who are not root."),
    ("node_load1", MetricType::Gauge, "Load over a minute."),
    ("node_memory_MemAvailable_bytes", MetricType::Gauge, "MemAvailable of /proc/meminfo."),
    ("process_cpu_seconds_total", MetricType::Counter, "User and system CPU time in seconds."),
    ("process_open_fds", MetricType::Gauge, "Open file descriptors."),
    ("process_resident_memory_bytes", MetricType::Gauge, "Resident memory in bytes."),
    ("scrape_duration_seconds", MetricType::Gauge, "How long the scrape took."),
    ("up", MetricType::Gauge, "Whether the scrape succeeded."),
    ("http_server_duration_seconds", MetricType::Histogram, "Latency of requests by handler."),
    ("http_server_queue_seconds", MetricType::Histogram, "How long requests wait for a worker."),
    ("http_server_request_size_bytes", MetricType::Histogram, "Size of requests."),
    ("http_server_response_size_bytes", MetricType::Histogram, "Size of responses."),
    ("http_server_clock_offset_seconds", MetricType::GaugeHistogram, "How far clients' clocks are off."),
];

/// What Prometheus sends about the catalogue's families once a minute.
pub(crate) fn metadata() -> Vec<MetricMetadata> {
    let entry = |&(name, kind, help): &(&'static str, MetricType, &'static str)| MetricMetadata {
        r#type: kind as i32,
        metric_family_name: Bytes::from_static(name.as_bytes()),
        help: Bytes::from_static(help.as_bytes()),
        unit: Bytes::new(),
    };
    METADATA.iter().map(entry).collect()
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
const HANDLERS: &[&str] = &[
    "/",
    "/api/v1/accounts",
    "/api/v1/accounts/{id}",
    "/api/v1/carts",
    "/api/v1/carts/{id}",
    "/api/v1/carts/{id}/items",
    "/api/v1/events",
    "/api/v1/invoices",
    "/api/v1/invoices/{id}",
    "/api/v1/orders",
    "/api/v1/orders/{id}",
    "/api/v1/payments",
    "/api/v1/payments/{id}",
    "/api/v1/products",
    "/api/v1/products/{id}",
    "/api/v1/search",
    "/api/v1/sessions",
    "/api/v1/users",
    "/healthz",
    "/metrics",
    "/readyz",
];

/// Every native histogram of the catalogue: at least as many as there are [`metrics`], so that any series of a target
/// can be one and still be the only one of its name and label.
pub(crate) fn native_metrics() -> Vec<NativeMetric> {
    let family = |&(name, signed): &(&'static str, bool)| {
        HANDLERS.iter().map(move |handler| NativeMetric {
            name: Bytes::from_static(name.as_bytes()),
            variant: (Bytes::from_static(NATIVE_LABEL.as_bytes()), Bytes::from_static(handler.as_bytes())),
            signed,
        })
    };
    NATIVE_FAMILIES.iter().flat_map(family).collect()
}

/// Names of the labels that tell a family's series apart.
pub(crate) fn variant_labels() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|&(_, _, label, _)| label).chain(std::iter::once(NATIVE_LABEL))
}

/// Every metric of the catalogue, a family's variants one after the other.
pub(crate) fn metrics() -> Vec<Metric> {
    let mut metrics = Vec::new();
    for &(name, values, label, variants) in FAMILIES {
        let name = Bytes::from_static(name.as_bytes());
        if variants.is_empty() {
            metrics.push(Metric { name: name.clone(), variant: None, values });
        }
        for variant in variants {
            let variant = (Bytes::from_static(label.as_bytes()), Bytes::from_static(variant.as_bytes()));
            metrics.push(Metric { name: name.clone(), variant: Some(variant), values });
        }
    }
    metrics
}

impl Values {
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
        let classic = FAMILIES.iter().map(|&(name, ..)| {
            let base = name.strip_prefix("http_request_duration_seconds");
            if base.is_some() { "http_request_duration_seconds" } else { name }
        });
        let families: BTreeSet<_> = classic.chain(NATIVE_FAMILIES.iter().map(|&(name, _)| name)).collect();
        let described: BTreeSet<_> = METADATA.iter().map(|&(name, ..)| name).collect();
        assert_eq!(described, families);
        assert_eq!(described.len(), metadata().len());
    }

    #[test]
    fn any_series_of_a_target_can_be_native() {
        let native = native_metrics();
        assert!(native.len() >= metrics().len(), "{} and {}", native.len(), metrics().len());
        let distinct: BTreeSet<_> = native.iter().map(|metric| (&metric.name, &metric.variant)).collect();
        assert_eq!(distinct.len(), native.len());
    }
}
