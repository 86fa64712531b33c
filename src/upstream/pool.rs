//! One core's connections to the upstream's addresses, and who gets the next one.
//!
//! Design constraints:
//! - The bound on connections is the process's, for each address; a core holds permits of it. See
//!   [`permits`](crate::shared::permits).
//! - Who finds no connection waits (and what comes meanwhile merges behind it); it gets no error before its deadline.
//! - What comes free is handed to whoever has waited longest, on this core or on another: nobody who comes later
//!   takes it, and nobody who gives back a connection takes it again before them. A connection goes to another core
//!   open, as a descriptor.
//! - Tenants that are slow have at most their share of connections while anybody else could use them: they wait in a
//!   queue of their own, which is passed over while they have it. See [`pace`](crate::shared::pace).
//! - All addresses of the upstream are used evenly: requests take turns over them, not connections.
//! - A connection that lies idle may be closed by its peer at any time, or be out of step: each is probed before it is
//!   used again.
//! - An address that fails repeatedly is passed over while others answer: see [`backoff`](super::backoff).
//! - Addresses come and go with DNS. What is kept for one goes with it: [`Pool::tidy`] looks every few seconds,
//!   also on a core that has nothing to send, and a connection in use is closed when it comes back.

mod handover;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::backoff::{Backoffs, Started};
use super::resolve::Addresses;
use crate::exchange::Exchange;
use crate::io::deadline::{Cut, Deadlines};
use crate::io::stream::{Blocking, Stream};
use crate::limits::{CONNECT_MILLIS_MIN, POOL_TIDY_MILLIS};
use crate::model::{Destination, Failure};
use crate::shared::pace::penalty;
use crate::shared::permits::{Claimant, Directory, Permit, Permits, SlowUse};
use crate::shared::slow::{Class, Standing};

/// An open connection to the upstream.
#[derive(Debug)]
pub struct Connection {
    /// What to read and write.
    pub stream: Stream,
    /// For responses: kept with the connection, as every request needs it.
    pub buffer: Vec<u8>,
    /// Whether it has carried a request before.
    pub reused: bool,
    address: SocketAddr,
    opened: Instant,
    idle_since: Instant,
    permit: Permit,
    /// Makes it count among those that are open.
    _alive: Rc<()>,
}

/// What [`Pool::take`] found.
#[derive(Debug)]
pub struct Lease {
    /// A connection, or the right to open one.
    pub what: Leased,
    /// It is for a slow tenant, and counts as such until this is dropped: when the connection is free again.
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
    /// After this, a connection is not used again.
    pub age_max: Option<Duration>,
    /// An idle connection is closed after this.
    pub idle_max: Duration,
    /// How the ring wants its sockets.
    pub blocking: Blocking,
}

