//! The fields of a message as ranges, by prost's own primitives.
#![allow(clippy::unwrap_used, reason = "a test: what fails is a finding")]

use std::ops::Range;

use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

/// A field within its message.
pub(crate) struct RawField {
    pub(crate) number: u32,
    pub(crate) wire_type: WireType,
    pub(crate) range: Range<usize>,
}

/// The fields of a message that prost has taken.
pub(crate) fn raw_fields(message: &[u8]) -> Vec<RawField> {
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let begin = message.len() - rest.len();
        let (number, wire_type) = decode_key(&mut rest).unwrap();
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).unwrap();
        fields.push(RawField { number, wire_type, range: begin..message.len() - rest.len() });
    }
    fields
}

/// Where in a length-delimited field its bytes begin.
pub(crate) fn body_at(field: &[u8]) -> usize {
    let mut rest = field;
    decode_key(&mut rest).unwrap();
    prost::encoding::decode_varint(&mut rest).unwrap();
    field.len() - rest.len()
}
