//! What a sender does about an answer that is no 2xx. Pure: statuses and a clock in, what to do next out.
//!
//! The rules are those of Prometheus' remote write queue (`storage/remote`: `client.go` and `queue_manager.go`, and its
//! configuration's defaults): a server's error and no answer at all are tried again for ever, with a pause that doubles;
//! Retry-After takes the pause's place; any other answer is final, and what it refuses is dropped.
//!
//! [`Backoff`] is just that. [`Attempts`] gives up one day, lest a proof never end, and counts what may be stored though nobody said so.

use std::time::{Duration, SystemTime};

use crate::journal::{Doubts, Settled};

/// Prometheus' `min_backoff`.
const BACKOFF_MIN: Duration = Duration::from_millis(30);

/// Prometheus' `max_backoff`.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Whether a request is sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// Never: each request is sent once, whatever comes of it.
    #[default]
    Never,
    /// As Prometheus does it.
    Prometheus {
        /// Whether 429 is tried again too, as with Prometheus' `retry_on_http_429`.
        on_429: bool,
    },
}

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// An answer: its status, and how long it asks to wait.
    Answered { status: u16, retry_after: Option<Duration> },
    /// None, or too late: it may have arrived.
    Unanswered,
    /// There was no connection: it has surely not arrived.
    Unreached,
}

impl Attempt {
    /// Whether what was sent may be stored though nobody said so.
    pub(crate) fn is_doubtful(self) -> bool {
        match self {
            Self::Answered { status, .. } => status >= 500,
            Self::Unanswered => true,
            Self::Unreached => false,
        }
    }

    /// Whether there was an answer.
    pub(crate) fn is_answered(self) -> bool {
        matches!(self, Self::Answered { .. })
    }

    /// Whether the answer asks for fewer requests.
    fn is_limited(self) -> bool {
        matches!(self, Self::Answered { status: 429, .. })
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Nothing: it is acknowledged.
    Acknowledged,
    /// Nothing: it is given up.
    Dropped,
    /// The same once more, after this pause.
    Again(Duration),
}

/// The pauses of one request.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    pause: Duration,
    pause_max: Duration,
}

impl Backoff {
    /// With Prometheus' own pauses.
    pub(crate) fn new(retry: Retry) -> Self {
        Self::within(retry, BACKOFF_MIN, BACKOFF_MAX)
    }

    /// With pauses that double from the first to the second.
    fn within(retry: Retry, pause: Duration, pause_max: Duration) -> Self {
        Self { retry, pause, pause_max }
    }

    pub(crate) fn react(&mut self, attempt: Attempt) -> Reaction {
        let (again, asked) = match (attempt, self.retry) {
            (Attempt::Answered { status: 200..=299, .. }, _) => return Reaction::Acknowledged,
            (_, Retry::Never) => (false, None),
            (Attempt::Unanswered | Attempt::Unreached, _) => (true, None),
            (Attempt::Answered { status, retry_after }, Retry::Prometheus { on_429 }) => {
                (status >= 500 || status == 429 && on_429, retry_after)
            }
        };
        if !again {
            return Reaction::Dropped;
        }
        let pause = asked.filter(|asked| !asked.is_zero()).unwrap_or(self.pause);
        // A server that asks for patience is asked the more cautiously afterwards, within the same bound.
        self.pause = pause.saturating_mul(2).min(self.pause_max);
        Reaction::Again(pause)
    }
}

/// How a sender goes about retries that end.
#[derive(Clone, Copy, Debug)]
pub struct RetryRules {
    /// The first pause; each further one is twice as long as the last.
    pub backoff_min: Duration,
    /// The longest pause, unless Retry-After asks for a longer one.
    pub backoff_max: Duration,
    /// Whether to send again after 429 (Prometheus' `retry_on_http_429`); otherwise the request is given up.
    pub retry_429: bool,
    /// No attempt begins after this time from the first one on.
    pub give_up_after: Duration,
    /// Attempts at most.
    pub attempts_max: u32,
}

impl Default for RetryRules {
    /// Prometheus' pauses; 429 is tried again, for a minute at most.
    fn default() -> Self {
        Self {
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            retry_429: true,
            give_up_after: Duration::from_secs(60),
            attempts_max: 10_000,
        }
    }
}

