//! The table of each core's metrics.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::cells::{Counter, Counters, Gauge, Histogram, ThreadId, UpstreamGauges};
use super::labels::{Rejection, Status, Unstored, UpstreamClass};
use super::stalls::Stalls;
use super::table::metrics;
use crate::model::PerDestination;

/// Bounds of the sizes of requests, in bytes; cortex-tenant's.
const BATCH_BYTES: &[f64] =
    &[0.5, 1.0, 10.0, 25.0, 100.0, 250.0, 500.0, 1e3, 5e3, 1e4, 3e4, 3e5, 6e5, 1.8e6, 3.6e6];
/// Bounds of durations, in seconds.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

metrics! {
    /// The counters of one core. The alignment keeps two cores from writing to one cache line, or to two lines that are
    /// fetched as a pair.
    #[repr(align(128))]
    pub struct CoreMetrics {
        // Inbound.
        "tenantry_connections_accepted_total", "Inbound connections accepted." => connections_accepted: Counter;
        "tenantry_connections_handed_over_total", "Connections handed to the core with the fewest." =>
            connections_handed_over: Counter;
        "tenantry_connections_timed_out_total", "Connections cut by a deadline." => connections_timed_out: Counter;
        "tenantry_tls_handshakes_total", "TLS handshakes with senders." =>
            /// A new session began.
            tls_full [result = "full"]: Counter,
            /// An earlier session was resumed.
            tls_resumed [result = "resumed"]: Counter,
            /// The handshake failed.
            tls_failed [result = "failed"]: Counter;
        "tenantry_requests_total", "Push requests read." => requests: Counter;
        "tenantry_inflated_bytes_total", "What they inflated to." => inflated_bytes: Counter;
        "tenantry_series_total", "Series received." => series: Counter;
        "tenantry_samples_total", "Samples and histograms received." => samples: Counter;
        "tenantry_metadata_dropped_total", "Metadata entries that went nowhere." => metadata_dropped: Counter;
        "tenantry_spooled_parts_total", "Parts that went into the spool, and were acknowledged." => spooled: Counter;
        "tenantry_spool_replayed_parts_total", "Parts out of the spool that their upstream took." =>
            spool_replayed: Counter;
        "tenantry_spool_rejected_parts_total", "Parts out of the spool that their upstream refused for good." =>
            spool_rejected: Counter;
        "tenantry_spool_refused_parts_total", "Parts that the spool could not take." =>
            /// It is full.
            spool_full [reason = "full"]: Counter,
            /// The tenant holds all that it may.
            spool_tenant_full [reason = "tenant_full"]: Counter,
            /// The tenant's oldest part is too old.
            spool_too_old [reason = "too_old"]: Counter,
            /// The disk failed, or took too long.
            spool_failed [reason = "failed"]: Counter;
        "tenantry_spool_probes_failed_total", "Requests with spooled parts that their upstream did not take." =>
            spool_probes_failed: Counter;
        "tenantry_unknown_fields_dropped_total", "Unknown fields that no tenant could be given." =>
            unknown_fields_dropped: Counter;
        "tenantry_passthrough_requests_total", "Requests that went on as they came." => passthrough: Counter;
        "tenantry_fragments_total", "Tenants' parts of requests." => fragments: Counter;
        "tenantry_downgrade_lost_total", "What Remote Write 2.0 lost where it goes on as 1.0." =>
            /// Histograms with custom buckets.
            lost_custom_histograms [what = "custom_histograms"]: Counter,
            /// Start timestamps.
            lost_start_timestamps [what = "start_timestamps"]: Counter,
            /// Series of which nothing was left.
            lost_series [what = "series"]: Counter,
            /// Unknown fields of series.
            lost_fields [what = "fields"]: Counter;
        "tenantry_series_dropped_total", "Series without a usable tenant, left out." =>
            /// They have no tenant.
            series_dropped_missing [reason = "missing"]: Counter,
            /// Their tenant ID is invalid.
            series_dropped_invalid [reason = "invalid"]: Counter,
            /// Their sender may not write to their tenant.
            series_dropped_denied [reason = "denied"]: Counter,
            /// The map of tenants drops them.
            series_dropped_mapped [reason = "mapped"]: Counter;
        "tenantry_rejections_total", "Requests refused here." =>
            rejections: Counters<Rejection, { Rejection::ALL.len() }>;
        "tenantry_replies_total", "Replies to senders." => replies: Counters<Status, { Status::END }>;
        "tenantry_request_duration_seconds", "From a request's head to its answer." =>
            request_duration: Histogram = Histogram::with_exemplars(SECONDS);

        // Outbound.
        "tenantry_upstream_requests_total", "Upstream requests started." => upstream_requests: Counter;
        "tenantry_merges_total", "Upstream requests of several fragments." => merges: Counter;
        "tenantry_merged_fragments_total", "Fragments in those." => merged_fragments: Counter;
        "tenantry_upstream_bytes_total", "Bytes of elements sent." => upstream_bytes: Counter;
        "tenantry_upstream_retries_total", "Requests sent again as their connection was stale." =>
            upstream_retries: Counter;
        "tenantry_pieces_total", "Pieces sent of parts that the upstream found too large." => pieces: Counter;
        "tenantry_receipts_used_total", "Parts that had got through before, and were not sent again." =>
            receipts_used: Counter;
        "tenantry_over_share_total", "Parts refused as their tenant had its share in flight." => over_share: Counter;
        "tenantry_slow_refused_total", "Parts refused as slow tenants had their share in flight." =>
            slow_refused: Counter;
        "tenantry_slow_cut_total", "Requests of slow tenants given up as others waited." => slow_cut: Counter;
        "tenantry_upstream_connections_opened_total", "Upstream connections opened." => upstream_opened: Counter;
        "tenantry_upstream_unwritten_total", "Answers of 2xx to Remote Write 2.0 that don't say what was written." =>
            upstream_unwritten: Counter;
        "tenantry_upstream_backoffs_total", "Times that an upstream address entered backoff." =>
            upstream_backoffs: Counter;
        "tenantry_upstream_connections_reused_total", "Requests over a connection used before." =>
            upstream_reused: Counter;
        "tenantry_upstream_outcomes_total", "Ends of upstream requests." =>
            upstream_outcomes: Counters<UpstreamClass, { UpstreamClass::ALL.len() }>;
        "tenantry_upstream_share_refused_total",
            "Parts refused because their upstream had its share in flight, beside others." =>
            upstream_refused: Counter;
        "tenantry_lane_wait_seconds", "From a request's head until its part is sent." =>
            lane_wait: Histogram = Histogram::with_exemplars(SECONDS);

        // The state of each core.
        "tenantry_connections_open", "Inbound connections open." => connections_open: Gauge;
        "tenantry_lanes", "Tenants' lanes." => lanes: UpstreamGauges;
        "tenantry_lane_waiting_fragments", "Fragments waiting in lanes." => lanes_waiting: UpstreamGauges;
        "tenantry_slow_tenants", "Tenants whose upstream does not answer in time." =>
            slow_tenants: UpstreamGauges;
        "tenantry_receipts", "Parts remembered that got through in requests that failed." =>
            receipts: UpstreamGauges;
        "tenantry_upstream_connections_open", "Upstream connections open, in use or idle." =>
            upstream_open: UpstreamGauges;
        "tenantry_upstream_connections_idle", "Upstream connections open and idle." =>
            upstream_idle: UpstreamGauges;
        "tenantry_upstream_addresses_in_backoff", "Upstream addresses in backoff after failures." =>
            upstream_in_backoff: UpstreamGauges;
        "tenantry_core_cpu_seconds_total", "CPU time of each core's thread." => thread: ThreadId;
        "tenantry_core_longest_stall_seconds", "The longest time in the last minute that a core's loop did not turn." =>
            stalls: Stalls;
        "tenantry_doorbells_rung_total", "Times that a core woke another." => doorbells_rung: Counter;

        cells:
        /// Samples of requests that were accepted. See [`ledger`](super::ledger) for this and the next.
        ledger_received: Counter = Counter::default();
        /// What of them went no further than the core that received the request.
        ledger_refused: Counters<Unstored, { Unstored::ALL.len() }> = Counters::default();
        /// Samples of parts that are not sent to their home cores yet.
        ledger_open: Gauge = Gauge::default();
        /// Samples that this core has sent to home cores, less those that have come to this core.
        ledger_transit: Gauge = Gauge::default();
        /// Samples that have come to this core as a home core.
        ledger_arrived: Counter = Counter::default();
        /// Sizes of the bodies of push requests, in bytes. `tenant.rs` has cortex-tenant's names for them.
        batch_bytes: PerDestination<Histogram> = PerDestination::new(|_| Histogram::new(BATCH_BYTES));
    }
}

