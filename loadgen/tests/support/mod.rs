//! What the tests have in common.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test may fail, and needs not all of this"
)]

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;

use loadgen::http::{HttpError, MessageReader};
use loadgen::proto::WriteRequest;
use loadgen::sink::Sink;

/// Runs a command to its end.
pub fn loadgen(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen")).args(args).output().unwrap()
}

/// What a command printed.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command printed, errors included.
pub fn text(output: &Output) -> String {
    stdout(output) + &String::from_utf8_lossy(&output.stderr)
}

/// Runs commands that must fail, each with its words.
pub fn refuses(commands: &[(&[&str], &str)]) {
    for (args, fault) in commands {
        let output = loadgen(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(fault), "{args:?}: {error}");
    }
}

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

    /// Sends a body under a tenant's header.
    pub fn post(&mut self, tenant: &str, body: &[u8]) {
        let length = body.len();
        let head = format!(
            "POST /api/v1/push HTTP/1.1\r\nX-Scope-OrgID: {tenant}\r\nContent-Length: {length}\r\n\r\n"
        );
        self.send(&head, body);
    }

    pub fn push(&mut self, tenant: &str, request: &WriteRequest) -> Result<(u16, String), HttpError> {
        self.post(tenant, &request.to_block());
        self.reply()
    }
}
