//! HTTP/1.1 over byte slices: what we accept, what we answer, and what we take from an upstream.
//!
//! # Constraints
//! - One reading only. A proxy in front of us, and an upstream behind us, must see the same message boundaries as
//!   we do, or a byte of one tenant ends up in the request of another (request smuggling). So whatever RFC 9112
//!   lets a recipient repair (bare LF, repeated lengths, list-valued codings), we refuse, in both directions.
//! - No I/O and no clock: a slice goes in, a value with ranges into that slice comes out. "Not enough bytes yet"
//!   is `Ok(None)`, never an error, and the same bytes give the same result however they were cut into reads.
//! - Nothing is allocated: a head lives on the stack, a chunked body is decoded into the caller's buffer. Only headers
//!   that go on to the upstream are copied, where a request has any.
//!
//! # Design [`head`] reads a request's head, of which [`passed`] goes on to the upstream, [`body`] a chunked body
//! (also an upstream's), [`response`] an upstream's head, [`reply`] writes our answers. [`refusal`] is all that may be
//! wrong with a request before its body is understood; which status that becomes is decided in [`crate::verdict`],
//! like every other status.
//!
//! httparse finds the tokens. It tolerates a bare LF as line end and leaves the meaning of fields to its caller:
//! both are dealt with here, in the helpers that requests and responses share.

#![forbid(unsafe_code)]

pub mod body;
pub mod head;
pub mod passed;
pub mod refusal;
pub mod reply;
pub mod response;
pub mod sender;

pub use body::ChunkDecoder;
pub use head::{Encoding, Framing, Media, Method, RequestHead};
pub use passed::Passed;
pub use refusal::Refusal;
pub use response::{BadResponse, ResponseFraming, ResponseHead};

use std::ops::Range;

/// Whether a line in `head` ends without a carriage return. Recipients differ in what they make of that (RFC 9112
/// section 2.2 lets them accept it), which is what smuggling lives on.
fn has_bare_lf(head: &[u8]) -> bool {
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    let inner = pairs.fold(false, |bare, (&before, &byte)| bare | ((byte == b'\n') & (before != b'\r')));
    inner || head.first() == Some(&b'\n')
}

/// Where `part` lies in `whole`. `part` must be a subslice of `whole`.
fn range_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

/// Whether the comma-separated `list` (RFC 9110 section 5.6.1) has `token` in it, in any case.
fn lists_token(list: &[u8], token: &str) -> bool {
    list.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The fields that say where a message ends (RFC 9112 section 6), gathered over a whole head.
#[derive(Default)]
struct Delimiters {
    length: Option<u64>,
    chunked: bool,
}

impl Delimiters {
    /// Takes note of one field, if it is one of these. The error says what is wrong with it.
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), &'static str> {
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

    /// Checks the fields against each other, once all are noted.
    fn check(&self, minor_version: u8) -> Result<(), &'static str> {
        if self.chunked && self.length.is_some() {
            return Err("both Content-Length and Transfer-Encoding");
        }
        if self.chunked && minor_version == 0 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        Ok(())
    }
}

/// The options of the `Connection` fields (RFC 9112 section 9.3) that decide whether the connection lives on.
#[derive(Default)]
struct Persistence {
    close: bool,
    keep_alive: bool,
}

impl Persistence {
    fn note(&mut self, name: &str, value: &[u8]) {
        if name.eq_ignore_ascii_case("connection") {
            self.close |= lists_token(value, "close");
            self.keep_alive |= lists_token(value, "keep-alive");
        }
    }

    /// HTTP/1.1 connections persist unless told otherwise, HTTP/1.0 ones only when asked to.
    fn persists(&self, minor_version: u8) -> bool {
        !self.close && (minor_version > 0 || self.keep_alive)
    }
}

/// A number of one or more ASCII digits and nothing else; `None` too when it does not fit 64 bits.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
