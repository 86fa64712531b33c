//! The formats of a log line.
//!
//! An event is one line in each of them, whatever its text contains: module `escape` escapes the fields of the text
//! formats, and this one escapes the same characters in JSON.
#![forbid(unsafe_code)]

use std::fmt::{self, Debug, Write};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::text::needs_escape;

/// The setting `log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// [`LogFormat::Journald`] if standard error is a stream of the journal, else [`LogFormat::Text`].
    Auto,
    /// Lines for people: time, level, message, fields.
    Text,
    /// A JSON object per line.
    Json,
    /// Lines that begin with the level as the journal reads it, without the time, which the journal adds.
    Journald,
}

/// The format of all lines of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// Time, level, message, fields.
    Text,
    /// An object with `time`, `level`, `message` and a key per field.
    Json,
    /// `<N>` with the priority N, message, fields: sd-daemon(3). The journal adds the time.
    Journald,
}

impl Lines {
    /// The format that `wanted` stands for when the log is `out`.
    pub(super) fn choose(wanted: LogFormat, out: impl AsFd) -> Self {
        match wanted {
            LogFormat::Auto if is_journal(out, std::env::var("JOURNAL_STREAM").ok().as_deref()) => {
                Self::Journald
            }
            LogFormat::Auto | LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
            LogFormat::Journald => Self::Journald,
        }
    }

    /// Whether lines on `out` have colours.
    pub(super) fn has_colours(self, out: &impl IsTerminal) -> bool {
        self == Self::Text && out.is_terminal()
    }

    /// What the journal needs before a line of unknown text.
    pub(super) fn prefix(self, level: Level) -> String {
        match self {
            Self::Text | Self::Json => String::new(),
            Self::Journald => format!("<{}>", priority(level)),
        }
    }

