//! From fragments to upstream requests: the lanes of the tenants that are at home on this core.
//!
//! # Constraints
//! - Each fragment gets exactly one outcome, as its request waits for all of its outcomes and for nothing else.
//! - A fragment gets its outcome in time. It has one `timeout` until its request is sent, and one more if that request
//!   was refused and the fragment is sent again, alone or in [`pieces`]. The last attempt takes at most another.
//! - An outcome is about one fragment. It says nothing about the fragments that were merged with it.
//!
//! # Design
//!
//! ```text
//! fragment ─► lane (what goes next?) ─► delivery ─► pool (over which connection?) ─► client (POST, reply)
//!                                                                                      │
//! outcome, one for each fragment, to the core that its request came in on ◄────────────┘
//! ```
//!
//! A fragment whose part was delivered before ([`receipts`]) gets its outcome at once. Any other fragment goes into the
//! [`lane`] of its tenant, if the tenant's share has room. [`delivery`] sends what the lane gives out, over a
//! connection of the [`pool`](crate::upstream::pool), and the reply becomes the outcome.

mod answered;
mod attempt;
mod backlog;
mod delivery;
mod in_flight;
pub mod lane;
mod outgoing;
mod pieces;
#[cfg(test)]
pub(crate) mod planted;
pub mod receipts;
mod replay;
pub mod sizes;
mod slow;
mod spooled;
mod spooled_lane;
pub mod spooling;
mod tenant_lane;
mod traced;
mod written;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use self::in_flight::InFlight;
use self::lane::LaneLimits;
use self::receipts::{ReceiptLimits, Receipts};
use self::spooling::{SpoolLink, Spooling};
use self::tenant_lane::TenantLane;
use crate::config::plan::{Share, Terms};
use crate::config::tls::UpstreamTls;
use crate::exchange::Exchange;
use crate::exchange::fragment::{Delivered, Fragment, Message};
use crate::io::tasks::Tasks;
use crate::log::Limiter;
use crate::metrics::ledger::Entry;
use crate::metrics::{CoreMetrics, Metrics, Unstored};
use crate::model::{Failure, Outcome, UpstreamId};
use crate::shared::Shared;
use crate::shared::receipt::ReceiptKey;
use crate::split::Merger;
use crate::tenant::TenantId;
use crate::upstream::pool::{Pool, PoolLimits};
use crate::upstream::request::RequestHeads;

/// The settings of one core's egress to one upstream.
#[derive(Clone, Copy, Debug)]
pub struct EgressSettings {
    /// The upstream.
    pub upstream: UpstreamId,
    /// When and how much a lane merges.
    pub lane: LaneLimits,
    /// Requests leave early while fewer than this are in flight from this core.
    pub early_below: usize,
    /// How much the fragments of one tenant may hold.
    pub share: Share,
    /// How much the fragments of all slow tenants may hold.
    pub slow: Share,
    /// The key that receipts are made with.
    pub receipt_key: ReceiptKey,
    /// How long and how many receipts are kept.
    pub receipts: ReceiptLimits,
    /// How long an upstream may take to answer, and how long a fragment may wait to be sent.
    pub timeout: Duration,
    /// Lanes to keep even when they are empty. Beyond this number a lane is dropped once it is empty.
    pub lanes_max: usize,
    /// Whether every upstream reply other than 2xx is logged.
    pub log_response_errors: bool,
    /// Whether an upstream that accepts Remote Write 2.0 without saying how much it wrote counts as failed.
    pub require_written: bool,
}

/// What all egresses of one core share.
#[derive(Clone, Debug)]
pub struct Common {
    /// The core's side of the exchange.
    pub exchange: Rc<Exchange>,
    /// The tasks that deliver.
    pub tasks: Tasks,
    /// Its scratch buffers take some megabytes, so there is one.
    pub merger: Rc<RefCell<Merger>>,
}

/// One core's egress to one upstream, for one kind of data.
#[derive(Debug)]
pub struct Egress {
    /// Replaced as a whole on reload.
    settings: Cell<EgressSettings>,
    /// The request heads for the terms of the fragment that was sent last.
    heads: RefCell<(Arc<Terms>, RequestHeads)>,
    pool: Pool,
    in_flight: InFlight,
    /// Requests that lanes have given out and that have not ended.
    requests: Cell<usize>,
    shared: Arc<Shared>,
    exchange: Rc<Exchange>,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    lanes: RefCell<HashMap<TenantId, Rc<TenantLane>>>,
    receipts: RefCell<Receipts>,
    merger: Rc<RefCell<Merger>>,
    /// `None`: nothing is spooled.
    spool: Option<SpoolLink>,
    spooling: Spooling,
    log_limits: LogLimits,
}

