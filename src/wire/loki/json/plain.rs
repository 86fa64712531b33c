//! Converts plain pushes: those that nearly all senders write.
//!
//! Design constraints:
//!
//! * A push of 2,000 streams has some 40,000 strings, most shorter than 20 bytes. What is done per string is what a
//!   push costs, so strings are searched eight bytes at a time, and once. A label's value without special characters is
//!   the same text in JSON and in a stream's labels, quotes included. Streams mostly have the names of the stream
//!   before, so names are compared with those first.
//! * The parent module defines what a push is, and words the errors. This one reads a subset. It gives up on everything
//!   else: unknown and repeated keys, label values that are no strings, escapes in keys, errors, too much output. Then
//!   the push is read again from its beginning, which costs such a push up to half more.
//! * For what it reads, the result is the same to the byte (tests, and the fuzz target `loki_json`).
//! * The input is UTF-8. It is only cut at ASCII characters, so each string is UTF-8, too.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::message::{LINE_KEY, METADATA_KEY, NAME_KEY, Open, VALUE_KEY, put_bytes, put_timestamp};
use crate::text::search::{self, Chunk};
use crate::wire::loki::labels::{name_bytes, quote};
use crate::wire::loki::{ENTRY_KEY, LABELS_KEY, STREAM_KEY};

/// Appends the protobuf for `json` to `out`, up to `bytes_max` bytes. Returns `None` if `json` is not a plain push; the
/// content of `out` is then unspecified.
pub(super) fn to_protobuf(json: &str, bytes_max: usize, out: &mut Vec<u8>) -> Option<()> {
    let mut reader =
        Reader { rest: json.as_bytes(), out, labels: Vec::new(), scratch: Vec::new(), bytes_max };
    reader.push()?;
    reader.token().is_none().then_some(())
}

struct Reader<'j, 'o> {
    /// What has not been read.
    rest: &'j [u8],
    out: &'o mut Vec<u8>,
    /// The labels of the current stream. Before they are read, those of the last one, which often has the same names.
    labels: Vec<Label<'j>>,
    scratch: Vec<u8>,
    bytes_max: usize,
}

struct Label<'j> {
    head: LabelHead<'j>,
    /// Its text in `out`.
    text: Range<usize>,
}

/// A label as it is written, from its name to the opening quote of its value.
#[derive(Clone, Copy)]
struct LabelHead<'j> {
    text: &'j [u8],
    name_bytes: usize,
}

impl<'j> LabelHead<'j> {
    fn name(self) -> &'j [u8] {
        &self.text[..self.name_bytes]
    }
}

