//! A connection of a simulated sender or upstream.

use std::io::{self, Cursor};
use std::os::fd::AsRawFd;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::time::sleep;

use super::calls;
use crate::http::{Framing, HttpError, MessageReader};

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// A connection, and what of it was read ahead.
pub(super) struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub(super) fn fd(&self) -> i32 {
        self.stream.as_raw_fd()
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        let (read, bytes) = self.stream.read(Vec::with_capacity(READ_BYTES)).await;
        self.ahead.extend_from_slice(&bytes);
        Ok(read? > 0)
    }

    /// Reads a message's head, of which `parse` knows what it is. None at the end of the connection.
    pub(super) async fn head<T>(
        &mut self,
        parse: impl Fn(&mut MessageReader<Cursor<Vec<u8>>>) -> Result<T, HttpError>,
    ) -> Result<Option<T>, HttpError> {
        loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.ahead.split_off(at + 4);
                let head = std::mem::replace(&mut self.ahead, rest);
                return parse(&mut MessageReader::new(Cursor::new(head))).map(Some);
            }
            if !self.fill().await? {
                return if self.ahead.is_empty() { Ok(None) } else { Err(HttpError::Closed) };
            }
        }
    }

    /// Reads a body, at so many bytes a second if there is a rate.
    pub(super) async fn body(&mut self, framing: Framing, rate: Option<u64>) -> Result<Vec<u8>, HttpError> {
        let length = match framing {
            Framing::None => 0,
            Framing::Length(length) => length,
            Framing::Chunked | Framing::UntilClose => return Err(HttpError::Malformed("body")),
        };
        while self.ahead.len() < length {
            if !self.fill().await? {
                return Err(HttpError::Closed);
            }
        }
        if let Some(rate) = rate {
            sleep(Duration::from_secs_f64(length as f64 / rate.max(1) as f64)).await;
        }
        let rest = self.ahead.split_off(length);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    pub(super) async fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.stream.write_all(bytes).await.0.map(drop)
    }

    /// Waits until the peer has gone, and reads nothing that it sends.
    pub(super) async fn hold(&mut self) {
        while self.is_open() {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether the peer is still there.
    pub(super) fn is_open(&self) -> bool {
        calls::is_open(self.fd())
    }
}
