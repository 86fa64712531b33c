//! The outcome of a part, and the answer to a sender. [`verdict`](crate::verdict) turns outcomes into an answer.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use crate::limits::{ERROR_BODY_BYTES_MAX, OVERLOAD_RETRY_AFTER_SECS};

/// What an upstream reports as written (Remote Write 2.0 specification, "Required Written Response Headers").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// `X-Prometheus-Remote-Write-Samples-Written`.
    pub samples: u64,
    /// `X-Prometheus-Remote-Write-Histograms-Written`.
    pub histograms: u64,
    /// `X-Prometheus-Remote-Write-Exemplars-Written`.
    pub exemplars: u64,
}

impl Written {
    /// Returns the header fields with their values. If a response has only some of them, the specification defines the
    /// others as 0.
    pub fn fields(&self) -> [(&'static str, u64); 3] {
        [
            ("X-Prometheus-Remote-Write-Samples-Written", self.samples),
            ("X-Prometheus-Remote-Write-Histograms-Written", self.histograms),
            ("X-Prometheus-Remote-Write-Exemplars-Written", self.exemplars),
        ]
    }
}

impl std::ops::Add for Written {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            samples: self.samples.saturating_add(other.samples),
            histograms: self.histograms.saturating_add(other.histograms),
            exemplars: self.exemplars.saturating_add(other.exemplars),
        }
    }
}

/// The origin of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client: its part is faulty and was not forwarded.
    Client,
    /// This process: one of its limits was reached.
    Us,
    /// The upstream, or the connection to it.
    Upstream,
}

/// The outcome of one fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its origin.
    pub source: Source,
    /// The upstream's status code, or the one that describes the failure.
    pub status: u16,
    /// `Retry-After` in seconds, if one was given.
    pub retry_after_secs: Option<u32>,
    /// What the upstream reports as written.
    pub written: Option<Written>,
    /// Whether the upstream took it without saying what it wrote, and has to say. Nobody knows then whether it is
    /// stored, and the same request would get the same answer.
    pub is_unwritten: bool,
    /// How many samples the upstream says that it has not taken, although it has stored the others: a partial success
    /// in OTLP.
    pub rejected: u64,
    /// The upstream's response body, or the reason for a failure; at most [`ERROR_BODY_BYTES_MAX`] bytes.
    pub message: Box<str>,
    /// How it was sent to the upstream, if it was.
    pub via: Option<Via>,
}

/// The upstream request that carried a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    /// The address that it went to.
    pub address: SocketAddr,
    /// The fragments that shared it, this one included.
    pub fragments: usize,
}

impl Outcome {
    /// Creates the outcome of a part that the upstream accepted with the 2xx `status` and `body`.
    pub fn delivered(status: u16, body: &[u8]) -> Self {
        Self::upstream(status, None, body)
    }

    /// Creates the outcome of a part that is durably in the spool, which will send it. `written`: what its sender hears
    /// of as written, in Remote Write 2.0.
    pub fn spooled(written: Option<Written>) -> Self {
        Self { source: Source::Us, written, ..Self::upstream(200, None, b"") }
    }

    /// Creates the outcome for an upstream's response. Keeps the first [`ERROR_BODY_BYTES_MAX`] bytes of `body`, and
    /// replaces bytes that are not UTF-8.
    pub fn upstream(status: u16, retry_after_secs: Option<u32>, body: &[u8]) -> Self {
        Self {
            source: Source::Upstream,
            status,
            retry_after_secs,
            written: None,
            is_unwritten: false,
            rejected: 0,
            message: text_of(body),
            via: None,
        }
    }

    /// Creates a 502 for an upstream that redirects with `status`. Redirects are not followed: credentials and data for
    /// one place must not go to another because a response says so. The message contains neither the Location nor the
    /// body, as these may hold credentials.
    pub fn redirected(status: u16, has_location: bool) -> Self {
        let with = if has_location { "with" } else { "without" };
        let message = format!(
            "the upstream redirects (status {status}, {with} a Location); redirects are not followed: the target \
             setting has to name the place itself"
        );
        Self::upstream(502, None, message.as_bytes())
    }

    /// Creates the outcome of a [`Failure`](super::Failure). A 503 asks the sender to wait.
    pub(super) fn failed(source: Source, status: u16, reason: &str) -> Self {
        let retry_after_secs = (status == 503).then_some(OVERLOAD_RETRY_AFTER_SECS);
        Self { source, ..Self::upstream(status, retry_after_secs, reason.as_bytes()) }
    }

    /// Whether a retry may succeed.
    pub fn invites_retry(&self) -> bool {
        Fate::of(self.sender_status()) >= Fate::Throttled
    }

    /// Whether the upstream has stored the part.
    pub fn is_delivered(&self) -> bool {
        Fate::of(self.sender_status()) == Fate::Delivered
    }

    /// Returns the status to show to the sender.
    pub(crate) fn sender_status(&self) -> u16 {
        sender_status(self.status)
    }