/// What follows from an attempt, where attempts end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The request is settled.
    Done(Settled),
    /// It is sent again.
    Again {
        /// After this pause.
        after: Duration,
    },
}

/// The attempts of one request.
#[derive(Clone, Debug)]
pub(crate) struct Attempts {
    rules: RetryRules,
    backoff: Backoff,
    made: u32,
    doubtful: Doubts,
    /// Whether the last one was answered, and yet may be stored.
    is_last_answered: bool,
}

impl Attempts {
    /// Before the first.
    pub(crate) fn new(rules: RetryRules) -> Self {
        let retry = Retry::Prometheus { on_429: rules.retry_429 };
        let backoff = Backoff::within(retry, rules.backoff_min, rules.backoff_max);
        Self { rules, backoff, made: 0, doubtful: Doubts::default(), is_last_answered: false }
    }

    /// What to do after an attempt; `elapsed` is the time since the first began.
    pub(crate) fn judge(&mut self, attempt: Attempt, elapsed: Duration) -> Next {
        self.made = self.made.saturating_add(1);
        let pause = match self.backoff.react(attempt) {
            Reaction::Acknowledged => return Next::Done(Settled::Acknowledged),
            Reaction::Dropped if !attempt.is_limited() => return Next::Done(Settled::Refused),
            Reaction::Dropped => None,
            Reaction::Again(pause) => Some(pause),
        };
        // Other than a single tenant's, a request that was limited may be stored in part.
        let is_doubtful = attempt.is_doubtful() || attempt.is_limited();
        self.is_last_answered = is_doubtful && attempt.is_answered();
        let doubtful =
            if attempt.is_answered() { &mut self.doubtful.answered } else { &mut self.doubtful.unanswered };
        *doubtful += u32::from(is_doubtful);
        let in_time = |after: &Duration| elapsed.saturating_add(*after) <= self.rules.give_up_after;
        match pause.filter(in_time) {
            Some(after) if self.made < self.rules.attempts_max => Next::Again { after },
            _ => Next::Done(Settled::Unknown),
        }
    }

    /// Notes that the next attempt goes over another connection than the last.
    pub(crate) fn reconnect(&mut self) {
        if std::mem::take(&mut self.is_last_answered) {
            self.doubtful.answered -= 1;
            self.doubtful.answered_elsewhere += 1;
        }
    }

    /// How many attempts so far may have been stored though nobody said so.
    pub(crate) fn doubtful(&self) -> Doubts {
        self.doubtful
    }
}

