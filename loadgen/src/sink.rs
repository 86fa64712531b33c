//! An upstream that takes remote write and counts, tenant by tenant, what arrives.
//!
//! Constraints that shaped it:
//! - What is counted has to be a proof: [`crate::account`] says of what. It is counted before the answer leaves, so
//!   whoever has an answer finds its samples in the next [`Snapshot`].
//! - It shares a machine with the server under test. So: a thread for each connection with buffers that it keeps,
//!   one walk over the inflated bytes, and one short lock per request to add the sums up.
//! - Tests need an upstream that misbehaves on demand: a [`Script`] decides each answer. [`Faults`] are a script from a file.
//! - Where sums don't tell enough, a sink keeps a [`FullAccount`] of stamped samples. It costs more, so it has to be asked for.
//!
//! A request is *stored*, and only then counted in a tenant's sums, when its answer is a 2xx, unless its script says otherwise.

mod connection;
pub mod faults;
mod script;
mod stats;
mod store;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::account::FullAccount;
use crate::http::Headers;
use crate::proto::{BlockError, WriteRequest};

use connection::Connection;
pub use faults::Faults;
pub use script::{Admission, Approach, Arrival, Close, Reply, Script, Storing};
pub use stats::{Snapshot, TenantCount};
use store::Store;

/// How long a stopping sink waits for requests that it is about to answer.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How a sink listens and what it does with requests.
#[derive(Clone)]
pub struct SinkConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names of the tenant's header, the first that a request has counts.
    pub tenant_headers: Vec<String>,
    /// Names of the tenant's label, in priority order. A series that has one must have come under the header
    /// `prefix` + value.
    pub tenant_labels: Vec<String>,
    /// What the server puts before each tenant.
    pub prefix: String,
    /// Connections at a time; further ones wait to be accepted.
    pub connections_max: usize,
    /// Keeps the last so many requests for [`Sink::requests`]; 0 for none.
    pub requests_kept_max: usize,
    /// Keeps a [`FullAccount`] of stamped samples.
    pub full_account: bool,
    /// Decides each answer; without one it is an empty 200.
    pub script: Option<Arc<dyn Script>>,
}

impl Default for SinkConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tenant_headers: vec!["X-Scope-OrgID".to_owned(), "THANOS-TENANT".to_owned()],
            tenant_labels: vec!["__tenant__".to_owned(), "tenant".to_owned()],
            prefix: String::new(),
            connections_max: 1024,
            requests_kept_max: 0,
            full_account: false,
            script: None,
        }
    }
}

/// A request as it came, kept for a test to look at.
#[derive(Clone, Debug)]
pub struct Received {
    /// The tenant's header; None when there was none.
    pub tenant: Option<String>,
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: Headers,
    /// The body as it came: a snappy block, if all is well.
    pub body: Bytes,
    /// The status that it was answered with; 0 when its connection was closed instead.
    pub status: u16,
    /// Which of the sink's connections it came over, counted from 0.
    pub connection: u64,
}

impl Received {
    /// The body, decoded.
    ///
    /// # Errors
    /// When it is no write request.
    pub fn decode(&self) -> Result<WriteRequest, BlockError> {
        WriteRequest::from_block(&self.body)
    }
}

/// A running sink. Dropping it stops it.
pub struct Sink {
    shared: Arc<Shared>,
    addr: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

/// What the threads of a sink have in common.
struct Shared {
    config: SinkConfig,
    state: Mutex<State>,
    store: Store,
    stopping: AtomicBool,
    /// Set while the sink does not listen.
    down: AtomicBool,
    /// Notified when a connection ends, and when the sink is to stop or goes down.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    counts: Snapshot,
    kept: std::collections::VecDeque<Received>,
    /// One for each open connection, to close it from outside.
    open: std::collections::HashMap<u64, Open>,
}

struct Open {
    stream: TcpStream,
    /// Between reading a request's first byte and having answered it.
    busy: bool,
}

impl Shared {
    /// A panic elsewhere leaves sums that are still sums.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether no further connection is to be accepted.
    fn closed(&self) -> bool {
        self.stopping() || self.down.load(Ordering::Acquire)
    }

