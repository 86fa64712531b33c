//! A core: one pinned thread with one ring, on which ingest and egress meet at the exchange.
//!
//! A core ends in three steps, as others may still need it when it needs nobody any more: on `Close` it stops
//! accepting and says so; on `Drain`, which comes when nobody accepts and so nobody hands connections over any more,
//! it finishes its requests and says so; on `Stop`, which comes when all cores have drained, it closes its upstream
//! connections and ends. Its tasks are joined before its ring goes.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;

use crate::config::plan::{Live, Plan};
use crate::egress::lane::LaneLimits;
use crate::egress::receipts::ReceiptLimits;
use crate::egress::{Egress, EgressSettings};
use crate::exchange::Exchange;
use crate::exchange::fragment::Message;
use crate::exchange::mailbox::{Mailbox, Post};
use crate::ingest::{Ingest, listener};
use crate::io::deadline::Deadlines;
use crate::io::driver::Driver;
use crate::io::stream::Blocking;
use crate::io::tasks::Tasks;
use crate::limits::FULL_BATCHES_INFLIGHT_MAX;
use crate::metrics::Metrics;
use crate::model::{Destination, PerDestination};
use crate::shared::Shared;
use crate::shared::permits::Directory;
use crate::upstream::pool::{Pool, PoolLimits};
use crate::upstream::resolve::Addresses;

/// What a core is started with.
pub struct Setup {
    /// Its number.
    pub core: usize,
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// Which ring it has.
    pub driver: Driver,
    /// The ways into all cores.
    pub posts: Box<[Post<Message>]>,
    /// What is to be done.
    pub plan: Live,
    /// What all cores share.
    pub shared: Arc<Shared>,
    /// The upstreams' addresses.
    pub addresses: PerDestination<Addresses>,
    /// How many connections each of them may have.
    pub directory: Arc<Directory>,
    /// Everybody's counters.
    pub metrics: Arc<Metrics>,
    /// Where the core says that it has closed, and that it has drained.
    pub done: Sender<usize>,
    /// Where the core says that it has ended, and why (empty when it was told to).
    pub ended: Sender<(usize, String)>,
}

/// What connects a core to the rest of the world.
pub struct Endpoints {
    /// Its listener.
    pub listener: TcpListener,
    /// Its mailbox.
    pub mailbox: Mailbox<Message>,
    /// Its end of its doorbell.
    pub bell: StdUnixStream,
}

/// Starts a core's thread.
///
/// # Errors
/// When no thread can be started.
pub fn start(setup: Setup, endpoints: Endpoints) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("core-{}", setup.core)).spawn(move || {
        pin(setup.cpu);
        setup.metrics.core(setup.core).runs_as(rustix::thread::gettid().as_raw_nonzero().get());
        let (core, driver, ended) = (setup.core, setup.driver, setup.ended.clone());
        let result = driver.block_on(run(setup, endpoints)).flatten();
        let _ = ended.try_send((core, result.err().map(|e| e.to_string()).unwrap_or_default()));
    })
}

/// Pinning is for speed alone, so that a failure (a changed affinity mask) is no reason not to run.
fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "can't pin a core's thread");
    }
}

async fn run(setup: Setup, endpoints: Endpoints) -> io::Result<()> {
    let Endpoints { listener, mailbox, bell } = endpoints;
    let core = Core::new(&setup, mailbox);
    let bell_end = bell.try_clone()?;
    bell.set_nonblocking(setup.driver.blocking() == Blocking::No)?;
    let bell = UnixStream::from_std(bell)?;
    core.background_tasks.spawn(answer_the_bell(bell, Rc::clone(&core.exchange)));
    let deadlines = core.deadlines.clone();
    let looking = core.egress.clone();
    let look = move |now| looking.iter().for_each(|egress| egress.look_at_requests(now));
    core.background_tasks.spawn(async move { deadlines.sweep(look).await });
    for egress in core.egress.iter().map(Rc::clone) {
        core.background_tasks.spawn(async move { egress.keep_tidy().await });
    }
    let stop = listener::canceller();
    let accepting = listener::accept(listener, Rc::clone(&core.ingest), stop.handle());
    core.accept_tasks.spawn(async move {
        if let Err(error) = accepting.await {
            tracing::error!(%error, "a listener failed");
        }
    });
    core.until(Message::Close).await;
    core.ingest.close();
    drop(stop.cancel());
    core.announce_end_of(&core.accept_tasks, &setup);
    core.until(Message::Drain).await;
    core.ingest.drain();
    core.announce_end_of(&core.connection_tasks, &setup);
    core.until(Message::Stop).await;
    core.pools().for_each(Pool::close);
    core.delivery_tasks.join().await;
    core.deadlines.end();
    // Ends the read that waits for the bell, as a deadline ends one that waits for a peer.
    let _ = rustix::net::shutdown(&bell_end, rustix::net::Shutdown::Both);
    core.background_tasks.join().await;
    Ok(())
}

struct Core {
    plan: Live,
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    exchange: Rc<Exchange>,
    deadlines: Deadlines,
    ingest: Rc<Ingest>,
    egress: PerDestination<Rc<Egress>>,
    /// The listener.
    accept_tasks: Tasks,
    /// The connections.
    connection_tasks: Tasks,
    /// The lanes at work.
    delivery_tasks: Tasks,
    /// What runs as long as the core.
    background_tasks: Tasks,
}

