//! Whose turn it is among the TLS handshakes of a core.
//!
//! # Constraints
//! - A flood of handshakes must not crowd out requests. So only one handshake at a time waits for its turn among all
//!   work of the core; the others wait here, without polling anything.
//! - More handshakes may arrive than a core has time for. So the addresses that they come from take turns, and a flood
//!   from one of them leaves the others theirs. Those of one address are served in the order of their arrival.
//! - Handshakes that go on take turns with those that begin: otherwise a queue of new clients would delay the last step
//!   of the others.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use hashbrown::HashMap;

/// The step that a handshake waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Its first.
    First,
    /// A later one.
    Later,
}

/// The turns of one core.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: RefCell<State>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    first: Queue,
    later: Queue,
    /// The turn before was for a later step.
    was_later: bool,
}

/// Handshakes that wait, by address.
#[derive(Debug, Default)]
struct Queue {
    /// No queue is empty.
    by_peer: HashMap<IpAddr, VecDeque<Rc<Waiting>>>,
    /// The address whose turn is next comes first.
    peers: VecDeque<IpAddr>,
}

#[derive(Debug)]
struct Waiting {
    has_turn: Cell<bool>,
    waker: RefCell<Waker>,
}

impl Turns {
    /// Waits for a turn of a handshake with `peer`. The future must not be dropped before it is ready, as its turn
    /// would never end.
    pub(super) async fn take(&self, step: Step, peer: IpAddr) -> Turn<'_> {
        let mut waiting: Option<Rc<Waiting>> = None;
        poll_fn(|cx| match &waiting {
            Some(waiting) if waiting.has_turn.get() => Poll::Ready(()),
            Some(waiting) => {
                waiting.waker.borrow_mut().clone_from(cx.waker());
                Poll::Pending
            }
            None => {
                waiting = self.state.borrow_mut().enter(step, peer, cx.waker());
                if waiting.is_none() { Poll::Ready(()) } else { Poll::Pending }
            }
        })
        .await;
        Turn { turns: self }
    }
}

impl State {
    /// Takes the turn, or a place in the queue.
    fn enter(&mut self, step: Step, peer: IpAddr, waker: &Waker) -> Option<Rc<Waiting>> {
        if !std::mem::replace(&mut self.taken, true) {
            self.was_later = step == Step::Later;
            return None;
        }
        let waiting = Rc::new(Waiting { has_turn: Cell::new(false), waker: RefCell::new(waker.clone()) });
        let queue = if step == Step::Later { &mut self.later } else { &mut self.first };
        queue.push(peer, Rc::clone(&waiting));
        Some(waiting)
    }

    /// Gives the turn to the next, if there is one.
    fn next(&mut self) -> Option<Rc<Waiting>> {
        let later = self.first.is_empty() || !(self.later.is_empty() || self.was_later);
        let next = if later { self.later.pop() } else { self.first.pop() };
        (self.taken, self.was_later) = (next.is_some(), later);
        next
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    fn push(&mut self, peer: IpAddr, waiting: Rc<Waiting>) {
        let queue = self.by_peer.entry(peer).or_default();
        if queue.is_empty() {
            self.peers.push_back(peer);
        }
        queue.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Rc<Waiting>> {
        let peer = self.peers.pop_front()?;
        let queue = self.by_peer.get_mut(&peer)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.by_peer.remove(&peer);
        } else {
            self.peers.push_back(peer);
        }
        next
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let next = self.turns.state.borrow_mut().next();
        if let Some(next) = next {
            next.has_turn.set(true);
            next.waker.borrow().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    /// The order in which these handshakes, each a step and the last byte of an address, get their turns.
    fn order(steps: &[(Step, u8)]) -> Vec<usize> {
        let turns = Turns::default();
        let mut cx = Context::from_waker(Waker::noop());
        let take = |(step, peer): (Step, u8)| turns.take(step, IpAddr::from([127, 0, 0, peer]));
        let mut holder = match pin!(take((Step::First, 0))).poll(&mut cx) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        };
        assert!(holder.is_some(), "it is free");
        let mut waiting: Vec<_> = steps.iter().map(|step| Some(Box::pin(take(*step)))).collect();
        let mut order = Vec::new();
        // One round to poll the one that has its turn, and one to end the turn.
        for _ in 0..2 * steps.len() + 2 {
            let mut next = None;
            for (at, place) in waiting.iter_mut().enumerate() {
                let polled = place.as_mut().map(|take| take.as_mut().poll(&mut cx));
                let Some(Poll::Ready(turn)) = polled else { continue };
                assert!(next.is_none(), "one at a time");
                order.push(at);
                *place = None;
                next = Some(turn);
            }
            drop(holder.take());
            holder = next;
        }
        drop(holder);
        let state = turns.state.borrow();
        assert!(!state.taken && state.first.by_peer.is_empty() && state.later.by_peer.is_empty());
        order
    }

    #[test]
    fn turns_come_in_order_and_later_steps_alternate_with_first_ones() {
        let (first, later) = ((Step::First, 1), (Step::Later, 1));
        assert_eq!(order(&[first, first, later, first, later, later, later]), [2, 0, 4, 1, 5, 3, 6]);
    }

    #[test]
    fn addresses_take_turns() {
        let by = |peer: u8| (Step::First, peer);
        assert_eq!(order(&[by(1), by(1), by(1), by(1), by(2), by(3), by(2)]), [0, 4, 5, 1, 6, 2, 3]);
    }
}
