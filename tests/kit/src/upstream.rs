//! A scripted HTTP/1.1 server, on which the tests' upstreams and loadgen's sink are built.
//!
//! Constraints that shaped it:
//! - It shares a machine with the server under test. So each connection has a thread, with buffers that it keeps from
//!   request to request.
//! - Its user decides about the answers. A [`Service`] gives each connection a [`Session`], which is asked twice for
//!   each request: when the head has come, and when the body has. A [`Reply`] says how the connection misbehaves.
//! - Tests take it down and bring it up again, and never wait for it longer than [`STOP_GRACE`].

mod connection;
mod reply;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::http::{HttpError, RequestHead};
use connection::Connection;
pub use connection::Request;
pub use reply::{Admission, Close, Reply, Storing};

/// How long a stopping server waits for requests that it is about to answer.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// Answers requests.
pub trait Service: Send + Sync {
    /// Called for each new connection, with its number from 0, on the thread that accepts.
    fn connect(&self, connection: u64, stream: &TcpStream) -> Box<dyn Session>;
}

/// Answers the requests of one connection. Dropped when the connection ends.
pub trait Session: Send {
    /// Called when the head of a request has come. Decides whether and how its body is read.
    fn admit(&mut self, _head: &RequestHead) -> Admission {
        Admission::Read
    }

    /// Called when all of a request has come. Returns the answer.
    fn answer(&mut self, request: &Request<'_>) -> Reply;

    /// Called when the answer has been written, or could not be. Not called for an answer that is never sent.
    fn sent(&mut self, _is_sent: bool) {}

    /// Called when what came is not HTTP. The answer is 400.
    fn broken(&mut self, _error: &HttpError) {}
}

/// A running server. Dropping it stops it.
pub struct Server {
    shared: Arc<Shared>,
    addr: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
struct Shared {
    service: Box<dyn Service>,
    /// With it, all connections speak TLS.
    tls: Option<Arc<ServerConfig>>,
    /// Connections at a time. Further ones wait to be accepted.
    connections_max: usize,
    connections: Mutex<Connections>,
    stopping: AtomicBool,
    /// Set while the server does not listen.
    down: AtomicBool,
    /// Notified when a connection ends, and when the server is to stop or goes down.
    changed: Condvar,
}

#[derive(Default)]
struct Connections {
    accepted: u64,
    /// To close them from outside.
    open: HashMap<u64, Open>,
}

struct Open {
    stream: TcpStream,
    /// Between reading a request's first byte and having answered it.
    busy: bool,
}

impl Shared {
    /// A panic of another thread leaves the list intact.
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether no further connection is to be accepted.
    fn closed(&self) -> bool {
        self.stopping() || self.down.load(Ordering::Acquire)
    }

    /// Waits, but not longer than the server lives.
    fn pause(&self, delay: Duration) {
        if delay.is_zero() {
            return;
        }
        let deadline = Instant::now() + delay;
        let mut connections = self.connections();
        while !self.stopping() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            connections =
                self.changed.wait_timeout(connections, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Server {
    /// Serves from now on, at most `connections_max` connections at a time.
    ///
    /// # Errors
    /// When the listener has no address, or there can be no thread.
    pub fn start(
        listener: TcpListener,
        connections_max: usize,
        service: Box<dyn Service>,
    ) -> io::Result<Self> {
        Self::start_with(listener, connections_max, service, None)
    }

    /// The same over TLS, if there is a configuration for it.
    ///
    /// # Errors
    /// When the listener has no address, or there can be no thread.
    pub fn start_with(
        listener: TcpListener,
        connections_max: usize,
        service: Box<dyn Service>,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            service,
            tls,
            connections_max,
            connections: Mutex::default(),
            stopping: AtomicBool::new(false),
            down: AtomicBool::new(false),
            changed: Condvar::new(),
        });
        let acceptor = Some(start_acceptor(listener, &shared)?);
        Ok(Self { shared, addr, acceptor })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections that were ever accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections().accepted
    }

    /// Closes all connections at once, between requests or within one, as an upstream that dies does.
    pub fn sever(&self) {
        for open in self.shared.connections().open.values() {
            let _ = open.stream.shutdown(Shutdown::Both);
        }
    }

    /// Stops listening and closes all connections, as an upstream that dies does.
    pub fn go_down(&mut self) {
        self.shared.down.store(true, Ordering::Release);
        self.end_acceptor();
        self.sever();
    }

    /// Listens again, at the same address.
    ///
    /// # Errors
    /// When another process has taken the address meanwhile.
    pub fn come_up(&mut self) -> io::Result<()> {
        if self.acceptor.is_none() {
            let listener = TcpListener::bind(self.addr)?;
            self.shared.down.store(false, Ordering::Release);
            self.acceptor = Some(start_acceptor(listener, &self.shared)?);
        }
        Ok(())
    }

    /// Ends the accepting thread, and with it the listener.
    fn end_acceptor(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        // The thread may wait for a connection to end. Notify under the lock, under which it checks the flags.
        let connections = self.shared.connections();
        self.shared.changed.notify_all();
        drop(connections);
        // Or it may wait for a new connection, so open one.
        let own = SocketAddr::new(reachable(self.addr), self.addr.port());
        let _ = TcpStream::connect_timeout(&own, STOP_GRACE);
        let _ = acceptor.join();
    }

    /// Stops accepting, and answers what has begun to arrive.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.end_acceptor();
        let deadline = Instant::now() + STOP_GRACE;
        let mut connections = self.shared.connections();
        self.shared.changed.notify_all();
        for open in connections.open.values().filter(|open| !open.busy) {
            let _ = open.stream.shutdown(Shutdown::Both);
        }
        while !connections.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            connections =
                self.shared.changed.wait_timeout(connections, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        for open in connections.open.values() {
            let _ = open.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address of this machine at which a socket bound to `addr` is reached.
fn reachable(addr: SocketAddr) -> IpAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

fn start_acceptor(listener: TcpListener, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let work = move || accept(&listener, &shared);
    thread::Builder::new().name("upstream-accept".to_owned()).spawn(work)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        wait_for_room(shared);
        let accepted = listener.accept();
        if shared.closed() {
            return;
        }
        match accepted {
            Ok((stream, _)) => serve(stream, shared),
            // Out of descriptors, or the peer has gone already. The next connection may succeed.
            Err(_) => shared.pause(Duration::from_millis(10)),
        }
    }
}

fn wait_for_room(shared: &Shared) {
    let mut connections = shared.connections();
    while connections.open.len() >= shared.connections_max && !shared.closed() {
        connections = shared.changed.wait(connections).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Gives a connection a thread. A connection that cannot be served is closed.
fn serve(stream: TcpStream, shared: &Arc<Shared>) {
    let Ok(outside) = stream.try_clone() else { return };
    let mut connections = shared.connections();
    let id = connections.accepted;
    connections.accepted += 1;
    connections.open.insert(id, Open { stream: outside, busy: false });
    drop(connections);
    let session = shared.service.connect(id, &stream);
    let spawned = thread::Builder::new().name(format!("upstream-{id}")).spawn({
        let shared = Arc::clone(shared);
        move || {
            let _guard = Registered { shared: &shared, id };
            // A handshake that fails ends the connection, and the peer knows why.
            if let Ok(mut connection) = Connection::new(&shared, stream, id) {
                connection.run(session);
            }
        }
    });
    if spawned.is_err() {
        drop(Registered { shared, id });
    }
}

/// Takes a connection off the list when its thread ends, also by a panic.
struct Registered<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.connections().open.remove(&self.id);
        self.shared.changed.notify_all();
    }
}
