//! Deadlines for operations in flight: an operation is *cut short* and then awaited, never dropped.
//!
//! Design constraints, all from the ring (each was reproduced on monoio 0.2.4):
//! - A read that is dropped at its deadline loses the bytes it may just have received. A write that is dropped goes on
//!   sending. A runtime that is dropped with operations pending leaks their sockets. So a task must await every
//!   operation that it has started.
//! - A cancel handle per operation costs two allocations and a timer. A core runs tens of thousands of operations a
//!   second, and almost none runs late.
//! - monoio has no cancelable form of `readable` or `connect`.
//!
//! Design: when the deadline of a socket passes, the sweeper of its core shuts it down (`shutdown(2)`). The kernel then
//! ends whatever is pending on it, under io_uring as under epoll: a read or a poll finds the end of the stream, a write
//! fails with EPIPE, a connect fails. The task that awaits the operation continues, asks its [`Watch`] whether the
//! socket was cut, and closes it. Setting a deadline stores a number: no allocation, no timer, no system call.
//!
//! The sweeper checks the earliest deadlines every [`SWEEP_MILLIS`]; with nothing to watch it sleeps indefinitely.
//! Deadlines mostly move later, so the heap keeps one entry per socket and reinserts it if it comes up too early.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::limits::{DUE_SPARE_MAX, SWEEP_MILLIS};

/// The directions of a socket that end when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Reading ends, as if the peer had closed. An answer can still be written.
    Read,
    /// Both directions end.
    Both,
}

/// Whether a socket is idle, that is, waits only for its peer's next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It is not idle.
    No,
    /// It waits for its first request, which is likely to come soon after the connect.
    First,
    /// It waits for a further request.
    Next,
}

/// The deadlines of one core.
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
    /// Times at which to check an entry: never later than its deadline, sometimes long before.
    due: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    watched: usize,
    next_key: u64,
}

#[derive(Debug)]
struct Entry {
    /// Never reused, so that an old `due` can't match a new socket in the same slot.
    key: u64,
    target: Target,
    deadline: Option<Instant>,
    /// The earliest time in `due` for this entry.
    check_at: Option<Instant>,
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

/// The registration of a socket, or of a waiting task. Dropping it removes its deadline.
#[derive(Debug)]
pub struct Watch {
    deadlines: Deadlines,
    slot: usize,
}

/// Cuts a watched socket at once. Does nothing once its [`Watch`] has been dropped.
#[derive(Clone, Debug)]
pub struct Cutter {
    deadlines: Deadlines,
    slot: usize,
    key: u64,
}

impl Cutter {
    /// Whether the socket was cut, or is gone.
    pub fn is_cut(&self) -> bool {
        self.deadlines.with(self.slot, |entry| entry.key != self.key || entry.expired).unwrap_or(true)
    }

