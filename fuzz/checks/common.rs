//! What the checks of several formats share: rules with names so short that a fuzzer finds them, an independent
//! inflater, and the comparison with an oracle.
#![allow(dead_code, reason = "not every check needs all of it")]

use std::sync::{Arc, LazyLock};

use tenantry::limits::REQUEST_SCALARS_BYTES_MAX;
use tenantry::model::{HaReplica, MergeKey, Part};
use tenantry::split::{Body, Metadata, Scan, SplitError, SplitRules, Splitter};
use tenantry::tenant::map::{MapRule, Matches, Target, TenantAllow, TenantMap};
use tenantry::tenant::{IdRules, NamedBy, Policy, TenantError, TenantRules};
use tenantry::wire::loki::labels::Labels;
use tenantry::wire::varint;
use testkit::oracle::{LeftOut, Merge, NoTenant, Refusal, Rules};

/// Rules that use nothing.
pub(crate) fn tenant_rules() -> TenantRules {
    TenantRules::of_label(b"t")
}

/// Rules that use everything there is.
pub(crate) fn rich_tenant_rules() -> TenantRules {
    TenantRules {
        named_by: NamedBy::Label,
        labels: vec![(*b"t").into(), (*b"tenant").into(), (*b"").into()],
        prefix: "p-".into(),
        prefix_prefer_source: true,
        label_remove: true,
        default: Some("d".into()),
        id_rules: IdRules::Thanos,
        on_missing: Policy::Drop,
        on_invalid: Policy::Drop,
        map: Some(map()),
        allow: Some(allow()),
    }
}

/// Maps values of two and more letters to one of few tenants, or drops them.
pub(crate) fn map() -> Arc<TenantMap> {
    /// Shared, as compiling it takes longer than a check.
    static MAP: LazyLock<Arc<TenantMap>> = LazyLock::new(|| Arc::new(compile()));
    Arc::clone(&MAP)
}

