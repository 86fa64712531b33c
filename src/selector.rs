//! Series selectors in Prometheus' notation, such as `{__name__="up",namespace=~"a.*"}`, and series written in the same
//! way.
//!
//! The syntax is that of Prometheus 3 (promql/parser/lex.go and generated_parser.y): a metric name in front of the
//! braces, or alone in quotes within them; quoted label names; double, single and back quotes with Go's escapes; white
//! space and comments between tokens; a trailing comma.
//!
//! Design constraints:
//!
//! * The text comes from operators' clients and is untrusted. Its length, its matchers and the memory of its patterns
//!   are bounded, and patterns take time linear in the value.
//! * A selector means what it means in Prometheus: patterns match values as a whole, `.` also matches line ends, and a
//!   label that a series lacks has an empty value. Only `{}` is taken here, too; it selects every series.
//! * Labels are bytes. A pattern is UTF-8 and matches no value that is not.
#![forbid(unsafe_code)]

mod matcher;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::matcher::{Fault, Malformed, Matcher, Op};
use crate::text::quote;

/// Conditions on a series' labels, all of which it has to fulfil.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selector(Vec<Matcher>);

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        parse::matchers(text).map(|matchers| Self(matchers.into_iter().map(|(_, matcher)| matcher).collect()))
    }

    /// The conditions. The metric's name is one on `__name__`.
    pub fn matchers(&self) -> &[Matcher] {
        &self.0
    }

    /// Whether a series fulfils all conditions. `value_of` returns the value of a label, if the series has it.
    pub fn matches<V: AsRef<[u8]>>(&self, mut value_of: impl FnMut(&[u8]) -> Option<V>) -> bool {
        self.0.iter().all(|matcher| match value_of(&matcher.name) {
            Some(value) => matcher.holds(value.as_ref()),
            None => matcher.holds(&[]),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.iter().map(|matcher| (&*matcher.name, matcher.op, &*matcher.value));
        f.write_str(&in_braces(all))
    }
}

/// A series: its labels' names and values, in the order in which they are given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series(Vec<(Box<[u8]>, Box<[u8]>)>);

impl Series {
    /// Parses a series, in the notation of selectors.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut labels: Vec<(Box<[u8]>, Box<[u8]>)> = Vec::new();
        for (at_byte, Matcher { name, op, value, .. }) in parse::matchers(text)? {
            let fault = match op {
                Op::Equal if labels.iter().any(|(known, _)| *known == name) => Fault::LabelTwice,
                Op::Equal => {
                    labels.push((name, value));
                    continue;
                }
                Op::NotEqual | Op::Match | Op::NoMatch => Fault::NoValue,
            };
            return Err(Malformed { fault, at_byte });
        }
        Ok(Self(labels))
    }

    /// The names and values.
    pub fn labels(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of a label, if there is one.
    pub fn value_of(&self, name: &[u8]) -> Option<&[u8]> {
        self.labels().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_series(self.labels()))
    }
}

/// A series as text that [`Series::parse`] reads, as far as its names are distinct: one line of harmless UTF-8.
pub fn show_series<'a>(labels: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> String {
    in_braces(labels.map(|(name, value)| (name, Op::Equal, value)))
}

fn in_braces<'a>(matchers: impl Iterator<Item = (&'a [u8], Op, &'a [u8])>) -> String {
    let mut text = String::from("{");
    for (at, (name, op, value)) in matchers.enumerate() {
        if at > 0 {
            text.push(',');
        }
        match std::str::from_utf8(name) {
            Ok(plain) if parse::is_name(plain) => text.push_str(plain),
            _ => quote(name, &mut text),
        }
        text.push_str(op.as_str());
        quote(value, &mut text);
    }
    text.push('}');
    text
}
