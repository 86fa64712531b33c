//! The admin port: /metrics, a status page, and the CPU time of each thread.
//!
//! Design constraints:
//! - It must answer even when the cores do not. So it has its own thread, and shares nothing with the cores but numbers
//!   that it reads. Its runtime uses epoll, which works on every host.
//! - It listens on every interface, so any client may send nothing, or send or read one byte now and then. Such a
//!   client costs a descriptor and a little memory for a limited time. A connection carries one request. Its deadlines
//!   are for the whole head and for the whole answer, not for each read.
//! - Pushes come first. The thread has a lower priority than the cores, and still gets a tenth of a CPU beside a busy
//!   one. (Under a limit of CPU time, as in a container, what it uses is missing elsewhere all the same.)
//! - The number of connections is bounded. At the bound, a new connection replaces the one that has waited longest
//!   (module `eviction`), so slow clients cannot keep a scrape out.
//!
//! With ten thousand tenants, rendering the metrics takes some tens of milliseconds, and all other requests wait
//! meanwhile, `/alive` included. So scrapes that arrive in that time share the next page (module `snapshot`): for each
//! format and coding, a client waits for at most two pages, however many clients ask. Compression takes as long, but in
//! slices.

mod access;
mod api;
mod compression;
mod connection;
mod document;
mod eviction;
mod exposition;
mod listeners;
mod negotiation;
mod pages;
mod process;
mod profiles;
mod rules;
mod sampler;
mod snapshot;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use monoio::io::{CancelHandle, Canceller};
use monoio::net::{TcpListener, UnixStream};

use self::api::Answers;
use self::eviction::Connections;
pub use self::listeners::Listeners;
pub use self::pages::{Page, Pages};
use self::rules::Rules;
use self::sampler::Sampler;
use self::snapshot::Snapshots;
use crate::auth::password::Deliver;
use crate::auth::{Ticket, Verdict};
use crate::exchange::mailbox::{Mailbox, Post};
use crate::io::deadline::Deadlines;
use crate::io::driver::Driver;
use crate::io::tasks::Tasks;
use crate::io::verdicts::Verdicts;
use crate::limits::{ACCEPT_PAUSE_MILLIS, ADMIN_NICE, ADMIN_SEND_BUFFER_BYTES, SAMPLE_SECS};

/// The admin listeners, and the thread that serves them.
#[derive(Debug)]
pub struct Admin {
    /// Shutting it down or closing it ends the thread.
    stop_socket: StdUnixStream,
    /// For verdicts about passwords.
    post: Post<(Ticket, Verdict)>,
    thread: JoinHandle<()>,
}

/// Where verdicts about passwords wait for the admin thread. It is there before the thread is, because passwords can be
/// checked only once there is a place for the verdicts, and the thread serves only when they can be checked.
#[derive(Debug)]
pub struct Inbox {
    mailbox: VerdictMailbox,
    post: Post<(Ticket, Verdict)>,
    bell: StdUnixStream,
}

impl Admin {
    /// Serves `listeners` on a thread of their own. The plan's `admin_auth` must have been started with the
    /// [`deliver`](Inbox::deliver) of `inbox`: the first connection may be there already.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be started, or a listener is broken.
    pub fn start(listeners: Listeners, pages: Arc<Pages>, inbox: Inbox) -> io::Result<Self> {
        let (stop_socket, stopped) = StdUnixStream::pair()?;
        stopped.set_nonblocking(true)?;
        listeners.prepare(ADMIN_SEND_BUFFER_BYTES)?;
        let Inbox { mailbox, post, bell } = inbox;
        bell.set_nonblocking(true)?;
        let (ready, started) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            // Without it, two hundred browsers delay pushes more. It works all the same.
            let lowered = rustix::process::setpriority_process(Some(rustix::thread::gettid()), ADMIN_NICE);
            if let Err(error) = lowered {
                tracing::debug!(%error, "the admin thread keeps its priority");
            }
            let ran = Driver::Epoll
                .block_on(run(listeners, stopped, (mailbox, bell), pages, ready.clone()))
                .flatten();
            if let Err(error) = ran {
                let _ = ready.try_send(Err(error));
            }
        })?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the admin thread ended")))?;
        Ok(Self { stop_socket, post, thread })
    }

    /// What takes verdicts about passwords to the thread.
    pub fn deliver(&self) -> Arc<Deliver> {
        deliver(self.post.clone())
    }

    /// Stops at once. Answers in progress are cut off.
    pub fn stop(self) {
        // Fails only when the thread has already ended.
        let _ = self.stop_socket.shutdown(std::net::Shutdown::Both);
        let _ = self.thread.join();
    }
}

