//! The [`Plan`]: all settings, checked and resolved. The rest of the program relies on it being valid and does not
//! check a setting again.
#![forbid(unsafe_code)]

pub(super) mod build;
mod egress;
mod files;
mod security;

pub use self::files::FilesRead;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;

use super::auth::Auth;
use super::credentials::Credentials;
pub use super::observe::{AccessLog, Tracing};
use super::security::SecuritySettings;
use super::setting::{Effective, Origins};
pub use super::spool::Spool;
pub use super::terms::Terms;
use super::tls::{Tls, UpstreamTls};
use super::upstreams::Upstreams;
pub use super::value::{DriverChoice, Fsync, SpoolWhen};
pub use crate::auth::Secret;
use crate::limits::DRAIN_GRACE_SECS;
use crate::log::LogFormat;
use crate::model::{Destination, HaLabels, MetadataRule, SplitLimits, UpstreamId, V2Handling};
use crate::tenant::{Grant, TenantId, TenantRules};

/// All settings, checked and resolved.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The address for pushes. `[::]` accepts IPv4 as well.
    pub listen: SocketAddr,
    /// The address of /metrics and the status page.
    pub listen_metrics: SocketAddr,
    /// The address of the profiling endpoints, if they are enabled.
    pub listen_pprof: Option<SocketAddr>,
    /// Whether metrics carry a tenant label.
    pub metrics_include_tenant: bool,
    /// After this time without data, a tenant is left out of /metrics. Zero means never.
    pub metrics_tenant_idle: Duration,
    /// How many histograms of tenants /metrics has. 0 means any number.
    pub metrics_tenant_histograms_max: usize,
    /// The lowest severity that is logged.
    pub log_level: LevelFilter,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Whether the upstream's error responses are logged.
    pub log_response_errors: bool,
    /// Which requests have a line in the log.
    pub access_log: AccessLog,
    /// Which requests are traced.
    pub tracing: Tracing,
    /// Everything in upstream requests except the tenant.
    pub terms: Arc<Terms>,
    /// What the terms' `authorization` was made of.
    pub(super) credentials: Credentials,
    /// The named upstreams.
    pub upstreams: Arc<Upstreams>,
    /// The TLS of the listeners and of the targets.
    pub tls: Tls,
    /// Who may push, and to which tenants.
    pub auth: Auth,
    /// Who may see the pages of the admin listeners.
    pub admin_auth: Auth,
    /// The settings that TLS and authentication were read by.
    pub(super) security: SecuritySettings,
    /// The files that they were read from.
    pub(super) security_files: Vec<PathBuf>,
    /// Whether the targets' IPv6 addresses are used as well.
    pub enable_ipv6: bool,
    /// Timeout for a request's head, for its body, and for the upstream's answer. Never 0.
    pub timeout: Duration,
    /// Timeout between two requests of a sender. Never 0.
    pub idle_timeout: Duration,
    /// The longest Retry-After that is passed on to a sender. Never 0.
    pub retry_after_max: Duration,
    /// The delay before the listeners close at shutdown, for load balancers to react. 0 means at once.
    pub timeout_shutdown: Duration,
    /// The age at which an upstream connection is replaced.
    pub max_connection_duration: Option<Duration>,
    /// Process-wide maximum of connections to one upstream address. At least 1.
    pub max_conns_per_host: usize,
    /// Process-wide maximum of requests in flight. At least 1.
    pub concurrency: usize,
    /// What happens to metadata.
    pub metadata: MetadataRule,
    /// How Remote Write 2.0 is forwarded; `None` refuses it.
    pub remote_write_v2: Option<V2Handling>,
    /// Whether a 2xx to Remote Write 2.0 without a count of written samples is treated as a failure.
    pub remote_write_v2_require_written: bool,
    /// Inbound headers that are passed on unchanged.
    pub pass_headers: Vec<Box<str>>,
    /// Whether the label that named the tenant is removed from Loki streams.
    pub loki_label_remove: bool,
    /// Whether senders always get 204.
    pub accept_all: bool,
    /// How a series or stream names its tenant.
    pub tenant: TenantRules,
    /// How a resource, a scope or an item names its tenant in OTLP. It differs only by the names and their removal.
    pub tenant_otlp: TenantRules,
    /// Number of worker threads; `None` means one per CPU of the affinity mask.
    pub cores: Option<NonZeroUsize>,
    /// The I/O driver.
    pub driver: DriverChoice,
    /// When and how parts of one tenant are merged.
    pub merge: Merge,
    /// Receipts: records of delivered parts of requests that failed in part.
    pub receipts: Receipts,
    /// What is kept on disk while an upstream does not take it, if anything is.
    pub spool: Option<Spool>,
    /// Configurable limits.
    pub limits: Limits,
    /// Interval between two lookups of the targets' names. Never 0.
    pub resolve_interval: Duration,
    /// Warnings for the log, one line each: valid settings that are probably not intended.
    pub notices: Vec<String>,
    pub(super) effective: Effective,
    /// The origins of the settings, for mistakes found later in combination with another plan.
    pub(super) origins: Origins,
}

