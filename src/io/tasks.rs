//! Groups of tasks on one core: counted, so that the core's thread ends only after all of them, and fair to each
//! other's I/O.
//!
//! A core polls its sockets and timers only while no task is ready to run. A task that yields by waking itself stays
//! ready, so no socket is polled. Therefore tasks with much CPU work report how many bytes they processed, and past a
//! limit all of them wait for a timer ([`Tasks::yield_if_busy`]).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::limits::{TURN_BYTES_MAX, TURN_MILLIS};

/// A group of tasks that can be awaited together. monoio drops pending tasks when its runtime ends, which leaks
/// sockets, so every task is spawned through this type.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    state: Rc<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
    /// Bytes that were processed since the core last polled its sockets, or for slightly longer.
    worked: Rc<Cell<usize>>,
}

impl Tasks {
    /// Creates another group on the same core. The work of both counts together.
    #[must_use]
    pub fn another(&self) -> Self {
        let worked = Rc::clone(&self.state.worked);
        Self { state: Rc::new(State { worked, ..State::default() }) }
    }

    /// Spawns a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.state.running.set(self.state.running.get() + 1);
        drop(monoio::spawn(Counted { task, tasks: self.clone() }));
    }

    /// Returns the number of running tasks.
    pub fn running(&self) -> usize {
        self.state.running.get()
    }

    /// Waits until no task of the group is running.
    pub async fn join(&self) {
        poll_fn(|cx| {
            if self.running() == 0 {
                return Poll::Ready(());
            }
            self.state.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Records that `bytes` were inflated, scanned or compressed.
    pub fn record_work(&self, bytes: usize) {
        let before = self.state.worked.get();
        self.state.worked.set(before.saturating_add(bytes));
        if before == 0 && bytes > 0 {
            let tasks = self.clone();
            self.spawn(async move {
                pause().await;
                tasks.state.worked.set(0);
            });
        }
    }

    /// Whether much CPU work was done without polling sockets.
    pub fn are_busy(&self) -> bool {
        self.state.worked.get() >= TURN_BYTES_MAX
    }

    /// Waits for this task's turn to do more CPU work. Returns at once unless much was done without polling sockets.
    pub async fn yield_if_busy(&self) {
        while self.are_busy() {
            pause().await;
        }
    }

    fn ended(&self) {
        self.state.running.set(self.running() - 1);
        if self.running() == 0 {
            self.state.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

pin_project! {
    /// A task that reports its end. An `async` block around it would take twice the task's size: once for the captured
    /// future and once for the awaited one.
    struct Counted<F> {
        #[pin]
        task: F,
        tasks: Tasks,
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let poll = this.task.poll(cx);
        if poll.is_ready() {
            this.tasks.ended();
        }
        poll
    }
}

/// Yields for the shortest time that a timer can wait, so that the core polls its sockets.
pub async fn pause() {
    // Boxed, as this is rare, and a timer is larger than the rest of a connection's state.
    Box::pin(monoio::time::sleep(Duration::from_millis(TURN_MILLIS))).await;
}

/// Awaits `future`, and also returns whether it was ever pending. If it never was, it has not yielded: under epoll, an
/// operation that can complete at once never does. A peer that always has data for us, or always has room for ours,
/// would then keep the core from all other tasks.
pub async fn poll_noting_wait<F: Future>(future: F) -> (F::Output, bool) {
    let mut future = pin!(future);
    let mut waited = false;
    let output = poll_fn(|cx| {
        let poll = future.as_mut().poll(cx);
        waited |= poll.is_pending();
        poll
    })
    .await;
    (output, waited)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Two tasks with CPU work and one with a timer: the work must not delay the timer.
    #[test]
    fn tasks_with_much_work_let_the_core_poll_timers_and_sockets() {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap().block_on(
            async {
                let (tasks, done, seen) = (Tasks::default(), Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
                for _ in 0..2 {
                    let (worker, done) = (tasks.clone(), Rc::clone(&done));
                    tasks.spawn(async move {
                        for _ in 0..10 {
                            worker.yield_if_busy().await;
                            worker.record_work(TURN_BYTES_MAX);
                            done.set(done.get() + 1);
                        }
                    });
                }
                let (watch, finds) = (Rc::clone(&done), Rc::clone(&seen));
                tasks.spawn(async move {
                    pause().await;
                    finds.set(Some(watch.get()));
                });
                tasks.join().await;
                assert_eq!(done.get(), 20);
                let seen = seen.get().unwrap();
                assert!(seen <= 2, "{seen} pieces of work were done before a timer fired");
            },
        );
    }

    #[test]
    fn groups_of_one_core_are_busy_together_and_joined_apart() {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap().block_on(
            async {
                let tasks = Tasks::default();
                let another = tasks.another();
                another.record_work(TURN_BYTES_MAX);
                assert!(tasks.are_busy() && !Tasks::default().are_busy());
                assert_eq!((tasks.running(), another.running()), (0, 1));
                tasks.yield_if_busy().await;
                another.join().await;
                assert!(!another.are_busy());
            },
        );
    }

    #[test]
    fn tasks_with_little_work_never_wait() {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap().block_on(
            async {
                let (tasks, begun) = (Tasks::default(), Instant::now());
                for _ in 0..7 {
                    let mut turn = pin!(tasks.yield_if_busy());
                    let polled = poll_fn(|cx| Poll::Ready(turn.as_mut().poll(cx))).await;
                    assert!(polled.is_ready(), "after {:?}", begun.elapsed());
                    tasks.record_work(TURN_BYTES_MAX / 8);
                }
                tasks.join().await;
            },
        );
    }
}
