//! Codes the content of parts: snappy for all protocols, and also gzip, zstd or nothing for OTLP.
//!
//! Constraints that shaped it:
//!
//! * Each part is compressed by itself, and parts are small: 200 points take 25 kB. The state of a compressor takes
//!   some hundred kilobytes, and making it would take a third as long as the work. So compressors are kept, each from
//!   the first part on that needs it.
//! * The fastest regular levels are taken, as for pages: data is compressed once, to save bandwidth to an upstream that
//!   is usually near. For parts of OTLP, gzip's next level takes 1.4 to 1.9 times as long and saves at most 4 %.
//! * A part may wait for its upstream, so its bytes are in memory of their own that is no larger.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::Write as _;

use bytes::Bytes;
use libdeflater::CompressionLvl;

use super::otlp::Joined;
use crate::limits::SCRATCH_BYTES_MAX;
use crate::model::{Compression, Notation, Part};
use crate::wire::inflate::Inflater;
use crate::wire::snappy::Deflater;
use crate::wire::varint::{self, VARINT_BYTES_MAX};

/// gzip's fastest level. (0, which libdeflater calls the fastest, compresses nothing.)
const GZIP_LEVEL: i32 = 1;

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
    }

    fn gzip(&mut self, content: &[u8]) -> Bytes {
        let fastest = || libdeflater::Compressor::new(CompressionLvl::new(GZIP_LEVEL).unwrap_or_default());
        let gzip = self.gzip.get_or_insert_with(fastest);
        let out = room(&mut self.buffer, gzip.gzip_compress_bound(content.len()));
        let coded = match gzip.gzip_compress(content, out) {
            Ok(written) => Bytes::copy_from_slice(out.get(..written).unwrap_or_default()),
            // There is always room.
            Err(_) => gzip_raw(content).into(),
        };
        self.trim();
        coded
    }

    /// It fails only for lack of memory, and then the process ends anyway; what comes out is still one frame.
    fn zstd(&mut self, content: &[u8]) -> Bytes {
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        let out = room(&mut self.buffer, zstd::zstd_safe::compress_bound(content.len()));
        let written = self.zstd.as_mut().and_then(|zstd| zstd.compress_to_buffer(content, out).ok());
        let coded = match written.and_then(|written| out.get(..written)) {
            Some(frame) => Bytes::copy_from_slice(frame),
            None => zstd_raw(content).into(),
        };
        self.trim();
        coded
    }

    /// Frees a large buffer: others get their turn before the request's next part, and the budget of bytes does not
    /// know of it.
    fn trim(&mut self) {
        if self.buffer.capacity() > SCRATCH_BYTES_MAX {
            self.buffer = Vec::new();
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
    inflate_into(&mut Inflater::default(), part).map(<[u8]>::to_vec)
}

/// The same, in the buffers of `inflater`.
pub(super) fn inflate_into<'a>(inflater: &'a mut Inflater, part: &Part) -> Option<&'a [u8]> {
    inflater.inflate(&body_of(part), part.coding.now, part.inflated_bytes as usize).ok()?;
    Some(inflater.bytes())
}

/// Whether these parts in OTLP have to be coded anew before they are sent in the coding of the first. Elements in
/// snappy and without a coding are sent one behind the other. So could those in gzip and zstd, but not every receiver
/// reads on after the first member or frame, and one that does not would lose the others without a word. What is in
/// JSON has to become one document.
pub fn are_coded_when_sent<'a>(mut parts: impl Iterator<Item = &'a Part>) -> bool {
    let Some(first) = parts.next() else { return false };
    let is_json = matches!(first.protocol.export(), Some((_, Notation::Json)));
    let joins = !is_json && matches!(first.coding.sent, Compression::Snappy | Compression::Identity);
    first.coding.now != first.coding.sent || parts.any(|part| !joins || part.coding.now != first.coding.sent)
}

