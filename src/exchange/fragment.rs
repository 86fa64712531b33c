//! What travels between the cores: fragments one way, their outcomes back, and a few notices.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::config::plan::Terms;
use crate::http::Passed;
use crate::model::Outcome;
use crate::model::{Destination, Part};
use crate::shared::budget::Charge;
use crate::shared::connections::ConnectionGuard;
use crate::shared::permits::Handed;
use crate::shared::receipt::Receipt;
use crate::tenant::TenantId;

/// One tenant's part of one request, on its way to that tenant's lane.
#[derive(Debug)]
pub struct Fragment {
    /// The series, ready to be sent, and whose they are.
    pub part: Part,
    /// Where it goes, and what its request says besides its tenant.
    pub terms: Arc<Terms>,
    /// Headers of its request that go on.
    pub passed: Option<Arc<Passed>>,
    /// Who waits for its outcome.
    pub sender: ReturnAddress,
    /// Before this it must start on its way to the upstream, or it is not sent at all.
    pub start_by: Instant,
    /// When its request's head had been read.
    pub arrived: Instant,
    /// The address of the client whose request it was.
    pub client: SocketAddr,
    /// The request's ID, told to the upstream, so that both sides' logs can be matched.
    pub request_id: RequestId,
    /// By which it would be known if it came again: only where its request has other parts, which could fail.
    pub receipt: Option<Receipt>,
    /// To be sent in a request of its own: it was part of a merged one that the upstream refused.
    pub alone: bool,
    /// Its bytes' share of the budget.
    pub charge: Charge,
}

/// A part that got through, of a request that failed.
#[derive(Debug)]
pub struct Delivered {
    /// Where it went.
    pub destination: Destination,
    /// By which it will be known.
    pub receipt: Receipt,
    /// What its sender hears of it, then as now: a success.
    pub outcome: Outcome,
}

/// Where an outcome is awaited: a part of a request on the core that took it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnAddress {
    /// The core.
    pub core: usize,
    /// The request's place in that core's table of requests that wait.
    pub slot: u32,
    /// Which part of that request.
    pub part: u32,
}

/// Identifies an inbound request in both sides' logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u128);

impl std::fmt::Display for RequestId {
    /// The form of a UUID (RFC 9562), as cortex-tenant writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            id >> 96,
            (id >> 80) & 0xffff,
            (id >> 64) & 0xffff,
            (id >> 48) & 0xffff,
            id & 0xffff_ffff_ffff
        )
    }
}

/// What cores tell each other.
#[derive(Debug)]
pub enum Message {
    /// To the tenant's home core: deliver this. Boxed, as it is many times larger than the rest.
    Fragment(Box<Fragment>),
    /// Back to the core of the request: what became of one of its parts.
    Outcome(ReturnAddress, Outcome),
    /// To the tenant's home core: this part got through, but its request failed and will come again.
    Remember(Box<Delivered>),
    /// A connection that another core accepted while it had more than its share, and the guard that counts it here.
    Connection(OwnedFd, ConnectionGuard),
    /// An upstream connection, or the right to open one: this core has waited for it longer than any other.
    Handed(Destination, Box<Handed>),
    /// Another core waits for a connection to this address, and all are taken: hand over one that is idle.
    ConnectionWanted(SocketAddr),
    /// Another plan holds: take its bounds over.
    Reloaded,
    /// Stop accepting, and say so when the listener is closed.
    Close,
    /// Nobody accepts any more: finish what is in flight, and say so when nothing is left.
    Drain,
    /// All cores have drained: end.
    Stop,
}

/// The core that is home to `tenant`: the same on every core and for the life of the process.
pub fn home_core(tenant: &TenantId, cores: usize) -> usize {
    use std::hash::BuildHasher;
    // Fixed on purpose: a tenant's home must be the same whoever asks. Somebody who can choose tenants' names
    // could pile them onto one core, but for that they need no collisions: one busy tenant does the same.
    let hash = foldhash::fast::FixedState::with_seed(0x7e4a_4e7e).hash_one(tenant.as_str().as_bytes());
    // Lemire's multiply-shift: even over any number of cores, without a division.
    let core = (u128::from(hash) * cores as u128) >> 64;
    usize::try_from(core).unwrap_or(0)
}
