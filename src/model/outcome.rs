//! What became of a part, and what a sender is answered. Which outcomes make which answer is told in
//! [`verdict`](crate::verdict).
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::limits::{ERROR_BODY_BYTES_MAX, OVERLOAD_RETRY_AFTER_SECS};

/// What was written of a request (Remote Write 2.0 specification, "Required Written Response Headers").
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
    /// The fields, by name; where one is missing although another is there, the specification says 0.
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

/// Who an outcome comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The sender: the part was not worth forwarding.
    Client,
    /// This process: a limit was reached.
    Us,
    /// The upstream, or the way to it.
    Upstream,
}

/// What became of one fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Who says so.
    pub source: Source,
    /// The status code: the upstream's own, or the one that tells a sender what happened.
    pub status: u16,
    /// How long to wait before a retry, in seconds, when that was said.
    pub retry_after_secs: Option<u32>,
    /// What the upstream says to have stored.
    pub written: Option<Written>,
    /// The upstream's body, or the reason; at most [`ERROR_BODY_BYTES_MAX`] bytes.
    pub message: Box<str>,
}

impl Outcome {
    /// The upstream took it. `status` is its 2xx, `body` what it had to say.
    pub fn delivered(status: u16, body: &[u8]) -> Self {
        Self::upstream(status, None, body)
    }

    /// The upstream answered with `status` and `body`, of which the first [`ERROR_BODY_BYTES_MAX`] bytes are kept;
    /// bytes that are not UTF-8 are replaced.
    pub fn upstream(status: u16, retry_after_secs: Option<u32>, body: &[u8]) -> Self {
        Self { source: Source::Upstream, status, retry_after_secs, written: None, message: text_of(body) }
    }

    /// The upstream redirects with `status`. Nobody follows: what is told for one place is not to be sent to another
    /// by a stranger's word. Neither the place nor the text beside it is told, as they may hold credentials.
    pub fn redirected(status: u16, has_location: bool) -> Self {
        let with = if has_location { "with" } else { "without" };
        let message = format!(
            "the upstream redirects (status {status}, {with} a Location); redirects are not followed: the target setting \
             has to name the place itself"
        );
        Self::upstream(502, None, message.as_bytes())
    }

    /// No answer of an upstream: `source` is at fault, and a retry may help. With 503, the sender is asked to wait.
    pub(super) fn failed(source: Source, status: u16, reason: &str) -> Self {
        let retry_after_secs = (status == 503).then_some(OVERLOAD_RETRY_AFTER_SECS);
        Self { source, ..Self::upstream(status, retry_after_secs, reason.as_bytes()) }
    }

    /// Whether the same, sent again, may fare better.
    pub fn invites_retry(&self) -> bool {
        Fate::of(self.heard_status()) >= Fate::Throttled
    }

    /// Whether the upstream has stored it.
    pub fn is_delivered(&self) -> bool {
        Fate::of(self.heard_status()) == Fate::Delivered
    }

    /// The status as the sender may hear it.
    pub(crate) fn heard_status(&self) -> u16 {
        heard_status(self.status)
    }

    /// How long to wait before a retry. When we are the ones who are full, we always say.
    pub(crate) fn wait_secs(&self) -> Option<u32> {
        let own = self.source == Source::Us && self.status == 503;
        self.retry_after_secs.or(own.then_some(OVERLOAD_RETRY_AFTER_SECS))
    }

    /// The text for the sender.
    pub(crate) fn reason(&self) -> std::borrow::Cow<'_, str> {
        if self.heard_status() == self.status {
            return self.message.as_ref().into();
        }
        format!("the upstream answered with status {}. {}", self.status, self.message).into()
    }
}

/// An upstream's status as a sender may hear it. What is neither a success nor an error (a 304, say) is no answer to a
/// push. Nor are 408 (RFC 9110 section 15.5.9) and nginx' 499, though they look like it: somebody on the way gave up on
/// somebody else, and nothing is known to be stored, nor to be at fault.
fn heard_status(status: u16) -> u16 {
    match status {
        408 | 499 => 502,
        200..300 | 400..600 => status,
        _ => 502,
    }
}

/// Whether an upstream's status says that the content was refused, as opposed to its sender's rate or the upstream's
/// health.
pub fn blames_content(status: u16) -> bool {
    Fate::of(heard_status(status)) == Fate::Rejected
}

/// What is sent back for a whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after_secs: Option<u32>,
    /// What the upstreams say to have stored, all parts together; `None` unless each that
    /// took its part says.
    pub written: Option<Written>,
    /// The body: plain text, empty or one short line of ours or what an upstream said; at most
    /// [`ERROR_BODY_BYTES_MAX`] bytes.
    pub body: String,
    /// `Allow`, with a 405.
    pub allow: Option<&'static str>,
    /// The connection cannot be used for a further request, whatever its client asked for. Where this is false and
    /// the request's body was not read to its end, that is still to be done, or the connection to be closed.
    pub close: bool,
}

impl Answer {
    /// 200, with nothing to say.
    pub fn ok() -> Self {
        Self::new(200, String::new())
    }

    /// Whether a sender that hears this sends the same again.
    pub fn invites_retry(&self) -> bool {
        Fate::of(self.status) >= Fate::Throttled
    }

    /// The same, with a Retry-After of no more than `max`, rounded up to a second. What one tenant's upstream asks
    /// for, all tenants of the sender wait for.
    #[must_use]
    pub fn with_wait_at_most(mut self, max: Duration) -> Self {
        let max_secs = max.as_secs() + u64::from(max.subsec_nanos() > 0);
        let max_secs = u32::try_from(max_secs).unwrap_or(u32::MAX);
        self.retry_after_secs = self.retry_after_secs.map(|secs| secs.min(max_secs));
        self
    }

    pub(crate) fn new(status: u16, body: String) -> Self {
        Self { status, retry_after_secs: None, written: None, body, allow: None, close: false }
    }
}

/// What a status comes to for its sender. The order is that in which the outcomes of parts decide their answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// 2xx.
    Delivered,
    /// 4xx but 429: sending it again does not help.
    Rejected,
    /// 429: sending it again helps, later.
    Throttled,
    /// 5xx, or no answer: sending it again may help.
    Retriable,
}

impl Fate {
    /// The ranks of failure, the worst first.
    pub(crate) const FAILED: [Self; 3] = [Self::Retriable, Self::Throttled, Self::Rejected];

    /// Of a status as a sender may hear it.
    pub fn of(heard_status: u16) -> Self {
        match heard_status {
            200..300 => Self::Delivered,
            429 => Self::Throttled,
            400..500 => Self::Rejected,
            _ => Self::Retriable,
        }
    }

    /// Whether `status` speaks for this rank rather than `other` does.
    pub(crate) fn prefers(self, status: u16, other: u16) -> bool {
        if self == Self::Rejected { status < other } else { status > other }
    }
}

/// The start of `text`, at most `bytes_max` bytes of it, ending between two characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.split_at(end).0
}

/// The start of a body as text, at most [`ERROR_BODY_BYTES_MAX`] bytes. A character that the cut would halve is left
/// out; other bytes that are not UTF-8 are replaced.
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
