//! The store: appends, reads, removes, and gives space back.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::appender::{Appender, Roll};
use super::disk::Disk;
use super::error::{Damage, Damaged, OpenError, Refused};
use super::index::{Entry, Index, Of, Removals, Segment};
use super::limits::{
    PENDING_BYTES_MAX, RECORDS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MIN, TENANT_RECORDS_MIN,
};
use super::limits::{REMOVAL_BYTES, REMOVALS_MIN, RESERVE_BYTES, STEP_BYTES_MAX, STEP_READS, STEPS};
use super::reader::{Found, Reader};
use super::record::{self, FRAME_BYTES, HEADER_BYTES, Next};
use super::recovery;
use super::spooled::Spooled;
use super::stream::{Sequence, Stream, StreamTotals};
use crate::tenant::TenantId;

/// The settings of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreLimits {
    /// Bytes on disk, those of dead records included. An eighth of it, or a segment if that is less, is kept for moving
    /// records and for removals.
    pub bytes_max: u64,
    /// Bytes of the live records of one tenant, in all its streams.
    pub tenant_bytes_max: u64,
    /// A stream whose oldest record is older takes no more.
    pub age_max: Duration,
    /// The size from which on the next segment is started. At most an eighth of `bytes_max` counts.
    pub segment_bytes: u64,
    /// Streams with records.
    pub streams_max: usize,
}

impl StoreLimits {
    fn segment_bytes(&self) -> u64 {
        self.segment_bytes.min(self.bytes_max / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    /// The share of a tenant in [`RECORDS_MAX`], as in the bytes; small records would else take those of all others.
    fn tenant_records_max(&self) -> u64 {
        let share =
            u128::from(self.tenant_bytes_max) * RECORDS_MAX as u128 / u128::from(self.bytes_max.max(1));
        u64::try_from(share).unwrap_or(u64::MAX).max(TENANT_RECORDS_MIN)
    }

    /// The bytes on disk up to which records are appended.
    fn append_bytes_max(&self) -> u64 {
        self.bytes_max.saturating_sub(self.segment_bytes())
    }
}

/// What a store holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Committed records that were not removed.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of all segments.
    pub disk_bytes: u64,
    /// The number of segments.
    pub segments: u64,
}

/// What was appended since the last commit.
#[derive(Default)]
struct Pending {
    batch: Vec<u8>,
    /// With offsets in the batch.
    parts: Vec<(Stream, Entry)>,
    tenants: HashMap<TenantId, Of>,
    /// Those that have no committed records.
    streams: HashSet<Stream>,
}

/// A durable queue of parts per stream.
pub struct Store<D> {
    disk: D,
    limits: StoreLimits,
    index: Index,
    appender: Appender,
    pending: Pending,
    sequence_next: u64,
    /// Whether all deletions are durable. If one may be undone by a crash, its segment may be older than all others.
    deletions_are_durable: bool,
    /// Those deletions.
    unsure: Vec<u32>,
    /// The segment that is moved, and how far that is.
    moving: Option<(u32, Reader)>,
    /// Whether the disk keeps some room for giving space back.
    has_reserve: bool,
    is_tight: bool,
}

impl<D: Disk> Store<D> {
    /// Reads what `disk` holds. Takes as long as reading all of it.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is changed then.
    pub fn open(mut disk: D, limits: StoreLimits) -> Result<Self, OpenError> {
        let recovered = recovery::read(&mut disk)?;
        let mut store = Self {
            disk,
            limits,
            index: recovered.index,
            appender: Appender::new(recovered.number_next),
            pending: Pending::default(),
            sequence_next: recovered.sequence_next,
            deletions_are_durable: true,
            unsure: Vec::new(),
            moving: None,
            has_reserve: false,
            is_tight: false,
        };
        store.keep_reserve();
        Ok(store)
    }

