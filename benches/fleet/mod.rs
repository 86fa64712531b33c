//! The input of the benches: series as a Kubernetes fleet has them, with nine labels and some 280 bytes each.
#![allow(dead_code, reason = "not every bench needs all of it")]

pub(crate) mod exports;
pub(crate) mod fragments;
pub(crate) mod logs;

use std::hint::black_box;

use bytes::Bytes;
use criterion::Bencher;
use tenantry::model::{SplitLimits, TargetCoding};
use tenantry::split::{Body, SplitRules, Splitter};
use tenantry::tenant::TenantRules;
use tenantry::wire::varint;
use testkit::proto::{TimeSeries, WriteRequest};

/// How many series Prometheus sends at a time by default.
pub(crate) const SERIES: usize = 2_000;

const LIMITS: SplitLimits = SplitLimits { inflated_bytes_max: 64 << 20, tenants_max: 4096 };

/// A request whose series alternate between the tenants. Metrics come in groups, pods vary.
pub(crate) fn request(series: usize, tenants: usize) -> WriteRequest {
    request_in_runs(series, tenants, 1)
}

/// As [`request`], but each tenant has `run_length` consecutive series, as in scrapes and in loadgen's bodies.
pub(crate) fn request_in_runs(series: usize, tenants: usize, run_length: usize) -> WriteRequest {
    let metrics = [
        "container_network_receive_packets_dropped_total",
        "kube_pod_container_resource_requests",
        "container_memory_working_set_bytes",
        "http_server_requests_seconds_bucket",
        "process_cpu_seconds_total",
    ];
    let timeseries = (0..series).map(|at| {
        let mix = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (tenant, namespace) =
            (format!("tenant-{}", at / run_length % tenants), format!("team-{}", at % 17));
        let container = format!("app-{}", at % 23);
        let instance = format!("10.{}.{}.{}:8080", mix >> 56, (mix >> 48) & 255, (mix >> 40) & 255);
        let job = format!("{namespace}/service-{}", at % 23);
        let pod = format!("{container}-{:010x}-{:05x}", mix & 0xff_ffff_ffff, (mix >> 20) & 0xf_ffff);
        let labels = [
            ("__name__", metrics[at * metrics.len() / series]),
            ("__tenant__", &tenant),
            ("cluster", "eu-central-1-prod"),
            ("container", &container),
            ("endpoint", "http-metrics"),
            ("instance", &instance),
            ("job", &job),
            ("namespace", &namespace),
            ("pod", &pod),
        ];
        TimeSeries::new(&labels, &[(1_760_000_000_000 + at as i64, mix as f64 / 1e9)])
    });
    WriteRequest { timeseries: timeseries.collect(), metadata: Vec::new() }
}

/// Rules with the tenant in the label `__tenant__`, which is kept or removed.
pub(crate) fn tenant_rules(label_remove: bool) -> TenantRules {
    TenantRules { label_remove, ..TenantRules::of_label(b"__tenant__") }
}

/// The default limits, with room for more tenants.
pub(crate) fn split_rules(tenant: &TenantRules) -> SplitRules<'_> {
    SplitRules::new(tenant, LIMITS)
}

/// A block that holds its bytes as literals, so that inflating it is only a copy.
pub(crate) fn stored(inflated: &[u8]) -> Bytes {
    let mut block = Vec::new();
    varint::put(&mut block, inflated.len() as u64);
    for chunk in inflated.chunks(1 << 16) {
        block.push(61 << 2);
        block.extend_from_slice(&u16::try_from(chunk.len() - 1).expect("fits").to_le_bytes());
        block.extend_from_slice(chunk);
    }
    block.into()
}

/// From a body that came in to the parts that go out.
pub(crate) fn take_through(b: &mut Bencher<'_>, body: &Body, rules: &SplitRules<'_>) {
    take_through_as(b, body, rules, TargetCoding::AsReceived);
}

/// The same for a target that takes OTLP in this coding.
pub(crate) fn take_through_as(
    b: &mut Bencher<'_>,
    body: &Body,
    rules: &SplitRules<'_>,
    coding: TargetCoding,
) {
    let mut splitter = Splitter::new();
    b.iter(|| {
        splitter.scan(body.clone(), rules, None).expect("scans");
        while let Some(part) = splitter.next_part_as(|_| coding) {
            black_box(part);
        }
    });
}

/// Takes all parts of the request that was scanned.
pub(crate) fn take_parts(splitter: &mut Splitter) {
    while let Some(part) = splitter.next_part() {
        black_box(part);
    }
}
