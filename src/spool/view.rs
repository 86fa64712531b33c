//! Reads a folder for people: while a server has it open, or a copy of it.
//!
//! Design constraints:
//!
//! * Nothing is written, and no lock is taken: a server that starts or runs does not notice.
//! * Meanwhile the server appends, and it deletes segments. Before it deletes one, all that is live in it is in later
//!   ones. So the folder is read in rounds, each of which goes on where the one before has ended, until no segment has
//!   vanished before it was read. Of a record and its copy the later one counts here, as the other may be gone.
//! * Recovery ends a segment at its first wrong record, and says nothing of it: after a crash that is normal. Whoever
//!   looks after a disk wants to know whether it *is* normal ([`End`]).
//! * Memory: 32 bytes for each record on disk, and one record.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::error::{Damaged, OpenError};
use super::fields::Malformed;
use super::folder::{list, path_of};
use super::index::Entry;
use super::limits::{READ_BYTES, RECORD_BYTES_MAX};
use super::record::{self, FRAME_BYTES, HEADER_BYTES, Header, HeaderFault, Next, Record};
use super::spooled::Spooled;
use super::stream::{Sequence, Stream, StreamTotals};

/// Rounds, at most, after which a folder counts as changing too fast. All but the first read only what is new.
const ROUNDS_MAX: usize = 50;

/// Rounds in which the last segment is given the chance to end with a whole record, and the time between them.
const TAIL_ROUNDS: usize = 4;
const TAIL_WAIT: Duration = Duration::from_millis(20);

/// A segment whose last bytes are zero was extended, but not written, when the machine crashed.
const ZEROS_AT_TORN_END: usize = 8;

/// What a folder holds.
#[derive(Debug)]
pub struct View {
    folder: PathBuf,
    segments: BTreeMap<u32, Segment>,
    streams: HashMap<Stream, Records>,
    /// The highest sequence of any record.
    sequence_max: u64,
}

/// A segment.
#[derive(Debug)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Records with parts, removed ones and copies included.
    pub parts: u64,
    /// Records that tell what was removed.
    pub removals: u64,
    /// How it ends.
    pub end: End,
    seed: Option<u32>,
    /// The size of the header and of the records that were read.
    read: u64,
}

/// How a segment ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// With a whole record, or with its header.
    Whole,
    /// Within its header or a record, at which a write ended that nobody was told of: in a crash, or it goes on now.
    Torn {
        /// Where the header or record begins.
        at: u64,
    },
    /// In a way in which a crash hardly leaves it. What is behind is not read when a server starts, or the server does
    /// not start.
    Damaged {
        /// Where the header or record begins.
        at: u64,
        /// What is wrong.
        why: String,
    },
}

/// The records of a stream.
#[derive(Default, Debug)]
struct Records {
    /// By sequence, once they are settled.
    entries: Vec<Entry>,
    /// All records up to this one are removed.
    removed: Sequence,
}

/// What reading a segment has come to.
enum Outcome {
    Read,
    /// There is no such file any more.
    Vanished,
}

impl View {
    /// Reads a folder.
    ///
    /// # Errors
    /// If the folder cannot be read, or segments vanish all the time. What is wrong with a segment is in its
    /// [`Segment::end`].
    pub fn read(folder: &Path) -> Result<Self, OpenError> {
        let mut view = Self {
            folder: folder.into(),
            segments: BTreeMap::new(),
            streams: HashMap::new(),
            sequence_max: 0,
        };
        view.catch_up()?;
        for _ in 0..TAIL_ROUNDS {
            if view.segments.last_key_value().is_none_or(|(_, last)| last.end == End::Whole) {
                break;
            }
            wait_for_tail();
            view.catch_up()?;
        }
        Ok(view)
    }