/// How long a Retry-After asks to wait (RFC 9110, section 10.2.3): seconds, or a date. None where it is neither, or a date
/// that is past.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMETHEUS: Retry = Retry::Prometheus { on_429: false };

    fn answered(status: u16) -> Attempt {
        Attempt::Answered { status, retry_after: None }
    }

    fn asked(status: u16, seconds: u64) -> Attempt {
        Attempt::Answered { status, retry_after: Some(Duration::from_secs(seconds)) }
    }

    fn again(ms: u64) -> Reaction {
        Reaction::Again(Duration::from_millis(ms))
    }

    #[test]
    fn pauses_double_from_30_ms_to_5_s() {
        let mut backoff = Backoff::new(PROMETHEUS);
        for ms in [30, 60, 120, 240, 480, 960, 1920, 3840, 5000, 5000] {
            let attempt = match ms {
                60 | 480 => Attempt::Unanswered,
                120 | 1920 => Attempt::Unreached,
                _ => answered(503),
            };
            assert_eq!(backoff.react(attempt), again(ms));
        }
        assert_eq!(backoff.react(answered(204)), Reaction::Acknowledged);
    }

    #[test]
    fn retry_after_takes_the_pauses_place() {
        let mut backoff = Backoff::new(PROMETHEUS);
        assert_eq!(backoff.react(asked(503, 2)), again(2000));
        assert_eq!(backoff.react(answered(503)), again(4000), "twice what was asked for");
        assert_eq!(backoff.react(asked(500, 60)), again(60_000), "however long");
        assert_eq!(backoff.react(asked(500, 0)), again(5000), "0 asks for nothing");
    }

    #[test]
    fn what_is_the_senders_fault_is_dropped() {
        for status in [301, 400, 404, 409, 413, 422, 429] {
            assert_eq!(Backoff::new(PROMETHEUS).react(answered(status)), Reaction::Dropped, "{status}");
        }
        let mut patient = Backoff::new(Retry::Prometheus { on_429: true });
        assert_eq!(patient.react(asked(429, 1)), again(1000));
        assert_eq!(patient.react(answered(400)), Reaction::Dropped);
    }

    #[test]
    fn without_retries_the_first_answer_is_the_last() {
        for attempt in [answered(500), asked(503, 1), answered(429), Attempt::Unanswered, Attempt::Unreached]
        {
            assert_eq!(Backoff::new(Retry::Never).react(attempt), Reaction::Dropped);
        }
        assert_eq!(Backoff::new(Retry::Never).react(answered(200)), Reaction::Acknowledged);
    }

    #[test]
    fn only_what_nobody_vouches_for_is_doubtful() {
        assert!(
            Attempt::Unanswered.is_doubtful() && answered(500).is_doubtful() && answered(504).is_doubtful()
        );
        assert!(!Attempt::Unreached.is_doubtful());
        assert!(!answered(200).is_doubtful() && !answered(400).is_doubtful() && !answered(429).is_doubtful());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |value: &str| retry_after(value, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("7"), Some(7));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:27 GMT"), None, "past");
        assert_eq!(seconds("-3"), None);
        assert_eq!(seconds("soon"), None);
    }

    const RULES: RetryRules = RetryRules {
        backoff_min: Duration::from_millis(30),
        backoff_max: Duration::from_millis(200),
        retry_429: true,
        give_up_after: Duration::from_secs(60),
        attempts_max: 100,
    };

    fn later(ms: u64) -> Next {
        Next::Again { after: Duration::from_millis(ms) }
    }

    #[test]
    fn attempts_pause_no_longer_than_their_rules_say_and_count_doubts() {
        let mut attempts = Attempts::new(RULES);
        let mut judge = |attempt| attempts.judge(attempt, Duration::ZERO);
        assert_eq!(
            [judge(answered(503)), judge(Attempt::Unanswered), judge(Attempt::Unreached)],
            [30, 60, 120].map(later)
        );
        assert_eq!([judge(answered(429)), judge(answered(500))], [later(200), later(200)]);
        assert_eq!([judge(asked(503, 3)), judge(answered(500))], [later(3000), later(200)]);
        assert_eq!(judge(answered(204)), Next::Done(Settled::Acknowledged));
        let doubtful = Doubts { answered: 5, unanswered: 1, ..Doubts::default() };
        assert_eq!(attempts.doubtful(), doubtful, "all but the one that was not sent, and the last");
    }

    #[test]
    fn an_answered_attempt_before_a_new_connection_is_counted_apart() {
        let mut attempts = Attempts::new(RULES);
        attempts.reconnect();
        for attempt in [answered(503), answered(503), Attempt::Unreached, Attempt::Unanswered, answered(429)]
        {
            attempts.judge(attempt, Duration::ZERO);
            // The first two share a connection.
            if attempts.made != 1 {
                attempts.reconnect();
            }
        }
        assert_eq!(attempts.doubtful(), Doubts { answered: 1, answered_elsewhere: 2, unanswered: 1 });
    }

    #[test]
    fn what_is_refused_is_not_sent_again() {
        for refused in [400, 404, 413, 422, 301] {
            let mut attempts = Attempts::new(RULES);
            assert_eq!(attempts.judge(answered(refused), Duration::ZERO), Next::Done(Settled::Refused));
            assert_eq!(attempts.doubtful(), Doubts::default());
        }
        let mut attempts = Attempts::new(RetryRules { retry_429: false, ..RULES });
        assert_eq!(attempts.judge(answered(429), Duration::ZERO), Next::Done(Settled::Unknown));
        assert_eq!(attempts.doubtful().all(), 1, "a part of it may be stored");
    }

    #[test]
    fn attempts_end() {
        let late = Duration::from_millis(59_971);
        assert_eq!(Attempts::new(RULES).judge(answered(503), late), Next::Done(Settled::Unknown));
        let mut attempts = Attempts::new(RetryRules { attempts_max: 2, ..RULES });
        assert_eq!(attempts.judge(answered(503), Duration::ZERO), later(30));
        assert_eq!(attempts.judge(answered(503), Duration::ZERO), Next::Done(Settled::Unknown));
    }
}
