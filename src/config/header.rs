//! Headers of upstream requests that the configuration decides on.
#![forbid(unsafe_code)]

use super::value::found;

/// Headers that frame a message, belong to one connection, or are set by ourselves: a tenant's ID in one of
/// them would break requests, or be overwritten.
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

/// A header's name: a token (RFC 9110 section 5.6.2) that nobody else needs.
pub(super) fn check_header(name: &str) -> Result<(), String> {
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

/// The `Authorization` header's value for HTTP basic authentication (RFC 7617 section 2). The name has no
/// colon.
pub(super) fn basic_authorization(username: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{username}:{password}").as_bytes()))
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
    fn tokens_that_nobody_needs_are_names() {
        for name in ["X-Scope-OrgID", "THANOS-TENANT", "x_tenant", "!#$%&'*+-.^_`|~09azAZ"] {
            assert_eq!(check_header(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
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
        assert_eq!(basic_authorization("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        // Section 2.1: UTF-8.
        assert_eq!(basic_authorization("test", "123\u{a3}"), "Basic dGVzdDoxMjPCow==");
    }
}
