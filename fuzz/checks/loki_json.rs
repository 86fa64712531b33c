//! Reads bytes as a push in JSON. The protobuf that is made of it must have the same content as the JSON in a tree.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

use std::fmt;

use prost::Message;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use tenantry::wire::loki::json::{JsonError, to_protobuf};
use tenantry::wire::loki::labels::Labels;

const BYTES_MAX: usize = 1 << 16;

#[derive(Clone, PartialEq, Message)]
struct Push {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<Stream>,
}

#[derive(Clone, PartialEq, Message)]
struct Stream {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    structured_metadata: Vec<Pair>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// JSON, with all keys of an object in their order.
enum Tree {
    Null,
    /// A word or a whole number, as it would be written.
    Word(String),
    /// Any other number.
    Number,
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }
            fn visit_bool<E>(self, word: bool) -> Result<Tree, E> {
                Ok(Tree::Word(word.to_string()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
                Ok(Tree::Word(number.to_string()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
                Ok(Tree::Word(number.to_string()))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Number)
            }
            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Tree::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Tree::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A stream with its labels as pairs.
type Said = (Vec<(String, String)>, Vec<Entry>);

/// What the tree says, if it is a push.
fn streams(tree: &Tree) -> Option<Vec<Said>> {
    let Tree::Map(fields) = tree else { return None };
    match only(fields, "streams")? {
        None | Some(Tree::Null) => Some(Vec::new()),
        Some(Tree::List(streams)) => streams.iter().map(stream).collect(),
        Some(_) => None,
    }
}

/// The value of a key, which must not be repeated.
fn only<'t>(fields: &'t [(String, Tree)], key: &str) -> Option<Option<&'t Tree>> {
    let mut values = fields.iter().filter(|(name, _)| name == key).map(|(_, value)| value);
    let first = values.next();
    values.next().is_none().then_some(first)
}

fn stream(tree: &Tree) -> Option<Said> {
    let Tree::Map(fields) = tree else { return None };
    let mut labels = std::collections::BTreeMap::new();
    if let Some(set) = only(fields, "stream")? {
        let Tree::Map(set) = set else { return None };
        for (name, value) in set {
            let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
            let is_name =
                name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit());
            let (true, Tree::Text(value) | Tree::Word(value)) = (is_name, value) else { return None };
            labels.insert(name.clone(), value.clone());
        }
    }
    let mut entries = Vec::new();
    match only(fields, "values")? {
        None | Some(Tree::Null) => {}
        Some(Tree::List(values)) => {
            for value in values.iter().filter(|value| !matches!(value, Tree::Null)) {
                entries.push(entry(value)?);
            }
        }
        Some(_) => return None,
    }
    Some((labels.into_iter().collect(), entries))
}

fn entry(tree: &Tree) -> Option<Entry> {
    let Tree::List(fields) = tree else { return None };
    let [Tree::Text(nanos), Tree::Text(line), rest @ ..] = fields.as_slice() else { return None };
    let pairs = match rest.first() {
        None => &[][..],
        Some(Tree::Map(pairs)) => pairs,
        Some(_) => return None,
    };
    let pair = |(name, value): &(String, Tree)| match value {
        Tree::Text(value) => Some(Pair { name: name.clone(), value: value.clone() }),
        _ => None,
    };
    if nanos.starts_with('+') {
        return None;
    }
    let nanos = i128::from(nanos.parse::<i64>().ok()?);
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).expect("fits");
    let nanos = i32::try_from(nanos.rem_euclid(1_000_000_000)).expect("fits");
    Some(Entry {
        timestamp: Some(Timestamp { seconds, nanos }),
        line: line.clone(),
        structured_metadata: pairs.iter().map(pair).collect::<Option<_>>()?,
    })
}

/// A label set as pairs.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut labels = Labels::new(text.as_bytes());
    let mut all = Vec::new();
    while let Some(label) = labels.take().expect("we wrote it") {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8");
        all.push((text(&label.name), text(&label.value)));
    }
    all
}

/// What the fuzz target does.
pub(crate) fn check(json: &[u8]) {
    let mut out = Vec::new();
    let ours = to_protobuf(json, BYTES_MAX, &mut out);
    let tree = serde_json::from_slice::<Tree>(json);
    match ours {
        Err(JsonError::TooLarge { bytes_max }) => {
            assert!(bytes_max == BYTES_MAX && json.len() * 4 > BYTES_MAX)
        }
        Err(JsonError::Malformed { fault, .. }) => {
            assert!(!fault.contains(char::is_control) && fault.chars().count() <= 201, "{fault:?}");
            assert!(tree.is_err() || streams(&tree.expect("is")).is_none(), "refused: {fault}");
        }
        Ok(()) => {
            assert!(out.len() <= BYTES_MAX);
            let push = Push::decode(out.as_slice()).expect("we wrote it");
            let said: Vec<_> =
                push.streams.into_iter().map(|stream| (pairs(&stream.labels), stream.entries)).collect();
            match tree {
                Ok(tree) => assert_eq!(Some(said), streams(&tree)),
                // Skipped values are not checked for depth, characters and the size of numbers.
                Err(error) => {
                    let passed =
                        ["recursion limit", "unicode code point", "hex escape", "number out of range"];
                    let error = error.to_string();
                    assert!(passed.iter().any(|fault| error.contains(fault)), "taken: {error}");
                }
            }
        }
    }
}
