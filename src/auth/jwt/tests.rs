use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use serde_json::json;

use super::*;

/// A key pair that signs tokens.
pub(in crate::auth) enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(in crate::auth) fn ed() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn ec() -> Self {
        let signing = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(signing, &SystemRandom::new()).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(signing, key.as_ref(), &SystemRandom::new()).unwrap())
    }

    /// ring makes no RSA keys, so this one is in a file. It is used nowhere else.
    fn rsa() -> Self {
        let key = include_str!("rsa_test_key.txt").split_ascii_whitespace().collect::<String>();
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(&STANDARD.decode(key).unwrap()).unwrap()))
    }

    /// The public key as a JWK, without `kid` and `alg`.
    pub(in crate::auth) fn jwk(&self) -> Value {
        match self {
            Self::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key())})
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = point[1..].split_at(point.len() / 2);
                json!({"kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y)})
            }
            Self::Rsa(key) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": base64url(public.n), "e": base64url(public.e)})
            }
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let encoding: &'static dyn signature::RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut signed = vec![0; key.public().modulus_len()];
                key.sign(encoding, &random, message, &mut signed).unwrap();
                signed
            }
        }
    }

    /// A token with this header and these claims.
    pub(in crate::auth) fn token(&self, header: &Value, claims: &Value) -> Secret {
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let signed = self.sign(header["alg"].as_str().unwrap_or_default(), message.as_bytes());
        Secret::new(format!("{message}.{}", base64url(signed)))
    }
}

pub(in crate::auth) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn rules() -> JwtRules {
    JwtRules {
        audiences: vec![],
        issuers: vec![],
        leeway: Duration::from_secs(30),
        tenants_claim: Some("tenants".into()),
    }
}

pub(in crate::auth) fn keys(jwks: &[Value]) -> Keys {
    Keys::parse(&json!({ "keys": jwks }).to_string()).unwrap().0
}

fn jwts(jwks: &[Value], rules: JwtRules) -> Jwts {
    Jwts::new(keys(jwks), rules).unwrap()
}

fn with(mut jwk: Value, fields: &[(&str, &str)]) -> Value {
    for (name, value) in fields {
        jwk[*name] = json!(value);
    }
    jwk
}

fn check(jwts: &Jwts, token: &Secret) -> Result<Arc<JwtIdentity>, JwtFault> {
    jwts.check(token, SystemTime::now())
}

#[test]
fn each_algorithm_is_verified_and_nothing_else() {
    let claims = json!({"exp": now() + 100, "sub": "me", "tenants": ["a", "b"]});
    let rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let signers = [(Signer::ed(), vec!["EdDSA"]), (Signer::ec(), vec!["ES256"])];
    for (signer, algorithms) in signers.into_iter().chain([(Signer::rsa(), rsa.to_vec())]) {
        let jwts = jwts(&[signer.jwk()], rules());
        for algorithm in algorithms {
            let token = signer.token(&json!({ "alg": algorithm }), &claims);
            let identity = check(&jwts, &token).unwrap();
            assert_eq!(identity.subject.as_deref(), Some("me"), "{algorithm}");
            assert_eq!(*identity.tenants, ["a".into(), "b".into()]);
            // Each byte of the token counts.
            let mut other = token.expose().to_vec();
            let middle = other.iter().position(|byte| *byte == b'.').unwrap() + 5;
            other[middle] = if other[middle] == b'A' { b'B' } else { b'A' };
            assert!(check(&jwts, &Secret::new(other)).is_err(), "{algorithm}");
            let mut other = token.expose().to_vec();
            let last = other.len() - 10;
            other[last] = if other[last] == b'A' { b'B' } else { b'A' };
            assert_eq!(check(&jwts, &Secret::new(other)), Err(JwtFault::Signature), "{algorithm}");
        }
    }
}

