//! Reads the file and the environment, and builds the plan from them.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::keys::Config;
use super::mistake::{ConfigMistakes, Mistake};
use super::plan::{self, Plan};
use super::source::Sources;
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// Reads the file, if one is given, and the process environment. The error holds every mistake.
pub fn load(file: Option<&Path>) -> Result<Plan, ConfigMistakes> {
    let environment = std::env::vars_os();
    let Some(path) = file else { return parse("", "", environment) };
    let name = path.display().to_string();
    match read_file(path) {
        Ok(text) => parse(&name, &text, environment),
        Err(text) => {
            let mut sources = Sources::new("", environment);
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
            let mut sources = Sources::new("", std::iter::empty());
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
    conclude(name, Sources::new(text, environment))
}

fn conclude(name: &str, mut sources: Sources) -> Result<Plan, ConfigMistakes> {
    let config = Config::read(&mut sources);
    let mut mistakes = sources.mistakes;
    match plan::build(&config, &mut mistakes) {
        Some(mut plan) if mistakes.is_empty() => {
            plan.origins.file = name.to_owned();
            plan.notices.splice(0..0, sources.notices);
            Ok(plan)
        }
        _ => Err(ConfigMistakes::new(name, mistakes)),
    }
}

pub(super) fn read_file(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // Without this flag, opening a FIFO blocks until a writer opens it.
    let options = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).to_owned();
    let file = options.open(path).map_err(cannot)?;
    let kind = file.metadata().map_err(cannot)?.file_type();
    if !kind.is_file() {
        let what = match kind {
            _ if kind.is_fifo() => "a FIFO",
            _ if kind.is_dir() => "a directory",
            _ => "a device",
        };
        return Err(format!("is {what}, not a regular file"));
    }
    let mut bytes = Vec::new();
    let bytes_max = u64::try_from(CONFIG_FILE_BYTES_MAX).unwrap_or(u64::MAX);
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > CONFIG_FILE_BYTES_MAX {
        return Err(format!(
            "is larger than {CONFIG_FILE_BYTES_MAX} bytes: it is not a Tenantry configuration"
        ));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests;
