//! Protobuf's variable-length integers (protobuf.dev, "Encoding", base 128 varints); snappy uses the same.
//!
//! Nearly all of them have one byte in practice, so that case is separate and inlined. Overlong forms are legal (`0x81
//! 0x00` is 1), and every decoder accepts them. More than ten bytes or 64 bits are not. Some decoders silently drop the
//! excess bits and would read another number than we do, so such a varint is refused.
#![forbid(unsafe_code)]

/// The longest varint: ten times 7 bits hold 64.
pub const VARINT_BYTES_MAX: usize = 10;

/// Why a varint is unreadable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VarintFault {
    /// The input is incomplete.
    #[error("it ends within a varint")]
    Truncated,
    /// It is longer than ten bytes, or does not fit 64 bits.
    #[error("a varint does not fit 64 bits")]
    Overflow,
}

/// Takes a varint from the front of `input`, which is unchanged after an error.
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
        _ => {
            // Lends out a copy, so that `input` itself stays in registers.
            let mut rest = *input;
            let value = take_long(&mut rest)?;
            *input = rest;
            Ok(value)
        }
    }
}

#[inline(never)]
fn take_long(input: &mut &[u8]) -> Result<u64, VarintFault> {
    let mut value = 0;
    for (at, &byte) in input.iter().take(VARINT_BYTES_MAX).enumerate() {
        // Nine bytes hold 63 bits, so one is left for the tenth.
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

/// The number of bytes that [`put`] writes for `value`.
pub fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` followed by other data, which must remain.
    fn take_all(bytes: &[u8]) -> Result<u64, VarintFault> {
        let more = [bytes, b"rest"].concat();
        let mut input = more.as_slice();
        let value = take(&mut input)?;
        assert_eq!(input, b"rest");
        Ok(value)
    }

    #[test]
    fn values_round_trip() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put(&mut bytes, value);
                assert_eq!(take_all(&bytes), Ok(value), "{value:#x}");
                let shortest = (64 - value.leading_zeros() as usize).div_ceil(7).max(1);
                assert_eq!(bytes.len(), shortest, "{value:#x}");
            }
        }
    }

    #[test]
    fn accepts_overlong_forms() {
        assert_eq!(take_all(&[0x81, 0x00]), Ok(1));
        assert_eq!(take_all(&[0x81, 0x80, 0x00]), Ok(1));
        assert_eq!(take_all(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Ok(0));
    }

    #[test]
    fn refuses_more_than_64_bits() {
        let mut bytes = [0xff; 10];
        bytes[9] = 0x01;
        assert_eq!(take_all(&bytes), Ok(u64::MAX));
        bytes[9] = 0x02;
        assert_eq!(take_all(&bytes), Err(VarintFault::Overflow));
        // Ten bytes, all with the continuation bit.
        assert_eq!(take_all(&[0x80; 10]), Err(VarintFault::Overflow));
        assert_eq!(take_all(&[0x80; 11]), Err(VarintFault::Overflow));
    }

    #[test]
    fn truncated_input_is_an_error_and_consumes_nothing() {
        for bytes in [&[][..], &[0x80], &[0xff; 9]] {
            let mut input = bytes;
            assert_eq!(take(&mut input), Err(VarintFault::Truncated));
            assert_eq!(input, bytes);
        }
    }
}
