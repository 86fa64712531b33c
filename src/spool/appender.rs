//! Appends to segments, one after the other.
//!
//! A segment is durable with its header and its name before a record is appended to it. A segment is synced before the
//! next one is started. So a sync of the last one makes everything durable that was appended before. After an error its
//! segment is given up: the kernel does not tell which of its bytes are on disk.
#![forbid(unsafe_code)]

use std::io;

use super::disk::Disk;
use super::index::{Index, Segment};
use super::limits::SEGMENT_BYTES_MAX;
use super::record::{self, HEADER_BYTES, Header};
use super::stream::Sequence;

/// What appends.
pub(super) struct Appender {
    current: Option<Current>,
    number_next: u32,
}

/// The segment that is appended to.
#[derive(Clone, Copy)]
struct Current {
    number: u32,
    is_synced: bool,
}

/// What a new segment needs to know.
#[derive(Clone, Copy)]
pub(super) struct Roll {
    /// The size from which on the next one is started.
    pub(super) segment_bytes: u64,
    /// The next sequence.
    pub(super) sequence: Sequence,
}

/// Where a batch was appended.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

impl Appender {
    pub(super) fn new(number_next: u32) -> Self {
        Self { current: None, number_next }
    }

    /// The segment that is appended to.
    pub(super) fn current(&self) -> Option<u32> {
        self.current.map(|current| current.number)
    }

    /// Appends a batch of records, whose checksums are set, and syncs it if `sync`. With `sync`, everything that was
    /// appended before is durable, too.
    pub(super) fn write<D: Disk>(
        &mut self,
        disk: &mut D,
        index: &mut Index,
        batch: &mut [u8],
        roll: Roll,
        sync: bool,
    ) -> io::Result<Place> {
        let number = self.segment_for(disk, index, batch.len() as u64, roll)?;
        let segment = index.segments.get(&number).copied().unwrap_or_default();
        let offset = u32::try_from(segment.bytes).map_err(|_| io::Error::other("the segment is too long"))?;
        record::seal(batch, segment.seed);
        let appended = disk.append(number, batch);
        index.resize(number, segment.bytes + batch.len() as u64);
        if let Some(current) = &mut self.current {
            current.is_synced = false;
        }
        if let Err(error) = appended {
            self.give_up(disk, index, number);
            return Err(error);
        }
        if sync {
            self.sync(disk, index)?;
        }
        Ok(Place { segment: number, offset })
    }

    /// Makes everything that was appended durable.
    pub(super) fn sync<D: Disk>(&mut self, disk: &mut D, index: &mut Index) -> io::Result<()> {
        let Some(current) = self.current.filter(|current| !current.is_synced) else { return Ok(()) };
        match disk.sync(current.number) {
            Ok(()) => self.current = Some(Current { is_synced: true, ..current }),
            Err(error) => {
                self.give_up(disk, index, current.number);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The segment for so many more bytes, which are all in one.
    fn segment_for<D: Disk>(
        &mut self,
        disk: &mut D,
        index: &mut Index,
        more: u64,
        roll: Roll,
    ) -> io::Result<u32> {
        let Some(current) = self.current else { return self.start(disk, index, roll) };
        let bytes = index.segments.get(&current.number).map_or(0, |segment| segment.bytes);
        let is_new = bytes <= HEADER_BYTES as u64;
        if is_new || bytes + more <= roll.segment_bytes.min(SEGMENT_BYTES_MAX) {
            return Ok(current.number);
        }
        self.start(disk, index, roll)
    }

    /// Starts the next segment.
    pub(super) fn start<D: Disk>(&mut self, disk: &mut D, index: &mut Index, roll: Roll) -> io::Result<u32> {
        self.sync(disk, index)?;
        self.current = None;
        let number = self.number_next;
        self.number_next = number
            .checked_add(1)
            .ok_or_else(|| io::Error::other("the spool has no more numbers for segments"))?;
        disk.create(number)?;
        // It takes up space from now on.
        index.add_segment(number, Segment::default());
        let header = Header { number, sequence: roll.sequence };
        let started = disk
            .append(number, &header.encode())
            .and_then(|()| disk.sync(number))
            .and_then(|()| disk.sync_folder());
        index.resize(number, disk.length(number).unwrap_or(HEADER_BYTES as u64));
        if let Err(error) = started {
            // On a full disk, each try would leave a file, and the next start of the program makes all of them durable.
            // One that cannot be removed now is deleted later, like any other.
            if disk.remove(number).is_ok() {
                index.drop_segment(number);
            }
            return Err(error);
        }
        if let Some(segment) = index.segments.get_mut(&number) {
            (segment.seed, segment.has_header) = (header.seed(), true);
        }
        self.current = Some(Current { number, is_synced: true });
        Ok(number)
    }

    /// Appends no more to a segment.
    fn give_up<D: Disk>(&mut self, disk: &mut D, index: &mut Index, number: u32) {
        self.current = None;
        if let Ok(bytes) = disk.length(number) {
            index.resize(number, bytes);
        }
        index.doubt_removals_in(number);
    }
}
