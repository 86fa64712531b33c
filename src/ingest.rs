//! From connections to fragments: accept, read requests, split them, and answer when every part has its outcome.
//!
//! A push takes six steps from its socket to its fragments:
//!
//! ```text
//! listener::place ─► Ingest::serve ─► Connection::run ─► Connection::request ─► Ingest::push ─► Dispatch::send
//!    (which core?)     (a task)       (wait, repeat)       (head, body)          (split)        (one part)
//! ```

mod connection;
pub mod listener;
pub mod pending;
mod push;
mod routes;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::pending::Pending;
use crate::config::plan::{Live, Plan};
use crate::exchange::Exchange;
use crate::io::buffers::Buffers;
use crate::io::deadline::Deadlines;
use crate::io::stream::Blocking;
use crate::io::tasks::Tasks;
use crate::limits::LAST_CALL_MILLIS;
use crate::log::Limiter;
use crate::metrics::{CoreMetrics, Metrics};
use crate::shared::Shared;
use crate::split::Splitter;

/// One core's ingest.
#[derive(Debug)]
pub struct Ingest {
    plan: Live,
    blocking: Blocking,
    shared: Arc<Shared>,
    exchange: Rc<Exchange>,
    pending: Pending,
    splitters: RefCell<Vec<Splitter>>,
    buffers: Buffers,
    deadlines: Deadlines,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    /// Of lines about requests that are refused.
    limiter: RefCell<Limiter>,
    closing: Cell<bool>,
    draining: Cell<bool>,
}

impl Ingest {
    /// The ingest of the core of `exchange`. `blocking` is how its ring wants its sockets.
    pub fn new(
        plan: Live,
        blocking: Blocking,
        shared: Arc<Shared>,
        exchange: Rc<Exchange>,
        deadlines: Deadlines,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Rc<Self> {
        Rc::new(Self {
            plan,
            blocking,
            shared,
            exchange,
            pending: Pending::default(),
            splitters: RefCell::default(),
            buffers: Buffers::default(),
            deadlines,
            tasks,
            metrics,
            limiter: RefCell::default(),
            closing: Cell::new(false),
            draining: Cell::new(false),
        })
    }

    /// From now on, no connection is accepted.
    pub fn close(&self) {
        self.closing.set(true);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// From now on, connections end with the request that they are at, or with their first, which is waited for a
    /// little.
    pub fn drain(&self) {
        self.draining.set(true);
        self.deadlines.cut_idle(Instant::now() + Duration::from_millis(LAST_CALL_MILLIS));
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// What holds now.
    fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// This core's number.
    pub fn core(&self) -> usize {
        self.exchange.core()
    }

    /// How the ring wants its sockets.
    pub fn blocking(&self) -> Blocking {
        self.blocking
    }

    /// What all cores share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The way to other cores.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Requests that wait for outcomes.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// This core's counters.
    pub fn counters(&self) -> &CoreMetrics {
        self.metrics.core(self.exchange.core())
    }
}
