//! The tasks of one core, counted, so that its thread ends only when all of them have; and the turns that they leave to
//! each other.
//!
//! A core looks at its sockets and timers only while no task is ready to run. A task that wakes itself is: giving
//! others a turn like that lets no other connection in. So whoever has much to do says how much he has done, and past
//! a bound all of them wait for a timer ([`Tasks::turn`]).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::limits::{TURN_BYTES_MAX, TURN_MILLIS};

/// A group of tasks that can be awaited together. monoio drops what is pending when its runtime ends, which leaks
/// sockets; so nothing is spawned but through here.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    state: Rc<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
    /// Bytes that were worked on since sockets were looked at, or a moment longer.
    worked: Cell<usize>,
}

impl Tasks {
    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.state.running.set(self.state.running.get() + 1);
        drop(monoio::spawn(Counted { task, tasks: self.clone() }));
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.state.running.get()
    }

    /// Waits until none runs.
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

    /// So many bytes were inflated, scanned or deflated.
    pub fn has_worked_on(&self, bytes: usize) {
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

    /// Waits until there is time for more work on this core: at once, unless much has been done in one go.
    pub async fn turn(&self) {
        while self.state.worked.get() >= TURN_BYTES_MAX {
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
    /// A task that says when it has ended. Not an `async` block around it, which would take twice its size: once as
    /// what was captured and once as what is awaited.
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

/// Leaves this core to others for the least that a timer can wait: sockets are looked at meanwhile.
pub async fn pause() {
    // Boxed, as hardly anybody ever gets here, and a timer is larger than all the rest of a connection.
    Box::pin(monoio::time::sleep(Duration::from_millis(TURN_MILLIS))).await;
}

/// Awaits `future`, and tells whether it ever had to wait. One that had not kept its core to itself: under epoll an
/// operation that can be done at once is, so that a peer who always has something to read for us, or room for what
/// we write, would never let anybody else have a turn.
pub async fn tell_whether_waiting<F: Future>(future: F) -> (F::Output, bool) {
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

    /// A core's work, in pieces, and a timer: whoever works must not keep the other from its turn.
    #[test]
    fn who_has_much_to_do_lets_the_core_look_at_timers_and_sockets() {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap().block_on(
            async {
                let (tasks, done, seen) = (Tasks::default(), Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
                for _ in 0..2 {
                    let (worker, done) = (tasks.clone(), Rc::clone(&done));
                    tasks.spawn(async move {
                        for _ in 0..10 {
                            worker.turn().await;
                            worker.has_worked_on(TURN_BYTES_MAX);
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
                assert!(seen <= 2, "{seen} pieces of work were done before a timer was looked at");
            },
        );
    }

    #[test]
    fn who_has_little_to_do_never_waits() {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap().block_on(
            async {
                let (tasks, begun) = (Tasks::default(), Instant::now());
                for _ in 0..7 {
                    let mut turn = pin!(tasks.turn());
                    let polled = poll_fn(|cx| Poll::Ready(turn.as_mut().poll(cx))).await;
                    assert!(polled.is_ready(), "after {:?}", begun.elapsed());
                    tasks.has_worked_on(TURN_BYTES_MAX / 8);
                }
                tasks.join().await;
            },
        );
    }
}
