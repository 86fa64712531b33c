//! The exchange: a core sends and receives all its messages here.
//!
//! Messages to the same core take the same path, through a plain queue. So ingest and egress need not know whether they
//! share a core, and handling a fragment never nests inside the call that sent it.
//!
//! A core that is rung for the first of many messages handles it, sleeps again, and is rung for the second. So code
//! that sends many pushes all of them, and rings once.

pub mod fragment;
pub mod inquiry;
pub mod mailbox;

use std::cell::{Cell, RefCell};
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
    /// For each core, whether it was sent messages since it was rung last.
    unannounced: Box<[Cell<bool>]>,
    mailbox: Mailbox<Message>,
    local: RefCell<VecDeque<Message>>,
    receiver: RefCell<Option<Waker>>,
}

impl Exchange {
    /// Creates the exchange of core `core`, which receives from `mailbox` and sends to `posts` (one for each core, its
    /// own included).
    pub fn new(core: usize, mailbox: Mailbox<Message>, posts: Box<[Post<Message>]>) -> Self {
        let unannounced = posts.iter().map(|_| Cell::new(false)).collect();
        Self { core, posts, unannounced, mailbox, local: RefCell::default(), receiver: RefCell::default() }
    }

    /// Returns this core's number.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Returns the number of cores.
    pub fn cores(&self) -> usize {
        self.posts.len()
    }

    /// Sends a message to a core. It always arrives, unless that core has ended. Returns how many doorbells were rung
    /// (for the metrics).
    pub fn send(&self, core: usize, message: Message) -> u64 {
        self.push(core, message);
        self.ring()
    }

    /// Sends a message that its core may find only after the next [`ring`](Self::ring). The caller must ring before it
    /// awaits anything.
    pub fn push(&self, core: usize, message: Message) {
        if core == self.core {
            self.local.borrow_mut().push_back(message);
            self.wake();
        } else if let (Some(post), Some(unannounced)) = (self.posts.get(core), self.unannounced.get(core)) {
            post.push(message);
            unannounced.set(true);
        }
    }

    /// Wakes all cores that sleep and were sent messages. Returns how many doorbells were rung.
    pub fn ring(&self) -> u64 {
        let told =
            self.posts.iter().zip(&self.unannounced).filter(|(_, unannounced)| unannounced.replace(false));
        told.map(|(post, _)| u64::from(post.ring())).sum()
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
        assert_eq!(zero.send(1, Message::Drain), 0, "core 1 has never slept");
        assert!(poll(&one).is_ready());
        assert!(poll(&one).is_pending());
        assert_eq!(zero.send(1, Message::Drain), 1);
        assert_eq!(zero.send(1, Message::Drain), 0, "one ring wakes it");
    }

    #[test]
    fn a_core_is_rung_once_for_all_that_was_pushed() {
        let (zero, one) = two_cores();
        assert!(poll(&one).is_pending());
        (0..3).for_each(|_| zero.push(1, Message::Drain));
        assert_eq!((zero.ring(), zero.ring()), (1, 0));
        (0..3).for_each(|_| assert!(poll(&one).is_ready()));
        assert!(poll(&one).is_pending());
        // What was pushed to its own core needs no ring.
        zero.push(0, Message::Stop);
        assert_eq!(zero.ring(), 0);
        assert!(poll(&zero).is_ready());
    }
}
