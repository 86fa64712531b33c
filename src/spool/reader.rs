//! Reads the records of a segment in their order, and finds those behind damaged bytes.
//!
//! Design constraints:
//!
//! * A disk may return other bytes than it was given, anywhere. What is behind them was acknowledged, too, so reading
//!   goes on with the next record that can be found. Only what no record follows is a torn tail.
//! * A search has bounded work: it is linear as long as nothing looks like a frame, and what does may cost the
//!   checksums of four times the segment.
//! * A part may hold what looks like a record. So a damaged record is first skipped as a whole, by its length.
//! * Memory: one record, never what a damaged length says.
//!
//! After a failure of power, a hole may also be in what was never acknowledged. That is told as damage, too, because
//! nothing distinguishes it.
#![forbid(unsafe_code)]

use std::io;

use super::disk::Disk;
use super::error::Damage;
use super::limits::READ_BYTES;
use super::record::{self, FRAME_BYTES, Next, Record};
use super::spooled::Spooled;
use super::stream::Stream;

/// How much may be checked in searches, in lengths of the segment.
const SEARCH_LENGTHS: u64 = 4;

/// What a segment holds next.
pub(super) enum Found<'a> {
    /// A record, and where it begins.
    Record(u64, Record<'a>),
    /// Bytes that are no record. There is more behind them, unless a search took too long.
    Damage(Damage),
    /// The end, or a torn tail.
    End,
}

/// Reads one segment.
pub(super) struct Reader {
    segment: u32,
    seed: u32,
    length: u64,
    /// Where the next record begins.
    offset: u64,
    read: Vec<u8>,
    /// Where these bytes begin.
    read_from: u64,
    search_left: u64,
}

impl Reader {
    /// Reads a segment of `length` bytes from `offset` on, where a record begins.
    pub(super) fn new(segment: u32, seed: u32, length: u64, offset: u64) -> Self {
        let search_left = length.saturating_mul(SEARCH_LENGTHS);
        Self { segment, seed, length, offset, read: Vec::new(), read_from: 0, search_left }
    }

    /// Where it will go on.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The segment's number.
    pub(super) fn segment(&self) -> u32 {
        self.segment
    }

    /// What comes next.
    ///
    /// # Errors
    /// Those of the disk. Another call tries again.
    pub(super) fn next<D: Disk>(&mut self, disk: &mut D) -> io::Result<Found<'_>> {
        let offset = self.offset;
        if let Some(bytes) = self.check(disk, offset)? {
            self.offset += bytes as u64;
            let record = self.read_at(offset).get(..bytes).and_then(record::content);
            return Ok(record.map_or(Found::End, |record| Found::Record(offset, record)));
        }
        if offset >= self.length {
            return Ok(Found::End);
        }
        let next = self.search(disk)?;
        self.offset = next.unwrap_or(self.length);
        if next.is_none() && self.search_left > 0 {
            return Ok(Found::End);
        }
        Ok(Found::Damage(Damage { segment: self.segment, offset, bytes: self.offset - offset }))
    }

    /// What was read, from `offset` on.
    fn read_at(&self, offset: u64) -> &[u8] {
        let skipped = offset.checked_sub(self.read_from).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.read.get(skipped..)).unwrap_or_default()
    }

    /// Reads from `offset` on, at least `needed` bytes. The segment has them.
    fn fill<D: Disk>(&mut self, disk: &mut D, offset: u64, needed: usize) -> io::Result<()> {
        let left = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
        self.read.clear();
        self.read.resize(left.min(needed.max(READ_BYTES)), 0);
        self.read_from = offset;
        disk.read(self.segment, offset, &mut self.read).inspect_err(|_| self.read.clear())
    }

    /// The size of the record at `offset`, which was read then; `None` if there is none.
    fn check<D: Disk>(&mut self, disk: &mut D, offset: u64) -> io::Result<Option<usize>> {
        loop {
            match record::next(self.read_at(offset), self.seed) {
                Next::Record(record) => return Ok(Some(record.bytes())),
                Next::More(needed) if offset + needed as u64 <= self.length => {
                    self.fill(disk, offset, needed)?;
                }
                Next::More(_) | Next::Wrong => return Ok(None),
            }
        }
    }

    /// Whether a record that can be decoded is at `offset`. A checksum alone may be right by chance.
    fn is_record<D: Disk>(&mut self, disk: &mut D, offset: u64) -> io::Result<bool> {
        let Some(bytes) = self.check(disk, offset)? else { return Ok(false) };
        let record = self.read_at(offset).get(..bytes).and_then(record::content);
        Ok(record.is_some_and(|Record { kind, payload, .. }| match kind {
            record::PART => Spooled::decode_around(payload).is_ok(),
            record::REMOVED => Stream::decode(payload).is_ok(),
            _ => false,
        }))
    }

    /// Where the next record behind a wrong one begins.
    fn search<D: Disk>(&mut self, disk: &mut D) -> io::Result<Option<u64>> {
        let wrong = self.offset;
        if let Some(size) = record::size(self.read_at(wrong)) {
            let behind = wrong + size as u64;
            if behind < self.length && self.is_record(disk, behind)? {
                return Ok(Some(behind));
            }
        }
        let mut at = wrong + 1;
        while at + FRAME_BYTES as u64 <= self.length && self.search_left > 0 {
            if self.read_at(at).len() < FRAME_BYTES {
                self.fill(disk, at, FRAME_BYTES)?;
            }
            let read = self.read_at(at);
            let frames = read.windows(FRAME_BYTES).map(record::plausible_size);
            let (length, end) = (self.length, at + (read.len() - FRAME_BYTES) as u64);
            let fits = |(at, size): (u64, Option<usize>)| {
                size.filter(|size| at + *size as u64 <= length).map(|size| (at, size))
            };
            let Some((candidate, size)) = (at..).zip(frames).find_map(fits) else {
                at = end + 1;
                continue;
            };
            if self.is_record(disk, candidate)? {
                return Ok(Some(candidate));
            }
            self.search_left = self.search_left.saturating_sub(size as u64);
            at = candidate + 1;
        }
        Ok(None)
    }
}