#[test]
fn the_key_decides_about_the_algorithm_and_not_the_token() {
    let claims = json!({"exp": now() + 100});
    let (rsa, ed) = (Signer::rsa(), Signer::ed());
    let rsa_only = jwts(&[with(rsa.jwk(), &[("alg", "RS256")])], rules());
    assert!(check(&rsa_only, &rsa.token(&json!({"alg": "RS256"}), &claims)).is_ok());
    assert_eq!(check(&rsa_only, &rsa.token(&json!({"alg": "PS256"}), &claims)), Err(JwtFault::Algorithm));
    assert_eq!(check(&rsa_only, &ed.token(&json!({"alg": "EdDSA"}), &claims)), Err(JwtFault::Algorithm));
    // A signature by another algorithm than the header says.
    let token = rsa.token(&json!({"alg": "RS512"}), &claims);
    let body = String::from_utf8(token.expose().to_vec()).unwrap();
    let (_, rest) = body.split_once('.').unwrap();
    let forged = format!("{}.{rest}", base64url(json!({"alg": "RS256"}).to_string()));
    assert_eq!(check(&rsa_only, &Secret::new(forged)), Err(JwtFault::Signature));
    // An HMAC keyed with what is public, and no signature at all.
    let public = rsa.jwk()["n"].as_str().unwrap().to_owned();
    let keys = [public.clone().into_bytes(), URL_SAFE_NO_PAD.decode(&public).unwrap()];
    for key in keys {
        let message = format!("{}.{}", base64url(r#"{"alg":"HS256"}"#), base64url(claims.to_string()));
        let mac = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key), message.as_bytes());
        let token = Secret::new(format!("{message}.{}", base64url(mac)));
        assert_eq!(check(&rsa_only, &token), Err(JwtFault::Algorithm));
    }
    for algorithm in ["none", "None", "NONE", "", "ES512", "HS512"] {
        for end in ["", "AAAA"] {
            let header = base64url(json!({ "alg": algorithm }).to_string());
            let token = Secret::new(format!("{header}.{}.{end}", base64url(claims.to_string())));
            assert!(check(&rsa_only, &token).is_err(), "{algorithm}");
        }
    }
}

#[test]
fn times_are_checked_with_leeway() {
    let signer = Signer::ed();
    let jwts = jwts(&[signer.jwk()], rules());
    let header = json!({"alg": "EdDSA"});
    for (claims, expected) in [
        (json!({"exp": now() + 100}), None),
        (json!({"exp": now() as f64 + 100.5}), None),
        (json!({"exp": now() - 20}), None),
        (json!({"exp": now() - 40}), Some(JwtFault::Expired)),
        (json!({"exp": 0}), Some(JwtFault::Expired)),
        (json!({}), Some(JwtFault::Claim)),
        (json!({"exp": null}), Some(JwtFault::Claim)),
        (json!({"exp": (now() + 100).to_string()}), Some(JwtFault::Claim)),
        (json!({"exp": -5}), Some(JwtFault::Claim)),
        (json!({"exp": [now() + 100]}), Some(JwtFault::Malformed)),
        (json!({"exp": u64::MAX}), None),
        (json!({"exp": now() + 100, "nbf": now() + 20}), None),
        (json!({"exp": now() + 100, "nbf": now() + 50}), Some(JwtFault::Early)),
        (json!({"exp": now() + 100, "nbf": u64::MAX}), Some(JwtFault::Early)),
        (json!({"exp": now() + 100, "nbf": "0"}), Some(JwtFault::Claim)),
        (json!("claims"), Some(JwtFault::Malformed)),
        (json!([1]), Some(JwtFault::Malformed)),
    ] {
        let found = check(&jwts, &signer.token(&header, &claims)).err();
        assert_eq!(found, expected, "{claims}");
    }
}

