//! When a request is sent again: Prometheus' rules, with an end.
//!
//! Prometheus (`storage/remote/queue_manager.go`, `client.go`) sends a request again after a 5xx, after no answer, and, if told to, after
//! 429; forever, with pauses that double, or as long as Retry-After says. Any other answer than a 2xx drops the request. Ours gives up one day, lest a
//! proof never end.

use std::time::{Duration, SystemTime};

use crate::journal::Settled;

/// How a sender goes about retries.
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
            backoff_min: Duration::from_millis(30),
            backoff_max: Duration::from_secs(5),
            retry_429: true,
            give_up_after: Duration::from_secs(60),
            attempts_max: 10_000,
        }
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An answer.
    Status {
        /// Its status.
        status: u16,
        /// What its Retry-After says.
        retry_after: Option<Duration>,
    },
    /// None; the request may have arrived.
    Nothing,
    /// No connection: the request has surely not arrived.
    Unreached,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
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
pub struct Retry {
    rules: RetryRules,
    backoff: Duration,
    attempts: u32,
    doubtful: u32,
}

impl Retry {
    /// Before the first attempt.
    #[must_use]
    pub fn new(rules: RetryRules) -> Self {
        Self { rules, backoff: rules.backoff_min, attempts: 0, doubtful: 0 }
    }

    /// What to do after an attempt; `elapsed` is the time since the first began.
    pub fn judge(&mut self, heard: Heard, elapsed: Duration) -> Next {
        self.attempts = self.attempts.saturating_add(1);
        let (again, retry_after) = match heard {
            Heard::Status { status: 200..=299, .. } => return Next::Done(Settled::Acknowledged),
            Heard::Status { status: 429, retry_after } => (self.rules.retry_429, retry_after),
            Heard::Status { status: 500..=599, retry_after } => (true, retry_after),
            Heard::Status { .. } => return Next::Done(Settled::Refused),
            Heard::Nothing | Heard::Unreached => (true, None),
        };
        self.doubtful += u32::from(heard != Heard::Unreached);
        let after = retry_after.filter(|time| !time.is_zero()).unwrap_or(self.backoff);
        self.backoff = after.saturating_mul(2).min(self.rules.backoff_max);
        let is_over = elapsed.saturating_add(after) > self.rules.give_up_after;
        if !again || is_over || self.attempts >= self.rules.attempts_max {
            Next::Done(Settled::Unknown)
        } else {
            Next::Again { after }
        }
    }

    /// How many attempts so far may have been stored though nobody said so.
    #[must_use]
    pub fn doubtful(&self) -> u32 {
        self.doubtful
    }
}

/// What a Retry-After header says: seconds or a date (RFC 9110, section 10.2.3); None where it is neither.
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RetryRules = RetryRules {
        backoff_min: Duration::from_millis(30),
        backoff_max: Duration::from_millis(200),
        retry_429: true,
        give_up_after: Duration::from_secs(60),
        attempts_max: 100,
    };

    fn status(status: u16) -> Heard {
        Heard::Status { status, retry_after: None }
    }

    fn again(ms: u64) -> Next {
        Next::Again { after: Duration::from_millis(ms) }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_retry_after_counts() {
        let mut retry = Retry::new(RULES);
        let mut judge = |heard| retry.judge(heard, Duration::ZERO);
        assert_eq!(
            [judge(status(503)), judge(Heard::Nothing), judge(Heard::Unreached)],
            [30, 60, 120].map(again)
        );
        assert_eq!([judge(status(429)), judge(status(500))], [again(200), again(200)]);
        let asked = Heard::Status { status: 503, retry_after: Some(Duration::from_secs(3)) };
        assert_eq!([judge(asked), judge(status(500))], [again(3000), again(200)]);
        assert_eq!(judge(status(204)), Next::Done(Settled::Acknowledged));
        assert_eq!(retry.doubtful(), 6, "all but the one that was not sent, and the last");
    }

    #[test]
    fn what_is_refused_is_not_sent_again() {
        for refused in [400, 404, 413, 422, 301] {
            assert_eq!(
                Retry::new(RULES).judge(status(refused), Duration::ZERO),
                Next::Done(Settled::Refused)
            );
        }
        let mut retry = Retry::new(RetryRules { retry_429: false, ..RULES });
        assert_eq!(retry.judge(status(429), Duration::ZERO), Next::Done(Settled::Unknown));
        assert_eq!(retry.doubtful(), 1, "a part of it may be stored");
    }

    #[test]
    fn it_gives_up() {
        let late = Duration::from_millis(59_971);
        assert_eq!(Retry::new(RULES).judge(status(503), late), Next::Done(Settled::Unknown));
        let mut retry = Retry::new(RetryRules { attempts_max: 2, ..RULES });
        assert_eq!(retry.judge(status(503), Duration::ZERO), again(30));
        assert_eq!(retry.judge(status(503), Duration::ZERO), Next::Done(Settled::Unknown));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |text| retry_after(text, now).map(|time| time.as_secs());
        assert_eq!(read(" 7 "), Some(7));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:40 GMT"), Some(3));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0));
        assert_eq!(read("soon"), None);
    }
}
