//! Which of several certificates a client gets (SNI, RFC 6066 section 3).
//!
//! One for the exact name comes first, then one with a wildcard for the leftmost label. A wildcard stands for nothing
//! else (RFC 9525 section 6.3). Without a match, or without a name, all are candidates, in the order in which
//! they were configured: the first is the default. Among candidates, the first counts whose key the client can
//! verify, so that RSA and ECDSA certificates for one name can stand beside each other.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::material::KeyPair;

/// The certificates of a server, by the names that they are for.
#[derive(Debug)]
pub struct Certificates {
    all: Vec<Arc<CertifiedKey>>,
    /// A wildcard is under its name as it is written: `*.example.org`.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Certificates {
    /// Those of `pairs`; the first is the default.
    pub fn new(pairs: &[KeyPair]) -> Self {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for pair in pairs {
            for name in &pair.dns_names {
                by_name.entry(name.clone()).or_default().push(Arc::clone(&pair.certified));
            }
        }
        Self { all: pairs.iter().map(|pair| Arc::clone(&pair.certified)).collect(), by_name }
    }

    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard =
                || name.split_once('.').and_then(|(_, parent)| self.by_name.get(&format!("*.{parent}")));
            self.by_name.get(&name).or_else(wildcard)
        });
        found.unwrap_or(&self.all)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(name);
        let fits = candidates.iter().find(|certified| certified.key.choose_scheme(schemes).is_some());
        fits.or_else(|| candidates.first()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
