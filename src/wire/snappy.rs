//! Snappy's block format (google/snappy, `format_description.txt`): a length, then elements.
//!
//! Constraints that shaped it:
//!
//! * The declared length is the sender's word. It is held against a cap, and against what so many elements
//!   could hold at best, before a byte is allocated for it.
//! * Elements reach backwards only, and a block decodes alone. So the elements of two blocks, one after the
//!   other behind the sum of their lengths, are a block again; that is why the length is kept apart here.
//! * The decoder writes into initialised memory. Zeroing half a megabyte for each request would cost a
//!   quarter of the decoding, so buffers stay initialised and only their growth is zeroed.
#![forbid(unsafe_code)]

use bytes::Bytes;

use super::varint;
use crate::limits::SCRATCH_BYTES_MAX;

/// Bytes that one byte of elements can inflate to, at most: a copy of 64 bytes takes three (64 / 3 < 22).
const INFLATION_MAX: usize = 22;

/// The longest header: the varint of a 32-bit length.
const HEADER_BYTES_MAX: usize = 5;

/// A block that we do not take. The sender's fault, and no retry will help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnappyError {
    /// There is no length in front, or not one of 32 bits.
    #[error("the body is not a snappy block: it does not begin with a length")]
    Header,
    /// It says that it inflates to more than the cap.
    #[error("the body inflates to {declared_bytes} bytes, more than the {bytes_max} that are allowed")]
    TooLarge {
        /// Bytes that it declares.
        declared_bytes: usize,
        /// The cap.
        bytes_max: usize,
    },
    /// Its elements do not make what the length declares.
    #[error("the body is not a valid snappy block")]
    Corrupt,
}

/// A block's length, read and believed as far as it can be without decoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Where the elements begin.
    pub elements_at: usize,
    /// What the block declares to inflate to.
    pub inflated_bytes: usize,
}

impl Header {
    /// Reads the length in front of `block`: at most `bytes_max`, and no more than the elements could hold.
    pub fn read(block: &[u8], bytes_max: usize) -> Result<Self, SnappyError> {
        let mut rest = block;
        let declared = varint::take(&mut rest).map_err(|_| SnappyError::Header)?;
        let elements_at = block.len() - rest.len();
        let declared = u32::try_from(declared).map_err(|_| SnappyError::Header)?;
        if elements_at > HEADER_BYTES_MAX {
            return Err(SnappyError::Header);
        }
        let inflated_bytes = declared as usize;
        if inflated_bytes > bytes_max {
            return Err(SnappyError::TooLarge { declared_bytes: inflated_bytes, bytes_max });
        }
        if inflated_bytes > rest.len().saturating_mul(INFLATION_MAX) {
            return Err(SnappyError::Corrupt);
        }
        Ok(Self { elements_at, inflated_bytes })
    }
}

/// Inflates one block after the other into the same buffer.
#[derive(Default, Debug)]
pub struct Inflater {
    /// Initialised throughout; the block at hand fills the front of it.
    buffer: Vec<u8>,
    inflated_bytes: usize,
}

impl Inflater {
    /// Inflates `block`, which may inflate to at most `bytes_max` bytes. [`Self::bytes`] then has what it made,
    /// exactly as long as declared; after an error it has nothing.
    pub fn inflate(&mut self, block: &[u8], bytes_max: usize) -> Result<Header, SnappyError> {
        self.inflated_bytes = 0;
        let header = Header::read(block, bytes_max)?;
        let output = initialised(&mut self.buffer, header.inflated_bytes);
        let written =
            snap::raw::Decoder::new().decompress(block, output).map_err(|_| SnappyError::Corrupt)?;
        if written != header.inflated_bytes {
            return Err(SnappyError::Corrupt);
        }
        self.inflated_bytes = written;
        Ok(header)
    }

    /// What the last block inflated to.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.inflated_bytes]
    }

    /// Forgets the last block, and gives memory beyond what is kept between requests back.
    pub fn release(&mut self) {
        self.inflated_bytes = 0;
        trim(&mut self.buffer);
    }
}

/// Deflates bytes into elements, without the length in front.
#[derive(Debug)]
pub struct Deflater {
    encoder: Box<snap::raw::Encoder>,
    /// Initialised throughout.
    buffer: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self { encoder: Box::new(snap::raw::Encoder::new()), buffer: Vec::new() }
    }
}

impl Deflater {
    /// The elements that inflate to `bytes`, in memory of exactly their size.
    pub fn elements(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        let output = initialised(&mut self.buffer, snap::raw::max_compress_len(bytes.len()));
        let Ok(written) = self.encoder.compress(bytes, output) else {
            return literal(bytes);
        };
        let block = &output[..written];
        let mut elements = block;
        // The encoder always writes a whole block: skip its length.
        match varint::take(&mut elements) {
            Ok(_) => Bytes::copy_from_slice(elements),
            Err(_) => literal(bytes),
        }
    }

    /// Gives memory beyond what is kept between requests back.
    pub fn release(&mut self) {
        trim(&mut self.buffer);
    }
}

/// `bytes` as one element that holds them as they are: for what the encoder declares too large (past 3.6 GB).
fn literal(bytes: &[u8]) -> Bytes {
    /// A literal whose length, less one, stands in the four bytes behind the tag.
    const TAG: u8 = 63 << 2;
    let mut elements = Vec::with_capacity(bytes.len() + 5);
    for chunk in bytes.chunks(1 << 30) {
        #[expect(clippy::cast_possible_truncation, reason = "a chunk has at most 2^30 bytes")]
        let length = (chunk.len() - 1) as u32;
        elements.push(TAG);
        elements.extend_from_slice(&length.to_le_bytes());
        elements.extend_from_slice(chunk);
    }
    elements.into()
}

/// The first `bytes` bytes of `buffer`, which grows if it has to.
fn initialised(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if buffer.len() < bytes {
        // What is in there is of no use: a fresh buffer needs no copy, and large ones come zeroed by the kernel.
        *buffer = Vec::new();
        *buffer = vec![0; bytes.next_power_of_two().min(bytes + SCRATCH_BYTES_MAX)];
    }
    &mut buffer[..bytes]
}

fn trim(buffer: &mut Vec<u8>) {
    if buffer.len() > SCRATCH_BYTES_MAX {
        *buffer = Vec::new();
    }
}
