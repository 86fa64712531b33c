//! Takes batches out of lanes, sends them, and turns replies into outcomes.
//!
//! A batch that is refused for its content is sent again, fragment by fragment; a fragment that is too large is sent in
//! [`pieces`](super::pieces). Any other reply is the outcome of all fragments of the batch.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Egress;
use super::answered::{RejectedShares, read_answer};
use super::attempt::{Attempt, Checkout};
use super::lane::{LaneLimits, Next, is_never_merged};
use super::outgoing::Outgoing;
use super::tenant_lane::{Batch, TenantLane, inflated_bytes, start_by};
use super::written::Shares;
use crate::exchange::fragment::Fragment;
use crate::limits::UNMERGED_SECS;
use crate::metrics::{Exemplar, Unstored, UpstreamClass};
use crate::model::{Failure, Outcome, Via, blames_content};
use crate::split::can_be_halved;
use crate::upstream::client::Reply;

impl Egress {
    /// Starts delivering every batch that the lane gives out now.
    pub(super) fn pump(self: &Rc<Self>, lane: &Rc<TenantLane>) {
        while let Some(batch) = self.next_batch(lane) {
            let (egress, lane) = (Rc::clone(self), Rc::clone(lane));
            self.tasks.spawn(async move { egress.deliver_all(lane, batch).await });
        }
    }

    /// Delivers a batch, then the batches that have gathered behind it, until the lane gives out none.
    async fn deliver_all(self: Rc<Self>, lane: Rc<TenantLane>, batch: Batch) {
        let mut next = Some(batch);
        while let Some(batch) = next {
            let is_single = batch.first().is_some_and(is_never_merged);
            let round_trip = self.deliver(&lane, batch).await;
            self.requests.set(self.requests.get() - 1);
            lane.queue.borrow_mut().finished(is_single, round_trip);
            next = self.next_batch(&lane);
            if next.is_some() {
                // A full batch, or a fragment that goes alone, may be sent beside it.
                self.pump(&lane);
            }
        }
        // Nothing of it waits any more.
        lane.place.set(None);
        self.retire(&lane);
    }

    fn next_batch(self: &Rc<Self>, lane: &Rc<TenantLane>) -> Option<Batch> {
        let now = Instant::now();
        let expired = lane.queue.borrow_mut().take_expired(now);
        self.waits_no_more(lane, expired.len());
        if !expired.is_empty() {
            expired.iter().for_each(|_| self.counters().upstream_outcome(UpstreamClass::Expired));
            self.finish_all(lane, expired, &Failure::Expired.outcome(self.settings.get().timeout));
        }
        let next = lane.queue.borrow_mut().next(now, &self.lane_limits(lane, now));
        lane.metrics.oldest_waiting.set(lane.queue.borrow().oldest());
        match next {
            Next::Send(batch) => {
                self.requests.set(self.requests.get() + 1);
                self.waits_no_more(lane, batch.len());
                Some(batch)
            }
            Next::Nothing => None,
            Next::Wait(until) => {
                self.wake_at(lane, until);
                None
            }
        }
    }

    /// Returns the limits of merging, lowered to the request size that the upstream accepts from this tenant.
    pub(super) fn lane_limits(&self, lane: &TenantLane, now: Instant) -> LaneLimits {
        let settings = self.settings.get();
        let limits = settings.lane;
        let bytes_max = lane.inflated_bytes_max(now);
        // A slow tenant holds connections for long enough, and early requests leave some to those that are not early.
        let is_early_allowed =
            !lane.slow.get() && self.requests.get() < settings.early_below && !self.pool.has_waiters();
        LaneLimits {
            inflated_bytes_max: limits.inflated_bytes_max.min(bytes_max),
            inflight_early_max: if is_early_allowed { limits.inflight_early_max } else { 0 },
            ..limits
        }
    }

    /// Sees to the lane again at this time, or before.
    fn wake_at(self: &Rc<Self>, lane: &Rc<TenantLane>, until: Instant) {
        if lane.wakes.get().is_some_and(|at| at <= until) {
            return;
        }
        lane.wakes.set(Some(until));
        let (egress, lane) = (Rc::clone(self), Rc::clone(lane));
        self.tasks.spawn(async move {
            monoio::time::sleep_until(until.into()).await;
            // Another task may have taken over, and woken since: then there may be another lane for the tenant by now.
            if lane.wakes.get() == Some(until) {
                lane.wakes.set(None);
                egress.pump(&lane);
                egress.retire(&lane);
            }
        });
    }

