//! Checks that a body is JSON, before anything relies on its syntax.
#![forbid(unsafe_code)]

use super::cursor::plain_len;
use crate::limits::JSON_FAULT_CHARS_MAX;

/// The body is not JSON. The sender is at fault, and a retry does not help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body is not JSON: {0}")]
pub struct NotJson(String);

/// Values in values, as serde_json and others read them by default. A deeper document is no export: its receivers
/// refuse it.
const DEPTH_MAX: usize = 128;

/// Checks that `text` is one JSON document in UTF-8, whose strings are Unicode.
///
/// # Errors
/// If it is not, or is nested more deeply than [`DEPTH_MAX`] values.
pub fn check(text: &[u8]) -> Result<(), NotJson> {
    let read = std::str::from_utf8(text).map_err(|error| error.to_string()).and_then(|text| {
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| error.to_string())?;
        check_skipped(text.as_bytes()).map_err(|(fault, at)| format!("{fault} at byte {at}"))
    });
    read.map_err(|text| {
        let shown = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        NotJson(shown.take(JSON_FAULT_CHARS_MAX).collect())
    })
}

/// Checks the depth of a document, and that no half of a surrogate pair is alone. `IgnoredAny` looks at neither.
///
/// # Errors
/// What is wrong, and where.
fn check_skipped(text: &[u8]) -> Result<(), (&'static str, usize)> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => {
                at = check_string(text, at + 1)?;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(("it is nested too deeply", at));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Checks the escapes of a string whose content begins here. Returns where it has ended.
fn check_string(text: &[u8], mut at: usize) -> Result<usize, (&'static str, usize)> {
    loop {
        at += plain_len(text.get(at..).unwrap_or_default());
        match text.get(at) {
            Some(b'\\') => {
                at += escape_len(text.get(at..).unwrap_or_default()).ok_or((LONE_SURROGATE, at))?
            }
            _ => return Ok(at + 1),
        }
    }
}

const LONE_SURROGATE: &str = "a string has half of a surrogate pair";

/// The length of an escape, or of the two of a surrogate pair; `None` if one half of it is missing.
fn escape_len(text: &[u8]) -> Option<usize> {
    let unit = |text: &[u8]| {
        let digits = text.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match unit(text) {
        Some(0xd800..=0xdbff) => {
            let low = unit(text.get(6..)?)?;
            (0xdc00..=0xdfff).contains(&low).then_some(12)
        }
        Some(0xdc00..=0xdfff) => None,
        Some(_) => Some(6),
        None => Some(2),
    }
}
