//! How an upstream reads a request, what it answers, and what it does to the connection.

use std::time::Duration;

/// How a request's body is read.
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
    /// It is not read and no answer comes. The connection stays open until the peer closes it.
    HalfOpen,
}

/// How the connection ends.
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
    /// It is closed after the answer, which does not say so. The peer is left with a stale connection.
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
    /// After the next request of its tenant on its connection, or when the connection ends, the account is asked for,
    /// or the sink stops.
    AfterNext,
}

/// An answer, and how its request is stored by an upstream that keeps account of requests. The default is an empty 200
/// without delay.
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
    /// Whether the request counts as stored. `None` goes by the status. (An upstream may store and then fail to
    /// answer.)
    pub stored: Option<bool>,
    /// How it is stored, if it is.
    pub storing: Storing,
    /// These bytes in place of an HTTP response.
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

/// An empty 200, if an answer is sent at all.
impl From<Close> for Reply {
    fn from(close: Close) -> Self {
        Self { close, ..Self::default() }
    }
}

impl Reply {
    /// An empty 200, at once.
    #[must_use]
    pub fn ok() -> Self {
        Self::default()
    }

    /// These bytes, which need not be HTTP.
    #[must_use]
    pub fn raw(bytes: &[u8]) -> Self {
        Self { raw: Some(bytes.to_vec()), ..Self::default() }
    }

    /// An answer with these header lines, each with its CRLF, and a text.
    #[must_use]
    pub fn with(status: u16, lines: &str, body: &str) -> Self {
        let fields = lines.lines().filter_map(|line| line.split_once(": "));
        fields.fold(Self::new(status, body), |reply, (name, value)| reply.header(name, value))
    }

    /// An answer with a text.
    #[must_use]
    pub fn new(status: u16, body: &str) -> Self {
        Self { status, body: body.as_bytes().to_vec(), ..Self::default() }
    }

    /// With another header, such as `Retry-After`.
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
    #[must_use]
    pub fn answers(&self) -> bool {
        !matches!(self.close, Close::BeforeReply | Close::Reset | Close::MidReply | Close::Stall)
    }

    /// Whether it says that its request is stored.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.answers() && self.raw.is_none() && (200..300).contains(&self.status)
    }

    /// Whether its request is stored.
    #[must_use]
    pub fn stores(&self) -> bool {
        self.stored.unwrap_or(self.is_success())
    }

    /// Writes the bytes of the response into `out`, in place of what is there.
    pub fn write(&self, keep_alive: bool, out: &mut Vec<u8>) {
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
