//! A push as JSON (Grafana Loki's HTTP API, "Ingest logs"), turned into the `PushRequest` that says the same:
//!
//! ```text
//! {"streams": [{"stream": {"app": "shop"}, "values": [["1700000000000000000", "line", {"trace_id": "1"}]]}]}
//! ```
//!
//! Constraints that shaped it:
//!
//! * Loki's own reading is the measure (grafana/loki, pkg/loghttp `LogProtoStream`): timestamps and lines are strings,
//!   `null` for `values` or for an entry is none, keys that nobody knows and what stands behind the third element of an
//!   entry are passed over. We refuse more clearly what it takes by accident: a key twice, a second document, an entry
//!   without a line.
//! * Nothing is built in between: the parser's strings go straight into the message, so memory is bounded by the body's
//!   size, and what comes out by a cap of its own (escaping can make labels four times as long).
//! * A label's name becomes text here, beside others: one that is no name would be read as something else.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::labels::{is_name, quote};
use super::{ENTRY_KEY, LABELS_KEY, STREAM_KEY};
use crate::limits::JSON_FAULT_CHARS_MAX;
use crate::wire::varint;

/// Keys of an entry's fields: timestamp, line and structured metadata; and of what stands in them.
const TIMESTAMP_KEY: u8 = 0x0a;
const LINE_KEY: u8 = 0x12;
const METADATA_KEY: u8 = 0x1a;
const SECONDS_KEY: u8 = 0x08;
const NANOS_KEY: u8 = 0x10;
const NAME_KEY: u8 = 0x0a;
const VALUE_KEY: u8 = 0x12;

/// A body that is no push in JSON: the sender's fault, and no retry will help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, or other JSON.
    #[error("the body is not a Loki push in JSON (line {line}, column {column}): {fault}")]
    Malformed {
        /// The line at which the parser stood, from 1.
        line: usize,
        /// How many bytes of that line it had read.
        column: usize,
        /// What is wrong, on one line and cut short.
        fault: String,
    },
    /// What it says does not fit the cap.
    #[error("the push has more than {bytes_max} bytes")]
    TooLarge {
        /// The cap.
        bytes_max: usize,
    },
}

/// Appends to `out` the protobuf of what `json` says, at most `bytes_max` bytes. After an error, `out` holds anything.
pub fn to_protobuf(json: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut sink = Sink { out, stream: Vec::new(), entry: Vec::new(), bytes_max, too_large: false };
    let mut parser = serde_json::Deserializer::from_slice(json);
    let read = parser.deserialize_map(Push(&mut sink)).and_then(|()| parser.end());
    match read {
        _ if sink.too_large => Err(JsonError::TooLarge { bytes_max }),
        Ok(()) => Ok(()),
        Err(error) => Err(malformed(&error)),
    }
}

/// The parser's words, which may quote the sender's, on one line and cut short.
fn malformed(error: &serde_json::Error) -> JsonError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    let mut letters = text.chars();
    let mut fault = String::new();
    for letter in letters.by_ref().take(JSON_FAULT_CHARS_MAX) {
        if letter.is_control() {
            fault.extend(letter.escape_default());
        } else {
            fault.push(letter);
        }
    }
    if letters.next().is_some() {
        fault.push('…');
    }
    JsonError::Malformed { line, column, fault }
}

/// Where the message is put together: what is at hand stands apart until its length is known.
struct Sink<'o> {
    out: &'o mut Vec<u8>,
    stream: Vec<u8>,
    entry: Vec<u8>,
    bytes_max: usize,
    too_large: bool,
}

impl Sink<'_> {
    fn check<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.too_large = self.out.len() + self.stream.len() > self.bytes_max;
        if self.too_large { Err(E::custom("it is too large")) } else { Ok(()) }
    }
}

fn put_bytes(out: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    out.push(key);
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads whatever comes next with a visitor, which tells what it expects if it is something else.
struct Seed<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Seed<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}

/// The whole push.
struct Push<'s, 'o>(&'s mut Sink<'o>);

impl<'de> Visitor<'de> for Push<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `streams`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut streams = false;
        while let Some(key) = map.next_key_seed(Seed(Text("a key")))? {
            if key != "streams" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            once(&mut streams, "streams")?;
            map.next_value_seed(Seed(Streams(self.0)))?;
        }
        Ok(())
    }
}

/// Notes that a key is there, which must not be there already.
fn once<E: serde::de::Error>(seen: &mut bool, key: &'static str) -> Result<(), E> {
    if std::mem::replace(seen, true) { Err(E::duplicate_field(key)) } else { Ok(()) }
}

struct Streams<'s, 'o>(&'s mut Sink<'o>);

impl<'de> Visitor<'de> for Streams<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of streams")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut streams: A) -> Result<(), A::Error> {
        while streams.next_element_seed(Seed(Stream(self.0)))?.is_some() {
            put_bytes(self.0.out, STREAM_KEY, &self.0.stream);
            self.0.stream.clear();
            self.0.check()?;
        }
        Ok(())
    }
}

