//! Mistakes in a configuration, and how they are reported.
//!
//! An operator wants to see all of them at once: where, which key, what to do. Each mistake is one line in the format
//! of compiler errors (`file.yml:12: tenant.lable: …`), so that editors can jump to it.
#![forbid(unsafe_code)]

use std::fmt;

use super::key::Key;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Not set.
    Default,
    /// The file, at this line (from 1).
    Line(usize),
    /// The key's environment variable.
    Variable,
    /// Set, but unreadable. The mistake has already been reported, and the value is the default.
    Mistaken,
}

/// One thing to correct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    place: Place,
    /// The key's full path; empty if the mistake belongs to no key.
    key: String,
    text: String,
}

/// Ordered as mistakes are reported: the file from top to bottom, then variables, then mistakes without a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    File,
    Line(usize),
    /// A line of another file that the configuration refers to.
    Elsewhere(String, usize),
    Variable(String),
    Nowhere,
}

impl Mistake {
    /// A mistake of the file as a whole.
    pub(super) fn in_file(text: impl Into<String>) -> Self {
        Self { place: Place::File, key: String::new(), text: text.into() }
    }

    /// A mistake on a line of the file; `key` is empty if it belongs to no key.
    pub(super) fn in_line(line: usize, key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: Place::Line(line), key: one_line(&key.into()), text: text.into() }
    }

    /// A mistake in an environment variable.
    pub(super) fn in_variable(key: &Key, text: impl Into<String>) -> Self {
        Self { place: Place::Variable(key.variable()), key: key.path.into(), text: text.into() }
    }

    /// A mistake in a key's value, reported at its origin.
    pub(super) fn of(key: &Key, origin: Origin, text: impl Into<String>) -> Self {
        match origin {
            Origin::Line(line) => Self::in_line(line, key.path, text),
            Origin::Variable => Self::in_variable(key, text),
            Origin::Default | Origin::Mistaken => {
                Self { place: Place::Nowhere, key: key.path.into(), text: text.into() }
            }
        }
    }
}

/// A key as written, on one line: control characters escaped, and cut.
fn one_line(key: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    let mut shown = String::new();
    for c in key.chars().take(SHOWN_CHARS_MAX) {
        match c {
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    if key.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// All mistakes of a configuration, one per line, in file order. Never empty.
///
/// The operator has to correct them; a restart without a change does not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMistakes {
    file: String,
    mistakes: Vec<Mistake>,
}

impl ConfigMistakes {
    /// `file` is the name that the operator used.
    pub(super) fn new(file: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        Self { file: file.to_owned(), mistakes }
    }

    /// The same mistakes, for reporting along with those of the file that refers to this one.
    pub(super) fn elsewhere(self) -> impl Iterator<Item = Mistake> {
        let Self { file, mistakes } = self;
        mistakes.into_iter().map(move |mistake| match mistake.place {
            Place::Line(line) => Mistake { place: Place::Elsewhere(file.clone(), line), ..mistake },
            _ => Mistake { place: Place::Elsewhere(file.clone(), 1), ..mistake },
        })
    }

    /// The number of mistakes.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }
}

impl fmt::Display for ConfigMistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            match &mistake.place {
                Place::File => write!(f, "{}: ", self.file)?,
                Place::Line(line) => write!(f, "{}:{line}: ", self.file)?,
                Place::Elsewhere(file, line) => write!(f, "{file}:{line}: ")?,
                Place::Variable(name) => write!(f, "{name} (environment): ")?,
                Place::Nowhere => {}
            }
            if !mistake.key.is_empty() {
                write!(f, "{}: ", mistake.key)?;
            }
            f.write_str(&mistake.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigMistakes {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn a_mistake_is_one_line_for_any_key() {
        let long = format!("a\n\u{1b}{}", "ü".repeat(1000));
        let told = ConfigMistakes::new("f", vec![Mistake::in_line(1, long, "unknown")]).to_string();
        assert_eq!(told, format!("f:1: a\\n\\u{{1b}}{}…: unknown", "ü".repeat(97)));
    }

    #[test]
    fn mistakes_are_reported_in_file_order_then_the_rest() {
        let [listen, target] =
            ["listen", "target"].map(|path| KEYS.iter().find(|key| key.path == path).unwrap());
        let mistakes = vec![
            Mistake::of(listen, Origin::Default, "e"),
            Mistake::of(target, Origin::Variable, "d"),
            Mistake::of(target, Origin::Line(12), "c"),
            Mistake::in_line(2, "x.y", "b"),
            Mistake::in_file("a"),
            Mistake::in_line(2, "", "second of its line"),
        ];
        let mistakes = ConfigMistakes::new("dir/f.yml", mistakes);
        assert_eq!(mistakes.count(), 6);
        let lines = [
            "dir/f.yml: a",
            "dir/f.yml:2: x.y: b",
            "dir/f.yml:2: second of its line",
            "dir/f.yml:12: target: c",
            "CT_TARGET (environment): target: d",
            "listen: e",
        ];
        assert_eq!(mistakes.to_string(), lines.join("\n"));
    }
}
