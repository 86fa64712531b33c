//! Hand-made parts, merged.

use super::*;
use crate::limits::{MERGED_PART_BYTES_MAX, MERGED_PASSTHROUGH_BYTES_MAX};
use crate::tenant::{IdRules, TenantId};
use crate::wire::snappy::{Deflater, stored, stored_bytes};

/// A part with this request, stored or deflated.
fn part(request: &[Vec<u8>], is_stored: bool) -> Part {
    let request = request.concat();
    Part {
        tenant: TenantId::new("a", IdRules::Mimir).unwrap(),
        protocol: Protocol::RemoteWriteV2,
        elements: if is_stored { stored(&request) } else { Deflater::default().elements(&request) },
        coding: crate::model::Coding::SNAPPY,
        inflated_bytes: u32::try_from(request.len()).unwrap(),
        series: 1,
        samples: 1,
        histograms: 0,
        exemplars: 0,
        merge: MergeKey::Ha(None),
    }
}

/// What the request inflates to that carries these parts, and how many of them it carries.
fn merged(merger: &mut Merger, parts: &[Part], bytes_max: usize) -> (Vec<u8>, usize) {
    let Merged { elements, inflated_bytes, parts } = merger.merge(parts, bytes_max).unwrap();
    let mut block = Vec::new();
    varint::put(&mut block, u64::from(inflated_bytes));
    block.extend_from_slice(&elements);
    (snap::raw::Decoder::new().decompress_vec(&block).unwrap(), parts)
}

fn all(parts: &[Part]) -> Vec<u8> {
    let (bytes, count) = merged(&mut Merger::default(), parts, usize::MAX);
    assert_eq!(count, parts.len());
    bytes
}

/// The parts of a request of tenants `a` and `b`.
fn split(request: &[Vec<u8>]) -> Vec<Part> {
    Rules::pass().split(request).1
}

#[test]
fn symbols_of_several_parts_are_in_one_table_once() {
    let one = [symbols(&["", "t", "a", "job", "x"]), series(&[packed(&[1, 2, 3, 4]), sample()])];
    let two = [
        symbols(&["", "job", "y", "t", "a"]),
        series(&[packed(&[3, 4, 1, 2]), sample()]),
        series(&[packed(&[1, 1])]),
    ];
    let expected = [
        symbols(&["", "t", "a", "job", "x", "y"]),
        series(&[packed(&[1, 2, 3, 4]), sample()]),
        series(&[packed(&[1, 2, 3, 5]), sample()]),
        series(&[packed(&[3, 3])]),
    ];
    for (is_stored, are_others) in [(true, true), (false, false), (true, false)] {
        assert_eq!(all(&[part(&one, is_stored), part(&two, are_others)]), expected.concat());
    }
    assert_eq!(all(&[part(&one, true)]), one.concat(), "one part stays as it is");
}

#[test]
fn every_reference_is_rewritten_and_the_rest_is_kept_bit_for_bit() {
    let exemplar = field(4, &[packed(&[1, 2]), field(9, b"?"), number(3, 1)].concat());
    let metadata = field(5, &[number(1, 1), number(3, 1), number(4, 2), field(9, b"?")].concat());
    let rest = [sample(), number(6, 9), vec![9 << 3 | 3, 9 << 3 | 4]].concat();
    let first = [symbols(&["", "n", "v"]), series(&[packed(&[1, 2])])];
    let second = [
        symbols(&["", "v", "help"]),
        series(&[rest.clone(), packed(&[2, 1]), exemplar, metadata, rest.clone()]),
    ];
    let exemplar = field(4, &[packed(&[2, 3]), field(9, b"?"), number(3, 1)].concat());
    let metadata = field(5, &[number(1, 1), number(3, 2), number(4, 3), field(9, b"?")].concat());
    let expected = [
        symbols(&["", "n", "v", "help"]),
        series(&[packed(&[1, 2])]),
        series(&[rest.clone(), packed(&[3, 2]), exemplar, metadata, rest]),
    ];
    assert_eq!(all(&[part(&first, true), part(&second, true)]), expected.concat());
}

