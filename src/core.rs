//! A core: one thread with one ring, on which ingest and egress meet at the exchange.
//!
//! A core ends in three steps, as other cores may still need it after its own work is done:
//!
//! - On `Close` it stops accepting and reports that.
//! - On `Drain` it finishes its requests and reports that. `Drain` is sent once no core accepts, so none hands over
//!   connections any more.
//! - On `Stop` it closes its upstream connections and ends. `Stop` is sent once all cores have drained.
//!
//! All tasks of a core are joined before its ring is dropped.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;

use crate::config::plan::{Live, Plan, SpoolWhen};
use crate::egress::lane::{EARLY_INFLIGHT_MAX, LaneLimits};
use crate::egress::receipts::ReceiptLimits;
use crate::egress::spooling::SpoolLink;
use crate::egress::{Common, Egress, EgressSettings};
use crate::exchange::Exchange;
use crate::exchange::fragment::{Fragment, Message};
use crate::exchange::mailbox::{Mailbox, Post};
pub use crate::ingest::listener::Listener;
use crate::ingest::{Ingest, listener};
use crate::io::deadline::Deadlines;
use crate::io::driver::Driver;
use crate::io::stream::Blocking;
use crate::io::tasks::Tasks;
use crate::limits::FULL_BATCHES_INFLIGHT_MAX;
use crate::metrics::{Metrics, Unstored};
use crate::model::{Failure, PerUpstream, UpstreamId};
use crate::shared::Shared;
use crate::shared::permits::Directory;
use crate::spool::limits::SPOOL_LOOK_MILLIS;
use crate::spool::worker::Handle;
use crate::spool::{Stream, StreamTotals};
use crate::upstream::pool::{Pool, PoolLimits};
use crate::upstream::resolve::Addresses;

/// Everything that a core needs to start.
pub struct Setup {
    /// The core's number.
    pub core: usize,
    /// The CPU to pin it to. None lets the kernel choose.
    pub cpu: Option<usize>,
    /// The driver of its ring.
    pub driver: Driver,
    /// The posts to all cores, by number.
    pub posts: Box<[Post<Message>]>,
    /// The current plan.
    pub plan: Live,
    /// The state that all cores share.
    pub shared: Arc<Shared>,
    /// The addresses of each upstream.
    pub addresses: PerUpstream<Addresses>,
    /// The permits for connections to these addresses.
    pub directory: Arc<Directory>,
    /// The metrics of the whole process.
    pub metrics: Arc<Metrics>,
    /// The spool, if there is one.
    pub spool: Option<SpoolStart>,
    /// Receives the core's number once when it has closed, and again when it has drained.
    pub done: Sender<usize>,
    /// Receives the core's number when it has ended, with the reason (empty after `Stop`).
    pub ended: Sender<(usize, String)>,
}

/// What a core needs of the spool.
pub struct SpoolStart {
    /// The spool's thread.
    pub handle: Handle,
    /// What it has for the tenants that are at home on this core.
    pub found: Vec<(UpstreamId, Stream, StreamTotals)>,
}

/// The descriptors and queues that belong to one core.
pub struct Endpoints {
    /// The listeners from which the core accepts.
    pub listeners: Vec<Listener>,
    /// The core's mailbox.
    pub mailbox: Mailbox<Message>,
    /// The core's end of its doorbell.
    pub bell: StdUnixStream,
}

/// Starts a core's thread.
///
/// # Errors
/// If the thread can't be started.
pub fn start(setup: Setup, endpoints: Endpoints) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("core-{}", setup.core)).spawn(move || {
        setup.cpu.into_iter().for_each(pin);
        setup.metrics.core(setup.core).runs_as(rustix::thread::gettid().as_raw_nonzero().get());
        let (core, driver, ended) = (setup.core, setup.driver, setup.ended.clone());
        let result = driver.block_on(run(setup, endpoints)).flatten();
        let _ = ended.try_send((core, result.err().map(|e| e.to_string()).unwrap_or_default()));
    })
}

/// Pins the thread to `cpu`. Pinning only improves speed, so a failure (such as a changed affinity mask) is logged and
/// otherwise ignored.
fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "can't pin a core's thread");
    }
}

