//! Snappy's block format (google/snappy, `format_description.txt`): a length, then elements.
//!
//! Design constraints:
//!
//! * The declared length is untrusted. Before any allocation it is checked against the limit, and against the most that
//!   the elements can produce.
//! * Elements only refer backwards, and a block decodes alone. So concatenated elements of two blocks, with the sum of
//!   their lengths in front, form a block again. This is why the length is kept separate here.
//! * The decoder writes into initialized memory. Zeroing half a megabyte per request would cost a quarter of the
//!   decoding time, so buffers stay initialized and only growth is zeroed.
#![forbid(unsafe_code)]

mod decoder;

use bytes::Bytes;

use super::varint;
use crate::limits::SCRATCH_BYTES_MAX;

/// Maximum of inflated bytes per byte of elements: a copy of 64 bytes takes three (64 / 3 < 22).
const INFLATION_MAX: usize = 22;

/// Maximum length of the header: the varint of a 32-bit length.
const HEADER_BYTES_MAX: usize = 5;

/// Why a block is refused. The sender is at fault, and a retry does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnappyError {
    /// The length is missing, or exceeds 32 bits.
    #[error("the body is not a snappy block: it does not begin with a length")]
    Header,
    /// It declares more bytes than the limit.
    #[error("the body inflates to {declared_bytes} bytes, more than the {bytes_max} that are allowed")]
    TooLarge {
        /// The declared bytes.
        declared_bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Its elements do not produce the declared length.
    #[error("the body is not a valid snappy block")]
    Corrupt,
}

/// A block's length, checked as far as possible without decoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Where the elements begin.
    pub elements_at: usize,
    /// The declared inflated size.
    pub inflated_bytes: usize,
}

impl Header {
    /// Parses the length at the start of `block`. It must not exceed `bytes_max`, nor what the elements can produce.
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

/// Inflates one block after another into the same buffer.
#[derive(Default, Debug)]
pub struct Inflater {
    /// Fully initialized. It begins with the current block, and has room for the decoder's slack behind it.
    buffer: Vec<u8>,
    inflated_bytes: usize,
}

impl Inflater {
    /// Inflates `block` to at most `bytes_max` bytes. [`Self::bytes`] then returns the result, exactly as long as
    /// declared, or nothing after an error.
    pub fn inflate(&mut self, block: &[u8], bytes_max: usize) -> Result<Header, SnappyError> {
        self.inflated_bytes = 0;
        let header = Header::read(block, bytes_max)?;
        let output = initialised(&mut self.buffer, header.inflated_bytes + decoder::SLACK_BYTES);
        decoder::decode(&block[header.elements_at..], output).ok_or(SnappyError::Corrupt)?;
        self.inflated_bytes = header.inflated_bytes;
        Ok(header)
    }

    /// The last inflated block.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.inflated_bytes]
    }

    /// Clears the last block, and frees memory beyond what is kept between requests.
    pub fn release(&mut self) {
        self.inflated_bytes = 0;
        trim(&mut self.buffer);
    }
}

/// Compresses bytes to elements, without the length in front.
#[derive(Debug)]
pub struct Deflater {
    encoder: Box<snap::raw::Encoder>,
    /// Fully initialized.
    buffer: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self { encoder: Box::new(snap::raw::Encoder::new()), buffer: Vec::new() }
    }
}

impl Deflater {
    /// The elements for `bytes`, in memory of exactly their size.
    pub fn elements(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        let output = initialised(&mut self.buffer, snap::raw::max_compress_len(bytes.len()));
        let Ok(written) = self.encoder.compress(bytes, output) else {
            return stored(bytes);
        };
        let block = &output[..written];
        let mut elements = block;
        // The encoder always writes a whole block, so skip its length.
        match varint::take(&mut elements) {
            Ok(_) => Bytes::copy_from_slice(elements),
            Err(_) => stored(bytes),
        }
    }

    /// Frees memory beyond what is kept between requests.
    pub fn release(&mut self) {
        trim(&mut self.buffer);
    }
}

