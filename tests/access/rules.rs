//! Every form of a rule against every kind of credential.

use serde_json::json;
use testkit::pki::Wanted;

use crate::rig::{Credentials, basic, bearer, connect, token_of};
use crate::support::server::on_both;
use crate::support::{Driver, Upstream, body, one, series};

/// One rule for each form of credential and of what is allowed.
const RULES: &str = "\
- for: {user: alice}
  tenants: [shop, 'shop-*']
- for: [{token: agent}, {certificate_cn: 'agent-*'}]
  tenant: infra
- for: {certificate_dns: '*.agents.example.com'}
  tenant: {from: certificate_dns, match: '(.+)\\.agents\\.example\\.com', as: dns-$1}
- for: {certificate_uri: 'spiffe://example.com/*'}
  tenant: {from: certificate_uri, match: 'spiffe://example.com/ns/([^/]+)/.*'}
- for: {jwt: {sub: 'service-*'}}
  tenants: {from: jwt}
- for: {jwt: {sub: single}}
  tenant: {from: jwt}
- for: {user: gateway}
  trust_header: true
- for: {user: own}
  tenant: {from: user}
- for: {token: own-token}
  tenant: {from: token}
- for: {anyone: true}
  tenants: [public]
";

/// What becomes of a series of tenant `shop-1`, of one of `public`, and of one of `other`: the tenant under which it
/// arrives, or the status of the refusal.
type Fate = Result<&'static str, u16>;

struct Case {
    name: &'static str,
    header: String,
    certificate: Option<Wanted>,
    fates: [Fate; 3],
}

fn cases(rig: &Credentials) -> Vec<Case> {
    const DENIED: Fate = Err(403);
    let case = |name, header: String, fates| Case { name, header, certificate: None, fates };
    let shown =
        |name, wanted: Wanted, fates| Case { name, header: String::new(), certificate: Some(wanted), fates };
    let uri = |uri: &str| Wanted { uris: vec![uri.into()], ..Wanted::client("someone") };
    let dns = |name: &str| Wanted { dns_names: vec![name.into()], ..Wanted::client("someone") };
    let header =
        |tenant: &str| basic("gateway", "gateway-password") + &format!("X-Scope-OrgID: {tenant}\r\n");
    let jwt = |claims| bearer(&rig.issuer.token(claims));
    vec![
        case("none", String::new(), [DENIED, Ok("public"), DENIED]),
        case("alice", basic("alice", "alice-password"), [Ok("shop-1"), DENIED, DENIED]),
        case("own", basic("own", "own-password"), [Ok("own"); 3]),
        case("a user without a rule", basic("bob", "bob-password"), [DENIED, Ok("public"), DENIED]),
        case("a wrong password", basic("alice", "bob-password"), [Err(401); 3]),
        case("an unknown user", basic("nobody", "bob-password"), [Err(401); 3]),
        case("agent", bearer(&token_of("agent")), [Ok("infra"); 3]),
        case("own-token", bearer(&token_of("own-token")), [Ok("own-token"); 3]),
        case("an unknown token", bearer(&token_of("nobody")), [Err(401); 3]),
        case("another scheme", "Authorization: Digest x\r\n".into(), [Err(401); 3]),
        case("gateway with a header", header("h"), [Ok("h"); 3]),
        case(
            "gateway without one",
            basic("gateway", "gateway-password"),
            [Ok("shop-1"), Ok("public"), Ok("other")],
        ),
        case(
            "a header that is not trusted",
            "X-Scope-OrgID: public\r\n".into(),
            [DENIED, Ok("public"), DENIED],
        ),
        case(
            "a JWT with tenants",
            jwt(json!({"sub": "service-1", "tenants": ["shop-1", "other"]})),
            [Ok("shop-1"), DENIED, Ok("other")],
        ),
        case("a JWT without tenants", jwt(json!({"sub": "service-1"})), [DENIED; 3]),
        case("a JWT with one tenant", jwt(json!({"sub": "single", "tenants": "one"})), [Ok("one"); 3]),
        case("a JWT with two", jwt(json!({"sub": "single", "tenants": ["one", "two"]})), [DENIED; 3]),
        case("a JWT of no rule", jwt(json!({"sub": "x"})), [DENIED, Ok("public"), DENIED]),
        case("a JWT that has expired", jwt(json!({"sub": "service-1", "exp": 1_000_000})), [Err(401); 3]),
        shown("agent-1", Wanted::client("agent-1"), [Ok("infra"); 3]),
        shown("a DNS name", dns("Eu.Agents.example.com"), [Ok("dns-eu"); 3]),
        shown("a URI", uri("spiffe://example.com/ns/team-a/sa/x"), [Ok("team-a"); 3]),
        shown("a URI that names no tenant", uri("spiffe://example.com/x"), [DENIED; 3]),
        shown("a certificate of no rule", Wanted::client("x"), [DENIED, Ok("public"), DENIED]),
    ]
}

