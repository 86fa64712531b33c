//! One core's connections to the upstream's addresses.
//!
//! Design constraints:
//! - The bound on connections is the process's, for each address; a core holds permits of it. See
//!   [`permits`](super::permits).
//! - All addresses of the upstream are used evenly: requests take turns over them, not connections.
//! - A lane that finds no connection waits (and what comes meanwhile merges behind it); it gets no error before
//!   its deadline.
//! - A connection that lies idle may be closed by its peer at any time: one that lay for long is probed first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::permits::{Directory, Permit, Permits};
use super::resolve::Addresses;
use crate::core::deadline::{Cut, Deadlines};
use crate::core::stream::{Blocking, Stream};
use crate::limits::PROBE_AFTER_IDLE_MILLIS;
use crate::queue::exchange::Exchange;
use crate::queue::fragment::Message;

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
}

/// What [`Pool::take`] found.
#[derive(Debug)]
pub enum Lease {
    /// A connection that has carried requests before.
    Open(Box<Connection>),
    /// The right to open one.
    Connect(SocketAddr, Permit),
}

/// Why there is no connection to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoLease {
    /// The upstream's name has never resolved.
    Unresolved(String),
    /// None came free before the deadline.
    TimedOut,
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
    addresses: Addresses,
    directory: Arc<Directory>,
    exchange: Rc<Exchange>,
    deadlines: Deadlines,
    limits: PoolLimits,
    hosts: RefCell<HashMap<SocketAddr, Host>>,
    turn: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
    /// Whether the last connection that another core wanted too was kept here: then the next one is not.
    kept_last: Cell<bool>,
    closed: Cell<bool>,
}

#[derive(Debug)]
struct Host {
    idle: Vec<Connection>,
    permits: Arc<Permits>,
}

