use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::auth::Secret;

/// Hashes of exporter-toolkit's documentation and of htpasswd.
const HASH: &str = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";

fn web(text: &str) -> WebConfig {
    read_web_config("/etc/prometheus/web.yml", text).unwrap()
}

fn mistakes(text: &str) -> Vec<String> {
    let mistakes = read_web_config("web.yml", text).unwrap_err();
    mistakes.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn an_empty_file_changes_nothing() {
    for text in
        ["", "# nothing\n", "tls_server_config:\nhttp_server_config: {}\nbasic_auth_users:\nrate_limit:\n"]
    {
        assert_eq!(web(text), WebConfig::default(), "{text:?}");
    }
}

#[test]
fn a_file_with_everything_is_read() {
    let text = format!(
        "\
tls_server_config:
  cert_file: server.crt
  key_file: /keys/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ../ca.crt
  client_allowed_sans: [a.example, spiffe://x/y]
  cipher_suites:
  - TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
  - TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
  prefer_server_cipher_suites: false
  curve_preferences: [X25519, CurveP256]
  min_version: TLS12
  max_version: TLS12
http_server_config:
  http2: false
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: deny
    X-XSS-Protection: ''
    Content-Security-Policy:
basic_auth_users:
  alice: {HASH}
  'b ob': {}
rate_limit: {{interval: 0, burst: 20}}
",
        HASH.replace("$2y$10$", "$2a$12$")
    );
    let web = web(&text);
    let tls = WebTls {
        certificate: Pem::File(PathBuf::from("/etc/prometheus/server.crt")),
        key: Pem::File(PathBuf::from("/keys/server.key")),
        client_auth: ClientAuth::Require,
        client_ca: Some(Pem::File(PathBuf::from("/etc/prometheus/../ca.crt"))),
        client_allowed_sans: vec!["a.example".into(), "spiffe://x/y".into()],
        cipher_suites: vec![CipherSuite::RsaAes256, CipherSuite::EcdsaChaCha20],
        prefer_server_cipher_suites: false,
        curves: vec![Curve::X25519, Curve::P256],
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls12,
    };
    assert_eq!(web.tls, Some(tls));
    let headers = [("Strict-Transport-Security", "max-age=31536000"), ("X-Frame-Options", "deny")];
    assert_eq!(web.headers, headers.map(|(name, value)| (name, value.to_owned())));
    let mut users: Vec<Arc<str>> = web.users.keys().cloned().collect();
    users.sort();
    assert_eq!(users, ["alice".into(), "b ob".into()]);
    assert_eq!(web.notices, [""; 0]);
}

#[test]
fn defaults_are_those_of_the_toolkit() {
    let tls = web("tls_server_config: {cert_file: a, key_file: b}").tls.unwrap();
    assert_eq!((tls.client_auth, tls.client_ca), (ClientAuth::None, None));
    assert!(tls.prefer_server_cipher_suites && tls.cipher_suites.is_empty() && tls.curves.is_empty());
    assert_eq!((tls.min_version, tls.max_version), (TlsVersion::Tls12, TlsVersion::Tls13));
    // Without certificate, key and authority it is plain HTTP, whatever else is set.
    assert_eq!(web("tls_server_config: {min_version: TLS13, cert_file: '', key_file: ''}").tls, None);
    for (name, client_auth, verifies) in [
        ("''", ClientAuth::None, false),
        ("NoClientCert", ClientAuth::None, false),
        ("RequestClientCert", ClientAuth::Request, false),
        ("RequireClientCert", ClientAuth::RequireAny, false),
        ("RequireAnyClientCert", ClientAuth::RequireAny, false),
        ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven, true),
        ("RequireAndVerifyClientCert", ClientAuth::Require, true),
    ] {
        let ca = if client_auth == ClientAuth::None { "" } else { ", client_ca_file: c" };
        let text = format!("tls_server_config: {{cert_file: a, key_file: b, client_auth_type: {name}{ca}}}");
        let web = web(&text);
        let found = web.tls.unwrap().client_auth;
        assert_eq!((found, found.verifies()), (client_auth, verifies));
        assert_eq!(web.notices.len(), usize::from(!verifies && client_auth != ClientAuth::None), "{name}");
    }
}

#[test]
fn certificates_may_be_inline() {
    let text = "\
tls_server_config:
  cert: |
    -----BEGIN CERTIFICATE-----
    canary-certificate
  key: |
    -----BEGIN PRIVATE KEY-----
    canary-key
  client_ca: canary-ca
  client_auth_type: VerifyClientCertIfGiven
";
    let web = web(text);
    let shown = format!("{web:?}");
    let tls = web.tls.unwrap();
    assert_eq!(tls.key, Pem::Inline(Secret::new("-----BEGIN PRIVATE KEY-----\ncanary-key\n")));
    assert_eq!(tls.client_ca, Some(Pem::Inline(Secret::new("canary-ca"))));
    assert!(matches!(tls.certificate, Pem::Inline(_)));
    assert!(!shown.contains("canary"), "{shown}");
    let both = self::web("tls_server_config: {cert: x, cert_file: a, key_file: b, key: y}");
    let tls = both.tls.unwrap();
    assert_eq!(tls.certificate, Pem::File("/etc/prometheus/a".into()));
    assert_eq!(tls.key, Pem::File("/etc/prometheus/b".into()));
    assert_eq!(both.notices.len(), 2);
}

#[test]
fn what_has_no_effect_is_named_in_a_notice() {
    let text = "\
tls_server_config:
  cert_file: a
  key_file: b
  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_128_CBC_SHA]
  curve_preferences: [CurveP521, CurveP384]
  min_version: TLS10
http_server_config: {http2: true}
rate_limit: {interval: 1s, burst: 2}
";
    let web = web(text);
    let tls = web.tls.unwrap();
    assert_eq!(tls.curves, [Curve::P384]);
    assert_eq!((tls.min_version, tls.max_version), (TlsVersion::Tls13, TlsVersion::Tls13));
    let file = "/etc/prometheus/web.yml";
    let tls = "tls_server_config";
    assert_eq!(
        web.notices,
        [
            format!(
                "{file}:4: {tls}.cipher_suites: TLS_AES_128_GCM_SHA256 is for TLS 1.3, which always has all of its \
             suites"
            ),
            format!(
                "{file}:4: {tls}.cipher_suites: TLS_RSA_WITH_AES_128_CBC_SHA is left out: it is not supported"
            ),
            format!("{file}:5: {tls}.curve_preferences: CurveP521 is left out: it is not supported"),
            format!("{file}:6: {tls}.min_version: TLS10 is not supported; TLS12 is the lowest version"),
            format!(
                "{file}:4: {tls}.cipher_suites: none of these suites is supported for TLS 1.2, so only TLS 1.3 is \
             spoken"
            ),
            format!("{file}:7: http_server_config.http2: Tenantry speaks HTTP/1.1 only"),
            format!("{file}:8: rate_limit: has no effect; `concurrency` and `limits` bound the load"),
        ]
    );
}

