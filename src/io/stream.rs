//! The connection type that ingest, egress and admin read and write.
//!
//! It is plain TCP until [`Stream::secure`] puts a TLS session over it; the other operations are the same for both.
//! Every operation runs to its end (see [`deadline`](super::deadline)). A caller sets a deadline first, and checks
//! [`expired`](Stream::expired) when an operation fails or finds the end of the stream.

mod layer;

use std::io;
use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;

use self::layer::{Layer, write_front};
use super::buffers::Gather;
use super::deadline::{Cut, Cutter, Deadlines, Idle, Watch};
use crate::tls::session::Session;

/// A connection with a deadline.
#[derive(Debug)]
pub struct Stream {
    // Declared before the socket: the watch must be dropped before the descriptor is closed.
    watch: Watch,
    tcp: TcpStream,
    tls: Option<Box<Layer>>,
    peer: SocketAddr,
}

impl Drop for Stream {
    /// Shuts the connection down now, as the ring closes the descriptor only later. The peer and the kernel's list of
    /// connections see the end at once. A peer over TLS first gets a `close_notify`, as RFC 8446 section 6.1 and RFC
    /// 9112 section 9.8 demand, so that it does not take the end for an attack.
    fn drop(&mut self) {
        // SAFETY: as in `fd`; the borrow of the field alone leaves `tls` free.
        let fd = unsafe { BorrowedFd::borrow_raw(self.tcp.as_raw_fd()) };
        if let Some(layer) = &mut self.tls {
            layer.take_leave(fd);
        }
        // Fails only if the peer has disconnected already.
        let _ = rustix::net::shutdown(self.fd(), rustix::net::Shutdown::Both);
    }
}

/// The socket mode that a driver needs. On a non-blocking socket io_uring would complete with EAGAIN at once; on a
/// blocking one epoll would block the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// Blocking, for io_uring.
    Yes,
    /// Non-blocking, for epoll.
    No,
}

impl Stream {
    /// Creates a stream from a connection that was accepted on this core or another.
    ///
    /// # Errors
    /// If the socket is already broken or can't be registered with the driver.
    pub fn accepted(socket: OwnedFd, blocking: Blocking, deadlines: &Deadlines) -> io::Result<Self> {
        let socket = std::net::TcpStream::from(socket);
        let peer = socket.peer_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self::over(socket, blocking, peer, deadlines)
    }

