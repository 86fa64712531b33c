//! Chunked bodies (RFC 9112 section 7.1), of requests and of upstreams' responses.
//!
//! Parsing is strict where leniency is known to be abused: sizes are 1 to 16 hex digits with nothing around them, lines
//! end in CR LF, and extensions contain no control characters. A trailer is parsed, because the next message starts
//! after it, and discarded.

#![forbid(unsafe_code)]

use super::Refusal;
use crate::limits::{CHUNK_EXCESS_BYTES_MAX, CHUNK_LINE_BYTES_MAX};

/// Digits of the largest 64-bit size.
const SIZE_DIGITS_MAX: usize = 16;

/// Decodes one chunked body incrementally.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    body_bytes_max: usize,
    /// Total of the chunk sizes so far. Never exceeds `body_bytes_max`.
    body_bytes: usize,
    /// Bytes spent on extensions and on the trailer.
    excess_bytes: usize,
}

/// The parser's state: what the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { size: u64, digits: usize },
    Extension { size: u64, line_bytes: usize },
    SizeLf { size: u64 },
    Data { left: usize },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl ChunkDecoder {
    /// Creates a decoder for a body of at most `body_bytes_max` bytes, not counting its framing.
    pub fn new(body_bytes_max: usize) -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, body_bytes_max, body_bytes: 0, excess_bytes: 0 }
    }

    /// Decodes `input` and appends data to `out`. Returns the number of bytes consumed, and whether the body is
    /// complete.
    ///
    /// All of `input` is consumed unless the body ends in it; the rest then belongs to the next message. After the end
    /// of the body, nothing is consumed. A chunk's size reserves no memory: only received data is appended, never more
    /// than `body_bytes_max` in total.
    ///
    /// # Errors
    /// [`Refusal::BodyTooLarge`] as soon as a chunk size exceeds the limit, before its data arrives.
    /// [`Refusal::BadRequest`] if the input is malformed. After an error neither the decoder nor the connection can be
    /// used.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), Refusal> {
        let mut rest = input;
        while self.state != State::Done {
            if let State::Data { left } = self.state {
                let (data, after) = rest.split_at(left.min(rest.len()));
                out.extend_from_slice(data);
                rest = after;
                if data.len() < left {
                    self.state = State::Data { left: left - data.len() };
                    break;
                }
                self.state = State::DataCr;
            }
            let Some((&byte, after)) = rest.split_first() else { break };
            rest = after;
            self.state = self.step(byte)?;
        }
        Ok((input.len() - rest.len(), self.state == State::Done))
    }

    /// Handles one byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size { size, digits }, _) => self.size(size, digits, byte),
            (State::Extension { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { size, line_bytes }, _) if is_text(byte) => {
                if line_bytes >= CHUNK_LINE_BYTES_MAX {
                    return Err(Refusal::BadRequest("chunk line too long"));
                }
                self.spend()?;
                Ok(State::Extension { size, line_bytes: line_bytes + 1 })
            }
            (State::SizeLf { size }, b'\n') => self.chunk(size),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => {
                self.spend().map(|()| State::TrailerName)
            }
            (State::TrailerName, b':') => self.spend().map(|()| State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_text(byte) => self.spend().map(|()| State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                Err(Refusal::BadRequest("malformed trailer"))
            }
            _ => Err(Refusal::BadRequest("malformed chunk")),
        }
    }

    /// Handles one byte of a size, or the byte that ends it.
    fn size(&mut self, size: u64, digits: usize, byte: u8) -> Result<State, Refusal> {
        match (char::from(byte).to_digit(16), byte) {
            (Some(digit), _) if digits < SIZE_DIGITS_MAX => {
                Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (None, b'\r') if digits > 0 => Ok(State::SizeLf { size }),
            (None, b';') if digits > 0 => {
                self.spend()?;
                Ok(State::Extension { size, line_bytes: digits + 1 })
            }
            _ => Err(Refusal::BadRequest("malformed chunk size")),
        }
    }

    /// Starts a chunk of `size` bytes. Size 0 ends the body.
    fn chunk(&mut self, size: u64) -> Result<State, Refusal> {
        if size == 0 {
            return Ok(State::TrailerStart);
        }
        let left = self.body_bytes_max - self.body_bytes;
        match usize::try_from(size) {
            Ok(size) if size <= left => {
                self.body_bytes += size;
                Ok(State::Data { left: size })
            }
            _ => Err(Refusal::BodyTooLarge { limit: self.body_bytes_max }),
        }
    }

    /// Counts one byte of an extension or the trailer.
    fn spend(&mut self) -> Result<(), Refusal> {
        self.excess_bytes += 1;
        if self.excess_bytes > CHUNK_EXCESS_BYTES_MAX {
            return Err(Refusal::BadRequest("too many chunk extensions or trailer fields"));
        }
        Ok(())
    }
}

/// Whether a field value may contain `byte` (RFC 9110 section 5.5): visible ASCII, blanks, or non-ASCII.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether a field name may contain `byte` (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
