//! What came of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::account::Tally;
use crate::ledger::Ledger;
use crate::process::Memory;

/// What came of it all.
///
/// A *request* is a body that was to be delivered, an *attempt* is one time that it was sent. Each request ends in one
/// of three ways: acknowledged, dropped, or abandoned.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Requests that are over, whatever came of them. Metadata is not among them.
    pub requests: u64,
    /// How often each status came, attempt by attempt; 0 stands for no answer.
    pub statuses: BTreeMap<u16, u64>,
    /// For each status that is no 2xx, the first text that came with it.
    pub complaints: BTreeMap<u16, String>,
    /// Requests that were given up because of what they were answered, or, without retries, because they were not.
    pub dropped: u64,
    /// Requests that were still to be sent again when the run ended.
    pub abandoned: u64,
    /// Attempts that may have been stored though nobody said so: answered 5xx, or sent and not answered. What they held may
    /// be stored more than once if they were repeated.
    pub doubtful: u64,
    /// Bytes of all bodies, as sent.
    pub bytes: u64,
    /// How many tenants each acknowledged request held, summed: what a server without merging would send on.
    pub parts: u64,
    /// From when a request was to leave to its last answer, in microseconds: at a fixed rate this holds the time that
    /// it waited for its sender, and with retries the pauses. Of requests that ended with an answer.
    pub latency: Histogram<u64>,
    /// From when an attempt did leave to its answer, in microseconds. Of attempts that were answered.
    pub service: Histogram<u64>,
    /// What came of metadata.
    pub metadata: MetadataOutcome,
    /// What each tenant's data came to.
    pub ledger: Ledger,
    /// CPU time of the senders' threads.
    pub sender_cpu: Duration,
    /// What it cost the server, if its process is known and still there.
    pub server: Option<ServerCost>,
}

/// What came of the requests that held metadata only. They are in no other count but `complaints`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MetadataOutcome {
    /// Requests that are over.
    pub requests: u64,
    /// Those that were answered with 2xx.
    pub acknowledged: u64,
    /// Entries in them.
    pub entries: u64,
    /// How often each status came, attempt by attempt; 0 stands for no answer.
    pub statuses: BTreeMap<u16, u64>,
}

impl MetadataOutcome {
    /// Requests that were not acknowledged.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.requests - self.acknowledged
    }

    /// How often such a request was sent.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.statuses.values().sum()
    }
}

/// What the requests cost the server.
#[derive(Clone, Debug)]
pub struct ServerCost {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// Resident memory, second by second.
    pub memory: Memory,
}

impl Outcome {
    /// Requests that were answered with 2xx in the end.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.statuses.iter().filter(|(status, _)| (200..300).contains(*status)).map(|(_, count)| count).sum()
    }

    /// All others.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.requests - self.acknowledged()
    }

    /// How often a request was sent.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Attempts besides each request's first.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.attempts() - self.requests
    }

    /// Sums over all tenants of what was acknowledged.
    #[must_use]
    pub fn acknowledged_tally(&self) -> Tally {
        let mut total = Tally::default();
        for entry in self.ledger.values() {
            total += entry.acknowledged;
        }
        total
    }

    /// The latency that `percent` of the answered requests kept within.
    #[must_use]
    pub fn latency_at(&self, percent: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(percent / 100.0))
    }

    /// The service time that `percent` of the answered attempts kept within.
    #[must_use]
    pub fn service_at(&self, percent: f64) -> Duration {
        Duration::from_micros(self.service.value_at_quantile(percent / 100.0))
    }

    /// The server's CPU time for each request that came to it, in milliseconds.
    #[must_use]
    pub fn cpu_ms_per_request(&self) -> Option<f64> {
        self.ms_per_attempt(self.server.as_ref()?.cpu)
    }

    /// The senders' CPU time for each request that left, in milliseconds.
    #[must_use]
    pub fn sender_cpu_ms_per_request(&self) -> Option<f64> {
        self.ms_per_attempt(self.sender_cpu)
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^53")]
    fn ms_per_attempt(&self, time: Duration) -> Option<f64> {
        let attempts = self.attempts() + self.metadata.attempts();
        (attempts > 0).then(|| time.as_secs_f64() * 1e3 / attempts as f64)
    }
}
