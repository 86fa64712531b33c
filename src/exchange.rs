//! The exchange: a core sends and receives all its messages here.
//!
//! Messages to the same core take the same path, through a plain queue. So ingest and egress need not know whether they
//! share a core, and handling a fragment never nests inside the call that sent it.

pub mod fragment;
pub mod inquiry;
pub mod mailbox;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use self::fragment::Message;
use self::mailbox::{Mailbox, Post};

/// The exchange of one core; see the module.
#[derive(Debug)]
pub struct Exchange {
    core: usize,
    posts: Box<[Post<Message>]>,
    mailbox: Mailbox<Message>,
    local: RefCell<VecDeque<Message>>,
    receiver: RefCell<Option<Waker>>,
}

impl Exchange {
    /// Creates the exchange of core `core`, which receives from `mailbox` and sends to `posts` (one for each core, its
    /// own included).
    pub fn new(core: usize, mailbox: Mailbox<Message>, posts: Box<[Post<Message>]>) -> Self {
        Self { core, posts, mailbox, local: RefCell::default(), receiver: RefCell::default() }
    }

    /// Returns this core's number.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Returns the number of cores.
    pub fn cores(&self) -> usize {
        self.posts.len()
    }

    /// Sends a message to a core. It always arrives, unless that core has ended. Returns whether the core's doorbell
    /// was rung (for the metrics).
    pub fn send(&self, core: usize, message: Message) -> bool {
        if core == self.core {
            self.local.borrow_mut().push_back(message);
            self.wake();
            return false;
        }
        self.posts.get(core).is_some_and(|post| post.post(message))
    }

    /// Waits for the next message. Only one task may wait at a time.
    pub async fn receive(&self) -> Message {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Wakes the receiving task. Call it when the doorbell has rung.
    pub fn wake(&self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Message> {
        self.mailbox.wake_up();
        let local = self.local.borrow_mut().pop_front();
        if let Some(message) = local.or_else(|| self.mailbox.take()).or_else(|| self.mailbox.fall_asleep()) {
            return Poll::Ready(message);
        }
        *self.receiver.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn two_cores() -> (Exchange, Exchange) {
        let (box0, post0, _) = Mailbox::new().unwrap();
        let (box1, post1, _) = Mailbox::new().unwrap();
        let posts: Box<[_]> = [post0, post1].into();
        (Exchange::new(0, box0, posts.clone()), Exchange::new(1, box1, posts))
    }

    fn poll(exchange: &Exchange) -> Poll<Message> {
        pin!(exchange.receive()).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_message_reaches_the_same_core_and_another() {
        let (zero, one) = two_cores();
        zero.send(0, Message::Drain);
        zero.send(1, Message::Stop);
        assert!(matches!(poll(&zero), Poll::Ready(Message::Drain)));
        assert!(matches!(poll(&one), Poll::Ready(Message::Stop)));
        assert!(poll(&zero).is_pending() && poll(&one).is_pending());
    }

    #[test]
    fn only_a_sleeping_core_is_rung() {
        let (zero, one) = two_cores();
        assert!(!zero.send(1, Message::Drain), "core 1 has never slept");
        assert!(poll(&one).is_ready());
        assert!(poll(&one).is_pending());
        assert!(zero.send(1, Message::Drain));
        assert!(!zero.send(1, Message::Drain), "one ring wakes it");
    }
}
