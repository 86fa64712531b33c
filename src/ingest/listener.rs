//! Accepts connections, and passes them to the core that has the fewest.
//!
//! Every core listens on the same port, and the kernel spreads connections over the listeners by a hash. That is
//! even for thousands and uneven for the few that Prometheus keeps for hours: so a core that accepts a connection
//! while another has fewer hands the descriptor over. It is then at home there for good.
//!
//! To close a listener resets whoever waits in its backlog, though another process may listen on the same port by then
//! and would have served them. So a listener that stops first takes in all that wait, to serve each one request. Between
//! the last look and the close lie microseconds in which one more may come; Linux can pass such a one on to the other
//! listeners itself (sysctl `net.ipv4.tcp_migrate_req`).

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{CancelHandle, Canceller};
use monoio::net::TcpListener;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::connection::Ingest;
use crate::core::stream::Blocking;
use crate::limits::ACCEPT_PAUSE_MILLIS;
use crate::queue::fragment::Message;

/// Accepts until `stop` is cancelled. Then it takes in what is in its backlog, and the listener is closed.
///
/// # Errors
/// When the ring can't take the listener.
pub async fn accept(listener: StdListener, ingest: Rc<Ingest>, stop: CancelHandle) -> io::Result<()> {
    listener.set_nonblocking(ingest.blocking() == Blocking::No)?;
    let listener = TcpListener::from_std(listener)?;
    while !ingest.is_closing() {
        if ingest.commons().is_full() {
            // The kernel's backlog holds who comes meanwhile.
            pause().await;
            continue;
        }
        match listener.cancelable_accept(stop.clone()).await {
            Ok((stream, _)) => {
                // SAFETY: `into_raw_fd` takes the stream, its only owner, and leaves the descriptor open for us to own.
                place(&ingest, unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
            }
            Err(_) if ingest.is_closing() => {}
            Err(e) if is_peers_fault(&e) => {}
            Err(error) => {
                // Out of descriptors or memory: to try at once would fail at once, and spin.
                tracing::warn!(%error, fd = listener.as_raw_fd(), "can't accept connections");
                pause().await;
            }
        }
    }
    take_in_backlog(&listener, &ingest);
    Ok(())
}

fn take_in_backlog(listener: &TcpListener, ingest: &Rc<Ingest>) {
    // SAFETY: the listener keeps its descriptor open until it is dropped, which is not while it is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) };
    if rustix::io::ioctl_fionbio(fd, true).is_err() {
        return;
    }
    while !ingest.commons().is_full() {
        match rustix::net::accept_with(fd, SocketFlags::CLOEXEC) {
            Ok(socket) => place(ingest, socket),
            Err(Errno::CONNABORTED | Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Makes the handle by which [`accept`] is stopped.
pub fn canceller() -> Canceller {
    Canceller::new()
}

fn place(ingest: &Rc<Ingest>, socket: OwnedFd) {
    let core = ingest.core();
    let commons = ingest.commons();
    let chosen = commons.least_loaded(core);
    let seat = commons.seat(chosen);
    ingest.counters().connections_accepted.add(1);
    if chosen == core {
        ingest.serve(socket, seat);
    } else {
        ingest.counters().connections_handed_over.add(1);
        ingest.exchange().send(chosen, Message::Connection(socket, seat));
    }
}

/// A connection that went away before it was accepted is no trouble of ours.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn pause() {
    monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS)).await;
}
