//! The result of authentication: what is known about a request's sender.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use crate::tenant::excerpt;
pub use crate::tls::identity::PeerCertificate;

/// What a sender has proved about itself: by the `Authorization` header, by its certificate, by both or by neither.
/// Cheap to clone. Holds no secret.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Identity {
    /// By the `Authorization` header.
    pub login: Login,
    /// By TLS. Only a certificate that was verified.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// What the `Authorization` header has proved.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub enum Login {
    /// Nothing.
    #[default]
    None,
    /// The password of this user (RFC 7617).
    User(Arc<str>),
    /// A bearer token with this name in the tokens' file (RFC 6750).
    Token(Arc<str>),
    /// A JWT (RFC 7519).
    Jwt(Arc<JwtIdentity>),
}

/// The claims of a JWT that matter here.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct JwtIdentity {
    /// `sub` (RFC 7519 section 4.1.2).
    pub subject: Option<Box<str>>,
    /// The tenants that the configured claim names. They are IDs, not patterns.
    pub tenants: Vec<Box<str>>,
}

impl Identity {
    /// The kind of credential, as a label's value: `user`, `token`, `jwt`, `certificate` or `none`. A certificate
    /// counts if there is no other.
    pub fn kind(&self) -> &'static str {
        match (&self.login, &self.certificate) {
            (Login::User(_), _) => "user",
            (Login::Token(_), _) => "token",
            (Login::Jwt(_), _) => "jwt",
            (Login::None, Some(_)) => "certificate",
            (Login::None, None) => "none",
        }
    }

    /// The name within its [`kind`](Self::kind): of the user or the token, the JWT's subject, or the certificate's
    /// common name or else its first alternative name. Empty if there is none.
    ///
    /// The names of users and tokens are the operator's. The others are chosen by whatever issues the credentials.
    pub fn name(&self) -> &str {
        match &self.login {
            Login::User(name) | Login::Token(name) => name,
            Login::Jwt(jwt) => jwt.subject.as_deref().unwrap_or_default(),
            Login::None => self.certificate.as_deref().map(first_name).unwrap_or_default(),
        }
    }
}

fn first_name(certificate: &PeerCertificate) -> &str {
    let names = certificate.common_name.iter().chain(&certificate.dns).chain(&certificate.uris);
    names.map(|name| &**name).next().unwrap_or_default()
}

/// For logs and error texts: `user "alice"`, escaped and cut.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            "none" => f.write_str("no credentials"),
            kind => write!(f, "{kind} \"{}\"", excerpt(self.name().as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_a_kind_and_a_name() {
        let certificate = Some(Arc::new(PeerCertificate {
            dns: vec!["a.example".into(), "b.example".into()],
            ..PeerCertificate::default()
        }));
        let of = |login: Login| Identity { login, certificate: certificate.clone() };
        let jwt = |subject: Option<&str>| {
            Login::Jwt(Arc::new(JwtIdentity { subject: subject.map(Into::into), tenants: vec![] }))
        };
        for (identity, shown) in [
            (Identity::default(), "no credentials"),
            (of(Login::None), "certificate \"a.example\""),
            (of(Login::User("al\n".into())), "user \"al\\n\""),
            (of(Login::Token("t".into())), "token \"t\""),
            (of(jwt(Some("s"))), "jwt \"s\""),
            (of(jwt(None)), "jwt \"\""),
        ] {
            assert_eq!(identity.to_string(), shown);
        }
    }
}
