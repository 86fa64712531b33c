//! One attempt to deliver a batch: a connection, a request over it, and what is learnt from what comes back.
//!
//! A connection that has been used before may have been closed by its peer just now. If it has, before a byte of a
//! reply, the request goes once more over a fresh one: everything else that fails is the batch's outcome.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::delivery::{Egress, TenantLane, inflated_bytes};
use super::failure::Failure;
use super::pieces::is_too_large;
use crate::exchange::fragment::Fragment;
use crate::io::buffers::Gather;
use crate::shared::permits::SlowUse;
use crate::shared::slow::Standing;
use crate::upstream::backoff::Started;
use crate::upstream::client::{self, NoReply, Reply};
use crate::upstream::pool::{Connection, Lease, Leased};
use crate::upstream::request::RequestHeads;

/// A connection to send a request over, and whether it counts as used by a slow tenant.
pub(super) struct Way {
    connection: Box<Connection>,
    slow: Option<SlowUse>,
}

/// A request that was sent, at `begun`, and what came of it.
struct Sent {
    way: Way,
    begun: Instant,
    result: Result<Reply, NoReply>,
}

impl Egress {
    /// Sends a batch over a connection, or over a fresh one where that has gone stale.
    pub(super) async fn send(
        &self,
        way: Way,
        lane: &Rc<TenantLane>,
        batch: &[Box<Fragment>],
    ) -> Result<Reply, Failure> {
        self.gauge_connections();
        let deadline = Instant::now() + self.settings.get().timeout;
        let mut sent = self.post(way, lane, batch, deadline).await;
        if let Err(NoReply::Stale(_)) = sent.result {
            self.counters().upstream_retries.add(1);
            let Way { connection, slow } = sent.way;
            let (address, permit) = connection.into_permit();
            let connection = match self.pool.connect(address, permit, deadline).await {
                Ok(connection) => connection,
                Err(error) => {
                    self.has_failed(address);
                    return Err(Failure::Unreachable(format!("{address}: {error}")));
                }
            };
            self.counters().upstream_opened.add(1);
            sent = self.post(Way { connection, slow }, lane, batch, deadline).await;
        }
        self.take_back(sent, lane, batch)
    }

    async fn post(
        &self,
        way: Way,
        lane: &Rc<TenantLane>,
        batch: &[Box<Fragment>],
        deadline: Instant,
    ) -> Sent {
        let Way { mut connection, slow } = way;
        let flight = self.flights.begin(lane, &connection, slow);
        let mut result = client::post(&mut connection, self.request(batch), deadline).await;
        let slow = self.flights.end(&flight);
        if flight.is_cut() {
            result = match result {
                Ok(reply) => Ok(Reply { reusable: false, ..reply }),
                Err(_) => Err(NoReply::Cut),
            };
        }
        Sent { way: Way { connection, slow }, begun: flight.begun, result }
    }

    /// Learns from what came of a request, and gives its connection to whoever waits.
    fn take_back(&self, sent: Sent, lane: &TenantLane, batch: &[Box<Fragment>]) -> Result<Reply, Failure> {
        let Sent { way: Way { connection, slow }, begun, result } = sent;
        // First: when the connection is free, no slow tenant uses it any more.
        drop(slow);
        let address = connection.address();
        match result {
            Ok(reply) => {
                self.has_worked(lane, address, begun);
                self.note_size(lane, address, batch, &reply);
                match reply.reusable {
                    true => self.pool.put(connection),
                    false => self.pool.discard(connection),
                }
                Ok(reply)
            }
            Err(error) => {
                self.pool.discard(connection);
                let is_its_own = match error {
                    NoReply::Cut => {
                        self.strikes(lane);
                        true
                    }
                    // An address that answers others is well: it is the request that takes so long.
                    NoReply::TimedOut => {
                        self.strikes(lane);
                        self.pool.has_answered_since(address, begun)
                    }
                    _ => false,
                };
                if !is_its_own {
                    self.has_failed(address);
                }
                Err(Failure::from_no_reply(error, address))
            }
        }
    }

