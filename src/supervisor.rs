//! Starts the cores, waits for signals, applies reloaded plans to the cores, and stops them in order.
//!
//! Everything that can fail at the start fails before the first connection is accepted: rings are probed, ports bound
//! and threads started. Shutdown has five phases:
//! - `/alive` answers 503 for `timeout_shutdown`, and answers close their connections, so that senders turn away.
//! - The cores stop accepting.
//! - When *all* have stopped, they finish what is in flight. Until then, one core may hand connections to another.
//! - When all have finished, they close their upstream connections. Until then, one core may be the home of another's
//!   tenants.
//! - The threads are joined.

mod bind;
pub mod cores;
mod failure;
mod files;
mod listeners;
mod reader;
mod resolvers;
pub mod spool;
mod watchdog;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};

pub use self::bind::BindError;
use self::cores::Cores;
pub use self::failure::Failure;
use self::files::{ReadFiles, Watcher};
use self::listeners::Listeners;
pub use self::reader::ReadAgain;
use self::reader::{ReadPlan, Reader};
use self::spool::Spool;
use self::watchdog::Watchdog;
use crate::admin::{self, Admin, Pages};
use crate::auth::password::Deliver;
use crate::config::plan::{Live, Plan};
use crate::config::reload::{Adopted, adopt};
use crate::core;
use crate::exchange::fragment::Message;
use crate::exchange::mailbox::Post;
use crate::io::driver::Driver;
use crate::limits::{DESCRIPTORS_RESERVED, DRAIN_GRACE_SECS, EXIT_SECS, TRACE_FLUSH_MILLIS};
use crate::log;
use crate::metrics::Metrics;
use crate::model::Destination;
use crate::service::{self, Notice};
use crate::shared::Shared;
use crate::signal::{self, Command};
use crate::spool::worker::Worker;
use crate::trace::Tracer;
use crate::upstream::resolve::Resolver;

/// Runs the server until a signal asks it to shut down. `read_again` reads the configuration again when a signal asks
/// for a reload. It runs on its own thread, one call at a time. The status page shows `commit`, the one that the
/// program was built from.
///
/// # Errors
/// See [`Failure`].
pub fn run(plan: Plan, commit: &'static str, read_again: impl ReadAgain) -> Result<(), Failure> {
    run_until(plan, commit, read_again, &signal::listen()?)
}

/// Like [`run`], with commands from a channel instead of signals.
///
/// # Errors
/// See [`Failure`].
pub fn run_until(
    plan: Plan,
    commit: &'static str,
    read_again: impl ReadAgain,
    commands: &Receiver<Command>,
) -> Result<(), Failure> {
    let mut server = Server::start(plan, commit)?;
    let mut reader = Reader::new(read_again);
    service::notify(&Notice::Ready { status: &server.status() });
    loop {
        match server.next_event(commands, &reader.read)? {
            Event::Shutdown => break,
            Event::Reload => {
                service::notify(&Notice::Reloading);
                reader.request();
            }
            Event::Files(read) => server.apply_files(*read),
            Event::Read(read) => {
                server.reload(read);
                reader.finished();
            }
            Event::WatchdogDue => {
                server.feed_watchdog();
                continue;
            }
        }
        if !reader.is_reading {
            service::notify(&Notice::Ready { status: &server.status() });
        }
    }
    server.stop()
}

/// An event that the supervisor handles.
enum Event {
    Shutdown,
    Reload,
    /// The configuration has been read.
    Read(Box<ReadPlan>),
    /// Certificates, keys or secrets have changed and have been read.
    Files(Box<ReadFiles>),
    /// The watchdog may have to be fed.
    WatchdogDue,
}

struct Server {
    plan: Live,
    /// The longest time that a request in flight may take under any plan so far: it may have begun under an earlier
    /// one.
    request_time_max: Duration,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
    posts: Box<[Post<Message>]>,
    done: Receiver<usize>,
    ended: Receiver<(usize, String)>,
    threads: Vec<JoinHandle<()>>,
    admin: Admin,
    watcher: Watcher,
    watchdog: Watchdog,
    /// Where pushes are taken, and the driver.
    listens: (SocketAddr, Driver),
    /// Takes verdicts about passwords to the cores.
    deliver: Arc<Deliver>,
    /// The spool's thread. It ends when the cores have.
    spool: Option<JoinHandle<()>>,
    _resolvers: Vec<Resolver>,
}