fn compile() -> TenantMap {
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

/// Allows tenants of one letter, and some of two.
pub(crate) fn allow() -> Arc<TenantAllow> {
    static ALLOW: LazyLock<Arc<TenantAllow>> = LazyLock::new(|| Arc::new(few()));
    Arc::clone(&ALLOW)
}

fn few() -> TenantAllow {
    TenantAllow::new(["a", "b", "c", "d*"].map(str::to_owned).to_vec()).expect("compiles")
}

/// What a part inflates to, by snap.
pub(crate) fn inflate(part: &Part) -> Vec<u8> {
    inflate_elements(part.inflated_bytes as usize, &part.elements)
}

/// Inflates `elements`, for which snap needs the inflated length in front.
pub(crate) fn inflate_elements(inflated_bytes: usize, elements: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    varint::put(&mut block, inflated_bytes as u64);
    block.extend_from_slice(elements);
    snap::raw::Decoder::new().decompress_vec(&block).expect("elements are a block behind their length")
}

/// A block of these bytes, by snap.
pub(crate) fn deflate(inflated: &[u8]) -> bytes::Bytes {
    snap::raw::Encoder::new().compress_vec(inflated).expect("compresses").into()
}

/// Splits `body`, which inflates to `inflated_bytes`.
pub(crate) fn split(
    splitter: &mut Splitter,
    body: Body,
    inflated_bytes: usize,
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<(Scan, Vec<Part>), SplitError> {
    let scan = splitter.scan(body, rules, source);
    let parts: Vec<Part> = std::iter::from_fn(|| splitter.next_part()).collect();
    let scan = scan.inspect_err(|error| {
        assert!(parts.is_empty());
        assert!(!error.to_string().contains(|c: char| c.is_control()), "{error:?}");
    })?;
    assert_eq!(parts.len(), scan.tenants);
    assert_eq!(scan.inflated_bytes, inflated_bytes);
    Ok((scan, parts))
}

/// Asks an oracle, with the rules translated into [`Rules`]. `label_remove` is the setting for the format.
pub(crate) fn ask<T>(
    rules: &SplitRules<'_>,
    source: Option<&str>,
    label_remove: bool,
    oracle: impl FnOnce(&Rules<'_>) -> T,
) -> T {
    let tenant = rules.tenant;
    let kept_out =
        |policy, reason, left| if policy == Policy::Reject { NoTenant::Refused(reason) } else { left };
    let resolve = |value: Option<&[u8]>| match tenant.resolve(value, source) {
        Ok(id) => Ok(id.as_str().to_owned()),
        Err(TenantError::Missing { .. }) => {
            Err(kept_out(tenant.on_missing, "missing_tenant", NoTenant::Missing))
        }
        Err(TenantError::Invalid { .. }) => {
            Err(kept_out(tenant.on_invalid, "invalid_tenant", NoTenant::Invalid))
        }
        // No rules have a grant other than `Any`.
        Err(TenantError::Denied { .. }) => unreachable!("everything is allowed"),
        Err(TenantError::Dropped { .. }) => Err(NoTenant::Dropped),
    };
    let cut = |text: &[u8], at: usize| {
        let mut labels = Labels::new(text);
        let mut next = || labels.take().expect("the oracle has read them").expect("and there are as many");
        (0..at).for_each(|_| drop(next()));
        next().cut
    };
    oracle(&Rules {
        labels: &tenant.labels,
        label_remove,
        resolve: &resolve,
        tenants_max: rules.limits.tenants_max,
        scalars_bytes_max: REQUEST_SCALARS_BYTES_MAX,
        metadata_to_default: !matches!(rules.metadata, Metadata::Drop),
        ha: rules.ha.map(|ha| (&*ha.cluster, &*ha.replica)),
        cut: &cut,
    })
}

/// Returns what the oracle expects if both accepted the request. Otherwise both must have refused it for the same
/// reason.
pub(crate) fn agree<E: std::fmt::Debug>(
    ours: &Result<(Scan, Vec<Part>), SplitError>,
    expected: Result<E, Refusal>,
) -> Option<E> {
    match (ours, expected) {
        (Ok(_), Ok(expected)) => Some(expected),
        (Ok(_), Err(Refusal::Protobuf(true))) | (Err(_), Err(Refusal::Protobuf(_))) => None,
        (Err(error), Err(Refusal::Reason(reason))) => {
            assert_eq!(reason, error.reason(), "{error}");
            None
        }
        (Err(error), Ok(expected)) => panic!("refused: {error}; but {expected:?}"),
        (Ok((scan, _)), Err(refusal)) => panic!("taken: {scan:?}; but {refusal:?}"),
    }
}

/// Compares what was left out with what the oracle leaves out.
pub(crate) fn compare_left_out(scan: &Scan, expected: &LeftOut) {
    let refused = &scan.refused;
    let ours = LeftOut {
        missing: refused.missing,
        invalid: refused.invalid,
        refused_samples: refused.samples,
        dropped: refused.dropped,
        dropped_samples: refused.dropped_samples,
    };
    assert_eq!(ours, *expected);
    assert_eq!(refused.example.is_some(), expected.missing + expected.invalid > 0);
}

/// Compares parts with the expected ones, byte by byte.
pub(crate) fn compare_parts(parts: &[Part], expected: &[testkit::oracle::Part]) {
    assert_eq!(parts.len(), expected.len());
    for (part, expected) in parts.iter().zip(expected) {
        assert_eq!(part.tenant.as_str(), expected.tenant);
        assert_eq!(inflate(part), expected.bytes);
        assert_eq!((part.series, part.samples), (expected.series, expected.samples));
        assert_eq!(part.merge, merge_key(&expected.merge));
    }
}

/// The key of parts that merge in this way.
pub(crate) fn merge_key(merge: &Merge) -> MergeKey {
    match merge.clone() {
        Merge::Alone => MergeKey::Alone,
        Merge::Ha(None) => MergeKey::Ha(None),
        Merge::Ha(Some((cluster, replica))) => {
            MergeKey::Ha(Some(Box::new(HaReplica { cluster: cluster.into(), replica: replica.into() })))
        }
    }
}