    /// Returns how long the upstream took, if it stored the batch.
    async fn deliver(self: &Rc<Self>, lane: &Rc<TenantLane>, batch: Batch) -> Option<Duration> {
        let mut batch = match self.known_too_large(lane, batch) {
            Ok(fragment) => {
                let refusal = Outcome::upstream(413, None, b"the upstream takes no request as large as this");
                lane.queue.borrow_mut().left(Instant::now());
                // Boxed, as it is rare, and would make the task of every batch larger.
                Box::pin(self.deliver_in_pieces(lane, fragment, refusal)).await;
                return None;
            }
            Err(batch) => batch,
        };
        self.turn_to_pack(&batch).await;
        let connection = self.connection(lane, start_by(&batch)).await;
        let mut packed = None;
        if connection.is_ok() {
            self.join_waiting(lane, &mut batch);
            let rest;
            (packed, rest) = self.pack(lane, &mut batch);
            self.put_back(lane, rest);
        }
        let begun = Instant::now();
        lane.queue.borrow_mut().left(begun);
        if lane.queue.borrow().oldest().is_some() {
            // What could not join it was not asked when it may leave, as long as this one waited.
            self.pump(lane);
        }
        let outgoing = Outgoing::new(&batch, packed.as_ref());
        let Attempt { via, result } = self.attempt_over(connection, lane, outgoing).await;
        let outcome = match result {
            Ok(reply) if batch.len() > 1 && blames_content(reply.status) => {
                self.send_alone(lane, batch);
                return None;
            }
            Ok(reply) if reply.is_too_large() => {
                let refusal = Outcome { via, ..reply.into_outcome() };
                for fragment in batch {
                    Box::pin(self.deliver_in_pieces(lane, fragment, refusal.clone())).await;
                }
                return None;
            }
            Ok(reply) => reply.into_outcome(),
            Err(failure) => failure.outcome(self.settings.get().timeout),
        };
        let outcome = Outcome { via, ..outcome };
        let round_trip = outcome.is_delivered().then(|| begun.elapsed());
        if outcome.is_delivered() {
            // All at once, right after what was stored is counted: a reading in between would see a difference.
            batch.iter_mut().for_each(|fragment| drop(std::mem::take(&mut fragment.entry)));
        }
        self.finish_all(lane, batch, &outcome);
        round_trip
    }

    /// Releases the room of fragments and sends the outcome that they share. Each hears its own share of what was
    /// written.
    fn finish_all(&self, lane: &Rc<TenantLane>, fragments: Batch, outcome: &Outcome) {
        let shares = Shares::of(&fragments, outcome.written);
        let mut rejected = RejectedShares::of(&fragments, outcome.rejected);
        for fragment in fragments {
            let (written, rejected) = (shares.written_of(&fragment.part), rejected.next(&fragment.part));
            let outcome = Outcome { written, rejected, ..outcome.clone() };
            self.end(lane, fragment, outcome);
        }
        self.ring();
    }

    /// Adds to a batch the fragments that have come while it waited for its turn and for a connection.
    fn join_waiting(&self, lane: &TenantLane, batch: &mut Batch) {
        let (now, were) = (Instant::now(), batch.len());
        lane.queue.borrow_mut().join(batch, now, &self.lane_limits(lane, now));
        self.waits_no_more(lane, batch.len() - were);
        lane.metrics.oldest_waiting.set(lane.queue.borrow().oldest());
    }

    /// Puts the fragments for which a request had no room back in front of the lane.
    fn put_back(&self, lane: &TenantLane, rest: Batch) {
        if rest.is_empty() {
            return;
        }
        self.waits(lane, rest.len());
        lane.queue.borrow_mut().put_back(rest);
        lane.metrics.oldest_waiting.set(lane.queue.borrow().oldest());
    }

    /// Returns the fragment of a batch of one, if it can be halved and is larger than its upstream accepts. Returns the
    /// batch otherwise.
    fn known_too_large(&self, lane: &TenantLane, mut batch: Batch) -> Result<Box<Fragment>, Batch> {
        match &batch[..] {
            [one] if can_be_halved(&one.part) && self.is_known_too_large(lane, &batch) => {
                batch.pop().ok_or(batch)
            }
            _ => Err(batch),
        }
    }

    /// Whether a batch is larger than its upstream accepts, as far as is known.
    pub(super) fn is_known_too_large(&self, lane: &TenantLane, batch: &[Box<Fragment>]) -> bool {
        inflated_bytes(batch) > lane.inflated_bytes_max(Instant::now()) as u64
    }

    /// Sends a batch in one request and counts the result.
    pub(super) async fn attempt(&self, lane: &Rc<TenantLane>, batch: &[Box<Fragment>]) -> Attempt {
        let connection = self.connection(lane, start_by(batch)).await;
        self.attempt_over(connection, lane, Outgoing::new(batch, None)).await
    }

