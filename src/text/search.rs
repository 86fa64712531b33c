//! Searches text for the first of a few special bytes.
//!
//! The texts are names, values and lines: tens of bytes, where a call to a vectorised search costs more than the
//! search. So eight bytes are tested at a time, in a register, on every CPU. (Mycroft's test for a zero byte,
//! comp.lang.c, 1987.)
#![forbid(unsafe_code)]

use std::ops::BitOr;

/// Each byte's lowest bit, to repeat a byte by multiplication.
const ONES: u64 = u64::MAX / 0xff;

/// Eight bytes of a text. The first is in the lowest bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk(u64);

/// Which bytes of a chunk were found, by their highest bits. Only the first one is certain: behind it, a carry may mark
/// others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found(u64);

impl Chunk {
    /// Finds bytes that are equal to `byte`.
    #[inline]
    pub(crate) fn equal(self, byte: u8) -> Found {
        let differs = self.0 ^ (ONES * u64::from(byte));
        Found(differs.wrapping_sub(ONES) & !differs)
    }

    /// Finds bytes below `byte`, which is ASCII.
    #[inline]
    pub(crate) fn below(self, byte: u8) -> Found {
        Found(self.0.wrapping_sub(ONES * u64::from(byte)) & !self.0)
    }

    /// Finds bytes that are not ASCII.
    #[inline]
    pub(crate) fn not_ascii(self) -> Found {
        Found(self.0)
    }
}

impl BitOr for Found {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Returns the number of bytes before the first that `special` finds, or all bytes.
#[inline]
pub(crate) fn find(text: &[u8], special: impl Fn(Chunk) -> Found) -> usize {
    let first = |bytes| {
        let Found(found) = special(Chunk(u64::from_le_bytes(bytes)));
        (found & (ONES << 7)).trailing_zeros() as usize / 8
    };
    let (chunks, tail) = text.as_chunks::<8>();
    for (at, chunk) in chunks.iter().enumerate() {
        let first = first(*chunk);
        if first < 8 {
            return at * 8 + first;
        }
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    text.len() - tail.len() + first(last).min(tail.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_loop_finds(
            text in prop::collection::vec(prop_oneof![any::<u8>(), 0x1e_u8..0x24, 0x7e_u8..0x82], 0..40),
            byte in prop_oneof![any::<u8>(), 0x1e_u8..0x24],
            bound in 0_u8..0x80,
        ) {
            let position = |special: &dyn Fn(u8) -> bool| {
                text.iter().position(|&byte| special(byte)).unwrap_or(text.len())
            };
            prop_assert_eq!(find(&text, |chunk| chunk.equal(byte)), position(&|b| b == byte));
            prop_assert_eq!(find(&text, |chunk| chunk.below(bound)), position(&|b| b < bound));
            prop_assert_eq!(find(&text, Chunk::not_ascii), position(&|b| b >= 0x80));
            let any = find(&text, |chunk| chunk.equal(byte) | chunk.below(bound) | chunk.not_ascii());
            prop_assert_eq!(any, position(&|b| b == byte || b < bound || b >= 0x80));
        }
    }
}
