//! Deadlines for operations in flight: an operation is *cut short* and then awaited, never dropped.
//!
//! Design constraints, all from the ring (each was reproduced on monoio 0.2.4):
//! - A read that is dropped when its time is up loses the bytes it may just have received; a write that is dropped
//!   goes on sending; a runtime that is dropped with operations pending leaks their sockets. So whoever started an
//!   operation must await its end.
//! - A cancel handle for each operation costs two allocations and a timer. A core does tens of thousands of
//!   operations a second, of which none runs late.
//! - monoio has no cancelable form of `readable` or `connect`.
//!
//! Design: a socket whose time is up is shut down (`shutdown(2)`), by the sweeper of its core. The kernel then ends
//! whatever is pending on it, under io_uring as under epoll: a read or a poll finds the end of the stream, a write
//! fails with EPIPE, a connect fails. The task that awaits the operation goes on, asks its [`Watch`] whether it was
//! cut, and closes the socket. Setting a deadline stores a number; it costs no allocation, no timer, and no call.
//!
//! The sweeper looks at the earliest deadlines every [`SWEEP_MILLIS`]; with nothing to watch it sleeps for good.
//! Deadlines mostly move later, so the heap keeps one entry a socket and puts it back when it comes up early.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::limits::{DUE_SPARE_MAX, SWEEP_MILLIS};

/// What happens when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Reading ends, as if the peer had closed; an answer can still be written.
    Read,
    /// Both directions end.
    Both,
}

/// Whether a socket waits for nothing but its peer's next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It does not.
    No,
    /// For its first: the peer has just come, and most likely to say something.
    First,
    /// For another one.
    Next,
}

/// All deadlines of one core.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    state: Rc<State>,
}

#[derive(Debug, Default)]
struct State {
    table: RefCell<Table>,
    sweeper: RefCell<Option<Waker>>,
    ended: Cell<bool>,
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    vacant: Vec<usize>,
    /// Times at which to look at an entry: never later than its deadline, sometimes long before.
    due: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    watched: usize,
    next_key: u64,
}

#[derive(Debug)]
struct Entry {
    /// Unique over all time, so that an old `due` can't be taken for that of a new socket in the same place.
    key: u64,
    target: Target,
    deadline: Option<Instant>,
    /// The earliest time in `due` for this entry.
    look_at: Option<Instant>,
    cut: Cut,
    expired: bool,
    idle: Idle,
}

#[derive(Debug)]
enum Target {
    Socket(RawFd),
    Task(Option<Waker>),
    Vacant,
}

/// One socket's (or one waiting task's) place among the deadlines; taken out when dropped.
#[derive(Debug)]
pub struct Watch {
    deadlines: Deadlines,
    place: usize,
}

/// Cuts a watched socket at once, from wherever; does nothing once its [`Watch`] is gone.
#[derive(Clone, Debug)]
pub struct Cutter {
    deadlines: Deadlines,
    place: usize,
    key: u64,
}

impl Cutter {
    /// Ends both directions, as a deadline would that passes now.
    pub fn cut(&self) {
        self.deadlines.with(self.place, |entry| {
            if entry.key == self.key {
                entry.cut = Cut::Both;
                entry.fire();
            }
        });
    }
}

impl Deadlines {
    /// Watches a socket.
    ///
    /// # Safety
    /// `fd` must stay open until the watch has been dropped; otherwise a deadline shuts down whichever socket has got
    /// its number by then. A struct that owns both keeps this if it drops the watch first.
    pub unsafe fn watch_socket(&self, fd: RawFd) -> Watch {
        self.watch(Target::Socket(fd))
    }

    /// Watches a task that waits for something other than a socket; see [`Watch::wait`].
    pub fn watch_task(&self) -> Watch {
        self.watch(Target::Task(None))
    }

    /// Shuts down reading on every socket that is marked idle: what draining does to connections between two requests.
    /// One whose first request has not come yet has time for it until `first_until`. A request that has arrived already
    /// is still read, as the kernel keeps what it has received.
    pub fn cut_idle(&self, first_until: Instant) {
        let mut table = self.state.table.borrow_mut();
        for place in 0..table.entries.len() {
            let Some(entry) = table.entries.get_mut(place) else { continue };
            match entry.idle {
                Idle::No => {}
                Idle::First => table.set(place, first_until, Cut::Read),
                Idle::Next => {
                    entry.cut = Cut::Read;
                    entry.fire();
                }
            }
        }
    }

