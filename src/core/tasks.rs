//! The tasks of one core, counted, so that its thread ends only when all of them have.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

/// A group of tasks that can be awaited together. monoio drops what is pending when its runtime ends, which leaks
/// sockets; so nothing is spawned but through here.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    running: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl Tasks {
    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.shared.running.set(self.shared.running.get() + 1);
        drop(monoio::spawn(Counted { task, tasks: self.clone() }));
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.shared.running.get()
    }

    /// Waits until none runs.
    pub async fn join(&self) {
        poll_fn(|cx| {
            if self.running() == 0 {
                return Poll::Ready(());
            }
            self.shared.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn ended(&self) {
        self.shared.running.set(self.running() - 1);
        if self.running() == 0 {
            self.shared.waiting.take().into_iter().for_each(Waker::wake);
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

/// Lets the other tasks of this core have a turn, and the ring its submissions, before going on.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
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
