//! HTTP/1.1 as far as a load generator and its sink need it, over any blocking stream.
//!
//! This is no second implementation of the server's parser. It accepts more, because the sink reports what arrives and
//! does not defend itself. Sizes are still bounded.

use std::io::{self, Read};
use std::mem::MaybeUninit;

/// Size of a message head. Real ones have a tenth of it.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// Size of a body on the wire, far above what the server lets through.
pub const BODY_BYTES_MAX: usize = 256 << 20;

/// Headers of one head.
const FIELDS_MAX: usize = 96;

/// How much is read at once: a head with a small body, or a piece of a large body.
const READ_BYTES: usize = 64 << 10;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed within a message.
    #[error("closed within a message")]
    Closed,
    /// Not HTTP/1.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Larger than this module's limits.
    #[error("{0} too large")]
    TooLarge(&'static str),
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// So many bytes.
    Length(usize),
    /// Chunked transfer coding.
    Chunked,
    /// A reply that ends with its connection.
    UntilClose,
}

/// Header names, in lower case, and values, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of a header. Case does not matter in `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    }

    /// The message's framing. `None` means no body for a request, and a body until the connection closes for a
    /// response.
    fn framing(&self) -> Result<Option<Framing>, HttpError> {
        if self.has_token("transfer-encoding", "chunked") {
            return Ok(Some(Framing::Chunked));
        }
        match self.get("content-length").map(str::parse) {
            None => Ok(None),
            Some(Ok(length)) if length <= BODY_BYTES_MAX => Ok(Some(Framing::Length(length))),
            Some(Ok(_)) => Err(HttpError::TooLarge("body")),
            Some(Err(_)) => Err(HttpError::Malformed("content-length")),
        }
    }
}

/// Head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// `POST`, `GET`, …
    pub method: String,
    /// Path and query as they came.
    pub path: String,
    /// All headers.
    pub headers: Headers,
    /// Where its body ends.
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
}

/// Head of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// All headers.
    pub headers: Headers,
    /// Where its body ends.
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
}

/// Reads messages off a stream, one after the other.
pub struct MessageReader<R> {
    inner: R,
    buffer: Vec<u8>,
    /// What of `buffer` is used up.
    at: usize,
}

impl<R: Read> MessageReader<R> {
    /// A reader with an empty buffer.
    pub fn new(inner: R) -> Self {
        Self { inner, buffer: Vec::with_capacity(READ_BYTES), at: 0 }
    }

    /// The stream, to be written to.
    pub fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Waits until there are bytes to parse. False when the peer closed between two messages.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn wait(&mut self) -> Result<bool, HttpError> {
        Ok(self.at < self.buffer.len() || self.fill()? > 0)
    }

    /// Bytes that have arrived and are not parsed yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.at
    }

    /// The next request's head.
    ///
    /// # Errors
    /// When the stream fails, ends, or holds something else.
    pub fn request_head(&mut self) -> Result<RequestHead, HttpError> {
        self.head(|bytes| {
            let mut fields = [MaybeUninit::uninit(); FIELDS_MAX];
            let mut request = httparse::Request::new(&mut []);
            match request.parse_with_uninit_headers(bytes, &mut fields) {
                Ok(httparse::Status::Partial) => Ok(None),
                Err(_) => Err(HttpError::Malformed("request head")),
                Ok(httparse::Status::Complete(length)) => {
                    let headers = headers(request.headers);
                    let head = RequestHead {
                        method: request.method.unwrap_or_default().to_owned(),
                        path: request.path.unwrap_or_default().to_owned(),
                        framing: headers.framing()?.unwrap_or(Framing::None),
                        keep_alive: keep_alive(request.version, &headers),
                        headers,
                    };
                    Ok(Some((head, length)))
                }
            }
        })
    }

    /// The next response's head; interim (1xx) ones are skipped.
    ///
    /// # Errors
    /// When the stream fails, ends, or holds something else.
    pub fn response_head(&mut self) -> Result<ResponseHead, HttpError> {
        loop {
            let head = self.any_response_head()?;
            if head.status >= 200 {
                return Ok(head);
            }
        }
    }

    /// The next response's head, be it an interim one.
    ///
    /// # Errors
    /// When the stream fails, ends, or holds something else.
    pub fn any_response_head(&mut self) -> Result<ResponseHead, HttpError> {
        self.head(parse_response)
    }

    fn head<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, HttpError>,
    ) -> Result<T, HttpError> {
        loop {
            let unread = self.buffer.get(self.at..).unwrap_or_default();
            if let Some((head, length)) = parse(unread)? {
                self.at += length;
                return Ok(head);
            }
            if unread.len() > HEAD_BYTES_MAX {
                return Err(HttpError::TooLarge("head"));
            }
            self.need_more()?;
        }
    }

    /// Reads a whole body into `out`. This overwrites the old content and keeps the memory.
    ///
    /// # Errors
    /// When the stream fails or ends before the body does, or the body is malformed or too large.
    pub fn body(&mut self, framing: Framing, out: &mut Vec<u8>) -> Result<(), HttpError> {
        out.clear();
        match framing {
            Framing::None => Ok(()),
            Framing::Length(length) => self.exactly(length, out),
            Framing::Chunked => self.chunks(out),
            Framing::UntilClose => {
                out.extend_from_slice(self.buffer.get(self.at..).unwrap_or_default());
                self.at = self.buffer.len();
                (&mut self.inner).take(BODY_BYTES_MAX as u64).read_to_end(out)?;
                Ok(())
            }
        }
    }

    /// Appends the next `length` bytes.
    fn exactly(&mut self, length: usize, out: &mut Vec<u8>) -> Result<(), HttpError> {
        let unread = self.buffer.get(self.at..).unwrap_or_default();
        let buffered = unread.len().min(length);
        out.extend_from_slice(unread.get(..buffered).unwrap_or_default());
        self.at += buffered;
        let rest = length - buffered;
        if (&mut self.inner).take(rest as u64).read_to_end(out)? < rest {
            return Err(HttpError::Closed);
        }
        Ok(())
    }

    fn chunks(&mut self, out: &mut Vec<u8>) -> Result<(), HttpError> {
        loop {
            let size = self.head(|bytes| match httparse::parse_chunk_size(bytes) {
                Ok(httparse::Status::Complete((length, size))) => Ok(Some((size, length))),
                Ok(httparse::Status::Partial) => Ok(None),
                Err(_) => Err(HttpError::Malformed("chunk size")),
            })?;
            let size = usize::try_from(size).map_err(|_| HttpError::TooLarge("chunk"))?;
            if out.len().saturating_add(size) > BODY_BYTES_MAX {
                return Err(HttpError::TooLarge("body"));
            }
            if size == 0 {
                // Trailers end with an empty line, as a head does.
                while self.line()? > 0 {}
                return Ok(());
            }
            self.exactly(size, out)?;
            if self.line()? > 0 {
                return Err(HttpError::Malformed("chunk longer than it says"));
            }
        }
    }

    /// Skips a line and returns its length without the line end.
    fn line(&mut self) -> Result<usize, HttpError> {
        self.head(|bytes| match bytes.iter().position(|&byte| byte == b'\n') {
            None => Ok(None),
            Some(end) => {
                let line = bytes.get(..end).unwrap_or_default();
                Ok(Some((line.strip_suffix(b"\r").unwrap_or(line).len(), end + 1)))
            }
        })
    }

    fn need_more(&mut self) -> Result<(), HttpError> {
        if self.fill()? == 0 { Err(HttpError::Closed) } else { Ok(()) }
    }

    /// Reads once. Returns 0 at the end of the stream.
    fn fill(&mut self) -> Result<usize, HttpError> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        loop {
            let result = self.inner.read(self.buffer.get_mut(filled..).unwrap_or_default());
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(filled);
                    return Err(error.into());
                }
                Ok(count) => {
                    self.buffer.truncate(filled + count);
                    return Ok(count);
                }
            }
        }
    }
}

