use super::*;

fn exact(value: &str, tenant: &str) -> MapRule {
    MapRule { matches: Matches::Exact(value.to_owned()), target: Target::Tenant(tenant.to_owned()) }
}

fn prefix(value: &str, tenant: &str) -> MapRule {
    MapRule { matches: Matches::Prefix(value.to_owned()), target: Target::Tenant(tenant.to_owned()) }
}

fn pattern(value: &str, tenant: &str) -> MapRule {
    MapRule { matches: Matches::Regex(value.to_owned()), target: Target::Tenant(tenant.to_owned()) }
}

fn drops(rule: MapRule) -> MapRule {
    MapRule { target: Target::Drop, ..rule }
}

/// The result for a value: `=` for itself, `-` for none.
fn mapped(map: &TenantMap, value: &str) -> String {
    match map.map(value.as_bytes()) {
        Mapped::Itself => "=".to_owned(),
        Mapped::Tenant(id) => String::from_utf8(id.into_owned()).unwrap(),
        Mapped::Dropped => "-".to_owned(),
    }
}

fn assert_maps(rules: Vec<MapRule>, expected: &[(&str, &str)]) {
    let map = TenantMap::new(rules).unwrap();
    for (value, tenant) in expected {
        assert_eq!(mapped(&map, value), *tenant, "{value}");
    }
}

fn faults(rules: Vec<MapRule>) -> Vec<(usize, String)> {
    let faults = TenantMap::new(rules).unwrap_err();
    faults.into_iter().map(|(at, fault)| (at, fault.to_string())).collect()
}

#[test]
fn each_kind_of_rule_matches_its_values() {
    let rules =
        vec![exact("a", "x"), prefix("dev-", "y"), pattern("[0-9]+|q", "z"), drops(exact("gone", ""))];
    assert_maps(
        rules,
        &[
            ("a", "x"),
            ("aa", "="),
            ("dev-", "y"),
            ("dev-1", "y"),
            ("dev", "="),
            ("a-dev-", "="),
            ("12", "z"),
            ("q", "z"),
            // A match of only a part of the value does not count.
            ("12a", "="),
            ("a12", "="),
            ("12\n", "="),
            ("qq", "="),
            ("gone", "-"),
        ],
    );
    assert_maps(Vec::new(), &[("a", "=")]);
}

#[test]
fn the_first_rule_that_matches_decides_whatever_its_kind() {
    let three = [exact("ab", "exact"), prefix("a", "prefix"), pattern("a.*", "pattern")];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let rules = order.map(|at| three[at].clone()).to_vec();
        let of = |names: &[&'static str]| {
            order
                .iter()
                .map(|&at| ["exact", "prefix", "pattern"][at])
                .find(|name| names.contains(name))
                .unwrap()
        };
        let (ab, ac) = (of(&["exact", "prefix", "pattern"]), of(&["prefix", "pattern"]));
        assert_maps(rules, &[("ab", ab), ("ac", ac), ("b", "=")]);
    }
    // Prefixes and patterns follow the same order; the longest does not win.
    assert_maps(vec![prefix("a", "1"), prefix("ab", "2")], &[("abc", "1")]);
    assert_maps(vec![prefix("ab", "2"), prefix("a", "1")], &[("abc", "2"), ("ac", "1")]);
    assert_maps(
        vec![pattern("a.", "1"), pattern(".b", "2"), pattern("..", "3")],
        &[("ab", "1"), ("xb", "2"), ("xx", "3")],
    );
    assert_maps(vec![drops(pattern(".*", "")), exact("a", "1")], &[("a", "-")]);
}

#[test]
fn groups_of_a_pattern_can_be_part_of_the_tenant() {
    let rules = vec![
        pattern("(?<team>[a-z]+)-(prod|dev)(-.*)?", "${team}.$2${3}"),
        pattern("cost-([0-9]+)", "$$${1}0"),
        pattern("x(y)?z", "$1"),
        pattern("(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)", "${11}$10"),
    ];
    let map = TenantMap::new(rules).unwrap();
    for (value, tenant) in [
        ("shop-prod", "shop.prod"),
        ("shop-dev-1", "shop.dev-1"),
        ("cost-7", "$70"),
        ("xyz", "y"),
        ("xz", ""),
        ("abcdefghijk", "kj"),
    ] {
        assert_eq!(mapped(&map, value), tenant, "{value}");
    }
    // Without a pattern, a dollar is a dollar.
    assert_maps(vec![exact("a", "$1"), prefix("b", "$")], &[("a", "$1"), ("b", "$")]);
}

