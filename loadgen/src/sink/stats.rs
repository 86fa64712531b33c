//! What a sink has counted.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::account::Tally;

/// Counts of one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantCount {
    /// Requests under the tenant's header, whatever they were answered.
    pub requests: u64,
    /// Those answered otherwise than with 2xx; nothing of them is in the sums below.
    pub refused: u64,
    /// Bodies as they came over the wire.
    pub bytes: u64,
    /// Series whose tenant's label says that they belong to somebody else.
    pub misplaced: u64,
    /// Metric metadata.
    pub metadata: u64,
    /// What was stored.
    #[serde(flatten)]
    pub stored: Tally,
}

impl AddAssign for TenantCount {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.refused += other.refused;
        self.bytes += other.bytes;
        self.misplaced += other.misplaced;
        self.metadata += other.metadata;
        self.stored += other.stored;
    }
}

/// Counts of a sink, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Connections accepted so far.
    pub connections: u64,
    /// Good requests so far, whatever they were answered.
    pub requests: u64,
    /// Requests that were no remote write: not HTTP, no snappy, no protobuf, or without a tenant.
    pub broken: u64,
    /// Why the last of them was broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_why: Option<String>,
    /// Each tenant by its header's value.
    pub tenants: BTreeMap<String, TenantCount>,
}

impl Snapshot {
    /// Sums over all tenants.
    pub fn total(&self) -> TenantCount {
        let mut total = TenantCount::default();
        for &count in self.tenants.values() {
            total += count;
        }
        total
    }

    /// One tenant's counts; zeros for one that nothing came for.
    pub fn tenant(&self, name: &str) -> TenantCount {
        self.tenants.get(name).copied().unwrap_or_default()
    }
}
