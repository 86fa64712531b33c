use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::auth::{JwtIdentity, PeerCertificate};
use crate::tenant::map::{MapRule, Matches, Target};

fn user(name: &str) -> Identity {
    Identity { login: Login::User(name.into()), certificate: None }
}

fn token(name: &str) -> Identity {
    Identity { login: Login::Token(name.into()), certificate: None }
}

fn jwt(subject: Option<&str>, tenants: &[&str]) -> Identity {
    let tenants = tenants.iter().map(|&tenant| tenant.into()).collect();
    let jwt = JwtIdentity { subject: subject.map(Into::into), tenants };
    Identity { login: Login::Jwt(Arc::new(jwt)), certificate: None }
}

fn certificate(cn: Option<&str>, dns: &[&str], uris: &[&str]) -> Identity {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.into()).collect();
    let certificate = PeerCertificate {
        common_name: cn.map(Into::into),
        dns: texts(dns),
        uris: texts(uris),
        ..PeerCertificate::default()
    };
    Identity { login: Login::None, certificate: Some(Arc::new(certificate)) }
}

/// One credential of each kind, and their names.
fn credentials() -> [(&'static str, Identity); 9] {
    let both = Identity { login: Login::User("alice".into()), ..certificate(Some("agent-1"), &[], &[]) };
    [
        ("none", Identity::default()),
        ("alice", user("alice")),
        ("bob", user("bob")),
        ("token", token("alice")),
        ("cn", certificate(Some("agent-1"), &[], &[])),
        ("dns", certificate(None, &["other.example", "Agent-1.Example"], &[])),
        ("uri", certificate(None, &[], &["spiffe://x/agent-1"])),
        ("jwt", jwt(Some("agent-1"), &["a", "b"])),
        ("both", both),
    ]
}

fn tenants(patterns: &[&str]) -> What {
    What::Tenants(TenantAllow::new(patterns.iter().map(|&pattern| pattern.to_owned()).collect()).unwrap())
}

fn access(rules: Vec<(Vec<Who>, What)>) -> Access {
    let rules = rules.into_iter().map(|(who, what)| AccessRule { who, what }).collect();
    Access::new(rules, IdRules::Mimir).unwrap()
}

fn faults(rules: Vec<(Vec<Who>, What)>) -> Vec<(usize, AccessFault)> {
    let rules = rules.into_iter().map(|(who, what)| AccessRule { who, what }).collect();
    Access::new(rules, IdRules::Mimir).unwrap_err()
}

#[test]
fn each_form_of_a_credential_matches_its_own_kind_only() {
    let glob = || "agent-*".to_owned();
    for (who, expected) in [
        (Who::User("alice".into()), &["alice", "both"][..]),
        (Who::User("alic".into()), &[]),
        (Who::User("*".into()), &[]),
        (Who::Token("alice".into()), &["token"]),
        (Who::Token("a*".into()), &[]),
        (Who::CertificateCn(glob()), &["cn", "both"]),
        (Who::CertificateCn("agent-1".into()), &["cn", "both"]),
        (Who::CertificateCn("agent".into()), &[]),
        (Who::CertificateCn("AGENT-*".into()), &[]),
        (Who::CertificateCn("gent-*".into()), &[]),
        (Who::CertificateCn("agent-*2".into()), &[]),
        (Who::CertificateDns("agent-*.example".into()), &["dns"]),
        (Who::CertificateDns("AGENT-1.EXAMPLE".into()), &["dns"]),
        (Who::CertificateDns("agent-1?example".into()), &[]),
        (Who::CertificateUri("spiffe://x/*".into()), &["uri"]),
        (Who::CertificateUri("spiffe://x/agent-1".into()), &["uri"]),
        (Who::CertificateUri("spiffe:..x.*".into()), &[]),
        (Who::Jwt(None), &["jwt"]),
        (Who::Jwt(Some(glob())), &["jwt"]),
        (Who::Jwt(Some("agent-1".into())), &["jwt"]),
        (Who::Jwt(Some("agent-2".into())), &[]),
        (Who::Anyone, &["none", "alice", "bob", "token", "cn", "dns", "uri", "jwt", "both"]),
    ] {
        let access = access(vec![(vec![who.clone()], tenants(&["t"]))]);
        for (name, identity) in credentials() {
            let granted = access.grant(&identity);
            match expected.contains(&name) {
                true => assert!(granted.unwrap().allows(b"t", None), "{who:?} {name}"),
                false => assert_eq!(granted, Err(Denied::NoRule), "{who:?} {name}"),
            }
        }
    }
}

#[test]
fn each_form_of_a_grant_allows_what_it_says() {
    let from = |source| What::ForcedFrom { source, map: None };
    // The tenants t, a and alice; a tenant that is forced without a header, and with one.
    for (what, identity, allowed, forced, with_header) in [
        (tenants(&["t", "a*"]), user("alice"), [true, true, true], None, None),
        (tenants(&["a"]), user("alice"), [false, true, false], None, None),
        (tenants(&[]), user("alice"), [false; 3], None, None),
        (What::TenantsOfJwt, jwt(None, &["a", "t"]), [true, true, false], None, None),
        (What::TenantsOfJwt, jwt(None, &["a*"]), [false; 3], None, None),
        (What::Forced("t".into()), user("alice"), [true, false, false], Some("t"), Some("t")),
        (What::TrustHeader, user("alice"), [true; 3], None, Some("h")),
        (from(Source::User), user("alice"), [false, false, true], Some("alice"), Some("alice")),
        (from(Source::Token), token("a"), [false, true, false], Some("a"), Some("a")),
        (from(Source::Jwt), jwt(None, &["a"]), [false, true, false], Some("a"), Some("a")),
        (
            from(Source::CertificateCn),
            certificate(Some("a"), &[], &[]),
            [false, true, false],
            Some("a"),
            Some("a"),
        ),
        (
            from(Source::CertificateDns),
            certificate(None, &["A"], &[]),
            [false, true, false],
            Some("a"),
            Some("a"),
        ),
        (
            from(Source::CertificateUri),
            certificate(None, &[], &["a"]),
            [false, true, false],
            Some("a"),
            Some("a"),
        ),
    ] {
        let access = access(vec![(vec![Who::Anyone], what.clone())]);
        let grant = access.grant(&identity).unwrap();
        assert_eq!([b"t".as_slice(), b"a", b"alice"].map(|id| grant.allows(id, None)), allowed, "{what:?}");
        assert_eq!(grant.forced(None), forced, "{what:?}");
        assert_eq!(grant.forced(Some("")), forced, "{what:?}");
        assert_eq!(grant.forced(Some("h")), with_header, "{what:?}");
        assert_eq!(*grant == Grant::Header, what == What::TrustHeader);
        assert!(!grant.allows(b"", None) || what == What::TrustHeader, "{what:?}");
    }
}

#[test]
fn what_a_credential_does_not_name_is_denied() {
    let from = |source, pattern: Option<(&str, &str)>| What::ForcedFrom {
        source,
        map: pattern.map(|(pattern, tenant)| {
            let rule =
                MapRule { matches: Matches::Regex(pattern.into()), target: Target::Tenant(tenant.into()) };
            TenantMap::new(vec![rule]).unwrap()
        }),
    };
    let agents = || from(Source::CertificateDns, Some((r"(.+)\.agents\.example", "$1")));
    let dns = |names: &[&str]| certificate(None, names, &[]);
    for (what, identity, expected) in [
        (agents(), dns(&["a.agents.example"]), Ok("a")),
        (agents(), dns(&["other.example", "A.agents.example"]), Ok("a")),
        (agents(), dns(&["a.agents.example", "A.Agents.Example"]), Ok("a")),
        (agents(), dns(&["a.agents.example", "b.agents.example"]), Err(Denied::Ambiguous)),
        (agents(), dns(&["a.agents.example.org", "x", ""]), Err(Denied::NoTenant)),
        (agents(), dns(&[]), Err(Denied::NoTenant)),
        (agents(), Identity::default(), Err(Denied::NoTenant)),
        (agents(), user("a.agents.example"), Err(Denied::NoTenant)),
        (agents(), dns(&["a/b.agents.example"]), Err(Denied::Tenant(IdFault::Character(b'/')))),
        (agents(), dns(&["a\r\n.agents.example"]), Err(Denied::Tenant(IdFault::Character(b'\r')))),
        (
            from(Source::CertificateCn, None),
            certificate(Some("two words"), &[], &[]),
            Err(Denied::Tenant(IdFault::Character(b' '))),
        ),
        (
            from(Source::CertificateCn, None),
            certificate(Some(""), &[], &[]),
            Err(Denied::Tenant(IdFault::Empty)),
        ),
        (from(Source::CertificateCn, None), certificate(None, &["a"], &["a"]), Err(Denied::NoTenant)),
        (from(Source::User, None), token("a"), Err(Denied::NoTenant)),
        (from(Source::Jwt, None), jwt(Some("a"), &[]), Err(Denied::NoTenant)),
        (from(Source::Jwt, None), jwt(None, &["a", "b"]), Err(Denied::Ambiguous)),
        (from(Source::Jwt, Some(("t-(.*)", "$1"))), jwt(None, &["a", "t-b"]), Ok("b")),
        (What::TenantsOfJwt, jwt(Some("a"), &[]), Err(Denied::NoTenant)),
        (What::TenantsOfJwt, user("a"), Err(Denied::NoTenant)),
    ] {
        let access = access(vec![(vec![Who::Anyone], what.clone())]);
        let found = access.grant(&identity).map(|grant| grant.forced(None).unwrap_or_default().to_owned());
        assert_eq!(found, expected.map(str::to_owned), "{what:?} {identity:?}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let access = access(vec![
        (vec![Who::CertificateCn("agent-*".into())], tenants(&["first"])),
        (
            vec![Who::User("bob".into()), Who::User("alice".into()), Who::Token("alice".into())],
            tenants(&["second"]),
        ),
        (vec![Who::CertificateCn("agent-1".into()), Who::Jwt(Some("agent-1".into()))], tenants(&["third"])),
        (vec![Who::Jwt(None)], tenants(&[])),
        (vec![Who::Anyone], tenants(&["last"])),
    ]);
    for (name, expected) in [
        ("cn", "first"),
        ("both", "first"),
        ("alice", "second"),
        ("bob", "second"),
        ("token", "second"),
        ("jwt", "third"),
        ("none", "last"),
        ("uri", "last"),
    ] {
        let (_, identity) = credentials().into_iter().find(|(other, _)| *other == name).unwrap();
        let grant = access.grant(&identity).unwrap();
        for tenant in ["first", "second", "third", "last"] {
            assert_eq!(grant.allows(tenant.as_bytes(), None), tenant == expected, "{name} {tenant}");
        }
    }
    let denied = access.grant(&jwt(Some("agent-2"), &["a"])).unwrap();
    assert!(!denied.allows(b"last", None) && !denied.allows(b"a", None), "an empty list denies");
}

#[test]
fn rules_that_never_apply_are_mistakes() {
    let repeated = |at, earlier| (at, AccessFault::Repeated { earlier });
    let user = |name: &str| Who::User(name.into());
    let t = || tenants(&["t"]);
    assert_eq!(
        faults(vec![
            (vec![user("a"), user("b")], t()),
            (vec![user("b"), Who::Token("b".into())], t()),
            (vec![Who::CertificateDns("*.A".into())], t()),
            (vec![Who::CertificateDns("*.a".into()), Who::CertificateCn("*.a".into())], t()),
            (vec![Who::Jwt(Some("s".into()))], t()),
            (vec![Who::Jwt(None)], t()),
            (vec![Who::Jwt(Some("u".into()))], t()),
            (vec![Who::Jwt(None)], t()),
            (vec![Who::Anyone], t()),
            (vec![user("c")], t()),
            (vec![Who::Anyone], t()),
        ]),
        [repeated(1, 0), repeated(3, 2), repeated(6, 5), repeated(7, 5), repeated(9, 8), repeated(10, 8)]
    );
    assert_eq!(
        faults(vec![
            (vec![user("")], t()),
            (vec![user("a")], What::TenantsOfJwt),
            (vec![user("b")], What::ForcedFrom { source: Source::Jwt, map: None }),
            (vec![user("c")], What::Forced("two words".into())),
            (vec![user("d")], What::Forced(String::new())),
            (vec![user("e"), Who::Jwt(None)], What::TenantsOfJwt),
        ]),
        [
            (0, AccessFault::Empty),
            (1, AccessFault::NoSource("JWT")),
            (2, AccessFault::NoSource("JWT")),
            (3, AccessFault::Tenant(IdFault::Character(b' '))),
            (4, AccessFault::Tenant(IdFault::Empty)),
        ]
    );
}

#[test]
fn rules_say_what_requests_without_credentials_need() {
    let of = |who: Vec<Who>| access(vec![(who, tenants(&["t"]))]).demand();
    assert_eq!(of(vec![Who::User("a".into()), Who::Jwt(None)]), Demand::Login);
    assert_eq!(of(vec![Who::User("a".into()), Who::CertificateUri("*".into())]), Demand::LoginOrCertificate);
    assert_eq!(of(vec![Who::CertificateCn("a".into()), Who::Anyone]), Demand::Nothing);
    assert_eq!(Demand::default(), Demand::Login);
}

/// Whether a rule is for a credential, said as simply as possible.
fn is_for(who: &Who, identity: &Identity) -> bool {
    let glob = |pattern: &str, name: &str| match pattern.split_once('*') {
        Some((begin, end)) => {
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        }
        None => pattern == name,
    };
    let certificate = identity.certificate.clone().unwrap_or_default();
    match (who, &identity.login) {
        (Who::User(name), Login::User(user)) => **name == **user,
        (Who::Token(name), Login::Token(token)) => **name == **token,
        (Who::Jwt(None), Login::Jwt(_)) => true,
        (Who::Jwt(Some(pattern)), Login::Jwt(jwt)) => jwt.subject.as_ref().is_some_and(|s| glob(pattern, s)),
        (Who::CertificateCn(pattern), _) => {
            certificate.common_name.as_ref().is_some_and(|cn| glob(pattern, cn))
        }
        (Who::CertificateDns(pattern), _) => certificate.dns.iter().any(|dns| glob(pattern, dns)),
        (Who::CertificateUri(pattern), _) => certificate.uris.iter().any(|uri| glob(pattern, uri)),
        (Who::Anyone, _) => true,
        _ => false,
    }
}

fn name() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["a", "ab", "abc", "b", "ba", ""]).prop_map(str::to_owned)
}

