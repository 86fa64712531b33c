//! The target: the upstream's address, and where the tenant's ID goes in its path.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::tenant::TenantId;

/// The placeholder for the tenant's ID in the path.
const PLACEHOLDER: &str = "{tenant}";

/// The default port of `http://`.
const HTTP_PORT: u16 = 80;

/// The default port of `https://`.
const HTTPS_PORT: u16 = 443;

/// Where requests go. Every part is checked and can be written into a request as is.
///
/// The query may hold a token: it is sent, but never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address to connect to; an IPv6 address is without brackets.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// Whether it is `https://`.
    pub tls: bool,
    /// Value of the `Host` header: host and port as configured.
    pub host_header: String,
    /// The path and query, cut where the tenant's ID goes. Never empty; one piece if it does not contain the ID.
    pieces: Vec<String>,
}

impl std::fmt::Display for Target {
    /// As it was configured, without the query, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.pieces.join("{tenant}");
        let path = path.split_once('?').map_or(&*path, |(path, _)| path);
        write!(f, "{}://{}{path}", if self.tls { "https" } else { "http" }, self.host_header)
    }
}

impl Target {
    /// Parses `http://host[:port][/path][?query]`, or the same with `https://`. Without a scheme it is `http://`.
    ///
    /// # Errors
    /// What to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (tls, rest) = scheme(text)?;
        // The text before an @ may be a password and must not be shown. A password with a /, ? or # in it looks like a
        // host with a path. So a literal @ is refused everywhere.
        if rest.contains('@') {
            return Err("user and password do not belong here: set auth.egress.username and \
                        auth.egress.password; an @ in a path is written %40"
                .into());
        }
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
            None => (rest, ""),
        };
        let (host, port) = host_and_port(authority, if tls { HTTPS_PORT } else { HTTP_PORT })?;
        Ok(Self { host, port, tls, host_header: authority.to_owned(), pieces: path_pieces(path)? })
    }

    /// Stands in for a target with a mistake.
    pub(super) fn unknown() -> Self {
        Self {
            host: String::new(),
            port: 0,
            tls: false,
            host_header: String::new(),
            pieces: vec![String::new()],
        }
    }

    /// Appends the request target (path and query) for `tenant`. Bytes of the ID that a path cannot carry are
    /// percent-encoded (RFC 3986 section 3.3).
    pub fn path_for(&self, tenant: &TenantId, out: &mut Vec<u8>) {
        for (at, piece) in self.pieces.iter().enumerate() {
            if at > 0 {
                encode(tenant.as_str(), out);
            }
            out.extend_from_slice(piece.as_bytes());
        }
    }

    /// Whether it is our own address: we would send every request to ourselves, without end.
    pub(super) fn is_at(&self, listen: SocketAddr) -> bool {
        let host = match self.host.parse::<IpAddr>() {
            Ok(host) => host,
            Err(_) if self.host == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Err(_) => return false,
        };
        let ours = if listen.ip().is_unspecified() { host.is_loopback() } else { host == listen.ip() };
        ours && self.port == listen.port()
    }

    /// The path and query of a target that does not depend on the tenant.
    pub(super) fn path(&self) -> &str {
        self.pieces.first().map(String::as_str).unwrap_or_default()
    }

    /// The URL of a tenant's requests, without the values of its query, which may be secrets.
    pub fn url_for(&self, tenant: &TenantId) -> String {
        let mut path = Vec::new();
        self.path_for(tenant, &mut path);
        let scheme = if self.tls { "https" } else { "http" };
        masked(&format!("{scheme}://{}{}", self.host_header, String::from_utf8_lossy(&path)))
    }

    /// Whether the path depends on the tenant.
    pub fn names_tenant(&self) -> bool {
        self.pieces.len() > 1
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = masked(&self.pieces.join(PLACEHOLDER));
        f.debug_struct("Target")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("path", &path)
            .finish()
    }
}

/// Shown in place of a secret.
const MASK: &str = "***";

/// The target as it may be shown: without its query, and not at all if it may contain a user name and password.
pub(super) fn masked(target: &str) -> String {
    // Such a target is refused. If it is shown anyway, there is no telling where a password ends.
    if target.contains('@') {
        return MASK.into();
    }
    match target.split_once('?') {
        Some((rest, query)) if !query.is_empty() => format!("{rest}?{MASK}"),
        _ => target.to_owned(),
    }
}

