//! Sends a part that is too large for its upstream in pieces: it is halved, and halved again, down to a single entry.
//!
//! Constraints that shaped it:
//! - Pieces are sent one after the other, in order. The first one that fails with a status that invites a retry ends
//!   the delivery, as the sender will send the whole part again. Each piece has a receipt of its own, and halving the
//!   same part gives the same pieces, so a retry does not resend the delivered ones.
//! - What a piece repeats of its whole, such as the attributes of a resource in OTLP, may be more than the upstream
//!   takes. Then no piece is small enough, and there may be as many as entries, each with a copy. So nothing is halved
//!   any more once the pieces that were too large have [`VAIN_TIMES_MAX`] times the bytes of the whole: what is left is
//!   sent as it is. Entries that are large themselves hardly bring it about: without what is repeated, all of them
//!   together are no more than the whole.
//! - No sender waits for what the spool replays, and other data of its tenant waits behind it. So a replay goes on for
//!   as long as its pieces get answers: if it had to end in time, it would begin anew for ever.
//! - Halving inflates, walks and compresses what may be large. It takes its turn among the core's work.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Egress;
use super::attempt::Attempt;
use super::tenant_lane::TenantLane;
use crate::exchange::fragment::{Delivered, Fragment};
use crate::io::tasks::pause;
use crate::model::{Failure, Outcome, Part, blames_content};
use crate::split::{compressing_work, halve, scanning_work};
use crate::verdict::{combine, otlp};

/// How many times the bytes of a part may be sent in vain, in pieces that are too large and can't be halved.
const VAIN_TIMES_MAX: u64 = 8;

/// How the pieces of a part went.
#[derive(Default)]
struct Ended {
    /// The samples of each piece, in order.
    items: Vec<u32>,
    /// Its outcome.
    outcomes: Vec<Outcome>,
    /// What is stored, for receipts.
    delivered: Vec<Delivered>,
    /// The bytes of those that were too large, and were not halved.
    vain_bytes: u64,
}

impl Egress {
    /// Delivers a part in pieces and sends their combined outcome. A part that cannot be halved gets `refusal`.
    pub(super) async fn deliver_in_pieces(
        &self,
        lane: &Rc<TenantLane>,
        mut fragment: Box<Fragment>,
        refusal: Outcome,
    ) {
        let mut ended = Ended::default();
        let mut left = Vec::new();
        match self.halve(&fragment.part).await {
            Some(halves) => left.extend(halves.into_iter().rev()),
            None => ended.outcomes.push(refusal),
        }
        let until = self.pieces_until(&fragment);
        let vain_max = VAIN_TIMES_MAX * u64::from(fragment.part.inflated_bytes);
        while let Some(part) = left.pop() {
            pause().await;
            if !self.has_time(until) {
                ended.outcomes.push(Failure::TimedOut.outcome(self.settings.get().timeout));
                break;
            }
            let mut batch = self.piece(&mut fragment, part, until);
            let outcome = self.deliver_piece(lane, &batch, ended.vain_bytes <= vain_max).await;
            let [piece] = &mut batch;
            let outcome = match outcome {
                Piece::Done(outcome) => {
                    self.end_piece(lane, &mut fragment, piece, &outcome);
                    outcome
                }
                Piece::TooLarge(outcome) => {
                    ended.vain_bytes += u64::from(piece.part.inflated_bytes);
                    self.end_piece(lane, &mut fragment, piece, &outcome);
                    outcome
                }
                Piece::Known(outcome) => {
                    std::mem::take(&mut piece.entry).repeat();
                    outcome
                }
                Piece::Halved(halves) => {
                    fragment.entry.join(std::mem::take(&mut piece.entry));
                    left.extend(halves.into_iter().rev());
                    continue;
                }
            };
            ended.items.push(piece.part.samples);
            if let (true, Some(receipt)) = (outcome.is_delivered(), piece.receipt) {
                let upstream = self.settings.get().upstream;
                ended.delivered.push(Delivered { upstream, receipt, outcome: outcome.clone() });
            }
            let ends_it = outcome.invites_retry();
            ended.outcomes.push(outcome);
            if ends_it {
                break;
            }
        }
        self.end_pieces(lane, fragment, ended);
    }

