//! The mailbox: how other threads send messages to a core. A lock-free queue and a doorbell.
//!
//! Design constraints:
//! - A post costs no system call while its core is awake, and exactly one while it sleeps.
//! - A core that goes to sleep must never miss a message. That is the only race here, and the reason for the two fences
//!   below.
//! - The core waits on *its ring*, so the doorbell is a descriptor (one end of a socket pair), not a condvar.
//!
//! Why the race is harmless: the sender pushes, fences, then reads `asleep`. The core sets `asleep`, fences, then
//! checks the queue once more. Both fences are sequentially consistent, so they have an order. If the sender's comes
//! first, the core's second check sees the message. If the core's comes first, the sender sees `asleep` and rings. In
//! neither order do both miss, however many messages the sender pushes before its fence. (This is the store-buffering
//! litmus test; without the fences each side may read the
//! other's old value.) The loom tests at the end check it.
//!
//! The queue's type is unbounded, but its length is limited in practice. A core has at most
//! [`FRAGMENTS_IN_FLIGHT_MAX`](crate::limits::FRAGMENTS_IN_FLIGHT_MAX) fragments in flight, so no mailbox can hold more
//! than the fragments of all cores, its own outcomes, and a few control messages. So a post never fails and never
//! waits, and no outcome is lost for lack of room.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

/// Whether the core sleeps: the one atomic that both sides synchronise on.
#[derive(Debug)]
struct Sleep {
    asleep: AtomicBool,
}

impl Sleep {
    fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// Called by a sender after its push: whether it must ring. True for only one sender until the core sleeps again.
    fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // Load before the swap: while the core is awake, as it always is under load, senders share the cache line.
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }

    /// Called by the core before it waits: announces the sleep. The caller must check the queue once more after this,
    /// and may wait only if it is still empty.
    fn announce(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the core once it is awake, for whatever reason: saves senders the ring.
    fn cancel(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// The sending side. Each thread that posts has its own clone.
#[derive(Debug)]
pub struct Post<T> {
    queue: Sender<T>,
    sleep: Arc<Sleep>,
    bell: Arc<OwnedFd>,
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), sleep: Arc::clone(&self.sleep), bell: Arc::clone(&self.bell) }
    }
}

impl<T> Post<T> {
    /// Puts a message into the mailbox, and wakes its core if that sleeps. Returns whether it rang (for the metrics). A
    /// message to a core that has ended is dropped, as the caller can do nothing about it.
    pub fn post(&self, message: T) -> bool {
        self.push(message);
        self.ring()
    }

    /// Puts a message into the mailbox, which its core may find only after the next [`ring`](Self::ring).
    pub fn push(&self, message: T) {
        // Fails only if the core has ended.
        let _ = self.queue.send(message);
    }

    /// Wakes the core if it sleeps. Returns whether it rang. To be called after messages were pushed, in whatever
    /// number.
    pub fn ring(&self) -> bool {
        let ring = self.sleep.must_ring();
        if ring {
            // A full socket buffer is fine: it already holds enough bytes to wake the core.
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            let _ = rustix::net::send(&*self.bell, &[1], flags);
        }
        ring
    }
}

/// The receiving side, owned by one core.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Receiver<T>,
    sleep: Arc<Sleep>,
}

impl<T> Mailbox<T> {
    /// Creates a mailbox, the post that sends to it, and the core's end of the doorbell, which receives one byte per
    /// ring.
    ///
    /// # Errors
    /// If the process may open no more descriptors.
    pub fn new() -> io::Result<(Self, Post<T>, UnixStream)> {
        let (bell, core_end) = UnixStream::pair()?;
        let (sender, queue) = crossbeam_channel::unbounded();
        let sleep = Arc::new(Sleep::new());
        let post = Post { queue: sender, sleep: Arc::clone(&sleep), bell: Arc::new(bell.into()) };
        Ok((Self { queue, sleep }, post, core_end))
    }

    /// Takes the next message, if there is one. Never waits.
    pub fn take(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// Announces that the core is about to wait for the doorbell. Call it when [`take`](Self::take) found nothing. If
    /// it returns a message, which arrived in the meantime, the core must not wait.
    pub fn fall_asleep(&self) -> Option<T> {
        self.sleep.announce();
        let message = self.take();
        if message.is_some() {
            self.sleep.cancel();
        }
        message
    }

    /// Announces that the core runs again.
    pub fn wake_up(&self) {
        self.sleep.cancel();
    }

    /// Returns the number of queued messages.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_post_to_an_awake_core_does_not_ring() {
        let (mailbox, post, mut bell) = Mailbox::new().unwrap();
        assert!(!post.post(1));
        assert_eq!(mailbox.take(), Some(1));
        bell.set_nonblocking(true).unwrap();
        assert_eq!(bell.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn only_the_first_post_to_a_sleeping_core_rings() {
        let (mailbox, post, mut bell) = Mailbox::new().unwrap();
        assert_eq!(mailbox.fall_asleep(), None);
        assert!(post.post(1));
        assert!(!post.post(2));
        let mut rung = [0; 8];
        assert_eq!(bell.read(&mut rung).unwrap(), 1);
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(1), Some(2), None));
    }

