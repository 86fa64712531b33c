//! Lanes whose upstream fails: their parts go into the [`spool`](crate::spool), and from there to the upstream.
//!
//! # Constraints
//! - A sender is told that its part is stored only once it is durable. What the spool cannot take fails as it would
//!   without a spool.
//! - Within a series, order is kept. A sender sends a series' next sample when the one before is acknowledged. So while
//!   a tenant has anything in the spool, or on its way there, its new parts go behind it; and parts out of the spool
//!   leave one request at a time, each a run of parts in their order.
//! - Replays must not take what prompt tenants need: few go on at a time, in turns, each with little in memory.
//! - A disk that hangs must not hold requests for longer than an upstream that hangs.
//!
//! # Design
//!
//! ```text
//! direct ──(a part fails, retriably)──► spooled ──(a replayed request fails)──► waits ──► ready ──► reading
//!    ▲                                                                          ▲          ▲           │
//!    │                                                                          │          │(stored)   ▼
//!    └────────────────(nothing is left to read)─────────────────────────────────┴──────────┴───── sending
//! ```
//!
//! The spool's thread answers appends in their order, so those of an egress wait in one queue. A task of the
//! core looks now and then: it gives up those that wait for too long, and starts the replays that are due. A replayed
//! request that is refused for its content is sent again part by part; a part that is refused alone is refused for good.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Egress;
use super::attempt::Attempt;
use super::lane::Queued;
use super::outgoing::Outgoing;
use super::tenant_lane::{Batch, TenantLane, start_by};
use super::written::content;
use crate::config::plan::Terms;
use crate::exchange::fragment::{Fragment, RequestId};
use crate::metrics::ledger::Entry;
use crate::model::{Failure, Fate, Outcome, Protocol, blames_content};
use crate::spool::worker::{Command, Handle, Reply, ReplyTo, What, now_millis};
use crate::spool::{Refused, Sequence, Spooled, Stream, StreamTotals};

/// How long a replay waits after its first failure. Each further failure doubles that.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest that a replay waits after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Replays at a time of one core to one upstream, at most.
const REPLAYS_MAX: usize = 8;

/// Bytes of elements that a replay reads at a time, if it reads several parts.
const READ_BYTES_MAX: usize = 512 << 10;

/// Which parts an egress spools.
#[derive(Clone, Debug)]
pub struct SpoolLink {
    /// The spool's thread.
    pub handle: Handle,
    /// The name of the egress's upstream there; empty for the main one.
    pub name: Box<str>,
    /// Whether parts go there before they are sent.
    pub always: bool,
    /// Whether 429 counts as a failure.
    pub on_429: bool,
}

/// One lane's part in it.
#[derive(Debug, Default)]
pub(super) struct SpooledLane {
    /// Whether it has parts in the spool, as far as is known.
    has_parts: Cell<bool>,
    /// Parts on their way into the spool.
    appending: Cell<usize>,
    /// Whether a replay waits, or goes on.
    replays: Cell<bool>,
    /// How long the replay waits if it fails.
    pause: Cell<Option<Duration>>,
    /// The parts that are to be sent one by one, as their request was refused.
    alone: Cell<usize>,
    /// The outcome of the part that was just sent in pieces.
    outcome: RefCell<Option<Outcome>>,
}

impl SpooledLane {
    /// Whether new parts have to go behind others in the spool.
    pub(super) fn is_spooled(&self) -> bool {
        self.has_parts.get() || self.appending.get() > 0
    }

    /// Whether the lane has nothing to do with the spool.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_spooled() && !self.replays.get()
    }

    /// Takes the outcome of a part out of the spool.
    pub(super) fn ended(&self, outcome: Outcome) {
        *self.outcome.borrow_mut() = Some(outcome);
    }
}

/// The spool, as an egress sees it.
#[derive(Debug, Default)]
pub(super) struct Spooling {
    /// What is on its way into the spool, in the order in which it was sent there.
    appends: RefCell<VecDeque<Append>>,
    /// Lanes whose replay waits until a time. The number tells apart those of one time.
    waits: RefCell<BTreeMap<(Instant, u64), Rc<TenantLane>>>,
    /// Lanes whose replay waits for its turn.
    ready: RefCell<VecDeque<Rc<TenantLane>>>,
    /// Replays that go on.
    going: Cell<usize>,
    /// Grows with each wait.
    number: Cell<u64>,
    /// Whether no more replays begin.
    is_closed: Cell<bool>,
}