    /// The segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.values()
    }

    /// The streams that have records, by tenant, upstream and destination.
    pub fn streams(&self) -> Vec<(Stream, StreamTotals)> {
        let with_records = self.streams.iter().filter_map(|(stream, records)| {
            let totals = StreamTotals {
                records: records.entries.len() as u64,
                samples: records.entries.iter().map(|entry| u64::from(entry.samples)).sum(),
                bytes: records.entries.iter().map(|entry| u64::from(entry.bytes)).sum(),
                oldest: records.entries.first()?.spooled_at,
            };
            Some((stream.clone(), totals))
        });
        let mut streams: Vec<_> = with_records.collect();
        streams.sort_unstable_by(|(a, _), (b, _)| {
            let key = |of: &Stream| (of.upstream.clone(), of.destination.name());
            a.tenant.as_str().cmp(b.tenant.as_str()).then_with(|| key(a).cmp(&key(b)))
        });
        streams
    }

    /// The first record of a stream behind `after`. One that is sent and removed meanwhile is passed over.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn next(
        &mut self,
        stream: &Stream,
        after: Sequence,
    ) -> Result<Option<(Sequence, Spooled)>, OpenError> {
        for _ in 0..ROUNDS_MAX {
            let Some(entry) = self.entry_after(stream, after) else { return Ok(None) };
            match self.part(stream, entry) {
                Ok(spooled) => return Ok(Some((entry.sequence, spooled))),
                // It has been moved or removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.catch_up()?,
                Err(source) => {
                    let place = path_of(&self.folder, entry.segment).display().to_string();
                    return Err(OpenError::Io { place, source });
                }
            }
        }
        Err(self.changes_too_fast())
    }

    fn entry_after(&self, stream: &Stream, after: Sequence) -> Option<Entry> {
        let entries = &self.streams.get(stream)?.entries;
        entries.get(entries.partition_point(|entry| entry.sequence <= after)).copied()
    }

    fn part(&self, stream: &Stream, entry: Entry) -> io::Result<Spooled> {
        let damaged = || Damaged { sequence: entry.sequence };
        let file = File::open(path_of(&self.folder, entry.segment))?;
        let mut bytes = vec![0; usize::try_from(entry.bytes).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, entry.offset.into())?;
        let seed = self.segments.get(&entry.segment).and_then(|segment| segment.seed).unwrap_or_default();
        match record::next(&bytes, seed) {
            Next::Record(record) if record.sequence == entry.sequence => {}
            _ => return Err(damaged().into()),
        }
        let spooled = Spooled::decode(&Bytes::from(bytes).split_off(FRAME_BYTES)).ok();
        spooled.filter(|spooled| spooled.stream() == *stream).ok_or_else(|| damaged().into())
    }

    /// Reads what is new, until nothing has vanished before it was read.
    fn catch_up(&mut self) -> Result<(), OpenError> {
        for _ in 0..ROUNDS_MAX {
            if self.round()? {
                self.settle();
                return Ok(());
            }
        }
        Err(self.changes_too_fast())
    }

    fn changes_too_fast(&self) -> OpenError {
        let source = io::Error::new(io::ErrorKind::ResourceBusy, "it changes faster than it can be read");
        OpenError::Io { place: self.folder.display().to_string(), source }
    }

    /// Reads what is new. Returns whether all segments that are there were read.
    fn round(&mut self) -> Result<bool, OpenError> {
        let place = || self.folder.display().to_string();
        let numbers = list(&self.folder).map_err(|source| OpenError::Io { place: place(), source })?;
        self.segments.retain(|number, _| numbers.binary_search(number).is_ok());
        let mut has_all = true;
        for number in numbers {
            let mut segment = self.segments.remove(&number).unwrap_or_else(|| Segment {
                path: path_of(&self.folder, number),
                bytes: 0,
                parts: 0,
                removals: 0,
                end: End::Whole,
                seed: None,
                read: 0,
            });
            match self.read_segment(number, &mut segment) {
                Ok(Outcome::Read) => drop(self.segments.insert(number, segment)),
                Ok(Outcome::Vanished) => has_all = false,
                Err(error) => {
                    segment.end =
                        End::Damaged { at: segment.read, why: format!("it cannot be read: {error}") };
                    self.segments.insert(number, segment);
                }
            }
        }
        Ok(has_all)
    }

    fn read_segment(&mut self, number: u32, segment: &mut Segment) -> io::Result<Outcome> {
        let file = match File::open(&segment.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Vanished),
            opened => opened?,
        };
        segment.bytes = file.metadata()?.len();
        segment.end = End::Whole;
        if segment.seed.is_none() && !read_header(&file, number, segment)? {
            return Ok(Outcome::Read);
        }
        let seed = segment.seed.unwrap_or_default();
        let mut read = Vec::new();
        let mut unread: &[u8] = &[];
        loop {
            match record::next(unread, seed) {
                Next::Record(record) => {
                    if let Err(fault) = self.note(record, number, segment) {
                        let why = format!("this program cannot read the record: {fault}");
                        segment.end = End::Damaged { at: segment.read, why };
                        return Ok(Outcome::Read);
                    }
                    segment.read += record.bytes() as u64;
                    unread = unread.get(record.bytes()..).unwrap_or_default();
                }
                Next::More(needed) if segment.read + needed as u64 <= segment.bytes => {
                    let left = usize::try_from(segment.bytes - segment.read).unwrap_or(usize::MAX);
                    read.clear();
                    read.resize(left.min(needed.max(READ_BYTES)), 0);
                    file.read_exact_at(&mut read, segment.read)?;
                    unread = &read;
                }
                Next::More(_) if segment.read == segment.bytes => return Ok(Outcome::Read),
                wrong @ (Next::More(_) | Next::Wrong) => {
                    let is_cut = wrong != Next::Wrong;
                    segment.end =
                        Tail { file: &file, segment, sequence_max: self.sequence_max }.end(is_cut)?;
                    return Ok(Outcome::Read);
                }
            }
        }
    }

    fn note(&mut self, record: Record<'_>, number: u32, segment: &mut Segment) -> Result<(), Malformed> {
        let Record { sequence, kind, payload } = record;
        if sequence == Sequence(0) {
            return Err(Malformed("its sequence is none"));
        }
        self.sequence_max = self.sequence_max.max(sequence.0);
        match kind {
            record::PART => {
                let (spooled, _) = Spooled::decode_around(payload)?;
                let entry = Entry {
                    sequence,
                    spooled_at: spooled.spooled_at,
                    segment: number,
                    offset: u32::try_from(segment.read).map_err(|_| Malformed("it is too far behind"))?,
                    bytes: u32::try_from(record.bytes()).map_err(|_| Malformed("it is too long"))?,
                    samples: spooled.part.samples,
                };
                self.streams.entry(spooled.stream()).or_default().entries.push(entry);
                segment.parts += 1;
            }
            record::REMOVED => {
                let records = self.streams.entry(Stream::decode(payload)?).or_default();
                records.removed = records.removed.max(sequence);
                segment.removals += 1;
            }
            _ => return Err(Malformed("its kind is unknown")),
        }
        Ok(())
    }

    /// Puts what was read in order: by sequence, each record once, without removed ones and those whose segment is
    /// gone.
    fn settle(&mut self) {
        let segments = &self.segments;
        for Records { entries, removed } in self.streams.values_mut() {
            entries.retain(|entry| entry.sequence > *removed && segments.contains_key(&entry.segment));
            entries.sort_by_key(|entry| (entry.sequence, std::cmp::Reverse(entry.segment)));
            entries.dedup_by_key(|entry| entry.sequence);
        }
    }
}

