//! The part of Mimir's HA tracker that a sender can see.
//!
//! Mimir looks at the first series of a request only: if it has both a `cluster` and a `__replica__` label, the whole request counts as that
//! replica's. The first replica of a cluster that is seen is elected; requests of others are answered with 202 and dropped, until the
//! elected one was silent for [`FAILOVER`]. (Grafana Mimir, "Configure high-availability deduplication".)

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost::encoding::WireType;
use testkit::fields::fields;

use crate::proto::TimeSeries;

/// How long an elected replica may be silent: Mimir's `ha_tracker_failover_timeout`, as it is set by default.
const FAILOVER: Duration = Duration::from_secs(30);

/// Clusters that are known at a time, of all tenants. Requests of further ones pass.
const CLUSTERS_MAX: usize = 10_000;

/// Who is elected, for each tenant and cluster.
#[derive(Default)]
pub(super) struct Elections {
    elected: HashMap<(String, Bytes), Elected>,
}

struct Elected {
    replica: Bytes,
    seen: Duration,
}

impl Elections {
    /// Whether a request of this replica is to be stored.
    pub(super) fn elect(&mut self, now: Duration, tenant: &str, cluster: &Bytes, replica: &Bytes) -> bool {
        let key = (tenant.to_owned(), cluster.clone());
        let is_full = self.elected.len() >= CLUSTERS_MAX;
        match self.elected.get_mut(&key) {
            Some(elected) if elected.replica == replica => elected.seen = now,
            Some(elected) if now.saturating_sub(elected.seen) <= FAILOVER => return false,
            Some(elected) => *elected = Elected { replica: replica.clone(), seen: now },
            None if is_full => {}
            None => drop(self.elected.insert(key, Elected { replica: replica.clone(), seen: now })),
        }
        true
    }
}

/// Cluster and replica of a request, if its first series names both.
pub(super) fn pair(inflated: &[u8]) -> Option<(Bytes, Bytes)> {
    let series = first_series(inflated)?;
    let value = |name| series.label(name).filter(|value| !value.is_empty()).map(Bytes::copy_from_slice);
    value("cluster").zip(value("__replica__"))
}

fn first_series(inflated: &[u8]) -> Option<TimeSeries> {
    let is_series = (1, WireType::LengthDelimited);
    let mut fields = fields(inflated).map_while(Result::ok);
    let first = fields.find(|field| (field.number, field.wire_type) == is_series)?;
    TimeSeries::decode(first.body(inflated)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{MetricMetadata, WriteRequest};

    #[test]
    fn the_first_seen_is_elected_until_it_is_silent() {
        let mut elections = Elections::default();
        let mut elect = |seconds, tenant: &str, cluster: &'static str, replica: &'static str| {
            let (cluster, replica) = (Bytes::from(cluster), Bytes::from(replica));
            elections.elect(Duration::from_secs(seconds), tenant, &cluster, &replica)
        };
        assert!(elect(0, "a", "c", "r1"));
        assert!(!elect(1, "a", "c", "r2"));
        assert!(elect(1, "b", "c", "r2") && elect(1, "a", "d", "r2"), "each tenant and cluster votes alone");
        assert!(elect(20, "a", "c", "r1"));
        assert!(!elect(50, "a", "c", "r2"), "silent for just 30 s");
        assert!(elect(51, "a", "c", "r2"));
        assert!(!elect(52, "a", "c", "r1"), "and the old one is out");
    }

    #[test]
    fn only_the_first_series_is_asked() {
        let series = |labels: &[(&str, &str)]| TimeSeries::new(labels, &[(1, 1.0)]);
        let pair = |timeseries| {
            let request = WriteRequest { timeseries, metadata: vec![MetricMetadata::default()] };
            super::pair(&request.encode_to_vec())
        };
        let whole = || series(&[("__replica__", "r1"), ("cluster", "c")]);
        assert_eq!(pair(vec![whole(), series(&[])]), Some((Bytes::from("c"), Bytes::from("r1"))));
        assert_eq!(pair(vec![series(&[("cluster", "c")]), whole()]), None);
        assert_eq!(pair(vec![]), None);
    }
}
