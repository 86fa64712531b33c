//! Who asks whether a credential is right.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::SystemTime;

/// Where a question comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The core that asks, and to which a verdict is delivered.
    pub core: usize,
    /// The client's address. Clients without one share a place in the queue of password checks.
    pub peer: Option<IpAddr>,
    /// The time, for tokens that expire.
    pub now: SystemTime,
}
