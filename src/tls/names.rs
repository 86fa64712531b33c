//! Versions, cipher suites, curves and ways to ask for client certificates, by the names of Go's `crypto/tls`.
//!
//! Prometheus' web configuration file uses them (prometheus/exporter-toolkit, docs/web-configuration.md), so operators
//! know them. A name that is unknown, or that ring has nothing for, is a mistake: leaving it out silently would change
//! what is accepted.
//!
//! As in Go, the suites of TLS 1.3 can't be chosen: its list restricts TLS 1.2 only.
#![forbid(unsafe_code)]

use std::sync::Arc;

use rustls::crypto::ring::{self, cipher_suite as suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

use super::mistake::Mistake;
pub use super::mistake::NameError;

/// What may be negotiated, as it was written. Empty and `None` stand for the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// `TLS12`, which is the default, or `TLS13`.
    pub min_version: Option<String>,
    /// `TLS12` or `TLS13`, which is the default.
    pub max_version: Option<String>,
    /// Suites of TLS 1.2.
    pub cipher_suites: Vec<String>,
    /// Groups for the key exchange, the preferred one first.
    pub curve_preferences: Vec<String>,
}

/// Whether clients have to present a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; one that is presented has to be valid.
    VerifyIfGiven,
    /// They have to present a valid one.
    Require,
    /// They are asked, but what they present is not verified (Go's `RequestClientCert`).
    Request,
    /// They have to present one, which is not verified (Go's `RequireAnyClientCert`).
    RequireAny,
}

impl ClientAuth {
    /// Whether certificates are verified, so that their names identify clients.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::Require)
    }
}

/// TLS 1.2 suites by Go's names. Go has two names for those with ChaCha20.
const SUITES: &[(&str, SupportedCipherSuite)] = &[
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// TLS 1.3 suites, which Go takes in the list and ignores there.
const SUITES_13: &[&str] =
    &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

const CURVES: &[(&str, &dyn SupportedKxGroup)] =
    &[("X25519", kx_group::X25519), ("CurveP256", kx_group::SECP256R1), ("CurveP384", kx_group::SECP384R1)];

/// What the names of `choices` stand for.
///
/// # Errors
/// All names that can't be used, each with the setting that it is from.
pub(super) fn resolve(
    choices: &Choices,
) -> Result<(Arc<CryptoProvider>, &'static [&'static SupportedProtocolVersion]), Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut note =
        |setting: &'static str, error: NameError| mistakes.push(Mistake::in_setting(setting, error.into()));
    let mut default = ring::default_provider();
    if !choices.cipher_suites.is_empty() {
        default.cipher_suites.retain(|suite| suite.tls13().is_some());
        for name in &choices.cipher_suites {
            match cipher_suite(name) {
                Ok(Some(suite)) if !default.cipher_suites.contains(&suite) => {
                    default.cipher_suites.push(suite)
                }
                Ok(_) => {}
                Err(e) => note("cipher_suites", e),
            }
        }
    }
    if !choices.curve_preferences.is_empty() {
        default.kx_groups.clear();
    }
    for name in &choices.curve_preferences {
        match curve(name) {
            Ok(group) if default.kx_groups.iter().all(|other| other.name() != group.name()) => {
                default.kx_groups.push(group);
            }
            Ok(_) => {}
            Err(e) => note("curve_preferences", e),
        }
    }
    let versions = versions(choices, &mut note);
    // A client would offer the suites of the other version, too, and a server would take it for one that has both.
    default.cipher_suites.retain(|suite| versions.contains(&suite.version()));
    if mistakes.is_empty() { Ok((Arc::new(default), versions)) } else { Err(mistakes) }
}

fn versions(
    choices: &Choices,
    note: &mut impl FnMut(&'static str, NameError),
) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];
    let mut bound = |setting, name: &Option<String>, default| match name.as_deref().map(version_of) {
        None => default,
        Some(Ok(version)) => version,
        Some(Err(e)) => {
            note(setting, e);
            default
        }
    };
    let min = bound("min_version", &choices.min_version, Version::Tls12);
    let max = bound("max_version", &choices.max_version, Version::Tls13);
    match (min, max) {
        (Version::Tls12, Version::Tls13) => BOTH,
        (Version::Tls12, Version::Tls12) => &BOTH[..1],
        (Version::Tls13, Version::Tls13) => &BOTH[1..],
        (Version::Tls13, Version::Tls12) => {
            note("min_version", NameError::Versions { min: "TLS13".into(), max: "TLS12".into() });
            BOTH
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Tls12,
    Tls13,
}

fn version_of(name: &str) -> Result<Version, NameError> {
    match name {
        "TLS12" => Ok(Version::Tls12),
        "TLS13" => Ok(Version::Tls13),
        "TLS10" | "TLS11" => Err(unsupported(name, "it is deprecated (RFC 8996); TLS12 is the lowest")),
        _ => Err(unknown("version", name, &["TLS12", "TLS13"])),
    }
}

/// A TLS 1.2 suite by its name; `None` for one of TLS 1.3, which is always there.
fn cipher_suite(name: &str) -> Result<Option<SupportedCipherSuite>, NameError> {
    if SUITES_13.contains(&name) {
        return Ok(None);
    }
    if let Some((_, suite)) = SUITES.iter().find(|(known, _)| *known == name) {
        return Ok(Some(*suite));
    }
    if name.starts_with("TLS_RSA_WITH_") {
        return Err(unsupported(name, "it has no forward secrecy; take one with ECDHE"));
    }
    if name.starts_with("TLS_ECDHE_") && (name.contains("_CBC_") || name.contains("_RC4_")) {
        return Err(unsupported(
            name,
            "its encryption is out of date; take one with GCM or CHACHA20_POLY1305",
        ));
    }
    let known: Vec<_> = SUITES.iter().map(|(known, _)| *known).collect();
    Err(unknown("cipher suite", name, &known))
}

fn curve(name: &str) -> Result<&'static dyn SupportedKxGroup, NameError> {
    if let Some((_, group)) = CURVES.iter().find(|(known, _)| *known == name) {
        return Ok(*group);
    }
    if matches!(name, "CurveP521" | "X25519MLKEM768") {
        return Err(unsupported(name, "ring, our library for it, does not have it"));
    }
    let known: Vec<_> = CURVES.iter().map(|(known, _)| *known).collect();
    Err(unknown("curve", name, &known))
}