/// A server may be in the middle of a write.
#[expect(clippy::disallowed_methods, reason = "only commands use a view, in their only thread")]
fn wait_for_tail() {
    std::thread::sleep(TAIL_WAIT);
}

/// Reads the header of a segment. Returns whether it has one; if not, `segment` tells why.
fn read_header(file: &File, number: u32, segment: &mut Segment) -> io::Result<bool> {
    let mut start = [0; HEADER_BYTES];
    let length = HEADER_BYTES.min(usize::try_from(segment.bytes).unwrap_or(HEADER_BYTES));
    let start = start.get_mut(..length).unwrap_or_default();
    file.read_exact_at(start, 0)?;
    let damaged = |why| End::Damaged { at: 0, why };
    segment.end = match Header::decode(start, number, segment.bytes) {
        Ok(header) => {
            segment.seed = Some(header.seed());
            segment.read = HEADER_BYTES as u64;
            return Ok(true);
        }
        Err(HeaderFault::Torn) => End::Torn { at: 0 },
        Err(HeaderFault::Wrong) => {
            damaged("it is not a segment of a spool, or its first bytes are damaged".into())
        }
        Err(HeaderFault::Version(version)) => damaged(format!(
            "it has version {version} of the format, and this program reads only version {}",
            record::VERSION
        )),
    };
    Ok(false)
}

