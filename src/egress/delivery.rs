//! Delivers fragments.
//!
//! Design constraints:
//! - A fragment's sender gets exactly one outcome, whatever happens: it waits for nothing else.
//! - It gets it in time. A fragment has one `timeout` until it must be on its way, and one more if what it was sent
//!   with was refused and it goes alone, or in [`pieces`](super::pieces); its last attempt takes no more than
//!   another.
//! - An outcome is of this part alone: nobody hears what became of those that it was merged with.
//!
//! A fragment that did not get through before ([`receipts`](super::receipts)) is put into its tenant's
//! [`lane`](super::lane); what the lane gives out is sent over a connection of the [`pool`](crate::upstream::pool)
//! and answered by what comes back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::attempt::Way;
use super::failure::Failure;
use super::flights::{Flights, over_slow_share};
use super::lane::{Lane, LaneLimits, Next, Queued};
use super::pieces::is_too_large;
use super::receipts::{ReceiptLimits, Receipts};
use super::sizes::Sizes;
use crate::config::plan::{Share, Terms};
use crate::exchange::Exchange;
use crate::exchange::fragment::{Delivered, Fragment, Message};
use crate::http::Passed;
use crate::io::tasks::Tasks;
use crate::limits::{PART_INFLATED_BYTES_MAX, UNMERGED_SECS};
use crate::log::Limiter;
use crate::metrics::{CoreMetrics, Gauge, Metrics, TenantMetrics, UpstreamClass};
use crate::model::{Destination, MergeKey};
use crate::model::{Outcome, blames_content};
use crate::shared::Shared;
use crate::shared::receipt::ReceiptKey;
use crate::shared::slow::{Class, Standing};
use crate::tenant::TenantId;
use crate::upstream::client::Reply;
use crate::upstream::pool::{Pool, PoolLimits};
use crate::upstream::request::RequestHeads;

/// The settings of delivery.
#[derive(Clone, Copy, Debug)]
pub struct EgressSettings {
    /// What it delivers to.
    pub destination: Destination,
    /// When and how much a lane merges.
    pub lane: LaneLimits,
    /// What the parts of one tenant may take.
    pub share: Share,
    /// What the parts of all slow tenants may take.
    pub slow: Share,
    /// What receipts are made with.
    pub receipt_key: ReceiptKey,
    /// How long and how many receipts are kept.
    pub receipts: ReceiptLimits,
    /// How long an upstream may take to answer, and how long a fragment may wait to be sent.
    pub timeout: Duration,
    /// Lanes that are kept though nothing is in them; past this, a lane goes when it is empty.
    pub lanes_max: usize,
    /// Whether every answer of an upstream other than 2xx is logged.
    pub log_response_errors: bool,
    /// Whether an upstream that takes Remote Write 2.0 without saying what it wrote counts as failed.
    pub require_written: bool,
}

/// One core's egress to one destination.
#[derive(Debug)]
pub struct Egress {
    /// Exchanged as a whole when others are loaded.
    pub(super) settings: Cell<EgressSettings>,
    /// The heads under the terms of the fragment that was sent last.
    pub(super) heads: RefCell<(Arc<Terms>, RequestHeads)>,
    pub(super) pool: Pool,
    pub(super) flights: Flights,
    pub(super) shared: Arc<Shared>,
    exchange: Rc<Exchange>,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    lanes: RefCell<HashMap<TenantId, Rc<TenantLane>>>,
    receipts: RefCell<Receipts>,
    limiter: RefCell<Limiter>,
    /// Of lines about upstream addresses; no tenant's lines are to be lost with them.
    pub(super) address_limiter: RefCell<Limiter>,
    /// Of lines about what the upstream does not say.
    pub(super) word_limiter: RefCell<Limiter>,
}

#[derive(Debug)]
pub(super) struct TenantLane {
    tenant: TenantId,
    pub(super) lane: RefCell<Lane<Box<Fragment>>>,
    /// Fragments that have no outcome yet, and their bytes.
    pub(super) held: Cell<(usize, usize)>,
    /// Its upstream has lately not answered in time: see [`pace`](crate::shared::pace).
    pub(super) slow: Cell<bool>,
    /// Its requests that were cut or timed out in a row.
    pub(super) strikes: Cell<u32>,
    /// Which sizes of its requests upstreams take.
    pub(super) sizes: RefCell<Sizes>,
    /// Whether a task waits for the lane's linger to end.
    lingers: Cell<bool>,
    metrics: Arc<TenantMetrics>,
}

