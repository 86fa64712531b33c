//! Converts a push in JSON (Grafana Loki's HTTP API, "Ingest logs") to the equivalent `PushRequest`:
//!
//! ```text
//! {"streams": [{"stream": {"app": "shop"}, "values": [["1700000000000000000", "line", {"trace_id": "1"}]]}]}
//! ```
//!
//! Design constraints:
//!
//! * Loki's own parser is the reference (grafana/loki, pkg/loghttp `LogProtoStream`). Timestamps and lines are strings.
//!   `null` for `values` or for an entry means none. Unknown keys, and elements of an entry after the third, are
//!   skipped. Input that Loki accepts by accident is refused with a clear error: repeated keys, a second document, an
//!   entry without a line.
//! * There is no intermediate representation. The parser's strings go directly into the message, so memory is bounded
//!   by the body's size. The output has a limit of its own, because escaping can make labels four times as long.
//! * Label names become text here, next to other labels. Text that is not a valid name would be read as something else,
//!   so it is refused.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::labels::{is_name, quote};
use super::{ENTRY_KEY, LABELS_KEY, STREAM_KEY};
use crate::limits::JSON_FAULT_CHARS_MAX;
use crate::wire::varint;

/// Keys of an entry's fields (timestamp, line, structured metadata) and of the fields within them.
const TIMESTAMP_KEY: u8 = 0x0a;
const LINE_KEY: u8 = 0x12;
const METADATA_KEY: u8 = 0x1a;
const SECONDS_KEY: u8 = 0x08;
const NANOS_KEY: u8 = 0x10;
const NAME_KEY: u8 = 0x0a;
const VALUE_KEY: u8 = 0x12;

/// The body is not a push in JSON. The sender is at fault, and a retry does not help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON, or JSON of another shape.
    #[error("the body is not a Loki push in JSON (line {line}, column {column}): {fault}")]
    Malformed {
        /// The parser's line, from 1.
        line: usize,
        /// The number of bytes read of that line.
        column: usize,
        /// The error, on one line and cut short.
        fault: String,
    },
    /// The result exceeds the limit.
    #[error("the push has more than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
}

/// Appends the protobuf for `json` to `out`, at most `bytes_max` bytes. After an error the content of `out` is
/// unspecified.
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

/// The parser's message on one line, cut short. It may quote the sender's text.
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

/// Buffers for building the message. A nested message is built separately until its length is known.
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

/// Deserializes the next value with a visitor. On another type, the visitor says what it expects.
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

/// Records that a key has occurred. A repeated key is an error.
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

/// Builds one stream. Its fields may come in either order, as in protobuf.
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

/// Builds a stream's labels: sorted by name, the last of equal names, as Loki does.
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

/// Builds a `google.protobuf.Timestamp`: whole seconds, rounded down, and the remaining nanoseconds.
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

/// Builds an entry's structured metadata, in its original order.
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

/// A string, and a description of it for errors.
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

/// The value of a stream's label: a string, or a literal or whole number that Loki accepts as its text.
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
        // `+1` is a number for Rust but not for Loki.
        let digits = !text.starts_with('+');
        text.parse()
            .ok()
            .filter(|_| digits)
            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests;
