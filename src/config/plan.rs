//! From settings as written to the one [`Plan`] that the rest of the program runs on: checked and resolved.
//! Past this point nothing is invalid, and nobody looks at a setting twice.
#![forbid(unsafe_code)]

mod build;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;

pub(super) use self::build::build;
use super::bounds::Origins;
use super::{DriverChoice, Target, TenantHeader};
use crate::limits::DRAIN_GRACE_SECS;
use crate::model::{HaLabels, MetadataRule, PerDestination, SplitLimits, V2Handling};
use crate::tenant::TenantRules;

/// All that was decided before the start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where senders push to. `[::]` is meant to take IPv4 as well.
    pub listen: SocketAddr,
    /// Where /metrics and the status page are.
    pub listen_metrics: SocketAddr,
    /// Where profiles are to be had, if anywhere.
    pub listen_pprof: Option<SocketAddr>,
    /// Metrics are labelled with the tenant.
    pub metrics_include_tenant: bool,
    /// The least severe lines that are logged.
    pub log_level: LevelFilter,
    /// Refusals by the upstream are logged.
    pub log_response_errors: bool,
    /// What upstream requests say, besides their tenant.
    pub terms: Arc<Terms>,
    /// The targets' IPv6 addresses are used, too.
    pub enable_ipv6: bool,
    /// For a sender's head and body, and for the upstream's answer. Never 0.
    pub timeout: Duration,
    /// Between two requests of a sender. Never 0.
    pub idle_timeout: Duration,
    /// The longest Retry-After that a sender hears. Never 0.
    pub retry_after_max: Duration,
    /// For load balancers to look elsewhere, before the listeners close. 0 is at once.
    pub timeout_shutdown: Duration,
    /// Age at which an upstream connection is replaced.
    pub max_connection_duration: Option<Duration>,
    /// Connections to one upstream address, for the process. At least 1.
    pub max_conns_per_host: usize,
    /// Requests in work, for the process. At least 1.
    pub concurrency: usize,
    /// What becomes of metadata.
    pub metadata: MetadataRule,
    /// How Remote Write 2.0 goes on; `None` refuses it.
    pub remote_write_v2: Option<V2Handling>,
    /// An upstream that takes 2.0 without saying what it has written is taken to have failed.
    pub remote_write_v2_require_written: bool,
    /// Headers that go on as they come.
    pub pass_headers: Vec<Box<str>>,
    /// The deciding label is taken out of Loki's streams.
    pub loki_label_remove: bool,
    /// Senders always hear 204.
    pub accept_all: bool,
    /// How a series names its tenant.
    pub tenant: TenantRules,
    /// Threads; `None` is one for each CPU of the affinity mask.
    pub cores: Option<NonZeroUsize>,
    /// What drives the sockets.
    pub driver: DriverChoice,
    /// When and how parts of a tenant become one request.
    pub merge: Merge,
    /// What is remembered of requests that failed in part.
    pub receipts: Receipts,
    /// Bounds that an operator may move.
    pub limits: Limits,
    /// Between two lookups of the target's name. Never 0.
    pub resolve_interval: Duration,
    /// What is no mistake but worth a warning in the log: one line each.
    pub notices: Vec<String>,
    pub(super) effective: Effective,
    /// Who said so, for mistakes that only show beside another plan.
    pub(super) origins: Origins,
}

impl Plan {
    /// Every setting on one line, `key=value`, for the log; secrets are masked.
    pub fn effective(&self) -> String {
        self.effective.to_string()
    }

    /// What the parts of one tenant may take of what is in flight.
    pub fn tenant_share(&self) -> Share {
        let limits = &self.limits;
        Share {
            parts_max: (self.concurrency * limits.tenant_share_percent).div_ceil(100),
            bytes_max: (limits.in_flight_bytes_max / 100).saturating_mul(limits.tenant_share_percent).max(1),
        }
    }

    /// What the parts of all slow tenants may take of what is in flight.
    pub fn slow_share(&self) -> Share {
        let limits = &self.limits;
        Share {
            parts_max: (self.concurrency * limits.slow_share_percent).div_ceil(100),
            bytes_max: (limits.in_flight_bytes_max / 100).saturating_mul(limits.slow_share_percent).max(1),
        }
    }

    /// How many of an upstream address's connections all slow tenants may hold.
    pub fn slow_connections_max(&self) -> usize {
        (self.max_conns_per_host * self.limits.slow_share_percent / 100).max(1)
    }

