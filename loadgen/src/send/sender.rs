//! One sender: a thread, a connection, a request after the other.

use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::pace::{Pace, sleep_until};
use super::{Message, Outcome, Progress, SendConfig, Source, stopped};
use crate::client::Client;
use crate::http::HttpError;
use crate::journal::{Fate, Settled};
use crate::retry::{Attempt, Attempts, Next, Retry, retry_after};

/// How long a sender waits after a request without an answer that it does not repeat, lest it spin on a port that nobody listens at.
const UNANSWERED_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Sender<S> {
    pub(super) source: S,
    pub(super) outcome: Outcome,
    client: Client,
    pace: Pace,
    retry: Retry,
    duration: Option<Duration>,
    requests_max: Option<u64>,
}

impl<S: Source> Sender<S> {
    pub(super) fn new(config: &SendConfig, source: S, pace: Pace) -> io::Result<Self> {
        Ok(Self {
            source,
            outcome: Outcome::new()?,
            client: Client::new(config.url.clone(), config.timeout),
            pace,
            retry: config.retry,
            duration: config.duration,
            requests_max: config.requests,
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
        let Self { source, outcome, client, retry, .. } = self;
        let mut delivery = Delivery { client, outcome, retry: *retry, end, progress };
        loop {
            let due = self.pace.due(started, Instant::now());
            if end.is_some_and(|end| due >= end) || !sleep_until(due, || stopped(progress)) {
                return;
            }
            let claimed = progress.claimed.fetch_add(1, Ordering::Relaxed);
            if self.requests_max.is_some_and(|most| claimed >= most) {
                return;
            }
            let Some(message) = source.next() else { return };
            let fate = delivery.deliver(&message, due);
            source.note(fate);
            // Without a time of its own, a request that could not be delivered leaves none for the next.
            if fate.settled == Settled::Abandoned && retry.give_up_after().is_none() {
                return;
            }
        }
    }
}

/// Gets one request across, or gives it up.
struct Delivery<'a> {
    client: &'a mut Client,
    outcome: &'a mut Outcome,
    retry: Retry,
    /// When the run ends.
    end: Option<Instant>,
    progress: &'a Progress,
}

impl Delivery<'_> {
    fn deliver(&mut self, message: &Message<'_>, due: Instant) -> Fate {
        let progress = self.progress;
        let mut attempts = Attempts::new(self.retry);
        let until = match self.retry.give_up_after() {
            Some(time) => Instant::now().checked_add(time),
            None => self.end,
        };
        let (settled, attempt, at) = loop {
            if !self.client.is_connected() {
                attempts.reconnect();
            }
            let (attempt, at) = self.attempt(message);
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(at));
            match attempts.judge(attempt, left) {
                Next::Done(settled) => break (settled, attempt, at),
                Next::Again(pause) if sleep_until(at + pause, || stopped(progress)) => {
                    progress.retries.fetch_add(1, Ordering::Relaxed);
                }
                Next::Again(_) => break (Settled::Abandoned, attempt, at),
            }
        };
        let is_told = attempt.is_answered() && settled != Settled::Abandoned;
        self.outcome.settle(message, settled, is_told.then(|| at.saturating_duration_since(due)));
        progress.answered.fetch_add(1, Ordering::Relaxed);
        if settled == Settled::Acknowledged {
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        if !attempt.is_answered() && settled == Settled::GivenUp {
            sleep_until(at + UNANSWERED_PAUSE, || stopped(progress));
        }
        attempts.settle(settled)
    }

    /// Sends it once; returns what came of it, and when.
    fn attempt(&mut self, message: &Message<'_>) -> (Attempt, Instant) {
        let begun = Instant::now();
        let connected = self.client.connect();
        let is_connected = connected.is_ok();
        let result = connected.map_err(HttpError::from).and_then(|()| self.client.exchange(message.bytes));
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
        self.outcome.attempt(message, attempt, at - begun);
        match &result {
            Ok(answer) if (200..300).contains(&answer.status) => {}
            Ok(answer) => {
                let body = self.client.body();
                self.outcome.complain(answer.status, || String::from_utf8_lossy(body).into_owned());
            }
            Err(error) => self.outcome.complain(0, || error.to_string()),
        }
        (attempt, at)
    }
}
