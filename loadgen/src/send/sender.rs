//! One sender: a thread with a connection, which sends one request after the other.

use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::answer::{is_partial, otlp_text};
use super::pace::{Pace, sleep_until};
use super::{Message, Outcome, Progress, SendConfig, Source};
use crate::client::Client;
use crate::http::HttpError;
use crate::journal::{Fate, Settled};
use crate::retry::{Attempt, Attempts, Next, retry_after};

/// How long a sender waits after a request without an answer that it does not repeat, lest it spin on a port
/// without a listener.
const UNANSWERED_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Sender<'a> {
    pub(super) outcome: Outcome,
    client: Client,
    config: &'a SendConfig,
    progress: &'a Progress,
    /// When the run ends.
    end: Option<Instant>,
}

impl<'a> Sender<'a> {
    pub(super) fn new(config: &'a SendConfig, progress: &'a Progress) -> io::Result<Self> {
        let client = Client::new(config.url.clone(), config.timeout);
        Ok(Self { outcome: Outcome::new()?, client, config, progress, end: None })
    }

    /// Connects before the clock starts. If that fails, the first request will tell.
    pub(super) fn connect(&mut self) {
        let _ = self.client.connect();
    }

    /// Sends until a bound is reached.
    pub(super) fn run(&mut self, source: &mut impl Source, mut pace: Pace, started: Instant) {
        // The kernel lets a sleeper oversleep by 50 µs, which would count as latency.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        self.end = self.config.duration.and_then(|duration| started.checked_add(duration));
        loop {
            let due = pace.due(started, Instant::now());
            if self.end.is_some_and(|end| due >= end) || !self.sleep_until(due) {
                return;
            }
            let claimed = self.progress.claimed.fetch_add(1, Ordering::Relaxed);
            if self.config.requests.is_some_and(|most| claimed >= most) {
                return;
            }
            let Some(message) = source.next() else { return };
            let fate = self.deliver(&message, due);
            source.note(fate);
            // Without a time of its own, a request that could not be delivered leaves none for the next.
            if fate.settled == Settled::Abandoned && self.give_up_after().is_none() {
                return;
            }
        }
    }

    /// How long a request is sent again, whenever the run ends.
    fn give_up_after(&self) -> Option<Duration> {
        self.config.retry?.give_up_after
    }

    /// Sleeps; false if it is to stop.
    fn sleep_until(&self, due: Instant) -> bool {
        sleep_until(due, || self.progress.stop.load(Ordering::Relaxed))
    }

    /// Gets one request across, or gives it up.
    fn deliver(&mut self, message: &Message<'_>, due: Instant) -> Fate {
        let progress = self.progress;
        let mut attempts = Attempts::new(self.config.retry);
        let until = match self.give_up_after() {
            Some(time) => Instant::now().checked_add(time),
            None => self.end,
        };
        let (settled, attempt, at) = loop {
            let (attempt, at) = self.attempt(message);
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(at));
            match attempts.judge(attempt, left) {
                Next::Done(settled) => break (settled, attempt, at),
                Next::Again(pause) if self.sleep_until(at + pause) => {
                    progress.retries.fetch_add(1, Ordering::Relaxed);
                }
                Next::Again(_) => break (Settled::Abandoned, attempt, at),
            }
        };
        let is_told = attempt.is_answered() && settled != Settled::Abandoned;
        self.outcome.settle(settled, is_told.then(|| at.saturating_duration_since(due)));
        progress.answered.fetch_add(1, Ordering::Relaxed);
        if settled == Settled::Acknowledged {
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        if !attempt.is_answered() && settled == Settled::GivenUp {
            self.sleep_until(at + UNANSWERED_PAUSE);
        }
        attempts.settle(settled)
    }

    /// Sends it once; returns what came of it, and when.
    fn attempt(&mut self, message: &Message<'_>) -> (Attempt, Instant) {
        if self.config.new_connections.is_some() {
            self.client.disconnect();
        }
        let connected = self.client.connect();
        let is_connected = connected.is_ok();
        let result = connected.map_err(HttpError::from).and_then(|()| self.client.exchange(message.bytes));
        let at = Instant::now();
        let attempt = match &result {
            Ok(answer) if self.config.is_otlp && is_partial(answer, self.client.body()) => {
                Attempt::Partial { status: answer.status }
            }
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
        self.outcome.attempt(message, attempt);
        match &result {
            Ok(answer)
                if (200..300).contains(&answer.status) && !matches!(attempt, Attempt::Partial { .. }) => {}
            Ok(answer) => {
                let body = self.client.body();
                self.outcome.complain(answer.status, || match self.config.is_otlp {
                    true => otlp_text(answer, body),
                    false => String::from_utf8_lossy(body).into_owned(),
                });
            }
            Err(error) => self.outcome.complain(0, || error.to_string()),
        }
        (attempt, at)
    }
}