#[test]
fn values_that_are_not_utf8_match_no_pattern() {
    let map = TenantMap::new(vec![pattern(".*", "all"), prefix("a", "p")]).unwrap();
    assert_eq!(map.map(b"a\xff"), Mapped::Tenant(b"p"[..].into()));
    assert_eq!(map.map(b"\xff"), Mapped::Itself);
    assert_eq!(mapped(&map, "two\nlines"), "all");
}

#[test]
fn every_mistake_is_reported_with_its_rule() {
    let told = faults(vec![
        exact("a", "x"),
        exact("a", "y"),
        prefix("p", "x"),
        drops(prefix("p", "")),
        exact("", "x"),
        prefix("", "x"),
        pattern("", "x"),
        exact("b", ""),
        pattern("a(b", "x"),
        pattern("(?x) a # b", "x"),
        pattern("(a)", "$2"),
        pattern("(a)", "$"),
        pattern("(a)", "${1"),
        pattern("(?<n>a)", "${m}"),
        pattern("(a)", "x$y"),
        pattern(r"(a)\1", "x"),
        pattern("a{1000}{1000}", "x"),
    ]);
    let expected = [
        (1, "never applies: rule 1 is for the same"),
        (3, "never applies: rule 3 is for the same"),
        (4, "must not be empty"),
        (5, "must not be empty"),
        (6, "must not be empty"),
        (7, "the tenant must not be empty; `drop: true` leaves series out"),
        (8, "is not a regular expression: unclosed group"),
        (9, "is not a regular expression: unclosed group"),
        (10, "`$2` stands for no group of the pattern; write `$$` for a dollar"),
        (11, "`$` stands for no group of the pattern; write `$$` for a dollar"),
        (12, "`$` stands for no group of the pattern; write `$$` for a dollar"),
        (13, "`$m` stands for no group of the pattern; write `$$` for a dollar"),
        (14, "`$` stands for no group of the pattern; write `$$` for a dollar"),
        (15, "is not a regular expression: backreferences are not supported"),
    ];
    assert_eq!(told.len(), expected.len() + 1);
    for ((at, text), told) in expected.into_iter().zip(&told) {
        assert_eq!(*told, (at, text.to_owned()));
    }
    assert!(told[14].1.contains("exceeds size limit"), "{told:?}");
    // All of them together take one line.
    assert!(told.iter().all(|(_, text)| !text.contains('\n')));
}

#[test]
fn many_rules_are_looked_up() {
    let rules = (0..20_000).map(|at| exact(&format!("team-{at}"), &format!("t{}", at % 7))).collect();
    let map = TenantMap::new(rules).unwrap();
    assert_eq!(mapped(&map, "team-19999"), "t0");
    assert_eq!(mapped(&map, "team-20000"), "=");
    assert_eq!(map, map.clone());
    assert_ne!(map, TenantMap::new(Vec::new()).unwrap());
}

#[test]
fn the_allow_list_has_names_and_globs() {
    let allow =
        |patterns: &[&str]| TenantAllow::new(patterns.iter().map(|&p| p.to_owned()).collect()).unwrap();
    let some = allow(&["a", "team-*", "*.eu", "x*y*z", "(b)", "c.d"]);
    for id in ["a", "team-", "team-1", ".eu", "de.eu", "xyz", "x-y-z", "(b)", "c.d"] {
        assert!(some.allows(id.as_bytes()), "{id}");
    }
    for id in ["", "b", "aa", "team", "a-team-1", "eu", "de.eu.", "xz", "xyza", "cxd", "A"] {
        assert!(!some.allows(id.as_bytes()), "{id}");
    }
    assert!(!allow(&[]).allows(b"a"));
    assert!(allow(&["*"]).allows(b"anyone"));
}
