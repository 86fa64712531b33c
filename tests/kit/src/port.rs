//! Ports for servers that are to be started.
//!
//! A port that was free when it was asked for must still be free when a process has started and binds it. The kernel
//! gives none of ours to others: it takes those of outgoing connections, and of who asks for any port, from a range of
//! its own.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::{fs, io};

/// Where free ports are looked for from.
const PORT_MIN: u16 = 10_000;

/// Where the kernel's own range begins unless it was set.
const EPHEMERAL_PORT_MIN: u16 = 32_768;

/// An address of this host that nobody listens at, with a port that the kernel gives to nobody. Two calls hardly ever
/// find the same.
///
/// # Errors
///
/// When every such port is taken.
pub fn free_addr() -> io::Result<SocketAddr> {
    let mut ports: Vec<u16> = (PORT_MIN..ephemeral_port_min()).collect();
    let first = RandomState::new().hash_one(0) % (ports.len().max(1) as u64);
    ports.rotate_left(usize::try_from(first).unwrap_or_default());
    let mut addrs = ports.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    addrs.find(|addr| TcpListener::bind(addr).is_ok()).ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

fn ephemeral_port_min() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(EPHEMERAL_PORT_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_are_free_and_not_for_outgoing_connections() {
        let addrs: Vec<SocketAddr> = (0..20).map(|_| free_addr().unwrap()).collect();
        for addr in addrs {
            assert!((PORT_MIN..ephemeral_port_min()).contains(&addr.port()), "{addr}");
            assert!(TcpListener::bind(addr).is_ok(), "{addr}");
        }
    }
}