    /// Appends a record, in memory: [`Self::commit`] writes it. `now` is in milliseconds since the epoch.
    ///
    /// # Errors
    /// See [`Refused`]. Then the record is not appended, and everything else is as before.
    pub fn append(&mut self, spooled: &Spooled, now: u64) -> Result<Sequence, Refused> {
        let stream = spooled.stream();
        let age = self.index.oldest(&stream).map_or(0, |oldest| now.saturating_sub(oldest.spooled_at));
        if Duration::from_millis(age) > self.limits.age_max {
            return Err(Refused::TooOld);
        }
        if self.is_tight() {
            return Err(Refused::Full);
        }
        let before = self.pending.batch.len();
        // The elements alone may tell that there is no room. Then they are not copied.
        self.check_room(&stream, before, spooled.part.elements.len())?;
        let sequence = Sequence(self.sequence_next);
        let bytes = record::put(&mut self.pending.batch, sequence, record::PART, |out| spooled.encode(out))
            .map_err(|fault| Refused::Failed(io::Error::new(io::ErrorKind::InvalidInput, fault)))?;
        if let Err(refused) = self.check_room(&stream, before, self.pending.batch.len() - before) {
            self.pending.batch.truncate(before);
            return Err(refused);
        }
        self.sequence_next += 1;
        let (spooled_at, samples) = (spooled.spooled_at, spooled.part.samples);
        // `check_room` limits the batch.
        let offset = u32::try_from(before).unwrap_or(u32::MAX);
        self.pending.tenants.entry(stream.tenant.clone()).or_default().add(bytes);
        if !self.index.has_records(&stream) {
            self.pending.streams.insert(stream.clone());
        }
        self.pending.parts.push((stream, Entry { sequence, spooled_at, segment: 0, offset, bytes, samples }));
        Ok(sequence)
    }

    /// Whether a record of `bytes` may follow `pending` bytes that wait for a commit.
    fn check_room(&self, stream: &Stream, pending: usize, bytes: usize) -> Result<(), Refused> {
        let committed = self.index.of_tenant(&stream.tenant);
        let waiting = self.pending.tenants.get(&stream.tenant).copied().unwrap_or_default();
        if committed.bytes + waiting.bytes + bytes as u64 > self.limits.tenant_bytes_max
            || committed.records + waiting.records >= self.limits.tenant_records_max()
        {
            return Err(Refused::TenantFull);
        }
        let batch = pending + bytes;
        let on_disk = self.index.disk_bytes + (HEADER_BYTES + batch) as u64;
        let records = self.index.records + self.pending.parts.len() as u64;
        let fits = batch <= PENDING_BYTES_MAX
            && on_disk <= self.limits.append_bytes_max()
            && records < RECORDS_MAX as u64
            && self.has_room_for(stream);
        fits.then_some(()).ok_or(Refused::Full)
    }

    /// Whether a stream may have records, as far as the number of streams is concerned. Those whose removal must be
    /// remembered take memory, too.
    fn has_room_for(&self, stream: &Stream) -> bool {
        let (pending, streams_max) = (&self.pending.streams, self.limits.streams_max);
        let is_known = self.index.has_records(stream) || pending.contains(stream);
        is_known
            || self.index.streams_with_records + pending.len() < streams_max
                && self.index.streams_known() + pending.len() < streams_max.saturating_mul(2)
    }

    /// Writes what was appended and removed since the last commit, and makes it durable if `sync`, with all that was
    /// committed without. Without `sync`, it is there after a crash of the process, but not of the machine.
    ///
    /// # Errors
    /// Those of the disk. Then nothing of what was appended since the last commit is in the store. Its segment is not
    /// appended to any more, and its earlier records stay. What was appended may yet be found when the store is opened
    /// the next time. Removals are written with the next commit.
    pub fn commit(&mut self, sync: bool) -> io::Result<()> {
        let Pending { mut batch, parts, .. } = std::mem::take(&mut self.pending);
        let removals = self.index.unwritten();
        let sizes = put_removals(&removals, &mut batch);
        if batch.is_empty() {
            return if sync { self.appender.sync(&mut self.disk, &mut self.index) } else { Ok(()) };
        }
        let roll = self.roll();
        let place = self.appender.write(&mut self.disk, &mut self.index, &mut batch, roll, sync)?;
        for (stream, entry) in parts {
            let entry = Entry { segment: place.segment, offset: place.offset + entry.offset, ..entry };
            self.index.push(&stream, entry);
        }
        self.index.written(&removals, &sizes, place.segment);
        Ok(())
    }

