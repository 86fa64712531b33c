//! A cursor over checked JSON, and the keys that it reads. They are inlined: all of an export goes through them.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use crate::wire::otlp::level::Fault;

/// A place in a checked text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is no white space; 0 at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        let begin = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.note_read(begin);
        self.text.get(self.at).copied().unwrap_or_default()
    }

    /// Skips `byte`, if it is next.
    #[inline]
    pub(super) fn skip(&mut self, byte: u8) -> bool {
        // Not `+= usize::from(is_next)`: inlined, rustc 1.95 makes that 0 (its pass SimplifyComparisonIntegral).
        let is_next = self.peek() == byte;
        if is_next {
            self.at += 1;
        }
        is_next
    }

    /// Takes a value.
    #[inline]
    pub(super) fn value(&mut self) -> &'a [u8] {
        let first = self.peek();
        let begin = self.at;
        match first {
            b'"' => self.string(),
            b'{' | b'[' => self.container(),
            _ => {
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']');
                let rest = self.text.get(begin..).unwrap_or_default();
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        self.note_read(begin);
        self.text.get(begin..self.at).unwrap_or_default().trim_ascii_end()
    }

    /// Tells tests how much is read.
    #[inline(always)]
    fn note_read(&self, _begin: usize) {
        #[cfg(test)]
        tests::READ.set(tests::READ.get() + self.at - _begin);
    }

    /// Skips an object or a list, which is next.
    #[inline]
    fn container(&mut self) {
        let mut depth = 0_usize;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
    }

    /// Skips a string, which is next.
    #[inline]
    fn string(&mut self) {
        self.at += 1;
        loop {
            self.at += plain_len(self.text.get(self.at..).unwrap_or_default());
            match self.text.get(self.at) {
                Some(b'\\') => self.at = self.text.len().min(self.at + 2),
                Some(_) => return self.at += 1,
                None => return,
            }
        }
    }

    /// Takes a key, which is next, with its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Key<'a> {
        let begin = self.at;
        self.string();
        self.note_read(begin);
        let text = string(self.text.get(begin..self.at).unwrap_or_default());
        self.skip(b':');
        let letters = text.iter().map(|&byte| usize::from(byte != b'_')).sum();
        Key { text, letters }
    }
}

/// The content of a string, without its escapes. Empty if `value` is none.
#[inline]
pub(super) fn string(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(b"");
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let unescaped = serde_json::from_slice::<String>(value);
    Cow::Owned(unescaped.unwrap_or_default().into_bytes())
}

/// A key of an object. It is compared with many names, of which nearly all have another length.
pub(super) struct Key<'a> {
    text: Cow<'a, [u8]>,
    /// Its length without underscores.
    letters: usize,
}

impl Key<'_> {
    /// Whether it is `name`, which is in camelCase, in either of its spellings.
    ///
    /// # Errors
    /// If it is spelled in yet another way.
    #[inline]
    pub(super) fn is(&self, name: &str) -> Result<bool, Fault> {
        if self.letters != name.len() || !same_letters(&self.text, name) {
            return Ok(false);
        }
        let is_known = *self.text == *name.as_bytes() || snake(name).eq(self.text.iter().copied());
        if is_known { Ok(true) } else { Err(Fault::Json("a known key is spelled in an unknown way")) }
    }
}

#[inline]
fn same_letters(key: &[u8], name: &str) -> bool {
    let letters = key.iter().filter(|&&byte| byte != b'_');
    letters.zip(name.bytes()).all(|(a, b)| a.eq_ignore_ascii_case(&b))
}

/// A name in camelCase, as protobuf has it.
#[inline]
fn snake(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().flat_map(|byte| {
        let upper = byte.is_ascii_uppercase();
        upper.then_some(b'_').into_iter().chain([byte.to_ascii_lowercase()])
    })
}

/// The number of bytes up to the first quote or backslash. Half of all bytes are in strings, so it reads eight at a
/// time.
#[inline]
pub(super) fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    /// The highest bit of each byte that is 0, and perhaps of bytes above it.
    const fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & (ONES << 7)
    }
    let mut at = 0;
    while let Some(eight) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*eight);
        let found = zeros(word ^ (ONES * b'"' as u64)) | zeros(word ^ (ONES * b'\\' as u64));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static READ: Cell<usize> = const { Cell::new(0) };
    }

    /// How many bytes cursors of this thread have moved over since the last call.
    pub(crate) fn bytes_read() -> usize {
        READ.take()
    }

    #[test]
    fn plain_bytes_are_counted_up_to_the_first_quote_or_backslash() {
        for length in 0..40 {
            // Neighbours of both in value, and those that differ in the highest bit.
            let plain: Vec<u8> = b"!#[]a\xa2\xdc\x01\x80 ".iter().copied().cycle().take(length).collect();
            assert_eq!(plain_len(&plain), length);
            for end in [b'"', b'\\'] {
                let text = [&plain[..], &[end, b'"', b'x', b'\\'], &plain].concat();
                assert_eq!(plain_len(&text), length);
            }
        }
    }

    #[test]
    fn values_end_where_they_end() {
        for (text, value) in [
            (r#""a\"b\\" , 1"#, r#""a\"b\\""#),
            (r#" {"a": "}", "b": [{}, "]\""]} ,2"#, r#"{"a": "}", "b": [{}, "]\""]}"#),
            ("-1.5e3 ]", "-1.5e3"),
            ("null}", "null"),
            ("[[], {}]]", "[[], {}]"),
        ] {
            let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
            assert_eq!(cursor.value(), value.as_bytes());
        }
        // What is not checked ends with the text at the latest.
        for text in ["", "\"", "\"a\\", "\"a\\\"", "{", "[\"", "[{]"] {
            let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
            cursor.value();
            assert!(cursor.at <= text.len(), "{text}");
        }
    }
}