impl Server {
    fn start(plan: Plan, commit: &'static str) -> Result<Self, Failure> {
        let request_time_max = plan.request_time_max();
        let plan = &Arc::new(plan);
        let driver = probe(plan)?;
        let opened = spool::open(plan)?;
        let cpus = cpus(plan.cores.map(usize::from));
        let connections_max = connections_max(plan);
        let Listeners { cores: listeners, admin, address: bound } =
            Listeners::open(plan, cpus.len(), service::passed_sockets()?)?;
        let mut cores = Cores::new(plan, cpus.len(), connections_max)?;
        cores.metrics.reloads.loaded_at.set(unix_seconds());
        if let Some(endpoint) = &plan.tracing.endpoint {
            cores.shared.trace_to(Tracer::start(endpoint.clone())?);
        }
        let (resolvers, addresses) = resolvers::start(plan)?;
        let pages = Pages::new(
            Arc::clone(&cores.metrics),
            Arc::clone(&cores.shared),
            driver.name(),
            Arc::clone(&cores.plan),
        );
        let pages = pages.asking(cores.posts.clone()).built_from(commit);
        let inbox = admin::Inbox::new()?;
        plan.admin_auth.start(None, &inbox.deliver())?;
        let admin = Admin::start(admin, Arc::new(pages), inbox)?;
        let watcher = Watcher::start(Arc::clone(&cores.plan))?;
        let spool = opened.map(|opened| Spool::new(opened, plan, &cores.posts, &cores.metrics));
        let (spool, worker) = spool.unzip();
        let spool_thread = worker.map(Worker::start).transpose()?;
        let deliver = deliver(&cores.posts);
        plan.auth.start(None, &deliver)?;
        let setups = cores.setups(listeners, driver, &addresses, spool.as_ref());
        let threads = setups.into_iter().zip(&cpus).map(|((mut setup, endpoints), &cpu)| {
            setup.cpu = cpu;
            core::start(setup, endpoints)
        });
        let threads = threads.collect::<io::Result<Vec<_>>>()?;
        // The cores alone report from now on.
        let Cores { plan: live, metrics, shared, posts, done, ended, .. } = cores;
        let target = &plan.terms.targets.of(Destination::Metrics).host_header;
        tracing::warn!(address = %bound, %target, cores = posts.len(), driver = driver.name(), "listening");
        Ok(Self {
            plan: live,
            request_time_max,
            metrics,
            shared,
            posts,
            done,
            ended,
            threads,
            admin,
            watcher,
            watchdog: Watchdog::new(service::watchdog(), cpus.len(), Instant::now()),
            listens: (bound, driver),
            deliver,
            spool: spool_thread,
            _resolvers: resolvers,
        })
    }

    /// Waits for the next event.
    fn next_event(&self, commands: &Receiver<Command>, read: &Receiver<ReadPlan>) -> Result<Event, Failure> {
        crossbeam_channel::select! {
            recv(commands) -> command => match command {
                Ok(Command::Reload) => Ok(Event::Reload),
                // No sender is left: shut down.
                Ok(Command::Shutdown) | Err(_) => Ok(Event::Shutdown),
            },
            recv(read) -> read => Ok(read.map_or(Event::Shutdown, |read| Event::Read(Box::new(read)))),
            recv(self.watchdog.alarm()) -> _ => Ok(Event::WatchdogDue),
            recv(self.watcher.read) -> read => Ok(read.map_or(Event::Shutdown, |read| Event::Files(Box::new(read)))),
            recv(self.ended) -> ended => {
                let (core, error) = ended.unwrap_or((0, "its thread is gone".into()));
                Err(Failure::Core { core, error })
            }
        }
    }

