//! What a request of 2,000 series costs on its way in, stage by stage: inflate, scan, split and deflate.
//!
//! The series look like those of a Kubernetes fleet: nine labels, some 250 bytes. `cargo bench --bench stages`.
#![allow(missing_docs, clippy::expect_used, reason = "a bench, not an interface")]

#[path = "../tests/support/proto.rs"]
mod proto;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use proto::{Label, Sample, TimeSeries, WriteRequest};
use tenantry::split::{SplitLimits, SplitRules, Splitter};
use tenantry::tenant::{IdRules, Policy, TenantRules};
use tenantry::wire::remote_write_v1::{Field, Fields, TenantLabels};
use tenantry::wire::snappy::Inflater;

const SERIES: usize = 2_000;
const LIMITS: SplitLimits = SplitLimits { inflated_bytes_max: 64 << 20, tenants_max: 4096 };

/// A request of [`SERIES`] series that take turns among the tenants; metrics come in groups, pods vary.
fn request(tenants: usize) -> Vec<u8> {
    let metrics = [
        "container_network_receive_packets_dropped_total",
        "kube_pod_container_resource_requests",
        "container_memory_working_set_bytes",
        "http_server_requests_seconds_bucket",
        "process_cpu_seconds_total",
    ];
    let timeseries = (0..SERIES).map(|at| {
        let mix = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let namespace = format!("team-{}", at % 17);
        let labels = [
            ("__name__", metrics[at * metrics.len() / SERIES].to_owned()),
            ("__tenant__", format!("tenant-{}", at % tenants)),
            ("cluster", "eu-central-1-prod".to_owned()),
            ("container", format!("app-{}", at % 23)),
            ("endpoint", "http-metrics".to_owned()),
            ("instance", format!("10.{}.{}.{}:8080", mix >> 56, (mix >> 48) & 255, (mix >> 40) & 255)),
            ("job", format!("{namespace}/service-{}", at % 23)),
            ("namespace", namespace),
            ("pod", format!("app-{}-{:010x}-{:05x}", at % 23, mix & 0xff_ffff_ffff, (mix >> 20) & 0xf_ffff)),
        ];
        let labels = labels.map(|(name, value)| Label { name: name.to_owned(), value }).to_vec();
        let samples = vec![Sample { value: mix as f64 / 1e9, timestamp: 1_760_000_000_000 + at as i64 }];
        TimeSeries { labels, samples, ..TimeSeries::default() }
    });
    WriteRequest { timeseries: timeseries.collect(), metadata: Vec::new() }.encode_to_vec()
}

fn rules(label_remove: bool) -> TenantRules {
    TenantRules {
        labels: vec![b"__tenant__".as_slice().into()],
        prefix: String::new(),
        prefix_prefer_source: false,
        label_remove,
        default: None,
        id_rules: IdRules::Mimir,
        on_missing: Policy::Reject,
        on_invalid: Policy::Reject,
    }
}

fn stages(c: &mut Criterion) {
    for tenants in [1, 10, 100] {
        let inflated = request(tenants);
        let block = Bytes::from(snap::raw::Encoder::new().compress_vec(&inflated).expect("compresses"));
        eprintln!("{tenants} tenants: {} bytes, {} deflated", inflated.len(), block.len());
        bytes(c, tenants, &inflated, &block);
        elements(c, tenants, &inflated, &block);
    }
}

/// Bytes a second, of inflated bytes.
fn bytes(c: &mut Criterion, tenants: usize, inflated: &[u8], block: &Bytes) {
    let mut group = c.benchmark_group("bytes");
    group.throughput(Throughput::Bytes(inflated.len() as u64));
    let mut inflater = Inflater::default();
    group.bench_function(BenchmarkId::new("inflate", tenants), |b| {
        b.iter(|| inflater.inflate(black_box(block), LIMITS.inflated_bytes_max).expect("inflates"));
    });
    let tenant = rules(false);
    group.bench_function(BenchmarkId::new("walk", tenants), |b| {
        let labels = TenantLabels::new(&tenant.labels);
        b.iter(|| {
            let mut fields = Fields::new(black_box(inflated));
            while let Some(Field::Series(series)) = fields.take().expect("scans") {
                black_box(labels.read(series).expect("reads"));
            }
        });
    });
    group.finish();
}

/// Series a second.
fn elements(c: &mut Criterion, tenants: usize, _inflated: &[u8], block: &Bytes) {
    let mut group = c.benchmark_group("series");
    group.throughput(Throughput::Elements(SERIES as u64));
    for label_remove in [false, true] {
        let name = if label_remove { "remove" } else { "keep" };
        let tenant = rules(label_remove);
        let rules = SplitRules { tenant: &tenant, metadata: false, ha: None, limits: LIMITS };
        let mut splitter = Splitter::new();
        group.bench_function(BenchmarkId::new(format!("inflate+scan/{name}"), tenants), |b| {
            b.iter(|| splitter.scan(block.clone(), &rules, None).expect("splits"));
        });
        group.bench_function(BenchmarkId::new(format!("whole/{name}"), tenants), |b| {
            b.iter(|| {
                let scan = splitter.scan(block.clone(), &rules, None).expect("splits");
                while let Some(part) = splitter.next_part() {
                    black_box(part);
                }
                scan
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
