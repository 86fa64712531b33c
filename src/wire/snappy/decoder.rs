//! Decodes the elements of a snappy block: literals, and copies of what was decoded before.
//!
//! Design constraints:
//!
//! * Elements of remote write have sixteen bytes on average, and their kinds and lengths are hard to predict. A decoder
//!   that branches on them spends much of its time on mispredicted branches. So [`common`] selects where an element's
//!   bytes come from without a branch, and moves 32 bytes whatever its length. It branches only for what is rare:
//!   longer elements, and those that it leaves to [`careful`].
//! * Moves of a fixed size need room. The output ends with [`SLACK_BYTES`], which are overwritten with anything. The
//!   last elements are decoded from a copy with zeros behind them.
//! * [`common`] stops in front of what it cannot handle, and leaves it to [`careful`]: long literals, copies that
//!   overlap themselves, offsets of four bytes, and offsets out of range.
//! * A block may read zeros behind its elements, or write into the slack. It is valid only if it ends exactly at both
//!   ends, which is checked once. Then each byte of the output was written by this block, and what the memory held
//!   before cannot show.
#![forbid(unsafe_code)]

use std::hint::select_unpredictable;
use std::ops::Range;

#[cfg(test)]
mod tests;

/// The bytes that [`decode`] needs behind the inflated ones.
pub(super) const SLACK_BYTES: usize = 2 * MOVE_BYTES;

/// How many bytes move at a time. An element in [`common`] takes one or two moves: a copy has at most 64 bytes, and a
/// literal whose length fits the tag at most 60. Always moving 64 costs more than the branch for the second move.
const MOVE_BYTES: usize = 32;

/// A tag, and two moves.
const WINDOW_BYTES: usize = 1 + 2 * MOVE_BYTES;

/// The tags of elements of more than [`MOVE_BYTES`], apart from those that need care: literals, and copies with an
/// offset of two bytes. [`Tag::length`] says the same, but comes later, and a branch should not wait if it is hard to
/// predict.
const LONG: usize = 0b1000_0000;
const LONG_MASK: usize = 0b1000_0001;

/// What follows from a tag. Its size is a power of two, so that one load gets a field.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Tag {
    /// The bits of the next two bytes that belong to the offset.
    offset_mask: u16,
    /// The bits of the offset that are in the tag itself.
    offset_high: u16,
    /// The least offset for which [`common`] handles the element.
    offset_min: u16,
    /// How many bytes it makes.
    length: u16,
}

impl Tag {
    /// A least offset above all that [`common`] can find in a literal or in a copy with an offset of four bytes: their
    /// mask is 0.
    const CAREFUL: Self = Self { offset_mask: 0, offset_high: 0, offset_min: 1, length: 0 };

