//! What the sender hears: the one place where outcomes and errors become status codes.
//!
//! # Constraints
//! - A sender takes 2xx for "all of it is stored" and 4xx for "never send this again": either, said wrongly, loses
//!   data. So 2xx needs every part to be delivered, and 4xx needs every part's fate to be known.
//! - Prometheus reads 1,024 bytes of an error body, and up to 2.4x only its first line: the reasons of many tenants
//!   have to share one short line.
//! - The sender of a request sees every tenant in it; nobody else sees the answer. Naming tenants to it leaks nothing.
//!
//! # Design
//! Each part has a rank; the highest decides the status. Parts that can be retried come first, because a retry may
//! change everything else: 5xx and transport failures > 429 > other 4xx > series refused by policy `drop` > 2xx.
//! Within a rank the highest status wins, but among other 4xx the lowest: 400 says the least, while a sender may take
//! a 413 or a 415 as advice on how to send, which would be wrong for the other parts.
//!
//! One failure alone is passed on as it came. Several are listed, those that decided the status first.
//!
//! That is the answer's meaning; [`sender`] then puts it into the status that this kind of sender understands.

#![forbid(unsafe_code)]

pub mod sender;

use std::fmt::Write as _;
use std::time::Duration;

use crate::http::{Refusal, Written};
use crate::limits::{ERROR_BODY_BYTES_MAX, OVERLOAD_RETRY_AFTER_SECS, REASON_BYTES_MIN};
use crate::split::{Destination, Refused, SplitError};
use crate::tenant::TenantId;
use crate::wire::loki::json::JsonError;

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
    /// by a
    /// stranger's word. Neither the place nor the text beside it is told, as they may hold credentials.
    pub fn redirected(status: u16, has_location: bool) -> Self {
        let with = if has_location { "with" } else { "without" };
        let message = format!(
            "the upstream redirects (status {status}, {with} a Location); redirects are not followed: the target setting \
             has to name the place itself"
        );
        Self::upstream(502, None, message.as_bytes())
    }

    /// No connection, or one that broke before the answer was complete: whether it was stored is not known.
    pub fn unreachable(reason: &str) -> Self {
        let message = format!("the upstream could not be reached: {reason}");
        Self::upstream(502, None, message.as_bytes())
    }

    /// No answer within the time set (`after`): whether it was stored is not known.
    pub fn timed_out(after: Duration) -> Self {
        let message = format!("the upstream did not answer within {after:?}");
        Self::upstream(504, None, message.as_bytes())
    }

    /// It was sent, and we have not waited for the answer to the end: whether it was stored is not known.
    pub fn gave_up(reason: &str) -> Self {
        Self::upstream(504, None, reason.as_bytes())
    }

    /// It was not sent, because a limit of ours on work in progress is reached.
    pub fn overloaded(reason: &str) -> Self {
        let message = format!("overloaded: {reason}");
        Self {
            source: Source::Us,
            ..Self::upstream(503, Some(OVERLOAD_RETRY_AFTER_SECS), message.as_bytes())
        }
    }

    /// Whether the same, sent again, may fare better.
    pub fn invites_retry(&self) -> bool {
        Rank::of(self.heard_status()) >= Rank::Throttled
    }

    /// Whether the upstream has stored it.
    pub fn is_delivered(&self) -> bool {
        Rank::of(self.heard_status()) == Rank::Delivered
    }

    /// The status as the sender may hear it.
    fn heard_status(&self) -> u16 {
        heard_status(self.status)
    }

    /// How long to wait before a retry. When we are the ones who are full, we always say.
    fn wait_secs(&self) -> Option<u32> {
        let own = self.source == Source::Us && self.status == 503;
        self.retry_after_secs.or(own.then_some(OVERLOAD_RETRY_AFTER_SECS))
    }

    /// The text for the sender.
    fn reason(&self) -> std::borrow::Cow<'_, str> {
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
    Rank::of(heard_status(status)) == Rank::Rejected
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
        Rank::of(self.status) >= Rank::Throttled
    }

    /// The same, with a Retry-After of no more than `max`, rounded up to a second. What one tenant's upstream asks
    /// for, all
    /// tenants of the sender wait for.
    #[must_use]
    pub fn with_wait_at_most(mut self, max: Duration) -> Self {
        let max_secs = max.as_secs() + u64::from(max.subsec_nanos() > 0);
        let max_secs = u32::try_from(max_secs).unwrap_or(u32::MAX);
        self.retry_after_secs = self.retry_after_secs.map(|secs| secs.min(max_secs));
        self
    }

    fn new(status: u16, body: String) -> Self {
        Self { status, retry_after_secs: None, written: None, body, allow: None, close: false }
    }
}

/// How bad an outcome is for the whole; the worst decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// 2xx.
    Delivered,
    /// 4xx but 429: sending it again does not help.
    Rejected,
    /// 429: sending it again helps, later.
    Throttled,
    /// 5xx, or no answer: sending it again may help.
    Retriable,
}

