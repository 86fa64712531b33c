//! What is known about a key of the configuration, except its value.
#![forbid(unsafe_code)]

/// A key and everything known about it except its value.
#[derive(Debug)]
pub struct Key {
    /// The section names and the key's own name, joined by dots.
    pub path: &'static str,
    /// The name of its variable, if it is not `CT_` plus the path in capitals.
    pub(super) variable: Option<&'static str>,
    /// How much of the value is shown.
    pub(super) shown: Shown,
    pub(super) zero: Zero,
    /// What the setting does.
    pub(super) what: &'static str,
    /// When to change the setting.
    pub(super) who: &'static str,
    /// The default value as YAML.
    pub(super) default: fn() -> String,
}

/// How much of a value the log and the status page show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The whole value.
    Whole,
    /// Only whether there is one.
    Masked,
    /// A target with its possible secrets masked.
    Target,
}

/// What 0, or an empty value, means for a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Zero {
    /// The same as leaving the key unset, as in cortex-tenant. Used for keys whose default is not empty.
    IsDefault,
    /// The same, for a text.
    EmptyIsDefault,
    /// A value of its own; the text says what it means.
    Means(&'static str),
    /// A mistake; the text says what to write instead.
    Refused(&'static str),
    /// The type has no such value, or it needs no explanation.
    Nothing,
}

impl Key {
    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        match self.variable {
            Some(name) => name.to_owned(),
            None => format!("CT_{}", self.path.to_uppercase().replace('.', "_")),
        }
    }
}
