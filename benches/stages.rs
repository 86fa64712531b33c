//! What a request of 2,000 series costs on its way in, stage by stage: inflate, scan, split and deflate.
//!
//! The series look like those of a Kubernetes fleet: nine labels, some 280 bytes. `cargo bench --bench stages`.
#![allow(missing_docs, clippy::expect_used, reason = "a bench, not an interface")]

#[path = "../tests/support/proto.rs"]
mod proto;

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use proto::{Label, Sample, TimeSeries, WriteRequest};
use tenantry::split::{Body, SplitLimits, SplitRules, Splitter};
use tenantry::tenant::{IdRules, Policy, TenantRules};
use tenantry::wire::snappy::Inflater;
use tenantry::wire::varint;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

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

fn tenant_rules(label_remove: bool) -> TenantRules {
    TenantRules {
        labels: vec![b"__tenant__".as_slice().into()],
        prefix: String::new(),
        prefix_prefer_source: false,
        label_remove,
        default: None,
        id_rules: IdRules::Mimir,
        on_missing: Policy::Reject,
        on_invalid: Policy::Reject,
        map: None,
        allow: None,
    }
}

/// A block that holds its bytes as they are, so that inflating it is but a copy.
fn stored(inflated: &[u8]) -> Bytes {
    let mut block = Vec::new();
    varint::put(&mut block, inflated.len() as u64);
    for chunk in inflated.chunks(1 << 16) {
        block.push(61 << 2);
        block.extend_from_slice(&u16::try_from(chunk.len() - 1).expect("fits").to_le_bytes());
        block.extend_from_slice(chunk);
    }
    block.into()
}

fn stages(c: &mut Criterion) {
    for tenants in [1, 10, 100] {
        let inflated = request(tenants);
        let block = Bytes::from(snap::raw::Encoder::new().compress_vec(&inflated).expect("compresses"));
        eprintln!("{tenants} tenants: {} bytes, {} deflated", inflated.len(), block.len());
        let mut group = c.benchmark_group("stages");
        group.throughput(Throughput::ElementsAndBytes {
            elements: SERIES as u64,
            bytes: inflated.len() as u64,
        });
        inflate(&mut group, tenants, &block);
        for label_remove in [false, true] {
            let stored = stored(&inflated);
            scan(&mut group, tenants, &stored, label_remove);
            // One tenant's request with its labels as they are passes through: nothing is split.
            if tenants > 1 || label_remove {
                split(&mut group, tenants, &stored, label_remove);
            }
            whole(&mut group, tenants, &block, label_remove);
        }
        group.finish();
    }
}

fn inflate(group: &mut Group<'_>, tenants: usize, block: &Bytes) {
    let mut inflater = Inflater::default();
    group.bench_function(BenchmarkId::new("inflate", tenants), |b| {
        b.iter(|| inflater.inflate(black_box(block), LIMITS.inflated_bytes_max).expect("inflates"));
    });
}

fn scan(group: &mut Group<'_>, tenants: usize, stored: &Bytes, label_remove: bool) {
    let tenant = tenant_rules(label_remove);
    let rules =
        SplitRules { tenant: &tenant, metadata: false, ha: None, loki_label_remove: false, limits: LIMITS };
    let mut splitter = Splitter::new();
    group.bench_function(BenchmarkId::new(named("scan", label_remove), tenants), |b| {
        b.iter(|| splitter.scan(Body::snappy_v1(stored.clone()), &rules, None).expect("scans"));
    });
}

/// Splitting and deflating alone: the clock stands still while the request is scanned.
fn split(group: &mut Group<'_>, tenants: usize, stored: &Bytes, label_remove: bool) {
    let tenant = tenant_rules(label_remove);
    let rules =
        SplitRules { tenant: &tenant, metadata: false, ha: None, loki_label_remove: false, limits: LIMITS };
    let mut splitter = Splitter::new();
    group.bench_function(BenchmarkId::new(named("split+deflate", label_remove), tenants), |b| {
        b.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                splitter.scan(Body::snappy_v1(stored.clone()), &rules, None).expect("scans");
                let begin = Instant::now();
                take_parts(&mut splitter);
                elapsed += begin.elapsed();
            }
            elapsed
        });
    });
}

/// From the body that came in to the parts that go out.
fn whole(group: &mut Group<'_>, tenants: usize, block: &Bytes, label_remove: bool) {
    let tenant = tenant_rules(label_remove);
    let rules =
        SplitRules { tenant: &tenant, metadata: false, ha: None, loki_label_remove: false, limits: LIMITS };
    let mut splitter = Splitter::new();
    group.bench_function(BenchmarkId::new(named("whole", label_remove), tenants), |b| {
        b.iter(|| {
            let scan = splitter.scan(Body::snappy_v1(block.clone()), &rules, None).expect("scans");
            take_parts(&mut splitter);
            scan
        });
    });
}

fn take_parts(splitter: &mut Splitter) {
    while let Some(part) = splitter.next_part() {
        black_box(part);
    }
}

fn named(stage: &str, label_remove: bool) -> String {
    if label_remove { format!("{stage}, label removed") } else { stage.to_owned() }
}

criterion_group!(benches, stages);
criterion_main!(benches);
