//! One core's connections to the upstream's addresses, and which request gets the next one.
//!
//! # Constraints
//! - The limit on connections is process-wide and per address. A core holds permits of it: see
//!   [`permits`](crate::shared::permits).
//! - A request that finds no connection waits, and fragments that arrive meanwhile are merged behind it. It fails only
//!   at its deadline.
//! - A connection that comes free goes to the request that has waited longest, on this core or on another. No later
//!   request overtakes it, and no request takes its own connection again before it. A tenant whose request gives up
//!   passes its place on to its next one. Between cores an open connection
//!   travels as a descriptor.
//! - Slow tenants hold at most their share of connections while any other tenant could use them. They wait in a queue
//!   of their own, which is skipped while they hold their share. See [`pace`](crate::shared::pace).
//! - All addresses of the upstream are used evenly: requests, not connections, take turns over them.
//! - The peer may close an idle connection at any time, or leave bytes on it. So each is checked before it is used
//!   again.
//! - An address that fails repeatedly is passed over while others answer: see [`backoff`](super::backoff).
//! - DNS adds and removes addresses. The state of an address goes with it: [`Pool::tidy`] looks every few seconds, also
//!   on a core that has nothing to send. A connection in use is closed when it comes back.

mod describe;
mod handover;
mod opening;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use hashbrown::hash_map::{Entry, HashMap};

use super::backoff::{Backoffs, Started};
use super::resolve::Addresses;
use crate::config::tls::UpstreamTls;
use crate::exchange::Exchange;
use crate::io::deadline::{Cut, Deadlines};
use crate::io::stream::{Blocking, Stream};
use crate::limits::POOL_TIDY_MILLIS;
use crate::model::{Failure, UpstreamId};
use crate::shared::pace::queue_penalty;
use crate::shared::permits::{Claimant, Directory, Permit, Permits, SlowUse};
use crate::shared::slow::{Class, Standing};
use crate::tls::client::ClientTls;

/// An open connection to the upstream.
#[derive(Debug)]
pub struct Connection {
    /// The stream to read and write.
    pub stream: Stream,
    /// The buffer for responses, kept because every request needs one.
    pub buffer: Vec<u8>,
    /// Whether it has carried a request before.
    pub reused: bool,
    address: SocketAddr,
    /// What its TLS session was opened with.
    tls: Option<Arc<UpstreamTls>>,
    opened: Instant,
    idle_since: Instant,
    permit: Permit,
    /// Counts it as open.
    _alive: Rc<()>,
}

/// What [`Pool::take`] found.
#[derive(Debug)]
pub struct Lease {
    /// A connection, or the right to open one.
    pub what: Leased,
    /// Set for a slow tenant. The connection counts as used by one until this is dropped.
    pub slow: Option<SlowUse>,
}

/// See [`Lease`].
#[derive(Debug)]
pub enum Leased {
    /// A connection that has carried requests before.
    Open(Box<Connection>),
    /// The right to open one.
    Connect(SocketAddr, Permit),
}

/// The pool's settings.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// The age at which a connection is not used again.
    pub age_max: Option<Duration>,
    /// How long a connection may be idle before it is closed.
    pub idle_max: Duration,
    /// Whether sockets block, as the driver requires.
    pub blocking: Blocking,
}

/// One core's pool of connections to one upstream.
#[derive(Debug)]
pub struct Pool {
    upstream: UpstreamId,
    addresses: Addresses,
    directory: Arc<Directory>,
    exchange: Rc<Exchange>,
    deadlines: Deadlines,
    limits: Cell<PoolLimits>,
    tls: RefCell<Option<Arc<UpstreamTls>>>,
    hosts: RefCell<HashMap<SocketAddr, Host>>,
    backoffs: RefCell<Backoffs>,
    turn: Cell<usize>,
    /// A queue for each [`Class`].
    waiting: [RefCell<VecDeque<Rc<Waiter>>>; Class::ALL.len()],
    /// Shared with every open connection.
    alive: Rc<()>,
    closed: Cell<bool>,
    /// When the next tidying is due.
    tidy_at: Cell<Instant>,
    /// Wakes the task that tidies.
    tidier: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Host {
    idle: Vec<Connection>,
    /// The TLS of this address, and what it was made of. It remembers sessions of its own, for resumption.
    tls: Option<(Arc<UpstreamTls>, ClientTls)>,
    permits: Arc<Permits>,
    /// The time of its latest answer.
    answered: Option<Instant>,
}

/// A request that waits for a connection.
#[derive(Debug)]
struct Waiter {
    /// Since when it, or those of its tenant before it, waits. For a repeatedly slow tenant a later time stands here
    /// than the real one.
    since: Instant,
    tried: Vec<SocketAddr>,
    /// The connection that it has been given.
    lease: RefCell<Option<Lease>>,
    waker: RefCell<Option<Waker>>,
}

/// What has come free at an address.
enum Free {
    Connection(Box<Connection>),
    Permit(Permit),
}

impl Pool {
    /// Creates an empty pool for `addresses`.
    pub fn new(
        upstream: UpstreamId,
        addresses: Addresses,
        directory: Arc<Directory>,
        exchange: Rc<Exchange>,
        deadlines: Deadlines,
        limits: PoolLimits,
        tls: Option<Arc<UpstreamTls>>,
    ) -> Self {
        Self {
            upstream,
            addresses,
            directory,
            exchange,
            deadlines,
            limits: Cell::new(limits),
            tls: RefCell::new(tls),
            hosts: RefCell::default(),
            backoffs: RefCell::default(),
            turn: Cell::default(),
            waiting: Default::default(),
            alive: Rc::default(),
            closed: Cell::default(),
            tidy_at: Cell::new(Instant::now()),
            tidier: RefCell::default(),
        }
    }

