use super::*;
use crate::auth::password::PasswordHash;
use crate::auth::token::TokenHash;
use crate::auth::{Demand, Identity, JwtIdentity, Login, PeerCertificate};
use std::sync::Arc;

/// Users with the names that these tests use.
fn users() -> Users {
    let hash = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";
    let letters = ('a'..='z').map(String::from);
    let names = letters.chain(["alice", "gateway", "007"].map(str::to_owned));
    names.map(|name| (name.into(), PasswordHash::parse(hash).unwrap())).collect()
}

fn read(text: &str) -> Result<Access, ConfigMistakes> {
    let tokens = Tokens::new(["agent", "e"].map(|name| (name.into(), TokenHash::of(name.as_bytes()))));
    let credentials = Credentials {
        users: &users(),
        tokens: &tokens,
        jwts: true,
        jwt_tenants: true,
        certificates: true,
        tenant_header: true,
    };
    read_access("access.yml", text, IdRules::Mimir, Some(&credentials))
}

fn access(text: &str) -> Access {
    read(text).unwrap()
}

fn mistakes(text: &str) -> Vec<String> {
    let mistakes = read(text).unwrap_err();
    mistakes.to_string().lines().map(str::to_owned).collect()
}

fn user(name: &str) -> Identity {
    Identity { login: Login::User(name.into()), certificate: None }
}

fn certificate(cn: &str, dns: &str) -> Identity {
    let certificate = PeerCertificate {
        common_name: Some(cn.into()),
        dns: vec![dns.into()],
        uris: vec!["spiffe://example.com/ns/team-a/sa/agent".into()],
        ..PeerCertificate::default()
    };
    Identity { login: Login::None, certificate: Some(Arc::new(certificate)) }
}

fn jwt(subject: &str) -> Identity {
    let jwt = JwtIdentity { subject: Some(subject.into()), tenants: vec!["a".into(), "b".into()] };
    Identity { login: Login::Jwt(Arc::new(jwt)), certificate: None }
}

#[test]
fn every_form_of_a_rule_is_read() {
    let access = access(
        "\
- for: {user: alice}
  tenants: [shop, shop-*]
- tenant: infra
  for:
  - token: agent
  - certificate_cn: agent-*
- for: {certificate_dns: '*.agents.example.com'}
  tenant: {from: certificate_dns, match: '(.+)\\.agents\\.example\\.com', as: eu-$1}
- for: {certificate_uri: 'spiffe://example.com/*'}
  tenant: {from: certificate_uri, match: 'spiffe://example.com/ns/([^/]+)/.*'}
- for: {jwt: {sub: 'service-*'}}
  tenants: {from: jwt}
- for: {jwt: true}
  tenants: []
- for: {user: gateway}
  trust_header: true
- for: {user: 007}
  tenant: {from: user}
- for: {anyone: true}
  tenants: [public]
",
    );
    let token = Identity { login: Login::Token("agent".into()), certificate: None };
    for (identity, forced, allowed, denied) in [
        (user("alice"), None, "shop-1", "shopping"),
        (token, Some("infra"), "infra", "agent"),
        (certificate("agent-1", "x.agents.example.com"), Some("infra"), "infra", "x"),
        (certificate("other", "x.agents.example.com"), Some("eu-x"), "eu-x", "x"),
        (certificate("other", "other"), Some("team-a"), "team-a", "agent"),
        (jwt("service-1"), None, "b", "c"),
        (user("gateway"), Some("h"), "any", ""),
        (user("007"), Some("007"), "007", "7"),
        (Identity::default(), None, "public", "shop"),
    ] {
        let grant = access.grant(&identity).unwrap();
        assert_eq!(grant.forced(Some("h")), forced, "{identity}");
        assert!(grant.allows(allowed.as_bytes(), None), "{identity}");
        assert!(denied.is_empty() || !grant.allows(denied.as_bytes(), None), "{identity}");
    }
    assert!(!access.grant(&jwt("other")).unwrap().allows(b"a", None));
    assert_eq!(access.demand(), Demand::Nothing);
    assert_eq!(access.credentials().count(), 10);
}

