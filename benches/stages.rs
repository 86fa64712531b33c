//! What a request of 2,000 series costs, stage by stage. Inbound: head, inflate, scan, split and deflate (together, and
//! deflate alone). Outbound: the lane that merges its parts with others, the merger that writes those in 2.0 into one
//! request, and the head of the upstream request.
//! `cargo bench --bench stages`.
#![allow(missing_docs, clippy::expect_used, reason = "a bench, not an interface")]

mod fleet;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use fleet::fragments::{a_part, fragment};
use fleet::{SERIES, split_rules, stored, take_parts, tenant_rules};
use prost::Message;
use tenantry::egress::lane::{Lane, LaneLimits, Next};
use tenantry::http::head::RequestHead;
use tenantry::http::response::ResponseHead;
use tenantry::model::Part;
use tenantry::split::{Body, Merger, Splitter};
use tenantry::tenant::TenantRules;
use tenantry::tenant::map::{MapRule, Matches, Target, TenantMap};
use tenantry::wire::snappy::{Deflater, Inflater};
use tenantry::wire::varint;
use testkit::proto_v2::Request;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

const INFLATED_BYTES_MAX: usize = 64 << 20;

fn stages(c: &mut Criterion) {
    for tenants in [1, 10, 100] {
        let inflated = fleet::request(SERIES, tenants).encode_to_vec();
        let block = Bytes::from(snap::raw::Encoder::new().compress_vec(&inflated).expect("compresses"));
        eprintln!("{tenants} tenants: {} bytes, {} deflated", inflated.len(), block.len());
        let mut group = c.benchmark_group("stages");
        group.throughput(Throughput::ElementsAndBytes {
            elements: SERIES as u64,
            bytes: inflated.len() as u64,
        });
        inflate(&mut group, tenants, &block);
        scan_mapped(&mut group, tenants, &stored(&inflated));
        for label_remove in [false, true] {
            let stored = stored(&inflated);
            scan(&mut group, tenants, &stored, label_remove);
            // A request of one tenant that keeps its labels passes through: nothing is split.
            if tenants > 1 || label_remove {
                split(&mut group, tenants, &stored, label_remove);
                deflate(&mut group, tenants, &stored, label_remove);
            }
            whole(&mut group, tenants, &block, label_remove);
        }
        group.finish();
    }
}

fn inflate(group: &mut Group<'_>, tenants: usize, block: &Bytes) {
    let mut inflater = Inflater::default();
    group.bench_function(BenchmarkId::new("inflate", tenants), |b| {
        b.iter(|| inflater.inflate(black_box(block), INFLATED_BYTES_MAX).expect("inflates"));
    });
}

fn scan(group: &mut Group<'_>, tenants: usize, stored: &Bytes, label_remove: bool) {
    let tenant = tenant_rules(label_remove);
    let rules = split_rules(&tenant);
    let mut splitter = Splitter::new();
    group.bench_function(BenchmarkId::new(named("scan", label_remove), tenants), |b| {
        b.iter(|| splitter.scan(Body::snappy_v1(stored.clone()), &rules, None).expect("scans"));
    });
}

/// Rules with a map, in which a thousand rules for single values precede the rules for these tenants.
fn scan_mapped(group: &mut Group<'_>, tenants: usize, stored: &Bytes) {
    let rule = |matches, tenant: &str| MapRule { matches, target: Target::Tenant(tenant.to_owned()) };
    let exact = |at| rule(Matches::Exact(format!("team-{at}")), "team");
    let pattern = |at| rule(Matches::Regex(format!("(squad|guild)-{at}-.+")), "$1");
    let mut rules: Vec<_> = (0..1000).map(exact).chain((0..10).map(pattern)).collect();
    rules.push(rule(Matches::Regex("tenant-([0-9]+)".to_owned()), "t$1"));
    let map = TenantMap::new(rules).expect("compiles");
    let tenant = TenantRules { map: Some(Arc::new(map)), ..tenant_rules(false) };
    let rules = split_rules(&tenant);
    let mut splitter = Splitter::new();
    group.bench_function(BenchmarkId::new("scan, mapped", tenants), |b| {
        b.iter(|| splitter.scan(Body::snappy_v1(stored.clone()), &rules, None).expect("scans"));
    });
}

