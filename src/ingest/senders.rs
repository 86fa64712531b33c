//! Counts what each sender sends, by its address.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Ingest;
use crate::limits::SENDERS_COUNTED_MAX;
use crate::metrics::{Metrics, Place};

/// The senders that this core has seen, so that each is looked for among all only once.
#[derive(Debug, Default)]
pub(super) struct Senders(HashMap<IpAddr, Place>);

impl Senders {
    /// The place of a sender's counters. Up to the bound it is remembered. Further senders are among those that share
    /// their counters, or known from another core.
    fn place(&mut self, address: IpAddr, metrics: &Metrics) -> Place {
        if let Some(&place) = self.0.get(&address) {
            return place;
        }
        let place = metrics.sender(address);
        if self.0.len() < SENDERS_COUNTED_MAX {
            self.0.insert(address, place);
        }
        place
    }
}

impl Ingest {
    /// Counts a request that was read from this address.
    pub(super) fn count_request_of(&self, address: IpAddr) {
        let place = self.senders.borrow_mut().place(address, &self.metrics);
        self.metrics.count_request_of(self.core(), place);
    }

    /// Counts samples of such a request.
    pub(super) fn count_samples_of(&self, address: IpAddr, samples: u64) {
        let place = self.senders.borrow_mut().place(address, &self.metrics);
        self.metrics.count_samples_of(self.core(), place, samples);
    }
}