/// A part on its way into the spool.
#[derive(Debug)]
struct Append {
    lane: Rc<TenantLane>,
    /// `None`: it has waited for too long, and its sender has an outcome.
    fragment: Option<Box<Fragment>>,
    /// What its upstream has done to it, if it was sent.
    failed: Option<Outcome>,
    /// How long it may take.
    until: Instant,
}

/// How a request with parts out of the spool has ended.
enum Replayed {
    /// The upstream has stored it.
    Stored,
    /// It was refused, and is to be sent part by part.
    RefusedTogether,
    /// Its only part was refused for good.
    Refused(Outcome),
    /// It is to be sent again later.
    Failed(Outcome),
}

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
        fails && fragment.sender.is_some()
    }

    /// Sends a fragment into the spool. It keeps its room until it is durable. `failed` is what its upstream has done to
    /// it, if it was sent.
    pub(super) fn spool(&self, lane: &Rc<TenantLane>, fragment: Box<Fragment>, failed: Option<Outcome>) {
        let Some(link) = &self.spool else { return };
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
        let append = Append { lane: Rc::clone(lane), fragment: Some(fragment), failed, until };
        self.spooling.appends.borrow_mut().push_back(append);
        link.handle.send(Command::Append(self.reply_to(), Box::new(spooled)));
    }

    /// Takes up what the spool had of a tenant when the process started.
    pub fn recover(self: &Rc<Self>, stream: &Stream, totals: StreamTotals) {
        let lane = self.lane(&stream.tenant);
        lane.spool.has_parts.set(true);
        show(&lane, totals);
        self.replay_at(&lane, Instant::now());
    }

    /// Takes a reply of the spool.
    pub fn spool_replied(self: &Rc<Self>, reply: Reply, terms: &Arc<Terms>) {
        match reply.what {
            What::Appended(result) => {
                let append = self.spooling.appends.borrow_mut().pop_front();
                append.into_iter().for_each(|append| self.appended(append, &result));
            }
            What::Front(stream, read, totals) => {
                let lane = self.lane(&stream.tenant);
                show(&lane, totals);
                self.has_read(&lane, stream, read, terms);
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
                    let pause = if failed.is_some() { PAUSE_MIN } else { Duration::ZERO };
                    self.replay_at(&lane, Instant::now() + pause);
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
            self.spooling.ready.borrow_mut().push_back(first.remove());
        }
        self.start_replays();
    }

    fn give_up_appends(&self, now: Instant) {
        let mut given_up = Vec::new();
        for append in self.spooling.appends.borrow_mut().iter_mut().take_while(|append| append.until <= now) {
            if let Some(fragment) = append.fragment.take() {
                given_up.push((Rc::clone(&append.lane), fragment, append.failed.take()));
            }
        }
        if given_up.is_empty() {
            return;
        }
        for (lane, fragment, failed) in given_up {
            self.counters().spool_failed.add(1);
            self.refuse_spooled(&lane, fragment, failed, "the disk has not taken it in time");
        }
        self.ring();
    }

    /// Begins no more replays.
    pub fn stop_replays(&self) {
        self.spooling.is_closed.set(true);
    }

    /// Replays a lane from this time on.
    fn replay_at(&self, lane: &Rc<TenantLane>, at: Instant) {
        lane.spool.replays.set(true);
        let number = self.spooling.number.get();
        self.spooling.number.set(number + 1);
        self.spooling.waits.borrow_mut().insert((at, number), Rc::clone(lane));
    }

    /// Begins replays, in turns, while there is room for more.
    fn start_replays(&self) {
        let Some(link) = &self.spool else { return };
        let replays_max = self.replays_max();
        while self.spooling.going.get() < replays_max && !self.spooling.is_closed.get() {
            let Some(lane) = self.spooling.ready.borrow_mut().pop_front() else { return };
            self.spooling.going.set(self.spooling.going.get() + 1);
            let limits = self.lane_limits(&lane, Instant::now());
            let parts_max = if lane.spool.alone.get() > 0 { 1 } else { limits.fragments_max };
            link.handle.send(Command::Front {
                to: self.reply_to(),
                stream: self.stream(link, &lane),
                parts_max,
                bytes_max: READ_BYTES_MAX,
            });
        }
    }

    /// A quarter of the connections that requests may leave early on: replays are in no hurry.
    fn replays_max(&self) -> usize {
        (self.settings.get().early_below / 4).clamp(1, REPLAYS_MAX)
    }

    /// Sends the first run of what was read, or takes the lane back to the direct way.
    fn has_read(
        self: &Rc<Self>,
        lane: &Rc<TenantLane>,
        stream: Stream,
        read: std::io::Result<Vec<(Sequence, Spooled)>>,
        terms: &Arc<Terms>,
    ) {
        let parts = match read {
            Ok(parts) => parts,
            Err(_) => return self.ends_turn(lane, Some(PAUSE_MAX)),
        };
        if parts.is_empty() {
            lane.spool.has_parts.set(false);
            lane.spool.pause.set(None);
            lane.spool.alone.set(0);
            self.spooling.going.set(self.spooling.going.get() - 1);
            lane.spool.replays.set(false);
            self.start_replays();
            return self.retire(lane);
        }
        let (batch, last) = self.run_of(lane, parts, terms);
        let (egress, lane) = (Rc::clone(self), Rc::clone(lane));
        self.tasks.spawn(async move { egress.replay(lane, stream, batch, last).await });
    }

    /// The longest run of parts, from the first one on, that may share a request; and the sequence of each.
    fn run_of(
        &self,
        lane: &TenantLane,
        parts: Vec<(Sequence, Spooled)>,
        terms: &Arc<Terms>,
    ) -> (Batch, Vec<Sequence>) {
        let limits = self.lane_limits(lane, Instant::now());
        let (mut batch, mut sequences, mut bytes) = (Batch::new(), Vec::new(), 0);
        for (sequence, spooled) in parts {
            let fragment = self.fragment(spooled, terms);
            bytes += fragment.inflated_bytes();
            let joins = batch.first().is_none_or(|first: &Box<Fragment>| {
                lane.spool.alone.get() == 0 && bytes <= limits.inflated_bytes_max && fragment.goes_with(first)
            });
            if !joins {
                break;
            }
            batch.push(fragment);
            sequences.push(sequence);
        }
        (batch, sequences)
    }

    fn fragment(&self, spooled: Spooled, terms: &Arc<Terms>) -> Box<Fragment> {
        let now = Instant::now();
        let charge = self.shared.bytes.no_charge().beside(spooled.part.elements.len());
        Box::new(Fragment {
            part: spooled.part,
            upstream: self.settings.get().upstream,
            terms: Arc::clone(terms),
            passed: spooled.passed.map(Arc::new),
            sender: None,
            start_by: now + self.settings.get().timeout,
            arrived: now,
            client: spooled.client,
            request_id: RequestId(spooled.request_id),
            receipt: None,
            alone: false,
            entry: Entry::default(),
            charge,
            traced: None,
            held: None,
        })
    }

    /// Sends a run of parts out of the spool, and says what comes next for its lane.
    async fn replay(
        self: Rc<Self>,
        lane: Rc<TenantLane>,
        stream: Stream,
        mut batch: Batch,
        mut sequences: Vec<Sequence>,
    ) {
        let first = batch.first().map(|fragment| self.spooled_again(fragment));
        let replayed = self.send_replay(&lane, &mut batch).await;
        // Without those for which the request had no room.
        sequences.truncate(batch.len());
        let parts = sequences.len();
        let last = sequences.last().copied();
        match replayed {
            Replayed::Stored => {
                self.counters().spool_replayed.add(parts as u64);
                self.goes_on(&lane, stream, last);
            }
            Replayed::RefusedTogether => {
                lane.spool.alone.set(parts);
                self.ends_turn(&lane, None);
            }
            Replayed::Refused(outcome) => {
                self.bury(&lane, &batch, first, &outcome);
                self.goes_on(&lane, stream, last);
            }
            Replayed::Failed(outcome) => {
                self.counters().spool_probes_failed.add(1);
                let before = lane.spool.pause.get();
                let pause = before.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX));
                lane.spool.pause.set(Some(pause));
                let asked = Duration::from_secs(outcome.wait_secs().unwrap_or_default().into());
                self.ends_turn(&lane, Some(pause.max(asked.min(PAUSE_MAX))));
            }
        }
        self.ring();
    }

    /// Removes what is done from the spool, and lets the lane wait for its next turn.
    fn goes_on(&self, lane: &Rc<TenantLane>, stream: Stream, last: Option<Sequence>) {
        lane.spool.pause.set(None);
        lane.spool.alone.set(lane.spool.alone.get().saturating_sub(1));
        if let (Some(link), Some(last)) = (&self.spool, last) {
            link.handle.send(Command::Remove(stream, last));
        }
        self.ends_turn(lane, None);
    }

    /// Ends a lane's turn. The next one comes after `pause`, or as soon as there is room.
    fn ends_turn(&self, lane: &Rc<TenantLane>, pause: Option<Duration>) {
        self.spooling.going.set(self.spooling.going.get() - 1);
        match pause {
            Some(pause) => self.replay_at(lane, Instant::now() + pause),
            None => self.spooling.ready.borrow_mut().push_back(Rc::clone(lane)),
        }
        self.start_replays();
    }

    /// Sends a request with parts out of the spool. Removes those from the batch for which it has no room.
    async fn send_replay(self: &Rc<Self>, lane: &Rc<TenantLane>, batch: &mut Batch) -> Replayed {
        if batch.len() == 1
            && batch.iter().all(|one| one.part.series > 1)
            && self.is_known_too_large(lane, batch)
        {
            let refusal = Outcome::upstream(413, None, b"the upstream takes no request as large as this");
            return self.replay_in_pieces(lane, batch, refusal).await;
        }
        self.turn_to_pack(batch).await;
        let connection = self.connection(lane.standing(), start_by(batch)).await;
        let mut packed = None;
        if connection.is_ok() {
            packed = self.pack(lane, batch).0;
        }
        let Attempt { via, result } =
            self.attempt_over(connection, lane, Outgoing::new(batch, packed.as_ref())).await;
        match result {
            Ok(reply) if batch.len() > 1 && blames_content(reply.status) => Replayed::RefusedTogether,
            Ok(reply) if reply.is_too_large() => {
                let refusal = Outcome { via, ..reply.into_outcome() };
                self.replay_in_pieces(lane, batch, refusal).await
            }
            Ok(reply) => Replayed::of(Outcome { via, ..reply.into_outcome() }),
            Err(failure) => Replayed::of(failure.outcome(self.settings.get().timeout)),
        }
    }

    /// Sends the only part of a batch in pieces. A part in its place stands for it.
    async fn replay_in_pieces(
        self: &Rc<Self>,
        lane: &Rc<TenantLane>,
        batch: &mut Batch,
        refusal: Outcome,
    ) -> Replayed {
        let Some(whole) = batch.first().map(|one| self.spooled_again(one)) else { return Replayed::Stored };
        let terms = batch.first().map(|one| Arc::clone(&one.terms));
        if let (Some(fragment), Some(terms)) = (batch.pop(), terms) {
            batch.push(self.fragment(whole, &terms));
            Box::pin(self.deliver_in_pieces(lane, fragment, refusal.clone())).await;
        }
        let outcome = lane.spool.outcome.borrow_mut().take();
        Replayed::of(outcome.unwrap_or(refusal))
    }

    /// What the spool has of a fragment that came out of it.
    fn spooled_again(&self, fragment: &Fragment) -> Spooled {
        Spooled {
            upstream: self.spool.as_ref().map(|link| link.name.clone()).unwrap_or_default(),
            part: fragment.part.clone(),
            passed: fragment.passed.as_deref().cloned(),
            client: fragment.client,
            request_id: fragment.request_id.0,
            spooled_at: now_millis(),
        }
    }

    /// Counts, logs and keeps a part that the upstream has refused for good, long after its sender was told that it is
    /// stored.
    fn bury(&self, lane: &TenantLane, batch: &[Box<Fragment>], first: Option<Spooled>, outcome: &Outcome) {
        self.counters().spool_rejected.add(1);
        let samples = batch.iter().map(|fragment| u64::from(fragment.part.samples)).sum();
        lane.metrics.spool_refused.add(samples);
        if let Some(fragment) = batch.first() {
            lane.note_error(fragment, outcome);
        }
        let status = outcome.status;
        let what = format!("spooled data was refused with {status}: {}", outcome.message.trim());
        self.log(lane, batch, &what);
        if let (Some(link), Some(first)) = (&self.spool, first) {
            link.handle.send(Command::Bury(Box::new(first), format!("{status} {}", outcome.message.trim())));
        }
    }

    fn reply_to(&self) -> ReplyTo {
        ReplyTo { core: self.exchange.core(), upstream: self.settings.get().upstream }
    }

    fn stream(&self, link: &SpoolLink, lane: &TenantLane) -> Stream {
        Stream {
            upstream: link.name.clone(),
            destination: self.settings.get().upstream.destination(),
            tenant: lane.tenant.clone(),
        }
    }
}

impl Replayed {
    /// What the outcome of a request with one part means, or of one that was not refused.
    fn of(outcome: Outcome) -> Self {
        match Fate::of(outcome.sender_status()) {
            Fate::Delivered => Self::Stored,
            Fate::Rejected => Self::Refused(outcome),
            Fate::Throttled | Fate::Retriable => Self::Failed(outcome),
        }
    }
}

/// Shows what the spool has of a lane.
fn show(lane: &TenantLane, totals: StreamTotals) {
    let as_size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    lane.metrics.spool_bytes.set(as_size(totals.bytes));
    lane.metrics.spool_oldest.set(as_size(totals.oldest / 1_000));
}
