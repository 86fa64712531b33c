//! A core's one place to send messages from and to receive them at.
//!
//! A message for the same core takes the same road as one for another, only that its road is a plain queue: so
//! ingest and egress need not know whether they meet on one core, and a fragment's way never nests into the
//! call that sent it.

pub mod fragment;
pub mod mailbox;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use self::fragment::Message;
use self::mailbox::{Mailbox, Post};

/// See the module.
#[derive(Debug)]
pub struct Exchange {
    core: usize,
    posts: Box<[Post<Message>]>,
    mailbox: Mailbox<Message>,
    local: RefCell<VecDeque<Message>>,
    receiver: RefCell<Option<Waker>>,
}

impl Exchange {
    /// The exchange of core number `core`, which reads `mailbox` and writes to `posts` (one for each core, its
    /// own included).
    pub fn new(core: usize, mailbox: Mailbox<Message>, posts: Box<[Post<Message>]>) -> Self {
        Self { core, posts, mailbox, local: RefCell::default(), receiver: RefCell::default() }
    }

    /// This core's number.
    pub fn core(&self) -> usize {
        self.core
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.posts.len()
    }

    /// Sends a message to a core. It always arrives, unless that core has ended. Whether that took a ring of its
    /// doorbell is returned (for the metrics).
    pub fn send(&self, core: usize, message: Message) -> bool {
        if core == self.core {
            self.local.borrow_mut().push_back(message);
            self.wake();
            return false;
        }
        self.posts.get(core).is_some_and(|post| post.post(message))
    }

    /// The next message. To be awaited by one task only.
    pub async fn receive(&self) -> Message {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Wakes the receiving task: what to do when the doorbell has rung.
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
    fn only_a_sleeping_core_is_rung_for() {
        let (zero, one) = two_cores();
        assert!(!zero.send(1, Message::Drain), "core 1 has never slept");
        assert!(poll(&one).is_ready());
        assert!(poll(&one).is_pending());
        assert!(zero.send(1, Message::Drain));
        assert!(!zero.send(1, Message::Drain), "one ring wakes it");
    }
}
