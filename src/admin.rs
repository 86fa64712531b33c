//! What an operator looks at: /metrics, a status page, the threads' CPU time.
//!
//! Design constraints:
//! - It must answer when the cores don't: so it has a thread of its own, and shares nothing with the cores but numbers
//!   that it reads. Its ring is epoll, which works wherever we do.
//! - It listens on every interface, so that anybody may send nothing, or send or read a byte now and then. Such a client
//!   costs a descriptor and little memory, for a while. A connection carries one request; it has a deadline for its head
//!   and one for its answer, not for each read.
//! - Their number is bounded. When there are as many as may be, a newcomer takes the place of the one that has waited
//!   longest ([`guests`]): slow clients can't keep a scrape out.
//!
//! With ten thousand tenants the metrics take some 100 ms to write, and everybody else waits for as long, `/alive`
//! included. So scrapes that come meanwhile share the next page ([`press`]): a client waits for two pages at most,
//! however many ask.

mod exposition;
mod guests;
mod pages;
mod press;
mod process;
#[cfg(test)]
mod tests;
mod visit;

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

use self::guests::Guests;
pub use self::pages::{Page, Pages};
use self::press::Press;
use crate::io::deadline::Deadlines;
use crate::io::driver::Driver;
use crate::io::stream::Stream;
use crate::io::tasks::Tasks;
use crate::limits::{ACCEPT_PAUSE_MILLIS, ADMIN_SEND_BUFFER_BYTES};

/// The listeners for operators, and the thread that answers.
#[derive(Debug)]
pub struct Admin {
    /// Shut down, or closed, it ends the thread.
    bell: StdUnixStream,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Answers on `listeners` from now on.
    ///
    /// # Errors
    /// When there is no thread or ring to be had, or a listener is broken.
    pub fn start(listeners: Vec<StdListener>, pages: Arc<Pages>) -> io::Result<Self> {
        let (bell, rung) = StdUnixStream::pair()?;
        rung.set_nonblocking(true)?;
        for listener in &listeners {
            listener.set_nonblocking(true)?;
            // Whoever is accepted here inherits it.
            socket2::SockRef::from(listener).set_send_buffer_size(ADMIN_SEND_BUFFER_BYTES)?;
        }
        let (ready, started) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            let ran = Driver::Epoll.block_on(run(listeners, rung, pages, ready.clone())).flatten();
            if let Err(error) = ran {
                let _ = ready.try_send(Err(error));
            }
        })?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread for operators is gone")))?;
        Ok(Self { bell, thread })
    }

    /// Stops answering, at once: whoever is being answered is cut off.
    pub fn stop(self) {
        // Fails only when the thread has gone already.
        let _ = self.bell.shutdown(std::net::Shutdown::Both);
        let _ = self.thread.join();
    }
}

/// What the connections have in common.
#[derive(Debug)]
struct Desk {
    pages: Arc<Pages>,
    press: Press,
    guests: Rc<Guests>,
    deadlines: Deadlines,
    visits: Tasks,
    closing: Cell<bool>,
}

async fn run(
    listeners: Vec<StdListener>,
    rung: StdUnixStream,
    pages: Arc<Pages>,
    ready: Sender<io::Result<()>>,
) -> io::Result<()> {
    let bell = UnixStream::from_std(rung)?;
    let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<io::Result<Vec<_>>>()?;
    let desk = Rc::new(Desk {
        pages,
        press: Press::default(),
        guests: Rc::default(),
        deadlines: Deadlines::default(),
        visits: Tasks::default(),
        closing: Cell::new(false),
    });
    let (doors, tools, stop) = (Tasks::default(), Tasks::default(), Canceller::new());
    let deadlines = desk.deadlines.clone();
    tools.spawn(async move { deadlines.sweep(|_| ()).await });
    for listener in listeners {
        doors.spawn(accept(listener, Rc::clone(&desk), stop.handle()));
    }
    let _ = ready.try_send(Ok(()));
    // Whatever it says, it is the end.
    let _ = bell.readable(false).await;
    desk.closing.set(true);
    drop(stop.cancel());
    desk.guests.cut_all();
    doors.join().await;
    // One more may have come in meanwhile.
    desk.guests.cut_all();
    desk.visits.join().await;
    desk.deadlines.end();
    tools.join().await;
    Ok(())
}

/// Accepts until `stop` is cancelled; then the listener is closed.
async fn accept(listener: TcpListener, desk: Rc<Desk>, stop: CancelHandle) {
    while !desk.closing.get() {
        match listener.cancelable_accept(stop.clone()).await {
            Ok((stream, _)) => {
                // SAFETY: `into_raw_fd` takes the stream, its only owner, and leaves the descriptor open for us to own.
                desk.receive(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
                desk.guests.room().await;
            }
            Err(_) if desk.closing.get() => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "can't accept connections for operators");
                // For want of descriptors, most likely: one may come free.
                desk.guests.cut_longest();
                monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS)).await;
            }
        }
    }
}

impl Desk {
    /// Serves a connection until it ends.
    fn receive(self: &Rc<Self>, socket: OwnedFd) {
        match Stream::accepted(socket, Driver::Epoll.blocking(), &self.deadlines) {
            Ok(stream) => {
                let ticket = Guests::enter(&self.guests, stream.cutter());
                self.visits.spawn(visit::visit(Rc::clone(self), stream, ticket));
            }
            Err(error) => tracing::debug!(%error, "an operator's connection was lost before it was served"),
        }
    }
}
