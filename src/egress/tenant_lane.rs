//! One tenant's lane on its home core, with what is known of the tenant there.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::{Lane, Queued};
use super::sizes::Sizes;
use super::spooled_lane::SpooledLane;
use crate::config::plan::Share;
use crate::exchange::fragment::Fragment;
use crate::http::Passed;
use crate::limits::{NOTE_BYTES_MAX, NOTE_MILLIS, PART_INFLATED_BYTES_MAX};
use crate::metrics::{ErrorNote, TenantMetrics};
use crate::model::{MergeKey, Outcome, cut};
use crate::shared::slow::{Class, Standing};
use crate::tenant::TenantId;

/// The fragments of one upstream request. They are boxed because they move from queue to queue.
pub(super) type Batch = Vec<Box<Fragment>>;

/// See the module.
#[derive(Debug)]
pub(super) struct TenantLane {
    pub(super) tenant: TenantId,
    pub(super) queue: RefCell<Lane<Box<Fragment>>>,
    /// Fragments without an outcome yet, and their bytes.
    pub(super) held: Cell<(usize, usize)>,
    /// Whether the tenant's upstream has lately been slow to answer it: see [`pace`](crate::shared::pace).
    pub(super) slow: Cell<bool>,
    /// How many of its latest requests in a row were cut or timed out.
    pub(super) strikes: Cell<u32>,
    /// The place among those who wait for a connection that a request has left which gave up: since when it waited. The
    /// next one takes it. Otherwise a tenant whose requests give up one after the other, as long as a turn of all
    /// tenants takes, would never come to the front.
    pub(super) place: Cell<Option<Instant>>,
    /// Request sizes that upstreams accept from this tenant.
    pub(super) sizes: RefCell<Sizes>,
    /// When the task wakes that waits until a fragment may leave.
    pub(super) wakes: Cell<Option<Instant>>,
    /// What it has in the spool.
    pub(super) spool: SpooledLane,
    /// When a sender, and an error, may be noted again.
    next_notes: Cell<(Option<Instant>, Option<Instant>)>,
    pub(super) metrics: Arc<TenantMetrics>,
}

impl TenantLane {
    pub(super) fn new(tenant: TenantId, metrics: Arc<TenantMetrics>) -> Self {
        Self {
            tenant,
            queue: RefCell::default(),
            held: Cell::default(),
            slow: Cell::default(),
            strikes: Cell::default(),
            place: Cell::default(),
            sizes: RefCell::default(),
            wakes: Cell::default(),
            spool: SpooledLane::default(),
            next_notes: Cell::default(),
            metrics,
        }
    }

    /// Notes that a fragment came, and now and then its sender.
    pub(super) fn note_arrival(&self, fragment: &Fragment) {
        self.metrics.last_seen.set(Some(fragment.arrived));
        let (next, errors) = self.next_notes.get();
        if next.is_none_or(|next| fragment.arrived >= next) {
            self.metrics.notes.sender(fragment.client.ip(), fragment.arrived);
            self.next_notes.set((Some(fragment.arrived + Duration::from_millis(NOTE_MILLIS)), errors));
        }
    }

    /// Now and then notes the error of a fragment.
    pub(super) fn note_error(&self, fragment: &Fragment, outcome: &Outcome) {
        let (senders, next) = self.next_notes.get();
        let now = Instant::now();
        if next.is_some_and(|next| now < next) {
            return;
        }
        self.next_notes.set((senders, Some(now + Duration::from_millis(NOTE_MILLIS))));
        self.metrics.notes.error(ErrorNote {
            at: now,
            request_id: fragment.request_id.0,
            sender: fragment.client,
            status: outcome.status,
            address: outcome.via.map(|via| via.address),
            reason: cut(&outcome.message, NOTE_BYTES_MAX).trim().into(),
        });
    }

    /// Reserves room for a fragment of `bytes` and returns whether the tenant's share has it. A single fragment always
    /// fits.
    pub(super) fn reserve(&self, bytes: usize, share: &Share) -> bool {
        let (parts, held) = self.held.get();
        let fits = parts == 0 || (parts < share.parts_max && held + bytes <= share.bytes_max);
        if fits {
            self.held.set((parts + 1, held + bytes));
        }
        fits
    }

    /// Releases the room of a fragment of `bytes`.
    pub(super) fn release(&self, bytes: usize) {
        let (parts, held) = self.held.get();
        self.held.set((parts - 1, held - bytes));
    }

    /// Returns the number of bytes that one of the tenant's requests may inflate to, as far as is known.
    pub(super) fn inflated_bytes_max(&self, now: Instant) -> usize {
        let known = self.sizes.borrow_mut().bytes_max(now);
        known.map_or(PART_INFLATED_BYTES_MAX, |known| known.min(PART_INFLATED_BYTES_MAX))
    }

    /// Its standing among those who wait for a connection. It takes the place that a request before has left.
    pub(super) fn standing(&self) -> Standing {
        match self.slow.get() {
            true => Standing { class: Class::Slow, strikes: self.strikes.get(), since: self.place.take() },
            false => Standing { since: self.place.take(), ..Standing::PROMPT },
        }
    }

    /// Whether nothing waits here and nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.borrow().is_idle() && self.wakes.get().is_none() && self.spool.is_idle()
    }
}

impl Queued for Box<Fragment> {
    fn merge_key(&self) -> &MergeKey {
        &self.part.merge
    }

    fn goes_with(&self, other: &Self) -> bool {
        self.part.protocol == other.part.protocol
            && self.part.coding.sent == other.part.coding.sent
            && self.part.merge.merges_with(&other.part.merge)
            && Arc::ptr_eq(&self.terms, &other.terms)
            && Passed::deciding(self.passed.as_deref()) == Passed::deciding(other.passed.as_deref())
    }

    fn inflated_bytes(&self) -> usize {
        self.part.inflated_bytes as usize
    }

    fn alone(&self) -> bool {
        self.alone
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn start_by(&self) -> Instant {
        self.start_by
    }
}

/// Returns when the request for a batch has to be sent.
pub(super) fn start_by(batch: &[Box<Fragment>]) -> Instant {
    batch.iter().map(|fragment| fragment.start_by).min().unwrap_or_else(Instant::now)
}

/// Returns the number of bytes that the fragments inflate to together.
pub(super) fn inflated_bytes(batch: &[Box<Fragment>]) -> u64 {
    batch.iter().map(|fragment| u64::from(fragment.part.inflated_bytes)).sum()
}
