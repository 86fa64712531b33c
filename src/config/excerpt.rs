//! Excerpts of foreign text for error messages.
#![forbid(unsafe_code)]

/// A foreign text for an error message: quoted, escaped, cut.
pub(super) fn found(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
