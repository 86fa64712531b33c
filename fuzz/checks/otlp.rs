//! Splits bytes as an inflated export by several sets of rules. Each tenant must get exactly the items that prost finds
//! for it, in the messages that they were in. Splitting a part again must change nothing.
#![allow(dead_code, reason = "the targets of OTLP share it")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "common.rs"]
pub(crate) mod common;

use std::collections::BTreeMap;

use tenantry::model::{Compression, MergeKey, Notation, Part, Protocol, Signal, SplitLimits};
use tenantry::split::{Body, Merger, ReplicaReader, Scan, SplitError, SplitRules, Splitter, halve};
use tenantry::tenant::{NamedBy, Policy, TenantRules};
use tenantry::wire::otlp::{Level, count_items, held};
use testkit::oracle::otlp::{Item, logs, metrics, naming, scopes, traces};

const LIMITS: SplitLimits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 4 };

pub(crate) fn plain_rules() -> TenantRules {
    TenantRules {
        named_by: NamedBy::Attribute,
        labels: vec![(*b"t").into(), (*b"tenant").into()],
        ..TenantRules::of_label(b"t")
    }
}

fn rich_rules() -> TenantRules {
    TenantRules { labels: plain_rules().labels, label_remove: false, ..common::rich_tenant_rules() }
}

fn body(protocol: Protocol, export: &[u8]) -> Body {
    Body { protocol, compression: Compression::Identity, bytes: export.to_vec().into() }
}

pub(crate) fn split(
    protocol: Protocol,
    export: &[u8],
    rules: &TenantRules,
) -> Result<(Scan, Vec<Part>), SplitError> {
    let mut splitter = Splitter::new();
    let scan = splitter.scan(body(protocol, export), &SplitRules::new(rules, LIMITS), Some("s"))?;
    let parts: Vec<Part> = std::iter::from_fn(|| splitter.next_part()).collect();
    assert_eq!(parts.len(), scan.tenants);
    Ok((scan, parts))
}

/// The items of each tenant, each with what it is in.
type ByTenant = BTreeMap<String, Vec<Vec<Vec<u8>>>>;

/// The names of the attributes that name a tenant.
pub(crate) fn names(rules: &TenantRules) -> Vec<&[u8]> {
    rules.labels.iter().map(|name| &**name).collect()
}

/// The items of each tenant, and whether the rules refuse the whole request.
fn by_tenant(items: &[Item], rules: &TenantRules) -> (ByTenant, bool) {
    let names = names(rules);
    let mut all = ByTenant::new();
    let mut rejects = false;
    for item in items {
        match rules.resolve(item.named(&names).map(str::as_bytes), Some("s")) {
            Ok(tenant) => all.entry(tenant.to_string()).or_default().push(item.encoded.clone()),
            Err(tenantry::tenant::TenantError::Missing { .. }) => {
                rejects |= rules.on_missing == Policy::Reject
            }
            Err(tenantry::tenant::TenantError::Invalid { .. }) => {
                rejects |= rules.on_invalid == Policy::Reject
            }
            Err(_) => {}
        }
    }
    (all, rejects)
}

/// Splits an export by these rules, and compares with what prost finds.
pub(crate) fn compare(signal: Signal, export: &[u8], rules: &TenantRules) -> Option<(Scan, Vec<Part>)> {
    let protocol = Protocol::Otlp(signal);
    let decode = match signal {
        Signal::Metrics => metrics,
        Signal::Logs => logs,
        Signal::Traces => traces,
    };
    let removed = if rules.label_remove { names(rules) } else { Vec::new() };
    let expected = decode(export, &removed).map(|items| by_tenant(&items, rules));
    let (scan, parts) = match split(protocol, export, rules) {
        Ok(split) => split,
        Err(SplitError::Tenant { .. }) => {
            // What prost refuses may have been refused for a tenant before. What has no items is none to prost.
            let refused = expected.is_err() || expected.is_ok_and(|(_, rejects)| rejects);
            assert!(refused || has_more_than_items(signal, export));
            return None;
        }
        // A field that is there twice is merged by prost.
        Err(_) => return None,
    };
    consistent(protocol, &scan, &parts, rules);
    if let Ok((expected, rejects)) = expected {
        assert!(!rejects);
        let got: BTreeMap<_, _> = parts.iter().map(|part| (part.tenant.to_string(), part)).collect();
        let with_items = got.iter().filter(|(_, part)| part.samples > 0).map(|(tenant, _)| tenant);
        assert!(expected.keys().eq(with_items), "{expected:?} {got:?}");
        // The others have unknown fields, or metrics without points.
        assert!(expected.len() == got.len() || has_more_than_items(signal, export), "{got:?}");
        for (tenant, items) in expected {
            let decoded = decode(&got[&tenant].elements, &[]).expect("a part is an export");
            let decoded: Vec<_> = decoded.into_iter().map(|item| item.encoded).collect();
            assert_eq!(decoded, items, "{tenant}");
        }
        // Without its attribute, a resource may name nobody.
        if !rules.label_remove {
            parts.iter().for_each(|part| names_no_other(part, rules));
        }
    }
    Some((scan, parts))
}

