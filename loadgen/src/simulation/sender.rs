//! A simulated sender: Prometheus' rules, over one connection.
//!
//! Its state outlives the tasks that send: these end when the server is killed, and others take over. What was in
//! flight then has no answer.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use monoio::net::TcpStream;
use monoio::time::{sleep_until, timeout};

use super::upstream::Sent;
use super::wire::Wire;
use super::world;
use crate::client::Answer;
use crate::http::{HttpError, MessageReader};
use crate::journal::Settled;
use crate::retry::{Attempt, Attempts, Next, retry_after};
use crate::send::answer::is_partial;
use crate::send::{RetryRules, Source};
use crate::stamp::SenderId;
use crate::stamped::{StampedConfig, Stamps};

/// How long an answer may take before something must be wrong.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A sender between its tasks.
pub(super) struct Sender {
    id: SenderId,
    config: Rc<Habits>,
    /// What it sends, until it is asked what became of it.
    pub(super) stamps: Option<Stamps>,
    pending: Option<Pending>,
    /// When the next request is due.
    due: Instant,
    /// What broke a law, seen from here.
    pub(super) failures: Vec<String>,
    /// Requests that were refused for good: the parts of each.
    pub(super) refused: Vec<Vec<Sent>>,
    /// How often a server began or ceased to end: odd while it ends, when it closes connections that lie idle.
    disturbances: Rc<Cell<u64>>,
    pub(super) acknowledged: u64,
    pub(super) attempts: u64,
}

/// How a sender goes about it.
pub(super) struct Habits {
    pub(super) to: SocketAddr,
    pub(super) rules: RetryRules,
    /// From one request to the next.
    pub(super) interval: Duration,
    /// How long it waits for an answer.
    pub(super) patience: Duration,
    /// When it sends no more.
    pub(super) end: Instant,
}

/// A request that is to be delivered.
struct Pending {
    bytes: Vec<u8>,
    attempts: Attempts,
    /// When it is given up.
    until: Instant,
    /// When its next attempt begins.
    next: Instant,
    is_in_flight: bool,
}

impl Sender {
    pub(super) fn new(
        id: SenderId,
        config: Habits,
        stamps: Arc<StampedConfig>,
        disturbances: Rc<Cell<u64>>,
    ) -> Self {
        Self {
            id,
            config: Rc::new(config),
            stamps: Some(Stamps::new(stamps, id)),
            pending: None,
            due: Instant::now(),
            failures: Vec::new(),
            refused: Vec::new(),
            disturbances,
            acknowledged: 0,
            attempts: 0,
        }
    }

    /// Whether it has nothing to send any more.
    pub(super) fn is_done(&self) -> bool {
        self.pending.is_none() && Instant::now() >= self.config.end
    }

    /// The bytes of the next attempt, and when it is due. None if all is done.
    fn next(&mut self) -> Option<(Instant, Vec<u8>)> {
        let now = Instant::now();
        if self.pending.is_none() {
            let due = self.due.max(now);
            if due >= self.config.end {
                return None;
            }
            self.due = due + self.config.interval;
            let bytes = self.stamps.as_mut()?.next()?.bytes.to_vec();
            let until = due + self.config.rules.give_up_after.unwrap_or(Duration::from_secs(3_600));
            let attempts = Attempts::new(Some(self.config.rules));
            self.pending = Some(Pending { bytes, attempts, until, next: due, is_in_flight: false });
        }
        self.pending.as_ref().map(|pending| (pending.next, pending.bytes.clone()))
    }

    fn leaves(&mut self) {
        self.attempts += 1;
        if let Some(stamps) = &self.stamps {
            let tenants: Vec<&String> = stamps.tenants().collect();
            world::trace(format_args!("sender {} sends of {tenants:?}", self.id.index));
        }
        if let Some(pending) = &mut self.pending {
            pending.is_in_flight = true;
        }
    }