    fn roll(&self) -> Roll {
        Roll { segment_bytes: self.limits.segment_bytes(), sequence: Sequence(self.sequence_next) }
    }

    /// The oldest committed records of a stream behind `after`, in order: at most `records_max`, with at most
    /// `bytes_max` of elements, but at least one if there is one.
    ///
    /// # Errors
    /// Those of the disk, if the first of them cannot be read. One of kind `InvalidData`, whose source is [`Damaged`],
    /// says that its bytes have changed: it will never be read ([`Self::skip`]). Others may pass.
    pub fn front(
        &mut self,
        stream: &Stream,
        after: Option<Sequence>,
        records_max: usize,
        bytes_max: usize,
    ) -> io::Result<Vec<(Sequence, Spooled)>> {
        let mut found = Vec::new();
        let mut bytes = 0_usize;
        let entries = self.index.entries_after(stream, after.unwrap_or_default());
        for entry in entries.take(records_max.max(1)) {
            let spooled = match read_part(&mut self.disk, &self.index, stream, entry) {
                Ok(spooled) => spooled,
                Err(error) if found.is_empty() => return Err(error),
                // The next call begins with it.
                Err(_) => break,
            };
            bytes = bytes.saturating_add(spooled.part.elements.len());
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((entry.sequence, spooled));
        }
        Ok(found)
    }

    /// The committed records of the stream up to and including this one have been delivered or dropped. That is durable
    /// with the next commit that syncs; after a crash before it they may be back.
    pub fn remove(&mut self, stream: &Stream, up_to: Sequence) {
        self.index.remove(stream, up_to);
    }

    /// Drops the oldest committed record of the stream, because it cannot be read: its bytes have changed. That is like
    /// [`Self::remove`] up to it. Returns its sequence; `None` if the stream has no record.
    pub fn skip(&mut self, stream: &Stream) -> Option<Sequence> {
        let Entry { sequence, segment, offset, bytes, .. } = self.index.oldest(stream)?;
        self.index.note_damage(Damage { segment, offset: offset.into(), bytes: bytes.into() });
        self.index.remove(stream, sequence);
        Some(sequence)
    }

    /// What was found damaged since the store was opened, and then. Records that were in it are lost; all others are
    /// there. When such a segment is given back, its bytes are kept aside ([`Disk::set_aside`]).
    pub fn damage(&self) -> &[Damage] {
        &self.index.damage
    }

    /// The streams that have committed records.
    pub fn streams(&self) -> impl Iterator<Item = (&Stream, StreamTotals)> {
        self.index.streams()
    }

    /// What a stream holds.
    pub fn totals_of(&self, stream: &Stream) -> StreamTotals {
        self.index.totals_of(stream)
    }

    /// What the store holds.
    pub fn totals(&self) -> Totals {
        Totals {
            records: self.index.records,
            bytes: self.index.live_bytes,
            disk_bytes: self.index.disk_bytes,
            segments: self.index.segments.len() as u64,
        }
    }

    /// Sets other limits. What is stored stays, even if it is more.
    pub fn limit(&mut self, limits: StoreLimits) {
        self.limits = limits;
    }

    /// Does one step of giving the space of a segment back, if there is one to be given back: one without live records,
    /// or, if more than half of the bytes on disk are dead or the disk is full, the one with the fewest. Its live
    /// records are moved first. That is worth it if half of it is dead, or an eighth when the disk is full. A step
    /// moves a sixteenth of a segment, or [`STEP_BYTES_MAX`] if that is less. Returns whether there is more to do.
    ///
    /// # Errors
    /// Those of the disk. Nothing is lost, and the step may be tried again.
    pub fn tidy(&mut self) -> io::Result<bool> {
        let done = self.step();
        match &done {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.has_reserve => {
                // The next step has it.
                self.disk.release_reserve()?;
                (self.has_reserve, self.is_tight) = (false, true);
            }
            Ok(_) if !self.has_reserve => self.keep_reserve(),
            _ => {}
        }
        done
    }

