//! The headers of HTTP authentication: `Authorization`, and `WWW-Authenticate` in the answer.
#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::limits::{BEARER_BYTES_MAX, CREDENTIAL_NAME_BYTES_MAX, PASSWORD_BYTES_MAX};

/// A parsed `Authorization` header (RFC 9110 section 11.6.2). It proves nothing yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authorization {
    /// The request has none.
    Absent,
    /// `Basic` (RFC 7617).
    Basic {
        /// The user, without a colon or control characters.
        user: Box<str>,
        /// The password.
        password: Secret,
    },
    /// `Bearer` (RFC 6750 section 2.1).
    Bearer(Secret),
    /// Another scheme.
    Other,
    /// One of both schemes, but its credentials are malformed or too long. Says why.
    Malformed(&'static str),
}

impl Authorization {
    /// Parses the header's value. `None` means that the request has no such header. A request with two of them has to
    /// be refused before.
    ///
    /// The scheme's case does not matter (RFC 9110 section 11.1). Base64 must have its padding, as in Go's `BasicAuth`.
    pub fn parse(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Self::Absent };
        let value = value.trim_ascii();
        let end = value.iter().position(|&byte| byte == b' ').unwrap_or(value.len());
        let (scheme, credentials) = value.split_at(end);
        let credentials = credentials.trim_ascii_start();
        if scheme.eq_ignore_ascii_case(b"basic") {
            basic(credentials).unwrap_or_else(Self::Malformed)
        } else if scheme.eq_ignore_ascii_case(b"bearer") {
            bearer(credentials).unwrap_or_else(Self::Malformed)
        } else {
            Self::Other
        }
    }
}

fn basic(credentials: &[u8]) -> Result<Authorization, &'static str> {
    // Base64 has four characters for three bytes, and at most two of padding.
    let encoded_max = (CREDENTIAL_NAME_BYTES_MAX + 1 + PASSWORD_BYTES_MAX).div_ceil(3) * 4;
    if credentials.len() > encoded_max {
        return Err("the credentials are too long");
    }
    let decoded = STANDARD.decode(credentials).map_err(|_| "the credentials are not base64")?;
    let decoded = Zeroizing::new(decoded);
    let colon = decoded.iter().position(|&byte| byte == b':').ok_or("the credentials have no colon")?;
    // RFC 7617 section 2: neither may contain control characters.
    if decoded.iter().any(u8::is_ascii_control) {
        return Err("the credentials contain a control character");
    }
    let (user, password) = decoded.split_at(colon);
    let password = password.get(1..).unwrap_or_default();
    if user.len() > CREDENTIAL_NAME_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
        return Err("the credentials are too long");
    }
    let user = std::str::from_utf8(user).map_err(|_| "the user is not UTF-8")?;
    Ok(Authorization::Basic { user: user.into(), password: Secret::new(password) })
}

fn bearer(token: &[u8]) -> Result<Authorization, &'static str> {
    match token {
        [] => Err("the token is missing"),
        _ if token.len() > BEARER_BYTES_MAX => Err("the token is too long"),
        _ if !is_token(token) => Err("the token contains a character that is not visible ASCII"),
        _ => Ok(Authorization::Bearer(Secret::new(token))),
    }
}

/// Whether a client can send `token` as a bearer token: visible ASCII. RFC 6750 section 2.1 allows fewer characters; in
/// practice tokens have others, too.
pub(crate) fn is_token(token: &[u8]) -> bool {
    !token.is_empty() && token.iter().all(u8::is_ascii_graphic)
}

/// Why a request is not authenticated. The answer is 401, and a retry with the same credentials does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unauthorized {
    /// It has no credentials.
    #[error("credentials are required")]
    Missing,
    /// The header is malformed. Says why.
    #[error("the Authorization header is malformed: {0}")]
    Malformed(&'static str),
    /// Its scheme is not one that is configured.
    #[error("the scheme of the Authorization header is not accepted here")]
    Scheme,
    /// The user is unknown, or the password is wrong. The answer does not say which.
    #[error("user or password are wrong")]
    Password,
    /// The bearer token is unknown.
    #[error("the bearer token is unknown")]
    Token,
    /// The bearer token is a JWT that is not valid. Says why.
    #[error("the JWT is not valid: {0}")]
    Jwt(super::jwt::JwtFault),
}

impl Unauthorized {
    /// The reason as a label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Scheme => "scheme",
            Self::Password => "password",
            Self::Token => "token",
            Self::Jwt(_) => "jwt",
        }
    }
}

/// The `WWW-Authenticate` lines of an answer (RFC 9110 section 11.6.1), each with its CRLF.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Challenges {
    plain: String,
    bad_token: String,
}

impl Challenges {
    /// For the schemes that are accepted. At least one should be.
    pub(super) fn new(basic: bool, bearer: bool) -> Self {
        // RFC 7617 section 2.1: the charset says that names and passwords are UTF-8.
        let basic =
            if basic { "WWW-Authenticate: Basic realm=\"Tenantry\", charset=\"UTF-8\"\r\n" } else { "" };
        let lines = |error: &str| match bearer {
            true => format!("{basic}WWW-Authenticate: Bearer realm=\"Tenantry\"{error}\r\n"),
            false => basic.to_owned(),
        };
        // RFC 6750 section 3.1: a request without a token gets no error code.
        Self { plain: lines(""), bad_token: lines(", error=\"invalid_token\"") }
    }

