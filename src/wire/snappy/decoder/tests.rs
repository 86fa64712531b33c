//! Elements built by hand, in all places of a block: the decoder treats the last ones differently, and those near the
//! output's end. snap's decoder is the oracle where the result is not obvious.

use super::*;
use crate::wire::varint;

mod properties;

/// Decodes into memory that holds something else before.
fn ours(elements: &[u8], inflated_bytes: usize) -> Option<Vec<u8>> {
    let mut output = vec![0xa5; inflated_bytes + SLACK_BYTES];
    decode(elements, &mut output)?;
    output.truncate(inflated_bytes);
    Some(output)
}

fn by_snap(elements: &[u8], inflated_bytes: usize) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    varint::put(&mut block, inflated_bytes as u64);
    block.extend_from_slice(elements);
    snap::raw::Decoder::new().decompress_vec(&block).ok()
}

/// Both accept `elements` with the same result, or refuse them.
#[track_caller]
fn assert_same(elements: &[u8], inflated_bytes: usize) {
    let (ours, theirs) = (ours(elements, inflated_bytes), by_snap(elements, inflated_bytes));
    assert!(ours == theirs, "{inflated_bytes} of {elements:x?}: {ours:x?}, but by snap {theirs:x?}");
}

/// A literal whose length takes `extra_bytes`, or is in the tag.
fn literal(bytes: &[u8], extra_bytes: usize) -> Vec<u8> {
    let length = bytes.len() - 1;
    let number = if extra_bytes == 0 { length } else { 59 + extra_bytes };
    let tag = u8::try_from(number << 2).unwrap();
    [&[tag][..], &length.to_le_bytes()[..extra_bytes], bytes].concat()
}

/// A copy whose offset takes one, two or four bytes.
fn copy(length: usize, offset: usize, offset_bytes: usize) -> Vec<u8> {
    let tag = match offset_bytes {
        1 => offset >> 8 << 5 | (length - 4) << 2 | 1,
        2 => (length - 1) << 2 | 2,
        _ => (length - 1) << 2 | 3,
    };
    [&[u8::try_from(tag).unwrap()], &offset.to_le_bytes()[..offset_bytes]].concat()
}

/// Bytes without a pattern.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[1]).collect()
}

/// `elements`, which make `inflated` after `history`, in a block that begins with `history` and goes on with more or
/// less.
fn places(history: &[u8], elements: &[u8], inflated: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let before = history.chunks(50).flat_map(|bytes| literal(bytes, 0)).collect::<Vec<u8>>();
    let after = |bytes| -> (Vec<u8>, Vec<u8>) {
        let after = noise(bytes);
        let elements = [
            &before[..],
            elements,
            &after.chunks(7).flat_map(|bytes| literal(bytes, 0)).collect::<Vec<u8>>(),
        ];
        (elements.concat(), [history, inflated, &after].concat())
    };
    [0, 1, 30, 60, 200].map(after).into()
}

/// Decodes `elements` in all places.
#[track_caller]
fn assert_decodes(history: &[u8], elements: &[u8], inflated: &[u8]) {
    for (elements, inflated) in places(history, elements, inflated) {
        assert_eq!(ours(&elements, inflated.len()).as_deref(), Some(&inflated[..]), "{elements:x?}");
    }
}

/// Refuses `elements` in all places, and whichever length is declared for them.
#[track_caller]
fn assert_refuses(history: &[u8], elements: &[u8]) {
    for (elements, inflated) in places(history, elements, b"") {
        for bytes in 0..70 {
            assert_eq!(ours(&elements, inflated.len() + bytes), None, "{elements:x?}");
        }
    }
}

/// A block with an element of each kind and each path.
fn of_all_kinds() -> (Vec<u8>, usize) {
    let elements = [
        literal(&noise(10), 0),
        copy(10, 10, 2),
        copy(11, 3, 1),
        literal(&noise(60), 0),
        copy(64, 64, 2),
        copy(64, 40, 2),
        copy(64, 1, 2),
        copy(40, 90, 4),
        literal(&noise(100), 1),
        copy(5, 300, 1),
        literal(&noise(33), 2),
        literal(&noise(3), 4),
        copy(33, 200, 2),
        literal(&noise(32), 0),
    ];
    (elements.concat(), 10 + 10 + 11 + 60 + 64 * 3 + 40 + 100 + 5 + 33 + 3 + 33 + 32)
}

#[test]
fn literals_of_every_length() {
    for length in (1..=130).chain([255, 256, 257, 1000, 70_000]) {
        let bytes = noise(length);
        for extra_bytes in 0..=4 {
            let length_max = [60, 1 << 8, 1 << 16, 1 << 24, 1 << 32][extra_bytes];
            if length <= length_max {
                assert_decodes(b"", &literal(&bytes, extra_bytes), &bytes);
                assert_decodes(b"abc", &literal(&bytes, extra_bytes), &bytes);
            }
        }
    }
}

