//! One POST over one connection: write it, read the reply.
//!
//! Of a response, the status, Retry-After, the counts of what was written, and the first
//! few bytes of the body are kept. The rest of the body is read only so that the connection
//! can be used again.

use std::io;
use std::time::{Instant, SystemTime};

use super::pool::Connection;
use crate::http::body::ChunkDecoder;
use crate::http::response::{ResponseFraming, ResponseHead};
use crate::io::buffers::Gather;
use crate::io::deadline::Cut;
use crate::limits::{RESPONSE_BODY_BYTES_MAX, RESPONSE_BYTES, RESPONSE_HEAD_BYTES_MAX};
use crate::model::{Failure, Outcome, Written};
use crate::tls::error::SessionError;

/// An upstream's reply.
#[derive(Debug)]
pub struct Reply {
    /// Its status, final (never 1xx).
    pub status: u16,
    /// Its Retry-After, in seconds from now.
    pub retry_after_secs: Option<u32>,
    /// How much the upstream says it has stored.
    pub written: Option<Written>,
    /// Whether it is a 2xx that has to say that and does not: a 502 of ours in its place.
    pub is_unwritten: bool,
    /// How many samples the upstream says that it has not taken of what it stored. Only OTLP says that, in the body.
    pub rejected: u64,
    /// Whether it has a Location.
    pub has_location: bool,
    /// The beginning of its body.
    pub message: Vec<u8>,
    /// Whether the connection can carry another request.
    pub reusable: bool,
}

impl Reply {
    /// Returns the outcome of a redirect, if the reply is one.
    pub fn redirect(&self) -> Option<Outcome> {
        (300..400).contains(&self.status).then(|| Outcome::redirected(self.status, self.has_location))
    }

    /// Returns the outcome for the fragments of the request.
    pub fn into_outcome(self) -> Outcome {
        if let Some(outcome) = self.redirect() {
            return outcome;
        }
        let outcome = Outcome::upstream(self.status, self.retry_after_secs, &self.message);
        Outcome { written: self.written, is_unwritten: self.is_unwritten, rejected: self.rejected, ..outcome }
    }
}

/// Sends `request` and reads the reply, all before `deadline`; of its body `message_max` bytes are kept. After an error
/// the connection must not be used again.
///
/// # Errors
/// [`Failure::Stale`], [`Failure::Broken`] or [`Failure::TimedOut`].
pub async fn post(
    connection: &mut Connection,
    request: Gather,
    deadline: Instant,
    message_max: usize,
) -> Result<Reply, Failure> {
    connection.stream.set_deadline(deadline, Cut::Both);
    let mut buffer = std::mem::take(&mut connection.buffer);
    buffer.clear();
    buffer.reserve(RESPONSE_BYTES);
    let mut reading = Reading { connection, buffer, heard: false, message_max };
    let result = reading.exchange(request).await;
    let Reading { connection, buffer, heard, .. } = reading;
    connection.buffer = buffer;
    result.map_err(|broken| broken.into_failure(connection, heard))
}

/// Why there is no reply.
enum NoReply {
    /// The connection broke, or was shut down at its deadline.
    Io(io::Error),
    /// The connection had timed out before the request came, so that the upstream has not processed it.
    Unprocessed,
    /// The response is none that can be trusted.
    Invalid(String),
}

impl NoReply {
    /// `heard` tells whether a byte of a response has come.
    fn into_failure(self, connection: &Connection, heard: bool) -> Failure {
        let address = connection.address();
        match self {
            Self::Io(_) if connection.stream.expired() => Failure::TimedOut,
            Self::Io(e) if connection.reused && !heard => Failure::Stale { address, reason: e.to_string() },
            Self::Io(e) => Failure::Broken { address, reason: e.to_string() },
            Self::Unprocessed => Failure::Stale { address, reason: "it had timed out".into() },
            Self::Invalid(reason) => Failure::Broken { address, reason },
        }
    }
}

/// What was known of the response when the kernel had taken the whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Unanswered,
    /// The response had begun to arrive.
    Answered,
}

/// As much of a response as tells a final one from an interim one: up to the first digit of its status.
const STATUS_PREFIX: &[u8] = b"HTTP/1.1 1";

struct Reading<'c> {
    connection: &'c mut Connection,
    buffer: Vec<u8>,
    /// Whether a byte of a response has come. It counts although an interim response has left `buffer`: the peer has
    /// the request, and another attempt could store it twice.
    heard: bool,
    /// Bytes of the body that are kept.
    message_max: usize,
}

