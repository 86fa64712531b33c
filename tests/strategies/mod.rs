//! What the property tests of splitting draw from: padding, unknown fields, odd numbers, tenants' rules, and changes
//! that break bytes.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

#[allow(clippy::duplicate_mod, reason = "the checks bring it along, too")]
#[path = "../../fuzz/checks/common.rs"]
mod common;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tenantry::model::HaLabels;
use tenantry::tenant::{IdRules, Policy, TenantRules};
use testkit::fields::{field, number, varint};

/// The NaN that marks a series as stale, and one more that arithmetic would make quiet.
const STALE_NAN: u64 = 0x7ff0_0000_0000_0002;
const SIGNALLING_NAN: u64 = 0xfff4_0000_dead_beef;

/// Any float, NaNs among them.
pub fn double() -> impl Strategy<Value = f64> {
    prop_oneof![2 => Just(STALE_NAN), 1 => Just(SIGNALLING_NAN), 2 => any::<u64>()].prop_map(f64::from_bits)
}

/// How many bytes a field's key and value are longer than needed. Mostly none.
pub fn pad() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![8 => Just((0, 0)), 1 => (0..=3_usize, 0..=3_usize)]
}

/// A number of a field that no message has.
fn unknown_number() -> impl Strategy<Value = u32> {
    select(vec![20, 21, 99, 1000, (1 << 29) - 1])
}

/// The key of a field of this wire type.
fn key(number: u32, wire_type: u64, pad: usize) -> Vec<u8> {
    varint(u64::from(number) << 3 | wire_type, pad)
}

/// An unknown field that holds a number.
pub fn unknown_scalar() -> impl Strategy<Value = Vec<u8>> {
    let fixed = |number, wire_type, bytes: &[u8], pad| [&key(number, wire_type, pad), bytes].concat();
    prop_oneof![
        (unknown_number(), any::<u64>(), pad()).prop_map(|(field, value, pad)| number(field, value, pad)),
        (unknown_number(), any::<[u8; 8]>(), 0..=1_usize)
            .prop_map(move |(number, bytes, pad)| fixed(number, 1, &bytes, pad)),
        (unknown_number(), any::<[u8; 4]>(), 0..=1_usize)
            .prop_map(move |(number, bytes, pad)| fixed(number, 5, &bytes, pad)),
    ]
}

/// An unknown field that holds bytes, or a group of others.
pub fn unknown_other() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || {
        (unknown_number(), vec(any::<u8>(), 0..8), pad())
            .prop_map(|(number, bytes, pad)| field(number, &bytes, pad))
    };
    let group = |number, inner: &[u8]| [&key(number, 3, 0), inner, &key(number, 4, 1)].concat();
    let leaf = prop_oneof![bytes(), unknown_scalar()];
    let groups = leaf.prop_recursive(3, 8, 3, move |inner| {
        (unknown_number(), vec(inner, 0..3)).prop_map(move |(number, inner)| group(number, &inner.concat()))
    });
    // A recursive strategy may give a leaf: put it in a group of its own.
    let groups = groups.prop_map(move |inner| group(77, &inner));
    prop_oneof![bytes(), groups]
}

/// An unknown field.
pub fn unknown() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![unknown_scalar(), unknown_other()]
}

/// What may happen to bytes on their way.
#[derive(Clone, Debug)]
pub enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
    Repeat(Index, usize),
}

/// A few changes. Bytes that mean something in protobuf or in a stream's labels are among the new ones.
pub fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let protobuf = [0x00, 0x01, 0x02, 0x08, 0x0a, 0x12, 0x1a, 0x22, 0x2a, 0x7f, 0x80, 0xff];
    let odd_bytes = select([&protobuf[..], b"{}=,\"'`\\#"].concat());
    let byte = || prop_oneof![odd_bytes.clone(), any::<u8>()];
    let mutation = prop_oneof![
        4 => (any::<Index>(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        2 => (any::<Index>(), vec(byte(), 1..12)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (any::<Index>(), 1..8_usize).prop_map(|(at, bytes)| Mutation::Remove(at, bytes)),
        1 => any::<Index>().prop_map(Mutation::Cut),
        1 => (any::<Index>(), 1..20_usize).prop_map(|(at, bytes)| Mutation::Repeat(at, bytes)),
    ];
    vec(mutation, 1..4)
}

/// The bytes after these changes, one after another.
pub fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let end = |at: usize, count: usize| (at + count).min(bytes.len());
        match mutation {
            _ if bytes.is_empty() => {}
            Mutation::Set(at, byte) => *at.get_mut(&mut bytes) = *byte,
            Mutation::Flip(at, bit) => *at.get_mut(&mut bytes) ^= 1 << bit,
            Mutation::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Mutation::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..end(at, *count));
            }
            Mutation::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Mutation::Repeat(at, count) => {
                let at = at.index(bytes.len());
                let again = bytes[at..end(at, *count)].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

/// Rules of tenants that are named by one of these lists of labels.
pub fn tenant_rules(labels: Vec<Vec<&'static str>>) -> impl Strategy<Value = TenantRules> {
    let default = select(vec![None, Some(""), Some("d"), Some("a")]);
    let policy = || prop_oneof![1 => Just(Policy::Reject), 3 => Just(Policy::Drop)];
    let id_rules = select(vec![IdRules::Mimir, IdRules::Thanos]);
    let prefix = (select(vec!["", "p-"]), any::<bool>());
    let maps = (any::<bool>(), prop::bool::weighted(0.2));
    (select(labels), default, prefix, policy(), policy(), id_rules, any::<bool>(), maps).prop_map(
        |(
            labels,
            default,
            (prefix, prefix_prefer_source),
            on_missing,
            on_invalid,
            id_rules,
            label_remove,
            maps,
        )| {
            TenantRules {
                named_by: tenantry::tenant::NamedBy::Label,
                labels: labels.into_iter().map(|name| name.as_bytes().into()).collect(),
                prefix: prefix.into(),
                prefix_prefer_source,
                label_remove,
                default: default.map(str::to_owned),
                id_rules,
                on_missing,
                on_invalid,
                map: maps.0.then(common::map),
                allow: maps.1.then(common::allow),
            }
        },
    )
}

/// The labels of cluster and replica, `c` and `r`, or none.
pub fn ha_labels() -> impl Strategy<Value = Option<HaLabels>> {
    let labels = HaLabels { cluster: (*b"c").into(), replica: (*b"r").into() };
    select(vec![None, Some(labels)])
}
