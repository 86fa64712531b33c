//! The conditions of a selector, and what can be wrong with its text.
#![forbid(unsafe_code)]

use regex::bytes::Regex;

/// The label that holds a metric's name.
pub(super) const METRIC_NAME: &[u8] = b"__name__";

/// The text is not a selector, or not a series. A retry does not help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{fault}, at byte {at_byte}")]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// The offset in the text.
    pub at_byte: usize,
}

/// Why a text is not a selector, or not a series.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It is longer than the limit.
    #[error("the text is longer than {bytes_max} bytes")]
    TooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// It has more matchers than the limit.
    #[error("there are more than {matchers_max} matchers")]
    TooMany {
        /// The limit.
        matchers_max: usize,
    },
    /// It ends too early.
    #[error("the text ends, but {expected} should follow")]
    End {
        /// What was expected.
        expected: &'static str,
    },
    /// A quote is not closed before the text or its line ends.
    #[error("a quote is not closed")]
    Quote,
    /// An escape sequence is unknown, or names no character.
    #[error("an escape sequence is invalid")]
    Escape,
    /// An unexpected character.
    #[error("expected {expected}, found '{}'", .found.escape_default())]
    Unexpected {
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: char,
    },
    /// The metric name is given twice.
    #[error("the metric name is given twice")]
    NameTwice,
    /// The pattern is not a regular expression in the syntax of the regex crate, or too large.
    #[error("not a regular expression: {0}")]
    Pattern(String),
    /// The text is to be a series, and this matcher gives no label its value.
    #[error("a series has its labels' values, each with `=`; this is a selector of several series")]
    NoValue,
    /// The text is to be a series, and has two values for a label.
    #[error("this label is given twice")]
    LabelTwice,
}

/// How a matcher compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Match,
    /// `!~`
    NoMatch,
}

impl Op {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Match => "=~",
            Self::NoMatch => "!~",
        }
    }
}

/// A condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub(super) name: Box<[u8]>,
    pub(super) op: Op,
    pub(super) value: Box<[u8]>,
    /// The compiled value of [`Op::Match`] and [`Op::NoMatch`].
    pub(super) pattern: Option<Regex>,
}

impl Matcher {
    /// The label's name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// How it compares.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The value or pattern, as given.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Whether a label's value fulfils it; empty for a label that the series lacks.
    pub fn holds(&self, value: &[u8]) -> bool {
        let equal = match &self.pattern {
            Some(pattern) => pattern.is_match(value),
            None => *self.value == *value,
        };
        equal == matches!(self.op, Op::Equal | Op::Match)
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (self.op, &self.name, &self.value) == (other.op, &other.name, &other.value)
    }
}

impl Eq for Matcher {}
