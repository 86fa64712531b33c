//! The service manager: what it is told, and what it passes on (sd_notify(3), sd_listen_fds(3)).
//!
//! Without one, all of this does nothing. One that does not read its messages must not stop the server: its socket
//! takes some ten of them, and then a send blocks.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// What the service manager is told.
#[derive(Debug)]
pub enum Notice<'a> {
    /// The server takes requests. A reload, if there was one, is over.
    Ready {
        /// The server's state in one line.
        status: &'a str,
    },
    /// A reload has begun.
    Reloading,
    /// The server shuts down.
    Stopping {
        /// The longest time that it takes.
        within: Duration,
    },
    /// All cores turn: the watchdog is fed.
    Alive,
}

/// The longest time that a message waits for room.
const SEND_WAIT: Duration = Duration::from_secs(1);

/// Tells the service manager something, if there is one. The first failure is logged.
pub fn notify(notice: &Notice<'_>) {
    static HAS_FAILED: AtomicBool = AtomicBool::new(false);
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    // The next one comes soon.
    let wait = if matches!(notice, Notice::Alive) { None } else { Some(SEND_WAIT) };
    if let Err(error) = send(&path, &text(notice), wait)
        && !HAS_FAILED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(%error, "can't notify the service manager");
    }
}

/// Sends a message, for which there must be room within `wait`.
fn send(path: &OsStr, text: &str, wait: Option<Duration>) -> io::Result<()> {
    let address = match path.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    match wait {
        Some(wait) => socket.set_write_timeout(Some(wait))?,
        None => socket.set_nonblocking(true)?,
    }
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

fn text(notice: &Notice<'_>) -> String {
    let micros;
    let states = match *notice {
        Notice::Ready { status } => vec![NotifyState::Ready, NotifyState::Status(status)],
        // `Type=notify-reload` also requires the time of its beginning.
        Notice::Reloading => {
            let now = NotifyState::monotonic_usec_now().ok();
            [NotifyState::Reloading].into_iter().chain(now).collect()
        }
        Notice::Stopping { within } => {
            micros = format!("EXTEND_TIMEOUT_USEC={}", within.as_micros());
            let status = NotifyState::Status("Finishing what is in flight");
            vec![NotifyState::Stopping, NotifyState::Custom(&micros), status]
        }
        Notice::Alive => vec![NotifyState::Watchdog],
    };
    states.iter().fold(String::new(), |mut text, state| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{state}");
        text
    })
}

/// The time within which the watchdog must be fed. None if there is no watchdog.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// The sockets that the service manager has passed on, if it has started this process for them. A second call returns
/// none.
///
/// # Errors
/// When the service manager's variables make no sense, or name descriptors that are not open.
pub fn passed_sockets() -> io::Result<Vec<OwnedFd>> {
    static ARE_TAKEN: AtomicBool = AtomicBool::new(false);
    if ARE_TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let descriptors = sd_notify::listen_fds()?;
    // SAFETY: the variables name this process, so its service manager has opened these descriptors for it. `listen_fds`
    // has found each of them open. Nothing else here knows their numbers, and they are taken only once.
    Ok(descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }).collect())
}
