//! Finds slow tenants and keeps them to their share: see [`pace`](crate::shared::pace).
//!
//! The core's sweeper calls [`Egress::look_at_requests`] every few milliseconds, so no request pays for a timer.

use std::rc::Rc;
use std::time::Instant;

use super::Egress;
use super::in_flight::Request;
use super::tenant_lane::TenantLane;
use crate::limits::SLOW_STRIKES_MAX;
use crate::model::Failure;
use crate::shared::pace::slow_timeout;

impl Egress {
    /// Finds requests that have become slow, and cuts those whose connections others need.
    pub fn look_at_requests(&self, now: Instant) {
        let requests = self.in_flight.all();
        for request in &requests {
            let slow_after = self.pool.slow_after(request.address, self.settings.get().timeout);
            let is_known = request.is_cut() || request.slow.borrow().is_some();
            if !is_known && request.age(now) > slow_after {
                *request.slow.borrow_mut() = self.pool.begin_slow_unbounded(request.address);
                self.turns_slow(&request.lane);
            }
        }
        self.cut_slow(&requests, now);
    }

    /// Cuts slow requests, the oldest first.
    fn cut_slow(&self, requests: &[Rc<Request>], now: Instant) {
        // Parts beyond the slow tenants' share are refused; they wait in no queue. So the requests beyond it hold up
        // others only when there is hardly any room left.
        let mut is_crowded = self.shared.slow.exceed(&self.settings.get().slow) && self.shared.is_crowded();
        for request in requests.iter().filter(|request| !request.is_cut() && request.slow.borrow().is_some())
        {
            let timeout = self.settings.get().timeout;
            let for_others = self.pool.to_cut(request.address, now, is_crowded) > 0;
            let slow_after = self.pool.slow_after(request.address, timeout);
            let is_over_time =
                request.age(now) > slow_timeout(slow_after, request.lane.strikes.get(), timeout);
            if for_others {
                self.pool.cut(request.address, now);
                // One request per look: its room is released only when its task has noticed.
                is_crowded = false;
            }
            if for_others || (is_over_time && self.pool.slow_wait(request.address)) {
                self.cut(request);
            }
        }
    }

    fn cut(&self, request: &Request) {
        self.counters().slow_cut.add(1);
        request.is_cut.set(true);
        // The connection will be closed. The use of the share ends now, for the next look.
        drop(request.slow.take());
        request.cutter.cut();
    }

    /// Counts a request of the tenant that was cut or timed out.
    pub(super) fn strikes(&self, lane: &Rc<TenantLane>) {
        self.turns_slow(lane);
        lane.strikes.set((lane.strikes.get() + 1).min(SLOW_STRIKES_MAX));
    }

    /// Marks a tenant as slow: one of its requests has been in flight for too long.
    fn turns_slow(&self, lane: &Rc<TenantLane>) {
        if lane.slow.replace(true) {
            return;
        }
        let (parts, bytes) = lane.held.get();
        self.shared.slow.add(parts, bytes);
        lane.metrics.slow.up();
        self.counters().slow_tenants.of(self.settings.get().upstream).up();
        self.refuse_beyond_share(lane);
    }

    /// Marks a tenant as prompt: a reply has come in time.
    pub(super) fn turns_prompt(&self, lane: &TenantLane) {
        lane.strikes.set(0);
        if !lane.slow.replace(false) {
            return;
        }
        let (parts, bytes) = lane.held.get();
        self.shared.slow.sub(parts, bytes);
        lane.metrics.slow.down();
        self.counters().slow_tenants.of(self.settings.get().upstream).down();
    }

    /// Refuses the newest fragments of a lane that has become slow, until slow tenants are within their share.
    fn refuse_beyond_share(&self, lane: &Rc<TenantLane>) {
        let settings = self.settings.get();
        while !self.shared.slow.admit(lane.held.get().0, &settings.slow) {
            let Some(fragment) = lane.queue.borrow_mut().take_newest() else { return };
            self.waits_no_more(lane, 1);
            self.counters().slow_refused.add(1);
            // Not into the spool: it would keep its room until it is durable.
            self.end_for_good(lane, fragment, Failure::OverSlowShare.outcome(settings.timeout));
            self.ring();
        }
    }
}