#[test]
fn what_senders_may_write_in_other_ways_is_merged_too() {
    // As it may come in a passthrough: the table behind the series, references that are scattered and not packed,
    // empty and repeated symbols, and unused ones.
    let scattered = series(&[number(1, 1), sample(), packed(&[3, 2]), number(1, 4)]);
    let exemplar = field(4, &[number(1, 2), number(3, 1), number(1, 1)].concat());
    let long_key = [vec![0x22, 0x81, 0x00], b"z".to_vec()].concat();
    let odd = [
        scattered,
        series(&[packed(&[6, 6]), exemplar]),
        symbols(&["", "n", "", "n", "v", "unused"]),
        long_key,
    ];
    let usual = [symbols(&["", "v", "n"]), series(&[packed(&[2, 1]), sample()])];
    let expected = [
        symbols(&["", "n", "v", "z"]),
        series(&[packed(&[1, 2]), sample()]),
        series(&[packed(&[1, 1, 0, 2]), sample()]),
        series(&[packed(&[3, 3]), field(4, &[packed(&[0, 1]), number(3, 1)].concat())]),
    ];
    assert_eq!(all(&[part(&usual, true), part(&odd, false)]), expected.concat());
}

#[test]
fn a_request_ends_before_the_part_that_exceeds_its_size() {
    let names: Vec<String> = (0..3).map(|at| format!("name-{at}")).collect();
    let parts: Vec<Part> = names
        .iter()
        .map(|name| part(&[symbols(&["", "shared", name]), series(&[packed(&[1, 2]), sample()])], true))
        .collect();
    let mut merger = Merger::default();
    let (two, _) = merged(&mut merger, &parts[..2], usize::MAX);
    assert_eq!(merged(&mut merger, &parts, two.len()), (two.clone(), 2));
    assert_eq!(merged(&mut merger, &parts, two.len() - 1), (all(&parts[..1]), 1));
    assert_eq!(merged(&mut merger, &parts, 0), (all(&parts[..1]), 1), "the first one always goes");
    assert_eq!(merged(&mut merger, &parts, usize::MAX), (all(&parts), 3));
}

#[test]
fn a_request_has_as_many_symbols_as_it_may_have() {
    let names: Vec<String> = (0..REQUEST_SYMBOLS_MAX / 2).map(|at| at.to_string()).collect();
    let table: Vec<&str> = std::iter::once("").chain(names.iter().map(String::as_str)).collect();
    let references: Vec<u64> = (1..table.len() as u64).collect();
    let half = part(&[symbols(&table), series(&[packed(&references)])], true);
    let few = part(&[symbols(&["", "x"]), series(&[packed(&[1, 1])])], true);
    let mut merger = Merger::default();
    let (_, count) = merged(&mut merger, &[half.clone(), few.clone(), half, few], usize::MAX);
    assert_eq!(count, 2);
    assert!(merger.scratch_bytes() <= 2 * SCRATCH_BYTES_MAX);
}

#[test]
fn nothing_is_merged_that_belongs_to_a_request_as_a_whole_or_is_malformed() {
    let good = part(&[symbols(&["", "t", "a"]), series(&[packed(&[1, 2])])], true);
    let with = |field| part(&[symbols(&["", "t", "a"]), series(&[packed(&[1, 2])]), field], true);
    let mut merger = Merger::default();
    for other in [with(number(9, 1)), with(field(9, b"?")), with(vec![0xff]), with(field(1, b"1.0"))] {
        let both = [good.clone(), other.clone(), good.clone()];
        assert_eq!(merged(&mut merger, &both, usize::MAX), (all(std::slice::from_ref(&good)), 1));
        assert_eq!(merger.merge(&[other, good.clone()], usize::MAX), None);
    }
    let corrupt = Part { elements: Bytes::from_static(&[0xff]), ..good.clone() };
    assert_eq!(merger.merge(&[corrupt], usize::MAX), None);
    assert_eq!(merger.merge(&[], usize::MAX), None);
    assert_eq!(merged(&mut merger, &[good.clone(), good.clone()], usize::MAX).1, 2, "it forgets what it met");
}

