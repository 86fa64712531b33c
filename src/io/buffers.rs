//! Reusable read buffers, and slices that are written together.
//!
//! An operation on a ring owns its buffer from start to end. So an idle connection must not have a read pending: 2,000
//! of them would pin 2,000 buffers. It waits for readability first, and only then borrows a buffer.

use std::cell::RefCell;

use bytes::{Buf, Bytes};
use monoio::buf::IoVecBuf;

use crate::limits::{GATHER_SLICES_MAX, POOLED_BUFFER_BYTES_MAX, POOLED_BYTES_MAX};

/// The spare buffers of one core. Their total size is limited, and unusually large buffers are not kept.
#[derive(Debug, Default)]
pub struct Buffers {
    spare: RefCell<Spare>,
}

#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// Returns an empty buffer with room for at least `capacity` bytes.
    pub fn take(&self, capacity: usize) -> Vec<u8> {
        let mut spare = self.spare.borrow_mut();
        let mut buffer = spare.buffers.pop().unwrap_or_default();
        spare.bytes -= buffer.capacity();
        buffer.reserve(capacity);
        buffer
    }

    /// Takes back a buffer, with any content, for reuse.
    pub fn put(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        let bytes = buffer.capacity();
        if bytes > POOLED_BUFFER_BYTES_MAX || spare.bytes + bytes > POOLED_BYTES_MAX {
            return;
        }
        buffer.clear();
        spare.bytes += bytes;
        spare.buffers.push(buffer);
    }
}

/// Several slices to write as one. Tracks how much of them has been written.
#[derive(Debug, Default)]
pub struct Gather {
    slices: Vec<Bytes>,
    /// Index of the first slice that is not fully written.
    next: usize,
    iovecs: Vec<libc::iovec>,
}

impl Gather {
    /// Creates a gather of `slices`, which are written in this order.
    pub fn new(slices: Vec<Bytes>) -> Self {
        let mut gather = Self { slices, next: 0, iovecs: Vec::new() };
        gather.point();
        gather
    }

    /// Whether everything has been written.
    pub fn is_done(&self) -> bool {
        self.iovecs.is_empty()
    }

    /// The unwritten bytes, slice by slice.
    pub fn left(&self) -> impl Iterator<Item = &[u8]> {
        self.slices.iter().skip(self.next).filter(|slice| !slice.is_empty()).map(|slice| &slice[..])
    }

    /// Removes `written` bytes from the front.
    pub fn advance(&mut self, mut written: usize) {
        while let Some(slice) = self.slices.get_mut(self.next) {
            if written < slice.len() {
                slice.advance(written);
                break;
            }
            written -= slice.len();
            self.next += 1;
        }
        self.point();
    }

    /// Points the iovecs at the unwritten bytes.
    fn point(&mut self) {
        self.iovecs.clear();
        let left = self.slices.iter().skip(self.next).filter(|s| !s.is_empty()).take(GATHER_SLICES_MAX);
        self.iovecs
            .extend(left.map(|s| libc::iovec { iov_base: s.as_ptr().cast_mut().cast(), iov_len: s.len() }));
    }
}

// SAFETY: the pointer is that of a Vec that changes only through `&mut self`, so not while the runtime owns this value.
// Each iovec points into a `Bytes` of the same value, whose memory is neither moved nor freed while it is held. The
// kernel only reads that memory, so casting `const` away above is sound.
unsafe impl IoVecBuf for Gather {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.iovecs.as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.iovecs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(gather: &Gather) -> Vec<u8> {
        let slices = gather.iovecs.iter();
        slices
            .flat_map(|v| {
                // SAFETY: made by `point` from slices that `gather` still holds.
                unsafe { std::slice::from_raw_parts(v.iov_base.cast::<u8>(), v.iov_len) }.to_vec()
            })
            .collect()
    }

    #[test]
    fn a_gather_can_be_written_in_steps_of_any_size() {
        let text = b"POST / HTTP/1.1\r\n\r\nelements and more elements";
        for step in 1..text.len() {
            let slices = vec![&text[..5], b"", &text[5..19], &text[19..30], &text[30..], b""];
            let mut gather = Gather::new(slices.into_iter().map(Bytes::from_static).collect());
            let mut written = 0;
            while !gather.is_done() {
                assert_eq!(left(&gather), &text[written..]);
                let now = step.min(text.len() - written);
                gather.advance(now);
                written += now;
            }
            assert_eq!(written, text.len());
        }
    }

    #[test]
    fn more_slices_than_the_kernel_accepts_take_several_writes() {
        let slices = vec![Bytes::from_static(b"x"); GATHER_SLICES_MAX + 10];
        let mut gather = Gather::new(slices);
        assert_eq!(left(&gather).len(), GATHER_SLICES_MAX);
        gather.advance(GATHER_SLICES_MAX);
        assert_eq!(left(&gather).len(), 10);
    }

    #[test]
    fn the_pool_keeps_usual_buffers_up_to_its_limit() {
        let buffers = Buffers::default();
        buffers.put(Vec::with_capacity(POOLED_BUFFER_BYTES_MAX + 1));
        assert_eq!(buffers.spare.borrow().buffers.len(), 0);
        (0..64).for_each(|_| buffers.put(vec![1; POOLED_BUFFER_BYTES_MAX]));
        assert_eq!(buffers.spare.borrow().bytes, POOLED_BYTES_MAX);
        let buffer = buffers.take(10);
        assert!(buffer.is_empty() && buffer.capacity() >= 10);
        assert_eq!(buffers.spare.borrow().bytes, POOLED_BYTES_MAX - POOLED_BUFFER_BYTES_MAX);
    }
}
