//! What the same 2,000 series cost on their way in as Remote Write 1.0 and as 2.0: inflate, scan, split and deflate.
//!
//! The series look like those of a Kubernetes fleet: nine labels each. `cargo bench --bench pipeline`. 2.0 is to take at
//! most 1.2 times what 1.0 takes.
#![allow(missing_docs, clippy::expect_used, reason = "a bench, not an interface")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loadgen::proto::{MetricType, TimeSeries, WriteRequest};
use loadgen::proto_v2::{Metadata, Request};
use tenantry::split::{Body, Metadata as MetadataOfV1, SplitLimits, SplitRules, Splitter, V2Handling};
use tenantry::tenant::{IdRules, Policy, TenantRules};

const SERIES: usize = 2_000;
const LIMITS: SplitLimits = SplitLimits { inflated_bytes_max: 64 << 20, tenants_max: 4096 };

/// A request of [`SERIES`] series that take turns among the tenants; metrics come in groups, pods vary.
fn request(tenants: usize) -> WriteRequest {
    let metrics = [
        "container_network_receive_packets_dropped_total",
        "kube_pod_container_resource_requests",
        "container_memory_working_set_bytes",
        "http_server_requests_seconds_bucket",
        "process_cpu_seconds_total",
    ];
    let timeseries = (0..SERIES).map(|at| {
        let mix = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (tenant, namespace) = (format!("tenant-{}", at % tenants), format!("team-{}", at % 17));
        let container = format!("app-{}", at % 23);
        let instance = format!("10.{}.{}.{}:8080", mix >> 56, (mix >> 48) & 255, (mix >> 40) & 255);
        let job = format!("{namespace}/service-{}", at % 23);
        let pod = format!("{container}-{:010x}-{:05x}", mix & 0xff_ffff_ffff, (mix >> 20) & 0xf_ffff);
        let labels = [
            ("__name__", metrics[at * metrics.len() / SERIES]),
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

/// As Prometheus sends it: with its metric's type in each series.
fn with_metadata(mut request: Request) -> Request {
    for series in &mut request.timeseries {
        series.metadata = Some(Metadata { r#type: MetricType::Counter as i32, help_ref: 2, unit_ref: 0 });
    }
    request
}

fn pipeline(c: &mut Criterion) {
    let tenant = TenantRules {
        labels: vec![b"__tenant__".as_slice().into()],
        prefix: String::new(),
        prefix_prefer_source: false,
        label_remove: false,
        default: None,
        id_rules: IdRules::Mimir,
        on_missing: Policy::Reject,
        on_invalid: Policy::Reject,
        map: None,
        allow: None,
    };
    let pass = SplitRules {
        tenant: &tenant,
        metadata: MetadataOfV1::Drop,
        ha: None,
        loki_label_remove: false,
        remote_write_v2: V2Handling::Pass,
        limits: LIMITS,
    };
    let without_label = TenantRules { label_remove: true, ..tenant.clone() };
    let removed = SplitRules { tenant: &without_label, ..pass };
    let downgrade = SplitRules { remote_write_v2: V2Handling::Downgrade, ..pass };
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(SERIES as u64));
    for tenants in [1, 10, 100] {
        let v1 = request(tenants);
        let v2 = Request::from(&v1);
        let bodies = [
            ("1.0", Body::snappy_v1(v1.to_block()), &pass),
            ("2.0", Body::snappy_v2(v2.to_block()), &pass),
            ("1.0, label removed", Body::snappy_v1(v1.to_block()), &removed),
            ("2.0, label removed", Body::snappy_v2(v2.to_block()), &removed),
            ("2.0 with metadata", Body::snappy_v2(with_metadata(v2.clone()).to_block()), &pass),
            ("2.0 downgraded", Body::snappy_v2(v2.to_block()), &downgrade),
        ];
        for (name, body, rules) in bodies {
            let mut splitter = Splitter::new();
            let scan = splitter.scan(body.clone(), rules, None).expect("scans");
            eprintln!(
                "{tenants} tenants, {name}: {} bytes, {} deflated",
                scan.inflated_bytes,
                body.bytes.len()
            );
            group.bench_function(BenchmarkId::new(name, tenants), |b| {
                b.iter(|| {
                    splitter.scan(body.clone(), rules, None).expect("scans");
                    while let Some(part) = splitter.next_part() {
                        black_box(part);
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