/// Checks that what names a scope of a part names the part's tenant, if the resource names none. A scope without items
/// is none of another tenant's, either.
fn names_no_other(part: &Part, rules: &TenantRules) {
    let names = names(rules);
    for [resource, scope] in scopes(&part.elements).expect("a part is an export") {
        let None = naming(&resource, &names) else { continue };
        let Some((_, value)) = naming(&scope, &names) else { continue };
        assert_eq!(rules.resolve(Some(value.as_bytes()), Some("s")).as_ref(), Ok(&part.tenant));
    }
}

/// Whether an export has unknown fields of bytes, or metrics.
fn has_more_than_items(signal: Signal, export: &[u8]) -> bool {
    let held = held(Notation::Protobuf, signal, Level::Export, export);
    held.is_ok_and(|held| held.metrics || held.unknown)
}

/// Checks what holds in either notation.
pub(crate) fn consistent(protocol: Protocol, scan: &Scan, parts: &[Part], rules: &TenantRules) {
    let (signal, notation) = protocol.export().expect("of OTLP");
    let samples: u64 = parts.iter().map(|part| u64::from(part.samples)).sum();
    assert_eq!(samples + scan.refused.samples + scan.refused.dropped_samples, scan.samples);
    for part in parts {
        let count = |part: &Part| count_items(notation, signal, Level::Export, &part.elements);
        assert_eq!(count(part), Ok(part.samples));
        assert_eq!(part.inflated_bytes as usize, part.elements.len());
        if rules.label_remove {
            // Without its attribute, a resource may name another tenant.
            continue;
        }
        let (again, parts) = split(protocol, &part.elements, rules).expect("a part can be split");
        assert!(again.passthrough && parts.len() == 1, "{again:?}");
        assert_eq!((&parts[0].tenant, &parts[0].elements), (&part.tenant, &part.elements));
        if let Some([first, second]) = halve(part) {
            assert_eq!(count(&first), Ok(first.samples));
            assert_eq!(count(&second), Ok(second.samples));
            assert_eq!(first.samples + second.samples, part.samples);
            assert!(first.samples > 0 && second.samples > 0);
        } else {
            assert!(part.samples < 2);
        }
    }
}

/// What the fuzz targets of the signals do.
pub(crate) fn check(signal: Signal, export: &[u8]) {
    let removes = TenantRules { label_remove: true, ..rich_rules() };
    for rules in [plain_rules(), rich_rules(), removes] {
        let _ = compare(signal, export, &rules);
    }
}

pub(crate) fn check_metrics(export: &[u8]) {
    check(Signal::Metrics, export);
}

pub(crate) fn check_logs(export: &[u8]) {
    check(Signal::Logs, export);
}

pub(crate) fn check_traces(export: &[u8]) {
    check(Signal::Traces, export);
}

/// The elements of the list of an export in JSON that has nothing else; `None` if it has, or a number for which
/// serde_json has no room.
pub(crate) fn elements(export: &[u8]) -> Option<Vec<serde_json::Value>> {
    let serde_json::Value::Object(members) = serde_json::from_slice(export).ok()? else { return None };
    let mut values = members.into_iter().map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(serde_json::Value::Array(list)), None) => Some(list),
        _ => None,
    }
}

/// Joins a part in JSON to itself, as a replay does. If it may share a request, all that it has is there twice.
fn check_join(signal: Signal, part: &Part) {
    let joins = ReplicaReader::new(None).read(part).key != MergeKey::Alone;
    let merged = Merger::default().merge([part, part], usize::MAX).expect("the first is whole");
    assert_eq!(merged.parts, 1 + usize::from(joins));
    assert_eq!(merged.inflated_bytes as usize, merged.elements.len());
    if !joins {
        assert_eq!(merged.elements, part.elements);
        return;
    }
    let count = count_items(Notation::Json, signal, Level::Export, &merged.elements);
    assert_eq!(count, Ok(2 * part.samples));
    serde_json::from_slice::<serde::de::IgnoredAny>(&merged.elements).expect("a request is JSON");
    if let Some(list) = elements(&part.elements) {
        assert_eq!(elements(&merged.elements), Some([&list[..], &list].concat()));
    }
}

/// What the fuzz target `otlp_json` does: a body in JSON as each of the signals. Each part is JSON, and whatever is an
/// item in the body is in one part.
pub(crate) fn check_json(export: &[u8]) {
    let removes = TenantRules { label_remove: true, ..rich_rules() };
    for signal in Signal::ALL {
        let protocol = Protocol::OtlpJson(signal);
        assert_eq!(protocol.export(), Some((signal, Notation::Json)));
        for rules in [plain_rules(), rich_rules(), removes.clone()] {
            let Ok((scan, parts)) = split(protocol, export, &rules) else { continue };
            for part in &parts {
                serde_json::from_slice::<serde::de::IgnoredAny>(&part.elements).expect("a part is JSON");
                check_join(signal, part);
            }
            consistent(protocol, &scan, &parts, &rules);
        }
    }
}
