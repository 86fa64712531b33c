//! Senders of stamped samples, which keep a journal of what became of each request.
//!
//! Constraints that shaped it:
//! - It is for proofs: a request is encoded when it is sent, no two are alike, and what is measured is nothing but time.
//! - Retries are Prometheus' ([`RetryRules`]), as a proof by other rules would prove little about Prometheus: one request in flight for each
//!   sender, and the next only when the last is settled.
//! - Whatever ends a sender, its journal holds every request that was sent.
//!
//! A request holds several tenants, for a server to split; or, where [`StampedConfig::tenant_header`] is set, one tenant and the header
//! that names it, for an upstream itself.

mod body;

use std::collections::BTreeMap;
use std::io;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use prost::Message;

use crate::chaos::Pulse;
use crate::client::{Client, Url};
use crate::fleet::Format;
use crate::journal::{Entries, Journal, Settled};
use crate::proto::WriteRequest;
pub use crate::retry::RetryRules;
use crate::retry::{Attempt, Attempts, Next, retry_after};
use crate::stamp::SenderId;

use body::Strand;

/// How long a waiting sender sleeps before it looks again whether it is to stop.
const NAP_MAX: Duration = Duration::from_millis(50);

/// What is kept of an error's text.
const COMPLAINT_CHARS_MAX: usize = 240;

/// What stamped senders send, and where.
#[derive(Clone, Debug)]
pub struct StampedConfig {
    /// The server.
    pub url: Url,
    /// In which words.
    pub format: Format,
    /// Headers besides those of remote write.
    pub headers: Vec<(String, String)>,
    /// The tenants' names.
    pub tenants: Vec<String>,
    /// Name of the label that names the tenant.
    pub tenant_label: String,
    /// Tenants in a request; those of a sender take turns. All, if there are no more.
    pub tenants_per_request: usize,
    /// The header that names a request's tenant, for a server that does not split: each request then holds one tenant.
    pub tenant_header: Option<String>,
    /// What stands before the tenant in that header.
    pub prefix: String,
    /// Series of each tenant in a request, with one sample each.
    pub series: u32,
    /// From one request of a sender to its next; None to send as soon as the last is settled.
    pub interval: Option<Duration>,
    /// How long a sender waits for an answer.
    pub timeout: Duration,
    /// When a request is sent again.
    pub retry: RetryRules,
    /// Where it is noted whose requests are sent for the first time; None to note it nowhere.
    pub pulse: Option<Arc<Pulse>>,
}

/// How long senders send.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// No request begins after this time. The last one's retries may go on past it.
    pub duration: Duration,
    /// Requests of each sender; None for no such bound.
    pub requests: Option<u64>,
}

/// A request's body.
#[derive(Clone, Debug)]
pub struct Body {
    /// The tenants in it, by their place in [`StampedConfig::tenants`], each with the sequence number of this request.
    parts: Vec<(usize, u64)>,
    /// As it is sent.
    pub block: Bytes,
    /// Samples in it.
    pub samples: u64,
}

/// What became of requests, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests that are settled, one way or another.
    pub requests: u64,
    /// How often they were sent.
    pub attempts: u64,
    /// Requests that were acknowledged.
    pub acknowledged: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that were given up.
    pub unknown: u64,
    /// How often each status came; 0 stands for no answer.
    pub statuses: BTreeMap<u16, u64>,
    /// For each status that is no 2xx, the first text that came with it.
    pub complaints: BTreeMap<u16, String>,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.attempts += other.attempts;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (status, complaint) in other.complaints {
            self.complaints.entry(status).or_insert(complaint);
        }
    }
}

/// One sender: a connection, and a journal of all that went over it.
pub struct Sender<'a> {
    config: &'a StampedConfig,
    id: SenderId,
    client: Client,
    strands: Vec<Strand>,
    /// The tenant whose turn it is, by its place.
    turn: usize,
    inflated: Vec<u8>,
    counts: Counts,
}

