//! Ciphertext that was received and is not processed yet.
//!
//! rustls parses and decrypts in this buffer and says how many bytes at its front it is done with. These are skipped
//! and not moved: the rest moves to the front once, when the buffer goes out for the next read.
#![forbid(unsafe_code)]

use crate::limits::TLS_INCOMING_BYTES_MAX;

/// The buffer of one session.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    /// Bytes before this have been used up.
    from: usize,
    /// Bytes from there on that rustls has looked at and not used up. It may keep offsets into them, so it has to be
    /// shown at least these.
    seen: usize,
}

impl Incoming {
    /// All that is left.
    pub(super) fn view(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.from..).unwrap_or_default()
    }

    /// What rustls has looked at: to be shown again where it needs to see no more.
    pub(super) fn seen_view(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.from..self.from + self.seen).unwrap_or_default()
    }

    /// The number of bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.from
    }

    /// The first byte that is left.
    pub(super) fn first(&self) -> Option<u8> {
        self.bytes.get(self.from).copied()
    }

    /// rustls is done with this many bytes at the front, and of the others it has looked at the first `seen`.
    pub(super) fn consume(&mut self, bytes: usize, seen: usize) {
        self.from = (self.from + bytes).min(self.bytes.len());
        self.seen = seen.min(self.left());
        if self.left() == 0 {
            self.bytes.clear();
            self.from = 0;
        }
    }

    /// Lends the buffer for a read of up to `room` bytes, with what is left at its front, and says up to where it may
    /// be filled.
    pub(super) fn lend(&mut self, room: usize) -> (Vec<u8>, usize) {
        self.bytes.drain(..self.from);
        self.from = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        let end = (bytes.len() + room).min(TLS_INCOMING_BYTES_MAX.max(bytes.len()));
        bytes.reserve_exact(end - bytes.len());
        (bytes, end)
    }

    /// Takes the buffer back from a read.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
        self.seen = self.seen.min(self.left());
    }

    /// Memory for the next read, unless there is some.
    pub(super) fn offer(&mut self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        if self.bytes.capacity() > 0 {
            return Some(bytes);
        }
        bytes.clear();
        self.bytes = bytes;
        None
    }

    /// The memory, if nothing is left in it.
    pub(super) fn reclaim(&mut self) -> Option<Vec<u8>> {
        (self.left() == 0 && self.bytes.capacity() > 0).then(|| {
            self.from = 0;
            std::mem::take(&mut self.bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(incoming: &mut Incoming, room: usize, what: &[u8]) {
        let (mut buffer, end) = incoming.lend(room);
        assert!(buffer.capacity() >= end);
        buffer.extend_from_slice(what);
        incoming.put_back(buffer);
    }

    #[test]
    fn what_is_left_moves_to_the_front_with_the_next_read() {
        let mut incoming = Incoming::default();
        read(&mut incoming, 16, b"abcdef");
        incoming.consume(2, 3);
        assert_eq!(incoming.view(), b"cdef");
        assert_eq!(incoming.first(), Some(b'c'));
        assert_eq!(incoming.seen_view(), b"cde");
        read(&mut incoming, 16, b"gh");
        assert_eq!(incoming.view(), b"cdefgh");
        assert_eq!(incoming.seen_view(), b"cde", "it still is what rustls has seen");
        incoming.consume(6, 9);
        assert_eq!((incoming.left(), incoming.seen_view().len(), incoming.first()), (0, 0, None));
    }

    #[test]
    fn the_room_ends_at_the_bound() {
        let mut incoming = Incoming::default();
        read(&mut incoming, TLS_INCOMING_BYTES_MAX, &vec![1; TLS_INCOMING_BYTES_MAX - 10]);
        let (buffer, end) = incoming.lend(100);
        assert_eq!((buffer.len(), end), (TLS_INCOMING_BYTES_MAX - 10, TLS_INCOMING_BYTES_MAX));
    }

    #[test]
    fn memory_is_given_back_only_when_it_is_empty() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.reclaim(), None);
        assert_eq!(incoming.offer(vec![7; 9]), None);
        assert_eq!(incoming.left(), 0, "whatever was in it");
        assert_eq!(incoming.offer(vec![8]), Some(vec![8]), "it has some");
        read(&mut incoming, 4, b"x");
        assert_eq!(incoming.reclaim(), None);
        incoming.consume(1, 0);
        assert_eq!(incoming.reclaim().map(|buffer| buffer.len()), Some(0));
    }
}