    /// Applies the plan that was read, as far as a running server can. A plan with mistakes changes nothing.
    fn reload(&mut self, read: Box<ReadPlan>) {
        let reloads = &self.metrics.reloads;
        let adopted = match read.and_then(|read| adopt(&self.plan.load(), read)) {
            Ok(adopted) => adopted,
            Err(mistakes) => {
                mistakes.to_string().lines().for_each(|mistake| tracing::error!("{mistake}"));
                tracing::error!("the configuration was read again and has mistakes: nothing changes");
                reloads.refused.add(1);
                return reloads.last_successful.set(0);
            }
        };
        let Adopted { plan, changed, until_restart, moves_tenants } = adopted;
        if self.start_auth(&plan, &self.plan.load()).is_err() {
            reloads.refused.add(1);
            return reloads.last_successful.set(0);
        }
        plan.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
        log::set_level(plan.log_level);
        let effective = plan.effective();
        self.request_time_max = self.request_time_max.max(plan.request_time_max());
        self.plan.store(Arc::new(plan));
        if moves_tenants {
            self.shared.families.forget();
        }
        self.broadcast(|| Message::Reloaded);
        tracing::warn!(changed = changed.join(", "), "the configuration was read again");
        if !until_restart.is_empty() {
            tracing::warn!(settings = until_restart.join(", "), "these change with the next start only");
        }
        tracing::info!("configuration: {effective}");
        reloads.done.add(1);
        reloads.last_successful.set(1);
        reloads.loaded_at.set(unix_seconds());
    }

    /// Applies the files that were read. Files with mistakes change nothing.
    fn apply_files(&self, read: ReadFiles) {
        let ReadFiles { running, read } = read;
        let is_used = Arc::ptr_eq(&running, &self.plan.load())
            && read.plan.as_ref().is_none_or(|plan| self.start_auth(plan, &running).is_ok());
        if let Some(plan) = read.plan.as_ref().filter(|_| is_used) {
            self.plan.store(Arc::new(plan.clone()));
            self.broadcast(|| Message::Reloaded);
        }
        files::report(&read, is_used, &self.metrics.reloads);
    }

    /// Starts the authentication of a plan that follows `running`. A failure is logged.
    fn start_auth(&self, plan: &Plan, running: &Plan) -> io::Result<()> {
        let start = || {
            plan.auth.start(Some(&running.auth), &self.deliver)?;
            plan.admin_auth.start(Some(&running.admin_auth), &self.admin.deliver())
        };
        start().inspect_err(|error| {
            tracing::error!(%error, "new users or keys can't be used: the old ones stay in use");
        })
    }

    /// The server's state in one line, for the service manager.
    fn status(&self) -> String {
        let ((address, driver), cores) = (self.listens, self.posts.len());
        let plan = self.plan.load();
        let target = &plan.terms.targets.of(Destination::Metrics).host_header;
        let reload = match self.metrics.reloads.last_successful.get() {
            0 => "; the last reload was refused: the log has the reasons",
            _ => "",
        };
        format!("Pushes to {address} go to {target}: {cores} cores, {}{reload}", driver.name())
    }

    /// Feeds the watchdog if all cores have turned, and asks them again.
    fn feed_watchdog(&mut self) {
        if let Some(beat) = self.watchdog.look(Instant::now()) {
            self.broadcast(|| Message::Beat(Arc::clone(&beat)));
        }
    }

    fn stop(mut self) -> Result<(), Failure> {
        let notice = self.plan.load().timeout_shutdown;
        let drain = self.request_time_max + Duration::from_secs(DRAIN_GRACE_SECS);
        service::notify(&Notice::Stopping { within: notice + drain + Duration::from_secs(EXIT_SECS) });
        tracing::warn!(?notice, "shutting down: /alive answers 503");
        self.shared.begin_shutdown();
        self.pause(notice);
        tracing::info!("finishing what is in flight");
        let until = Instant::now() + drain;
        self.broadcast_and_wait(|| Message::Close, until)?;
        self.broadcast_and_wait(|| Message::Drain, until)?;
        self.broadcast(|| Message::Stop);
        for thread in self.threads {
            let _ = thread.join();
        }
        if let Some(thread) = self.spool.take() {
            spool::wait(&thread);
        }
        if let Some(tracer) = self.shared.tracer() {
            tracer.flush(Duration::from_millis(TRACE_FLUSH_MILLIS));
        }
        self.admin.stop();
        match self.ended.try_iter().find(|(_, error)| !error.is_empty()) {
            Some((core, error)) => Err(Failure::Core { core, error }),
            None => Ok(()),
        }
    }

