//! Which waiting request gets a connection that has come free: see [`pool`](super).

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::{Connection, Free, Lease, Leased, Pool, Waiter, is_same, take_usable};
use crate::config::tls::UpstreamTls;
use crate::exchange::fragment::Message;
use crate::io::deadline::Cut;
use crate::io::stream::Stream;
use crate::shared::permits::{Claimant, Handed, HandedConnection, Want};
use crate::shared::slow::Class;

/// A connection goes to another core only if a request there has waited longer than the first one here by more than one
/// part in so many. Otherwise cores with equal waits would pass every connection to and fro.
const HANDOVER_MARGIN: u64 = 4;

/// Where a free connection goes.
enum Next {
    /// To the request at this place of this queue.
    Here(Class, usize),
    Elsewhere(Want),
    Idle,
}

impl Pool {
    /// Receives a connection or a permit from another core, for a request that waits here.
    pub fn receive(&self, handed: Handed) {
        let Handed { address, permit, connection } = handed;
        let connection = connection.filter(|handed| is_same(&handed.tls, &self.tls.borrow()));
        let adopted = connection.and_then(|handed| self.adopt(handed, address));
        let free = match adopted {
            Some((stream, tls, opened)) => {
                let mut connection = self.connection(stream, tls, address, permit, opened);
                connection.reused = true;
                Free::Connection(Box::new(connection))
            }
            None => Free::Permit(permit),
        };
        self.give(address, free);
        self.announce();
    }

    fn adopt(
        &self,
        handed: HandedConnection,
        address: SocketAddr,
    ) -> Option<(Stream, Option<Arc<UpstreamTls>>, Instant)> {
        let HandedConnection { socket, session, tls, opened } = handed;
        let stream = Stream::handed(socket, session, address, &self.deadlines).ok()?;
        stream.set_deadline(Instant::now() + self.limits.get().idle_max, Cut::Both);
        Some((stream, tls, opened))
    }

    /// Hands over a connection to `address` that is idle here, as another core waits for one.
    pub fn hand_over_idle(&self, address: SocketAddr) {
        let idle = self.known_host(address, |host| take_usable(&mut host.idle)).flatten();
        if let Some(connection) = idle {
            self.give(address, Free::Connection(Box::new(connection)));
        }
    }

    /// Gives what has come free to the request that has waited longest, or keeps it if none waits.
    pub(super) fn give(&self, address: SocketAddr, free: Free) {
        if self.closed.get() || self.is_gone(address) {
            // Dropping it releases the permit.
            return;
        }
        match self.next(address) {
            Next::Here(class, place) => {
                self.give_here(address, free, class, place);
                self.announce();
            }
            Next::Elsewhere(want) => self.hand_over(address, free, want),
            Next::Idle => match free {
                Free::Connection(connection) => self.host(address, |host| host.idle.push(*connection)),
                // Its release announces it to cores that have begun to want it meanwhile.
                Free::Permit(permit) => drop(permit),
            },
        }
    }

    fn give_here(&self, address: SocketAddr, free: Free, class: Class, place: usize) {
        let Some(waiter) = self.queue(class).borrow_mut().remove(place) else { return };
        let what = match free {
            Free::Connection(connection) => Leased::Open(connection),
            Free::Permit(permit) => Leased::Connect(address, permit),
        };
        // `next` has seen that slow tenants have room. Another core may have used it since; then they are over by one.
        let slow = (class == Class::Slow).then(|| self.begin_slow_unbounded(address)).flatten();
        let mut backoffs = self.backoffs.borrow_mut();
        if !backoffs.is_quiet() {
            backoffs.goes_to(address, Instant::now());
        }
        waiter.fill(Lease { what, slow });
    }

    fn hand_over(&self, address: SocketAddr, free: Free, want: Want) {
        let Claimant { core, upstream, .. } = want.claimant;
        let (permit, connection) = match free {
            // Another upstream at the same address may need other connections, with other certificates. It gets the
            // permit alone.
            Free::Connection(connection) if upstream == self.upstream && connection.stream.is_quiet() => {
                let Connection { stream, tls, opened, permit, .. } = *connection;
                let (socket, session) = stream.into_parts();
                (permit, Some(HandedConnection { socket, session, tls, opened }))
            }
            Free::Connection(connection) => (connection.into_permit().1, None),
            Free::Permit(permit) => (permit, None),
        };
        self.exchange.send(core, Message::Handed(upstream, Box::new(Handed { address, permit, connection })));
    }

