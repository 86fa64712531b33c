//! The protobuf message under construction: its fields, in the order of their bytes.
//!
//! Design constraints:
//!
//! * A field's length precedes its content, and is known only after it. Content is written in place and mostly stays
//!   there: most lengths have two bytes, so two are reserved, and the content moves only for other lengths.
#![forbid(unsafe_code)]

use crate::wire::varint::{self, VARINT_BYTES_MAX};

/// Keys of an entry's fields (timestamp, line, structured metadata) and of the fields within them.
const TIMESTAMP_KEY: u8 = 0x0a;
pub(super) const LINE_KEY: u8 = 0x12;
pub(super) const METADATA_KEY: u8 = 0x1a;
const SECONDS_KEY: u8 = 0x08;
const NANOS_KEY: u8 = 0x10;
pub(super) const NAME_KEY: u8 = 0x0a;
pub(super) const VALUE_KEY: u8 = 0x12;

/// A length-delimited field under construction.
pub(super) struct Open {
    /// The first byte of the field's content.
    at: usize,
}

impl Open {
    const LENGTH_BYTES: usize = 2;
    /// The key, and what is reserved.
    pub(super) const HEAD_BYTES: usize = 1 + Self::LENGTH_BYTES;

    /// Appends the key, and what is reserved for the length.
    pub(super) fn new(out: &mut Vec<u8>, key: u8) -> Self {
        out.extend([key, 0, 0]);
        Self { at: out.len() }
    }

    /// Writes the length of what was appended since.
    pub(super) fn close(self, out: &mut Vec<u8>) {
        let length = out.len() - self.at;
        let reserved = self.at - Self::LENGTH_BYTES;
        if let Ok(length @ ..0x80) = u8::try_from(length) {
            out[reserved] = length;
            out.copy_within(self.at.., self.at - 1);
            out.truncate(out.len() - 1);
            return;
        }
        if let Ok(length @ ..0x4000) = u16::try_from(length) {
            let two_bytes = (length & 0x3f80) << 1 | 0x80 | length & 0x7f;
            out[reserved..self.at].copy_from_slice(&two_bytes.to_le_bytes());
            return;
        }
        let mut prefix = Vec::with_capacity(VARINT_BYTES_MAX);
        varint::put(&mut prefix, length as u64);
        out.splice(reserved..self.at, prefix);
    }
}

/// Appends a length-delimited field.
pub(super) fn put_bytes(out: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    out.push(key);
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a `google.protobuf.Timestamp`: whole seconds, rounded down, and the remaining nanoseconds.
pub(super) fn put_timestamp(out: &mut Vec<u8>, nanos: i64) {
    const NANOS_PER_SEC: i64 = 1_000_000_000;
    let (seconds, nanos) = (nanos.div_euclid(NANOS_PER_SEC), nanos.rem_euclid(NANOS_PER_SEC));
    let length = [seconds, nanos].map(|number| match number {
        0 => 0,
        number => 1 + varint::len(number.cast_unsigned()),
    });
    out.push(TIMESTAMP_KEY);
    varint::put(out, length.iter().sum::<usize>() as u64);
    for (key, number) in [(SECONDS_KEY, seconds), (NANOS_KEY, nanos)] {
        if number != 0 {
            out.push(key);
            varint::put(out, number.cast_unsigned());
        }
    }
}