#[test]
fn small_parts_are_stored_until_they_are_sent_and_large_ones_go_alone() {
    let padding = |bytes: usize| field(2, &vec![7; bytes]);
    let request = |bytes| {
        [
            symbols(&["", "t", "a", "b"]),
            series(&[packed(&[1, 2]), padding(bytes)]),
            series(&[packed(&[1, 3]), sample()]),
        ]
    };
    let parts = split(&request(MERGED_PART_BYTES_MAX - 100));
    assert!(parts.iter().all(|part| part.merge == MergeKey::Ha(None)));
    for part in &parts {
        assert_eq!(stored_bytes(&part.elements), Some(&inflated(part).1[..]));
        let deflated = Merger::default().deflate(part).unwrap();
        assert_eq!(deflated.inflated_bytes, part.inflated_bytes);
        let deflated = Part { elements: deflated.elements, ..part.clone() };
        assert_eq!(inflated(&deflated), inflated(part));
        assert_eq!(Merger::default().deflate(&deflated), None);
    }
    let parts = split(&request(MERGED_PART_BYTES_MAX));
    assert_eq!((&parts[0].merge, &parts[1].merge), (&MergeKey::Alone, &MergeKey::Ha(None)));
    assert!(parts[0].elements.len() < MERGED_PART_BYTES_MAX / 10);
    // A passthrough is deflated already.
    for (bytes, merge) in [(100, MergeKey::Ha(None)), (MERGED_PASSTHROUGH_BYTES_MAX, MergeKey::Alone)] {
        let parts = split(&request(bytes)[..2]);
        assert_eq!(parts[0].merge, merge);
        assert_eq!(stored_bytes(&parts[0].elements), None);
    }
}

#[test]
fn parts_have_the_replica_of_their_first_series() {
    let names = HaLabels { cluster: (*b"c").into(), replica: (*b"r").into() };
    let rules = Rules::with(|rules| rules.ha = Some(names));
    let replica = |name: &str| {
        let replica = HaReplica { cluster: (*b"x").into(), replica: name.as_bytes().into() };
        MergeKey::Ha(Some(Box::new(replica)))
    };
    // 6 `x` 7 `r1` 8 `r2`
    let request = [
        symbols(&["", "t", "a", "b", "c", "r", "x", "r1", "r2"]),
        series(&[packed(&[1, 2, 4, 6, 5, 7]), sample()]),
        series(&[packed(&[1, 3, 4, 6, 5, 8]), sample()]),
        series(&[packed(&[1, 2, 4, 6, 5, 8]), sample()]),
    ];
    let keys: Vec<_> = rules.split(&request).1.into_iter().map(|part| part.merge).collect();
    assert_eq!(keys, [replica("r1"), replica("r2")]);
    let parts = rules.split(&request[..2]).1;
    assert_eq!(parts[0].merge, replica("r1"), "a passthrough");
}

#[test]
fn histograms_and_exemplars_are_counted() {
    let exemplar = field(4, &packed(&[4, 5]));
    let request = [
        table(),
        series(&[packed(&[1, 2]), sample(), exemplar.clone(), exemplar]),
        series(&[packed(&[1, 3]), field(3, b"h"), field(3, b"h"), sample()]),
    ];
    let counts = |part: &Part| (part.samples, part.histograms, part.exemplars);
    assert_eq!(split(&request).iter().map(counts).collect::<Vec<_>>(), [(1, 0, 2), (3, 2, 0)]);
    assert_eq!(split(&request[..2]).iter().map(counts).collect::<Vec<_>>(), [(1, 0, 2)], "a passthrough");
}