    const fn new(tag: u16) -> Self {
        let (kind, number) = (tag & 3, tag >> 2);
        match kind {
            0 if number < 60 => Self { offset_min: 0, length: number + 1, ..Self::CAREFUL },
            1 => Self::copy(0xff, number >> 3 << 8, 4 + (number & 7)),
            2 => Self::copy(0xffff, 0, number + 1),
            _ => Self::CAREFUL,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a move is small")]
    const fn copy(offset_mask: u16, offset_high: u16, length: u16) -> Self {
        // With a lesser offset, a move would read bytes that it has yet to write. The second move comes after the
        // first.
        let offset_min = if length < MOVE_BYTES as u16 { length } else { MOVE_BYTES as u16 };
        Self { offset_mask, offset_high, offset_min, length }
    }
}

static TAGS: [Tag; 256] = tags();

const fn tags() -> [Tag; 256] {
    let mut tags = [Tag::CAREFUL; 256];
    let mut tag = 0;
    while tag < 256 {
        tags[tag as usize] = Tag::new(tag);
        tag += 1;
    }
    tags
}

/// How far a block is decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Position {
    /// Bytes of elements that were read.
    read: usize,
    /// Bytes of output that were written.
    written: usize,
}

/// Decodes `elements` into `output`, which they must fill exactly, except for [`SLACK_BYTES`] at its end. `None`
/// means that they do not.
pub(super) fn decode(elements: &[u8], output: &mut [u8]) -> Option<()> {
    let at = decode_windows(elements, output, Position { read: 0, written: 0 })?;
    let rest = elements.get(at.read..)?;
    let mut padded = [0; 2 * WINDOW_BYTES];
    padded.get_mut(..rest.len())?.copy_from_slice(rest);
    // While an element is left, there is a window.
    let padded = padded.get(..rest.len() + WINDOW_BYTES - 1)?;
    let at = decode_windows(padded, output, Position { read: 0, ..at })?;
    (at.read == rest.len() && at.written + SLACK_BYTES == output.len()).then_some(())
}

/// Decodes elements for as long as a window is left.
fn decode_windows(elements: &[u8], output: &mut [u8], mut at: Position) -> Option<Position> {
    loop {
        at = common(elements, output, at);
        if elements.len() - at.read < WINDOW_BYTES {
            return Some(at);
        }
        at = careful(elements, output, at)?;
    }
}

/// Decodes elements up to one that needs care, or to the last window.
#[inline(never)]
fn common(elements: &[u8], output: &mut [u8], at: Position) -> Position {
    let Some(mut rest) = elements.get(at.read..) else { return at };
    let mut written = at.written;
    while let Some(window) = rest.first_chunk::<WINDOW_BYTES>() {
        // A `usize`, because the compiler calculates worse with bytes.
        let tag = usize::from(window[0]);
        let fields = &TAGS[tag];
        let offset_low = u16::from_le_bytes([window[1], window[2]]) & fields.offset_mask;
        let offset = offset_low | fields.offset_high;
        // An offset beyond the start wraps around to a large number.
        let from = written.wrapping_sub(usize::from(offset));
        let room = output.len();
        // This tells the compiler that all ranges of `output` are in bounds. Where it checks them itself, blocks take a
        // tenth longer.
        if room < SLACK_BYTES || from > room - SLACK_BYTES || written > room - SLACK_BYTES {
            break;
        }
        if offset < fields.offset_min {
            break;
        }
        let is_literal = tag & 3 == 0;
        if move_bytes(window, output, is_literal, from, written, 0).is_none() {
            break;
        }
        if tag & LONG_MASK == LONG
            && move_bytes(window, output, is_literal, from, written, MOVE_BYTES).is_none()
        {
            break;
        }
        written += usize::from(fields.length);
        // The next tag waits for this, and a sum is there sooner than a number from `fields`.
        let element_bytes = select_unpredictable(is_literal, 2 + (tag >> 2), 1 + (tag & 3));
        rest = &rest[element_bytes..];
    }
    Position { read: elements.len() - rest.len(), written }
}

/// Moves some bytes of an element, from its byte `skip` on: a literal in `window`, or a copy of what begins at `from`.
/// Ranges end where a second move does, because the compiler then sees that they are in bounds.
#[inline(always)]
fn move_bytes(
    window: &[u8; WINDOW_BYTES],
    output: &mut [u8],
    is_literal: bool,
    from: usize,
    to: usize,
    skip: usize,
) -> Option<()> {
    let literal = chunk(window, 1 + skip..WINDOW_BYTES)?;
    let copied = chunk(output, from + skip..from + SLACK_BYTES)?;
    // Without the hint, the compiler would branch here.
    let bytes: [u8; MOVE_BYTES] = *select_unpredictable(is_literal, literal, copied);
    *output.get_mut(to + skip..to + SLACK_BYTES)?.first_chunk_mut()? = bytes;
    Some(())
}

/// The first bytes of a range.
#[inline(always)]
fn chunk(bytes: &[u8], range: Range<usize>) -> Option<&[u8; MOVE_BYTES]> {
    bytes.get(range)?.first_chunk()
}

/// Decodes one element. `None` means that it is invalid, or does not fit.
#[cold]
#[inline(never)]
fn careful(elements: &[u8], output: &mut [u8], at: Position) -> Option<Position> {
    let (&tag, rest) = elements.get(at.read..)?.split_first()?;
    let number = usize::from(tag >> 2);
    let (extra_bytes, length) = match tag & 3 {
        0 => {
            // From 60 on, the tag says how many bytes the length takes.
            let extra_bytes = number.saturating_sub(59);
            let length = if extra_bytes == 0 { number } else { little_endian(rest.get(..extra_bytes)?) };
            (extra_bytes, length.checked_add(1)?)
        }
        1 => (1, 4 + (number & 7)),
        2 => (2, number + 1),
        _ => (4, number + 1),
    };
    if length > output.len().checked_sub(at.written)? {
        return None;
    }
    let (extra, rest) = rest.split_at_checked(extra_bytes)?;
    let read = at.read + 1 + extra_bytes;
    let written = at.written + length;
    if tag & 3 == 0 {
        output[at.written..written].copy_from_slice(rest.get(..length)?);
        return Some(Position { read: read + length, written });
    }
    let offset_high = if tag & 3 == 1 { number >> 3 << 8 } else { 0 };
    repeat(&mut output[..written], at.written, little_endian(extra) | offset_high)?;
    Some(Position { read, written })
}

/// Fills `output` from `at` on with the bytes that are `offset` back.
fn repeat(output: &mut [u8], at: usize, offset: usize) -> Option<()> {
    let from = at.checked_sub(offset).filter(|_| offset > 0)?;
    let mut written = at;
    while written < output.len() {
        // What follows `from` has the period `offset`, so all of it can be copied at once, and doubles.
        let bytes = (written - from).min(output.len() - written);
        output.copy_within(from..from + bytes, written);
        written += bytes;
    }
    Some(())
}

/// A number of at most four bytes.
fn little_endian(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}
