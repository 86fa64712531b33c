//! A TLS session over a socket: drives a [`Session`] with the socket's bytes.
//!
//! # Constraints
//! - A session only turns bytes into bytes, so this is the only place where TLS reads and writes.
//! - An operation that reads must not wait until its peer reads: its deadline may end reading only. So it sends
//!   the session's replies only as far as the socket has room. The rest is sent with the next operation.
//! - An idle connection must not hold a buffer. The memory that ciphertext is read into is given up before a connection
//!   goes idle; the memory that is encrypted into belongs to the core and is lent for one operation.
//! - Each step encrypts or decrypts at most
//!   [`TLS_STEP_BYTES_MAX`](crate::limits::TLS_STEP_BYTES_MAX) bytes before it awaits the socket.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;

use crate::limits::TLS_STEP_BYTES_MAX;
use crate::tls::outgoing::Outgoing;
use crate::tls::session::{Handshake, Progress, Session};

/// The size of a read that must not wait: enough for the head of a response.
const PEEKED_BYTES: usize = 4_096;

/// What a session may have to say to a peer that reads nothing. That is an alert or two, of 30 bytes each.
const UNSENT_BYTES_MAX: usize = 4_096;

/// How many buffers for outgoing bytes a core keeps. An operation needs one while it writes.
const SPARE_OUTGOING_MAX: usize = 16;

thread_local! {
    /// Buffers for outgoing bytes. A core is a thread.
    static SPARE: RefCell<Vec<Outgoing>> = const { RefCell::new(Vec::new()) };
}

/// See the module.
#[derive(Debug)]
pub(super) struct Layer {
    session: Box<Session>,
    /// Plaintext that was decrypted by [`peek`](Self::peek) and has not been read.
    peeked: Vec<u8>,
    /// Ciphertext that has to be sent before any other.
    unsent: Vec<u8>,
}

impl Layer {
    pub(super) fn new(session: Box<Session>) -> Box<Self> {
        Box::new(Self { session, peeked: Vec::new(), unsent: Vec::new() })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn into_session(self) -> Box<Session> {
        self.session
    }

    /// Whether a read gives something without waiting for the socket.
    pub(super) fn is_pending(&self) -> bool {
        !self.peeked.is_empty() || self.session.has_pending()
    }

    /// Whether there is nothing to be read from it, and nothing to be sent.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_pending() && self.unsent.is_empty()
    }

    /// As [`is_pending`](Self::is_pending). If nothing is, the memory for reads is given up.
    pub(super) fn has_pending(&mut self) -> bool {
        let pending = self.is_pending();
        if !pending {
            drop(self.session.reclaim());
        }
        pending
    }

    /// Shakes hands. `turn` is awaited before each step but the first.
    pub(super) async fn handshake(
        &mut self,
        tcp: &mut TcpStream,
        turn: impl AsyncFn() -> io::Result<()>,
    ) -> io::Result<()> {
        if self.session.is_server() {
            // The client begins.
            self.fetch_more(tcp).await?;
        }
        loop {
            let mut outgoing = take_outgoing();
            let state = self.session.handshake(&mut outgoing);
            let flushed = flush(tcp, outgoing).await;
            match state.map_err(io::Error::other)? {
                Handshake::Done => return flushed,
                Handshake::Blocked => flushed?,
            }
            self.fetch_more(tcp).await?;
            turn().await?;
        }
    }

