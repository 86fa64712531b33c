//! A stream's labels: text such as `{app="shop", env="prod"}`.
//!
//! Loki has it read by Prometheus' parser of metrics (grafana/loki, pkg/logql/syntax `ParseLabels`; prometheus,
//! promql/parser/lex.go and generated_parser.y, promql's `Unquote` in util/strutil/quote.go). What that takes we take,
//! with the same meaning: double, single and back quotes, the escapes of Go, white space and comments between any two
//! words, a comma behind the last label, names in quotes, and a metric's name in front or alone in quotes, which is the
//! label `__name__`.
//!
//! Constraints that shaped it:
//!
//! * Text is bytes, and nearly always there is nothing to unescape: names and values are slices of it then.
//! * Taking one label out must leave the rest of the text as it was. So each label knows what to cut.
//! * We may take a little more than Loki does (bytes that are no UTF-8, keywords as metric names): it refuses those itself.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

/// The label that a metric's name stands for.
const METRIC_NAME: &[u8] = b"__name__";

/// Why a text is not a set of labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{fault}, at byte {at_byte}")]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// Where in the text.
    pub at_byte: usize,
}

/// What is wrong with a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It ends within the braces.
    #[error("it ends before its closing brace")]
    End,
    /// It ends, or its line does, within quotes.
    #[error("a quote is not closed")]
    Quote,
    /// An escape sequence that there is not, or whose character there is not.
    #[error("an escape sequence is invalid")]
    Escape,
    /// Something else was expected.
    #[error("expected {expected}, found '{}'", .found.escape_ascii())]
    Unexpected {
        /// What could have stood there.
        expected: &'static str,
        /// What does.
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
    /// What of the text to take out, so that all other labels remain: the label and one comma beside it.
    pub cut: Range<usize>,
}

/// A name or a value: a slice of the text unless something in it was escaped.
type Word<'a> = Cow<'a, [u8]>;

/// Walks over the labels of a text, in their order.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    text: &'a [u8],
    at: usize,
    place: Place,
    /// The comma in front of the next label.
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
    /// Of a stream's text. An empty one has no labels.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, place: Place::Start, comma: None }
    }

    /// The next label; `None` when all have been taken and nothing else follows.
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

    /// Reads a label and the comma behind it, if there is one.
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
            Some(byte) if begins_name(byte) => self.word(continues_name).into(),
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

    /// Reads what stands in quotes, of which the first is next.
    fn quoted(&mut self) -> Result<Word<'a>, Malformed> {
        let open = self.at;
        let quote = self.text[open];
        let rest = &self.text[open + 1..];
        let stops = |byte: &u8| *byte == quote || (quote != b'`' && matches!(byte, b'\\' | b'\n'));
        let Some(length) = rest.iter().position(stops) else { return Err(self.fault(Fault::Quote)) };
        self.at = open + 1 + length;
        if self.text[self.at] == quote {
            self.at += 1;
            return Ok(Cow::Borrowed(&rest[..length]));
        }
        let mut value = rest[..length].to_vec();
        loop {
            match self.peek() {
                Some(byte) if byte == quote => break,
                Some(b'\\') => self.escape(quote, &mut value)?,
                Some(byte) if byte != b'\n' => {
                    value.push(byte);
                    self.at += 1;
                }
                _ => return Err(Malformed { fault: Fault::Quote, at_byte: open }),
            }
        }
        self.at += 1;
        Ok(Cow::Owned(value))
    }

    /// Reads an escape sequence, whose backslash is next.
    fn escape(&mut self, quote: u8, value: &mut Vec<u8>) -> Result<(), Malformed> {
        let fault = self.fault(Fault::Escape);
        let rest = &self.text[self.at + 1..];
        let [letter, digits @ ..] = rest else { return Err(fault) };
        let short = match letter {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' => b'\\',
            letter if *letter == quote => quote,
            b'x' => return self.numbered(digits.get(..2), 16, value).ok_or(fault),
            b'u' => return self.numbered(digits.get(..4), 16, value).ok_or(fault),
            b'U' => return self.numbered(digits.get(..8), 16, value).ok_or(fault),
            b'0'..=b'7' => return self.numbered(rest.get(..3), 8, value).ok_or(fault),
            _ => return Err(fault),
        };
        value.push(short);
        self.at += 2;
        Ok(())
    }

    /// A byte by its two hexadecimal or three octal digits, or a character by its four or eight hexadecimal ones.
    fn numbered(&mut self, digits: Option<&[u8]>, radix: u32, value: &mut Vec<u8>) -> Option<()> {
        let digits = digits?;
        let add =
            |number: u32, digit: &u8| Some(number << radix.ilog2() | char::from(*digit).to_digit(radix)?);
        let number = digits.iter().try_fold(0, add)?;
        if digits.len() < 4 {
            value.push(u8::try_from(number).ok()?);
        } else {
            let letter = char::from_u32(number)?;
            value.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
        // The letter in front of hexadecimal digits, too.
        self.at += 1 + digits.len() + usize::from(radix == 16);
        Some(())
    }

    fn word(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Skips white space, and comments, which go on to the end of their line.
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

fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn continues_name(byte: u8) -> bool {
    begins_name(byte) || byte.is_ascii_digit()
}

/// Whether `name` can stand before `=` without quotes.
pub(super) fn is_name(name: &[u8]) -> bool {
    name.first().copied().is_some_and(begins_name) && name.iter().copied().all(continues_name)
}

/// Appends `value` in double quotes, as Go's `strconv.Quote` writes it as far as ASCII goes. Of other characters those
/// that have no place in a line of text are escaped, and U+FFFD, which Prometheus takes for a mistake; Go escapes more,
/// which reads back as the same.
pub fn quote(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for letter in value.chars() {
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
    out.push(b'"');
}

#[cfg(test)]
mod tests;