impl Plan {
    /// All settings on one line as `key=value`, for the log. Secrets are masked.
    pub fn effective(&self) -> String {
        self.effective.to_string()
    }

    /// All settings, by key. Secrets are masked.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.effective.0.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// How data for this destination names its tenant.
    pub fn tenant_rules(&self, destination: Destination) -> &TenantRules {
        if destination.signal().is_some() { &self.tenant_otlp } else { &self.tenant }
    }

    /// Whether what names the tenant is removed from data for this destination.
    pub fn removes_label(&self, destination: Destination) -> bool {
        match destination {
            Destination::Logs => self.loki_label_remove,
            _ => self.tenant_rules(destination).label_remove,
        }
    }

    /// Whether data for this destination is taken. It is not if its target is OTLP's default, and that is our own
    /// address.
    pub fn takes(&self, destination: Destination) -> bool {
        !self.is_ourselves(UpstreamId::main(destination))
    }

    /// Whether an upstream's target for OTLP is our own address. A named upstream has that of the main one if it has
    /// none of its own.
    pub fn is_ourselves(&self, id: UpstreamId) -> bool {
        let destination = id.destination();
        destination.signal().is_some() && self.terms_of(id).targets.of(destination).is_at(self.listen)
    }

    /// The upstream that a tenant's data goes to, and what its requests have in common. `source` is the tenant header
    /// of the inbound request, and `grant` that of its sender.
    pub fn upstream_of(
        &self,
        tenant: &TenantId,
        source: Option<&[u8]>,
        grant: &Grant,
        destination: Destination,
    ) -> (UpstreamId, &Arc<Terms>) {
        if !self.upstreams.is_empty() {
            let source = source.map(String::from_utf8_lossy);
            let bare = self.tenant.without_prefix(tenant, source.as_deref(), grant);
            if let Some(upstream) = self.upstreams.of_tenant(bare.as_bytes())
                && let Some(id) = upstream.id(destination)
            {
                return (id, &upstream.terms);
            }
        }
        (UpstreamId::main(destination), &self.terms)
    }

    /// All upstreams that are used.
    pub fn upstream_ids(&self) -> impl Iterator<Item = UpstreamId> {
        Destination::ALL.map(UpstreamId::main).into_iter().chain(self.upstreams.ids())
    }

    /// What the requests to an upstream have in common.
    pub fn terms_of(&self, id: UpstreamId) -> &Arc<Terms> {
        self.upstreams.get(id).map_or(&self.terms, |upstream| &upstream.terms)
    }

    /// The TLS of an upstream.
    pub fn tls_of(&self, id: UpstreamId) -> Option<Arc<UpstreamTls>> {
        match id.index() {
            0 => self.tls.upstream.of(id.destination()).clone(),
            _ => self.upstreams.tls_of(id),
        }
    }

    /// Whether some upstream's certificate is not verified.
    pub fn is_insecure(&self) -> bool {
        self.tls.is_insecure() || self.upstreams.tls().any(|tls| tls.client.is_insecure())
    }

    /// The share of requests and bytes in flight that one tenant may use.
    pub fn tenant_share(&self) -> Share {
        let limits = &self.limits;
        Share {
            parts_max: (self.concurrency * limits.tenant_share_percent).div_ceil(100),
            bytes_max: (limits.in_flight_bytes_max / 100).saturating_mul(limits.tenant_share_percent).max(1),
        }
    }

