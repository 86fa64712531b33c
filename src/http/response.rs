//! The head of an upstream's response.
//!
//! Parsing is as strict as for requests. A connection serves many tenants in turn. If two readers could disagree on
//! where a response ends, one tenant's answer could be taken for another's.

#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::SystemTime;

use super::syntax::{Delimiters, Persistence, decimal, has_bare_lf};
use crate::limits::HEAD_FIELDS_MAX;
use crate::model::Written;

/// A parsed response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code, 100 to 599. An interim response (1xx) is followed by another head.
    pub status: u16,
    /// How the content is delimited, for a response to a POST.
    pub framing: ResponseFraming,
    /// Whether the connection can be reused after the content is read completely.
    pub keep_alive: bool,
    /// `Retry-After` in seconds from now: as given, or until the given date, rounded up. 0 for a date in the past.
    /// `None` also if it is malformed.
    pub retry_after_secs: Option<u32>,
    /// What the upstream reports as written, if it does.
    pub written: Option<Written>,
    /// Whether there is a `Location`. Its value is not kept: it may contain credentials.
    pub has_location: bool,
}

/// Records a header field, if it is one of the three. The last of repeated fields counts; malformed ones are ignored.
fn note_written(written: &mut Option<Written>, name: &str, value: &[u8]) {
    let names = Written::default().fields().map(|(name, _)| name);
    let Some(which) = names.iter().position(|known| name.eq_ignore_ascii_case(known)) else { return };
    let Some(count) = decimal(value) else { return };
    let written = written.get_or_insert_default();
    match which {
        0 => written.samples = count,
        1 => written.histograms = count,
        _ => written.exemplars = count,
    }
}

/// How a response's content is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// No content.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The content ends when the upstream closes the connection.
    UntilClose,
}

/// Why an upstream's response is unusable. The connection has to be closed, and it is unknown whether the request took
/// effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad response: {0}")]
pub struct BadResponse(pub &'static str);

impl ResponseHead {
    /// Parses the head of a response to a POST at the start of `buf`, and returns its length in bytes. `None` if it is
    /// not complete yet. `now` is the reference for a date in `Retry-After`.
    ///
    /// # Errors
    /// [`BadResponse`] if the head is malformed or ambiguous, or has more than [`HEAD_FIELDS_MAX`] fields.
    pub fn parse(buf: &[u8], now: SystemTime) -> Result<Option<(Self, usize)>, BadResponse> {
        let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, buf, &mut fields)
            .map_err(bad_response)?;
        let head_bytes = match parsed {
            httparse::Status::Complete(head_bytes) => Some(head_bytes),
            httparse::Status::Partial => None,
        };
        if has_bare_lf(buf.get(..head_bytes.unwrap_or(buf.len())).unwrap_or(buf)) {
            return Err(BadResponse("a line ends in a bare LF"));
        }
        let (Some(head_bytes), Some(status), Some(minor_version)) =
            (head_bytes, response.code, response.version)
        else {
            return Ok(None);
        };

        let mut delimiters = Delimiters::default();
        let mut persistence = Persistence::default();
        let mut retry_after_secs = None;
        let mut written = None;
        let mut has_location = false;
        for field in response.headers.iter() {
            delimiters.note(field.name, field.value).map_err(BadResponse)?;
            persistence.note(field.name, field.value);
            note_written(&mut written, field.name, field.value);
            has_location |= field.name.eq_ignore_ascii_case("location");
            if field.name.eq_ignore_ascii_case("retry-after") {
                retry_after_secs = retry_after_secs.max(retry_after(field.value, now));
            }
        }
        delimiters.check(minor_version).map_err(BadResponse)?;
        let framing = framing(status, &delimiters)?;
        let head = Self {
            status,
            framing,
            keep_alive: persistence.persists(minor_version) && is_reusable(status, framing, &delimiters),
            retry_after_secs,
            written,
            has_location,
        };
        Ok(Some((head, head_bytes)))
    }
}

fn framing(status: u16, delimiters: &Delimiters) -> Result<ResponseFraming, BadResponse> {
    match (status, delimiters.length) {
        (101, _) => Err(BadResponse("an upgrade that was not asked for")),
        (..100 | 600.., _) => Err(BadResponse("a status code outside 100 to 599")),
        (100..200 | 204 | 304, _) => Ok(ResponseFraming::None),
        _ if delimiters.chunked => Ok(ResponseFraming::Chunked),
        (_, Some(length)) => Ok(ResponseFraming::Length(length)),
        (_, None) => Ok(ResponseFraming::UntilClose),
    }
}

/// Whether another response can follow. It cannot after content that ends with the connection, nor after a 204 or an
/// interim response that announces content. Such a response must not have any (RFC 9110 section 6.4.1), but the
/// upstream may send it anyway.
fn is_reusable(status: u16, framing: ResponseFraming, delimiters: &Delimiters) -> bool {
    match framing {
        ResponseFraming::UntilClose => false,
        ResponseFraming::None if status != 304 => !delimiters.chunked && delimiters.length.unwrap_or(0) == 0,
        _ => true,
    }
}

/// The seconds from `now` requested by a `Retry-After` (RFC 9110 section 10.2.3): a number, or a date in any of the
/// three formats of section 5.6.7. Saturates.
fn retry_after(value: &[u8], now: SystemTime) -> Option<u32> {
    if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        let secs = decimal(value).unwrap_or(u64::MAX);
        return Some(u32::try_from(secs).unwrap_or(u32::MAX));
    }
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    let Ok(wait) = date.duration_since(now) else { return Some(0) };
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Some(u32::try_from(secs).unwrap_or(u32::MAX))
}

/// Translates httparse's errors.
fn bad_response(error: httparse::Error) -> BadResponse {
    BadResponse(match error {
        httparse::Error::TooManyHeaders => "too many fields",
        httparse::Error::HeaderName => "malformed field name",
        httparse::Error::HeaderValue => "malformed field value",
        httparse::Error::NewLine => "malformed line end",
        httparse::Error::Version => "neither HTTP/1.0 nor HTTP/1.1",
        httparse::Error::Token | httparse::Error::Status => "malformed status line",
    })
}

#[cfg(test)]
mod tests;
