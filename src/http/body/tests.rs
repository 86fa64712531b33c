//! One test per rule on hand-made bytes, then properties of all bodies.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

/// Decodes `input` in one piece. Returns the data, the bytes consumed, and whether the body is complete.
fn decode(input: impl AsRef<[u8]>) -> Result<(Vec<u8>, usize, bool), Refusal> {
    let mut out = Vec::new();
    let (consumed, done) = ChunkDecoder::new(LIMIT).decode(input.as_ref(), &mut out)?;
    Ok((out, consumed, done))
}

/// Like [`decode`], with `input` cut into pieces of these sizes, in turn.
fn decode_in_pieces(input: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, usize, bool), Refusal> {
    let mut decoder = ChunkDecoder::new(LIMIT);
    let mut out = Vec::new();
    let mut rest = input;
    for &size in sizes.iter().cycle() {
        let piece = &rest[..size.min(rest.len())];
        let (consumed, done) = decoder.decode(piece, &mut out)?;
        rest = &rest[consumed..];
        if done || rest.is_empty() {
            return Ok((out, input.len() - rest.len(), done));
        }
        assert_eq!(consumed, piece.len(), "all is consumed until the body is complete");
    }
    unreachable!("sizes are not empty")
}

fn assert_bad(input: impl AsRef<[u8]>, why: &'static str) {
    let input = input.as_ref();
    let text = String::from_utf8_lossy(input);
    assert_eq!(decode(input), Err(Refusal::BadRequest(why)), "{text:?}");
    assert_eq!(decode_in_pieces(input, &[1]), Err(Refusal::BadRequest(why)), "{text:?}, byte by byte");
}

#[test]
fn chunks_are_joined() {
    let input = "4\r\nWiki\r\n7\r\npedia i\r\nB\r\nn \r\nchunks.\r\n0\r\n\r\n";
    assert_eq!(decode(input), Ok((b"Wikipedia in \r\nchunks.".to_vec(), input.len(), true)));
}

#[test]
fn pieces_make_no_difference() {
    let input = "4;a=\"b\"\r\nWiki\r\n005\r\npedia\r\n0\r\nX: y\r\nZ:\r\n\r\nPOST";
    let whole = decode(input).unwrap();
    assert_eq!(whole, (b"Wikipedia".to_vec(), input.len() - 4, true));
    for size in 1..input.len() {
        assert_eq!(decode_in_pieces(input.as_bytes(), &[size]).unwrap(), whole);
        assert_eq!(decode_in_pieces(input.as_bytes(), &[size, input.len()]).unwrap(), whole);
    }
}

#[test]
fn no_prefix_is_a_whole_body() {
    let input = "4;a=\"b\"\r\nWiki\r\n0\r\nX: y\r\n\r\n";
    for end in 0..input.len() {
        let (data, consumed, done) = decode(&input[..end]).unwrap();
        assert!(!done && consumed == end, "{:?}", &input[..end]);
        assert!(b"Wiki".starts_with(&data));
    }
}

#[test]
fn bytes_after_the_body_are_not_consumed() {
    let input = "0\r\n\r\nPOST /push HTTP/1.1\r\n";
    assert_eq!(decode(input), Ok((Vec::new(), 5, true)));
}

#[test]
fn a_complete_body_consumes_no_more() {
    let mut decoder = ChunkDecoder::new(LIMIT);
    let mut out = Vec::new();
    assert_eq!(decoder.decode(b"1\r\na\r\n0\r\n\r\n", &mut out), Ok((11, true)));
    assert_eq!(decoder.decode(b"1\r\nb\r\n", &mut out), Ok((0, true)));
    assert_eq!(out, b"a");
}

#[test]
fn data_is_appended() {
    let mut out = b"before ".to_vec();
    ChunkDecoder::new(5).decode(b"5\r\nafter\r\n0\r\n\r\n", &mut out).unwrap();
    assert_eq!(out, b"before after");
}

