//! The log: lines on standard error, and a limit to what a failing tenant may write into it.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::limits::{LOG_LINES_MAX, LOG_TENANTS_MAX, LOG_WINDOW_SECS};

/// Changes the level of the log that was started.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts the log; lines below `level` are not written. Later calls change nothing.
pub fn init(level: LevelFilter) {
    let (filter, handle) = reload::Layer::new(level);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(|| OneLine(std::io::stderr()));
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// From now on, lines below `level` are not written.
pub fn set_level(level: LevelFilter) {
    if let Some(handle) = LEVEL.get() {
        // Fails only when the log is gone, and then there is nobody to tell.
        let _ = handle.reload(level);
    }
}

/// Keeps an event on one line. What an upstream says of a refusal is logged, and a line break in it must not pass for
/// the start of another event. (The subscriber escapes what a terminal would act on, and leaves line breaks as they are.)
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    /// Writes one event, which is what the subscriber hands over at a time.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (text, end) = event.strip_suffix(b"\n").map_or((event, &b""[..]), |text| (text, b"\n"));
        let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
        if !text.iter().any(breaks) {
            self.0.write_all(event)?;
            return Ok(event.len());
        }
        let mut line = Vec::with_capacity(event.len() + 16);
        for byte in text {
            match byte {
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                other => line.push(*other),
            }
        }
        line.extend_from_slice(end);
        self.0.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Allows each tenant some lines in a window of time, and counts those that it did not write. Pure: it is told the
/// time.
#[derive(Debug, Default)]
pub struct Limiter {
    tenants: HashMap<Box<str>, Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Limiter {
    /// Whether a line about `tenant` may be written now; if so, how many have been suppressed before it.
    pub fn allow(&mut self, tenant: &str, now: Instant) -> Option<u64> {
        let length = Duration::from_secs(LOG_WINDOW_SECS);
        if self.tenants.len() >= LOG_TENANTS_MAX && !self.tenants.contains_key(tenant) {
            self.tenants.retain(|_, window| now.saturating_duration_since(window.since) < length);
        }
        let key = if self.tenants.len() < LOG_TENANTS_MAX || self.tenants.contains_key(tenant) {
            tenant
        } else {
            ""
        };
        let window = self.tenants.entry(key.into()).or_insert(Window { since: now, lines: 0, suppressed: 0 });
        if now.saturating_duration_since(window.since) >= length {
            (window.since, window.lines) = (now, 0);
        }
        if window.lines >= LOG_LINES_MAX {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let written = Written::default();
        let writer = written.clone();
        let log =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || OneLine(writer.clone())).finish();
        tracing::subscriber::with_default(log, || {
            tracing::error!(
                tenant = "a\nb",
                "upstream answered 400: x\r\n2026-01-01T00:00:00Z  INFO forged\n"
            );
            tracing::warn!(error = %"c\nd", "{}", "e\u{1b}[31mf");
            tracing::info!("plain");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(text.ends_with('\n') && !text.contains(['\r', '\u{1b}']));
        for (line, parts) in lines.iter().zip([
            [r"400: x\r\n2026-01-01T00:00:00Z  INFO forged\n", r#"tenant="a\nb""#],
            [r"\x1b[31mf", r"error=c\nd"],
            ["INFO", "plain"],
        ]) {
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        }
    }

    #[test]
    fn a_tenant_may_write_some_lines_in_a_window_and_is_told_what_was_suppressed() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for _ in 0..LOG_LINES_MAX {
            assert_eq!(limiter.allow("a", start), Some(0));
        }
        assert_eq!(limiter.allow("a", start), None);
        assert_eq!(limiter.allow("a", start), None);
        assert_eq!(limiter.allow("b", start), Some(0), "another tenant is not concerned");
        let next = start + Duration::from_secs(LOG_WINDOW_SECS);
        assert_eq!(limiter.allow("a", next), Some(2));
        assert_eq!(limiter.allow("a", next), Some(0));
    }

    #[test]
    fn ever_new_tenants_take_bounded_memory_and_share_one_allowance() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let allowed = (0..5_000).filter(|i| limiter.allow(&format!("t{i}"), start).is_some()).count();
        assert!(limiter.tenants.len() <= LOG_TENANTS_MAX + 1);
        assert_eq!(allowed, LOG_TENANTS_MAX + LOG_LINES_MAX as usize);
        let later = start + Duration::from_secs(LOG_WINDOW_SECS);
        assert!(limiter.allow("new", later).is_some(), "windows that are over make room");
        assert!(limiter.tenants.len() < 10);
    }
}
