//! A client that sends raw bytes and reads responses strictly.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::client::RawClient;
pub use testkit::client::Response;
use testkit::http::Framing;

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
        Self(RawClient::connect(address, Duration::from_secs(20)).unwrap())
    }

    pub fn local(&self) -> SocketAddr {
        self.0.stream().local_addr().unwrap()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.send(bytes).unwrap();
    }

    /// As [`send`](Self::send), but the peer may have closed already.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.0.send(bytes);
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
        assert!(std::str::from_utf8(&response.body).is_ok(), "the server sends text");
        response
    }

    /// Whether the peer closes, without sending anything more, within the read timeout.
    pub fn is_closed(&mut self) -> bool {
        self.0.is_closed().unwrap()
    }

    /// Whether nothing comes for so long and the connection stays open. Bytes that do come can still be read.
    pub fn is_quiet_for(&mut self, millis: u64) -> bool {
        self.0.is_quiet_for(Duration::from_millis(millis)).unwrap()
    }
}
