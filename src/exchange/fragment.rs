//! The messages between cores: fragments, their outcomes, and control messages.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::inquiry::Inquiry;
use crate::auth::{Ticket, Verdict};
use crate::config::plan::Terms;
use crate::http::Passed;
use crate::metrics::ledger::Entry;
use crate::model::{Outcome, Part, UpstreamId};
use crate::shared::budget::Charge;
use crate::shared::connections::ConnectionGuard;
use crate::shared::load::Held;
use crate::shared::permits::Handed;
use crate::shared::receipt::Receipt;
use crate::spool::worker::Reply;
use crate::tenant::TenantId;
use crate::trace::Traced;

/// One tenant's part of one request, on its way to the tenant's lane.
#[derive(Debug)]
pub struct Fragment {
    /// The series, ready to send, and their tenant.
    pub part: Part,
    /// The upstream that it goes to.
    pub upstream: UpstreamId,
    /// The settings of its upstream request: target, header and credentials.
    pub terms: Arc<Terms>,
    /// Headers of its request that are forwarded.
    pub passed: Option<Arc<Passed>>,
    /// Where its outcome is awaited. `None`: it comes out of the spool, and its lane awaits it.
    pub sender: Option<ReturnAddress>,
    /// The latest time at which it may start on its way to the upstream. After that it is not sent at all.
    pub start_by: Instant,
    /// The time at which its request's head had been read.
    pub arrived: Instant,
    /// The address of the client that sent its request.
    pub client: SocketAddr,
    /// The request's ID. It is sent to the upstream, so that the logs of both sides can be matched.
    pub request_id: RequestId,
    /// Identifies the part if it is sent again. Only set if its request has other parts, which could fail.
    pub receipt: Option<Receipt>,
    /// Whether it must be sent in a request of its own, because it was part of a merged one that the upstream refused.
    pub alone: bool,
    /// Its samples in the ledger, once it has come to its home core.
    pub entry: Entry,
    /// The charge for its bytes.
    pub charge: Charge,
    /// Its request's trace, if that is sampled.
    pub traced: Option<Box<Traced>>,
    /// What its request holds of its upstream's load, if there are several upstreams.
    pub held: Option<Arc<Held>>,
}

/// A part that was delivered although its request failed.
#[derive(Debug)]
pub struct Delivered {
    /// The upstream that stored it.
    pub upstream: UpstreamId,
    /// Identifies the part when it is sent again.
    pub receipt: Receipt,
    /// Its outcome, a success, which will answer for the part again.
    pub outcome: Outcome,
}

/// Where an outcome is awaited: one part of a request on the core that received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnAddress {
    /// The number of that core.
    pub core: usize,
    /// The request's slot in that core's table of pending requests.
    pub slot: u32,
    /// The index of the part in that request.
    pub part: u32,
}

/// Identifies an inbound request in our logs and in the upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u128);

impl RequestId {
    /// The digits of a text, as UUIDs group them.
    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    /// Its text: like a UUID (RFC 9562), as cortex-tenant writes it. Each upstream request has one, and `format!` would
    /// take a twentieth of the request's time.
    pub fn text(self) -> [u8; 36] {
        let mut text = [b'-'; 36];
        let mut place = 0;
        for (at, byte) in self.0.to_be_bytes().into_iter().enumerate() {
            place += usize::from(matches!(at, 4 | 6 | 8 | 10));
            text[place] = Self::DIGITS[usize::from(byte >> 4)];
            text[place + 1] = Self::DIGITS[usize::from(byte & 0xf)];
            place += 2;
        }
        text
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text()))
    }
}

/// A message to a core.
#[derive(Debug)]
pub enum Message {
    /// To the tenant's home core: deliver this fragment. Boxed, as it is many times larger than the other variants.
    Fragment(Box<Fragment>),
    /// To the core of the request: the outcome of one of its parts.
    Outcome(ReturnAddress, Outcome),
    /// To the tenant's home core: remember this part, which was delivered, as its request failed and will be sent
    /// again.
    Remember(Box<Delivered>),
    /// An inbound connection that another core accepted while this one served fewer, and the guard that counts it here.
    Connection(OwnedFd, ConnectionGuard),
    /// A permit for an upstream connection, perhaps with an open connection, for which this core has waited the
    /// longest.
    Handed(UpstreamId, Box<Handed>),
    /// Another core waits for a connection to this address, and all permits are taken: hand over an idle connection.
    ConnectionWanted(SocketAddr),
    /// The verdict about a password that this core has asked for.
    PasswordChecked(Ticket, Verdict),
    /// What the spool has done for a lane.
    Spool(Box<Reply>),
    /// The plan has changed: apply its limits.
    Reloaded,
    /// Tell how the upstream addresses are.
    Inquiry(Arc<Inquiry>),
    /// Answer, to show that this core turns.
    Beat(Arc<Beat>),
    /// Stop accepting, and report when the listener is closed.
    Close,
    /// No core accepts any more: finish everything in flight, and report when nothing is left.
    Drain,
    /// All cores have drained: end.
    Stop,
}

/// A question to all cores whether they turn.
#[derive(Debug)]
pub struct Beat {
    answered: Box<[AtomicBool]>,
}

impl Beat {
    /// A question to so many cores.
    pub fn new(cores: usize) -> Self {
        Self { answered: (0..cores).map(|_| AtomicBool::new(false)).collect() }
    }

    /// Called by each core.
    pub fn answer(&self, core: usize) {
        if let Some(answered) = self.answered.get(core) {
            answered.store(true, Ordering::Relaxed);
        }
    }

    /// The cores that have not answered.
    pub fn late(&self) -> Vec<usize> {
        let late = |(_, answered): &(usize, &AtomicBool)| !answered.load(Ordering::Relaxed);
        self.answered.iter().enumerate().filter(late).map(|(core, _)| core).collect()
    }
}

/// Returns the home core of `tenant`. It is the same on every core and for the life of the process.
pub fn home_core(tenant: &TenantId, cores: usize) -> usize {
    use std::hash::BuildHasher;
    // The seed is fixed on purpose: all cores must agree on a tenant's home. A client that can choose tenant names
    // could pile tenants onto one core, but it needs no collisions for that: one busy tenant does the same.
    let hash = foldhash::fast::FixedState::with_seed(0x7e4a_4e7e).hash_one(tenant.as_str().as_bytes());
    // Lemire's multiply-shift: even over any number of cores, without a division.
    let core = (u128::from(hash) * cores as u128) >> 64;
    usize::try_from(core).unwrap_or(0)
}
