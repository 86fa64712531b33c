//! Decompression of request bodies: snappy blocks, zstd, gzip, or none.
//!
//! Design constraints:
//!
//! * The inflated size is bounded before memory is spent on it. A snappy block and most zstd frames declare it. A
//!   declaration is checked against the limit, and the output must match it exactly. Without a declaration, the buffer
//!   grows with the output and stops at the limit.
//! * zstd lets the sender choose the decoder's window, which also takes memory. It is limited to what RFC 8878 (section
//!   3.1.1.1.2) asks every decoder to support.
//! * Senders of OTLP mean either of two formats by `snappy`: a block, or frames (the Collector's exporters did for
//!   long). Frames begin with ten bytes that no block can begin with, as its second element would refer to far before
//!   the first. So both are taken wherever snappy is.
//! * One body is one stream. Data after it is a mistake or smuggling, and refused. Sequences of gzip members and of
//!   zstd frames are the exception that both formats make (RFC 1952 section 2.2, RFC 8878 section 3.1). Each costs the
//!   start of a decoder even if it is empty, so their number is bounded as well.
#![forbid(unsafe_code)]

use std::io::{self, Read};

use super::snappy::{self, SnappyError};
use crate::limits::{GZIP_MEMBERS_MAX, SCRATCH_BYTES_MAX, ZSTD_WINDOW_LOG_MAX};

/// The compression of a body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Compression {
    /// Snappy's block format, prescribed by Remote Write. Frames are taken as well.
    Snappy,
    /// Zstandard (RFC 8878), preferred by vmagent.
    Zstd,
    /// gzip (RFC 1952): for Loki's JSON.
    Gzip,
    /// No compression.
    Identity,
}

impl Compression {
    /// The header line that names it; empty if there is none.
    pub fn content_field(self) -> &'static str {
        match self {
            Self::Snappy => "Content-Encoding: snappy\r\n",
            Self::Zstd => "Content-Encoding: zstd\r\n",
            Self::Gzip => "Content-Encoding: gzip\r\n",
            Self::Identity => "",
        }
    }
}

/// Why a body cannot be inflated. The sender is at fault, and a retry does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InflateError {
    /// The snappy block is refused.
    #[error(transparent)]
    Snappy(#[from] SnappyError),
    /// It inflates to more than the limit, whether declared or not.
    #[error("the body inflates to more than the {bytes_max} bytes that are allowed")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// It has more pieces than any compressor creates.
    #[error("the body has more than the {GZIP_MEMBERS_MAX} gzip members that are allowed")]
    TooManyMembers,
    /// It does not match its Content-Encoding.
    #[error("the body is not valid {format}")]
    Corrupt {
        /// `zstd`, `gzip` or `snappy`.
        format: &'static str,
    },
}

impl InflateError {
    /// Whether the size is the problem.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Snappy(SnappyError::TooLarge { .. }))
    }
}

/// Inflates one body after another into the same memory.
#[derive(Default, Debug)]
pub struct Inflater {
    snappy: snappy::Inflater,
    /// The inflated body, unless it was a snappy block.
    other: Vec<u8>,
    /// The bytes that the last body made, also if it was refused in the end.
    made: usize,
}

/// The chunk that snappy's frames begin with (google/snappy, framing_format.txt section 4.1).
const FRAMES_BEGIN: &[u8] = b"\xff\x06\x00\x00sNaPpY";

impl Inflater {
    /// Inflates `body` to at most `bytes_max` bytes. [`Self::bytes`] then returns the result, or nothing after an
    /// error. For a snappy block, returns where its elements begin.
    pub fn inflate(
        &mut self,
        body: &[u8],
        compression: Compression,
        bytes_max: usize,
    ) -> Result<Option<usize>, InflateError> {
        self.release();
        let result = match compression {
            Compression::Snappy if body.starts_with(FRAMES_BEGIN) => {
                read_all(snap::read::FrameDecoder::new(body), &mut self.other, bytes_max, "snappy")
            }
            Compression::Snappy => {
                let elements_at = self.snappy.inflate(body, bytes_max)?.elements_at;
                self.made = self.snappy.bytes().len();
                return Ok(Some(elements_at));
            }
            Compression::Zstd => zstd(body, &mut self.other, bytes_max),
            Compression::Gzip => gzip(body, &mut self.other, bytes_max),
            Compression::Identity => read_all(body, &mut self.other, bytes_max, "identity"),
        };
        self.made = self.other.len();
        if result.is_err() {
            self.other.clear();
        }
        result.map(|()| None)
    }

