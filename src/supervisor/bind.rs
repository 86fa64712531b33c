//! Binds the ports. An error names the setting, and says what usually helps.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::limits::LISTEN_BACKLOG;

/// Ports below this one need a capability, unless the kernel is told otherwise.
const UNPRIVILEGED_PORT_MIN: u16 = 1024;

/// The port that Prometheus and our own `listen_metrics_address` have by default.
const PROMETHEUS_PORT: u16 = 9090;

/// A port is in use or may not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The setting that has the address.
    setting: &'static str,
    address: SocketAddr,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, address, error } = self;
        let port = address.port();
        write!(f, "can't listen on {address} ({setting}): {error}")?;
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                let who = if port == PROMETHEUS_PORT { " (Prometheus uses 9090, too)" } else { "" };
                write!(
                    f,
                    ": another program has this port{who}; `ss -ltnp` as root shows which. Stop it, or set {setting} to \
                     another port"
                )
            }
            io::ErrorKind::PermissionDenied if port < UNPRIVILEGED_PORT_MIN => write!(
                f,
                ": ports below {UNPRIVILEGED_PORT_MIN} need CAP_NET_BIND_SERVICE. Set {setting} to a higher port, or give \
                 the service `AmbientCapabilities=CAP_NET_BIND_SERVICE`"
            ),
            io::ErrorKind::AddrNotAvailable => write!(
                f,
                ": no interface of this machine has this address; `ip address` shows which there are. Set {setting} to one \
                 of them, or to `:{port}` for all"
            ),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// One listener per core, all on the same port.
pub(super) fn each_core(
    setting: &'static str,
    address: SocketAddr,
    cores: usize,
) -> Result<Vec<TcpListener>, BindError> {
    let first = one(setting, address)?;
    // With port 0, the system chooses a port once.
    let bound = first.local_addr().unwrap_or(address);
    let mut listeners = vec![first];
    for _ in 1..cores {
        listeners.push(one(setting, bound)?);
    }
    Ok(listeners)
}

/// A listener on a port that other processes of the same user may share (SO_REUSEPORT). An unspecified address means
/// every address of both families, as in Go; on a host without IPv6 it means those of IPv4.
pub(super) fn one(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
    let bound = match address.ip().is_unspecified() {
        true => {
            listen(everywhere).or_else(|_| listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))))
        }
        false => listen(address),
    };
    bound.map_err(|error| BindError { setting, address, error })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(address: &str, kind: io::ErrorKind) -> String {
        let address = address.parse().unwrap();
        BindError { setting: "listen", address, error: kind.into() }.to_string()
    }

    #[test]
    fn an_error_says_what_usually_helps() {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
        for (address, kind, helps) in [
            (
                "0.0.0.0:9090",
                AddrInUse,
                "another program has this port (Prometheus uses 9090, too); `ss -ltnp`",
            ),
            ("127.0.0.1:8081", AddrInUse, "another program has this port; `ss -ltnp`"),
            ("127.0.0.1:80", PermissionDenied, "ports below 1024 need CAP_NET_BIND_SERVICE"),
            ("192.0.2.1:8081", AddrNotAvailable, "no interface of this machine has this address"),
        ] {
            let told = told(address, kind);
            assert!(told.starts_with(&format!("can't listen on {address} (listen): ")), "{told}");
            assert!(told.contains(helps), "{told}");
        }
        // A security module forbids it, then: a capability would not help.
        assert!(told("127.0.0.1:8081", PermissionDenied).ends_with("permission denied"));
    }
}
