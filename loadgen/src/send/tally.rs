//! What one sender, or all together, have seen.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::outcome::MetadataOutcome;
use crate::ledger::BodyCounts;
use crate::retry::Attempt;

/// What is kept of an error's text.
const COMPLAINT_CHARS_MAX: usize = 240;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a 2xx.
    Acknowledged,
    /// With what lets its sender give it up.
    Dropped,
    /// With the run.
    Abandoned,
}

/// Counts of requests and attempts.
pub(super) struct Tally {
    pub(super) bodies: BodyCounts,
    pub(super) requests: u64,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) complaints: BTreeMap<u16, String>,
    pub(super) dropped: u64,
    pub(super) abandoned: u64,
    pub(super) doubtful: u64,
    pub(super) bytes: u64,
    pub(super) latency: Histogram<u64>,
    pub(super) service: Histogram<u64>,
    pub(super) metadata: MetadataOutcome,
    pub(super) cpu: Duration,
}

/// A histogram of microseconds, to ten minutes, with three digits.
fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 600_000_000, 3).map_err(io::Error::other)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Counts one more of `bodies` that has this number.
fn count(bodies: &mut [u64], body: usize) {
    if let Some(count) = bodies.get_mut(body) {
        *count += 1;
    }
}

fn add(statuses: &mut BTreeMap<u16, u64>, other: BTreeMap<u16, u64>) {
    for (status, count) in other {
        *statuses.entry(status).or_default() += count;
    }
}

impl Tally {
    pub(super) fn new(bodies: usize) -> io::Result<Self> {
        Ok(Self {
            bodies: BodyCounts::new(bodies),
            requests: 0,
            statuses: BTreeMap::new(),
            complaints: BTreeMap::new(),
            dropped: 0,
            abandoned: 0,
            doubtful: 0,
            bytes: 0,
            latency: histogram()?,
            service: histogram()?,
            metadata: MetadataOutcome::default(),
            cpu: Duration::ZERO,
        })
    }

    /// Counts an attempt of body number `body`, or of metadata, which has none.
    pub(super) fn attempt(&mut self, body: Option<usize>, bytes: u64, attempt: Attempt, took: Duration) {
        let status = match attempt {
            Attempt::Answered { status, .. } => status,
            Attempt::Unanswered | Attempt::Unreached => 0,
        };
        let Some(body) = body else {
            *self.metadata.statuses.entry(status).or_default() += 1;
            return;
        };
        *self.statuses.entry(status).or_default() += 1;
        self.bytes += bytes;
        if status != 0 {
            self.service.saturating_record(micros(took));
        }
        if (200..300).contains(&status) {
            count(&mut self.bodies.acknowledged, body);
        } else if attempt != Attempt::Unreached {
            count(&mut self.bodies.unsettled, body);
        }
        if attempt.is_doubtful() {
            self.doubtful += 1;
            count(&mut self.bodies.doubtful, body);
        }
    }

    /// Keeps the first text that comes with a status.
    pub(super) fn complain(&mut self, status: u16, text: impl FnOnce() -> String) {
        self.complaints
            .entry(status)
            .or_insert_with(|| text().trim().chars().take(COMPLAINT_CHARS_MAX).collect());
    }

    /// Counts a request that is over; `latency` is None if its last attempt had no answer.
    pub(super) fn end(&mut self, body: Option<usize>, entries: u64, end: End, latency: Option<Duration>) {
        let Some(body) = body else {
            self.metadata.requests += 1;
            if end == End::Acknowledged {
                self.metadata.acknowledged += 1;
                self.metadata.entries += entries;
            }
            return;
        };
        self.requests += 1;
        match end {
            End::Acknowledged => {}
            End::Dropped => {
                self.dropped += 1;
                count(&mut self.bodies.dropped, body);
            }
            End::Abandoned => {
                self.abandoned += 1;
                count(&mut self.bodies.abandoned, body);
            }
        }
        if let Some(latency) = latency {
            self.latency.saturating_record(micros(latency));
        }
    }

    /// Adds another sender's, whose counts of bodies are given back: they mean something only together with its bodies.
    pub(super) fn absorb(&mut self, other: Self) -> io::Result<BodyCounts> {
        self.requests += other.requests;
        add(&mut self.statuses, other.statuses);
        for (status, complaint) in other.complaints {
            self.complaints.entry(status).or_insert(complaint);
        }
        self.dropped += other.dropped;
        self.abandoned += other.abandoned;
        self.doubtful += other.doubtful;
        self.bytes += other.bytes;
        self.latency.add(&other.latency).map_err(io::Error::other)?;
        self.service.add(&other.service).map_err(io::Error::other)?;
        self.metadata.requests += other.metadata.requests;
        self.metadata.acknowledged += other.metadata.acknowledged;
        self.metadata.entries += other.metadata.entries;
        add(&mut self.metadata.statuses, other.metadata.statuses);
        self.cpu += other.cpu;
        Ok(other.bodies)
    }
}
