//! What an inbound Loki push costs: scanning alone, and all steps. A push has a hundred streams of twenty entries, as
//! Promtail sends them or as JSON, or 2,000 streams of one entry, as loadgen does. Labels or entries name the tenant.
//! `cargo bench --bench loki`.
#![allow(missing_docs, clippy::expect_used, reason = "a bench, not an interface")]

mod fleet;

use std::io::Write as _;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fleet::logs::{ENTRIES, STREAMS, json, json_streams, protobuf};
use tenantry::model::{Protocol, SplitLimits};
use tenantry::split::{Body, Compression, SplitRules, Splitter};
use tenantry::tenant::TenantRules;
use testkit::proto::deflate;

fn gzip(bytes: &[u8]) -> Bytes {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).expect("compresses");
    gzip.finish().expect("compresses").into()
}

fn pushes(c: &mut Criterion) {
    let tenant = TenantRules::of_label(b"__tenant__");
    let limits = SplitLimits { inflated_bytes_max: 64 << 20, tenants_max: 4096 };
    let rules = SplitRules::new(&tenant, limits);
    let mut group = c.benchmark_group("loki");
    let body = |protocol, bytes: Vec<u8>| Body {
        protocol,
        compression: Compression::Identity,
        bytes: Bytes::from(bytes),
    };
    for (name, body) in [
        ("protobuf, tenant in labels", body(Protocol::Loki, protobuf(true))),
        ("protobuf, tenant in entries", body(Protocol::Loki, protobuf(false))),
        ("json", body(Protocol::LokiJson, json().into_bytes())),
        ("json, streams of one", body(Protocol::LokiJson, json_streams().into_bytes())),
    ] {
        group.throughput(Throughput::ElementsAndBytes {
            elements: (STREAMS * ENTRIES) as u64,
            bytes: body.bytes.len() as u64,
        });
        let mut splitter = Splitter::new();
        group.bench_function(BenchmarkId::new("scan", name), |b| {
            b.iter(|| splitter.scan(body.clone(), &rules, None).expect("scans"));
        });
    }
    let gzipped = gzip(json().as_bytes());
    for (name, protocol, compression, bytes) in [
        ("protobuf, snappy", Protocol::Loki, Compression::Snappy, deflate(&protobuf(true))),
        ("json, gzip", Protocol::LokiJson, Compression::Gzip, gzipped),
        ("json", Protocol::LokiJson, Compression::Identity, json().into()),
        ("json, streams of one", Protocol::LokiJson, Compression::Identity, json_streams().into()),
    ] {
        let body = Body { protocol, compression, bytes };
        group.throughput(Throughput::Elements((STREAMS * ENTRIES) as u64));
        group.bench_function(BenchmarkId::new("whole", name), |b| fleet::take_through(b, &body, &rules));
    }
    group.finish();
}

criterion_group!(benches, pushes);
criterion_main!(benches);
