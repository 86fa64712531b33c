//! What is wrong with a configuration, and how it is told.
//!
//! Whoever fixes a configuration wants all of it at once: where, which key, what to do. Each mistake is one line
//! in the form of a compiler's (`file.yml:12: tenant.lable: …`), so that editors jump to it.
#![forbid(unsafe_code)]

use std::fmt;

use super::{KEYS, Key};

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody set it.
    Default,
    /// The file, at this line (from 1).
    Line(usize),
    /// The key's environment variable.
    Variable,
    /// Somewhere; but it could not be read, and has been told already. The value is the default.
    Mistaken,
}

/// One thing to correct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    place: Place,
    /// The key's whole path; empty when the mistake belongs to no key.
    key: String,
    text: String,
}

/// Ordered as mistakes are told: the file from its top, then variables, then what has no place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    File,
    Line(usize),
    Variable(String),
    Nowhere,
}

impl Mistake {
    /// About the file as a whole.
    pub(super) fn in_file(text: impl Into<String>) -> Self {
        Self { place: Place::File, key: String::new(), text: text.into() }
    }

    /// About a line of the file; `key` is empty when there is none to name.
    pub(super) fn in_line(line: usize, key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: Place::Line(line), key: key.into(), text: text.into() }
    }

    /// About a variable of the environment.
    pub(super) fn in_variable(key: &Key, text: impl Into<String>) -> Self {
        Self { place: Place::Variable(key.variable()), key: key.path.into(), text: text.into() }
    }

    /// About a key's value, wherever it came from.
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

/// Every mistake of a configuration, one a line, in the order in which to look for them. Never empty.
///
/// The operator's fault; starting again helps only after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMistakes {
    file: String,
    mistakes: Vec<Mistake>,
}

impl ConfigMistakes {
    /// `file` as the operator named it.
    pub(super) fn new(file: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        Self { file: file.to_owned(), mistakes }
    }

    /// How many there are.
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

/// What to say of a key that nobody knows: `unknown key`, and the key that was probably meant.
pub(super) fn unknown_key(section: &str, name: &str) -> String {
    if name == "<<" {
        return "merge keys are not supported; write the keys out".into();
    }
    match nearest(section, name) {
        None => "unknown key; --print-default-config lists all keys".into(),
        Some(meant) => {
            let (its_section, its_name) = meant.rsplit_once('.').unwrap_or(("", meant));
            let hint = match (its_section == section, its_section) {
                (true, _) => format!("did you mean `{its_name}`?"),
                (false, "") => format!("did you mean `{its_name}`, outside of every section?"),
                (false, _) => format!("did you mean `{its_name}`, which belongs under `{its_section}`?"),
            };
            format!("unknown key; {hint}")
        }
    }
}

/// The path of the key, or of the section, most like `name`. Those of the same section come first, then the same
/// name elsewhere, then what is like it elsewhere.
fn nearest(section: &str, name: &str) -> Option<&'static str> {
    let here = paths().filter(|path| path.rsplit_once('.').map_or("", |(section, _)| section) == section);
    if let Some(path) = closest(here, name) {
        return Some(path);
    }
    let whole = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    paths().find(|path| **path == *name || **path == whole).or_else(|| closest(paths(), name))
}

/// All keys, and all sections of keys, as paths.
fn paths() -> impl Iterator<Item = &'static str> {
    KEYS.iter().flat_map(|key| {
        let sections = key.path.match_indices('.').filter_map(|(end, _)| key.path.get(..end));
        sections.chain([key.path])
    })
}

/// The path whose last word is most like `name`, if any is like it at all.
fn closest(paths: impl Iterator<Item = &'static str>, name: &str) -> Option<&'static str> {
    let scored = paths.filter_map(|path| {
        let last = path.rsplit_once('.').map_or(path, |(_, last)| last);
        unlikeness(last, name).map(|score| (score, path))
    });
    scored.min_by_key(|(score, _)| *score).map(|(_, path)| path)
}

/// How far a known word is from what was written; `None` when nobody would take the one for the other: more than
/// a third of the letters, and at least two, would have to change. A beginning of the known word, or the word with
/// something behind it, counts as near, too.
pub(super) fn unlikeness(known: &str, written: &str) -> Option<usize> {
    const PREFIX_CHARS_MIN: usize = 4;
    let written = written.to_lowercase().replace('-', "_");
    // Nobody's typo is that long, and the distance takes the square of it.
    if written.len() > 2 * known.len() + PREFIX_CHARS_MIN {
        return None;
    }
    let edits = edit_distance(known, &written);
    let edits_max = (known.len().max(written.len()) / 3).max(2).min(known.len().saturating_sub(1));
    let begins = |long: &str, short: &str| short.len() >= PREFIX_CHARS_MIN && long.starts_with(short);
    if edits <= edits_max {
        Some(edits)
    } else if begins(known, &written) || begins(&written, known) {
        Some(edits_max + 1)
    } else {
        None
    }
}

/// Insertions, deletions, replacements and swaps of neighbours that make one word of the other ("optimal string
/// alignment", a restricted Damerau–Levenshtein distance).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (at(&last, j) + usize::from(from != to)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&to) && b.get(j - 1) == Some(&from);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}