fn pattern() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["a", "ab", "a*", "*b", "a*c", "*", "b*"]).prop_map(str::to_owned)
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        4 => pattern().prop_map(Who::User),
        4 => pattern().prop_map(Who::Token),
        4 => pattern().prop_map(Who::CertificateCn),
        4 => pattern().prop_map(Who::CertificateDns),
        4 => pattern().prop_map(Who::CertificateUri),
        4 => proptest::option::of(pattern()).prop_map(Who::Jwt),
        1 => Just(Who::Anyone),
    ]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        proptest::collection::vec(pattern(), 0..3)
            .prop_map(|list| What::Tenants(TenantAllow::new(list).unwrap())),
        Just(What::TenantsOfJwt),
        pattern().prop_map(What::Forced),
        Just(What::ForcedFrom { source: Source::CertificateCn, map: None }),
        Just(What::ForcedFrom { source: Source::User, map: None }),
        Just(What::TrustHeader),
    ]
}

fn identity() -> impl Strategy<Value = Identity> {
    let names = || proptest::collection::vec(name().prop_map(Box::from), 0..3);
    let login = prop_oneof![
        Just(Login::None),
        name().prop_map(|name| Login::User(name.into())),
        name().prop_map(|name| Login::Token(name.into())),
        (proptest::option::of(name().prop_map(Box::from)), names())
            .prop_map(|(subject, tenants)| Login::Jwt(Arc::new(JwtIdentity { subject, tenants }))),
    ];
    let certificate = (proptest::option::of(name().prop_map(Box::from)), names(), names()).prop_map(
        |(common_name, dns, uris)| PeerCertificate { common_name, dns, uris, ..PeerCertificate::default() },
    );
    (login, proptest::option::of(certificate))
        .prop_map(|(login, certificate)| Identity { login, certificate: certificate.map(Arc::new) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// For any rules: the rule that a simple reading chooses decides, and a credential that no rule is for gets no
    /// tenant at all.
    #[test]
    fn nothing_is_allowed_that_no_rule_allows(
        rules in proptest::collection::vec((proptest::collection::vec(who(), 1..3), what()), 1..5),
        identity in identity(),
        tenant in name(),
    ) {
        let rules: Vec<_> = rules.into_iter().map(|(who, what)| AccessRule { who, what }).collect();
        // Many of these rules repeat others or force patterns, which are mistakes.
        let Ok(access) = Access::new(rules.clone(), IdRules::Thanos) else { return Ok(()) };
        let rule = rules.iter().find(|rule| rule.who.iter().any(|who| is_for(who, &identity)));
        let granted = access.grant(&identity);
        let allows = granted.as_ref().is_ok_and(|grant| grant.allows(tenant.as_bytes(), None));
        let forced = granted.as_ref().ok().and_then(|grant| grant.forced(Some("header")));
        let expected = match rule.map(|rule| &rule.what) {
            None => {
                prop_assert_eq!(&granted, &Err(Denied::NoRule));
                false
            }
            Some(What::Tenants(allow)) => {
                prop_assert_eq!(forced, None);
                allow.allows(tenant.as_bytes())
            }
            Some(What::TenantsOfJwt) => {
                matches!(&identity.login, Login::Jwt(jwt) if jwt.tenants.contains(&tenant.as_str().into()))
            }
            Some(What::Forced(id)) => {
                prop_assert_eq!(forced, Some(id.as_str()));
                *id == tenant
            }
            Some(What::ForcedFrom { source: Source::User, .. }) => {
                matches!(&identity.login, Login::User(user) if **user == *tenant && !tenant.is_empty())
            }
            Some(What::ForcedFrom { .. }) => {
                let cn = identity.certificate.as_ref().and_then(|known| known.common_name.as_deref());
                cn == Some(tenant.as_str()) && !tenant.is_empty()
            }
            Some(What::TrustHeader) => {
                prop_assert_eq!(forced, Some("header"));
                true
            }
        };
        prop_assert_eq!(allows, expected);
    }
}
