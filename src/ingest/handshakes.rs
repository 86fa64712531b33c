//! The TLS handshakes in progress on one core. Their number has a limit, and at the limit one is cut for each that
//! begins.
//!
//! # Constraints
//! - A flood of half handshakes must not end those of honest clients. So it is the address with the most handshakes in
//!   progress that loses one.
//! - Many senders may share an address, behind a load balancer. If the oldest were cut, a flood would leave each
//!   handshake the same short time, and a sender that is farther away would never complete one. So the older one of
//!   two by chance is cut: most stalled handshakes are old, and no handshake is certain to be cut.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashMap;

use crate::io::deadline::Cutter;
use crate::limits::HANDSHAKES_MAX;

/// The handshakes in progress on one core.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    state: RefCell<State<Cutter>>,
}

/// A handshake in progress.
#[derive(Debug)]
pub(super) struct Ticket {
    peer: IpAddr,
    number: u64,
}

#[derive(Debug)]
struct State<C> {
    /// By address, with their numbers. No entry is empty.
    by_peer: HashMap<IpAddr, Vec<(u64, C)>>,
    count: usize,
    next: u64,
    random: u64,
}

impl<C> Default for State<C> {
    fn default() -> Self {
        Self { by_peer: HashMap::default(), count: 0, next: 0, random: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Handshakes {
    /// Adds a handshake with a peer of this [`network`], and cuts another one if there are too many. Give the ticket to
    /// [`end`](Self::end).
    pub(super) fn begin(&self, peer: IpAddr, cutter: Cutter) -> Ticket {
        let mut state = self.state.borrow_mut();
        let cut = if state.count >= HANDSHAKES_MAX { state.take_one() } else { None };
        let ticket = state.add(peer, cutter);
        drop(state);
        if let Some(cutter) = cut {
            cutter.cut();
        }
        ticket
    }

    /// Cuts all handshakes in progress: no request has begun on their connections.
    pub(super) fn cut_all(&self) {
        self.state.borrow().by_peer.values().flatten().for_each(|(_, cutter)| cutter.cut());
    }

    pub(super) fn end(&self, ticket: &Ticket) {
        self.state.borrow_mut().remove(ticket);
    }
}

impl<C> State<C> {
    fn add(&mut self, peer: IpAddr, cutter: C) -> Ticket {
        let ticket = Ticket { peer, number: self.next };
        self.next += 1;
        self.count += 1;
        self.by_peer.entry(ticket.peer).or_default().push((ticket.number, cutter));
        ticket
    }

    fn remove(&mut self, ticket: &Ticket) {
        let Some(all) = self.by_peer.get_mut(&ticket.peer) else { return };
        if let Some(at) = all.iter().position(|(number, _)| *number == ticket.number) {
            all.swap_remove(at);
            self.count -= 1;
        }
        if all.is_empty() {
            self.by_peer.remove(&ticket.peer);
        }
    }

    /// Takes out the one that is to be cut.
    fn take_one(&mut self) -> Option<C> {
        let crowd = self.by_peer.values().map(Vec::len).max()?;
        let tied = self.by_peer.values().filter(|all| all.len() == crowd).count();
        let chosen = self.below(tied);
        let (first, second) = (self.below(crowd), self.below(crowd));
        let (&peer, all) = self.by_peer.iter_mut().filter(|(_, all)| all.len() == crowd).nth(chosen)?;
        let number = |at: usize| all.get(at).map(|(number, _)| *number);
        let (_, cutter) = all.swap_remove(if number(first) < number(second) { first } else { second });
        self.count -= 1;
        if all.is_empty() {
            self.by_peer.remove(&peer);
        }
        Some(cutter)
    }

    /// A number below `end`, by chance (xorshift).
    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 32).unwrap_or_default() % end.max(1)
    }
}

/// What counts as one address: of IPv6, the /64 that a host has to itself.
pub(super) fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn the_address_with_the_most_loses_one() {
        let mut state = State::default();
        let honest: Vec<Ticket> = (1..4).map(|last| state.add(v4(last), "honest")).collect();
        for _ in 0..100 {
            state.add(v4(9), "flood");
        }
        for left in (3..103).rev().take(98) {
            assert_eq!(state.take_one(), Some("flood"));
            assert_eq!(state.count, left);
        }
        honest.iter().for_each(|ticket| state.remove(ticket));
        assert_eq!((state.count, state.by_peer.len()), (2, 1));
    }

    #[test]
    fn hosts_of_one_network_of_ipv6_count_together() {
        let mut state = State::default();
        let host = |n: u16| network(IpAddr::from([0x2001, 0xdb8, 1, 2, n, n, n, n]));
        let tickets: Vec<Ticket> = (0..10).map(|n| state.add(host(n), n)).collect();
        assert_eq!(state.by_peer.len(), 1);
        tickets.iter().for_each(|ticket| state.remove(ticket));
        assert_eq!((state.count, state.by_peer.len()), (0, 0));
        state.remove(&tickets[0]);
        assert_eq!((state.count, state.take_one()), (0, None));
    }

    /// How many of 1,000 handshakes are not cut while `others` begin, with 100 in progress from the same address.
    fn survivors(others: usize) -> usize {
        let mut state = State::default();
        for _ in 0..99 {
            state.add(v4(9), usize::MAX);
        }
        let mut survivors = 0;
        for round in 0..1_000 {
            let ticket = state.add(v4(9), round);
            let mut cut = (0..others).filter_map(|_| {
                let cut = state.take_one();
                state.add(v4(9), usize::MAX);
                cut
            });
            if !cut.any(|cut| cut == round) {
                survivors += 1;
            }
            state.take_one();
            state.remove(&ticket);
            while state.count < 99 {
                state.add(v4(9), usize::MAX);
            }
        }
        survivors
    }

    #[test]
    fn among_those_of_one_address_the_young_last_and_the_old_have_a_chance() {
        let (few, many) = (survivors(30), survivors(150));
        assert!(few > 800, "{few} of 1,000 outlast 30 others");
        assert!(many > 30, "{many} of 1,000 outlast 150 others, although only 100 fit");
    }
}
