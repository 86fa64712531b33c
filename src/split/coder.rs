//! Codes the content of parts: snappy for all protocols, and also gzip, zstd or nothing for OTLP.
//!
//! Constraints that shaped it:
//!
//! * Each part is compressed by itself, and parts are small: 200 points take 25 kB. The state of a compressor takes some
//!   hundred kilobytes, and making it would take a third as long as the work. So compressors are kept, each from the first
//!   part on that needs it.
//! * The fastest regular levels are taken, as for pages: data is compressed once, to save bandwidth to an upstream that
//!   is usually near. For parts of OTLP, gzip's next level takes 1.4 to 1.9 times as long and saves at most 4 %.
//! * A part may wait for its upstream, so its bytes are in memory of their own that is no larger.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::Write as _;

use bytes::Bytes;
use libdeflater::CompressionLvl;

use crate::limits::SCRATCH_BYTES_MAX;
use crate::model::{Compression, Part};
use crate::wire::inflate::Inflater;
use crate::wire::snappy::Deflater;
use crate::wire::varint::{self, VARINT_BYTES_MAX};

/// zstd's fastest regular level.
const ZSTD_LEVEL: i32 = 1;

/// Codes one content after another, and keeps its compressors and scratch buffers.
#[derive(Default)]
pub(super) struct Coder {
    deflater: Deflater,
    gzip: Option<libdeflater::Compressor>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// What gzip and zstd write into. All of it is initialised.
    buffer: Vec<u8>,
}

impl fmt::Debug for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coder").finish_non_exhaustive()
    }
}

impl Coder {
    /// Codes `content`. A snappy block is returned without its length.
    pub(super) fn elements(&mut self, content: &[u8], compression: Compression) -> Bytes {
        match compression {
            Compression::Snappy => self.deflater.elements(content),
            Compression::Identity => Bytes::copy_from_slice(content),
            Compression::Gzip => self.gzip(content),
            Compression::Zstd => self.zstd(content),
        }
    }

    /// Frees memory beyond what is kept between requests.
    pub(super) fn release(&mut self) {
        self.deflater.release();
        if self.buffer.capacity() > SCRATCH_BYTES_MAX {
            self.buffer = Vec::new();
        }
    }

    fn gzip(&mut self, content: &[u8]) -> Bytes {
        let fastest = || libdeflater::Compressor::new(CompressionLvl::fastest());
        let gzip = self.gzip.get_or_insert_with(fastest);
        let out = room(&mut self.buffer, gzip.gzip_compress_bound(content.len()));
        match gzip.gzip_compress(content, out) {
            Ok(written) => Bytes::copy_from_slice(out.get(..written).unwrap_or_default()),
            // There is always room.
            Err(_) => gzip_raw(content).into(),
        }
    }

    /// It fails only for lack of memory, and then the process ends anyway; what comes out is still one frame.
    fn zstd(&mut self, content: &[u8]) -> Bytes {
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        let out = room(&mut self.buffer, zstd::zstd_safe::compress_bound(content.len()));
        let written = self.zstd.as_mut().and_then(|zstd| zstd.compress_to_buffer(content, out).ok());
        match written.and_then(|written| out.get(..written)) {
            Some(frame) => Bytes::copy_from_slice(frame),
            None => zstd_raw(content).into(),
        }
    }
}

/// The first `bytes` bytes of `buffer`, which grows if necessary.
fn room(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    &mut buffer[..bytes]
}

/// The same bytes as a gzip member that is not compressed.
fn gzip_raw(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default()
}

/// The same bytes as a zstd frame of raw blocks (RFC 8878 section 3.1.1).
fn zstd_raw(content: &[u8]) -> Vec<u8> {
    const BLOCK_BYTES_MAX: usize = 128 << 10;
    let mut frame = b"\x28\xb5\x2f\xfd\xa0".to_vec();
    frame.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut blocks = content.chunks(BLOCK_BYTES_MAX).peekable();
    if blocks.peek().is_none() {
        frame.extend_from_slice(&[1, 0, 0]);
    }
    while let Some(block) = blocks.next() {
        let header = (block.len() << 3) | usize::from(blocks.peek().is_none());
        frame.extend_from_slice(header.to_le_bytes().get(..3).unwrap_or_default());
        frame.extend_from_slice(block);
    }
    frame
}

/// The body of a request with these elements alone.
pub fn body_of(part: &Part) -> Bytes {
    if part.coding.now != Compression::Snappy {
        return part.elements.clone();
    }
    let mut block = Vec::with_capacity(part.elements.len() + VARINT_BYTES_MAX);
    varint::put(&mut block, u64::from(part.inflated_bytes));
    block.extend_from_slice(&part.elements);
    block.into()
}

/// The content of a part; `None` if it is damaged.
pub(super) fn content_of(part: &Part) -> Option<Vec<u8>> {
    let mut inflater = Inflater::default();
    inflater.inflate(&body_of(part), part.coding.now, part.inflated_bytes as usize).ok()?;
    Some(inflater.bytes().to_vec())
}

/// Whether these parts in OTLP have to be coded anew before they are sent. Elements in snappy and without a coding are
/// sent one behind the other. So could those in gzip and zstd, but not every receiver reads on after the first member or
/// frame, and one that does not would lose the others without a word.
pub fn are_coded_when_sent<'a>(mut parts: impl Iterator<Item = &'a Part>) -> bool {
    let Some(first) = parts.next() else { return false };
    let joins = matches!(first.coding.sent, Compression::Snappy | Compression::Identity);
    first.coding.now != first.coding.sent || (!joins && parts.next().is_some())
}

/// Merges parts in OTLP, as many as inflate to no more than `bytes_max` together, at least the first. Returns the coded
/// request, what it inflates to, and the number of its parts; `None` if there are none, or the first is damaged.
pub(super) fn merge<'a>(
    coder: &mut Coder,
    parts: impl IntoIterator<Item = &'a Part>,
    bytes_max: usize,
) -> Option<(Bytes, usize, usize)> {
    let (mut content, mut merged) = (Vec::new(), 0);
    let mut sent = None;
    for part in parts {
        if merged > 0 && content.len() + part.inflated_bytes as usize > bytes_max {
            break;
        }
        match part.coding.now {
            Compression::Identity => content.extend_from_slice(&part.elements),
            _ => match content_of(part) {
                Some(more) => content.extend_from_slice(&more),
                None => break,
            },
        }
        sent = Some(part.coding.sent);
        merged += 1;
    }
    Some((coder.elements(&content, sent?), content.len(), merged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coding_inflates_to_the_content() {
        let (mut coder, mut inflater) = (Coder::default(), Inflater::default());
        for content in [&b""[..], b"x", &b"some bytes, some bytes".repeat(20_000)] {
            assert_eq!(zstd::bulk::decompress(&zstd_raw(content), content.len()).unwrap(), content);
            inflater.inflate(&gzip_raw(content), Compression::Gzip, content.len()).unwrap();
            assert!(inflater.bytes() == content);
            for compression in
                [Compression::Snappy, Compression::Identity, Compression::Gzip, Compression::Zstd]
            {
                let elements = coder.elements(content, compression);
                let mut body = Vec::new();
                if compression == Compression::Snappy {
                    varint::put(&mut body, content.len() as u64);
                }
                body.extend_from_slice(&elements);
                inflater.inflate(&body, compression, content.len()).unwrap();
                assert!(inflater.bytes() == content, "{compression:?} of {} bytes", content.len());
            }
        }
    }
}
