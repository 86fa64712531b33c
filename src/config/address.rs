//! Addresses to listen on.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::excerpt::found;

/// Whether two listeners would need the same port of the same address. Port 0 never clashes: the kernel picks a free
/// port each time.
pub(super) fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let same = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    same && a.port() == b.port() && a.port() != 0
}

/// Parses an address to listen on, as Go does: `:8080` means every interface. Names other than `localhost` are refused,
/// because a name may resolve to many addresses, or to none yet.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    const EXAMPLES: &str = "write it like 127.0.0.1:8080, [::1]:8080, or :8080 for every interface";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let shown = found(text);
    if text.contains("//") {
        return Err(format!("{shown} is a URL, not an address; {EXAMPLES}"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let what =
            if text.parse::<IpAddr>().is_ok() { "lacks a port" } else { "is not an address with a port" };
        return Err(format!("{shown} {what}; {EXAMPLES}"));
    };
    let Some(port) = port.parse::<u16>().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
    else {
        return Err(format!("{shown} ends in no port (0 to 65535); {EXAMPLES}"));
    };
    match host {
        "" => Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)),
        "localhost" => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        host if host.contains(':') && !host.starts_with('[') => {
            Err(format!("{shown}: an IPv6 address stands in brackets; {EXAMPLES}"))
        }
        _ => Err(format!("{shown} does not begin with an IP address; {EXAMPLES}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> String {
        match listen_address(text) {
            Ok(address) => address.to_string(),
            Err(error) => error,
        }
    }

    #[test]
    fn addresses_are_parsed_as_in_go() {
        assert_eq!(listen("127.0.0.1:8081"), "127.0.0.1:8081");
        assert_eq!(listen("0.0.0.0:0"), "0.0.0.0:0");
        assert_eq!(listen("[::1]:8080"), "[::1]:8080");
        assert_eq!(listen(":8080"), "[::]:8080");
        assert_eq!(listen("localhost:80"), "127.0.0.1:80");
    }

    #[test]
    fn a_mistake_says_what_is_missing() {
        for (text, said) in [
            ("8080", "is not an address with a port"),
            ("10.0.0.1", "lacks a port"),
            ("::1", "an IPv6 address stands in brackets"),
            ("::1:8080", "an IPv6 address stands in brackets"),
            ("0.0.0.0:http", "ends in no port"),
            ("0.0.0.0:", "ends in no port"),
            ("0.0.0.0:65536", "ends in no port"),
            ("0.0.0.0:+80", "ends in no port"),
            ("host.example:80", "does not begin with an IP address"),
            ("256.0.0.1:80", "does not begin with an IP address"),
            ("http://0.0.0.0:80", "is a URL, not an address"),
        ] {
            let error = listen_address(text).unwrap_err();
            assert!(error.contains(said) && error.contains(":8080 for every interface"), "{text}: {error}");
        }
    }

    #[test]
    fn wildcards_clash_with_every_address_of_their_port() {
        let clash = |a: &str, b: &str| clash(listen_address(a).unwrap(), listen_address(b).unwrap());
        assert!(clash("127.0.0.1:80", "127.0.0.1:80"));
        assert!(clash("127.0.0.1:80", "0.0.0.0:80"));
        assert!(clash(":80", "127.0.0.1:80"));
        assert!(!clash("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!clash(":80", ":81"));
        assert!(!clash("127.0.0.1:0", "127.0.0.1:0"));
    }
}
