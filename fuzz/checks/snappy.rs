//! Reads bytes as a snappy block. The inflater accepts the same blocks as snap's decoder, up to its limit, with the
//! same result. And snap's decoder inflates what the deflater makes.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

use tenantry::wire::snappy::{Deflater, Inflater, SnappyError};
use tenantry::wire::varint;

/// Small, so that a fuzzer finds blocks on both sides of it.
const INFLATED_BYTES_MAX: usize = 1 << 16;

/// What the fuzz target does.
pub(crate) fn check(block: &[u8]) {
    let mut inflater = Inflater::default();
    let ours = inflater.inflate(block, INFLATED_BYTES_MAX);
    let declared = snap::raw::decompress_len(block).ok().filter(|_| !block.is_empty());
    match (ours, declared) {
        (Err(SnappyError::TooLarge { declared_bytes, bytes_max }), Some(declared)) => {
            assert_eq!((declared_bytes, bytes_max), (declared, INFLATED_BYTES_MAX));
            assert!(declared_bytes > bytes_max);
        }
        (Err(SnappyError::Header), None) => {}
        (Err(SnappyError::Corrupt), Some(declared)) => {
            assert!(declared <= INFLATED_BYTES_MAX);
            assert!(snap::raw::Decoder::new().decompress_vec(block).is_err());
        }
        (Ok(header), Some(declared)) => {
            assert!(declared <= INFLATED_BYTES_MAX);
            assert_eq!(header.inflated_bytes, declared);
            let theirs = snap::raw::Decoder::new().decompress_vec(block).expect("we took it");
            assert_eq!(inflater.bytes(), theirs);
            merges(block, &block[header.elements_at..], &theirs);
        }
        (ours, declared) => panic!("{ours:?}, but snap reads a length of {declared:?}"),
    }
    if ours.is_err() {
        assert_eq!(inflater.bytes(), b"");
    }
}

/// Elements that came in and elements of the deflater make one block, if the sum of their lengths is in front.
fn merges(block: &[u8], elements: &[u8], inflated: &[u8]) {
    let mut merged = Vec::new();
    varint::put(&mut merged, (inflated.len() * 2 + block.len()) as u64);
    let mut deflater = Deflater::default();
    merged.extend_from_slice(elements);
    merged.extend_from_slice(&deflater.elements(block));
    merged.extend_from_slice(elements);
    let expected = [inflated, block, inflated].concat();
    assert_eq!(snap::raw::Decoder::new().decompress_vec(&merged).expect("merges"), expected);
}
