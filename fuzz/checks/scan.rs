//! Bytes are taken for an inflated request, and split by several sets of rules. What comes out has to be what
//! prost sees in them, and what prost does not take must not come through.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[path = "../../tests/support/oracle.rs"]
pub(crate) mod oracle;

use std::sync::Arc;

use bytes::Bytes;
use oracle::Refusal;
use tenantry::split::{Body, HaLabels, Part, Scan, SplitError, SplitLimits, SplitRules, Splitter};
use tenantry::tenant::map::{MapRule, Matches, Target, TenantAllow, TenantMap};
use tenantry::tenant::{IdRules, Policy, TenantRules};
use tenantry::wire::varint;

/// Rules with short names, so that chance finds them.
pub(crate) fn tenant_rules() -> TenantRules {
    TenantRules {
        labels: vec![(*b"t").into()],
        prefix: String::new(),
        prefix_prefer_source: false,
        label_remove: false,
        default: None,
        id_rules: IdRules::Mimir,
        on_missing: Policy::Reject,
        on_invalid: Policy::Reject,
        map: None,
        allow: None,
    }
}

/// Values of two and more letters stand for one of few tenants, or for none.
pub(crate) fn map() -> TenantMap {
    let rule = |matches: Matches, target| MapRule { matches, target };
    let tenant = |id: &str| Target::Tenant(id.to_owned());
    let rules = vec![
        rule(Matches::Exact("ab".to_owned()), tenant("a")),
        rule(Matches::Prefix("ba".to_owned()), Target::Drop),
        rule(Matches::Regex("([a-c])[a-c]+".to_owned()), tenant("$1")),
        rule(Matches::Exact("bad".to_owned()), tenant("never")),
    ];
    TenantMap::new(rules).expect("compiles")
}

/// What one letter, or two, may name.
pub(crate) fn allow() -> TenantAllow {
    TenantAllow::new(["a", "b", "c", "d*"].map(str::to_owned).to_vec()).expect("compiles")
}

/// Rules that use everything there is.
pub(crate) fn rich_tenant_rules() -> TenantRules {
    TenantRules {
        labels: vec![(*b"t").into(), (*b"tenant").into(), (*b"").into()],
        prefix: "p-".into(),
        prefix_prefer_source: true,
        label_remove: true,
        default: Some("d".into()),
        id_rules: IdRules::Thanos,
        on_missing: Policy::Drop,
        on_invalid: Policy::Drop,
        map: Some(Arc::new(map())),
        allow: Some(Arc::new(allow())),
    }
}

/// `elements` behind the length of what they inflate to, inflated by snap.
pub(crate) fn inflate(inflated_bytes: usize, elements: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    varint::put(&mut block, inflated_bytes as u64);
    block.extend_from_slice(elements);
    snap::raw::Decoder::new().decompress_vec(&block).expect("elements are a block behind their length")
}

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
        assert_eq!(inflate(part.inflated_bytes as usize, &part.elements), expected.bytes);
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
    let plain = SplitRules { tenant: &plain, metadata: false, ha: None, loki_label_remove: false, limits };
    let rich = SplitRules { tenant: &rich, metadata: true, ha: Some(&ha), loki_label_remove: false, limits };
    let kept = SplitRules { tenant: &kept, ..rich };
    // One splitter for all: what it keeps of one request must not show in the next.
    let mut splitter = Splitter::new();
    for (rules, source) in [(&rich, Some("s")), (&plain, None), (&kept, None)] {
        let _ = compare(&mut splitter, request, rules, source);
    }
}
