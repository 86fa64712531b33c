//! The table of each tenant's metrics, and cortex-tenant's names.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use super::cells::{Counter, Counters, Distribution, Gauge, Histogram, Moment};
use super::core::CoreMetrics;
use super::labels::Unstored;
use super::notes::Notes;
use super::table::{Cell, Family, Kind, Sample, Value};
use crate::limits::{FRAGMENT_WORK_BYTES, TENANT_STATUSES_MAX};
use crate::model::Destination;

/// Bounds of the durations of upstream requests, in milliseconds; cortex-tenant's.
const REQUEST_MILLIS: &[f64] =
    &[0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 1.8e6, 3.6e6];

/// The counters of one tenant, written by its home core. Tenants that share a label share them.
#[derive(Debug, Default)]
pub struct TenantMetrics {
    /// Series received.
    pub series: Counter,
    /// Samples and histograms received.
    pub samples: Counter,
    /// What it cost, in bytes: those that its fragments inflate to, and some for each fragment. See [`Self::worked`].
    pub work: Counter,
    /// Upstream requests that have ended.
    pub requests: Counter,
    /// Of these, the ones without an answer.
    pub request_errors: Counter,
    /// Of the requests, the ones that stored nothing: those without an answer, and with any other than 2xx.
    pub unsuccessful: Counter,
    /// Bytes of elements sent.
    pub upstream_bytes: Counter,
    /// Fragments in upstream requests of several.
    pub merged_fragments: Counter,
    /// Samples in upstream requests that were answered with 2xx. See [`ledger`](super::ledger) for this and the next.
    pub stored: Counter,
    /// Samples that were not sent, as they had been stored before.
    pub repeated: Counter,
    /// Samples that went into the spool.
    pub spooled: Counter,
    /// Samples out of the spool that upstreams have stored.
    pub replayed: Counter,
    /// Samples out of the spool that the upstream refused for good.
    pub spool_refused: Counter,
    /// Bytes of its parts in the spool.
    pub spool_bytes: Gauge,
    /// When its oldest part there came, in seconds since the epoch; 0 if there is none.
    pub spool_oldest: Gauge,
    /// Samples that were not stored.
    pub refused: Counters<Unstored, { Unstored::ALL.len() }>,
    /// Samples without an outcome.
    pub in_flight: Gauge,
    /// Fragments that wait in the tenant's lane.
    pub waiting: Gauge,
    /// Since when the oldest of them waits.
    pub oldest_waiting: Moment,
    /// Whether the tenant counts as slow.
    pub slow: Gauge,
    /// When its last fragment came.
    pub last_seen: Moment,
    /// What happened lately.
    pub notes: Notes,
    /// Durations by status, for the first statuses that occur.
    durations: [OnceLock<(u16, Histogram)>; TENANT_STATUSES_MAX],
    /// Durations of all other statuses.
    other_durations: OnceLock<Histogram>,
}

/// The families that a destination has under names of its own.
#[derive(Debug)]
pub struct DestinationFamilies {
    /// The cores' metrics.
    pub of_cores: &'static [Family<CoreMetrics>],
    /// The tenants' metrics.
    pub of_tenants: &'static [Family<TenantMetrics>],
}

/// The table of a destination's families. `$data` is what their names begin with. cortex-tenant has those of series and
/// streams; the others are named in the same way, so dashboards need no other pattern. `$samples` and `$samples_help`
/// are name and help of the tenants' samples, which cortex-tenant does not count.
macro_rules! families {
    (@one $name:expr, $help:expr => $kind:ident, $read:expr) => {
        Family { name: $name, help: $help, kind: Kind::$kind, samples: &[Sample { label: None, read: $read }] }
    };
    ($destination:expr, $data:literal, $samples:literal, $samples_help:literal) => {
        DestinationFamilies {
            of_cores: &[
                families!(@one concat!($data, "_batches_received"), "Batches received." =>
                    Counter, |c| Value::Number(c.batch_bytes.of($destination).read().count())),
                families!(@one concat!($data, "_batches_received_bytes"),
                    "Sizes of batches received, in bytes, as they came." =>
                    Histogram, |c| c.batch_bytes.of($destination).value()),
            ],
            of_tenants: &[
                families!(@one concat!($data, "_received"), "Series, streams or resources received." =>
                    Counter, |t| t.series.value()),
                families!(@one concat!($data, "_requests"), "Upstream requests." =>
                    Counter, |t| t.requests.value()),
                families!(@one concat!($data, "_request_errors"),
                    "Upstream requests without an answer." => Counter, |t| t.request_errors.value()),
                families!(@one concat!($data, "_request_duration_milliseconds"),
                    "Durations of upstream requests by status (rare ones together), in milliseconds." =>
                    Histogram, |t| Value::ByStatus(t.durations().collect())),
                families!(@one $samples, $samples_help => Counter, |t| t.samples.value()),
            ],
        }
    };
}

