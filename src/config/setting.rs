//! A setting: a key's value and where it was set.
#![forbid(unsafe_code)]

use super::key::{Key, Shown};
use super::mistake::{Mistake, Origin};
use super::value::Value;

/// A key's value and its origin.
#[derive(Clone, Debug)]
pub(super) struct Setting<T> {
    /// As written, or the default.
    pub(super) value: T,
    /// Where the value was set.
    pub(super) origin: Origin,
    pub(super) key: &'static Key,
}

impl<T> Setting<T> {
    pub(super) fn mistake(&self, text: impl Into<String>) -> Mistake {
        Mistake::of(self.key, self.origin, text)
    }
}

impl<T: Value> Setting<T> {
    /// The key and the value as it is shown.
    pub(super) fn shown(&self) -> (&'static str, String) {
        let shown = match self.key.shown {
            Shown::Masked if !self.value.is_zero() => "***".into(),
            Shown::Masked | Shown::Whole => self.value.show(),
            Shown::Target => self.value.masked().show(),
        };
        (self.key.path, shown)
    }
}

/// The settings as they are shown: keys and values, with secrets masked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effective(pub(super) Vec<(&'static str, String)>);

impl Effective {
    /// The value of a setting as it is shown.
    pub(super) fn get(&self, path: &str) -> &str {
        self.0.iter().find(|(key, _)| *key == path).map_or("", |(_, value)| value)
    }

    /// The text that says that a setting keeps its value.
    pub(super) fn stays(&self, path: &str) -> String {
        format!("{path} stays {}", self.get(path))
    }
}

impl std::fmt::Display for Effective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{key}={value}")?;
        }
        Ok(())
    }
}

/// The origin of each setting, and the name of the file that the line numbers refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    pub(super) file: String,
    pub(super) of: Vec<(&'static Key, Origin)>,
}

impl Origins {
    pub(super) fn find(&self, path: &str) -> Option<(&'static Key, Origin)> {
        self.of.iter().copied().find(|(key, _)| key.path == path)
    }
}