    /// Notes what came of the attempt.
    fn came(&mut self, attempt: Attempt) {
        let now = Instant::now();
        let Some(mut pending) = self.pending.take() else { return };
        pending.is_in_flight = false;
        world::trace(format_args!("sender {} hears {attempt:?}", self.id.index));
        match pending.attempts.judge(attempt, pending.until.saturating_duration_since(now)) {
            Next::Again(pause) => {
                pending.next = now + pause;
                self.pending = Some(pending);
            }
            Next::Done(settled) => {
                self.acknowledged += u64::from(settled == Settled::Acknowledged);
                if settled == Settled::Refused {
                    self.refused.push(self.stamps.iter().flat_map(Stamps::parts).collect());
                }
                if settled == Settled::GivenUp {
                    self.failures.push(format!("sender {}: {attempt:?} asks for no retry", self.id));
                }
                if settled == Settled::Abandoned {
                    let (id, at) = (self.id, world::now().as_secs_f64());
                    self.failures
                        .push(format!("sender {id}: given up at {at:.3} s, as all of its attempts failed"));
                }
                let fate = pending.attempts.settle(settled);
                self.stamps.iter_mut().for_each(|stamps| stamps.note(fate));
            }
        }
    }

    /// The task that it had has ended. What was in flight has no answer.
    fn resume(&mut self) {
        if self.pending.as_ref().is_some_and(|pending| pending.is_in_flight) {
            self.came(Attempt::Unanswered);
        }
    }
}

/// Sends until all is done.
pub(super) async fn run(sender: Rc<RefCell<Sender>>) {
    sender.borrow_mut().resume();
    let config = Rc::clone(&sender.borrow().config);
    let mut connection = None;
    loop {
        let Some((at, bytes)) = sender.borrow_mut().next() else { return };
        sleep_until(at.into()).await;
        sender.borrow_mut().leaves();
        let disturbances = sender.borrow().disturbances.get();
        #[expect(
            clippy::disallowed_methods,
            reason = "what it drops is epoll's, and its connection is closed"
        )]
        let attempt = timeout(config.patience, attempt(&mut connection, &config, bytes)).await;
        if attempt.is_err() {
            connection = None;
        }
        let mut sender = sender.borrow_mut();
        let is_short = attempt.is_err() && config.patience < ANSWER_MAX;
        let attempt = attempt.unwrap_or(Attempt::Unanswered);
        let is_disturbed = disturbances % 2 == 1 || sender.disturbances.get() != disturbances;
        if attempt == Attempt::Unanswered && !is_disturbed && !is_short {
            let (id, at) = (sender.id, world::now().as_secs_f64());
            sender.failures.push(format!("sender {id}: no answer until {at:.3} s"));
        }
        sender.came(attempt);
    }
}

/// Sends once. Without an answer the connection is gone.
async fn attempt(connection: &mut Option<Wire>, config: &Habits, bytes: Vec<u8>) -> Attempt {
    if connection.as_ref().is_none_or(|wire| !wire.is_open()) {
        match TcpStream::connect_addr(config.to).await {
            Ok(stream) => *connection = Some(Wire::new(stream)),
            Err(_) => return Attempt::Unreached,
        }
    }
    let Some(wire) = connection.as_mut() else { return Attempt::Unreached };
    match exchange(wire, bytes, config.rules.is_otlp).await {
        Ok((attempt, keeps)) => {
            if !keeps {
                *connection = None;
            }
            attempt
        }
        Err(_) => {
            *connection = None;
            Attempt::Unanswered
        }
    }
}

async fn exchange(wire: &mut Wire, bytes: Vec<u8>, is_otlp: bool) -> Result<(Attempt, bool), HttpError> {
    let written = wire.write(bytes).await;
    // An answer may have come before all was sent.
    let head = wire.head(MessageReader::response_head).await?;
    let Some(head) = head else {
        written?;
        return Err(HttpError::Closed);
    };
    let body = wire.body(head.framing, None).await?;
    if head.status >= 300 {
        world::trace(format_args!("answer {}: {}", head.status, String::from_utf8_lossy(&body).trim_end()));
    }
    let retry_after = head.headers.get("retry-after").and_then(|value| retry_after(value, SystemTime::now()));
    let answer = Answer { status: head.status, headers: head.headers };
    let attempt = match is_otlp && is_partial(&answer, &body) {
        true => Attempt::Partial { status: head.status },
        false => Attempt::Answered { status: head.status, retry_after },
    };
    Ok((attempt, head.keep_alive))
}
