//! The way into a core from another thread: a lock-free queue and a doorbell.
//!
//! Design constraints:
//! - A post costs no system call while its core is awake, and exactly one while it sleeps.
//! - A core that goes to sleep must never miss a message: that is the one race here, and the reason for the two
//!   fences below.
//! - The core waits on *its ring*, so the bell is a descriptor (one end of a socket pair), not a condvar.
//!
//! The race, and why it is none. The sender pushes, fences, then looks at `asleep`. The core sets `asleep`,
//! fences, then looks at the queue once more. Both fences are sequentially consistent, so they have an order:
//! if the sender's comes first, the core's second look sees the message; if the core's comes first, the sender
//! sees `asleep` and rings. In neither order do both miss. (This is the store-buffering litmus test; without
//! the fences each side may read the other's old value.) The test at the end puts it before loom.
//!
//! The queue itself is unbounded in its type and bounded in fact: a core has at most
//! [`FRAGMENTS_IN_FLIGHT_MAX`](crate::limits::FRAGMENTS_IN_FLIGHT_MAX) fragments under way, so that no mailbox can
//! ever hold more than all cores' fragments, the outcomes of its own, and a handful of notices. Thus a post
//! never fails and never waits, and an outcome can't get lost for lack of room.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

/// Whether the core sleeps: the one word that both sides agree by.
#[derive(Debug)]
struct Sleep {
    asleep: AtomicBool,
}

impl Sleep {
    fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// For the sender, after its push: is it on us to ring? True for one sender only until the core sleeps again.
    fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // The load first: while the core is awake, which under load is always, senders share the cache line.
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }

    /// For the core, before it waits: announces the sleep. The caller must look at the queue once more after
    /// this, and wait only if it is still empty.
    fn announce(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// For the core, once it is awake by whatever cause: spares the senders their ring.
    fn cancel(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// The sending side; one clone for each thread that posts.
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
    /// Puts a message into the mailbox and wakes its core if that sleeps; whether it did is returned (for the
    /// metrics). A message for a core that has ended is dropped, as its caller can do nothing about it.
    pub fn post(&self, message: T) -> bool {
        if self.queue.send(message).is_err() {
            return false;
        }
        let ring = self.sleep.must_ring();
        if ring {
            // A full socket buffer is fine: bytes enough to wake the core are in it already.
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            let _ = rustix::net::send(&*self.bell, &[1], flags);
        }
        ring
    }
}

/// The receiving side: one core's.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Receiver<T>,
    sleep: Arc<Sleep>,
}

impl<T> Mailbox<T> {
    /// A mailbox, the post to reach it, and the core's end of the bell, on which a byte arrives for each ring.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn new() -> io::Result<(Self, Post<T>, UnixStream)> {
        let (bell, core_end) = UnixStream::pair()?;
        let (sender, queue) = crossbeam_channel::unbounded();
        let sleep = Arc::new(Sleep::new());
        let post = Post { queue: sender, sleep: Arc::clone(&sleep), bell: Arc::new(bell.into()) };
        Ok((Self { queue, sleep }, post, core_end))
    }

    /// The next message, if there is one. Never waits.
    pub fn take(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// To be called when [`take`](Self::take) found nothing and the core means to wait for the bell. A message
    /// that slipped in meanwhile is returned, and then the core must not wait.
    pub fn fall_asleep(&self) -> Option<T> {
        self.sleep.announce();
        let message = self.take();
        if message.is_some() {
            self.sleep.cancel();
        }
        message
    }

    /// To be called when the core runs again.
    pub fn wake_up(&self) {
        self.sleep.cancel();
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
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
    fn falling_asleep_with_mail_returns_it() {
        let (mailbox, post, _bell) = Mailbox::new().unwrap();
        post.post(7);
        assert_eq!(mailbox.fall_asleep(), Some(7));
        assert!(!post.post(8), "the core is awake: nobody has to ring");
    }

    #[test]
    fn a_post_to_a_core_that_ended_is_dropped() {
        let (mailbox, post, _bell) = Mailbox::new().unwrap();
        drop(mailbox);
        assert!(!post.post(1));
    }

    #[test]
    fn every_message_of_four_threads_arrives_though_the_core_keeps_falling_asleep() {
        const EACH: u32 = 20_000;
        let (mailbox, post, mut bell) = Mailbox::new().unwrap();
        bell.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let senders: Vec<_> = (0..4u32)
            .map(|k| {
                let post = post.clone();
                std::thread::spawn(move || (0..EACH).for_each(|i| _ = post.post(k * EACH + i)))
            })
            .collect();
        let mut seen = vec![false; 4 * EACH as usize];
        for _ in 0..seen.len() {
            let message = loop {
                match mailbox.take().or_else(|| mailbox.fall_asleep()) {
                    Some(message) => break message,
                    None => _ = bell.read(&mut [0; 64]).expect("a missed ring"),
                }
            };
            assert!(!std::mem::replace(&mut seen[message as usize], true), "{message} came twice");
        }
        senders.into_iter().for_each(|s| s.join().unwrap());
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test --lib queue::mailbox`
#[cfg(all(test, loom))]
mod model {
    use std::sync::Arc;

    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use super::Sleep;

    /// The queue as loom sees it: how many messages were pushed. Relaxed on purpose, weaker than any real
    /// queue, so that only the fences of [`Sleep`] can make the protocol right.
    struct Model {
        pushed: AtomicU32,
        rings: AtomicU32,
        sleep: Sleep,
    }

    fn post(model: &Model) {
        model.pushed.fetch_add(1, Ordering::Relaxed);
        if model.sleep.must_ring() {
            model.rings.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// In every interleaving a core that decided to wait has been rung for, or will be: never asleep with mail.
    fn no_message_is_slept_through(senders: u32) {
        loom::model(move || {
            let model =
                Arc::new(Model { pushed: AtomicU32::new(0), rings: AtomicU32::new(0), sleep: Sleep::new() });
            let threads: Vec<_> = (0..senders)
                .map(|_| {
                    let model = Arc::clone(&model);
                    thread::spawn(move || post(&model))
                })
                .collect();
            model.sleep.announce();
            let seen = model.pushed.load(Ordering::Relaxed);
            if seen > 0 {
                model.sleep.cancel();
            }
            threads.into_iter().for_each(|t| t.join().unwrap());
            let waits = seen == 0;
            assert!(
                !waits || model.rings.load(Ordering::SeqCst) == 1,
                "slept through a message, or rung twice"
            );
        });
    }

    #[test]
    fn one_sender() {
        no_message_is_slept_through(1);
    }

    #[test]
    fn two_senders() {
        no_message_is_slept_through(2);
    }
}
