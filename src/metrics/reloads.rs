//! The table of process-wide metrics.
#![forbid(unsafe_code)]

use super::cells::{Counter, Gauge};
use super::table::metrics;

metrics! {
    /// How often the configuration was read again. Their one writer is the thread that handles signals.
    pub struct Reloads {
        "tenantry_config_reloads_total", "The configuration was read again." =>
            /// It was valid and is in force.
            done [result = "done"]: Counter,
            /// It had mistakes, and nothing changed.
            refused [result = "refused"]: Counter;
        "tenantry_tls_reloads_total", "The files of TLS had changed and were read again." =>
            /// They were valid and are in use.
            certificates [result = "done"]: Counter,
            /// They had mistakes, and the old ones stay in use.
            certificates_refused [result = "refused"]: Counter;
        "tenantry_secret_reloads_total", "The files of passwords and tokens had changed and were read again." =>
            /// They were valid and are in use.
            secrets [result = "done"]: Counter,
            /// They had mistakes, and the old ones stay in use.
            secrets_refused [result = "refused"]: Counter;
        "tenantry_config_last_reload_successful", "0 if its latest text had mistakes." =>
            last_successful: Gauge = Gauge::new(1);
        "tenantry_config_last_reload_success_timestamp_seconds", "When the one that holds was read." =>
            /// In seconds since 1970.
            loaded_at: Gauge;
    }
}
