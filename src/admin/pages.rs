//! The pages of the admin port, and their HTTP responses.

use std::cell::Cell;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use super::compression::compress;
use super::exposition::{Sources, TenantsSeen};
use super::negotiation::{Coding, Format};
use super::{exposition, process};
use crate::config::plan::{Live, Plan};
use crate::exchange::fragment::Message;
use crate::exchange::mailbox::Post;
use crate::metrics::Metrics;
use crate::metrics::ledger::Auditor;
use crate::shared::Shared;

/// The sources of the pages.
#[derive(Debug)]
pub struct Pages {
    pub(super) metrics: Arc<Metrics>,
    pub(super) shared: Arc<Shared>,
    pub(super) driver: &'static str,
    pub(super) commit: &'static str,
    /// Take questions to the cores.
    pub(super) posts: Box<[Post<Message>]>,
    plan: Live,
    pub(super) started: Instant,
    /// What /metrics has found out about tenants. Only one thread asks for pages, so it never waits.
    seen: Mutex<TenantsSeen>,
}

/// A page and its HTTP status.
#[derive(Debug)]
pub struct Page {
    status: u16,
    media: &'static str,
    /// Header lines of this page, each with its CRLF.
    lines: Box<str>,
    body: Bytes,
}

/// Header lines of all pages but /metrics.
const FRESH: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
/// The policy of pages that have none of their own: a browser that shows one runs nothing.
const NO_CONTENT: &str = "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";

/// How to see more than the CPU time of threads.
const PROFILES: &str = "Where it goes, tells /debug/pprof/ on the address of listen_pprof, or:\n  \
    perf record -g -p $(pidof tenantry) -- sleep 10 && perf report\n";

/// What /metrics depends on.
const VARY: &str = "Vary: Accept, Accept-Encoding\r\n";

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const LINES: &str = "application/x-ndjson";
const JSON: &str = "application/json";

impl Page {
    /// A page of plain text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, media: TEXT, lines: Box::default(), body: Bytes::from(body.into()) }
    }

    /// A page with a body of this media type.
    pub(super) fn of(status: u16, media: &'static str, body: Bytes) -> Self {
        Self { status, media, lines: Box::default(), body }
    }

    /// A page for browsers.
    pub(super) fn html(body: &str) -> Self {
        Self { media: HTML, ..Self::text(200, body) }
    }

    /// A page of lines of JSON; there are none yet.
    pub(super) fn lines() -> Self {
        Self { media: LINES, ..Self::text(200, "") }
    }

    /// A page of JSON.
    pub(super) fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::of(status, JSON, body.into())
    }

    /// Adds header lines, each with its CRLF.
    pub(super) fn with_lines(self, lines: &str) -> Self {
        Self { lines: lines.into(), ..self }
    }

    /// The page in a coding, or as it is if that fails.
    pub(super) async fn compressed(&self, coding: Coding) -> Self {
        let (lines, body) = match compress(&self.body, coding).await {
            Some(body) => (format!("{}Content-Encoding: {}\r\n", self.lines, coding.name()).into(), body),
            None => (self.lines.clone(), self.body.clone()),
        };
        Self { status: self.status, media: self.media, lines, body }
    }

    /// The body's size in bytes.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// The response's head and body. `more` are header lines to add. The body is shared, not copied.
    pub(super) fn parts(&self, more: &str) -> (Vec<u8>, Bytes) {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            _ => "Error",
        };
        // What is true now may be wrong in a second, and /metrics is read by machines that do not cache.
        let fresh = if matches!(self.media, TEXT | HTML | JSON | LINES) { FRESH } else { "" };
        let policy = if matches!(self.media, TEXT | JSON | LINES) { NO_CONTENT } else { "" };
        let allow = if self.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}{fresh}{policy}{}{more}Connection: close\r\n\r\n",
            self.status,
            self.media,
            self.body.len(),
            self.lines,
        );
        (head.into_bytes(), self.body.clone())
    }
}