/// A core's work, from its start to `Stop`. [`start`] has a thread do it; several of them may also share a thread.
///
/// # Errors
/// If the doorbell can't be registered with the driver.
pub async fn run(setup: Setup, endpoints: Endpoints) -> io::Result<()> {
    let Endpoints { listeners, mailbox, bell } = endpoints;
    let core = Core::new(&setup, mailbox);
    let bell_end = bell.try_clone()?;
    bell.set_nonblocking(setup.driver.blocking() == Blocking::No)?;
    let bell = UnixStream::from_std(bell)?;
    core.background_tasks.spawn(forward_doorbell(bell, Rc::clone(&core.exchange)));
    let deadlines = core.deadlines.clone();
    let all = core.egress.clone();
    let (metrics, number) = (Arc::clone(&setup.metrics), setup.core);
    core.background_tasks.spawn(async move {
        let stalls = &metrics.core(number).stalls;
        let after_sweep = |now| {
            stalls.turned(now);
            all.iter().for_each(|(_, egress)| egress.look_at_requests(now));
        };
        deadlines.sweep_timed(|due| stalls.expect(due), after_sweep).await;
    });
    let has_stopped = Rc::new(Cell::new(false));
    if setup.spool.is_some() {
        core.background_tasks.spawn(look_at_spool(core.egress.clone(), Rc::clone(&has_stopped)));
    }
    for (_, egress) in core.egress.iter() {
        let egress = Rc::clone(egress);
        core.background_tasks.spawn(async move { egress.maintain().await });
    }
    let stop = listener::canceller();
    for listener in listeners {
        let accepting = listener::accept(listener, Rc::clone(&core.ingest), stop.handle());
        core.accept_tasks.spawn(async move {
            if let Err(error) = accepting.await {
                tracing::error!(%error, "a listener failed");
            }
        });
    }
    core.dispatch_until(Message::Close).await;
    core.ingest.close();
    drop(stop.cancel());
    core.announce_end_of(&core.accept_tasks, &setup);
    core.dispatch_until(Message::Drain).await;
    core.ingest.drain();
    core.egress.iter().for_each(|(_, egress)| egress.stop_replays());
    core.announce_end_of(&core.connection_tasks, &setup);
    core.dispatch_until(Message::Stop).await;
    has_stopped.set(true);
    core.pools().for_each(Pool::close);
    core.delivery_tasks.join().await;
    core.deadlines.end();
    // Ends the pending read of the doorbell, as a deadline ends a read from a peer.
    let _ = rustix::net::shutdown(&bell_end, rustix::net::Shutdown::Both);
    core.background_tasks.join().await;
    Ok(())
}

/// Looks now and then after what waits for the spool, and at its replays. The deadlines' sweep does not do that: it
/// pauses while there is nothing in flight.
async fn look_at_spool(all: PerUpstream<Rc<Egress>>, has_stopped: Rc<Cell<bool>>) {
    while !has_stopped.get() {
        monoio::time::sleep(Duration::from_millis(SPOOL_LOOK_MILLIS)).await;
        let now = Instant::now();
        all.iter().for_each(|(_, egress)| egress.look_at_spool(now));
    }
}

struct Core {
    plan: Live,
    /// The plan that [`Core::keep_up`] has applied last. It is kept, so that no other plan can have its address.
    applied: RefCell<Arc<Plan>>,
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    exchange: Rc<Exchange>,
    deadlines: Deadlines,
    ingest: Rc<Ingest>,
    egress: PerUpstream<Rc<Egress>>,
    metrics: Arc<Metrics>,
    /// The task that accepts connections.
    accept_tasks: Tasks,
    /// A task per inbound connection.
    connection_tasks: Tasks,
    /// The tasks of busy lanes.
    delivery_tasks: Tasks,
    /// Tasks that run for as long as the core.
    background_tasks: Tasks,
}

