//! Lanes whose upstream fails: their parts go into the [`spool`](crate::spool), and from there to the upstream.
//!
//! # Constraints
//! - A sender is told that its part is stored only once it is durable. What the spool cannot take fails as it would
//!   without a spool.
//! - Within a series, order is kept. A sender sends a series' next sample when the one before is acknowledged. So while
//!   a tenant has anything in the spool, or on its way there, its new parts go behind it; and parts out of the spool
//!   leave one request at a time, each a run of parts in their order ([`backlog`](super::backlog)).
//! - Replays must not take what prompt tenants need: few go on at a time, in turns, each with little in memory. Nor
//!   must lanes whose requests hang take the turns of those that get on.
//! - A disk that hangs must not hold requests for longer than an upstream that hangs.
//!
//! # Design
//!
//! ```text
//! direct ──(a part fails, retriably)──► pauses ──► probes: reads and sends one part
//!    ▲                                   ▲  ▲           │(stored)
//!    │                                   │  │           ▼
//!    │                           (fails)─┘  └(fails)─ proved: reads and sends several, in turns
//!    └──────────────────(nothing is left to read)───────┘
//! ```
//!
//! The spool's thread answers appends in their order, so those of an egress wait in one queue. A task of the core looks
//! now and then: it gives up those that wait for too long, and starts the replays that are due. A replayed request that
//! is refused for its content is sent again part by part; a part that is refused alone is refused for good.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::Egress;
use super::spooling::{Append, PAUSE_MIN, SpoolLink};
use super::tenant_lane::TenantLane;
use super::written::content;
use crate::config::plan::Terms;
use crate::exchange::fragment::Fragment;
use crate::model::{Failure, Fate, HaLabels, Outcome, Protocol};
use crate::spool::worker::{Command, Reply, ReplyTo, What, now_millis};
use crate::spool::{Refused, Spooled, Stream, StreamTotals};

/// Why a part is not in the spool that the disk has not taken in time.
const LATE: &str = "the disk does not take it in time";

impl Egress {
    /// Whether a fragment goes into the spool when it comes.
    pub(super) fn spools_at_once(&self, lane: &TenantLane) -> bool {
        self.spool.as_ref().is_some_and(|link| link.always || lane.spool.is_spooled())
    }

    /// Whether a fragment with this outcome goes into the spool.
    pub(super) fn spools_failed(&self, fragment: &Fragment, outcome: &Outcome) -> bool {
        let Some(link) = &self.spool else { return false };
        let fails = match Fate::of(outcome.sender_status()) {
            Fate::Retriable => true,
            Fate::Throttled => link.on_429,
            Fate::Delivered | Fate::Rejected => false,
        };
        fails && !outcome.is_unwritten && fragment.sender.is_some()
    }

    /// Sends a fragment into the spool. It keeps its room until it is durable. `failed` is what its upstream has done
    /// to it, if it was sent.
    pub(super) fn spool(&self, lane: &Rc<TenantLane>, fragment: Box<Fragment>, failed: Option<Outcome>) {
        let Some(link) = &self.spool else { return };
        // Otherwise what waits for a disk that hangs would have no limit.
        if self.spooling.appends.borrow().front().is_some_and(|first| first.fragment.is_none()) {
            self.counters().spool_failed.add(1);
            return self.refuse_spooled(lane, fragment, failed, LATE);
        }
        let spooled = Spooled {
            upstream: link.name.clone(),
            part: fragment.part.clone(),
            passed: fragment.passed.as_deref().cloned(),
            client: fragment.client,
            request_id: fragment.request_id.0,
            spooled_at: now_millis(),
        };
        lane.spool.appending.set(lane.spool.appending.get() + 1);
        let until = Instant::now() + self.settings.get().timeout;
        let is_given_up = Arc::new(AtomicBool::new(false));
        link.handle.send(Command::Append(self.reply_to(), Box::new(spooled), Arc::clone(&is_given_up)));
        let append = Append {
            lane: Rc::clone(lane),
            fragment: Some(fragment),
            is_given_up,
            charge: None,
            failed,
            until,
        };
        self.spooling.appends.borrow_mut().push_back(append);
    }

    /// Takes up what the spool had of a tenant when the process started.
    pub fn recover(self: &Rc<Self>, stream: &Stream, totals: StreamTotals) {
        let lane = self.lane(&stream.tenant);
        lane.spool.has_parts.set(true);
        show(&lane, totals);
        self.replay_at(&lane, Instant::now());
    }

    /// Takes a reply of the spool. `ha_labels`: those that name a replica.
    pub fn spool_replied(self: &Rc<Self>, reply: Reply, terms: &Arc<Terms>, ha_labels: Option<&HaLabels>) {
        match reply.what {
            What::Appended(result) => {
                let append = self.spooling.appends.borrow_mut().pop_front();
                append.into_iter().for_each(|append| self.appended(append, &result));
            }
            What::Front(stream, read, totals) => {
                let lane = self.lane(&stream.tenant);
                show(&lane, totals);
                self.has_read(&lane, stream, read, terms, ha_labels);
            }
        }
    }

