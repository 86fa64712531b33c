//! Configurable headers of upstream requests.
#![forbid(unsafe_code)]

use zeroize::Zeroizing;

use super::excerpt::found;
use crate::auth::Secret;
use crate::limits::PASS_HEADERS_MAX;
use crate::tenant::TenantId;

/// How an upstream request names its tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantHeader {
    /// In the header of this name. It is a token, and not a header used by HTTP or by Tenantry.
    Name(String),
    /// In the two headers of VictoriaMetrics and VictoriaLogs (docs, "Multitenancy"). IDs follow
    /// [`IdRules::VictoriaMetrics`](crate::tenant::IdRules::VictoriaMetrics).
    AccountAndProject,
}

/// How [`TenantHeader::AccountAndProject`] is written in the configuration.
const ACCOUNT_AND_PROJECT: &str = "AccountID+ProjectID";

impl TenantHeader {
    /// Parses the setting.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case(ACCOUNT_AND_PROJECT) {
            return Ok(Self::AccountAndProject);
        }
        check_header(text)?;
        Ok(Self::Name(text.to_owned()))
    }

    /// The name of the inbound header in which a sender may name a tenant; empty if there is none.
    pub fn inbound(&self) -> &str {
        match self {
            Self::Name(name) => name,
            // Two numbers cannot serve as a prefix.
            Self::AccountAndProject => "",
        }
    }

    /// Appends the header line, or lines, that name `tenant`.
    pub fn write(&self, tenant: &TenantId, out: &mut Vec<u8>) {
        let id = tenant.as_str();
        match self {
            Self::Name(name) => line(name, id, out),
            Self::AccountAndProject => {
                // A missing project means 0, as in VictoriaMetrics' own paths.
                let (account, project) = id.split_once(':').unwrap_or((id, "0"));
                line("AccountID", account, out);
                line("ProjectID", project, out);
            }
        }
    }
}

fn line(name: &str, value: &str, out: &mut Vec<u8>) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Headers from which some upstream reads the tenant. A sender that could pass one on could write into another tenant's
/// data.
pub(super) const HEADERS_OF_TENANTS: [&str; 4] = ["x-scope-orgid", "thanos-tenant", "accountid", "projectid"];

/// Checks the names of `upstream.pass_headers`. Refuses headers about framing, authentication or the tenant.
pub(super) fn check_passed(names: &[String], tenant_header: &str) -> Result<(), String> {
    if names.len() > PASS_HEADERS_MAX {
        return Err(format!("there are more than the {PASS_HEADERS_MAX} that are possible"));
    }
    for (at, name) in names.iter().enumerate() {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("authorization") {
            return Err(
                "Authorization is between the sender and Tenantry: for the upstream set auth.egress".into()
            );
        }
        if is("traceparent") || is("tracestate") {
            return Err(format!("{name} is always passed on: remove it"));
        }
        if is(tenant_header) || HEADERS_OF_TENANTS.into_iter().any(is) {
            return Err(format!("{} names a tenant, which only Tenantry may do", found(name)));
        }
        let lower = name.to_ascii_lowercase();
        if ["content-", "proxy-"].iter().any(|prefix| lower.starts_with(prefix)) {
            return Err(format!(
                "{} belongs to one message or one connection, and cannot be passed on",
                found(name)
            ));
        }
        check_header(name)?;
        if names.iter().take(at).any(|earlier| is(earlier)) {
            return Err(format!("{} is listed twice: remove one", found(name)));
        }
    }
    Ok(())
}

/// Headers that frame a message, belong to one connection, or are set by Tenantry. A tenant ID in one of them would
/// break requests or be overwritten.
const HEADERS_TAKEN: [&str; 26] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-cortex-tenant-client",
    "x-cortex-tenant-reqid",
    "x-forwarded-for",
    "x-prometheus-remote-write-version",
];

/// Checks a header's name: a token (RFC 9110 section 5.6.2) that has no other use.
pub(super) fn check_header(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a header's name is empty".into());
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if let Some(wrong) = name.chars().find(|&c| !u8::try_from(c).is_ok_and(token)) {
        return Err(format!("{} is not a header's name: it cannot contain {wrong:?}", found(name)));
    }
    if HEADERS_TAKEN.iter().any(|taken| name.eq_ignore_ascii_case(taken)) {
        return Err(format!(
            "{name} has a meaning of its own in HTTP, or is set by Tenantry itself: choose another"
        ));
    }
    Ok(())
}

