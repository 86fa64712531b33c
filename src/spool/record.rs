//! The bytes of a segment: a header, then records.
//!
//! ```text
//! header   magic (8)   version (4)   number (8)   sequence (8)   CRC32C of these (4)
//! record   length (4)  CRC32C (4)  | sequence (8)  kind (1)  payload |    length and checksum are those of |…|
//! ```
//!
//! Numbers are little-endian. The header's sequence is the next one at the segment's creation. So sequences grow even
//! if all records before it are gone. A record's checksum starts from that of the header. So a block of a deleted
//! segment, which a file system may show after a crash, is never a record of another segment.
//!
//! *Why a torn tail loses nothing:* A segment is only ever appended to, by one process, and a sync covers all that was
//! appended before. After a failed write or sync nothing more is appended to it. So every record that was acknowledged
//! is before the first one that a crash or an error could have torn. A disk that returns other bytes than it was given
//! is another matter: see `reader.rs`.
#![forbid(unsafe_code)]

use super::fields::{Fields, Malformed};
use super::limits::RECORD_BYTES_MAX;
use super::stream::Sequence;

/// Size of a segment's header.
pub const HEADER_BYTES: usize = 32;
/// Size of what precedes a record's payload.
pub const FRAME_BYTES: usize = 17;

/// The version of the format, this file and `spooled.rs` together.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"TNTSPOOL";
/// Length and checksum, which the length does not count.
const PREFIX_BYTES: usize = 8;
/// Sequence and kind.
const HEAD_BYTES: usize = FRAME_BYTES - PREFIX_BYTES;

/// Nobody appends so many.
const SEQUENCE_PLAUSIBLE_MAX: u64 = 1 << 48;

/// A record that holds a [`Spooled`](super::Spooled).
pub const PART: u8 = 1;
/// A record that says up to which sequence a stream was removed. Its payload is the stream.
pub const REMOVED: u8 = 2;

/// The header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The segment's number, as in its name.
    pub number: u32,
    /// At least this is the next sequence after all that was appended before the segment.
    pub sequence: Sequence,
}

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    /// It is cut short, or parts of it are still zero: the segment's creation did not end.
    Torn,
    /// Another version of the format.
    Version(u32),
    /// It belongs to no segment of this number.
    Wrong,
}

impl Header {
    /// Its bytes.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let (content, checksum) = bytes.split_at_mut(HEADER_BYTES - 4);
        let fields = MAGIC.into_iter().chain(VERSION.to_le_bytes());
        let fields = fields.chain(u64::from(self.number).to_le_bytes()).chain(self.sequence.0.to_le_bytes());
        content.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        checksum.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
        bytes
    }

    /// What the checksums of its records start from.
    pub fn seed(self) -> u32 {
        let [.., a, b, c, d] = self.encode();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Reads the header of the segment `number`, which has `length` bytes, from its start. A segment whose creation did
    /// not end has no more than a header, because records follow only when that is durable.
    ///
    /// # Errors
    /// See [`HeaderFault`].
    pub fn decode(start: &[u8], number: u32, length: u64) -> Result<Self, HeaderFault> {
        let Ok((version, header)) = Self::fields(start) else {
            return Err(Self::fault(start, number, length));
        };
        if version != VERSION && version != 0 {
            return Err(HeaderFault::Version(version));
        }
        if header.number == number && start.starts_with(&header.encode()) {
            return Ok(header);
        }
        Err(Self::fault(start, number, length))
    }

    /// What magic, version and number say, if the magic is right.
    fn fields(start: &[u8]) -> Result<(u32, Self), Malformed> {
        let mut fields = Fields::new(start);
        if fields.array()? != MAGIC {
            return Err(Malformed("its magic is wrong"));
        }
        let version = fields.u32()?;
        let number = u32::try_from(fields.u64()?).unwrap_or(u32::MAX);
        let header = Self { number, sequence: Sequence(fields.u64()?) };
        fields.u32()?;
        Ok((version, header))
    }

    fn fault(start: &[u8], number: u32, length: u64) -> HeaderFault {
        let expected = Self { number, sequence: Sequence(0) }.encode();
        let known = expected.iter().take(HEADER_BYTES - 12).zip(start);
        let is_torn = length <= HEADER_BYTES as u64 && known.into_iter().all(|(of, is)| of == is || *is == 0);
        if is_torn { HeaderFault::Torn } else { HeaderFault::Wrong }
    }
}

