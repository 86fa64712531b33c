//! A client that sends whatever bytes it is given, and reads responses.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::http::{Framing, Headers, HttpError, MessageReader};

/// A connection.
pub struct RawClient {
    stream: TcpStream,
    reader: MessageReader<TcpStream>,
    timeout: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// All headers.
    pub headers: Headers,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// Where the body ended.
    pub framing: Framing,
}

impl Response {
    /// The first value of a header, by its name in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body as text. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl RawClient {
    /// Connects, and waits for at most `timeout` whenever it reads.
    ///
    /// # Errors
    /// When the connection is refused.
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        let reader = MessageReader::new(stream.try_clone()?);
        Ok(Self { stream, reader, timeout })
    }

    /// The connection itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes all of these bytes.
    ///
    /// # Errors
    /// When the peer is known to have closed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next response; interim (1xx) ones are skipped.
    ///
    /// # Errors
    /// When the response does not come, is cut short, or is not HTTP.
    pub fn response(&mut self) -> Result<Response, HttpError> {
        loop {
            let response = self.any_response(false)?;
            if response.status >= 200 {
                return Ok(response);
            }
        }
    }

    /// The next response, interim ones included; one to a HEAD request has no body.
    ///
    /// # Errors
    /// When the response does not come, is cut short, or is not HTTP.
    pub fn any_response(&mut self, head_request: bool) -> Result<Response, HttpError> {
        let head = self.reader.any_response_head()?;
        let framing = if head_request { Framing::None } else { head.framing };
        let mut body = Vec::new();
        self.reader.body(framing, &mut body)?;
        Ok(Response { status: head.status, headers: head.headers, body, framing })
    }

    /// Whether the peer closes, without sending anything more, within the timeout.
    ///
    /// # Errors
    /// When it resets the connection, or does nothing.
    pub fn is_closed(&mut self) -> Result<bool, HttpError> {
        self.reader.wait().map(|is_more| !is_more)
    }

    /// Whether nothing comes within `wait` and the connection stays open. Bytes that do come can still be read.
    ///
    /// # Errors
    /// When the socket refuses a timeout.
    pub fn is_quiet_for(&mut self, wait: Duration) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(wait))?;
        let result = self.stream.peek(&mut [0u8; 1]);
        self.stream.set_read_timeout(Some(self.timeout))?;
        Ok(matches!(result, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)))
    }
}