/// Puts one stream together; its fields may come in either order, here as there.
struct Stream<'s, 'o>(&'s mut Sink<'o>);

impl<'de> Visitor<'de> for Stream<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `stream` and `values`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut stream, mut values) = (false, false);
        while let Some(key) = map.next_key_seed(Seed(Text("a key")))? {
            match &*key {
                "stream" => {
                    once(&mut stream, "stream")?;
                    map.next_value_seed(Seed(LabelSet(self.0)))?;
                }
                "values" => {
                    once(&mut values, "values")?;
                    map.next_value_seed(Seed(Values(self.0)))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A stream's labels: sorted by name, of the same name the last, as Loki has it.
struct LabelSet<'s, 'o>(&'s mut Sink<'o>);

impl<'de> Visitor<'de> for LabelSet<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut labels: Vec<(Cow<'de, str>, Cow<'de, str>)> = Vec::new();
        while let Some(name) = map.next_key_seed(Seed(Text("a label's name")))? {
            if !is_name(name.as_bytes()) {
                let text = "a label's name has to be letters, digits and underscores, no digit in front";
                return Err(A::Error::custom(text));
            }
            labels.push((name, map.next_value_seed(Seed(LabelValue))?));
        }
        labels.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut text = vec![b'{'];
        for (at, (name, value)) in labels.iter().enumerate() {
            if labels.get(at + 1).is_some_and(|(next, _)| next == name) {
                continue;
            }
            if text.len() > 1 {
                text.extend(b", ");
            }
            text.extend(name.as_bytes());
            text.push(b'=');
            quote(value, &mut text);
        }
        text.push(b'}');
        put_bytes(&mut self.0.stream, LABELS_KEY, &text);
        self.0.check()
    }
}

struct Values<'s, 'o>(&'s mut Sink<'o>);

impl<'de> Visitor<'de> for Values<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_element_seed(Seed(Entry(self.0)))?.is_some() {
            self.0.check()?;
        }
        Ok(())
    }
}

struct Entry<'s, 'o>(&'s mut Sink<'o>);

impl<'de> Visitor<'de> for Entry<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry: [timestamp, line] or [timestamp, line, metadata]")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let sink = self.0;
        sink.entry.clear();
        let nanos = fields.next_element_seed(Seed(Nanos))?;
        let nanos = nanos.ok_or_else(|| A::Error::custom("an entry without a timestamp"))?;
        put_timestamp(&mut sink.entry, nanos);
        let line = fields.next_element_seed(Seed(Text("a line, as a string")))?;
        let line = line.ok_or_else(|| A::Error::custom("an entry without a line"))?;
        put_bytes(&mut sink.entry, LINE_KEY, line.as_bytes());
        if fields.next_element_seed(Seed(Metadata(&mut sink.entry)))?.is_some() {
            while fields.next_element::<IgnoredAny>()?.is_some() {}
        }
        put_bytes(&mut sink.stream, ENTRY_KEY, &sink.entry);
        Ok(())
    }
}

/// `google.protobuf.Timestamp`: whole seconds, rounded down, and what is left in nanoseconds.
fn put_timestamp(entry: &mut Vec<u8>, nanos: i64) {
    const NANOS_PER_SEC: i64 = 1_000_000_000;
    let mut timestamp = Vec::with_capacity(16);
    for (key, number) in
        [(SECONDS_KEY, nanos.div_euclid(NANOS_PER_SEC)), (NANOS_KEY, nanos.rem_euclid(NANOS_PER_SEC))]
    {
        if number != 0 {
            timestamp.push(key);
            varint::put(&mut timestamp, number.cast_unsigned());
        }
    }
    put_bytes(entry, TIMESTAMP_KEY, &timestamp);
}

/// An entry's structured metadata, in the order in which it comes.
struct Metadata<'s>(&'s mut Vec<u8>);

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of structured metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut pair = Vec::new();
        while let Some(name) = map.next_key_seed(Seed(Text("a key")))? {
            let value = map.next_value_seed(Seed(Text("a value of structured metadata, as a string")))?;
            pair.clear();
            put_bytes(&mut pair, NAME_KEY, name.as_bytes());
            put_bytes(&mut pair, VALUE_KEY, value.as_bytes());
            put_bytes(self.0, METADATA_KEY, &pair);
        }
        Ok(())
    }
}

/// A string, and what it is expected to be.
struct Text(&'static str);

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The value of a stream's label: a string, or one of the words and whole numbers that Loki takes for their text.
struct LabelValue;

impl<'de> Visitor<'de> for LabelValue {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label's value, as a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(if truth { "true" } else { "false" }))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(number.to_string()))
    }
}

/// Nanoseconds since the epoch.
struct Nanos;

impl Visitor<'_> for Nanos {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timestamp: nanoseconds since the epoch, as a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<i64, E> {
        // `+1` is a number for Rust and none for Loki.
        let digits = !text.starts_with('+');
        text.parse()
            .ok()
            .filter(|_| digits)
            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests;