impl DestinationFamilies {
    /// The families of a destination.
    pub fn of(destination: Destination) -> Self {
        match destination {
            Destination::Metrics => {
                const {
                    families!(
                        Destination::Metrics,
                        "cortex_tenant_timeseries",
                        "tenantry_tenant_samples_total",
                        "Samples and histograms received, by tenant."
                    )
                }
            }
            // cortex-tenant's `streams` are those of Loki.
            Destination::Logs => {
                const {
                    families!(
                        Destination::Logs,
                        "cortex_tenant_streams",
                        "tenantry_tenant_entries_total",
                        "Log entries received, by tenant."
                    )
                }
            }
            Destination::OtlpMetrics => {
                const {
                    families!(
                        Destination::OtlpMetrics,
                        "cortex_tenant_otlp_metrics",
                        "tenantry_tenant_otlp_data_points_total",
                        "Data points received by OTLP, by tenant."
                    )
                }
            }
            Destination::OtlpLogs => {
                const {
                    families!(
                        Destination::OtlpLogs,
                        "cortex_tenant_otlp_logs",
                        "tenantry_tenant_otlp_log_records_total",
                        "Log records received by OTLP, by tenant."
                    )
                }
            }
            Destination::OtlpTraces => {
                const {
                    families!(
                        Destination::OtlpTraces,
                        "cortex_tenant_otlp_traces",
                        "tenantry_tenant_otlp_spans_total",
                        "Spans received by OTLP, by tenant."
                    )
                }
            }
        }
    }
}

impl TenantMetrics {
    /// Counts a fragment.
    pub fn received(&self, series: u64, samples: u64) {
        self.series.add(series);
        self.samples.add(samples);
    }

    /// Counts the work for a fragment that inflates to so many bytes.
    pub fn worked(&self, inflated_bytes: u32) {
        self.work.add(u64::from(inflated_bytes) + FRAGMENT_WORK_BYTES);
    }

    /// What changes whenever there is something new about the tenant.
    pub fn activity(&self) -> u64 {
        self.work.get().wrapping_add(self.requests.get()).wrapping_add(self.samples.get())
    }

    /// The statuses that have a histogram of durations, as in [`Self::durations`].
    pub fn statuses(&self) -> impl Iterator<Item = u16> {
        let known = self.durations.iter().filter_map(OnceLock::get).map(|(status, _)| *status);
        known.chain(self.other_durations.get().map(|_| 0))
    }

    /// Counts an upstream's answer, after so many milliseconds.
    pub fn answered(&self, status: u16, millis: f64) {
        self.requests.add(1);
        self.unsuccessful.add(u64::from(!(200..300).contains(&status)));
        for slot in &self.durations {
            let (known, histogram) = slot.get_or_init(|| (status, Histogram::new(REQUEST_MILLIS)));
            if *known == status {
                return histogram.observe(millis);
            }
        }
        self.other_durations.get_or_init(|| Histogram::new(REQUEST_MILLIS)).observe(millis);
    }

    /// Counts an upstream request without an answer.
    pub fn failed(&self) {
        self.requests.add(1);
        self.unsuccessful.add(1);
        self.request_errors.add(1);
    }

    /// Durations by status; 0 stands for all statuses after the first few.
    pub fn durations(&self) -> impl Iterator<Item = (u16, Distribution)> {
        let known = self.durations.iter().filter_map(OnceLock::get).map(|(status, h)| (*status, h.read()));
        known.chain(self.other_durations.get().map(|h| (0, h.read())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_kept_by_status_up_to_a_bound() {
        let metrics = TenantMetrics::default();
        let statuses: Vec<u16> = (0..).map(|n| 200 + n).take(TENANT_STATUSES_MAX + 3).collect();
        statuses.iter().for_each(|&status| metrics.answered(status, 1.0));
        metrics.answered(200, 3.0);
        let durations: Vec<_> = metrics.durations().collect();
        assert_eq!(durations.len(), TENANT_STATUSES_MAX + 1);
        assert_eq!((durations[0].0, durations[0].1.count(), durations[0].1.sum), (200, 2, 4.0));
        assert_eq!((durations[TENANT_STATUSES_MAX].0, durations[TENANT_STATUSES_MAX].1.count()), (0, 3));
        assert_eq!(metrics.requests.get(), statuses.len() as u64 + 1);
    }
}
