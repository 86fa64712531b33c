//! The configuration of a client's sessions: the authorities it trusts, its own certificate, versions, and resumption.
//!
//! Design constraints:
//!
//! * A certificate that does not match is an error, never a reason for going on without TLS.
//! * `insecure_skip_verify` leaves out only whether the certificate is to be trusted. That the server has its key is
//!   still proven, as rustls asks for.
//! * Sessions are remembered separately for each address of a target ([`ClientTls::for_address`]): only that address
//!   can read its tickets, and a ticket is used once.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::material::{self, CertificateFiles, KeyPair, Mistake, Purpose, Reason, Source};
use super::names::{self, Choices};
use super::server::ALPN;
use crate::limits::TLS_CLIENT_SESSIONS_MAX;

/// A client's settings, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// The authorities to be trusted; without a file, those of the system.
    pub ca: Option<PathBuf>,
    /// What is shown to a server that asks.
    pub certificate: Option<CertificateFiles>,
    /// The name that a server's certificate has to be for, also sent as SNI, instead of the target's.
    pub server_name: Option<String>,
    /// Whether any certificate is accepted. Then an attacker in between can read and change everything.
    pub insecure_skip_verify: bool,
    /// Versions, suites and curves.
    pub choices: Choices,
}

/// What a client's sessions run by.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    not_after: Option<i64>,
    insecure: bool,
}

impl ClientTls {
    /// Reads and checks all files.
    ///
    /// It reads through `source`, and so it may block.
    ///
    /// # Errors
    /// All mistakes in settings and files. What ran before can go on.
    pub fn load(settings: &ClientSettings, source: &dyn Source, now: UnixTime) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let choices = noted(names::resolve(&settings.choices), &mut mistakes);
        // Names that can't be used don't hide what is wrong with the files.
        let (provider, versions) =
            choices.unwrap_or((Arc::new(ring::default_provider()), rustls::ALL_VERSIONS));
        let verifier = noted(verifier(settings, &provider, source, now), &mut mistakes);
        let pair = settings.certificate.as_ref().and_then(|files| {
            noted(material::key_pair(files, Purpose::Client, &provider, source, now), &mut mistakes)
        });
        let name = settings
            .server_name
            .as_deref()
            .map(|name| server_name(name).map_err(|reason| vec![Mistake::in_setting("server_name", reason)]));
        let server_name = name.and_then(|name| noted(name, &mut mistakes));
        let Some(verifier) = verifier.filter(|_| mistakes.is_empty()) else { return Err(mistakes) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| vec![Mistake::in_setting("tls_config", Reason::Refused(e.to_string()))])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let not_after = pair.as_ref().map(|pair| pair.not_after);
        let mut config = match pair {
            Some(pair) => builder.with_client_cert_resolver(Arc::new(own_certificate(&pair))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::in_memory_sessions(TLS_CLIENT_SESSIONS_MAX);
        let insecure = settings.insecure_skip_verify;
        Ok(Self { config: Arc::new(config), server_name, not_after, insecure })
    }

    /// For [`Session::client`](super::session::Session::client): with the sessions of all that use this one.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The same, for one more address of the target: it remembers sessions of its own.
    pub fn for_address(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(TLS_CLIENT_SESSIONS_MAX);
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// The name that the certificate of a server has to be for: that of the settings, or else `host`, the target's.
    ///
    /// # Errors
    /// When `host` is neither a DNS name nor an IP address.
    pub fn name_for(&self, host: &str) -> Result<ServerName<'static>, Reason> {
        self.server_name.clone().map_or_else(|| server_name(host), Ok)
    }

    /// The last second of the validity of our own certificate and its chain, since 1970, if there is one.
    pub fn not_after(&self) -> Option<i64> {
        self.not_after
    }

    /// Whether any certificate is accepted, which deserves a warning that repeats.
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }
}

/// A name that certificates can be for: a DNS name, or an IP address, with or without the brackets of a URL.
///
/// # Errors
/// When it is neither.
pub fn server_name(name: &str) -> Result<ServerName<'static>, Reason> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let name =
        ServerName::try_from(bare).map_err(|_| Reason::Setting("is neither a DNS name nor an IP address"))?;
    Ok(name.to_owned())
}

fn own_certificate(pair: &KeyPair) -> SingleCertAndKey {
    SingleCertAndKey::from(CertifiedKey::clone(&pair.certified))
}

/// The result, or its mistakes noted.
fn noted<T>(result: Result<T, Vec<Mistake>>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    result.map_err(|mut found| mistakes.append(&mut found)).ok()
}

fn verifier(
    settings: &ClientSettings,
    provider: &Arc<CryptoProvider>,
    source: &dyn Source,
    now: UnixTime,
) -> Result<Arc<dyn ServerCertVerifier>, Vec<Mistake>> {
    let authorities = match &settings.ca {
        Some(path) => Some(material::authorities(path, source, now)?),
        None => None,
    };
    if settings.insecure_skip_verify {
        return Ok(Arc::new(AnyCertificate { algorithms: provider.signature_verification_algorithms }));
    }
    let system = || material::system_authorities(source);
    let authorities = authorities.map_or_else(system, Ok);
    let authorities = authorities.map_err(|e| vec![Mistake::in_setting("ca_bundle_file", e)])?;
    let verifier =
        WebPkiServerVerifier::builder_with_provider(authorities.roots, Arc::clone(provider)).build();
    let verifier =
        verifier.map_err(|e| vec![Mistake::in_setting("ca_bundle_file", Reason::Refused(e.to_string()))])?;
    Ok(verifier)
}

/// Accepts any certificate, but not a server that does not have its key.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