impl Inbox {
    /// An empty one.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (mailbox, post, bell) = Mailbox::new()?;
        Ok(Self { mailbox, post, bell })
    }

    /// What takes verdicts about passwords to the thread.
    pub fn deliver(&self) -> Arc<Deliver> {
        deliver(self.post.clone())
    }
}

fn deliver(post: Post<(Ticket, Verdict)>) -> Arc<Deliver> {
    Arc::new(move |_, ticket, verdict| _ = post.post((ticket, verdict)))
}

/// How verdicts about passwords come to the thread.
type VerdictMailbox = Mailbox<(Ticket, Verdict)>;

/// What all connections share.
#[derive(Debug)]
struct Server {
    pages: Arc<Pages>,
    snapshots: Snapshots,
    answers: Answers,
    sampler: RefCell<Sampler>,
    rules: Rules,
    /// Wakes the task that samples.
    sampling: RefCell<Option<Waker>>,
    verdicts: Verdicts,
    connections: Rc<Connections>,
    deadlines: Deadlines,
    tasks: Tasks,
    closing: Cell<bool>,
}

async fn run(
    listeners: Listeners,
    stopped: StdUnixStream,
    (mailbox, bell): (VerdictMailbox, StdUnixStream),
    pages: Arc<Pages>,
    ready: Sender<io::Result<()>>,
) -> io::Result<()> {
    let stop_socket = UnixStream::from_std(stopped)?;
    let bell_end = bell.try_clone()?;
    let bell = UnixStream::from_std(bell)?;
    let registered = |(listener, has_profiles)| Ok((TcpListener::from_std(listener)?, has_profiles));
    let listeners = listeners.all().map(registered).collect::<io::Result<Vec<_>>>()?;
    let server = Rc::new(Server {
        sampler: RefCell::new(Sampler::new(&pages.metrics, Instant::now())),
        rules: Rules::default(),
        sampling: RefCell::default(),
        pages,
        snapshots: Snapshots::default(),
        answers: Answers::default(),
        verdicts: Verdicts::default(),
        connections: Rc::default(),
        deadlines: Deadlines::default(),
        tasks: Tasks::default(),
        closing: Cell::new(false),
    });
    let (acceptors, sweeper, stop) = (Tasks::default(), Tasks::default(), Canceller::new());
    let (deadlines, sampling) = (server.deadlines.clone(), Rc::clone(&server));
    sweeper.spawn(async move { deadlines.sweep(|_| ()).await });
    sweeper.spawn(async move { sampling.sample_until_closing().await });
    let receiver = Rc::clone(&server);
    sweeper.spawn(async move { receiver.receive_verdicts(mailbox, bell).await });
    for (listener, has_profiles) in listeners {
        acceptors.spawn(accept(listener, has_profiles, Rc::clone(&server), stop.handle()));
    }
    let _ = ready.try_send(Ok(()));
    // Any result means that the thread must end.
    let _ = stop_socket.readable(false).await;
    server.close();
    drop(stop.cancel());
    server.connections.cut_all();
    acceptors.join().await;
    // Another connection may have been accepted meanwhile.
    server.connections.cut_all();
    server.tasks.join().await;
    server.deadlines.end();
    // Ends the pending read of the doorbell.
    let _ = bell_end.shutdown(std::net::Shutdown::Both);
    sweeper.join().await;
    Ok(())
}

impl Server {
    /// Samples the counters every few seconds until the server closes.
    async fn sample_until_closing(&self) {
        loop {
            let mut due = pin!(monoio::time::sleep(Duration::from_secs(SAMPLE_SECS)));
            let is_due = poll_fn(|cx| {
                if self.closing.get() {
                    return Poll::Ready(false);
                }
                *self.sampling.borrow_mut() = Some(cx.waker().clone());
                due.as_mut().poll(cx).map(|()| true)
            });
            if !is_due.await {
                return;
            }
            let now = Instant::now();
            self.sampler.borrow_mut().sample(&self.pages.metrics, now);
            self.rules.look(now);
        }
    }

    fn close(&self) {
        self.closing.set(true);
        if let Some(waker) = self.sampling.take() {
            waker.wake();
        }
    }
}

/// Accepts connections until `stop` is cancelled, then closes the listener.
async fn accept(listener: TcpListener, has_profiles: bool, server: Rc<Server>, stop: CancelHandle) {
    while !server.closing.get() {
        match listener.cancelable_accept(stop.clone()).await {
            Ok((stream, _)) => {
                // SAFETY: `into_raw_fd` consumes the stream, the descriptor's only owner, and leaves it open.
                let socket = unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) };
                server.receive(socket, has_profiles);
                server.connections.wait_for_room().await;
            }
            Err(_) if server.closing.get() => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "can't accept connections for operators");
                // Most likely there are no descriptors left: cutting a connection may free one.
                server.connections.cut_longest();
                monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS)).await;
            }
        }
    }
}
