//! What is counted, by whom, and how it is read.
//!
//! Design constraints:
//! - Counting is on the path of every request, so it must cost next to nothing: every number has *one writer*, its
//!   core, which adds with a plain load and store; no cache line is written by two cores.
//! - Reading is rare and may be slow: the admin thread sums over cores.
//! - Tenants are somebody else's input, and each costs memory: past [`Metrics::new`]'s bound they share one label.
//!
//! [`CoreMetrics`] is what a core counts of itself; [`TenantMetrics`] what a tenant's home core counts of it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::limits::TENANT_STATUSES_MAX;
use crate::model::{Destination, PerDestination};
use crate::tenant::TenantId;

/// The label that tenants share once there are too many.
pub const OTHER_TENANTS: &str = "__other__";

/// Bounds of the sizes of requests, in bytes; cortex-tenant's.
const BATCH_BYTES: &[f64] =
    &[0.5, 1.0, 10.0, 25.0, 100.0, 250.0, 500.0, 1e3, 5e3, 1e4, 3e4, 3e5, 6e5, 1.8e6, 3.6e6];
/// Bounds of upstream requests' durations, in milliseconds; cortex-tenant's.
const REQUEST_MILLIS: &[f64] =
    &[0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 1.8e6, 3.6e6];
/// Bounds of our own durations, in seconds.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

/// A number that only grows. One writer, any readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. To be called by the one writer only: it is a load and a store.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down. One writer, any readers.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, n: usize) {
        self.0.store(n as u64, Ordering::Relaxed);
    }

    /// One more.
    pub fn up(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// One fewer.
    pub fn down(&self) {
        self.down_by(1);
    }

    /// So many fewer.
    pub fn down_by(&self, n: usize) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n as u64), Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl PerDestination<Gauge> {
    /// Of all destinations together.
    pub fn total(&self) -> u64 {
        self.iter().map(Gauge::get).sum()
    }
}

/// A distribution over fixed bounds. One writer, any readers.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what lies above all of them; not cumulative.
    counts: Box<[Counter]>,
    /// An `f64`, as its bits.
    sum: AtomicU64,
}

/// A histogram as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds with the number of values up to each and above the one before; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        let place = self.bounds.partition_point(|&bound| bound < value);
        if let Some(count) = self.counts.get(place) {
            count.add(1);
        }
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed)) + value;
        self.sum.store(sum.to_bits(), Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Distribution {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        Distribution {
            buckets: bounds.zip(self.counts.iter().map(Counter::get)).collect(),
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
        }
    }
}

impl Distribution {
    /// The sum of several of the same bounds; none when there are none.
    pub fn total(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        parts.into_iter().reduce(|mut total, part| {
            for (ours, theirs) in total.buckets.iter_mut().zip(&part.buckets) {
                ours.1 += theirs.1;
            }
            total.sum += part.sum;
            total
        })
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, n)| n).sum()
    }
}

/// Declares an enum of reasons with a name for each, to be used as a metric's label.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As the metric's label says it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// Why a request was refused here.
    Rejection {
        /// No unambiguous HTTP request.
        BadRequest => "bad_request",
        /// Unknown path.
        NotFound => "not_found",
        /// Wrong method.
        Method => "method",
        /// Slow head or body.
        Timeout => "timeout",
        /// Body over its limit, as sent or once inflated.
        BodyTooLarge => "body_too_large",
        /// Head over its limit.
        HeadTooLarge => "head_too_large",
        /// A content type that is not taken.
        Media => "media",
        /// A content encoding that is not taken.
        Encoding => "encoding",
        /// Too many requests in flight.
        Concurrency => "concurrency",
        /// Too many bytes in flight.
        Memory => "memory",
        /// Too many fragments in flight.
        Fragments => "fragments",
        /// No snappy block, or no write request in it.
        Malformed => "malformed",
        /// A series without a tenant.
        MissingTenant => "missing_tenant",
        /// A series with a tenant ID that can't be one.
        InvalidTenant => "invalid_tenant",
        /// We are going away.
        Draining => "draining",
    }
}

reasons! {
    /// How an upstream request ended.
    UpstreamClass {
        /// 2xx.
        Delivered => "2xx",
        /// 4xx but 429, and what is no proper answer to a push.
        Rejected => "4xx",
        /// 429.
        Limited => "429",
        /// 5xx.
        Failed => "5xx",
        /// Refused, reset, unresolved.
        Unreachable => "unreachable",
        /// No answer in time.
        TimedOut => "timeout",
        /// Never sent: no connection came free in time.
        Expired => "expired",
    }
}

