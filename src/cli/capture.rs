//! Reads captured requests: a file with the body as it was sent, `NAME.bin`, and beside it `NAME.json`, which describes
//! it. `loadgen capture` writes both, and loadgen/README.md has the keys. Without a description, the format is
//! detected.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;

use crate::explain::Hints;
use crate::limits::{CAPTURE_BYTES_MAX, CAPTURES_MAX};
use crate::text::escaped;

/// The extension of bodies.
const BODY: &str = "bin";

/// The extension of their descriptions.
const DESCRIPTION: &str = "json";

/// A captured request.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) bytes: Bytes,
    pub(super) hints: Hints,
    /// The value of its tenant header.
    pub(super) source: Option<String>,
}

/// A path for an error text.
pub(super) fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy()).into_owned()
}

/// Reads a body and, if there is one, its description. The error names the file.
pub(super) fn read(path: &Path) -> Result<Captured, String> {
    let bytes = read_file(path)?.into();
    let description = path.with_extension(DESCRIPTION);
    if path.extension().is_none_or(|extension| extension != BODY) || !description.exists() {
        return Ok(Captured { bytes, hints: Hints::default(), source: None });
    }
    let text = read_file(&description)?;
    let (hints, source) = describe(&text).map_err(|error| format!("{}: {error}", shown(&description)))?;
    Ok(Captured { bytes, hints, source })
}

/// The bodies in a directory, in the order of their names.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error: io::Error| format!("{}: cannot be read: {error}", shown(directory));
    let mut bodies = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|extension| extension == BODY) {
            bodies.push(path);
        }
        if bodies.len() > CAPTURES_MAX {
            return Err(format!("{}: has more than {CAPTURES_MAX} captured requests", shown(directory)));
        }
    }
    if bodies.is_empty() {
        return Err(format!("{}: has no captured request (*.{BODY})", shown(directory)));
    }
    bodies.sort_unstable();
    Ok(bodies)
}

/// Reads a regular file of at most [`CAPTURE_BYTES_MAX`] bytes.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("{}: cannot be read: {error}", shown(path));
    // Without this flag, opening a FIFO blocks until a writer opens it.
    let file: File =
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(format!("{}: is not a regular file", shown(path)));
    }
    let mut bytes = Vec::new();
    file.take(CAPTURE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > CAPTURE_BYTES_MAX {
        return Err(format!("{}: is larger than {CAPTURE_BYTES_MAX} bytes", shown(path)));
    }
    Ok(bytes)
}

/// Reads a description. Unknown keys are ignored.
fn describe(text: &[u8]) -> Result<(Hints, Option<String>), String> {
    let document: Value = serde_json::from_slice(text)
        .map_err(|error| format!("is not JSON: {}", escaped(&error.to_string())))?;
    let Value::Object(keys) = &document else { return Err("is not a JSON object".to_owned()) };
    let text_of = |value: Option<&Value>, key: &str| match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{key}` is not a text")),
    };
    let of = |key: &str| text_of(keys.get(key), key);
    let hints = Hints {
        path: of("path")?,
        content_type: of("content_type")?,
        content_encoding: of("content_encoding")?,
        protocol: None,
        compression: None,
    };
    let header = keys.get("tenant_header").filter(|header| !header.is_null());
    let source = match header {
        None => None,
        Some(Value::Object(header)) => text_of(header.get("value"), "tenant_header.value")?,
        Some(_) => return Err("`tenant_header` is not an object".to_owned()),
    };
    Ok((hints, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_texts_and_a_header() {
        let text = br#"{"path":"/push","content_type":null,"content_encoding":"zstd","more":[1],
            "tenant_header":{"name":"X-Scope-OrgID","value":"eu"}}"#;
        let (hints, source) = describe(text).unwrap();
        assert_eq!((hints.path.as_deref(), hints.content_type), (Some("/push"), None));
        assert_eq!((hints.content_encoding.as_deref(), source.as_deref()), (Some("zstd"), Some("eu")));
        assert!(matches!(describe(b"{}"), Ok((Hints { path: None, .. }, None))));
    }

    #[test]
    fn broken_descriptions_are_refused() {
        for (text, expected) in [
            ("", "is not JSON: EOF"),
            ("[]", "is not a JSON object"),
            (r#"{"path":1}"#, "`path` is not a text"),
            (r#"{"tenant_header":"eu"}"#, "`tenant_header` is not an object"),
            (r#"{"tenant_header":{"value":1}}"#, "`tenant_header.value` is not a text"),
        ] {
            let error = describe(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
