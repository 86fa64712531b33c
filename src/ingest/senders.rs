//! Counts what each sender sends, by its address.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::limits::SENDERS_COUNTED_MAX;
use crate::metrics::{Metrics, Place};

/// The senders that this core has seen, so that each is looked for among all only once.
#[derive(Debug, Default)]
pub(super) struct Senders(HashMap<IpAddr, Place>);

impl Senders {
    /// The place of a sender's counters. Up to the bound it is remembered. Further senders are among those that share
    /// their counters, or known from another core.
    pub(super) fn place(&mut self, address: IpAddr, metrics: &Metrics) -> Place {
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