impl<'a> Sender<'a> {
    /// A sender that has sent nothing yet. No other sender, of any run, may have the same `id`.
    #[must_use]
    pub fn new(config: &'a StampedConfig, id: SenderId) -> Self {
        let strand = |tenant: &String| Strand::new(&config.tenant_label, tenant, id, config.series);
        Self {
            config,
            id,
            client: Client::new(config.url.clone(), config.timeout),
            strands: config.tenants.iter().map(strand).collect(),
            // Senders begin with different tenants, lest all send for the same at once.
            turn: usize::try_from(id.index).unwrap_or_default(),
            inflated: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Encodes the next request. It has to be settled by [`Sender::deliver`] before the next is asked for, or the journal lacks it.
    #[must_use]
    pub fn next_body(&mut self) -> Body {
        let tenants = self.strands.len();
        let most = if self.config.tenant_header.is_some() { 1 } else { self.config.tenants_per_request };
        self.inflated.clear();
        let mut parts = Vec::new();
        for _ in 0..most.min(tenants) {
            let tenant = self.turn % tenants;
            self.turn = tenant + 1;
            if let Some(strand) = self.strands.get_mut(tenant) {
                parts.push((tenant, strand.write_next(&mut self.inflated)));
            }
        }
        let samples = parts.len() as u64 * u64::from(self.config.series);
        let decoded = || WriteRequest::decode(&self.inflated[..]).unwrap_or_default();
        Body { parts, block: self.config.format.body(&self.inflated, decoded), samples }
    }

    /// Sends a body until it is settled or `stop` is set, and notes in the journal how it ended.
    pub fn deliver(&mut self, body: &Body, stop: &AtomicBool) -> Settled {
        let message = self.message(body);
        if let Some(pulse) = &self.config.pulse {
            let tenants = body.parts.iter().filter_map(|&(tenant, _)| self.config.tenants.get(tenant));
            tenants.for_each(|tenant| pulse.sent(tenant));
        }
        let begun = Instant::now();
        let mut attempts = Attempts::new(self.config.retry);
        let settled = loop {
            if !self.client.is_connected() {
                attempts.reconnect();
            }
            match attempts.judge(self.attempt(&message), begun.elapsed()) {
                Next::Done(settled) => break settled,
                Next::Again { after } if nap(after, stop) => {}
                Next::Again { .. } => break Settled::Unknown,
            }
        };
        let count = match settled {
            Settled::Acknowledged => &mut self.counts.acknowledged,
            Settled::Refused => &mut self.counts.refused,
            Settled::Unknown => &mut self.counts.unknown,
        };
        *count += 1;
        self.counts.requests += 1;
        for &(tenant, sequence) in &body.parts {
            if let Some(strand) = self.strands.get_mut(tenant) {
                strand.entries.settle(sequence, settled, attempts.doubtful());
            }
        }
        settled
    }

    /// A whole request.
    fn message(&self, body: &Body) -> Vec<u8> {
        let config = self.config;
        let format = config.format.headers();
        let tenant = body.parts.first().and_then(|&(tenant, _)| config.tenants.get(tenant));
        match config.tenant_header.as_ref().zip(tenant) {
            None => config.url.push(format, &config.headers, &body.block),
            Some((name, tenant)) => {
                let mut headers = config.headers.clone();
                headers.push((name.clone(), format!("{}{tenant}", config.prefix)));
                config.url.push(format, &headers, &body.block)
            }
        }
    }

    fn attempt(&mut self, message: &[u8]) -> Attempt {
        self.counts.attempts += 1;
        let (attempt, complaint) = match self.client.connect() {
            Err(error) => (Attempt::Unreached, error.to_string()),
            Ok(()) => match self.client.exchange(message) {
                Err(error) => (Attempt::Unanswered, error.to_string()),
                Ok(answer) => {
                    let asked = answer.headers.get("retry-after");
                    let retry_after = asked.and_then(|text| retry_after(text, SystemTime::now()));
                    let text = String::from_utf8_lossy(self.client.body()).into_owned();
                    (Attempt::Answered { status: answer.status, retry_after }, text)
                }
            },
        };
        let status = if let Attempt::Answered { status, .. } = attempt { status } else { 0 };
        *self.counts.statuses.entry(status).or_default() += 1;
        if !(200..300).contains(&status) {
            let shortened = || complaint.trim().chars().take(COMPLAINT_CHARS_MAX).collect();
            self.counts.complaints.entry(status).or_insert_with(shortened);
        }
        attempt
    }

    /// Sends one request after the other until a bound is reached or `stop` is set.
    pub fn run(&mut self, bounds: Bounds, stop: &AtomicBool) {
        let begun = Instant::now();
        let mut due = Duration::ZERO;
        while due < bounds.duration && bounds.requests.is_none_or(|most| self.counts.requests < most) {
            if !nap(due.saturating_sub(begun.elapsed()), stop) {
                return;
            }
            let body = self.next_body();
            self.deliver(&body, stop);
            // Behind its time after retries, it does not hurry to catch up: neither does Prometheus.
            due = begun.elapsed().max(due.saturating_add(self.config.interval.unwrap_or_default()));
        }
    }

    /// What it knows of all it has sent.
    #[must_use]
    pub fn into_journal(self) -> (Journal, Counts) {
        let mut journal = Journal::default();
        for (tenant, strand) in self.config.tenants.iter().zip(self.strands) {
            if strand.entries != Entries::new(self.config.series) {
                journal.add(self.id, tenant, strand.entries);
            }
        }
        (journal, self.counts)
    }
}

/// Waits; false if `stop` was set before the time was over.
#[expect(clippy::disallowed_methods, reason = "a sender's thread has nothing else to do")]
fn nap(time: Duration, stop: &AtomicBool) -> bool {
    let begun = Instant::now();
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let left = time.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(NAP_MAX));
    }
}

/// Runs `senders` senders, each on a thread of its own; `run` is [`SenderId::run`] of all. Returns when the last has settled its last request.
///
/// # Errors
/// When there are no threads to be had. That requests fail is no error here: journal and counts tell of it.
pub fn send(
    config: &StampedConfig,
    run: u64,
    senders: u32,
    bounds: Bounds,
    stop: &AtomicBool,
) -> io::Result<(Journal, Counts)> {
    let mut journal = Journal::default();
    let mut counts = Counts::default();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for index in 0..senders {
            let work = move || {
                let mut sender = Sender::new(config, SenderId { run, index });
                sender.run(bounds, stop);
                sender.into_journal()
            };
            threads.push(thread::Builder::new().name(format!("stamped-{index}")).spawn_scoped(scope, work)?);
        }
        for thread in threads {
            let (noted, counted) = thread.join().map_err(|_| io::Error::other("a sender panicked"))?;
            journal.merge(noted);
            counts += counted;
        }
        Ok((journal, counts))
    })
}