    /// The sweeper: one task a core, which ends after [`end`](Self::end). `look` is called each time that it has
    /// looked.
    pub async fn sweep(&self, look: impl Fn(Instant)) {
        while !self.state.ended.get() {
            self.something_to_watch().await;
            monoio::time::sleep(Duration::from_millis(SWEEP_MILLIS)).await;
            let now = Instant::now();
            self.state.table.borrow_mut().fire_due(now);
            look(now);
        }
    }

    /// Ends the sweeper. To be called when all tasks with deadlines have ended.
    pub fn end(&self) {
        self.state.ended.set(true);
        self.wake_sweeper();
    }

    async fn something_to_watch(&self) {
        poll_fn(|cx| {
            if self.state.ended.get() || self.state.table.borrow().watched > 0 {
                return Poll::Ready(());
            }
            *self.state.sweeper.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn wake_sweeper(&self) {
        if let Some(waker) = self.state.sweeper.take() {
            waker.wake();
        }
    }

    fn watch(&self, target: Target) -> Watch {
        let mut table = self.state.table.borrow_mut();
        let place = table.insert(target);
        drop(table);
        self.wake_sweeper();
        Watch { deadlines: self.clone(), place }
    }

    fn with<R>(&self, place: usize, f: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.state.table.borrow_mut().entries.get_mut(place).map(f)
    }
}

impl Watch {
    /// From now on the deadline is `at`.
    pub fn set(&self, at: Instant, cut: Cut) {
        self.deadlines.state.table.borrow_mut().set(self.place, at, cut);
    }

    /// From now on there is no deadline.
    pub fn clear(&self) {
        self.deadlines.with(self.place, |e| e.deadline = None);
    }

    /// A handle by which others can cut it.
    pub fn cutter(&self) -> Cutter {
        let key = self.deadlines.with(self.place, |entry| entry.key).unwrap_or_default();
        Cutter { deadlines: self.deadlines.clone(), place: self.place, key }
    }

    /// Whether a deadline has passed and the socket was shut down for it.
    pub fn expired(&self) -> bool {
        self.deadlines.with(self.place, |e| e.expired).unwrap_or(false)
    }

    /// Marks the socket as waiting for nothing but its peer's next request: [`Deadlines::cut_idle`] may end it.
    pub fn set_idle(&self, idle: Idle) {
        self.deadlines.with(self.place, |e| e.idle = idle);
    }

    /// Waits until `ready` says so, or until the deadline: true when ready. Whoever makes it ready calls the
    /// waker that `ready` was given.
    pub async fn wait(&self, mut ready: impl FnMut(&Waker) -> bool) -> bool {
        poll_fn(|cx| {
            if ready(cx.waker()) {
                return Poll::Ready(true);
            }
            if self.expired() {
                return Poll::Ready(false);
            }
            self.deadlines.with(self.place, |e| e.target = Target::Task(Some(cx.waker().clone())));
            Poll::Pending
        })
        .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.deadlines.state.table.borrow_mut().remove(self.place);
    }
}

impl Table {
    fn insert(&mut self, target: Target) -> usize {
        self.next_key += 1;
        self.watched += 1;
        let entry = Entry {
            key: self.next_key,
            target,
            deadline: None,
            look_at: None,
            cut: Cut::Both,
            expired: false,
            idle: Idle::No,
        };
        match self.vacant.pop() {
            Some(place) => {
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    fn remove(&mut self, place: usize) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        (entry.target, entry.deadline, entry.idle) = (Target::Vacant, None, Idle::No);
        self.vacant.push(place);
        self.watched -= 1;
        if self.watched == 0 {
            // Nothing refers to what is left: old looks of sockets that are gone.
            self.due.clear();
        }
    }

    fn set(&mut self, place: usize, at: Instant, cut: Cut) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        (entry.deadline, entry.cut) = (Some(at), cut);
        if entry.look_at.is_none_or(|earliest| at < earliest) {
            entry.look_at = Some(at);
            self.due.push(Reverse((at, place, entry.key)));
            self.forget_old_looks();
        }
    }

    /// A deadline that moves earlier leaves its later look behind: these must not pile up until their time.
    fn forget_old_looks(&mut self) {
        if self.due.len() > 2 * self.watched + DUE_SPARE_MAX {
            let entries = &self.entries;
            self.due.retain(|Reverse((at, place, key))| {
                entries.get(*place).is_some_and(|entry| entry.key == *key && entry.look_at == Some(*at))
            });
        }
    }

    fn fire_due(&mut self, now: Instant) {
        while let Some(&Reverse((at, place, key))) = self.due.peek() {
            if at > now {
                return;
            }
            self.due.pop();
            let Some(entry) = self.entries.get_mut(place).filter(|e| e.key == key && e.look_at == Some(at))
            else {
                continue;
            };
            entry.look_at = None;
            match entry.deadline {
                Some(deadline) if deadline <= now => entry.fire(),
                Some(later) => {
                    entry.look_at = Some(later);
                    self.due.push(Reverse((later, place, key)));
                }
                None => {}
            }
        }
    }
}

impl Entry {
    fn fire(&mut self) {
        self.deadline = None;
        self.expired = true;
        match &mut self.target {
            Target::Socket(fd) => {
                let how = match self.cut {
                    Cut::Read => rustix::net::Shutdown::Read,
                    Cut::Both => rustix::net::Shutdown::Both,
                };
                // SAFETY: the descriptor is open: its owner drops the watch, which makes this entry vacant,
                // before it closes the socket (`Stream` declares them in this order), all on this thread.
                let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
                // Fails only when the peer has gone, and then nothing is pending any more.
                let _ = rustix::net::shutdown(fd, how);
            }
            Target::Task(waker) => {
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
            }
            Target::Vacant => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_deadline_fires_once_it_has_passed_and_not_before() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let watch = deadlines.watch_task();
        watch.set(after(start, 100), Cut::Both);
        deadlines.state.table.borrow_mut().fire_due(after(start, 99));
        assert!(!watch.expired());
        deadlines.state.table.borrow_mut().fire_due(after(start, 100));
        assert!(watch.expired());
    }

    #[test]
    fn a_deadline_that_moved_later_does_not_fire_at_its_old_time() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let watch = deadlines.watch_task();
        watch.set(after(start, 100), Cut::Both);
        watch.set(after(start, 300), Cut::Both);
        deadlines.state.table.borrow_mut().fire_due(after(start, 200));
        assert!(!watch.expired());
        deadlines.state.table.borrow_mut().fire_due(after(start, 300));
        assert!(watch.expired());
    }

    #[test]
    fn a_deadline_that_moved_earlier_fires_early() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let watch = deadlines.watch_task();
        watch.set(after(start, 60_000), Cut::Read);
        watch.set(after(start, 100), Cut::Read);
        deadlines.state.table.borrow_mut().fire_due(after(start, 100));
        assert!(watch.expired());
    }

    #[test]
    fn a_cleared_deadline_and_a_dropped_watch_never_fire() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let cleared = deadlines.watch_task();
        cleared.set(after(start, 100), Cut::Both);
        cleared.clear();
        let dropped = deadlines.watch_task();
        dropped.set(after(start, 100), Cut::Both);
        drop(dropped);
        let newcomer = deadlines.watch_task();
        deadlines.state.table.borrow_mut().fire_due(after(start, 100));
        assert!(!cleared.expired());
        assert!(!newcomer.expired(), "it stands where the dropped one stood, but it is another");
    }

    #[test]
    fn a_cutter_cuts_at_once_and_nobody_but_its_own() {
        let deadlines = Deadlines::default();
        let watch = deadlines.watch_task();
        let cutter = watch.cutter();
        cutter.cut();
        assert!(watch.expired());
        drop(watch);
        let newcomer = deadlines.watch_task();
        cutter.cut();
        assert!(!newcomer.expired(), "it stands where the other one stood");
    }

    #[test]
    fn moving_a_deadline_to_and_fro_piles_nothing_up() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let watch = deadlines.watch_task();
        for round in 0..100_000 {
            watch.set(after(start, 1_000_000 - round), Cut::Read);
        }
        assert!(deadlines.state.table.borrow().due.len() <= 2 + DUE_SPARE_MAX);
        deadlines.state.table.borrow_mut().fire_due(after(start, 900_001));
        assert!(watch.expired(), "the one that holds is kept");
    }

    #[test]
    fn moving_a_deadline_later_a_thousand_times_keeps_one_entry() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let watch = deadlines.watch_task();
        (0..1_000).for_each(|i| watch.set(after(start, 100 + i), Cut::Read));
        assert_eq!(deadlines.state.table.borrow().due.len(), 1);
    }
}