    /// Waits, but not longer than the sink lives.
    fn pause(&self, delay: Duration) {
        let deadline = Instant::now() + delay;
        let mut state = self.state();
        while !self.stopping() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Sink {
    /// Binds, and serves from then on.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(config: SinkConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store: Store::new(config.full_account),
            config,
            state: Mutex::default(),
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

    /// What a server's `target` has to be.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/api/v1/push", self.addr)
    }

    /// Everything counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.state().counts.clone()
    }

    /// The full account so far; None if none is kept, see [`SinkConfig::full_account`]. What a script holds back is stored first.
    #[must_use]
    pub fn account(&self) -> Option<FullAccount> {
        self.shared.account()
    }

    /// The last requests, oldest first; see [`SinkConfig::requests_kept_max`].
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.shared.state().kept.iter().cloned().collect()
    }

    /// Closes all connections at once, between requests or within one, as an upstream that dies does.
    pub fn sever(&self) {
        for open in self.shared.state().open.values() {
            let _ = open.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Stops listening and closes all connections, as an upstream that dies does. What is stored stays stored, and so, later, is what has
    /// arrived and waits for its answer's delay.
    pub fn go_down(&mut self) {
        self.shared.down.store(true, Ordering::Release);
        self.end_acceptor();
        self.sever();
    }

    /// Listens again, at the same address.
    ///
    /// # Errors
    /// When somebody else has taken it meanwhile.
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
        // It may wait for a connection to end. (Under the lock: it looks at the flags under it, too.)
        let state = self.shared.state();
        self.shared.changed.notify_all();
        drop(state);
        // Or it waits for one to come: here is one.
        let own = SocketAddr::new(reachable(self.addr), self.addr.port());
        let _ = TcpStream::connect_timeout(&own, STOP_GRACE);
        let _ = acceptor.join();
    }

    /// Stops accepting, answers what has begun to arrive, and returns the final counts.
    #[must_use = "the counts are what a sink is for; drop it to stop it only"]
    pub fn stop(mut self) -> Snapshot {
        self.halt();
        self.snapshot()
    }

    fn halt(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.end_acceptor();
        let deadline = Instant::now() + STOP_GRACE;
        let mut state = self.shared.state();
        self.shared.changed.notify_all();
        for open in state.open.values().filter(|open| !open.busy) {
            let _ = open.stream.shutdown(std::net::Shutdown::Both);
        }
        while !state.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        for open in state.open.values() {
            let _ = open.stream.shutdown(std::net::Shutdown::Both);
        }
        drop(state);
        self.shared.let_go(None);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.halt();
    }
}

/// An address of this machine at which a socket bound to `addr` is reached.
fn reachable(addr: SocketAddr) -> std::net::IpAddr {
    match addr.ip() {
        std::net::IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

fn start_acceptor(listener: TcpListener, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let work = move || accept(&listener, &shared);
    thread::Builder::new().name("sink-accept".to_owned()).spawn(work)
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
            // Out of descriptors, or a peer that has gone already: the next one may do better.
            Err(_) => shared.pause(Duration::from_millis(10)),
        }
    }
}

fn wait_for_room(shared: &Shared) {
    let mut state = shared.state();
    while state.open.len() >= shared.config.connections_max && !shared.closed() {
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Gives a connection a thread. One that cannot be served is closed, which its peer sees.
fn serve(stream: TcpStream, shared: &Arc<Shared>) {
    let Ok(outside) = stream.try_clone() else { return };
    let mut state = shared.state();
    let id = state.counts.connections;
    state.counts.connections += 1;
    state.open.insert(id, Open { stream: outside, busy: false });
    drop(state);
    let spawned = thread::Builder::new().name(format!("sink-{id}")).spawn({
        let shared = Arc::clone(shared);
        move || {
            let _guard = Registered { shared: &shared, id };
            Connection::new(&shared, stream, id).run();
        }
    });
    if spawned.is_err() {
        drop(Registered { shared, id });
    }
}

/// Takes a connection off the list when its thread ends, however it ends.
struct Registered<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.state().open.remove(&self.id);
        self.shared.changed.notify_all();
    }
}