    pub(super) async fn attempt_over(
        &self,
        connection: Result<Checkout, Failure>,
        lane: &Rc<TenantLane>,
        batch: Outgoing<'_>,
    ) -> Attempt {
        let sent = Instant::now();
        let bytes = if connection.is_ok() { batch.bytes() } else { 0 };
        self.count_batch(lane, &batch, bytes as u64, sent);
        self.begin_spans(lane, &batch, sent);
        let address = connection.as_ref().ok().map(Checkout::address);
        let result = match connection {
            Ok(checkout) => self.send(checkout, lane, batch).await,
            Err(failure) => Err(failure),
        };
        self.gauge_connections();
        let (result, samples) = match result {
            Ok((reply, samples)) => (Ok(read_answer(reply, &batch, samples)), samples),
            Err(failure) => (Err(failure), 0),
        };
        self.count_result(lane, &batch, &result, sent.elapsed());
        self.end_spans(lane, batch, sent, &result);
        let result = result.map(|reply| self.check_written(reply, &batch));
        let via = address.map(|address| Via { address, fragments: batch.len() });
        if let Some(reply) = result.as_ref().ok().filter(|reply| (200..300).contains(&reply.status)) {
            let is_replay = batch.first().is_some_and(|first| first.sender.is_none());
            let rejected = reply.rejected;
            if is_replay {
                lane.metrics.replayed.add(samples - rejected);
                lane.metrics.spool_refused.add(rejected);
            } else {
                lane.metrics.stored.add(samples - rejected);
                lane.metrics.refused.add(Unstored::Rejected, rejected);
            }
            if rejected > 0 {
                self.note_rejected(lane, &batch, via, reply);
            }
        }
        Attempt { via, result }
    }

    /// Puts the fragments of a batch that was refused for its content back into the lane, each to be sent alone. So
    /// each gets the error of its own series, and no series is lost because of another sender's.
    fn send_alone(&self, lane: &TenantLane, batch: Batch) {
        let now = Instant::now();
        let mut queue = lane.queue.borrow_mut();
        queue.stop_merging(now + Duration::from_secs(UNMERGED_SECS));
        for mut fragment in batch {
            fragment.alone = true;
            fragment.start_by += self.settings.get().timeout;
            self.waits(lane, 1);
            queue.push(fragment);
        }
    }

    fn count_batch(&self, lane: &TenantLane, batch: &[Box<Fragment>], bytes: u64, now: Instant) {
        let counters = self.counters();
        counters.upstream_requests.add(1);
        counters.upstream_bytes.add(bytes);
        lane.metrics.upstream_bytes.add(bytes);
        if batch.len() > 1 {
            counters.merges.add(1);
            counters.merged_fragments.add(batch.len() as u64);
            lane.metrics.merged_fragments.add(batch.len() as u64);
        }
        for fragment in batch {
            let seconds = (now - fragment.arrived).as_secs_f64();
            counters.lane_wait.observe_as(&Exemplar::new(fragment.request_id.0, seconds, now));
        }
    }

    fn count_result(
        &self,
        lane: &TenantLane,
        batch: &[Box<Fragment>],
        result: &Result<Reply, Failure>,
        took: Duration,
    ) {
        let millis = took.as_secs_f64() * 1e3;
        match result {
            Ok(reply) => {
                self.counters().upstream_outcome(UpstreamClass::of_status(reply.status));
                lane.metrics.answered(reply.status, millis);
                if reply.status >= 400 {
                    self.metrics.count_error(self.exchange.core(), &reply.message);
                }
                if let Some(redirect) = reply.redirect() {
                    self.log(lane, batch, &redirect.message);
                } else if self.settings.get().log_response_errors && !(200..300).contains(&reply.status) {
                    self.log(
                        lane,
                        batch,
                        &format!(
                            "upstream answered {}: {}",
                            reply.status,
                            String::from_utf8_lossy(&reply.message).trim()
                        ),
                    );
                }
            }
            Err(failure) => {
                self.counters().upstream_outcome(UpstreamClass::of_failure(failure));
                lane.metrics.failed();
                self.log(lane, batch, &failure.to_string());
            }
        }
    }

    /// Logs what became of a batch, with the ID of its first request and of its trace, if one is traced.
    pub(super) fn log(&self, lane: &TenantLane, batch: &[Box<Fragment>], what: &str) {
        let allowed = self.log_limits.tenants.borrow_mut().allow(lane.tenant.as_str(), Instant::now());
        let (Some(suppressed), Some(first)) = (allowed, batch.first()) else { return };
        let traced = batch.iter().find_map(|fragment| fragment.traced.as_ref());
        let trace_id = traced.map(|traced| format!("{:032x}", traced.trace));
        tracing::error!(
            tenant = lane.tenant.as_str(),
            request_id = %first.request_id,
            trace_id = trace_id.as_deref(),
            suppressed,
            "{what}"
        );
    }
}