#[test]
fn audience_and_issuer_are_required_if_configured() {
    let signer = Signer::ed();
    let token = |fields: Value| {
        let mut claims = json!({"exp": now() + 100});
        for (name, value) in fields.as_object().unwrap() {
            claims[name] = value.clone();
        }
        signer.token(&json!({"alg": "EdDSA"}), &claims)
    };
    let of = |audiences: &[&str], issuers: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        jwts(&[signer.jwk()], JwtRules { audiences: texts(audiences), issuers: texts(issuers), ..rules() })
    };
    for (audiences, issuers, claims, expected) in [
        (&["t"][..], &[][..], json!({"aud": "t"}), None),
        (&["t", "u"], &[], json!({"aud": ["x", "u"]}), None),
        (&["t"], &[], json!({"aud": "x"}), Some(JwtFault::Audience)),
        (&["t"], &[], json!({"aud": []}), Some(JwtFault::Audience)),
        (&["t"], &[], json!({"aud": 5}), Some(JwtFault::Claim)),
        (&["t"], &[], json!({}), Some(JwtFault::Claim)),
        // RFC 7519 section 4.1.3: a token for somebody else.
        (&[], &[], json!({"aud": "t"}), Some(JwtFault::Audience)),
        (&[], &["https://i"], json!({"iss": "https://i"}), None),
        (&[], &["https://i"], json!({"iss": "https://i/"}), Some(JwtFault::Issuer)),
        (&[], &["https://i"], json!({"iss": {"https://i": 1}}), Some(JwtFault::Claim)),
        (&[], &["https://i"], json!({}), Some(JwtFault::Claim)),
        (&[], &[], json!({"iss": "anyone"}), None),
    ] {
        let found = check(&of(audiences, issuers), &token(claims.clone())).err();
        assert_eq!(found, expected, "{audiences:?} {issuers:?} {claims}");
    }
}

#[test]
fn the_kid_chooses_the_key() {
    let signers = [Signer::ed(), Signer::ed(), Signer::ed()];
    let [a, b, unnamed] = &signers;
    let jwts =
        jwts(&[with(a.jwk(), &[("kid", "a")]), with(b.jwk(), &[("kid", "b")]), unnamed.jwk()], rules());
    let claims = json!({"exp": now() + 100});
    for (signer, kid, expected) in [
        (a, Some("a"), None),
        (b, Some("b"), None),
        (b, Some("a"), Some(JwtFault::Signature)),
        (a, None, None),
        (b, None, None),
        (unnamed, Some("c"), None),
        (unnamed, None, Some(JwtFault::Signature)),
        (a, Some("c"), Some(JwtFault::Signature)),
        (a, Some(""), Some(JwtFault::Signature)),
    ] {
        let header = kid.map_or(json!({"alg": "EdDSA"}), |kid| json!({"alg": "EdDSA", "kid": kid}));
        assert_eq!(check(&jwts, &signer.token(&header, &claims)).err(), expected, "{kid:?}");
    }
    let only_a = self::jwts(&[with(a.jwk(), &[("kid", "a")])], rules());
    let header = json!({"alg": "EdDSA", "kid": "b"});
    assert_eq!(check(&only_a, &a.token(&header, &claims)), Err(JwtFault::Key));
}

#[test]
fn a_token_is_tried_with_few_keys() {
    let signers: Vec<_> = (0..10).map(|_| Signer::ed()).collect();
    let jwts = jwts(&signers.iter().map(Signer::jwk).collect::<Vec<_>>(), rules());
    let claims = json!({"exp": now() + 100});
    for (at, signer) in signers.iter().enumerate() {
        let found = check(&jwts, &signer.token(&json!({"alg": "EdDSA"}), &claims));
        assert_eq!(found.is_ok(), at < JWT_KEYS_TRIED_MAX, "{at}");
    }
}

