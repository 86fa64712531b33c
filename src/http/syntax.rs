//! What the heads of requests and responses have in common.
#![forbid(unsafe_code)]

use std::ops::Range;

/// Whether a line in `head` ends without a carriage return. RFC 9112 section 2.2 lets recipients accept that. They
/// interpret it differently, which request smuggling exploits.
pub(super) fn has_bare_lf(head: &[u8]) -> bool {
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    let inner = pairs.fold(false, |bare, (&before, &byte)| bare | ((byte == b'\n') & (before != b'\r')));
    inner || head.first() == Some(&b'\n')
}

/// The range of `part` in `whole`, of which it must be a subslice.
pub(super) fn range_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

/// Whether the comma-separated `list` (RFC 9110 section 5.6.1) contains `token`, ignoring case.
pub(super) fn lists_token(list: &[u8], token: &str) -> bool {
    list.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The fields that determine where a message ends (RFC 9112 section 6), collected over a whole head.
#[derive(Default)]
pub(super) struct Delimiters {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
}

impl Delimiters {
    /// Records one field, if it is one of these. The error says what is wrong with it.
    pub(super) fn note(&mut self, name: &str, value: &[u8]) -> Result<(), &'static str> {
        if name.eq_ignore_ascii_case("content-length") {
            if self.length.is_some() {
                return Err("repeated Content-Length");
            }
            self.length = Some(decimal(value).ok_or("malformed Content-Length")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if self.chunked {
                return Err("repeated Transfer-Encoding");
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("Transfer-Encoding other than chunked");
            }
            self.chunked = true;
        }
        Ok(())
    }

    /// Checks the fields for contradictions, after all are recorded.
    pub(super) fn check(&self, minor_version: u8) -> Result<(), &'static str> {
        if self.chunked && self.length.is_some() {
            return Err("both Content-Length and Transfer-Encoding");
        }
        if self.chunked && minor_version == 0 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        Ok(())
    }
}

/// The options of the `Connection` fields (RFC 9112 section 9.3) that decide whether the connection persists.
#[derive(Default)]
pub(super) struct Persistence {
    close: bool,
    keep_alive: bool,
}

impl Persistence {
    pub(super) fn note(&mut self, name: &str, value: &[u8]) {
        if name.eq_ignore_ascii_case("connection") {
            self.close |= lists_token(value, "close");
            self.keep_alive |= lists_token(value, "keep-alive");
        }
    }

    /// HTTP/1.1 connections persist by default, HTTP/1.0 connections only on request.
    pub(super) fn persists(&self, minor_version: u8) -> bool {
        !self.close && (minor_version > 0 || self.keep_alive)
    }
}

/// Parses a number of one or more ASCII digits and nothing else. `None` also if it does not fit 64 bits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