#[derive(Debug, Default)]
struct Waiter {
    told: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Waiter {
    fn tell(&self) {
        self.told.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Pool {
    /// An empty pool over `addresses`.
    pub fn new(
        addresses: Addresses,
        directory: Arc<Directory>,
        exchange: Rc<Exchange>,
        deadlines: Deadlines,
        limits: PoolLimits,
    ) -> Self {
        Self {
            addresses,
            directory,
            exchange,
            deadlines,
            limits,
            hosts: RefCell::default(),
            turn: Cell::default(),
            waiting: RefCell::default(),
            kept_last: Cell::default(),
            closed: Cell::default(),
        }
    }

    /// A connection, or the right to open one, waiting for it until `deadline`.
    ///
    /// # Errors
    /// See [`NoLease`].
    pub async fn take(&self, deadline: Instant) -> Result<Lease, NoLease> {
        if let Some(lease) = self.try_take()? {
            return Ok(lease);
        }
        let lease = self.wait_and_take(deadline).await;
        self.keep_wanting();
        lease
    }

    async fn wait_and_take(&self, deadline: Instant) -> Result<Lease, NoLease> {
        let watch = self.deadlines.watch_task();
        watch.set(deadline, Cut::Both);
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        loop {
            if let Some(lease) = self.announce_and_try()? {
                self.leave_queue(&waiter);
                return Ok(lease);
            }
            let told = watch
                .wait(|waker| {
                    *waiter.waker.borrow_mut() = Some(waker.clone());
                    waiter.told.take()
                })
                .await;
            if !told {
                self.leave_queue(&waiter);
                return Err(NoLease::TimedOut);
            }
            self.waiting.borrow_mut().push_front(Rc::clone(&waiter));
        }
    }

    /// Opens a connection; its permit is released when that fails.
    ///
    /// # Errors
    /// What the kernel says; `TimedOut` when `deadline` has passed.
    pub async fn connect(
        &self,
        address: SocketAddr,
        permit: Permit,
        deadline: Instant,
    ) -> std::io::Result<Box<Connection>> {
        let stream = Stream::connect(address, deadline, self.limits.blocking, &self.deadlines).await?;
        let now = Instant::now();
        let (buffer, reused) = (Vec::new(), false);
        Ok(Box::new(Connection { stream, buffer, reused, address, opened: now, idle_since: now, permit }))
    }

    /// How many addresses there are to try.
    pub fn addresses(&self) -> usize {
        self.addresses.load().addresses.len()
    }

    /// Takes a connection back whose last response has been read to its end.
    pub fn put(&self, mut connection: Connection) {
        let now = Instant::now();
        let too_old = self.limits.age_max.is_some_and(|max| now - connection.opened >= max);
        if too_old || self.closed.get() || self.owes_others(connection.address) {
            // Dropping it releases the permit, which tells whoever wants one.
            drop(connection);
            self.tell_one();
            return;
        }
        connection.reused = true;
        connection.idle_since = now;
        connection.stream.set_deadline(now + self.limits.idle_max, Cut::Both);
        self.host(connection.address, |host| host.idle.push(connection));
        self.tell_one();
    }

    /// A permit that this core announced for has come free, or a connection was closed.
    pub fn tell_one(&self) {
        let waiter = self.waiting.borrow_mut().pop_front();
        if let Some(waiter) = waiter {
            waiter.tell();
        }
    }

    /// Another core wants a connection to `address`: gives up one that is idle.
    pub fn give_up_idle(&self, address: SocketAddr) {
        let given_up = self.host(address, |host| host.idle.pop());
        drop(given_up);
    }

    /// Closes what is idle; connections that come back are closed too.
    pub fn close(&self) {
        self.closed.set(true);
        self.hosts.take();
    }

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.hosts.borrow().values().map(|h| h.idle.len()).sum()
    }

    fn try_take(&self) -> Result<Option<Lease>, NoLease> {
        let resolution = self.addresses.load();
        let addresses = &resolution.addresses;
        if addresses.is_empty() {
            return Err(NoLease::Unresolved(resolution.error.clone().unwrap_or_default()));
        }
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let in_turn = (0..addresses.len()).map(|k| addresses[turn.wrapping_add(k) % addresses.len()]);
        for address in in_turn {
            let lease = self.host(address, |host| {
                take_usable(&mut host.idle).map(|c| Lease::Open(Box::new(c))).or_else(|| {
                    host.permits.try_take(&self.exchange).map(|permit| Lease::Connect(address, permit))
                })
            });
            if lease.is_some() {
                return Ok(lease);
            }
        }
        Ok(None)
    }

    /// Says on every address that a permit is wanted, then looks again: see [`Permits::announce`].
    fn announce_and_try(&self) -> Result<Option<Lease>, NoLease> {
        self.announce();
        self.try_take()
    }

    /// Being told takes a core's announcement back: whoever leaves the queue renews it for those behind.
    fn keep_wanting(&self) {
        if self.waiting.borrow().is_empty() {
            return;
        }
        self.announce();
        let addresses = self.addresses.load();
        if addresses.addresses.iter().any(|&a| self.host(a, |h| !h.idle.is_empty() || h.permits.any_free())) {
            self.tell_one();
        }
    }

    fn announce(&self) {
        let core = self.exchange.core();
        for &address in &self.addresses.load().addresses {
            if self.host(address, |host| host.permits.announce(core)) {
                let others = (0..self.exchange.cores()).filter(|&k| k != core);
                others.for_each(|k| _ = self.exchange.send(k, Message::PermitWanted(address)));
            }
        }
    }

    /// Takes a waiter out of the queue. One that was told and goes for another reason passes the word on.
    fn leave_queue(&self, waiter: &Rc<Waiter>) {
        self.waiting.borrow_mut().retain(|w| !Rc::ptr_eq(w, waiter));
        if waiter.told.take() {
            self.tell_one();
        }
    }

    /// Whether a connection that comes back should be closed, as another core wants one to the same address:
    /// always if nobody waits here, else every other time.
    fn owes_others(&self, address: SocketAddr) -> bool {
        let core = self.exchange.core();
        if !self.host(address, |host| host.permits.wanted_elsewhere(core)) {
            return false;
        }
        let keep = !self.waiting.borrow().is_empty() && !self.kept_last.get();
        self.kept_last.set(keep);
        !keep
    }

    fn host<R>(&self, address: SocketAddr, f: impl FnOnce(&mut Host) -> R) -> R {
        let mut hosts = self.hosts.borrow_mut();
        let host = match hosts.entry(address) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let permits = self.directory.permits(address);
                entry.insert(Host { idle: Vec::new(), permits })
            }
        };
        f(host)
    }

    /// Forgets addresses that the upstream no longer has, with their idle connections.
    pub fn forget_old_addresses(&self) {
        let resolution = self.addresses.load();
        let old: Vec<_> = {
            let mut hosts = self.hosts.borrow_mut();
            hosts.extract_if(|address, _| !resolution.addresses.contains(address)).collect()
        };
        drop(old);
    }
}

/// The idle connection that was used last, as it is the least likely to have been closed.
fn take_usable(idle: &mut Vec<Connection>) -> Option<Connection> {
    while let Some(connection) = idle.pop() {
        let idle_for = connection.idle_since.elapsed();
        let fresh = idle_for < Duration::from_millis(PROBE_AFTER_IDLE_MILLIS);
        if !connection.stream.expired() && (fresh || connection.stream.is_quiet()) {
            return Some(connection);
        }
    }
    None
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
