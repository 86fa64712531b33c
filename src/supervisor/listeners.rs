//! The sockets that the server listens on: those that the service manager has passed on, and others of its own.
//!
//! With socket activation (sd_listen_fds(3)) the socket outlives the process, and connections wait in its backlog while
//! a successor starts. If several cores accepted from one socket, two that see the same connection would both try. So
//! one core accepts from it, and assigns connections to all cores as always. For a socket per core, the unit may repeat
//! its address, with `ReusePort=yes`. A passed socket serves one process at a time.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use super::bind;
use super::failure::Failure;
use crate::admin;
use crate::config::plan::Plan;
use crate::core::Listener;

/// All listening sockets.
pub(super) struct Listeners {
    /// Those for pushes, by the core that accepts from them. A core may have none.
    pub(super) cores: Vec<Vec<Listener>>,
    /// Those for metrics and profiles.
    pub(super) admin: admin::Listeners,
    /// Where pushes are taken.
    pub(super) address: SocketAddr,
}

impl Listeners {
    /// Opens the sockets that the plan asks for, except those that are in `passed`.
    ///
    /// # Errors
    /// When a port cannot be bound, or a passed socket has an address that no setting names.
    pub(super) fn open(plan: &Plan, cores: usize, passed: Vec<OwnedFd>) -> Result<Self, Failure> {
        let mut sockets = Passed::default();
        passed.into_iter().try_for_each(|socket| sockets.add(plan, socket))?;
        let Passed { pushes, metrics, pprof } = sockets;
        let pushes: Vec<Vec<Listener>> = match pushes.is_empty() {
            true => bind::each_core("listen", plan.listen, cores)?
                .into_iter()
                .map(|own| vec![Listener::own(own)])
                .collect(),
            false => spread(pushes, cores),
        };
        let first = pushes.iter().flatten().next().and_then(Listener::address);
        let mut admin = admin::Listeners { pages: metrics, profiles: pprof };
        if admin.pages.is_empty() {
            // Shared like the port for pushes, because a successor starts before this process ends.
            admin.pages.push(bind::one("listen_metrics_address", plan.listen_metrics)?);
        }
        if let Some(address) = plan.listen_pprof
            && admin.profiles.is_empty()
        {
            admin.profiles.push(bind::one("listen_pprof", address)?);
        }
        Ok(Self { cores: pushes, admin, address: first.unwrap_or(plan.listen) })
    }
}

/// Passed sockets by what they are for.
#[derive(Default)]
struct Passed {
    pushes: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
    pprof: Vec<TcpListener>,
}

impl Passed {
    fn add(&mut self, plan: &Plan, socket: OwnedFd) -> Result<(), Failure> {
        let is_listening = rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or(false);
        let socket = TcpListener::from(socket);
        let address = match socket.local_addr() {
            Ok(address) if is_listening => address,
            _ => return Err(Failure::PassedOther),
        };
        let metrics = (plan.listen_metrics, &mut self.metrics);
        let pprof = plan.listen_pprof.map(|address| (address, &mut self.pprof));
        let mut uses = [(plan.listen, &mut self.pushes), metrics].into_iter().chain(pprof);
        let Some((_, sockets)) = uses.find(|(wanted, _)| is_same(*wanted, address)) else {
            let pprof =
                plan.listen_pprof.map(|address| format!(", listen_pprof {address}")).unwrap_or_default();
            let (listen, metrics) = (plan.listen, plan.listen_metrics);
            let settings = format!("listen is {listen}, listen_metrics_address {metrics}{pprof}");
            return Err(Failure::Passed { address, settings });
        };
        tracing::info!(%address, "listening on a socket of the service manager");
        sockets.push(socket);
        Ok(())
    }
}

/// Whether a socket on `bound` is what an address in the configuration asks for. An unspecified one stands for both
/// families.
fn is_same(wanted: SocketAddr, bound: SocketAddr) -> bool {
    let ip =
        |ip: IpAddr| if ip.is_unspecified() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { ip.to_canonical() };
    (ip(wanted.ip()), wanted.port()) == (ip(bound.ip()), bound.port())
}

/// Assigns passed sockets to cores in turns.
fn spread(sockets: Vec<TcpListener>, cores: usize) -> Vec<Vec<Listener>> {
    let mut spread: Vec<Vec<Listener>> = Vec::new();
    spread.resize_with(cores, Vec::new);
    for (at, socket) in sockets.into_iter().enumerate() {
        if let Some(core) = spread.get_mut(at % cores.max(1)) {
            core.push(Listener::passed(socket));
        }
    }
    spread
}
