//! Accepts connections, and passes them to the core that has the fewest.
//!
//! Every core listens on the same port, and the kernel spreads connections over the listeners by a hash. That is
//! even for thousands and uneven for the few that Prometheus keeps for hours: so a core that accepts a connection
//! while another has fewer hands the descriptor over. It is then at home there for good.
//!
//! To close a listener resets whoever waits in its backlog, though another process may listen on the same port by
//! then and would have served them. So a listener that stops first takes in all that wait, to serve each one request.
//! Between the last look and the close lie microseconds in which one more may come; Linux can pass such a one on to
//! the other listeners itself (sysctl `net.ipv4.tcp_migrate_req`).

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{CancelHandle, Canceller};
use monoio::net::TcpListener;

use super::Ingest;
use crate::exchange::fragment::Message;
use crate::io::stream::Blocking;
use crate::limits::{ACCEPT_PAUSE_MILLIS, RING_CLOSE_MILLIS};

/// Accepts until `stop` is cancelled. Then it takes in what is in its backlog, and the listener is closed.
///
/// # Errors
/// When the ring can't take the listener.
pub async fn accept(listener: StdListener, ingest: Rc<Ingest>, stop: CancelHandle) -> io::Result<()> {
    listener.set_nonblocking(ingest.blocking() == Blocking::No)?;
    let last = listener.try_clone()?;
    let listener = TcpListener::from_std(listener)?;
    while !ingest.is_closing() {
        if ingest.shared().connections.is_full() {
            // The kernel's backlog holds who comes meanwhile.
            pause(ACCEPT_PAUSE_MILLIS).await;
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
                pause(ACCEPT_PAUSE_MILLIS).await;
            }
        }
    }
    // The ring closes its descriptor in its own time. It must not be the last one, or the port would stay open for
    // a while behind the last look.
    drop(listener);
    pause(RING_CLOSE_MILLIS).await;
    take_in_backlog(&last, &ingest);
    Ok(())
}

/// Accepts every connection that waits in the backlog.
fn take_in_backlog(listener: &StdListener, ingest: &Rc<Ingest>) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !ingest.shared().connections.is_full() {
        match listener.accept() {
            Ok((socket, _)) => place(ingest, socket.into()),
            Err(e) if is_peers_fault(&e) || e.kind() == io::ErrorKind::Interrupted => {}
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
    let connections = &ingest.shared().connections;
    let chosen = connections.least_loaded(core);
    let guard = connections.count(chosen);
    ingest.counters().connections_accepted.add(1);
    if chosen == core {
        ingest.serve(socket, guard);
    } else {
        ingest.counters().connections_handed_over.add(1);
        ingest.exchange().send(chosen, Message::Connection(socket, guard));
    }
}

/// A connection that went away before it was accepted is no error of ours.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn pause(millis: u64) {
    monoio::time::sleep(Duration::from_millis(millis)).await;
}
