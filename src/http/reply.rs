//! Serializes our answers.

#![forbid(unsafe_code)]

use std::io::Write as _;

use crate::model::Answer;
use crate::model::Written;

/// The interim response for a client that sent `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends the complete response for `answer` to `out`. `more` are header lines to add, each with its CRLF.
///
/// `keep_alive` is what the request's head asked for. The connection must be closed after the response unless
/// `keep_alive` is true and [`Answer::close`] is false. `head_only` is for HEAD requests: the response has the same
/// fields but no body.
///
/// The response always has a `Connection` field, because an HTTP/1.0 client that asked for keep-alive needs a
/// confirmation.
pub fn write(out: &mut Vec<u8>, answer: &Answer, more: &str, keep_alive: bool, head_only: bool) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    // RFC 9110: no content and no length in a 204 (section 8.6), nor content in a 205 (section 15.3.6).
    let (media, body) = match &answer.content {
        _ if matches!(answer.status, 204 | 205) => (None, &b""[..]),
        Some(content) => (Some(content.media), &content.bytes[..]),
        None => (None, answer.body.as_bytes()),
    };
    if answer.status != 204 {
        let _ = write!(out, "Content-Length: {}\r\n", body.len());
    }
    if media.is_some() || !body.is_empty() {
        let media = media.unwrap_or("text/plain; charset=utf-8");
        // The body may quote an upstream, so browsers must not guess that it is HTML.
        let _ = write!(out, "Content-Type: {media}\r\nX-Content-Type-Options: nosniff\r\n");
    }
    if let Some(secs) = answer.retry_after_secs {
        let _ = write!(out, "Retry-After: {secs}\r\n");
    }
    for (name, count) in answer.written.iter().flat_map(Written::fields) {
        let _ = write!(out, "{name}: {count}\r\n");
    }
    if let Some(methods) = answer.allow {
        let _ = write!(out, "Allow: {methods}\r\n");
    }
    out.extend_from_slice(answer.challenge.as_deref().unwrap_or_default().as_bytes());
    out.extend_from_slice(more.as_bytes());
    let persistence = if keep_alive && !answer.close { "keep-alive" } else { "close" };
    let _ = write!(out, "Connection: {persistence}\r\n\r\n");
    if !head_only {
        out.extend_from_slice(body);
    }
}

/// The usual reason phrase of a status. Empty for statuses that we never send and upstreams hardly do.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