/// A record, in the bytes of its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its sequence; of a removal the one up to which its stream was removed.
    pub sequence: Sequence,
    /// [`PART`] or [`REMOVED`].
    pub kind: u8,
    /// What it holds.
    pub payload: &'a [u8],
}

/// What the bytes of a segment begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next<'a> {
    /// A record.
    Record(Record<'a>),
    /// The front of a record that has as many bytes, as far as can be seen.
    More(usize),
    /// No record.
    Wrong,
}

impl Record<'_> {
    /// Its size in the segment.
    pub fn bytes(&self) -> usize {
        FRAME_BYTES + self.payload.len()
    }
}

/// Reads the record at the front of `input`. `seed` is [`Header::seed`]. Nothing is allocated, whatever length it has.
pub fn next(input: &[u8], seed: u32) -> Next<'_> {
    let Some((prefix, rest)) = input.split_first_chunk::<PREFIX_BYTES>() else {
        return Next::More(FRAME_BYTES);
    };
    let [a, b, c, d, e, f, g, h] = *prefix;
    let (length, checksum) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(HEAD_BYTES..=HEAD_BYTES + RECORD_BYTES_MAX).contains(&length) {
        return Next::Wrong;
    }
    let Some(content) = rest.get(..length) else { return Next::More(PREFIX_BYTES + length) };
    if crc32c::crc32c_append(seed, content) != checksum {
        return Next::Wrong;
    }
    let record = input.get(..PREFIX_BYTES + length).and_then(self::content);
    record.map_or(Next::Wrong, Next::Record)
}

/// The size of the record at the front of `input`, if its length can be one.
pub(super) fn size(input: &[u8]) -> Option<usize> {
    let length = usize::try_from(u32::from_le_bytes(*input.first_chunk()?)).ok()?;
    (HEAD_BYTES..=HEAD_BYTES + RECORD_BYTES_MAX).contains(&length).then_some(PREFIX_BYTES + length)
}

/// The same, if its other fields can be those of a record, too. Nearly no other bytes look like that.
pub(super) fn plausible_size(frame: &[u8]) -> Option<usize> {
    let Record { sequence, kind, .. } = content(frame)?;
    let is_plausible = matches!(kind, PART | REMOVED) && (1..SEQUENCE_PLAUSIBLE_MAX).contains(&sequence.0);
    if is_plausible { size(frame) } else { None }
}

/// What a record holds, whose bytes have been checked.
pub(super) fn content(bytes: &[u8]) -> Option<Record<'_>> {
    let (sequence, rest) = bytes.get(PREFIX_BYTES..)?.split_first_chunk()?;
    let (kind, payload) = rest.split_first()?;
    Some(Record { sequence: Sequence(u64::from_le_bytes(*sequence)), kind: *kind, payload })
}

/// Appends a record whose payload `encode` appends, and returns its size. Its checksum is missing until [`seal`] is
/// called, because what is appended now does not have a segment yet. After an error nothing is appended.
///
/// # Errors
/// Those of `encode`, and [`Malformed`] if the payload is too long.
pub fn put(
    out: &mut Vec<u8>,
    sequence: Sequence,
    kind: u8,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Malformed>,
) -> Result<u32, Malformed> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.extend_from_slice(&sequence.0.to_le_bytes());
    out.push(kind);
    let encoded = encode(out).and_then(|()| {
        let bytes = out.len() - start;
        let fits = bytes <= FRAME_BYTES + RECORD_BYTES_MAX;
        u32::try_from(bytes).ok().filter(|_| fits).ok_or(Malformed("a record is too long"))
    });
    match encoded {
        Ok(bytes) => {
            // The length counts neither itself nor the checksum. It has 32 bits.
            let length = (u64::from(bytes) - PREFIX_BYTES as u64).to_le_bytes();
            out.iter_mut().skip(start).take(4).zip(length).for_each(|(to, from)| *to = from);
        }
        Err(_) => out.truncate(start),
    }
    encoded
}

/// Gives the records in `batch` their checksums for the segment with this seed.
pub fn seal(mut batch: &mut [u8], seed: u32) {
    while let Some((prefix, rest)) = batch.split_first_chunk_mut::<PREFIX_BYTES>() {
        let [a, b, c, d, checksum @ ..] = prefix;
        let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let Some((content, rest)) = rest.split_at_mut_checked(length) else { return };
        *checksum = crc32c::crc32c_append(seed, content).to_le_bytes();
        batch = rest;
    }
}