    /// The last inflated body.
    pub fn bytes(&self) -> &[u8] {
        if self.other.is_empty() { self.snappy.bytes() } else { &self.other }
    }

    /// How many bytes the last body was inflated to. One that was refused was inflated to so many before.
    pub fn made(&self) -> usize {
        self.made
    }

    /// Clears the last body, and frees memory beyond what is kept between requests.
    pub fn release(&mut self) {
        self.made = 0;
        self.snappy.release();
        self.other.clear();
        if self.other.capacity() > SCRATCH_BYTES_MAX {
            self.other = Vec::new();
        }
    }
}

fn zstd(body: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), InflateError> {
    let corrupt = InflateError::Corrupt { format: "zstd" };
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(|_| corrupt)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| corrupt)?;
    if let Ok(Some(declared)) = zstd::zstd_safe::get_frame_content_size(body) {
        let declared = usize::try_from(declared).unwrap_or(usize::MAX);
        if declared > bytes_max {
            return Err(InflateError::TooLarge { bytes_max });
        }
        // A frame of a few bytes may declare a large size, so no more is reserved in advance than is kept anyway.
        out.reserve(declared.min(SCRATCH_BYTES_MAX));
    }
    read_all(decoder, out, bytes_max, "zstd")
}

fn gzip(body: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), InflateError> {
    let mut rest = body;
    for _ in 0..GZIP_MEMBERS_MAX {
        let mut member = flate2::bufread::GzDecoder::new(rest);
        let left = bytes_max.saturating_sub(out.len());
        read_all(&mut member, out, left, "gzip").map_err(|error| match error {
            InflateError::TooLarge { .. } => InflateError::TooLarge { bytes_max },
            error => error,
        })?;
        rest = member.into_inner();
        if rest.is_empty() {
            return Ok(());
        }
    }
    Err(InflateError::TooManyMembers)
}

