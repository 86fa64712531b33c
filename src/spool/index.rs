//! Where the records are, and what may be given back.
//!
//! Design constraints:
//!
//! * Millions of records: an entry has 32 bytes ([`ENTRY_BYTES`]), in one queue per stream. A queue takes up to twice
//!   that, as it grows by doubling.
//! * A stream is removed from its front. So one number per stream tells which of its records on disk are dead: all up
//!   to its *removal*.
//! * A dead record must not come back when its segment is read again. So as long as one may be on disk, a removal that
//!   covers it must be there, too. Removals are only in segments as late as all that they cover. So the removals in the
//!   oldest segment cover nothing outside it, and go with it. Those of any other one are live, like records.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::error::Damage;
use super::limits::{DAMAGE_MAX, ENTRY_BYTES};
use super::stream::{Sequence, Stream, StreamTotals};
use crate::tenant::TenantId;

/// A record on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) sequence: Sequence,
    /// Milliseconds since the epoch.
    pub(super) spooled_at: u64,
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Its size, with its frame.
    pub(super) bytes: u32,
    pub(super) samples: u32,
}

const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES);

/// One stream.
#[derive(Default)]
struct Queue {
    /// By sequence.
    entries: VecDeque<Entry>,
    samples: u64,
    bytes: u64,
    /// All records up to this one are removed.
    removed: Sequence,
    /// Where that is written, or an earlier removal if `is_unwritten`.
    removal: Option<Removal>,
    /// Whether the removal has to be written.
    is_unwritten: bool,
}

impl Queue {
    /// What it holds, if anything.
    fn totals(&self) -> Option<StreamTotals> {
        Some(StreamTotals {
            records: self.entries.len() as u64,
            samples: self.samples,
            bytes: self.bytes,
            oldest: self.entries.front()?.spooled_at,
        })
    }
}

/// A removal on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Removal {
    segment: u32,
    bytes: u32,
}

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Segment {
    /// See [`Header::seed`](super::record::Header::seed).
    pub(super) seed: u32,
    /// Its size.
    pub(super) bytes: u64,
    /// The bytes of records that are not removed.
    pub(super) live_bytes: u64,
    /// The bytes of the latest removals of their streams.
    pub(super) removal_bytes: u64,
    /// Whether its header is durable. If it is not, it has no records.
    pub(super) has_header: bool,
    /// Whether a live record could not be read.
    pub(super) is_damaged: bool,
    /// Whether some of its bytes have changed. Then they are kept when it is deleted.
    pub(super) is_evidence: bool,
}

/// Records of one tenant.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Of {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Of {
    pub(super) fn add(&mut self, bytes: u32) {
        self.records += 1;
        self.bytes += u64::from(bytes);
    }
}

/// All streams and segments.
#[derive(Default)]
pub(super) struct Index {
    streams: HashMap<Stream, Queue>,
    /// What is live of each tenant.
    tenants: HashMap<TenantId, Of>,
    pub(super) streams_with_records: usize,
    pub(super) segments: BTreeMap<u32, Segment>,
    /// Streams whose removal has to be written.
    unwritten: Vec<Stream>,
    pub(super) records: u64,
    pub(super) live_bytes: u64,
    /// What was found damaged; see [`Self::note_damage`].
    pub(super) damage: Vec<Damage>,
    /// The sum over all segments.
    pub(super) disk_bytes: u64,
}

/// The removals to be written, with their sequences.
pub(super) type Removals = Vec<(Stream, Sequence)>;

impl Index {
    pub(super) fn add_segment(&mut self, number: u32, segment: Segment) {
        self.disk_bytes += segment.bytes;
        self.segments.insert(number, segment);
    }