/// The value of the `Authorization` header for HTTP basic authentication (RFC 7617 section 2). `username` contains no
/// colon.
pub(super) fn basic_authorization(username: &str, password: &Secret) -> Secret {
    let both = Zeroizing::new([username.as_bytes(), b":", password.expose()].concat());
    let encoded = Zeroizing::new(base64(&both));
    Secret::new([b"Basic ", encoded.as_bytes()].concat())
}

/// Base64 with the standard alphabet and padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) & 63;
            let letter = usize::try_from(sextet).ok().and_then(|sextet| ALPHABET.get(sextet)).copied();
            let padding = at > chunk.len();
            text.push(if padding { '=' } else { char::from(letter.unwrap_or(b'=')) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_without_another_use_are_valid_names() {
        for name in ["X-Scope-OrgID", "THANOS-TENANT", "x_tenant", "!#$%&'*+-.^_`|~09azAZ"] {
            assert_eq!(check_header(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_are_not_tokens_are_refused() {
        for name in ["X Tenant", "X-Tenant:", "X-Tenant\r\n", "Tenänt", "(x)", "\0", "a/b", "\"a\""] {
            assert!(check_header(name).unwrap_err().contains("cannot contain"), "{name}");
        }
    }

    #[test]
    fn headers_with_another_meaning_are_refused_in_any_case() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "CONNECTION",
            "Content-Type",
            "content-ENCODING",
            "Authorization",
            "X-Cortex-Tenant-Client",
            "x-prometheus-remote-write-version",
            "User-Agent",
            "TE",
        ] {
            assert!(check_header(name).unwrap_err().contains("choose another"), "{name}");
        }
        // The search above compares with lower-case names.
        assert!(HEADERS_TAKEN.iter().all(|name| *name == name.to_ascii_lowercase()));
    }

    #[test]
    fn victoriametrics_has_two_headers() {
        use crate::tenant::IdRules;
        let written = |header: &str, id: &str| {
            let mut out = Vec::new();
            let rules = IdRules::VictoriaMetrics;
            TenantHeader::parse(header).unwrap().write(&TenantId::new(id, rules).unwrap(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written("AccountID+ProjectID", "12:34"), "AccountID: 12\r\nProjectID: 34\r\n");
        assert_eq!(written("accountid+projectid", "12"), "AccountID: 12\r\nProjectID: 0\r\n");
        assert_eq!(written("AccountID", "12"), "AccountID: 12\r\n");
        assert_eq!(TenantHeader::parse("X-T").unwrap().inbound(), "X-T");
        assert_eq!(TenantHeader::AccountAndProject.inbound(), "");
    }

    #[test]
    fn headers_about_framing_authentication_or_tenants_are_not_passed_on() {
        let check = |names: &[&str]| {
            check_passed(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), "X-Tenant")
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["X-Loki-Backfill-Shard", "X-Priority"]), Ok(()));
        for (name, said) in [
            ("authorization", "auth.egress"),
            ("Traceparent", "is always passed on"),
            ("tracestate", "is always passed on"),
            ("x-tenant", "names a tenant"),
            ("X-Scope-OrgID", "names a tenant"),
            ("THANOS-TENANT", "names a tenant"),
            ("AccountID", "names a tenant"),
            ("Content-Length", "cannot be passed on"),
            ("content-md5", "cannot be passed on"),
            ("Proxy-Connection", "cannot be passed on"),
            ("Transfer-Encoding", "choose another"),
            ("Connection", "choose another"),
            ("Host", "choose another"),
            ("Expect", "choose another"),
            ("X-Cortex-Tenant-Client", "choose another"),
            ("X-A\r\nX-B", "cannot contain"),
            ("", "is empty"),
        ] {
            let told = check(&["X-Fine", name]).unwrap_err();
            assert!(told.contains(said), "{name}: {told}");
        }
        assert!(check(&["X-A", "x-a"]).unwrap_err().contains("listed twice"));
        let many: Vec<_> = (0..17).map(|n| format!("X-{n}")).collect();
        assert!(check_passed(&many, "").unwrap_err().contains("more than the 16"));
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        // Section 10, and the last two letters of the alphabet.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn basic_authorization_is_that_of_rfc_7617() {
        let of = |username, password: &str| basic_authorization(username, &Secret::new(password));
        assert_eq!(of("Aladdin", "open sesame"), Secret::new("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        // Section 2.1: UTF-8.
        assert_eq!(of("test", "123\u{a3}"), Secret::new("Basic dGVzdDoxMjPCow=="));
    }
}
