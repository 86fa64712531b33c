//! The outcome of a run: counts, latencies and what it cost the server.

use std::collections::BTreeMap;
use std::io;
use std::ops::Add;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Message;
use crate::account::Tally;
use crate::journal::{Ledger, Settled};
use crate::process::Process;
use crate::retry::Attempt;

/// What is kept of an error's text.
const COMPLAINT_CHARS_MAX: usize = 240;

/// The counts of a run.
///
/// A *request* is a body that was to be delivered, an *attempt* is one time that it was sent. Each request ends in one
/// of three ways: acknowledged, refused, or given up. Senders keep one each, and these add up.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Requests that are over, whatever came of them.
    pub requests: u64,
    /// How often each status came, attempt by attempt; 0 stands for no answer.
    pub statuses: BTreeMap<u16, u64>,
    /// For each status that is no 2xx, the first text that came with it.
    pub complaints: BTreeMap<u16, String>,
    /// Requests whose answer said that they will never be taken.
    pub refused: u64,
    /// Those of them that were answered with 2xx: an answer of OTLP that tells of rejected items.
    pub partial: u64,
    /// Bytes of all bodies, as sent.
    pub bytes: u64,
    /// How many tenants each acknowledged request of a fleet held, summed: what a server without merging would send on.
    pub parts: u64,
    /// From when a request was to leave to its last answer, in microseconds: at a fixed rate this holds the time that
    /// it waited for its sender, and with retries the pauses. Of requests that ended with an answer.
    pub latency: Histogram<u64>,
    /// What each tenant's data came to; empty where samples bear stamps, of which a [`crate::journal::Journal`] tells
    /// more.
    pub ledger: Ledger,
    /// What it cost the server, if its process is known and still there.
    pub server: Option<ServerCost>,
}

/// How long things took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of them took no longer.
    pub p50: f64,
    /// 99 % of them took no longer.
    pub p99: f64,
    /// 99.9 % of them took no longer.
    pub p99_9: f64,
    /// None took longer.
    pub max: f64,
}

impl Percentiles {
    /// Of microseconds.
    pub fn new(micros: &Histogram<u64>) -> Self {
        let ms = |quantile| micros.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: ms(0.5), p99: ms(0.99), p99_9: ms(0.999), max: ms(1.0) }
    }
}

/// What the requests cost the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerCost {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// The most resident memory that the process ever had.
    pub resident_bytes_peak: u64,
}

impl ServerCost {
    /// Of a process whose CPU time was `cpu_at_start`. None if it has ended.
    pub(super) fn since(process: &Process, cpu_at_start: Duration) -> Option<Self> {
        Some(Self {
            cpu: process.cpu_time().ok()?.saturating_sub(cpu_at_start),
            resident_bytes_peak: process.resident_bytes_peak().ok()?,
        })
    }
}

impl Outcome {
    /// Before anything was sent.
    pub(super) fn new() -> io::Result<Self> {
        // Microseconds, to ten minutes, with three digits.
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3).map_err(io::Error::other)?;
        Ok(Self {
            elapsed: Duration::ZERO,
            requests: 0,
            statuses: BTreeMap::new(),
            complaints: BTreeMap::new(),
            refused: 0,
            partial: 0,
            bytes: 0,
            parts: 0,
            latency,
            ledger: Ledger::new(),
            server: None,
        })
    }

    /// Counts an attempt.
    pub(super) fn attempt(&mut self, message: &Message<'_>, attempt: Attempt) {
        *self.statuses.entry(attempt.status()).or_default() += 1;
        self.partial += u64::from(matches!(attempt, Attempt::Partial { .. }));
        self.bytes += message.body_bytes;
    }

    /// Keeps the first text that comes with a status.
    pub(super) fn complain(&mut self, status: u16, text: impl FnOnce() -> String) {
        self.complaints
            .entry(status)
            .or_insert_with(|| text().trim().chars().take(COMPLAINT_CHARS_MAX).collect());
    }

    /// Counts a request that is over; `latency` is None if its last attempt had no answer.
    pub(super) fn settle(&mut self, settled: Settled, latency: Option<Duration>) {
        self.requests += 1;
        self.refused += u64::from(settled == Settled::Refused);
        if let Some(latency) = latency {
            self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Requests that were answered with 2xx in the end, and are stored as a whole.
    pub fn acknowledged(&self) -> u64 {
        let successes = self.statuses.iter().filter(|(status, _)| (200..300).contains(*status));
        successes.map(|(_, count)| count).sum::<u64>() - self.partial
    }

    /// All others.
    pub fn failed(&self) -> u64 {
        self.requests - self.acknowledged()
    }

    /// Requests that were given up, and may or may not be stored: neither acknowledged nor refused.
    pub fn unknown(&self) -> u64 {
        self.failed() - self.refused
    }

    /// How often a request was sent.
    pub fn attempts(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Attempts besides each request's first.
    pub fn retries(&self) -> u64 {
        self.attempts() - self.requests
    }

    /// Sums over all tenants of what was acknowledged.
    pub fn acknowledged_tally(&self) -> Tally {
        self.ledger.values().map(|entry| entry.acknowledged).sum()
    }

    /// The latency that `percent` of the answered requests kept within.
    pub fn latency_at(&self, percent: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(percent / 100.0))
    }

    /// The server's CPU time for each request that came to it, in milliseconds.
    pub fn cpu_ms_per_request(&self) -> Option<f64> {
        let cpu_ms = self.server?.cpu.as_secs_f64() * 1e3;
        (self.attempts() > 0).then(|| cpu_ms / self.attempts() as f64)
    }
}

/// Both began at once, and went on beside each other.
impl Add for Outcome {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.requests += other.requests;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (status, complaint) in other.complaints {
            self.complaints.entry(status).or_insert(complaint);
        }
        self.refused += other.refused;
        self.partial += other.partial;
        self.bytes += other.bytes;
        self.parts += other.parts;
        self.latency += other.latency;
        self
    }
}