/// What is behind the last record of a segment that could be read.
struct Tail<'a> {
    file: &'a File,
    segment: &'a Segment,
    sequence_max: u64,
}

impl Tail<'_> {
    /// Tells a torn end from a damaged one. `is_cut` is whether the record is longer than the segment, as far as its
    /// length tells.
    ///
    /// Behind a torn end there is nothing, because nothing is appended after a write that failed. It is cut off, or the
    /// file system has extended it with zeros.
    fn end(&self, is_cut: bool) -> io::Result<End> {
        let at = self.segment.read;
        if let Some(next) = self.next_record()? {
            let why =
                format!("the record is damaged, and there are readable ones behind it, from byte {next} on");
            return Ok(End::Damaged { at, why });
        }
        if is_cut || self.ends_in_zeros()? {
            return Ok(End::Torn { at });
        }
        let why = "the last record is damaged. If the machine has crashed, it may be one that was never acknowledged";
        Ok(End::Damaged { at, why: why.into() })
    }

    fn ends_in_zeros(&self) -> io::Result<bool> {
        let mut last = [0; ZEROS_AT_TORN_END];
        let behind = self.segment.bytes - self.segment.read;
        let count = ZEROS_AT_TORN_END.min(usize::try_from(behind).unwrap_or(ZEROS_AT_TORN_END));
        let last = last.get_mut(..count).unwrap_or_default();
        self.file.read_exact_at(last, self.segment.bytes - count as u64)?;
        Ok(last.iter().all(|byte| *byte == 0))
    }

    /// Where the next record behind the wrong one begins.
    fn next_record(&self) -> io::Result<Option<u64>> {
        let length = self.segment.bytes;
        let mut at = self.segment.read + 1;
        let mut window = Vec::new();
        // Bytes that only look like records cost little, unless somebody has made them: then this is the end of it.
        let mut budget = length.saturating_mul(4) + READ_BYTES as u64;
        while at + FRAME_BYTES as u64 <= length {
            let take = READ_BYTES.min(usize::try_from(length - at).unwrap_or(READ_BYTES));
            window.clear();
            window.resize(take, 0);
            self.file.read_exact_at(&mut window, at)?;
            for (offset, frame) in (at..).zip(window.windows(FRAME_BYTES)) {
                let Some(bytes) = self.looks_like_record(frame, length - offset) else { continue };
                budget = budget.saturating_sub(bytes as u64);
                if budget == 0 {
                    return Ok(None);
                }
                let mut found = vec![0; bytes];
                self.file.read_exact_at(&mut found, offset)?;
                if matches!(record::next(&found, self.segment.seed.unwrap_or_default()), Next::Record(_)) {
                    return Ok(Some(offset));
                }
            }
            at += (take - FRAME_BYTES + 1) as u64;
        }
        Ok(None)
    }

    /// The size of the record that these bytes may begin, if one of this size fits into `left`.
    fn looks_like_record(&self, frame: &[u8], left: u64) -> Option<usize> {
        let ([a, b, c, d, _, _, _, _], rest) = frame.split_first_chunk::<8>()?;
        let (sequence, [kind, ..]) = rest.split_first_chunk::<8>()? else { return None };
        let bytes = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok()?.checked_add(8)?;
        let sequence = u64::from_le_bytes(*sequence);
        // Sequences grow by one, so those that are not read yet are not much higher.
        let is_plausible = (FRAME_BYTES..=FRAME_BYTES + RECORD_BYTES_MAX).contains(&bytes)
            && bytes as u64 <= left
            && [record::PART, record::REMOVED].contains(kind)
            && (1..self.sequence_max.saturating_add(1 << 32)).contains(&sequence);
        is_plausible.then_some(bytes)
    }
}
