//! The one kind of connection that ingest, egress and admin read and write.
//!
//! What lies underneath is this module's business alone: plain TCP now; TLS is to become another [`Transport`],
//! without a change to any caller. Every operation runs to its end (see [`deadline`](super::deadline)): a caller
//! sets a deadline first and looks at [`expired`](Stream::expired) when an operation fails or finds the end.

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

/// A connection with its deadline.
#[derive(Debug)]
pub struct Stream {
    // Before the transport: the watch must be gone when the descriptor is closed.
    watch: Watch,
    transport: Transport,
    peer: SocketAddr,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
}

impl Drop for Stream {
    /// The ring closes the descriptor in its own time; the peer, and whoever counts connections, hear of it now.
    fn drop(&mut self) {
        // Fails only when the peer has gone already.
        let _ = rustix::net::shutdown(self.fd(), rustix::net::Shutdown::Both);
    }
}

/// How the ring wants its sockets: io_uring would return EAGAIN at once for one that does not block, and epoll
/// would stop the core for one that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// For io_uring.
    Yes,
    /// For epoll.
    No,
}

impl Stream {
    /// A connection that was accepted, here or on another core.
    ///
    /// # Errors
    /// When the socket is broken already or the ring can't take it.
    pub fn accepted(socket: OwnedFd, blocking: Blocking, deadlines: &Deadlines) -> io::Result<Self> {
        let socket = std::net::TcpStream::from(socket);
        let peer = socket.peer_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self::over(socket, blocking, peer, deadlines)
    }

    /// Connects to `address` until `deadline`.
    ///
    /// # Errors
    /// What the kernel says; `TimedOut` when the deadline has passed.
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
        // Requests and replies are written whole: waiting for more would only delay them.
        socket.set_nodelay(true)?;
        Self::registered(socket, peer, deadlines)
    }

    fn registered(socket: std::net::TcpStream, peer: SocketAddr, deadlines: &Deadlines) -> io::Result<Self> {
        let tcp = TcpStream::from_std(socket)?;
        // SAFETY: the stream owns both. It drops the watch before the socket, as its fields are in that order, and
        // `into_socket` does the same.
        let watch = unsafe { deadlines.watch_socket(tcp.as_raw_fd()) };
        Ok(Self { watch, transport: Transport::Tcp(tcp), peer })
    }

    /// A connection to `peer` that another core has taken [out of its stream](Self::into_socket).
    ///
    /// # Errors
    /// When the ring can't take it.
    pub fn handed(socket: OwnedFd, peer: SocketAddr, deadlines: &Deadlines) -> io::Result<Self> {
        Self::registered(socket.into(), peer, deadlines)
    }

    /// The socket, open and as it is, for another core. Nothing may be pending on it, and no operation is, as each one
    /// borrows the stream until it has ended.
    pub fn into_socket(self) -> OwnedFd {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used after this nor ever dropped, so that each field is owned here alone.
        let (watch, transport) = unsafe { (ptr::read(&this.watch), ptr::read(&this.transport)) };
        drop(watch);
        let Transport::Tcp(tcp) = transport;
        // SAFETY: `into_raw_fd` takes the stream, its only owner, and leaves the descriptor open for us to own.
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
        // SAFETY: monoio's stream keeps its descriptor open until it is dropped, which is not while `self` is
        // borrowed. (It has no `AsFd` to say so itself.)
        unsafe { BorrowedFd::borrow_raw(tcp.as_raw_fd()) }
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sets the deadline of what is done from now on.
    pub fn set_deadline(&self, at: Instant, cut: Cut) {
        self.watch.set(at, cut);
    }

    /// There is nothing to be awaited for now.
    pub fn clear_deadline(&self) {
        self.watch.clear();
    }

    /// By which whoever does not own the stream can cut it.
    pub fn cutter(&self) -> Cutter {
        self.watch.cutter()
    }

    /// Whether this connection was cut, by its deadline or by draining.
    pub fn expired(&self) -> bool {
        self.watch.expired()
    }

    /// Waits until there is something to read, or the end; meanwhile the connection counts as idle in this way.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn idle(&self, idle: Idle) -> io::Result<()> {
        self.watch.set_idle(idle);
        let Transport::Tcp(tcp) = &self.transport;
        let result = tcp.readable(false).await;
        self.watch.set_idle(Idle::No);
        result
    }

    /// Reads into the room that `buffer` has left (there must be some); 0 bytes mean the end.
    ///
    /// # Errors
    /// When the connection was reset, or cut.
    pub async fn read(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let capacity = buffer.capacity();
        self.read_up_to(buffer, capacity).await
    }

    /// As [`read`](Self::read), but only until `buffer` holds `end` bytes, for which it must have room.
    ///
    /// # Errors
    /// When the connection was reset, or cut.
    pub async fn read_up_to(&mut self, buffer: Vec<u8>, end: usize) -> (io::Result<usize>, Vec<u8>) {
        let from = buffer.len();
        let Transport::Tcp(tcp) = &mut self.transport;
        let (result, slice) = tcp.read(buffer.slice_mut(from..end)).await;
        (result, slice.into_inner())
    }

    /// Writes all of `buffer`.
    ///
    /// # Errors
    /// When the peer has gone, or the deadline passed.
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

    /// Writes as much of `gather` as the kernel takes at once, and gives back the rest.
    ///
    /// # Errors
    /// When the peer has gone, or the deadline passed.
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

    /// Says that nothing more will be written, so that the peer reads what was to the end and closes.
    pub async fn finish_writing(&mut self) {
        let Transport::Tcp(tcp) = &mut self.transport;
        // Fails only when the peer has closed already, which is what this asks for.
        let _ = tcp.shutdown().await;
    }

    /// Whether the peer has neither closed nor sent anything: what an idle connection to an upstream must be.
    pub fn is_quiet(&self) -> bool {
        matches!(self.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Copies the first bytes that wait to be read, without waiting for them and without taking them. Gives how many.
    ///
    /// # Errors
    /// `WouldBlock` when there are none yet; else when the socket is broken.
    pub fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let (bytes, _) = rustix::net::recv(self.fd(), into, flags)?;
        Ok(bytes)
    }
}