/// Fragments that go in one upstream request; boxed, as they move from queue to queue.
type Batch = Vec<Box<Fragment>>;

impl TenantLane {
    /// Takes on a fragment of so many bytes, unless that is more than the tenant's share. A single one always fits.
    fn take_on(&self, bytes: usize, share: &Share) -> bool {
        let (parts, held) = self.held.get();
        let fits = parts == 0 || (parts < share.parts_max && held + bytes <= share.bytes_max);
        if fits {
            self.held.set((parts + 1, held + bytes));
        }
        fits
    }

    /// A fragment of so many bytes has its outcome.
    fn let_go(&self, bytes: usize) {
        let (parts, held) = self.held.get();
        self.held.set((parts - 1, held - bytes));
    }

    /// The most that one of its requests should inflate to.
    fn bytes_max(&self, now: Instant) -> usize {
        let known = self.sizes.borrow_mut().bytes_max(now);
        known.map_or(PART_INFLATED_BYTES_MAX, |known| known.min(PART_INFLATED_BYTES_MAX))
    }

    fn standing(&self) -> Standing {
        match self.slow.get() {
            true => Standing { class: Class::Slow, strikes: self.strikes.get() },
            false => Standing::PROMPT,
        }
    }
}

impl Queued for Box<Fragment> {
    fn merge_key(&self) -> &MergeKey {
        &self.part.merge
    }

    fn goes_with(&self, other: &Self) -> bool {
        self.part.merge.merges_with(&other.part.merge)
            && Arc::ptr_eq(&self.terms, &other.terms)
            && Passed::deciding(self.passed.as_deref()) == Passed::deciding(other.passed.as_deref())
    }

    fn inflated_bytes(&self) -> usize {
        self.part.inflated_bytes as usize
    }

