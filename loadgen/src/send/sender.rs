//! One sender: a thread, a connection, a request after the other.

use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::pace::{Pace, sleep_until};
use super::tally::{End, Tally};
use super::{Progress, SendConfig, stopped};
use crate::client::Client;
use crate::fleet::{Body, Fleet};
use crate::http::HttpError;
use crate::retry::{Attempt, Backoff, Reaction, Retry, retry_after};

/// How long a sender waits after a request without an answer that it does not repeat, lest it spin on a port that nobody listens at.
const UNANSWERED_PAUSE: Duration = Duration::from_millis(100);

/// A request that is ready to leave.
struct Message {
    bytes: Vec<u8>,
    /// Number of the body; None for metadata.
    body: Option<usize>,
    body_bytes: u64,
    series: u64,
    metadata: u64,
}

impl Message {
    fn new(config: &SendConfig, fleet: &Fleet, body: &Body, number: Option<usize>) -> Self {
        Self {
            bytes: config.url.push(fleet.format.headers(), &config.headers, &body.block),
            body: number,
            body_bytes: body.block.len() as u64,
            series: body.shares.iter().map(|(_, tally)| tally.series).sum(),
            metadata: body.metadata,
        }
    }
}

/// What a sender sends, in turn.
struct Messages {
    bodies: Vec<Message>,
    /// What it sends every so many turns instead of a body.
    metadata: Option<(u32, Message)>,
    turn: u32,
    next: usize,
}

impl Messages {
    fn next(&mut self) -> Option<&Message> {
        self.turn = self.turn.wrapping_add(1);
        if let Some((_, message)) = self.metadata.as_ref().filter(|(every, _)| self.turn >= *every) {
            self.turn = 0;
            return Some(message);
        }
        let body = self.bodies.get(self.next);
        self.next = (self.next + 1) % self.bodies.len().max(1);
        body
    }
}

pub(super) struct Sender {
    client: Client,
    messages: Messages,
    pace: Pace,
    retry: Retry,
    duration: Option<Duration>,
    requests_max: Option<u64>,
    pub(super) tally: Tally,
}

impl Sender {
    /// The sender that has this number in `fleet`.
    pub(super) fn new(config: &SendConfig, fleet: &Fleet, index: usize) -> io::Result<Self> {
        let bodies = fleet.senders.get(index).map_or(&[][..], Vec::as_slice);
        let message = |(number, body)| Message::new(config, fleet, body, Some(number));
        let metadata = fleet.metadata.as_ref();
        Ok(Self {
            client: Client::new(config.url.clone(), config.timeout),
            messages: Messages {
                bodies: bodies.iter().enumerate().map(message).collect(),
                metadata: metadata.map(|turn| (turn.every, Message::new(config, fleet, &turn.body, None))),
                turn: 0,
                next: 0,
            },
            pace: Pace::new(config.rate, index, fleet.senders.len()),
            retry: config.retry,
            duration: config.duration,
            requests_max: config.requests,
            tally: Tally::new(bodies.len())?,
        })
    }

    /// Connects before the clock starts. If that fails, the first request will tell.
    pub(super) fn connect(&mut self) {
        let _ = self.client.connect();
    }

    /// Sends until a bound is reached.
    pub(super) fn run(&mut self, progress: &Progress, started: Instant) {
        // The kernel lets a sleeper oversleep by 50 µs, which would count as latency.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let end = self.duration.and_then(|duration| started.checked_add(duration));
        let mut delivery =
            Delivery { client: &mut self.client, tally: &mut self.tally, retry: self.retry, end };
        loop {
            let due = self.pace.due(started, Instant::now());
            if end.is_some_and(|end| due >= end) || !sleep_until(due, || stopped(progress)) {
                return;
            }
            let claimed = progress.claimed.fetch_add(1, Ordering::Relaxed);
            if self.requests_max.is_some_and(|most| claimed >= most) {
                return;
            }
            let Some(message) = self.messages.next() else { return };
            // Whoever could not deliver one request would not have come to the next.
            if delivery.deliver(message, due, progress) == End::Abandoned {
                return;
            }
        }
    }
}

/// Gets one request across, or gives it up.
struct Delivery<'a> {
    client: &'a mut Client,
    tally: &'a mut Tally,
    retry: Retry,
    /// When the run ends: nothing is sent again after it.
    end: Option<Instant>,
}

impl Delivery<'_> {
    fn deliver(&mut self, message: &Message, due: Instant, progress: &Progress) -> End {
        let mut backoff = Backoff::new(self.retry);
        let (end, attempt, at) = loop {
            let (attempt, at) = self.attempt(message);
            match backoff.react(attempt) {
                Reaction::Acknowledged => break (End::Acknowledged, attempt, at),
                Reaction::Dropped => break (End::Dropped, attempt, at),
                Reaction::Again(pause) => {
                    let next = at.checked_add(pause).filter(|next| self.end.is_none_or(|end| *next < end));
                    if !next.is_some_and(|next| sleep_until(next, || stopped(progress))) {
                        break (End::Abandoned, attempt, at);
                    }
                    progress.retries.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let is_told = attempt.is_answered() && end != End::Abandoned;
        self.tally.end(
            message.body,
            message.metadata,
            end,
            is_told.then(|| at.saturating_duration_since(due)),
        );
        progress.answered.fetch_add(1, Ordering::Relaxed);
        if end == End::Acknowledged {
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            progress.series.fetch_add(message.series, Ordering::Relaxed);
        }
        if !attempt.is_answered() && end == End::Dropped {
            sleep_until(at + UNANSWERED_PAUSE, || stopped(progress));
        }
        end
    }

    /// Sends it once; returns what came of it, and when.
    fn attempt(&mut self, message: &Message) -> (Attempt, Instant) {
        let begun = Instant::now();
        let connected = self.client.connect();
        let is_connected = connected.is_ok();
        let result = connected.map_err(HttpError::from).and_then(|()| self.client.exchange(&message.bytes));
        let at = Instant::now();
        let attempt = match &result {
            Ok(answer) => Attempt::Answered {
                status: answer.status,
                retry_after: answer
                    .headers
                    .get("retry-after")
                    .and_then(|value| retry_after(value, SystemTime::now())),
            },
            Err(_) if is_connected => Attempt::Unanswered,
            Err(_) => Attempt::Unreached,
        };
        self.tally.attempt(message.body, message.body_bytes, attempt, at - begun);
        match &result {
            Ok(answer) if (200..300).contains(&answer.status) => {}
            Ok(answer) => {
                let body = self.client.body();
                self.tally.complain(answer.status, || String::from_utf8_lossy(body).into_owned());
            }
            Err(error) => self.tally.complain(0, || error.to_string()),
        }
        (attempt, at)
    }
}
