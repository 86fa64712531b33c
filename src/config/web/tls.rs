//! `tls_server_config`.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::reader::Reader;
use crate::auth::Secret;
use crate::config::excerpt::found;
use crate::config::yaml::{Content, Node};
use crate::tls::material::CertificateFiles;
use crate::tls::names::Choices;
pub use crate::tls::names::ClientAuth;
use crate::tls::server::ServerSettings;

const SECTION: &str = "tls_server_config";

/// How the server does TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebTls {
    /// The server's certificate, and intermediate ones after it.
    pub certificate: Pem,
    /// Its key.
    pub key: Pem,
    /// Whether clients have to present a certificate.
    pub client_auth: ClientAuth,
    /// The authorities that client certificates are verified with.
    pub client_ca: Option<Pem>,
    /// If not empty, a client's certificate must have one of these subject alternative names. See
    /// [`PeerCertificate::has_san`](crate::auth::PeerCertificate::has_san).
    pub client_allowed_sans: Vec<Box<str>>,
    /// The cipher suites for TLS 1.2, by preference. Empty for the default. TLS 1.3 always has its own.
    pub cipher_suites: Vec<CipherSuite>,
    /// Whether the order of `cipher_suites` decides, and not the client's.
    pub prefer_server_cipher_suites: bool,
    /// Elliptic curves, by preference. Empty for the default.
    pub curves: Vec<Curve>,
    /// The lowest version.
    pub min_version: TlsVersion,
    /// The highest version. Not below the lowest.
    pub max_version: TlsVersion,
}

/// PEM blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pem {
    /// In this file.
    File(PathBuf),
    /// In the configuration itself.
    Inline(Secret),
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// A cipher suite of TLS 1.2, named like in RFC 5289 and RFC 7905.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CipherSuite {
    /// `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`
    EcdsaAes128,
    /// `TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384`
    EcdsaAes256,
    /// `TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256`
    EcdsaChaCha20,
    /// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`
    RsaAes128,
    /// `TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384`
    RsaAes256,
    /// `TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256`
    RsaChaCha20,
}

/// An elliptic curve (RFC 8422).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Curve {
    /// `CurveP256`
    P256,
    /// `CurveP384`
    P384,
    /// `X25519`
    X25519,
}

const CLIENT_AUTH: [(&str, ClientAuth); 6] = [
    ("NoClientCert", ClientAuth::None),
    ("RequestClientCert", ClientAuth::Request),
    ("RequireAnyClientCert", ClientAuth::RequireAny),
    ("RequireClientCert", ClientAuth::RequireAny),
    ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::Require),
];

/// Go's names. `None` are those of versions that rustls lacks.
const VERSIONS: [(&str, Option<TlsVersion>); 4] = [
    ("TLS13", Some(TlsVersion::Tls13)),
    ("TLS12", Some(TlsVersion::Tls12)),
    ("TLS11", None),
    ("TLS10", None),
];

/// Go's names of the curves. `None` are those that rustls with ring lacks.
const CURVES: [(&str, Option<Curve>); 4] = [
    ("CurveP256", Some(Curve::P256)),
    ("CurveP384", Some(Curve::P384)),
    ("CurveP521", None),
    ("X25519", Some(Curve::X25519)),
];

/// What Go's `tls.CipherSuites` returns, in versions to date. `None` are those for TLS 1.3, which always has all of its
/// own, and those without forward secrecy or authenticated encryption, which rustls lacks.
const CIPHER_SUITES: [(&str, Option<CipherSuite>); 17] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", Some(CipherSuite::EcdsaAes128)),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", Some(CipherSuite::EcdsaAes256)),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", Some(CipherSuite::EcdsaChaCha20)),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Some(CipherSuite::RsaAes128)),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Some(CipherSuite::RsaAes256)),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", Some(CipherSuite::RsaChaCha20)),
    ("TLS_AES_128_GCM_SHA256", None),
    ("TLS_AES_256_GCM_SHA384", None),
    ("TLS_CHACHA20_POLY1305_SHA256", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", None),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", None),
];

