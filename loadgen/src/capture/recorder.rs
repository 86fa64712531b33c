//! Writes recorded requests: `000001.bin` with the body, and `000001.json` with what is known of its head.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::CaptureConfig;
use crate::http::RequestHead;

/// What has been recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Requests.
    pub requests: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
    /// Whether no more is recorded: a bound is reached, or a file could not be written.
    pub is_over: bool,
    /// Why a file could not be written.
    pub failure: Option<String>,
}

/// The description of a body.
#[derive(Serialize)]
struct Description<'a> {
    /// The path, without its query.
    path: &'a str,
    content_type: Option<&'a str>,
    content_encoding: Option<&'a str>,
    tenant_header: Option<TenantHeader<'a>>,
    received_at: String,
    bytes: usize,
}

#[derive(Serialize)]
struct TenantHeader<'a> {
    name: &'a str,
    value: &'a str,
}

/// Records requests up to its bounds.
#[derive(Debug)]
pub struct Recorder {
    dir: PathBuf,
    tenant_headers: Vec<String>,
    requests_max: usize,
    bytes_max: usize,
    state: Mutex<Recorded>,
}

impl Recorder {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it cannot be made or read, or has recorded requests already.
    pub fn new(config: &CaptureConfig) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&config.dir)?;
        for entry in fs::read_dir(&config.dir)? {
            if entry?.path().extension().is_some_and(|extension| extension == "bin") {
                return Err(io::Error::other("it has recorded requests already"));
            }
        }
        Ok(Self {
            dir: config.dir.clone(),
            tenant_headers: config.tenant_headers.clone(),
            requests_max: config.bodies,
            bytes_max: config.bytes_max,
            state: Mutex::default(),
        })
    }

    /// A panic elsewhere leaves counts that are still counts.
    fn state(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been recorded so far.
    pub fn recorded(&self) -> Recorded {
        self.state().clone()
    }

    /// Records a request, if the bounds allow it.
    pub fn record(&self, head: &RequestHead, body: &[u8]) {
        let Some(number) = self.reserve(body.len()) else { return };
        if let Err(error) = self.write(number, head, body) {
            let mut state = self.state();
            state.requests -= 1;
            state.bytes -= body.len();
            state.is_over = true;
            state.failure = Some(format!("{}: {error}", self.dir.display()));
        }
    }

    /// The number of the next request, counted from 1.
    fn reserve(&self, bytes: usize) -> Option<usize> {
        let mut state = self.state();
        let after = state.bytes.saturating_add(bytes);
        if state.is_over || after > self.bytes_max {
            state.is_over = true;
            return None;
        }
        state.requests += 1;
        state.bytes = after;
        state.is_over = state.requests >= self.requests_max;
        Some(state.requests)
    }

    /// Writes the body last: a body without its description would be read as something else.
    fn write(&self, number: usize, head: &RequestHead, body: &[u8]) -> io::Result<()> {
        let file = |extension: &str| self.dir.join(format!("{number:06}.{extension}"));
        let header = self.tenant_headers.iter().find_map(|name| {
            let value = head.headers.get(name).filter(|value| !value.is_empty())?;
            Some(TenantHeader { name, value })
        });
        let description = Description {
            path: head.path.split('?').next().unwrap_or_default(),
            content_type: head.headers.get("content-type"),
            content_encoding: head.headers.get("content-encoding"),
            tenant_header: header,
            received_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            bytes: body.len(),
        };
        let mut text = serde_json::to_vec_pretty(&description)?;
        text.push(b'\n');
        write_new(&file("json"), &text)?;
        write_new(&file("bin"), body).inspect_err(|_| drop(fs::remove_file(file("json"))))
    }
}

/// Writes a file that only its owner may read. What cannot be written completely is removed.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes).inspect_err(|_| drop(fs::remove_file(path)))
}
