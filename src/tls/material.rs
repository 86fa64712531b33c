//! Reads and checks certificates, keys and authorities, and reports every mistake.
//!
//! Design constraints:
//!
//! * An operator wants all mistakes at once, with file and reason. So nothing stops at the first, and a mistake in one
//!   file does not hide one in another.
//! * What would fail in every handshake is reported at the start or at the reload: a key of another certificate, a
//!   certificate that has expired or is for another purpose.
//! * Files come through [`Source`], and the time is given, so that all of this can be tested without either.
//! * Keys never appear in an error.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

pub use super::mistake::{Mistake, Place, Reason};

/// Where files come from: the disk ([`Disk`](super::files::Disk)), or a test.
pub trait Source {
    /// All of a file.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The system's trusted roots.
    ///
    /// # Errors
    /// Why there are none.
    fn system_roots(&self) -> Result<Vec<CertificateDer<'static>>, String>;
}

/// A certificate, with its chain behind it, and its key; each as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those that issued it, up to the root or one below.
    pub certificate: PathBuf,
    /// Its private key, as PKCS #8, PKCS #1 or SEC 1, without a passphrase. It may be the same file.
    pub key: PathBuf,
}

/// What a certificate is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is presented to clients.
    Server,
    /// It is presented to servers.
    Client,
}

/// A certificate with its key, checked.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// For rustls.
    pub certified: Arc<CertifiedKey>,
    /// The DNS names that it is for, in lower case; a wildcard as `*.example.org`.
    pub dns_names: Vec<String>,
    /// The last second of its validity, and that of its chain, since 1970.
    pub not_after: i64,
}

/// Reads and checks a certificate and its key.
///
/// # Errors
/// All mistakes in both files.
pub fn key_pair(
    files: &CertificateFiles,
    purpose: Purpose,
    provider: &CryptoProvider,
    source: &dyn Source,
    now: UnixTime,
) -> Result<KeyPair, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let chain = certificates(&files.certificate, source, &mut mistakes);
    let key = private_key(&files.key, provider, source, &mut mistakes);
    let mut pair = None;
    if let Some(chain) = chain {
        let mut note = |reason| mistakes.push(Mistake::in_file(&files.certificate, reason));
        let facts = check_chain(&chain, purpose, now, &mut note);
        pair = key.zip(facts).map(|(key, facts)| (Arc::new(CertifiedKey::new(chain, key)), facts));
    }
    // A key whose public half cannot be determined is used as it is.
    if let Some((certified, _)) = &pair
        && let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) =
            certified.keys_match()
    {
        let reason = Reason::Mismatch { certificate: files.certificate.clone() };
        mistakes.push(Mistake::in_file(&files.key, reason));
    }
    match pair {
        Some((certified, (dns_names, not_after))) if mistakes.is_empty() => {
            Ok(KeyPair { certified, dns_names, not_after })
        }
        _ => Err(mistakes),
    }
}

/// Checks each certificate of a chain, and gives the DNS names of the first and the earliest end.
fn check_chain(
    chain: &[CertificateDer<'_>],
    purpose: Purpose,
    now: UnixTime,
    note: &mut impl FnMut(Reason),
) -> Option<(Vec<String>, i64)> {
    let (mut names, mut not_after) = (None, i64::MAX);
    for (number, der) in (1..).zip(chain) {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            note(Reason::Malformed { number });
            continue;
        };
        check_validity(number, &certificate, now, note);
        not_after = not_after.min(certificate.validity().not_after.timestamp());
        if number == 1 {
            check_purpose(&certificate, purpose, note);
            names = Some(dns_names(&certificate));
        }
    }
    names.map(|names| (names, not_after))
}

fn check_validity(
    number: usize,
    certificate: &X509Certificate<'_>,
    now: UnixTime,
    note: &mut impl FnMut(Reason),
) {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    let text = |at: ASN1Time| (subject(certificate), at.to_string());
    if validity.not_after.timestamp() < now {
        let (subject, at) = text(validity.not_after);
        note(Reason::Expired { number, subject, at });
    } else if validity.not_before.timestamp() > now {
        let (subject, at) = text(validity.not_before);
        note(Reason::NotYetValid { number, subject, at });
    }
}

/// Without the extension, a certificate is for every purpose (RFC 5280 section 4.2.1.12).
fn check_purpose(certificate: &X509Certificate<'_>, purpose: Purpose, note: &mut impl FnMut(Reason)) {
    let Ok(Some(usage)) = certificate.extended_key_usage() else { return };
    let (allowed, name) = match purpose {
        Purpose::Server => (usage.value.server_auth, "serverAuth"),
        Purpose::Client => (usage.value.client_auth, "clientAuth"),
    };
    if !allowed && !usage.value.any {
        note(Reason::WrongPurpose(name));
    }
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    certificate.subject().to_string().escape_debug().to_string()
}