/// Whether the target is `https://`, and the rest of it.
fn scheme(text: &str) -> Result<(bool, &str), String> {
    // After a path or query, a scheme is part of them. Nothing before a scheme can be a password.
    let is_scheme =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return Ok((false, text));
    };
    if scheme.eq_ignore_ascii_case("http") {
        Ok((false, rest))
    } else if scheme.eq_ignore_ascii_case("https") {
        Ok((true, rest))
    } else {
        Err(format!("{} is not a scheme we know; write http://host:port/path", super::excerpt::found(scheme)))
    }
}

fn host_and_port(authority: &str, default_port: u16) -> Result<(String, u16), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']').ok_or("an IPv6 address lacks its closing ]")?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("{} is not an IPv6 address", super::excerpt::found(address)));
            }
            let port = match behind.strip_prefix(':') {
                Some(port) => Some(port),
                None if behind.is_empty() => None,
                None => return Err("after the ] of an IPv6 address goes :port or /path".into()),
            };
            (address, port)
        }
        None => match authority.split_once(':') {
            Some((_, behind)) if behind.contains(':') => {
                return Err("an IPv6 address stands in brackets: http://[::1]:9090/path".into());
            }
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing; write http://host:port/path".into());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if !host.bytes().all(plain) {
        return Err(format!("{} is not a host's name or address", super::excerpt::found(host)));
    }
    let port = match port {
        None => default_port,
        Some(port) => parse_port(port)?,
    };
    Ok((host.to_owned(), port))
}

/// Parses a port to connect to: 1–65535, digits only.
fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|&port| port > 0 && digits);
    port.ok_or_else(|| {
        format!("{} is not a port; write a number from 1 to 65535", super::excerpt::found(text))
    })
}

/// Cuts the path and query at each placeholder.
fn path_pieces(path: &str) -> Result<Vec<String>, String> {
    if path.contains('#') {
        return Err("a fragment (#…) is never sent: remove it".into());
    }
    if let Some(byte) = path.bytes().find(|byte| !byte.is_ascii_graphic()) {
        let shown = byte.escape_ascii();
        return Err(format!("'{shown}' cannot stand in a URL as it is: percent-encode it"));
    }
    let query = path.split_once('?').map_or("", |(_, query)| query);
    if query.contains(['{', '}']) {
        return Err(format!("{PLACEHOLDER} can stand in the path only, not behind the ?"));
    }
    let pieces: Vec<&str> = path.split(PLACEHOLDER).collect();
    if pieces.iter().any(|piece| piece.contains(['{', '}'])) {
        return Err(format!("the only placeholder is {PLACEHOLDER}; percent-encode other braces"));
    }
    let mut pieces: Vec<String> = pieces.into_iter().map(str::to_owned).collect();
    if let Some(first) = pieces.first_mut().filter(|first| !first.starts_with('/')) {
        first.insert(0, '/');
    }
    Ok(pieces)
}