#[test]
fn sizes_are_hexadecimal_in_either_case() {
    let data = "x".repeat(0xaf);
    for size in ["af", "AF", "aF", "00000000000000af"] {
        assert_eq!(decode(format!("{size}\r\n{data}\r\n0\r\n\r\n")).unwrap().0, data.as_bytes());
    }
}

#[test]
fn sizes_with_anything_else_are_refused() {
    for size in ["", ";", ";a", " 4", "4 ", "4\t", "+4", "-4", "0x4", "4h", "4,4", "\u{664}", "4\0"] {
        assert_bad(format!("{size}\r\nWiki\r\n0\r\n\r\n"), "malformed chunk size");
    }
}

#[test]
fn sizes_have_at_most_16_digits() {
    assert_bad("00000000000000004\r\nWiki\r\n", "malformed chunk size");
    assert_eq!(decode("ffffffffffffffff\r\n"), Err(Refusal::BodyTooLarge { limit: LIMIT }));
    assert_bad("10000000000000000\r\n", "malformed chunk size");
}

#[test]
fn lines_end_in_cr_lf_only() {
    assert_bad("4\nWiki\r\n", "malformed chunk size");
    assert_bad("4\r\r\nWiki\r\n", "malformed chunk");
    assert_bad("4\rWiki\r\n", "malformed chunk");
    assert_bad("4;a\nWiki\r\n", "malformed chunk");
    assert_bad("4\r\nWiki\n0\r\n\r\n", "malformed chunk");
    assert_bad("4\r\nWiki\r0\r\n\r\n", "malformed chunk");
    assert_bad("0\r\n\n", "malformed trailer");
    assert_bad("0\r\n\rX", "malformed chunk");
    assert_bad("0\r\nX: y\n\r\n", "malformed trailer");
    assert_bad("0\r\nX: y\rZ: z\r\n\r\n", "malformed chunk");
}

#[test]
fn data_longer_or_shorter_than_its_size_is_refused() {
    assert_bad("3\r\nWiki\r\n0\r\n\r\n", "malformed chunk");
    assert_bad("5\r\nWiki\r\n0\r\n\r\n", "malformed chunk");
    assert_bad("3\r\nWiki\n0\r\n\r\n", "malformed chunk");
}

#[test]
fn extensions_are_skipped() {
    for extension in [";", ";a", ";a=b", ";a=\"b c\";d", ";a = b\t", ";\u{e9}"] {
        assert_eq!(decode(format!("4{extension}\r\nWiki\r\n0{extension}\r\n\r\n")).unwrap().0, b"Wiki");
    }
}

#[test]
fn control_characters_in_extensions_are_refused() {
    for byte in (0..b' ').chain([0x7f]).filter(|byte| !b"\t\r".contains(byte)) {
        let mut input = b"4;a".to_vec();
        input.push(byte);
        assert_bad(&input, "malformed chunk");
    }
}

#[test]
fn chunk_lines_have_a_limit() {
    let line = |bytes: usize| format!("4;{}\r\nWiki\r\n0\r\n\r\n", "x".repeat(bytes - 2));
    assert_eq!(decode(line(CHUNK_LINE_BYTES_MAX)).unwrap().0, b"Wiki");
    assert_bad(line(CHUNK_LINE_BYTES_MAX + 1), "chunk line too long");
}

#[test]
fn extensions_have_a_limit_together() {
    let body = |chunks: usize| format!("{}0\r\n\r\n", "1;234567\r\nx\r\n".repeat(chunks));
    let fitting = CHUNK_EXCESS_BYTES_MAX / ";234567".len();
    assert_eq!(decode(body(fitting)).unwrap().0.len(), fitting);
    assert_bad(body(fitting + 1), "too many chunk extensions or trailer fields");
}

#[test]
fn trailers_are_skipped() {
    let input = "0\r\nExpires: never\r\nContent-Length: 5\r\nEmpty:\r\n\r\n";
    assert_eq!(decode(input), Ok((Vec::new(), input.len(), true)));
}

#[test]
fn trailers_are_fields() {
    for line in ["GET / HTTP/1.1", " folded: a", ": a", "X : a", "X", "X: a\0"] {
        assert_bad(format!("0\r\n{line}\r\n\r\n"), "malformed trailer");
    }
}

