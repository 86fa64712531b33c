//! The types of values: how each is parsed and how it is shown.
//!
//! Durations follow Go's `time.ParseDuration`, and booleans in the environment follow `strconv.ParseBool`, because
//! existing configurations were written for these.
//!
//! An error says what was found and what is expected; the caller adds file, line and key.
#![forbid(unsafe_code)]

mod auto;
mod choice;
mod duration;
mod size;

pub(super) use self::auto::Auto;
pub(super) use self::choice::IdRulesChoice;
pub use self::choice::{DriverChoice, Fsync, SpoolWhen};
pub(super) use self::size::ByteSize;
use super::excerpt::found;
use super::yaml::{Content, Node};
use crate::auth::Secret;

/// A value as written. File and environment have different rules for booleans and lists.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written<'a> {
    /// In the file.
    Yaml(&'a Node),
    /// In an environment variable.
    Variable(&'a str),
}

impl<'a> Written<'a> {
    /// The text if it is a single value, else an error that says what was found.
    fn text(self) -> Result<&'a str, String> {
        match self {
            Self::Variable(text) => Ok(text),
            Self::Yaml(Node { content: Content::Text(text), .. }) => Ok(text),
            Self::Yaml(node) => Err(format!("wants a single value, not {}", node.kind())),
        }
    }
}

/// A type of setting.
pub(super) trait Value: Sized + PartialEq {
    /// Whether an empty text is a value of this type. Otherwise it counts as unset.
    const MAY_BE_EMPTY: bool = false;
    /// Parses the value. The error is meant for people.
    fn read(written: Written<'_>) -> Result<Self, String>;
    /// The value as YAML, on one line.
    fn show(&self) -> String;
    /// Whether this is the zero or empty value of its type.
    fn is_zero(&self) -> bool;
    /// The value with its possible secrets masked. Only targets have any.
    fn masked(&self) -> String {
        self.show()
    }
}

impl Value for String {
    const MAY_BE_EMPTY: bool = true;

    fn read(written: Written<'_>) -> Result<Self, String> {
        written.text().map(str::to_owned)
    }

    fn show(&self) -> String {
        quoted(self)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn masked(&self) -> String {
        super::target::masked(self)
    }
}

impl Value for Secret {
    const MAY_BE_EMPTY: bool = true;

    fn read(written: Written<'_>) -> Result<Self, String> {
        written.text().map(Self::new)
    }

    fn show(&self) -> String {
        if self.is_empty() { quoted("") } else { "***".into() }
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl Value for bool {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let text = written.text()?;
        match written {
            Written::Variable(_) => parse_bool(text)
                .ok_or_else(|| format!("{} is neither true nor false (nor 1, t, 0, f)", found(text))),
            Written::Yaml(_) => {
                yaml_bool(text).ok_or_else(|| format!("{} is neither true nor false", found(text)))
            }
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn is_zero(&self) -> bool {
        !self
    }
}

impl Value for usize {
    fn read(written: Written<'_>) -> Result<Self, String> {
        whole_number(written.text()?)
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn is_zero(&self) -> bool {
        *self == 0
    }
}

/// Several words: a YAML list, or words separated by commas.
impl Value for Vec<String> {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let Written::Yaml(Node { content: Content::List(items), .. }) = written else {
            return match written.text() {
                Ok("") => Ok(Vec::new()),
                Ok(text) => Ok(text.split(',').map(|item| item.trim().to_owned()).collect()),
                Err(_) => Err("wants a list of words, not a section".into()),
            };
        };
        let word = |item| Written::Yaml(item).text().map(str::to_owned);
        items
            .iter()
            .map(word)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("an item of the list {error}"))
    }

    fn show(&self) -> String {
        let items: Vec<_> = self.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

/// The spellings of Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The spellings of YAML 1.2, and those of YAML 1.1 as Go's yaml.v2 accepts them for booleans.
fn yaml_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn whole_number(text: &str) -> Result<usize, String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.starts_with('-') {
        return Err(format!("{} is negative", found(text)));
    }
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is not a whole number", found(text)));
    }
    digits.parse().map_err(|_| format!("{} is too large", found(text)))
}

/// A text as YAML: plain if that is unambiguous, else in double quotes.
fn quoted(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
    let begins_bare = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_/.".contains(c));
    let misread =
        text.ends_with(':') || yaml_bool(text).is_some() || ["null", "Null", "NULL"].contains(&text);
    if begins_bare && text.chars().all(bare) && !misread {
        return text.to_owned();
    }
    let mut shown = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => shown.extend(['\\', c]),
            c if c.is_control() => shown += &format!("\\u{:04x}", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown.push('"');
    shown
}

#[cfg(test)]
mod tests;
