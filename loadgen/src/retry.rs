//! What a sender does after an answer that is not a 2xx. Pure: it takes statuses and a clock, and returns the next
//! step.
//!
//! The rules are those of Prometheus' remote write queue (`client.go` and `queue_manager.go` in `storage/remote`, with
//! the defaults of its configuration). After a 5xx or no answer it tries again without end. The pause doubles each
//! time, or is as long as Retry-After says. Any other answer is final, and what it refuses is dropped.
//!
//! Senders of OTLP try again after 429, 502, 503 and 504 only, and a success may tell of items that are rejected for
//! good (OTLP specification, "OTLP/HTTP Response").
//!
//! Attempts that may be stored without an acknowledgement are counted, because a proof has to allow for them.

use std::time::{Duration, SystemTime};

use crate::journal::{Fate, Settled};

/// How a sender goes about retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRules {
    /// The first pause; each further one is twice as long as the last.
    pub backoff_min: Duration,
    /// The longest pause, unless Retry-After asks for a longer one.
    pub backoff_max: Duration,
    /// Whether to send again after 429; otherwise the request is given up.
    pub retry_429: bool,
    /// Whether a 5xx other than 502, 503 and 504 is final, as it is to senders of OTLP.
    pub is_otlp: bool,
    /// No attempt begins after this time from the first one on; None if only the run's end ends them.
    pub give_up_after: Option<Duration>,
}

impl RetryRules {
    /// Prometheus' pauses (`min_backoff`, `max_backoff`), until the run ends. `retry_429` is its `retry_on_http_429`.
    pub const fn prometheus(retry_429: bool) -> Self {
        Self {
            backoff_min: Duration::from_millis(30),
            backoff_max: Duration::from_secs(5),
            retry_429,
            is_otlp: false,
            give_up_after: None,
        }
    }

    /// The same pauses with the statuses on which senders of OTLP retry.
    #[must_use]
    pub const fn otlp(self) -> Self {
        Self { retry_429: true, is_otlp: true, ..self }
    }

    fn retries(&self, status: u16) -> bool {
        match status {
            429 => self.retry_429,
            500..600 if self.is_otlp => matches!(status, 502..=504),
            _ => true,
        }
    }
}

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// An answer: its status, and how long it asks to wait.
    Answered { status: u16, retry_after: Option<Duration> },
    /// An answer of OTLP with this status, a 2xx, which tells that some items are not stored and never will be.
    Partial { status: u16 },
    /// None, or too late: it may have arrived.
    Unanswered,
    /// There was no connection: it has surely not arrived.
    Unreached,
}

impl Attempt {
    /// The answer's status; 0 for none.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Answered { status, .. } | Self::Partial { status } => status,
            Self::Unanswered | Self::Unreached => 0,
        }
    }

    /// Whether the answer, or its lack, leaves open whether anything is stored.
    pub(crate) fn is_doubtful(self) -> bool {
        self == Self::Unanswered || self.status() >= 500
    }

    /// Whether there was an answer.
    pub(crate) fn is_answered(self) -> bool {
        matches!(self, Self::Answered { .. } | Self::Partial { .. })
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: the request is settled.
    Done(Settled),
    /// The same once more, after this pause.
    Again(Duration),
}

/// The attempts of one request.
#[derive(Clone, Debug)]
pub(crate) struct Attempts {
    rules: Option<RetryRules>,
    pause: Duration,
    unsettled: u32,
    doubtful: u32,
}

impl Attempts {
    /// Before the first.
    pub(crate) fn new(rules: Option<RetryRules>) -> Self {
        let pause = rules.map(|rules| rules.backoff_min).unwrap_or_default();
        Self { rules, pause, unsettled: 0, doubtful: 0 }
    }

    /// What to do after an attempt, when there is so much time left for more.
    pub(crate) fn judge(&mut self, attempt: Attempt, left: Duration) -> Next {
        let status = attempt.status();
        let is_partial = matches!(attempt, Attempt::Partial { .. });
        if (200..300).contains(&status) && !is_partial {
            return Next::Done(Settled::Acknowledged);
        }
        self.unsettled += u32::from(attempt != Attempt::Unreached);
        // Other than a single tenant's, a request that was limited may be stored in part.
        let is_limited = status == 429;
        self.doubtful += u32::from(attempt.is_doubtful() || is_limited);
        if attempt.is_answered() && status < 500 && !is_limited {
            return Next::Done(Settled::Refused);
        }
        let Some(rules) = self.rules.filter(|rules| rules.retries(status)) else {
            return Next::Done(Settled::GivenUp);
        };
        let asked = if let Attempt::Answered { retry_after, .. } = attempt { retry_after } else { None };
        let pause = asked.filter(|asked| !asked.is_zero()).unwrap_or(self.pause);
        // A server that asks for patience is asked the more cautiously afterwards, within the same bound.
        self.pause = pause.saturating_mul(2).min(rules.backoff_max);
        if pause < left { Next::Again(pause) } else { Next::Done(Settled::Abandoned) }
    }

    /// What became of the request.
    pub(crate) fn settle(self, settled: Settled) -> Fate {
        Fate { settled, unsettled: self.unsettled, doubtful: self.doubtful }
    }
}

