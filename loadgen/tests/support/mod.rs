//! What the tests of a sink have in common.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test may fail, and needs not all of this"
)]

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use loadgen::http::{HttpError, MessageReader};
use loadgen::proto::WriteRequest;
use loadgen::sink::Sink;

/// A client of a few lines.
pub struct Client {
    pub stream: TcpStream,
    pub reader: MessageReader<TcpStream>,
}

impl Client {
    pub fn connect(sink: &Sink) -> Self {
        let stream = TcpStream::connect(sink.addr()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let reader = MessageReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub fn send(&mut self, head: &str, body: &[u8]) {
        self.stream.write_all(head.as_bytes()).unwrap();
        self.stream.write_all(body).unwrap();
    }

    pub fn reply(&mut self) -> Result<(u16, String), HttpError> {
        let head = self.reader.response_head()?;
        let mut body = Vec::new();
        self.reader.body(head.framing, &mut body)?;
        Ok((head.status, String::from_utf8(body).unwrap()))
    }

    pub fn push(&mut self, tenant: &str, request: &WriteRequest) -> Result<(u16, String), HttpError> {
        let block = request.to_block();
        let head = format!(
            "POST /api/v1/push HTTP/1.1\r\nHost: s\r\nX-Scope-OrgID: {tenant}\r\nContent-Length: {}\r\n\r\n",
            block.len()
        );
        self.send(&head, &block);
        self.reply()
    }
}