/// A page whose bytes count as held until it is dropped.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) page: Page,
    held: Rc<Cell<usize>>,
}

impl Snapshot {
    pub(super) fn new(page: Page, held: &Rc<Cell<usize>>) -> Self {
        held.set(held.get() + page.len());
        Self { page, held: Rc::clone(held) }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.page.len());
    }
}

impl Pages {
    /// Pages about these counters and about the current settings, without secrets.
    pub fn new(metrics: Arc<Metrics>, shared: Arc<Shared>, driver: &'static str, plan: Live) -> Self {
        Self {
            metrics,
            shared,
            driver,
            commit: "",
            posts: Box::default(),
            plan,
            started: Instant::now(),
            seen: Mutex::default(),
        }
    }

    /// Adds what takes questions to the cores.
    #[must_use]
    pub fn asking(self, posts: Box<[Post<Message>]>) -> Self {
        Self { posts, ..self }
    }

    /// Adds the commit that the program was built from.
    #[must_use]
    pub fn built_from(self, commit: &'static str) -> Self {
        Self { commit, ..self }
    }

    /// The plan in effect.
    pub(super) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// The page at `path`.
    pub fn page(&self, path: &[u8]) -> Page {
        match path {
            b"/metrics" => {
                let text = self.exposition(Format::Classic, &Auditor::default());
                Page { media: Format::Classic.media(), ..Page::text(200, text) }
            }
            b"/alive" if self.shared.is_shutting_down() => Page::text(503, "shutting down\n"),
            b"/alive" => Page::text(200, ""),
            b"/" => Page::text(200, self.status()),
            b"/debug/threads" => Page::text(200, threads()),
            _ => Page::text(404, "no such page; there are /, /metrics, /alive and /debug/threads\n"),
        }
    }

    /// /metrics, not compressed.
    pub(super) fn metrics(&self, format: Format, auditor: &Auditor) -> Page {
        Page { media: format.media(), ..Page::text(200, self.exposition(format, auditor)) }.with_lines(VARY)
    }

    /// The text of /metrics.
    pub(super) fn exposition(&self, format: Format, auditor: &Auditor) -> String {
        let plan = self.plan.load();
        let sources = Sources {
            metrics: &self.metrics,
            shared: &self.shared,
            driver: self.driver,
            plan: &plan,
            auditor,
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        exposition::render(&sources, &mut seen, format)
    }

    fn status(&self) -> String {
        let mut page = format!(
            "Tenantry {}, {}, up for {} s\n\n\
             requests in flight  {}\nbytes in flight     {}\n\n\
             core  connections  requests  lanes  waiting  upstream requests  merges  CPU s\n",
            env!("CARGO_PKG_VERSION"),
            self.driver,
            self.started.elapsed().as_secs(),
            self.shared.requests.in_flight(),
            self.shared.bytes.in_flight(),
        );
        for (k, core) in self.metrics.cores().iter().enumerate() {
            // Writing to a String can't fail.
            let _ = writeln!(
                page,
                "{k:<4}  {:>11}  {:>8}  {:>5}  {:>7}  {:>17}  {:>6}  {:>5.1}",
                core.connections_open.get(),
                core.requests.get(),
                core.lanes.total(),
                core.lanes_waiting.total(),
                core.upstream_requests.get(),
                core.merges.get(),
                process::thread_cpu_seconds(core.thread()).unwrap_or_default(),
            );
        }
        let _ = writeln!(page, "\nsettings\n  {}", self.plan.load().effective().replace(' ', "\n  "));
        page
    }
}

/// The CPU time of each thread, and how to profile further.
fn threads() -> String {
    let mut page = format!("{PROFILES}\nCPU seconds of each thread:\n");
    for (id, name) in process::threads() {
        let seconds = process::thread_cpu_seconds(id).unwrap_or_default();
        let _ = writeln!(page, "{id:>8}  {name:<16} {seconds:>10.3}");
    }
    page
}