/// How long a Retry-After asks to wait (RFC 9110, section 10.2.3): seconds, or a date. None where it is neither, or a
/// date that is past.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMETHEUS: Option<RetryRules> = Some(RetryRules::prometheus(false));

    const PATIENT: Option<RetryRules> = Some(RetryRules::prometheus(true));

    fn answered(status: u16) -> Attempt {
        Attempt::Answered { status, retry_after: None }
    }

    fn asked(status: u16, seconds: u64) -> Attempt {
        Attempt::Answered { status, retry_after: Some(Duration::from_secs(seconds)) }
    }

    fn again(ms: u64) -> Next {
        Next::Again(Duration::from_millis(ms))
    }

    /// What follows from each attempt of a request.
    fn judged<const COUNT: usize>(retry: Option<RetryRules>, attempts: [Attempt; COUNT]) -> [Next; COUNT] {
        let mut request = Attempts::new(retry);
        attempts.map(|attempt| request.judge(attempt, Duration::MAX))
    }

    #[test]
    fn pauses_double_from_30_ms_to_5_s() {
        let mut request = Attempts::new(PROMETHEUS);
        for ms in [30, 60, 120, 240, 480, 960, 1920, 3840, 5000, 5000] {
            let attempt = match ms {
                60 | 480 => Attempt::Unanswered,
                120 | 1920 => Attempt::Unreached,
                _ => answered(503),
            };
            assert_eq!(request.judge(attempt, Duration::MAX), again(ms));
        }
        assert_eq!(request.judge(answered(204), Duration::MAX), Next::Done(Settled::Acknowledged));
    }

    #[test]
    fn retry_after_takes_the_pauses_place() {
        let attempts = [asked(503, 2), answered(503), asked(500, 60), asked(500, 0)];
        // Twice what was asked for; however long; and 0 asks for nothing.
        assert_eq!(judged(PROMETHEUS, attempts), [2000, 4000, 60_000, 5000].map(again));
        let rules = RetryRules { backoff_max: Duration::from_millis(200), ..RetryRules::prometheus(true) };
        assert_eq!(
            judged(Some(rules), [answered(503), answered(503), asked(503, 3), answered(500)]),
            [30, 60, 3000, 200].map(again)
        );
    }

    #[test]
    fn what_is_the_senders_fault_is_refused() {
        for retry in [None, PROMETHEUS, PATIENT] {
            for status in [301, 400, 404, 409, 413, 422] {
                let mut request = Attempts::new(retry);
                let next = request.judge(answered(status), Duration::MAX);
                assert_eq!(next, Next::Done(Settled::Refused), "{status}");
                let fate = request.settle(Settled::Refused);
                assert_eq!((fate.unsettled, fate.doubtful), (1, 0));
            }
        }
    }

    #[test]
    fn what_is_limited_is_given_up_or_sent_again_and_may_be_stored_in_part() {
        assert_eq!(judged(PATIENT, [asked(429, 1)]), [again(1000)]);
        let mut request = Attempts::new(PROMETHEUS);
        assert_eq!(request.judge(answered(429), Duration::MAX), Next::Done(Settled::GivenUp));
        assert_eq!(request.settle(Settled::GivenUp).doubtful, 1);
    }

    #[test]
    fn senders_of_otlp_retry_on_four_statuses_and_hear_what_is_rejected() {
        let otlp = PROMETHEUS.map(RetryRules::otlp);
        for status in [429, 502, 503, 504] {
            assert_eq!(judged(otlp, [answered(status)]), [again(30)], "{status}");
        }
        assert_eq!(judged(otlp, [Attempt::Unanswered, Attempt::Unreached]), [again(30), again(60)]);
        for status in [500, 501, 505, 507, 599] {
            let mut request = Attempts::new(otlp);
            let next = request.judge(answered(status), Duration::MAX);
            assert_eq!(next, Next::Done(Settled::GivenUp), "{status} leaves open what is stored");
            assert_eq!(request.settle(Settled::GivenUp).doubtful, 1);
        }
        let mut request = Attempts::new(otlp);
        let next = request.judge(Attempt::Partial { status: 200 }, Duration::MAX);
        assert_eq!(next, Next::Done(Settled::Refused));
        let fate = request.settle(Settled::Refused);
        assert_eq!((fate.unsettled, fate.doubtful), (1, 0));
    }

    #[test]
    fn without_retries_the_first_answer_is_the_last() {
        for attempt in [answered(500), asked(503, 1), answered(429), Attempt::Unanswered, Attempt::Unreached]
        {
            assert_eq!(judged(None, [attempt]), [Next::Done(Settled::GivenUp)]);
        }
        assert_eq!(judged(None, [answered(200)]), [Next::Done(Settled::Acknowledged)]);
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

    #[test]
    fn each_attempt_that_may_be_stored_is_counted() {
        let mut request = Attempts::new(PATIENT);
        for attempt in [answered(503), answered(503), Attempt::Unreached, Attempt::Unanswered, answered(429)]
        {
            request.judge(attempt, Duration::MAX);
        }
        request.judge(answered(204), Duration::MAX);
        let fate = request.settle(Settled::Acknowledged);
        assert_eq!(
            (fate.doubtful, fate.unsettled),
            (4, 4),
            "all but the one that was not sent, and the last"
        );
    }

    #[test]
    fn attempts_end_with_their_time() {
        let mut request = Attempts::new(PATIENT);
        assert_eq!(request.judge(answered(503), Duration::from_millis(31)), again(30));
        let late = request.judge(answered(503), Duration::from_millis(60));
        assert_eq!(late, Next::Done(Settled::Abandoned));
    }
}
