//! What a pool tells of its addresses.

use std::time::Instant;

use super::Pool;
use crate::exchange::inquiry::AddressState;

impl Pool {
    /// The state of each address, as this core sees it.
    pub fn describe(&self) -> Vec<AddressState> {
        let now = Instant::now();
        let (hosts, backoffs) = (self.hosts.borrow(), self.backoffs.borrow());
        let addresses = self.addresses.load();
        let state = |&address| {
            let (failures, backoff_left) = backoffs.state_of(address, now);
            let host = hosts.get(&address);
            AddressState {
                upstream: self.upstream,
                address,
                idle: host.map_or(0, |host| host.idle.len()),
                permits_free: host.map(|host| host.permits.free()),
                failures,
                backoff_left,
                usual: host.and_then(|host| host.permits.pace.usual()),
                answered: host.and_then(|host| host.answered),
            }
        };
        addresses.addresses.iter().map(state).collect()
    }
}
