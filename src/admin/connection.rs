//! Serves one admin connection: one request and its answer.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Server;
use super::api::{self, Tapping};
use super::document;
use super::eviction::{Connections, Slot};
use super::negotiation::{Coding, Wanted};
use super::pages::{Page, Snapshot};
use super::profiles;
use crate::auth::Authorization;
use crate::http::head::{Framing, Method, RequestHead};
use crate::io::buffers::Gather;
use crate::io::deadline::{Cut, Idle};
use crate::io::driver::Driver;
use crate::io::stream::Stream;
use crate::limits::{
    ADMIN_BYTES_PER_SEC_MIN, ADMIN_HEAD_BYTES_MAX, ADMIN_METRICS_MILLIS, ADMIN_TIMEOUT_MILLIS,
    CLOSE_DISCARD_BYTES_MAX, CLOSE_DISCARD_MILLIS,
};

/// Size of one read of a request's head.
const HEAD_CHUNK_BYTES: usize = 1_024;
/// Size of one read of data that is discarded.
const DISCARD_CHUNK_BYTES: usize = 8_192;

/// The relevant parts of a request.
struct Request {
    method: Method,
    path: Vec<u8>,
    query: Vec<u8>,
    authorization: Authorization,
    /// How it wants /metrics.
    wanted: Wanted,
    /// Whether it is from a browser.
    wants_html: bool,
    /// Whether the request has no body.
    all_read: bool,
}

impl Server {
    /// /metrics as a client wants it. All codings of a format come from one text.
    async fn metrics(&self, wanted: Wanted) -> Rc<Snapshot> {
        let plain = Wanted { coding: Coding::Identity, ..wanted };
        let (snapshots, connections) = (&self.snapshots, &self.connections);
        let render = async || self.pages.metrics(wanted.format, &self.sampler.borrow().auditor);
        if wanted == plain {
            return snapshots.take(plain.number(), connections, render).await;
        }
        let write = async || {
            let text = snapshots.take(plain.number(), connections, render).await;
            text.page.compressed(wanted.coding).await
        };
        snapshots.take(wanted.number(), connections, write).await
    }

    /// Serves a connection until it ends.
    pub(super) fn receive(self: &Rc<Self>, socket: OwnedFd, has_profiles: bool) {
        match Stream::accepted(socket, Driver::Epoll.blocking(), &self.deadlines) {
            Ok(stream) => {
                let slot = Connections::admit(&self.connections, stream.cutter());
                self.tasks.spawn(serve(Rc::clone(self), stream, slot, has_profiles));
            }
            Err(error) => tracing::debug!(%error, "an operator's connection was lost before it was served"),
        }
    }
}

/// What is sent to a client.
enum Response {
    /// Head and body.
    Whole(Vec<u8>, Bytes),
    /// The events of a tap, after a head with these lines.
    Stream(Tapping, Box<str>),
}

impl From<(Vec<u8>, Bytes)> for Response {
    fn from((head, body): (Vec<u8>, Bytes)) -> Self {
        Self::Whole(head, body)
    }
}

/// Serves a connection until it ends. Errors of the connection, timeouts included, are ignored.
async fn serve(server: Rc<Server>, mut stream: Stream, slot: Slot, has_profiles: bool) {
    let _ = answer_request(&server, &mut stream, &slot, has_profiles).await;
    // Closed before its slot is freed for the next connection.
    drop(stream);
    drop(slot);
}

async fn answer_request(
    server: &Server,
    stream: &mut Stream,
    slot: &Slot,
    has_profiles: bool,
) -> io::Result<()> {
    let timeout = Duration::from_millis(ADMIN_TIMEOUT_MILLIS);
    stream.set_deadline(Instant::now() + timeout, Cut::Both);
    // A silent client costs no buffer and no session.
    stream.idle(Idle::First).await?;
    if let Err(error) = server.secure(stream).await {
        stream.drop_session();
        discard_rest(server, stream).await;
        return Err(error);
    }
    let request = read_request(stream).await?;
    let (head, body) = match response(server, request.as_ref(), stream, slot, has_profiles).await {
        Response::Whole(head, body) => (head, body),
        Response::Stream(tapping, lines) => {
            server.stream(tapping, stream, &lines).await?;
            stream.finish_writing().await;
            return Ok(());
        }
    };
    let head_only = request.as_ref().is_some_and(|request| request.method == Method::Head);
    let body = if head_only { Bytes::new() } else { body };
    let transfer_time = Duration::from_secs((body.len() / ADMIN_BYTES_PER_SEC_MIN) as u64);
    stream.set_deadline(Instant::now() + timeout + transfer_time, Cut::Both);
    let mut left = Gather::new(vec![Bytes::from(head), body]);
    while !left.is_done() {
        left = stream.write_some(left).await?;
    }
    stream.finish_writing().await;
    if !request.is_some_and(|request| request.all_read) {
        discard_rest(server, stream).await;
    }
    Ok(())
}

