//! Compresses a page, a slice at a time, so that the thread answers others in between.
//!
//! The levels are those for speed: with ten thousand tenants, the lines of a page differ little, and a higher level
//! would save little.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::negotiation::Coding;
use crate::io::tasks::pause;

/// What is compressed in one go: some milliseconds.
const SLICE_BYTES: usize = 512 << 10;

/// The level of zstd.
const ZSTD_LEVEL: i32 = 1;

/// Compresses a text. `None` if there is nothing to do, or if that fails for lack of memory.
pub(super) async fn compress(text: &[u8], coding: Coding) -> Option<Bytes> {
    let compressed = match coding {
        Coding::Identity => return None,
        Coding::Gzip => {
            let encoder = GzEncoder::new(Vec::new(), Compression::fast());
            write_all(encoder, text).await.and_then(GzEncoder::finish)
        }
        Coding::Zstd => match zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL) {
            Ok(encoder) => write_all(encoder, text).await.and_then(zstd::stream::write::Encoder::finish),
            Err(error) => Err(error),
        },
    };
    match compressed {
        Ok(compressed) => Some(compressed.into()),
        Err(error) => {
            tracing::warn!(%error, "a page can't be compressed");
            None
        }
    }
}

async fn write_all<W: Write>(mut encoder: W, text: &[u8]) -> io::Result<W> {
    for (number, slice) in text.chunks(SLICE_BYTES).enumerate() {
        if number > 0 {
            pause().await;
        }
        encoder.write_all(slice)?;
    }
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::io::driver::Driver;

    #[test]
    fn a_text_comes_back_as_it_was() {
        let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
        assert!(text.len() > 3 * SLICE_BYTES);
        let compressed = |coding| Driver::Epoll.block_on(compress(text.as_bytes(), coding)).unwrap();
        let (gzip, zstd) = (compressed(Coding::Gzip).unwrap(), compressed(Coding::Zstd).unwrap());
        let mut inflated = String::new();
        flate2::read::GzDecoder::new(&*gzip).read_to_string(&mut inflated).unwrap();
        assert!(inflated == text && gzip.len() < text.len() / 2);
        assert!(zstd::decode_all(&*zstd).unwrap() == text.as_bytes() && zstd.len() < text.len() / 2);
        assert!(compressed(Coding::Identity).is_none());
    }
}
