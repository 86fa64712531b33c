//! Why a server ends.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use super::bind::BindError;

/// Why the server did not start, or ended without a request to do so.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A port is in use or may not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The service manager has passed a socket on that no setting asks for.
    #[error(
        "can't listen on {address}, a socket of the service manager: no setting has this address ({settings}); write \
         the same in the socket unit (ListenStream=) and in the configuration"
    )]
    Passed {
        /// The socket's address.
        address: SocketAddr,
        /// The settings and their addresses.
        settings: String,
    },
    /// The service manager has passed something else on.
    #[error("can't listen on a descriptor of the service manager: it is no listening TCP socket")]
    PassedOther,
    /// io_uring is configured but not available.
    #[error("driver io_uring does not work here: {0}; `driver: auto` falls back to epoll")]
    Driver(io::Error),
    /// The spool can't be used.
    #[error("the spool in {dir} can't be used: {reason}")]
    Spool {
        /// Its folder.
        dir: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused a thread, a descriptor or a signal handler.
    #[error("can't start: {0}")]
    Start(#[from] io::Error),
    /// A core ended by itself.
    #[error("core {core} ended: {error}")]
    Core {
        /// Its number.
        core: usize,
        /// The reason.
        error: String,
    },
    /// Requests were still in flight long after all their deadlines.
    #[error("gave up waiting for requests in flight")]
    Drain,
}
