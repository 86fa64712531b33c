//! The credential of a request: its sender's identity, and the tenants that it may write to. Both are known from the
//! head, before the body is read.

pub(super) mod counters;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime};

use super::Ingest;
use crate::auth::{Access, Authorization, Caller, Decision, Identity, PeerCertificate};
use crate::config::plan::Plan;
use crate::config::tls::ListenerTls;
use crate::http::refusal::Refusal;
use crate::io::stream::Stream;
use crate::metrics::Rejection;
use crate::model::Part;
use crate::tenant::Grant;
use crate::tls::session::Session;

/// Who sends a request, and what it may write.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    pub(super) identity: Identity,
    pub(super) grant: Arc<Grant>,
    /// Whether metrics count by credential: senders have some, or need some.
    pub(super) is_counted: bool,
}

/// What the TLS of a connection has proved when it began.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// The TLS that the connection was opened with; `None` means plain HTTP.
    pub(super) tls: Option<Arc<ListenerTls>>,
    /// The sender's certificate, if it was verified.
    pub(super) certificate: Option<Arc<PeerCertificate>>,
}

impl Standing {
    /// Checks that a connection that is open for long would still be accepted.
    ///
    /// # Errors
    /// [`Refusal::Renewed`]: a reload demands other proofs, or the certificate has expired.
    fn check(&self, demanded: Option<&Arc<ListenerTls>>, now: SystemTime) -> Result<(), Refusal> {
        let is_current = match (&self.tls, demanded) {
            (None, None) => true,
            (Some(tls), Some(demanded)) => Arc::ptr_eq(tls, demanded) || tls.demands_the_same(demanded),
            _ => false,
        };
        let is_valid = self.certificate.as_ref().is_none_or(|certificate| !has_expired(certificate, now));
        if is_current && is_valid { Ok(()) } else { Err(Refusal::Renewed) }
    }
}

fn has_expired(certificate: &PeerCertificate, now: SystemTime) -> bool {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).is_ok_and(|now| now > certificate.not_after)
}

/// The grant without access rules, shared by all requests.
static ANY: LazyLock<Arc<Grant>> = LazyLock::new(|| Arc::new(Grant::Any));

impl Ingest {
    /// Authenticates a request by its `Authorization` header and by the certificate of its connection. It waits until
    /// `deadline` at most for the check of a password.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`], [`Refusal::Forbidden`], [`Refusal::Renewed`] or [`Refusal::Overloaded`].
    pub(super) async fn authenticate(
        &self,
        authorization: &Authorization,
        standing: &Standing,
        stream: &Stream,
        deadline: Instant,
        plan: &Plan,
    ) -> Result<Credential, Refusal> {
        let Some(authenticator) = plan.auth.authenticator() else { return Err(Refusal::Draining) };
        let now = SystemTime::now();
        standing.check(plan.tls.ingress.as_ref(), now)?;
        let caller = Caller { core: self.core(), peer: Some(stream.peer().ip()), now };
        let certificate = standing.certificate.as_ref();
        let decision = match authenticator.authenticate(authorization, certificate, &caller) {
            Decision::Pending(pending) => {
                let wait = deadline.saturating_duration_since(Instant::now());
                let verdict = self.verdicts.wait(pending.ticket, wait).await;
                pending.conclude(verdict)
            }
            decision => decision,
        };
        let identity = match decision {
            Decision::Anonymous => Identity::default(),
            Decision::Known(identity) => identity,
            Decision::Unauthorized(reason) => {
                let challenge = authenticator.challenge(reason).into();
                return Err(Refusal::Unauthorized { why: reason.to_string(), challenge });
            }
            Decision::Busy | Decision::Pending(_) => {
                self.counters().rejected(Rejection::PasswordChecks);
                return Err(Refusal::Overloaded { why: "too many passwords are being checked" });
            }
        };
        let grant = match plan.auth.access() {
            None => Arc::clone(&ANY),
            Some(access) => granted(access, &identity)?,
        };
        let is_counted = plan.auth.access().is_some() || identity != Identity::default();
        Ok(Credential { identity, grant, is_counted })
    }

    /// Counts the part of a request by its credential.
    pub(super) fn count_by_credential(&self, credential: &Credential, part: &Part) {
        if credential.is_counted {
            let mut counters = self.credentials.borrow_mut();
            let counters = counters.of(&credential.identity, &part.tenant, &self.metrics, self.core());
            counters.received(part.series.into());
        }
    }

    /// Logs that a request was refused for its credentials, at a limited rate. What a sender claims to be is not
    /// logged: people type passwords where user names belong.
    pub(super) fn log_denial(&self, client: SocketAddr, refusal: &Refusal) {
        let (Refusal::Unauthorized { why, .. } | Refusal::Forbidden { why }) = refusal else { return };
        if let Some(suppressed) = self.limiter.borrow_mut().allow(&client.ip().to_string(), Instant::now()) {
            tracing::warn!(%client, suppressed, why, "a request was refused for its credentials");
        }
    }

    /// Logs, at a limited rate for each credential, that it has named a tenant that it may not write to.
    pub(super) fn log_denied_tenant(&self, client: SocketAddr, credential: &Credential, why: &str) {
        let credential = credential.identity.to_string();
        if let Some(suppressed) = self.limiter.borrow_mut().allow(&credential, Instant::now()) {
            tracing::warn!(%client, suppressed, credential, why, "a request named a tenant that its credential may not write to");
        }
    }
}

fn granted(access: &Access, identity: &Identity) -> Result<Arc<Grant>, Refusal> {
    access
        .grant(identity)
        .map_err(|denied| Refusal::Forbidden { why: format!("{identity} may not write: {denied}") })
}

/// The certificate that a sender has presented, if it was verified.
///
/// # Errors
/// If it cannot be parsed, or has expired: a resumed session does not verify it again.
pub(super) fn peer_certificate(session: &Session) -> Result<Option<Arc<PeerCertificate>>, &'static str> {
    let Some(certificate) = session.peer_certificate() else { return Ok(None) };
    let certificate =
        PeerCertificate::of(certificate).map_err(|_| "the client's certificate can't be parsed")?;
    if has_expired(&certificate, SystemTime::now()) {
        return Err("the client's certificate has expired since its session began");
    }
    Ok(Some(Arc::new(certificate)))
}
