//! A client that sends the bytes that it is given, and reads responses strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A push request with these additional header lines (each with its CRLF).
pub fn push_head(length: usize, more: &str) -> String {
    format!(
        "POST /push HTTP/1.1\r\nHost: tenantry\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
         X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// As [`send`](Self::send), but the peer may have closed already.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
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

    /// The next response.
    pub fn response(&mut self) -> Response {
        self.response_to(false)
    }

    /// The next response; one to a HEAD request has no body.
    pub fn response_to(&mut self, head_request: bool) -> Response {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.more() > 0,
                "closed before a response; read {:?}",
                String::from_utf8_lossy(&self.read)
            );
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap();
        assert!(status_line.starts_with("HTTP/1."), "{status_line}");
        let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> =
            lines.map(|l| l.split_once(": ").expect(l)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let mut response = Response { status, headers, body: Vec::new() };
        if status < 200 || head_request {
            return response;
        }
        match response.header("content-length").map(|l| l.parse::<usize>().unwrap()) {
            Some(length) => {
                while self.read.len() < length {
                    assert!(self.more() > 0, "closed within a body");
                }
                response.body = self.read.drain(..length).collect();
            }
            None if status == 204 => {}
            None => {
                while self.more() > 0 {}
                response.body = std::mem::take(&mut self.read);
            }
        }
        response
    }

    /// Whether the peer closes, without sending anything more, within the read timeout.
    pub fn is_closed(&mut self) -> bool {
        self.read.is_empty() && self.more() == 0
    }

    /// Whether nothing comes for a while, and the connection stays open. What comes is still to be read.
    pub fn is_quiet_for(&mut self, millis: u64) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(millis))).unwrap();
        let result = self.stream.peek(&mut [0u8; 1]);
        self.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        matches!(result, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    fn more(&mut self) -> usize {
        let mut buffer = [0u8; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(n) => {
                self.read.extend_from_slice(&buffer[..n]);
                n
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => panic!("the connection was reset"),
            Err(e) => panic!("{e}; read so far: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }
}
