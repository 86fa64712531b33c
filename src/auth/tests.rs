use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::jwt::tests::{Signer, keys, now};
use super::password::{PasswordHash, Users};
use super::token::TokenHash;
use super::*;

fn caller() -> Caller {
    Caller { core: 1, peer: None, now: UNIX_EPOCH + Duration::from_secs(now()) }
}

fn certificate() -> Arc<PeerCertificate> {
    Arc::new(PeerCertificate { common_name: Some("cn".into()), ..PeerCertificate::default() })
}

fn passwords() -> (Passwords, Receiver<(usize, Ticket, Verdict)>) {
    let (sender, told) = channel();
    let sender = Mutex::new(sender);
    let hash = PasswordHash::parse(&bcrypt::hash("canary-password", 4).unwrap()).unwrap();
    let deliver = move |core, ticket, verdict| {
        let _ = sender.lock().unwrap().send((core, ticket, verdict));
    };
    (Passwords::start(Users::from([("alice".into(), hash)]), Arc::new(deliver)).unwrap(), told)
}

fn jwts(signer: &Signer) -> Jwts {
    let rules = JwtRules {
        audiences: vec![],
        issuers: vec![],
        leeway: Duration::ZERO,
        tenants_claim: Some("tenants".into()),
    };
    Jwts::new(keys(&[signer.jwk()]), rules).unwrap()
}

fn tokens() -> Tokens {
    Tokens::new([("agent".into(), TokenHash::of(b"canary-token-0001"))])
}

fn basic(user: &str, password: &str) -> Authorization {
    Authorization::Basic { user: user.into(), password: Secret::new(password) }
}

fn bearer(token: &str) -> Authorization {
    Authorization::Bearer(Secret::new(token))
}

/// Asks, and waits for the verdict if there is none yet.
fn decide(
    authenticator: &Authenticator,
    told: &Receiver<(usize, Ticket, Verdict)>,
    authorization: &Authorization,
    certificate: Option<&Arc<PeerCertificate>>,
) -> Decision {
    match authenticator.authenticate(authorization, certificate, &caller()) {
        Decision::Pending(pending) => {
            let (core, ticket, verdict) = told.recv_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!((core, ticket, authenticator.checks_waiting()), (1, pending.ticket, 0));
            pending.conclude(verdict)
        }
        decision => decision,
    }
}

#[test]
fn without_methods_the_header_is_ignored() {
    let authenticator = Authenticator::new(Methods::default());
    for authorization in [
        Authorization::Absent,
        Authorization::Other,
        Authorization::Malformed("x"),
        basic("a", "b"),
        bearer("c"),
    ] {
        assert_eq!(authenticator.authenticate(&authorization, None, &caller()), Decision::Anonymous);
        let known = Identity { login: Login::None, certificate: Some(certificate()) };
        assert_eq!(
            authenticator.authenticate(&authorization, Some(&certificate()), &caller()),
            Decision::Known(known)
        );
    }
    assert!(!authenticator.has_methods());
    assert_eq!(authenticator.challenge(Unauthorized::Missing), "");
}

#[test]
fn every_method_is_told_what_it_accepts() {
    let signer = Signer::ed();
    let (passwords, told) = passwords();
    let methods = Methods {
        passwords: Some(Arc::new(passwords)),
        tokens: tokens(),
        jwts: Some(Arc::new(jwts(&signer))),
        demand: Demand::Login,
    };
    let authenticator = Authenticator::new(methods);
    let token = |exp: u64| {
        let token = signer.token(&json!({"alg": "EdDSA"}), &json!({"exp": exp, "sub": "s", "tenants": "a"}));
        Authorization::Bearer(token)
    };
    let jwt = Login::Jwt(Arc::new(JwtIdentity { subject: Some("s".into()), tenants: vec!["a".into()] }));
    let unauthorized = |reason| Err::<Login, _>(reason);
    for (authorization, expected) in [
        (Authorization::Absent, unauthorized(Unauthorized::Missing)),
        (Authorization::Other, unauthorized(Unauthorized::Scheme)),
        (Authorization::Malformed("why"), unauthorized(Unauthorized::Malformed("why"))),
        (basic("alice", "canary-password"), Ok(Login::User("alice".into()))),
        (basic("alice", "canary-password"), Ok(Login::User("alice".into()))),
        (basic("alice", "wrong"), unauthorized(Unauthorized::Password)),
        (basic("alice", "wrong"), unauthorized(Unauthorized::Password)),
        (basic("bob", "canary-password"), unauthorized(Unauthorized::Password)),
        (bearer("canary-token-0001"), Ok(Login::Token("agent".into()))),
        (bearer("canary-token-0002"), unauthorized(Unauthorized::Token)),
        (bearer("a.b.c"), unauthorized(Unauthorized::Jwt(jwt::JwtFault::Malformed))),
        (token(now() + 100), Ok(jwt)),
        (token(now() - 100), unauthorized(Unauthorized::Jwt(jwt::JwtFault::Expired))),
    ] {
        for certificate in [None, Some(certificate())] {
            let expected = match &expected {
                Ok(login) => {
                    Decision::Known(Identity { login: login.clone(), certificate: certificate.clone() })
                }
                Err(reason) => Decision::Unauthorized(*reason),
            };
            let decision = decide(&authenticator, &told, &authorization, certificate.as_ref());
            assert_eq!(decision, expected, "{authorization:?} {certificate:?}");
        }
    }
}

