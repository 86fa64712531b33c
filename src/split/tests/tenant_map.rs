//! Tenants by a map of the label's values, and tenants that are not allowed.

use std::sync::Arc;

use super::*;
use crate::limits::{KNOWN_VALUE_BYTES_MAX, KNOWN_VALUES_MAX};
use crate::tenant::map::{MapRule, Matches, Target, TenantAllow, TenantMap};

/// Rules with a map: a value of one letter is its tenant, longer values name their first letter, and `x…` is dropped.
fn mapped() -> Rules {
    Rules::with(|rules| {
        let rule = |matches, target| MapRule { matches, target };
        let map = TenantMap::new(vec![
            rule(Matches::Prefix("x".into()), Target::Drop),
            rule(Matches::Regex("([a-z]).+".into()), Target::Tenant("$1".into())),
        ]);
        rules.tenant.map = Some(Arc::new(map.unwrap()));
    })
}

#[test]
fn values_that_stand_for_one_tenant_make_one_part() {
    let of = |tenant: &str| series(&[("t", tenant)]);
    let mut rules = mapped();
    rules.tenant.default = Some("a".into());
    rules.tenant.prefix = "p-".into();
    rules.metadata = true;
    let request = [of("a1"), of("b1"), of("a"), of("a2"), series(&[]), of("a1"), metadata("m"), of("b")];
    let (scan, parts) = rules.split(&request);
    let a = [of("a1"), of("a"), of("a2"), series(&[]), of("a1"), metadata("m")].concat();
    assert_eq!(all_inflated(&parts), [("p-a", a), ("p-b", [of("b1"), of("b")].concat())]);
    assert_eq!(parts.iter().map(|part| (part.series, part.samples)).collect::<Vec<_>>(), [(5, 5), (2, 2)]);
    assert_eq!(scan.tenants, 2);
    // It is one tenant's request, whatever the values.
    let (scan, parts) = rules.split(&[of("a1"), of("a"), of("a2")]);
    assert!(scan.passthrough);
    assert_eq!(all_inflated(&parts), [("p-a", [of("a1"), of("a"), of("a2")].concat())]);
    // Tenants are bounded, values are not.
    let values: Vec<_> = (0..100).map(|at| of(&format!("a{at}"))).collect();
    rules.limits.tenants_max = 1;
    assert_eq!(rules.split(&values).1.len(), 1);
}

#[test]
fn series_that_the_map_drops_are_left_out_without_a_fault() {
    let of = |tenant: &str| series(&[("t", tenant)]);
    let (scan, parts) = mapped().split(&[of("x1"), of("a"), of("x1"), of("x2")]);
    assert_eq!(all_inflated(&parts), [("a", of("a"))]);
    let refused = RefusedSeries { dropped: 3, dropped_samples: 3, ..RefusedSeries::default() };
    assert_eq!((&scan.refused, scan.series, scan.samples, scan.passthrough), (&refused, 4, 4, false));
    assert_eq!(refused.series(), 3);
    let (scan, parts) = mapped().split(&[of("x1"), of("x2")]);
    assert_eq!((scan.tenants, parts.len(), scan.refused.dropped, scan.refused.example), (0, 0, 2, None));
}

#[test]
fn tenants_that_are_not_allowed_are_refused_by_policy() {
    let of = |tenant: &str| series(&[("t", tenant)]);
    let mut rules = mapped();
    rules.tenant.allow = Some(Arc::new(TenantAllow::new(vec!["a".into()]).unwrap()));
    let request = [of("a1"), of("b1"), of("a"), of("b1"), of("b")];
    let error = rules.error(&request);
    assert_eq!(
        error.to_string(),
        "series 2 (no name): invalid tenant ID \"b\" (from label t): it is not among the tenants that are allowed"
    );
    assert_eq!(error.reason(), "invalid_tenant");
    rules.tenant.on_invalid = Policy::Drop;
    let (scan, parts) = rules.split(&request);
    assert_eq!(all_inflated(&parts), [("a", [of("a1"), of("a")].concat())]);
    assert_eq!((scan.refused.invalid, scan.refused.samples), (3, 3));
}

#[test]
fn more_values_than_are_remembered_are_resolved_all_the_same() {
    let mut rules = mapped();
    rules.limits.inflated_bytes_max = usize::MAX;
    let of = |at: usize| series(&[("t", &format!("{}{at}", ["a", "b", "x"][at % 3]))]);
    let long = series(&[("t", &"b".repeat(KNOWN_VALUE_BYTES_MAX + 1))]);
    let mut request: Vec<_> = (0..KNOWN_VALUES_MAX + 3000).map(of).collect();
    request.push(long.clone());
    request.extend((0..KNOWN_VALUES_MAX + 3000).rev().map(of));
    let (scan, parts) = rules.split(&request);
    let all = |which: usize| (0..KNOWN_VALUES_MAX + 3000).filter(move |at| at % 3 == which);
    let there_and_back = |which, between: &[u8]| {
        let there: Vec<u8> = all(which).flat_map(of).collect();
        let back: Vec<u8> = all(which).rev().flat_map(of).collect();
        [&there, between, &back].concat()
    };
    assert_eq!(all_inflated(&parts), [("a", there_and_back(0, &[])), ("b", there_and_back(1, &long))]);
    assert_eq!(scan.refused.dropped, 2 * all(2).count() as u64);
}