    /// Notes the size of a segment.
    pub(super) fn resize(&mut self, number: u32, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            self.disk_bytes = self.disk_bytes - segment.bytes + bytes;
            segment.bytes = bytes;
        }
    }

    /// Notes damaged bytes. If there is very much of it, what is between two places in a segment counts, too.
    pub(super) fn note_damage(&mut self, damage: Damage) {
        if let Some(segment) = self.segments.get_mut(&damage.segment) {
            segment.is_evidence = true;
        }
        let is_much = self.damage.len() >= DAMAGE_MAX;
        match self.damage.last_mut() {
            Some(last) if is_much && last.segment == damage.segment => {
                let end = (last.offset + last.bytes).max(damage.offset + damage.bytes);
                last.offset = last.offset.min(damage.offset);
                last.bytes = end - last.offset;
            }
            _ => self.damage.push(damage),
        }
    }

    /// Adds a record behind those of its stream.
    pub(super) fn push(&mut self, stream: &Stream, entry: Entry) {
        if !self.streams.contains_key(stream) {
            self.streams.insert(stream.clone(), Queue::default());
        }
        let Some(queue) = self.streams.get_mut(stream) else { return };
        self.streams_with_records += usize::from(queue.entries.is_empty());
        queue.entries.push_back(entry);
        queue.samples += u64::from(entry.samples);
        queue.bytes += u64::from(entry.bytes);
        match self.tenants.get_mut(&stream.tenant) {
            Some(of) => of.add(entry.bytes),
            None => {
                let _ =
                    self.tenants.insert(stream.tenant.clone(), Of { records: 1, bytes: entry.bytes.into() });
            }
        }
        self.records += 1;
        self.live_bytes += u64::from(entry.bytes);
        if let Some(segment) = self.segments.get_mut(&entry.segment) {
            segment.live_bytes += u64::from(entry.bytes);
        }
    }

    /// Takes a record out of all sums, after it was taken out of its queue.
    fn forget(&mut self, stream: &Stream, entry: Entry) {
        let bytes = u64::from(entry.bytes);
        self.records -= 1;
        self.live_bytes -= bytes;
        if let Some(segment) = self.segments.get_mut(&entry.segment) {
            segment.live_bytes -= bytes;
        }
        if let Some(of_tenant) = self.tenants.get_mut(&stream.tenant) {
            of_tenant.records -= 1;
            of_tenant.bytes -= bytes;
            if of_tenant.records == 0 {
                self.tenants.remove(&stream.tenant);
            }
        }
    }

    /// Removes the records of a stream up to this one. Returns the last one that was removed.
    fn pop(&mut self, stream: &Stream, up_to: Sequence) -> Option<Sequence> {
        let queue = self.streams.get_mut(stream)?;
        let mut removed = Vec::new();
        // Not by a binary search: while segments are read, copies are out of order.
        while queue.entries.front().is_some_and(|entry| entry.sequence <= up_to) {
            removed.extend(queue.entries.pop_front());
        }
        if queue.entries.is_empty() && !removed.is_empty() {
            self.streams_with_records -= 1;
        }
        if queue.entries.capacity() > 4 * queue.entries.len() {
            queue.entries.shrink_to(2 * queue.entries.len());
        }
        for entry in &removed {
            queue.samples -= u64::from(entry.samples);
            queue.bytes -= u64::from(entry.bytes);
        }
        removed.iter().for_each(|entry| self.forget(stream, *entry));
        removed.last().map(|entry| entry.sequence)
    }

    /// Removes the records of a stream up to this one. That has to be written.
    pub(super) fn remove(&mut self, stream: &Stream, up_to: Sequence) {
        // A number beyond the stream's records would also remove what is appended later.
        let Some(last) = self.pop(stream, up_to) else { return };
        let Some(queue) = self.streams.get_mut(stream) else { return };
        queue.removed = last;
        if !queue.is_unwritten {
            queue.is_unwritten = true;
            self.unwritten.push(stream.clone());
        }
    }

    /// Notes a removal that was read. It has to be followed by [`Self::settle`].
    pub(super) fn found_removal(&mut self, stream: &Stream, up_to: Sequence, segment: u32, bytes: u32) {
        self.pop(stream, up_to);
        let queue = self.streams.entry(stream.clone()).or_default();
        if up_to >= queue.removed {
            queue.removed = up_to;
            self.place_removal(stream, Removal { segment, bytes });
        }
    }

    /// Puts what was read in order: by sequence, each record once, without removed ones. Of a record and its copy the
    /// one in the earlier segment stays, because the copy may have failed half-way.
    pub(super) fn settle(&mut self) {
        let streams: Vec<Stream> = self.streams.keys().cloned().collect();
        for stream in streams {
            let Some(queue) = self.streams.get_mut(&stream) else { continue };
            let removed = queue.removed;
            let entries = std::mem::take(&mut queue.entries);
            self.streams_with_records -= usize::from(!entries.is_empty());
            (queue.samples, queue.bytes) = (0, 0);
            entries.iter().for_each(|entry| self.forget(&stream, *entry));
            let mut entries: Vec<Entry> = entries.into();
            entries.sort_by_key(|entry| entry.sequence);
            entries.dedup_by_key(|entry| entry.sequence);
            for entry in entries.into_iter().filter(|entry| entry.sequence > removed) {
                self.push(&stream, entry);
            }
        }
    }

    /// Notes where the latest removal of a stream is.
    fn place_removal(&mut self, stream: &Stream, removal: Removal) {
        let Some(queue) = self.streams.get_mut(stream) else { return };
        let before = queue.removal.replace(removal);
        if let Some(segment) = before.and_then(|before| self.segments.get_mut(&before.segment)) {
            segment.removal_bytes -= before.map_or(0, |before| u64::from(before.bytes));
        }
        if let Some(segment) = self.segments.get_mut(&removal.segment) {
            segment.removal_bytes += u64::from(removal.bytes);
        }
    }

    /// The removals that have to be written.
    pub(super) fn unwritten(&self) -> Removals {
        let removed = |stream: &Stream| {
            let queue = self.streams.get(stream)?;
            Some((stream.clone(), queue.removed))
        };
        self.unwritten.iter().filter_map(removed).collect()
    }

    /// Notes that removals were written. `bytes` tells their sizes.
    pub(super) fn written(&mut self, removals: &Removals, bytes: &[u32], segment: u32) {
        for ((stream, removed), bytes) in removals.iter().zip(bytes) {
            self.place_removal(stream, Removal { segment, bytes: *bytes });
            if let Some(queue) = self.streams.get_mut(stream).filter(|queue| queue.removed == *removed) {
                queue.is_unwritten = false;
            }
        }
        let streams = &self.streams;
        self.unwritten.retain(|stream| streams.get(stream).is_some_and(|queue| queue.is_unwritten));
    }

    /// The latest removals that are in a segment and have been written nowhere else.
    pub(super) fn removals_in(&self, number: u32) -> Removals {
        let inside = |queue: &Queue| queue.removal.is_some_and(|removal| removal.segment == number);
        let streams = self.streams.iter().filter(|(_, queue)| inside(queue) && !queue.is_unwritten);
        streams.map(|(stream, queue)| (stream.clone(), queue.removed)).collect()
    }

    /// The removals in a segment may be lost. They have to be written again.
    pub(super) fn doubt_removals_in(&mut self, number: u32) {
        for (stream, _) in self.removals_in(number) {
            if let Some(queue) = self.streams.get_mut(&stream) {
                queue.is_unwritten = true;
                self.unwritten.push(stream);
            }
        }
    }

    /// Whether a record is live, and in this place.
    pub(super) fn is_at(&self, stream: &Stream, sequence: Sequence, segment: u32, offset: u64) -> bool {
        let Some(queue) = self.streams.get(stream) else { return false };
        let found = queue.entries.binary_search_by_key(&sequence, |entry| entry.sequence);
        let entry = found.ok().and_then(|at| queue.entries.get(at));
        entry.is_some_and(|entry| (entry.segment, u64::from(entry.offset)) == (segment, offset))
    }

    /// A live record has another place now.
    pub(super) fn relocate(&mut self, stream: &Stream, sequence: Sequence, segment: u32, offset: u32) {
        let Some(queue) = self.streams.get_mut(stream) else { return };
        let Ok(at) = queue.entries.binary_search_by_key(&sequence, |entry| entry.sequence) else { return };
        let Some(entry) = queue.entries.get_mut(at) else { return };
        let (from, bytes) = (entry.segment, u64::from(entry.bytes));
        (entry.segment, entry.offset) = (segment, offset);
        if let Some(from) = self.segments.get_mut(&from) {
            from.live_bytes -= bytes;
        }
        if let Some(to) = self.segments.get_mut(&segment) {
            to.live_bytes += bytes;
        }
    }

    /// A segment without live records is gone.
    pub(super) fn drop_segment(&mut self, number: u32) {
        self.disk_bytes -= self.segments.remove(&number).map_or(0, |segment| segment.bytes);
        self.streams.retain(|_, queue| {
            if queue.removal.is_some_and(|removal| removal.segment == number) {
                queue.removal = None;
            }
            !queue.entries.is_empty() || queue.removal.is_some() || queue.is_unwritten
        });
    }

    /// The bytes that have to be written elsewhere before a segment can be deleted.
    pub(super) fn bytes_to_move(&self, number: u32, is_oldest: bool) -> u64 {
        let segment = self.segments.get(&number).copied().unwrap_or_default();
        segment.live_bytes + if is_oldest { 0 } else { segment.removal_bytes }
    }

    /// The records of a stream behind this one.
    pub(super) fn entries_after(&self, stream: &Stream, after: Sequence) -> impl Iterator<Item = Entry> {
        let queue = self.streams.get(stream);
        queue.into_iter().flat_map(move |queue| {
            let from = queue.entries.partition_point(|entry| entry.sequence <= after);
            queue.entries.range(from..).copied()
        })
    }

    /// The first record of a stream.
    pub(super) fn oldest(&self, stream: &Stream) -> Option<Entry> {
        self.streams.get(stream)?.entries.front().copied()
    }

    pub(super) fn has_records(&self, stream: &Stream) -> bool {
        self.oldest(stream).is_some()
    }

    /// The streams that take memory: those with records, and those whose removal is needed.
    pub(super) fn streams_known(&self) -> usize {
        self.streams.len()
    }

    /// What is live of a tenant.
    pub(super) fn of_tenant(&self, tenant: &TenantId) -> Of {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    /// The streams that have records.
    pub(super) fn streams(&self) -> impl Iterator<Item = (&Stream, StreamTotals)> {
        self.streams.iter().filter_map(|(stream, queue)| Some((stream, queue.totals()?)))
    }

    /// What a stream holds.
    pub(super) fn totals_of(&self, stream: &Stream) -> StreamTotals {
        self.streams.get(stream).and_then(Queue::totals).unwrap_or_default()
    }
}