/// Reads all of `source`, up to `bytes_max` bytes.
fn read_all(
    source: impl Read,
    out: &mut Vec<u8>,
    bytes_max: usize,
    format: &'static str,
) -> Result<(), InflateError> {
    let mut bounded = source.take(bytes_max as u64 + 1);
    match bounded.read_to_end(out) {
        Ok(made) if made <= bytes_max => Ok(()),
        Ok(_) => Err(InflateError::TooLarge { bytes_max }),
        Err(error) => {
            debug_assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
            Err(InflateError::Corrupt { format })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// With a declared size, as from one-shot encoders.
    fn zstd_sized(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 1).unwrap()
    }

    /// Without a declared size, as from streaming encoders.
    fn zstd_unsized(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn snappy(bytes: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(bytes).unwrap()
    }

    fn frames(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(bytes).unwrap();
        encoder.into_inner().unwrap()
    }

    #[test]
    fn frames_of_snappy_are_taken_for_a_block() {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut inflater = Inflater::default();
        let body = frames(&bytes);
        assert_eq!(inflater.inflate(&body, Compression::Snappy, bytes.len()), Ok(None));
        assert!(inflater.bytes() == bytes);
        let error = inflater.inflate(&body, Compression::Snappy, bytes.len() - 1).unwrap_err();
        assert_eq!(error, InflateError::TooLarge { bytes_max: bytes.len() - 1 });
        for broken in [&body[..body.len() - 1], &[&body[..], b"more"].concat()] {
            let corrupt = InflateError::Corrupt { format: "snappy" };
            assert_eq!(inflater.inflate(broken, Compression::Snappy, bytes.len()), Err(corrupt));
        }
    }

    type Encode = fn(&[u8]) -> Vec<u8>;

    const ALL: [(Compression, Encode); 5] = [
        (Compression::Snappy, snappy),
        (Compression::Zstd, zstd_sized),
        (Compression::Zstd, zstd_unsized),
        (Compression::Gzip, gzip),
        (Compression::Identity, <[u8]>::to_vec),
    ];

    #[test]
    fn every_compression_inflates_up_to_the_limit() {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut inflater = Inflater::default();
        for (compression, encode) in ALL {
            let body = encode(&bytes);
            inflater.inflate(&body, compression, bytes.len()).unwrap();
            assert!(inflater.bytes() == bytes, "{compression:?}");
            let error = inflater.inflate(&body, compression, bytes.len() - 1).unwrap_err();
            assert!(error.is_too_large(), "{compression:?}: {error}");
            assert_eq!(inflater.bytes(), b"");
            // Nothing remains of the last body.
            inflater.inflate(&encode(b"x"), compression, 1).unwrap();
            assert_eq!(inflater.bytes(), b"x", "{compression:?}");
            inflater.inflate(&encode(b""), compression, 1).unwrap();
            assert_eq!(inflater.bytes(), b"", "{compression:?}");
        }
    }

    #[test]
    fn truncated_bodies_and_trailing_data_are_refused() {
        let mut inflater = Inflater::default();
        for (compression, encode) in &ALL[..4] {
            let body = encode(&b"some bytes, some bytes, some bytes".repeat(50));
            for end in 0..body.len() {
                // An empty zstd body has no frame, which equals a frame without data.
                let result = inflater.inflate(&body[..end], *compression, 1 << 20);
                assert!(result.is_err() || end == 0, "{compression:?} cut at {end}");
            }
            let longer = [&body[..], b"and more"].concat();
            assert!(inflater.inflate(&longer, *compression, 1 << 20).is_err(), "{compression:?}");
        }
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_limit() {
        let zeros = vec![0; 8 << 20];
        let mut inflater = Inflater::default();
        for (compression, encode) in &ALL[1..4] {
            let bomb = encode(&zeros);
            assert!(bomb.len() < zeros.len() / 900);
            let error = inflater.inflate(&bomb, *compression, 1 << 20).unwrap_err();
            assert_eq!(error, InflateError::TooLarge { bytes_max: 1 << 20 });
            assert!(inflater.other.capacity() <= 4 << 20, "{compression:?}");
        }
    }

    #[test]
    fn consecutive_members_are_one_body_up_to_a_limit() {
        let mut inflater = Inflater::default();
        let member = gzip(b"ab");
        inflater.inflate(&member.repeat(GZIP_MEMBERS_MAX), Compression::Gzip, 2 * GZIP_MEMBERS_MAX).unwrap();
        assert_eq!(inflater.bytes(), b"ab".repeat(GZIP_MEMBERS_MAX));
        let more = member.repeat(GZIP_MEMBERS_MAX + 1);
        assert_eq!(inflater.inflate(&more, Compression::Gzip, 1 << 20), Err(InflateError::TooManyMembers));
        assert_eq!(inflater.bytes(), b"");
        let two = member.repeat(2);
        let error = inflater.inflate(&two, Compression::Gzip, 3).unwrap_err();
        assert_eq!(error, InflateError::TooLarge { bytes_max: 3 });
        inflater.inflate(&two, Compression::Gzip, 4).unwrap();
    }

    #[test]
    fn many_empty_members_or_frames_take_less_than_a_second() {
        let empty_frame = [&b"\x28\xb5\x2f\xfd"[..], &[0x20, 0, 1, 0, 0]].concat();
        let skippable = b"\x50\x2a\x4d\x18\0\0\0\0".to_vec();
        let mut inflater = Inflater::default();
        for (compression, member) in
            [(Compression::Gzip, gzip(b"")), (Compression::Zstd, empty_frame), (Compression::Zstd, skippable)]
        {
            let body = member.repeat((8 << 20) / member.len());
            let began = std::time::Instant::now();
            let result = inflater.inflate(&body, compression, 64 << 20);
            let took = began.elapsed();
            eprintln!("{compression:?} {result:?} {took:?}");
            assert!(took.as_millis() < 700, "{compression:?}: {took:?}");
        }
    }

    #[test]
    fn a_window_above_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&vec![7; 1 << 20]).unwrap();
        let wide = encoder.finish().unwrap();
        let mut inflater = Inflater::default();
        let corrupt = InflateError::Corrupt { format: "zstd" };
        assert_eq!(inflater.inflate(&wide, Compression::Zstd, 64 << 20), Err(corrupt));
    }
}