    /// Ends the wait of a part for the spool.
    fn appended(self: &Rc<Self>, append: Append, result: &Result<StreamTotals, Refused>) {
        let Append { lane, fragment, failed, .. } = append;
        lane.spool.appending.set(lane.spool.appending.get() - 1);
        match result {
            Ok(totals) => {
                show(&lane, *totals);
                lane.spool.has_parts.set(true);
                if !lane.spool.replays.get() {
                    // The first part has just failed, unless all are spooled.
                    let (now, has_failed) = (Instant::now(), failed.is_some());
                    lane.spool.failing_since.set(has_failed.then_some(now));
                    self.replay_at(&lane, if has_failed { now + PAUSE_MIN } else { now });
                }
                if let Some(fragment) = fragment {
                    self.acknowledge(&lane, fragment);
                }
            }
            Err(refused) => {
                self.count_refused(refused);
                if let Some(fragment) = fragment {
                    self.refuse_spooled(&lane, fragment, failed, &refused.to_string());
                }
            }
        }
        self.ring();
        self.retire(&lane);
    }

    /// Tells the sender of a part in the spool that it is stored.
    fn acknowledge(&self, lane: &TenantLane, mut fragment: Box<Fragment>) {
        self.counters().spooled.add(1);
        std::mem::take(&mut fragment.entry).spool();
        let reports = fragment.part.protocol == Protocol::RemoteWriteV2;
        let outcome = Outcome::spooled(reports.then(|| content(&fragment.part)));
        self.release(lane, &fragment);
        self.push_outcome(fragment, outcome);
    }

    /// Tells the sender of a part that the spool has not taken it.
    fn refuse_spooled(&self, lane: &TenantLane, fragment: Box<Fragment>, failed: Option<Outcome>, why: &str) {
        let refused = || Failure::NotSpooled(why.to_owned()).outcome(self.settings.get().timeout);
        self.end_for_good(lane, fragment, failed.unwrap_or_else(refused));
    }

    fn count_refused(&self, refused: &Refused) {
        let counters = self.counters();
        let counter = match refused {
            Refused::Full => &counters.spool_full,
            Refused::TenantFull => &counters.spool_tenant_full,
            Refused::TooOld => &counters.spool_too_old,
            Refused::Failed(_) => &counters.spool_failed,
        };
        counter.add(1);
    }

    /// Gives up what waits for the disk for too long, and starts the replays that are due. Called now and then.
    pub fn look_at_spool(self: &Rc<Self>, now: Instant) {
        if self.spool.is_none() {
            return;
        }
        self.give_up_appends(now);
        loop {
            let mut waits = self.spooling.waits.borrow_mut();
            let Some(first) = waits.first_entry().filter(|first| first.key().0 <= now) else { break };
            self.wait_for_turn(&first.remove());
        }
        self.start_replays();
    }

    fn give_up_appends(&self, now: Instant) {
        let mut given_up = Vec::new();
        for append in self.spooling.appends.borrow_mut().iter_mut().take_while(|append| append.until <= now) {
            if let Some(mut fragment) = append.fragment.take() {
                append.is_given_up.store(true, Ordering::Relaxed);
                append.charge = Some(fragment.charge.split_off(fragment.part.elements.len()));
                given_up.push((Rc::clone(&append.lane), fragment, append.failed.take()));
            }
        }
        if given_up.is_empty() {
            return;
        }
        for (lane, fragment, failed) in given_up {
            self.counters().spool_failed.add(1);
            self.refuse_spooled(&lane, fragment, failed, LATE);
        }
        self.ring();
    }

    /// Begins no more replays.
    pub fn stop_replays(&self) {
        self.spooling.is_closed.set(true);
    }

    pub(super) fn reply_to(&self) -> ReplyTo {
        ReplyTo { core: self.exchange.core(), upstream: self.settings.get().upstream }
    }

    pub(super) fn stream(&self, link: &SpoolLink, lane: &TenantLane) -> Stream {
        Stream {
            upstream: link.name.clone(),
            destination: self.settings.get().upstream.destination(),
            tenant: lane.tenant.clone(),
        }
    }
}

/// Shows what the spool has of a lane. Tenants beyond the first thousands share their metrics.
fn show(lane: &TenantLane, totals: StreamTotals) {
    lane.metrics.spool_bytes.up_by(totals.bytes);
    lane.metrics.spool_bytes.down_by(lane.spool.shown_bytes.replace(totals.bytes));
    lane.metrics.spool_oldest.set(usize::try_from(totals.oldest / 1_000).unwrap_or(usize::MAX));
}
