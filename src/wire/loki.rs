//! `logproto.PushRequest`, as Loki accepts it at `/loki/api/v1/push` (grafana/loki, pkg/push/push.proto), read as
//! ranges.
//!
//! Design constraints:
//!
//! * Only what is needed is read. In a stream, the text of the labels is read and the entries are counted. Entries are
//!   parsed only if the labels name no tenant, and then only up to their structured metadata.
//! * Later decoders must see the same tenant as we do: see [`super::protobuf`]. If a stream has several label fields,
//!   the last one counts, as for every decoder.
//! * Labels are text in Prometheus' notation with quotes, escapes and comments ([`labels`]). A push in JSON is first
//!   converted to protobuf ([`json`]).
#![forbid(unsafe_code)]

pub mod json;
pub mod labels;

use std::ops::Range;

use super::protobuf::{Fault, Value, read_label, take_field};
use super::same;

/// The key of a stream in a request: field 1, length-delimited.
pub const STREAM_KEY: u8 = 0x0a;
/// The key of the labels in a stream: field 1, length-delimited.
pub const LABELS_KEY: u8 = 0x0a;
/// The key of an entry in a stream: field 2, length-delimited.
const ENTRY_KEY: u8 = 0x12;

/// The bytes are not a `PushRequest`. The sender is at fault, and a retry does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body is not a valid protobuf PushRequest: {fault}, in the field at byte {at_byte}")]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// Offset of the top-level field that contains the fault, in inflated bytes.
    pub at_byte: usize,
}

/// A field at the top of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field<'a> {
    /// A `StreamAdapter`; [`Stream::read`] parses it.
    Stream(&'a [u8]),
    /// An unknown field that holds one number.
    Scalar,
    /// A field that holds bytes or a group. Field 2, `format`, is one of these: Loki sets it itself, between its
    /// distributors and its ingesters.
    Other,
}

/// Iterates over the fields of a request.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    request: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads an inflated request.
    pub fn new(request: &'a [u8]) -> Self {
        Self { request, rest: request }
    }

    /// Where the next field begins and the last one ended.
    pub fn at_byte(&self) -> usize {
        self.request.len() - self.rest.len()
    }

    /// The next field, if there is one.
    pub fn take(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let at_byte = self.at_byte();
        match take_field(&mut self.rest) {
            Ok((1, Value::Bytes(stream))) => Ok(Some(Field::Stream(stream))),
            Ok((1, _)) => Err(Malformed { fault: Fault::KnownWireType, at_byte }),
            Ok((_, Value::Scalar)) => Ok(Some(Field::Scalar)),
            Ok((_, Value::Bytes(_) | Value::Group)) => Ok(Some(Field::Other)),
            Err(fault) => Err(Malformed { fault, at_byte }),
        }
    }
}

/// The content of a stream.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Stream {
    /// Range of the labels' text in the stream; empty if there is none.
    pub labels: Range<usize>,
    /// The number of entries.
    pub entries: u32,
}

impl Stream {
    /// Parses the stream of a [`Field::Stream`]. The content of its entries is skipped.
    pub fn read(stream: &[u8]) -> Result<Self, Fault> {
        let mut seen = Self::default();
        let mut fields = StreamFields::new(stream);
        while let Some((field, range)) = fields.take()? {
            match field {
                StreamField::Labels(text) => seen.labels = range.end - text.len()..range.end,
                StreamField::Entry(_) => seen.entries += 1,
                StreamField::Hash | StreamField::Scalar | StreamField::Other => {}
            }
        }
        Ok(seen)
    }
}

/// A field of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamField<'a> {
    /// The labels' text; [`labels::Labels`] parses it.
    Labels(&'a [u8]),
    /// An `EntryAdapter`; [`entry_tenant`] parses it.
    Entry(&'a [u8]),
    /// The hash of the labels.
    Hash,
    /// An unknown field that holds one number.
    Scalar,
    /// An unknown field that holds bytes or a group.
    Other,
}

/// Iterates over the fields of a stream.
#[derive(Clone, Debug)]
pub struct StreamFields<'a> {
    stream: &'a [u8],
    rest: &'a [u8],
}

impl<'a> StreamFields<'a> {
    /// Reads the stream of a [`Field::Stream`].
    pub fn new(stream: &'a [u8]) -> Self {
        Self { stream, rest: stream }
    }

    /// The next field, if there is one, and its range in the stream.
    pub fn take(&mut self) -> Result<Option<(StreamField<'a>, Range<usize>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let begin = self.stream.len() - self.rest.len();
        let field = match take_field(&mut self.rest)? {
            (1, Value::Bytes(text)) => StreamField::Labels(text),
            (2, Value::Bytes(entry)) => StreamField::Entry(entry),
            // A varint. Decoders would refuse it with a fixed size.
            (3, Value::Scalar) if self.stream.get(begin).is_some_and(|key| key & 7 == 0) => StreamField::Hash,
            (1..=3, _) => return Err(Fault::KnownWireType),
            (_, Value::Scalar) => StreamField::Scalar,
            (_, Value::Bytes(_) | Value::Group) => StreamField::Other,
        };
        Ok(Some((field, begin..self.stream.len() - self.rest.len())))
    }
}

/// The tenant named by an entry's structured metadata: the value of the first of `names` that has one.
pub fn entry_tenant<'e>(entry: &'e [u8], names: &[Box<[u8]>]) -> Result<Option<&'e [u8]>, Fault> {
    let mut tenant = None;
    let mut priority = names.len();
    let mut rest = entry;
    while !rest.is_empty() {
        match take_field(&mut rest)? {
            (3, Value::Bytes(pair)) => {
                let (name, value) = read_label(pair)?;
                if let Some(found) = names.iter().position(|wanted| same(wanted, name))
                    && found < priority
                    && !value.is_empty()
                {
                    (priority, tenant) = (found, Some(value));
                }
            }
            (1..=4, Value::Bytes(_)) => {}
            (1..=4, _) => return Err(Fault::KnownWireType),
            _ => {}
        }
    }
    Ok(tenant)
}

/// The pairs of an entry's structured metadata, in order. Ends early if the entry is malformed.
pub fn entry_metadata(entry: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = entry;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            if let (3, Value::Bytes(pair)) = take_field(&mut rest).ok()? {
                return read_label(pair).ok();
            }
        }
        None
    })
}

#[cfg(test)]
mod tests;
