//! One attempt to send a batch: a connection, a request over it, and what the result says about the address.
//!
//! The peer may just have closed a connection that has been used before. If a request fails for that reason before a
//! byte of a response has come, it is sent once more over a new connection. Every other failure is the batch's outcome.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Egress;
use super::answered::answer_bytes_max;
use super::outgoing::Outgoing;
use super::tenant_lane::TenantLane;
use crate::exchange::fragment::Fragment;
use crate::io::buffers::Gather;
use crate::model::{Compression, Failure, Via};
use crate::shared::permits::SlowUse;
use crate::shared::slow::Standing;
use crate::split::can_be_halved;
use crate::upstream::backoff::Started;
use crate::upstream::client::{self, Reply};
use crate::upstream::pool::{Connection, Lease, Leased};
use crate::upstream::request::RequestHeads;

/// An upstream request that was sent, or was to be sent.
pub(super) struct Attempt {
    /// How it was sent, if a connection was there.
    pub(super) via: Option<Via>,
    pub(super) result: Result<Reply, Failure>,
}

/// A connection that a request may use, and whether it counts as used by a slow tenant.
pub(super) struct Checkout {
    connection: Box<Connection>,
    slow: Option<SlowUse>,
}

impl Checkout {
    /// The address that the connection goes to.
    pub(super) fn address(&self) -> SocketAddr {
        self.connection.address()
    }
}

/// A request that was sent, at `at`, and its result.
struct Sent {
    checkout: Checkout,
    at: Instant,
    /// The samples in it.
    samples: u64,
    result: Result<Reply, Failure>,
}

impl Egress {
    /// Sends a batch over a connection, or over a new one if that connection has gone stale. Returns the reply, and how
    /// many samples of the lane's tenant the request had.
    pub(super) async fn send(
        &self,
        checkout: Checkout,
        lane: &Rc<TenantLane>,
        batch: Outgoing<'_>,
    ) -> Result<(Reply, u64), Failure> {
        self.gauge_connections();
        let deadline = Instant::now() + self.settings.get().timeout;
        let mut sent = self.post(checkout, lane, batch, deadline).await;
        if let Err(Failure::Stale { .. }) = sent.result {
            self.counters().upstream_retries.add(1);
            let Checkout { connection, slow } = sent.checkout;
            let (address, permit) = connection.into_permit();
            let connection = match Box::pin(self.pool.connect(address, permit, deadline)).await {
                Ok(connection) => connection,
                Err(failure) => {
                    self.has_failed(address);
                    return Err(failure);
                }
            };
            self.counters().upstream_opened.add(1);
            sent = self.post(Checkout { connection, slow }, lane, batch, deadline).await;
        }
        let samples = sent.samples;
        self.check_in(sent, lane, batch).map(|reply| (reply, samples))
    }

    async fn post(
        &self,
        checkout: Checkout,
        lane: &Rc<TenantLane>,
        batch: Outgoing<'_>,
        deadline: Instant,
    ) -> Sent {
        let Checkout { mut connection, slow } = checkout;
        let request = self.in_flight.begin(lane, &connection, slow);
        let (gathered, samples) = self.request(lane, batch);
        let mut result = client::post(&mut connection, gathered, deadline, answer_bytes_max(&batch)).await;
        let slow = self.in_flight.end(&request);
        if request.is_cut() {
            result = match result {
                Ok(reply) => Ok(Reply { reusable: false, ..reply }),
                Err(_) => Err(Failure::Cut),
            };
        }
        Sent { checkout: Checkout { connection, slow }, at: request.sent, samples, result }
    }

    /// Records what the result of a request says about its address and its tenant, and returns the connection to the
    /// pool.
    fn check_in(&self, sent: Sent, lane: &Rc<TenantLane>, batch: Outgoing<'_>) -> Result<Reply, Failure> {
        let Sent { checkout: Checkout { connection, slow }, at, result, .. } = sent;
        // First: once the connection is free, no slow tenant uses it any more.
        drop(slow);
        let address = connection.address();
        match &result {
            Ok(reply) => {
                self.has_worked(lane, address, at);
                self.note_size(lane, address, batch, reply);
                match reply.reusable {
                    true => self.pool.put(connection),
                    false => self.pool.discard(connection),
                }
            }
            Err(failure) => {
                self.pool.discard(connection);
                if matches!(failure, Failure::Cut | Failure::TimedOut) {
                    self.strikes(lane);
                }
                let blames_address = match failure {
                    Failure::Cut => false,
                    // If the address has answered other requests meanwhile, this request is at fault.
                    Failure::TimedOut => !self.pool.has_answered_since(address, at),
                    _ => true,
                };
                if blames_address {
                    self.has_failed(address);
                }
            }
        }
        result
    }