/// Splitting and deflating alone. The clock is stopped while the request is scanned.
fn split(group: &mut Group<'_>, tenants: usize, stored: &Bytes, label_remove: bool) {
    let tenant = tenant_rules(label_remove);
    let rules = split_rules(&tenant);
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

/// Deflating alone, for each tenant's part as splitting gathers it.
fn deflate(group: &mut Group<'_>, tenants: usize, stored: &Bytes, label_remove: bool) {
    let tenant = tenant_rules(label_remove);
    let mut splitter = Splitter::new();
    splitter.scan(Body::snappy_v1(stored.clone()), &split_rules(&tenant), None).expect("scans");
    let inflate = |part: Part| {
        let mut block = Vec::new();
        varint::put(&mut block, u64::from(part.inflated_bytes));
        block.extend_from_slice(&part.elements);
        snap::raw::Decoder::new().decompress_vec(&block).expect("inflates")
    };
    let parts: Vec<Vec<u8>> = std::iter::from_fn(|| splitter.next_part()).map(inflate).collect();
    let mut deflater = Deflater::default();
    group.bench_function(BenchmarkId::new(named("deflate", label_remove), tenants), |b| {
        b.iter(|| parts.iter().for_each(|part| drop(black_box(deflater.elements(part)))));
    });
}

/// From the body that came in to the parts that go out.
fn whole(group: &mut Group<'_>, tenants: usize, block: &Bytes, label_remove: bool) {
    let tenant = tenant_rules(label_remove);
    let rules = split_rules(&tenant);
    let mut splitter = Splitter::new();
    group.bench_function(BenchmarkId::new(named("whole", label_remove), tenants), |b| {
        b.iter(|| {
            let scan = splitter.scan(Body::snappy_v1(block.clone()), &rules, None).expect("scans");
            take_parts(&mut splitter);
            scan
        });
    });
}

fn named(stage: &str, label_remove: bool) -> String {
    if label_remove { format!("{stage}, label removed") } else { stage.to_owned() }
}

/// Heads as Prometheus and Mimir send them.
fn heads(c: &mut Criterion) {
    let request = b"POST /api/v1/push HTTP/1.1\r\nHost: tenantry.monitoring.svc:8081\r\n\
        User-Agent: Prometheus/2.42.0\r\nContent-Length: 171044\r\nContent-Encoding: snappy\r\n\
        Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
    let mut group = c.benchmark_group("heads");
    group.throughput(Throughput::Bytes(request.len() as u64));
    group.bench_function("a request's", |b| {
        b.iter(|| RequestHead::parse(black_box(request), "X-Scope-OrgID").expect("is one"));
    });
    group.throughput(Throughput::Bytes(response.len() as u64));
    group.bench_function("a response's", |b| {
        b.iter(|| ResponseHead::parse(black_box(response), SystemTime::UNIX_EPOCH).expect("is one"));
    });
    group.finish();
}

/// As many parts of a tenant as fit into one upstream request, each with 200 series.
fn merge(c: &mut Criterion) {
    const FRAGMENTS: usize = 32;
    let limits = LaneLimits {
        inflight_early_max: 0,
        inflight_max: 1,
        inflight_full_max: 8,
        linger: Duration::ZERO,
        fragments_max: FRAGMENTS,
        inflated_bytes_max: INFLATED_BYTES_MAX,
    };
    let part = a_part();
    let terms = tenantry::config::parse("", "", []).expect("the defaults are sound").terms;
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::ElementsAndBytes {
        elements: u64::from(part.series) * FRAGMENTS as u64,
        bytes: u64::from(part.inflated_bytes) * FRAGMENTS as u64,
    });
    group.bench_function(BenchmarkId::new("lane", FRAGMENTS), |b| {
        b.iter_batched(
            || (0..FRAGMENTS).map(|_| fragment(part.clone(), &terms)).collect::<Vec<_>>(),
            |fragments| {
                let mut lane = Lane::default();
                fragments.into_iter().for_each(|fragment| lane.push(fragment));
                let Next::Send(batch) = lane.next(Instant::now(), &limits) else { return None };
                let slices: Vec<Bytes> = batch.iter().map(|f| f.part.elements.clone()).collect();
                Some((batch, slices))
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Ten parts of a tenant in Remote Write 2.0: merged, and deflated for ten requests. They come from splitting, or each
/// is a request of its own.
fn merge_v2(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge, 2.0");
    for series in [20_usize, 50, 100, 200, 400] {
        group.throughput(Throughput::Elements(10 * series as u64));
        let parts: Vec<Part> = (0..10).map(|at| part_v2(series, 2, at)).collect();
        let passthroughs: Vec<Part> = (0..10).map(|at| part_v2(series, 1, at)).collect();
        eprintln!(
            "{series} series: {} bytes, {} as passthrough",
            parts[0].inflated_bytes, passthroughs[0].inflated_bytes
        );
        let mut merger = Merger::default();
        group.bench_function(BenchmarkId::new("split", series), |b| {
            b.iter(|| merger.merge(black_box(&parts), INFLATED_BYTES_MAX));
        });
        group.bench_function(BenchmarkId::new("passthrough", series), |b| {
            b.iter(|| merger.merge(black_box(&passthroughs), INFLATED_BYTES_MAX));
        });
        group.bench_function(BenchmarkId::new("apart", series), |b| {
            b.iter(|| parts.iter().filter_map(|part| merger.deflate(black_box(part))).count());
        });
    }
    group.finish();
}

/// The first part of a request of so many tenants in Remote Write 2.0. `sender` tells requests apart.
fn part_v2(series: usize, tenants: usize, sender: usize) -> Part {
    let mut v1 = fleet::request(series * tenants, tenants);
    for label in v1.timeseries.iter_mut().flat_map(|series| &mut series.labels) {
        if &label.name[..] == b"instance" || &label.name[..] == b"pod" {
            label.value = [&label.value[..], sender.to_string().as_bytes()].concat().into();
        }
    }
    let body = Body::snappy_v2(Request::from(&v1).to_block());
    let mut splitter = Splitter::new();
    splitter.scan(body, &split_rules(&tenant_rules(false)), None).expect("scans");
    splitter.next_part().expect("there is one")
}

criterion_group!(benches, heads, stages, merge, merge_v2);
criterion_main!(benches);
