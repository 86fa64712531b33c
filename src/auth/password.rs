//! Passwords of users, checked with bcrypt on threads of their own.
//!
//! Design constraints:
//!
//! * bcrypt takes tens of milliseconds by design, which no core can spend. A core asks, goes on, and gets
//!   the verdict later. The threads have a low priority, so a flood of checks costs the cores little CPU.
//! * A right password is remembered until the users change. Each user has one place for it, so nothing that others send
//!   can push it out, and a sender is checked once. Wrong passwords are remembered apart, the latest ones.
//! * At each bound it is clear which request waits and which one loses. Checks wait in a [`queue`] that is fair between
//!   users, and for each user between peers: with `n` users waiting, a check starts after at most `n` others per check
//!   of its own user and peer before it. A check holds a thread for the time of one hash. What a full queue drops is
//!   [`Verdict::Busy`], and the answer to it is 503. A flood can keep out the first check
//!   of the user that it names: from as many addresses as the queue has places, or from the user's own address. It
//!   keeps out no other user.
//! * The same check waits once, however many requests wait for it.
//! * A user that does not exist takes as long as one that does: the password is checked against the hash of another
//!   user, always the same for the same name. All such names share one place in the queue.
#![forbid(unsafe_code)]

mod queue;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use self::queue::{FairQueue, Pushed};
use super::caller::Caller;
use super::mac::{Mac, MacKey};
use super::secret::Secret;
use crate::limits::{
    BCRYPT_COST_MAX, BCRYPT_NICE, BCRYPT_THREADS, PASSWORD_CHECKS_MAX, PASSWORD_CHECKS_PER_PEER_MAX,
    PASSWORD_WAITERS_MAX, PASSWORDS_WRONG_MAX,
};

/// A user's bcrypt hash. `Debug` shows `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Box<str>);

/// Why a text is no bcrypt hash that can be used. The text itself is not quoted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HashFault {
    /// It is not one at all.
    #[error("is not a bcrypt hash ($2a$, $2b$ or $2y$ and 60 characters); `htpasswd -nBC 10 \"\"` makes one")]
    NotBcrypt,
    /// `$2x$` marks hashes of a faulty implementation.
    #[error("is a $2x$ hash, made by a faulty bcrypt; make a new one with `htpasswd -nBC 10 \"\"`")]
    Faulty,
    /// Its cost is out of range.
    #[error("has the cost {0}, but only 4 to {BCRYPT_COST_MAX} are accepted")]
    Cost(u32),
}

impl PasswordHash {
    /// Checks the hash's form and cost.
    ///
    /// # Errors
    /// If it is no hash that a password can be checked against.
    pub fn parse(text: &str) -> Result<Self, HashFault> {
        if text.starts_with("$2x$") {
            return Err(HashFault::Faulty);
        }
        let parts: bcrypt::HashParts = text.parse().map_err(|_| HashFault::NotBcrypt)?;
        match parts.get_cost() {
            4..=BCRYPT_COST_MAX => Ok(Self(text.into())),
            cost => Err(HashFault::Cost(cost)),
        }
    }

    /// Checks a password. Takes tens of milliseconds or more, depending on the cost.
    fn matches(&self, password: &[u8]) -> bool {
        bcrypt::verify(password, &self.0).unwrap_or(false)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Users and the hashes of their passwords.
pub type Users = HashMap<Arc<str>, PasswordHash>;

/// Names one request that waits for a verdict. Unique in the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket(u64);

impl Ticket {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The answer to a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The password is that of the user.
    Right,
    /// The user is unknown, or the password is wrong.
    Wrong,
    /// It could not be checked for lack of room, or because the users were replaced. A retry helps.
    Busy,
}

/// The answer to a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    /// The password is right, and this is the user's name.
    Right(Arc<str>),
    /// The user is unknown, or the password is wrong.
    Wrong,
    /// The verdict for this ticket comes later. If it is [`Verdict::Right`], the user has this name.
    Pending(Ticket, Arc<str>),
    /// There is no room in the queue. A retry helps.
    Busy,
}

/// Takes the verdict for a ticket to the core that asked. It is called on a thread of [`Passwords`], or on that of a
/// call to [`Passwords::check`] which takes the place of another check. It must not block, and not call back.
pub type Deliver = dyn Fn(usize, Ticket, Verdict) + Send + Sync;

/// Checks passwords. Dropping it ends its threads, without waiting for them, and delivers [`Verdict::Busy`] for the
/// checks that wait.
pub struct Passwords {
    shared: Arc<Shared>,
}

struct Shared {
    key: MacKey,
    users: HashMap<Arc<str>, User>,
    /// Names in a fixed order, to choose one that takes the place of an unknown user.
    names: Vec<Arc<str>>,
    state: Mutex<State>,
    wake: Condvar,
    deliver: Arc<Deliver>,
}

struct User {
    hash: PasswordHash,
    /// The keyed hash of the password that was right last.
    right: ArcSwapOption<Mac>,
}

/// Whose turn in the queue a check takes: a known user's, or that of all unknown ones.
type Whose = Option<Arc<str>>;

struct State {
    queue: FairQueue<Whose, Option<IpAddr>, Mac>,
    /// The checks that wait or run.
    open: HashMap<Mac, Open>,
    wrong: Wrong,
    ends: bool,
}

struct Open {
    user: Arc<str>,
    password: Secret,
    waiters: Vec<(usize, Ticket)>,
}

/// The latest wrong passwords.
#[derive(Default)]
struct Wrong {
    known: HashSet<Mac>,
    order: VecDeque<Mac>,
}

impl Wrong {
    fn insert(&mut self, mac: Mac) {
        if !self.known.insert(mac) {
            return;
        }
        self.order.push_back(mac);
        if self.order.len() > PASSWORDS_WRONG_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Passwords {
    /// Starts the threads. They inherit the CPU affinity of the calling thread, which should not be that of a core.
    ///
    /// # Errors
    /// If the operating system gives no threads or no random numbers.
    pub fn start(users: Users, deliver: Arc<Deliver>) -> io::Result<Self> {
        Self::start_with(users, deliver, PASSWORD_CHECKS_MAX, BCRYPT_THREADS)
    }

    fn start_with(
        users: Users,
        deliver: Arc<Deliver>,
        checks_max: usize,
        threads: usize,
    ) -> io::Result<Self> {
        let mut names: Vec<_> = users.keys().cloned().collect();
        names.sort_unstable();
        let user = |hash| User { hash, right: ArcSwapOption::empty() };
        let shared = Arc::new(Shared {
            key: MacKey::random()?,
            users: users.into_iter().map(|(name, hash)| (name, user(hash))).collect(),
            names,
            state: Mutex::new(State {
                queue: FairQueue::new(checks_max, PASSWORD_CHECKS_PER_PEER_MAX),
                open: HashMap::new(),
                wrong: Wrong::default(),
                ends: false,
            }),
            wake: Condvar::new(),
            deliver,
        });
        // Made first, so that threads that did start end if another does not.
        let passwords = Self { shared: Arc::clone(&shared) };
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("bcrypt-{number}")).spawn(move || shared.work())?;
        }
        Ok(passwords)
    }

    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.shared.names.is_empty()
    }

