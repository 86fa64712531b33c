//! A client that sends raw bytes and reads responses strictly, over plain TCP or TLS.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::MutexGuard;
use std::time::Duration;

use rustls::ClientConnection;
pub use testkit::client::Response;
use testkit::client::{RawClient, TlsStream};
use testkit::http::{Framing, HttpError};

/// How long a client waits whenever it reads.
const TIMEOUT: Duration = Duration::from_secs(20);

pub struct Client(RawClient);

/// The head of a push. `more` are further header lines, each with its CRLF.
pub fn push_head(length: usize, more: &str) -> String {
    format!(
        "POST /push HTTP/1.1\r\nHost: tenantry\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
         X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self(RawClient::connect(address, TIMEOUT).unwrap())
    }

    /// Shakes hands over `tcp`.
    pub fn secure(tcp: TcpStream, session: ClientConnection) -> io::Result<Self> {
        RawClient::secure(tcp, session, TIMEOUT).map(Self)
    }

    pub fn local(&self) -> SocketAddr {
        self.0.with_socket(|tcp| tcp.local_addr()).unwrap()
    }

    /// The session and its socket. Only a connection over TLS has them.
    pub fn tls(&self) -> MutexGuard<'_, TlsStream> {
        self.0.tls().expect("the connection speaks TLS")
    }

    /// Sends these bytes as they are. Over TLS they are in the place of a record.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.0.with_socket(|mut tcp| tcp.write_all(bytes)).unwrap();
    }

    /// As [`send_raw`](Self::send_raw), but the peer may have closed already.
    pub fn try_send_raw(&mut self, bytes: &[u8]) {
        let _ = self.0.with_socket(|mut tcp| tcp.write_all(bytes));
    }

    /// Sends the end of the stream, and over TLS no `close_notify` before it.
    pub fn cut_writing(&mut self) {
        self.0.with_socket(|tcp| tcp.shutdown(Shutdown::Write)).unwrap();
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.send(bytes).unwrap();
    }

    /// As [`send`](Self::send), but the peer may have closed already.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.attempt(bytes);
    }

    /// As [`send`](Self::send), and says whether that works.
    pub fn attempt(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes)
    }

    pub fn push(&mut self, body: &[u8]) -> Response {
        self.push_with(body, "")
    }

    pub fn push_with(&mut self, body: &[u8], headers: &str) -> Response {
        let mut request = push_head(body.len(), headers).into_bytes();
        request.extend_from_slice(body);
        self.send(&request);
        self.response()
    }

    /// The next response, which may be an interim one.
    pub fn response(&mut self) -> Response {
        self.response_to(false)
    }

    /// The next response. One to a HEAD request has no body.
    pub fn response_to(&mut self, head_request: bool) -> Response {
        let response = self.0.any_response(head_request).unwrap();
        assert_ne!(response.framing, Framing::Chunked, "the server sends no chunks");
        let is_protobuf = response.header("content-type") == Some("application/x-protobuf");
        assert!(is_protobuf || std::str::from_utf8(&response.body).is_ok(), "the server sends text");
        response
    }

    /// As [`response`](Self::response); `None` if the connection ends first, however it does.
    pub fn try_response(&mut self) -> Option<Response> {
        self.0.response().ok()
    }

    /// Whether the peer closes, without sending anything more, within the read timeout. Over TLS it has to say so.
    pub fn is_closed(&mut self) -> bool {
        self.0.is_closed().unwrap()
    }

    /// As [`is_closed`](Self::is_closed), however the connection ends.
    pub fn ends(&mut self) -> bool {
        match self.0.is_closed() {
            Err(HttpError::Io(e)) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            closed => closed.unwrap(),
        }
    }

    /// Whether nothing comes for so long and the connection stays open. Bytes that do come can still be read.
    pub fn is_quiet_for(&mut self, millis: u64) -> bool {
        self.0.is_quiet_for(Duration::from_millis(millis)).unwrap()
    }
}
