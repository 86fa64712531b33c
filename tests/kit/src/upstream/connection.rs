//! One connection of an upstream: requests in, answers out.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::reply::{Admission, Close, Reply};
use super::{Session, Shared};
use crate::http::{HttpError, MessageReader, RequestHead};
use crate::stream::{Stream, accept};

/// A slow reader reads this often.
const SLOW_READS_PER_SECOND: u64 = 20;

/// A request that waits for its answer.
pub struct Request<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// Its body, without the framing.
    pub body: &'a [u8],
    /// The number of this request on its connection, from 0.
    pub nth: u64,
    /// Bytes that came after it. Only a peer that does not wait for answers sends any.
    pub bytes_behind: usize,
    shared: &'a Shared,
    stream: &'a TcpStream,
}

impl Request<'_> {
    /// Waits, but not longer than the server lives.
    pub fn pause(&self, delay: Duration) {
        self.shared.pause(delay);
    }

    /// Whether the peer still waits for an answer. A peer that stopped waiting has closed the connection.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        is_open(self.stream, Some(&now)).unwrap_or(false)
    }
}

/// Whether both sides are still open when `wait` is over. Without `wait`, this returns when a side closes.
fn is_open(stream: &TcpStream, wait: Option<&Timespec>) -> rustix::io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut fds, wait)?;
    let [fd] = &fds;
    Ok(fd.revents().is_empty())
}

/// What requests are read from, as fast as its connection says.
struct Throttled<'a> {
    shared: &'a Shared,
    stream: Stream,
    /// Bytes a second. 0 means no limit.
    rate: u64,
}

impl Read for Throttled<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rate = self.rate;
        if rate == 0 {
            return self.stream.read(out);
        }
        let most = usize::try_from((rate / SLOW_READS_PER_SECOND).max(1)).unwrap_or(usize::MAX);
        let length = out.len().min(most);
        let count = self.stream.read(out.get_mut(..length).unwrap_or_default())?;
        self.shared.pause(time_for(count, rate));
        Ok(count)
    }
}

/// How long so many bytes take.
#[expect(clippy::cast_precision_loss, reason = "a body is far below 2^53 bytes")]
fn time_for(bytes: usize, rate: u64) -> Duration {
    Duration::try_from_secs_f64(bytes as f64 / rate as f64).unwrap_or(Duration::MAX)
}

/// A connection and the buffers that it keeps from request to request.
pub(super) struct Connection<'a> {
    shared: &'a Shared,
    /// The socket under `reader`.
    socket: TcpStream,
    reader: MessageReader<Throttled<'a>>,
    id: u64,
    body: Vec<u8>,
    reply: Vec<u8>,
    reset: bool,
}

impl<'a> Connection<'a> {
    /// Shakes hands, if the server speaks TLS.
    pub(super) fn new(shared: &'a Shared, socket: TcpStream, id: u64) -> io::Result<Self> {
        // An answer is one small write, so waiting for more data gains nothing.
        let _ = socket.set_nodelay(true);
        let stream = socket.try_clone()?;
        let stream: Stream = match &shared.tls {
            None => Box::new(stream),
            Some(config) => accept(stream, Arc::clone(config))?,
        };
        let reader = MessageReader::new(Throttled { shared, stream, rate: 0 });
        let (body, reply) = (Vec::new(), Vec::new());
        Ok(Self { shared, socket, reader, id, body, reply, reset: false })
    }

    /// Serves requests until either side closes.
    pub(super) fn run(&mut self, mut session: Box<dyn Session>) {
        let mut nth = 0;
        while matches!(self.reader.wait(), Ok(true)) {
            self.set_busy(true);
            let going_on = match self.receive(&mut *session) {
                Ok(Some(head)) => self.answer(&head, nth, &mut *session),
                Ok(None) | Err(HttpError::Io(_) | HttpError::Closed) => false,
                Err(error) => {
                    session.broken(&error);
                    let reply = Reply::new(400, &error.to_string()).close(Close::AfterReply);
                    self.send(&reply, false, &mut *session)
                }
            };
            nth += 1;
            self.set_busy(false);
            if !going_on || self.shared.stopping() {
                break;
            }
        }
        drop(session);
        if !self.reset {
            self.stream().finish();
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    fn stream(&mut self) -> &mut Stream {
        &mut self.reader.inner_mut().stream
    }

    fn set_busy(&self, busy: bool) {
        if let Some(open) = self.shared.connections().open.get_mut(&self.id) {
            open.busy = busy;
        }
    }

    /// Reads a request. `None` when the session ends the connection instead.
    fn receive(&mut self, session: &mut dyn Session) -> Result<Option<RequestHead>, HttpError> {
        let head = self.reader.request_head()?;
        let begun = Instant::now();
        let rate = match session.admit(&head) {
            Admission::Read => 0,
            Admission::ReadSlowly { bytes_per_second } => bytes_per_second.max(1),
            Admission::Reset => {
                self.reset();
                return Ok(None);
            }
            Admission::HalfOpen => {
                self.hold();
                return Ok(None);
            }
        };
        if head.headers.get("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.reader.inner_mut().rate = rate;
        let read = self.reader.body(head.framing, &mut self.body);
        self.reader.inner_mut().rate = 0;
        read?;
        if rate > 0 {
            // A part of the body came along with the head, at full speed.
            self.shared.pause(time_for(self.body.len(), rate).saturating_sub(begun.elapsed()));
        }
        Ok(Some(head))
    }

    /// Makes the connection end with a RST.
    fn reset(&mut self) {
        // Linger 0 makes the last close send a RST (socket(7)), so no FIN may be sent before.
        self.reset = true;
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }

    /// Waits until the peer closes or the server stops, and reads nothing.
    fn hold(&self) {
        // A stopping server shuts down connections that are not busy, which ends the wait.
        self.set_busy(false);
        while !self.shared.stopping() {
            match is_open(&self.socket, None) {
                Err(rustix::io::Errno::INTR) | Ok(true) => {}
                _ => return,
            }
        }
    }

    /// Answers a request. False when it was the connection's last.
    fn answer(&mut self, head: &RequestHead, nth: u64, session: &mut dyn Session) -> bool {
        let (shared, stream, bytes_behind) = (self.shared, &self.socket, self.reader.buffered());
        let reply = session.answer(&Request { head, body: &self.body, nth, bytes_behind, shared, stream });
        self.shared.pause(reply.delay);
        self.send(&reply, head.keep_alive, session)
    }

    fn write(&mut self) -> io::Result<()> {
        let stream = &mut self.reader.inner_mut().stream;
        stream.write_all(&self.reply)?;
        stream.flush()
    }

    /// Sends a reply. False when the connection ends with it.
    fn send(&mut self, reply: &Reply, keep_alive: bool, session: &mut dyn Session) -> bool {
        let going_on = keep_alive && reply.close == Close::Never && !self.shared.stopping();
        match reply.close {
            Close::BeforeReply => false,
            Close::Reset => {
                self.reset();
                false
            }
            Close::MidReply => {
                reply.write(keep_alive, &mut self.reply);
                self.reply.truncate(self.reply.len() / 2);
                let _ = self.write();
                self.reset();
                false
            }
            Close::Stall => {
                self.hold();
                false
            }
            Close::Never | Close::AfterReply | Close::AfterReplyUnannounced => {
                reply.write(going_on, &mut self.reply);
                let is_sent = self.write().is_ok();
                session.sent(is_sent);
                is_sent && going_on
            }
        }
    }
}