    /// Returns the `Retry-After` in seconds. Our own 503 always has one.
    pub(crate) fn wait_secs(&self) -> Option<u32> {
        let own = self.source == Source::Us && self.status == 503;
        self.retry_after_secs.or(own.then_some(OVERLOAD_RETRY_AFTER_SECS))
    }

    /// Returns the message to show to the sender.
    pub(crate) fn reason(&self) -> std::borrow::Cow<'_, str> {
        if self.sender_status() == self.status {
            return self.message.as_ref().into();
        }
        format!("the upstream answered with status {}. {}", self.status, self.message).into()
    }
}

/// Maps an upstream's status to the one to show to a sender. A status that is neither a success nor an error (such as
/// 304) is no valid answer to a push and becomes 502. So do 408 (RFC 9110 section 15.5.9) and nginx's 499: despite
/// being 4xx they mean that one hop gave up on another, so whether the data was stored is unknown and the content is
/// not at fault.
fn sender_status(status: u16) -> u16 {
    match status {
        408 | 499 => 502,
        200..300 | 400..600 => status,
        _ => 502,
    }
}

/// Whether an upstream's status rejects the content, as opposed to the sender's rate or because of the upstream's own
/// health.
pub fn blames_content(status: u16) -> bool {
    Fate::of(sender_status(status)) == Fate::Rejected
}

/// A body in another form than plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its media type.
    pub media: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The answer to a whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after_secs: Option<u32>,
    /// The sum of what the upstreams report as written; `None` unless every upstream that accepted its part reports it.
    pub written: Option<Written>,
    /// The body as plain text: empty, a short line of ours, or an upstream's message. At most [`ERROR_BODY_BYTES_MAX`]
    /// bytes.
    pub body: String,
    /// What is sent in place of `body`.
    pub content: Option<Box<Content>>,
    /// How many samples were not stored, if the status says that the others were: a partial success in OTLP.
    pub rejected: u64,
    /// The `Allow` header of a 405.
    pub allow: Option<&'static str>,
    /// The `WWW-Authenticate` lines of a 401, each with its CRLF.
    pub challenge: Option<Box<str>>,
    /// Whether the connection must be closed, whatever the client asked for. If this is false and the request's body
    /// was not read to its end, the caller must still read the rest or close the connection.
    pub close: bool,
}

impl Answer {
    /// Creates a 200 with an empty body.
    pub fn ok() -> Self {
        Self::new(200, String::new())
    }

    /// Whether the status tells a sender to retry the request.
    pub fn invites_retry(&self) -> bool {
        Fate::of(self.status) >= Fate::Throttled
    }

    /// Limits `Retry-After` to `max`, rounded up to a second. All tenants of a sender wait for as long as the upstream
    /// of one tenant asks.
    #[must_use]
    pub fn with_retry_after_max(mut self, max: Duration) -> Self {
        let max_secs = max.as_secs() + u64::from(max.subsec_nanos() > 0);
        let max_secs = u32::try_from(max_secs).unwrap_or(u32::MAX);
        self.retry_after_secs = self.retry_after_secs.map(|secs| secs.min(max_secs));
        self
    }

    pub(crate) fn new(status: u16, body: String) -> Self {
        Self {
            status,
            retry_after_secs: None,
            written: None,
            body,
            content: None,
            rejected: 0,
            allow: None,
            challenge: None,
            close: false,
        }
    }
}

/// What a status means to a sender. Variants are ordered by rank: the highest rank among the parts decides the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// 2xx.
    Delivered,
    /// 4xx except 429: a retry does not help.
    Rejected,
    /// 429: a later retry helps.
    Throttled,
    /// 5xx or no answer: a retry may help.
    Retriable,
}

impl Fate {
    /// The ranks of failure, worst first.
    pub(crate) const FAILED: [Self; 3] = [Self::Retriable, Self::Throttled, Self::Rejected];

    /// Returns the fate that `sender_status`, a status mapped for the sender, stands for.
    pub fn of(sender_status: u16) -> Self {
        match sender_status {
            200..300 => Self::Delivered,
            429 => Self::Throttled,
            400..500 => Self::Rejected,
            _ => Self::Retriable,
        }
    }

    /// Whether `status` represents this rank better than `other`.
    pub(crate) fn prefers(self, status: u16, other: u16) -> bool {
        if self == Self::Rejected { status < other } else { status > other }
    }
}

/// Returns the longest prefix of `text` of at most `bytes_max` bytes that ends between two characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.split_at(end).0
}

/// Decodes the start of a body, at most [`ERROR_BODY_BYTES_MAX`] bytes. A character that would be split is dropped;
/// other bytes that are not UTF-8 are replaced.
fn text_of(body: &[u8]) -> Box<str> {
    let mut start = body.get(..ERROR_BODY_BYTES_MAX).unwrap_or(body);
    if start.len() < body.len()
        && let Err(error) = std::str::from_utf8(start)
        && error.error_len().is_none()
    {
        start = start.get(..error.valid_up_to()).unwrap_or(start);
    }
    cut(&String::from_utf8_lossy(start), ERROR_BODY_BYTES_MAX).into()
}
