//! The connection type that ingest, egress and admin read and write.
//!
//! It hides its transport. That is plain TCP now; TLS is to become another `Transport` without a change to any caller.
//! Every operation runs to its end (see [`deadline`](super::deadline)). A caller sets a deadline first, and checks
//! [`expired`](Stream::expired) when an operation fails or finds the end of the stream.

use std::io;
use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;

use super::buffers::Gather;
use super::deadline::{Cut, Cutter, Deadlines, Idle, Watch};

/// A connection with a deadline.
#[derive(Debug)]
pub struct Stream {
    // Declared before the transport: the watch must be dropped before the descriptor is closed.
    watch: Watch,
    transport: Transport,
    peer: SocketAddr,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
}

impl Drop for Stream {
    /// Shuts the connection down now, as the ring closes the descriptor only later. The peer and the kernel's list of
    /// connections see the end at once.
    fn drop(&mut self) {
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
        Ok(Self { watch, transport: Transport::Tcp(tcp), peer })
    }

    /// Creates a stream from a connection to `peer` that another core has taken [out of its stream](Self::into_socket).
    ///
    /// # Errors
    /// If the socket can't be registered with the driver.
    pub fn handed(socket: OwnedFd, peer: SocketAddr, deadlines: &Deadlines) -> io::Result<Self> {
        Self::registered(socket.into(), peer, deadlines)
    }

    /// Returns the open socket, unchanged, for another core. No operation can be pending on it, as each one borrows the
    /// stream until it has ended.
    pub fn into_socket(self) -> OwnedFd {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after this, so each field has this function as its only owner.
        let (watch, transport) = unsafe { (ptr::read(&this.watch), ptr::read(&this.transport)) };
        drop(watch);
        let Transport::Tcp(tcp) = transport;
        // SAFETY: `into_raw_fd` consumes the stream, its only owner, and leaves the descriptor open for us to own.
        unsafe { OwnedFd::from_raw_fd(tcp.into_raw_fd()) }
    }

    async fn connected(&self, blocking: Blocking) -> io::Result<()> {
        let Transport::Tcp(tcp) = &self.transport;
        tcp.writable(false).await?;
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
        let Transport::Tcp(tcp) = &self.transport;
        // SAFETY: monoio's stream keeps its descriptor open until it is dropped, which is not while `self` is borrowed.
        // (It has no `AsFd` of its own.)
        unsafe { BorrowedFd::borrow_raw(tcp.as_raw_fd()) }
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

    /// Waits until there is data to read, or the end of the stream. Meanwhile the connection counts as `idle`.
    ///
    /// # Errors
    /// If the socket is broken.
    pub async fn idle(&self, idle: Idle) -> io::Result<()> {
        self.watch.set_idle(idle);
        let Transport::Tcp(tcp) = &self.transport;
        let result = tcp.readable(false).await;
        self.watch.set_idle(Idle::No);
        result
    }

    /// Reads into the spare capacity of `buffer`, which must have some. 0 bytes mean the end of the stream.
    ///
    /// # Errors
    /// If the connection was reset or cut.
    pub async fn read(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let capacity = buffer.capacity();
        self.read_up_to(buffer, capacity).await
    }

    /// Reads like [`read`](Self::read), but at most until `buffer`, which must have the capacity, holds `end` bytes.
    ///
    /// # Errors
    /// If the connection was reset or cut.
    pub async fn read_up_to(&mut self, buffer: Vec<u8>, end: usize) -> (io::Result<usize>, Vec<u8>) {
        let from = buffer.len();
        let Transport::Tcp(tcp) = &mut self.transport;
        let (result, slice) = tcp.read(buffer.slice_mut(from..end)).await;
        (result, slice.into_inner())
    }

    /// Writes all of `buffer`, and returns it for reuse.
    ///
    /// # Errors
    /// If the peer has disconnected or the deadline has passed.
    pub async fn write_all(&mut self, mut buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let mut written = 0;
        while written < buffer.len() {
            let Transport::Tcp(tcp) = &mut self.transport;
            let (result, slice) = tcp.write(buffer.slice(written..)).await;
            buffer = slice.into_inner();
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(n) => written += n,
                Err(e) => return (Err(e), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Writes as much of `gather` as the kernel accepts at once, and returns the rest.
    ///
    /// # Errors
    /// If the peer has disconnected or the deadline has passed.
    pub async fn write_some(&mut self, gather: Gather) -> io::Result<Gather> {
        let Transport::Tcp(tcp) = &mut self.transport;
        let (result, mut rest) = tcp.writev(gather).await;
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
        let Transport::Tcp(tcp) = &mut self.transport;
        // Fails only if the peer has closed already, which is the aim.
        let _ = tcp.shutdown().await;
    }

    /// Whether the peer has neither closed nor sent anything, as required of an idle connection to an upstream.
    pub fn is_quiet(&self) -> bool {
        matches!(self.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Copies the first readable bytes without waiting for them or consuming them. Returns their number.
    ///
    /// # Errors
    /// `WouldBlock` if there are none yet; another error if the socket is broken.
    pub fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let (bytes, _) = rustix::net::recv(self.fd(), into, flags)?;
        Ok(bytes)
    }
}
