//! Scratch buffers, and the numbers that they hold.
#![forbid(unsafe_code)]

use crate::limits::SCRATCH_BYTES_MAX;

/// Converts a length or an offset within one inflated request.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a snappy block declares at most u32::MAX bytes")]
pub(super) const fn narrow(bytes: usize) -> u32 {
    bytes as u32
}

/// Empties `scratch`, and frees its memory if it is more than is kept between requests.
pub(super) fn trim<T>(scratch: &mut Vec<T>) {
    scratch.clear();
    if scratch.capacity() * size_of::<T>() > SCRATCH_BYTES_MAX {
        *scratch = Vec::new();
    }
}