/// The authorities of a file, or those of the system.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// For rustls.
    pub roots: Arc<RootCertStore>,
    /// The certificates, to be compared with those of another load.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Reads and checks a file of authorities. What is no authority's certificate, or has expired, is left out, as bundles
/// have such; but one has to remain.
///
/// A certificate that signed itself counts as an authority's: it is the root of a chain of one.
///
/// # Errors
/// All mistakes in the file.
pub fn authorities(path: &Path, source: &dyn Source, now: UnixTime) -> Result<Authorities, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let found = certificates(path, source, &mut mistakes).unwrap_or_default();
    let mut any = false;
    let mut usable = Vec::new();
    // They count only if there is no other.
    let mut out_of_time = Vec::new();
    for (number, der) in (1..).zip(&found) {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            mistakes.push(Mistake::in_file(path, Reason::Malformed { number }));
            continue;
        };
        if certificate.is_ca() || certificate.subject() == certificate.issuer() {
            any = true;
            let before = out_of_time.len();
            check_validity(number, &certificate, now, &mut |reason| {
                out_of_time.push(Mistake::in_file(path, reason))
            });
            if out_of_time.len() == before {
                usable.push(der.clone());
            }
        }
    }
    if !found.is_empty() && !any && mistakes.is_empty() {
        mistakes.push(Mistake::in_file(path, Reason::NoAuthority));
    }
    if usable.is_empty() {
        mistakes.append(&mut out_of_time);
    }
    let roots = store(&usable);
    if mistakes.is_empty() && roots.is_empty() {
        mistakes.push(Mistake::in_file(path, Reason::NoAuthority));
    }
    if mistakes.is_empty() {
        Ok(Authorities { roots: Arc::new(roots), certificates: usable })
    } else {
        Err(mistakes)
    }
}

/// The system's authorities.
///
/// # Errors
/// When it has none.
pub fn system_authorities(source: &dyn Source) -> Result<Authorities, Reason> {
    let certificates = source.system_roots().map_err(Reason::NoSystemRoots)?;
    let roots = store(&certificates);
    if roots.is_empty() {
        return Err(Reason::NoSystemRoots("none of them can be read".into()));
    }
    Ok(Authorities { roots: Arc::new(roots), certificates })
}

fn store(certificates: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    roots
}

fn read(path: &Path, source: &dyn Source, mistakes: &mut Vec<Mistake>) -> Option<Vec<u8>> {
    match source.read(path) {
        Ok(bytes) => Some(bytes),
        Err(e) => {
            mistakes.push(Mistake::in_file(path, Reason::Unreadable(e.to_string())));
            None
        }
    }
}

/// All certificates of a file, at least one.
fn certificates(
    path: &Path,
    source: &dyn Source,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = read(path, source, mistakes)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let reason = match found {
        Ok(found) if !found.is_empty() => return Some(found),
        Ok(_) => Reason::NoCertificate,
        Err(e) => not_pem(&e),
    };
    mistakes.push(Mistake::in_file(path, reason));
    None
}

fn private_key(
    path: &Path,
    provider: &CryptoProvider,
    source: &dyn Source,
    mistakes: &mut Vec<Mistake>,
) -> Option<Arc<dyn rustls::sign::SigningKey>> {
    let bytes = read(path, source, mistakes)?;
    let reason = match PrivateKeyDer::from_pem_slice(&bytes) {
        _ if is_encrypted(&bytes) => Reason::Encrypted,
        Ok(key) => match provider.key_provider.load_private_key(key) {
            Ok(key) => return Some(key),
            Err(e) => Reason::UnusableKey(e.to_string()),
        },
        Err(pem::Error::NoItemsFound) => Reason::NoKey,
        Err(e) => not_pem(&e),
    };
    mistakes.push(Mistake::in_file(path, reason));
    None
}

/// PKCS #8 says so in its label (RFC 7468 section 11), the older forms in a header (RFC 1421 section 4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |needle: &[u8]| pem.windows(needle.len()).any(|window| window == needle);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// The library's errors may quote the line, which may be a key's.
fn not_pem(error: &pem::Error) -> Reason {
    let text = match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end",
        pem::Error::IllegalSectionStart { .. } => "a line that begins a section is malformed",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "a section can't be read",
    };
    Reason::NotPem(text.to_owned())
}