    /// The share of requests and bytes in flight that all slow tenants together may use.
    pub fn slow_share(&self) -> Share {
        let limits = &self.limits;
        Share {
            parts_max: (self.concurrency * limits.slow_share_percent).div_ceil(100),
            bytes_max: (limits.in_flight_bytes_max / 100).saturating_mul(limits.slow_share_percent).max(1),
        }
    }

    /// How many connections of one upstream address all slow tenants together may hold.
    pub fn slow_connections_max(&self) -> usize {
        (self.max_conns_per_host * self.limits.slow_share_percent / 100).max(1)
    }

    /// How many connections of one upstream address one tenant may hold.
    pub fn tenant_connections_max(&self) -> usize {
        (self.max_conns_per_host * self.limits.tenant_share_percent / 100).max(1)
    }

    /// The longest that a request in flight can take, from its first byte to the last byte of its answer. Shutdown
    /// waits this long, plus [`DRAIN_GRACE_SECS`] for everything that is not waiting.
    ///
    /// It is one `timeout` for each of these steps: the head; the body; a part's wait until it is sent; its wait to be
    /// sent again, alone or in pieces; the wait for a connection at the end of that; the last attempt, to the end of
    /// the upstream's reply; the answer, until the sender has read it. ARCHITECTURE.md has the same as a table
    /// ("Time").
    pub fn request_time_max(&self) -> Duration {
        // With a spool, a part that has failed waits once more, until it is durable.
        let timeouts = if self.spool.is_some() { 8 } else { 7 };
        self.timeout.saturating_mul(timeouts)
    }

    /// The longest that shutdown can take. `TimeoutStopSec` or `terminationGracePeriodSeconds` must be at least this.
    pub fn stop_time_max(&self) -> Duration {
        let finishing = self.request_time_max().saturating_add(Duration::from_secs(DRAIN_GRACE_SECS));
        self.timeout_shutdown.saturating_add(finishing)
    }

    /// Limits on the content of one request.
    pub fn split_limits(&self) -> SplitLimits {
        SplitLimits {
            inflated_bytes_max: self.limits.inflated_bytes_max,
            tenants_max: self.limits.tenants_per_request_max,
        }
    }
}

/// The plan in effect. A request loads it once, when it begins, and keeps that plan to its end.
pub type Live = Arc<ArcSwap<Plan>>;

/// When and how the parts of one tenant are merged into one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Maximum of a tenant's requests in flight. At least 1. `None`: the lane decides.
    pub inflight_max: Option<usize>,
    /// How long a part waits for others. 0 disables waiting.
    pub linger: Duration,
    /// Maximum of parts in one request, 1 to [`MERGE_FRAGMENTS_MAX`](crate::limits::MERGE_FRAGMENTS_MAX). 1 disables
    /// merging.
    pub fragments_max: usize,
    /// Maximum inflated size of a merged request. At least 1.
    pub inflated_bytes_max: usize,
    /// The labels that identify an HA pair, if there are pairs.
    pub ha_labels: Option<HaLabels>,
}

/// Receipts: records of delivered parts of requests that failed in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// How long a receipt is kept. 0 disables receipts.
    pub keep: Duration,
    /// Process-wide memory for receipts. At least 1.
    pub bytes_max: usize,
}

/// Configurable limits. None is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of a request line with its headers.
    pub head_bytes_max: usize,
    /// Maximum size of a request's body as received.
    pub body_bytes_max: usize,
    /// Maximum size of a request's body after decompression. Fits in 32 bits.
    pub inflated_bytes_max: usize,
    /// Maximum total size of all requests in flight.
    pub in_flight_bytes_max: usize,
    /// The share of requests and bytes in flight that one tenant may use, in percent.
    pub tenant_share_percent: usize,
    /// The same, and also of connections, for all slow tenants together.
    pub slow_share_percent: usize,
    /// Maximum of inbound connections; `None` means what the limit of open files allows.
    pub connections_max: Option<NonZeroUsize>,
    /// Maximum of tenants with a lane and metrics of their own.
    pub tenants_max: usize,
    /// Maximum of different tenants in one request.
    pub tenants_per_request_max: usize,
}

/// A share of the work in flight, for one tenant or for all slow tenants together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Maximum of parts that wait or are in flight. At least 1.
    pub parts_max: usize,
    /// Maximum of their bytes as sent. A single part may exceed it.
    pub bytes_max: usize,
}

#[cfg(test)]
mod tests;
