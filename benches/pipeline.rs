//! What inbound requests cost without sockets: inflate, scan, split and deflate. `cargo bench --bench pipeline`.
//!
//! `sizes` shows how the cost grows with series and tenants. `formats` compares 2.0 with 1.0: it should take at most
//! 1.2 times as long for the same series. `exports` does so for OTLP, beside Remote Write 1.0 of as many points.
#![allow(missing_docs, clippy::expect_used, reason = "a bench, not an interface")]

mod fleet;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fleet::exports::{self, ITEMS, Named, RESOURCES};
use fleet::{SERIES, split_rules, take_through, take_through_as, tenant_rules};
use prost::Message;
use tenantry::model::{Notation, Protocol, Signal, TargetCoding, V2Handling};
use tenantry::split::{Body, Compression, SplitRules};
use testkit::proto::MetricType;
use testkit::proto_v2::{Metadata, Request};

/// A tenant's consecutive series in loadgen's bodies.
const RUN_LENGTH: usize = 20;

fn sizes(c: &mut Criterion) {
    let tenant = tenant_rules(false);
    let rules = split_rules(&tenant);
    let mut group = c.benchmark_group("sizes");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(30);
    for series in [100, SERIES, 10_000] {
        group.throughput(Throughput::Elements(series as u64));
        for tenants in [1, 10, 100, 1_000] {
            for (turn, name) in [(1, ""), (RUN_LENGTH, ", runs of 20")] {
                let body = Body::snappy_v1(fleet::request_in_runs(series, tenants, turn).to_block());
                let name = BenchmarkId::new(format!("{series} series{name}"), tenants);
                group.bench_function(name, |b| take_through(b, &body, &rules));
            }
        }
    }
    group.finish();
}

/// A request as Prometheus sends it, with the metric's type in each series.
fn with_metadata(mut request: Request) -> Request {
    for series in &mut request.timeseries {
        series.metadata = Some(Metadata { r#type: MetricType::Counter as i32, help_ref: 2, unit_ref: 0 });
    }
    request
}

/// A body in zstd, which newer senders can choose.
fn zstd(inflated: &[u8]) -> Body {
    let bytes = zstd::bulk::compress(inflated, 1).expect("compresses").into();
    Body { protocol: Protocol::RemoteWriteV1, compression: Compression::Zstd, bytes }
}

fn formats(c: &mut Criterion) {
    let (tenant, without_label) = (tenant_rules(false), tenant_rules(true));
    let (pass, removed) = (split_rules(&tenant), split_rules(&without_label));
    let downgrade = SplitRules { remote_write_v2: V2Handling::Downgrade, ..pass };
    let mut group = c.benchmark_group("formats");
    group.throughput(Throughput::Elements(SERIES as u64));
    for tenants in [1, 10, 100] {
        let v1 = fleet::request(SERIES, tenants);
        let v2 = Request::from(&v1);
        let bodies = [
            ("1.0", Body::snappy_v1(v1.to_block()), &pass),
            ("1.0, zstd", zstd(&v1.encode_to_vec()), &pass),
            ("2.0", Body::snappy_v2(v2.to_block()), &pass),
            ("1.0, label removed", Body::snappy_v1(v1.to_block()), &removed),
            ("2.0, label removed", Body::snappy_v2(v2.to_block()), &removed),
            ("2.0 with metadata", Body::snappy_v2(with_metadata(v2.clone()).to_block()), &pass),
            ("2.0 downgraded", Body::snappy_v2(v2.to_block()), &downgrade),
        ];
        for (name, body, rules) in bodies {
            group.bench_function(BenchmarkId::new(name, tenants), |b| take_through(b, &body, rules));
        }
    }
    group.finish();
}

/// Exports of ten tenants, in the codings that they come and leave in.
fn exports(c: &mut Criterion) {
    let (series_tenant, tenant) = (tenant_rules(false), exports::tenant_rules());
    let (series_rules, rules) = (split_rules(&series_tenant), split_rules(&tenant));
    let mut group = c.benchmark_group("exports");
    group.throughput(Throughput::Elements((RESOURCES * ITEMS) as u64));
    let series = Body::snappy_v1(fleet::request_in_runs(RESOURCES * ITEMS, 10, ITEMS).to_block());
    group.bench_function("remote write 1.0", |b| take_through(b, &series, &series_rules));
    let (plain, gzip) = (Compression::Identity, Compression::Gzip);
    let always = TargetCoding::Always;
    for signal in Signal::ALL {
        for (notation, noted) in [(Notation::Protobuf, ""), (Notation::Json, ", JSON")] {
            for (name, received, coding) in [
                ("none", plain, TargetCoding::AsReceived),
                ("gzip", gzip, TargetCoding::AsReceived),
                ("gzip to none", gzip, always(plain)),
                ("none to gzip", plain, always(gzip)),
                ("zstd", Compression::Zstd, TargetCoding::AsReceived),
                ("snappy", Compression::Snappy, TargetCoding::AsReceived),
            ] {
                let body = exports::body(signal, notation, received, Named::ByResource);
                let id = BenchmarkId::new(format!("{}{noted}", exports::name(signal)), name);
                group.bench_function(id, |b| take_through_as(b, &body, &rules, coding));
            }
            let body = exports::body(signal, notation, plain, Named::ByItem);
            let id = BenchmarkId::new(format!("{}{noted}", exports::name(signal)), "none, tenant in items");
            group.bench_function(id, |b| take_through(b, &body, &rules));
        }
    }
    group.finish();
}

criterion_group!(benches, sizes, formats, exports);
criterion_main!(benches);
