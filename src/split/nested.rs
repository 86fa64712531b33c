//! Writes nested messages whose length is not known in advance.
#![forbid(unsafe_code)]

use crate::wire::varint::{self, VARINT_BYTES_MAX};

/// A message being written, and the room for its length in front of it.
pub(super) struct Nested {
    /// The start of the message's bytes.
    begin: usize,
    /// Bytes reserved for its length in front of them.
    room: usize,
}

impl Nested {
    /// Reserves room for the length. It expects a message of about `bytes`.
    #[inline(always)]
    pub(super) fn open(out: &mut Vec<u8>, bytes: usize) -> Self {
        let room = match bytes {
            0..0x80 => 1,
            0x80..0x4000 => 2,
            _ => varint::len(bytes as u64),
        };
        out.extend_from_slice(&[0; VARINT_BYTES_MAX][..room]);
        Self { begin: out.len(), room }
    }

    /// Whether nothing has been written since [`Self::open`].
    #[inline(always)]
    pub(super) fn is_empty(&self, out: &[u8]) -> bool {
        out.len() == self.begin
    }

    /// Writes the length of everything written since [`Self::open`]. Moves the message if its length does not fit the
    /// room exactly.
    #[inline(always)]
    pub(super) fn close(self, out: &mut Vec<u8>) {
        let bytes = out.len() - self.begin;
        match out.get_mut(self.begin - self.room..self.begin) {
            Some([length]) if bytes < 0x80 => *length = bytes.to_le_bytes()[0],
            _ => self.close_long(out, bytes),
        }
    }

    fn close_long(self, out: &mut Vec<u8>, bytes: usize) {
        let (end, room) = (out.len(), varint::len(bytes as u64));
        let begin = self.begin - self.room;
        if room != self.room {
            out.resize(end.max(begin + room + bytes), 0);
            out.copy_within(self.begin..end, begin + room);
            out.truncate(begin + room + bytes);
        }
        for (at, byte) in out[begin..begin + room].iter_mut().enumerate() {
            let seven = (bytes >> (7 * at) & 0x7f).to_le_bytes()[0];
            *byte = if at + 1 < room { seven | 0x80 } else { seven };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_the_shortest_encoding_whatever_was_expected() {
        let sizes = [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 70_000];
        for expected in sizes {
            for bytes in sizes {
                let mut out = b"before".to_vec();
                let nested = Nested::open(&mut out, expected);
                assert!(nested.is_empty(&out));
                let message: Vec<u8> = (0..=250).cycle().take(bytes).collect();
                out.extend_from_slice(&message);
                assert_eq!(nested.is_empty(&out), bytes == 0);
                nested.close(&mut out);
                let mut whole = b"before".to_vec();
                varint::put(&mut whole, bytes as u64);
                whole.extend_from_slice(&message);
                assert!(out == whole, "{bytes} bytes where {expected} were expected");
            }
        }
    }
}
