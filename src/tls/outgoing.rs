//! Bytes that are to be sent, in a buffer that goes to the ring and comes back.
//!
//! rustls encrypts into initialised memory. Clearing a `Vec` and growing it again would write zeros over 100 KB per
//! request first, a tenth of the cost of encrypting. So the memory stays initialised, and a count says how much of it
//! is to be sent.
#![forbid(unsafe_code)]

use rustls::unbuffered::{EncodeError, EncryptError, InsufficientSizeError};

use crate::limits::{TLS_RECORD_BYTES, TLS_RECORD_OVERHEAD_BYTES_MAX, TLS_STEP_BYTES_MAX};

/// The largest buffer that is kept: one step, and a handshake message before it.
const KEPT_BYTES_MAX: usize = TLS_STEP_BYTES_MAX
    + (TLS_STEP_BYTES_MAX / TLS_RECORD_BYTES) * TLS_RECORD_OVERHEAD_BYTES_MAX
    + TLS_RECORD_BYTES;

/// Bytes to be sent. It belongs to no session, so that the connections of a core can share a few.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Initialised; only the first `filled` bytes count.
    bytes: Vec<u8>,
    filled: usize,
    /// Where a record that spans slices is put together.
    pub(super) scratch: Vec<u8>,
}

impl Outgoing {
    /// The number of bytes to be sent.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing has to be sent.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The bytes to be sent.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Takes the buffer out, for a write. Its first bytes, as many as the number says, have to be sent; the others mean
    /// nothing.
    pub fn take(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.bytes), std::mem::take(&mut self.filled))
    }

    /// Gives the buffer back once its bytes have been sent, so that its memory can be used again. Nothing may have been
    /// appended meanwhile; a buffer that comes too late or is unusually large is dropped.
    pub fn restore(&mut self, buffer: Vec<u8>) {
        if self.filled == 0 && buffer.capacity() <= KEPT_BYTES_MAX {
            self.bytes = buffer;
        }
    }

    /// Drops what is to be sent.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Appends bytes as they are.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Appends what `write` puts into the room that it gets: `estimate` bytes, or as many as it then asks for.
    pub(super) fn append<E: Into<WriteError>>(
        &mut self,
        estimate: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), NotWritten> {
        let mut bytes = estimate;
        // It knows the exact size the first time that it refuses.
        for _ in 0..2 {
            match write(self.room(bytes)).map_err(Into::into) {
                Ok(written) => {
                    self.filled += written;
                    return Ok(());
                }
                Err(WriteError::Insufficient(required)) => bytes = required,
                Err(WriteError::Other) => return Err(NotWritten),
            }
        }
        Err(NotWritten)
    }

    fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.filled + bytes;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.filled..end]
    }
}

/// rustls has nothing to put there: its keys are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotWritten;

/// Why a write into given room failed.
pub(super) enum WriteError {
    /// It needs so many bytes.
    Insufficient(usize),
    Other,
}

impl From<EncryptError> for WriteError {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self::Insufficient(required_size)
            }
            EncryptError::EncryptExhausted => Self::Other,
        }
    }
}

impl From<EncodeError> for WriteError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self::Insufficient(required_size)
            }
            EncodeError::AlreadyEncoded => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_old_bytes_are_never_sent_again() {
        let mut outgoing = Outgoing::default();
        outgoing.extend(b"first");
        let (buffer, filled) = outgoing.take();
        assert_eq!((&buffer[..filled], outgoing.len()), (&b"first"[..], 0));
        let memory = buffer.as_ptr();
        outgoing.restore(buffer);
        assert!(outgoing.is_empty() && outgoing.as_slice().is_empty());
        outgoing.extend(b"2nd");
        assert_eq!((outgoing.as_slice(), outgoing.bytes.as_ptr()), (&b"2nd"[..], memory));
    }

    #[test]
    fn what_was_appended_meanwhile_is_not_lost() {
        let mut outgoing = Outgoing::default();
        outgoing.extend(b"first");
        let (buffer, _) = outgoing.take();
        outgoing.extend(b"second");
        outgoing.restore(buffer);
        assert_eq!(outgoing.as_slice(), b"second");
    }

    #[test]
    fn a_writer_that_needs_more_gets_it() {
        let mut outgoing = Outgoing::default();
        outgoing.extend(b"<");
        let write = |room: &mut [u8]| {
            let text = b"longer than thought";
            let error = InsufficientSizeError { required_size: text.len() };
            room.get_mut(..text.len()).ok_or(EncryptError::InsufficientSize(error))?.copy_from_slice(text);
            Ok::<_, EncryptError>(text.len())
        };
        assert_eq!(outgoing.append(4, write), Ok(()));
        assert_eq!(outgoing.as_slice(), b"<longer than thought");
    }

    #[test]
    fn a_writer_without_keys_adds_nothing() {
        let mut outgoing = Outgoing::default();
        outgoing.extend(b"before");
        let refused = outgoing.append(100, |_| Err::<usize, _>(EncryptError::EncryptExhausted));
        assert_eq!((refused, outgoing.as_slice()), (Err(NotWritten), &b"before"[..]));
    }

    #[test]
    fn an_unusually_large_buffer_is_not_kept() {
        let mut outgoing = Outgoing::default();
        outgoing.restore(Vec::with_capacity(KEPT_BYTES_MAX + 1));
        assert_eq!(outgoing.bytes.capacity(), 0);
    }
}