impl UpstreamClass {
    /// The class of a status that an upstream answered with.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            429 => Self::Limited,
            500..=599 => Self::Failed,
            _ => Self::Rejected,
        }
    }
}

/// What one core counts. Aligned, so that no two cores write to one cache line (two, as lines are fetched in pairs).
#[derive(Debug)]
#[repr(align(128))]
pub struct CoreMetrics {
    /// Inbound connections accepted.
    pub connections_accepted: Counter,
    /// Of these, handed over to another core.
    pub connections_handed_over: Counter,
    /// Inbound connections that were cut by a deadline.
    pub connections_timed_out: Counter,
    /// Inbound connections open.
    pub connections_open: Gauge,
    /// Push requests whose body was read.
    pub requests: Counter,
    /// Their bodies' sizes, in bytes.
    pub batch_bytes: PerDestination<Histogram>,
    /// From a request's head to its answer, in seconds.
    pub request_duration: Histogram,
    /// What bodies inflated to, in bytes.
    pub inflated_bytes: Counter,
    /// Series that came in.
    pub series: Counter,
    /// Samples and histograms that came in.
    pub samples: Counter,
    /// Series left out as they had no tenant.
    pub series_dropped_missing: Counter,
    /// Series left out as their tenant ID can't be one.
    pub series_dropped_invalid: Counter,
    /// Series left out as the tenants' map has it.
    pub series_dropped_mapped: Counter,
    /// Histograms with custom buckets that 1.0 can't say.
    pub lost_custom_histograms: Counter,
    /// Start timestamps that 1.0 can't say.
    pub lost_start_timestamps: Counter,
    /// Series of which nothing was left for 1.0.
    pub lost_series: Counter,
    /// Unknown fields of series that 1.0 doesn't have.
    pub lost_fields: Counter,
    /// Metadata entries that went nowhere.
    pub metadata_dropped: Counter,
    /// Unknown fields of requests that could be given to no tenant.
    pub unknown_fields_dropped: Counter,
    /// Requests that went on as the bytes that came in.
    pub passthrough: Counter,
    /// Fragments made.
    pub fragments: Counter,
    /// Upstream requests started.
    pub upstream_requests: Counter,
    /// Of these, with more than one fragment.
    pub merges: Counter,
    /// The fragments in those.
    pub merged_fragments: Counter,
    /// Upstream requests tried again as their connection had gone stale.
    pub upstream_retries: Counter,
    /// Upstream connections opened.
    pub upstream_opened: Counter,
    /// Upstream requests over a connection that had been used before.
    pub upstream_reused: Counter,
    /// Upstream connections open, those in use included.
    pub upstream_open: PerDestination<Gauge>,
    /// Upstream connections idle.
    pub upstream_idle: PerDestination<Gauge>,
    /// Upstream addresses that this core has put to rest.
    pub upstream_resting: PerDestination<Gauge>,
    /// Rests begun.
    pub upstream_rests: Counter,
    /// Answers of 2xx to Remote Write 2.0 that don't say what was written.
    pub upstream_unwritten: Counter,
    /// Bytes of elements sent to the upstream.
    pub upstream_bytes: Counter,
    /// From a fragment's request's head to the start of its upstream request, in seconds.
    pub lane_wait: Histogram,
    /// Pieces sent of parts that the upstream found too large.
    pub pieces: Counter,
    /// Parts that were told as delivered by their receipt, and not sent again.
    pub receipts_used: Counter,
    /// Receipts kept.
    pub receipts: PerDestination<Gauge>,
    /// Parts refused as their tenant had its share.
    pub over_share: Counter,
    /// Tenants that are slow.
    pub slow_tenants: PerDestination<Gauge>,
    /// Parts refused as slow tenants had their share.
    pub slow_refused: Counter,
    /// Requests of slow tenants that were given up for others.
    pub slow_cut: Counter,
    /// Lanes that exist.
    pub lanes: PerDestination<Gauge>,
    /// Fragments that wait in them.
    pub lanes_waiting: PerDestination<Gauge>,
    /// Times that this core rang another's doorbell.
    pub doorbells_rung: Counter,
    rejections: [Counter; Rejection::ALL.len()],
    upstream_outcomes: [Counter; UpstreamClass::ALL.len()],
    replies: [Counter; 600],
    thread: AtomicI32,
}

