//! How client certificates are verified.
#![forbid(unsafe_code)]

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::identity::PeerCertificate;
use super::material::{Authorities, Mistake, Reason};
use super::names::ClientAuth;

/// The verifier for `auth`. If `allowed_sans` has names, a certificate needs one of them.
///
/// # Errors
/// If rustls cannot use the authorities.
pub(super) fn verifier(
    auth: ClientAuth,
    authorities: Option<Authorities>,
    allowed_sans: &[Box<str>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Mistake> {
    let verifier: Arc<dyn ClientCertVerifier> = match (auth, authorities) {
        (ClientAuth::Request | ClientAuth::RequireAny, _) => Arc::new(AnyCertificate {
            provider: Arc::clone(provider),
            mandatory: auth == ClientAuth::RequireAny,
        }),
        (_, None) => return Ok(WebPkiClientVerifier::no_client_auth()),
        (_, Some(authorities)) => {
            let builder =
                WebPkiClientVerifier::builder_with_provider(authorities.roots, Arc::clone(provider));
            let builder = if auth == ClientAuth::Require { builder } else { builder.allow_unauthenticated() };
            let refused = |e: rustls::server::VerifierBuilderError| Reason::Refused(e.to_string());
            builder.build().map_err(|e| Mistake::in_setting("client_ca_file", refused(e)))?
        }
    };
    match allowed_sans.is_empty() {
        true => Ok(verifier),
        false => Ok(Arc::new(WithSan { verifier, allowed: allowed_sans.into() })),
    }
}

/// Accepts every certificate whose key the client has. It proves nothing about the client.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    mandatory: bool,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Demands an alternative name besides what `verifier` demands.
#[derive(Debug)]
struct WithSan {
    verifier: Arc<dyn ClientCertVerifier>,
    allowed: Box<[Box<str>]>,
}

impl ClientCertVerifier for WithSan {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verifier.verify_client_cert(certificate, intermediates, now)?;
        let names = PeerCertificate::of(certificate).map_err(|_| CertificateError::BadEncoding)?;
        match names.has_san(&self.allowed) {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