#[test]
fn tenants_are_found_by_name_or_by_path() {
    let signer = Signer::ed();
    let claims = json!({
        "exp": now() + 100,
        "one": "a", "list": ["a", "b"], "numbers": [1, 2], "none": null, "empty": [], "blank": "",
        "a": {"b": {"c": ["deep"]}, "b.c": "half"},
        "https://example.com/tenants": ["url"],
        "wrong": {"a": 1}, "mixed": ["a", {"b": 1}], "negative": -1, "nested": [["a"]], "flag": true,
    });
    let token = signer.token(&json!({"alg": "EdDSA"}), &claims);
    for (path, expected) in [
        ("one", Ok(&["a"][..])),
        ("list", Ok(&["a", "b"])),
        ("numbers", Ok(&["1", "2"])),
        ("none", Ok(&[])),
        ("empty", Ok(&[])),
        ("blank", Ok(&[""])),
        ("missing", Ok(&[])),
        ("one.more", Ok(&[])),
        ("a.b.c", Ok(&["half"])),
        ("https://example.com/tenants", Ok(&["url"])),
        ("wrong", Err(JwtFault::Tenants)),
        ("mixed", Err(JwtFault::Tenants)),
        ("negative", Err(JwtFault::Tenants)),
        ("nested", Err(JwtFault::Tenants)),
        ("flag", Err(JwtFault::Tenants)),
        ("", Ok(&[])),
        ("...", Ok(&[])),
    ] {
        let jwts = jwts(&[signer.jwk()], JwtRules { tenants_claim: Some(path.into()), ..rules() });
        let found =
            check(&jwts, &token).map(|found| found.tenants.iter().map(|t| t.to_string()).collect::<Vec<_>>());
        assert_eq!(
            found,
            expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            "{path}"
        );
    }
    let none = jwts(&[signer.jwk()], JwtRules { tenants_claim: None, ..rules() });
    assert!(check(&none, &token).unwrap().tenants.is_empty());
}

#[test]
fn what_is_no_jwt_is_refused() {
    let signer = Signer::ed();
    let jwts = jwts(&[signer.jwk()], rules());
    let good = signer.token(&json!({"alg": "EdDSA"}), &json!({"exp": now() + 100}));
    let good = String::from_utf8(good.expose().to_vec()).unwrap();
    for token in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "e30.e30.e30",
        "mF_9.B5f-4.1JqM",
        &good[1..],
        &format!("{good}="),
        &format!("{good}.a"),
        &good.replace('.', "-"),
        &format!("{}.e30", &good),
    ] {
        assert!(check(&jwts, &Secret::new(token)).is_err(), "{token}");
    }
    assert!(check(&jwts, &Secret::new(good.as_str())).is_ok());
    let critical =
        signer.token(&json!({"alg": "EdDSA", "crit": ["b64"], "b64": false}), &json!({"exp": now() + 100}));
    assert_eq!(check(&jwts, &critical), Err(JwtFault::Critical));
    for (token, is_one) in [("a.b.c", true), ("a.b", false), ("a.b.c.d", false), ("", false)] {
        assert_eq!(Jwts::looks_like_one(token.as_bytes()), is_one);
    }
}

proptest! {
    /// A token in which anything was changed, or that was cut, is not accepted.
    #[test]
    fn a_changed_token_is_refused(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        static SIGNED: LazyLock<(Jwts, Vec<u8>)> = LazyLock::new(|| {
            let signer = Signer::ed();
            let claims = json!({"exp": now() + 1000, "tenants": ["a"]});
            let token = signer.token(&json!({"alg": "EdDSA", "kid": "k"}), &claims);
            (jwts(&[signer.jwk()], rules()), token.expose().to_vec())
        });
        let (jwts, token) = &*SIGNED;
        let mut changed = token.clone();
        let at = at.index(token.len());
        if cut { changed.truncate(at) } else { changed[at] = byte }
        let found = check(jwts, &Secret::new(changed.as_slice()));
        prop_assert_eq!(found.is_ok(), changed == *token);
    }
}

#[test]
fn a_valid_token_is_remembered_until_it_expires() {
    let signer = Signer::ed();
    let jwts = jwts(&[signer.jwk()], rules());
    let token = signer.token(&json!({"alg": "EdDSA"}), &json!({"exp": now() + 100}));
    let first = check(&jwts, &token).unwrap();
    assert!(Arc::ptr_eq(&first, &check(&jwts, &token).unwrap()));
    let remembered = |secs: u64| {
        let mac = jwts.mac_key.mac(&[token.expose()]);
        jwts.remembered[mac.below(SHARDS)].lock().unwrap().find(&mac, secs).is_some()
    };
    assert!(remembered(now() + 125));
    assert!(!remembered(now() + 135), "with the leeway");
}