impl Reading<'_> {
    async fn exchange(&mut self, request: Gather) -> Result<Reply, NoReply> {
        let sent = self.send(request).await;
        // An upstream may refuse a request before it has read all of it, and close. Then writing fails, but the
        // response can be read, and it says more than the error.
        let reply = match (self.reply().await, sent) {
            // RFC 9110 section 15.5.9: the server has not received a complete request.
            (Ok(reply), _) if reply.status == 408 && self.connection.reused => {
                return Err(NoReply::Unprocessed);
            }
            // An alert says why the upstream has closed.
            (Err(NoReply::Io(e)), Err(_)) if session_error(&e).is_some() => return Err(NoReply::Io(e)),
            (Err(NoReply::Io(_)), Err(e)) if !self.heard => return Err(NoReply::Io(e)),
            (reply, sent) => (reply?, sent),
        };
        match reply {
            (reply, Err(_) | Ok(Sent::Answered)) if (200..300).contains(&reply.status) => Err(
                NoReply::Invalid(format!("it answered {} before it had all of the request", reply.status)),
            ),
            (reply, Err(_)) => Ok(Reply { reusable: false, ..reply }),
            (reply, Ok(_)) => Ok(reply),
        }
    }

    /// Hands the request to the kernel. Between writes it looks whether the response has begun to arrive.
    async fn send(&mut self, mut request: Gather) -> io::Result<Sent> {
        let mut sent = Sent::Unanswered;
        loop {
            request = self.connection.stream.write_some(request).await?;
            if request.is_done() {
                return Ok(sent);
            }
            let mut first = [0; STATUS_PREFIX.len()];
            let peeked = self.connection.stream.peek(&mut first);
            if peeked.is_ok_and(|n| n == first.len()) && first != STATUS_PREFIX {
                sent = Sent::Answered;
            }
        }
    }

    async fn reply(&mut self) -> Result<Reply, NoReply> {
        let (head, head_bytes) = self.final_head().await?;
        let body = self.body(head.framing, head_bytes).await?;
        let end = body.text.len().min(self.message_max);
        Ok(Reply {
            status: head.status,
            retry_after_secs: head.retry_after_secs,
            written: head.written,
            is_unwritten: false,
            rejected: 0,
            has_location: head.has_location,
            message: body.text[..end].to_vec(),
            reusable: head.keep_alive && body.ended,
        })
    }

    /// Reads the head of the final response, after any interim ones (RFC 9110 section 15.2). Returns its length, too.
    async fn final_head(&mut self) -> Result<(ResponseHead, usize), NoReply> {
        loop {
            let parsed = ResponseHead::parse(&self.buffer, SystemTime::now());
            match parsed.map_err(|e| NoReply::Invalid(format!("not an HTTP response: {e}")))? {
                Some((head, bytes)) if head.status < 200 => drop(self.buffer.drain(..bytes)),
                Some(found) => return Ok(found),
                None if self.buffer.len() >= RESPONSE_HEAD_BYTES_MAX => {
                    return Err(NoReply::Invalid(format!(
                        "not an HTTP response: its head exceeds {RESPONSE_HEAD_BYTES_MAX} bytes"
                    )));
                }
                None => self.more().await?,
            }
        }
    }

    async fn body(&mut self, framing: ResponseFraming, from: usize) -> Result<Body, NoReply> {
        match framing {
            ResponseFraming::None => Ok(Body { text: Vec::new(), ended: self.buffer.len() == from }),
            ResponseFraming::Length(length) => self.counted_body(from, length).await,
            ResponseFraming::Chunked => self.chunked_body(from).await,
            ResponseFraming::UntilClose => self.rest_as_body(from).await,
        }
    }

    async fn counted_body(&mut self, from: usize, length: u64) -> Result<Body, NoReply> {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(RESPONSE_BODY_BYTES_MAX);
        while self.buffer.len() - from < wanted {
            self.more().await?;
        }
        let here = self.buffer.len() - from;
        // Bytes past the end of the body answer no request of ours. They are not passed on, and the connection is not
        // used again.
        let text = self.buffer[from..from + here.min(wanted)].to_vec();
        Ok(Body { ended: here as u64 == length, text })
    }

    async fn chunked_body(&mut self, mut from: usize) -> Result<Body, NoReply> {
        let mut decoder = ChunkDecoder::new(RESPONSE_BODY_BYTES_MAX);
        let mut text = Vec::new();
        loop {
            match decoder.decode(&self.buffer[from..], &mut text) {
                Ok((consumed, true)) => {
                    return Ok(Body { text, ended: self.buffer.len() == from + consumed });
                }
                Ok((consumed, false)) => from += consumed,
                // Too long or malformed: the status is known, but the connection cannot be used again.
                Err(_) => return Ok(Body { text, ended: false }),
            }
            self.more().await?;
        }
    }

    async fn rest_as_body(&mut self, from: usize) -> Result<Body, NoReply> {
        while self.buffer.len() - from < self.message_max {
            match self.more().await {
                Ok(()) => {}
                Err(NoReply::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => break,
                // The status has come whole, and many servers end a connection so.
                Err(NoReply::Io(e)) if session_error(&e) == Some(&SessionError::Truncated) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(Body { text: self.buffer[from..].to_vec(), ended: false })
    }

    async fn more(&mut self) -> Result<(), NoReply> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.len() == buffer.capacity() {
            buffer.reserve(RESPONSE_BYTES);
        }
        let (result, buffer) = self.connection.stream.read(buffer).await;
        self.buffer = buffer;
        match result {
            Ok(0) => Err(NoReply::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {
                self.heard = true;
                Ok(())
            }
            Err(e) => Err(NoReply::Io(e)),
        }
    }
}

/// Why the TLS session of a connection has failed, if that is what the error is about.
fn session_error(error: &io::Error) -> Option<&SessionError> {
    error.get_ref().and_then(|source| source.downcast_ref())
}

struct Body {
    text: Vec<u8>,
    /// Whether the whole body has been read, and nothing after it.
    ended: bool,
}
