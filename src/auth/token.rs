//! Bearer tokens that are known by their hashes (RFC 6750).
//!
//! Design constraints:
//!
//! * Only SHA-256 hashes are kept. Tokens are random and long (at least
//!   [`TOKEN_BYTES_MIN`](crate::limits::TOKEN_BYTES_MIN)), so a fast hash suffices.
//! * A look-up takes the same time for every token, known or not: all hashes are compared, each in constant time.
//! * Several tokens may have the same name. So a token is replaced without a moment at which neither is accepted.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

/// The SHA-256 hash of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u64; 4]);

impl TokenHash {
    /// The hash of `token`.
    pub fn of(token: &[u8]) -> Self {
        let mut bytes = [0; 32];
        for (byte, hashed) in bytes.iter_mut().zip(digest(&SHA256, token).as_ref()) {
            *byte = *hashed;
        }
        Self::from_bytes(bytes)
    }

    /// Parses 64 hexadecimal digits, as `sha256sum` prints them. `None` if the text is anything else.
    pub fn parse(hex: &str) -> Option<Self> {
        let digits: Vec<u8> = hex
            .chars()
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
        }
        Some(Self::from_bytes(bytes))
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Self(words)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(***)")
    }
}

/// The tokens that are accepted.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tokens {
    hashes: Vec<TokenHash>,
    /// The name of each of `hashes`.
    names: Vec<Arc<str>>,
}

impl Tokens {
    /// From names and hashes. If a hash occurs twice, its last name counts; [`crate::config`] refuses that.
    pub fn new(entries: impl IntoIterator<Item = (Arc<str>, TokenHash)>) -> Self {
        let (names, hashes) = entries.into_iter().unzip();
        Self { hashes, names }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The names, in the order of the file. A name may occur several times.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// The name of `token`, if it is known. The time depends on the token's length and on the number of tokens only.
    pub fn find(&self, token: &[u8]) -> Option<&Arc<str>> {
        let given = TokenHash::of(token);
        let mut found = u64::MAX;
        for (at, known) in (0_u64..).zip(&self.hashes) {
            let differs =
                known.0.iter().zip(given.0).fold(0, |differs, (known, given)| differs | (known ^ given));
            found.conditional_assign(&at, differs.ct_eq(&0));
        }
        self.names.get(usize::try_from(found).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let entry = |name: &str, token: &str| (name.into(), TokenHash::of(token.as_bytes()));
        Tokens::new([entry("a", "first-token"), entry("b", "second-token"), entry("a", "third-token")])
    }

    #[test]
    fn every_token_is_found_under_its_name() {
        let tokens = tokens();
        for (token, name) in [
            ("first-token", Some("a")),
            ("second-token", Some("b")),
            ("third-token", Some("a")),
            ("first-toke", None),
            ("First-token", None),
            ("", None),
        ] {
            assert_eq!(tokens.find(token.as_bytes()).map(|name| &**name), name, "{token}");
        }
        assert_eq!(Tokens::default().find(b"first-token"), None);
        assert_eq!(tokens.names().collect::<Vec<_>>(), ["a", "b", "a"]);
    }

    #[test]
    fn hashes_are_written_as_sha256sum_prints_them() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenHash::parse(abc), Some(TokenHash::of(b"abc")), "FIPS 180-2, appendix B.1");
        assert_eq!(TokenHash::parse(&abc.to_uppercase()), Some(TokenHash::of(b"abc")));
        for wrong in
            ["", &abc[1..], &format!("{abc}00"), &abc.replace('b', "g"), &abc.replacen("ba", "\u{e9}", 1)]
        {
            assert_eq!(TokenHash::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hashes_are_not_shown() {
        let shown = format!("{:?}", tokens());
        assert!(shown.contains("TokenHash(***)") && shown.contains("\"b\""), "{shown}");
        assert!(!shown.contains(&TokenHash::of(b"first-token").0[0].to_string()), "{shown}");
    }
}
