//! Why a session ended.
#![forbid(unsafe_code)]

use rustls::{AlertDescription, CertificateError, Error};

use crate::limits::TLS_HANDSHAKE_BYTES_MAX;

/// Why a session can't go on. Each is final: the connection has to be closed, after the bytes in
/// [`Outgoing`](super::outgoing::Outgoing) have been sent, among which is the alert that tells the peer (RFC 8446
/// section 6.2), if one is due.
///
/// Whether a retry over another connection helps is said for each.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SessionError {
    /// The peer speaks plain HTTP. As a server we answer with a line that says so
    /// ([`PLAIN_HTTP_REPLY`](super::session::PLAIN_HTTP_REPLY)). A retry does not help.
    #[error("plain HTTP where TLS was expected")]
    PlainHttp,
    /// The peer has ended the session by an alert: it does not accept our certificate, or anything else of ours. A
    /// retry does not help until one side is changed.
    #[error("the peer refused: {}", alert_name(*.0))]
    Refused(AlertDescription),
    /// The peer's certificate is not accepted, or it has none. A retry does not help.
    #[error("the peer's certificate is not accepted: {0}")]
    Certificate(String),
    /// The two sides have no version, suite, curve or protocol in common. A retry does not help.
    #[error("nothing in common with the peer: {0}")]
    Incompatible(String),
    /// The peer's bytes break the protocol, or they were changed on their way. A retry may help.
    #[error("the peer broke the TLS protocol: {0}")]
    Protocol(String),
    /// A handshake, or a single message after it, is longer than any that makes sense. A retry does not help.
    #[error("the peer's handshake is over the limit of {TLS_HANDSHAKE_BYTES_MAX} bytes")]
    HandshakeTooLong,
    /// The connection ended while the handshake was going on. A retry may help.
    #[error("the connection ended during the TLS handshake")]
    EndedInHandshake,
    /// The connection ended without the peer's `close_notify`: an attacker may have cut it short (RFC 8446 section
    /// 6.1). A retry may help.
    #[error("the connection was cut off: it ended without a TLS close_notify")]
    Truncated,
    /// We have closed the session, so that nothing can be written. A mistake of the caller.
    #[error("the TLS session is closed")]
    Closed,
    /// Something on our side: no random bytes, no clock, keys used up. A retry may help.
    #[error("TLS failed on our side: {0}")]
    Internal(String),
}

/// The side that caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer, or the network.
    Peer,
    /// This process.
    Ours,
}

impl SessionError {
    /// The side that caused it. A peer that refuses has a reason, which may be our certificate; it still counts as
    /// the peer's, because it decided.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Closed | Self::Internal(_) => Fault::Ours,
            _ => Fault::Peer,
        }
    }

    /// One word for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::PlainHttp => "plain_http",
            Self::Refused(_) => "refused",
            Self::Certificate(_) => "certificate",
            Self::Incompatible(_) => "incompatible",
            Self::Protocol(_) => "protocol",
            Self::HandshakeTooLong => "too_long",
            Self::EndedInHandshake => "ended_in_handshake",
            Self::Truncated => "truncated",
            Self::Closed => "closed",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::AlertReceived(alert) => Self::Refused(alert),
            Error::InvalidCertificate(e) => Self::Certificate(certificate_text(&e)),
            Error::NoCertificatesPresented => Self::Certificate("it has none".into()),
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible(text),
            Error::EncryptError
            | Error::FailedToGetCurrentTime
            | Error::FailedToGetRandomBytes
            | Error::HandshakeNotComplete
            | Error::BadMaxFragmentSize
            | Error::InconsistentKeys(_)
            | Error::General(_) => Self::Internal(text),
            _ => Self::Protocol(text),
        }
    }
}

/// What an operator should read of it: no structure of rustls', and no byte that could break a log line.
fn certificate_text(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".into()
        }
        CertificateError::UnknownIssuer => "none of the trusted authorities has issued it".into(),
        CertificateError::NotValidForName => "it is for another name".into(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> =
                presented.iter().take(8).map(|name| name.escape_debug().to_string()).collect();
            format!("it is not for {}, but for {}", expected.to_str(), names.join(", "))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its extended key usage is for another purpose".into()
        }
        CertificateError::Revoked => "it has been revoked".into(),
        CertificateError::BadSignature => "its signature is wrong".into(),
        CertificateError::BadEncoding => "it is malformed".into(),
        other => other.to_string(),
    }
}

/// An alert's name as RFC 8446 section 6 writes it, for those that are likely; else its number.
fn alert_name(alert: AlertDescription) -> String {
    let name = match alert {
        AlertDescription::UnexpectedMessage => "unexpected_message",
        AlertDescription::BadRecordMac => "bad_record_mac",
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::IllegalParameter => "illegal_parameter",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::DecodeError => "decode_error",
        AlertDescription::DecryptError => "decrypt_error",
        AlertDescription::ProtocolVersion => "protocol_version",
        AlertDescription::InsufficientSecurity => "insufficient_security",
        AlertDescription::InternalError => "internal_error",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        AlertDescription::CertificateRequired => "certificate_required",
        AlertDescription::NoApplicationProtocol => "no_application_protocol",
        other => return format!("alert {}", u8::from(other)),
    };
    name.to_owned()
}
