//! A question of the admin thread to all cores: how are your upstream addresses?
//!
//! Only a core itself may look into its pools. So it is asked, and answers in its next turn. The admin
//! thread waits for a short time only: a core that is stuck must not keep the others' answers from operators.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::UpstreamId;

/// An upstream address, as one core sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressState {
    /// The upstream that it belongs to.
    pub upstream: UpstreamId,
    /// The address.
    pub address: SocketAddr,
    /// Connections of this core that are open and idle.
    pub idle: usize,
    /// Connections that all cores together may still open; `None` if this core has not used the address yet.
    pub permits_free: Option<usize>,
    /// How often in a row it has failed.
    pub failures: u32,
    /// If it is in backoff, how much longer.
    pub backoff_left: Option<Duration>,
    /// Its usual response time, over all cores.
    pub usual: Option<Duration>,
    /// When it last answered this core.
    pub answered: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Inquiry {
    answers: Mutex<Vec<Vec<AddressState>>>,
}

impl Inquiry {
    /// Called once by each core.
    pub fn answer(&self, states: Vec<AddressState>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(states);
    }

    /// The number of cores that have answered.
    pub fn answered(&self) -> usize {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes the answers.
    pub fn take(&self) -> Vec<AddressState> {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        answers.into_iter().flatten().collect()
    }
}
