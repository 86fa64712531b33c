//! Ports for servers that a test starts.
//!
//! A port has to stay free until the new process binds it. The kernel takes ports for outgoing connections, and for
//! sockets that ask for any port, from a range of its own. The ports here are outside of that range.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::{fs, io};

/// The first port that is tried.
const PORT_MIN: u16 = 10_000;

/// Where the kernel's own range begins by default.
const EPHEMERAL_PORT_MIN: u16 = 32_768;

/// An address of this host on which no socket listens, with a port outside of the kernel's range. Two calls hardly ever
/// return the same address.
///
/// # Errors
///
/// When every such port is taken.
pub fn free_addr() -> io::Result<SocketAddr> {
    free_addr_besides(&[])
}

/// The same, but none of these: they belong to servers, also while none of these listens there.
///
/// # Errors
///
/// When every other such port is taken.
pub fn free_addr_besides(taken: &[SocketAddr]) -> io::Result<SocketAddr> {
    let mut ports: Vec<u16> = (PORT_MIN..ephemeral_port_min()).collect();
    let first = RandomState::new().hash_one(0) % (ports.len().max(1) as u64);
    ports.rotate_left(usize::try_from(first).unwrap_or_default());
    let mut addrs = ports.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let is_free = |addr: &SocketAddr| !taken.contains(addr) && TcpListener::bind(addr).is_ok();
    addrs.find(is_free).ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

fn ephemeral_port_min() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(EPHEMERAL_PORT_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_belongs_to_somebody_is_left_to_him() {
        let ports = PORT_MIN..ephemeral_port_min();
        let all: Vec<SocketAddr> = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect();
        assert_eq!(free_addr_besides(&all).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let one = free_addr().unwrap();
        let others: Vec<_> = all.into_iter().filter(|addr| *addr != one).collect();
        assert_eq!(free_addr_besides(&others).unwrap(), one);
    }

    #[test]
    fn free_addresses_are_free_and_not_for_outgoing_connections() {
        let addrs: Vec<SocketAddr> = (0..20).map(|_| free_addr().unwrap()).collect();
        for addr in addrs {
            assert!((PORT_MIN..ephemeral_port_min()).contains(&addr.port()), "{addr}");
            assert!(TcpListener::bind(addr).is_ok(), "{addr}");
        }
    }
}