/// Appends `id` as part of a path. Unreserved characters stay as they are, and so do the other path characters that
/// have no special meaning to servers.
fn encode(id: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!*'():".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::IdRules;

    fn target(text: &str) -> Target {
        Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn path(text: &str, tenant: &str) -> String {
        let mut out = b"POST ".to_vec();
        target(text).path_for(&TenantId::new(tenant, IdRules::Thanos).unwrap(), &mut out);
        String::from_utf8(out).unwrap().strip_prefix("POST ").unwrap().to_owned()
    }

    #[test]
    fn host_and_port_are_parsed() {
        for (text, host, port, host_header) in [
            ("http://thanos:19291/api/v1/receive", "thanos", 19291, "thanos:19291"),
            ("HTTP://10.0.0.7/x", "10.0.0.7", 80, "10.0.0.7"),
            ("127.0.0.1:9090", "127.0.0.1", 9090, "127.0.0.1:9090"),
            ("mimir/api/v1/push", "mimir", 80, "mimir"),
            ("http://[::1]:8080/", "::1", 8080, "[::1]:8080"),
            ("http://[fd00::1]", "fd00::1", 80, "[fd00::1]"),
            ("http://a_b.c-d.:1", "a_b.c-d.", 1, "a_b.c-d.:1"),
            ("http://h?x=1", "h", 80, "h"),
            ("HTTPS://h/x", "h", 443, "h"),
            ("https://h:8443/x", "h", 8443, "h:8443"),
        ] {
            let target = target(text);
            assert_eq!(
                (&*target.host, target.port, &*target.host_header),
                (host, port, host_header),
                "{text}"
            );
        }
    }

    #[test]
    fn the_path_stays_as_written() {
        assert_eq!(path("http://h/api/v1/push", "t"), "/api/v1/push");
        assert_eq!(path("http://h/a%20b//c/", "t"), "/a%20b//c/");
        assert_eq!(path("http://h", "t"), "/");
        assert_eq!(path("http://h/", "t"), "/");
        assert_eq!(path("http://h/w?extra_label=a=b&c", "t"), "/w?extra_label=a=b&c");
        assert_eq!(path("http://h?a=b", "t"), "/?a=b");
        assert!(!target("http://h/api").names_tenant());
    }

    #[test]
    fn the_tenant_replaces_the_placeholder_in_the_path() {
        let text = "http://vm:8480/insert/{tenant}/prometheus/api/v1/write";
        assert!(target(text).names_tenant());
        assert_eq!(path(text, "42"), "/insert/42/prometheus/api/v1/write");
        assert_eq!(path(text, "42:7"), "/insert/42:7/prometheus/api/v1/write");
        assert_eq!(path("http://h/{tenant}", "t"), "/t");
        assert_eq!(path("http://h/{tenant}/x-{tenant}?q", "t"), "/t/x-t?q");
    }

    #[test]
    fn an_id_cannot_leave_its_place_in_the_path() {
        assert_eq!(path("http://h/{tenant}/x", "a?b#c%d"), "/a%3Fb%23c%25d/x");
        assert_eq!(path("http://h/{tenant}/x", "a+b&c=d;e@f\"<>"), "/a%2Bb%26c%3Dd%3Be%40f%22%3C%3E/x");
        assert_eq!(path("http://h/{tenant}/x", "A-z.0_~!*'()"), "/A-z.0_~!*'()/x");
    }

    #[test]
    fn invalid_targets_are_refused_with_a_hint() {
        for (text, said) in [
            ("ftp://h/", "\"ftp\" is not a scheme we know"),
            ("http://", "the host is missing"),
            ("http:///x", "the host is missing"),
            ("http://:80/x", "the host is missing"),
            ("http://h:/x", "\"\" is not a port"),
            ("http://h:0/x", "\"0\" is not a port"),
            ("http://h:65536/x", "\"65536\" is not a port"),
            ("http://h:+80/x", "\"+80\" is not a port"),
            ("http://h:80x/x", "\"80x\" is not a port"),
            ("http://::1/x", "stands in brackets"),
            ("http://[::1/x", "lacks its closing ]"),
            ("http://[::g]/x", "\"::g\" is not an IPv6 address"),
            ("http://[::1]80/x", "after the ]"),
            ("http://a b/x", "\"a b\" is not a host's name"),
            ("http://höst/x", "is not a host's name"),
            ("http://h\r\nX: y/", "is not a host's name"),
            ("http://{tenant}.h/x", "is not a host's name"),
            ("http://h/x#y", "a fragment"),
            ("http://h/a b", "' ' cannot stand in a URL"),
            ("http://h/a\r\nb", "'\\r' cannot stand in a URL"),
            ("http://h/ä", "percent-encode it"),
            ("http://h/x?t={tenant}", "can stand in the path only"),
            ("http://h/{user}/x", "the only placeholder is {tenant}"),
            ("http://h/{tenant}}/x", "the only placeholder is {tenant}"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_in_a_target_is_masked() {
        for (text, shown) in [
            ("http://h:1/a/{tenant}", "http://h:1/a/{tenant}"),
            ("http://h:1/a?token=hunter2&b=c", "http://h:1/a?***"),
            ("h?hunter2", "h?***"),
            ("http://h/?", "http://h/?"),
            ("http://user:hunter2@h:1/a?hunter2", "***"),
            ("hunter2@h", "***"),
            ("http://user:hun/hunter2@h", "***"),
        ] {
            assert_eq!(masked(text), shown, "{text}");
        }
        let debug = format!("{:?}", target("http://h/{tenant}/x?token=hunter2"));
        assert!(debug.contains("/{tenant}/x?***") && !debug.contains("hunter2"), "{debug}");
    }

    #[test]
    fn a_password_in_the_target_is_refused_and_not_repeated() {
        for text in [
            "http://user:hunter2@h/x",
            "hunter2@h",
            "http://hunter2@[::1]:80/",
            "user:hunter2@h/x?to=http://a/",
            "http://user:hunter2/x@h:1/x",
            "http://user:hunter2?x@h:1/x",
            "user:hunter2#x@h",
            "http://user:12/hunter2@h:1/x",
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains("auth.egress.username") && !error.contains("hunter2"), "{error}");
        }
    }
}
