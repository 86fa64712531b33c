//! The table of the spool's metrics.
#![forbid(unsafe_code)]

use super::cells::{Counter, Gauge, Histogram};
use super::table::metrics;

/// Bounds of the times that the disk takes, in seconds.
const SECONDS: &[f64] =
    &[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

metrics! {
    /// The spool's files. Their one writer is the spool's thread.
    pub struct SpoolMetrics {
        "tenantry_spool_parts", "Parts in the spool." => parts: Gauge;
        "tenantry_spool_bytes", "What they hold, in bytes." => bytes: Gauge;
        "tenantry_spool_disk_bytes", "What the spool's files hold, in bytes." => disk_bytes: Gauge;
        "tenantry_spool_max_bytes", "What they may hold: spool.bytes_max." => bytes_max: Gauge;
        "tenantry_spool_segments", "The spool's files." => segments: Gauge;
        "tenantry_spool_streams", "Tenants with parts in the spool, for each of their upstreams." => streams: Gauge;
        "tenantry_spool_written_bytes_total", "Bytes of parts written." => written_bytes: Counter;
        "tenantry_spool_commit_seconds", "How long it took to write and to make durable what had come." =>
            commit_seconds: Histogram = Histogram::new(SECONDS);
        "tenantry_spool_errors_total", "Operations on the spool's files that failed." =>
            /// Writing, or making durable.
            commit_errors [operation = "commit"]: Counter,
            /// Reading.
            read_errors [operation = "read"]: Counter,
            /// Giving space back.
            tidy_errors [operation = "tidy"]: Counter,
            /// Keeping a part that was refused for good.
            dead_letter_errors [operation = "dead_letter"]: Counter,
            /// Bytes had changed on disk: a part is lost.
            damaged [operation = "damaged"]: Counter;
    }
}