fn parse_response(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, HttpError> {
    let mut fields = [MaybeUninit::uninit(); FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut fields,
    );
    match parsed {
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(HttpError::Malformed("response head")),
        Ok(httparse::Status::Complete(length)) => {
            let headers = headers(response.headers);
            let status = response.code.unwrap_or_default();
            let framing = match headers.framing()? {
                _ if matches!(status, 100..=199 | 204 | 304) => Framing::None,
                framing => framing.unwrap_or(Framing::UntilClose),
            };
            let keep_alive = framing != Framing::UntilClose && keep_alive(response.version, &headers);
            Ok(Some((ResponseHead { status, headers, framing, keep_alive }, length)))
        }
    }
}

fn headers(fields: &[httparse::Header<'_>]) -> Headers {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Headers(fields.iter().map(|field| (field.name.to_ascii_lowercase(), text(field.value))).collect())
}

fn keep_alive(version: Option<u8>, headers: &Headers) -> bool {
    match version {
        Some(1) => !headers.has_token("connection", "close"),
        _ => headers.has_token("connection", "keep-alive"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time, so that reads end at every position.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = 1.min(self.0.len()).min(out.len());
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn requests_follow_each_other() {
        let bytes = b"POST /push?x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
            POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nde\r\n1\r\nf\r\n0\r\nTrailer: t\r\n\r\n\
            GET / HTTP/1.0\r\n\r\n";
        let mut reader = MessageReader::new(Drip(bytes));
        let mut body = Vec::new();
        let mut seen = Vec::new();
        while reader.wait().unwrap() {
            let head = reader.request_head().unwrap();
            reader.body(head.framing, &mut body).unwrap();
            seen.push((head.method, head.path, String::from_utf8(body.clone()).unwrap(), head.keep_alive));
        }
        let expected =
            [("POST", "/push?x", "abc", true), ("POST", "/", "def", true), ("GET", "/", "", false)];
        let expected = expected.map(|(m, p, b, k)| (m.to_owned(), p.to_owned(), b.to_owned(), k));
        assert_eq!(seen, expected);
    }

    #[test]
    fn responses_are_delimited_by_length_chunks_or_close() {
        let read = |bytes: &[u8]| {
            let mut reader = MessageReader::new(Drip(bytes));
            let head = reader.response_head()?;
            let mut body = Vec::new();
            reader.body(head.framing, &mut body)?;
            Ok::<_, HttpError>((head.status, body, head.keep_alive))
        };
        let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(read(interim).unwrap(), (200, b"ok".to_vec(), true));
        assert_eq!(read(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), (204, vec![], true));
        assert_eq!(read(b"HTTP/1.1 500 x\r\n\r\ntail").unwrap(), (500, b"tail".to_vec(), false));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap(), (200, b"ok".to_vec(), true));
        assert!(matches!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"), Err(HttpError::Closed)));
        assert!(matches!(read(b"SMTP 220\r\n\r\n"), Err(HttpError::Malformed(_))));
    }
}
