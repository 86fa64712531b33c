//! Mistakes in a configuration, and how they are reported.
//!
//! An operator wants to see all of them at once: where, which key, what to do. Each mistake is one line in the format
//! of compiler errors (`file.yml:12: tenant.lable: …`), so that editors can jump to it.
#![forbid(unsafe_code)]

use std::fmt;

use super::keys::{KEYS, Key};

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

/// The text for an unknown key, with a guess at the key that was meant.
pub(super) fn unknown_key(section: &str, name: &str) -> String {
    if name == "<<" {
        return "merge keys are not supported; write the keys out".into();
    }
    format!("unknown key; {}", hint(section, name))
}

/// Guesses the key that was meant. The same name in another section comes first, then similar names in this section,
/// then similar names anywhere.
fn hint(section: &str, name: &str) -> String {
    if let Some((its_section, its_name)) =
        paths().find(|path| *path == name).and_then(|path| path.rsplit_once('.'))
    {
        return format!("write `{its_name}`, indented under `{}:`", its_section.replace('.', ":`, under `"));
    }
    let elsewhere: Vec<String> = paths().filter(|path| last(path) == name).map(belongs).collect();
    if !elsewhere.is_empty() {
        return format!("`{name}` belongs {}", elsewhere.join(", or "));
    }
    let here = paths().filter(|path| path.rsplit_once('.').map_or("", |(section, _)| section) == section);
    if let Some(path) = closest(here, name) {
        return format!("did you mean `{}`?", last(path));
    }
    match closest(paths(), name) {
        Some(path) => format!("did you mean `{}`, which belongs {}?", last(path), belongs(path)),
        None => "--print-default-config lists all keys".into(),
    }
}

fn belongs(path: &'static str) -> String {
    match path.rsplit_once('.') {
        Some((section, _)) => format!("under `{section}`"),
        None => "at the left margin, outside of every section".into(),
    }
}

fn last(path: &'static str) -> &'static str {
    path.rsplit_once('.').map_or(path, |(_, last)| last)
}

/// The paths of all keys and sections, each once.
fn paths() -> impl Iterator<Item = &'static str> {
    let sections =
        KEYS.iter().flat_map(|key| key.path.match_indices('.').filter_map(|(end, _)| key.path.get(..end)));
    let paths: std::collections::BTreeSet<_> = sections.chain(KEYS.iter().map(|key| key.path)).collect();
    paths.into_iter()
}

/// The path whose last word is most similar to `name`, if any is similar enough.
fn closest(paths: impl Iterator<Item = &'static str>, name: &str) -> Option<&'static str> {
    let scored = paths.filter_map(|path| unlikeness(last(path), name).map(|score| (score, path)));
    scored.min_by_key(|(score, _)| *score).map(|(_, path)| path)
}

/// The distance between a known word and what was written, ignoring case. `None` if they are too different to be
/// confused: more than a third of the letters, and at least two, would have to change.
///
/// If one word contains the other, they also count as similar. Such matches rank behind all typos; the longer the
/// shared part, the better.
pub(super) fn unlikeness(known: &str, written: &str) -> Option<usize> {
    const PART_CHARS_MIN: usize = 4;
    const PART_SCORE: usize = 1000;
    // No typo is that long, and the distance takes quadratic time.
    if written.len() > 3 * known.len() {
        return None;
    }
    let (known, written) = (known.to_lowercase(), written.to_lowercase().replace('-', "_"));
    let edits = edit_distance(&known, &written);
    let shared = known.len().min(written.len());
    let edits_max = (known.len().max(written.len()) / 3).max(2).min(known.len().saturating_sub(1));
    let part = known.contains(&written) || written.contains(&known);
    if edits <= edits_max {
        Some(edits)
    } else if part && shared >= PART_CHARS_MIN {
        Some(PART_SCORE.saturating_sub(shared))
    } else {
        None
    }
}

/// The number of insertions, deletions, replacements and swaps of neighbours that turn one word into the other
/// ("optimal string alignment", a restricted Damerau–Levenshtein distance).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted_with_swaps_as_one() {
        for (a, b, edits) in [
            ("label", "label", 0),
            ("label", "lable", 1),
            ("label", "labels", 1),
            ("label", "abel", 1),
            ("label", "lebel", 1),
            ("target", "tagret", 1),
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
            // Optimal string alignment never edits a swapped pair again: 3, not 2.
            ("ca", "abc", 3),
        ] {
            assert_eq!(edit_distance(a, b), edits, "{a} {b}");
            assert_eq!(edit_distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn a_typo_leads_to_the_nearest_key_of_its_section() {
        for (section, name, hint) in [
            ("tenant", "lable", "did you mean `label`?"),
            ("tenant", "labelremove", "did you mean `label_remove`?"),
            ("tenant", "label-remove", "did you mean `label_remove`?"),
            ("tenant", "LabelRemove", "did you mean `label_remove`?"),
            ("tenant", "labels_list", "did you mean `label_list`?"),
            ("tenant", "Header", "did you mean `header`?"),
            ("", "tagret", "did you mean `target`?"),
            ("", "tenent", "did you mean `tenant`?"),
            ("", "listen_metrics", "did you mean `listen_metrics_address`?"),
            ("", "listen_metrics_include_tenant", "did you mean `metrics_include_tenant`?"),
            ("", "max_conn_duration", "did you mean `max_connection_duration`?"),
            ("auth.egress", "user", "did you mean `username`?"),
            ("limits", "body_byte_max", "did you mean `body_bytes_max`?"),
        ] {
            assert_eq!(unknown_key(section, name), format!("unknown key; {hint}"), "{section} {name}");
        }
    }

    #[test]
    fn a_key_of_another_section_is_suggested_with_its_section() {
        for (section, name, hint) in [
            ("", "label", "`label` belongs under `tenant`"),
            ("", "username", "`username` belongs under `auth.egress`"),
            ("tenant", "timeout", "`timeout` belongs at the left margin, outside of every section"),
            ("auth.ingress", "egress", "`egress` belongs under `auth`"),
            ("tenant", "tls_config", "`tls_config` belongs under `auth.egress`, or under `auth.ingress`"),
            ("", "label_remve", "did you mean `label_remove`, which belongs under `tenant`?"),
            (
                "tenant",
                "tmeout",
                "did you mean `timeout`, which belongs at the left margin, outside of every section?",
            ),
            ("", "tenant.label", "write `label`, indented under `tenant:`"),
            ("", "auth.egress.username", "write `username`, indented under `auth:`, under `egress:`"),
        ] {
            assert_eq!(unknown_key(section, name), format!("unknown key; {hint}"), "{section} {name}");
        }
    }

    #[test]
    fn an_unknown_key_without_a_similar_one_gets_no_guess() {
        let long = "label".repeat(100_000);
        for name in ["foo", "x", "", "remote_read", "scrape_configs", "überall", long.as_str()] {
            let text = unknown_key("", name);
            assert_eq!(text, "unknown key; --print-default-config lists all keys", "{name}");
        }
        assert!(unknown_key("tenant", "<<").contains("merge keys"));
    }

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
