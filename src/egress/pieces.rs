//! Sends a part that is too large for its upstream in pieces: it is halved, and halved again, down to a single entry.
//!
//! Pieces are sent one after the other. The first one that fails with a status that invites a retry ends the delivery,
//! as the sender will send the whole part again. Each piece has a receipt of its own, and halving the same part gives
//! the same pieces, so a retry does not resend the delivered ones.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Egress;
use super::attempt::Attempt;
use super::tenant_lane::TenantLane;
use crate::exchange::fragment::{Delivered, Fragment};
use crate::io::tasks::pause;
use crate::model::{Failure, Outcome, Part, blames_content};
use crate::split::halve;
use crate::verdict::{combine, otlp};

impl Egress {
    /// Delivers a part in pieces and sends their combined outcome. A part that cannot be halved gets `refusal`.
    pub(super) async fn deliver_in_pieces(
        &self,
        lane: &Rc<TenantLane>,
        mut fragment: Box<Fragment>,
        refusal: Outcome,
    ) {
        let mut left = Vec::new();
        // The samples of each piece, and its outcome.
        let (mut items, mut outcomes) = (Vec::new(), Vec::new());
        match halve(&fragment.part) {
            Some(halves) => left.extend(halves.into_iter().rev()),
            None => outcomes.push(refusal),
        }
        // The same extension that a fragment of a refused batch gets. One that goes alone has had it already.
        let more = if fragment.alone { Duration::ZERO } else { self.settings.get().timeout };
        let until = fragment.start_by + more;
        let mut delivered = Vec::new();
        while let Some(part) = left.pop() {
            pause().await;
            let Some(mut batch) = self.piece(&mut fragment, part, until) else {
                outcomes.push(Failure::TimedOut.outcome(self.settings.get().timeout));
                break;
            };
            let outcome = self.deliver_piece(lane, &batch).await;
            let [piece] = &mut batch;
            let outcome = match outcome {
                Piece::Done(outcome) => {
                    if fragment.sender.is_none() && blames_content(outcome.status) {
                        // No sender hears of it: it is kept elsewhere.
                        lane.spool.refused.borrow_mut().push((piece.part.clone(), outcome.clone()));
                    }
                    match self.spools_failed(&fragment, &outcome) {
                        // The whole goes into the spool, with what the ledger has of this piece.
                        true => fragment.entry.join(std::mem::take(&mut piece.entry)),
                        false => self.settle(lane, piece, &outcome),
                    }
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
            items.push(piece.part.samples);
            if let (true, Some(receipt)) = (outcome.is_delivered(), piece.receipt) {
                let upstream = self.settings.get().upstream;
                delivered.push(Delivered { upstream, receipt, outcome: outcome.clone() });
            }
            let ends_it = outcome.invites_retry();
            outcomes.push(outcome);
            if ends_it {
                break;
            }
        }
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

    /// Makes a batch for one piece of `whole`. Returns `None` if there is no time left.
    fn piece(&self, whole: &mut Fragment, part: Part, until: Instant) -> Option<[Box<Fragment>; 1]> {
        let start_by = Instant::now() + self.settings.get().timeout;
        (Instant::now() < until).then(|| {
            [Box::new(Fragment {
                receipt: self.settings.get().receipt_key.receipt(
                    &part,
                    whole.terms.place,
                    whole.passed.as_deref(),
                ),
                charge: whole.charge.split_off(part.elements.len()),
                entry: whole.entry.split_off(part.samples.into()),
                part,
                start_by: start_by.min(until),
                terms: Arc::clone(&whole.terms),
                passed: whole.passed.clone(),
                traced: whole.traced.clone(),
                alone: true,
                // The whole holds it until its outcome.
                held: None,
                ..*whole
            })]
        })
    }

    async fn deliver_piece(&self, lane: &Rc<TenantLane>, batch: &[Box<Fragment>; 1]) -> Piece {
        let [piece] = batch;
        if let Some(outcome) = self.delivered_before(piece) {
            self.counters().receipts_used.add(1);
            return Piece::Known(outcome);
        }
        if self.is_known_too_large(lane, batch)
            && let Some(halves) = halve(&piece.part)
        {
            return Piece::Halved(halves);
        }
        self.counters().pieces.add(1);
        let Attempt { via, result } = self.attempt(lane, batch).await;
        let outcome = match result {
            Ok(reply) if reply.is_too_large() => match halve(&piece.part) {
                Some(halves) => return Piece::Halved(halves),
                None => reply.into_outcome(),
            },
            Ok(reply) => reply.into_outcome(),
            Err(failure) => failure.outcome(self.settings.get().timeout),
        };
        Piece::Done(Outcome { via, ..outcome })
    }
}

/// The result of sending a piece.
enum Piece {
    Done(Outcome),
    /// It had been stored before.
    Known(Outcome),
    /// The piece is too large; these are sent in its place.
    Halved([Part; 2]),
}
