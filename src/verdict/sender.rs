//! Who sends, and which status makes that sender do what our answer means.
//!
//! # Constraints
//! - An answer means one of four things: it is stored, it can never be, it may be later (429, 5xx). Senders don't
//!   agree on which status says which. One that takes "never" for "later" sends the same again for ever, and all its
//!   other data, every tenant's, queues up behind.
//! - A status may cost more than the request: on 400 and 415 vmagent gives up zstd for as long as it lives.
//! - Who sends is told by its request's head. Whoever we don't know is taken to go by the specification.
//!
//! # What they make of answers
//! By their sources, as of autumn 2026:
//!
//! - Prometheus, Grafana Agent and Alloy (`storage/remote`) drop what gets 4xx, 429 too unless they are told to
//!   retry, and send again what gets 5xx.
//! - The OpenTelemetry Collector (`prometheusremotewriteexporter`) does the same; its gate for 429 is `RetryOn429`.
//! - Promtail and Alloy (`loki.write`) do the same, but send again what gets 429.
//! - vmagent (`app/vmagent/remotewrite`) drops what gets 409, and sends again all else but 2xx. On 400 and 415 it
//!   packs a zstd block again as snappy, and all others from then on; only a snappy block, or one that can't be
//!   unpacked, it drops.
//! - Fluent Bit (`out_loki`, `out_prometheus_remote_write`) drops what gets 400, and sends again all else but 2xx.

#![forbid(unsafe_code)]

use crate::http::sender::Sender;
use crate::limits::ERROR_BODY_BYTES_MAX;
use crate::model::{Answer, Fate, cut};

impl Sender {
    /// The status for which it drops a request, where not every 4xx but 429 is one.
    fn drops_for(self) -> Option<u16> {
        match self {
            Self::Usual => None,
            Self::Vmagent => Some(409),
            Self::FluentBit => Some(400),
        }
    }

    /// The answer in words that this sender understands. A status that had to make way is told in the text.
    pub fn hears(self, answer: Answer) -> Answer {
        match self.drops_for() {
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
    fn what_can_never_succeed_is_dropped_by_each() {
        for was in [400, 401, 403, 404, 405, 409, 413, 415, 422, 431] {
            assert_eq!(Sender::Usual.hears(answer(was)), answer(was));
            for (sender, status) in [(Sender::Vmagent, 409), (Sender::FluentBit, 400)] {
                let heard = sender.hears(answer(was));
                let body = if was == status { "why".to_owned() } else { format!("{was}: why") };
                assert_eq!((heard.status, heard.body), (status, body), "{sender:?}");
            }
        }
    }

    #[test]
    fn everything_else_is_heard_as_it_is() {
        for sender in [Sender::Usual, Sender::Vmagent, Sender::FluentBit] {
            for status in [200, 202, 204, 429, 500, 502, 503, 504, 599] {
                let answer = Answer { retry_after_secs: Some(7), close: true, ..answer(status) };
                assert_eq!(sender.hears(answer.clone()), answer, "{sender:?}");
            }
        }
    }

    #[test]
    fn the_text_stays_within_its_limit() {
        let body = "é".repeat(ERROR_BODY_BYTES_MAX / 2);
        let heard = Sender::Vmagent.hears(Answer::new(404, body));
        assert!(
            heard.body.starts_with("404: é") && heard.body.len() <= ERROR_BODY_BYTES_MAX,
            "{}",
            heard.body.len()
        );
    }
}
