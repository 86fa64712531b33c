//! Why there is no profile.
#![forbid(unsafe_code)]

use std::io;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Another one is being taken.
    #[error("another profile is being taken: try again when it has ended")]
    Busy,
    /// The client has left.
    #[error("the client has left")]
    Cancelled,
    /// The system refuses the timers, or the handler of their signal.
    #[error(
        "the system refuses what a profile needs, which a retry does not change (timer_create(2) or sigaction(2), by a \
         seccomp profile?): {0}"
    )]
    Refused(#[source] io::Error),
    /// The samples cannot be written as asked.
    #[error("can't write the profile: {0}")]
    Write(#[source] io::Error),
}