    /// Applies new limits. A connection that is idle now keeps its old idle time.
    pub fn limit(&self, limits: PoolLimits) {
        self.limits.set(limits);
    }

    /// Applies other TLS settings or certificates to new connections. Idle connections are closed, and those in use
    /// when they come back: nothing is sent over a connection that the new settings may forbid.
    pub fn secure(&self, tls: Option<Arc<UpstreamTls>>) {
        if is_same(&self.tls.borrow(), &tls) {
            return;
        }
        *self.tls.borrow_mut() = tls;
        for host in self.hosts.borrow_mut().values_mut() {
            host.tls = None;
            host.idle.clear();
        }
    }

    /// Waits until `deadline` for a connection, or for the right to open one, for a tenant of this standing. Avoids the
    /// addresses that were `tried` for the same request, if there are others.
    ///
    /// # Errors
    /// [`Failure::Unresolved`] or [`Failure::NoConnection`].
    pub async fn take(
        &self,
        standing: Standing,
        deadline: Instant,
        tried: &[SocketAddr],
    ) -> Result<Lease, Failure> {
        // Requests that wait already come first.
        if self.queue(standing.class).borrow().is_empty()
            && let Some(lease) = self.try_take(standing.class, tried)?
        {
            return Ok(lease);
        }
        self.wait_and_take(standing, deadline, tried).await
    }

    async fn wait_and_take(
        &self,
        standing: Standing,
        deadline: Instant,
        tried: &[SocketAddr],
    ) -> Result<Lease, Failure> {
        let watch = self.deadlines.watch_task();
        watch.set(deadline, Cut::Both);
        let now = Instant::now();
        let since = standing.since.unwrap_or(now);
        let waiter = Rc::new(Waiter {
            since: since + queue_penalty(standing.strikes, deadline.saturating_duration_since(now)),
            tried: tried.to_vec(),
            lease: RefCell::default(),
            waker: RefCell::default(),
        });
        let queue = self.queue(standing.class);
        let place = queue.borrow().partition_point(|earlier| earlier.since <= waiter.since);
        queue.borrow_mut().insert(place, Rc::clone(&waiter));
        if place == 0 {
            self.announce();
        }
        self.serve();
        let mut lease = None;
        watch
            .wait(|waker| {
                lease = waiter.lease.take();
                *waiter.waker.borrow_mut() = Some(waker.clone());
                lease.is_some()
            })
            .await;
        if lease.is_none() {
            queue.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
            self.announce();
        }
        lease.map(|lease| self.probed(lease)).ok_or(Failure::NoConnection)
    }

    /// Checks a lease that has waited. A connection that cannot be used any more becomes the right to open one.
    fn probed(&self, lease: Lease) -> Lease {
        let Lease { what, slow } = lease;
        let is_usable = |connection: &Connection| {
            is_same(&connection.tls, &self.tls.borrow())
                && !connection.stream.expired()
                && connection.stream.is_quiet()
        };
        let what = match what {
            Leased::Open(connection) if !is_usable(&connection) => {
                let (address, permit) = connection.into_permit();
                Leased::Connect(address, permit)
            }
            usable => usable,
        };
        Lease { what, slow }
    }

    fn connection(
        &self,
        stream: Stream,
        tls: Option<Arc<UpstreamTls>>,
        address: SocketAddr,
        permit: Permit,
        opened: Instant,
    ) -> Connection {
        let alive = Rc::clone(&self.alive);
        let (buffer, idle_since) = (Vec::new(), Instant::now());
        Connection { stream, buffer, reused: false, address, tls, opened, idle_since, permit, _alive: alive }
    }

    /// The number of addresses.
    pub fn addresses(&self) -> usize {
        self.addresses.load().addresses.len()
    }

