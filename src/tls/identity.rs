//! The names in a certificate, for rules about what a client may write.
//!
//! Only a certificate that was verified says anything. What a name means is for the rules to decide: here, names are
//! taken as they are written, each kind apart, so that a DNS name never stands for a URI.
#![forbid(unsafe_code)]

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The names in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The subject's common name (RFC 5280 section 4.1.2.6), if it has exactly one and that is text. With several,
    /// another reader might take another.
    pub common_name: Option<String>,
    /// The DNS names among the subject's alternative names (section 4.2.1.6), as written.
    pub dns_names: Vec<String>,
    /// The URIs among them, such as SPIFFE IDs, as written.
    pub uris: Vec<String>,
    /// The last second of the certificate's validity, since 1970. A resumed session does not verify it again, so that a
    /// server may want to look at it.
    pub not_after: i64,
}

/// The certificate can't be parsed, although it was verified. The client can't be told apart from others, so it should
/// be refused; a retry does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate can't be parsed")]
pub struct Unparsable;

impl Identity {
    /// The names in `certificate`.
    ///
    /// # Errors
    /// [`Unparsable`], also where an extension is there twice.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Unparsable> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| Unparsable)?;
        let mut identity = Self {
            common_name: common_name(&certificate),
            not_after: certificate.validity().not_after.timestamp(),
            ..Self::default()
        };
        let names = certificate.subject_alternative_name().map_err(|_| Unparsable)?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => identity.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        Ok(identity)
    }
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        _ => None,
    }
}
