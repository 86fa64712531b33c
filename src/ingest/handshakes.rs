//! The TLS handshakes in progress on one core. Their number has a limit; at the limit the oldest one ends. An honest
//! client is done within a few round trips, so the oldest is the one that stalls.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::io::deadline::Cutter;
use crate::limits::HANDSHAKES_MAX;

/// The handshakes in progress on one core.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// By number; the oldest has the lowest.
    in_progress: RefCell<BTreeMap<u64, Cutter>>,
    next: Cell<u64>,
}

impl Handshakes {
    /// Adds a handshake, and cuts the oldest one if there are too many. Returns the number for [`end`](Self::end).
    pub(super) fn begin(&self, cutter: Cutter) -> u64 {
        let mut in_progress = self.in_progress.borrow_mut();
        if in_progress.len() >= HANDSHAKES_MAX
            && let Some((_, oldest)) = in_progress.pop_first()
        {
            oldest.cut();
        }
        let number = self.next.get();
        self.next.set(number + 1);
        in_progress.insert(number, cutter);
        number
    }

    /// Cuts all handshakes in progress: no request has begun on their connections.
    pub(super) fn cut_all(&self) {
        self.in_progress.borrow().values().for_each(Cutter::cut);
    }

    pub(super) fn end(&self, number: u64) {
        self.in_progress.borrow_mut().remove(&number);
    }
}
