//! Bytes are taken for an inflated Loki push, and split by several sets of rules. What comes out has to be what prost
//! sees in them, and what prost does not take must not come through.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[path = "../../tests/support/loki_oracle.rs"]
pub(crate) mod oracle;

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "common.rs"]
pub(crate) mod common;

use bytes::Bytes;
use common::{inflate, tenant_rules};
use oracle::Refusal;
use tenantry::model::{Part, Protocol, SplitLimits};
use tenantry::split::{Body, Compression, Scan, SplitError, SplitRules, Splitter};
use tenantry::tenant::TenantRules;

/// Rules that use everything there is.
fn rich_tenant_rules() -> TenantRules {
    TenantRules {
        labels: vec![(*b"t").into(), (*b"tenant").into(), (*b"__name__").into()],
        ..common::rich_tenant_rules()
    }
}

/// An inflated push as a body.
pub(crate) fn body(push: &[u8]) -> Body {
    let block = snap::raw::Encoder::new().compress_vec(push).expect("compresses");
    Body { protocol: Protocol::Loki, compression: Compression::Snappy, bytes: Bytes::from(block) }
}

/// Splits `push` and holds what comes out against the oracle.
pub(crate) fn compare(
    splitter: &mut Splitter,
    push: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<(Scan, Vec<Part>), SplitError> {
    let expected = oracle::expect(push, rules, source);
    let scan = match splitter.scan(body(push), rules, source) {
        Ok(scan) => scan,
        Err(error) => {
            match expected {
                Err(Refusal::Protobuf(_)) => {}
                Err(Refusal::Reason(reason)) => assert_eq!(reason, error.reason(), "{error}"),
                Ok(expected) => panic!("refused: {error}; but {expected:?}"),
            }
            assert_eq!(splitter.next_part(), None);
            assert!(!error.to_string().contains(|c: char| c.is_control()), "{error:?}");
            return Err(error);
        }
    };
    let parts: Vec<Part> = std::iter::from_fn(|| splitter.next_part()).collect();
    assert_eq!(parts.len(), scan.tenants);
    let expected = match expected {
        Ok(expected) => expected,
        Err(Refusal::Protobuf(true)) => return Ok((scan, parts)),
        Err(refusal) => panic!("taken: {scan:?}; but {refusal:?}"),
    };
    assert_eq!(scan.inflated_bytes, push.len());
    assert_eq!((scan.series, scan.samples), (expected.streams, expected.entries));
    assert_eq!((scan.refused.missing, scan.refused.invalid), (expected.missing, expected.invalid));
    assert_eq!(scan.refused.samples, expected.refused_entries);
    assert_eq!(
        (scan.refused.dropped, scan.refused.dropped_samples),
        (expected.dropped, expected.dropped_entries)
    );
    assert_eq!(scan.refused.example.is_some(), expected.missing + expected.invalid > 0);
    assert_eq!(scan.metadata_dropped, 0);
    assert_eq!(scan.unknown_fields_dropped, expected.unknown_fields_dropped);
    assert_eq!(scan.passthrough, expected.passthrough);
    assert_eq!(parts.len(), expected.parts.len());
    for (part, expected) in parts.iter().zip(&expected.parts) {
        assert_eq!(part.tenant.as_str(), expected.tenant);
        assert_eq!(inflate(part), expected.bytes);
        assert_eq!((part.series, part.samples), (expected.streams, expected.entries));
        assert_eq!((&part.merge, part.protocol), (&expected.merge, Protocol::Loki));
    }
    Ok((scan, parts))
}

/// What the fuzz target does.
pub(crate) fn check(push: &[u8]) {
    let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 4 };
    let (plain, rich) = (tenant_rules(), rich_tenant_rules());
    let plain = SplitRules::new(&plain, limits);
    let rich = SplitRules { tenant: &rich, loki_label_remove: true, ..plain };
    let kept = SplitRules { loki_label_remove: false, ..rich };
    // One splitter for all: what it keeps of one push must not show in the next.
    let mut splitter = Splitter::new();
    for (rules, source) in [(&rich, Some("s")), (&plain, None), (&kept, None)] {
        let _ = compare(&mut splitter, push, rules, source);
    }
}