    /// Takes back a connection whose response has been read to its end.
    pub fn put(&self, mut connection: Box<Connection>) {
        let now = Instant::now();
        let limits = self.limits.get();
        let is_old = limits.age_max.is_some_and(|max| now - connection.opened >= max);
        if is_old || !is_same(&connection.tls, &self.tls.borrow()) {
            return self.discard(connection);
        }
        connection.reused = true;
        connection.idle_since = now;
        connection.stream.release_memory();
        connection.stream.set_deadline(now + limits.idle_max, Cut::Both);
        self.give(connection.address, Free::Connection(connection));
    }

    /// Takes back a connection that cannot be used again.
    pub fn discard(&self, connection: Box<Connection>) {
        let (address, permit) = connection.into_permit();
        self.give(address, Free::Permit(permit));
    }

    /// Closes all idle connections, and from now on every connection that comes back.
    pub fn close(&self) {
        self.closed.set(true);
        self.hosts.take();
        self.wake_tidier();
    }

    /// Tidies up at intervals until the pool is closed, and calls `tidied` each time. One task a core.
    pub async fn maintain(&self, tidied: impl Fn()) {
        while !self.closed.get() {
            self.tidy_is_due().await;
            self.tidy_at.set(Instant::now() + Duration::from_millis(POOL_TIDY_MILLIS));
            self.tidy();
            tidied();
        }
    }

    /// Waits until tidying is due or the pool is closed.
    async fn tidy_is_due(&self) {
        let mut pause = pin!(monoio::time::sleep_until(self.tidy_at.get().into()));
        poll_fn(|cx| {
            if self.closed.get() {
                return Poll::Ready(());
            }
            *self.tidier.borrow_mut() = Some(cx.waker().clone());
            pause.as_mut().poll(cx)
        })
        .await;
    }

    fn wake_tidier(&self) {
        if let Some(waker) = self.tidier.take() {
            waker.wake();
        }
    }

    /// Closes idle connections whose time is up, forgets addresses that the upstream no longer has, and lets waiting
    /// requests try new addresses.
    pub fn tidy(&self) {
        let resolution = self.addresses.load();
        self.hosts.borrow_mut().retain(|address, host| {
            let gone = !resolution.addresses.contains(address);
            host.idle.retain(|connection| !gone && !connection.stream.expired());
            !gone
        });
        self.backoffs.borrow_mut().keep(&resolution.addresses);
        self.announce();
        self.serve();
    }

    /// The number of idle connections.
    pub fn idle(&self) -> usize {
        self.hosts.borrow().values().map(|h| h.idle.len()).sum()
    }

    /// The number of open connections, including those in use.
    pub fn open(&self) -> usize {
        Rc::strong_count(&self.alive) - 1
    }

    /// Whether requests of prompt tenants wait for a connection on this core.
    pub fn has_waiters(&self) -> bool {
        !self.queue(Class::Prompt).borrow().is_empty()
    }

    fn is_gone(&self, address: SocketAddr) -> bool {
        !self.addresses.load().addresses.contains(&address)
    }

    fn queue(&self, class: Class) -> &RefCell<VecDeque<Rc<Waiter>>> {
        let [prompt, slow] = &self.waiting;
        match class {
            Class::Prompt => prompt,
            Class::Slow => slow,
        }
    }

    fn try_take(&self, class: Class, tried: &[SocketAddr]) -> Result<Option<Lease>, Failure> {
        let resolution = self.addresses.load();
        let addresses = &resolution.addresses;
        if addresses.is_empty() {
            return Err(Failure::Unresolved(resolution.error.clone().unwrap_or_default()));
        }
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let mut in_turn = (0..addresses.len()).map(|k| addresses[turn.wrapping_add(k) % addresses.len()]);
        let mut backoffs = self.backoffs.borrow_mut();
        if backoffs.is_quiet() && tried.is_empty() {
            return Ok(in_turn.find_map(|address| self.lease(class, address)));
        }
        let now = Instant::now();
        let chosen = backoffs.choose(in_turn.collect(), tried, now);
        let lease = chosen.into_iter().find_map(|address| Some((address, self.lease(class, address)?)));
        Ok(lease.map(|(address, lease)| {
            backoffs.goes_to(address, now);
            lease
        }))
    }

    fn lease(&self, class: Class, address: SocketAddr) -> Option<Lease> {
        self.host(address, |host| {
            let slow = match class {
                Class::Prompt => None,
                Class::Slow => Some(host.permits.begin_slow()?),
            };
            let mut open = || take_usable(&mut host.idle).map(|c| Leased::Open(Box::new(c)));
            let what = open().or_else(|| host.permits.try_take().map(|p| Leased::Connect(address, p)))?;
            Some(Lease { what, slow })
        })
    }