/// The answer's head and body. The slot records the page that the answer keeps in memory.
async fn response(
    server: &Server,
    request: Option<&Request>,
    stream: &Stream,
    slot: &Slot,
    has_profiles: bool,
) -> Response {
    let plan = server.pages.plan();
    let lines = plan.admin_auth.header_lines();
    if let Some(Request { path, authorization, .. }) = request.filter(|request| request.path != b"/alive")
        && let Some(page) = server.refusal(authorization, stream).await
    {
        tracing::debug!(client = %stream.peer(), path = %path.escape_ascii(), "a page was refused");
        slot.answered(None);
        return page.parts(lines).into();
    }
    if let Some(Request { method: Method::Get, path, query, .. }) = request
        && path == b"/api/v1/tap"
    {
        slot.answered(None);
        return match server.tap(query) {
            Ok(tapping) => Response::Stream(tapping, lines.into()),
            Err(fault) => api::fault(fault).parts(lines).into(),
        };
    }
    let page = match request {
        Some(Request { method: Method::Get | Method::Head, path, wanted, .. }) if path == b"/metrics" => {
            // Rendering takes our time and not the client's.
            stream.set_deadline(Instant::now() + Duration::from_millis(ADMIN_METRICS_MILLIS), Cut::Both);
            let snapshot = server.metrics(*wanted).await;
            let parts = snapshot.page.parts(lines);
            slot.answered(Some(snapshot));
            return parts.into();
        }
        Some(Request { method: method @ (Method::Get | Method::Head), path, query, .. })
            if profiles::has(path) =>
        {
            slot.answered(None);
            match has_profiles {
                true => server.profiles(*method, path, &String::from_utf8_lossy(query), stream).await,
                false => profiles::elsewhere(),
            }
        }
        Some(Request { method: Method::Get | Method::Head, path, query, wants_html, .. }) => {
            match path.strip_prefix(b"/api/v1/") {
                Some(path) => {
                    // Waiting for a turn takes our time and not the client's, which is not slow for that.
                    slot.answered(None);
                    stream.set_deadline(
                        Instant::now() + Duration::from_millis(ADMIN_METRICS_MILLIS),
                        Cut::Both,
                    );
                    server.api(path, query, stream).await
                }
                None if path == b"/" && *wants_html => document::page(),
                None => server.pages.page(path),
            }
        }
        Some(_) => Page::text(405, "this page is for GET and HEAD\n"),
        None => Page::text(400, "bad request\n"),
    };
    slot.answered(None);
    page.parts(lines).into()
}

/// Reads the request; None if it is invalid or too long.
///
/// # Errors
/// When the connection was cut or broke before the request was complete.
async fn read_request(stream: &mut Stream) -> io::Result<Option<Request>> {
    let mut buffer = Vec::new();
    while buffer.len() < ADMIN_HEAD_BYTES_MAX {
        buffer.reserve(HEAD_CHUNK_BYTES);
        let (result, filled) = stream.read(buffer).await;
        buffer = filled;
        let n = result?;
        if n == 0 && stream.expired() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match RequestHead::parse(&buffer, "") {
            Ok(Some((head, length))) => {
                let path = buffer.get(head.path.clone()).unwrap_or_default().to_vec();
                let query = buffer.get(head.query.clone()).unwrap_or_default().to_vec();
                let wants_html = wants_html(buffer.get(..length).unwrap_or_default());
                let all_read = matches!(head.framing, Framing::None | Framing::Length(0));
                let authorization =
                    Authorization::parse(head.authorization.clone().and_then(|range| buffer.get(range)));
                let wanted = Wanted::parse(buffer.get(..length).unwrap_or_default());
                return Ok(Some(Request {
                    method: head.method,
                    path,
                    query,
                    authorization,
                    wanted,
                    wants_html,
                    all_read,
                }));
            }
            Ok(None) if n > 0 => {}
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether a head's `Accept` names HTML, as that of every browser does.
fn wants_html(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n');
    lines.any(|line| {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        name.eq_ignore_ascii_case(b"accept")
            && value.windows(9).any(|part| part.eq_ignore_ascii_case(b"text/html"))
    })
}

/// Reads and discards what the client still sends, for a limited time. Closing a socket with unread bytes sends a
/// reset, and the client might never see its answer.
async fn discard_rest(server: &Server, stream: &mut Stream) {
    stream.set_deadline(Instant::now() + Duration::from_millis(CLOSE_DISCARD_MILLIS), Cut::Both);
    let mut buffer = Vec::with_capacity(DISCARD_CHUNK_BYTES);
    let mut left = CLOSE_DISCARD_BYTES_MAX;
    while left > 0 {
        buffer.clear();
        let (result, filled) = stream.read(buffer).await;
        buffer = filled;
        match result {
            Ok(n) if n > 0 => {
                left = left.saturating_sub(n);
                server.tasks.record_work(n);
                server.tasks.yield_if_busy().await;
            }
            _ => return,
        }
    }
}
