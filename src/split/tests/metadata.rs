//! Metadata of metric families: dropped, to the default tenant, or to the tenants that have the family.

use super::*;

#[test]
fn metadata_is_dropped_unless_it_is_asked_for() {
    let mut rules = Rules::with(|rules| rules.tenant.default = Some("d".into()));
    let request = [metadata("1"), series(&[("t", "a")]), metadata("2")];
    let (scan, parts) = rules.split(&request);
    assert_eq!((scan.metadata_dropped, scan.passthrough), (2, false));
    assert_eq!(all_inflated(&parts), [("a", request[1].clone())]);
    // Nothing is left, but it was no empty request.
    let (scan, _) = rules.split(&[metadata("1")]);
    assert_eq!((scan.tenants, scan.series, scan.metadata_dropped), (0, 0, 1));
    // Without a default tenant it is dropped.
    rules.tenant.default = None;
    rules.metadata = true;
    let (scan, parts) = rules.split(&request);
    assert_eq!((scan.metadata_dropped, parts.len()), (2, 1));
}

#[test]
fn metadata_goes_to_the_default_tenant() {
    let rules = Rules::with(|rules| {
        rules.metadata = true;
        rules.tenant.default = Some("d".into());
        rules.tenant.prefix = "p-".into();
    });
    let of = |tenant: &str| series(&[("t", tenant)]);
    let (scan, parts) = rules.split(&[metadata("1"), of("a"), metadata("2"), metadata("3"), of("a")]);
    let all = [metadata("1"), metadata("2"), metadata("3")].concat();
    assert_eq!(all_inflated(&parts), [("p-a", of("a").repeat(2)), ("p-d", all)]);
    assert_eq!((parts[1].series, parts[1].samples, scan.metadata_dropped), (0, 0, 0));
    let (_, parts) = rules.split(&[metadata("1"), series(&[]), of("a"), metadata("2")]);
    let with_series = [series(&[]), metadata("1"), metadata("2")].concat();
    assert_eq!(all_inflated(&parts), [("p-d", with_series), ("p-a", of("a"))]);
}

#[test]
fn metadata_for_the_only_tenant_passes_through() {
    let rules = Rules::with(|rules| {
        rules.metadata = true;
        rules.tenant.default = Some("d".into());
    });
    for request in [
        vec![metadata("1"), series(&[]), metadata("2"), series(&[("t", "d")])],
        vec![metadata("1"), metadata("2")],
    ] {
        let (scan, parts) = rules.split(&request);
        assert!(scan.passthrough);
        assert_eq!(all_inflated(&parts), [("d", request.concat())]);
    }
}

#[test]
fn metadata_goes_to_the_tenants_that_have_its_family() {
    let about = |family: &str| metadata_of(family);
    let rules = Rules::with(|rules| rules.families = Some(Families::default()));
    let of = |tenant: &str, name: &str| series(&[("__name__", name), ("t", tenant)]);
    let series =
        [of("a", "latency_bucket"), of("b", "latency_sum"), of("b", "requests_total"), of("a", "up")];
    rules.split(&series);
    let entries = ["latency", "requests", "up", "nobodys"].map(about);
    let (scan, parts) = rules.split(&entries);
    assert_eq!((scan.series, scan.metadata_dropped, scan.passthrough), (0, 1, false));
    let mut found: Vec<_> = parts.iter().map(inflated).collect();
    found.sort();
    assert_eq!(
        found,
        [
            ("a", [about("latency"), about("up")].concat()),
            ("b", [about("latency"), about("requests")].concat())
        ]
    );
    // Metadata of an unknown family goes to the default tenant, if there is one. A request of one tenant passes
    // through.
    let rules = Rules { tenant: TenantRules { default: Some("d".into()), ..rules.tenant }, ..rules };
    let (scan, parts) = rules.split(&[about("nobodys")]);
    assert_eq!((scan.metadata_dropped, scan.passthrough, inflated(&parts[0]).0), (0, true, "d"));
    let (scan, parts) = rules.split(&[about("up"), of("a", "up")]);
    assert_eq!((scan.passthrough, inflated(&parts[0])), (true, ("a", [about("up"), of("a", "up")].concat())));
}

/// Metadata of a family, with a help text.
fn metadata_of(family: &str) -> Vec<u8> {
    field(3, &[vec![1 << 3, 1], field(2, family.as_bytes()), field(4, b"help")].concat())
}