impl<'j> Reader<'j, '_> {
    fn push(&mut self) -> Option<()> {
        self.expect(b'{')?;
        self.expect(b'"')?;
        self.literal(b"streams\"")?;
        self.expect(b':')?;
        self.expect(b'[')?;
        if !self.is_next(b']')? {
            loop {
                self.stream()?;
                self.check(0)?;
                if !self.another(b']')? {
                    break;
                }
            }
        }
        self.expect(b'}')
    }

    /// Reads a stream. Its fields may come in either order.
    fn stream(&mut self) -> Option<()> {
        let (mut stream, mut values) = (false, false);
        let open = Open::new(self.out, STREAM_KEY);
        self.expect(b'{')?;
        loop {
            self.expect(b'"')?;
            if !stream && self.literal(b"stream\"").is_some() {
                stream = true;
                self.expect(b':')?;
                self.labels()?;
            } else if !values && self.literal(b"values\"").is_some() {
                values = true;
                self.expect(b':')?;
                self.values()?;
            } else {
                return None;
            }
            self.check(Open::HEAD_BYTES)?;
            if !self.another(b'}')? {
                break;
            }
        }
        open.close(self.out);
        Some(())
    }

    fn labels(&mut self) -> Option<()> {
        let open = Open::new(self.out, LABELS_KEY);
        let begin = self.out.len();
        self.out.push(b'{');
        let (mut count, mut ascending) = (0, true);
        self.expect(b'{')?;
        if !self.is_next(b'}')? {
            loop {
                ascending &= self.label(count)?;
                count += 1;
                if !self.another(b'}')? {
                    break;
                }
                self.out.extend(*b", ");
            }
        }
        self.labels.truncate(count);
        if !ascending {
            self.sort_labels(begin);
        }
        self.out.push(b'}');
        open.close(self.out);
        Some(())
    }

    /// Reads the stream's label number `at`, and appends its text. Returns whether its name is above that of the last
    /// one.
    fn label(&mut self, at: usize) -> Option<bool> {
        let begin = self.out.len();
        self.expect(b'"')?;
        let head = self.label_head(at)?;
        let name = head.name();
        self.out.extend_from_slice(name);
        self.label_value()?;
        let text = begin..self.out.len();
        let above = at == 0 || self.labels.get(at - 1)?.head.name() < name;
        match self.labels.get_mut(at) {
            Some(label) => *label = Label { head, text },
            None => self.labels.push(Label { head, text }),
        }
        Some(above)
    }

    /// Reads a label's name, and what is between it and its value.
    fn label_head(&mut self, at: usize) -> Option<LabelHead<'j>> {
        if let Some(Label { head, .. }) = self.labels.get(at)
            && let Some(rest) = self.rest.strip_prefix(head.text)
        {
            self.rest = rest;
            return Some(*head);
        }
        let text = self.rest;
        let name_bytes = name_bytes(text);
        self.rest = &text[name_bytes..];
        if name_bytes == 0 || text[0].is_ascii_digit() {
            return None;
        }
        self.literal(b"\"")?;
        self.expect(b':')?;
        self.expect(b'"')?;
        Some(LabelHead { text: &text[..text.len() - self.rest.len()], name_bytes })
    }

    /// Reads a label's value behind its opening quote.
    fn label_value(&mut self) -> Option<()> {
        let length = label_value_bytes(self.rest);
        if self.rest.get(length) == Some(&b'"') {
            let (value, rest) = self.rest.split_at(length + 1);
            self.out.extend(*b"=\"");
            self.out.extend_from_slice(value);
            self.rest = rest;
            return Some(());
        }
        self.out.push(b'=');
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        self.string(&mut value)?;
        quote(std::str::from_utf8(&value).ok()?, self.out);
        self.scratch = value;
        Some(())
    }

    /// Sorts the labels, whose text in `out` begins at `begin`, by their names. Keeps the last of equal names.
    fn sort_labels(&mut self, begin: usize) {
        // The sort is stable, and `dedup_by` keeps the first of equal ones.
        self.labels.reverse();
        self.labels.sort_by_key(|label| label.head.name());
        self.labels.dedup_by_key(|label| label.head.name());
        self.scratch.clear();
        for label in &self.labels {
            if !self.scratch.is_empty() {
                self.scratch.extend_from_slice(b", ");
            }
            self.scratch.extend_from_slice(&self.out[label.text.clone()]);
        }
        self.out.truncate(begin + 1);
        self.out.extend_from_slice(&self.scratch);
        // The next stream most likely has them in the same order.
        self.labels.sort_unstable_by_key(|label| label.text.start);
    }

    fn values(&mut self) -> Option<()> {
        self.expect(b'[')?;
        if self.is_next(b']')? {
            return Some(());
        }
        loop {
            self.entry()?;
            self.check(Open::HEAD_BYTES)?;
            if !self.another(b']')? {
                return Some(());
            }
        }
    }

    fn entry(&mut self) -> Option<()> {
        let open = Open::new(self.out, ENTRY_KEY);
        self.expect(b'[')?;
        self.expect(b'"')?;
        let nanos = self.nanos()?;
        put_timestamp(self.out, nanos);
        self.expect(b',')?;
        self.expect(b'"')?;
        self.field(LINE_KEY)?;
        if self.another(b']')? {
            self.metadata()?;
            self.expect(b']')?;
        }
        open.close(self.out);
        Some(())
    }

    /// Reads digits and the closing quote.
    fn nanos(&mut self) -> Option<i64> {
        /// More may not fit.
        const DIGITS_MAX: usize = 19;
        let mut nanos = 0_u64;
        for (at, byte) in self.rest.iter().take(DIGITS_MAX + 1).enumerate() {
            match byte {
                b'0'..=b'9' if at < DIGITS_MAX => nanos = nanos * 10 + u64::from(byte - b'0'),
                b'"' if at > 0 => {
                    self.rest = &self.rest[at + 1..];
                    return i64::try_from(nanos).ok();
                }
                _ => return None,
            }
        }
        None
    }

    fn metadata(&mut self) -> Option<()> {
        self.expect(b'{')?;
        if self.is_next(b'}')? {
            return Some(());
        }
        loop {
            let open = Open::new(self.out, METADATA_KEY);
            self.expect(b'"')?;
            self.field(NAME_KEY)?;
            self.expect(b':')?;
            self.expect(b'"')?;
            self.field(VALUE_KEY)?;
            open.close(self.out);
            if !self.another(b'}')? {
                return Some(());
            }
        }
    }

    /// Reads a string behind its opening quote, and appends it as a field.
    fn field(&mut self, key: u8) -> Option<()> {
        let length = string_bytes(self.rest);
        if let Some([b'"', rest @ ..]) = self.rest.get(length..) {
            put_bytes(self.out, key, &self.rest[..length]);
            self.rest = rest;
            return Some(());
        }
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        self.string(&mut text)?;
        put_bytes(self.out, key, &text);
        self.scratch = text;
        Some(())
    }

    /// Reads a string behind its opening quote, and appends it to `text`.
    fn string(&mut self, text: &mut Vec<u8>) -> Option<()> {
        loop {
            let length = string_bytes(self.rest);
            let (plain, rest) = self.rest.split_at(length);
            text.extend_from_slice(plain);
            match rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Some(());
                }
                [b'\\', letter, rest @ ..] => {
                    self.rest = rest;
                    text.push(match letter {
                        b'"' | b'\\' | b'/' => *letter,
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        b'b' => 0x08,
                        b'f' => 0x0c,
                        b'u' => {
                            let letter = self.unicode()?;
                            text.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                            continue;
                        }
                        _ => return None,
                    });
                }
                _ => return None,
            }
        }
    }

    /// Reads an escaped character behind its `\u`: four digits, or eight with `\u` between them.
    fn unicode(&mut self) -> Option<char> {
        let high = self.four_digits()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high);
        }
        self.literal(b"\\u")?;
        let low = self.four_digits()?;
        (0xdc00..0xe000)
            .contains(&low)
            .then(|| char::from_u32(0x1_0000 + ((high - 0xd800) << 10 | (low - 0xdc00))))?
    }

    fn four_digits(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
    }

    /// Behind an element of a list or an object: whether another one follows. `end` closes the list or object.
    fn another(&mut self, end: u8) -> Option<bool> {
        match self.token()? {
            b',' => Some(true),
            byte if byte == end => Some(false),
            _ => None,
        }
    }

    /// Whether the next byte that is not blank is this one, which is then taken.
    fn is_next(&mut self, byte: u8) -> Option<bool> {
        let before = self.rest;
        let found = self.token()? == byte;
        if !found {
            self.rest = before;
        }
        Some(found)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.token()? == byte).then_some(())
    }

    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// Takes the next byte that is not blank.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        if *byte > b' ' { Some(*byte) } else { self.token_behind_blank(*byte) }
    }

    #[inline(never)]
    fn token_behind_blank(&mut self, mut byte: u8) -> Option<u8> {
        while matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            let (next, rest) = self.rest.split_first()?;
            (byte, self.rest) = (*next, rest);
        }
        Some(byte)
    }

    /// Checks the size of the message, without `uncounted` bytes of fields that are open.
    fn check(&self, uncounted: usize) -> Option<()> {
        (self.out.len() - uncounted <= self.bytes_max).then_some(())
    }
}

/// The number of bytes before the first that is not a plain character of a JSON string: a quote, an escape, a control
/// character or the end.
#[inline]
fn string_bytes(text: &[u8]) -> usize {
    search::find(text, |chunk| chunk.equal(b'"') | chunk.equal(b'\\') | chunk.below(b' '))
}

/// The number of bytes that are the same in JSON and in a stream's labels.
#[inline]
fn label_value_bytes(text: &[u8]) -> usize {
    let special = |chunk: Chunk| {
        chunk.equal(b'"') | chunk.equal(b'\\') | chunk.below(b' ') | chunk.equal(0x7f) | chunk.not_ascii()
    };
    search::find(text, special)
}
