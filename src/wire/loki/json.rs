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
//! * Nearly all pushes are read by [`plain`], several times as fast. This module reads the others, and words all
//!   errors.
//! * Label names become text here, next to other labels. Text that is not a valid name would be read as something else,
//!   so it is refused.
#![forbid(unsafe_code)]

mod message;
mod plain;

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use message::{LINE_KEY, METADATA_KEY, NAME_KEY, Open, VALUE_KEY, put_bytes, put_timestamp};

use super::labels::{is_name, quote};
use super::{ENTRY_KEY, LABELS_KEY, STREAM_KEY};
use crate::limits::JSON_FAULT_CHARS_MAX;

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
    let begin = out.len();
    out.reserve(json.len());
    if let Ok(text) = std::str::from_utf8(json)
        && plain::to_protobuf(text, bytes_max, out).is_some()
    {
        return Ok(());
    }
    out.truncate(begin);
    any_to_protobuf(json, bytes_max, out)
}

/// As [`to_protobuf`], for every push.
fn any_to_protobuf(json: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut sink = Sink { out, labels: Vec::new(), bytes_max, too_large: false };
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

/// The message under construction.
struct Sink<'o, 'de> {
    out: &'o mut Vec<u8>,
    /// The labels of the current stream. The memory serves all streams.
    labels: Vec<(Cow<'de, str>, Cow<'de, str>)>,
    bytes_max: usize,
    too_large: bool,
}

impl Sink<'_, '_> {
    /// Checks the size of the message without the last `uncounted` bytes' worth of open fields.
    fn check<E: serde::de::Error>(&mut self, uncounted: usize) -> Result<(), E> {
        self.too_large = self.out.len() - uncounted > self.bytes_max;
        if self.too_large { Err(E::custom("it is too large")) } else { Ok(()) }
    }
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
struct Push<'s, 'o, 'de>(&'s mut Sink<'o, 'de>);

impl<'de> Visitor<'de> for Push<'_, '_, 'de> {
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

struct Streams<'s, 'o, 'de>(&'s mut Sink<'o, 'de>);

impl<'de> Visitor<'de> for Streams<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of streams")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut streams: A) -> Result<(), A::Error> {
        while streams.next_element_seed(Seed(Stream(self.0)))?.is_some() {
            self.0.check(0)?;
        }
        Ok(())
    }
}

/// Builds one stream. Its fields may come in either order, as in protobuf.
struct Stream<'s, 'o, 'de>(&'s mut Sink<'o, 'de>);

impl<'de> Visitor<'de> for Stream<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `stream` and `values`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut stream, mut values) = (false, false);
        let open = Open::new(self.0.out, STREAM_KEY);
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
        open.close(self.0.out);
        Ok(())
    }
}

/// Builds a stream's labels: sorted by name, the last of equal names, as Loki does.
struct LabelSet<'s, 'o, 'de>(&'s mut Sink<'o, 'de>);

impl<'de> Visitor<'de> for LabelSet<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Sink { out, labels, .. } = self.0;
        labels.clear();
        let mut ascending = true;
        while let Some(name) = map.next_key_seed(Seed(Text("a label's name")))? {
            if !is_name(name.as_bytes()) {
                let text = "a label's name has to be letters, digits and underscores, no digit in front";
                return Err(A::Error::custom(text));
            }
            ascending = ascending && labels.last().is_none_or(|(last, _)| *last < name);
            labels.push((name, map.next_value_seed(Seed(LabelValue))?));
        }
        if !ascending {
            // The sort is stable, and `dedup_by` removes the second of two: so the labels are in reverse.
            labels.reverse();
            labels.sort_by(|(a, _), (b, _)| a.cmp(b));
            labels.dedup_by(|(a, _), (b, _)| a == b);
        }
        let open = Open::new(out, LABELS_KEY);
        out.push(b'{');
        for (at, (name, value)) in labels.iter().enumerate() {
            if at > 0 {
                out.extend(b", ");
            }
            out.extend(name.as_bytes());
            out.push(b'=');
            quote(value, out);
        }
        out.push(b'}');
        open.close(out);
        self.0.check(Open::HEAD_BYTES)
    }
}

struct Values<'s, 'o, 'de>(&'s mut Sink<'o, 'de>);

impl<'de> Visitor<'de> for Values<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_element_seed(Seed(Entry(self.0.out)))?.is_some() {
            self.0.check(Open::HEAD_BYTES)?;
        }
        Ok(())
    }
}

struct Entry<'o>(&'o mut Vec<u8>);

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry: [timestamp, line] or [timestamp, line, metadata]")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let out = self.0;
        let open = Open::new(out, ENTRY_KEY);
        let nanos = fields.next_element_seed(Seed(Nanos))?;
        let nanos = nanos.ok_or_else(|| A::Error::custom("an entry without a timestamp"))?;
        put_timestamp(out, nanos);
        let line = Field { out, key: LINE_KEY, expected: "a line, as a string" };
        let line = fields.next_element_seed(Seed(line))?;
        line.ok_or_else(|| A::Error::custom("an entry without a line"))?;
        if fields.next_element_seed(Seed(Metadata(out)))?.is_some() {
            while fields.next_element::<IgnoredAny>()?.is_some() {}
        }
        open.close(out);
        Ok(())
    }
}

/// Appends an entry's structured metadata, in its original order.
struct Metadata<'o>(&'o mut Vec<u8>);

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of structured metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let out = self.0;
        loop {
            let begin = out.len();
            let open = Open::new(out, METADATA_KEY);
            let name = Field { out, key: NAME_KEY, expected: "a key" };
            if map.next_key_seed(Seed(name))?.is_none() {
                out.truncate(begin);
                return Ok(());
            }
            let expected = "a value of structured metadata, as a string";
            map.next_value_seed(Seed(Field { out, key: VALUE_KEY, expected }))?;
            open.close(out);
        }
    }
}

/// Appends a string as a field, and has a description of it for errors.
struct Field<'o> {
    out: &'o mut Vec<u8>,
    key: u8,
    expected: &'static str,
}

impl Visitor<'_> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        put_bytes(self.out, self.key, text.as_bytes());
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
