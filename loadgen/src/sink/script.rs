//! Answers on demand, for tests: what an upstream says, when, and whether it says anything at all.

use std::time::Duration;

use crate::http::Headers;
use crate::proto::{BlockError, WriteRequest};

/// Decides what becomes of each request. It is called on the connection's thread, by several at a time. A closure from
/// [`Arrival`] to [`Reply`] is a script that reads every body at once.
pub trait Script: Send + Sync {
    /// When the head of a request has come: whether and how its body is read.
    fn admit(&self, _approach: &Approach<'_>) -> Admission {
        Admission::Read
    }

    /// When a good request has come, whole: the answer to it.
    fn answer(&self, arrival: &Arrival<'_>) -> Reply;
}

impl<F: Fn(&Arrival<'_>) -> Reply + Send + Sync> Script for F {
    fn answer(&self, arrival: &Arrival<'_>) -> Reply {
        self(arrival)
    }
}

/// A request of which only the head is known.
#[derive(Debug)]
pub struct Approach<'a> {
    /// The tenant's header, if there is one.
    pub tenant: Option<&'a str>,
    /// Path and query.
    pub path: &'a str,
    /// All headers.
    pub headers: &'a Headers,
}

/// What becomes of a request's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// It is read as it comes.
    #[default]
    Read,
    /// It is read, but at most so many bytes a second.
    ReadSlowly {
        /// Bytes a second; 0 counts as 1.
        bytes_per_second: u64,
    },
    /// It is not read, and the connection is reset (RST).
    Reset,
    /// It is not read, and nothing is ever answered; the connection stays open until the peer closes it.
    HalfOpen,
}

/// A good request that waits for its answer.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The tenant's header.
    pub tenant: &'a str,
    /// The how-manieth request of this tenant it is, counted from 1.
    pub nth_of_tenant: u64,
    /// The how-manieth request of the sink, over all tenants, counted from 1.
    pub nth: u64,
    /// Which of the sink's connections it came over, counted from 0.
    pub connection: u64,
    /// The how-manieth request of its connection, counted from 1.
    pub nth_of_connection: u64,
    /// Series in it.
    pub series: u64,
    /// Float samples in it.
    pub samples: u64,
    /// Path and query.
    pub path: &'a str,
    /// All headers.
    pub headers: &'a Headers,
    /// The snappy block.
    pub body: &'a [u8],
    /// What it inflates to.
    pub inflated: &'a [u8],
}

impl Arrival<'_> {
    /// The body, decoded.
    ///
    /// # Errors
    /// Does not happen for what a sink passes to a script.
    pub fn decode(&self) -> Result<WriteRequest, BlockError> {
        WriteRequest::from_block(self.body)
    }
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Close {
    /// It stays open, if the peer wants it to.
    #[default]
    Never,
    /// It is closed instead of an answer.
    BeforeReply,
    /// It is reset (RST) instead of an answer.
    Reset,
    /// It is reset (RST) in the middle of the answer.
    MidReply,
    /// No answer comes, and it stays open until the peer closes it.
    Stall,
    /// It is closed after the answer, which says so.
    AfterReply,
    /// It is closed after the answer, which does not say so: the peer finds a stale connection.
    AfterReplyUnannounced,
}

/// How a request is stored, if it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Storing {
    /// Once, before its answer leaves.
    #[default]
    Once,
    /// Twice over.
    Twice,
    /// Under another tenant.
    Under(String),
    /// After the next request of its tenant on its connection; or when the connection ends, the account is asked for, or the sink stops.
    AfterNext,
}

/// An answer. The default is an empty 200, at once.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status; a 2xx stores the request.
    pub status: u16,
    /// Headers besides Content-Length and Connection.
    pub headers: Vec<(String, String)>,
    /// Body, sent as text.
    pub body: Vec<u8>,
    /// How long the answer takes.
    pub delay: Duration,
    /// What becomes of the connection.
    pub close: Close,
    /// Whether the request counts as stored; None to go by the status. (An upstream may store and then fail to answer.)
    pub stored: Option<bool>,
    /// How it is stored, if it is.
    pub storing: Storing,
    /// These bytes in place of an HTTP response, for answers that are none.
    pub raw: Option<Vec<u8>>,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: Vec::new(),
            delay: Duration::ZERO,
            close: Close::Never,
            stored: None,
            storing: Storing::Once,
            raw: None,
        }
    }
}

impl Reply {
    /// An answer with a text.
    #[must_use]
    pub fn new(status: u16, body: &str) -> Self {
        Self { status, body: body.as_bytes().to_vec(), ..Self::default() }
    }

    /// With one header more, such as `Retry-After`.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// After a delay.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Stored in this way, whatever the status.
    #[must_use]
    pub fn storing(mut self, storing: Storing) -> Self {
        self.stored = Some(true);
        self.storing = storing;
        self
    }

    /// With the connection's end.
    #[must_use]
    pub fn close(mut self, close: Close) -> Self {
        self.close = close;
        self
    }

    /// Whether an answer leaves at all.
    pub(super) fn answers(&self) -> bool {
        !matches!(self.close, Close::BeforeReply | Close::Reset | Close::MidReply | Close::Stall)
    }

    /// Whether it says that its request is stored.
    pub(crate) fn is_success(&self) -> bool {
        self.answers() && self.raw.is_none() && (200..300).contains(&self.status)
    }

    /// Whether its request is stored.
    pub(super) fn stores(&self) -> bool {
        self.stored.unwrap_or(self.is_success())
    }

    /// The bytes of the response.
    pub(super) fn write(&self, keep_alive: bool, out: &mut Vec<u8>) {
        out.clear();
        if let Some(raw) = &self.raw {
            out.extend_from_slice(raw);
            return;
        }
        out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).as_bytes());
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if !keep_alive && self.close != Close::AfterReplyUnannounced {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        // RFC 9110, section 15.3.5: a 204 has neither body nor Content-Length.
        if self.status == 204 {
            out.extend_from_slice(b"\r\n");
            return;
        }
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
        out.extend_from_slice(&self.body);
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
