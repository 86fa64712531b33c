//! The world of a simulation: its clock, its sockets, and what happens in it by itself.
//!
//! Time stands still while anything can be done. When nothing can, it leaps to the next thing that is due. So an hour
//! of waiting costs nothing, and no work takes time.
//!
//! What the kernel finds ready is seen at once, a little later, or in another order: as a network would have it. All of
//! that comes from one seed, and each event goes into the trace. A seed that leaves the same trace has done the same.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use libc::epoll_event;

use crate::random::Random;

/// What the clock of the time since the machine's start shows at first.
pub(super) const BOOT: Duration = Duration::from_secs(1 << 20);

/// What the clock of dates shows at first: the 1st of January 2026.
pub(super) const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// Of the events, one in so many comes later than it could.
const LATE: u64 = 6;

/// How much later, at most.
const LATENCY_MAX: Duration = Duration::from_millis(40);

/// Of the reads and writes, one in so many is cut short.
const SHORT: u64 = 8;

/// What passes between two looks at what is ready, at most.
const STEP_MAX: Duration = Duration::from_micros(200);

thread_local! {
    /// Whether this thread simulates. It has no destructor, so it can be asked at any time.
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
    /// Nanoseconds since the start.
    static NOW: Cell<u64> = const { Cell::new(0) };
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Whether this thread is in a simulated world.
pub(super) fn is_simulated() -> bool {
    SIMULATED.get()
}

/// The time since the start.
pub(super) fn now() -> Duration {
    Duration::from_nanos(NOW.get())
}

/// Something that happens by itself.
type Deed = Box<dyn FnOnce()>;

/// Looks, when nothing else can be done, whether there is something to do; whether it was done.
type Watch = Rc<dyn Fn() -> bool>;

/// See the module.
pub(super) struct World {
    pub(super) random: Random,
    pub(super) sockets: Sockets,
    pub(super) trace: Trace,
    /// What is due, by time and number.
    agenda: BTreeMap<(Duration, u64), Due>,
    numbers: u64,
    watches: Vec<Watch>,
}

enum Due {
    Event(epoll_event),
    Deed(Deed),
}

impl World {
    /// Has this thread live in a new world. `shows` has each event of its trace printed.
    pub(super) fn begin(seed: u64, shows: bool) {
        let world = Self {
            random: Random::new(seed, 0x51),
            sockets: Sockets::default(),
            trace: Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, shows },
            agenda: BTreeMap::new(),
            numbers: 0,
            watches: Vec::new(),
        };
        WORLD.set(Some(world));
        NOW.set(0);
        SIMULATED.set(true);
    }

    /// Ends it, and returns it.
    pub(super) fn end() -> Option<Self> {
        SIMULATED.set(false);
        WORLD.take()
    }

    /// Does something with this thread's world. It must have one, and not be doing something with it.
    pub(super) fn with<T: Default>(work: impl FnOnce(&mut Self) -> T) -> T {
        WORLD.with_borrow_mut(|world| world.as_mut().map(work).unwrap_or_default())
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        let number = self.number();
        self.agenda.insert((now() + after, number), due);
    }

    /// Takes the first thing that is due by `time`.
    fn due(&mut self, time: Duration) -> Option<Due> {
        let first = self.agenda.first_entry()?;
        (first.key().0 <= time).then(|| first.remove())
    }

    /// Some of the events, in another order; the rest come later.
    fn shuffle(&mut self, mut events: Vec<epoll_event>) -> Vec<epoll_event> {
        self.random.shuffle(&mut events);
        let mut seen = Vec::new();
        for event in events {
            if self.random.below(LATE) == 0 {
                let after = LATENCY_MAX.mul_f64(self.random.unit());
                self.schedule(after, Due::Event(event));
            } else {
                seen.push(event);
            }
        }
        seen
    }
}

/// Has something happen after a time.
pub(super) fn after(time: Duration, deed: impl FnOnce() + 'static) {
    World::with(|world| world.schedule(time, Due::Deed(Box::new(deed))));
}

/// Has something looked at whenever nothing else can be done, before time passes.
pub(super) fn watch(look: impl Fn() -> bool + 'static) {
    World::with(|world| world.watches.push(Rc::new(look)));
}

/// Forgets what was to happen, what was watched, and all sockets: the process that had them is gone.
pub(super) fn forget() {
    let forgotten = World::with(|world| {
        world.sockets.open.clear();
        (std::mem::take(&mut world.agenda), std::mem::take(&mut world.watches))
    });
    // What these own may close sockets, of which this world must be told.
    drop(forgotten);
}

/// Notes an event.
pub(super) fn trace(event: fmt::Arguments<'_>) {
    World::with(|world| world.trace.note(event));
}

