//! `logproto.PushRequest`, as Loki takes it at `/loki/api/v1/push` (grafana/loki, pkg/push/push.proto), read as ranges.
//!
//! Constraints that shaped it:
//!
//! * What we don't need we don't touch. Of a stream its labels' text is read and its entries counted; into the entries
//!   we look only if the labels name no tenant, and then no further than their structured metadata.
//! * Whoever decodes behind us must see the tenant that we saw: see [`super::protobuf`]. Of labels that are there
//!   twice in one stream the last count, as for every decoder.
//! * The labels are text in Prometheus' notation, which knows quotes, escapes and comments ([`labels`]). And a push may
//!   come as JSON, which is turned into protobuf before anything else is done with it ([`json`]).
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

/// Bytes that are not a `PushRequest`: the sender's fault, and no retry will help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body is not a valid protobuf PushRequest: {fault}, in the field at byte {at_byte}")]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// Where the field of the request that holds the fault begins, counted in inflated bytes.
    pub at_byte: usize,
}

/// A field at the top of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field<'a> {
    /// A `StreamAdapter`; [`Stream::read`] looks into it.
    Stream(&'a [u8]),
    /// An unknown field that holds one number.
    Scalar,
    /// A field that holds bytes or a group. Field 2, `format`, is one of these: Loki sets it itself, on the way from its
    /// distributors to its ingesters.
    Other,
}

/// Walks over the fields of a request.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    request: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of an inflated request.
    pub fn new(request: &'a [u8]) -> Self {
        Self { request, rest: request }
    }

    /// Where the next field begins, and the last one ended.
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

/// What a stream says of itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Stream {
    /// Where its labels' text stands in it; empty when there is none.
    pub labels: Range<usize>,
    /// How many entries it has.
    pub entries: u32,
}

impl Stream {
    /// Reads the stream of a [`Field::Stream`]. What stands within its entries is not looked at.
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
    /// The labels' text; [`labels::Labels`] reads it.
    Labels(&'a [u8]),
    /// An `EntryAdapter`; [`entry_tenant`] looks into it.
    Entry(&'a [u8]),
    /// The hash of the labels.
    Hash,
    /// An unknown field that holds one number.
    Scalar,
    /// An unknown field that holds bytes or a group.
    Other,
}

/// Walks over the fields of a stream.
#[derive(Clone, Debug)]
pub struct StreamFields<'a> {
    stream: &'a [u8],
    rest: &'a [u8],
}

impl<'a> StreamFields<'a> {
    /// Of the stream of a [`Field::Stream`].
    pub fn new(stream: &'a [u8]) -> Self {
        Self { stream, rest: stream }
    }

    /// The next field, if there is one, and where in the stream it stands.
    pub fn take(&mut self) -> Result<Option<(StreamField<'a>, Range<usize>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let begin = self.stream.len() - self.rest.len();
        let field = match take_field(&mut self.rest)? {
            (1, Value::Bytes(text)) => StreamField::Labels(text),
            (2, Value::Bytes(entry)) => StreamField::Entry(entry),
            // A varint; of fixed size, decoders would refuse it.
            (3, Value::Scalar) if self.stream.get(begin).is_some_and(|key| key & 7 == 0) => StreamField::Hash,
            (1..=3, _) => return Err(Fault::KnownWireType),
            (_, Value::Scalar) => StreamField::Scalar,
            (_, Value::Bytes(_) | Value::Group) => StreamField::Other,
        };
        Ok(Some((field, begin..self.stream.len() - self.rest.len())))
    }
}

/// The value by which an entry's structured metadata names its tenant: that of the first of `names` that is there
/// with a value.
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

#[cfg(test)]
mod tests;