impl Core {
    fn new(setup: &Setup, mailbox: Mailbox<Message>) -> Self {
        // Loaded first: if the plan changes while pools are created, it is applied to all of them later.
        let applied = RefCell::new(setup.plan.load_full());
        let exchange = Rc::new(Exchange::new(setup.core, mailbox, setup.posts.clone()));
        let deadlines = Deadlines::default();
        let connection_tasks = Tasks::default();
        let delivery_tasks = connection_tasks.another();
        let ingest = Ingest::new(
            Arc::clone(&setup.plan),
            setup.driver.blocking(),
            Arc::clone(&setup.shared),
            Rc::clone(&exchange),
            deadlines.clone(),
            connection_tasks.clone(),
            Arc::clone(&setup.metrics),
        );
        let used = setup.addresses.iter().map(|(id, _)| id);
        let common =
            Common { exchange: Rc::clone(&exchange), tasks: delivery_tasks.clone(), merger: Rc::default() };
        let make = |id| Ok(egress(setup, id, &common, &deadlines));
        let Ok(egress) = PerUpstream::try_new::<std::convert::Infallible>(used, make);
        for (id, stream, totals) in setup.spool.iter().flat_map(|spool| &spool.found) {
            egress.of(*id).into_iter().for_each(|egress| egress.recover(stream, *totals));
        }
        Self {
            plan: Arc::clone(&setup.plan),
            applied,
            shared: Arc::clone(&setup.shared),
            directory: Arc::clone(&setup.directory),
            exchange,
            deadlines,
            ingest,
            egress,
            metrics: Arc::clone(&setup.metrics),
            accept_tasks: Tasks::default(),
            connection_tasks,
            delivery_tasks,
            background_tasks: Tasks::default(),
        }
    }

    /// Dispatches messages until `end`, which ends this phase.
    async fn dispatch_until(&self, end: Message) {
        let end = std::mem::discriminant(&end);
        loop {
            let message = self.exchange.receive().await;
            if std::mem::discriminant(&message) == end {
                return;
            }
            self.dispatch(message);
        }
    }

    fn dispatch(&self, message: Message) {
        match message {
            Message::Fragment(fragment) => {
                // It may have the terms of a plan whose `Reloaded` has not come yet. They must not be sent over the
                // connections of the plan before: these may be without TLS.
                self.keep_up();
                match self.egress.of(fragment.upstream) {
                    Some(egress) => egress.accept(fragment),
                    None => self.refuse(&fragment),
                }
            }
            Message::Outcome(address, outcome) => self.ingest.pending().resolve(address, outcome),
            Message::Remember(delivered) => {
                if let Some(egress) = self.egress.of(delivered.upstream) {
                    egress.remember(*delivered);
                }
            }
            Message::Connection(socket, guard) => self.ingest.serve(socket, guard),
            // Dropping it would release the permit.
            Message::Handed(upstream, handed) => {
                if let Some(egress) = self.egress.of(upstream) {
                    egress.pool().receive(*handed);
                }
            }
            Message::ConnectionWanted(address) => {
                self.pools().for_each(|pool| pool.hand_over_idle(address));
            }
            Message::PasswordChecked(ticket, verdict) => self.ingest.verdicts().deliver(ticket, verdict),
            Message::Spool(reply) => {
                self.keep_up();
                let id = reply.to.upstream;
                if let Some(egress) = self.egress.of(id) {
                    let plan = self.plan.load();
                    egress.spool_replied(*reply, plan.terms_of(id), plan.merge.ha_labels.as_ref());
                }
            }
            Message::Reloaded => self.keep_up(),
            Message::Inquiry(inquiry) => inquiry.answer(self.pools().flat_map(Pool::describe).collect()),
            Message::Beat(beat) => beat.answer(self.exchange.core()),
            // Each of these ends a phase, and is sent once.
            Message::Close | Message::Drain | Message::Stop => {}
        }
    }

    /// Refuses a fragment for an upstream that is not there. No plan in effect has one: a reload that adds an upstream
    /// is refused. But data must never go to another upstream than its own.
    fn refuse(&self, fragment: &Fragment) {
        let (counters, samples) = (self.metrics.core(self.exchange.core()), u64::from(fragment.part.samples));
        counters.ledger_transit.down_by(samples);
        counters.ledger_refused.add(Unstored::Overloaded, samples);
        let outcome = Failure::NoConnection.outcome(self.plan.load().timeout);
        if let Some(sender) = fragment.sender {
            self.exchange.send(sender.core, Message::Outcome(sender, outcome));
        }
    }

    /// Applies the current plan, unless that was done. Costs one comparison if it was.
    fn keep_up(&self) {
        let plan = self.plan.load();
        if !Arc::ptr_eq(&plan, &self.applied.borrow()) {
            self.apply_plan(&plan);
            *self.applied.borrow_mut() = Arc::clone(&plan);
        }
    }