    /// A whole line with a message of our own, which has nothing to escape, and no fields.
    pub(super) fn line(self, level: Level, message: &str) -> String {
        match self {
            Self::Text => format!("{} {level:>5} {message}\n", now()),
            Self::Json => format!("{}}}\n", json_head(level, message)),
            Self::Journald => format!("<{}>{message}\n", priority(level)),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        match self {
            Self::Text => Format::default().with_target(false).format_event(context, out, event),
            Self::Json => {
                let mut fields = Fields::default();
                event.record(&mut fields);
                writeln!(out, "{}{}}}", json_head(level, &fields.message), fields.rest)
            }
            Self::Journald => {
                write!(out, "<{}>", priority(level))?;
                context.format_fields(out.by_ref(), event)?;
                writeln!(out)
            }
        }
    }
}

/// Whether `out` is the stream to the journal that systemd announces in `$JOURNAL_STREAM`, as `device:inode`. If the
/// service has redirected standard error, the variable may still be there.
fn is_journal(out: impl AsFd, announced: Option<&str>) -> bool {
    let Some((device, inode)) = announced.and_then(|text| text.split_once(':')) else { return false };
    let same = |file: File| {
        let is = file.metadata().ok()?;
        Some(device.parse() == Ok(is.dev()) && inode.parse() == Ok(is.ino()))
    };
    out.as_fd().try_clone_to_owned().ok().and_then(|copy| same(File::from(copy))).unwrap_or(false)
}

/// The priority of syslog(3).
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

pub(super) fn now() -> String {
    let mut time = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

/// The beginning of an object, up to and with the message.
pub(super) fn json_head(level: Level, message: &str) -> String {
    let level = level.as_str().to_ascii_lowercase();
    format!("{{\"time\":\"{}\",\"level\":\"{level}\",\"message\":{}", now(), json(&message.into()))
}

/// A value in JSON, in which all characters are escaped that the text formats escape.
fn json(value: &Value) -> String {
    let plain = value.to_string();
    if !plain.contains(needs_escape) {
        return plain;
    }
    let mut escaped = String::with_capacity(2 * plain.len());
    for letter in plain.chars() {
        if needs_escape(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// The fields of an event: the message, and the others as the rest of an object.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &Value) {
        let _ = write!(self.rest, ",{}:{}", json(&field.name().into()), json(value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.add(field, &text.into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            _ => self.add(field, &value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, &value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, &value.into());
    }
}

/// A message before the log has started, such as a mistake in the configuration. Each of its lines has `level` if
/// standard error is the journal.
pub(super) fn before_start(level: Level, message: &str) -> String {
    match Lines::choose(LogFormat::Auto, io::stderr()) {
        Lines::Journald => message.lines().map(|line| Lines::Journald.line(level, line)).collect(),
        _ => format!("{message}\n"),
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::log::written::Written;

    fn logged(lines: Lines, log_something: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).event_format(lines);
        let layer = layer.fmt_fields(crate::log::escape::fields()).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log_something);
        written.text()
    }

    #[test]
    fn the_journal_gets_levels_and_no_time() {
        let text = logged(Lines::Journald, || {
            tracing::error!(tenant = "a", "failed\n<7>forged");
            tracing::warn!("warned");
            tracing::info!(n = 1, "told");
            tracing::debug!("looked");
        });
        assert_eq!(text, "<3>failed\\n<7>forged tenant=\"a\"\n<4>warned\n<6>told n=1\n<7>looked\n");
    }

    #[test]
    fn an_object_per_line_has_values_with_their_types() {
        let text = logged(Lines::Json, || {
            let (n, is, part) = (-3, true, 0.5);
            tracing::warn!(tenant = "a\"b", n, is, part, error = %"x\ny", "one {}", "two");
            tracing::info!(only = ?Some("field"));
        });
        let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), 2, "{text}");
        let first = &objects[0];
        assert!(first["time"].as_str().unwrap().ends_with('Z'), "{first}");
        assert_eq!((&first["level"], &first["message"]), (&"warn".into(), &"one two".into()));
        assert_eq!((&first["tenant"], &first["error"]), (&"a\"b".into(), &"x\ny".into()));
        assert_eq!((&first["n"], &first["is"], &first["part"]), (&(-3).into(), &true.into(), &0.5.into()));
        assert_eq!((&objects[1]["message"], &objects[1]["only"]), (&"".into(), &"Some(\"field\")".into()));
    }

    #[test]
    fn hidden_characters_are_escaped_in_json_and_mean_the_same() {
        let said = "a\u{202e}b\u{9b}c\u{7f}d\u{1b}e\u{e0041}f größe";
        let text = logged(Lines::Json, || tracing::error!(said, "{said}"));
        assert!(!text.trim_end().contains(needs_escape), "{text:?}");
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&object["said"], &object["message"]), (&said.into(), &said.into()));
    }

    #[test]
    fn a_line_of_our_own_looks_like_the_others() {
        for lines in [Lines::Text, Lines::Json, Lines::Journald] {
            let event = logged(lines, || tracing::warn!("3 lines are missing"));
            let own = lines.line(Level::WARN, "3 lines are missing");
            // Only the digits of the time differ.
            let shape = |text: &str| text.replace(|letter: char| letter.is_ascii_digit(), "0");
            assert_eq!(shape(&own), shape(&event), "{lines:?}");
        }
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let (_reader, writer) = io::pipe().unwrap();
        let is = File::from(writer.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap();
        let announced = format!("{}:{}", is.dev(), is.ino());
        assert!(is_journal(&writer, Some(&announced)));
        let other = format!("{}:{}", is.dev(), is.ino() + 1);
        for announced in [None, Some(""), Some("8"), Some("x:y"), Some(other.as_str())] {
            assert!(!is_journal(&writer, announced), "{announced:?}");
        }
        assert_eq!(Lines::choose(LogFormat::Journald, &writer), Lines::Journald);
        assert_eq!(Lines::choose(LogFormat::Json, &writer), Lines::Json);
    }
}
