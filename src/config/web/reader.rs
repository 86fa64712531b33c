//! Reads sections and values, and collects mistakes and notices.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::config::mistake::Mistake;
use crate::config::value::{Value, Written};
use crate::config::yaml::{Content, Name, Node};

/// What has been read of a file so far.
pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) directory: &'a Path,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) notices: Vec<String>,
}

impl Reader<'_> {
    pub(super) fn mistake(&mut self, line: usize, key: &str, text: impl Into<String>) {
        self.mistakes.push(Mistake::in_line(line, key, text));
    }

    pub(super) fn notice(&mut self, line: usize, key: &str, text: impl std::fmt::Display) {
        self.notices.push(format!("{}:{line}: {key}: {text}", self.file));
    }

    pub(super) fn unknown(&mut self, section: &str, name: &Name) {
        self.mistake(name.line, &path(section, &name.text), "unknown key");
    }

    /// The entries of a section, each key once. None for an empty one.
    pub(super) fn section(&mut self, key: &str, node: Node) -> Vec<(Name, Node)> {
        let (line, kind) = (node.line, node.kind());
        let entries = match node.content {
            Content::Map(entries) => entries,
            Content::Null => return Vec::new(),
            Content::Text(_) | Content::List(_) => {
                self.mistake(line, key, format!("wants a section, not {kind}"));
                return Vec::new();
            }
        };
        let mut once: Vec<(Name, Node)> = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            match once.iter().find(|(earlier, _)| earlier.text == name.text) {
                Some((earlier, _)) => {
                    let text = format!("is already on line {}", earlier.line);
                    self.mistake(name.line, &path(key, &name.text), text);
                }
                None => once.push((name, node)),
            }
        }
        once
    }

    /// A value. `None` if it is unset or a mistake.
    pub(super) fn value<T: Value>(&mut self, key: &str, node: &Node) -> Option<T> {
        if node.content == Content::Null {
            return None;
        }
        match T::read(Written::Yaml(node)) {
            Ok(value) => Some(value),
            Err(text) => {
                self.mistake(node.line, key, text);
                None
            }
        }
    }

    /// A text that may be secret, so that an error does not quote it. An empty one is unset.
    pub(super) fn text(&mut self, key: &str, node: &Node) -> Option<String> {
        match &node.content {
            Content::Text(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Content::Null => None,
            Content::List(_) | Content::Map(_) => {
                self.mistake(node.line, key, format!("wants a single value, not {}", node.kind()));
                None
            }
        }
    }

    /// The path of a file, relative to the directory of the web configuration.
    pub(super) fn path(&mut self, key: &str, node: &Node) -> Option<PathBuf> {
        self.text(key, node).map(|text| self.directory.join(text))
    }

    /// The words of a list, with their lines.
    pub(super) fn list(&mut self, key: &str, node: &Node) -> Vec<(usize, String)> {
        let items = match &node.content {
            Content::List(items) => items,
            Content::Null => return Vec::new(),
            Content::Text(_) | Content::Map(_) => {
                self.mistake(node.line, key, format!("wants a list, not {}", node.kind()));
                return Vec::new();
            }
        };
        let word = |item: &Node| self.value::<String>(key, item).map(|word| (item.line, word));
        items.iter().filter_map(word).collect()
    }
}

/// The full path of a key, for errors.
pub(super) fn path(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}
