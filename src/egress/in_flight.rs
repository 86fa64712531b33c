//! One core's requests in flight to one upstream.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::tenant_lane::TenantLane;
use crate::io::deadline::Cutter;
use crate::shared::permits::SlowUse;
use crate::upstream::pool::Connection;

/// The requests, the oldest first.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    requests: RefCell<Vec<Rc<Request>>>,
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) lane: Rc<TenantLane>,
    pub(super) address: SocketAddr,
    /// When it was sent.
    pub(super) sent: Instant,
    pub(super) cutter: Cutter,
    pub(super) is_cut: Cell<bool>,
    /// Set if its connection counts as used by a slow tenant.
    pub(super) slow: RefCell<Option<SlowUse>>,
}

impl Request {
    /// Whether the request was cut because others needed its connection.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// Returns how long the request has been in flight.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.sent)
    }
}

impl InFlight {
    /// Adds a request of `lane` that is about to be sent over `connection`.
    pub(super) fn begin(
        &self,
        lane: &Rc<TenantLane>,
        connection: &Connection,
        slow: Option<SlowUse>,
    ) -> Rc<Request> {
        let request = Rc::new(Request {
            lane: Rc::clone(lane),
            address: connection.address(),
            sent: Instant::now(),
            cutter: connection.stream.cutter(),
            is_cut: Cell::new(false),
            slow: RefCell::new(slow),
        });
        self.requests.borrow_mut().push(Rc::clone(&request));
        request
    }

    /// Removes a request that was answered or has failed. Returns its use of the slow tenants' share, for another
    /// attempt.
    pub(super) fn end(&self, request: &Rc<Request>) -> Option<SlowUse> {
        self.requests.borrow_mut().retain(|other| !Rc::ptr_eq(other, request));
        request.slow.take()
    }

    /// Returns all requests, the oldest first.
    pub(super) fn all(&self) -> Vec<Rc<Request>> {
        self.requests.borrow().clone()
    }
}