impl Rank {
    /// The ranks of failure, the worst first.
    const FAILED: [Self; 3] = [Self::Retriable, Self::Throttled, Self::Rejected];

    fn of(heard_status: u16) -> Self {
        match heard_status {
            200..300 => Self::Delivered,
            429 => Self::Throttled,
            400..500 => Self::Rejected,
            _ => Self::Retriable,
        }
    }

    /// Whether `status` speaks for this rank rather than `other` does.
    fn prefers(self, status: u16, other: u16) -> bool {
        if self == Self::Rejected { status < other } else { status > other }
    }
}

/// What there is to say about all parts together.
#[derive(Default)]
struct Survey<'a> {
    parts: usize,
    failed: usize,
    retry_after_secs: Option<u32>,
    worst: Option<(Rank, &'a Outcome)>,
}

impl<'a> Survey<'a> {
    fn take(mut self, outcome: &'a Outcome) -> Self {
        let status = outcome.heard_status();
        let rank = Rank::of(status);
        self.parts += 1;
        self.failed += usize::from(rank > Rank::Delivered);
        if rank >= Rank::Throttled {
            self.retry_after_secs = self.retry_after_secs.max(outcome.wait_secs());
        }
        let decides = self.worst.is_none_or(|(worst, holder)| {
            rank > worst || (rank == worst && rank.prefers(status, holder.heard_status()))
        });
        if decides {
            self.worst = Some((rank, outcome));
        }
        self
    }
}

/// What was written of all of these together; `None` when one was delivered and does not say, as half of it, told as
/// the
/// whole, would count the rest as lost. A failure that says nothing wrote nothing (Remote Write 2.0 specification,
/// "Required
/// Written Response Headers").
fn written_by_all<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Option<Written> {
    let mut sum = None;
    for outcome in outcomes {
        match outcome.written {
            Some(written) => sum = Some(sum.unwrap_or_default() + written),
            None if outcome.is_delivered() => return None,
            None => {}
        }
    }
    sum
}

/// One outcome for a part that was delivered in pieces, by the same rules by which a request's outcomes become one
/// answer. Without pieces it counts as delivered: there was nothing to deliver.
pub fn combine(pieces: &[Outcome]) -> Outcome {
    let survey = pieces.iter().fold(Survey::default(), Survey::take);
    let written = written_by_all(pieces);
    let Some((_, worst)) = survey.worst else { return Outcome::delivered(200, b"") };
    Outcome { retry_after_secs: survey.retry_after_secs, written, ..worst.clone() }
}

/// The answer to a request for `destination` whose `parts` have these outcomes, and of which what is in `refused` was
/// not sent.
///
/// A request without parts and without refused series gets 200: there was nothing to deliver. `accept_all` answers
/// 204 whatever the outcomes are.
pub fn conclude<'a>(
    destination: Destination,
    parts: impl IntoIterator<Item = (&'a TenantId, &'a Outcome)> + Clone,
    refused: &Refused,
    accept_all: bool,
) -> Answer {
    let written = written_by_all(parts.clone().into_iter().map(|(_, outcome)| outcome));
    if accept_all {
        return Answer { written, ..Answer::new(204, String::new()) };
    }
    let survey =
        parts.clone().into_iter().fold(Survey::default(), |survey, (_, outcome)| survey.take(outcome));
    let refusal = describe(destination, refused);
    let (status, body) = match (survey.worst, &refusal) {
        (None, None) => (200, String::new()),
        (Some((rank, outcome)), _) if rank > Rank::Delivered && (refusal.is_some() || survey.failed > 1) => {
            (outcome.heard_status(), list(parts, refusal.as_deref(), &survey))
        }
        (Some((_, outcome)), None) => {
            (outcome.heard_status(), cut(&outcome.reason(), ERROR_BODY_BYTES_MAX).to_owned())
        }
        (_, Some(refusal)) => (400, cut(refusal, ERROR_BODY_BYTES_MAX).to_owned()),
    };
    Answer { retry_after_secs: survey.retry_after_secs, written, ..Answer::new(status, body) }
}

/// One line that names each failed tenant with its status and reason, and what was refused, as far as they fit.
/// Each gets an equal share of the room; what one leaves over, those after it get.
fn list<'a>(
    parts: impl IntoIterator<Item = (&'a TenantId, &'a Outcome)> + Clone,
    refusal: Option<&str>,
    survey: &Survey<'_>,
) -> String {
    let mut line = Listing {
        text: format!("{} of {} tenants failed: ", survey.failed, survey.parts),
        left: survey.failed + usize::from(refusal.is_some()),
        first: true,
    };
    for rank in Rank::FAILED {
        for (tenant, outcome) in parts.clone() {
            let status = outcome.heard_status();
            if Rank::of(status) == rank
                && !line.push(&format!("{}: {status}", tenant.as_str()), &outcome.reason())
            {
                return line.finish();
            }
        }
    }
    if let Some(refusal) = refusal {
        line.push("", refusal);
    }
    line.finish()
}

