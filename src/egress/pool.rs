//! One core's connections to the upstream's addresses.
//!
//! Design constraints:
//! - The bound on connections is the process's, for each address; a core holds permits of it. See
//!   [`permits`](super::permits), also for which connections a core keeps while others want some.
//! - All addresses of the upstream are used evenly: requests take turns over them, not connections.
//! - A lane that finds no connection waits (and what comes meanwhile merges behind it); it gets no error before
//!   its deadline.
//! - A connection that lies idle may be closed by its peer at any time, or be out of step: each is probed before it is
//!   used again.
//! - An address that fails again and again rests while others are there: see [`rest`](super::rest).
//! - Addresses come and go with DNS. What is kept for one goes with it: [`Pool::tidy`] looks every few seconds,
//!   also on a core that has nothing to send, and a connection in use is closed when it comes back.

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

use super::permits::{Directory, Permit, Permits, Use};
use super::resolve::Addresses;
use super::rest::{Begun, Rests};
use crate::core::deadline::{Cut, Deadlines};
use crate::core::stream::{Blocking, Stream};
use crate::limits::{CONNECT_MILLIS_MIN, PERMIT_PRESSING_MILLIS, POOL_TIDY_MILLIS};
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
    /// Makes it count among those that are open.
    _alive: Rc<()>,
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
    limits: Cell<PoolLimits>,
    hosts: RefCell<HashMap<SocketAddr, Host>>,
    rests: RefCell<Rests>,
    turn: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
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
            limits: Cell::new(limits),
            hosts: RefCell::default(),
            rests: RefCell::default(),
            turn: Cell::default(),
            waiting: RefCell::default(),
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

    /// A connection, or the right to open one, waiting for it until `deadline`; rather not to an address that was
    /// `tried` for the same request.
    ///
    /// # Errors
    /// See [`NoLease`].
    pub async fn take(&self, deadline: Instant, tried: &[SocketAddr]) -> Result<Lease, NoLease> {
        if let Some(lease) = self.try_take(tried)? {
            return Ok(lease);
        }
        let lease = self.wait_and_take(deadline, tried).await;
        self.tell_wants(lease.is_ok());
        lease
    }

    async fn wait_and_take(&self, deadline: Instant, tried: &[SocketAddr]) -> Result<Lease, NoLease> {
        let watch = self.deadlines.watch_task();
        watch.set(deadline, Cut::Both);
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        loop {
            if let Some(lease) = self.announce_and_try(tried)? {
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
        let stream = Stream::connect(address, deadline, self.limits.get().blocking, &self.deadlines).await?;
        let now = Instant::now();
        Ok(Box::new(Connection {
            stream,
            buffer: Vec::new(),
            reused: false,
            address,
            opened: now,
            idle_since: now,
            permit,
            _alive: Rc::clone(&self.alive),
        }))
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
    pub fn put(&self, mut connection: Connection) {
        let now = Instant::now();
        let too_old = self.limits.get().age_max.is_some_and(|max| now - connection.opened >= max);
        let address = connection.address;
        if too_old || self.closed.get() || self.is_gone(address) || self.owes_others(address, now) {
            // Dropping it releases the permit, which tells whoever wants one.
            drop(connection);
            self.tell_one();
            return;
        }
        connection.reused = true;
        connection.idle_since = now;
        connection.stream.set_deadline(now + self.limits.get().idle_max, Cut::Both);
        self.host(address, |host| host.idle.push(connection));
        self.tell_one();
    }

    /// A permit that this core announced for has come free, or a connection was closed.
    pub fn tell_one(&self) {
        let waiter = self.waiting.borrow_mut().pop_front();
        if let Some(waiter) = waiter {
            waiter.tell();
        }
    }

    /// Another core wants a connection to `address`: gives up one that is idle, now or when it turns out to be needed
    /// there more.
    pub fn give_up_idle(&self, address: SocketAddr) {
        let now = Instant::now();
        let given_up = self.hosts.borrow_mut().get_mut(&address).and_then(|host| self.spare(host, now));
        drop(given_up);
    }

    /// The connection that has been idle for longest, if another core wants one and this core owes it.
    fn spare(&self, host: &mut Host, now: Instant) -> Option<Connection> {
        let core = self.exchange.core();
        let idle_for = now.saturating_duration_since(host.idle.first()?.idle_since);
        if host.permits.owes(core, Use::IdleFor(idle_for), now) {
            return Some(host.idle.remove(0));
        }
        if host.permits.wanted_elsewhere(core) {
            self.tidy_by(now + Duration::from_millis(PERMIT_PRESSING_MILLIS));
        }
        None
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

    /// Until it is time to tidy up, which may come earlier than it seemed, or the pool is closed.
    async fn tidy_is_due(&self) {
        loop {
            let due = self.tidy_at.get();
            if self.closed.get() || due <= Instant::now() {
                return;
            }
            let mut pause = pin!(monoio::time::sleep_until(due.into()));
            poll_fn(|cx| {
                if self.closed.get() || self.tidy_at.get() != due {
                    return Poll::Ready(());
                }
                *self.tidier.borrow_mut() = Some(cx.waker().clone());
                pause.as_mut().poll(cx)
            })
            .await;
        }
    }

    /// Has it tidied up no later than `at`.
    fn tidy_by(&self, at: Instant) {
        if at < self.tidy_at.get() {
            self.tidy_at.set(at);
            self.wake_tidier();
        }
    }

    fn wake_tidier(&self) {
        if let Some(waker) = self.tidier.take() {
            waker.wake();
        }
    }

    /// Closes idle connections whose time is up, gives up those that other cores need more, and forgets addresses that
    /// the upstream no longer has.
    pub fn tidy(&self) {
        let (resolution, now) = (self.addresses.load(), Instant::now());
        self.hosts.borrow_mut().retain(|address, host| {
            let gone = !resolution.addresses.contains(address);
            host.idle.retain(|connection| !gone && !connection.stream.expired());
            drop(self.spare(host, now));
            !gone
        });
        self.rests.borrow_mut().keep(&resolution.addresses);
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

    fn try_take(&self, tried: &[SocketAddr]) -> Result<Option<Lease>, NoLease> {
        let resolution = self.addresses.load();
        let addresses = &resolution.addresses;
        if addresses.is_empty() {
            return Err(NoLease::Unresolved(resolution.error.clone().unwrap_or_default()));
        }
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let mut in_turn = (0..addresses.len()).map(|k| addresses[turn.wrapping_add(k) % addresses.len()]);
        let mut rests = self.rests.borrow_mut();
        if rests.is_quiet() && tried.is_empty() {
            return Ok(in_turn.find_map(|address| self.lease(address)));
        }
        let now = Instant::now();
        let chosen = rests.choose(in_turn.collect(), tried, now);
        let lease = chosen.into_iter().find_map(|address| Some((address, self.lease(address)?)));
        Ok(lease.map(|(address, lease)| {
            rests.goes_to(address, now);
            lease
        }))
    }

    fn lease(&self, address: SocketAddr) -> Option<Lease> {
        self.host(address, |host| {
            take_usable(&mut host.idle).map(|c| Lease::Open(Box::new(c))).or_else(|| {
                host.permits.try_take(&self.exchange).map(|permit| Lease::Connect(address, permit))
            })
        })
    }

    /// The address refused, could not be reached, or broke off; whether it is put to rest for that.
    pub fn failed(&self, address: SocketAddr) -> Option<Begun> {
        if self.addresses() < 2 || self.is_gone(address) {
            return None;
        }
        self.rests.borrow_mut().failed(address, Instant::now())
    }

    /// The address has answered. Whether it had been put to rest.
    pub fn worked(&self, address: SocketAddr) -> bool {
        if let Some(host) = self.hosts.borrow_mut().get_mut(&address) {
            host.answered = Some(Instant::now());
        }
        self.rests.borrow_mut().worked(address)
    }

    /// Whether the address has answered anything since `then`.
    pub fn has_answered_since(&self, address: SocketAddr, then: Instant) -> bool {
        let answered = self.hosts.borrow().get(&address).and_then(|host| host.answered);
        answered.is_some_and(|answered| answered >= then)
    }

    /// Addresses that have been put to rest.
    pub fn resting(&self) -> usize {
        self.rests.borrow().resting()
    }

    /// Says on every address that a permit is wanted, then looks again: see [`Permits::announce`].
    fn announce_and_try(&self, tried: &[SocketAddr]) -> Result<Option<Lease>, NoLease> {
        self.announce();
        self.try_take(tried)
    }

    /// Whoever leaves the queue says what those behind him want. That he was told, if so, has taken back what the core
    /// announced; and that he `got_one` makes it less pressing.
    fn tell_wants(&self, got_one: bool) {
        let (core, now, wants_more) =
            (self.exchange.core(), Instant::now(), !self.waiting.borrow().is_empty());
        for &address in &self.addresses.load().addresses {
            self.host(address, |host| match (wants_more, got_one) {
                (false, _) => host.permits.withdraw(core),
                (true, true) => host.permits.renew(core, now),
                (true, false) => {}
            });
        }
        if !wants_more {
            return;
        }
        self.announce();
        let addresses = self.addresses.load();
        if addresses.addresses.iter().any(|&a| self.host(a, |h| !h.idle.is_empty() || h.permits.any_free())) {
            self.tell_one();
        }
    }

    fn announce(&self) {
        let (core, now) = (self.exchange.core(), Instant::now());
        for &address in &self.addresses.load().addresses {
            if self.host(address, |host| host.permits.announce(core, now)) {
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

    /// Whether a connection that comes back should be closed, as another core wants one to the same address.
    fn owes_others(&self, address: SocketAddr, now: Instant) -> bool {
        let waits_here = !self.waiting.borrow().is_empty();
        let what_for = if waits_here { Use::Now } else { Use::IdleFor(Duration::ZERO) };
        self.host(address, |host| host.permits.owes(self.exchange.core(), what_for, now))
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

/// The idle connection that was used last, as it is the least likely to have been closed. However short it was idle, it
/// must be quiet: bytes that wait would pass for the answer to the next request, another tenant's perhaps. The look
/// is a
/// system call of half a microsecond.
fn take_usable(idle: &mut Vec<Connection>) -> Option<Connection> {
    while let Some(connection) = idle.pop() {
        if !connection.stream.expired() && connection.stream.is_quiet() {
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;
    use crate::egress::resolve::Resolution;
    use crate::limits::REST_AFTER_FAILURES;
    use crate::queue::mailbox::Mailbox;

    fn resolve_to(addresses: &Addresses, to: &[SocketAddr]) {
        addresses.store(Arc::new(Resolution { addresses: to.to_vec(), error: None }));
    }

    fn pool(addresses: &Addresses) -> Pool {
        pool_of_core(addresses, Directory::new(1, 4))
    }

    /// The pool of the first core.
    fn pool_of_core(addresses: &Addresses, directory: Arc<Directory>) -> Pool {
        let (mailbox, post, _) = Mailbox::new().unwrap();
        let posts = [post.clone(), post].into();
        let exchange = Rc::new(Exchange::new(0, mailbox, posts));
        let idle_max = Duration::from_secs(60);
        let limits = PoolLimits { age_max: None, idle_max, blocking: Blocking::No };
        Pool::new(Arc::clone(addresses), directory, exchange, Deadlines::default(), limits)
    }

    async fn open(pool: &Pool) -> Connection {
        let soon = Instant::now() + Duration::from_secs(5);
        let Ok(Lease::Connect(address, permit)) = pool.take(soon, &[]).await else { panic!("no permit") };
        *pool.connect(address, permit, soon).await.unwrap()
    }

    fn on_a_core(test: impl Future<Output = ()>) {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap().block_on(test);
    }

    #[test]
    fn what_was_kept_for_an_address_goes_with_it() {
        let (old, new) = (TcpListener::bind("127.0.0.1:0").unwrap(), "127.0.0.1:9".parse().unwrap());
        on_a_core(async {
            let addresses = Addresses::default();
            resolve_to(&addresses, &[old.local_addr().unwrap()]);
            let pool = pool(&addresses);
            let (idle, in_use) = (open(&pool).await, open(&pool).await);
            pool.put(idle);
            assert_eq!((pool.open(), pool.idle()), (2, 1));
            pool.tidy();
            assert_eq!((pool.open(), pool.idle()), (2, 1), "the address is still there");

            resolve_to(&addresses, &[new]);
            pool.tidy();
            assert_eq!((pool.open(), pool.idle(), pool.hosts.borrow().len()), (1, 0, 0));
            pool.put(in_use);
            assert_eq!((pool.open(), pool.idle(), pool.hosts.borrow().len()), (0, 0, 0));
            for _ in 0..2 {
                let mut peer = old.accept().unwrap().0;
                assert_eq!(peer.read(&mut [0]).unwrap(), 0, "closed");
            }
            // Nor does another core's wish bring it back.
            pool.give_up_idle(old.local_addr().unwrap());
            assert_eq!(pool.hosts.borrow().len(), 0);
        });
    }

    #[test]
    fn what_was_used_just_now_is_given_up_when_another_core_gets_none() {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = upstream.local_addr().unwrap();
        on_a_core(async {
            let addresses = Addresses::default();
            resolve_to(&addresses, &[at]);
            let directory = Directory::new(2, 2);
            let pool = pool_of_core(&addresses, Arc::clone(&directory));
            let connections = (open(&pool).await, open(&pool).await);
            directory.permits(at).announce(1, Instant::now());
            pool.put(connections.0);
            assert_eq!(pool.open(), 1, "two are more than half of them");
            directory.permits(at).announce(1, Instant::now());
            pool.put(connections.1);
            pool.give_up_idle(at);
            assert_eq!(pool.idle(), 1, "one is its own");
            let begun = Instant::now();
            let late = begun + Duration::from_secs(1);
            pool.keep_tidy(|| {
                if pool.idle() == 0 || Instant::now() > late {
                    pool.close();
                }
            })
            .await;
            assert!(Instant::now() < late, "it was pressing, and took {:?}", begun.elapsed());
        });
    }

    #[test]
    fn an_address_that_fails_rests_and_the_other_takes_over() {
        let [dead, live] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let at = [&dead, &live].map(|listener| listener.local_addr().unwrap());
        drop(dead);
        on_a_core(async {
            let addresses = Addresses::default();
            resolve_to(&addresses, &at);
            let pool = pool(&addresses);
            let soon = Instant::now() + Duration::from_secs(5);
            let mut failures = 0;
            for _ in 0..50 {
                let Ok(Lease::Connect(address, permit)) = pool.take(soon, &[]).await else {
                    panic!("no permit")
                };
                match pool.connect(address, permit, soon).await {
                    Ok(_) => assert!(!pool.worked(address)),
                    Err(_) => {
                        failures += 1;
                        let rest = pool.failed(address);
                        assert_eq!(rest.is_some(), failures == REST_AFTER_FAILURES);
                    }
                }
            }
            assert_eq!((failures, pool.resting()), (REST_AFTER_FAILURES, 1));
            // The live one goes from DNS: the other is asked at once, rest or no rest.
            resolve_to(&addresses, &at[..1]);
            let Ok(Lease::Connect(address, _)) = pool.take(soon, &[]).await else { panic!("no permit") };
            assert_eq!(address, at[0]);
            resolve_to(&addresses, &at[1..]);
            pool.tidy();
            assert_eq!(pool.resting(), 0);
        });
    }
}