    pub(super) fn lines(&self, reason: Unauthorized) -> &str {
        match reason {
            Unauthorized::Token | Unauthorized::Jwt(_) => &self.bad_token,
            _ => &self.plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Authorization {
        Authorization::parse(Some(value.as_bytes()))
    }

    fn basic(user: &str, password: &[u8]) -> Authorization {
        Authorization::Basic { user: user.into(), password: Secret::new(password) }
    }

    #[test]
    fn basic_credentials_are_those_of_rfc_7617() {
        assert_eq!(parse("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), basic("Aladdin", b"open sesame"));
        // Section 2.1.
        assert_eq!(parse("Basic dGVzdDoxMjPCow=="), basic("test", "123\u{a3}".as_bytes()));
        assert_eq!(parse("bAsIc   QTpiOmM=  "), basic("A", b"b:c"), "any case, and a colon in the password");
        assert_eq!(parse("Basic Og=="), basic("", b""));
        assert_eq!(parse("Basic YTr/"), basic("a", b"\xff"), "a password may be any bytes");
    }

    #[test]
    fn bearer_tokens_are_visible_ascii() {
        assert_eq!(parse("Bearer mF_9.B5f-4.1JqM"), Authorization::Bearer(Secret::new("mF_9.B5f-4.1JqM")));
        assert_eq!(parse("BEARER  a:b"), Authorization::Bearer(Secret::new("a:b")));
    }

    #[test]
    fn other_schemes_are_told_apart_from_none() {
        assert_eq!(Authorization::parse(None), Authorization::Absent);
        for value in ["", "Digest a=b", "Basics YTpi", "Bearer2", "Negotiate", "Basic\tYTpi"] {
            assert_eq!(parse(value), Authorization::Other, "{value:?}");
        }
    }

    #[test]
    fn malformed_credentials_are_refused() {
        let long = |bytes: usize| STANDARD.encode(vec![b'a'; bytes]);
        let user = STANDARD.encode([&[b'a'; CREDENTIAL_NAME_BYTES_MAX + 1][..], b":"].concat());
        for (value, told) in [
            ("Basic", "the credentials have no colon"),
            ("Basic !!!!", "the credentials are not base64"),
            ("Basic YTpi=", "the credentials are not base64"),
            ("Basic YTo", "the credentials are not base64"),
            ("Basic YTpi YTpi", "the credentials are not base64"),
            ("Basic YWI=", "the credentials have no colon"),
            ("Basic /zpi", "the user is not UTF-8"),
            ("Basic YTpiCg==", "the credentials contain a control character"),
            ("Basic YQA6Yg==", "the credentials contain a control character"),
            (&format!("Basic {}", long(5000)), "the credentials are too long"),
            (&format!("Basic {user}"), "the credentials are too long"),
            ("Bearer", "the token is missing"),
            ("Bearer  ", "the token is missing"),
            ("Bearer a b", "the token contains a character that is not visible ASCII"),
            ("Bearer a\u{e9}", "the token contains a character that is not visible ASCII"),
            (&format!("Bearer {}", "a".repeat(BEARER_BYTES_MAX + 1)), "the token is too long"),
        ] {
            assert_eq!(parse(value), Authorization::Malformed(told), "{value:.40}");
        }
    }

    proptest::proptest! {
        #[test]
        fn credentials_come_back_as_they_were_sent(user in "[^:\\pC]{0,64}", password in "[^\\pC]{0,255}") {
            let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            proptest::prop_assert_eq!(parse(&value), basic(&user, password.as_bytes()));
        }

        #[test]
        fn any_bytes_are_a_header(scheme in "(Basic |Bearer |)", value: Vec<u8>, encodes: bool) {
            let text = if encodes { STANDARD.encode(&value).into_bytes() } else { value };
            let sent = [scheme.as_bytes(), &text].concat();
            match Authorization::parse(Some(&sent)) {
                Authorization::Basic { user, password } => {
                    let bytes = [user.as_bytes(), b":", password.expose()].concat();
                    let given = STANDARD.decode(text.trim_ascii()).unwrap();
                    proptest::prop_assert!(!user.contains(':') && bytes == given);
                }
                Authorization::Bearer(token) => proptest::prop_assert_eq!(token.expose(), text.trim_ascii()),
                Authorization::Absent => proptest::prop_assert!(false),
                Authorization::Other | Authorization::Malformed(_) => {}
            }
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        // "bob:canary"
        for value in ["Basic Ym9iOmNhbmFyeQ==", "Bearer canary"] {
            let shown = format!("{:?}", parse(value));
            assert!(!shown.contains("canary") && shown.contains("***"), "{shown}");
        }
    }

    #[test]
    fn challenges_name_the_schemes_that_are_accepted() {
        let basic = "WWW-Authenticate: Basic realm=\"Tenantry\", charset=\"UTF-8\"\r\n";
        let bearer = "WWW-Authenticate: Bearer realm=\"Tenantry\"\r\n";
        let invalid = "WWW-Authenticate: Bearer realm=\"Tenantry\", error=\"invalid_token\"\r\n";
        let both = Challenges::new(true, true);
        assert_eq!(both.lines(Unauthorized::Missing), format!("{basic}{bearer}"));
        assert_eq!(both.lines(Unauthorized::Password), format!("{basic}{bearer}"));
        assert_eq!(both.lines(Unauthorized::Token), format!("{basic}{invalid}"));
        assert_eq!(Challenges::new(true, false).lines(Unauthorized::Scheme), basic);
        assert_eq!(Challenges::new(false, true).lines(Unauthorized::Missing), bearer);
    }
}