impl CoreMetrics {
    /// Counts a request that this server refused.
    pub fn rejected(&self, reason: Rejection) {
        self.rejections.count(reason);
    }

    /// Counts a reply to a sender.
    pub fn replied(&self, status: u16) {
        self.replies.count(Status(status));
    }

    /// Counts the end of an upstream request.
    pub fn upstream_outcome(&self, class: UpstreamClass) {
        self.upstream_outcomes.count(class);
    }

    /// Adds gauges for named upstreams. Their numbers count from 1.
    pub(super) fn name_upstreams(&self, names: &[Arc<str>]) {
        for gauges in [
            &self.lanes,
            &self.lanes_waiting,
            &self.slow_tenants,
            &self.receipts,
            &self.upstream_open,
            &self.upstream_idle,
            &self.upstream_in_backoff,
        ] {
            gauges.name(names);
        }
    }

    /// Records the kernel's ID of the core's thread.
    pub fn runs_as(&self, thread: i32) {
        self.thread.set(thread);
    }

    /// The kernel's ID of the core's thread; 0 before it runs.
    pub fn thread(&self) -> i32 {
        self.thread.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_and_replies_are_counted_by_their_kind() {
        let core = CoreMetrics::default();
        for (n, &reason) in Rejection::ALL.iter().enumerate() {
            core.rejected(reason);
            let counted: Vec<_> = core.rejections.read().shown().filter(|&(_, n)| n > 0).collect();
            assert_eq!(counted.len(), n + 1);
            assert_eq!(counted[n], (reason.name().into(), 1));
        }
        core.replied(200);
        core.replied(503);
        core.replied(200);
        core.replied(999);
        let replies: Vec<_> = core.replies.read().shown().collect();
        assert_eq!(replies, [("200".into(), 2), ("503".into(), 1)]);
    }
}