/// See the module.
#[derive(Debug)]
pub struct Pool {
    destination: Destination,
    addresses: Addresses,
    directory: Arc<Directory>,
    exchange: Rc<Exchange>,
    deadlines: Deadlines,
    limits: Cell<PoolLimits>,
    hosts: RefCell<HashMap<SocketAddr, Host>>,
    backoffs: RefCell<Backoffs>,
    turn: Cell<usize>,
    /// A queue for each [`Class`].
    waiting: [RefCell<VecDeque<Rc<Waiter>>>; Class::ALL.len()],
    /// Shared with every open connection.
    alive: Rc<()>,
    closed: Cell<bool>,
    /// When to tidy up next.
    tidy_at: Cell<Instant>,
    /// Of the task that does.
    tidier: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Host {
    idle: Vec<Connection>,
    permits: Arc<Permits>,
    /// When it answered last.
    answered: Option<Instant>,
}

/// A request that waits for a connection.
#[derive(Debug)]
struct Waiter {
    /// Later than it did begin for a tenant that is slow again and again.
    since: Instant,
    tried: Vec<SocketAddr>,
    /// What it has been given.
    lease: RefCell<Option<Lease>>,
    waker: RefCell<Option<Waker>>,
}

/// What has come free at an address.
enum Free {
    Connection(Box<Connection>),
    Permit(Permit),
}

impl Pool {
    /// An empty pool over `addresses`.
    pub fn new(
        destination: Destination,
        addresses: Addresses,
        directory: Arc<Directory>,
        exchange: Rc<Exchange>,
        deadlines: Deadlines,
        limits: PoolLimits,
    ) -> Self {
        Self {
            destination,
            addresses,
            directory,
            exchange,
            deadlines,
            limits: Cell::new(limits),
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

    /// From now on by these; a connection that lies idle keeps its time.
    pub fn limit(&self, limits: PoolLimits) {
        self.limits.set(limits);
    }

    /// A connection, or the right to open one, for a tenant of this standing, waiting for it until `deadline`; rather
    /// not to an address that was `tried` for the same request.
    ///
    /// # Errors
    /// [`Failure::Unresolved`] or [`Failure::NoConnection`].
    pub async fn take(
        &self,
        standing: Standing,
        deadline: Instant,
        tried: &[SocketAddr],
    ) -> Result<Lease, Failure> {
        // Who waits already comes first.
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
        let waiter = Rc::new(Waiter {
            since: now + penalty(standing.strikes, deadline.saturating_duration_since(now)),
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
        lease.map(probed).ok_or(Failure::NoConnection)
    }

    /// Opens a connection; its permit goes to whoever waits when that fails.
    ///
    /// # Errors
    /// [`Failure::Unreachable`], also when `deadline` has passed.
    pub async fn connect(
        &self,
        address: SocketAddr,
        permit: Permit,
        deadline: Instant,
    ) -> Result<Box<Connection>, Failure> {
        match Stream::connect(address, deadline, self.limits.get().blocking, &self.deadlines).await {
            Ok(stream) => Ok(Box::new(self.connection(stream, address, permit, Instant::now()))),
            Err(error) => {
                self.give(address, Free::Permit(permit));
                Err(Failure::Unreachable { address, reason: error.to_string() })
            }
        }
    }

    fn connection(&self, stream: Stream, address: SocketAddr, permit: Permit, opened: Instant) -> Connection {
        let alive = Rc::clone(&self.alive);
        let (buffer, idle_since) = (Vec::new(), Instant::now());
        Connection { stream, buffer, reused: false, address, opened, idle_since, permit, _alive: alive }
    }

    /// How long opening a connection may take where a request has `timeout`: its share of that, so that a request finds
    /// the others in time where one address drops what it is sent.
    pub fn connect_timeout(&self, timeout: Duration) -> Duration {
        let addresses = u32::try_from(self.addresses()).unwrap_or(u32::MAX).max(1);
        (timeout / addresses).max(Duration::from_millis(CONNECT_MILLIS_MIN)).min(timeout)
    }

    /// How many addresses there are to try.
    pub fn addresses(&self) -> usize {
        self.addresses.load().addresses.len()
    }

    /// Takes a connection back whose last response has been read to its end.
    pub fn put(&self, mut connection: Box<Connection>) {
        let now = Instant::now();
        let limits = self.limits.get();
        if limits.age_max.is_some_and(|max| now - connection.opened >= max) {
            return self.discard(connection);
        }
        connection.reused = true;
        connection.idle_since = now;
        connection.stream.set_deadline(now + limits.idle_max, Cut::Both);
        self.give(connection.address, Free::Connection(connection));
    }

    /// Takes a connection back that can't be used again.
    pub fn discard(&self, connection: Box<Connection>) {
        let (address, permit) = connection.into_permit();
        self.give(address, Free::Permit(permit));
    }

    /// Closes what is idle; connections that come back are closed too.
    pub fn close(&self) {
        self.closed.set(true);
        self.hosts.take();
        self.wake_tidier();
    }

    /// Tidies up again and again until the pool is closed, and calls `tidied` each time. One task a core.
    pub async fn keep_tidy(&self, tidied: impl Fn()) {
        while !self.closed.get() {
            self.tidy_is_due().await;
            self.tidy_at.set(Instant::now() + Duration::from_millis(POOL_TIDY_MILLIS));
            self.tidy();
            tidied();
        }
    }

    /// Until it is time to tidy up, or the pool is closed.
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

    /// Closes idle connections whose time is up, forgets addresses that the upstream no longer has, and lets those who
    /// wait try addresses that are new.
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

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.hosts.borrow().values().map(|h| h.idle.len()).sum()
    }

    /// Open connections, those in use included.
    pub fn open(&self) -> usize {
        Rc::strong_count(&self.alive) - 1
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

    /// The address refused, could not be reached, or broke off; the backoff that starts for that reason.
    pub fn failed(&self, address: SocketAddr) -> Option<Started> {
        if self.addresses() < 2 || self.is_gone(address) {
            return None;
        }
        self.backoffs.borrow_mut().failed(address, Instant::now())
    }

    /// The address has answered a request that was sent at `begun`. Whether it was in backoff, and whether the
    /// answer came in time.
    pub fn worked(&self, address: SocketAddr, begun: Instant, timeout: Duration) -> (bool, bool) {
        let now = Instant::now();
        let in_time = self.known_host(address, |host| {
            host.answered = Some(now);
            host.permits.pace.answered(begun, now, timeout)
        });
        (self.backoffs.borrow_mut().worked(address), in_time.unwrap_or(true))
    }

    /// Whether the address has answered anything since `then`.
    pub fn has_answered_since(&self, address: SocketAddr, then: Instant) -> bool {
        let answered = self.known_host(address, |host| host.answered).flatten();
        answered.is_some_and(|answered| answered >= then)
    }

    /// Addresses in backoff.
    pub fn in_backoff(&self) -> usize {
        self.backoffs.borrow().in_backoff()
    }

    /// How long a request to this address may take before its tenant counts as slow.
    pub fn patience(&self, address: SocketAddr, timeout: Duration) -> Duration {
        self.known_host(address, |host| host.permits.pace.patience(timeout)).unwrap_or(timeout)
    }

    /// A request on its way to this address has turned out to be slow.
    pub fn turned_slow(&self, address: SocketAddr) -> Option<SlowUse> {
        self.known_host(address, |host| host.permits.turned_slow())
    }

    /// How many of the slow requests on their way to this address are to be cut: those beyond the share of slow
    /// tenants, while prompt ones wait, as far as what is known of the address allows. With `anyway`, whoever waits.
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

    /// Whether a request of a slow tenant on its way to this address keeps another slow tenant's waiting.
    pub fn slow_wait(&self, address: SocketAddr) -> bool {
        let wait_here = !self.queue(Class::Slow).borrow().is_empty();
        let waits = self.known_host(address, |host| {
            let is_slow = |claimant: Claimant| claimant.class == Class::Slow;
            !host.permits.slow_have_room() && (wait_here || host.permits.oldest_want(is_slow).is_some())
        });
        waits.unwrap_or(false)
    }

    /// A request on its way to this address was cut.
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
                entry.insert(Host { idle: Vec::new(), permits, answered: None })
            }
        };
        f(host)
    }
}

/// The idle connection that was used last, as it is the least likely to have been closed. However short it was idle,
/// it must be quiet: bytes that wait would pass for the answer to the next request, another tenant's perhaps. The
/// look is a system call of half a microsecond.
fn take_usable(idle: &mut Vec<Connection>) -> Option<Connection> {
    while let Some(connection) = idle.pop() {
        if !connection.stream.expired() && connection.stream.is_quiet() {
            return Some(connection);
        }
    }
    None
}

/// What has been handed out, as a right to open a connection if the one that came with it can't be used.
fn probed(lease: Lease) -> Lease {
    let Lease { what, slow } = lease;
    let what = match what {
        Leased::Open(connection) if connection.stream.expired() || !connection.stream.is_quiet() => {
            let (address, permit) = connection.into_permit();
            Leased::Connect(address, permit)
        }
        usable => usable,
    };
    Lease { what, slow }
}

impl Connection {
    /// Gives up the connection, but keeps the right to have one to the same address.
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