/// The tag of a literal whose length, minus one, follows in four bytes.
const LITERAL_TAG: u8 = 63 << 2;

/// Size of that tag and length.
const LITERAL_HEADER_BYTES: usize = 5;

/// Returns elements that hold `bytes` uncompressed: one literal, or several beyond a gigabyte. For bytes that are read
/// again before they are sent, and for input that the encoder considers too large (above 3.6 GB).
pub fn stored(bytes: &[u8]) -> Bytes {
    let mut elements = Vec::with_capacity(bytes.len() + LITERAL_HEADER_BYTES);
    for chunk in bytes.chunks(1 << 30) {
        #[expect(clippy::cast_possible_truncation, reason = "a chunk has at most 2^30 bytes")]
        let length = (chunk.len() - 1) as u32;
        elements.push(LITERAL_TAG);
        elements.extend_from_slice(&length.to_le_bytes());
        elements.extend_from_slice(chunk);
    }
    elements.into()
}

/// Returns the bytes that [`stored`] has made `elements` of, if they are one literal.
pub fn stored_bytes(elements: &[u8]) -> Option<&[u8]> {
    let (header, bytes) = elements.split_first_chunk::<LITERAL_HEADER_BYTES>()?;
    let [tag, length @ ..] = *header;
    let declared = u32::from_le_bytes(length) as usize + 1;
    (tag == LITERAL_TAG && declared == bytes.len()).then_some(bytes)
}