/// The line that [`list`] builds.
struct Listing {
    text: String,
    /// Items still to come.
    left: usize,
    first: bool,
}

impl Listing {
    /// Room for "; … and 18446744073709551615 more".
    const TAIL_BYTES: usize = 34;
    const SEPARATOR: &'static str = "; ";
    const ELLIPSIS: &'static str = "…";

    /// Adds one item: `name` in full, `reason` on one line and cut to its share. False if there is no room for it.
    fn push(&mut self, name: &str, reason: &str) -> bool {
        let separator = if self.first { "" } else { Self::SEPARATOR };
        let reason = reason.trim();
        let space = if name.is_empty() || reason.is_empty() { "" } else { " " };
        let room = ERROR_BODY_BYTES_MAX.saturating_sub(Self::TAIL_BYTES + self.text.len());
        let fixed = separator.len() + name.len() + space.len();
        let share = (room / self.left.max(1)).saturating_sub(fixed).max(REASON_BYTES_MIN);
        let kept = if reason.len() > share { cut(reason, share - Self::ELLIPSIS.len()) } else { reason };
        let ellipsis = if kept.len() < reason.len() { Self::ELLIPSIS } else { "" };
        if fixed + kept.len() + ellipsis.len() > room {
            return false;
        }
        self.text.push_str(separator);
        self.text.push_str(name);
        self.text.push_str(space);
        self.text.extend(kept.chars().map(|letter| if letter.is_control() { ' ' } else { letter }));
        self.text.push_str(ellipsis);
        self.first = false;
        self.left -= 1;
        true
    }

    /// The text, with a word on what found no room.
    fn finish(mut self) -> String {
        if self.left > 0 {
            let separator = if self.first { "" } else { Self::SEPARATOR };
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{separator}{} and {} more", Self::ELLIPSIS, self.left);
        }
        self.text
    }
}

/// What was refused, and why, on one line; `None` if nothing was.
fn describe(destination: Destination, refused: &Refused) -> Option<String> {
    let Refused { missing, invalid, samples, example, .. } = refused;
    let total = missing.saturating_add(*invalid);
    if total == 0 {
        return None;
    }
    let (series, samples_name) = match destination {
        Destination::Metrics => ("series", "samples"),
        Destination::Logs => ("streams", "entries"),
    };
    let mut text = format!(
        "{total} {series} with {samples} {samples_name} refused: {missing} without a tenant, {invalid} with an \
         invalid one"
    );
    if let Some(example) = example {
        let _ = write!(text, ". One of them: {example}");
    }
    Some(text)
}

/// The start of `text`, at most `bytes_max` bytes of it, ending between two characters.
fn cut(text: &str, bytes_max: usize) -> &str {
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

impl From<&Refusal> for Answer {
    fn from(refusal: &Refusal) -> Self {
        let (status, close) = match refusal {
            Refusal::BadRequest(_) => (400, true),
            Refusal::NotFound => (404, false),
            Refusal::MethodNotAllowed { .. } => (405, false),
            Refusal::BodyTooLarge { .. } => (413, true),
            Refusal::UnsupportedMedia { .. }
            | Refusal::UnsupportedEncoding { .. }
            | Refusal::RemoteWriteV2 => (415, false),
            Refusal::HeadTooLarge { .. } | Refusal::TooManyFields => (431, true),
            Refusal::Overloaded { .. } => (503, false),
            // Not 408, as HTTP has it: senders drop what they hear 4xx for, and nothing is wrong with what did not
            // come.
            Refusal::Draining | Refusal::Timeout(_) => (503, true),
        };
        let allow = if let Refusal::MethodNotAllowed { allow } = refusal { Some(*allow) } else { None };
        let retry_after_secs = (status == 503).then_some(OVERLOAD_RETRY_AFTER_SECS);
        Self { retry_after_secs, allow, close, ..Self::new(status, refusal.to_string()) }
    }
}

impl From<&SplitError> for Answer {
    fn from(error: &SplitError) -> Self {
        let status = match error {
            SplitError::Inflate(error) if error.is_too_large() => 413,
            SplitError::Json(JsonError::TooLarge { .. })
            | SplitError::TooManyFields { .. }
            | SplitError::TooManyCopies { .. }
            | SplitError::TooManySymbols { .. }
            | SplitError::TooMuchGrowth { .. }
            | SplitError::TooManyTenants { .. } => 413,
            SplitError::Inflate(_)
            | SplitError::Malformed(_)
            | SplitError::MalformedV2(_)
            | SplitError::MalformedPush(_)
            | SplitError::Json(JsonError::Malformed { .. })
            | SplitError::Labels { .. }
            | SplitError::Empty
            | SplitError::TooManyScalars { .. }
            | SplitError::Tenant { .. } => 400,
            SplitError::EmptyPush => 422,
        };
        Self::new(status, cut(&error.to_string(), ERROR_BODY_BYTES_MAX).to_owned())
    }
}

#[cfg(test)]
mod tests;
