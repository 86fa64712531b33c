//! Maps an answer to the status that makes each kind of sender act as the answer intends.
//!
//! # Constraints
//! - An answer means one of three things: the data is stored, it can never be, or it may be later (429, 5xx). Senders
//!   do not agree on which status says which. One that reads "never" as "later" repeats the same request forever, and
//!   all its other data, that of every tenant, queues up behind it.
//! - A status may affect more than the request: on 400 and 415 vmagent gives up zstd for the rest of its life.
//! - The request's head identifies the sender. An unknown sender is assumed to follow the specification.
//!
//! # How they react to answers
//! According to their sources, as of autumn 2026:
//!
//! - Prometheus, Grafana Agent and Alloy (`storage/remote`) drop the data on 4xx, also on 429 unless configured to
//!   retry it, and retry on 5xx.
//! - The OpenTelemetry Collector (`prometheusremotewriteexporter`) does the same; its gate for 429 is `RetryOn429`.
//! - Promtail and Alloy (`loki.write`) do the same, but retry on 429.
//! - vmagent (`app/vmagent/remotewrite`) drops the data on 409, and retries on everything else but 2xx. On 400 and 415
//!   it recompresses a zstd block as snappy, and uses snappy from then on. It drops only a block that is already snappy
//!   or that it can't decompress.
//! - Fluent Bit (`out_loki`, `out_prometheus_remote_write`) drops the data on 400, and retries on everything else but
//!   2xx.

#![forbid(unsafe_code)]

use crate::http::sender::Sender;
use crate::limits::ERROR_BODY_BYTES_MAX;
use crate::model::{Answer, Fate, cut};

impl Sender {
    /// Returns the only 4xx on which it always drops a request; `None` if it does so on every 4xx but 429.
    fn drops_for(self) -> Option<u16> {
        match self {
            Self::Usual => None,
            Self::Vmagent => Some(409),
            Self::FluentBit => Some(400),
        }
    }

    /// Adapts an answer to this sender: replaces a 4xx on which it would retry by the one on which it drops the data.
    /// The body then begins with the original status.
    pub fn adapt(self, answer: Answer) -> Answer {
        match self.drops_for() {
            // A sender without accepted credentials delays no tenant but its own, and may keep its data until it has
            // them.
            Some(_) if answer.challenge.is_some() => answer,
            Some(status) if Fate::of(answer.status) == Fate::Rejected && answer.status != status => {
                let body = format!("{}: {}", answer.status, answer.body);
                Answer { status, body: cut(&body, ERROR_BODY_BYTES_MAX).to_owned(), ..answer }
            }
            _ => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Answer {
        Answer::new(status, "why".to_owned())
    }

    #[test]
    fn every_sender_drops_what_can_never_succeed() {
        for was in [400, 401, 403, 404, 405, 409, 413, 415, 422, 431] {
            assert_eq!(Sender::Usual.adapt(answer(was)), answer(was));
            for (sender, status) in [(Sender::Vmagent, 409), (Sender::FluentBit, 400)] {
                let adapted = sender.adapt(answer(was));
                let body = if was == status { "why".to_owned() } else { format!("{was}: why") };
                assert_eq!((adapted.status, adapted.body), (status, body), "{sender:?}");
            }
        }
    }

    #[test]
    fn a_sender_that_is_not_authenticated_may_retry() {
        let unauthorized = Answer { challenge: Some("WWW-Authenticate: Basic\r\n".into()), ..answer(401) };
        for sender in [Sender::Usual, Sender::Vmagent, Sender::FluentBit] {
            assert_eq!(sender.adapt(unauthorized.clone()), unauthorized, "{sender:?}");
        }
    }

    #[test]
    fn other_answers_are_unchanged() {
        for sender in [Sender::Usual, Sender::Vmagent, Sender::FluentBit] {
            for status in [200, 202, 204, 429, 500, 502, 503, 504, 599] {
                let answer = Answer { retry_after_secs: Some(7), close: true, ..answer(status) };
                assert_eq!(sender.adapt(answer.clone()), answer, "{sender:?}");
            }
        }
    }

    #[test]
    fn the_body_stays_within_its_limit() {
        let body = "é".repeat(ERROR_BODY_BYTES_MAX / 2);
        let adapted = Sender::Vmagent.adapt(Answer::new(404, body));
        assert!(
            adapted.body.starts_with("404: é") && adapted.body.len() <= ERROR_BODY_BYTES_MAX,
            "{}",
            adapted.body.len()
        );
    }
}
