//! The thread that posts spans to the receiver.
//!
//! A batch that the receiver does not accept is dropped and counted, not kept: the next ones would be lost instead.
//! Each step of a request has a timeout.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::otlp::{self, Span};
use super::queue::{Counts, Item};
use crate::limits::{TRACE_BATCH_MILLIS, TRACE_BATCH_SPANS_MAX, TRACE_LOG_SECS, TRACE_TIMEOUT_SECS};

/// Where spans go, by OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Value of the `Host` header.
    pub host_header: String,
    /// Path and query.
    pub path: String,
}

pub(super) struct Exporter {
    endpoint: Endpoint,
    counts: Arc<Counts>,
    /// When a failure was logged last.
    logged: Option<Instant>,
}

impl Exporter {
    pub(super) fn new(endpoint: Endpoint, counts: Arc<Counts>) -> Self {
        Self { endpoint, counts, logged: None }
    }

    /// Exports until the tracer is gone.
    pub(super) fn export_all_of(mut self, items: &Receiver<Item>) {
        let mut batch = Vec::new();
        while let Ok(first) = items.recv() {
            let until = Instant::now() + Duration::from_millis(TRACE_BATCH_MILLIS);
            let mut next = Ok(first);
            let mut flushed = None;
            loop {
                match next {
                    Ok(Item::Span(span)) => batch.push(*span),
                    Ok(Item::Flush(done)) => flushed = Some(done),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
                if batch.len() >= TRACE_BATCH_SPANS_MAX || flushed.is_some() {
                    break;
                }
                next = items.recv_deadline(until);
            }
            self.export(&batch);
            batch.clear();
            if let Some(done) = flushed {
                // The caller may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }

    fn export(&mut self, batch: &[Span]) {
        if batch.is_empty() {
            return;
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = (Instant::now(), u64::try_from(unix.as_nanos()).unwrap_or_default());
        let spans = batch.len() as u64;
        match self.post(&otlp::request(batch, now)) {
            Ok(()) => _ = self.counts.exported.fetch_add(spans, Ordering::Relaxed),
            Err(error) => {
                self.counts.dropped.fetch_add(spans, Ordering::Relaxed);
                let length = Duration::from_secs(TRACE_LOG_SECS);
                if self.logged.is_none_or(|logged| logged.elapsed() >= length) {
                    self.logged = Some(Instant::now());
                    tracing::warn!(
                        %error, spans, endpoint = %self.endpoint.host_header,
                        "spans can't be exported and are dropped (tracing.otlp.endpoint)"
                    );
                }
            }
        }
    }

    fn post(&self, body: &[u8]) -> io::Result<()> {
        let timeout = Duration::from_secs(TRACE_TIMEOUT_SECS);
        let until = Instant::now() + timeout;
        let Endpoint { host, port, host_header, path } = &self.endpoint;
        let mut stream = connect((host.as_str(), *port), timeout)?;
        let mut head = String::new();
        // Writing to a String can't fail.
        let _ = write!(
            head,
            "POST {path} HTTP/1.1\r\nHost: {host_header}\r\nUser-Agent: tenantry/{}\r\n\
             Content-Type: application/x-protobuf\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION"),
            body.len()
        );
        write_until(&mut stream, head.as_bytes(), until)?;
        write_until(&mut stream, body, until)?;
        read_status(&mut stream, until)
    }
}

/// Writes all bytes, or fails at `until`: a receiver that reads a few bytes now and then must not hold the thread.
fn write_until(stream: &mut TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn connect(address: (&str, u16), timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads the first line of the answer. The rest does not matter, as the connection is not used again.
fn read_status(stream: &mut TcpStream, until: Instant) -> io::Result<()> {
    /// `HTTP/1.1 200`
    const STATUS_BYTES: usize = 12;
    let mut line = [0; STATUS_BYTES];
    let mut filled = 0;
    while filled < STATUS_BYTES {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the receiver does not answer"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(line.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the receiver does not answer"));
            }
            Err(error) => return Err(error),
        }
    }
    match &line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'2', _, _] => Ok(()),
        _ => Err(io::Error::other(format!("the receiver answered {}", line.escape_ascii()))),
    }
}
