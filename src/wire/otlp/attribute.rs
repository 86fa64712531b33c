//! Attributes: `KeyValue` messages of a resource, a scope or an item.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::json;
use super::level::{Fault, Holder, Notation};
use super::value::{Attribute, AttributeValue};
use crate::wire::protobuf::{self, Value, take_field};
use crate::wire::{same, varint};

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
    /// If the message or the attribute is malformed.
    pub fn take(&mut self) -> Result<Option<Attribute<'a>>, Fault> {
        let rest = match &mut self.reader {
            Reader::Json(list) => return list.take(),
            Reader::Protobuf(rest) => rest,
        };
        while !rest.is_empty() {
            let begin = self.message.len() - rest.len();
            match take_field(rest)? {
                (number, Value::Bytes(pair)) if number == self.field => {
                    let (key, value) = read_pair(pair)?;
                    let (key, cut) = (Cow::Borrowed(key), begin..self.message.len() - rest.len());
                    return Ok(Some(Attribute { key, value, cut }));
                }
                (number, _) if number == self.field => return Err(protobuf::Fault::KnownWireType.into()),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Finds the attribute that names the tenant: of those with a value, the first by the priority of `names`.
///
/// # Errors
/// If the message is malformed. It is read to its end.
pub fn find_attribute<'a>(
    notation: Notation,
    holder: Holder,
    message: &'a [u8],
    names: &[Box<[u8]>],
) -> Result<Option<Attribute<'a>>, Fault> {
    let (mut found, mut priority) = (None, names.len());
    let mut attributes = Attributes::new(notation, holder, message);
    while let Some(attribute) = attributes.take()? {
        let place = names.iter().position(|name| same(name, &attribute.key));
        let names_one = || !attribute.value.text(&mut itoa::Buffer::new()).is_empty();
        if let Some(place) = place.filter(|&place| place < priority)
            && names_one()
        {
            priority = place;
            found = Some(attribute);
        }
    }
    Ok(found)
}

/// Reads a `KeyValue`.
fn read_pair(mut pair: &[u8]) -> Result<(&[u8], AttributeValue<'_>), Fault> {
    let (mut key, mut value): (&[u8], Option<AttributeValue<'_>>) = (&[], None);
    while !pair.is_empty() {
        match take_field(&mut pair)? {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(_)) if value.is_some() => return Err(Fault::Repeated),
            (2, Value::Bytes(bytes)) => value = Some(read_value(bytes)?),
            (1 | 2, _) => return Err(protobuf::Fault::KnownWireType.into()),
            _ => {}
        }
    }
    Ok((key, value.unwrap_or(AttributeValue::Other)))
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
