//! The verdict: the one place where outcomes and errors become the status code of an answer.
//!
//! # Constraints
//! - A sender reads 2xx as "all of it is stored" and 4xx as "never send this again". Either loses data if it is wrong.
//!   So 2xx requires that every part was delivered, and 4xx that the fate of every part is known.
//! - Prometheus reads 1,024 bytes of an error body, and up to 2.4x only its first line. So the reasons of many tenants
//!   must share one short line.
//! - The sender of a request knows every tenant in it, and only that sender receives the answer. So naming tenants
//!   leaks nothing.
//!
//! # Design
//! Each part has a rank, and the highest rank decides the status: 5xx and transport failures > 429 > other 4xx > series
//! refused by policy `drop` > 2xx. Retriable ranks come first, as a retry may change everything else. Within a rank the
//! highest status wins, except that among other 4xx the lowest does. 400 is the least specific: a sender may take a 413
//! or 415 as advice on how to send, which would be wrong for the other parts.
//!
//! A single failure is passed on unchanged. Several are listed, those that decided the status first.
//!
//! This decides what the answer means. [`sender`] then maps it to a status that this kind of sender understands.

#![forbid(unsafe_code)]

pub mod otlp;
pub mod sender;

use std::fmt::Write as _;

use crate::http::Refusal;
use crate::limits::{ERROR_BODY_BYTES_MAX, OVERLOAD_RETRY_AFTER_SECS, REASON_BYTES_MIN};
use crate::model::Written;
use crate::model::{Answer, Fate, Outcome, cut};
use crate::model::{Destination, Nouns, RefusedSeries};
use crate::split::SplitError;
use crate::tenant::{TenantError, TenantId};
use crate::wire::loki::json::JsonError;

/// A summary of the outcomes of all parts.
#[derive(Default)]
struct Survey<'a> {
    parts: usize,
    failed: usize,
    retry_after_secs: Option<u32>,
    worst: Option<(Fate, &'a Outcome)>,
}

impl<'a> Survey<'a> {
    fn add(mut self, outcome: &'a Outcome) -> Self {
        let status = outcome.sender_status();
        let rank = Fate::of(status);
        self.parts += 1;
        self.failed += usize::from(rank > Fate::Delivered);
        if rank >= Fate::Throttled {
            self.retry_after_secs = self.retry_after_secs.max(outcome.wait_secs());
        }
        let decides = self.worst.is_none_or(|(worst, holder)| {
            rank > worst || (rank == worst && rank.prefers(status, holder.sender_status()))
        });
        if decides {
            self.worst = Some((rank, outcome));
        }
        self
    }
}

/// Returns the sum of what was written, or `None` if a delivered part did not report it: a partial sum would count the
/// rest as lost. A failure without a report wrote nothing (Remote Write 2.0 specification, "Required Written Response
/// Headers").
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

/// Combines the outcomes of a part's pieces by the rules that make one answer of a request's outcomes. Without pieces
/// the part counts as delivered.
pub fn combine(pieces: &[Outcome]) -> Outcome {
    let survey = pieces.iter().fold(Survey::default(), Survey::add);
    let written = written_by_all(pieces);
    let Some((_, worst)) = survey.worst else { return Outcome::delivered(200, b"") };
    let rejected = pieces.iter().map(|piece| piece.rejected).sum();
    Outcome { retry_after_secs: survey.retry_after_secs, written, rejected, ..worst.clone() }
}

/// Returns the answer to a request for `destination`, given the outcomes of its `parts` and the series in `refused`,
/// which were not sent.
///
/// A request without parts and without refused series gets 200, as there was nothing to deliver. `accept_all` answers
/// 204 whatever the outcomes are.
pub fn conclude<'a>(
    destination: Destination,
    parts: impl IntoIterator<Item = (&'a TenantId, &'a Outcome)> + Clone,
    refused: &RefusedSeries,
    accept_all: bool,
) -> Answer {
    let written = written_by_all(parts.clone().into_iter().map(|(_, outcome)| outcome));
    if accept_all {
        return Answer { written, ..Answer::new(204, String::new()) };
    }
    let survey =
        parts.clone().into_iter().fold(Survey::default(), |survey, (_, outcome)| survey.add(outcome));
    let refusal = describe(destination, refused);
    let (status, body) = match (survey.worst, &refusal) {
        (None, None) => (200, String::new()),
        (Some((rank, outcome)), _) if rank > Fate::Delivered && (refusal.is_some() || survey.failed > 1) => {
            (outcome.sender_status(), list(parts, refusal.as_deref(), &survey))
        }
        (Some((_, outcome)), None) => {
            (outcome.sender_status(), cut(&outcome.reason(), ERROR_BODY_BYTES_MAX).to_owned())
        }
        (_, Some(refusal)) => (400, cut(refusal, ERROR_BODY_BYTES_MAX).to_owned()),
    };
    Answer { retry_after_secs: survey.retry_after_secs, written, ..Answer::new(status, body) }
}