    /// How many of an upstream address's connections one tenant may hold.
    pub fn tenant_connections_max(&self) -> usize {
        (self.max_conns_per_host * self.limits.tenant_share_percent / 100).max(1)
    }

    /// The longest that a request in flight may take, from its first byte to the last of its answer. What a server that
    /// leaves has to wait for is this, and [`DRAIN_GRACE_SECS`] for all that is not waiting.
    ///
    /// One `timeout` each: its head; its body; a part's wait until it is on its way; its wait to go again, alone or in
    /// pieces; the connection that it may have to wait for at the very end of that; its last attempt, to the end of the
    /// upstream's reply; the answer, until its sender has read it. ARCHITECTURE.md has the same as a table ("Time").
    pub fn request_time_max(&self) -> Duration {
        const TIMEOUTS: u32 = 7;
        self.timeout.saturating_mul(TIMEOUTS)
    }

    /// The longest that a server takes to end once it was told to: what `TimeoutStopSec` or
    /// `terminationGracePeriodSeconds` has to be at the least.
    pub fn stop_time_max(&self) -> Duration {
        let finishing = self.request_time_max().saturating_add(Duration::from_secs(DRAIN_GRACE_SECS));
        self.timeout_shutdown.saturating_add(finishing)
    }

    /// Bounds of what a request holds.
    pub fn split_limits(&self) -> SplitLimits {
        SplitLimits {
            inflated_bytes_max: self.limits.inflated_bytes_max,
            tenants_max: self.limits.tenants_per_request_max,
        }
    }
}

/// The plan that holds now. A request takes it once, at its beginning, and keeps to it to its end.
pub type Live = Arc<ArcSwap<Plan>>;

/// What upstream requests say, besides their tenant. A fragment is sent under the terms under which its request was taken
/// in, whatever is reloaded meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Where requests go.
    pub targets: PerDestination<Target>,
    /// What names the tenant to the upstream.
    pub tenant_header: TenantHeader,
    /// The whole value of the `Authorization` header for the upstream. A secret.
    pub authorization: Option<Secret>,
    /// Grows when a reload moves tenants' data to another place. What was delivered to the old one is not in the new.
    pub place: u32,
}

/// The settings as they are shown: keys and values, secrets masked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effective(pub(super) Vec<(&'static str, String)>);

impl Effective {
    /// That a setting stays what it is.
    pub(super) fn stays(&self, path: &str) -> String {
        let value = self.0.iter().find(|(key, _)| *key == path).map_or("", |(_, value)| value);
        format!("{path} stays {value}")
    }
}

impl std::fmt::Display for Effective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{key}={value}")?;
        }
        Ok(())
    }
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// When and how the parts of a tenant become one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// A tenant's requests on their way at once. At least 1.
    pub inflight_max: usize,
    /// How long a part waits for others. 0 is not at all.
    pub linger: Duration,
    /// Parts of one request, 1 to [`MERGE_FRAGMENTS_MAX`](crate::limits::MERGE_FRAGMENTS_MAX). 1 means that nothing merges.
    pub fragments_max: usize,
    /// Inflated size of one merged request. At least 1.
    pub inflated_bytes_max: usize,
    /// The labels of an HA pair, if there are pairs.
    pub ha_labels: Option<HaLabels>,
}

/// What is remembered of requests that failed in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// For how long. 0 is not at all.
    pub keep: Duration,
    /// Memory for it, for the process. At least 1.
    pub bytes_max: usize,
}

/// Bounds that an operator may move. None is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request's line and headers.
    pub head_bytes_max: usize,
    /// A request's body as it comes in.
    pub body_bytes_max: usize,
    /// A request's body after decompression; fits in 32 bits.
    pub inflated_bytes_max: usize,
    /// All requests in work.
    pub in_flight_bytes_max: usize,
    /// Of requests and bytes in work, how many may be one tenant's, in percent.
    pub tenant_share_percent: usize,
    /// The same, and of connections, for all slow tenants together.
    pub slow_share_percent: usize,
    /// Senders' connections; `None` is what the limit of open files leaves.
    pub connections_max: Option<NonZeroUsize>,
    /// Tenants with a lane and metrics of their own.
    pub tenants_max: usize,
    /// Distinct tenants in one request.
    pub tenants_per_request_max: usize,
}

/// What the parts of one tenant, or of all slow ones together, may take of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Parts waiting or on their way. At least 1.
    pub parts_max: usize,
    /// Their bytes, as they are sent, unless it is one part alone.
    pub bytes_max: usize,
}

#[cfg(test)]
mod tests;
