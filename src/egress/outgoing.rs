//! What an upstream request carries of its batch.
//!
//! Elements of most protocols are sent as they are, one after the other. Parts in Remote Write 2.0 are merged into one
//! request with one table of symbols, and only then deflated (see [`Merger`](crate::split::Merger)). This happens when
//! a connection is there: until then more fragments may join.
//!
//! Parts in OTLP are coded as their target wants them, which may be only now. Several in JSON become one document.
//!
//! The parts stay as they are, so that each can be sent again alone or in pieces, and releases what it holds. What is
//! made of them is charged to the budget until the request is answered.

use std::ops::Deref;
use std::time::Instant;

use bytes::Bytes;

use super::Egress;
use super::tenant_lane::{Batch, TenantLane, inflated_bytes};
use crate::exchange::fragment::Fragment;
use crate::limits::TURN_BYTES_MAX;
use crate::model::{Compression, MergeKey, Part, Protocol};
use crate::shared::budget::Charge;
use crate::split::{Merged, are_coded_when_sent, compressing_work, merging_work};

/// A batch, and what is sent of it.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    batch: &'a [Box<Fragment>],
    packed: Option<&'a Packed>,
}

/// What is sent in place of the elements of a batch.
pub(super) struct Packed {
    elements: Bytes,
    inflated_bytes: u32,
    _charge: Charge,
}

impl Deref for Outgoing<'_> {
    type Target = [Box<Fragment>];

    fn deref(&self) -> &Self::Target {
        self.batch
    }
}

impl<'a> Outgoing<'a> {
    /// The elements of these fragments, or what they were packed into.
    pub(super) fn new(batch: &'a [Box<Fragment>], packed: Option<&'a Packed>) -> Self {
        Self { batch, packed }
    }

    /// The elements that are sent in place of those of the fragments.
    pub(super) fn packed(&self) -> Option<&'a Bytes> {
        self.packed.map(|packed| &packed.elements)
    }

    /// How the request is coded, given its first fragment.
    pub(super) fn coding(&self, first: &Fragment) -> Compression {
        let coding = first.part.coding;
        if self.packed.is_some() { coding.sent } else { coding.now }
    }

    /// Returns the number of bytes that the request inflates to.
    pub(super) fn inflated_bytes(&self) -> u64 {
        self.packed.map_or_else(|| inflated_bytes(self.batch), |packed| packed.inflated_bytes.into())
    }

    /// Returns the number of bytes of elements in the request.
    pub(super) fn bytes(&self) -> usize {
        let elements = || self.batch.iter().map(|fragment| fragment.part.elements.len()).sum();
        self.packed().map_or_else(elements, Bytes::len)
    }
}

/// Whether the parts of a batch are packed before they are sent. Those that cannot be merged are deflated already.
fn are_packed(batch: &[Box<Fragment>]) -> bool {
    if batch.first().is_some_and(|first| first.part.protocol.export().is_some()) {
        return are_coded_when_sent(batch.iter().map(|fragment| &fragment.part));
    }
    let is_packed = |part: &Part| part.protocol == Protocol::RemoteWriteV2 && part.merge != MergeKey::Alone;
    batch.first().is_some_and(|first| is_packed(&first.part))
}

impl Egress {
    /// Waits for the turn to pack a batch. Before it has a connection, so that none is idle meanwhile.
    pub(super) async fn turn_to_pack(&self, batch: &[Box<Fragment>]) {
        if are_packed(batch) {
            self.tasks.yield_if_busy().await;
        }
    }

    /// Packs a batch, if that is needed. Returns the fragments, too, for which the request has no room.
    pub(super) fn pack(&self, lane: &TenantLane, batch: &mut Batch) -> (Option<Packed>, Batch) {
        if !are_packed(batch) {
            return (None, Batch::new());
        }
        let mut merger = self.merger.borrow_mut();
        let merged = match &batch[..] {
            [one] => merger.deflate(&one.part),
            parts => {
                let bytes_max = self.lane_limits(lane, Instant::now()).inflated_bytes_max.min(TURN_BYTES_MAX);
                merger.merge(parts.iter().map(|fragment| &fragment.part), bytes_max)
            }
        };
        let inflated_bytes = merged.as_ref().map_or(0, |merged| merged.inflated_bytes as usize);
        let sent = batch.first().map_or(Compression::Snappy, |first| first.part.coding.sent);
        self.tasks.record_work(match &batch[..] {
            [first, _, ..] => merging_work(first.part.protocol, sent, inflated_bytes),
            _ => compressing_work(sent, inflated_bytes),
        });
        let kept = merged.as_ref().map_or(1, |merged| merged.parts);
        let rest = batch.split_off(kept.min(batch.len()));
        let packed = merged.zip(batch.first()).map(|(merged, first)| {
            let Merged { elements, inflated_bytes, .. } = merged;
            let charge = first.charge.beside(elements.len());
            Packed { elements, inflated_bytes, _charge: charge }
        });
        (packed, rest)
    }
}
