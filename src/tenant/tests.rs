use super::*;

fn rules() -> TenantRules {
    TenantRules::of_label(b"__tenant__")
}

fn resolved(rules: &TenantRules, value: Option<&[u8]>, source: Option<&str>) -> String {
    rules.resolve(value, source).unwrap().as_str().to_owned()
}

#[test]
fn an_empty_value_counts_as_none() {
    let mut rules = rules();
    let missing = rules.resolve(None, None).unwrap_err();
    assert_eq!(rules.resolve(Some(b""), None).unwrap_err(), missing);
    assert_eq!(
        missing.to_string(),
        "no tenant: it has no value in label __tenant__, and no default tenant is set"
    );
    rules.default = Some(String::new());
    assert_eq!(rules.resolve(None, None).unwrap_err(), missing);
    rules.default = Some("others".into());
    assert_eq!(resolved(&rules, None, None), "others");
    assert_eq!(resolved(&rules, Some(b""), None), "others");
    assert_eq!(resolved(&rules, Some(b"a"), None), "a");
}

#[test]
fn the_prefix_precedes_every_id() {
    let rules = TenantRules { prefix: "eu-".into(), default: Some("others".into()), ..rules() };
    assert_eq!(resolved(&rules, Some(b"a"), None), "eu-a");
    assert_eq!(resolved(&rules, None, None), "eu-others");
    // The inbound header is ignored unless enabled.
    assert_eq!(resolved(&rules, Some(b"a"), Some("us")), "eu-a");
}

#[test]
fn the_inbound_tenant_can_replace_the_prefix() {
    let rules = TenantRules {
        prefix: "eu-".into(),
        prefix_prefer_source: true,
        default: Some("others".into()),
        ..rules()
    };
    assert_eq!(resolved(&rules, Some(b"a"), Some("us")), "us-a");
    assert_eq!(resolved(&rules, None, Some("us")), "us-others");
    assert_eq!(resolved(&rules, Some(b"a"), Some("")), "eu-a");
    assert_eq!(resolved(&rules, Some(b"a"), None), "eu-a");
}

#[test]
fn mimir_accepts_only_its_own_characters() {
    let allowed = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!-_.*'()";
    assert_eq!(check_id(allowed.as_bytes(), IdRules::Mimir), Ok(()));
    for byte in 0..=255 {
        let verdict = check_id(&[b'a', byte, b'z'], IdRules::Mimir);
        if allowed.as_bytes().contains(&byte) {
            assert_eq!(verdict, Ok(()), "{byte:#x}");
        } else {
            assert_eq!(verdict, Err(IdFault::Character(byte)));
        }
    }
}

#[test]
fn thanos_accepts_visible_ascii_without_slashes() {
    for byte in 0..=255 {
        let verdict = check_id(&[b'a', byte], IdRules::Thanos);
        if (0x21..=0x7e).contains(&byte) && byte != b'/' && byte != b'\\' {
            assert_eq!(verdict, Ok(()), "{byte:#x}");
        } else {
            assert_eq!(verdict, Err(IdFault::Character(byte)));
        }
    }
}

#[test]
fn victoriametrics_accepts_one_or_two_32_bit_numbers() {
    for id in ["0", "12", "12:34", "4294967295", "4294967295:4294967295", "007"] {
        assert_eq!(check_id(id.as_bytes(), IdRules::VictoriaMetrics), Ok(()), "{id}");
    }
    for id in ["4294967296", "1:4294967296", ":", "1:", ":1", "1:2:3", "1::2", "99999999999"] {
        assert_eq!(check_id(id.as_bytes(), IdRules::VictoriaMetrics), Err(IdFault::NoNumbers), "{id}");
    }
    for (id, wrong) in [("a", b'a'), ("+1", b'+'), ("-1", b'-'), ("1 ", b' '), ("1\r", b'\r'), ("1.5", b'.')]
    {
        assert_eq!(check_id(id.as_bytes(), IdRules::VictoriaMetrics), Err(IdFault::Character(wrong)), "{id}");
    }
    let long = check_id(&[b'0'; 22], IdRules::VictoriaMetrics);
    assert_eq!(long, Err(IdFault::TooLong { bytes: 22, bytes_max: 21 }));
    // A prefix may bring the account.
    let rules = TenantRules { prefix: "12:".into(), id_rules: IdRules::VictoriaMetrics, ..rules() };
    assert_eq!(resolved(&rules, Some(b"34"), None), "12:34");
    let told = rules.resolve(Some(b"34:5"), None).unwrap_err().to_string();
    assert!(told.contains("\"12:34:5\"") && told.contains("numbers below 4294967296"), "{told}");
}

