//! Splits bytes as an inflated Remote Write 1.0 request by several sets of rules. The parts must be those that the
//! oracle makes with prost, and what prost refuses must be refused.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "common.rs"]
pub(crate) mod common;

use common::{agree, ask, compare_left_out, compare_parts, deflate, rich_tenant_rules, split, tenant_rules};
use tenantry::model::{HaLabels, Part, SplitLimits, V2Handling};
use tenantry::split::{Body, Metadata, Scan, SplitError, SplitRules, Splitter};
use tenantry::tenant::{Grant, TenantRules};
use testkit::oracle::Refusal;
use testkit::oracle::remote_write_v1::{self, Expected};

/// The expected result of `request`.
pub(crate) fn expect(
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<Expected, Refusal> {
    ask(rules, source, rules.tenant.label_remove, |rules| remote_write_v1::expect(request, rules))
}

/// Splits `request` and compares the parts with the oracle.
pub(crate) fn compare(
    splitter: &mut Splitter,
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<(Scan, Vec<Part>), SplitError> {
    let ours = split(splitter, Body::snappy_v1(deflate(request)), request.len(), rules, source);
    let expected = agree(&ours, expect(request, rules, source));
    let (scan, parts) = ours?;
    let Some(expected) = expected else { return Ok((scan, parts)) };
    assert_eq!((scan.series, scan.samples), (expected.series, expected.samples));
    compare_left_out(&scan, &expected.left_out);
    assert_eq!(scan.metadata_dropped, expected.metadata_dropped);
    assert_eq!(scan.unknown_fields_dropped, expected.unknown_fields_dropped);
    assert_eq!(scan.passthrough, expected.passthrough);
    compare_parts(&parts, &expected.parts);
    Ok((scan, parts))
}

/// What the fuzz target does.
pub(crate) fn check(request: &[u8]) {
    let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 4 };
    let ha = HaLabels { cluster: (*b"c").into(), replica: (*b"r").into() };
    let (plain, rich) = (tenant_rules(), rich_tenant_rules());
    let kept = TenantRules { label_remove: false, ..rich.clone() };
    let plain = SplitRules::new(&plain, limits);
    let rich = SplitRules {
        tenant: &rich,
        grant: &Grant::Any,
        metadata: Metadata::ToDefault,
        ha: Some(&ha),
        loki_label_remove: false,
        remote_write_v2: V2Handling::Pass,
        limits,
    };
    let kept = SplitRules { tenant: &kept, ..rich };
    // One splitter for all rules: nothing of one request may show in the next.
    let mut splitter = Splitter::new();
    for (rules, source) in [(&rich, Some("s")), (&plain, None), (&kept, None)] {
        let _ = compare(&mut splitter, request, rules, source);
    }
}
