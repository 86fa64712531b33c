//! Detects the kind of sender of a request.
#![forbid(unsafe_code)]

/// A kind of sender, by how it handles answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sender {
    /// Drops data on 4xx and retries on 5xx: Prometheus and most others.
    #[default]
    Usual,
    /// VictoriaMetrics' agent.
    Vmagent,
    /// Fluent Bit.
    FluentBit,
}

impl Sender {
    /// Records one field of a request's head, if it identifies the sender.
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

    /// The sender of a request whose `head`, as far as received, cannot be parsed.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(fields: &[(&str, &str)]) -> Sender {
        let mut sender = Sender::default();
        fields.iter().for_each(|(name, value)| sender.note(name, value.as_bytes()));
        sender
    }

    #[test]
    fn senders_are_detected_by_their_heads() {
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
    fn a_sender_is_detected_by_a_bad_head_too() {
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
}