/// Returns one line that names each failed tenant with its status and reason, then the refused series, as far as they
/// fit. Each gets an equal share of the room; the ones after it get what it leaves over.
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
    for rank in Fate::FAILED {
        for (tenant, outcome) in parts.clone() {
            let status = outcome.sender_status();
            if Fate::of(status) == rank
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
    /// Items that are not listed yet.
    left: usize,
    first: bool,
}

impl Listing {
    /// Room for "; … and 18446744073709551615 more".
    const TAIL_BYTES: usize = 34;
    const SEPARATOR: &'static str = "; ";
    const ELLIPSIS: &'static str = "…";

    /// Adds an item: `name` in full, and `reason` on one line, cut to its share. Returns false if there is no room for
    /// it.
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

    /// Returns the text, followed by the number of items that did not fit.
    fn finish(mut self) -> String {
        if self.left > 0 {
            let separator = if self.first { "" } else { Self::SEPARATOR };
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{separator}{} and {} more", Self::ELLIPSIS, self.left);
        }
        self.text
    }
}

/// Describes on one line the refused series and the reasons; `None` if there are none.
fn describe(destination: Destination, refused: &RefusedSeries) -> Option<String> {
    let RefusedSeries { missing, invalid, denied, samples, example, .. } = refused;
    let total = missing.saturating_add(*invalid).saturating_add(*denied);
    if total == 0 {
        return None;
    }
    let Nouns { many: series, samples: samples_name, .. } = destination.nouns();
    let mut text = format!(
        "{total} {series} with {samples} {samples_name} refused: {missing} without a tenant, {invalid} with an \
         invalid one"
    );
    if *denied > 0 {
        let _ = write!(text, ", {denied} with one that these credentials may not write to");
    }
    if let Some(example) = example {
        let _ = write!(text, ". One of them: {example}");
    }
    Some(text)
}

impl From<&Refusal> for Answer {
    fn from(refusal: &Refusal) -> Self {
        let (status, close) = match refusal {
            Refusal::BadRequest(_) => (400, true),
            Refusal::Unauthorized { .. } => (401, false),
            Refusal::Forbidden { .. } => (403, false),
            Refusal::NotFound | Refusal::NoTarget { .. } => (404, false),
            Refusal::MethodNotAllowed { .. } => (405, false),
            Refusal::BodyTooLarge { .. } => (413, true),
            Refusal::UnsupportedMedia { .. }
            | Refusal::UnsupportedEncoding { .. }
            | Refusal::RemoteWriteV2 => (415, false),
            Refusal::HeadTooLarge { .. } | Refusal::TooManyFields => (431, true),
            Refusal::Overloaded { .. } => (503, false),
            // HTTP's 408 would not do: senders drop data on 4xx, and data that did not arrive is not at fault.
            Refusal::Draining | Refusal::Renewed | Refusal::Timeout(_) => (503, true),
        };
        let allow = if let Refusal::MethodNotAllowed { allow } = refusal { Some(*allow) } else { None };
        let challenge = match refusal {
            Refusal::Unauthorized { challenge, .. } => Some(challenge.clone()),
            _ => None,
        };
        let retry_after_secs = (status == 503).then_some(OVERLOAD_RETRY_AFTER_SECS);
        Self { retry_after_secs, allow, challenge, close, ..Self::new(status, refusal.to_string()) }
    }
}

impl From<&SplitError> for Answer {
    fn from(error: &SplitError) -> Self {
        let status = match error {
            SplitError::Inflate(error) if error.is_too_large() => 413,
            SplitError::Json(JsonError::TooLarge { .. })
            | SplitError::TooManyFields { .. }
            | SplitError::TooManyPieces { .. }
            | SplitError::TooManyCopies { .. }
            | SplitError::TooManySymbols { .. }
            | SplitError::TooMuchGrowth { .. }
            | SplitError::TooManyTenants { .. } => 413,
            SplitError::Tenant { error: TenantError::Denied { .. }, .. } => 403,
            SplitError::Inflate(_)
            | SplitError::Malformed(_)
            | SplitError::MalformedV2(_)
            | SplitError::MalformedPush(_)
            | SplitError::MalformedExport(_)
            | SplitError::NotJson(_)
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