#[test]
fn all_mistakes_are_reported_at_once_and_quote_no_secret() {
    let text = format!(
        "\
tls_server_config:
  cert_fil: a
  key: [canary]
  client_auth_type: Maybe
  cipher_suites: [TLS_INVENTED, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  curve_preferences: CurveP256
  prefer_server_cipher_suites: perhaps
  min_version: TLS14
  max_version: TLS11
http_server_config:
  http2: maybe
  headers:
    X-Content-Type-Options: sniff
    x-frame-options: deny
    Content-Security-Policy: \"a\\r\\nb\"
    X-Frame-Options: deny
    X-Frame-Options: deny
  port: 1
basic_auth_users:
  alice: canary
  alice: {HASH}
  'b:b': {HASH}
  '': {HASH}
  carol: {}
  dave:
  erin: [canary]
  \"f\\nf\": {HASH}
rate_limit: {{interval: 5, burst: many, rate: 1}}
tls_config: {{}}
",
        HASH.replace("$10$", "$31$")
    );
    let told = mistakes(&text);
    let expected = [
        "web.yml:2: tls_server_config.cert_fil: unknown key",
        "web.yml:3: tls_server_config.key: wants a single value, not a list",
        "web.yml:4: tls_server_config.client_auth_type: \"Maybe\" is none of NoClientCert, RequestClientCert, \
         RequireAnyClientCert, RequireClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert",
        "web.yml:5: tls_server_config.cipher_suites: \"TLS_INVENTED\" is unknown",
        "web.yml:6: tls_server_config.curve_preferences: wants a list, not a single value",
        "web.yml:7: tls_server_config.prefer_server_cipher_suites: \"perhaps\" is neither true nor false",
        "web.yml:8: tls_server_config.min_version: \"TLS14\" is not a version; write TLS12 or TLS13",
        "web.yml:9: tls_server_config.max_version: TLS11 is not supported; write TLS12 or TLS13",
        "web.yml:11: http_server_config.http2: \"maybe\" is neither true nor false",
        "web.yml:13: http_server_config.headers.X-Content-Type-Options: \"sniff\" is not possible; write nosniff",
        "web.yml:14: http_server_config.headers.x-frame-options: this header cannot be set; possible are \
         Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-Protection, Content-Security-Policy",
        "web.yml:15: http_server_config.headers.Content-Security-Policy: \"a\\r\\nb\" cannot be the value of a header",
        "web.yml:17: http_server_config.headers.X-Frame-Options: is already on line 16",
        "web.yml:18: http_server_config.port: unknown key",
        "web.yml:20: basic_auth_users.alice: is not a bcrypt hash ($2a$, $2b$ or $2y$ and 60 characters); \
         `htpasswd -nBC 10 \"\"` makes one",
        "web.yml:21: basic_auth_users.alice: is already on line 20",
        "web.yml:22: basic_auth_users.b:b: a user's name cannot contain a colon (RFC 7617): no client can send it",
        "web.yml:23: basic_auth_users.: the user's name is empty",
        "web.yml:24: basic_auth_users.carol: has the cost 31, but only 4 to 16 are accepted",
        "web.yml:25: basic_auth_users.dave: the hash of the password is missing",
        "web.yml:26: basic_auth_users.erin: wants a single value, not a list",
        "web.yml:26: basic_auth_users.erin: the hash of the password is missing",
        "web.yml:27: basic_auth_users.f\\nf: a user's name cannot contain a control character (RFC 7617)",
        "web.yml:28: rate_limit.interval: \"5\" has no unit; write 5s for seconds, 5ms for milliseconds",
        "web.yml:28: rate_limit.burst: \"many\" is not a whole number",
        "web.yml:28: rate_limit.rate: unknown key",
        "web.yml:29: tls_config: unknown key",
    ];
    assert_eq!(told, expected);
    assert!(told.iter().all(|line| !line.contains("canary") && !line.contains("mDwo")), "{told:?}");
}

#[test]
fn tls_settings_have_to_fit_each_other() {
    let tls = |fields: &str| mistakes(&format!("tls_server_config: {{{fields}}}"));
    for (fields, told) in [
        ("cert_file: a", "tls_server_config: the key is missing: give `key_file`, or `key`"),
        (
            "key_file: a, cert_file: ''",
            "tls_server_config: the certificate is missing: give `cert_file`, or `cert`",
        ),
        (
            "cert_file: a, key_file: b, client_ca_file: c",
            "tls_server_config: `client_ca` has no effect without `client_auth_type`",
        ),
        (
            "cert_file: a, key_file: b, client_auth_type: VerifyClientCertIfGiven",
            "tls_server_config: no client certificate can be verified without `client_ca_file`, or `client_ca`",
        ),
        (
            "cert_file: a, key_file: b, client_allowed_sans: [x]",
            "tls_server_config.client_allowed_sans: needs a `client_auth_type` of RequireAndVerifyClientCert or \
             RequireAnyClientCert",
        ),
        (
            "cert_file: a, key_file: b, client_auth_type: RequireAnyClientCert, client_allowed_sans: []",
            "tls_server_config.client_allowed_sans: lists no name, so no client could connect; leave it out to accept \
             any name",
        ),
        (
            "cert_file: a, key_file: b, min_version: TLS13, max_version: TLS12",
            "tls_server_config.max_version: is below `min_version`",
        ),
        (
            "cert_file: a, key_file: b, max_version: TLS12, cipher_suites: [TLS_AES_128_GCM_SHA256]",
            "tls_server_config.cipher_suites: none of these suites is supported for TLS 1.2",
        ),
        (
            "cert_file: a, key_file: b, curve_preferences: [CurveP521]",
            "tls_server_config.curve_preferences: none of these curves is supported; add X25519, CurveP256 or \
             CurveP384",
        ),
    ] {
        assert_eq!(tls(fields), [format!("web.yml:1: {told}")]);
    }
    let none = mistakes("tls_server_config: {client_auth_type: NoClientCert}");
    assert_eq!(none.len(), 2, "the toolkit takes this for TLS as well: {none:?}");
}

#[test]
fn anything_but_sections_is_reported() {
    assert_eq!(mistakes("[a]"), ["web.yml:1: wants a section, not a list"]);
    assert_eq!(
        mistakes("basic_auth_users: alice"),
        ["web.yml:1: basic_auth_users: wants a section, not a single value"]
    );
    for text in [
        "a: [",
        "a: 'canary",
        "basic_auth_users:\n  alice: *canary\n",
        "basic_auth_users:\n\talice: canary\n",
    ] {
        let told = mistakes(text);
        assert!(told[0].contains("not YAML") && !told[0].contains("canary"), "{told:?}");
    }
}
