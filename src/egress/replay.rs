//! Replays: what the spool has of a lane is sent to its upstream.
//!
//! Order is kept, so a lane has one request at a time, and each carries a run of parts in their order: [`backlog`] says
//! which. A lane whose latest replay failed sends a *probe*: one part. Its request may hang for as long as a timeout
//! lasts, so probes have places of their own, and leave the others to lanes whose upstream takes their parts.
//!
//! On the direct way, parts in Remote Write 2.0, and those of OTLP in gzip or zstd, are merged only if they are small:
//! for a large one, writing and deflating it once more takes longer than the request that it saves, and requests go
//! side by side. Those of OTLP in JSON are not merged at all there. Here one waits for the other, and a request costs a
//! round trip. So parts of all sizes and notations are merged, up to the size that merged requests have otherwise. They
//! are inflated and looked at for it in the core's turns of work. Nor need they have one coding: a request has that of
//! its first part. A request is in one notation, and what is in JSON shares none if its document has more than a list.
//!
//! The coding that a target always wants may have changed since a part was spooled. It is sent as the target wants it
//! now.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Egress;
use super::attempt::Attempt;
use super::backlog::{Backlog, Waits};
use super::outgoing::Outgoing;
use super::spooling::{PAUSE_MAX, Turns, pause};
use super::tenant_lane::{Batch, TenantLane, start_by};
use crate::config::plan::Terms;
use crate::exchange::fragment::{Fragment, RequestId};
use crate::http::Passed;
use crate::metrics::ledger::Entry;
use crate::model::{Fate, HaLabels, Outcome, Part, TargetCoding, blames_content};
use crate::split::{OfReplica, ReplicaReader, can_be_halved, scanning_work};
use crate::spool::worker::Command;
use crate::spool::{Sequence, Spooled, Stream};

/// Lanes of one core and upstream whose turn it is at a time, of those whose upstream takes their parts: at most.
const REPLAYS_MAX: usize = 8;

/// The same for probes. They are small, and those that hang share the connections that slow tenants may have.
const PROBES_MAX: usize = 64;

/// Bytes of elements that a replay reads at a time, if it reads several parts.
const READ_BYTES_MAX: usize = 512 << 10;

/// A part out of the spool.
struct Read {
    spooled: Spooled,
    replica: OfReplica,
}

impl Waits for Read {
    fn joins(&self, first: &Self) -> bool {
        let (part, of) = (&self.spooled.part, &first.spooled.part);
        part.protocol == of.protocol
            && self.replica.key.merges_with(&first.replica.key)
            && Passed::deciding(self.spooled.passed.as_ref())
                == Passed::deciding(first.spooled.passed.as_ref())
    }

    fn is_apart_from(&self, other: &Self) -> bool {
        self.replica.is_apart_from(&other.replica)
    }

    fn inflated_bytes(&self) -> usize {
        self.spooled.part.inflated_bytes as usize
    }
}

/// How a request with parts out of the spool has ended.
enum Replayed {
    /// The upstream has stored it.
    Stored,
    /// It was refused, and is to be sent part by part.
    RefusedTogether,
    /// Its only part was refused for good, or all of its parts. If only pieces of the part were: these.
    Refused(Outcome, Vec<(Part, Outcome)>),
    /// It is to be sent again later.
    Failed(Outcome),
}

impl Egress {
    /// Replays a lane from this time on.
    pub(super) fn replay_at(&self, lane: &Rc<TenantLane>, at: Instant) {
        lane.spool.replays.set(true);
        let number = self.spooling.number.get();
        self.spooling.number.set(number + 1);
        self.spooling.waits.borrow_mut().insert((at, number), Rc::clone(lane));
    }

    /// Lets a lane wait for its turn.
    pub(super) fn wait_for_turn(&self, lane: &Rc<TenantLane>) {
        self.turns_of(lane).waiting.borrow_mut().push_back(Rc::clone(lane));
    }

    fn turns_of(&self, lane: &TenantLane) -> &Turns {
        if lane.spool.is_proved.get() { &self.spooling.proved } else { &self.spooling.probes }
    }

