//! Combines the file's tree and the environment into one value per key, with its origin.
//!
//! The environment overrides the file. A variable that is set but empty counts as unset, as in cortex-tenant, because
//! Kubernetes manifests often contain such variables. A key without a value (`listen_pprof:`) counts as unset, too.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;

use super::key::{Key, Zero};
use super::mistake::{Mistake, Origin};
use super::setting::Setting;
use super::suggest::{unknown_key, unlikeness};
use super::value::{Value, Written};
use super::yaml::{self, Content, Name, Node};

/// The contents of the file and the environment, not yet interpreted.
pub(super) struct Sources {
    /// All keys that there are.
    keys: &'static [Key],
    /// By key path: the key's line and its value.
    file: HashMap<&'static str, (usize, Node)>,
    /// By key path; `None` stands for a value that is not UTF-8.
    variables: HashMap<&'static str, Option<String>>,
    /// Mistakes found so far.
    pub(super) mistakes: Vec<Mistake>,
    /// Warnings about what is probably a mistake.
    pub(super) notices: Vec<String>,
}

impl Sources {
    /// Reads the file's text (empty if there is no file) and the environment's names and values. Names that do not
    /// begin with `CT_` are ignored.
    pub(super) fn new(
        keys: &'static [Key],
        text: &str,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut sources = Self {
            keys,
            file: HashMap::new(),
            variables: HashMap::new(),
            mistakes: Vec::new(),
            notices: Vec::new(),
        };
        match yaml::read(text) {
            Ok(document) => sources.take_document(document),
            Err(fault) => sources.mistakes.push(Mistake::in_line(fault.line, "", fault.text)),
        }
        for (name, value) in environment {
            match name.to_str() {
                Some(name) if name.starts_with("CT_") && !value.is_empty() => {
                    sources.take_variable(name, value);
                }
                _ => {}
            }
        }
        sources.notices.sort();
        sources
    }

    fn take_document(&mut self, document: Node) {
        match document.content {
            Content::Map(entries) => self.take_section("", entries),
            Content::Null => {}
            Content::Text(_) | Content::List(_) => {
                let text = format!("wants keys with values (`listen: …`), not {}", document.kind());
                self.mistakes.push(Mistake::in_line(document.line, "", text));
            }
        }
    }

    fn take_section(&mut self, section: &str, entries: Vec<(Name, Node)>) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (name, value) in entries {
            let path =
                if section.is_empty() { name.text.clone() } else { format!("{section}.{}", name.text) };
            if let Some(first) = seen.insert(name.text.clone(), name.line) {
                let text = format!("given twice, first on line {first}; keep one of the two");
                self.mistakes.push(Mistake::in_line(name.line, path, text));
                continue;
            }
            // A name that contains a dot would form the path of a key in another section.
            let dotted = name.text.contains('.');
            match self.keys.iter().find(|key| key.path == path && !dotted) {
                Some(key) => _ = self.file.insert(key.path, (name.line, value)),
                None if self.is_section(&path) && !dotted => self.take_subsection(&path, &name, value),
                None => {
                    let text = unknown_key(self.keys, section, &name.text);
                    self.mistakes.push(Mistake::in_line(name.line, path, text));
                }
            }
        }
    }

    fn take_subsection(&mut self, path: &str, name: &Name, value: Node) {
        match value.content {
            Content::Map(entries) => self.take_section(path, entries),
            Content::Null => {}
            Content::Text(_) | Content::List(_) => {
                let text = format!("is a section: wants keys indented under it, not {}", value.kind());
                self.mistakes.push(Mistake::in_line(name.line, path, text));
            }
        }
    }

    fn is_section(&self, path: &str) -> bool {
        self.keys.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    /// An unknown variable is not a mistake, because Kubernetes derives variables from the names of services. One that
    /// resembles ours gets a notice.
    fn take_variable(&mut self, name: &str, value: OsString) {
        const TYPING_EDITS_MAX: usize = 2;
        if let Some(key) = self.keys.iter().find(|key| key.variable() == name) {
            self.variables.insert(key.path, value.into_string().ok());
            return;
        }
        let near =
            |key: &Key| unlikeness(&key.variable(), name).is_some_and(|edits| edits <= TYPING_EDITS_MAX);
        if let Some(key) = self.keys.iter().find(|key| near(key)) {
            self.notices.push(format!("{name} (environment) is ignored; did you mean {}?", key.variable()));
        }
    }

    /// Reads the value of `key`. An unreadable value is recorded as a mistake and replaced by the default, so that
    /// other keys can still be checked.
    pub(super) fn setting<T: Value>(&mut self, key: &'static Key, default: T) -> Setting<T> {
        let from_file = self.file.remove(key.path).filter(|(_, node)| !is_unset::<T>(node));
        let (read, origin) = if let Some(text) = self.variables.remove(key.path) {
            let text = text.ok_or_else(|| "is not UTF-8 text".to_owned());
            (text.and_then(|text| T::read(Written::Variable(&text))), Origin::Variable)
        } else if let Some((line, node)) = from_file {
            (T::read(Written::Yaml(&node)), Origin::Line(line))
        } else {
            return Setting { value: default, origin: Origin::Default, key };
        };
        match read {
            Ok(value) if !value.is_zero() => Setting { value, origin, key },
            Ok(value) => match key.zero {
                // As if it were not there: what contradicts it is to blame.
                Zero::IsDefault | Zero::EmptyIsDefault => {
                    Setting { value: default, origin: Origin::Default, key }
                }
                Zero::Refused(instead) => self.mistaken(key, origin, instead.to_owned(), default),
                Zero::Means(_) | Zero::Nothing => Setting { value, origin, key },
            },
            Err(text) => self.mistaken(key, origin, text, default),
        }
    }

    fn mistaken<T>(&mut self, key: &'static Key, origin: Origin, text: String, default: T) -> Setting<T> {
        self.mistakes.push(Mistake::of(key, origin, text));
        Setting { value: default, origin: Origin::Mistaken, key }
    }
}

/// No value, or an empty text for a type that has no empty value.
fn is_unset<T: Value>(node: &Node) -> bool {
    match &node.content {
        Content::Null => true,
        Content::Text(text) => text.is_empty() && !T::MAY_BE_EMPTY,
        Content::List(_) | Content::Map(_) => false,
    }
}