    /// Waits, and feeds the watchdog meanwhile.
    #[expect(clippy::disallowed_methods, reason = "this is the main thread, which has nothing else to do")]
    fn pause(&mut self, length: Duration) {
        let until = Instant::now() + length;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(self.watchdog.every()));
            self.feed_watchdog();
        }
    }

    /// Sends a message to all cores and waits until each reports that it is done.
    fn broadcast_and_wait(&mut self, message: impl Fn() -> Message, until: Instant) -> Result<(), Failure> {
        self.broadcast(message);
        for _ in 0..self.posts.len() {
            while let Err(error) = self.done.recv_deadline(until.min(Instant::now() + self.watchdog.every()))
            {
                if error == RecvTimeoutError::Disconnected || Instant::now() >= until {
                    return Err(Failure::Drain);
                }
                self.feed_watchdog();
            }
            self.feed_watchdog();
        }
        Ok(())
    }

    /// Sends a message to all cores.
    fn broadcast(&self, message: impl Fn() -> Message) {
        self.posts.iter().for_each(|post| _ = post.post(message()));
    }
}

/// Takes verdicts about passwords to the cores that asked.
fn deliver(posts: &[Post<Message>]) -> Arc<Deliver> {
    let posts: Box<[_]> = posts.into();
    Arc::new(move |core, ticket, verdict| {
        if let Some(post) = posts.get(core) {
            post.post(Message::PasswordChecked(ticket, verdict));
        }
    })
}

fn probe(plan: &Plan) -> Result<Driver, Failure> {
    let (driver, why_not) = Driver::probe(plan.driver).map_err(Failure::Driver)?;
    if let Some(error) = why_not {
        tracing::warn!(%error, "io_uring does not work here: using epoll");
    }
    Ok(driver)
}

/// The CPU of each core. There are as many cores as configured, or as this process may use CPUs.
///
/// Cores are pinned only if they take all these CPUs. Fewer, as in a container with a CPU limit, are left to the
/// kernel: it knows which CPUs are idle, and the next replica on the same node would be pinned to the same ones.
fn cpus(wanted: Option<usize>) -> Vec<Option<usize>> {
    let mask = rustix::thread::sched_getaffinity(None).ok();
    let allowed: Vec<usize> = match mask {
        Some(mask) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).collect(),
        None => Vec::new(),
    };
    match wanted {
        Some(wanted) if wanted != allowed.len() => vec![None; wanted],
        _ if allowed.is_empty() => vec![None],
        _ => allowed.into_iter().map(Some).collect(),
    }
}

/// The maximum of inbound connections: the configured number, but at most the descriptors that are left when every
/// upstream address has all its connections. The soft limit is first raised to the hard one.
fn connections_max(plan: &Plan) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "can't raise the limit of open files");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let hosts = resolvers::hosts(plan).saturating_sub(1).max(1);
    let left = descriptors.saturating_sub(DESCRIPTORS_RESERVED + plan.max_conns_per_host * hosts).max(1);
    match plan.limits.connections_max.map(usize::from) {
        Some(wanted) if wanted > left => {
            tracing::warn!(
                wanted,
                left,
                "the limit of open files allows fewer connections than are configured"
            );
            left
        }
        Some(wanted) => wanted,
        None => left,
    }
}

fn unix_seconds() -> usize {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    usize::try_from(since.as_secs()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_pinned_only_if_they_take_all_cpus() {
        let all = cpus(None);
        assert!(all.iter().all(Option::is_some), "{all:?}");
        assert_eq!(cpus(Some(all.len())), all);
        // Another process with as few cores would choose the same CPUs.
        assert_eq!(cpus(Some(all.len() + 1)), vec![None; all.len() + 1]);
        if all.len() > 1 {
            assert_eq!(cpus(Some(1)), [None]);
        }
    }
}
