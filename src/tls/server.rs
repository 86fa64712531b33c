//! The configuration of a server's sessions: certificates, client certificates, versions, and resumption.
//!
//! Design constraints:
//!
//! * One configuration serves all cores, and a reload replaces it as a whole. A session keeps the one that it began
//!   with, so no connection is dropped.
//! * Resumption has to work on every core, and across a reload: the tickets' keys and the sessions of TLS 1.2 are
//!   shared, and a reload takes them over. But a resumed session is not verified again. So they are taken over only
//!   if what clients have to prove, and to which authorities, is the same.
//! * No early data: it can be replayed (RFC 8446 section 8), and a push is not idempotent everywhere.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::material::{self, Authorities, CertificateFiles, KeyPair, Mistake, Purpose, Reason, Source};
use super::names::{self, Choices, ClientAuth};
use super::sni::Certificates;
use super::verifier::verifier;
use crate::limits::TLS_SERVER_SESSIONS_MAX;

/// The only protocol that is supported over TLS (RFC 7301).
pub(super) const ALPN: &[u8] = b"http/1.1";

/// A server's settings, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// At least one; the first is for clients that name none of them.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients have to present a certificate.
    pub client_auth: ClientAuth,
    /// The authorities that may have issued it.
    pub client_ca: Option<PathBuf>,
    /// Versions, suites and curves.
    pub choices: Choices,
    /// The alternative names of which a client's certificate needs one; if there are none, any will do.
    pub client_allowed_sans: Vec<Box<str>>,
    /// Whether a suite is chosen by our order, not by the client's.
    pub prefer_server_cipher_suites: bool,
}

/// What a server's sessions run by.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    resumption: Resumption,
    not_after: i64,
}

/// What makes sessions resumable.
#[derive(Clone, Debug)]
struct Resumption {
    /// Its keys change every six hours; a ticket is good for twelve at most.
    ticketer: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
    trust: Trust,
}

/// What a client had to prove in the session that is resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trust {
    client_auth: ClientAuth,
    allowed_sans: Vec<Box<str>>,
    authorities: Vec<CertificateDer<'static>>,
}

impl ServerTls {
    /// Reads and checks all files. Sessions of `previous` can be resumed if clients have to prove the same as then.
    ///
    /// It reads through `source`, and so it may block.
    ///
    /// # Errors
    /// All mistakes in settings and files. What ran before can go on.
    pub fn load(
        settings: &ServerSettings,
        source: &dyn Source,
        now: UnixTime,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let choices = noted(names::resolve(&settings.choices), &mut mistakes);
        // Names that can't be used don't hide what is wrong with the files.
        let (provider, versions) =
            choices.unwrap_or((Arc::new(ring::default_provider()), rustls::ALL_VERSIONS));
        let pairs: Vec<_> = settings
            .certificates
            .iter()
            .filter_map(|files| {
                noted(material::key_pair(files, Purpose::Server, &provider, source, now), &mut mistakes)
            })
            .collect();
        if settings.certificates.is_empty() {
            mistakes.push(Mistake::in_setting("cert_file", Reason::Setting("is missing")));
        }
        let authorities = client_authorities(settings, source, now, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let trust = Trust {
            client_auth: settings.client_auth,
            allowed_sans: settings.client_allowed_sans.clone(),
            authorities: authorities.as_ref().map(|found| found.certificates.clone()).unwrap_or_default(),
        };
        let resumption = Resumption::after(previous, trust).map_err(refused)?;
        let verifier = verifier(settings.client_auth, authorities, &settings.client_allowed_sans, &provider)
            .map_err(|mistake| vec![mistake])?;
        let config = build(settings, &pairs, provider, versions, verifier, &resumption).map_err(refused)?;
        let not_after = pairs.iter().map(|pair| pair.not_after).min().unwrap_or(i64::MAX);
        Ok(Self { config: Arc::new(config), resumption, not_after })
    }

    /// Lets clients resume the sessions of `previous`, if they had to prove the same then.
    #[must_use]
    pub fn resuming(mut self, previous: &Self) -> Self {
        if previous.resumption.trust == self.resumption.trust {
            let mut config = ServerConfig::clone(&self.config);
            config.ticketer = Arc::clone(&previous.resumption.ticketer);
            config.session_storage = Arc::clone(&previous.resumption.sessions);
            self.config = Arc::new(config);
            self.resumption = previous.resumption.clone();
        }
        self
    }

    /// Whether clients have to prove the same, and to the same authorities.
    pub fn demands_the_same(&self, other: &Self) -> bool {
        self.resumption.trust == other.resumption.trust
    }

    /// For [`Session::server`](super::session::Session::server), on any core.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The last second in which all certificates are valid, since 1970: chains count, too.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }
}

impl Resumption {
    fn after(previous: Option<&ServerTls>, trust: Trust) -> Result<Self, rustls::Error> {
        match previous {
            Some(previous) if previous.resumption.trust == trust => Ok(previous.resumption.clone()),
            _ => Ok(Self {
                ticketer: ring::Ticketer::new()?,
                sessions: ServerSessionMemoryCache::new(TLS_SERVER_SESSIONS_MAX),
                trust,
            }),
        }
    }
}

fn client_authorities(
    settings: &ServerSettings,
    source: &dyn Source,
    now: UnixTime,
    mistakes: &mut Vec<Mistake>,
) -> Option<Authorities> {
    match (&settings.client_ca, settings.client_auth) {
        (Some(path), ClientAuth::None) => {
            let reason = Reason::Setting("has no effect unless clients are asked for a certificate");
            mistakes.push(Mistake::in_setting("client_ca_file", reason));
            noted(material::authorities(path, source, now), mistakes)
        }
        (Some(path), _) => noted(material::authorities(path, source, now), mistakes),
        (None, ClientAuth::None | ClientAuth::Request | ClientAuth::RequireAny) => None,
        (None, _) => {
            let reason = Reason::Setting("needs client_ca_file, by which certificates are verified");
            mistakes.push(Mistake::in_setting("client_auth", reason));
            None
        }
    }
}

/// The result, or its mistakes noted.
fn noted<T>(result: Result<T, Vec<Mistake>>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    result.map_err(|mut found| mistakes.append(&mut found)).ok()
}

fn build(
    settings: &ServerSettings,
    pairs: &[KeyPair],
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ClientCertVerifier>,
    resumption: &Resumption,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Certificates::new(pairs)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = settings.prefer_server_cipher_suites;
    config.ticketer = Arc::clone(&resumption.ticketer);
    config.session_storage = Arc::clone(&resumption.sessions);
    Ok(config)
}

/// rustls refuses the whole: no suite is left for a version, for one.
fn refused(error: rustls::Error) -> Vec<Mistake> {
    vec![Mistake::in_setting("tls_config", Reason::Refused(error.to_string()))]
}
