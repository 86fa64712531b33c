//! Files and the system's roots: the only I/O of TLS, for a loader's thread and never for a core.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::pki_types::CertificateDer;

use super::material::Source;
use crate::limits::TLS_FILE_BYTES_MAX;

/// Files as they are on the disk. Reading may block for as long as a mount is dead.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Source for Disk {
    /// Reads at most [`TLS_FILE_BYTES_MAX`] bytes; more is an error.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        // Before it is opened: opening a pipe waits for a writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > TLS_FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is over the limit of {TLS_FILE_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }

    /// Those that OpenSSL would use, by `SSL_CERT_FILE` and `SSL_CERT_DIR` or where distributions have them.
    fn system_roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let why = found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
            return Err(why);
        }
        Ok(found.certs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pem");
        std::fs::write(&path, b"text").unwrap();
        assert_eq!(Disk.read(&path).unwrap(), b"text");
        File::create(&path).unwrap().set_len(TLS_FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(Disk.read(&path).unwrap_err().to_string(), "it is over the limit of 4194304 bytes");
        assert_eq!(Disk.read(folder.path()).unwrap_err().to_string(), "it is not a regular file");
        assert_eq!(Disk.read(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