    /// Applies what holds between requests: limits, and the TLS of connections. Ingest loads the plan for each request
    /// by itself.
    fn apply_plan(&self, plan: &Plan) {
        self.directory.limit_slow(plan.slow_connections_max());
        let limits = pool_limits(plan, self.ingest.blocking());
        let egresses = self.egress.len() * self.exchange.cores();
        for (id, egress) in self.egress.iter() {
            let settings = egress_settings(plan, id, &self.shared, egresses, self.exchange.cores());
            egress.apply(settings, limits, plan.tls_of(id));
        }
    }

    fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.egress.iter().map(|(_, egress)| egress.pool())
    }

    /// Reports this core's number on `done` once all of `tasks` have ended.
    fn announce_end_of(&self, tasks: &Tasks, setup: &Setup) {
        let (tasks, done, core) = (tasks.clone(), setup.done.clone(), setup.core);
        self.background_tasks.spawn(async move {
            tasks.join().await;
            let _ = done.try_send(core);
        });
    }
}

fn egress(setup: &Setup, id: UpstreamId, common: &Common, deadlines: &Deadlines) -> Rc<Egress> {
    let plan = setup.plan.load();
    let exchange = &common.exchange;
    let pool = Pool::new(
        id,
        setup.addresses.of(id).map(Arc::clone).unwrap_or_default(),
        Arc::clone(&setup.directory),
        Rc::clone(exchange),
        deadlines.clone(),
        pool_limits(&plan, setup.driver.blocking()),
        plan.tls_of(id),
    );
    let egresses = setup.addresses.len() * exchange.cores();
    let settings = egress_settings(&plan, id, &setup.shared, egresses, exchange.cores());
    Egress::new(
        settings,
        plan.terms_of(id),
        pool,
        Arc::clone(&setup.shared),
        common.clone(),
        Arc::clone(&setup.metrics),
        spool_link(setup, &plan, id),
    )
}

fn spool_link(setup: &Setup, plan: &Plan, id: UpstreamId) -> Option<SpoolLink> {
    let (start, settings) = setup.spool.as_ref().zip(plan.spool.as_ref())?;
    Some(SpoolLink {
        handle: start.handle.clone(),
        name: plan.upstreams.name_of(id).into(),
        always: settings.when == SpoolWhen::Always,
        on_429: settings.on_429,
    })
}

fn pool_limits(plan: &Plan, blocking: Blocking) -> PoolLimits {
    PoolLimits { age_max: plan.max_connection_duration, idle_max: plan.idle_timeout, blocking }
}

fn egress_settings(
    plan: &Plan,
    upstream: UpstreamId,
    shared: &Shared,
    egresses: usize,
    cores: usize,
) -> EgressSettings {
    // A tenant whose upstream stalls keeps its connections busy. The limit leaves some for other tenants.
    let connections_max = plan.tenant_connections_max();
    let inflight_max = plan.merge.inflight_max.unwrap_or(1).min(connections_max);
    let beside_max = connections_max.min(plan.max_conns_per_host / 4);
    let early_max = if plan.merge.inflight_max.is_none() { EARLY_INFLIGHT_MAX.min(beside_max) } else { 0 };
    let full_max = FULL_BATCHES_INFLIGHT_MAX.min(beside_max);
    EgressSettings {
        upstream,
        lane: LaneLimits {
            inflight_max,
            inflight_early_max: early_max,
            inflight_full_max: full_max.max(inflight_max),
            linger: plan.merge.linger,
            fragments_max: plan.merge.fragments_max,
            inflated_bytes_max: plan.merge.inflated_bytes_max,
        },
        // A quarter of the connections of an address stays free for requests that are not early.
        early_below: (plan.max_conns_per_host * 3 / 4 / cores.max(1)).max(2),
        share: plan.tenant_share(),
        slow: plan.slow_share(),
        receipts: ReceiptLimits {
            keep: plan.receipts.keep,
            bytes_max: plan.receipts.bytes_max / egresses.max(1),
        },
        receipt_key: shared.receipt_key,
        timeout: plan.timeout,
        lanes_max: plan.limits.tenants_max,
        log_response_errors: plan.log_response_errors,
        require_written: plan.remote_write_v2_require_written,
    }
}

/// Wakes the receiving task at each ring, until this end of the doorbell is shut down.
async fn forward_doorbell(mut bell: UnixStream, exchange: Rc<Exchange>) {
    let mut buffer = vec![0u8; 64];
    loop {
        let (rung, returned) = bell.read(buffer).await;
        buffer = returned;
        match rung {
            Ok(n) if n > 0 => exchange.wake(),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests;