    /// Records which request sizes the address accepts from this tenant.
    fn note_size(&self, lane: &TenantLane, address: SocketAddr, batch: Outgoing<'_>, reply: &Reply) {
        let bytes = usize::try_from(batch.inflated_bytes()).unwrap_or(usize::MAX);
        let mut sizes = lane.sizes.borrow_mut();
        if reply.is_too_large() {
            // A request that cannot be taken apart says nothing about how large one of several series may be.
            if !batch.iter().any(|fragment| batch.len() > 1 || can_be_halved(&fragment.part)) {
                return;
            }
            sizes.refused(address, bytes, Instant::now());
            lane.metrics.notes.sizes(sizes.all(Instant::now()));
        } else if (200..300).contains(&reply.status) {
            sizes.taken(address, bytes, Instant::now());
        }
    }

    /// Waits for a connection until `start_by`. If one address refuses, the next is tried, as nothing has been sent
    /// yet. Without a connection, the lane keeps its place for its next request.
    pub(super) async fn connection(&self, lane: &TenantLane, start_by: Instant) -> Result<Checkout, Failure> {
        let standing = lane.standing();
        let since = standing.since.unwrap_or_else(Instant::now);
        let standing = Standing { since: Some(since), ..standing };
        let checkout = self.checkout(standing, start_by).await;
        if let Err(Failure::NoConnection) = checkout {
            lane.place.set(Some(since));
        }
        checkout
    }

    async fn checkout(&self, standing: Standing, start_by: Instant) -> Result<Checkout, Failure> {
        let attempts_max = self.pool.addresses();
        let mut tried = Vec::new();
        loop {
            let Lease { what, slow } = self.pool.take(standing, start_by, &tried).await?;
            let (address, permit) = match what {
                Leased::Open(connection) => {
                    self.counters().upstream_reused.add(1);
                    return Ok(Checkout { connection, slow });
                }
                Leased::Connect(address, permit) => (address, permit),
            };
            let deadline = Instant::now() + self.pool.connect_timeout(self.settings.get().timeout);
            match Box::pin(self.pool.connect(address, permit, deadline)).await {
                Ok(connection) => {
                    self.counters().upstream_opened.add(1);
                    return Ok(Checkout { connection, slow });
                }
                Err(failure) => {
                    // If this was a slow tenant's, the next slow tenant has room only now.
                    drop(slow);
                    self.pool.serve();
                    self.has_failed(address);
                    tried.push(address);
                    if tried.len() >= attempts_max || Instant::now() >= start_by {
                        return Err(failure);
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

    fn has_worked(&self, lane: &TenantLane, address: SocketAddr, sent: Instant) {
        let (had_backoff, in_time) = self.pool.worked(address, sent, self.settings.get().timeout);
        if in_time {
            self.turns_prompt(lane);
        }
        if had_backoff && let Some(suppressed) = self.may_log_of(address) {
            tracing::info!(%address, suppressed, "an upstream address is back");
        }
    }

    /// Returns the number of suppressed lines if a line about an address may be logged. An address that keeps failing
    /// and recovering must not fill the log.
    fn may_log_of(&self, address: SocketAddr) -> Option<u64> {
        self.log_limits.addresses.borrow_mut().allow(&address.to_string(), Instant::now())
    }

    /// Builds the upstream request for a batch: the head, the inflated length, and all elements that are sent. Also
    /// returns how many samples of the lane's tenant it has; those of others do not count as stored.
    fn request(&self, lane: &TenantLane, batch: Outgoing<'_>) -> (Gather, u64) {
        let mut slices = Vec::with_capacity(batch.len() + 1);
        let mut samples = 0;
        slices.push(Bytes::new());
        slices.extend(batch.packed().cloned());
        for fragment in batch.iter() {
            #[cfg(test)]
            let copies = super::planted::copies(&lane.tenant);
            #[cfg(not(test))]
            let copies = 1;
            for _ in 0..copies {
                if batch.packed().is_none() {
                    slices.push(fragment.part.elements.clone());
                }
                samples += u64::from(fragment.part.samples) * u64::from(fragment.part.tenant == lane.tenant);
            }
        }
        let inflated = batch.inflated_bytes();
        let elements: usize = slices.iter().map(Bytes::len).sum();
        if let (Some(head), Some(first)) = (slices.first_mut(), batch.first()) {
            // The head names the first fragment's tenant.
            samples *= u64::from(first.part.tenant == lane.tenant);
            let coding = batch.coding(first);
            *head = self.head(first, coding, inflated, elements).into();
        }
        (Gather::new(slices), samples)
    }

    fn head(&self, first: &Fragment, coding: Compression, inflated: u64, elements: usize) -> Vec<u8> {
        let mut heads = self.heads.borrow_mut();
        let (terms, written) = &mut *heads;
        if !Arc::ptr_eq(terms, &first.terms) {
            *written = RequestHeads::new(&first.terms, self.settings.get().upstream.destination());
            *terms = Arc::clone(&first.terms);
        }
        written.head(first, coding, inflated, elements)
    }
}