fn unsupported(name: &str, why: &'static str) -> NameError {
    NameError::Unsupported { name: name.to_owned(), why }
}

fn unknown(kind: &'static str, name: &str, known: &[&str]) -> NameError {
    NameError::Unknown { kind, name: name.to_owned(), known: known.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(choices: &Choices) -> Vec<String> {
        resolve(choices).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    fn suites(names: &[&str]) -> Vec<SupportedCipherSuite> {
        let choices =
            Choices { cipher_suites: names.iter().map(|n| n.to_string()).collect(), ..Choices::default() };
        resolve(&choices).unwrap().0.cipher_suites.iter().copied().filter(|s| s.tls13().is_none()).collect()
    }

    #[test]
    fn suites_are_those_named_in_their_order_and_tls_1_3_keeps_its_own() {
        let chosen = [
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
            "TLS_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ];
        let expected = [
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        assert_eq!(suites(&chosen), expected);
        assert_eq!(suites(&[]).len(), 6, "all");
        assert_eq!(suites(&["TLS_AES_128_GCM_SHA256"]), [], "as in Go");
        let choices = Choices { cipher_suites: vec![chosen[0].into()], ..Choices::default() };
        assert_eq!(resolve(&choices).unwrap().0.cipher_suites.len(), 4, "and the three of TLS 1.3");
    }

    #[test]
    fn curves_are_those_named_in_their_order() {
        let named = ["CurveP384", "X25519", "CurveP384"].map(str::to_owned).to_vec();
        let choices = Choices { curve_preferences: named, ..Choices::default() };
        let names: Vec<_> = resolve(&choices).unwrap().0.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(names, [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]);
    }

    #[test]
    fn versions_are_a_range() {
        let of = |min: Option<&str>, max: Option<&str>| {
            let choices = Choices {
                min_version: min.map(str::to_owned),
                max_version: max.map(str::to_owned),
                ..Choices::default()
            };
            resolve(&choices).unwrap().1.iter().map(|version| version.version).collect::<Vec<_>>()
        };
        use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
        assert_eq!(of(None, None), [TLSv1_2, TLSv1_3]);
        assert_eq!(of(Some("TLS13"), None), [TLSv1_3]);
        assert_eq!(of(None, Some("TLS12")), [TLSv1_2]);
        assert_eq!(of(Some("TLS12"), Some("TLS13")), [TLSv1_2, TLSv1_3]);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let choices = Choices {
            min_version: Some("TLS11".into()),
            max_version: Some("SSL3".into()),
            cipher_suites: ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "x\n"]
                .map(str::to_owned)
                .to_vec(),
            curve_preferences: vec!["CurveP521".into(), "P256".into()],
        };
        let texts = texts(&choices);
        let expected = [
            "cipher_suites: TLS_RSA_WITH_AES_128_CBC_SHA is not supported: it has no forward secrecy",
            "cipher_suites: TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA is not supported: its encryption is out of date",
            "cipher_suites: there is no cipher suite named \"x\\n\"; known are TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "curve_preferences: CurveP521 is not supported: ring",
            "curve_preferences: there is no curve named \"P256\"; known are X25519, CurveP256, CurveP384",
            "min_version: TLS11 is not supported: it is deprecated (RFC 8996); TLS12 is the lowest",
            "max_version: there is no version named \"SSL3\"; known are TLS12, TLS13",
        ];
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn the_lowest_version_is_not_above_the_highest() {
        let choices = Choices {
            min_version: Some("TLS13".into()),
            max_version: Some("TLS12".into()),
            ..Choices::default()
        };
        assert_eq!(texts(&choices), ["min_version: the lowest version, TLS13, is above the highest, TLS12"]);
    }
}
