//! Inbound side of a core: accepts connections, reads and splits requests, and answers when all parts have outcomes.
//!
//! A push takes six steps from its socket to its fragments:
//!
//! ```text
//! listener::assign ─► Ingest::serve ─► Connection::run ─► Connection::serve_request ─► Ingest::push ─► Dispatch::send
//!   (choose core)        (a task)       (wait, repeat)          (head, body)              (split)        (one part)
//! ```

mod announcements;
mod close;
mod connection;
mod credential;
mod dispatch;
mod handshake;
mod handshakes;
pub mod listener;
mod note;
pub mod pending;
mod push;
mod routes;
mod senders;
mod tapped;
mod turns;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::credential::counters::CredentialCounters;
use self::handshakes::Handshakes;
use self::pending::Pending;
use self::senders::Senders;
use self::turns::Turns;
use crate::config::plan::{Live, Plan};
use crate::exchange::Exchange;
use crate::io::buffers::Buffers;
use crate::io::deadline::Deadlines;
use crate::io::stream::Blocking;
use crate::io::tasks::Tasks;
use crate::io::verdicts::Verdicts;
use crate::limits::DRAIN_FIRST_REQUEST_MILLIS;
use crate::log::Limiter;
use crate::metrics::{CoreMetrics, Metrics};
use crate::shared::Shared;
use crate::split::Splitter;

/// The inbound side of one core.
#[derive(Debug)]
pub struct Ingest {
    plan: Live,
    blocking: Blocking,
    shared: Arc<Shared>,
    exchange: Rc<Exchange>,
    pending: Pending,
    handshakes: Handshakes,
    turns: Turns,
    verdicts: Verdicts,
    credentials: RefCell<CredentialCounters>,
    senders: RefCell<Senders>,
    splitters: RefCell<Vec<Splitter>>,
    buffers: Buffers,
    deadlines: Deadlines,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    /// Limits the log lines about refused requests.
    limiter: RefCell<Limiter>,
    /// Requests until the next one that the access log's sampling chooses, and that of traces.
    lines_until_sample: Cell<usize>,
    traces_until_sample: Cell<usize>,
    closing: Cell<bool>,
    draining: Cell<bool>,
}

impl Ingest {
    /// Creates the ingest of the core that owns `exchange`. `blocking` is the socket mode that its ring needs.
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
            handshakes: Handshakes::default(),
            turns: Turns::default(),
            verdicts: Verdicts::default(),
            credentials: RefCell::default(),
            senders: RefCell::default(),
            splitters: RefCell::default(),
            buffers: Buffers::default(),
            deadlines,
            tasks,
            metrics,
            limiter: RefCell::default(),
            lines_until_sample: Cell::new(0),
            traces_until_sample: Cell::new(0),
            closing: Cell::new(false),
            draining: Cell::new(false),
        })
    }

    /// Stops accepting connections.
    pub fn close(&self) {
        self.closing.set(true);
    }

    /// Returns whether [`close`](Self::close) was called.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Ends each connection after its current request. A connection without a request yet may still send its first one
    /// within [`DRAIN_FIRST_REQUEST_MILLIS`], unless its TLS handshake is not complete: then it ends now.
    pub fn drain(&self) {
        self.draining.set(true);
        self.handshakes.cut_all();
        self.deadlines.cut_idle(Instant::now() + Duration::from_millis(DRAIN_FIRST_REQUEST_MILLIS));
    }

    /// Returns whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Returns the current plan.
    fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Returns this core's number.
    pub fn core(&self) -> usize {
        self.exchange.core()
    }

    /// Returns the socket mode that this core's ring needs.
    pub fn blocking(&self) -> Blocking {
        self.blocking
    }

    /// Returns the state that all cores share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns this core's exchange.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Returns the requests that wait for outcomes.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Returns the requests that wait for verdicts about passwords.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Returns this core's counters.
    pub fn counters(&self) -> &CoreMetrics {
        self.metrics.core(self.exchange.core())
    }
}