#[test]
fn the_demand_decides_about_requests_without_the_header() {
    let absent = Authorization::Absent;
    let missing = Decision::Unauthorized(Unauthorized::Missing);
    let known = Decision::Known(Identity { login: Login::None, certificate: Some(certificate()) });
    for (demand, without, with) in [
        (Demand::Login, &missing, &missing),
        (Demand::LoginOrCertificate, &missing, &known),
        (Demand::Nothing, &Decision::Anonymous, &known),
    ] {
        let authenticator = Authenticator::new(Methods { tokens: tokens(), demand, ..Methods::default() });
        assert_eq!(authenticator.authenticate(&absent, None, &caller()), *without, "{demand:?}");
        assert_eq!(authenticator.authenticate(&absent, Some(&certificate()), &caller()), *with, "{demand:?}");
        // A wrong credential is refused even where none is needed.
        let wrong = authenticator.authenticate(&bearer("wrong"), Some(&certificate()), &caller());
        assert_eq!(wrong, Decision::Unauthorized(Unauthorized::Token), "{demand:?}");
    }
}

#[test]
fn a_scheme_that_is_not_configured_is_refused() {
    let authenticator = Authenticator::new(Methods { tokens: tokens(), ..Methods::default() });
    let decision = authenticator.authenticate(&basic("a", "b"), None, &caller());
    assert_eq!(decision, Decision::Unauthorized(Unauthorized::Scheme));
    assert!(authenticator.challenge(Unauthorized::Scheme).starts_with("WWW-Authenticate: Bearer"));
    let (passwords, _told) = passwords();
    let authenticator =
        Authenticator::new(Methods { passwords: Some(Arc::new(passwords)), ..Methods::default() });
    let decision = authenticator.authenticate(&bearer("a"), None, &caller());
    assert_eq!(decision, Decision::Unauthorized(Unauthorized::Scheme));
    assert!(authenticator.challenge(Unauthorized::Scheme).starts_with("WWW-Authenticate: Basic"));
    // With keys only, whatever is sent is taken for a JWT.
    let signer = Signer::ed();
    let authenticator =
        Authenticator::new(Methods { jwts: Some(Arc::new(jwts(&signer))), ..Methods::default() });
    let decision = authenticator.authenticate(&bearer("opaque"), None, &caller());
    assert_eq!(decision, Decision::Unauthorized(Unauthorized::Jwt(jwt::JwtFault::Malformed)));
}

#[test]
fn no_secret_is_shown() {
    let signer = Signer::ed();
    let (passwords, _told) = passwords();
    let methods = Methods {
        passwords: Some(Arc::new(passwords)),
        tokens: tokens(),
        jwts: Some(Arc::new(jwts(&signer))),
        demand: Demand::Login,
    };
    let authenticator = Authenticator::new(methods);
    let mut shown = format!("{authenticator:?}");
    let jwt = signer.token(&json!({"alg": "EdDSA"}), &json!({"exp": now() + 100, "sub": "s"}));
    let text = String::from_utf8(jwt.expose().to_vec()).unwrap();
    for authorization in [
        basic("alice", "canary-password"),
        basic("alice", "canary-wrong"),
        bearer("canary-token-0001"),
        bearer("canary.token.0002"),
        Authorization::Bearer(jwt),
    ] {
        let decision = authenticator.authenticate(&authorization, None, &caller());
        shown += &format!("{authorization:?} {decision:?}");
        match decision {
            Decision::Unauthorized(reason) => {
                shown += &format!("{reason} {}", authenticator.challenge(reason))
            }
            Decision::Known(identity) => shown += &identity.to_string(),
            _ => {}
        }
    }
    assert!(!shown.contains("canary") && !shown.contains("$2") && !shown.contains(&text), "{shown}");
    assert!(!shown.contains(text.rsplit('.').next().unwrap()), "{shown}");
}
