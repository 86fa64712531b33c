//! Requests on their way to the upstream, and what follows when they are slow: see [`pace`](crate::shared::pace).
//!
//! The core's sweeper looks at them every few milliseconds ([`Egress::look_at_flights`]): no request pays for a timer.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::delivery::{Egress, TenantLane};
use crate::io::deadline::Cutter;
use crate::limits::SLOW_STRIKES_MAX;
use crate::model::Outcome;
use crate::shared::pace::leash;
use crate::shared::permits::SlowUse;
use crate::upstream::pool::Connection;

/// One core's requests on their way to one destination, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flying: RefCell<Vec<Rc<Flight>>>,
}

/// One request on its way.
#[derive(Debug)]
pub(super) struct Flight {
    lane: Rc<TenantLane>,
    address: SocketAddr,
    /// When it was sent.
    pub(super) begun: Instant,
    cutter: Cutter,
    is_cut: Cell<bool>,
    /// Its connection counts as used by a slow tenant.
    slow: RefCell<Option<SlowUse>>,
}

impl Flight {
    /// Whether it was cut as others needed its connection.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    fn has_taken(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }
}

impl Flights {
    /// A request of `lane` is about to be sent over `connection`.
    pub(super) fn begin(
        &self,
        lane: &Rc<TenantLane>,
        connection: &Connection,
        slow: Option<SlowUse>,
    ) -> Rc<Flight> {
        let flight = Rc::new(Flight {
            lane: Rc::clone(lane),
            address: connection.address(),
            begun: Instant::now(),
            cutter: connection.stream.cutter(),
            is_cut: Cell::new(false),
            slow: RefCell::new(slow),
        });
        self.flying.borrow_mut().push(Rc::clone(&flight));
        flight
    }

    /// It has been answered, or has failed. What it counted as is returned, for another attempt.
    pub(super) fn end(&self, flight: &Rc<Flight>) -> Option<SlowUse> {
        self.flying.borrow_mut().retain(|other| !Rc::ptr_eq(other, flight));
        flight.slow.take()
    }

    fn all(&self) -> Vec<Rc<Flight>> {
        self.flying.borrow().clone()
    }
}

impl Egress {
    /// Finds requests that have become slow, and cuts those that others must not wait for.
    pub fn look_at_flights(&self, now: Instant) {
        let flying = self.flights.all();
        for flight in &flying {
            let patience = self.pool.patience(flight.address, self.settings.get().timeout);
            let is_known = flight.is_cut() || flight.slow.borrow().is_some();
            if !is_known && flight.has_taken(now) > patience {
                *flight.slow.borrow_mut() = self.pool.turned_slow(flight.address);
                self.turns_slow(&flight.lane);
            }
        }
        self.cut_slow(&flying, now);
    }

    /// Cuts slow requests, the oldest first.
    fn cut_slow(&self, flying: &[Rc<Flight>], now: Instant) {
        // Parts wait in no queue for their share: they are refused past it. So those beyond it hold up others only when
        // there is hardly any room left.
        let mut is_crowded = self.shared.slow.exceed(&self.settings.get().slow) && self.shared.is_crowded();
        for flight in flying.iter().filter(|flight| !flight.is_cut() && flight.slow.borrow().is_some()) {
            let timeout = self.settings.get().timeout;
            let for_others = self.pool.to_cut(flight.address, now, is_crowded) > 0;
            let patience = self.pool.patience(flight.address, timeout);
            let is_over_leash = flight.has_taken(now) > leash(patience, flight.lane.strikes.get(), timeout);
            if for_others {
                self.pool.cut(flight.address, now);
                // One each time: what it held is given back only when its task has noticed.
                is_crowded = false;
            }
            if for_others || (is_over_leash && self.pool.slow_wait(flight.address)) {
                self.cut(flight);
            }
        }
    }

    fn cut(&self, flight: &Flight) {
        self.counters().slow_cut.add(1);
        flight.is_cut.set(true);
        // The connection is closed for sure: for whoever looks next, its use is over.
        drop(flight.slow.take());
        flight.cutter.cut();
    }

    /// A request of the tenant was cut, or has timed out.
    pub(super) fn strikes(&self, lane: &TenantLane) {
        self.turns_slow(lane);
        lane.strikes.set((lane.strikes.get() + 1).min(SLOW_STRIKES_MAX));
    }

    /// One of the tenant's requests has been on its way for too long.
    pub(super) fn turns_slow(&self, lane: &TenantLane) {
        if lane.slow.replace(true) {
            return;
        }
        let (parts, bytes) = lane.held.get();
        self.shared.slow.add(parts, bytes);
        self.counters().slow_tenants.of(self.settings.get().destination).up();
        self.shed_waiting(lane);
    }

    /// An answer has come in time.
    pub(super) fn turns_prompt(&self, lane: &TenantLane) {
        lane.strikes.set(0);
        if !lane.slow.replace(false) {
            return;
        }
        let (parts, bytes) = lane.held.get();
        self.shared.slow.sub(parts, bytes);
        self.counters().slow_tenants.of(self.settings.get().destination).down();
    }

    /// What waits in a lane that has become slow is more than slow tenants may have: what came last goes first.
    fn shed_waiting(&self, lane: &TenantLane) {
        while !self.shared.slow.admit(lane.held.get().0, &self.settings.get().slow) {
            let Some(fragment) = lane.lane.borrow_mut().take_newest() else { return };
            self.waiting().down();
            self.counters().slow_refused.add(1);
            self.answer(lane, fragment, over_slow_share());
        }
    }
}

/// What is told of a part for which slow tenants have no room.
pub(super) fn over_slow_share() -> Outcome {
    Outcome::overloaded(
        "this tenant's upstream is slow, and slow tenants have their share in flight (limits.slow_share_percent)",
    )
}
