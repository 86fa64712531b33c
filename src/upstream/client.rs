//! One POST over one connection: write it, read the reply.
//!
//! What is kept of a response is its status, its Retry-After, and the first [`RESPONSE_MESSAGE_BYTES_MAX`] bytes of
//! its body; the rest of a body is read only so that the connection can be used again.

use std::io;
use std::time::{Instant, SystemTime};

use super::pool::Connection;
use crate::http::body::ChunkDecoder;
use crate::http::response::{ResponseFraming, ResponseHead};
use crate::io::buffers::Gather;
use crate::io::deadline::Cut;
use crate::limits::{
    RESPONSE_BODY_BYTES_MAX, RESPONSE_BYTES, RESPONSE_HEAD_BYTES_MAX, RESPONSE_MESSAGE_BYTES_MAX,
};
use crate::model::Written;

use crate::model::Outcome;

/// An upstream's reply.
#[derive(Debug)]
pub struct Reply {
    /// Its status, final (never 1xx).
    pub status: u16,
    /// Its Retry-After, in seconds from now.
    pub retry_after_secs: Option<u32>,
    /// What it says to have stored.
    pub written: Option<Written>,
    /// Whether it says where else to go.
    pub has_location: bool,
    /// The beginning of its body.
    pub message: Vec<u8>,
    /// Whether the connection can carry another request.
    pub reusable: bool,
}

impl Reply {
    /// What a redirect comes to, if it is one.
    pub fn redirect(&self) -> Option<Outcome> {
        (300..400).contains(&self.status).then(|| Outcome::redirected(self.status, self.has_location))
    }

    /// What it means for whoever waits for the outcome.
    pub fn into_outcome(self) -> Outcome {
        if let Some(outcome) = self.redirect() {
            return outcome;
        }
        let outcome = Outcome::upstream(self.status, self.retry_after_secs, &self.message);
        Outcome { written: self.written, ..outcome }
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum NoReply {
    /// The connection had been used before and died before the first byte of a response, or was answered 408: its peer
    /// had most likely given it up already. Worth one more try over a fresh one.
    #[error("the connection had gone stale: {0}")]
    Stale(io::Error),
    /// Reset, closed early, or broken in another way. Whether the request was processed can't be known.
    #[error("{0}")]
    Broken(io::Error),
    /// No answer before the deadline.
    #[error("no answer in time")]
    TimedOut,
    /// Cut before an answer came, as others needed the connection.
    #[error("given up for others")]
    Cut,
    /// A 2xx that came before the upstream can have had the request: it says nothing about it.
    #[error("it answered {0} before it had all of the request")]
    Early(u16),
    /// Something answered that is no HTTP server.
    #[error("not an HTTP response: {0}")]
    NotHttp(String),
}

/// Sends `request` and reads the reply, all before `deadline`. After an error the connection must not be used again.
///
/// # Errors
/// See [`NoReply`].
pub async fn post(connection: &mut Connection, request: Gather, deadline: Instant) -> Result<Reply, NoReply> {
    connection.stream.set_deadline(deadline, Cut::Both);
    let mut buffer = std::mem::take(&mut connection.buffer);
    buffer.clear();
    buffer.reserve(RESPONSE_BYTES);
    let mut reading = Reading { connection, buffer, heard: false };
    let sent = reading.send(request).await;
    // An upstream may refuse a request before it has read all of it, and close: then writing fails, but the
    // answer is there to be read, and it is better than the error.
    let reply = match (reading.reply().await, sent) {
        // It had timed out before the request came, which the upstream therefore does not have (RFC 9110 section
        // 15.5.9).
        (Ok(reply), _) if reply.status == 408 && reading.connection.reused => {
            Err(NoReply::Stale(io::Error::other("it had timed out")))
        }
        (Err(NoReply::Broken(_)), Err(e)) if !reading.heard => Err(NoReply::Broken(e)),
        (Ok(reply), Err(_) | Ok(Sent::Answered)) if (200..300).contains(&reply.status) => {
            Err(NoReply::Early(reply.status))
        }
        (Ok(reply), Err(_)) => Ok(Reply { reusable: false, ..reply }),
        (reply, _) => reply,
    };
    let Reading { connection, buffer, heard } = reading;
    let reply = reply.map_err(|e| classify(e, connection, heard));
    connection.buffer = buffer;
    reply
}

fn classify(error: NoReply, connection: &Connection, heard: bool) -> NoReply {
    match error {
        NoReply::Broken(_) if connection.stream.expired() => NoReply::TimedOut,
        NoReply::Broken(e) if connection.reused && !heard => NoReply::Stale(e),
        other => other,
    }
}

/// The kernel has all of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// And nothing had been answered before.
    Unanswered,
    /// Its answer had begun to come before.
    Answered,
}

/// As much of a response as tells a final from an interim one: up to the first digit of its status.
const STATUS_PREFIX: &[u8] = b"HTTP/1.1 1";

struct Reading<'c> {
    connection: &'c mut Connection,
    buffer: Vec<u8>,
    /// Whether a byte of a response has come, be it of an interim one that is no longer in `buffer`: then the peer
    /// has the request, and a second try could store it twice.
    heard: bool,
}

impl Reading<'_> {
    /// Hands the request to the kernel. Where that takes several writes, it looks between them whether the answer comes
    /// already.
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
        let end = body.text.len().min(RESPONSE_MESSAGE_BYTES_MAX);
        Ok(Reply {
            status: head.status,
            retry_after_secs: head.retry_after_secs,
            written: head.written,
            has_location: head.has_location,
            message: body.text[..end].to_vec(),
            reusable: head.keep_alive && body.ended,
        })
    }

    /// The head of the final response, after any interim ones (RFC 9110 section 15.2), and where it ends.
    async fn final_head(&mut self) -> Result<(ResponseHead, usize), NoReply> {
        loop {
            let parsed = ResponseHead::parse(&self.buffer, SystemTime::now());
            match parsed.map_err(|e| NoReply::NotHttp(e.to_string()))? {
                Some((head, bytes)) if head.status < 200 => drop(self.buffer.drain(..bytes)),
                Some(found) => return Ok(found),
                None if self.buffer.len() >= RESPONSE_HEAD_BYTES_MAX => {
                    return Err(NoReply::NotHttp(format!(
                        "its head exceeds {RESPONSE_HEAD_BYTES_MAX} bytes"
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
        // Bytes past its end belong to no request of ours: nobody is told them, and such a connection is not to be
        // trusted.
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
                // Too long or malformed: the status is known all the same, only the connection is spoilt.
                Err(_) => return Ok(Body { text, ended: false }),
            }
            self.more().await?;
        }
    }

    async fn rest_as_body(&mut self, from: usize) -> Result<Body, NoReply> {
        while self.buffer.len() - from < RESPONSE_MESSAGE_BYTES_MAX {
            match self.more().await {
                Ok(()) => {}
                Err(NoReply::Broken(e)) if e.kind() == io::ErrorKind::UnexpectedEof => break,
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
            Ok(0) => Err(NoReply::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {
                self.heard = true;
                Ok(())
            }
            Err(e) => Err(NoReply::Broken(e)),
        }
    }
}

struct Body {
    text: Vec<u8>,
    /// Whether the connection stands exactly at its end.
    ended: bool,
}
