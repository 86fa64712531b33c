//! Splits bytes as an inflated Remote Write 2.0 request by several sets of rules. The parts must be those that the
//! oracle makes with prost, and what prost refuses must be refused. Then merges parts of all these splits: the request
//! must have the series of all of them.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "common.rs"]
pub(crate) mod common;

use std::collections::BTreeSet;

use common::{agree, ask, compare_left_out, deflate, inflate, inflate_elements, merge_key, tenant_rules};
use prost::Message;
use tenantry::limits::{MERGED_PART_BYTES_MAX, MERGED_PASSTHROUGH_BYTES_MAX};
use tenantry::model::{HaLabels, MergeKey, Part, Protocol, SplitLimits, V2Handling};
use tenantry::split::{Body, Merged, Merger, Scan, SplitError, SplitRules, Splitter};
use tenantry::tenant::TenantRules;
use testkit::oracle::remote_write_v1::ShallowRequest;
use testkit::oracle::remote_write_v2::{self, Expected, Label};
use testkit::oracle::{Refusal, ShallowLabel};

/// Splits `request`.
pub(crate) fn split(
    splitter: &mut Splitter,
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<(Scan, Vec<Part>), SplitError> {
    common::split(splitter, Body::snappy_v2(deflate(request)), request.len(), rules, source)
}

/// The expected result of `request`.
pub(crate) fn expect(
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<Expected, Refusal> {
    ask(rules, source, rules.tenant.label_remove, |rules| remote_write_v2::expect(request, rules))
}

/// Splits `request` and compares the parts with the oracle.
pub(crate) fn compare(
    splitter: &mut Splitter,
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<(Scan, Vec<Part>), SplitError> {
    let ours = split(splitter, request, rules, source);
    let expected = agree(&ours, expect(request, rules, source));
    let (scan, parts) = ours?;
    let Some(expected) = expected else { return Ok((scan, parts)) };
    compare_counts(&scan, &expected);
    compare_left_out(&scan, &expected.left_out);
    assert_eq!(scan.unknown_fields_dropped, expected.unknown_fields_dropped);
    assert_eq!(scan.passthrough, expected.passthrough);
    assert_eq!(parts.len(), expected.parts.len());
    for (part, expected_part) in parts.iter().zip(&expected.parts) {
        assert_eq!(part.protocol, Protocol::RemoteWriteV2);
        assert_eq!(part.tenant.as_str(), expected_part.tenant);
        assert_eq!((part.series as usize, part.samples), (expected_part.series.len(), expected_part.samples));
        let kinds = (expected_part.histograms, expected_part.exemplars);
        assert_eq!((part.histograms, part.exemplars), kinds);
        let bytes_max = if scan.passthrough { MERGED_PASSTHROUGH_BYTES_MAX } else { MERGED_PART_BYTES_MAX };
        let is_large = part.inflated_bytes as usize > bytes_max;
        let merge = if is_large { MergeKey::Alone } else { merge_key(&expected_part.merge) };
        assert_eq!(part.merge, merge);
        let bytes = inflate(part);
        if scan.passthrough {
            assert_eq!(bytes, request);
            continue;
        }
        assert!(bytes.starts_with(&expected.scalars));
        let (series, symbols, used) = remote_write_v2::resolve_part(&bytes);
        assert_eq!(series, expected_part.series);
        compare_symbols(&symbols, &used, expected.unique_symbols);
    }
    Ok((scan, parts))
}

/// Merges those of the parts that may be merged, up to `bytes_max`, and compares the request with them.
pub(crate) fn merge(merger: &mut Merger, parts: &[Part], bytes_max: usize) {
    let mut parts: Vec<&Part> = parts.iter().filter(|part| part.merge != MergeKey::Alone).collect();
    let Some(Merged { elements, inflated_bytes, parts: count }) =
        merger.merge(parts.iter().copied(), bytes_max)
    else {
        return assert!(parts.is_empty());
    };
    assert!(count > 0 && (count == parts.len() || bytes_max < usize::MAX));
    assert!(count == 1 || inflated_bytes as usize <= bytes_max);
    let request = inflate_elements(inflated_bytes as usize, &elements);
    let (series, symbols, used) = remote_write_v2::resolve_part(&request);
    compare_symbols(&symbols, &used, true);
    parts.truncate(count);
    let expected: Vec<_> =
        parts.iter().flat_map(|part| remote_write_v2::resolve_part(&inflate(part)).0).collect();
    assert_eq!(series, expected);
}

/// The first symbol is empty. Each of the others is used, and none is there twice if they are to be unique.
fn compare_symbols(symbols: &[Vec<u8>], used: &BTreeSet<u64>, are_unique: bool) {
    assert!(symbols[0].is_empty());
    assert!((1..symbols.len() as u64).all(|at| used.contains(&at)), "{symbols:?} {used:?}");
    assert!(symbols[1..].iter().all(|symbol| !symbol.is_empty()));
    let unique: BTreeSet<_> = symbols.iter().collect();
    assert!(unique.len() == symbols.len() || !are_unique, "{symbols:?}");
}

fn compare_counts(scan: &Scan, expected: &Expected) {
    assert_eq!((scan.series, scan.samples), (expected.series, expected.samples));
    assert_eq!((scan.histograms, scan.exemplars), (expected.histograms, expected.exemplars));
}

/// Downgrades `request`. Each part is a request of 1.0 with only its tenant's series, in their order.
pub(crate) fn downgrade(
    splitter: &mut Splitter,
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) {
    let expected = expect(request, rules, source);
    let Ok((scan, parts)) = split(splitter, request, rules, source) else { return };
    let Ok(expected) = expected else {
        // A downgrade does not check series that are left out, and drops unknown fields, so it may accept more.
        return;
    };
    compare_counts(&scan, &expected);
    assert!(!scan.passthrough);
    let mut series = scan.refused.series() + scan.lost.series;
    for part in &parts {
        assert_eq!(part.protocol, Protocol::RemoteWriteV1);
        let whole = ShallowRequest::decode(inflate(part).as_slice()).expect("a request of 1.0");
        let theirs =
            expected.parts.iter().find(|theirs| theirs.tenant == part.tenant.as_str()).expect("a tenant");
        let mut left = theirs.series.iter();
        for ours in &whole.timeseries {
            let label = |bytes: &Vec<u8>| ShallowLabel::decode(bytes.as_slice()).expect("a label");
            let labels: Vec<Label> =
                ours.labels.iter().map(label).map(|label| (label.name, label.value)).collect();
            assert!(left.any(|series| series.labels == labels), "{labels:?}");
        }
        let samples: usize =
            whole.timeseries.iter().map(|one| one.samples.len() + one.histograms.len()).sum();
        assert_eq!((part.series as usize, part.samples as usize), (whole.timeseries.len(), samples));
        assert!(!whole.timeseries.is_empty() || !whole.metadata.is_empty());
        series += u64::from(part.series);
    }
    // All other series had only metadata.
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
    // One splitter for all rules: nothing of one request may show in the next.
    let mut splitter = Splitter::new();
    let mut all = Vec::new();
    for (rules, source) in [(&rich, Some("s")), (&plain, None), (&kept, None)] {
        if let Ok((_, parts)) = compare(&mut splitter, request, rules, source) {
            all.extend(parts);
        }
        let rules = SplitRules { remote_write_v2: V2Handling::Downgrade, ..*rules };
        downgrade(&mut splitter, request, &rules, source);
    }
    let mut merger = Merger::default();
    for bytes_max in [usize::MAX, request.len()] {
        merge(&mut merger, &all, bytes_max);
    }
}
