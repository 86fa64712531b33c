//! Who sends, and which status makes that sender do what our answer means.
//!
//! # Constraints
//! - An answer means one of four things: it is stored, it can never be, it may be later (429, 5xx). Senders don't
//!   agree on
//!   which status says which. One that takes "never" for "later" sends the same again for ever, and all its other
//!   data, every tenant's, queues up behind.
//! - A status may cost more than the request: on 400 and 415 vmagent gives up zstd for as long as it lives.
//! - Who sends is told by its request's head. Whoever we don't know is taken to go by the specification.
//!
//! # What they make of answers
//! By their sources, as of autumn 2026:
//!
//! - Prometheus, Grafana Agent and Alloy (`storage/remote`) drop what gets 4xx, 429 too unless they are told to
//!   retry, and
//!   send again what gets 5xx.
//! - The OpenTelemetry Collector (`prometheusremotewriteexporter`) does the same; its gate for 429 is `RetryOn429`.
//! - Promtail and Alloy (`loki.write`) do the same, but send again what gets 429.
//! - vmagent (`app/vmagent/remotewrite`) drops what gets 409, and sends again all else but 2xx. On 400 and 415 it
//!   packs a
//!   zstd block again as snappy, and all others from then on; only a snappy block, or one that can't be unpacked, it
//!   drops.
//! - Fluent Bit (`out_loki`, `out_prometheus_remote_write`) drops what gets 400, and sends again all else but 2xx.

#![forbid(unsafe_code)]

use super::{Answer, Rank, cut};
use crate::limits::ERROR_BODY_BYTES_MAX;

/// A kind of sender, by what it makes of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sender {
    /// It drops what gets 4xx, and sends again what gets 5xx: Prometheus and most others.
    #[default]
    Usual,
    /// VictoriaMetrics' agent.
    Vmagent,
    /// Fluent Bit.
    FluentBit,
}

impl Sender {
    /// Takes note of one field of a request's head, if it tells who sends.
    pub fn note(&mut self, name: &str, value: &[u8]) {
        if name.eq_ignore_ascii_case("x-victoriametrics-remote-write-version") {
            *self = Self::Vmagent;
        } else if *self == Self::Usual && name.eq_ignore_ascii_case("user-agent") {
            *self = Self::of_user_agent(value);
        }
    }

    fn of_user_agent(value: &[u8]) -> Self {
        let begins_with = |agent: &str| {
            value.get(..agent.len()).is_some_and(|it| it.eq_ignore_ascii_case(agent.as_bytes()))
        };
        [("vmagent", Self::Vmagent), ("fluent-bit", Self::FluentBit)]
            .into_iter()
            .find(|(agent, _)| begins_with(agent))
            .map_or(Self::Usual, |(_, sender)| sender)
    }

    /// Who sends a request whose `head`, as far as it has come, can't be taken for one.
    pub fn of_bad_head(head: &[u8]) -> Self {
        let mut sender = Self::Usual;
        let lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).skip(1);
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let (name, value) = line.split_at(colon);
            if let (Ok(name), Some(value)) = (std::str::from_utf8(name), value.get(1..)) {
                sender.note(name, value.trim_ascii_start());
            }
        }
        sender
    }

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
            Some(status) if Rank::of(answer.status) == Rank::Rejected && answer.status != status => {
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

    fn sender(fields: &[(&str, &str)]) -> Sender {
        let mut sender = Sender::default();
        fields.iter().for_each(|(name, value)| sender.note(name, value.as_bytes()));
        sender
    }

    fn answer(status: u16) -> Answer {
        Answer::new(status, "why".to_owned())
    }

    #[test]
    fn senders_are_known_by_their_heads() {
        for (agent, expected) in [
            ("Prometheus/3.14.0", Sender::Usual),
            ("GrafanaAgent/v0.44.2 (static; linux; deb)", Sender::Usual),
            ("Alloy/v1.11.0 (linux; docker)", Sender::Usual),
            ("opentelemetry-collector-contrib/0.139.0", Sender::Usual),
            ("promtail/3.5.8", Sender::Usual),
            ("notvmagent", Sender::Usual),
            ("", Sender::Usual),
            ("vmagent", Sender::Vmagent),
            ("VMAgent/v1.130", Sender::Vmagent),
            ("Fluent-Bit", Sender::FluentBit),
        ] {
            assert_eq!(sender(&[("user-AGENT", agent)]), expected, "{agent}");
        }
        let marked = ("X-VictoriaMetrics-Remote-Write-Version", "1");
        for agent in ["Go-http-client/1.1", "Fluent-Bit", "vmagent"] {
            assert_eq!(sender(&[("User-Agent", agent), marked]), Sender::Vmagent, "{agent}");
            assert_eq!(sender(&[marked, ("User-Agent", agent)]), Sender::Vmagent, "{agent}");
        }
        assert_eq!(sender(&[("X-Prometheus-Remote-Write-Version", "0.1.0")]), Sender::Usual);
    }

    #[test]
    fn a_sender_is_known_by_a_bad_head_too() {
        let head = "POST /push HTTP/1.1\r\nHost: x\r\nno field\r\nUser-Agent:vmagent\r\nX: yyyyyyyy";
        assert_eq!(Sender::of_bad_head(head.as_bytes()), Sender::Vmagent);
        for head in [
            "",
            "\r\n",
            "User-Agent: vmagent",
            "GET / HTTP/1.1\r\n\r\nUser-Agent: vmagent\r\n",
            "x\nüser-agent: vmagent",
        ] {
            assert_eq!(Sender::of_bad_head(head.as_bytes()), Sender::Usual, "{head:?}");
        }
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
