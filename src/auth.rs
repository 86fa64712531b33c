//! Authentication and authorization of inbound requests. No sockets, no configuration keys.
//!
//! Design constraints:
//!
//! * Whether a request is let in is decided from its head alone, before its body is read.
//! * Nothing here blocks a core: passwords are checked on other threads ([`password`]), the rest takes microseconds.
//! * Secrets are kept as hashes, and are never shown: not by `Debug`, not in an error, not in a mistake of the
//!   configuration.
//! * A wrong credential is refused even where none is needed. Otherwise its sender would silently write with the rights
//!   of anyone.
//!
//! ```text
//! head ─► Authorization ──┐
//! TLS  ─► PeerCertificate ┴─► Authenticator ─► Identity ─► Access ─► Grant ─► is this tenant allowed?
//!                                  │ Pending ▲ Verdict
//!                                  └► bcrypt ┘
//! ```
//!
//! [`header`] parses and writes the headers (RFC 7617, RFC 6750). [`token`] and [`jwt`] (RFC 7519, RFC 7517) know
//! bearer tokens. [`identity`] is the result, and [`access`] has the rules about tenants.
#![forbid(unsafe_code)]

pub mod access;
mod caller;
pub mod header;
pub mod identity;
pub mod jwt;
mod mac;
pub mod password;
mod secret;
pub mod token;

use std::sync::Arc;
use std::time::SystemTime;

pub use self::access::{Access, Demand, Denied};
pub use self::caller::Caller;
pub use self::header::{Authorization, Unauthorized};
pub use self::identity::{Identity, JwtIdentity, Login, PeerCertificate};
pub use self::jwt::{JwtRules, Jwts};
pub use self::password::{Passwords, Ticket, Verdict};
pub use self::secret::Secret;
pub use self::token::Tokens;

use self::header::Challenges;
use self::password::Check;

/// The credentials that are accepted.
#[derive(Debug, Default)]
pub struct Methods {
    /// Users (RFC 7617).
    pub passwords: Option<Arc<Passwords>>,
    /// Bearer tokens (RFC 6750).
    pub tokens: Tokens,
    /// JWTs (RFC 7519).
    pub jwts: Option<Arc<Jwts>>,
    /// What a request without any of them needs. See [`Access::demand`].
    pub demand: Demand,
}

/// Says who sends a request. Shared by all cores.
#[derive(Debug)]
pub struct Authenticator {
    methods: Methods,
    challenges: Challenges,
}

/// The result of [`Authenticator::authenticate`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// There is no credential, and none is needed.
    Anonymous,
    /// The credential is valid.
    Known(Identity),
    /// A password is being checked. Its verdict is delivered to the core, for [`Pending::conclude`].
    Pending(Pending),
    /// 401, with [`Authenticator::challenge`]. A retry with the same credentials does not help.
    Unauthorized(Unauthorized),
    /// 503. Too many passwords are being checked. A retry helps.
    Busy,
}

/// A decision that waits for the verdict about a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// What the verdict is delivered for.
    pub ticket: Ticket,
    identity: Identity,
}

impl Pending {
    /// The decision, given the verdict for the ticket.
    pub fn conclude(self, verdict: Verdict) -> Decision {
        match verdict {
            Verdict::Right => Decision::Known(self.identity),
            Verdict::Wrong => Decision::Unauthorized(Unauthorized::Password),
            Verdict::Busy => Decision::Busy,
        }
    }
}

impl Authenticator {
    /// With these methods. If there are no users, no tokens and no keys, `Authorization` headers are ignored.
    pub fn new(methods: Methods) -> Self {
        let basic = methods.passwords.is_some();
        let bearer = methods.jwts.is_some() || !methods.tokens.is_empty();
        Self { methods, challenges: Challenges::new(basic, bearer) }
    }

    /// Whether there are users, tokens or keys.
    pub fn has_methods(&self) -> bool {
        self.methods.passwords.is_some() || self.methods.jwts.is_some() || !self.methods.tokens.is_empty()
    }

    /// Decides about a request by its `Authorization` header and by the certificate that TLS has verified.
    pub fn authenticate(
        &self,
        authorization: &Authorization,
        certificate: Option<&Arc<PeerCertificate>>,
        caller: &Caller,
    ) -> Decision {
        let identity = |login| Identity { login, certificate: certificate.cloned() };
        if !self.has_methods() {
            return match certificate {
                Some(_) => Decision::Known(identity(Login::None)),
                None => Decision::Anonymous,
            };
        }
        let login = match authorization {
            Authorization::Absent => match (self.methods.demand, certificate) {
                (Demand::LoginOrCertificate | Demand::Nothing, Some(_)) => Ok(Login::None),
                (Demand::Nothing, None) => return Decision::Anonymous,
                (Demand::Login | Demand::LoginOrCertificate, _) => Err(Unauthorized::Missing),
            },
            Authorization::Basic { user, password } => match self.password(user, password, caller) {
                Ok(Check::Right(user)) => Ok(Login::User(user)),
                Ok(Check::Wrong) => Err(Unauthorized::Password),
                Ok(Check::Pending(ticket, user)) => {
                    return Decision::Pending(Pending { ticket, identity: identity(Login::User(user)) });
                }
                Ok(Check::Busy) => return Decision::Busy,
                Err(reason) => Err(reason),
            },
            Authorization::Bearer(token) => self.bearer(token, caller.now),
            Authorization::Other => Err(Unauthorized::Scheme),
            Authorization::Malformed(reason) => Err(Unauthorized::Malformed(reason)),
        };
        match login {
            Ok(login) => Decision::Known(identity(login)),
            Err(reason) => Decision::Unauthorized(reason),
        }
    }

    fn password(&self, user: &str, password: &Secret, caller: &Caller) -> Result<Check, Unauthorized> {
        let passwords = self.methods.passwords.as_ref().ok_or(Unauthorized::Scheme)?;
        Ok(passwords.check(user, password, caller))
    }

    fn bearer(&self, token: &Secret, now: SystemTime) -> Result<Login, Unauthorized> {
        if let Some(name) = self.methods.tokens.find(token.expose()) {
            return Ok(Login::Token(Arc::clone(name)));
        }
        match &self.methods.jwts {
            Some(jwts) if self.methods.tokens.is_empty() || Jwts::looks_like_one(token.expose()) => {
                jwts.check(token, now).map(Login::Jwt).map_err(Unauthorized::Jwt)
            }
            None if self.methods.tokens.is_empty() => Err(Unauthorized::Scheme),
            _ => Err(Unauthorized::Token),
        }
    }

    /// The number of password checks that wait for a thread.
    pub fn checks_waiting(&self) -> usize {
        self.methods.passwords.as_ref().map_or(0, |passwords| passwords.waiting())
    }

    /// The `WWW-Authenticate` lines for a 401 with this reason, each with its CRLF. Empty if there are no methods.
    pub fn challenge(&self, reason: Unauthorized) -> &str {
        self.challenges.lines(reason)
    }
}

#[cfg(test)]
mod tests;
