//! How often a request allocates on its way through the splitter: for itself and for each part, never for each series.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test, and what it shares with benches"
)]

#[path = "../benches/fleet/mod.rs"]
mod fleet;

use allocation_counter::measure;
use fleet::exports::{self, Named};
use fleet::{logs, request, split_rules, take_parts, tenant_rules};
use tenantry::model::{Notation, Protocol, Signal};
use tenantry::split::{Body, Compression, Splitter};
use testkit::proto::deflate;
use testkit::proto_v2::Request;

/// The allocations of a request, in a splitter that has seen two like it.
fn allocations(body: &Body) -> u64 {
    let tenant = match body.protocol.export() {
        Some(_) => exports::tenant_rules(),
        None => tenant_rules(false),
    };
    let rules = split_rules(&tenant);
    let mut splitter = Splitter::new();
    let mut split = || {
        splitter.scan(body.clone(), &rules, None).unwrap();
        take_parts(&mut splitter);
    };
    (0..2).for_each(|_| split());
    measure(split).count_total
}

/// A part takes three today: its tenant, its bytes, and the count of their owners.
const PER_PART: u64 = 3;
/// A push in JSON takes up to five of its own today, and other requests none.
const PER_REQUEST: u64 = 8;

#[test]
fn a_request_allocates_for_parts_and_not_for_series() {
    for (series, tenants) in [(2_000, 10), (100, 100)] {
        let v1 = request(series, tenants);
        let v2 = Request::from(&v1);
        for body in [Body::snappy_v1(v1.to_block()), Body::snappy_v2(v2.to_block())] {
            let allocations = allocations(&body);
            assert!(allocations > 0, "nothing was counted");
            assert!(
                allocations <= PER_REQUEST + PER_PART * tenants as u64,
                "{:?}, {series} series of {tenants} tenants: {allocations} allocations",
                body.protocol
            );
        }
    }
}

#[test]
fn a_push_of_logs_allocates_for_parts_and_not_for_entries() {
    let json = |text: String| (Protocol::LokiJson, Compression::Identity, text.into());
    for (protocol, compression, bytes) in [
        (Protocol::Loki, Compression::Snappy, deflate(&logs::protobuf(true))),
        (Protocol::Loki, Compression::Snappy, deflate(&logs::protobuf(false))),
        json(logs::json()),
        json(logs::json_streams()),
    ] {
        let allocations = allocations(&Body { protocol, compression, bytes });
        assert!(allocations <= PER_REQUEST + PER_PART * 10, "{protocol:?}: {allocations} allocations");
    }
}

#[test]
fn an_export_allocates_for_parts_and_not_for_resources_or_items() {
    use Compression::{Gzip, Identity, Snappy, Zstd};
    let most = PER_REQUEST + PER_PART * 10;
    for signal in Signal::ALL {
        for notation in [Notation::Protobuf, Notation::Json] {
            for (named, compression) in [
                (Named::ByResource, Identity),
                (Named::ByResource, Gzip),
                (Named::ByResource, Zstd),
                (Named::ByResource, Snappy),
                (Named::ByItem, Identity),
            ] {
                let allocations = allocations(&exports::body(signal, notation, compression, named));
                let what = format!("{signal:?}, {notation:?}, {compression:?}, {named:?}");
                assert!(allocations > 0 && allocations <= most, "{what}: {allocations} allocations");
            }
        }
    }
}