    fn alone(&self) -> bool {
        self.alone
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn start_by(&self) -> Instant {
        self.start_by
    }
}

impl Egress {
    /// The egress of the core of `exchange`.
    pub fn new(
        settings: EgressSettings,
        terms: &Arc<Terms>,
        pool: Pool,
        shared: Arc<Shared>,
        exchange: Rc<Exchange>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Rc<Self> {
        let heads = RequestHeads::new(terms, settings.destination);
        Rc::new(Self {
            settings: Cell::new(settings),
            heads: RefCell::new((Arc::clone(terms), heads)),
            pool,
            flights: Flights::default(),
            shared,
            exchange,
            tasks,
            metrics,
            lanes: RefCell::default(),
            receipts: RefCell::default(),
            limiter: RefCell::default(),
            address_limiter: RefCell::default(),
            word_limiter: RefCell::default(),
        })
    }

    /// Takes on a fragment, whose sender will get one outcome.
    pub fn accept(self: &Rc<Self>, fragment: Box<Fragment>) {
        let lane = self.lane(&fragment.part.tenant);
        lane.metrics.received(u64::from(fragment.part.series), u64::from(fragment.part.samples));
        match self.admit(&lane, &fragment) {
            Ok(()) => {
                lane.lane.borrow_mut().push(fragment);
                self.waiting().up();
                self.pump(&lane);
            }
            Err(outcome) => {
                self.tell(*fragment, outcome);
                self.retire(&lane);
            }
        }
    }

    /// Makes room for a fragment in its lane, unless its outcome is known already.
    fn admit(&self, lane: &TenantLane, fragment: &Fragment) -> Result<(), Outcome> {
        if let Some(outcome) = self.delivered_before(fragment) {
            self.counters().receipts_used.add(1);
            return Err(outcome);
        }
        let (settings, bytes) = (self.settings.get(), fragment.part.elements.len());
        if lane.slow.get() && !self.shared.slow.admit(lane.held.get().0, &settings.slow) {
            self.counters().slow_refused.add(1);
            return Err(over_slow_share());
        }
        if !lane.take_on(bytes, &settings.share) {
            self.counters().over_share.add(1);
            let reason = "this tenant has its share in flight (limits.tenant_share_percent)";
            return Err(Outcome::overloaded(reason));
        }
        if lane.slow.get() {
            self.shared.slow.add(1, bytes);
        }
        Ok(())
    }

    /// From now on by these. Fragments that are here keep to the terms that they came with.
    pub fn settle(&self, settings: EgressSettings, limits: PoolLimits) {
        self.settings.set(settings);
        self.pool.limit(limits);
    }

    /// The pool, for the notices that concern it.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Keeps the pool tidy until it is closed. One task a core.
    pub async fn keep_tidy(&self) {
        self.pool.keep_tidy(|| self.gauge_connections()).await;
    }

    /// How many fragments wait.
    pub(super) fn waiting(&self) -> &Gauge {
        self.counters().lanes_waiting.of(self.settings.get().destination)
    }

    pub(super) fn gauge_connections(&self) {
        let (open, idle) = (self.pool.open(), self.pool.idle());
        let (counters, destination) = (self.counters(), self.settings.get().destination);
        counters.upstream_open.of(destination).set(open);
        counters.upstream_idle.of(destination).set(idle);
        counters.upstream_in_backoff.of(destination).set(self.pool.in_backoff());
    }

    pub(super) fn counters(&self) -> &CoreMetrics {
        self.metrics.core(self.exchange.core())
    }

    fn lane(&self, tenant: &TenantId) -> Rc<TenantLane> {
        if let Some(lane) = self.lanes.borrow().get(tenant) {
            return Rc::clone(lane);
        }
        let lane = Rc::new(TenantLane {
            tenant: tenant.clone(),
            lane: RefCell::default(),
            held: Cell::default(),
            slow: Cell::default(),
            strikes: Cell::default(),
            sizes: RefCell::default(),
            lingers: Cell::new(false),
            metrics: self.metrics.tenant(self.exchange.core(), self.settings.get().destination, tenant),
        });
        self.lanes.borrow_mut().insert(tenant.clone(), Rc::clone(&lane));
        self.counters().lanes.of(self.settings.get().destination).set(self.lanes.borrow().len());
        lane
    }

    /// Starts whatever the lane gives out now.
    fn pump(self: &Rc<Self>, lane: &Rc<TenantLane>) {
        while let Some(batch) = self.next_batch(lane) {
            let (egress, lane) = (Rc::clone(self), Rc::clone(lane));
            self.tasks.spawn(async move { egress.work(lane, batch).await });
        }
    }

    /// Delivers a batch, then whatever has gathered behind it, until the lane has nothing for it.
    async fn work(self: Rc<Self>, lane: Rc<TenantLane>, batch: Batch) {
        let mut next = Some(batch);
        while let Some(batch) = next {
            self.deliver(&lane, batch).await;
            lane.lane.borrow_mut().finished();
            next = self.next_batch(&lane);
            if next.is_some() {
                // What must go alone, or is full, may leave beside it.
                self.pump(&lane);
            }
        }
        self.retire(&lane);
    }

    fn next_batch(self: &Rc<Self>, lane: &Rc<TenantLane>) -> Option<Batch> {
        let now = Instant::now();
        let expired = lane.lane.borrow_mut().take_expired(now);
        self.waiting().down_by(expired.len());
        for expired in expired {
            self.counters().upstream_outcome(UpstreamClass::Expired);
            let outcome = Outcome::overloaded("it could not be sent to the upstream in time");
            self.answer(lane, expired, outcome);
        }
        let next = lane.lane.borrow_mut().next(now, &self.lane_limits(lane, now));
        match next {
            Next::Send(batch) => {
                self.waiting().down_by(batch.len());
                Some(batch)
            }
            Next::Nothing => None,
            Next::Wait(until) => {
                self.linger(lane, until);
                None
            }
        }
    }

    /// The limits of merging, less what the upstream has shown not to take of this tenant.
    fn lane_limits(&self, lane: &TenantLane, now: Instant) -> LaneLimits {
        let limits = self.settings.get().lane;
        let bytes_max = lane.bytes_max(now);
        LaneLimits { inflated_bytes_max: limits.inflated_bytes_max.min(bytes_max), ..limits }
    }

    fn linger(self: &Rc<Self>, lane: &Rc<TenantLane>, until: Instant) {
        if lane.lingers.replace(true) {
            return;
        }
        let (egress, lane) = (Rc::clone(self), Rc::clone(lane));
        self.tasks.spawn(async move {
            monoio::time::sleep_until(until.into()).await;
            lane.lingers.set(false);
            egress.pump(&lane);
        });
    }

    /// Forgets an empty lane when there are more than are worth keeping.
    fn retire(&self, lane: &TenantLane) {
        let mut lanes = self.lanes.borrow_mut();
        if lanes.len() > self.settings.get().lanes_max && lane.lane.borrow().is_idle() && !lane.lingers.get()
        {
            lanes.remove(&lane.tenant);
            self.turns_prompt(lane);
            self.counters().lanes.of(self.settings.get().destination).set(lanes.len());
        }
    }

    async fn deliver(&self, lane: &Rc<TenantLane>, batch: Batch) {
        let mut batch = match self.known_too_large(lane, batch) {
            Ok(fragment) => {
                let refusal = Outcome::upstream(413, None, b"the upstream takes no request as large as this");
                return self.deliver_in_pieces(lane, fragment, refusal).await;
            }
            Err(batch) => batch,
        };
        let connection = self.connection(lane.standing(), start_by(&batch)).await;
        if connection.is_ok() {
            self.let_others_join(lane, &mut batch);
        }
        let outcome = match self.attempt_over(connection, lane, &batch).await {
            Ok(reply) if batch.len() > 1 && blames_content(reply.status) => {
                return self.send_alone(lane, batch);
            }
            Ok(reply) if is_too_large(&reply) => {
                let refusal = reply.into_outcome();
                for fragment in batch {
                    self.deliver_in_pieces(lane, fragment, refusal.clone()).await;
                }
                return;
            }
            Ok(reply) => reply.into_outcome(),
            Err(failure) => failure.outcome(self.settings.get().timeout),
        };
        batch.into_iter().for_each(|fragment| self.answer(lane, fragment, outcome.clone()));
    }

    /// Takes along what has come while the batch waited for its turn and for a connection.
    fn let_others_join(&self, lane: &TenantLane, batch: &mut Batch) {
        let (now, were) = (Instant::now(), batch.len());
        lane.lane.borrow_mut().join(batch, now, &self.lane_limits(lane, now));
        self.waiting().down_by(batch.len() - were);
    }

    /// The one fragment of a batch that is larger than what its upstream has shown to take, if it is of several series.
    fn known_too_large(&self, lane: &TenantLane, mut batch: Batch) -> Result<Box<Fragment>, Batch> {
        match &batch[..] {
            [one] if one.part.series > 1 && self.is_known_too_large(lane, &batch) => batch.pop().ok_or(batch),
            _ => Err(batch),
        }
    }

    /// Whether fragments are together larger than what their upstream has shown to take.
    pub(super) fn is_known_too_large(&self, lane: &TenantLane, batch: &[Box<Fragment>]) -> bool {
        inflated_bytes(batch) > lane.bytes_max(Instant::now()) as u64
    }

    /// Sends fragments in one request, and counts what becomes of it.
    pub(super) async fn attempt(
        &self,
        lane: &Rc<TenantLane>,
        batch: &[Box<Fragment>],
    ) -> Result<Reply, Failure> {
        let connection = self.connection(lane.standing(), start_by(batch)).await;
        self.attempt_over(connection, lane, batch).await
    }

    async fn attempt_over(
        &self,
        connection: Result<Way, Failure>,
        lane: &Rc<TenantLane>,
        batch: &[Box<Fragment>],
    ) -> Result<Reply, Failure> {
        let sent = Instant::now();
        self.count_batch(batch, sent);
        let result = match connection {
            Ok(way) => self.send(way, lane, batch).await,
            Err(failure) => Err(failure),
        };
        self.gauge_connections();
        self.count_result(lane, &result, sent.elapsed());
        result.map(|reply| self.hold_to_its_word(reply, batch))
    }

    /// The upstream refused a merged request for what is in it: each part goes once more alone, so that nobody
    /// hears another's error, and nobody's series are lost with another's.
    fn send_alone(&self, lane: &TenantLane, batch: Batch) {
        let now = Instant::now();
        let mut queue = lane.lane.borrow_mut();
        queue.stop_merging(now + Duration::from_secs(UNMERGED_SECS));
        for mut fragment in batch {
            fragment.alone = true;
            fragment.start_by += self.settings.get().timeout;
            self.waiting().up();
            queue.push(fragment);
        }
    }

    /// Remembers a part that got through though its request failed.
    pub fn remember(&self, delivered: Delivered) {
        let mut receipts = self.receipts.borrow_mut();
        receipts.keep(delivered.receipt, delivered.outcome, Instant::now(), &self.settings.get().receipts);
        self.counters().receipts.of(self.settings.get().destination).set(receipts.len());
    }

    pub(super) fn delivered_before(&self, fragment: &Fragment) -> Option<Outcome> {
        let mut receipts = self.receipts.borrow_mut();
        if receipts.is_empty() {
            return None;
        }
        let outcome = receipts.find(fragment.receipt?, Instant::now(), &self.settings.get().receipts);
        self.counters().receipts.of(self.settings.get().destination).set(receipts.len());
        outcome
    }

    pub(super) fn answer(&self, lane: &TenantLane, fragment: Box<Fragment>, outcome: Outcome) {
        let bytes = fragment.part.elements.len();
        lane.let_go(bytes);
        if lane.slow.get() {
            self.shared.slow.sub(1, bytes);
        }
        self.tell(*fragment, outcome);
    }

    /// Gives a fragment's sender its outcome.
    fn tell(&self, fragment: Fragment, outcome: Outcome) {
        let Fragment { sender, charge, .. } = fragment;
        drop(charge);
        self.counters()
            .doorbells_rung
            .add(u64::from(self.exchange.send(sender.core, Message::Outcome(sender, outcome))));
    }

    fn count_batch(&self, batch: &[Box<Fragment>], now: Instant) {
        let counters = self.counters();
        counters.upstream_requests.add(1);
        counters.upstream_bytes.add(batch.iter().map(|f| f.part.elements.len() as u64).sum());
        if batch.len() > 1 {
            counters.merges.add(1);
            counters.merged_fragments.add(batch.len() as u64);
        }
        for fragment in batch {
            counters.lane_wait.observe((now - fragment.arrived).as_secs_f64());
        }
    }

    fn count_result(&self, lane: &TenantLane, result: &Result<Reply, Failure>, took: Duration) {
        let millis = took.as_secs_f64() * 1e3;
        match result {
            Ok(reply) => {
                self.counters().upstream_outcome(UpstreamClass::of_status(reply.status));
                lane.metrics.answered(reply.status, millis);
                if let Some(redirect) = reply.redirect() {
                    self.log(lane, &redirect.message);
                } else if self.settings.get().log_response_errors && !(200..300).contains(&reply.status) {
                    self.log(
                        lane,
                        &format!(
                            "upstream answered {}: {}",
                            reply.status,
                            String::from_utf8_lossy(&reply.message).trim()
                        ),
                    );
                }
            }
            Err(failure) => {
                self.counters().upstream_outcome(failure.class());
                lane.metrics.failed();
                self.log(lane, &failure.to_string());
            }
        }
    }

    fn log(&self, lane: &TenantLane, what: &str) {
        let allowed = self.limiter.borrow_mut().allow(lane.tenant.as_str(), Instant::now());
        if let Some(suppressed) = allowed {
            tracing::error!(tenant = lane.tenant.as_str(), suppressed, "{what}");
        }
    }
}

/// When a batch has to be on its way.
fn start_by(batch: &[Box<Fragment>]) -> Instant {
    batch.iter().map(|fragment| fragment.start_by).min().unwrap_or_else(Instant::now)
}

/// What fragments inflate to together.
pub(super) fn inflated_bytes(batch: &[Box<Fragment>]) -> u64 {
    batch.iter().map(|fragment| u64::from(fragment.part.inflated_bytes)).sum()
}