/// The Go name of a value.
fn name_of<T: Copy + PartialEq>(names: &[(&'static str, Option<T>)], value: T) -> String {
    let named = names.iter().find(|(_, known)| *known == Some(value));
    named.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

/// PEM blocks that a web configuration has inline, by the names that stand for files in errors.
pub type InlinePem = Vec<(PathBuf, Secret)>;

impl WebTls {
    /// The settings of a server. `file` is the path of the web configuration. What it has inline is returned besides,
    /// under the names that stand for it in the settings.
    pub fn server_settings(&self, file: &str) -> (ServerSettings, InlinePem) {
        let mut inline = InlinePem::new();
        let mut place = |pem: &Pem, key: &str| match pem {
            Pem::File(path) => path.clone(),
            Pem::Inline(text) => {
                let name = PathBuf::from(format!("{file} ({SECTION}.{key})"));
                inline.push((name.clone(), text.clone()));
                name
            }
        };
        let settings = ServerSettings {
            certificates: vec![CertificateFiles {
                certificate: place(&self.certificate, "cert"),
                key: place(&self.key, "key"),
            }],
            client_auth: self.client_auth,
            client_ca: self
                .client_ca
                .as_ref()
                .filter(|_| self.client_auth.verifies())
                .map(|pem| place(pem, "client_ca")),
            client_allowed_sans: self.client_allowed_sans.clone(),
            choices: Choices {
                min_version: Some(name_of(&VERSIONS, self.min_version)),
                max_version: Some(name_of(&VERSIONS, self.max_version)),
                cipher_suites: self
                    .cipher_suites
                    .iter()
                    .map(|suite| name_of(&CIPHER_SUITES, *suite))
                    .collect(),
                curve_preferences: self.curves.iter().map(|curve| name_of(&CURVES, *curve)).collect(),
            },
            prefer_server_cipher_suites: self.prefer_server_cipher_suites,
        };
        (settings, inline)
    }
}

/// A setting that is given in a file, inline, or both, with its line.
#[derive(Default)]
struct Given {
    file: Option<(usize, PathBuf)>,
    inline: Option<(usize, Secret)>,
}

impl Given {
    fn line(&self) -> Option<usize> {
        self.file.as_ref().map(|(line, _)| *line).or(self.inline.as_ref().map(|(line, _)| *line))
    }

    /// The file, or else what is inline.
    fn take(&mut self) -> Option<Pem> {
        let inline = self.inline.take().map(|(_, text)| Pem::Inline(text));
        self.file.take().map(|(_, path)| Pem::File(path)).or(inline)
    }
}

#[derive(Default)]
struct Keys {
    certificate: Given,
    key: Given,
    client_ca: Given,
    client_auth: ClientAuth,
    client_auth_given: bool,
    sans: Option<(usize, Vec<(usize, String)>)>,
    cipher_suites: Option<(usize, Vec<CipherSuite>)>,
    prefer_server: Option<bool>,
    curves: Vec<Curve>,
    min: Option<(usize, TlsVersion)>,
    max: Option<(usize, TlsVersion)>,
}

/// The section. `None` if it is empty, as in the toolkit, or has a mistake.
pub(super) fn read(reader: &mut Reader<'_>, node: Node) -> Option<WebTls> {
    let (line, before) = (node.line, reader.mistakes.len());
    let mut keys = Keys::default();
    let entries = reader.section(SECTION, node);
    if entries.is_empty() {
        return None;
    }
    for (name, node) in entries {
        let key = super::reader::path(SECTION, &name.text);
        match name.text.as_str() {
            "cert" | "cert_file" => pem(reader, &key, &node, &mut keys.certificate),
            "key" | "key_file" => pem(reader, &key, &node, &mut keys.key),
            "client_ca" | "client_ca_file" => pem(reader, &key, &node, &mut keys.client_ca),
            "client_auth_type" => {
                let given = client_auth(reader, &key, &node);
                keys.client_auth_given = given.is_some();
                keys.client_auth = given.unwrap_or_default();
            }
            "client_allowed_sans" if node.content != Content::Null => {
                keys.sans = Some((name.line, reader.list(&key, &node)));
            }
            "client_allowed_sans" => {}
            "cipher_suites" => {
                keys.cipher_suites = known(reader, &key, &node, &CIPHER_SUITES).map(|all| (name.line, all))
            }
            "prefer_server_cipher_suites" => keys.prefer_server = reader.value(&key, &node),
            "curve_preferences" => keys.curves = curves(reader, &key, &node),
            "min_version" => keys.min = version(reader, &key, &node, true),
            "max_version" => keys.max = version(reader, &key, &node, false),
            _ => reader.unknown(SECTION, &name),
        }
    }
    let sound = check(reader, line, keys);
    if reader.mistakes.len() > before { None } else { sound }
}

fn pem(reader: &mut Reader<'_>, key: &str, node: &Node, given: &mut Given) {
    if key.ends_with("_file") {
        given.file = reader.path(key, node).map(|path| (node.line, path));
    } else {
        given.inline = reader.text(key, node).map(|text| (node.line, Secret::new(text)));
    }
    if given.file.is_some() && given.inline.is_some() {
        reader.notice(node.line, key, "is given inline and as a file: the file counts");
    }
}

fn client_auth(reader: &mut Reader<'_>, key: &str, node: &Node) -> Option<ClientAuth> {
    let text = reader.value::<String>(key, node).filter(|text| !text.is_empty())?;
    if let Some((_, client_auth)) = CLIENT_AUTH.into_iter().find(|(name, _)| *name == text) {
        if matches!(client_auth, ClientAuth::Request | ClientAuth::RequireAny) {
            let text = format!("{text} does not verify certificates, so they identify no client");
            reader.notice(node.line, key, text);
        }
        return Some(client_auth);
    }
    let names: Vec<_> = CLIENT_AUTH.iter().map(|(name, _)| *name).collect();
    reader.mistake(node.line, key, format!("{} is none of {}", found(&text), names.join(", ")));
    None
}

/// The items of a list that Tenantry has. Others that Go has are named in a notice. `None` if the list is empty.
fn known<T: Copy + PartialEq>(
    reader: &mut Reader<'_>,
    key: &str,
    node: &Node,
    names: &[(&str, Option<T>)],
) -> Option<Vec<T>> {
    let items = reader.list(key, node);
    if items.is_empty() {
        return None;
    }
    let mut values = Vec::new();
    for (line, item) in items {
        match names.iter().find(|(name, _)| *name == item) {
            Some((_, Some(value))) if !values.contains(value) => values.push(*value),
            Some((_, Some(_))) => {}
            Some((name, None)) if name.starts_with("TLS_") && !name.contains("_WITH_") => {
                reader.notice(
                    line,
                    key,
                    format!("{name} is for TLS 1.3, which always has all of its suites"),
                );
            }
            Some((name, None)) => {
                reader.notice(line, key, format!("{name} is left out: it is not supported"))
            }
            None => reader.mistake(line, key, format!("{} is unknown", found(&item))),
        }
    }
    Some(values)
}

fn curves(reader: &mut Reader<'_>, key: &str, node: &Node) -> Vec<Curve> {
    let before = reader.mistakes.len();
    match known(reader, key, node, &CURVES) {
        Some(curves) if curves.is_empty() && reader.mistakes.len() == before => {
            reader.mistake(
                node.line,
                key,
                "none of these curves is supported; add X25519, CurveP256 or CurveP384",
            );
            curves
        }
        curves => curves.unwrap_or_default(),
    }
}

fn version(reader: &mut Reader<'_>, key: &str, node: &Node, is_min: bool) -> Option<(usize, TlsVersion)> {
    let text = reader.value::<String>(key, node).filter(|text| !text.is_empty())?;
    match VERSIONS.into_iter().find(|(name, _)| *name == text) {
        Some((_, Some(version))) => return Some((node.line, version)),
        Some((_, None)) if is_min => {
            reader.notice(node.line, key, format!("{text} is not supported; TLS12 is the lowest version"));
        }
        Some((_, None)) => {
            reader.mistake(node.line, key, format!("{text} is not supported; write TLS12 or TLS13"))
        }
        None => {
            reader.mistake(node.line, key, format!("{} is not a version; write TLS12 or TLS13", found(&text)))
        }
    }
    None
}

/// The rules about several keys. They are those of the toolkit, except that it verifies client certificates with the
/// system's roots if there is no `client_ca`: then any certificate of a public authority would do.
fn check(reader: &mut Reader<'_>, line: usize, mut keys: Keys) -> Option<WebTls> {
    let certificates = [keys.certificate.line(), keys.key.line(), keys.client_ca.line()];
    if certificates == [None; 3] && !keys.client_auth_given {
        return None;
    }
    if keys.certificate.line().is_none() {
        reader.mistake(line, SECTION, "the certificate is missing: give `cert_file`, or `cert`");
    }
    if keys.key.line().is_none() {
        reader.mistake(line, SECTION, "the key is missing: give `key_file`, or `key`");
    }
    client_certificates(reader, line, &keys);
    let (min_version, max_version) = versions(reader, &keys);
    let sans = keys.sans.map(|(_, sans)| sans).unwrap_or_default();
    Some(WebTls {
        certificate: keys.certificate.take()?,
        key: keys.key.take()?,
        client_auth: keys.client_auth,
        client_ca: keys.client_ca.take(),
        client_allowed_sans: sans.into_iter().map(|(_, san)| san.into()).collect(),
        cipher_suites: keys.cipher_suites.map(|(_, suites)| suites).unwrap_or_default(),
        prefer_server_cipher_suites: keys.prefer_server.unwrap_or(true),
        curves: keys.curves,
        min_version,
        max_version,
    })
}

fn client_certificates(reader: &mut Reader<'_>, line: usize, keys: &Keys) {
    if let (Some(line), ClientAuth::None) = (keys.client_ca.line(), keys.client_auth) {
        reader.mistake(line, SECTION, "`client_ca` has no effect without `client_auth_type`");
    }
    if keys.client_auth.verifies() && keys.client_ca.line().is_none() {
        reader.mistake(
            line,
            SECTION,
            "no client certificate can be verified without `client_ca_file`, or `client_ca`",
        );
    }
    let Some((line, sans)) = &keys.sans else { return };
    let key = "tls_server_config.client_allowed_sans";
    if !matches!(keys.client_auth, ClientAuth::RequireAny | ClientAuth::Require) {
        let text = "needs a `client_auth_type` of RequireAndVerifyClientCert or RequireAnyClientCert";
        reader.mistake(*line, key, text);
    } else if sans.is_empty() {
        reader.mistake(
            *line,
            key,
            "lists no name, so no client could connect; leave it out to accept any name",
        );
    }
}

/// The lowest and the highest version.
fn versions(reader: &mut Reader<'_>, keys: &Keys) -> (TlsVersion, TlsVersion) {
    let mut min = keys.min.map_or(TlsVersion::Tls12, |(_, version)| version);
    let max = keys.max.map_or(TlsVersion::Tls13, |(_, version)| version);
    if let (true, Some((line, _))) = (min > max, keys.max) {
        reader.mistake(line, "tls_server_config.max_version", "is below `min_version`");
    }
    let Some((line, suites)) = &keys.cipher_suites else { return (min, max) };
    if suites.is_empty() && min == TlsVersion::Tls12 {
        let key = "tls_server_config.cipher_suites";
        if max == TlsVersion::Tls12 {
            reader.mistake(*line, key, "none of these suites is supported for TLS 1.2");
        } else {
            reader.notice(
                *line,
                key,
                "none of these suites is supported for TLS 1.2, so only TLS 1.3 is spoken",
            );
            min = TlsVersion::Tls13;
        }
    }
    (min, max)
}