#[test]
fn literals_of_absurd_lengths_are_refused() {
    for extra_bytes in 1..=4 {
        let tag = u8::try_from((59 + extra_bytes) << 2).unwrap();
        assert_refuses(b"", &[&[tag][..], &vec![0xff; extra_bytes]].concat());
    }
}

#[test]
fn copies_of_every_length_from_near_and_far() {
    let history = noise(3000);
    for offset in (1..=70).chain([127, 128, 255, 256, 257, 2047, 2048, 2999, 3000]) {
        for length in 1..=64 {
            let start = history.len() - offset;
            let inflated: Vec<u8> = (0..length).map(|at| history[start + at % offset]).collect();
            for offset_bytes in [1, 2, 4] {
                if offset_bytes > 1 || (4..=11).contains(&length) && offset < 1 << 11 {
                    assert_decodes(&history, &copy(length, offset, offset_bytes), &inflated);
                }
            }
        }
    }
}

#[test]
fn copies_do_not_reach_back_before_the_block() {
    for written in [0, 1, 10, 31, 32, 63, 64, 65, 100, 300] {
        let history = noise(written);
        for length in [4, 8, 11, 32, 33, 64] {
            for offset in [0, written + 1, written + 2, written + 64, 2000] {
                if length <= 11 {
                    assert_refuses(&history, &copy(length, offset, 1));
                }
                assert_refuses(&history, &copy(length, offset, 2));
                assert_refuses(&history, &copy(length, offset, 4));
            }
            assert_refuses(&history, &copy(length, u16::MAX.into(), 2));
            assert_refuses(&history, &copy(length, u32::MAX as usize, 4));
        }
    }
}

#[test]
fn every_tag_with_any_bytes_behind_it() {
    let history = noise(2100);
    let random = noise(100_000);
    for (tag, bytes) in (0..=255).cycle().zip(random.chunks(6)) {
        for (elements, inflated) in places(&history, &[&[tag], bytes].concat(), b"") {
            for more in [0, 1, 4, 20, 64, 70] {
                assert_same(&elements, inflated.len() + more);
            }
        }
    }
}

#[test]
fn a_block_is_refused_if_it_is_cut_anywhere() {
    let (elements, inflated_bytes) = of_all_kinds();
    assert!(ours(&elements, inflated_bytes).is_some());
    let mut accepted = 0;
    for end in 0..elements.len() {
        assert_eq!(ours(&elements[..end], inflated_bytes), None, "cut at {end}");
        // Between two elements, a cut makes another valid block, which is shorter.
        for bytes in 0..inflated_bytes {
            assert_same(&elements[..end], bytes);
            accepted += usize::from(ours(&elements[..end], bytes).is_some());
        }
    }
    assert_eq!(accepted, 14);
}

#[test]
fn a_block_is_refused_if_it_makes_more_or_less_than_declared() {
    let (elements, inflated_bytes) = of_all_kinds();
    assert_same(&elements, inflated_bytes);
    for declared in (0..inflated_bytes).chain(inflated_bytes + 1..inflated_bytes + 200) {
        assert_eq!(ours(&elements, declared), None, "{declared}");
    }
}

#[test]
fn blocks_that_end_at_every_border() {
    // Around the sizes of a window and of the slack, which elements of these lengths meet in all ways.
    for length in 1..=60 {
        for count in 1..=(200 / length).max(3) {
            let bytes = noise(length * count);
            let elements: Vec<u8> = bytes.chunks(length).flat_map(|bytes| literal(bytes, 0)).collect();
            assert_eq!(ours(&elements, bytes.len()), Some(bytes.clone()));
            assert_eq!(ours(&elements, bytes.len() - 1), None);
            assert_eq!(ours(&elements, bytes.len() + 1), None);
            let copies = copy(length, 1, 2).repeat(count);
            let elements = [literal(b"x", 0), copies].concat();
            assert_eq!(ours(&elements, bytes.len() + 1), Some(vec![b'x'; bytes.len() + 1]));
            assert_eq!(ours(&elements, bytes.len()), None);
            assert_eq!(ours(&elements, bytes.len() + 2), None);
        }
    }
}

#[test]
fn nothing_makes_nothing() {
    assert_eq!(ours(b"", 0), Some(Vec::new()));
    assert_eq!(ours(b"", 1), None);
    assert_eq!(ours(&literal(b"x", 0), 0), None);
    assert_eq!(ours(&copy(4, 0, 1), 0), None);
    // Zeros are the decoder's padding, and literals of one byte.
    for zeros in 1..200 {
        assert_same(&vec![0; zeros], zeros / 2);
        assert_same(&vec![0; zeros], zeros);
    }
}

#[test]
fn output_without_slack_is_refused() {
    assert_eq!(decode(b"", &mut [0; SLACK_BYTES - 1]), None);
    assert_eq!(decode(b"", &mut []), None);
}
