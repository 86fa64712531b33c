//! Halves an export that an upstream finds too large: by its items, whatever they are in.
//!
//! All of it belongs to one tenant, so nothing is dropped: unknown fields go into both halves, and what has no items
//! goes where the items before it went.
#![forbid(unsafe_code)]

use super::found::{Apart, Decide, Owned, ScannedResources};
use crate::limits::REQUEST_FIELDS_MAX;
use crate::model::Signal;
use crate::wire::otlp::{Fault, Level, Member, Members, Notation, count_items};

/// A half: its bytes, and the numbers of its resources and items.
pub(in crate::split) type Half = (Vec<u8>, u32, u32);

/// Halves an inflated export. `None` if it has only one item, or if the resource in the middle would have to be taken
/// apart into too many pieces.
pub(in crate::split) fn halve(export: &[u8], signal: Signal, notation: Notation) -> Option<[Half; 2]> {
    let all = count_items(notation, signal, Level::Export, export).ok()?;
    if all < 2 {
        return None;
    }
    let mut found = ScannedResources::default();
    found.begin(signal, notation);
    let mut by_number = ByNumber { seen: 0, first: all / 2 };
    let mut resources = [0_u32; 2];
    let mut members = Members::new(notation, signal, Level::Export, export);
    while let Some((member, range)) = members.take().ok()? {
        let Member::Child(level, resource) = member else {
            found.scalars.extend_from_slice(export.get(range)?);
            if notation == Notation::Json {
                found.scalars.push(b',');
            }
            continue;
        };
        let first = found.leaves();
        let owned = found.walk(level, resource, range.end - resource.len(), &mut by_number).ok()?;
        if let Owned::Nobody | Owned::One(_) = owned {
            let half = if let Owned::One(half) = owned { half } else { by_number.half() };
            found.push_run(half, range.start, range.end);
            *resources.get_mut(half as usize)? += 1;
            continue;
        }
        found.group(first);
        let mut at = first;
        while let Some(Apart { tenant, leaves, .. }) = found.group_at(at) {
            at = leaves.end;
            found.push_apart(tenant, leaves);
            *resources.get_mut(tenant as usize)? += 1;
        }
    }
    let half = |slot: u32, items: u32| {
        let mut bytes = Vec::with_capacity(export.len() / 2);
        found.gather_slot(export, slot, &mut bytes);
        (bytes, resources[slot as usize], items)
    };
    Some([half(0, all / 2), half(1, all - all / 2)])
}

/// Gives the first items to the first half, and the others to the second.
struct ByNumber {
    seen: u32,
    first: u32,
}

impl ByNumber {
    /// The half of the item seen last.
    fn half(&self) -> u32 {
        u32::from(self.seen > self.first)
    }
}

/// An export that cannot be halved: it is malformed, or would be in too many pieces.
struct Whole;

impl From<Fault> for Whole {
    fn from(_: Fault) -> Self {
        Self
    }
}

impl Decide for ByNumber {
    type Stop = Whole;

    fn whole(&mut self, _: Level, _: &[u8]) -> Result<Option<Owned>, Whole> {
        Ok(None)
    }

    fn item(&mut self, _: Level, _: &[u8]) -> Result<Owned, Whole> {
        self.seen += 1;
        Ok(Owned::One(self.half()))
    }

    fn shared(&self) -> Option<u32> {
        Some(self.half())
    }

    /// Only one resource is taken apart, and in two; but what stands between its items may be in many pieces.
    fn recorded(&mut self, pieces: usize) -> Result<(), Whole> {
        if pieces > REQUEST_FIELDS_MAX { Err(Whole) } else { Ok(()) }
    }
}