#[test]
fn trailers_have_a_limit() {
    let trailer = |bytes: usize| format!("0\r\n{}:\r\n\r\n", "x".repeat(bytes - 1));
    assert!(decode(trailer(CHUNK_EXCESS_BYTES_MAX)).unwrap().2);
    assert_bad(trailer(CHUNK_EXCESS_BYTES_MAX + 1), "too many chunk extensions or trailer fields");
}

#[test]
fn the_limit_is_on_all_data_together() {
    let mut out = Vec::new();
    let input = "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    assert_eq!(ChunkDecoder::new(6).decode(input.as_bytes(), &mut out), Ok((input.len(), true)));
    out.clear();
    let refusal = ChunkDecoder::new(5).decode(input.as_bytes(), &mut out);
    assert_eq!(refusal, Err(Refusal::BodyTooLarge { limit: 5 }));
    assert_eq!(out, b"abc");
}

#[test]
fn the_limit_is_checked_before_data_arrives() {
    let refusal = ChunkDecoder::new(5).decode(b"6\r\n", &mut Vec::new());
    assert_eq!(refusal, Err(Refusal::BodyTooLarge { limit: 5 }));
}

#[test]
fn an_empty_body_fits_a_limit_of_none() {
    assert_eq!(ChunkDecoder::new(0).decode(b"0\r\n\r\n", &mut Vec::new()), Ok((5, true)));
    assert!(ChunkDecoder::new(0).decode(b"1\r\n", &mut Vec::new()).is_err());
}

#[test]
fn an_announced_chunk_reserves_no_memory() {
    let mut out = Vec::new();
    ChunkDecoder::new(usize::MAX).decode(b"7fffffffffffff\r\nabc", &mut out).unwrap();
    assert!(out.capacity() < 1024);
}

/// Writes `data` as chunks of these sizes, in turn, with sizes in various spellings.
fn encode(data: &[u8], sizes: &[usize], extension: &str, trailer: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut rest = data;
    for (index, &size) in sizes.iter().cycle().enumerate() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        let line = match index % 3 {
            0 => format!("{:x}{extension}\r\n", chunk.len()),
            1 => format!("{:X}\r\n", chunk.len()),
            _ => format!("{:08x}\r\n", chunk.len()),
        };
        encoded.extend_from_slice(line.as_bytes());
        if chunk.is_empty() {
            encoded.extend_from_slice(trailer.as_bytes());
            encoded.extend_from_slice(b"\r\n");
            return encoded;
        }
        encoded.extend_from_slice(chunk);
        encoded.extend_from_slice(b"\r\n");
    }
    unreachable!("sizes are not empty")
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(
        data in prop::collection::vec(any::<u8>(), 0..2000),
        chunks in prop::collection::vec(1..300_usize, 1..8),
        pieces in prop::collection::vec(1..300_usize, 1..8),
        extension in prop::sample::select(vec!["", ";a", ";a=\"b\""]),
        trailer in prop::sample::select(vec!["", "X: y\r\n", "A:\r\nB: c\r\n"]),
        after in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let encoded = encode(&data, &chunks, extension, trailer);
        let input = [encoded.as_slice(), &after].concat();
        let decoded = decode_in_pieces(&input, &pieces).unwrap();
        prop_assert_eq!(decoded, (data, encoded.len(), true));
    }

    #[test]
    fn mutated_bodies_decode_the_same_for_any_split(
        data in prop::collection::vec(any::<u8>(), 0..100),
        chunks in prop::collection::vec(1..40_usize, 1..4),
        pieces in prop::collection::vec(1..40_usize, 1..8),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut input = encode(&data, &chunks, ";a", "X: y\r\n");
        for (at, byte) in edits {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let whole = decode(&input);
        prop_assert_eq!(&decode_in_pieces(&input, &pieces), &whole);
        prop_assert_eq!(&decode_in_pieces(&input, &[1]), &whole);
        if let Ok((data, consumed, done)) = whole {
            prop_assert!(data.len() <= consumed && (done || consumed == input.len()));
        }
    }
}
