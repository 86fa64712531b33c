//! A stream's labels: text such as `{app="shop", env="prod"}`.
//!
//! Loki parses them with Prometheus' metric parser (grafana/loki, pkg/logql/syntax `ParseLabels`; prometheus,
//! promql/parser/lex.go and generated_parser.y). We accept the same syntax with the same meaning: double, single and
//! back quotes, Go's escapes, white space and comments between tokens, a trailing comma, quoted names, and a metric
//! name in front or alone in quotes, which is the label `__name__`.
//!
//! Design constraints:
//!
//! * Text is bytes and rarely contains escapes. Names and values without escapes are slices of it.
//! * Removing one label must leave the rest of the text unchanged. So each label knows the range to cut.
//! * We may accept a little more than Loki (invalid UTF-8, keywords as metric names), which then refuses it itself.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use crate::text::{self, QuoteFault};

/// The label that holds a metric's name.
const METRIC_NAME: &[u8] = b"__name__";

/// The text is not a set of labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{fault}, at byte {at_byte}")]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// The offset in the text.
    pub at_byte: usize,
}

/// Why a text is not a set of labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It ends inside the braces.
    #[error("it ends before its closing brace")]
    End,
    /// It ends, or its line ends, inside quotes.
    #[error("a quote is not closed")]
    Quote,
    /// An escape sequence is unknown, or names no character.
    #[error("an escape sequence is invalid")]
    Escape,
    /// An unexpected token.
    #[error("expected {expected}, found '{}'", .found.escape_ascii())]
    Unexpected {
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: u8,
    },
}

/// One label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label<'a> {
    /// Its name.
    pub name: Cow<'a, [u8]>,
    /// Its value, unquoted.
    pub value: Cow<'a, [u8]>,
    /// The range to cut from the text so that all other labels remain: the label and one adjacent comma.
    pub cut: Range<usize>,
}

/// A name or a value: a slice of the text unless it contained escapes.
type Word<'a> = Cow<'a, [u8]>;

/// Iterates over the labels of a text, in order.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    text: &'a [u8],
    at: usize,
    place: Place,
    /// The comma before the next label.
    comma: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Start,
    BehindMetricName,
    Inside,
    BehindBrace,
}

impl<'a> Labels<'a> {
    /// Reads a stream's text. An empty text has no labels.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, place: Place::Start, comma: None }
    }

    /// The next label; `None` at the end of the text.
    pub fn take(&mut self) -> Result<Option<Label<'a>>, Malformed> {
        loop {
            self.skip_blank();
            match (self.place, self.peek()) {
                (Place::Start | Place::BehindMetricName | Place::BehindBrace, None) => return Ok(None),
                (Place::Start | Place::BehindMetricName, Some(b'{')) => {
                    self.at += 1;
                    self.place = Place::Inside;
                }
                (Place::Start, Some(byte)) if begins_name(byte) || byte == b':' => {
                    self.place = Place::BehindMetricName;
                    return Ok(Some(self.metric_name()));
                }
                (Place::Start | Place::BehindMetricName, Some(_)) => return Err(self.unexpected("'{'")),
                (Place::Inside, Some(b'}')) => {
                    self.at += 1;
                    self.place = Place::BehindBrace;
                }
                (Place::Inside, _) => return self.label().map(Some),
                (Place::BehindBrace, Some(_)) => return Err(self.unexpected("nothing behind the brace")),
            }
        }
    }

    fn metric_name(&mut self) -> Label<'a> {
        let begin = self.at;
        let name = self.word(|byte| continues_name(byte) || byte == b':');
        Label { name: METRIC_NAME.into(), value: name.into(), cut: begin..self.at }
    }

    /// Reads a label and the comma after it, if there is one.
    fn label(&mut self) -> Result<Label<'a>, Malformed> {
        let begin = self.at;
        let (name, value) = self.name_and_value()?;
        let end = self.at;
        let comma = self.comma.take();
        self.skip_blank();
        let cut = match self.peek() {
            Some(b',') => {
                self.comma = Some(self.at);
                self.at += 1;
                self.skip_blank();
                begin..self.at
            }
            Some(b'}') => comma.unwrap_or(begin)..end,
            _ => return Err(self.unexpected("',' or '}'")),
        };
        Ok(Label { name, value, cut })
    }

    fn name_and_value(&mut self) -> Result<(Word<'a>, Word<'a>), Malformed> {
        let name = match self.peek() {
            Some(byte) if begins_name(byte) => self.slice(name_bytes(&self.text[self.at..])).into(),
            Some(b'"' | b'\'' | b'`') => {
                let name = self.quoted()?;
                self.skip_blank();
                if matches!(self.peek(), Some(b',' | b'}')) {
                    return Ok((METRIC_NAME.into(), name));
                }
                name
            }
            _ => return Err(self.unexpected("a label's name")),
        };
        self.skip_blank();
        if self.peek() != Some(b'=') {
            return Err(self.unexpected("'='"));
        }
        self.at += 1;
        self.skip_blank();
        match self.peek() {
            Some(b'"' | b'\'' | b'`') => Ok((name, self.quoted()?)),
            _ => Err(self.unexpected("a value in quotes")),
        }
    }

    /// Reads a quoted text. The opening quote is next.
    fn quoted(&mut self) -> Result<Word<'a>, Malformed> {
        let (word, end) = text::unquote(self.text, self.at).map_err(|(fault, at_byte)| {
            let fault = match fault {
                QuoteFault::Open => Fault::Quote,
                QuoteFault::Escape => Fault::Escape,
            };
            Malformed { fault, at_byte }
        })?;
        self.at = end;
        Ok(word)
    }

    fn word(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.text[self.at..];
        self.slice(rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len()))
    }

    fn slice(&mut self, bytes: usize) -> &'a [u8] {
        let begin = self.at;
        self.at += bytes;
        &self.text[begin..self.at]
    }

    /// Skips white space and comments, which extend to the end of the line.
    fn skip_blank(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(b'#') => drop(self.word(|byte| byte != b'\n' && byte != b'\r')),
                _ => return,
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn fault(&self, fault: Fault) -> Malformed {
        Malformed { fault, at_byte: self.at }
    }

    fn unexpected(&self, expected: &'static str) -> Malformed {
        self.fault(self.peek().map_or(Fault::End, |found| Fault::Unexpected { expected, found }))
    }
}

const fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

const fn continues_name(byte: u8) -> bool {
    begins_name(byte) || byte.is_ascii_digit()
}

/// Whether `name` can be written before `=` without quotes.
pub(super) fn is_name(name: &[u8]) -> bool {
    name.first().copied().is_some_and(begins_name) && name_bytes(name) == name.len()
}

/// The number of bytes at the front of `text` that could continue a name.
pub(super) fn name_bytes(text: &[u8]) -> usize {
    text.iter().position(|&byte| !CONTINUES_NAME[byte as usize]).unwrap_or(text.len())
}

const CONTINUES_NAME: [bool; 256] = {
    let mut continues = [false; 256];
    let mut byte = 0;
    while byte < 0x80 {
        continues[byte as usize] = continues_name(byte);
        byte += 1;
    }
    continues
};

/// Appends `value` in double quotes, as Go's `strconv.Quote` writes ASCII. Other characters are escaped if they cannot
/// be in a line of text, and so is U+FFFD, which Prometheus treats as an error. Go escapes more characters, but the
/// result parses to the same value.
///
/// [`text::quote`] is for people and escapes all that is invisible. This is for Loki, and on the way of every push in
/// JSON: other characters are copied as they are.
pub fn quote(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = value;
    while let Some(at) = rest.bytes().position(|byte| !STAYS[byte as usize]) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let mut letters = special.chars();
        let Some(letter) = letters.next() else { break };
        rest = letters.as_str();
        match letter {
            '"' | '\\' => out.extend([b'\\', letter as u8]),
            '\u{7}' => out.extend(b"\\a"),
            '\u{8}' => out.extend(b"\\b"),
            '\u{c}' => out.extend(b"\\f"),
            '\n' => out.extend(b"\\n"),
            '\r' => out.extend(b"\\r"),
            '\t' => out.extend(b"\\t"),
            '\u{b}' => out.extend(b"\\v"),
            '\0'..' ' | '\u{7f}' => out.extend(format!("\\x{:02x}", u32::from(letter)).as_bytes()),
            '\u{80}'..'\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{fffd}' => {
                out.extend(format!("\\u{:04x}", u32::from(letter)).as_bytes());
            }
            letter => out.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

/// The ASCII bytes that [`quote`] never escapes.
const STAYS: [bool; 256] = {
    let mut stays = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        stays[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    stays
};

#[cfg(test)]
mod tests;
