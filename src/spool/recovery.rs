//! Reads all segments when a spool is opened.
//!
//! Design constraints:
//!
//! * Nothing is written or deleted, so a folder that is refused can be looked at.
//! * What is found is made durable before anything is decided on its ground: which of a record and its copy is dead, or
//!   the next sequence. After a crash of the process alone, it may be in the kernel's memory only.
//! * Memory: the index and one record.
#![forbid(unsafe_code)]

use super::disk::Disk;
use super::error::OpenError;
use super::fields::Malformed;
use super::index::{Entry, Index, Segment};
use super::reader::{Found, Reader};
use super::record::{self, HEADER_BYTES, Header, HeaderFault, Record};
use super::spooled::Spooled;
use super::stream::{Sequence, Stream};

/// What the segments hold.
#[derive(Default)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// Greater than that of any segment.
    pub(super) number_next: u32,
    /// Greater than any that was ever durable.
    pub(super) sequence_next: u64,
}

/// Reads all segments.
pub(super) fn read<D: Disk>(disk: &mut D) -> Result<Recovered, OpenError> {
    let mut recovered = Recovered { sequence_next: 1, ..Recovered::default() };
    let segments = disk.list().map_err(|source| OpenError::Io { place: disk.place(None), source })?;
    for &number in &segments {
        recovered.read_segment(disk, number)?;
        recovered.number_next = number.saturating_add(1);
    }
    for &number in &segments {
        disk.sync(number).map_err(|source| OpenError::Io { place: disk.place(Some(number)), source })?;
    }
    disk.sync_folder().map_err(|source| OpenError::Io { place: disk.place(None), source })?;
    recovered.index.settle();
    Ok(recovered)
}

impl Recovered {
    fn read_segment<D: Disk>(&mut self, disk: &mut D, number: u32) -> Result<(), OpenError> {
        let failed = |disk: &D, source| OpenError::Io { place: disk.place(Some(number)), source };
        let length = disk.length(number).map_err(|source| failed(disk, source))?;
        let mut start = vec![0; HEADER_BYTES.min(usize::try_from(length).unwrap_or(HEADER_BYTES))];
        disk.read(number, 0, &mut start).map_err(|source| failed(disk, source))?;
        let mut segment = Segment { bytes: length, ..Segment::default() };
        let header = match Header::decode(&start, number, length) {
            Ok(header) => header,
            Err(HeaderFault::Torn) => {
                self.index.add_segment(number, segment);
                return Ok(());
            }
            Err(HeaderFault::Wrong) => return Err(OpenError::Header(disk.place(Some(number)))),
            Err(HeaderFault::Version(version)) => {
                return Err(OpenError::Version { place: disk.place(Some(number)), version });
            }
        };
        (segment.seed, segment.has_header) = (header.seed(), true);
        self.index.add_segment(number, segment);
        self.sequence_next = self.sequence_next.max(header.sequence.0);
        self.read_records(disk, number, header.seed(), length)
    }

    fn read_records<D: Disk>(
        &mut self,
        disk: &mut D,
        number: u32,
        seed: u32,
        length: u64,
    ) -> Result<(), OpenError> {
        let mut reader = Reader::new(number, seed, length, HEADER_BYTES as u64);
        loop {
            let found = reader.next(disk).map_err(|source| (source, disk.place(Some(number))));
            match found.map_err(|(source, place)| OpenError::Io { place, source })? {
                Found::Record(offset, record) => self.note(record, number, offset).map_err(|fault| {
                    let place = disk.place(Some(number));
                    OpenError::Record { place, offset, fault }
                })?,
                Found::Damage(damage) => self.index.note_damage(damage),
                Found::End => return Ok(()),
            }
        }
    }

    fn note(&mut self, record: Record<'_>, segment: u32, offset: u64) -> Result<(), Malformed> {
        let Record { sequence, kind, payload } = record;
        let after = sequence.0.checked_add(1).filter(|_| sequence > Sequence(0));
        self.sequence_next = self.sequence_next.max(after.ok_or(Malformed("its sequence is none"))?);
        let bytes = u32::try_from(record.bytes()).map_err(|_| Malformed("it is too long"))?;
        match kind {
            record::PART => {
                let (spooled, _) = Spooled::decode_around(payload)?;
                let offset = u32::try_from(offset).map_err(|_| Malformed("it is too far behind"))?;
                let (spooled_at, samples) = (spooled.spooled_at, spooled.part.samples);
                let entry = Entry { sequence, spooled_at, segment, offset, bytes, samples };
                self.index.push(&spooled.stream(), entry);
            }
            record::REMOVED => {
                self.index.found_removal(&Stream::decode(payload)?, sequence, segment, bytes);
            }
            _ => return Err(Malformed("its kind is unknown")),
        }
        Ok(())
    }
}
