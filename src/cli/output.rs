//! What commands print, and how they exit.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;
use tracing::Level;

use crate::text::needs_escape;
use crate::{config, log};

/// Exit code for a bad command line or configuration: `EX_USAGE` of sysexits.h. Nothing has been opened then.
pub(super) const EXIT_USAGE: u8 = 64;

/// Exit code of `tenantry plan` if the new configuration changes something.
pub(super) const EXIT_CHANGES: u8 = 2;

/// Prints to standard output. A closed pipe (`| head`) is not a failure.
pub(super) fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Prints a JSON document. Characters that could harm a terminal are escaped; in JSON they can only be in texts.
pub(super) fn print_json(document: &Value) -> ExitCode {
    print(&format!("{}\n", harmless_json(document)))
}

fn harmless_json(document: &Value) -> String {
    harmless(&format!("{document:#}"))
}

/// A JSON document in one line, with the same escapes.
pub(super) fn harmless_line(document: &Value) -> String {
    harmless(&document.to_string())
}

fn harmless(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter == '\n' || !needs_escape(letter) {
            shown.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            shown.push_str(&format!("\\u{unit:04x}"));
        }
    }
    shown
}

pub(super) fn print_error(text: &dyn std::fmt::Display) {
    log::print_before_start(Level::ERROR, text);
}

/// Prints all mistakes of a configuration.
pub(super) fn report_mistakes(mistakes: &config::ConfigMistakes) -> ExitCode {
    print_error(mistakes);
    ExitCode::from(EXIT_USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_document_and_harms_no_terminal() {
        let document = serde_json::json!({"a\u{202e}": "ü\u{e0041}\u{7f}\n\u{1b}", "b": [1, null]});
        let shown = harmless_json(&document);
        assert!(shown.contains("ü") && shown.lines().count() > 3, "{shown}");
        assert!(!shown.replace('\n', "").contains(needs_escape), "{shown:?}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), document);
        let line = harmless_line(&document);
        assert!(!line.contains(needs_escape), "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), document);
    }
}
