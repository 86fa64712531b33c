//! The file of parts that were refused for good when they were sent: the setting `spool.dead_letter`.
//!
//! A line of JSON for each part, so that it can be looked at with the tools that there are; the part itself is in it as
//! base64 of what the spool has of it. The file only grows, and whoever has looked at it may move it away: it is opened
//! for each group of parts, which is rare. Beyond [`DEAD_LETTER_BYTES_MAX`] it takes none, and they stay in the spool.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::Spooled;
use super::limits::DEAD_LETTER_BYTES_MAX;

/// See the module.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
}

/// A part that was refused, as a line of the file says it.
#[derive(Debug, Deserialize)]
pub struct DeadLetter {
    /// When it was refused, in milliseconds since the epoch.
    pub refused_at: u64,
    /// The upstream's status and text.
    pub reason: String,
    part: String,
}

impl DeadLetters {
    /// Names the file, and makes sure that it can be written.
    ///
    /// # Errors
    /// Those of the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let letters = Self { path: path.to_owned() };
        letters.file()?;
        Ok(letters)
    }

    fn file(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)
    }

    /// Adds parts that were refused at `now`, in milliseconds since the epoch, each with the reason. They are durable
    /// then.
    ///
    /// # Errors
    /// Those of the file, also if it would hold more than [`DEAD_LETTER_BYTES_MAX`].
    pub fn add<'a>(&self, parts: impl Iterator<Item = (&'a Spooled, &'a str)>, now: u64) -> io::Result<()> {
        let mut lines = String::new();
        for (spooled, reason) in parts {
            lines += &line(spooled, reason, now)?;
        }
        let mut file = self.file()?;
        if file.metadata()?.len() + lines.len() as u64 > DEAD_LETTER_BYTES_MAX {
            let max = DEAD_LETTER_BYTES_MAX >> 20;
            return Err(io::Error::other(format!("it holds {max} MiB, and must be moved away")));
        }
        file.write_all(lines.as_bytes())?;
        file.sync_data()
    }
}

fn line(spooled: &Spooled, reason: &str, now: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    spooled
        .encode(&mut bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    let line = json!({
        "refused_at": now,
        "reason": reason,
        "tenant": spooled.part.tenant.as_str(),
        "upstream": &*spooled.upstream,
        "spooled_at": spooled.spooled_at,
        "series": spooled.part.series,
        "samples": spooled.part.samples,
        "part": STANDARD.encode(bytes),
    });
    Ok(format!("{line}\n"))
}

impl DeadLetter {
    /// Reads a line of the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map_err(|error| error.to_string())
    }

    /// The part.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn spooled(&self) -> Result<Spooled, String> {
        let bytes = STANDARD.decode(&self.part).map_err(|error| error.to_string())?;
        Spooled::decode(&bytes.into()).map_err(|error| error.to_string())
    }
}
