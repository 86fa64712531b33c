//! Certificate authorities and certificates for tests, made on the spot, as PEM.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};

/// An entry of a certificate's extended key usage.
pub use rcgen::ExtendedKeyUsagePurpose as Usage;

/// An authority that issues certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both as PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate alone; its authority's is to be put behind it where a chain is wanted.
    pub certificate: String,
    /// Its private key, as PKCS #8.
    pub key: String,
}

/// What is to be in a certificate.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The subject's common name.
    pub common_name: String,
    /// DNS names, wildcards among them.
    pub dns_names: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// Its extended key usage; empty for none.
    pub usages: Vec<Usage>,
    /// Its first and its last day.
    pub valid: [(i32, u8, u8); 2],
}

impl Wanted {
    /// A server's, for these DNS names; valid from 2020 to 2100.
    pub fn server(dns_names: &[&str]) -> Self {
        Self {
            common_name: dns_names.first().copied().unwrap_or("server").to_owned(),
            dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
            uris: Vec::new(),
            addresses: Vec::new(),
            usages: vec![Usage::ServerAuth],
            valid: [(2020, 1, 1), (2100, 1, 1)],
        }
    }

    /// A client's, of this common name; valid from 2020 to 2100.
    pub fn client(common_name: &str) -> Self {
        let usages = vec![Usage::ClientAuth];
        Self { common_name: common_name.to_owned(), usages, ..Self::server(&[]) }
    }

    /// The same, for use by another: `usages` instead of its own.
    #[must_use]
    pub fn with_usages(self, usages: &[Usage]) -> Self {
        Self { usages: usages.to_vec(), ..self }
    }

    /// The same, valid from the first of these days to the second.
    #[must_use]
    pub fn valid(self, from: (i32, u8, u8), to: (i32, u8, u8)) -> Self {
        Self { valid: [from, to], ..self }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        let dns =
            self.dns_names.iter().filter_map(|name| name.as_str().try_into().ok().map(SanType::DnsName));
        let uris = self.uris.iter().filter_map(|uri| uri.as_str().try_into().ok().map(SanType::URI));
        params.subject_alt_names =
            dns.chain(uris).chain(self.addresses.iter().copied().map(SanType::IpAddress)).collect();
        params.extended_key_usages.clone_from(&self.usages);
        let [from, to] = self.valid;
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        params
    }
}

impl Authority {
    /// A new root of this name, valid from 2020 to 2100.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(name: &str) -> Result<Self, rcgen::Error> {
        Self::valid(name, (2020, 1, 1), (2100, 1, 1))
    }

    /// A new root of this name, valid from the first of these days to the second.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn valid(name: &str, from: (i32, u8, u8), to: (i32, u8, u8)) -> Result<Self, rcgen::Error> {
        let mut params = Wanted::client(name).with_usages(&[]).valid(from, to).params();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its own certificate.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate, with a new key (ECDSA with P-256).
    ///
    /// # Errors
    /// When no key can be made.
    pub fn issue(&self, wanted: &Wanted) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = wanted.params().signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// Issues a certificate with a new Ed25519 key.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn issue_ed25519(&self, wanted: &Wanted) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let certificate = wanted.params().signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

/// A certificate that signed itself, and is no authority's.
///
/// # Errors
/// When no key can be made.
pub fn self_signed(wanted: &Wanted) -> Result<Issued, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = wanted.params().self_signed(&key)?.pem();
    Ok(Issued { certificate, key: key.serialize_pem() })
}