    /// Begins replays, in turns, while there is room for more.
    pub(super) fn start_replays(&self) {
        // A quarter of the connections that requests may leave early on: replays are in no hurry.
        let replays_max = (self.settings.get().early_below / 4).clamp(1, REPLAYS_MAX);
        while !self.spooling.is_closed.get() {
            let proved = self.spooling.proved.next(replays_max);
            let Some(lane) = proved.or_else(|| self.spooling.probes.next(PROBES_MAX)) else { return };
            self.read(&lane);
        }
    }

    /// Reads what a lane sends in its turn. A probe is small: most of them are in vain.
    fn read(&self, lane: &TenantLane) {
        let Some(link) = &self.spool else { return };
        let limits = self.lane_limits(lane, Instant::now());
        link.handle.send(Command::Front {
            to: self.reply_to(),
            stream: self.stream(link, lane),
            parts_max: if lane.spool.is_proved.get() { limits.fragments_max } else { 1 },
            bytes_max: READ_BYTES_MAX,
        });
    }

    /// Sends what was read, or takes the lane back to the direct way.
    pub(super) fn has_read(
        self: &Rc<Self>,
        lane: &Rc<TenantLane>,
        stream: Stream,
        read: std::io::Result<Vec<(Sequence, Spooled)>>,
        terms: &Arc<Terms>,
        ha_labels: Option<&HaLabels>,
    ) {
        let Ok(mut read) = read else { return self.ends_turn(lane, Some(PAUSE_MAX)) };
        let Some((first, _)) = read.first() else { return self.ends_replays(lane) };
        if lane.spool.buried.take() == Some(*first) {
            // The file of dead letters can't be written, and the part must not be lost.
            return self.ends_turn(lane, Some(PAUSE_MAX));
        }
        let coding = *terms.codings.of(stream.destination);
        read.iter_mut().for_each(|(_, spooled)| recode(&mut spooled.part, coding));
        let (egress, lane, terms) = (Rc::clone(self), Rc::clone(lane), Arc::clone(terms));
        let ha_labels = ha_labels.cloned();
        self.tasks.spawn(async move {
            let read = egress.look_at(read, ha_labels.as_ref()).await;
            egress.replay(lane, stream, read, terms).await;
        });
    }

    /// Nothing is left in the spool: the lane's next part goes directly, unless one is on its way into the spool.
    fn ends_replays(&self, lane: &Rc<TenantLane>) {
        let turns = self.turns_of(lane);
        turns.going.set(turns.going.get() - 1);
        lane.spool.has_parts.set(false);
        lane.spool.is_proved.set(false);
        lane.spool.failing_since.set(None);
        lane.spool.alone.set(0);
        lane.spool.ahead.take();
        lane.spool.replays.set(false);
        self.start_replays();
        self.retire(lane);
    }

    /// Finds out which replica each part is of, unless all may share requests as they are.
    async fn look_at(
        &self,
        read: Vec<(Sequence, Spooled)>,
        ha_labels: Option<&HaLabels>,
    ) -> Vec<(Sequence, Read)> {
        let key = |at: usize| read.get(at).map(|(_, spooled)| &spooled.part.merge);
        let are_alike = read.iter().all(|(_, spooled)| {
            !ReplicaReader::may_give_key(&spooled.part) && Some(&spooled.part.merge) == key(0)
        });
        let mut reader = ReplicaReader::new(ha_labels);
        let mut looked_at = Vec::with_capacity(read.len());
        let is_needed = read.len() > 1 && !are_alike;
        for (sequence, spooled) in read {
            let replica = match is_needed && ReplicaReader::looks_into(&spooled.part) {
                true => {
                    self.tasks.yield_if_busy().await;
                    let Part { protocol, coding, inflated_bytes, .. } = &spooled.part;
                    self.tasks.record_work(scanning_work(*protocol, coding.now, *inflated_bytes as usize));
                    reader.read(&spooled.part)
                }
                false => OfReplica::by_key(&spooled.part),
            };
            looked_at.push((sequence, Read { spooled, replica }));
        }
        looked_at
    }

