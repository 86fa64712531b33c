//! Splits bytes as an inflated Loki push by several sets of rules. The parts must be those that the oracle makes with
//! prost, and what prost refuses must be refused.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "common.rs"]
pub(crate) mod common;

use common::{agree, ask, compare_left_out, compare_parts, deflate, split, tenant_rules};
use tenantry::model::{Part, Protocol, SplitLimits};
use tenantry::split::{Body, Compression, Scan, SplitError, SplitRules, Splitter};
use tenantry::tenant::TenantRules;
use testkit::oracle::loki;

/// Rules that use everything there is.
fn rich_tenant_rules() -> TenantRules {
    TenantRules {
        labels: vec![(*b"t").into(), (*b"tenant").into(), (*b"__name__").into()],
        ..common::rich_tenant_rules()
    }
}

/// An inflated push as a body.
pub(crate) fn body(push: &[u8]) -> Body {
    Body { protocol: Protocol::Loki, compression: Compression::Snappy, bytes: deflate(push) }
}

/// Splits `push` and compares the parts with the oracle.
pub(crate) fn compare(
    splitter: &mut Splitter,
    push: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<(Scan, Vec<Part>), SplitError> {
    let ours = split(splitter, body(push), push.len(), rules, source);
    let expected = ask(rules, source, rules.loki_label_remove, |rules| loki::expect(push, rules));
    let expected = agree(&ours, expected);
    let (scan, parts) = ours?;
    let Some(expected) = expected else { return Ok((scan, parts)) };
    assert_eq!((scan.series, scan.samples), (expected.streams, expected.entries));
    compare_left_out(&scan, &expected.left_out);
    assert_eq!(scan.metadata_dropped, 0);
    assert_eq!(scan.unknown_fields_dropped, expected.unknown_fields_dropped);
    assert_eq!(scan.passthrough, expected.passthrough);
    compare_parts(&parts, &expected.parts);
    assert!(parts.iter().all(|part| part.protocol == Protocol::Loki));
    Ok((scan, parts))
}

/// What the fuzz target does.
pub(crate) fn check(push: &[u8]) {
    let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 4 };
    let (plain, rich) = (tenant_rules(), rich_tenant_rules());
    let plain = SplitRules::new(&plain, limits);
    let rich = SplitRules { tenant: &rich, loki_label_remove: true, ..plain };
    let kept = SplitRules { loki_label_remove: false, ..rich };
    // One splitter for all rules: nothing of one push may show in the next.
    let mut splitter = Splitter::new();
    for (rules, source) in [(&rich, Some("s")), (&plain, None), (&kept, None)] {
        let _ = compare(&mut splitter, push, rules, source);
    }
}