/// How many bytes of `length` a read or a write of a socket moves, at most: one at least, if there is one.
pub(super) fn cut(fd: c_int, length: usize) -> usize {
    World::with(|world| {
        if length > 1 && world.sockets.is_ours(fd) && world.random.below(SHORT) == 0 {
            return 1 + world.random.index(length.min(4_096));
        }
        length
    })
    .min(length)
}

/// Waits until something is ready, up to a time in milliseconds, or for ever. `poll` asks the kernel, without waiting,
/// for no more events than it is told. Neither returns more than there is `room` for.
pub(super) fn wait(
    room: usize,
    timeout: Option<u64>,
    poll: impl Fn(usize) -> Vec<epoll_event>,
) -> Vec<epoll_event> {
    let until = timeout.map_or(Duration::MAX, |timeout| now() + Duration::from_millis(timeout));
    loop {
        let ready = look(room, &poll);
        if !ready.is_empty() || timeout == Some(0) {
            pass(World::with(|world| STEP_MAX.mul_f64(world.random.unit())));
            return ready;
        }
        let watches = World::with(|world| world.watches.clone());
        if watches.iter().fold(false, |done, look| look() | done) {
            continue;
        }
        let next = World::with(|world| world.agenda.keys().next().map(|key| key.0));
        let next = next.unwrap_or(Duration::MAX).min(until);
        if next == Duration::MAX {
            // Nothing will ever happen. Whoever waits for it finds that a day has passed.
            pass(Duration::from_secs(86_400));
            return Vec::new();
        }
        pass(next.saturating_sub(now()));
        if next == until && !World::with(|world| world.agenda.keys().next().is_some_and(|key| key.0 <= next))
        {
            return Vec::new();
        }
    }
}

/// What is ready now, and what has come late. Deeds that are due are done.
fn look(room: usize, poll: impl Fn(usize) -> Vec<epoll_event>) -> Vec<epoll_event> {
    let mut ready = Vec::new();
    while ready.len() < room {
        match World::with(|world| world.due(now())) {
            Some(Due::Event(event)) => ready.push(event),
            Some(Due::Deed(deed)) => deed(),
            None => break,
        }
    }
    if ready.len() < room {
        let events = poll(room - ready.len());
        ready.extend(World::with(|world| world.shuffle(events)));
    }
    ready
}

fn pass(time: Duration) {
    NOW.set(NOW.get() + u64::try_from(time.as_nanos()).unwrap_or_default());
}

/// The sockets, and the address of each: where it listens, or its peer's.
#[derive(Default)]
pub(super) struct Sockets {
    open: BTreeMap<c_int, Option<SocketAddrV4>>,
    accepted: u32,
    /// Where nobody listens, for a while.
    refused: Vec<SocketAddr>,
}

impl Sockets {
    pub(super) fn opened(&mut self, fd: c_int) {
        self.open.insert(fd, None);
    }

    pub(super) fn names(&mut self, fd: c_int, address: SocketAddrV4) {
        self.open.insert(fd, Some(address));
    }

    /// Notes an accepted connection, and gives its peer an address.
    pub(super) fn accepted(&mut self, fd: c_int) -> SocketAddrV4 {
        self.accepted += 1;
        let port = 1_024 + (self.accepted % 60_000) as u16;
        let peer = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), port);
        self.open.insert(fd, Some(peer));
        peer
    }

    pub(super) fn duplicated(&mut self, fd: c_int, duplicate: c_int) {
        if let Some(address) = self.open.get(&fd) {
            self.open.insert(duplicate, *address);
        }
    }

    pub(super) fn closed(&mut self, fd: c_int) {
        self.open.remove(&fd);
    }

    pub(super) fn is_ours(&self, fd: c_int) -> bool {
        self.open.contains_key(&fd)
    }

    pub(super) fn address(&self, fd: c_int) -> Option<SocketAddrV4> {
        self.open.get(&fd).copied().flatten()
    }

    /// Has nobody listen at these addresses, and somebody at all others.
    pub(super) fn refuse(&mut self, addresses: &[SocketAddr]) {
        self.refused = addresses.to_vec();
    }

    pub(super) fn is_refused(&self, address: SocketAddrV4) -> bool {
        self.refused.contains(&SocketAddr::V4(address))
    }
}

/// What has happened, as a number that tells whether it was the same.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trace {
    hash: u64,
    events: u64,
    shows: bool,
}

impl Trace {
    fn note(&mut self, event: fmt::Arguments<'_>) {
        let line = format!("{:>12.6}  {event}", now().as_secs_f64());
        // FNV-1a.
        self.hash = line
            .bytes()
            .fold(self.hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        self.events += 1;
        if self.shows {
            eprintln!("{line}");
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events, {:016x}", self.events, self.hash)
    }
}