    /// Keeps some room of the disk. While there is none to be kept, nothing is appended, as it would take the room that
    /// is needed to give space back.
    fn keep_reserve(&mut self) {
        match self.disk.keep_reserve() {
            Ok(()) => (self.has_reserve, self.is_tight) = (true, false),
            Err(error) => self.is_tight |= error.kind() == io::ErrorKind::StorageFull,
        }
    }

    /// Whether the disk is full, and nothing is appended for it.
    pub(super) fn is_tight(&self) -> bool {
        self.is_tight
    }

    /// What one step of giving space back moves.
    fn step_bytes(&self) -> usize {
        let most = if self.is_tight { RESERVE_BYTES / 4 } else { STEP_BYTES_MAX };
        most.min(usize::try_from(self.limits.segment_bytes() / STEPS).unwrap_or(most))
    }

    /// After a failed sync no later one tells whether a deletion is durable. Files of the same names, which are deleted
    /// again, do.
    fn delete_again(&mut self) -> io::Result<()> {
        for &segment in &self.unsure {
            self.disk.replace(segment)?;
        }
        self.disk.sync_folder()?;
        for &segment in &self.unsure {
            self.disk.remove(segment)?;
        }
        self.disk.sync_folder()?;
        self.unsure.clear();
        self.deletions_are_durable = true;
        Ok(())
    }

    fn step(&mut self) -> io::Result<bool> {
        if !self.unsure.is_empty() {
            // Until it succeeds, removals are kept for longer, that is all.
            drop(self.delete_again());
        }
        let Some(victim) = self.victim() else { return Ok(false) };
        if Some(victim) == self.newest() {
            let roll = self.roll();
            self.appender.start(&mut self.disk, &mut self.index, roll)?;
        }
        if !self.move_records(victim)? || !self.move_removals(victim)? {
            return Ok(true);
        }
        self.delete(victim)?;
        Ok(self.victim().is_some())
    }

    /// The last segment with a durable header. It is not deleted, as its header may be all that tells the next
    /// sequence.
    fn newest(&self) -> Option<u32> {
        self.index.segments.iter().rev().find(|(_, segment)| segment.has_header).map(|(number, _)| *number)
    }

    #[cfg(test)]
    pub(super) fn deletions_are_durable(&self) -> bool {
        self.deletions_are_durable
    }

    fn is_oldest(&self, number: u32) -> bool {
        self.deletions_are_durable && self.index.segments.keys().next() == Some(&number)
    }

    /// The segment to be deleted next. Deleting it makes the disk's bytes fewer, whatever has to be moved.
    fn victim(&self) -> Option<u32> {
        let room = self.limits.bytes_max.saturating_sub(self.index.disk_bytes + HEADER_BYTES as u64);
        if let Some((moving, _)) = &self.moving {
            let segment = self.index.segments.get(moving).filter(|segment| !segment.is_damaged);
            if segment.is_some() && self.index.bytes_to_move(*moving, self.is_oldest(*moving)) <= room {
                return Some(*moving);
            }
        }
        let current = self.appender.current();
        let segment_bytes = self.limits.segment_bytes();
        let candidates = || {
            let segments = self.index.segments.iter();
            let others = segments.filter(|(number, segment)| {
                // One that is full or given up is not appended to anyway.
                Some(**number) != current || segment.bytes >= segment_bytes
            });
            others.map(|(number, segment)| {
                (*number, *segment, self.index.bytes_to_move(*number, self.is_oldest(*number)))
            })
        };
        let is_worth = |segment: &Segment, moved: u64| moved * 2 + 2 * HEADER_BYTES as u64 <= segment.bytes;
        let empty = candidates()
            .find(|(_, segment, moved)| *moved == 0 || segment.live_bytes == 0 && is_worth(segment, *moved));
        if let Some((number, ..)) = empty {
            return Some(number);
        }
        if !self.has_to_compact() {
            return None;
        }
        // Without room for new records, little space is worth much.
        let is_full = self.is_full();
        let gives_enough = |segment: &Segment, moved: u64| {
            let given = if is_full { segment.bytes / 8 } else { segment.bytes.div_ceil(2) };
            moved + given + 2 * HEADER_BYTES as u64 <= segment.bytes
        };
        let worn = candidates().filter(|(_, segment, moved)| {
            !segment.is_damaged && gives_enough(segment, *moved) && *moved <= room
        });
        worn.min_by_key(|(_, segment, moved)| moved * 1024 / segment.bytes).map(|(number, ..)| number)
    }

