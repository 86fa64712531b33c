//! Properties of all blocks: those that snap's encoder makes, those of any elements, and changed ones. snap's decoder
//! agrees on each.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Bytes that compress well, badly, or not at all.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        vec(any::<u8>(), 0..200),
        vec(0..3_u8, 0..300),
        (vec(any::<u8>(), 1..70), 1..40_usize).prop_map(|(bytes, count)| bytes.repeat(count)),
        "[a-z]{1,9}=\"(prod|dev|[0-9]{1,4})\",".prop_map(|text| text.repeat(2).into_bytes()),
    ];
    vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

/// The elements that snap's encoder makes of `data`.
fn encoded(data: &[u8]) -> Vec<u8> {
    let block = snap::raw::Encoder::new().compress_vec(data).unwrap();
    let mut elements = &block[..];
    varint::take(&mut elements).unwrap();
    elements.to_vec()
}

/// An element, given the bytes that are written before it.
#[derive(Clone, Debug)]
enum Element {
    Literal(Vec<u8>, usize),
    /// The offset counts from the last byte, or from the first.
    Copy {
        length: usize,
        offset: usize,
        from_start: bool,
        offset_bytes: usize,
    },
}

fn element() -> impl Strategy<Value = Element> {
    let literal = (prop_oneof![4 => vec(any::<u8>(), 1..=60), 1 => vec(any::<u8>(), 61..300)], 0..=4_usize);
    let literal = literal.prop_map(|(bytes, extra)| {
        let extra_min = [60, 256].iter().filter(|&&max| bytes.len() > max).count();
        Element::Literal(bytes, extra.max(extra_min))
    });
    // Few offsets are 0, or before the start.
    let offset = prop_oneof![100 => 1..=70_usize, 100 => 1..3000_usize, 1 => Just(0)];
    let copy = (
        1..=64_usize,
        offset,
        prop::bool::weighted(0.2),
        prop_oneof![Just(1_usize), Just(2), Just(2), Just(4)],
    );
    let copy = copy.prop_map(|(length, offset, from_start, offset_bytes)| Element::Copy {
        length,
        offset,
        from_start,
        offset_bytes,
    });
    prop_oneof![literal, copy]
}

/// The elements' bytes, and how many they make.
fn assemble(elements: &[Element], wild: bool) -> (Vec<u8>, usize) {
    let (mut bytes, mut written) = (Vec::new(), 0_usize);
    for element in elements {
        match element {
            Element::Literal(content, extra_bytes) => {
                bytes.extend(literal(content, *extra_bytes));
                written += content.len();
            }
            Element::Copy { length, offset, from_start, offset_bytes } => {
                let back = if *from_start { written.saturating_sub(*offset) } else { *offset };
                let back = if wild { back } else { back.clamp(1, written.max(1)) };
                if !wild && written == 0 {
                    continue;
                }
                let short = *offset_bytes == 1;
                let length = if short { length % 8 + 4 } else { *length };
                let two_bytes_are_enough = back < 1 << 11 && short;
                let offset_bytes = if short && !two_bytes_are_enough { 2 } else { *offset_bytes };
                bytes.extend(copy(length, back, offset_bytes));
                written += length;
            }
        }
    }
    (bytes, written)
}

/// Changes to elements: a byte set, or bytes from a place on removed or doubled.
fn changes() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    vec((any::<Index>(), 0..6_u8, any::<u8>()), 1..4)
}

fn change(mut bytes: Vec<u8>, changes: &[(Index, u8, u8)]) -> Vec<u8> {
    for (at, kind, value) in changes {
        let at = at.index(bytes.len() + 1);
        let end = (at + usize::from(value % 70)).min(bytes.len());
        match kind {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => bytes.insert(at, *value),
            _ if at < bytes.len() => bytes[at] = *value,
            _ => {}
        }
    }
    bytes
}

/// Compares with snap, with the length that is true if nothing is wrong, and with others.
fn assert_same_nearby(elements: &[u8], inflated_bytes: usize) {
    for delta in [0, 1, 7, 64, 65] {
        assert_same(elements, inflated_bytes + delta);
        assert_same(elements, inflated_bytes.saturating_sub(delta));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn decodes_what_snap_encodes(data in data()) {
        let elements = encoded(&data);
        prop_assert!(ours(&elements, data.len()) == Some(data.clone()));
        assert_same_nearby(&elements, data.len());
    }

    #[test]
    fn decodes_any_valid_elements(elements in vec(element(), 0..60)) {
        let (elements, inflated_bytes) = assemble(&elements, false);
        prop_assert!(ours(&elements, inflated_bytes).is_some());
        assert_same_nearby(&elements, inflated_bytes);
    }

    #[test]
    fn judges_any_elements_as_snap_does(elements in vec(element(), 0..60)) {
        let (elements, inflated_bytes) = assemble(&elements, true);
        assert_same_nearby(&elements, inflated_bytes);
    }

    #[test]
    fn judges_changed_elements_as_snap_does(
        elements in vec(element(), 0..60),
        data in data(),
        changes in changes(),
    ) {
        let (elements, inflated_bytes) = assemble(&elements, false);
        assert_same_nearby(&change(elements, &changes), inflated_bytes);
        assert_same_nearby(&change(encoded(&data), &changes), data.len());
    }

    #[test]
    fn judges_cut_elements_as_snap_does(data in data(), end in any::<Index>(), declared in any::<Index>()) {
        let elements = encoded(&data);
        let elements = &elements[..end.index(elements.len() + 1)];
        assert_same_nearby(elements, data.len());
        assert_same_nearby(elements, declared.index(data.len() + 1));
    }
}