    /// Learns from a reply which sizes its sender takes.
    fn note_size(&self, lane: &TenantLane, address: SocketAddr, batch: &[Box<Fragment>], reply: &Reply) {
        let bytes = usize::try_from(inflated_bytes(batch)).unwrap_or(usize::MAX);
        let mut sizes = lane.sizes.borrow_mut();
        let series: u32 = batch.iter().map(|fragment| fragment.part.series).sum();
        if is_too_large(reply) {
            // What can't be halved says nothing about how large a request of several may be.
            if series <= 1 {
                return;
            }
            sizes.refused(address, bytes, Instant::now());
        } else if (200..300).contains(&reply.status) {
            sizes.taken(address, bytes, Instant::now());
        }
    }

    /// A connection, until `start_by`. Where one address refuses, the next is tried: nothing has been sent yet.
    pub(super) async fn connection(&self, standing: Standing, start_by: Instant) -> Result<Way, Failure> {
        let attempts_max = self.pool.addresses();
        let mut tried = Vec::new();
        loop {
            let Lease { what, slow } = self.pool.take(standing, start_by, &tried).await?;
            let (address, permit) = match what {
                Leased::Open(connection) => {
                    self.counters().upstream_reused.add(1);
                    return Ok(Way { connection, slow });
                }
                Leased::Connect(address, permit) => (address, permit),
            };
            let deadline = Instant::now() + self.pool.connect_timeout(self.settings.get().timeout);
            match self.pool.connect(address, permit, deadline).await {
                Ok(connection) => {
                    self.counters().upstream_opened.add(1);
                    return Ok(Way { connection, slow });
                }
                Err(e) => {
                    // Where this was a slow tenant's, the next one has room only now.
                    drop(slow);
                    self.pool.serve();
                    self.has_failed(address);
                    tried.push(address);
                    if tried.len() >= attempts_max || Instant::now() >= start_by {
                        return Err(Failure::Unreachable(format!("{address}: {e}")));
                    }
                }
            }
        }
    }

    fn has_failed(&self, address: SocketAddr) {
        let Some(Started { length, first }) = self.pool.failed(address) else { return };
        self.counters().upstream_backoffs.add(1);
        if first && let Some(suppressed) = self.may_log_of(address) {
            tracing::warn!(
                %address, backoff = ?length, suppressed,
                "an upstream address fails again and again: the others take over"
            );
        }
    }

    fn has_worked(&self, lane: &TenantLane, address: SocketAddr, begun: Instant) {
        let (had_backoff, in_time) = self.pool.worked(address, begun, self.settings.get().timeout);
        if in_time {
            self.turns_prompt(lane);
        }
        if had_backoff && let Some(suppressed) = self.may_log_of(address) {
            tracing::info!(%address, suppressed, "an upstream address is back");
        }
    }

    /// Whether a line about an address may be written, as one that comes and goes could fill the log.
    fn may_log_of(&self, address: SocketAddr) -> Option<u64> {
        self.address_limiter.borrow_mut().allow(&address.to_string(), Instant::now())
    }

    /// The upstream request for a batch: its head, the length of all that is in it, and everybody's elements.
    fn request(&self, batch: &[Box<Fragment>]) -> Gather {
        let mut slices = Vec::with_capacity(batch.len() + 1);
        slices.push(Bytes::new());
        slices.extend(batch.iter().map(|f| f.part.elements.clone()));
        let inflated = inflated_bytes(batch);
        let elements: usize = slices.iter().map(Bytes::len).sum();
        if let (Some(head), Some(first)) = (slices.first_mut(), batch.first()) {
            *head = self.head(first, inflated, elements).into();
        }
        Gather::new(slices)
    }

    fn head(&self, first: &Fragment, inflated: u64, elements: usize) -> Vec<u8> {
        let mut heads = self.heads.borrow_mut();
        let (terms, written) = &mut *heads;
        if !Arc::ptr_eq(terms, &first.terms) {
            *written = RequestHeads::new(&first.terms, self.settings.get().destination);
            *terms = Arc::clone(&first.terms);
        }
        written.head(first, inflated, elements)
    }
}
