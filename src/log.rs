//! The log: lines on standard error, with a limit on the lines about a failing tenant.
//!
//! Logging puts a line into a queue (module `queue`) and returns; a thread writes it. An event stays on one line,
//! whatever its text contains (module `escape`), in the format of `log_format` (module `format`).

pub mod access;
mod escape;
mod format;
mod queue;
#[cfg(test)]
mod written;

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use self::format::Lines;
pub use self::format::LogFormat;
use self::queue::Queue;
use crate::limits::{LOG_FLUSH_MILLIS, LOG_LINES_MAX, LOG_TENANTS_MAX, LOG_WINDOW_SECS};

/// The log, once it is started.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    /// Changes the level.
    level: reload::Handle<LevelFilter, Registry>,
    queue: Queue,
    format: Lines,
}

/// Starts the log, with lines in `format`. Lines below `level` are not written. Later calls have no effect.
///
/// # Errors
/// When the thread cannot be started.
pub fn init(level: LevelFilter, format: LogFormat) -> io::Result<()> {
    let (filter, handle) = reload::Layer::new(level);
    let format = Lines::choose(format, io::stderr());
    let queue = Queue::start(io::stderr(), format)?;
    let sender = queue.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(format.has_colours(&io::stderr()))
        .event_format(format)
        .fmt_fields(escape::fields())
        .with_writer(move || QueueWriter(sender.clone()));
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = LOG.set(Log { level: handle, queue, format });
    }
    Ok(())
}

/// Prints a message to standard error before the log is started, such as a mistake in the configuration.
pub fn print_before_start(level: Level, message: &dyn std::fmt::Display) {
    // If it cannot be printed, nobody can be told.
    let _ = io::stderr().lock().write_all(format::before_start(level, &message.to_string()).as_bytes());
}

/// Sets the level: lines below it are not written from now on.
pub fn set_level(level: LevelFilter) {
    if let Some(log) = LOG.get() {
        // Fails only when the log is gone, and then the level has no effect.
        let _ = log.level.reload(level);
    }
}

/// Begins a line of this level on standard error, which something else than the log will write: a panic's message.
pub fn begin_line(level: Level) {
    if let Some(log) = LOG.get() {
        let _ = io::stderr().lock().write_all(log.format.prefix(level).as_bytes());
    }
}

/// Waits until all logged lines are written, for at most [`LOG_FLUSH_MILLIS`]. Called before the process ends.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.queue.flush(Duration::from_millis(LOG_FLUSH_MILLIS));
    }
}

/// The number of lines lost, because the log was read too slowly or could not be written.
pub fn dropped_lines() -> u64 {
    LOG.get().map_or(0, |log| log.queue.dropped())
}

/// The number of lines that are logged but not written yet.
pub fn waiting_lines() -> usize {
    LOG.get().map_or(0, |log| log.queue.waiting())
}

/// Puts each event into the queue. The subscriber writes one event per call.
struct QueueWriter(Queue);

impl Write for QueueWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.push(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Allows each tenant some lines per window of time, and counts the lines it suppresses. Callers pass the time.
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
    /// The number of lines suppressed before this one, or None if a line about `tenant` may not be written now.
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
    use super::*;

    #[test]
    fn a_tenant_may_log_some_lines_per_window_and_suppressed_lines_are_counted() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for _ in 0..LOG_LINES_MAX {
            assert_eq!(limiter.allow("a", start), Some(0));
        }
        assert_eq!(limiter.allow("a", start), None);
        assert_eq!(limiter.allow("a", start), None);
        assert_eq!(limiter.allow("b", start), Some(0), "another tenant is not affected");
        let next = start + Duration::from_secs(LOG_WINDOW_SECS);
        assert_eq!(limiter.allow("a", next), Some(2));
        assert_eq!(limiter.allow("a", next), Some(0));
    }

    #[test]
    fn many_tenants_take_bounded_memory_and_the_last_share_one_allowance() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let allowed = (0..5_000).filter(|i| limiter.allow(&format!("t{i}"), start).is_some()).count();
        assert!(limiter.tenants.len() <= LOG_TENANTS_MAX + 1);
        assert_eq!(allowed, LOG_TENANTS_MAX + LOG_LINES_MAX as usize);
        let later = start + Duration::from_secs(LOG_WINDOW_SECS);
        assert!(limiter.allow("new", later).is_some(), "windows that are over make room");
        assert!(limiter.tenants.len() < 10);
    }
}