impl CoreMetrics {
    fn new() -> Self {
        Self {
            connections_accepted: Counter::default(),
            connections_handed_over: Counter::default(),
            connections_timed_out: Counter::default(),
            connections_open: Gauge::default(),
            requests: Counter::default(),
            batch_bytes: PerDestination::new(|_| Histogram::new(BATCH_BYTES)),
            request_duration: Histogram::new(SECONDS),
            inflated_bytes: Counter::default(),
            series: Counter::default(),
            samples: Counter::default(),
            series_dropped_missing: Counter::default(),
            series_dropped_invalid: Counter::default(),
            series_dropped_mapped: Counter::default(),
            lost_custom_histograms: Counter::default(),
            lost_start_timestamps: Counter::default(),
            lost_series: Counter::default(),
            lost_fields: Counter::default(),
            metadata_dropped: Counter::default(),
            unknown_fields_dropped: Counter::default(),
            passthrough: Counter::default(),
            fragments: Counter::default(),
            upstream_requests: Counter::default(),
            merges: Counter::default(),
            merged_fragments: Counter::default(),
            upstream_retries: Counter::default(),
            upstream_opened: Counter::default(),
            upstream_reused: Counter::default(),
            upstream_open: PerDestination::default(),
            upstream_idle: PerDestination::default(),
            upstream_resting: PerDestination::default(),
            upstream_rests: Counter::default(),
            upstream_unwritten: Counter::default(),
            upstream_bytes: Counter::default(),
            lane_wait: Histogram::new(SECONDS),
            pieces: Counter::default(),
            receipts_used: Counter::default(),
            receipts: PerDestination::default(),
            over_share: Counter::default(),
            slow_tenants: PerDestination::default(),
            slow_refused: Counter::default(),
            slow_cut: Counter::default(),
            lanes: PerDestination::default(),
            lanes_waiting: PerDestination::default(),
            doorbells_rung: Counter::default(),
            rejections: [const { Counter(AtomicU64::new(0)) }; Rejection::ALL.len()],
            upstream_outcomes: [const { Counter(AtomicU64::new(0)) }; UpstreamClass::ALL.len()],
            replies: [const { Counter(AtomicU64::new(0)) }; 600],
            thread: AtomicI32::new(0),
        }
    }

    /// Counts a request that was refused here.
    pub fn rejected(&self, reason: Rejection) {
        if let Some(counter) = self.rejections.get(reason as usize) {
            counter.add(1);
        }
    }

    /// Requests refused for a reason.
    pub fn rejections(&self, reason: Rejection) -> u64 {
        self.rejections.get(reason as usize).map_or(0, Counter::get)
    }

    /// Counts a reply to a sender.
    pub fn replied(&self, status: u16) {
        if let Some(counter) = self.replies.get(usize::from(status)) {
            counter.add(1);
        }
    }

    /// The statuses that were replied with, and how often.
    pub fn replies(&self) -> impl Iterator<Item = (usize, u64)> {
        self.replies.iter().map(Counter::get).enumerate().filter(|&(_, n)| n > 0)
    }

    /// Counts the end of an upstream request.
    pub fn upstream_outcome(&self, class: UpstreamClass) {
        if let Some(counter) = self.upstream_outcomes.get(class as usize) {
            counter.add(1);
        }
    }

    /// Upstream requests that ended in a way.
    pub fn upstream_outcomes(&self, class: UpstreamClass) -> u64 {
        self.upstream_outcomes.get(class as usize).map_or(0, Counter::get)
    }

    /// The core's thread is this one (its kernel ID), from now on.
    pub fn runs_as(&self, thread: i32) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// The kernel's ID of the core's thread; 0 before it runs.
    pub fn thread(&self) -> i32 {
        self.thread.load(Ordering::Relaxed)
    }
}

/// What a tenant's home core counts of it. Tenants that share a label share this.
#[derive(Debug)]
pub struct TenantMetrics {
    /// Series received.
    pub series: Counter,
    /// Samples and histograms received.
    pub samples: Counter,
    /// Upstream requests that have ended.
    pub requests: Counter,
    /// Of these, without an answer.
    pub request_errors: Counter,
    /// Durations by status: the first few that occur, then all others together (as status 0).
    durations: [OnceLock<(u16, Histogram)>; TENANT_STATUSES_MAX],
    other_durations: OnceLock<Histogram>,
}