    #[test]
    fn falling_asleep_with_a_queued_message_returns_it() {
        let (mailbox, post, _bell) = Mailbox::new().unwrap();
        post.post(7);
        assert_eq!(mailbox.fall_asleep(), Some(7));
        assert!(!post.post(8), "the core is awake, so no ring is needed");
    }

    #[test]
    fn a_post_to_a_core_that_ended_is_dropped() {
        let (mailbox, post, _bell) = Mailbox::new().unwrap();
        drop(mailbox);
        assert!(!post.post(1));
    }

    #[test]
    fn one_ring_announces_all_that_was_pushed() {
        let (mailbox, post, mut bell) = Mailbox::new().unwrap();
        assert_eq!(mailbox.fall_asleep(), None);
        (1..=3).for_each(|message| post.push(message));
        assert!(post.ring());
        assert!(!post.ring());
        assert_eq!(bell.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(1), Some(2), Some(3)));
    }

    #[test]
    fn every_message_of_four_threads_arrives_while_the_core_keeps_falling_asleep() {
        const EACH: u32 = 20_000;
        let (mailbox, post, mut bell) = Mailbox::new().unwrap();
        bell.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let senders: Vec<_> = (0..4u32)
            .map(|k| {
                let post = post.clone();
                std::thread::spawn(move || {
                    // Now one at a time, now some together.
                    for i in 0..EACH {
                        post.push(k * EACH + i);
                        if i % 8 < 5 || i + 1 == EACH {
                            post.ring();
                        }
                    }
                })
            })
            .collect();
        let mut seen = vec![false; 4 * EACH as usize];
        for _ in 0..seen.len() {
            let message = loop {
                match mailbox.take().or_else(|| mailbox.fall_asleep()) {
                    Some(message) => break message,
                    None => _ = bell.read(&mut [0; 64]).expect("a ring before the timeout"),
                }
            };
            assert!(!std::mem::replace(&mut seen[message as usize], true), "{message} came twice");
        }
        senders.into_iter().for_each(|s| s.join().unwrap());
    }
}

/// `cargo test --release --lib --features loom exchange::mailbox`
#[cfg(all(test, feature = "loom"))]
mod model {
    use std::sync::Arc;

    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use super::Sleep;

    /// The queue as loom sees it: the number of pushed messages. Relaxed on purpose, weaker than any real queue, so
    /// that only the fences of [`Sleep`] can make the protocol correct.
    struct Model {
        pushed: AtomicU32,
        rings: AtomicU32,
        sleep: Sleep,
    }

    fn post(model: &Model, messages: u32) {
        (0..messages).for_each(|_| _ = model.pushed.fetch_add(1, Ordering::Relaxed));
        if model.sleep.must_ring() {
            model.rings.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// In every interleaving, a core that decides to wait is rung: it never sleeps with a message in the queue.
    fn no_message_is_slept_through(senders: u32, messages: u32) {
        loom::model(move || {
            let model =
                Arc::new(Model { pushed: AtomicU32::new(0), rings: AtomicU32::new(0), sleep: Sleep::new() });
            let threads: Vec<_> = (0..senders)
                .map(|_| {
                    let model = Arc::clone(&model);
                    thread::spawn(move || post(&model, messages))
                })
                .collect();
            let mut taken = 0;
            loop {
                model.sleep.announce();
                let pushed = model.pushed.load(Ordering::Relaxed);
                if pushed == taken {
                    break;
                }
                model.sleep.cancel();
                taken = pushed;
            }
            // It waits from here on.
            threads.into_iter().for_each(|t| t.join().unwrap());
            let is_asleep = model.sleep.asleep.load(Ordering::SeqCst);
            assert!(!is_asleep || taken == senders * messages, "slept through a message");
            assert!(taken > 0 || model.rings.load(Ordering::SeqCst) == 1, "rung twice");
        });
    }

    #[test]
    fn one_sender() {
        no_message_is_slept_through(1, 1);
    }

    #[test]
    fn one_sender_of_several_messages_that_rings_once() {
        no_message_is_slept_through(1, 3);
    }

    #[test]
    fn two_senders() {
        no_message_is_slept_through(2, 1);
    }
}
