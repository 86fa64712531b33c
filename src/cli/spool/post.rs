//! One POST over plain HTTP, which blocks, on a connection of its own.
//!
//! The head of the answer decides: when it is there, whatever comes of the rest is only shown.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime};

use crate::config::Target;
use crate::http::{ChunkDecoder, ResponseFraming, ResponseHead};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the request and its answer may take, together.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest head of an answer, with those that only announce it.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What is read of the content of an answer.
const CONTENT_BYTES_MAX: usize = 64 << 10;

/// What is shown of it.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The beginning of its content, as far as it came.
    pub(super) content: Vec<u8>,
}

impl Answer {
    /// The content as a text to show.
    pub(super) fn text(&self) -> String {
        let shown = self.content.get(..TEXT_BYTES_MAX).unwrap_or(&self.content);
        String::from_utf8_lossy(shown).trim().to_owned()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("there is no connection: {0}")]
    Connect(#[source] io::Error),
    #[error("there is no answer: {0}")]
    Exchange(#[source] io::Error),
}

/// Sends a request. `head` is all of it up to the body.
pub(super) fn post(target: &Target, head: &[u8], body: &[u8]) -> Result<Answer, PostError> {
    let stream = connect((target.host.as_str(), target.port)).map_err(PostError::Connect)?;
    let mut stream = Timed { stream, until: Instant::now() + TIMEOUT };
    // Who refuses a request may answer before all of it is written.
    let written = stream.write_all(head).and_then(|()| stream.write_all(body));
    match answer(&mut stream) {
        Err(error) => Err(PostError::Exchange(written.err().unwrap_or(error))),
        answered => answered.map_err(PostError::Exchange),
    }
}

fn connect(address: (&str, u16)) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection whose operations end at a time.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

/// The kernel's word for a timeout is that the operation would block.
fn in_time<T>(result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        in_time(self.stream.read(into))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        in_time(self.stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads more bytes. Returns whether there were some.
fn more(stream: &mut impl Read, read: &mut Vec<u8>) -> io::Result<bool> {
    let mut bytes = [0; 4 << 10];
    loop {
        match stream.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            count => {
                let count = count?;
                read.extend_from_slice(bytes.get(..count).unwrap_or_default());
                return Ok(count > 0);
            }
        }
    }
}

fn answer(stream: &mut impl Read) -> io::Result<Answer> {
    let mut read = Vec::new();
    loop {
        let parsed = ResponseHead::parse(&read, SystemTime::now()).map_err(io::Error::other)?;
        match parsed {
            // An interim answer (1xx).
            Some((head, bytes)) if head.status < 200 => drop(read.drain(..bytes)),
            Some((head, bytes)) => {
                let rest = read.split_off(bytes);
                let content = content(stream, rest, head.framing);
                return Ok(Answer { status: head.status, content });
            }
            None if read.len() > HEAD_BYTES_MAX => {
                return Err(io::Error::other("the head of the answer is too long"));
            }
            None if more(stream, &mut read)? => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The beginning of the content, as far as it comes.
fn content(stream: &mut impl Read, mut read: Vec<u8>, framing: ResponseFraming) -> Vec<u8> {
    let mut content = Vec::new();
    let wanted = match framing {
        ResponseFraming::None => 0,
        ResponseFraming::Length(length) => {
            usize::try_from(length).unwrap_or(usize::MAX).min(CONTENT_BYTES_MAX)
        }
        ResponseFraming::Chunked | ResponseFraming::UntilClose => CONTENT_BYTES_MAX,
    };
    let mut chunks = ChunkDecoder::new(usize::MAX);
    loop {
        if framing == ResponseFraming::Chunked {
            match chunks.decode(&std::mem::take(&mut read), &mut content) {
                Ok((_, false)) => {}
                Ok((_, true)) | Err(_) => break,
            }
        } else {
            content.append(&mut read);
        }
        if content.len() >= wanted || !more(stream, &mut read).unwrap_or(false) {
            break;
        }
    }
    content.truncate(wanted);
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers byte by byte.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let (Some((byte, rest)), Some(first)) = (self.0.split_first(), into.first_mut()) else {
                return Ok(0);
            };
            (*first, self.0) = (*byte, rest);
            Ok(1)
        }
    }

    fn answered(bytes: &[u8]) -> io::Result<Answer> {
        answer(&mut Slow(bytes))
    }

    #[test]
    fn an_answer_has_a_status_and_some_text() {
        for (bytes, status, text) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", 200, "abc"),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno", 400, "no"),
            (
                "HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                500,
                "abc",
            ),
            ("HTTP/1.1 503 X\r\n\r\nuntil the end\n", 503, "until the end"),
            // The status is known, whatever comes of the text.
            ("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nab", 200, "ab"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz", 200, ""),
        ] {
            let answer = answered(bytes.as_bytes()).unwrap();
            assert_eq!((answer.status, &*answer.text()), (status, text), "{bytes}");
        }
        let long = format!("HTTP/1.1 500 X\r\n\r\n{}", "x".repeat(2 * CONTENT_BYTES_MAX));
        let answer = answered(long.as_bytes()).unwrap();
        assert_eq!((answer.content.len(), answer.text().len()), (CONTENT_BYTES_MAX, TEXT_BYTES_MAX));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(2 * HEAD_BYTES_MAX));
        for bytes in
            ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", "nonsense\r\n\r\n", &long]
        {
            assert!(answered(bytes.as_bytes()).is_err(), "{bytes:.40}");
        }
    }
}