/// The first `bytes` bytes of `buffer`, which grows if necessary.
fn initialised(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if buffer.len() < bytes {
        // The old content is not needed. A new buffer avoids a copy, and the kernel provides large ones zeroed.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `elements` preceded by their inflated length.
    fn block(inflated_bytes: usize, elements: &[u8]) -> Vec<u8> {
        let mut block = Vec::new();
        varint::put(&mut block, inflated_bytes as u64);
        block.extend_from_slice(elements);
        block
    }

    fn inflate(block: &[u8], bytes_max: usize) -> Result<Vec<u8>, SnappyError> {
        let mut inflater = Inflater::default();
        inflater.inflate(block, bytes_max)?;
        Ok(inflater.bytes().to_vec())
    }

    #[test]
    fn inflates_literals_and_copies() {
        // A literal of "ab", then six bytes from two back (copy with a one-byte offset).
        let elements = [1 << 2, b'a', b'b', ((6 - 4) << 2) | 1, 2];
        assert_eq!(inflate(&block(8, &elements), 8).unwrap(), b"abababab");
        assert_eq!(inflate(&block(0, &[]), 0).unwrap(), b"");
    }

    #[test]
    fn a_length_is_required_and_fits_32_bits() {
        for header in [
            &[][..],
            &[0x80],
            &[0xff; 12],
            &[0x80, 0x80, 0x80, 0x80, 0x10],
            &[0x80; 5],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        ] {
            assert_eq!(inflate(header, usize::MAX), Err(SnappyError::Header), "{header:x?}");
        }
        // Overlong, but within the five bytes that decoders accept.
        assert_eq!(inflate(&[0x81, 0x80, 0x80, 0x80, 0x00, 0, b'x'], 1).unwrap(), b"x");
    }

    #[test]
    fn checks_the_declared_length_against_the_limit_first() {
        let ones = block(9, &[8 << 2, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(inflate(&ones, 9).unwrap(), [1; 9]);
        let too_large = SnappyError::TooLarge { declared_bytes: 9, bytes_max: 8 };
        assert_eq!(inflate(&ones, 8), Err(too_large));
        // The limit is checked before the elements, even if they are malformed.
        assert_eq!(inflate(&block(9, &[0xff]), 8), Err(too_large));
    }

    #[test]
    fn allocates_nothing_for_an_impossible_length() {
        let mut inflater = Inflater::default();
        let declared = u32::MAX as usize;
        assert_eq!(inflater.inflate(&block(declared, &[0; 100]), usize::MAX), Err(SnappyError::Corrupt));
        assert_eq!(inflater.buffer.capacity(), 0);
        // The most that elements can produce is accepted: copies of 64 bytes, at three bytes each.
        let mut elements = vec![0, b'x'];
        for _ in 0..1000 {
            elements.extend_from_slice(&[(63 << 2) | 2, 1, 0]);
        }
        assert_eq!(inflate(&block(64_001, &elements), 64_001).unwrap(), vec![b'x'; 64_001]);
    }

    #[test]
    fn inflates_to_exactly_the_declared_length() {
        let elements = [2 << 2, b'a', b'b', b'c'];
        assert_eq!(inflate(&block(3, &elements), 10).unwrap(), b"abc");
        for declared in [0, 2, 4, 10] {
            assert_eq!(inflate(&block(declared, &elements), 10), Err(SnappyError::Corrupt), "{declared}");
        }
    }

    #[test]
    fn elements_do_not_reach_back_before_the_block() {
        // The next block cannot reach the buffer's content of the last one.
        let mut inflater = Inflater::default();
        inflater.inflate(&block(6, b"\x14secret"), 10).unwrap();
        assert_eq!(inflater.bytes(), b"secret");
        for offset in [0, 1, 5, 6] {
            // A copy of four bytes.
            let back = inflater.inflate(&block(4, &[1, offset]), 10);
            assert_eq!(back, Err(SnappyError::Corrupt));
            assert_eq!(inflater.bytes(), b"");
        }
    }

    #[test]
    fn deflates_to_elements_that_merge() {
        let mut deflater = Deflater::default();
        let first: Vec<u8> = b"one tenant's series, one tenant's series".repeat(5000);
        let second = b"and some more";
        let merged = [deflater.elements(&first), deflater.elements(b""), deflater.elements(second)].concat();
        assert!(merged.len() < first.len() / 10);
        let merged = block(first.len() + second.len(), &merged);
        assert_eq!(snap::raw::Decoder::new().decompress_vec(&merged).unwrap(), [&first[..], second].concat());
    }

    #[test]
    fn stored_bytes_are_elements_and_can_be_read_without_inflating() {
        for bytes in [&b"x"[..], &[7; 100_000]] {
            let elements = stored(bytes);
            assert_eq!(inflate(&block(bytes.len(), &elements), bytes.len()).unwrap(), bytes);
            assert_eq!(stored_bytes(&elements), Some(bytes));
            assert_eq!(stored_bytes(&elements[..elements.len() - 1]), None);
            assert_eq!(stored_bytes(&[&elements[..], b"x"].concat()), None);
        }
        assert!(stored(b"").is_empty());
        for other in [&b""[..], &[LITERAL_TAG], &[0, b'x'], &[LITERAL_TAG, 0xff, 0xff, 0xff, 0xff, b'x']] {
            assert_eq!(stored_bytes(other), None);
        }
        assert_eq!(stored_bytes(&Deflater::default().elements(&[7; 100_000])), None);
    }

    #[test]
    fn keeps_a_bounded_buffer() {
        let bytes = vec![5; SCRATCH_BYTES_MAX + 1];
        let mut deflater = Deflater::default();
        let large = block(bytes.len(), &deflater.elements(&bytes));
        let mut inflater = Inflater::default();
        inflater.inflate(&large, bytes.len()).unwrap();
        assert_eq!(inflater.bytes(), bytes);
        inflater.release();
        deflater.release();
        assert_eq!(
            (inflater.bytes().len(), inflater.buffer.capacity(), deflater.buffer.capacity()),
            (0, 0, 0)
        );
        // A buffer of ordinary size is kept, and not zeroed again.
        inflater.inflate(&block(1, &[0, b'x']), 1).unwrap();
        let kept = inflater.buffer.as_ptr();
        inflater.release();
        inflater.inflate(&block(1, &[0, b'y']), 1).unwrap();
        assert_eq!(inflater.bytes(), b"y");
        assert_eq!(inflater.buffer.as_ptr(), kept);
    }
}