#[test]
fn lengths_and_reserved_names() {
    for (rules, bytes_max) in [(IdRules::Mimir, 150), (IdRules::Thanos, 256)] {
        assert_eq!(check_id(&vec![b'a'; bytes_max], rules), Ok(()));
        let fault = IdFault::TooLong { bytes: bytes_max + 1, bytes_max };
        assert_eq!(check_id(&vec![b'a'; bytes_max + 1], rules), Err(fault));
        assert_eq!(check_id(b"", rules), Err(IdFault::Empty));
        assert_eq!(check_id(b".", rules), Err(IdFault::Reserved));
        assert_eq!(check_id(b"..", rules), Err(IdFault::Reserved));
        assert_eq!(check_id(b"...", rules), Ok(()));
    }
    assert_eq!(check_id(b"__mimir_cluster", IdRules::Mimir), Err(IdFault::Reserved));
    assert_eq!(check_id(b"__mimir_cluster", IdRules::Thanos), Ok(()));
}

#[test]
fn an_id_is_checked_with_its_prefix() {
    let long = TenantRules { prefix: "p".repeat(149), ..rules() };
    assert_eq!(resolved(&long, Some(b"a"), None).len(), 150);
    assert!(matches!(long.resolve(Some(b"aa"), None), Err(TenantError::Invalid { .. })));
    // The prefix and the value together may form a reserved name, or turn one into a valid ID.
    let dot = TenantRules { prefix: ".".into(), ..rules() };
    assert!(matches!(
        dot.resolve(Some(b"."), None),
        Err(TenantError::Invalid { fault: IdFault::Reserved, .. })
    ));
    assert_eq!(resolved(&TenantRules { prefix: "a".into(), ..rules() }, Some(b".."), None), "a..");
    let source = TenantRules { prefix_prefer_source: true, ..rules() };
    assert!(matches!(
        source.resolve(Some(b"a"), Some("two words")),
        Err(TenantError::Invalid { fault: IdFault::Character(b' '), .. })
    ));
}

#[test]
fn errors_show_untrusted_bytes_escaped_and_cut() {
    let rules = TenantRules {
        labels: ["a", "b\n", "c", "d", "e", "f"].map(|name| name.as_bytes().into()).to_vec(),
        prefix: "eu-".into(),
        ..rules()
    };
    let error = rules.resolve(Some("na\u{ef}ve\r\nX-Evil: 1".as_bytes()), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid tenant ID \"eu-na\\xc3\\xafve\\r\\nX-Evil: 1\" (from label a, b\\n, c, d, …): \
         it contains '\\xc3', which is not allowed"
    );
    let error = rules.resolve(Some(&[b'a'; 5000]), None).unwrap_err().to_string();
    assert!(error.contains("aaa…\"") && error.len() < 300, "{error}");
}

#[test]
fn an_id_without_prefix_is_checked() {
    assert_eq!(TenantId::new("a", IdRules::Mimir).unwrap().to_string(), "a");
    assert_eq!(TenantId::new("a/b", IdRules::Thanos), Err(IdFault::Character(b'/')));
}

fn mapped() -> TenantRules {
    let rule = |matches: map::Matches, target| map::MapRule { matches, target };
    let to = |id: &str| map::Target::Tenant(id.to_owned());
    let map = TenantMap::new(vec![
        rule(map::Matches::Exact("a".into()), to("b")),
        rule(map::Matches::Exact("gone".into()), map::Target::Drop),
        rule(map::Matches::Prefix("x-".into()), to("two words")),
        rule(map::Matches::Regex("(.*)!".into()), to("$1")),
    ]);
    TenantRules { map: Some(Arc::new(map.unwrap())), default: Some("a".into()), ..rules() }
}

#[test]
fn a_map_translates_values_to_tenants() {
    let rules = TenantRules { prefix: "p-".into(), ..mapped() };
    assert_eq!(resolved(&rules, Some(b"a"), None), "p-b");
    assert_eq!(resolved(&rules, Some(b"b"), None), "p-b");
    assert_eq!(resolved(&rules, Some(b"c!"), None), "p-c");
    // The default is not mapped.
    assert_eq!(resolved(&rules, None, None), "p-a");
    assert_eq!(rules.try_resolve(Some(b"gone"), None, &Grant::Any), Err(NoTenant::Dropped));
    // The mapped tenant must be a valid ID.
    let invalid = rules.resolve(Some(b"x-1"), None).unwrap_err().to_string();
    assert_eq!(
        invalid,
        "invalid tenant ID \"p-two words\" (from label __tenant__): it contains ' ', which is not allowed"
    );
    // A prefix alone is not an ID.
    assert_eq!(rules.try_resolve(Some(b"!"), None, &Grant::Any), Err(NoTenant::Invalid(IdFault::Empty)));
}

#[test]
fn tenants_outside_the_allow_list_are_refused() {
    let allow = TenantAllow::new(vec!["b".into(), "team-*".into()]).unwrap();
    let rules = TenantRules { allow: Some(Arc::new(allow)), prefix: "p-".into(), ..mapped() };
    // The allow list applies to the mapped ID without its prefix.
    assert_eq!(resolved(&rules, Some(b"a"), None), "p-b");
    assert_eq!(resolved(&rules, Some(b"team-1"), None), "p-team-1");
    assert_eq!(
        rules.resolve(Some(b"p-b"), None).unwrap_err().to_string(),
        "invalid tenant ID \"p-p-b\" (from label __tenant__): it is not among the tenants that are allowed"
    );
    // The allow list does not apply to the default.
    assert_eq!(resolved(&rules, None, None), "p-a");
}
