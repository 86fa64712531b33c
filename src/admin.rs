//! What an operator looks at: /metrics, a status page, the threads' CPU time.
//!
//! Design constraints:
//! - It must answer when the cores don't: so it has a thread of its own, and shares nothing with the cores but numbers
//!   that it reads. Its ring is epoll, which works wherever we do.
//! - It listens on every interface, so that anybody may send nothing, or send or read a byte now and then. Such a client
//!   costs a descriptor and little memory, for a while. A connection carries one request; it has a deadline for its head
//!   and one for its answer, not for each read.
//! - Their number is bounded. When there are as many as may be, a newcomer takes the place of the one that has waited
//!   longest ([`eviction`]): slow clients can't keep a scrape out.
//!
//! With ten thousand tenants the metrics take some 100 ms to write, and everybody else waits for as long, `/alive`
//! included. So scrapes that come meanwhile share the next page ([`snapshot`]): a client waits for two pages at most,
//! however many ask.

mod connection;
mod eviction;
mod exposition;
mod pages;
mod process;
mod snapshot;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use monoio::io::{CancelHandle, Canceller};
use monoio::net::{TcpListener, UnixStream};

use self::eviction::Connections;
pub use self::pages::{Page, Pages};
use self::snapshot::Snapshots;
use crate::io::deadline::Deadlines;
use crate::io::driver::Driver;
use crate::io::stream::Stream;
use crate::io::tasks::Tasks;
use crate::limits::{ACCEPT_PAUSE_MILLIS, ADMIN_SEND_BUFFER_BYTES};

/// The listeners for operators, and the thread that answers.
#[derive(Debug)]
pub struct Admin {
    /// Shut down, or closed, it ends the thread.
    stop_socket: StdUnixStream,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Answers on `listeners` from now on.
    ///
    /// # Errors
    /// When there is no thread or ring to be had, or a listener is broken.
    pub fn start(listeners: Vec<StdListener>, pages: Arc<Pages>) -> io::Result<Self> {
        let (stop_socket, stopped) = StdUnixStream::pair()?;
        stopped.set_nonblocking(true)?;
        for listener in &listeners {
            listener.set_nonblocking(true)?;
            // Whoever is accepted here inherits it.
            socket2::SockRef::from(listener).set_send_buffer_size(ADMIN_SEND_BUFFER_BYTES)?;
        }
        let (ready, started) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            let ran = Driver::Epoll.block_on(run(listeners, stopped, pages, ready.clone())).flatten();
            if let Err(error) = ran {
                let _ = ready.try_send(Err(error));
            }
        })?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread for operators is gone")))?;
        Ok(Self { stop_socket, thread })
    }

    /// Stops answering, at once: whoever is being answered is cut off.
    pub fn stop(self) {
        // Fails only when the thread has gone already.
        let _ = self.stop_socket.shutdown(std::net::Shutdown::Both);
        let _ = self.thread.join();
    }
}

/// What the connections have in common.
#[derive(Debug)]
struct Shared {
    pages: Arc<Pages>,
    snapshots: Snapshots,
    connections: Rc<Connections>,
    deadlines: Deadlines,
    tasks: Tasks,
    closing: Cell<bool>,
}

async fn run(
    listeners: Vec<StdListener>,
    stopped: StdUnixStream,
    pages: Arc<Pages>,
    ready: Sender<io::Result<()>>,
) -> io::Result<()> {
    let stop_socket = UnixStream::from_std(stopped)?;
    let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<io::Result<Vec<_>>>()?;
    let shared = Rc::new(Shared {
        pages,
        snapshots: Snapshots::default(),
        connections: Rc::default(),
        deadlines: Deadlines::default(),
        tasks: Tasks::default(),
        closing: Cell::new(false),
    });
    let (acceptors, sweeper, stop) = (Tasks::default(), Tasks::default(), Canceller::new());
    let deadlines = shared.deadlines.clone();
    sweeper.spawn(async move { deadlines.sweep(|_| ()).await });
    for listener in listeners {
        acceptors.spawn(accept(listener, Rc::clone(&shared), stop.handle()));
    }
    let _ = ready.try_send(Ok(()));
    // Whatever it says, it is the end.
    let _ = stop_socket.readable(false).await;
    shared.closing.set(true);
    drop(stop.cancel());
    shared.connections.cut_all();
    acceptors.join().await;
    // One more may have come in meanwhile.
    shared.connections.cut_all();
    shared.tasks.join().await;
    shared.deadlines.end();
    sweeper.join().await;
    Ok(())
}

/// Accepts until `stop` is cancelled; then the listener is closed.
async fn accept(listener: TcpListener, shared: Rc<Shared>, stop: CancelHandle) {
    while !shared.closing.get() {
        match listener.cancelable_accept(stop.clone()).await {
            Ok((stream, _)) => {
                // SAFETY: `into_raw_fd` takes the stream, its only owner, and leaves the descriptor open for us to own.
                shared.receive(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
                shared.connections.wait_for_room().await;
            }
            Err(_) if shared.closing.get() => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "can't accept connections for operators");
                // For want of descriptors, most likely: one may come free.
                shared.connections.cut_longest();
                monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS)).await;
            }
        }
    }
}

impl Shared {
    /// Serves a connection until it ends.
    fn receive(self: &Rc<Self>, socket: OwnedFd) {
        match Stream::accepted(socket, Driver::Epoll.blocking(), &self.deadlines) {
            Ok(stream) => {
                let slot = Connections::admit(&self.connections, stream.cutter());
                self.tasks.spawn(connection::serve(Rc::clone(self), stream, slot));
            }
            Err(error) => tracing::debug!(%error, "an operator's connection was lost before it was served"),
        }
    }
}
