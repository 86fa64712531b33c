//! What a lane has in the spool, as far as its home core knows.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Instant;

use crate::model::{Outcome, Part};
use crate::spool::Sequence;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SpooledLane {
    /// Whether it has parts in the spool, as far as is known.
    pub(super) has_parts: Cell<bool>,
    /// Parts on their way into the spool.
    pub(super) appending: Cell<usize>,
    /// Whether a replay waits, or goes on.
    pub(super) replays: Cell<bool>,
    /// Whether its latest replay was stored. Otherwise the next one is a probe.
    pub(super) is_proved: Cell<bool>,
    /// Since when nothing was stored that was sent.
    pub(super) failing_since: Cell<Option<Instant>>,
    /// Parts that are to be sent one by one, as a request that had them together was refused.
    pub(super) alone: Cell<usize>,
    /// Parts that are stored, though others before them are not: see [`backlog`](super::backlog). No more than one read
    /// gives.
    pub(super) ahead: RefCell<BTreeSet<Sequence>>,
    /// The first of the parts that were refused for good last, and that the spool was told to bury.
    pub(super) buried: Cell<Option<Sequence>>,
    /// The bytes that its metrics show.
    pub(super) shown_bytes: Cell<u64>,
    /// The outcome of the part that was just sent in pieces.
    pub(super) outcome: RefCell<Option<Outcome>>,
    /// The pieces of it that were refused for good.
    pub(super) refused: RefCell<Vec<(Part, Outcome)>>,
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