    /// Records that a connection to the address was refused, failed, or broke. Returns the backoff that starts for that
    /// reason.
    pub fn failed(&self, address: SocketAddr) -> Option<Started> {
        if self.addresses() < 2 || self.is_gone(address) {
            return None;
        }
        self.backoffs.borrow_mut().failed(address, Instant::now())
    }

    /// Records that the address has answered a request that was sent at `begun`. Returns whether it was in backoff, and
    /// whether the answer came in time.
    pub fn worked(&self, address: SocketAddr, begun: Instant, timeout: Duration) -> (bool, bool) {
        let now = Instant::now();
        let in_time = self.known_host(address, |host| {
            host.answered = Some(now);
            host.permits.pace.answered(begun, now, timeout)
        });
        (self.backoffs.borrow_mut().worked(address), in_time.unwrap_or(true))
    }

    /// Whether the address has answered any request since `then`.
    pub fn has_answered_since(&self, address: SocketAddr, then: Instant) -> bool {
        let answered = self.known_host(address, |host| host.answered).flatten();
        answered.is_some_and(|answered| answered >= then)
    }

    /// The number of addresses in backoff.
    pub fn in_backoff(&self) -> usize {
        self.backoffs.borrow().in_backoff()
    }

    /// Returns how long a request to this address may take before its tenant counts as slow.
    pub fn slow_after(&self, address: SocketAddr, timeout: Duration) -> Duration {
        self.known_host(address, |host| host.permits.pace.slow_after(timeout)).unwrap_or(timeout)
    }

    /// Counts the connection of a request to this address as used by a slow tenant from now on.
    pub fn begin_slow_unbounded(&self, address: SocketAddr) -> Option<SlowUse> {
        self.known_host(address, |host| host.permits.begin_slow_unbounded())
    }

    /// Returns how many of the slow requests in flight to this address should be cut: those beyond the share of slow
    /// tenants while prompt tenants wait, within what the pace of the address allows. With `anyway`, also if none wait.
    pub fn to_cut(&self, address: SocketAddr, now: Instant, anyway: bool) -> usize {
        let wait_here = self.queue(Class::Prompt).borrow().len();
        let to_cut = self.known_host(address, |host| {
            let slow_max = host.permits.slow_max();
            let may_cut = host.permits.pace.may_cut(slow_max, now);
            if anyway {
                return may_cut;
            }
            let is_prompt = |claimant: Claimant| claimant.class == Class::Prompt;
            let wait = wait_here + usize::from(host.permits.oldest_want(is_prompt).is_some());
            host.permits.slow().saturating_sub(slow_max).min(wait).min(may_cut)
        });
        to_cut.unwrap_or(0)
    }

    /// Whether a slow tenant waits for a connection to this address that another slow tenant uses.
    pub fn slow_wait(&self, address: SocketAddr) -> bool {
        let wait_here = !self.queue(Class::Slow).borrow().is_empty();
        let waits = self.known_host(address, |host| {
            let is_slow = |claimant: Claimant| claimant.class == Class::Slow;
            !host.permits.has_room_for_slow() && (wait_here || host.permits.oldest_want(is_slow).is_some())
        });
        waits.unwrap_or(false)
    }

    /// Records that a request to this address was cut.
    pub fn cut(&self, address: SocketAddr, now: Instant) {
        self.known_host(address, |host| host.permits.pace.cut(host.permits.slow_max(), now));
    }

    fn known_host<R>(&self, address: SocketAddr, f: impl FnOnce(&mut Host) -> R) -> Option<R> {
        self.hosts.borrow_mut().get_mut(&address).map(f)
    }

    fn host<R>(&self, address: SocketAddr, f: impl FnOnce(&mut Host) -> R) -> R {
        let mut hosts = self.hosts.borrow_mut();
        let host = match hosts.entry(address) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let permits = self.directory.permits(address);
                entry.insert(Host { idle: Vec::new(), tls: None, permits, answered: None })
            }
        };
        f(host)
    }
}

/// Whether two connections are secured in the same way.
fn is_same(a: &Option<Arc<UpstreamTls>>, b: &Option<Arc<UpstreamTls>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Takes the idle connection that was used last, as it is the least likely to have been closed. However short it was
/// idle, it must be quiet: bytes on it would pass for the answer to the next request, perhaps of another tenant. The
/// check is a system call of half a microsecond.
fn take_usable(idle: &mut Vec<Connection>) -> Option<Connection> {
    while let Some(connection) = idle.pop() {
        if !connection.stream.expired() && connection.stream.is_quiet() {
            return Some(connection);
        }
    }
    None
}

impl Connection {
    /// Closes the connection and keeps the right to have one to the same address.
    pub fn into_permit(self) -> (SocketAddr, Permit) {
        (self.address, self.permit)
    }

    /// The upstream's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests;