fn check(driver: Driver, rig: &Credentials) {
    let (server, upstream) = rig.start(driver, RULES, "");
    for Case { name, header, certificate, fates } in cases(rig) {
        let config =
            certificate.map_or_else(|| rig.without_certificate(), |wanted| rig.with_certificate(&wanted));
        for (tenant, fate) in ["shop-1", "public", "other"].into_iter().zip(fates) {
            let before = upstream.received().len();
            let response = connect(&server, &config).push_with(&one(tenant), &header);
            let arrived: Vec<_> =
                upstream.received().iter().skip(before).map(|r| r.tenant().to_owned()).collect();
            let expected = fate.map_or(vec![], |tenant| vec![tenant.to_owned()]);
            assert_eq!(arrived, expected, "{name}, {tenant}: {}", response.text());
            assert_eq!(response.status, fate.map_or_else(|status| status, |_| 200), "{name}, {tenant}");
            if fate == Err(401) {
                let challenges = response.headers.0.iter().filter(|(name, _)| name == "www-authenticate");
                assert_eq!(challenges.count(), 2, "{name}");
            }
        }
    }
    counted_by_credential(&server, &upstream);
}

fn counted_by_credential(server: &crate::support::Server, upstream: &Upstream) {
    let count = |labels: &str| server.metric("tenantry_credential_series_total", labels);
    for (labels, series) in [
        ("kind=\"user\",name=\"alice\",tenant=\"shop-1\"", 1.0),
        ("kind=\"token\",name=\"agent\",tenant=\"infra\"", 3.0),
        ("kind=\"jwt\",name=\"service-1\",tenant=\"other\"", 1.0),
        ("kind=\"certificate\",name=\"agent-1\",tenant=\"infra\"", 3.0),
        ("kind=\"none\",name=\"\",tenant=\"public\"", 2.0),
        ("tenant=\"nobody\"", 0.0),
    ] {
        assert_eq!(count(labels), series, "{labels}");
    }
    assert_eq!(count(""), upstream.received().len() as f64);
    assert!(server.metric("tenantry_rejections_total", "reason=\"unauthorized\"") >= 12.0);
    assert!(server.metric("tenantry_rejections_total", "reason=\"denied_tenant\"") >= 12.0);
}

#[test]
fn every_credential_writes_what_its_rule_allows() {
    let rig = Credentials::new(&["alice", "bob", "gateway", "own"], &["agent", "own-token"]);
    on_both(|driver| check(driver, &rig));
}

#[test]
fn series_of_other_tenants_are_dropped_or_refuse_the_request() {
    let rig = Credentials::new(&["alice"], &["agent"]);
    let rules = "- {for: {user: alice}, tenants: [a]}\n- {for: {token: agent}, tenant: infra}\n";
    let mixed = body(vec![series("a", "one", 1.0), series("b", "two", 2.0), series("a", "three", 3.0)]);
    let alice = basic("alice", "alice-password");
    on_both(|driver| {
        let (server, upstream) = rig.start(driver, rules, "");
        let refused = server_push(&rig, &server, &mixed, &alice);
        assert_eq!((refused.status, upstream.received().len()), (403, 0));
        assert!(
            refused.text().contains("tenant \"b\" (from label tenant) is not among those"),
            "{refused:?}"
        );
        let log = server.log().join("\n");
        assert!(log.contains("user \\\"alice\\\"") || log.contains("user \"alice\""), "{log}");

        let (server, upstream) = rig.start(driver, rules, "tenant: {label: tenant, on_invalid: drop}\n");
        let dropped = server_push(&rig, &server, &mixed, &alice);
        assert_eq!(dropped.status, 400, "like other series that are refused");
        assert!(dropped.text().contains("1 with one that these credentials may not write to"), "{dropped:?}");
        assert_eq!(upstream.received().len(), 1);
        assert_eq!(upstream.of("a")[0].names(), ["one", "three"]);
        assert_eq!(server.metric("tenantry_series_dropped_total", "reason=\"denied\""), 1.0);
    });
}

fn server_push(
    rig: &Credentials,
    server: &crate::support::Server,
    body: &[u8],
    header: &str,
) -> crate::support::Response {
    connect(server, &rig.without_certificate()).push_with(body, header)
}

#[test]
fn a_forced_tenant_gets_the_prefix_and_must_be_valid() {
    let rig = Credentials::new(&["gateway"], &["agent"]);
    let rules = "- {for: {user: gateway}, trust_header: true}\n- {for: {token: agent}, tenant: infra}\n";
    on_both(|driver| {
        let (server, upstream) = rig.start(driver, rules, "tenant: {prefix: eu-, label_remove: true}\n");
        assert_eq!(server_push(&rig, &server, &one("a"), &bearer(&token_of("agent"))).status, 200);
        assert_eq!(upstream.received()[0].tenant(), "eu-infra");
        let gateway = |tenant: &str| {
            let header = basic("gateway", "gateway-password") + &format!("X-Scope-OrgID: {tenant}\r\n");
            server_push(&rig, &server, &one("a"), &header)
        };
        assert_eq!(gateway("x").status, 200);
        assert_eq!(upstream.received()[1].tenant(), "eu-x");
        let invalid = gateway("two words");
        assert_eq!(invalid.status, 400);
        assert!(invalid.text().contains("(from the tenant header)"), "{}", invalid.text());
    });
}