impl TenantMetrics {
    fn new() -> Self {
        Self {
            series: Counter::default(),
            samples: Counter::default(),
            requests: Counter::default(),
            request_errors: Counter::default(),
            durations: [const { OnceLock::new() }; TENANT_STATUSES_MAX],
            other_durations: OnceLock::new(),
        }
    }

    /// A fragment has come.
    pub fn received(&self, series: u64, samples: u64) {
        self.series.add(series);
        self.samples.add(samples);
    }

    /// The upstream has answered, after so many milliseconds.
    pub fn answered(&self, status: u16, millis: f64) {
        self.requests.add(1);
        for slot in &self.durations {
            let (known, histogram) = slot.get_or_init(|| (status, Histogram::new(REQUEST_MILLIS)));
            if *known == status {
                return histogram.observe(millis);
            }
        }
        self.other_durations.get_or_init(|| Histogram::new(REQUEST_MILLIS)).observe(millis);
    }

    /// The upstream has not answered.
    pub fn failed(&self) {
        self.requests.add(1);
        self.request_errors.add(1);
    }

    /// Durations by status; 0 stands for those past the first few.
    pub fn durations(&self) -> impl Iterator<Item = (u16, Distribution)> {
        let known = self.durations.iter().filter_map(OnceLock::get).map(|(status, h)| (*status, h.read()));
        known.chain(self.other_durations.get().map(|h| (0, h.read())))
    }
}

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    /// Written by the thread that the signals go to.
    pub reloads: Reloads,
    cores: Box<[CoreMetrics]>,
    tenants: PerDestination<Mutex<Tenants>>,
    tenants_max: usize,
    include_tenant: bool,
}

/// How often the configuration was read again.
#[derive(Debug, Default)]
pub struct Reloads {
    /// It was sound, and holds.
    pub done: Counter,
    /// It had mistakes, and nothing changed.
    pub refused: Counter,
    /// 1 if the latest had mistakes.
    pub refused_last: Gauge,
    /// When the one that holds was read, in seconds since 1970.
    pub loaded_at: Gauge,
}

/// The tenants' counters, and how many labels there are besides [`OTHER_TENANTS`].
#[derive(Debug, Default)]
struct Tenants {
    /// By label and core: each core that counts under a label has counters of its own, as it is to be their one writer.
    by_label: BTreeMap<(Arc<str>, usize), Arc<TenantMetrics>>,
    labels: usize,
}

impl Tenants {
    fn knows(&self, label: &Arc<str>) -> bool {
        self.by_label.range((Arc::clone(label), 0)..=(Arc::clone(label), usize::MAX)).next().is_some()
    }
}

impl Metrics {
    /// For `cores` cores. Tenants are told apart if `include_tenant`, the first `tenants_max` of them in the process.
    pub fn new(cores: usize, tenants_max: usize, include_tenant: bool) -> Self {
        Self {
            reloads: Reloads::default(),
            cores: (0..cores.max(1)).map(|_| CoreMetrics::new()).collect(),
            tenants: PerDestination::default(),
            tenants_max,
            include_tenant,
        }
    }

    /// What core number `core` counts.
    pub fn core(&self, core: usize) -> &CoreMetrics {
        // A core's number is below their number; the remainder only says so to the compiler.
        &self.cores[core % self.cores.len()]
    }

    /// All cores.
    pub fn cores(&self) -> &[CoreMetrics] {
        &self.cores
    }

    /// Where `core` counts what concerns `tenant`'s data for a destination. Takes a lock: to be kept, not to be asked
    /// for again and again.
    pub fn tenant(&self, core: usize, destination: Destination, tenant: &TenantId) -> Arc<TenantMetrics> {
        let label: Arc<str> = if self.include_tenant { tenant.as_str().into() } else { "".into() };
        let tenants = self.tenants.of(destination);
        let mut tenants = tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let label = if !self.include_tenant || tenants.knows(&label) {
            label
        } else if tenants.labels < self.tenants_max {
            tenants.labels += 1;
            label
        } else {
            OTHER_TENANTS.into()
        };
        let counters =
            tenants.by_label.entry((label, core)).or_insert_with(|| Arc::new(TenantMetrics::new()));
        Arc::clone(counters)
    }