    /// Ends both directions, as a deadline that passes now would.
    pub fn cut(&self) {
        self.deadlines.with(self.slot, |entry| {
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
    /// `fd` must stay open until the watch has been dropped. Otherwise a deadline could shut down an unrelated socket
    /// that has reused the descriptor's number. A struct that owns both meets this if it drops the watch first.
    pub unsafe fn watch_socket(&self, fd: RawFd) -> Watch {
        self.watch(Target::Socket(fd))
    }

    /// Watches a task that waits for something other than a socket; see [`Watch::wait`].
    pub fn watch_task(&self) -> Watch {
        self.watch(Target::Task(None))
    }

    /// Shuts down reading on every idle socket, to drain connections between two requests. A socket that waits for its
    /// first request keeps waiting until `first_until`. A request that has already arrived is still read, as the kernel
    /// keeps received data.
    pub fn cut_idle(&self, first_until: Instant) {
        let mut table = self.state.table.borrow_mut();
        for slot in 0..table.entries.len() {
            let Some(entry) = table.entries.get_mut(slot) else { continue };
            match entry.idle {
                Idle::No => {}
                Idle::First => table.set(slot, first_until, Cut::Read),
                Idle::Next => {
                    entry.cut = Cut::Read;
                    entry.fire();
                }
            }
        }
    }

    /// Runs the sweeper, one task per core, until [`end`](Self::end) is called. It calls `after_sweep` after each
    /// sweep.
    pub async fn sweep(&self, after_sweep: impl Fn(Instant)) {
        self.sweep_timed(|_| (), after_sweep).await;
    }

    /// Like [`sweep`](Self::sweep). Before each sweep it tells `due` when that is due, and `None` as long as there is
    /// nothing to watch. How late the sweep then is tells for how long the core did not turn.
    pub async fn sweep_timed(&self, due: impl Fn(Option<Instant>), after_sweep: impl Fn(Instant)) {
        while !self.state.ended.get() {
            due(None);
            self.something_to_watch().await;
            let at = Instant::now() + Duration::from_millis(SWEEP_MILLIS);
            due(Some(at));
            monoio::time::sleep_until(at.into()).await;
            let now = Instant::now();
            self.state.table.borrow_mut().fire_due(now);
            after_sweep(now);
        }
        due(None);
    }

    /// Ends the sweeper. Call it once all tasks with deadlines have ended.
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
        let slot = table.insert(target);
        drop(table);
        self.wake_sweeper();
        Watch { deadlines: self.clone(), slot }
    }

    fn with<R>(&self, slot: usize, f: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.state.table.borrow_mut().entries.get_mut(slot).map(f)
    }
}

impl Watch {
    /// Sets the deadline to `at`.
    pub fn set(&self, at: Instant, cut: Cut) {
        self.deadlines.state.table.borrow_mut().set(self.slot, at, cut);
    }

    /// Removes the deadline.
    pub fn clear(&self) {
        self.deadlines.with(self.slot, |e| e.deadline = None);
    }

    /// Returns a handle that can cut the socket without owning it.
    pub fn cutter(&self) -> Cutter {
        let key = self.deadlines.with(self.slot, |entry| entry.key).unwrap_or_default();
        Cutter { deadlines: self.deadlines.clone(), slot: self.slot, key }
    }

    /// Whether the deadline has passed, or a [`Cutter`] or draining has cut the socket.
    pub fn expired(&self) -> bool {
        self.deadlines.with(self.slot, |e| e.expired).unwrap_or(false)
    }

    /// Marks the socket as idle or not. [`Deadlines::cut_idle`] ends idle sockets.
    pub fn set_idle(&self, idle: Idle) {
        self.deadlines.with(self.slot, |e| e.idle = idle);
    }

    /// Waits until `ready` returns true, or until the deadline. Returns whether it is ready. The code that makes it
    /// ready must call the waker that `ready` was given.
    pub async fn wait(&self, mut ready: impl FnMut(&Waker) -> bool) -> bool {
        poll_fn(|cx| {
            if ready(cx.waker()) {
                return Poll::Ready(true);
            }
            if self.expired() {
                return Poll::Ready(false);
            }
            self.deadlines.with(self.slot, |e| e.target = Target::Task(Some(cx.waker().clone())));
            Poll::Pending
        })
        .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.deadlines.state.table.borrow_mut().remove(self.slot);
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
            check_at: None,
            cut: Cut::Both,
            expired: false,
            idle: Idle::No,
        };
        match self.vacant.pop() {
            Some(slot) => {
                self.entries[slot] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    fn remove(&mut self, slot: usize) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        (entry.target, entry.deadline, entry.idle) = (Target::Vacant, None, Idle::No);
        self.vacant.push(slot);
        self.watched -= 1;
        if self.watched == 0 {
            // All remaining checks are stale: their sockets are gone.
            self.due.clear();
        }
    }

    fn set(&mut self, slot: usize, at: Instant, cut: Cut) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        (entry.deadline, entry.cut) = (Some(at), cut);
        if entry.check_at.is_none_or(|earliest| at < earliest) {
            entry.check_at = Some(at);
            self.due.push(Reverse((at, slot, entry.key)));
            self.drop_stale_checks();
        }
    }

    /// Drops stale checks. A deadline that moves earlier leaves its later check behind; these must not pile up.
    fn drop_stale_checks(&mut self) {
        if self.due.len() > 2 * self.watched + DUE_SPARE_MAX {
            let entries = &self.entries;
            self.due.retain(|Reverse((at, slot, key))| {
                entries.get(*slot).is_some_and(|entry| entry.key == *key && entry.check_at == Some(*at))
            });
        }
    }

    fn fire_due(&mut self, now: Instant) {
        while let Some(&Reverse((at, slot, key))) = self.due.peek() {
            if at > now {
                return;
            }
            self.due.pop();
            let Some(entry) = self.entries.get_mut(slot).filter(|e| e.key == key && e.check_at == Some(at))
            else {
                continue;
            };
            entry.check_at = None;
            match entry.deadline {
                Some(deadline) if deadline <= now => entry.fire(),
                Some(later) => {
                    entry.check_at = Some(later);
                    self.due.push(Reverse((later, slot, key)));
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
                // SAFETY: the descriptor is open. Its owner drops the watch, which vacates this entry, before it closes
                // the socket (`Stream` declares them in this order), all on this thread.
                let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
                // Fails only if the peer has disconnected, and then nothing is pending any more.
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
    fn a_deadline_fires_when_it_has_passed_and_not_before() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let watch = deadlines.watch_task();
        watch.set(after(start, 100), Cut::Both);
        deadlines.state.table.borrow_mut().fire_due(after(start, 99));
        assert!(!watch.expired());
        deadlines.state.table.borrow_mut().fire_due(after(start, 100));
        assert!(watch.expired());
    }

    #[test]
    fn a_deadline_moved_later_does_not_fire_at_its_old_time() {
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
    fn a_deadline_moved_earlier_fires_at_its_new_time() {
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
        assert!(!newcomer.expired(), "it reuses the dropped one's slot");
    }

    #[test]
    fn a_cutter_cuts_at_once_and_only_its_own_watch() {
        let deadlines = Deadlines::default();
        let watch = deadlines.watch_task();
        let cutter = watch.cutter();
        assert!(!cutter.is_cut());
        cutter.cut();
        assert!(watch.expired() && cutter.is_cut());
        drop(watch);
        let newcomer = deadlines.watch_task();
        cutter.cut();
        assert!(!newcomer.expired(), "it reuses the other one's slot");
    }

    #[test]
    fn moving_a_deadline_earlier_many_times_keeps_few_entries() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let watch = deadlines.watch_task();
        for round in 0..100_000 {
            watch.set(after(start, 1_000_000 - round), Cut::Read);
        }
        assert!(deadlines.state.table.borrow().due.len() <= 2 + DUE_SPARE_MAX);
        deadlines.state.table.borrow_mut().fire_due(after(start, 900_001));
        assert!(watch.expired(), "the current check is kept");
    }

    #[test]
    fn moving_a_deadline_later_a_thousand_times_keeps_one_entry() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let watch = deadlines.watch_task();
        (0..1_000).for_each(|i| watch.set(after(start, 100 + i), Cut::Read));
        assert_eq!(deadlines.state.table.borrow().due.len(), 1);
    }
}