    /// The request for these parts.
    fn batch(&self, backlog: &Backlog<Read>, run: &[Sequence], terms: &Arc<Terms>) -> Batch {
        let read = run.iter().filter_map(|sequence| backlog.get(*sequence));
        let fragment = |read: &Read| {
            let mut spooled = read.spooled.clone();
            spooled.part.merge = read.replica.key.clone();
            self.fragment(spooled, terms)
        };
        read.map(fragment).collect()
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

    /// Sends what was read, run by run, until one is not stored, and says what comes next for the lane.
    async fn replay(
        self: Rc<Self>,
        lane: Rc<TenantLane>,
        stream: Stream,
        read: Vec<(Sequence, Read)>,
        terms: Arc<Terms>,
    ) {
        let alone = &lane.spool.alone;
        let mut backlog = Backlog::new(read, lane.spool.ahead.take());
        let pause = loop {
            let limits = self.lane_limits(&lane, Instant::now());
            let mut run = backlog.run(alone.get() > 0, limits.inflated_bytes_max);
            if run.is_empty() {
                break None;
            }
            let mut batch = self.batch(&backlog, &run, &terms);
            let replayed = self.send_replay(&lane, &mut batch).await;
            // The request may have had no room for all.
            run.truncate(batch.len());
            match replayed {
                Replayed::Stored => {
                    self.counters().spool_replayed.add(run.len() as u64);
                    lane.spool.failing_since.set(None);
                    alone.set(alone.get().saturating_sub(1));
                    backlog.has_stored(&run);
                }
                Replayed::Refused(..) if !backlog.begins_with(&run) => alone.set(backlog.count_to(&run)),
                Replayed::RefusedTogether => alone.set(backlog.count_to(&run)),
                Replayed::Refused(outcome, pieces) => {
                    lane.spool.failing_since.set(None);
                    alone.set(alone.get().saturating_sub(1));
                    self.bury(&lane, &stream, &batch, (&backlog, &run), &outcome, pieces);
                    break None;
                }
                Replayed::Failed(outcome) => break Some(self.pause_after(&lane, &outcome)),
            }
        };
        let (done, ahead) = backlog.into_done();
        lane.spool.ahead.replace(ahead);
        if let (Some(link), Some(done)) = (&self.spool, done) {
            link.handle.send(Command::Remove(stream, done));
        }
        self.ends_turn_as(&lane, pause.is_none(), pause);
        self.ring();
    }

    /// How long the replay of a lane waits after a failure.
    fn pause_after(&self, lane: &TenantLane, outcome: &Outcome) -> Duration {
        self.counters().spool_probes_failed.add(1);
        let now = Instant::now();
        let since = lane.spool.failing_since.get().unwrap_or(now);
        lane.spool.failing_since.set(Some(since));
        pause(now.saturating_duration_since(since), outcome.wait_secs())
    }

    /// Ends a lane's turn. The next one comes after `pause`, or as soon as there is room.
    fn ends_turn(&self, lane: &Rc<TenantLane>, pause: Option<Duration>) {
        self.ends_turn_as(lane, lane.spool.is_proved.get(), pause);
    }

    /// The same. `is_proved`: the upstream takes the lane's parts.
    fn ends_turn_as(&self, lane: &Rc<TenantLane>, is_proved: bool, pause: Option<Duration>) {
        let turns = self.turns_of(lane);
        turns.going.set(turns.going.get() - 1);
        lane.spool.is_proved.set(is_proved);
        match pause {
            Some(pause) => self.replay_at(lane, Instant::now() + pause),
            None => self.wait_for_turn(lane),
        }
        self.start_replays();
    }

    /// Sends a request with parts out of the spool. Removes those from the batch for which it has no room.
    async fn send_replay(self: &Rc<Self>, lane: &Rc<TenantLane>, batch: &mut Batch) -> Replayed {
        if batch.len() == 1
            && batch.iter().all(|one| can_be_halved(&one.part))
            && self.is_known_too_large(lane, batch)
        {
            let refusal = Outcome::upstream(413, None, b"the upstream takes no request as large as this");
            return self.replay_in_pieces(lane, batch, refusal).await;
        }
        self.turn_to_pack(batch).await;
        let connection = self.connection(lane, start_by(batch)).await;
        // The next one comes after a pause.
        lane.place.set(None);
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
        let samples = batch.iter().map(|fragment| fragment.part.samples).sum::<u32>();
        if let Some(fragment) = batch.pop() {
            batch.push(self.stand_in(&fragment));
            lane.spool.refused.take();
            Box::pin(self.deliver_in_pieces(lane, fragment, refusal.clone())).await;
        }
        let outcome = lane.spool.outcome.borrow_mut().take();
        let refused = lane.spool.refused.take();
        let refused_samples = refused.iter().map(|(piece, _)| piece.samples).sum::<u32>();
        match Replayed::of(outcome.unwrap_or(refusal)) {
            // All pieces were sent, and the others were stored.
            Replayed::Refused(outcome, _) if !outcome.is_unwritten && refused_samples < samples => {
                Replayed::Refused(outcome, refused)
            }
            replayed => replayed,
        }
    }

    /// What stands for a fragment out of the spool in its batch while it is sent in pieces.
    fn stand_in(&self, fragment: &Fragment) -> Box<Fragment> {
        let spooled = Spooled {
            upstream: Box::default(),
            part: fragment.part.clone(),
            passed: fragment.passed.as_deref().cloned(),
            client: fragment.client,
            request_id: fragment.request_id.0,
            spooled_at: 0,
        };
        self.fragment(spooled, &fragment.terms)
    }

    /// Counts and logs parts that the upstream has refused for good, long after their senders were told that they are
    /// stored, and has the spool keep them elsewhere; of a part of which `pieces` were refused, only these.
    fn bury(
        &self,
        lane: &TenantLane,
        stream: &Stream,
        batch: &[Box<Fragment>],
        (backlog, refused): (&Backlog<Read>, &[Sequence]),
        outcome: &Outcome,
        pieces: Vec<(Part, Outcome)>,
    ) {
        self.counters().spool_rejected.add(refused.len() as u64);
        let of_pieces = pieces.iter().map(|(piece, _)| u64::from(piece.samples)).sum();
        let of_batch = || batch.iter().map(|fragment| u64::from(fragment.part.samples)).sum();
        lane.metrics.spool_refused.add(if pieces.is_empty() { of_batch() } else { of_pieces });
        if let Some(fragment) = batch.first() {
            lane.note_error(fragment, outcome);
        }
        self.log(lane, batch, &format!("spooled data was refused with {}", reason(outcome)));
        let Some(link) = &self.spool else { return };
        lane.spool.buried.set(refused.first().copied());
        for sequence in refused.iter().copied() {
            let Some(Read { spooled, .. }) = backlog.get(sequence) else { continue };
            let piece = |(part, outcome): &(Part, Outcome)| {
                (Spooled { part: part.clone(), ..spooled.clone() }, reason(outcome))
            };
            let letters = match &pieces[..] {
                [] => vec![(spooled.clone(), reason(outcome))],
                pieces => pieces.iter().map(piece).collect(),
            };
            link.handle.send(Command::Bury { stream: stream.clone(), sequence, letters });
        }
    }
}

/// Has a part in OTLP sent as its target wants it by now.
fn recode(part: &mut Part, coding: TargetCoding) {
    if part.protocol.export().is_some() {
        part.coding.sent = coding.sent(part.coding.sent);
    }
}

/// The upstream's status and text.
fn reason(outcome: &Outcome) -> String {
    format!("{}: {}", outcome.status, outcome.message.trim())
}

impl Replayed {
    /// What the outcome of a request with one part means, or of one that was not refused.
    fn of(outcome: Outcome) -> Self {
        match Fate::of(outcome.sender_status()) {
            Fate::Delivered => Self::Stored,
            _ if outcome.is_unwritten => Self::Refused(outcome, Vec::new()),
            Fate::Rejected => Self::Refused(outcome, Vec::new()),
            Fate::Throttled | Fate::Retriable => Self::Failed(outcome),
        }
    }
}
