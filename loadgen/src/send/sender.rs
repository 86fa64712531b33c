//! One sender: a thread, a connection, a body after the other.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::pace::{Pace, sleep_until};
use super::{Progress, SendConfig, latency_histogram, stopped};
use crate::client::Client;
use crate::fleet::Body;
use crate::http::HttpError;
use crate::ledger::BodyCounts;

/// How long a sender waits after a request without an answer, lest it spin on a port that nobody listens at.
const BACKOFF: Duration = Duration::from_millis(100);

/// What is kept of an error's text.
const COMPLAINT_CHARS_MAX: usize = 240;

/// What one sender, or all together, have seen.
pub(super) struct Tally {
    pub(super) bodies: BodyCounts,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) complaints: BTreeMap<u16, String>,
    pub(super) bytes: u64,
    pub(super) latency: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(bodies: usize) -> io::Result<Self> {
        Ok(Self {
            bodies: BodyCounts::new(bodies),
            statuses: BTreeMap::new(),
            complaints: BTreeMap::new(),
            bytes: 0,
            latency: latency_histogram()?,
        })
    }

    /// Adds another sender's, whose counts of bodies are given back: they mean something only together with its bodies.
    pub(super) fn absorb(&mut self, other: Self) -> io::Result<BodyCounts> {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (status, complaint) in other.complaints {
            self.complaints.entry(status).or_insert(complaint);
        }
        self.bytes += other.bytes;
        self.latency.add(&other.latency).map_err(io::Error::other)?;
        Ok(other.bodies)
    }
}

/// A request that is ready to leave.
struct Message {
    bytes: Vec<u8>,
    body_bytes: u64,
    series: u64,
}

pub(super) struct Sender {
    client: Client,
    messages: Vec<Message>,
    pace: Pace,
    duration: Option<Duration>,
    requests_max: Option<u64>,
    pub(super) tally: Tally,
}

impl Sender {
    pub(super) fn new(
        config: &SendConfig,
        bodies: &[Body],
        index: usize,
        senders: usize,
    ) -> io::Result<Self> {
        let message = |body: &Body| Message {
            bytes: config.url.push(&config.headers, &body.block),
            body_bytes: body.block.len() as u64,
            series: body.shares.iter().map(|(_, tally)| tally.series).sum(),
        };
        Ok(Self {
            client: Client::new(config.url.clone(), config.timeout),
            messages: bodies.iter().map(message).collect(),
            pace: Pace::new(config.rate, index, senders),
            duration: config.duration,
            requests_max: config.requests,
            tally: Tally::new(bodies.len())?,
        })
    }

    /// Connects before the clock starts. If that fails, the first request will tell.
    pub(super) fn connect(&mut self) {
        let _ = self.client.connect();
    }

    pub(super) fn run(&mut self, progress: &Progress, started: Instant) {
        let messages = std::mem::take(&mut self.messages);
        for (body, message) in messages.iter().enumerate().cycle() {
            let due = self.pace.due(started, Instant::now());
            let too_late = self.duration.is_some_and(|duration| due.duration_since(started) >= duration);
            if too_late || !sleep_until(due, || stopped(progress)) || !self.claim(progress) {
                return;
            }
            let result = self.client.exchange(&message.bytes).map(|answer| answer.status);
            let acknowledged = self.record(body, message, due, &result);
            progress.answered.fetch_add(1, Ordering::Relaxed);
            if acknowledged {
                progress.acknowledged.fetch_add(1, Ordering::Relaxed);
                progress.series.fetch_add(message.series, Ordering::Relaxed);
            }
            if result.is_err() && !sleep_until(Instant::now() + BACKOFF, || stopped(progress)) {
                return;
            }
        }
    }

    /// Takes one of the requests that there are to send; false when none is left.
    fn claim(&self, progress: &Progress) -> bool {
        let claimed = progress.claimed.fetch_add(1, Ordering::Relaxed);
        self.requests_max.is_none_or(|most| claimed < most)
    }

    /// Counts what came of a request; true if it was acknowledged.
    fn record(
        &mut self,
        body: usize,
        message: &Message,
        due: Instant,
        result: &Result<u16, HttpError>,
    ) -> bool {
        let status = *result.as_ref().unwrap_or(&0);
        let acknowledged = (200..300).contains(&status);
        let tally = &mut self.tally;
        *tally.statuses.entry(status).or_default() += 1;
        tally.bytes += message.body_bytes;
        if result.is_ok() {
            tally.latency.saturating_record(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        let counts = if acknowledged { &mut tally.bodies.acknowledged } else { &mut tally.bodies.unsettled };
        if let Some(count) = counts.get_mut(body) {
            *count += 1;
        }
        if !acknowledged {
            let text = match result {
                Ok(_) => String::from_utf8_lossy(self.client.body()).into_owned(),
                Err(error) => error.to_string(),
            };
            tally
                .complaints
                .entry(status)
                .or_insert_with(|| text.trim().chars().take(COMPLAINT_CHARS_MAX).collect());
        }
        acknowledged
    }
}