/// Merges parts of one signal in OTLP, as many as inflate to no more than `bytes_max` together, at least the first. In
/// JSON also no further than they are exports [with a list alone](crate::wire::otlp::json::find_list). Returns the
/// request, coded as the first is sent, what it inflates to, and the number of its parts; `None` if there are none, or
/// the first is damaged.
pub(super) fn merge<'a>(
    coder: &mut Coder,
    parts: impl IntoIterator<Item = &'a Part>,
    bytes_max: usize,
) -> Option<(Bytes, usize, usize)> {
    let mut parts = parts.into_iter().peekable();
    let (signal, notation) = parts.peek()?.protocol.export()?;
    let (mut joined, mut merged) = (Joined::new(signal, notation), 0);
    let (mut sent, mut inflater) = (None, Inflater::default());
    for part in parts {
        if merged > 0 && joined.bytes_with(part.inflated_bytes as usize) > bytes_max {
            break;
        }
        let added = match part.coding.now {
            Compression::Identity => joined.add(&part.elements),
            _ => inflate_into(&mut inflater, part).and_then(|export| joined.add(export)),
        };
        if added.is_none() {
            break;
        }
        sent.get_or_insert(part.coding.sent);
        merged += 1;
    }
    let (sent, content) = (sent?, joined.into_content());
    Some((coder.elements(&content, sent), content.len(), merged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Coding, MergeKey, Protocol, Signal};
    use crate::split::{Merged, Merger};
    use crate::tenant::{IdRules, TenantId};

    const ALL: [Compression; 4] =
        [Compression::Snappy, Compression::Identity, Compression::Gzip, Compression::Zstd];

    /// A part with this content, in the one coding by now, and to be sent in the other.
    fn part(content: &[u8], now: Compression, sent: Compression) -> Part {
        Part {
            tenant: TenantId::new("a", IdRules::Mimir).unwrap(),
            protocol: Protocol::Otlp(Signal::Logs),
            elements: Coder::default().elements(content, now),
            coding: Coding { now, sent },
            inflated_bytes: u32::try_from(content.len()).unwrap(),
            series: 1,
            samples: 1,
            histograms: 0,
            exemplars: 0,
            merge: MergeKey::Ha(None),
        }
    }

    #[test]
    fn parts_in_any_codings_are_merged_in_that_of_the_first() {
        let mut merger = Merger::default();
        for first in ALL {
            for (now, second) in ALL.into_iter().flat_map(|now| ALL.map(|sent| (now, sent))) {
                let parts = [part(b"first, ", first, first), part(b"second", now, second)];
                let told = format!("{first:?}, then {now:?} for {second:?}");
                let Merged { elements, inflated_bytes, parts: merged } = merger.merge(&parts, 13).unwrap();
                assert_eq!((inflated_bytes, merged), (13, 2), "{told}");
                let [one, _] = &parts;
                let whole = Part { elements, inflated_bytes, ..one.clone() };
                assert_eq!(content_of(&whole).unwrap(), b"first, second", "{told}");
                assert_eq!(merger.merge(&parts, 12).unwrap().parts, 1, "{told}");
                // If they are not coded anew, they have to make a request as they are.
                let joins = matches!(first, Compression::Snappy | Compression::Identity) && now == first;
                assert_eq!(are_coded_when_sent(parts.iter()), !joins, "{told}");
            }
            assert!(!are_coded_when_sent([part(b"x", first, first)].iter()));
        }
        assert!(are_coded_when_sent([part(b"x", Compression::Identity, Compression::Gzip)].iter()));
    }

    #[test]
    fn parts_in_json_make_one_document_in_the_coding_of_the_first() {
        let of = |text: &str, now, sent| Part {
            protocol: Protocol::OtlpJson(Signal::Logs),
            ..part(text.as_bytes(), now, sent)
        };
        let mut merger = Merger::default();
        for first in ALL {
            for (now, sent) in ALL.into_iter().flat_map(|now| ALL.map(|sent| (now, sent))) {
                let parts = [
                    of(r#"{"resourceLogs":[{"a":1}]}"#, first, first),
                    of(r#"{ "resource_logs" : [{}] }"#, now, sent),
                    of(r#"{"resourceLogs":[],"x":1}"#, first, first),
                ];
                let told = format!("{first:?}, then {now:?} for {sent:?}");
                assert!(are_coded_when_sent(parts.iter()), "{told}");
                let Merged { elements, inflated_bytes, parts: merged } = merger.merge(&parts, 99).unwrap();
                assert_eq!(merged, 2, "{told}");
                let [one, _, other] = &parts;
                let whole = Part { elements, inflated_bytes, ..one.clone() };
                assert_eq!(content_of(&whole).unwrap(), br#"{"resourceLogs":[{"a":1},{}]}"#, "{told}");
                assert_eq!(merger.merge(&parts, 51).unwrap().parts, 1, "{told}");
                // A part that is joined to no other is coded as it is.
                let recoded = Part { coding: Coding { now: first, sent }, ..other.clone() };
                let Some(Merged { elements, .. }) = merger.deflate(&recoded) else { continue };
                let recoded = Part { elements, coding: Coding::of(sent), ..recoded };
                assert_eq!(content_of(&recoded), content_of(other), "{told}");
            }
            let alone = of("{}", first, first);
            assert!(!are_coded_when_sent([alone].iter()));
        }
    }

    #[test]
    fn a_damaged_part_ends_a_merged_request() {
        let whole = part(b"first", Compression::Gzip, Compression::Gzip);
        let damaged = Part { elements: b"damaged".as_slice().into(), ..whole.clone() };
        let mut merger = Merger::default();
        assert_eq!(merger.merge(&[whole.clone(), damaged.clone(), whole.clone()], 99).unwrap().parts, 1);
        assert_eq!(merger.merge(&[damaged, whole], 99), None);
    }

    #[test]
    fn what_repeats_itself_gets_smaller() {
        let content = b"some bytes, some bytes".repeat(300);
        for compression in [Compression::Snappy, Compression::Gzip, Compression::Zstd] {
            let bytes = Coder::default().elements(&content, compression).len();
            assert!(bytes * 4 < content.len(), "{compression:?}: {bytes} bytes");
        }
    }

    #[test]
    fn no_large_buffer_is_kept_until_the_next_part() {
        let mut coder = Coder::default();
        for compression in [Compression::Gzip, Compression::Zstd] {
            assert!(!coder.elements(b"small", compression).is_empty());
            assert!(coder.buffer.capacity() > 0);
            assert!(!coder.elements(&vec![b'x'; SCRATCH_BYTES_MAX + 1], compression).is_empty());
            assert_eq!(coder.buffer.capacity(), 0, "{compression:?}");
        }
    }

    #[test]
    fn every_coding_inflates_to_the_content() {
        let (mut coder, mut inflater) = (Coder::default(), Inflater::default());
        for content in [&b""[..], b"x", &b"some bytes, some bytes".repeat(20_000)] {
            assert_eq!(zstd::bulk::decompress(&zstd_raw(content), content.len()).unwrap(), content);
            inflater.inflate(&gzip_raw(content), Compression::Gzip, content.len()).unwrap();
            assert!(inflater.bytes() == content);
            for compression in ALL {
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
