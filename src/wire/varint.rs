//! Protobuf's variable-length integers (protobuf.dev, "Encoding", base 128 varints); snappy uses the same.
//!
//! Nearly all that a request holds are one byte long, so that case stands alone and inlines. Longer than
//! needed is legal (`0x81 0x00` is 1), as every decoder takes it; past ten bytes or 64 bits is not, although
//! some decoders drop the excess bits silently. Those would read another number than we do: refused.
#![forbid(unsafe_code)]

/// The longest varint: ten times 7 bits hold the 64.
pub const VARINT_BYTES_MAX: usize = 10;

/// Why no varint could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VarintFault {
    /// The input ends within it.
    #[error("it ends within a varint")]
    Truncated,
    /// It goes on past ten bytes, or does not fit 64 bits.
    #[error("a varint does not fit 64 bits")]
    Overflow,
}

/// Takes a varint off the front of `input`. On an error, `input` is left as it was.
#[inline]
pub fn take(input: &mut &[u8]) -> Result<u64, VarintFault> {
    match *input {
        [byte, rest @ ..] if *byte < 0x80 => {
            *input = rest;
            Ok(u64::from(*byte))
        }
        [low, high @ ..0x80, rest @ ..] => {
            *input = rest;
            Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
        }
        _ => take_long(input),
    }
}

fn take_long(input: &mut &[u8]) -> Result<u64, VarintFault> {
    let mut value = 0;
    for (at, &byte) in input.iter().take(VARINT_BYTES_MAX).enumerate() {
        // Nine bytes hold 63 bits: one is left for the tenth.
        if at == VARINT_BYTES_MAX - 1 && byte > 1 {
            return Err(VarintFault::Overflow);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *input = input.get(at + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(VarintFault::Truncated)
}

/// Appends `value` in its shortest form.
#[inline]
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}
