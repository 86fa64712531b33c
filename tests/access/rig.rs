//! A server that demands credentials, and credentials of every kind.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::ClientConfig;
use serde_json::{Value, json};
use testkit::pki::Wanted;

use crate::support::client::Client;
use crate::support::server::{configuration, free_port};
use crate::support::tls::{Folder, chain, key, roots};
use crate::support::{Driver, Reply, Server, Upstream};

/// The header of a user with a password.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
}

/// The header of a bearer token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A bcrypt hash of the lowest cost.
pub(crate) fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

/// Signs JWTs.
pub(crate) struct Issuer(Ed25519KeyPair);

impl Issuer {
    pub(crate) fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub(crate) fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).to_string()
    }

    /// A token with these claims, besides one that makes it valid for an hour.
    pub(crate) fn token(&self, mut claims: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        if claims["exp"].is_null() {
            claims["exp"] = json!(now + 3_600);
        }
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(json!({"alg": "EdDSA"})), part(claims));
        let signed = self.0.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed))
    }
}

/// Files for every kind of credential.
pub(crate) struct Credentials {
    pub(crate) folder: Folder,
    pub(crate) issuer: Issuer,
}

/// A token of this name, in the file of tokens.
pub(crate) fn token_of(name: &str) -> String {
    format!("the-bearer-token-of-{name}-0123456789abcdef")
}

impl Credentials {
    /// Users and tokens of these names. A user's password is its name and `-password`.
    pub(crate) fn new(users: &[&str], tokens: &[&str]) -> Self {
        let (folder, issuer) = (Folder::new(), Issuer::new());
        let line = |user: &&str| format!("  {user}: {}\n", hash(&format!("{user}-password")));
        folder.put("web.yml", &format!("basic_auth_users:\n{}", users.iter().map(line).collect::<String>()));
        let mut list = String::new();
        for name in tokens {
            folder.put(&format!("{name}.token"), &token_of(name));
            list += &format!("- {{name: {name}, token_file: {name}.token}}\n");
        }
        folder.put("tokens.yml", &list);
        folder.put("jwks.json", &issuer.jwks());
        Self { folder, issuer }
    }

    /// Starts a server with all of them and these access rules. It speaks TLS, and verifies certificates that it gets.
    pub(crate) fn start(&self, driver: Driver, rules: &str, extra: &str) -> (Server, Upstream) {
        self.folder.put("access.yml", rules);
        let upstream = Upstream::start(|_| Reply::ok());
        let at = |name: &str| self.folder.text(name);
        let ca = at("ca.pem");
        let auth = self.folder.ingress(&[("client_auth", "verify_if_given"), ("client_ca_file", &ca)]);
        let config = format!(
            "auth:\n{auth}    web_config_file: '{}'\n    tokens_file: '{}'\n    \
             jwt: {{jwks_file: '{}', tenants_claim: tenants}}\naccess: '{}'\nmetrics_include_tenant: true\n{extra}",
            at("web.yml"),
            at("tokens.yml"),
            at("jwks.json"),
            at("access.yml"),
        );
        let metrics = free_port();
        // What is logged at the lowest level must hold no secret either.
        let config = configuration(driver, upstream.address, &config, metrics)
            .replace("log_level: info", "log_level: trace");
        (Server::start_with(&config, metrics, &[]), upstream)
    }

    /// What a client runs by that presents a certificate with these names.
    pub(crate) fn with_certificate(&self, wanted: &Wanted) -> Arc<ClientConfig> {
        self.folder.put_pair("client", &self.folder.authority.issue(wanted).unwrap());
        self.shows_client_certificate()
    }

    /// What a client runs by that presents `client.pem`.
    pub(crate) fn shows_client_certificate(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_root_certificates(roots(&self.folder.path("ca.pem")));
        let (certificate, key) =
            (chain(&self.folder.path("client.pem")), key(&self.folder.path("client.key")));
        Arc::new(builder.with_client_auth_cert(certificate, key).unwrap())
    }

    /// What a client runs by that presents none.
    pub(crate) fn without_certificate(&self) -> Arc<ClientConfig> {
        crate::support::tls::client_config(&self.folder)
    }
}

/// A new connection.
pub(crate) fn connect(server: &Server, config: &Arc<ClientConfig>) -> Client {
    Client::connect_tls(server.address, config)
}
