//! Keyed hashes of credentials, under which results are remembered.
//!
//! A table of plain hashes would let a reader of a core dump try passwords at full speed. The key is random, and new
//! with each instance, so all that is remembered is forgotten on a reload.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use ring::{hmac, rand};
use subtle::ConstantTimeEq as _;

/// HMAC-SHA-256 with a random key of 256 bits.
pub(super) struct MacKey(hmac::Key);

/// A keyed hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mac([u8; 32]);

impl MacKey {
    /// A new key.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub(super) fn random() -> io::Result<Self> {
        hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .map(Self)
            .map_err(|_| io::Error::other("the operating system gives no random numbers"))
    }

    /// The hash of `parts`. Their lengths are hashed, too, so `ab`, `c` differs from `a`, `bc`.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> Mac {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut mac = [0; 32];
        for (byte, signed) in mac.iter_mut().zip(context.sign().as_ref()) {
            *byte = *signed;
        }
        Mac(mac)
    }
}

impl Mac {
    /// Whether both are the same, in constant time.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// A number below `end`, evenly distributed. 0 if `end` is.
    pub(super) fn below(&self, end: usize) -> usize {
        let [a, b, c, d, ..] = self.0;
        let number = u32::from_le_bytes([a, b, c, d]);
        usize::try_from(number).unwrap_or(0).checked_rem(end).unwrap_or(0)
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(***)")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_the_key_on_every_part_and_on_where_parts_end() {
        let key = MacKey::random().unwrap();
        let mac = key.mac(&[b"ab", b"c"]);
        assert!(mac.is(&key.mac(&[b"ab", b"c"])));
        for other in [
            key.mac(&[b"a", b"bc"]),
            key.mac(&[b"abc"]),
            key.mac(&[b"ab", b"d"]),
            key.mac(&[b"ab", b"c", b""]),
            MacKey::random().unwrap().mac(&[b"ab", b"c"]),
        ] {
            assert!(!mac.is(&other));
        }
        assert_eq!(mac.below(0), 0);
        assert!(mac.below(3) < 3);
        assert_eq!(format!("{key:?} {mac:?}"), "MacKey(***) Mac(***)");
    }
}
