//! Nothing of a tenant leaves under a credential that may not write to it: any request, any grant.

use proptest::prelude::*;
use tenantry::model::SplitLimits;
use tenantry::split::{Body, Families, Metadata, SplitRules, Splitter};
use tenantry::tenant::map::TenantAllow;
use tenantry::tenant::{Grant, Policy, TenantRules};
use testkit::fields::varint;
use testkit::proto::WriteRequest;

use crate::support::remote_write::{body, deflate, inflate, metadata_of_up, series};

const TENANTS: [&str; 5] = ["a", "b", "ab", "c", "default"];

/// A grant, and the tenants that it lists.
type Listed = (Grant, Vec<&'static str>);

fn grants() -> impl Strategy<Value = Listed> {
    let some = || prop::collection::vec(prop::sample::select(&TENANTS[..]), 0..4);
    prop_oneof![
        Just((Grant::Any, vec![])),
        some().prop_map(|some| {
            let patterns = some.iter().map(|&tenant| tenant.to_owned()).chain(["a*".to_owned()]).collect();
            (Grant::Tenants(TenantAllow::new(patterns).unwrap()), some)
        }),
        some().prop_map(|some| (Grant::Named(some.iter().map(|&tenant| tenant.into()).collect()), some)),
        prop::sample::select(&TENANTS[..]).prop_map(|tenant| (Grant::Forced(tenant.into()), vec![tenant])),
        Just((Grant::Header, vec![])),
    ]
}

/// What a grant allows, said as simply as possible.
fn may((grant, listed): &Listed, header: Option<&str>, tenant: &str) -> bool {
    match (grant, header) {
        (Grant::Any, _) | (Grant::Header, None) => true,
        (Grant::Header, Some(header)) => tenant == header,
        (Grant::Forced(_) | Grant::Named(_), _) => listed.contains(&tenant),
        (Grant::Tenants(_), _) => listed.contains(&tenant) || tenant.starts_with('a'),
    }
}

fn rules(prefix: &str, policy: Policy, prefers_source: bool) -> TenantRules {
    TenantRules {
        prefix: prefix.to_owned(),
        prefix_prefer_source: prefers_source,
        default: Some("default".into()),
        on_invalid: policy,
        ..TenantRules::of_label(b"tenant")
    }
}

proptest! {
    #[test]
    fn nothing_leaves_for_a_tenant_that_is_not_allowed(
        listed in grants(),
        header in prop::option::of(prop::sample::select(&TENANTS[..])),
        tenants in prop::collection::vec(prop::option::of(prop::sample::select(&TENANTS[..4])), 1..12),
        prefix in prop::sample::select(&["", "eu-"][..]),
        drops: bool,
        prefers_source: bool,
        with_metadata: bool,
    ) {
        let grant = &listed.0;
        let policy = if drops { Policy::Drop } else { Policy::Reject };
        let tenant_rules = rules(prefix, policy, prefers_source);
        // All tenants have sent series of `up`, so its metadata would go to all of them.
        let families = Families::default();
        let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 100 };
        let open = SplitRules { metadata: Metadata::Route(&families), ..SplitRules::new(&tenant_rules, limits) };
        let mut splitter = Splitter::new();
        let all = body(TENANTS.iter().map(|tenant| series(tenant, "up", 1.0)).collect());
        splitter.scan(Body::snappy_v1(all.into()), &open, None).unwrap();
        let request = WriteRequest {
            timeseries: tenants.iter().map(|tenant| series(tenant.unwrap_or(""), "up", 1.0)).collect(),
            metadata: if with_metadata { vec![metadata_of_up()] } else { vec![] },
        };
        let rules = SplitRules { grant, ..open };
        let bare = |id: &str| id.strip_prefix(prefix).unwrap().to_owned();
        let resolved = |tenant: &Option<&str>| match (grant.forced(header), tenant) {
            (Some(forced), _) => forced.to_owned(),
            (None, tenant) => tenant.unwrap_or("default").to_owned(),
        };
        let denied = tenants.iter().filter(|tenant| !may(&listed, header, &resolved(tenant))).count();
        match splitter.scan(Body::snappy_v1(deflate(&request).into()), &rules, header) {
            Err(error) => prop_assert!(denied > 0 && !drops && error.reason() == "denied_tenant", "{error}"),
            Ok(scan) => {
                prop_assert!(drops || denied == 0);
                prop_assert_eq!(scan.refused.denied, denied as u64);
                let mut sent = 0;
                while let Some(part) = splitter.next_part() {
                    // Only without access rules a sender may choose its own prefix.
                    if *grant == Grant::Any && prefers_source && header.is_some() {
                        sent += part.series as usize;
                        continue;
                    }
                    let tenant = bare(part.tenant.as_str());
                    prop_assert!(may(&listed, header, &tenant), "{grant:?} {header:?} {tenant}");
                    let inflated = inflate(&[&varint(part.inflated_bytes.into(), 0)[..], &part.elements].concat());
                    prop_assert_eq!(inflated.timeseries.len(), part.series as usize);
                    sent += part.series as usize;
                }
                prop_assert_eq!(sent, tenants.len() - denied);
            }
        }
    }
}
