//! Where requests go that are stored: into the sums of their tenant, and into the full account if one is kept.
//!
//! A script may ask for a request to be held back until the next one of its tenant, on its connection, is stored. What
//! is held counts as stored from when it is let go: at the latest when somebody asks for the account.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message;

use super::Shared;
use super::stats::TenantCount;
use crate::account::FullAccount;
use crate::proto::WriteRequest;
use crate::stamp::{self, Damaged, Stamp};

/// Requests held back at a time. One that finds no room is stored at once.
const HELD_MAX: usize = 1024;

/// A request that is to be stored.
pub(super) struct Delivery {
    /// The tenant that it is stored under.
    pub(super) tenant: String,
    /// What it adds to the tenant's counts.
    pub(super) count: TenantCount,
    /// The decoded request, if a full account is kept.
    pub(super) decoded: Option<WriteRequest>,
    /// Whether its sender is told that it is stored.
    pub(super) is_told: bool,
}

/// What a sink stores besides its counts.
#[derive(Default)]
pub(super) struct Store {
    /// None if none is kept.
    account: Option<Mutex<FullAccount>>,
    /// By tenant and connection.
    held: Mutex<HashMap<(String, u64), Delivery>>,
}

impl Store {
    pub(super) fn new(full_account: bool) -> Self {
        Self { account: full_account.then(Mutex::default), held: Mutex::default() }
    }

    /// Whether there is a full account.
    pub(super) fn keeps_account(&self) -> bool {
        self.account.is_some()
    }

    /// Decodes what the account will look at; None if there is no account.
    pub(super) fn decode(&self, inflated: &[u8]) -> Option<WriteRequest> {
        self.account.as_ref()?;
        // The bytes were walked before: whatever fails here would have failed there.
        WriteRequest::decode(Bytes::copy_from_slice(inflated)).ok()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(String, u64), Delivery>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something of each stamped sample of a request, if an account is kept.
    fn note(&self, delivery: &Delivery, note: impl Fn(&mut FullAccount, Result<Stamp<'_>, Damaged>)) {
        let (Some(account), Some(request)) = (&self.account, &delivery.decoded) else { return };
        let mut account = account.lock().unwrap_or_else(PoisonError::into_inner);
        for series in &request.timeseries {
            stamp::read_v1(series, |read| note(&mut account, read));
        }
    }
}

impl Shared {
    /// Stores a request, and whatever waited for it.
    pub(super) fn store(&self, delivery: &Delivery, connection: u64) {
        self.store_only(delivery);
        if self.config.script.is_none() {
            return;
        }
        let held = self.store.held().remove(&(delivery.tenant.clone(), connection));
        if let Some(held) = held {
            self.store_only(&held);
        }
    }

    /// Notes that the answer to a stored request could not be sent.
    pub(super) fn untell(&self, delivery: &Delivery) {
        self.store.note(delivery, |account, read| {
            if let Ok(stamp) = read {
                account.untell(&delivery.tenant, &stamp);
            }
        });
    }

    /// Holds a request back until the next; it is that next itself if one waits already.
    pub(super) fn store_after_next(&self, delivery: Delivery, connection: u64) {
        let key = (delivery.tenant.clone(), connection);
        let mut held = self.store.held();
        if held.contains_key(&key) || held.len() >= HELD_MAX {
            drop(held);
            self.store(&delivery, connection);
        } else {
            held.insert(key, delivery);
        }
    }

    /// Stores what is held back: of one connection, or of all.
    pub(super) fn let_go(&self, connection: Option<u64>) {
        let mut held = self.store.held();
        let keys: Vec<(String, u64)> =
            held.keys().filter(|key| connection.is_none_or(|id| key.1 == id)).cloned().collect();
        let deliveries: Vec<Delivery> = keys.iter().filter_map(|key| held.remove(key)).collect();
        drop(held);
        for delivery in &deliveries {
            self.store_only(delivery);
        }
    }

    /// The full account, if one is kept; nothing is held back then.
    pub(super) fn account(&self) -> Option<FullAccount> {
        self.let_go(None);
        let account = self.store.account.as_ref()?;
        Some(account.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn store_only(&self, delivery: &Delivery) {
        // First the account: a reader of the counts may then ask for it.
        self.store.note(delivery, |account, read| match read {
            Ok(stamp) => account.store(&delivery.tenant, &stamp, delivery.is_told),
            Err(damaged) => account.store_damaged(&delivery.tenant, damaged),
        });
        let mut counts = self.counts();
        match counts.tenants.get_mut(&delivery.tenant) {
            Some(count) => *count += delivery.count,
            None => drop(counts.tenants.insert(delivery.tenant.clone(), delivery.count)),
        }
    }
}