    fn has_to_compact(&self) -> bool {
        let Index { disk_bytes, live_bytes, .. } = self.index;
        let is_mostly_dead = disk_bytes.saturating_sub(live_bytes) * 2 > disk_bytes;
        is_mostly_dead || self.is_full()
    }

    fn is_full(&self) -> bool {
        self.index.disk_bytes + self.limits.segment_bytes() > self.limits.append_bytes_max()
    }

    /// Copies some of the live records of a segment behind everything else, and makes them durable. Returns whether
    /// that was all. The segment is read from its start to its end, over several steps.
    fn move_records(&mut self, victim: u32) -> io::Result<bool> {
        let segment = self.index.segments.get(&victim).copied().unwrap_or_default();
        if segment.live_bytes == 0 {
            return Ok(true);
        }
        let mut reader = match self.moving.take() {
            Some((number, reader)) if number == victim => reader,
            _ => Reader::new(victim, segment.seed, segment.bytes, HEADER_BYTES as u64),
        };
        let mut batch = Vec::new();
        let read = self.read_live(&mut reader, segment.live_bytes, &mut batch);
        let (moved, is_end) = read.inspect_err(|_| self.give_up_moving(victim))?;
        if !moved.is_empty() {
            let roll = self.roll();
            let place = self.appender.write(&mut self.disk, &mut self.index, &mut batch, roll, true)?;
            for (stream, sequence, offset) in moved {
                self.index.relocate(&stream, sequence, place.segment, place.offset + offset);
            }
        }
        if self.index.segments.get(&victim).is_none_or(|segment| segment.live_bytes == 0) {
            return Ok(true);
        }
        if is_end {
            self.give_up_moving(victim);
            let place = self.disk.place(Some(victim));
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("records in {place} are damaged"),
            ));
        }
        self.moving = Some((victim, reader));
        Ok(false)
    }

    /// Some of the live records of a segment can't be read. It stays until they are removed.
    fn give_up_moving(&mut self, victim: u32) {
        if let Some(segment) = self.index.segments.get_mut(&victim) {
            segment.is_damaged = true;
        }
    }

    /// Reads on in a segment, and appends its live records to a batch until that is enough for a step, or so much was
    /// read. `live` are the bytes that are there. Returns the streams, sequences and offsets of the records, and
    /// whether the segment has ended.
    fn read_live(
        &mut self,
        reader: &mut Reader,
        live: u64,
        batch: &mut Vec<u8>,
    ) -> io::Result<(Moved, bool)> {
        let step = self.step_bytes();
        let segment = reader.segment();
        let read_end = reader.offset() + STEP_READS * step as u64;
        let mut moved = Moved::new();
        while batch.len() < step && (batch.len() as u64) < live && reader.offset() < read_end {
            let (at, record) = match reader.next(&mut self.disk)? {
                Found::Record(at, record) => (at, record),
                Found::Damage(_) => continue,
                Found::End => return Ok((moved, true)),
            };
            let decoded = Some(record).filter(|record| record.kind == record::PART);
            let Some((spooled, _)) = decoded.and_then(|record| Spooled::decode_around(record.payload).ok())
            else {
                continue;
            };
            let stream = spooled.stream();
            if self.index.is_at(&stream, record.sequence, segment, at) {
                let offset = u32::try_from(batch.len()).map_err(io::Error::other)?;
                let put = record::put(batch, record.sequence, record.kind, |out| {
                    out.extend_from_slice(record.payload);
                    Ok(())
                });
                put.map_err(io::Error::other)?;
                moved.push((stream, record.sequence, offset));
            }
        }
        Ok((moved, false))
    }

    /// Writes some of the removals that a segment has, and those that wait to be written: a later removal may be why
    /// one in this segment is needed no more. Returns whether these were all, and are durable.
    fn move_removals(&mut self, victim: u32) -> io::Result<bool> {
        let has_header = self.index.segments.get(&victim).is_some_and(|segment| segment.has_header);
        if self.is_oldest(victim) || !has_header {
            // A full disk would not take them, and what they cover goes with the segment.
            return Ok(true);
        }
        let mut removals = self.index.unwritten();
        removals.extend(self.index.removals_in(victim));
        if removals.is_empty() {
            self.appender.sync(&mut self.disk, &mut self.index)?;
            return Ok(true);
        }
        let all = removals.len();
        removals.truncate(REMOVALS_MIN.max(self.step_bytes() / REMOVAL_BYTES));
        let mut batch = Vec::new();
        let sizes = put_removals(&removals, &mut batch);
        let roll = self.roll();
        let place = self.appender.write(&mut self.disk, &mut self.index, &mut batch, roll, true)?;
        self.index.written(&removals, &sizes, place.segment);
        Ok(removals.len() == all)
    }

    /// Deletes a segment from which everything was moved. The next one may only follow when that is durable: it may
    /// have the removals of what is in this one.
    fn delete(&mut self, victim: u32) -> io::Result<()> {
        let is_evidence = self.index.segments.get(&victim).is_some_and(|segment| segment.is_evidence);
        let deleted = if is_evidence { self.disk.set_aside(victim) } else { self.disk.remove(victim) };
        match deleted {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.index.drop_segment(victim),
        }
        self.moving = None;
        self.unsure.push(victim);
        self.deletions_are_durable = false;
        self.disk.sync_folder()?;
        self.unsure.pop();
        self.deletions_are_durable = self.unsure.is_empty();
        Ok(())
    }
}