/// How often lines are logged. Each subject has a limiter of its own, so that one cannot suppress the lines of another.
#[derive(Debug, Default)]
struct LogLimits {
    tenants: RefCell<Limiter>,
    addresses: RefCell<Limiter>,
    /// For upstreams that do not say how much they wrote.
    unwritten: RefCell<Limiter>,
}

impl Egress {
    /// Creates an egress of the core that has this in `common`.
    pub fn new(
        settings: EgressSettings,
        terms: &Arc<Terms>,
        pool: Pool,
        shared: Arc<Shared>,
        common: Common,
        metrics: Arc<Metrics>,
        spool: Option<SpoolLink>,
    ) -> Rc<Self> {
        let Common { exchange, tasks, merger } = common;
        let heads = RequestHeads::new(terms, settings.upstream.destination());
        Rc::new(Self {
            settings: Cell::new(settings),
            heads: RefCell::new((Arc::clone(terms), heads)),
            pool,
            in_flight: InFlight::default(),
            requests: Cell::default(),
            shared,
            exchange,
            tasks,
            metrics,
            lanes: RefCell::default(),
            receipts: RefCell::default(),
            merger,
            spool,
            spooling: Spooling::default(),
            log_limits: LogLimits::default(),
        })
    }

    /// Accepts a fragment for delivery. Its sender gets one outcome.
    pub fn accept(self: &Rc<Self>, mut fragment: Box<Fragment>) {
        let lane = self.lane(&fragment.part.tenant);
        #[cfg(test)]
        let lane = planted::lane(self, lane);
        self.enter_in_ledger(&lane, &mut fragment);
        lane.metrics.worked(fragment.part.inflated_bytes);
        lane.note_arrival(&fragment);
        match self.admit(&lane, &mut fragment) {
            Ok(()) if self.spools_at_once(&lane) => self.spool(&lane, fragment, None),
            Ok(()) => {
                lane.queue.borrow_mut().push(fragment);
                self.waits(&lane, 1);
                self.pump(&lane);
            }
            Err(outcome) => {
                self.settle(&lane, &mut fragment, &outcome);
                self.push_outcome(fragment, outcome);
                self.ring();
                self.retire(&lane);
            }
        }
    }

    /// Counts a fragment that has come to its home core.
    fn enter_in_ledger(&self, lane: &TenantLane, fragment: &mut Fragment) {
        let samples = u64::from(fragment.part.samples);
        self.counters().ledger_transit.down_by(samples);
        self.counters().ledger_arrived.add(samples);
        lane.metrics.received(u64::from(fragment.part.series), samples);
        fragment.entry = Entry::open(samples, &lane.metrics);
    }

    /// Ends a fragment's entry in the ledger. What was stored has been counted when it was sent. If it has an outcome
    /// and was not sent, it had been stored before.
    fn settle(&self, lane: &TenantLane, fragment: &mut Fragment, outcome: &Outcome) {
        let entry = std::mem::take(&mut fragment.entry);
        if !outcome.is_delivered() {
            entry.refuse(Unstored::of(outcome));
            lane.note_error(fragment, outcome);
        }
    }

    /// Reserves room for a fragment in its lane, unless its outcome is known already.
    fn admit(&self, lane: &TenantLane, fragment: &mut Fragment) -> Result<(), Outcome> {
        if let Some(outcome) = self.delivered_before(fragment) {
            self.counters().receipts_used.add(1);
            std::mem::take(&mut fragment.entry).repeat();
            return Err(outcome);
        }
        let (settings, bytes) = (self.settings.get(), fragment.part.elements.len());
        if lane.slow.get() && !self.shared.slow.admit(lane.held.get().0, &settings.slow) {
            self.counters().slow_refused.add(1);
            return Err(Failure::OverSlowShare.outcome(settings.timeout));
        }
        if !lane.reserve(bytes, &settings.share) {
            self.counters().over_share.add(1);
            return Err(Failure::OverShare.outcome(settings.timeout));
        }
        if lane.slow.get() {
            self.shared.slow.add(1, bytes);
        }
        Ok(())
    }

    /// Applies new settings. Fragments that are here already keep the terms that they came with.
    pub fn apply(&self, settings: EgressSettings, limits: PoolLimits, tls: Option<Arc<UpstreamTls>>) {
        self.settings.set(settings);
        self.pool.limit(limits);
        self.pool.secure(tls);
    }

    /// Returns the pool of connections to the upstream.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Keeps the pool tidy until it is closed. One task a core.
    pub async fn maintain(&self) {
        self.pool.maintain(|| self.gauge_connections()).await;
    }

