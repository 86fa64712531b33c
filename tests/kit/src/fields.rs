//! Protobuf fields as ranges of bytes, read with prost's own primitives, and fields written by hand, as no encoder
//! writes them.

use std::ops::Range;

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_varint, skip_field};

/// A field within its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawField {
    /// Its number.
    pub number: u32,
    /// How its value is encoded.
    pub wire_type: WireType,
    /// All of it, key included.
    pub range: Range<usize>,
    /// Where its value begins: after the key, and after the length if there is one.
    pub body_at: usize,
}

impl RawField {
    /// All of the field.
    #[must_use]
    pub fn whole<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        message.get(self.range.clone()).unwrap_or_default()
    }

    /// Its value, without key and length.
    #[must_use]
    pub fn body<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        message.get(self.body_at..self.range.end).unwrap_or_default()
    }

    /// The number that it holds, if it holds one.
    #[must_use]
    pub fn varint(&self, message: &[u8]) -> Option<u64> {
        decode_varint(&mut self.body(message)).ok().filter(|_| self.wire_type == WireType::Varint)
    }

    /// Whether it holds a number of any width.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(self.wire_type, WireType::Varint | WireType::ThirtyTwoBit | WireType::SixtyFourBit)
    }
}

/// The fields of a message, in their order.
///
/// # Errors
/// When prost cannot skip one of them.
pub fn raw_fields(message: &[u8]) -> Result<Vec<RawField>, DecodeError> {
    fields(message).collect()
}

/// As [`raw_fields`], one at a time. An error is the last.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<RawField, DecodeError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let begin = message.len() - rest.len();
        let field = next(&mut rest).map(|(number, wire_type, value_bytes)| {
            let end = message.len() - rest.len();
            RawField { number, wire_type, range: begin..end, body_at: end - value_bytes }
        });
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

/// A field's number and encoding, and how long its value is.
fn next(rest: &mut &[u8]) -> Result<(u32, WireType, usize), DecodeError> {
    let (number, wire_type) = decode_key(rest)?;
    let mut value = *rest;
    skip_field(wire_type, number, rest, DecodeContext::default())?;
    if wire_type == WireType::LengthDelimited {
        decode_varint(&mut value)?;
    }
    Ok((number, wire_type, value.len() - rest.len()))
}

/// A varint with `pad` bytes more than it needs, and ten bytes at most.
#[must_use]
pub fn varint(value: u64, pad: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_varint(value, &mut bytes);
    let padded = (bytes.len() + pad).min(10);
    if padded > bytes.len() {
        if let Some(last) = bytes.last_mut() {
            *last |= 0x80;
        }
        bytes.resize(padded - 1, 0x80);
        bytes.push(0);
    }
    bytes
}

/// A length-delimited field, with the padding of its key and of its length.
#[must_use]
pub fn field(number: u32, bytes: &[u8], pad: (usize, usize)) -> Vec<u8> {
    let key = varint(u64::from(number) << 3 | 2, pad.0);
    [&key, &varint(bytes.len() as u64, pad.1), bytes].concat()
}

/// A field that holds a number, with the padding of its key and of its value.
#[must_use]
pub fn number(field: u32, value: u64, pad: (usize, usize)) -> Vec<u8> {
    [varint(u64::from(field) << 3, pad.0), varint(value, pad.1)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_as_they_were_written() {
        let group = vec![7 << 3 | 3, 0x08, 1, 7 << 3 | 4];
        let message = [number(1, 300, (1, 2)), field(2, b"ab", (2, 1)), group.clone()].concat();
        let fields = raw_fields(&message).unwrap();
        let [count, text, other] = &fields[..] else { panic!("{fields:?}") };
        assert_eq!((count.number, count.varint(&message), count.is_number()), (1, Some(300), true));
        assert_eq!((text.number, text.body(&message), text.varint(&message)), (2, &b"ab"[..], None));
        assert_eq!(text.whole(&message), [0x92, 0x80, 0, 0x82, 0, b'a', b'b']);
        assert_eq!((other.number, other.whole(&message), other.is_number()), (7, &group[..], false));
    }

    #[test]
    fn a_broken_field_ends_the_iterator() {
        let mut fields = fields(&[0x08, 1, 0x0a, 9]);
        assert!(fields.next().unwrap().is_ok() && fields.next().unwrap().is_err() && fields.next().is_none());
    }

    #[test]
    fn a_varint_is_padded_up_to_ten_bytes() {
        assert_eq!(varint(1, 0), [1]);
        assert_eq!(varint(1, 2), [0x81, 0x80, 0]);
        assert_eq!(varint(u64::MAX, 3).len(), 10);
        assert_eq!(varint(u64::MAX, 3)[9], 1);
    }
}