#[test]
fn remembered_tokens_are_bounded_and_the_latest_are_kept() {
    let key = MacKey::random().unwrap();
    let mut remembered = Remembered::default();
    let half = JWTS_REMEMBERED_MAX / SHARDS / 2;
    let mac = |n: usize| key.mac(&[&n.to_le_bytes()]);
    for n in 0..half * 5 {
        remembered.insert(mac(n), Valid { until: 9, identity: Arc::default() });
        assert!(remembered.newer.len() + remembered.older.len() <= 2 * half);
        assert!(remembered.find(&mac(n.saturating_sub(half)), 0).is_some());
    }
    assert!(remembered.find(&mac(0), 0).is_none());
}

#[test]
fn keys_that_cannot_verify_are_left_out() {
    let (ed, ec, rsa) = (Signer::ed().jwk(), Signer::ec().jwk(), Signer::rsa().jwk());
    let short = |jwk: &Value, name: &str| {
        let text = jwk[name].as_str().unwrap();
        with(jwk.clone(), &[(name, &text[..text.len() - 4])])
    };
    for (jwk, reason) in [
        (with(ed.clone(), &[("use", "enc")]), "its `use` is not `sig`"),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "key_ops": ["sign"]}),
            "its `key_ops` do not include `verify`",
        ),
        (with(ed.clone(), &[("alg", "RS256")]), "its `alg` is not a signature by a key of its type"),
        (with(rsa.clone(), &[("alg", "RSA-OAEP")]), "its `alg` is not a signature by a key of its type"),
        (with(ec.clone(), &[("alg", "HS256")]), "its `alg` is not a signature by a key of its type"),
        (with(ed.clone(), &[("crv", "Ed448")]), "its `crv` is not Ed25519"),
        (short(&ed, "x"), "its `x` is not base64url of 32 bytes"),
        (with(ec.clone(), &[("crv", "secp256k1")]), "its `crv` is not P-256"),
        (
            with(ec.clone(), &[("crv", "P-384")]),
            "its `crv` is P-384, which takes too long to verify; use P-256 or Ed25519",
        ),
        (short(&ec, "y"), "its `x` or `y` is not base64url of 32 bytes"),
        (with(rsa.clone(), &[("n", "+/+/")]), "its `n` or `e` is not base64url"),
        (with(rsa.clone(), &[("n", &base64url([0xff; 255]))]), "its `n` does not have 2048 to 8192 bits"),
        (with(rsa.clone(), &[("e", "AQ")]), "its `e` is not an odd number from 3 to 4294967295"),
        (with(rsa.clone(), &[("e", "AQAC")]), "its `e` is not an odd number from 3 to 4294967295"),
        (with(rsa.clone(), &[("e", "")]), "its `e` is not an odd number from 3 to 4294967295"),
        (with(rsa.clone(), &[("e", "AQAAAAE")]), "its `e` is not an odd number from 3 to 4294967295"),
        (with(ed.clone(), &[("kty", "AKP")]), "its `kty` is none of RSA, EC and OKP"),
        (json!({}), "it has no `kty`"),
    ] {
        let (_, left_out) = Keys::parse(&json!({"keys": [ed, jwk]}).to_string()).unwrap();
        assert_eq!(left_out, [format!("key 2 is left out: {reason}")]);
    }
    // A leading zero, which some issuers write.
    let zero = [&[0], URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap().as_slice()].concat();
    let padded = jwts(&[with(rsa.clone(), &[("n", &base64url(zero)), ("use", "sig")])], rules());
    let token = Signer::rsa().token(&json!({"alg": "PS256"}), &json!({"exp": now() + 100}));
    assert!(check(&padded, &token).is_ok());
    let alone = || keys(std::slice::from_ref(&rsa));
    assert_eq!(alone(), alone());
    assert_ne!(alone(), keys(&[with(rsa.clone(), &[("kid", "a")])]));
}
