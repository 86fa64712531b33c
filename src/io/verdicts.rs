//! Requests that wait for the verdict about a password.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::auth::{Ticket, Verdict};

/// The verdicts that one thread waits for.
#[derive(Debug, Default)]
pub struct Verdicts {
    waiting: RefCell<HashMap<Ticket, Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    verdict: Option<Verdict>,
    waker: Option<Waker>,
}

/// Removes its entry when the request no longer waits.
struct Entry<'a> {
    verdicts: &'a Verdicts,
    ticket: Ticket,
}

impl Verdicts {
    /// Waits for the verdict for `ticket`; [`Verdict::Busy`] if it does not come in time. Call this before the thread
    /// handles its next message: it would not keep a verdict that nothing waits for.
    pub async fn wait(&self, ticket: Ticket, timeout: Duration) -> Verdict {
        self.waiting.borrow_mut().insert(ticket, Waiting::default());
        let entry = Entry { verdicts: self, ticket };
        let verdict = poll_fn(|cx| {
            let mut waiting = self.waiting.borrow_mut();
            let Some(entry) = waiting.get_mut(&ticket) else { return Poll::Ready(Verdict::Busy) };
            match entry.verdict {
                Some(verdict) => Poll::Ready(verdict),
                None => {
                    entry.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        #[expect(clippy::disallowed_methods, reason = "nothing of it is in the kernel, so it may be dropped")]
        let verdict = monoio::time::timeout(timeout, verdict).await.unwrap_or(Verdict::Busy);
        drop(entry);
        verdict
    }

    /// Delivers a verdict.
    pub fn deliver(&self, ticket: Ticket, verdict: Verdict) {
        if let Some(waiting) = self.waiting.borrow_mut().get_mut(&ticket) {
            waiting.verdict = Some(verdict);
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.verdicts.waiting.borrow_mut().remove(&self.ticket);
    }
}