    /// As [`fetch`](Self::fetch), and the end is an error.
    async fn fetch_more(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        if self.fetch(tcp).await? == 0 {
            self.session.ended().map_err(io::Error::other)?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads ciphertext from the socket into the session. 0 bytes mean the end.
    async fn fetch(&mut self, tcp: &mut TcpStream) -> io::Result<usize> {
        let (buffer, end) = self.session.lend();
        let from = buffer.len();
        let (result, slice) = tcp.read(buffer.slice_mut(from..end)).await;
        self.session.received(slice.into_inner());
        result
    }

    pub(super) async fn read_up_to(
        &mut self,
        tcp: &mut TcpStream,
        mut buffer: Vec<u8>,
        end: usize,
    ) -> (io::Result<usize>, Vec<u8>) {
        if !self.peeked.is_empty() {
            let bytes = self.peeked.len().min(end - buffer.len());
            buffer.extend(self.peeked.drain(..bytes));
            if self.peeked.is_empty() {
                // An idle connection should not hold it.
                self.peeked = Vec::new();
            }
            return (Ok(bytes), buffer);
        }
        loop {
            let result = match self.decrypt(tcp, &mut buffer, end) {
                Ok(Progress::Plaintext(bytes)) => Ok(bytes),
                Ok(Progress::Ended) => Ok(0),
                Ok(Progress::Blocked) => match self.fetch(tcp).await {
                    Ok(0) => self.session.ended().map(|()| 0).map_err(io::Error::other),
                    Ok(_) => continue,
                    Err(e) => Err(e),
                },
                Err(e) => Err(e),
            };
            return (result, buffer);
        }
    }

    /// Decrypts one step, and sends the session's reply to it.
    fn decrypt(&mut self, tcp: &TcpStream, into: &mut Vec<u8>, end: usize) -> io::Result<Progress> {
        let mut outgoing = take_outgoing();
        let progress = self.session.read(into, end, &mut outgoing);
        self.unsent.extend_from_slice(outgoing.as_slice());
        outgoing.clear();
        keep_outgoing(outgoing);
        // SAFETY: monoio's stream keeps its descriptor open until it is dropped, which is not while it is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(tcp.as_raw_fd()) };
        let sent = self.send_unsent(fd);
        // An alert that cannot be sent is worth no error of its own.
        let progress = progress.map_err(io::Error::other)?;
        sent.map(|()| progress)
    }

    /// Sends what the socket has room for.
    fn send_unsent(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        // On an error the peer has disconnected. What it has sent can still be read, and then the error comes again.
        let sent = rustix::net::send(socket, &self.unsent, flags).unwrap_or(0);
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        if self.unsent.len() > UNSENT_BYTES_MAX {
            return Err(io::Error::other("the peer does not read what it has asked for"));
        }
        Ok(())
    }

    /// Writes what has to be sent before anything else.
    async fn flush_unsent(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let unsent = std::mem::take(&mut self.unsent);
        let end = unsent.len();
        write_front(tcp, unsent, end).await.0
    }

    pub(super) async fn write_all(&mut self, tcp: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let written = self.write_some(tcp, std::iter::once(left)).await?;
            left = left.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Encrypts and writes the beginning of `slices`: one step. Returns the number of plaintext bytes.
    pub(super) async fn write_some<'p>(
        &mut self,
        tcp: &mut TcpStream,
        slices: impl IntoIterator<Item = &'p [u8]>,
    ) -> io::Result<usize> {
        self.flush_unsent(tcp).await?;
        let mut outgoing = take_outgoing();
        let written = self.session.encrypt(slices, TLS_STEP_BYTES_MAX, &mut outgoing);
        let flushed = flush(tcp, outgoing).await;
        let written = written.map_err(io::Error::other)?;
        flushed?;
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    /// Tells the peer that nothing more will be written.
    pub(super) async fn close(&mut self, tcp: &mut TcpStream) {
        if self.flush_unsent(tcp).await.is_err() {
            return;
        }
        let mut outgoing = take_outgoing();
        self.session.close(&mut outgoing);
        // Fails only if the peer has disconnected already.
        let _ = flush(tcp, outgoing).await;
    }

    /// As [`close`](Self::close), as far as the socket has room: it does not wait.
    pub(super) fn take_leave(&mut self, socket: BorrowedFd<'_>) {
        // Not a spare one, which a thread that ends may not have any more.
        let mut outgoing = Outgoing::default();
        self.session.close(&mut outgoing);
        self.unsent.extend_from_slice(outgoing.as_slice());
        // Fails only if the peer has disconnected already, or reads nothing.
        let _ = self.send_unsent(socket);
    }

    /// Decrypts what the socket has, without waiting, and copies the first bytes without consuming them.
    pub(super) fn peek(&mut self, socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
        if self.peeked.len() < into.len() {
            let mut chunk = [0; PEEKED_BYTES];
            let (mut buffer, end) = self.session.lend();
            let room = chunk.len().min(end - buffer.len());
            let received = match chunk.get_mut(..room) {
                Some(chunk) => rustix::net::recv(socket, chunk, rustix::net::RecvFlags::DONTWAIT),
                None => Ok((0, 0)),
            };
            let bytes = received.as_ref().map_or(0, |(bytes, _)| *bytes);
            buffer.extend_from_slice(chunk.get(..bytes).unwrap_or_default());
            self.session.received(buffer);
            let (end, mut outgoing) = (self.peeked.len() + PEEKED_BYTES, take_outgoing());
            let read = self.session.read(&mut self.peeked, end, &mut outgoing);
            self.unsent.extend_from_slice(outgoing.as_slice());
            outgoing.clear();
            keep_outgoing(outgoing);
            read.map_err(io::Error::other)?;
        }
        if self.peeked.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = self.peeked.len().min(into.len());
        let (from, to) = (self.peeked.iter(), into.iter_mut());
        to.zip(from).for_each(|(to, from)| *to = *from);
        Ok(bytes)
    }
}

fn take_outgoing() -> Outgoing {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Writes all that is to be sent, and keeps the memory.
async fn flush(tcp: &mut TcpStream, mut outgoing: Outgoing) -> io::Result<()> {
    let mut result = Ok(());
    if !outgoing.is_empty() {
        let (buffer, end) = outgoing.take();
        let (written, buffer) = write_front(tcp, buffer, end).await;
        outgoing.restore(buffer);
        result = written;
    }
    keep_outgoing(outgoing);
    result
}

fn keep_outgoing(outgoing: Outgoing) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_OUTGOING_MAX {
            spare.push(outgoing);
        }
    });
}

/// Writes the first `end` bytes of `buffer`, and returns it for reuse.
pub(super) async fn write_front(
    tcp: &mut TcpStream,
    mut buffer: Vec<u8>,
    end: usize,
) -> (io::Result<()>, Vec<u8>) {
    let mut written = 0;
    while written < end {
        let (result, slice) = tcp.write(buffer.slice(written..end)).await;
        buffer = slice.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(n) => written += n,
            Err(e) => return (Err(e), buffer),
        }
    }
    (Ok(()), buffer)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn session() -> Session {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        Session::client(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the timeout ends a test that hangs, and nothing is read after it"
    )]
    fn reading_does_not_wait_until_the_peer_reads() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        // The peer reads nothing, so that there is no room for an alert, and breaks the protocol.
        while (&ours).write(&[0; 65_536]).is_ok() {}
        peer.write_all(&[22, 3, 3, 0, 4, 99, 0, 0, 0]).unwrap();
        let mut runtime =
            monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap();
        runtime.block_on(async {
            let (mut tcp, mut layer) = (TcpStream::from_std(ours).unwrap(), Layer::new(Box::new(session())));
            let read = layer.read_up_to(&mut tcp, Vec::with_capacity(100), 100);
            let (result, _) =
                monoio::time::timeout(Duration::from_secs(5), read).await.expect("it does not wait");
            assert!(result.is_err());
        });
    }
}
