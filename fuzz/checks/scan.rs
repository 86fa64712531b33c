//! Bytes are taken for an inflated request, and split by several sets of rules. What comes out has to be what
//! prost sees in them, and what prost does not take must not come through.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[path = "../../tests/support/oracle.rs"]
pub(crate) mod oracle;

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "common.rs"]
pub(crate) mod common;

use bytes::Bytes;
use common::{inflate, rich_tenant_rules, tenant_rules};
use oracle::Refusal;
use tenantry::model::{HaLabels, Part, SplitLimits, V2Handling};
use tenantry::split::{Body, Metadata, Scan, SplitError, SplitRules, Splitter};
use tenantry::tenant::TenantRules;

/// Splits `request` and holds what comes out against the oracle.
pub(crate) fn compare(
    splitter: &mut Splitter,
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<(Scan, Vec<Part>), SplitError> {
    let expected = oracle::expect(request, rules, source);
    let block = snap::raw::Encoder::new().compress_vec(request).expect("compresses");
    let scan = match splitter.scan(Body::snappy_v1(Bytes::from(block)), rules, source) {
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
    assert_eq!(scan.inflated_bytes, request.len());
    assert_eq!((scan.series, scan.samples), (expected.series, expected.samples));
    assert_eq!((scan.refused.missing, scan.refused.invalid), (expected.missing, expected.invalid));
    assert_eq!(scan.refused.samples, expected.refused_samples);
    assert_eq!(
        (scan.refused.dropped, scan.refused.dropped_samples),
        (expected.dropped, expected.dropped_samples)
    );
    assert_eq!(scan.refused.example.is_some(), expected.missing + expected.invalid > 0);
    assert_eq!(scan.metadata_dropped, expected.metadata_dropped);
    assert_eq!(scan.unknown_fields_dropped, expected.unknown_fields_dropped);
    assert_eq!(scan.passthrough, expected.passthrough);
    assert_eq!(parts.len(), expected.parts.len());
    for (part, expected) in parts.iter().zip(&expected.parts) {
        assert_eq!(part.tenant.as_str(), expected.tenant);
        assert_eq!(inflate(part), expected.bytes);
        assert_eq!((part.series, part.samples), (expected.series, expected.samples));
        assert_eq!(part.merge, expected.merge);
    }
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
        metadata: Metadata::ToDefault,
        ha: Some(&ha),
        loki_label_remove: false,
        remote_write_v2: V2Handling::Pass,
        limits,
    };
    let kept = SplitRules { tenant: &kept, ..rich };
    // One splitter for all: what it keeps of one request must not show in the next.
    let mut splitter = Splitter::new();
    for (rules, source) in [(&rich, Some("s")), (&plain, None), (&kept, None)] {
        let _ = compare(&mut splitter, request, rules, source);
    }
}
