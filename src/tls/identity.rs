//! The names in a client's certificate, for rules about what the client may write.
//!
//! Only a certificate that was verified says anything. What a name means is for the rules to decide: here, names are
//! taken as they are written, each kind apart, so that a DNS name never stands for a URI.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The names in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject's common name (RFC 5280 section 4.1.2.6), if it has exactly one and that is text. With several,
    /// another reader might take another.
    pub common_name: Option<Box<str>>,
    /// The DNS names among the subject's alternative names (section 4.2.1.6), as written.
    pub dns: Vec<Box<str>>,
    /// The URIs among them, such as SPIFFE IDs, as written.
    pub uris: Vec<Box<str>>,
    /// The e-mail addresses among them.
    pub emails: Vec<Box<str>>,
    /// The IP addresses among them.
    pub ips: Vec<IpAddr>,
    /// The last second of the certificate's validity, since 1970. A resumed session does not verify it again, so the
    /// server has to look at it.
    pub not_after: i64,
}

/// The certificate cannot be parsed, although it was verified. The client cannot be told apart from others, so it has
/// to be refused; a retry does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate can't be parsed")]
pub struct Unparsable;

impl PeerCertificate {
    /// The names in `certificate`.
    ///
    /// # Errors
    /// [`Unparsable`], also if an extension occurs twice.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Unparsable> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| Unparsable)?;
        let mut found = Self {
            common_name: common_name(&certificate),
            not_after: certificate.validity().not_after.timestamp(),
            ..Self::default()
        };
        let names = certificate.subject_alternative_name().map_err(|_| Unparsable)?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => found.dns.push((*name).into()),
                GeneralName::URI(uri) => found.uris.push((*uri).into()),
                GeneralName::RFC822Name(email) => found.emails.push((*email).into()),
                GeneralName::IPAddress(bytes) => found.ips.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether one of its subject alternative names is one of `allowed`, byte for byte, as the setting
    /// `client_allowed_sans` of Prometheus demands.
    pub fn has_san(&self, allowed: &[Box<str>]) -> bool {
        let mut names = self.dns.iter().chain(&self.uris).chain(&self.emails);
        names.any(|name| allowed.contains(name))
            || self.ips.iter().any(|ip| allowed.iter().any(|text| **text == *ip.to_string()))
    }
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<Box<str>> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(Into::into),
        _ => None,
    }
}

/// An address of four or sixteen bytes (RFC 5280 section 4.2.1.6).
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternative_names_are_compared_whole() {
        let certificate = PeerCertificate {
            common_name: Some("cn".into()),
            dns: vec!["a.example".into()],
            uris: vec!["spiffe://x/y".into()],
            emails: vec!["a@example".into()],
            ips: vec!["::1".parse().unwrap(), "10.0.0.1".parse().unwrap()],
            not_after: 0,
        };
        for san in ["a.example", "spiffe://x/y", "a@example", "::1", "10.0.0.1"] {
            assert!(certificate.has_san(&["other".into(), san.into()]), "{san}");
        }
        for san in ["cn", "example", "A.example", "", "10.0.0.2"] {
            assert!(!certificate.has_san(&[san.into()]), "{san}");
        }
        assert!(!certificate.has_san(&[]));
    }

    #[test]
    fn addresses_have_four_or_sixteen_bytes() {
        assert_eq!(address(&[10, 0, 0, 1]), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(address(&[0; 16]), Some("::".parse().unwrap()));
        assert_eq!((address(&[]), address(&[1; 5])), (None, None));
    }
}
