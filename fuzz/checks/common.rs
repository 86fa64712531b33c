//! What the checks of several formats share: rules with names so short that chance finds them, and an inflater that is
//! not ours.
#![allow(dead_code, reason = "not every check needs all of it")]

use std::sync::{Arc, LazyLock};

use tenantry::model::Part;
use tenantry::tenant::map::{MapRule, Matches, Target, TenantAllow, TenantMap};
use tenantry::tenant::{IdRules, Policy, TenantRules};
use tenantry::wire::varint;

/// Rules that use nothing.
pub(crate) fn tenant_rules() -> TenantRules {
    TenantRules::of_label(b"t")
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
        map: Some(map()),
        allow: Some(allow()),
    }
}

/// Values of two and more letters stand for one of few tenants, or for none.
pub(crate) fn map() -> Arc<TenantMap> {
    /// Compiling takes longer than a check.
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

/// What one letter, or two, may name.
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

/// `elements` behind the length of what they inflate to, inflated by snap.
pub(crate) fn inflate_elements(inflated_bytes: usize, elements: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    varint::put(&mut block, inflated_bytes as u64);
    block.extend_from_slice(elements);
    snap::raw::Decoder::new().decompress_vec(&block).expect("elements are a block behind their length")
}
