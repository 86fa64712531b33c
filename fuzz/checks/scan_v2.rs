//! Bytes are taken for an inflated Remote Write 2.0 request, and split by several sets of rules. What comes out has to be
//! what prost sees in them, and what prost does not take must not come through.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[path = "../../tests/support/v2_oracle.rs"]
pub(crate) mod oracle;

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "common.rs"]
pub(crate) mod common;

use std::collections::BTreeSet;

use bytes::Bytes;
use common::{inflate, tenant_rules};
use oracle::{Expected, Label, Refusal};
use prost::Message;
use tenantry::model::{HaLabels, MergeKey, Part, Protocol, SplitLimits, V2Handling};
use tenantry::split::{Body, Scan, SplitError, SplitRules, Splitter};
use tenantry::tenant::TenantRules;

/// Splits `request`.
pub(crate) fn split(
    splitter: &mut Splitter,
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<(Scan, Vec<Part>), SplitError> {
    let block = snap::raw::Encoder::new().compress_vec(request).expect("compresses");
    let scan = splitter.scan(Body::snappy_v2(Bytes::from(block)), rules, source);
    let parts: Vec<Part> = std::iter::from_fn(|| splitter.next_part()).collect();
    let scan = scan.inspect_err(|error| {
        assert!(parts.is_empty());
        assert!(!error.to_string().contains(|c: char| c.is_control()), "{error:?}");
    })?;
    assert_eq!(parts.len(), scan.tenants);
    assert_eq!(scan.inflated_bytes, request.len());
    Ok((scan, parts))
}

/// Splits `request` and holds what comes out against the oracle.
pub(crate) fn compare(
    splitter: &mut Splitter,
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<(Scan, Vec<Part>), SplitError> {
    let expected = oracle::expect(request, rules, source);
    let (scan, parts) = match split(splitter, request, rules, source) {
        Ok(split) => split,
        Err(error) => {
            match expected {
                Err(Refusal::Protobuf(_)) => {}
                Err(Refusal::Reason(reason)) => assert_eq!(reason, error.reason(), "{error}"),
                Ok(expected) => panic!("refused: {error}; but {expected:?}"),
            }
            return Err(error);
        }
    };
    let expected = match expected {
        Ok(expected) => expected,
        Err(Refusal::Protobuf(true)) => return Ok((scan, parts)),
        Err(refusal) => panic!("taken: {scan:?}; but {refusal:?}"),
    };
    compare_counts(&scan, &expected);
    assert_eq!(scan.unknown_fields_dropped, expected.unknown_fields_dropped);
    assert_eq!(scan.passthrough, expected.passthrough);
    assert_eq!(scan.refused.example.is_some(), expected.missing + expected.invalid > 0);
    assert_eq!(parts.len(), expected.parts.len());
    for (part, expected_part) in parts.iter().zip(&expected.parts) {
        assert_eq!((part.protocol, &part.merge), (Protocol::RemoteWriteV2, &MergeKey::Alone));
        assert_eq!(part.tenant.as_str(), expected_part.tenant);
        assert_eq!((part.series as usize, part.samples), (expected_part.series.len(), expected_part.samples));
        let bytes = inflate(part);
        if scan.passthrough {
            assert_eq!(bytes, request);
            continue;
        }
        assert!(bytes.starts_with(&expected.scalars));
        let (series, symbols, used) = oracle::resolve_part(&bytes);
        assert_eq!(series, expected_part.series);
        compare_symbols(&symbols, &used, &expected);
    }
    Ok((scan, parts))
}

/// The first is empty; the others are used, each, and none is there twice that did not come in twice.
fn compare_symbols(symbols: &[Vec<u8>], used: &BTreeSet<u64>, expected: &Expected) {
    assert!(symbols[0].is_empty());
    assert!((1..symbols.len() as u64).all(|at| used.contains(&at)), "{symbols:?} {used:?}");
    assert!(symbols[1..].iter().all(|symbol| !symbol.is_empty()));
    let unique: BTreeSet<_> = symbols.iter().collect();
    assert!(unique.len() == symbols.len() || !expected.unique_symbols, "{symbols:?}");
}

fn compare_counts(scan: &Scan, expected: &Expected) {
    assert_eq!((scan.series, scan.samples), (expected.series, expected.samples));
    assert_eq!((scan.histograms, scan.exemplars), (expected.histograms, expected.exemplars));
}

#[derive(Clone, PartialEq, Message)]
struct ShallowV1 {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<ShallowV1Series>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    metadata: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowV1Series {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<ShallowV1Label>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    samples: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    exemplars: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    histograms: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowV1Label {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Downgrades `request`. Each part is a request of 1.0, and has no series but its tenant's, in their order.
pub(crate) fn downgrade(
    splitter: &mut Splitter,
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) {
    let expected = oracle::expect(request, rules, source);
    let Ok((scan, parts)) = split(splitter, request, rules, source) else { return };
    let Ok(expected) = expected else {
        // Nothing is asked of series that are left out, and unknown numbers are.
        return;
    };
    compare_counts(&scan, &expected);
    assert!(!scan.passthrough);
    let mut series = scan.refused.series() + scan.lost.series;
    for part in &parts {
        assert_eq!(part.protocol, Protocol::RemoteWriteV1);
        let whole = ShallowV1::decode(inflate(part).as_slice()).expect("a request of 1.0");
        let theirs =
            expected.parts.iter().find(|theirs| theirs.tenant == part.tenant.as_str()).expect("a tenant");
        let mut left = theirs.series.iter();
        for ours in &whole.timeseries {
            let labels: Vec<Label> =
                ours.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect();
            assert!(left.any(|series| series.labels == labels), "{labels:?}");
        }
        let samples: usize =
            whole.timeseries.iter().map(|one| one.samples.len() + one.histograms.len()).sum();
        assert_eq!((part.series as usize, part.samples as usize), (whole.timeseries.len(), samples));
        assert!(!whole.timeseries.is_empty() || !whole.metadata.is_empty());
        series += u64::from(part.series);
    }
    // What is left had metadata alone.
    assert!(series <= scan.series);
}

/// What the fuzz target does.
pub(crate) fn check(request: &[u8]) {
    let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 4 };
    let ha = HaLabels { cluster: (*b"c").into(), replica: (*b"r").into() };
    let (plain, rich) =
        (tenant_rules(), TenantRules { map: None, allow: None, ..common::rich_tenant_rules() });
    let kept = TenantRules { label_remove: false, ..rich.clone() };
    let plain = SplitRules::new(&plain, limits);
    let rich = SplitRules { tenant: &rich, ha: Some(&ha), ..plain };
    let kept = SplitRules { tenant: &kept, ..rich };
    // One splitter for all: what it keeps of one request must not show in the next.
    let mut splitter = Splitter::new();
    for (rules, source) in [(&rich, Some("s")), (&plain, None), (&kept, None)] {
        let _ = compare(&mut splitter, request, rules, source);
        let rules = SplitRules { remote_write_v2: V2Handling::Downgrade, ..*rules };
        downgrade(&mut splitter, request, &rules, source);
    }
}