    /// Connects to `address`, and gives up at `deadline`.
    ///
    /// # Errors
    /// The kernel's error; `TimedOut` if the deadline has passed.
    pub async fn connect(
        address: SocketAddr,
        deadline: Instant,
        blocking: Blocking,
        deadlines: &Deadlines,
    ) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(e);
            }
            _ => {}
        }
        let stream = Self::over(socket.into(), Blocking::No, address, deadlines)?;
        stream.watch.set(deadline, Cut::Both);
        stream.connected(blocking).await?;
        Ok(stream)
    }

    fn over(
        socket: std::net::TcpStream,
        blocking: Blocking,
        peer: SocketAddr,
        deadlines: &Deadlines,
    ) -> io::Result<Self> {
        socket.set_nonblocking(blocking == Blocking::No)?;
        // Requests and replies are written whole: Nagle's algorithm would only delay them.
        socket.set_nodelay(true)?;
        Self::registered(socket, peer, deadlines)
    }

    fn registered(socket: std::net::TcpStream, peer: SocketAddr, deadlines: &Deadlines) -> io::Result<Self> {
        let tcp = TcpStream::from_std(socket)?;
        // SAFETY: the stream owns both. It drops the watch before the socket, as its fields are declared in that order,
        // and `into_socket` does the same.
        let watch = unsafe { deadlines.watch_socket(tcp.as_raw_fd()) };
        Ok(Self { watch, tcp, tls: None, peer })
    }

    /// Creates a stream from a connection to `peer` that another core has taken [out of its stream](Self::into_parts).
    ///
    /// # Errors
    /// If the socket can't be registered with the driver.
    pub fn handed(
        socket: OwnedFd,
        session: Option<Box<Session>>,
        peer: SocketAddr,
        deadlines: &Deadlines,
    ) -> io::Result<Self> {
        let mut stream = Self::registered(socket.into(), peer, deadlines)?;
        stream.tls = session.map(Layer::new);
        Ok(stream)
    }

    /// Returns the open socket, and the TLS session over it, for another core. No operation can be pending on the
    /// socket, as each one borrows the stream until it has ended. The stream must be [quiet](Self::is_quiet).
    pub fn into_parts(self) -> (OwnedFd, Option<Box<Session>>) {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after this, so each field has this function as its only owner.
        let (watch, tcp, tls) =
            unsafe { (ptr::read(&this.watch), ptr::read(&this.tcp), ptr::read(&this.tls)) };
        drop(watch);
        // SAFETY: `into_raw_fd` consumes the stream, its only owner, and leaves the descriptor open for us to own.
        let socket = unsafe { OwnedFd::from_raw_fd(tcp.into_raw_fd()) };
        (socket, tls.map(|layer| layer.into_session()))
    }

    async fn connected(&self, blocking: Blocking) -> io::Result<()> {
        self.tcp.writable(false).await?;
        if self.expired() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let fd = self.fd();
        let socket = socket2::SockRef::from(&fd);
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        socket.set_nonblocking(blocking == Blocking::No)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: monoio's stream keeps its descriptor open until it is dropped, which is not while `self` is borrowed.
        // (It has no `AsFd` of its own.)
        unsafe { BorrowedFd::borrow_raw(self.tcp.as_raw_fd()) }
    }

    /// Returns another descriptor of the socket, for a thread that only asks for its state.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd().try_clone_to_owned()
    }

    /// Returns the peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sets the deadline of all operations from now on. `cut` selects the directions that end when it passes.
    pub fn set_deadline(&self, at: Instant, cut: Cut) {
        self.watch.set(at, cut);
    }

    /// Removes the deadline.
    pub fn clear_deadline(&self) {
        self.watch.clear();
    }

    /// Returns a handle that shuts the connection down without owning it.
    pub fn cutter(&self) -> Cutter {
        self.watch.cutter()
    }

    /// Whether this connection was cut, by its deadline, a [`Cutter`] or draining.
    pub fn expired(&self) -> bool {
        self.watch.expired()
    }

    /// Puts a TLS session over the connection, and shakes hands. `turn` is awaited before each step of the handshake
    /// but the first: a step takes up to a millisecond of CPU time, and other connections need theirs. An error of
    /// `turn` ends the handshake.
    ///
    /// # Errors
    /// If the connection was reset or cut, or a [`SessionError`](crate::tls::error::SessionError) within an
    /// [`io::Error`]. The peer has got its alert then, and the stream must not be used further.
    pub async fn secure(
        &mut self,
        session: Session,
        turn: impl AsyncFn() -> io::Result<()>,
    ) -> io::Result<()> {
        let layer = self.tls.insert(Layer::new(Box::new(session)));
        layer.handshake(&mut self.tcp, turn).await
    }

    /// Frees the memory for reads, if nothing is left in it: before the connection lies idle.
    pub fn release_memory(&mut self) {
        if let Some(layer) = &mut self.tls {
            layer.has_pending();
        }
    }

    /// Drops the TLS session after it has failed. What the peer still sends can then be read, as it is, and discarded.
    pub fn drop_session(&mut self) {
        self.tls = None;
    }

    /// Returns the TLS session, if there is one.
    pub fn session(&self) -> Option<&Session> {
        self.tls.as_ref().map(|layer| layer.session())
    }

    /// Waits until there is data to read, or the end of the stream. Meanwhile the connection counts as `idle`.
    ///
    /// # Errors
    /// If the socket is broken.
    pub async fn idle(&mut self, idle: Idle) -> io::Result<()> {
        if self.tls.as_mut().is_some_and(|layer| layer.has_pending()) {
            return Ok(());
        }
        self.watch.set_idle(idle);
        let result = self.tcp.readable(false).await;
        self.watch.set_idle(Idle::No);
        result
    }

    /// Reads into the spare capacity of `buffer`, which must have some. 0 bytes mean the end of the stream.
    ///
    /// # Errors
    /// If the connection was reset or cut, or its TLS session failed; also at an end without a `close_notify`.
    pub async fn read(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let capacity = buffer.capacity();
        self.read_up_to(buffer, capacity).await
    }

    /// Reads like [`read`](Self::read), but at most until `buffer`, which must have the capacity, holds `end` bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_up_to(&mut self, buffer: Vec<u8>, end: usize) -> (io::Result<usize>, Vec<u8>) {
        if let Some(layer) = &mut self.tls {
            return layer.read_up_to(&mut self.tcp, buffer, end).await;
        }
        let from = buffer.len();
        let (result, slice) = self.tcp.read(buffer.slice_mut(from..end)).await;
        (result, slice.into_inner())
    }

    /// Writes all of `buffer`, and returns it for reuse.
    ///
    /// # Errors
    /// If the peer has disconnected or the deadline has passed.
    pub async fn write_all(&mut self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        if let Some(layer) = &mut self.tls {
            return (layer.write_all(&mut self.tcp, &buffer).await, buffer);
        }
        let end = buffer.len();
        write_front(&mut self.tcp, buffer, end).await
    }

    /// Writes as much of `gather` as the kernel accepts at once, and returns the rest.
    ///
    /// # Errors
    /// If the peer has disconnected or the deadline has passed.
    pub async fn write_some(&mut self, mut gather: Gather) -> io::Result<Gather> {
        if let Some(layer) = &mut self.tls {
            let written = layer.write_some(&mut self.tcp, gather.left()).await?;
            gather.advance(written);
            return Ok(gather);
        }
        let (result, mut rest) = self.tcp.writev(gather).await;
        match result? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            n => {
                rest.advance(n);
                Ok(rest)
            }
        }
    }

    /// Shuts down the writing side. The peer then reads to the end of the stream and closes.
    pub async fn finish_writing(&mut self) {
        if let Some(layer) = &mut self.tls {
            layer.close(&mut self.tcp).await;
        }
        // Fails only if the peer has closed already, which is the aim.
        let _ = self.tcp.shutdown().await;
    }

    /// Whether the peer has neither closed nor sent anything, as required of an idle connection to an upstream.
    pub fn is_quiet(&self) -> bool {
        let is_quiet = self.tls.as_ref().is_none_or(|layer| layer.is_quiet());
        is_quiet && matches!(self.peek_socket(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Copies the first readable bytes without waiting for them or consuming them. Returns their number.
    ///
    /// # Errors
    /// `WouldBlock` if there are none yet; another error if the socket is broken.
    pub fn peek(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // SAFETY: as in `fd`; the borrow of the field alone leaves `tls` free.
        let fd = unsafe { BorrowedFd::borrow_raw(self.tcp.as_raw_fd()) };
        match &mut self.tls {
            Some(layer) => layer.peek(fd, into),
            None => self.peek_socket(into),
        }
    }

    fn peek_socket(&self, into: &mut [u8]) -> io::Result<usize> {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let (bytes, _) = rustix::net::recv(self.fd(), into, flags)?;
        Ok(bytes)
    }
}
