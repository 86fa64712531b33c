//! What a Kubernetes cluster exports: the names that kubelet, kube-state-metrics, node exporter and an ordinary
//! HTTP service use, the label that tells their series apart, and what their values look like.

use bytes::Bytes;

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
