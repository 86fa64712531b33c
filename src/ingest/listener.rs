//! Accepts connections, and assigns each to the core with the fewest.
//!
//! All cores listen on the same port, and the kernel distributes connections over the listeners by a hash. This is even
//! for thousands of connections, but uneven for the few that Prometheus keeps open for hours. So a core that accepts a
//! connection while another core has fewer hands the descriptor over, and the connection stays there.
//!
//! Closing a listener resets the connections in its backlog, even if another process listens on the same port by then
//! and would serve them. So a listener first accepts its whole backlog, and each of these connections gets one request
//! served. One more connection may arrive in the microseconds between the last accept and the close. Linux can migrate
//! it to another listener (sysctl `net.ipv4.tcp_migrate_req`). The backlog of a socket that the service manager keeps
//! waits for the next process instead.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{CancelHandle, Canceller};
use monoio::net::TcpListener;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::Ingest;
use crate::exchange::fragment::Message;
use crate::io::stream::Blocking;
use crate::limits::{ACCEPT_PAUSE_MILLIS, ACCEPTS_PER_TURN_MAX, RING_CLOSE_MILLIS, TURN_MILLIS};

/// A socket that takes pushes. One core accepts from it.
#[derive(Debug)]
pub struct Listener {
    socket: StdListener,
    /// Whether the service manager keeps the socket. Its backlog then waits for the next process.
    is_kept: bool,
}

impl Listener {
    /// A listener that this process has opened.
    pub fn own(socket: StdListener) -> Self {
        Self { socket, is_kept: false }
    }

    /// A listener that the service manager has passed on.
    pub fn passed(socket: StdListener) -> Self {
        Self { socket, is_kept: true }
    }

    /// The address on which it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }
}

/// Accepts connections until `stop` is cancelled, then accepts the backlog and closes the listener.
///
/// # Errors
/// When the listener cannot be registered with the ring.
pub async fn accept(listener: Listener, ingest: Rc<Ingest>, stop: CancelHandle) -> io::Result<()> {
    let Listener { socket: listener, is_kept } = listener;
    listener.set_nonblocking(ingest.blocking() == Blocking::No)?;
    let last = listener.try_clone()?;
    let listener = TcpListener::from_std(listener)?;
    let mut accepted = 0_u32;
    while !ingest.is_closing() {
        if ingest.shared().connections.is_full() {
            // New connections wait in the kernel's backlog.
            pause(ACCEPT_PAUSE_MILLIS).await;
            continue;
        }
        match listener.cancelable_accept(stop.clone()).await {
            Ok((stream, _)) => {
                // SAFETY: `into_raw_fd` consumes the stream, the descriptor's only owner, and leaves it open.
                assign(&ingest, unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
                accepted = accepted.wrapping_add(1);
                let is_turn_over = match is_kept {
                    // Another process may take the connections that wait, and a blocking accept would then block.
                    true => accepted.is_multiple_of(ACCEPTS_PER_TURN_MAX),
                    false => !accept_waiting(&last, &ingest),
                };
                if is_turn_over {
                    // Under epoll, a backlog that is never empty would keep the core from all other tasks.
                    pause(TURN_MILLIS).await;
                }
            }
            Err(_) if ingest.is_closing() => {}
            Err(e) if is_lost_connection(&e) => {}
            Err(error) => {
                // Descriptors or memory have run out. An immediate retry would spin.
                tracing::warn!(%error, fd = listener.as_raw_fd(), "can't accept connections");
                pause(ACCEPT_PAUSE_MILLIS).await;
            }
        }
    }
    // The ring closes its descriptor asynchronously. `last` must outlive it, or the port would stay open for a moment
    // after the last accept.
    drop(listener);
    pause(RING_CLOSE_MILLIS).await;
    if !is_kept {
        accept_backlog(&last, &ingest);
    }
    Ok(())
}

/// Accepts connections in the backlog, up to [`ACCEPTS_PER_TURN_MAX`]. Returns whether it is empty. A ring completes
/// one accept each time that it is polled, and a busy core polls it a hundred times a second.
fn accept_waiting(listener: &StdListener, ingest: &Rc<Ingest>) -> bool {
    for _ in 0..ACCEPTS_PER_TURN_MAX {
        if ingest.shared().connections.is_full() || !is_connection_waiting(listener) {
            return true;
        }
        // This does not block: no other process accepts from this socket, and Linux keeps a connection in the backlog
        // until it is accepted, also if its peer resets it.
        match listener.accept() {
            Ok((socket, _)) => assign(ingest, socket.into()),
            // The caller's next accept fails in the same way, and waits.
            Err(_) => return true,
        }
    }
    false
}

fn is_connection_waiting(listener: &StdListener) -> bool {
    let mut events = [PollFd::new(listener, PollFlags::IN)];
    matches!(rustix::event::poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
}

/// Accepts all connections in the backlog.
fn accept_backlog(listener: &StdListener, ingest: &Rc<Ingest>) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !ingest.shared().connections.is_full() {
        match listener.accept() {
            Ok((socket, _)) => assign(ingest, socket.into()),
            Err(e) if is_lost_connection(&e) || e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Creates the canceller that stops [`accept`].
pub fn canceller() -> Canceller {
    Canceller::new()
}

/// Gives a connection to the core with the fewest connections.
fn assign(ingest: &Rc<Ingest>, socket: OwnedFd) {
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

/// Returns whether `accept` failed only because the peer closed the connection first.
fn is_lost_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn pause(millis: u64) {
    monoio::time::sleep(Duration::from_millis(millis)).await;
}
