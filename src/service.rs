//! The service manager: what it is told, and what it passes on (sd_notify(3), sd_listen_fds(3)).
//!
//! Without one, or with one that does not listen, all of this does nothing.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
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

/// Tells the service manager something, if there is one. The first failure is logged.
pub fn notify(notice: &Notice<'_>) {
    static HAS_FAILED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = sd_notify::notify(&states(notice))
        && !HAS_FAILED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(%error, "can't notify the service manager");
    }
}

fn states<'a>(notice: &Notice<'a>) -> Vec<NotifyState<'a>> {
    match *notice {
        Notice::Ready { status } => vec![NotifyState::Ready, NotifyState::Status(status)],
        // `Type=notify-reload` also requires the time of its beginning.
        Notice::Reloading => {
            let now = NotifyState::monotonic_usec_now().ok();
            [NotifyState::Reloading].into_iter().chain(now).collect()
        }
        Notice::Stopping { within } => {
            let micros = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
            let status = NotifyState::Status("Finishing what is in flight");
            vec![NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros), status]
        }
        Notice::Alive => vec![NotifyState::Watchdog],
    }
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