impl Core {
    fn new(setup: &Setup, mailbox: Mailbox<Message>) -> Self {
        let exchange = Rc::new(Exchange::new(setup.core, mailbox, setup.posts.clone()));
        let deadlines = Deadlines::default();
        let (connection_tasks, delivery_tasks) = (Tasks::default(), Tasks::default());
        let ingest = Ingest::new(
            Arc::clone(&setup.plan),
            setup.driver.blocking(),
            Arc::clone(&setup.shared),
            Rc::clone(&exchange),
            deadlines.clone(),
            connection_tasks.clone(),
            Arc::clone(&setup.metrics),
        );
        let egress = PerDestination::new(|to| egress(setup, to, &exchange, &deadlines, &delivery_tasks));
        Self {
            plan: Arc::clone(&setup.plan),
            shared: Arc::clone(&setup.shared),
            directory: Arc::clone(&setup.directory),
            exchange,
            deadlines,
            ingest,
            egress,
            accept_tasks: Tasks::default(),
            connection_tasks,
            delivery_tasks,
            background_tasks: Tasks::default(),
        }
    }

    /// Hands out messages until the one that ends this phase.
    async fn until(&self, end: Message) {
        let end = std::mem::discriminant(&end);
        loop {
            let message = self.exchange.receive().await;
            if std::mem::discriminant(&message) == end {
                return;
            }
            self.hand_out(message);
        }
    }

    fn hand_out(&self, message: Message) {
        match message {
            Message::Fragment(fragment) => {
                self.egress.of(fragment.part.protocol.destination()).accept(fragment);
            }
            Message::Outcome(address, outcome) => self.ingest.pending().resolve(address, outcome),
            Message::Remember(delivered) => self.egress.of(delivered.destination).remember(*delivered),
            Message::Connection(socket, guard) => self.ingest.serve(socket, guard),
            Message::Handed(destination, handed) => self.egress.of(destination).pool().receive(*handed),
            Message::ConnectionWanted(address) => {
                self.pools().for_each(|pool| pool.hand_over_idle(address));
            }
            Message::Reloaded => self.settle(),
            // Each ends a phase, and comes once.
            Message::Close | Message::Drain | Message::Stop => {}
        }
    }

    /// Ingest takes the plan with each request; egress has bounds that hold between them.
    fn settle(&self) {
        let plan = self.plan.load();
        self.directory.limit_slow(plan.slow_connections_max());
        let (cores, limits) = (self.exchange.cores(), pool_limits(&plan, self.ingest.blocking()));
        for (egress, destination) in self.egress.iter().zip(Destination::ALL) {
            egress.apply(egress_settings(&plan, destination, &self.shared, cores), limits);
        }
    }

    fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.egress.iter().map(|egress| egress.pool())
    }

    /// Says so when none of these runs any more.
    fn announce_end_of(&self, tasks: &Tasks, setup: &Setup) {
        let (tasks, done, core) = (tasks.clone(), setup.done.clone(), setup.core);
        self.background_tasks.spawn(async move {
            tasks.join().await;
            let _ = done.try_send(core);
        });
    }
}

fn egress(
    setup: &Setup,
    destination: Destination,
    exchange: &Rc<Exchange>,
    deadlines: &Deadlines,
    tasks: &Tasks,
) -> Rc<Egress> {
    let plan = setup.plan.load();
    let pool = Pool::new(
        destination,
        Arc::clone(setup.addresses.of(destination)),
        Arc::clone(&setup.directory),
        Rc::clone(exchange),
        deadlines.clone(),
        pool_limits(&plan, setup.driver.blocking()),
    );
    let settings = egress_settings(&plan, destination, &setup.shared, exchange.cores());
    Egress::new(
        settings,
        &plan.terms,
        pool,
        Arc::clone(&setup.shared),
        Rc::clone(exchange),
        tasks.clone(),
        Arc::clone(&setup.metrics),
    )
}

fn pool_limits(plan: &Plan, blocking: Blocking) -> PoolLimits {
    PoolLimits { age_max: plan.max_connection_duration, idle_max: plan.idle_timeout, blocking }
}

fn egress_settings(plan: &Plan, destination: Destination, shared: &Shared, cores: usize) -> EgressSettings {
    // A tenant whose upstream stalls holds on to its connections: others must find some.
    let connections_max = plan.tenant_connections_max();
    let inflight_max = plan.merge.inflight_max.min(connections_max);
    let full_max = FULL_BATCHES_INFLIGHT_MAX.min(plan.max_conns_per_host / 4).min(connections_max);
    EgressSettings {
        destination,
        lane: LaneLimits {
            inflight_max,
            inflight_full_max: full_max.max(inflight_max),
            linger: plan.merge.linger,
            fragments_max: plan.merge.fragments_max,
            inflated_bytes_max: plan.merge.inflated_bytes_max,
        },
        share: plan.tenant_share(),
        slow: plan.slow_share(),
        receipts: ReceiptLimits {
            keep: plan.receipts.keep,
            bytes_max: plan.receipts.bytes_max / (cores * Destination::ALL.len()),
        },
        receipt_key: shared.receipt_key,
        timeout: plan.timeout,
        lanes_max: plan.limits.tenants_max,
        log_response_errors: plan.log_response_errors,
        require_written: plan.remote_write_v2_require_written,
    }
}

/// Wakes the receiving task for each ring, until its end of the bell is shut down.
async fn answer_the_bell(mut bell: UnixStream, exchange: Rc<Exchange>) {
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
