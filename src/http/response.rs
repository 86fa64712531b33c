//! The head of an upstream's response.
//!
//! As strict as with requests. The connection is used for many tenants in turn: a response that two readers could
//! end at different places would let one tenant's answer pass for another's.

#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::SystemTime;

use super::{Delimiters, Persistence, decimal, has_bare_lf};
use crate::limits::HEAD_FIELDS_MAX;
use crate::model::Written;

/// A response's head, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code, 100 to 599. An interim response (1xx) is followed by another head.
    pub status: u16,
    /// How the content is delimited, given that the request was a POST.
    pub framing: ResponseFraming,
    /// The connection may be used again, once the content is read to its end.
    pub keep_alive: bool,
    /// `Retry-After`, in seconds from now: as given, or until the date given, rounded up, 0 for a date that has
    /// passed. `None` also when it is malformed.
    pub retry_after_secs: Option<u32>,
    /// What the upstream says to have stored, if it says so.
    pub written: Option<Written>,
    /// Whether there is a `Location`. What it says is not kept: it may hold credentials.
    pub has_location: bool,
}

/// Takes note of a header field, if it is one of the three. Of a repeated one the last counts; a malformed one
/// counts for nothing, as it tells nothing.
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
    /// There is none.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// It lasts until the upstream closes the connection.
    UntilClose,
}

/// What makes an upstream's response unusable. The connection has to be closed; whether the request had its effect
/// is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad response: {0}")]
pub struct BadResponse(pub &'static str);

impl ResponseHead {
    /// Reads the head at the start of `buf`, of a response to a POST, and says how many bytes it takes. `None` means
    /// that its end is not in `buf` yet. `now` is what a date in `Retry-After` is measured against.
    ///
    /// # Errors
    /// [`BadResponse`] for what is malformed, could be read in two ways, or has more than
    /// [`HEAD_FIELDS_MAX`] fields.
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

/// Whether another response can follow. Not after content that only the close ends, nor after a 204 or an interim
/// response that announces content: it must not have any (RFC 9110 section 6.4.1), but its sender may not know.
fn is_reusable(status: u16, framing: ResponseFraming, delimiters: &Delimiters) -> bool {
    match framing {
        ResponseFraming::UntilClose => false,
        ResponseFraming::None if status != 304 => !delimiters.chunked && delimiters.length.unwrap_or(0) == 0,
        _ => true,
    }
}

/// Seconds from `now` that a `Retry-After` (RFC 9110 section 10.2.3) asks to wait: a number, or a date in any of
/// the three forms of section 5.6.7. More than fits is the most that fits.
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

/// What httparse finds wrong, in our words.
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
