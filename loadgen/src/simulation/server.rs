//! The server in a simulation: its cores, as they ship, in one thread; and the work of its spool's thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::task::JoinHandle;
use monoio::time::sleep;
use tenantry::auth::password::Deliver;
use tenantry::config::parse;
use tenantry::config::plan::Plan;
use tenantry::core::{self, Listener};
use tenantry::exchange::fragment::Message;
use tenantry::io::driver::Driver;
use tenantry::model::PerUpstream;
use tenantry::spool::memory::MemoryDisk;
use tenantry::spool::worker::Worker;
use tenantry::supervisor::cores::Cores;
use tenantry::supervisor::spool::{Opened, Spool};
use tenantry::upstream::resolve::{Addresses, Resolution};

use super::world;

/// Connections that it takes.
const CONNECTIONS_MAX: usize = 1_000;

/// How often it is looked whether the cores are done.
const LOOK: Duration = Duration::from_millis(20);

/// How often the spool's thread has a turn with nothing to do: as often as in the program.
const IDLE: Duration = Duration::from_secs(1);

/// How long a phase of its end may take.
const PHASE_MAX: Duration = Duration::from_secs(120);

/// A running server.
pub(super) struct Server {
    pub(super) cores: Cores,
    tasks: Vec<JoinHandle<io::Result<()>>>,
    spool: Option<Rc<Desk>>,
}

/// The spool's thread, which has a turn when the disk has time for it.
struct Desk {
    worker: RefCell<Option<Worker<MemoryDisk>>>,
    is_busy: Cell<bool>,
    disk: Rc<SlowDisk>,
}

/// A disk, and how long it takes to make something durable.
#[derive(Default)]
pub(super) struct SlowDisk {
    pub(super) disk: MemoryDisk,
    pub(super) latency: Cell<Duration>,
    /// Whether it has failed, or is about to.
    pub(super) fails: Cell<bool>,
}

impl Desk {
    /// Has the worker take its turn, once the disk has had its time.
    fn sit_down(self: &Rc<Self>) {
        let desk = Rc::clone(self);
        self.is_busy.set(true);
        world::after(self.disk.latency.get(), move || {
            // Taken out, lest it be used while it works.
            let worker = desk.worker.borrow_mut().take();
            if let Some(mut worker) = worker {
                worker.turn(None);
                *desk.worker.borrow_mut() = Some(worker);
            }
            desk.is_busy.set(false);
        });
    }

    fn is_wanted(&self) -> bool {
        !self.is_busy.get() && self.worker.borrow().as_ref().is_some_and(Worker::is_wanted)
    }

    /// Has it look at what has come whenever nothing else can be done, and now and then.
    fn open(self: &Rc<Self>) {
        let desk = Rc::clone(self);
        world::watch(move || {
            let is_wanted = desk.is_wanted();
            if is_wanted {
                desk.sit_down();
            }
            is_wanted
        });
        self.idle();
    }

    fn idle(self: &Rc<Self>) {
        let desk = Rc::clone(self);
        world::after(IDLE, move || {
            if desk.worker.borrow().is_some() {
                if !desk.is_busy.get() {
                    desk.sit_down();
                }
                desk.idle();
            }
        });
    }
}

/// Takes verdicts about passwords, of which there are none.
fn nobody() -> Arc<Deliver> {
    Arc::new(|_, _, _| {})
}

/// Reads a configuration.
///
/// # Errors
/// Its mistakes.
pub(super) fn plan(settings: &str) -> Result<Plan, String> {
    parse("simulation", settings, std::iter::empty()).map_err(|mistakes| mistakes.to_string())
}

impl Server {
    /// Starts it: at `listen`, with an upstream that has these addresses.
    ///
    /// # Errors
    /// If it can't start.
    pub(super) fn start(
        plan: Plan,
        cores: usize,
        listen: SocketAddr,
        upstream: &[SocketAddr],
        disk: &Rc<SlowDisk>,
    ) -> Result<Self, String> {
        let plan = Arc::new(plan);
        let text = |error: io::Error| error.to_string();
        let mut all = Cores::new(&plan, cores, CONNECTIONS_MAX).map_err(text)?;
        let known = Addresses::default();
        known.store(Arc::new(Resolution { addresses: upstream.to_vec(), error: None }));
        let Ok(addresses) = PerUpstream::try_new(plan.upstream_ids(), |_| {
            Ok::<_, std::convert::Infallible>(Arc::clone(&known))
        });
        let opened = plan.spool.as_ref().map(|settings| Opened::read(disk.disk.clone(), &plan, settings));
        let opened = opened.transpose().map_err(|failure| failure.to_string())?;
        let (spool, worker) =
            opened.map(|opened| Spool::new(opened, &plan, &all.posts, &all.metrics)).unzip();
        let mut listeners: Vec<Vec<Listener>> = (0..cores).map(|_| Vec::new()).collect();
        let socket = TcpListener::bind(listen).map_err(text)?;
        // The kernel gives each of several listeners a part of the connections. One gives them all to one core, which
        // hands over what the others should have.
        if let Some(first) = listeners.first_mut() {
            first.push(Listener::own(socket));
        }
        // Nobody needs a password here, so no thread checks any.
        plan.auth.start(None, &nobody()).map_err(text)?;
        let setups = all.setups(listeners, Driver::Epoll, &addresses, spool.as_ref());
        let tasks =
            setups.into_iter().map(|(setup, endpoints)| monoio::spawn(core::run(setup, endpoints))).collect();
        let desk = worker.map(|worker| {
            let desk = Rc::new(Desk {
                worker: RefCell::new(Some(worker)),
                is_busy: Cell::new(false),
                disk: Rc::clone(disk),
            });
            desk.open();
            desk
        });
        Ok(Self { cores: all, tasks, spool: desk })
    }

    /// Has it run with another plan.
    ///
    /// # Errors
    /// If the plan's users can't be used.
    pub(super) fn reload(&self, plan: Plan) -> Result<(), String> {
        let running = self.cores.plan.load_full();
        plan.auth.start(Some(&running.auth), &nobody()).map_err(|error| error.to_string())?;
        self.cores.plan.store(Arc::new(plan));
        self.broadcast(|| Message::Reloaded);
        Ok(())
    }

    fn broadcast(&self, message: impl Fn() -> Message) {
        self.cores.posts.iter().for_each(|post| _ = post.post(message()));
    }

    /// Ends it as the supervisor does.
    ///
    /// # Errors
    /// If that takes too long.
    pub(super) async fn stop(self) -> Result<(), String> {
        self.phase(|| Message::Close, "close").await?;
        self.phase(|| Message::Drain, "drain").await?;
        self.broadcast(|| Message::Stop);
        for task in self.tasks {
            task.await.map_err(|error| error.to_string())?;
        }
        if let Some(desk) = self.spool {
            desk.worker.take();
        }
        Ok(())
    }

    async fn phase(&self, message: fn() -> Message, name: &str) -> Result<(), String> {
        let begun = Instant::now();
        self.broadcast(message);
        for _ in 0..self.cores.posts.len() {
            while self.cores.done.try_recv().is_err() {
                if begun.elapsed() > PHASE_MAX {
                    return Err(format!("the cores do not {name} within {PHASE_MAX:?}"));
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }
}