/// Records in a batch: their streams, sequences, and offsets in it.
type Moved = Vec<(Stream, Sequence, u32)>;

/// Appends removals to a batch, and returns their sizes.
fn put_removals(removals: &Removals, batch: &mut Vec<u8>) -> Vec<u32> {
    let mut put = |(stream, up_to): &(Stream, Sequence)| {
        // No name has gigabytes.
        record::put(batch, *up_to, record::REMOVED, |out| stream.encode(out)).unwrap_or_default()
    };
    removals.iter().map(&mut put).collect()
}

/// Reads a record, with its frame.
fn read_record<D: Disk>(disk: &mut D, index: &Index, entry: Entry) -> io::Result<Vec<u8>> {
    let damaged = Damaged { sequence: entry.sequence };
    let seed = index.segments.get(&entry.segment).map_or(0, |segment| segment.seed);
    let mut bytes = vec![0; usize::try_from(entry.bytes).map_err(io::Error::other)?];
    match disk.read(entry.segment, u64::from(entry.offset), &mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged.into()),
        read => read?,
    }
    match record::next(&bytes, seed) {
        Next::Record(record) if record.sequence == entry.sequence && record.bytes() == bytes.len() => {
            Ok(bytes)
        }
        _ => Err(damaged.into()),
    }
}

fn read_part<D: Disk>(disk: &mut D, index: &Index, stream: &Stream, entry: Entry) -> io::Result<Spooled> {
    let payload = Bytes::from(read_record(disk, index, entry)?).split_off(FRAME_BYTES);
    let spooled = Spooled::decode(&payload).ok().filter(|spooled| spooled.stream() == *stream);
    spooled.ok_or_else(|| Damaged { sequence: entry.sequence }.into())
}
