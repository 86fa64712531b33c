//! Protobuf's wire format, read as ranges (protobuf.dev, "Encoding"): the fields of a message in order.
//!
//! Design constraints:
//!
//! * Later decoders must see what we see. Input that decoders read differently is refused: varints that overflow, keys
//!   beyond 32 bits, groups that do not close. Input that they read alike is accepted: keys and lengths may be longer
//!   than needed, and fields may come in any order.
//! * Nearly every field has one byte of key and one of length. That case takes two compares and is inlined. All others
//!   take the slow path.
#![forbid(unsafe_code)]

use super::varint::{self, VarintFault};
use crate::limits::GROUP_DEPTH_MAX;

/// Why a message is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// A key or a length is unreadable.
    #[error(transparent)]
    Varint(#[from] VarintFault),
    /// A field's value extends beyond the end of its message.
    #[error("it ends within a field")]
    Truncated,
    /// A key is beyond 32 bits, or has field number 0.
    #[error("a field number is out of range")]
    FieldNumber,
    /// The wire type is 6 or 7, which do not exist.
    #[error("a wire type does not exist")]
    WireType,
    /// A known field has another wire type than specified.
    #[error("a known field has another wire type")]
    KnownWireType,
    /// A group ends without a beginning, does not end, or is nested too deeply.
    #[error("a group is not closed properly")]
    Group,
}

/// A field's value, as far as the wire type determines it.
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    /// A varint or a fixed-size number.
    Scalar,
    Group,
}

/// Takes one field from the front of `input`, which must not be empty.
#[inline(always)]
pub(super) fn take_field<'a>(input: &mut &'a [u8]) -> Result<(u32, Value<'a>), Fault> {
    if let Some((number, bytes)) = take_short_field(input) {
        return Ok((number, Value::Bytes(bytes)));
    }
    // Lends out a copy, so that `input` itself stays in registers. That makes up half of the loop's speed.
    let mut rest = *input;
    let field = take_any_field(&mut rest)?;
    *input = rest;
    Ok(field)
}

/// Takes a field with one byte of key and one of length, as nearly all have.
#[inline(always)]
fn take_short_field<'a>(input: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    let [key @ 8..0x80, length @ ..0x80, rest @ ..] = *input else { return None };
    if key & 7 != 2 {
        return None;
    }
    let (bytes, rest) = rest.split_at_checked(usize::from(*length))?;
    *input = rest;
    Some((u32::from(key >> 3), bytes))
}

#[inline(never)]
fn take_any_field<'a>(input: &mut &'a [u8]) -> Result<(u32, Value<'a>), Fault> {
    let (number, wire_type) = take_key(input)?;
    let value = match wire_type {
        2 => Value::Bytes(take_bytes(input)?),
        3 => {
            skip_group(input, number)?;
            Value::Group
        }
        _ => {
            skip_scalar(input, wire_type)?;
            Value::Scalar
        }
    };
    Ok((number, value))
}

/// Takes a key: field number and wire type.
#[inline]
fn take_key(input: &mut &[u8]) -> Result<(u32, u8), Fault> {
    let key = u32::try_from(varint::take(input)?).map_err(|_| Fault::FieldNumber)?;
    if key >> 3 == 0 {
        return Err(Fault::FieldNumber);
    }
    Ok((key >> 3, (key & 7) as u8))
}

/// Takes a length and that many bytes.
#[inline]
fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let length = varint::take(input)?;
    let length = usize::try_from(length).map_err(|_| Fault::Truncated)?;
    let (bytes, rest) = input.split_at_checked(length).ok_or(Fault::Truncated)?;
    *input = rest;
    Ok(bytes)
}

fn skip_scalar(input: &mut &[u8], wire_type: u8) -> Result<(), Fault> {
    let length = match wire_type {
        0 => {
            varint::take(input)?;
            0
        }
        1 => 8,
        5 => 4,
        4 => return Err(Fault::Group),
        _ => return Err(Fault::WireType),
    };
    *input = input.get(length..).ok_or(Fault::Truncated)?;
    Ok(())
}

/// Skips the content and the end of a group of field `number`. Not recursive, because the sender must not control the
/// stack depth.
#[cold]
fn skip_group(input: &mut &[u8], number: u32) -> Result<(), Fault> {
    let mut open = [0; GROUP_DEPTH_MAX];
    let mut depth = 1;
    open[0] = number;
    while depth > 0 {
        let (number, wire_type) = take_key(input)?;
        match wire_type {
            2 => drop(take_bytes(input)?),
            3 => {
                *open.get_mut(depth).ok_or(Fault::Group)? = number;
                depth += 1;
            }
            4 if open[depth - 1] == number => depth -= 1,
            _ => skip_scalar(input, wire_type)?,
        }
    }
    Ok(())
}

/// Parses a label into its name and value.
pub(super) fn read_label(mut label: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let mut name: &[u8] = &[];
    let mut value: &[u8] = &[];
    while !label.is_empty() {
        match take_field(&mut label)? {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            (1 | 2, _) => return Err(Fault::KnownWireType),
            _ => {}
        }
    }
    Ok((name, value))
}
