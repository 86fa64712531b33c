//! Attributes: `KeyValue` messages of a resource, a scope or an item.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use super::json;
use super::level::{Fault, Holder, Notation};
use super::value::AttributeValue;
use crate::wire::protobuf::{self, Value, take_field};
use crate::wire::{same, varint};

/// An attribute. Its value is read when it is asked for: most attributes are of no interest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute<'a> {
    /// Its key.
    pub key: Cow<'a, [u8]>,
    any: Any<'a>,
    /// Its whole field or, in JSON, its element, as a range of the message that has it.
    pub(super) range: Range<usize>,
    /// Where this begins with the comma before it, and ends with the one behind it, if there are any.
    pub(super) before: usize,
    pub(super) behind: usize,
}

/// An `AnyValue` that has not been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Any<'a> {
    Protobuf(&'a [u8]),
    Json(&'a [u8]),
}

impl<'a> Attribute<'a> {
    /// Reads its value.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn value(&self) -> Result<AttributeValue<'a>, Fault> {
        match self.any {
            Any::Protobuf(any) => read_value(any),
            Any::Json(any) => json::read_value(any),
        }
    }
}

impl<'a> From<json::Pair<'a>> for Attribute<'a> {
    fn from(pair: json::Pair<'a>) -> Self {
        let json::Pair { key, value, range, before, behind } = pair;
        Self { key, any: Any::Json(value), range, before, behind }
    }
}

/// Iterates over the attributes of a message.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    message: &'a [u8],
    field: u32,
    reader: Reader<'a>,
}

#[derive(Clone, Debug)]
enum Reader<'a> {
    Protobuf(&'a [u8]),
    Json(json::AttributeList<'a>),
}

impl<'a> Attributes<'a> {
    /// Reads those of `message`, which is of this kind.
    pub fn new(notation: Notation, holder: Holder, message: &'a [u8]) -> Self {
        let reader = match notation {
            Notation::Protobuf => Reader::Protobuf(message),
            Notation::Json => Reader::Json(json::AttributeList::new(message)),
        };
        Self { message, field: holder.field, reader }
    }

    /// The next attribute.
    ///
    /// # Errors
    /// If the message or the attribute is malformed, its value aside.
    pub fn take(&mut self) -> Result<Option<Attribute<'a>>, Fault> {
        let rest = match &mut self.reader {
            Reader::Json(list) => return Ok(list.take()?.map(Attribute::from)),
            Reader::Protobuf(rest) => rest,
        };
        while !rest.is_empty() {
            let begin = self.message.len() - rest.len();
            match take_field(rest)? {
                (number, Value::Bytes(pair)) if number == self.field => {
                    let (key, any) = read_pair(pair)?;
                    let (key, any) = (Cow::Borrowed(key), Any::Protobuf(any));
                    let end = self.message.len() - rest.len();
                    return Ok(Some(Attribute { key, any, range: begin..end, before: begin, behind: end }));
                }
                (number, _) if number == self.field => return Err(protobuf::Fault::KnownWireType.into()),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Finds the attribute that names the tenant: of those with a value, the first by the priority of `names`. Returns its
/// place in `names`, and its value.
///
/// # Errors
/// If the message is malformed. It is read to its end, but only values under these names are.
pub fn find_attribute<'a>(
    notation: Notation,
    holder: Holder,
    message: &'a [u8],
    names: &[Box<[u8]>],
) -> Result<Option<(usize, AttributeValue<'a>)>, Fault> {
    let mut found = Found { names, priority: names.len(), value: None };
    match notation {
        Notation::Json => {
            let mut attributes = json::AttributeList::new(message);
            while let Some(pair) = attributes.take()? {
                found.consider(&pair.key, || json::read_value(pair.value))?;
            }
        }
        // Most of an export's messages have attributes, so it does without the ranges of [`Attributes`].
        Notation::Protobuf => {
            let mut rest = message;
            while !rest.is_empty() {
                match take_field(&mut rest)? {
                    (number, Value::Bytes(pair)) if number == holder.field => {
                        let (key, any) = read_pair(pair)?;
                        found.consider(key, || read_value(any))?;
                    }
                    (number, _) if number == holder.field => {
                        return Err(protobuf::Fault::KnownWireType.into());
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found.value.map(|value| (found.priority, value)))
}

/// The best attribute so far.
struct Found<'a, 'n> {
    names: &'n [Box<[u8]>],
    /// Its place among the names.
    priority: usize,
    value: Option<AttributeValue<'a>>,
}

impl<'a> Found<'a, '_> {
    #[inline(always)]
    fn consider(
        &mut self,
        key: &[u8],
        read: impl FnOnce() -> Result<AttributeValue<'a>, Fault>,
    ) -> Result<(), Fault> {
        let better = self.names.get(..self.priority).unwrap_or_default();
        let Some(place) = better.iter().position(|name| same(name, key)) else { return Ok(()) };
        let value = read()?;
        if !value.text(&mut itoa::Buffer::new()).is_empty() {
            (self.priority, self.value) = (place, Some(value));
        }
        Ok(())
    }
}

/// Calls `cut` with what has to go for all attributes of this key to be removed: ranges of the message, in its order.
/// In JSON a comma goes with each.
///
/// # Errors
/// If the message is malformed.
pub fn each_cut(
    notation: Notation,
    holder: Holder,
    message: &[u8],
    key: &[u8],
    mut cut: impl FnMut(Range<usize>),
) -> Result<(), Fault> {
    let mut some_kept = false;
    let mut attributes = Attributes::new(notation, holder, message);
    while let Some(Attribute { key: found, range, before, behind, .. }) = attributes.take()? {
        if !same(&found, key) {
            some_kept = true;
        } else if some_kept {
            cut(before..range.end);
        } else {
            cut(range.start..behind);
        }
    }
    Ok(())
}

/// Reads a `KeyValue`: its key, and the bytes of its value.
#[inline]
fn read_pair(mut pair: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let (mut key, mut value): (&[u8], Option<&[u8]>) = (&[], None);
    while !pair.is_empty() {
        match take_field(&mut pair)? {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(_)) if value.is_some() => return Err(Fault::Repeated),
            (2, Value::Bytes(bytes)) => value = Some(bytes),
            (1 | 2, _) => return Err(protobuf::Fault::KnownWireType.into()),
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_default()))
}

/// Reads an `AnyValue`. It is a `oneof`, so the last of its fields counts.
fn read_value(mut any: &[u8]) -> Result<AttributeValue<'_>, Fault> {
    let mut value = AttributeValue::Other;
    while !any.is_empty() {
        let field = any;
        let taken = take_field(&mut any)?;
        let number = |mut field: &[u8]| -> Result<u64, Fault> {
            let key = varint::take(&mut field).map_err(protobuf::Fault::from)?;
            match key & 7 {
                0 => Ok(varint::take(&mut field).map_err(protobuf::Fault::from)?),
                _ => Err(protobuf::Fault::KnownWireType.into()),
            }
        };
        value = match taken {
            (1, Value::Bytes(text)) => AttributeValue::Text(Cow::Borrowed(text)),
            (2, Value::Scalar) => AttributeValue::Bool(number(field)? != 0),
            (3, Value::Scalar) => AttributeValue::Int(number(field)?.cast_signed()),
            (4, Value::Scalar) | (5..=7, Value::Bytes(_)) => AttributeValue::Other,
            (1..=7, _) => return Err(protobuf::Fault::KnownWireType.into()),
            _ => value,
        };
    }
    Ok(value)
}
