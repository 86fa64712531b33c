//! A client that sends whatever bytes it is given, and reads responses. It speaks plain TCP or TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::http::{Framing, Headers, HttpError, MessageReader};

/// A TLS session and its socket.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A connection.
pub struct RawClient {
    wire: Wire,
    reader: MessageReader<Wire>,
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

/// What the bytes go over. The client writes to it, and its reader reads from it.
#[derive(Clone)]
enum Wire {
    Plain(Arc<TcpStream>),
    Tls(Arc<Mutex<TlsStream>>),
}

impl Wire {
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => (&**tcp).write_all(bytes),
            Self::Tls(tls) => {
                let mut tls = locked(tls);
                tls.write_all(bytes)?;
                tls.flush()
            }
        }
    }

    fn with_socket<R>(&self, act: impl FnOnce(&TcpStream) -> R) -> R {
        match self {
            Self::Plain(tcp) => act(tcp),
            Self::Tls(tls) => act(&locked(tls).sock),
        }
    }
}

fn locked(tls: &Mutex<TlsStream>) -> MutexGuard<'_, TlsStream> {
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => (&**tcp).read(into),
            Self::Tls(tls) => read_tls(&mut locked(tls), into),
        }
    }
}

/// Reads plaintext. That the peer takes nothing more is no reason to leave unread what it has sent.
fn read_tls(tls: &mut TlsStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.conn.reader().read(into) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
        while tls.conn.wants_write() && tls.conn.write_tls(&mut tls.sock).is_ok() {}
        tls.conn.read_tls(&mut tls.sock)?;
        tls.conn.process_new_packets().map_err(io::Error::other)?;
    }
}

impl RawClient {
    /// Connects, and waits for at most `timeout` whenever it reads.
    ///
    /// # Errors
    /// When the connection is refused.
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(timeout))?;
        tcp.set_nodelay(true)?;
        Ok(Self::over(Wire::Plain(Arc::new(tcp)), timeout))
    }

    /// Shakes hands over `tcp`, and waits for at most `timeout` whenever it reads.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn secure(tcp: TcpStream, mut session: ClientConnection, timeout: Duration) -> io::Result<Self> {
        tcp.set_read_timeout(Some(timeout))?;
        tcp.set_nodelay(true)?;
        while session.is_handshaking() {
            session.complete_io(&mut &tcp)?;
        }
        Ok(Self::over(Wire::Tls(Arc::new(Mutex::new(StreamOwned::new(session, tcp)))), timeout))
    }

    fn over(wire: Wire, timeout: Duration) -> Self {
        Self { reader: MessageReader::new(wire.clone()), wire, timeout }
    }

    /// Does something with the connection itself.
    pub fn with_socket<R>(&self, act: impl FnOnce(&TcpStream) -> R) -> R {
        self.wire.with_socket(act)
    }

    /// The TLS session and its socket; `None` if the connection is plain.
    #[must_use]
    pub fn tls(&self) -> Option<MutexGuard<'_, TlsStream>> {
        match &self.wire {
            Wire::Plain(_) => None,
            Wire::Tls(tls) => Some(locked(tls)),
        }
    }

    /// Writes all of these bytes. Over TLS they are a record, or as many as they need.
    ///
    /// # Errors
    /// When the peer is known to have closed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(bytes)
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

    /// Whether the peer closes, without sending anything more, within the timeout. Over TLS it has to say so first.
    ///
    /// # Errors
    /// When it resets the connection, closes it without a `close_notify`, or does nothing.
    pub fn is_closed(&mut self) -> Result<bool, HttpError> {
        self.reader.wait().map(|is_more| !is_more)
    }

    /// Whether nothing comes within `wait` and the connection stays open. Bytes that do come can still be read.
    ///
    /// # Errors
    /// When the socket refuses a timeout.
    pub fn is_quiet_for(&mut self, wait: Duration) -> io::Result<bool> {
        self.with_socket(|tcp| tcp.set_read_timeout(Some(wait)))?;
        // A record may hold no data, so over TLS it has to be read.
        let result = self.reader.wait();
        self.with_socket(|tcp| tcp.set_read_timeout(Some(self.timeout)))?;
        let waited = |e: &io::Error| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        Ok(matches!(&result, Err(HttpError::Io(e)) if waited(e)))
    }
}
