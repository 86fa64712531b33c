//! Writes an event's fields on one line, and escapes characters that could make it look like something else.
//!
//! The log contains untrusted text: an upstream's reason for a refusal, tenants' names and parts of requests. A line
//! break in it must not look like the start of another event. An escape sequence must not reach a terminal. No
//! character may change the direction of the text around it, or hide it. So every message and every value goes through
//! one writer, which escapes such characters as Rust does.
#![forbid(unsafe_code)]

use std::fmt::{self, Debug, Write};

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use crate::text::needs_escape;

/// Writes the message without a name and the other fields as `name=value`. All of them are escaped.
pub(super) fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(write_field).delimited(" ")
}

fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name() != "message" {
        match out.has_ansi_escapes() {
            true => write!(out, "\x1b[3m{}\x1b[0m\x1b[2m=\x1b[0m", field.name())?,
            false => write!(out, "{}=", field.name())?,
        }
    }
    write!(Escaped(out), "{value:?}")
}

/// Escapes the text written through it.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, letter)) = rest.char_indices().find(|&(_, letter)| needs_escape(letter)) {
            let (plain, behind) = rest.split_at(at);
            self.0.write_str(plain)?;
            write!(self.0, "{}", letter.escape_default())?;
            rest = behind.get(letter.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::written::Written;

    fn logged(ansi: bool, log_something: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let log = tracing_subscriber::fmt().with_ansi(ansi).fmt_fields(fields());
        let log = log.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, log_something);
        written.text()
    }

    #[test]
    fn an_event_stays_on_one_line() {
        let text = logged(false, || {
            tracing::error!(tenant = "a\nb", "answered 400: x\r\n2026-01-01T00:00:00Z  INFO forged\n");
            tracing::warn!(error = %"c\nd", "{}", "e\u{1b}[31mf\tg");
            tracing::info!("plain \"text\" \\n");
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(text.ends_with('\n') && !text.contains(['\r', '\u{1b}', '\t']));
        for (line, parts) in lines.iter().zip([
            [r" answered 400: x\r\n2026-01-01T00:00:00Z  INFO forged\n", r#" tenant="a\nb""#],
            [r" e\u{1b}[31mf\tg", r" error=c\nd"],
            [" INFO ", r#" plain "text" \n"#],
        ]) {
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        }
    }

    #[test]
    fn characters_that_reorder_or_hide_text_are_escaped() {
        let hidden = [
            '\u{0}',
            '\u{7}',
            '\u{8}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202b}',
            '\u{202c}',
            '\u{202d}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2067}',
            '\u{2068}',
            '\u{2069}',
            '\u{feff}',
            '\u{fffa}',
            '\u{e0041}',
        ];
        for letter in hidden {
            let text = logged(false, || {
                let text = letter.to_string();
                tracing::error!(shown = %letter, quoted = ?text, value = text, "<{letter}>");
            });
            assert!(!text.trim_end_matches('\n').contains(letter), "{letter:?} in {text:?}");
            assert!(text.contains(&format!("<{}>", letter.escape_default())), "{letter:?} in {text}");
        }
    }

    #[test]
    fn ordinary_text_is_not_changed() {
        let words = "größe 大きさ गति שלום ¡sí! “x” — 🙂 a\\b";
        let text = logged(false, || tracing::error!(said = %words, "{words}"));
        assert!(text.contains(&format!(" {words} said={words}\n")), "{text}");
    }

    #[test]
    fn only_our_own_colours_reach_the_terminal() {
        let text = logged(true, || tracing::error!(a = %"\u{1b}[32m", "b"));
        assert!(text.contains("\u{1b}[3ma\u{1b}[0m") && text.contains(r"\u{1b}[32m"), "{text:?}");
    }
}