    /// Remembers that a part was delivered although its request failed.
    pub fn remember(&self, delivered: Delivered) {
        let mut receipts = self.receipts.borrow_mut();
        receipts.keep(delivered.receipt, delivered.outcome, Instant::now(), &self.settings.get().receipts);
        self.counters().receipts.of(self.settings.get().upstream).set(receipts.len());
    }

    /// Returns the outcome of the same part in an earlier request, if it was delivered then.
    fn delivered_before(&self, fragment: &Fragment) -> Option<Outcome> {
        let mut receipts = self.receipts.borrow_mut();
        if receipts.is_empty() {
            return None;
        }
        let outcome = receipts.find(fragment.receipt?, Instant::now(), &self.settings.get().receipts);
        self.counters().receipts.of(self.settings.get().upstream).set(receipts.len());
        outcome
    }

    /// Returns the lane of a tenant, which is created if there is none.
    fn lane(&self, tenant: &TenantId) -> Rc<TenantLane> {
        if let Some(lane) = self.lanes.borrow().get(tenant) {
            return Rc::clone(lane);
        }
        let metrics =
            self.metrics.tenant(self.exchange.core(), self.settings.get().upstream.destination(), tenant);
        let lane = Rc::new(TenantLane::new(tenant.clone(), metrics));
        self.lanes.borrow_mut().insert(tenant.clone(), Rc::clone(&lane));
        self.counters().lanes.of(self.settings.get().upstream).set(self.lanes.borrow().len());
        lane
    }

    /// Drops an empty lane if there are more lanes than are worth keeping.
    fn retire(&self, lane: &TenantLane) {
        let mut lanes = self.lanes.borrow_mut();
        if lanes.len() > self.settings.get().lanes_max && lane.is_idle() {
            lanes.remove(&lane.tenant);
            self.turns_prompt(lane);
            self.counters().lanes.of(self.settings.get().upstream).set(lanes.len());
        }
    }

    /// Releases the room of a fragment and sends its outcome, or sends it into the spool.
    fn finish(&self, lane: &Rc<TenantLane>, fragment: Box<Fragment>, outcome: Outcome) {
        self.end(lane, fragment, outcome);
        self.ring();
    }

    /// The same. The caller must [`ring`](Self::ring) afterwards.
    fn end(&self, lane: &Rc<TenantLane>, fragment: Box<Fragment>, outcome: Outcome) {
        if fragment.sender.is_none() {
            lane.spool.ended(outcome);
        } else if self.spools_failed(&fragment, &outcome) {
            self.spool(lane, fragment, Some(outcome));
        } else {
            self.end_for_good(lane, fragment, outcome);
        }
    }

    /// The same for a fragment that does not go into the spool.
    fn end_for_good(&self, lane: &TenantLane, mut fragment: Box<Fragment>, outcome: Outcome) {
        self.settle(lane, &mut fragment, &outcome);
        #[cfg(test)]
        planted::look(lane);
        self.release(lane, &fragment);
        self.push_outcome(fragment, outcome);
    }

    /// Releases the room of a fragment.
    fn release(&self, lane: &TenantLane, fragment: &Fragment) {
        let bytes = fragment.part.elements.len();
        lane.release(bytes);
        if lane.slow.get() {
            self.shared.slow.sub(1, bytes);
        }
    }

    /// The caller must [`ring`](Self::ring) afterwards. The fragment comes in its box, because moving it costs more.
    fn push_outcome(&self, fragment: Box<Fragment>, outcome: Outcome) {
        let Fragment { sender, charge, held, .. } = *fragment;
        drop((charge, held));
        if let Some(sender) = sender {
            self.exchange.push(sender.core, Message::Outcome(sender, outcome));
        }
    }

    fn ring(&self) {
        self.counters().doorbells_rung.add(self.exchange.ring());
    }

    /// Counts fragments that wait in a lane from now on.
    fn waits(&self, lane: &TenantLane, fragments: usize) {
        self.counters().lanes_waiting.of(self.settings.get().upstream).up_by(fragments as u64);
        lane.metrics.waiting.up_by(fragments as u64);
    }

    /// Counts fragments that do not wait in a lane any more.
    fn waits_no_more(&self, lane: &TenantLane, fragments: usize) {
        self.counters().lanes_waiting.of(self.settings.get().upstream).down_by(fragments as u64);
        lane.metrics.waiting.down_by(fragments as u64);
    }

    fn gauge_connections(&self) {
        let (open, idle) = (self.pool.open(), self.pool.idle());
        let (counters, upstream) = (self.counters(), self.settings.get().upstream);
        counters.upstream_open.of(upstream).set(open);
        counters.upstream_idle.of(upstream).set(idle);
        counters.upstream_in_backoff.of(upstream).set(self.pool.in_backoff());
    }

    fn counters(&self) -> &CoreMetrics {
        self.metrics.core(self.exchange.core())
    }
}
