//! Parses the text of a selector into its matchers.
#![forbid(unsafe_code)]

use regex::bytes::{Regex, RegexBuilder};

use super::matcher::{Fault, METRIC_NAME, Malformed, Matcher, Op};
use crate::limits::{SELECTOR_BYTES_MAX, SELECTOR_MATCHERS_MAX, SELECTOR_PATTERN_BYTES_MAX};
use crate::tenant::map::{anchored, one_line};
use crate::text::{QuoteFault, unquote};

/// The matchers, each with the byte where it begins.
pub(super) fn matchers(text: &str) -> Result<Vec<(usize, Matcher)>, Malformed> {
    if text.len() > SELECTOR_BYTES_MAX {
        let fault = Fault::TooLong { bytes_max: SELECTOR_BYTES_MAX };
        return Err(Malformed { fault, at_byte: SELECTOR_BYTES_MAX });
    }
    let mut parser = Parser { text, at: 0, found: Vec::new(), name_at: None };
    parser.selector()?;
    parser.check_name()?;
    Ok(parser.found)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    found: Vec<(usize, Matcher)>,
    /// Where the metric name is, if it is given without `__name__`.
    name_at: Option<usize>,
}

impl Parser<'_> {
    fn selector(&mut self) -> Result<(), Malformed> {
        self.skip_blank();
        let begin = self.at;
        let name = self.word(|letter| continues_name(letter) || letter == ':');
        if !name.is_empty() {
            if name.starts_with(|letter: char| letter.is_ascii_digit()) {
                self.at = begin;
                return Err(self.unexpected("a metric name or '{'"));
            }
            let name = name.as_bytes().into();
            self.metric_name(begin, name)?;
            self.skip_blank();
            if self.peek().is_none() {
                return Ok(());
            }
        }
        self.expect('{', "'{'")?;
        self.braces()?;
        self.skip_blank();
        if self.peek().is_some() { Err(self.unexpected("nothing behind the brace")) } else { Ok(()) }
    }

    /// Reads up to the closing brace. The opening one was read.
    fn braces(&mut self) -> Result<(), Malformed> {
        loop {
            self.skip_blank();
            if self.take('}') {
                return Ok(());
            }
            self.matcher()?;
            self.skip_blank();
            if !self.take(',') {
                return self.expect('}', "',' or '}'");
            }
        }
    }

    fn matcher(&mut self) -> Result<(), Malformed> {
        let begin = self.at;
        let name: Box<[u8]> = match self.peek() {
            Some('"' | '\'' | '`') => {
                let name = self.quoted()?;
                self.skip_blank();
                if matches!(self.peek(), Some(',' | '}')) {
                    return self.metric_name(begin, name);
                }
                name
            }
            Some(letter) if begins_name(letter) => self.word(continues_name).as_bytes().into(),
            _ => return Err(self.unexpected("a label's name")),
        };
        self.skip_blank();
        let op = self.op()?;
        self.skip_blank();
        let value_at = self.at;
        let value = match self.peek() {
            Some('"' | '\'' | '`') => self.quoted()?,
            _ => return Err(self.unexpected("a value in quotes")),
        };
        let pattern = match op {
            Op::Equal | Op::NotEqual => None,
            Op::Match | Op::NoMatch => Some(
                compile(&value)
                    .map_err(|text| Malformed { fault: Fault::Pattern(text), at_byte: value_at })?,
            ),
        };
        self.push(begin, Matcher { name, op, value, pattern })
    }

    fn op(&mut self) -> Result<Op, Malformed> {
        let two = self.text.get(self.at..self.at + 2);
        let (op, length) = match (two, self.peek()) {
            (Some("=~"), _) => (Op::Match, 2),
            (Some("!~"), _) => (Op::NoMatch, 2),
            (Some("!="), _) => (Op::NotEqual, 2),
            (_, Some('=')) => (Op::Equal, 1),
            _ => return Err(self.unexpected("'=', '!=', '=~' or '!~'")),
        };
        self.at += length;
        Ok(op)
    }

    fn metric_name(&mut self, at: usize, value: Box<[u8]>) -> Result<(), Malformed> {
        if self.name_at.replace(at).is_some() {
            return Err(Malformed { fault: Fault::NameTwice, at_byte: at });
        }
        self.push(at, Matcher { name: METRIC_NAME.into(), op: Op::Equal, value, pattern: None })
    }

    fn push(&mut self, at: usize, matcher: Matcher) -> Result<(), Malformed> {
        if self.found.len() >= SELECTOR_MATCHERS_MAX {
            let fault = Fault::TooMany { matchers_max: SELECTOR_MATCHERS_MAX };
            return Err(Malformed { fault, at_byte: at });
        }
        self.found.push((at, matcher));
        Ok(())
    }

    /// As in Prometheus, a metric name allows no further matcher of `__name__`.
    fn check_name(&self) -> Result<(), Malformed> {
        let Some(name_at) = self.name_at else { return Ok(()) };
        let again = self.found.iter().find(|(at, matcher)| *at != name_at && *matcher.name == *METRIC_NAME);
        match again {
            Some((at_byte, _)) => Err(Malformed { fault: Fault::NameTwice, at_byte: *at_byte }),
            None => Ok(()),
        }
    }

    fn quoted(&mut self) -> Result<Box<[u8]>, Malformed> {
        let (value, end) = unquote(self.text.as_bytes(), self.at).map_err(|(fault, at_byte)| {
            let fault = match fault {
                QuoteFault::Open => Fault::Quote,
                QuoteFault::Escape => Fault::Escape,
            };
            Malformed { fault, at_byte }
        })?;
        self.at = end;
        Ok(value.into())
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &str {
        let rest = self.rest();
        let length = rest.find(|letter| !belongs(letter)).unwrap_or(rest.len());
        let begin = self.at;
        self.at += length;
        self.text.get(begin..self.at).unwrap_or_default()
    }

    /// Skips white space and comments, which extend to the end of the line.
    fn skip_blank(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\n' | '\r') => self.at += 1,
                Some('#') => drop(self.word(|letter| letter != '\n' && letter != '\r')),
                _ => return,
            }
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, letter: char) -> bool {
        let is_next = self.peek() == Some(letter);
        self.at += if is_next { letter.len_utf8() } else { 0 };
        is_next
    }

    fn expect(&mut self, letter: char, expected: &'static str) -> Result<(), Malformed> {
        if self.take(letter) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &'static str) -> Malformed {
        let fault = match self.peek() {
            Some(found) => Fault::Unexpected { expected, found },
            None => Fault::End { expected },
        };
        Malformed { fault, at_byte: self.at }
    }
}

/// Compiles a pattern that matches values as a whole. The error says what is wrong.
fn compile(pattern: &[u8]) -> Result<Regex, String> {
    let pattern = std::str::from_utf8(pattern).map_err(|_| "it is not UTF-8".to_owned())?;
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(SELECTOR_PATTERN_BYTES_MAX)
            .dfa_size_limit(SELECTOR_PATTERN_BYTES_MAX)
            .build()
            .map_err(|error| one_line(&error))
    };
    // As written first: an unbalanced parenthesis must not close the group that anchors the pattern.
    build(pattern)?;
    build(&anchored(pattern))
}

fn begins_name(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

fn continues_name(letter: char) -> bool {
    begins_name(letter) || letter.is_ascii_digit()
}

/// Whether a label's name can be written without quotes.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(begins_name) && name.chars().all(continues_name)
}