#[test]
fn a_pattern_without_a_group_takes_the_whole_name() {
    let access = access("- {for: {anyone: true}, tenant: {from: certificate_cn, match: 'team-.*'}}");
    assert_eq!(access.grant(&certificate("team-1", "")).unwrap().forced(None), Some("team-1"));
    assert!(access.grant(&certificate("xteam-1", "")).is_err());
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_lines() {
    let text = "\
- for: {user: a}
  tenants: [x]
- for: {user: a}
  tenant: x
- {tenant: x}
- {for: {user: b}}
- {for: {user: c}, tenant: x, trust_header: true}
- {for: {user: d}, trust_header: yes}
- {for: {user: e, token: e}, tenant: x}
- {for: {usr: f}, tenant: x}
- {for: [], tenant: x}
- {for: x, tenant: x}
- {for: {user: [g]}, tenant: x}
- {for: {user: h}, tenants: x}
- {for: {user: i}, tenants: {from: user}}
- {for: {user: j}, tenants: {from: jwt}}
- {for: {user: k}, tenant: {from: certificate}}
- {for: {user: l}, tenant: {from: user, match: 'a('}}
- {for: {user: m}, tenant: {from: user, match: a, as: $1}}
- {for: {user: n}, tenant: {from: user, as: x}}
- {for: {user: o}, tenant: {match: x}}
- {for: {user: p}, tenant: two words}
- {for: {user: q}, tenants: [a, '']}
- {for: {jwt: {}}, tenant: x}
- {for: {jwt: {iss: a}}, tenant: x}
- {for: {anyone: false}, tenant: x}
- {for: {user: r}, tenant: {from: user, from: token, x: y}}
- just words
- {for: {user: s}, allow: [x]}
- {for: {user: t}, for: {user: u}, tenant: x}
- {for: {user: ''}, tenant: x}
- {for: {jwt: yes}, tenant: x}
- {for: {user: v}, tenants: {}}
- {for: {user: w}, tenant: {from: user, match: ''}}
";
    let expected = [
        "access.yml:3: never applies: the rule on line 1 is for the same",
        "access.yml:5: the credentials are missing; give `for`",
        "access.yml:6: what is allowed is missing; give `tenants`, `tenant` or `trust_header`",
        "access.yml:7: trust_header: `tenant` is already given; a rule has only one of them",
        "access.yml:8: trust_header: wants `true`, or leave it out",
        "access.yml:9: for: wants one credential per item; write a list (`- user: …`)",
        "access.yml:10: for.usr: unknown credential; possible are user, token, certificate_cn, certificate_dns, \
         certificate_uri, jwt and anyone",
        "access.yml:11: for: lists no credentials",
        "access.yml:12: for: wants a credential (`user: …`), not a single value",
        "access.yml:13: for.user: wants a single value, not a list",
        "access.yml:14: tenants: wants a list, or `{from: jwt}`, not a single value",
        "access.yml:15: tenants.from: \"user\" is not possible; write jwt",
        "access.yml:16: takes the tenant from a JWT, but is for none",
        "access.yml:17: tenant.from: \"certificate\" is not possible; write user, token, jwt, certificate_cn, \
         certificate_dns or certificate_uri",
        "access.yml:18: tenant.match: is not a regular expression: unclosed group",
        "access.yml:19: tenant.as: `$1` stands for no group of the pattern; write `$$` for a dollar",
        "access.yml:20: tenant.as: has no effect without `match`",
        "access.yml:21: tenant: wants a tenant ID, or `{from: …}`",
        "access.yml:22: is no tenant ID: it contains ' ', which is not allowed",
        "access.yml:23: tenants: must not be empty",
        "access.yml:24: for.jwt: wants `true` for every JWT, or `sub: …`",
        "access.yml:25: for.jwt.iss: unknown key; possible is `sub`",
        "access.yml:25: for.jwt: wants `true` for every JWT, or `sub: …`",
        "access.yml:26: for.anyone: wants `true`, or leave it out",
        "access.yml:27: tenant.from: is already given",
        "access.yml:27: tenant.x: unknown key; possible are from, match, as",
        "access.yml:28: a rule wants keys with values (`for: …`), not a single value",
        "access.yml:29: allow: unknown key; a rule has `for`, and one of tenants, tenant and trust_header",
        "access.yml:30: for: is already given; list several credentials in it",
        "access.yml:31: for.user: must not be empty",
        "access.yml:32: for.jwt: wants `true`, or leave it out",
        "access.yml:33: tenants: wants a list, or `{from: jwt}`",
        "access.yml:34: tenant.match: must not be empty",
    ];
    assert_eq!(mistakes(text), expected);
}

#[test]
fn a_file_without_rules_is_a_mistake() {
    let told = "has no rules, so nothing could be written; remove the setting to allow everything";
    for text in ["", "# none yet", "[]"] {
        assert_eq!(mistakes(text), [format!("access.yml:1: {told}")]);
    }
    assert_eq!(mistakes("for: x"), ["access.yml:1: wants a list of rules (`- for: …`), not a section"]);
    assert!(mistakes("- 'a\n")[0].starts_with("access.yml:1: not YAML"));
}

#[test]
fn a_rule_for_a_credential_that_does_not_exist_is_a_mistake() {
    let text = "\
- for: [{user: alice}, {user: nobody}]
  tenants: [a]
- for: {token: lost}
  tenants: [a]
- for: {jwt: true}
  tenants: {from: jwt}
- for: [{certificate_cn: a}, {certificate_dns: a}, {certificate_uri: a}]
  trust_header: true
";
    let users = users();
    let none = Credentials {
        users: &users,
        tokens: &Tokens::default(),
        jwts: false,
        jwt_tenants: false,
        certificates: false,
        tenant_header: false,
    };
    let told = read_access("access.yml", text, IdRules::Mimir, Some(&none)).unwrap_err().to_string();
    let certificate =
        "access.yml:7: for: no certificate of a sender is verified; set auth.ingress.tls_config.client_auth";
    let expected = [
        "access.yml:1: for: there is no user \"nobody\"; auth.ingress.web_config_file has the users",
        "access.yml:3: for: there is no token \"lost\"; auth.ingress.tokens_file has the tokens",
        "access.yml:5: for: no JWT is accepted; set auth.ingress.jwt.jwks_file",
        "access.yml:5: from: JWTs name no tenants; set auth.ingress.jwt.tenants_claim",
        certificate,
        certificate,
        certificate,
        "access.yml:7: trust_header: the tenant is in two headers (tenant.header), which requests cannot name it by",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}