    /// The number of checks that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Whether `password` is that of `user`. Never blocks for longer than a table look-up.
    ///
    /// After [`Check::Pending`] exactly one verdict is delivered. It may be on its way when this returns, so a core
    /// must not handle deliveries in between.
    pub fn check(&self, user: &str, password: &Secret, caller: &Caller) -> Check {
        let shared = &self.shared;
        let mac = shared.key.mac(&[user.as_bytes(), password.expose()]);
        let known = shared.users.get_key_value(user);
        let right =
            || known.filter(|(_, known)| known.right.load().as_ref().is_some_and(|right| right.is(&mac)));
        if let Some((name, _)) = right() {
            return Check::Right(Arc::clone(name));
        }
        let mut state = shared.lock();
        if state.wrong.known.contains(&mac) {
            return Check::Wrong;
        }
        // Its check may have ended before the lock was taken.
        if let Some((name, _)) = right() {
            return Check::Right(Arc::clone(name));
        }
        let whose = known.map(|(name, _)| Arc::clone(name));
        let name = whose.clone().unwrap_or_else(|| user.into());
        let ticket = Ticket::next();
        let waiter = (caller.core, ticket);
        if let Some(open) = state.open.get_mut(&mac) {
            if open.waiters.len() >= PASSWORD_WAITERS_MAX {
                return Check::Busy;
            }
            open.waiters.push(waiter);
            return Check::Pending(ticket, name);
        }
        let dropped = match state.queue.push(whose, caller.peer.map(network), mac) {
            Pushed::Waits => None,
            Pushed::InPlaceOf(other) => state.open.remove(&other),
            Pushed::Refused => return Check::Busy,
        };
        let open = Open { user: Arc::clone(&name), password: password.clone(), waiters: vec![waiter] };
        state.open.insert(mac, open);
        drop(state);
        shared.wake.notify_one();
        shared.tell(dropped, Verdict::Busy);
        Check::Pending(ticket, name)
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ends = true;
        let mut dropped = Vec::new();
        while let Some(mac) = state.queue.pop() {
            dropped.extend(state.open.remove(&mac));
        }
        drop(state);
        self.shared.wake.notify_all();
        self.shared.tell(dropped, Verdict::Busy);
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("users", &self.shared.names).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, checks: impl IntoIterator<Item = Open>, verdict: Verdict) {
        for (core, ticket) in checks.into_iter().flat_map(|open| open.waiters) {
            (self.deliver)(core, ticket, verdict);
        }
    }

    /// The life of a thread.
    fn work(&self) {
        // Without it, a flood of wrong passwords costs more CPU. It works all the same.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), BCRYPT_NICE);
        let mut state = self.lock();
        while !state.ends {
            let Some(mac) = state.queue.pop() else {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(open) = state.open.get(&mac) else { continue };
            let (user, password) = (Arc::clone(&open.user), open.password.clone());
            drop(state);
            let is_right = self.is_right(&user, &password);
            state = self.lock();
            self.remember(&mut state, &user, mac, is_right);
            let done = state.open.remove(&mac);
            drop(state);
            self.tell(done, if is_right { Verdict::Right } else { Verdict::Wrong });
            state = self.lock();
        }
    }

    /// Computes one hash, for unknown users as well.
    fn is_right(&self, user: &str, password: &Secret) -> bool {
        if let Some(user) = self.users.get(user) {
            return user.hash.matches(password.expose());
        }
        let other = self.key.mac(&[user.as_bytes()]).below(self.names.len());
        if let Some(other) = self.names.get(other).and_then(|name| self.users.get(name)) {
            std::hint::black_box(other.hash.matches(password.expose()));
        }
        false
    }

    fn remember(&self, state: &mut State, user: &str, mac: Mac, is_right: bool) {
        match self.users.get(user) {
            Some(user) if is_right => user.right.store(Some(Arc::new(mac))),
            _ => state.wrong.insert(mac),
        }
    }
}

/// The part of an address that tells peers apart: in IPv6, a host usually has 64 bits to choose its address from.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests;