    /// Decides where a connection to `address` that has come free goes. Claims the want of another core if it goes
    /// there.
    fn next(&self, address: SocketAddr) -> Next {
        let now = Instant::now();
        let (core, upstream) = (self.exchange.core(), self.upstream);
        let permits = self.host(address, |host| Arc::clone(&host.permits));
        let has_room_for_slow = permits.has_room_for_slow();
        loop {
            let here = self.first_here(address, has_room_for_slow, now);
            let elsewhere = permits.oldest_want(|claimant| {
                (claimant.core != core || claimant.upstream != upstream)
                    && (claimant.class == Class::Prompt || has_room_for_slow)
            });
            let is_theirs = |since: Instant, want: Want| {
                let (theirs, ours) = permits.waited(want, since, now);
                theirs > ours + ours / HANDOVER_MARGIN
            };
            match (here, elsewhere) {
                (None, None) => return Next::Idle,
                (Some((class, place, since)), want) if want.is_none_or(|want| !is_theirs(since, want)) => {
                    return Next::Here(class, place);
                }
                (_, Some(want)) if permits.claim(want) => return Next::Elsewhere(want),
                // Another core has answered that want, or it has changed.
                _ => {}
            }
        }
    }

    /// Returns the request that has waited longest here, among those that may use `address`.
    fn first_here(
        &self,
        address: SocketAddr,
        has_room_for_slow: bool,
        now: Instant,
    ) -> Option<(Class, usize, Instant)> {
        let classes = Class::ALL.iter().filter(|&&class| class == Class::Prompt || has_room_for_slow);
        let first = |class: Class| {
            let queue = self.queue(class).borrow();
            let place = queue.iter().position(|waiter| self.may_go_to(address, &waiter.tried, now))?;
            queue.get(place).map(|waiter| (class, place, waiter.since))
        };
        classes.filter_map(|&class| first(class)).min_by_key(|&(_, _, since)| since)
    }

    /// Whether a request that has `tried` these addresses may go to that one.
    fn may_go_to(&self, address: SocketAddr, tried: &[SocketAddr], now: Instant) -> bool {
        let backoffs = self.backoffs.borrow();
        if backoffs.is_quiet() && tried.is_empty() {
            return true;
        }
        backoffs.choose(self.addresses.load().addresses.clone(), tried, now).contains(&address)
    }

    /// Gives waiting requests what is free already. There is something only if it came free before they were queued, at
    /// an address that has just appeared, or while slow tenants had no room for it.
    pub fn serve(&self) {
        for class in Class::ALL {
            let mut place = 0;
            loop {
                let waiter = self.queue(class).borrow().get(place).map(Rc::clone);
                let Some(waiter) = waiter.filter(|_| self.is_any_to_be_had()) else { break };
                match self.try_take(class, &waiter.tried) {
                    Ok(Some(lease)) => {
                        self.queue(class).borrow_mut().remove(place);
                        waiter.fill(lease);
                        self.announce();
                    }
                    // The requests behind it can go nowhere else.
                    _ if waiter.tried.is_empty() => break,
                    _ => place += 1,
                }
            }
        }
    }

    fn is_any_to_be_had(&self) -> bool {
        let addresses = self.addresses.load();
        addresses
            .addresses
            .iter()
            .any(|&address| self.host(address, |host| !host.idle.is_empty() || host.permits.any_free()))
    }

    /// Announces on every address since when the first request of each queue has waited. Call it whenever that changes,
    /// or when another core may have claimed the announcement.
    pub(super) fn announce(&self) {
        let now = Instant::now();
        for class in Class::ALL {
            let first = self.queue(class).borrow().front().map(Rc::clone);
            for &address in &self.addresses.load().addresses {
                let wants = first.as_ref().filter(|first| self.may_go_to(address, &first.tried, now));
                self.announce_at(address, class, wants.map(|first| first.since));
            }
        }
    }

    fn announce_at(&self, address: SocketAddr, class: Class, since: Option<Instant>) {
        let (core, upstream) = (self.exchange.core(), self.upstream);
        let claimant = Claimant { core, upstream, class };
        let Some(since) = since else {
            self.known_host(address, |host| host.permits.withdraw(claimant));
            return;
        };
        if self.host(address, |host| host.permits.announce(claimant, since)) {
            // This core, too: its pool of another upstream may have the same address.
            let cores = 0..self.exchange.cores();
            cores.for_each(|k| _ = self.exchange.send(k, Message::ConnectionWanted(address)));
        }
    }
}

impl Waiter {
    fn fill(&self, lease: Lease) {
        *self.lease.borrow_mut() = Some(lease);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
