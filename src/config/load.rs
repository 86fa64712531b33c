//! Reads the file and the environment, and builds the plan from them.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;

use super::file::read_file;
use super::keys::{Config, KEYS};
use super::mistake::{ConfigMistakes, Mistake};
use super::plan::Plan;
use super::plan::build::build;
use super::source::Sources;

/// Reads the file, if one is given, and the process environment. The error holds every mistake.
pub fn load(file: Option<&Path>) -> Result<Plan, ConfigMistakes> {
    let environment = std::env::vars_os();
    let Some(path) = file else { return parse("", "", environment) };
    let name = path.display().to_string();
    match read_file(path) {
        Ok(text) => parse(&name, &text, environment),
        Err(text) => {
            let mut sources = Sources::new(KEYS, "", environment);
            sources.mistakes.push(Mistake::in_file(text));
            conclude(&name, sources)
        }
    }
}

/// Like [`load`], for a reload. `had_settings` says whether `file` had settings at startup.
///
/// A file that had settings then and has none now is most likely being written. Falling back to the defaults would send
/// the tenants' data elsewhere, or nowhere, so this is an error.
pub fn load_again(file: Option<&Path>, had_settings: bool) -> Result<Plan, ConfigMistakes> {
    match file {
        Some(path) if had_settings && !has_settings(Some(path)) => {
            let name = path.display().to_string();
            let mut sources = Sources::new(KEYS, "", std::iter::empty());
            sources.mistakes.push(Mistake::in_file("no longer has any settings".to_owned()));
            conclude(&name, sources)
        }
        _ => load(file),
    }
}

/// Whether the file contains anything but comments. An unreadable file counts as having settings.
pub fn has_settings(file: Option<&Path>) -> bool {
    let says_something = |line: &str| !matches!(line.trim_start().as_bytes(), [] | [b'#', ..] | b"---");
    file.is_some_and(|path| read_file(path).map_or(true, |text| text.lines().any(says_something)))
}

/// Like [`load`], from the file's name (used in errors), its text, and the environment's names and values.
pub fn parse(
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Plan, ConfigMistakes> {
    conclude(name, Sources::new(KEYS, text, environment))
}

fn conclude(name: &str, mut sources: Sources) -> Result<Plan, ConfigMistakes> {
    let config = Config::read(&mut sources);
    let mut mistakes = sources.mistakes;
    match build(&config, &mut mistakes) {
        Some(mut plan) if mistakes.is_empty() => {
            plan.origins.file = name.to_owned();
            plan.notices.splice(0..0, sources.notices);
            Ok(plan)
        }
        _ => Err(ConfigMistakes::new(name, mistakes)),
    }
}

#[cfg(test)]
mod tests;