    /// Sends the combined outcome of the pieces.
    fn end_pieces(&self, lane: &Rc<TenantLane>, fragment: Box<Fragment>, ended: Ended) {
        let Ended { items, outcomes, delivered, .. } = ended;
        // What the spool replays has no sender, and refused pieces are kept elsewhere.
        let outcome = match fragment.part.protocol.export().filter(|_| fragment.sender.is_some()) {
            Some(_) => otlp::combine(&items, &outcomes),
            None => combine(&outcomes),
        };
        if outcome.invites_retry() {
            delivered.into_iter().for_each(|piece| self.remember(piece));
        }
        self.finish(lane, fragment, outcome);
    }

    /// Until when pieces are sent; for ever if no sender waits for them.
    fn pieces_until(&self, fragment: &Fragment) -> Option<Instant> {
        // The same extension that a fragment of a refused batch gets. One that goes alone has had it already.
        let more = if fragment.alone { Duration::ZERO } else { self.settings.get().timeout };
        fragment.sender.is_some().then(|| fragment.start_by + more)
    }

    /// Whether another piece may be sent.
    fn has_time(&self, until: Option<Instant>) -> bool {
        until.map_or_else(|| !self.spooling.is_closed.get(), |until| Instant::now() < until)
    }

    /// Halves a part, in its turn.
    async fn halve(&self, part: &Part) -> Option<[Part; 2]> {
        self.tasks.yield_if_busy().await;
        let Part { protocol, coding, inflated_bytes, .. } = part;
        let bytes = *inflated_bytes as usize;
        let work = scanning_work(*protocol, coding.now, bytes) + compressing_work(coding.now, bytes);
        self.tasks.record_work(work);
        halve(part)
    }

    /// Makes a batch for one piece of `whole`.
    fn piece(&self, whole: &mut Fragment, part: Part, until: Option<Instant>) -> [Box<Fragment>; 1] {
        let start_by = Instant::now() + self.settings.get().timeout;
        [Box::new(Fragment {
            receipt: self.settings.get().receipt_key.receipt(
                &part,
                whole.terms.place,
                whole.passed.as_deref(),
            ),
            charge: whole.charge.split_off(part.elements.len()),
            entry: whole.entry.split_off(part.samples.into()),
            part,
            start_by: until.map_or(start_by, |until| start_by.min(until)),
            terms: Arc::clone(&whole.terms),
            passed: whole.passed.clone(),
            traced: whole.traced.clone(),
            alone: true,
            // The whole holds it until its outcome.
            held: None,
            ..*whole
        })]
    }

    /// Settles a piece that was answered.
    fn end_piece(
        &self,
        lane: &Rc<TenantLane>,
        whole: &mut Fragment,
        piece: &mut Box<Fragment>,
        outcome: &Outcome,
    ) {
        if whole.sender.is_none() && blames_content(outcome.status) {
            // No sender hears of it: it is kept elsewhere.
            lane.spool.refused.borrow_mut().push((piece.part.clone(), outcome.clone()));
        }
        match self.spools_failed(whole, outcome) {
            // The whole goes into the spool, with what the ledger has of this piece.
            true => whole.entry.join(std::mem::take(&mut piece.entry)),
            false => self.settle(lane, piece, outcome),
        }
    }

    /// Sends a piece, or says what to send in its place.
    async fn deliver_piece(
        &self,
        lane: &Rc<TenantLane>,
        batch: &[Box<Fragment>; 1],
        is_halved: bool,
    ) -> Piece {
        let [piece] = batch;
        if let Some(outcome) = self.delivered_before(piece) {
            self.counters().receipts_used.add(1);
            return Piece::Known(outcome);
        }
        let is_known_too_large = self.is_known_too_large(lane, batch);
        if is_halved
            && is_known_too_large
            && let Some(halves) = self.halve(&piece.part).await
        {
            return Piece::Halved(halves);
        }
        self.counters().pieces.add(1);
        let Attempt { via, result } = self.attempt(lane, batch).await;
        match result {
            Ok(reply) if reply.is_too_large() => {
                let is_halved = is_halved && !is_known_too_large;
                let halves = if is_halved { self.halve(&piece.part).await } else { None };
                let refused = || Piece::TooLarge(Outcome { via, ..reply.into_outcome() });
                halves.map_or_else(refused, Piece::Halved)
            }
            Ok(reply) => Piece::Done(Outcome { via, ..reply.into_outcome() }),
            Err(failure) => Piece::Done(Outcome { via, ..failure.outcome(self.settings.get().timeout) }),
        }
    }
}

/// The result of sending a piece.
enum Piece {
    Done(Outcome),
    /// It is too large, and is not halved.
    TooLarge(Outcome),
    /// It had been stored before.
    Known(Outcome),
    /// The piece is too large; these are sent in its place.
    Halved([Part; 2]),
}