    /// All labels of a destination's tenants with their counters, in the labels' order: a label comes once for each
    /// core that counts under it.
    pub fn tenants(&self, destination: Destination) -> Vec<(Arc<str>, Arc<TenantMetrics>)> {
        let tenants = self.tenants.of(destination).lock().unwrap_or_else(PoisonError::into_inner);
        let all = tenants.by_label.iter();
        all.map(|((label, _), counters)| (Arc::clone(label), Arc::clone(counters))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::IdRules;

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id, IdRules::Mimir).unwrap()
    }

    #[test]
    fn a_histogram_counts_each_value_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[1.0, 5.0]);
        [0.5, 1.0, 1.5, 5.0, 7.0].into_iter().for_each(|v| histogram.observe(v));
        let read = histogram.read();
        assert_eq!(read.buckets, [(1.0, 2), (5.0, 2), (f64::INFINITY, 1)]);
        assert_eq!((read.sum, read.count()), (15.0, 5));
        let twice = Distribution::total([read.clone(), read]).unwrap();
        assert_eq!((twice.sum, twice.count()), (30.0, 10));
    }

    #[test]
    fn the_first_tenants_of_the_process_have_labels_and_the_others_share_one() {
        let metrics = Metrics::new(2, 3, true);
        for (core, id) in [(0, "a"), (1, "b"), (0, "c"), (0, "d"), (1, "e"), (1, "a"), (0, "f")] {
            metrics.tenant(core, Destination::Metrics, &tenant(id)).received(1, 1);
        }
        let labels: Vec<_> = metrics
            .tenants(Destination::Metrics)
            .iter()
            .map(|(label, t)| (label.to_string(), t.series.get()))
            .collect();
        let expected = [(OTHER_TENANTS, 2), (OTHER_TENANTS, 1), ("a", 1), ("a", 1), ("b", 1), ("c", 1)];
        assert_eq!(labels, expected.map(|(label, n)| (label.to_owned(), n)));
    }

    #[test]
    fn counters_are_the_same_for_one_core_and_others_for_another() {
        let metrics = Metrics::new(2, 1, true);
        for id in ["a", "past-the-bound"].map(tenant) {
            assert!(Arc::ptr_eq(
                &metrics.tenant(0, Destination::Metrics, &id),
                &metrics.tenant(0, Destination::Metrics, &id)
            ));
            assert!(!Arc::ptr_eq(
                &metrics.tenant(0, Destination::Metrics, &id),
                &metrics.tenant(1, Destination::Metrics, &id)
            ));
        }
    }

    #[test]
    fn tenants_are_not_told_apart_unless_asked_for() {
        let metrics = Metrics::new(1, 0, false);
        assert!(Arc::ptr_eq(
            &metrics.tenant(0, Destination::Metrics, &tenant("a")),
            &metrics.tenant(0, Destination::Metrics, &tenant("b"))
        ));
        assert_eq!(&*metrics.tenants(Destination::Metrics)[0].0, "");
    }

    #[test]
    fn durations_are_kept_by_status_up_to_a_bound() {
        let metrics = TenantMetrics::new();
        let statuses: Vec<u16> = (0..).map(|n| 200 + n).take(TENANT_STATUSES_MAX + 3).collect();
        statuses.iter().for_each(|&status| metrics.answered(status, 1.0));
        metrics.answered(200, 3.0);
        let durations: Vec<_> = metrics.durations().collect();
        assert_eq!(durations.len(), TENANT_STATUSES_MAX + 1);
        assert_eq!((durations[0].0, durations[0].1.count(), durations[0].1.sum), (200, 2, 4.0));
        assert_eq!((durations[TENANT_STATUSES_MAX].0, durations[TENANT_STATUSES_MAX].1.count()), (0, 3));
        assert_eq!(metrics.requests.get(), statuses.len() as u64 + 1);
    }

    #[test]
    fn rejections_and_replies_are_counted_by_their_kind() {
        let core = CoreMetrics::new();
        for &reason in Rejection::ALL {
            core.rejected(reason);
            assert_eq!(core.rejections(reason), 1, "{}", reason.name());
        }
        core.replied(200);
        core.replied(503);
        core.replied(200);
        core.replied(999);
        assert_eq!(core.replies().collect::<Vec<_>>(), [(200, 2), (503, 1)]);
    }
}
