//! What happened to a tenant lately: errors, and who sent for it. For people who look at one tenant.
//!
//! A tenant's home core writes notes, and the admin thread reads them. A core never waits for a lock: if a reader has
//! it, the note is lost. Notes are bounded, and a core writes each kind a few times a second at most.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::{TENANT_ERRORS_NOTED_MAX, TENANT_SENDERS_NOTED_MAX};

/// A fragment that was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorNote {
    /// When it got its outcome.
    pub at: Instant,
    /// The ID of its request.
    pub request_id: u128,
    /// Its sender.
    pub sender: SocketAddr,
    /// The upstream's status, or the one that stands for its failure.
    pub status: u16,
    /// The address that it was sent to, if it was.
    pub address: Option<SocketAddr>,
    /// The upstream's text, or the reason; it may be hostile.
    pub reason: Box<str>,
}

/// All notes of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The last errors, oldest first.
    pub errors: VecDeque<ErrorNote>,
    /// Addresses of senders, and when a request of theirs was noted last.
    pub senders: Vec<(IpAddr, Instant)>,
    /// Request sizes, in inflated bytes, that upstream addresses accept at most, as far as was learnt.
    pub sizes: Vec<(SocketAddr, usize)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Noted>);

impl Notes {
    /// Notes an error. The oldest goes if there are too many.
    pub fn error(&self, note: ErrorNote) {
        let Ok(mut noted) = self.0.try_lock() else { return };
        if noted.errors.len() >= TENANT_ERRORS_NOTED_MAX {
            noted.errors.pop_front();
        }
        noted.errors.push_back(note);
    }

    /// Notes a sender. The one that was noted longest ago goes if there are too many.
    pub fn sender(&self, sender: IpAddr, at: Instant) {
        let Ok(mut noted) = self.0.try_lock() else { return };
        if let Some(known) = noted.senders.iter_mut().find(|(ip, _)| *ip == sender) {
            known.1 = at;
        } else if noted.senders.len() < TENANT_SENDERS_NOTED_MAX {
            noted.senders.push((sender, at));
        } else if let Some(oldest) = noted.senders.iter_mut().min_by_key(|(_, at)| *at) {
            *oldest = (sender, at);
        }
    }

    /// Notes the sizes that upstream addresses accept.
    pub fn sizes(&self, sizes: Vec<(SocketAddr, usize)>) {
        if let Ok(mut noted) = self.0.try_lock() {
            noted.sizes = sizes;
        }
    }

    /// The notes.
    pub fn read(&self) -> Noted {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last error.
    pub fn last_error(&self) -> Option<ErrorNote> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).errors.back().cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn error(request_id: u128) -> ErrorNote {
        let sender = SocketAddr::from(([127, 0, 0, 1], 1));
        ErrorNote { at: Instant::now(), request_id, sender, status: 500, address: None, reason: "x".into() }
    }

    #[test]
    fn the_last_errors_and_the_latest_senders_stay() {
        let (notes, start) = (Notes::default(), Instant::now());
        (0..100).for_each(|id| notes.error(error(id)));
        for n in (0..100u8).chain([95]) {
            notes.sender(IpAddr::from([10, 0, 0, n]), start + Duration::from_secs(n.into()));
        }
        let noted = notes.read();
        assert_eq!(
            (noted.errors.len(), noted.senders.len()),
            (TENANT_ERRORS_NOTED_MAX, TENANT_SENDERS_NOTED_MAX)
        );
        assert_eq!(notes.last_error().unwrap().request_id, 99);
        assert!(noted.senders.iter().all(|(_, at)| *at >= start + Duration::from_secs(92)));
    }

    #[test]
    fn a_core_does_not_wait_for_a_reader() {
        let notes = Notes::default();
        let reader = notes.0.lock().unwrap();
        notes.error(error(1));
        notes.sender(IpAddr::from([10, 0, 0, 1]), Instant::now());
        drop(reader);
        assert_eq!(notes.read(), Noted::default());
    }
}
