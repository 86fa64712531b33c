//! Reads the files that belong to a configuration.
#![forbid(unsafe_code)]

use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::forbidden::explained;
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// Reads a regular file of at most [`CONFIG_FILE_BYTES_MAX`] bytes. The error says what is wrong with it.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {}", explained(path, error));
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
