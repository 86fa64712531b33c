//! Faults from a file: which upstream misbehaves for whom, when, how often, and how.
//!
//! Constraints that shaped it:
//! - A file that is not what was meant must not run: unknown keys, values out of range, and rules without a fault or
//!   with two are errors that name the line.
//! - Which rule applies is a function of the time, the tenant and a drawn number, all of which are given: see
//!   [`Faults::admission`] and [`Faults::reply`]. [`FaultScript`] lends them a clock and a generator.
//!
//! Rules are looked at in their order. `latency` and `read_bytes_per_second` add to what comes after them;
//! `body_bytes_max` lets pass what it does not refuse; any other fault decides, and the rules after it are not looked
//! at. `half_open`, `reset: before_body` and `read_bytes_per_second` are decided when a request's head has come, before
//! all others.

mod written;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Admission, Approach, Arrival, Close, Reply, Script, Storing};
use crate::duration;
use crate::random::Random;

/// What goes wrong. In a file, each has its key.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The answer takes so long, drawn evenly from a range.
    #[serde(deserialize_with = "written::latency")]
    Latency {
        /// At least.
        from: Duration,
        /// At most.
        to: Duration,
    },
    /// This is the answer, and it is stored if that is a 2xx.
    #[serde(deserialize_with = "written::status")]
    Status {
        /// The status.
        code: u16,
        /// Headers besides those of framing.
        headers: Vec<(String, String)>,
        /// The answer's text.
        body: String,
    },
    /// The connection is reset, and nothing is stored.
    Reset(ResetAt),
    /// Nothing of the body is read, nothing is answered, and the connection stays open.
    HalfOpen,
    /// All is read, nothing is stored or answered, and the connection stays open.
    Stall,
    /// The body is read slowly, at so many bytes a second.
    #[serde(rename = "read_bytes_per_second")]
    SlowRead(u64),
    /// 413 for bodies that are larger, in bytes as they come over the wire.
    #[serde(rename = "body_bytes_max")]
    TooLarge(usize),
    /// 429, with this Retry-After.
    #[serde(rename = "retry_after", deserialize_with = "duration::deserialize")]
    TooMany(Duration),
    /// Stored, and answered with this status.
    Lie(u16),
    /// Answered with 200, and not stored.
    Lose,
    /// Stored twice.
    Duplicate,
    /// Stored under another tenant: its name, as a header would say it.
    Misplace(String),
    /// Stored after the next request, see [`Storing::AfterNext`].
    Reorder,
}

/// When a connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetAt {
    /// When the head has come.
    BeforeBody,
    /// When all has come.
    BeforeReply,
    /// When half the answer has left.
    MidReply,
}

/// When a fault happens, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Names, in which a `*` stands for any text; none for all tenants.
    pub tenants: Vec<String>,
    /// From this time after the script's start.
    pub from: Duration,
    /// Until this time, for ever if there is none.
    pub to: Option<Duration>,
    /// Of the requests that all else holds for; from 0 to 1.
    pub share: f64,
    /// What happens to them.
    pub fault: Fault,
}

impl Rule {
    fn applies(&self, now: Duration, tenant: Option<&str>, draw: &mut dyn FnMut() -> f64) -> bool {
        let is_time = now >= self.from && self.to.is_none_or(|to| now < to);
        let is_tenant = self.tenants.is_empty()
            || tenant.is_some_and(|tenant| self.tenants.iter().any(|pattern| matches(pattern, tenant)));
        is_time && is_tenant && (self.share >= 1.0 || draw() < self.share)
    }
}

/// Whether a text is what a pattern says, in which a `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let Some((middle, end)) = rest.rsplit_once('*') else { return text.ends_with(rest) };
    // Each at its first place leaves the most to those after it.
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = text.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    text.ends_with(end)
}

/// Rules, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    seed: u64,
    rules: Vec<Rule>,
}

/// Why a text describes no faults.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// Not YAML, or not with these keys and types.
    #[error("{0}")]
    Yaml(Box<serde_saphyr::Error>),
    /// A rule that says nothing sensible.
    #[error("line {line}: {why}")]
    Rule {
        /// Where the rule begins, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl Faults {
    /// Of rules; `seed` is that of the drawn numbers.
    pub fn new(seed: u64, rules: Vec<Rule>) -> Self {
        Self { seed, rules }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// When it is no YAML, has other keys than these, or a rule makes no sense.
    pub fn from_yaml(text: &str) -> Result<Self, FaultsError> {
        written::read(text)
    }

    /// What becomes of a request's body: `now` is the time since the sink's start; `draw` gives numbers from 0 up to
    /// and without 1, and is asked once for each rule whose share of requests it decides.
    pub fn admission(&self, now: Duration, tenant: Option<&str>, draw: &mut dyn FnMut() -> f64) -> Admission {
        let mut slow = Admission::Read;
        for rule in &self.rules {
            let admission = match rule.fault {
                Fault::HalfOpen => Admission::HalfOpen,
                Fault::Reset(ResetAt::BeforeBody) => Admission::Reset,
                Fault::SlowRead(bytes_per_second) if slow == Admission::Read => {
                    Admission::ReadSlowly { bytes_per_second }
                }
                _ => continue,
            };
            if rule.applies(now, tenant, draw) {
                slow = admission;
                if !matches!(admission, Admission::ReadSlowly { .. }) {
                    break;
                }
            }
        }
        slow
    }

    /// What is answered to a whole request, and what becomes of it.
    pub fn reply(
        &self,
        now: Duration,
        tenant: &str,
        body_bytes: usize,
        draw: &mut dyn FnMut() -> f64,
    ) -> Reply {
        let mut delay = Duration::ZERO;
        for rule in &self.rules {
            let passes = match rule.fault {
                Fault::HalfOpen | Fault::SlowRead(_) | Fault::Reset(ResetAt::BeforeBody) => true,
                Fault::TooLarge(body_bytes_max) => body_bytes <= body_bytes_max,
                _ => false,
            };
            if passes || !rule.applies(now, Some(tenant), draw) {
                continue;
            }
            match &rule.fault {
                Fault::Latency { from, to } => {
                    delay += *from + to.saturating_sub(*from).mul_f64(draw().clamp(0.0, 1.0));
                }
                fault => return fault.reply().after(delay),
            }
        }
        Reply::default().after(delay)
    }
}

impl Fault {
    /// The answer, of a fault that decides.
    fn reply(&self) -> Reply {
        match self {
            Self::Status { code, headers, body } => {
                Reply { headers: headers.clone(), ..Reply::new(*code, body) }
            }
            Self::Reset(ResetAt::MidReply) => Reply::new(200, "cut short").close(Close::MidReply),
            Self::Reset(_) => Reply::default().close(Close::Reset),
            Self::Stall => Reply::default().close(Close::Stall),
            Self::TooLarge(body_bytes_max) => {
                Reply::new(413, &format!("the body is larger than {body_bytes_max} bytes\n"))
            }
            Self::TooMany(retry_after) => {
                // Whole seconds, as the header has them; none is lost by rounding.
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                Reply::new(429, "too many requests\n").header("Retry-After", &seconds.to_string())
            }
            Self::Lie(status) => {
                Reply { stored: Some(true), ..Reply::new(*status, "stored, but told otherwise\n") }
            }
            Self::Lose => Reply { stored: Some(false), ..Reply::default() },
            Self::Duplicate => Reply::default().storing(Storing::Twice),
            Self::Misplace(tenant) => Reply::default().storing(Storing::Under(tenant.clone())),
            Self::Reorder => Reply::default().storing(Storing::AfterNext),
            Self::Latency { .. } | Self::HalfOpen | Self::SlowRead(_) => Reply::default(),
        }
    }
}

/// [`Faults`] with a clock and a generator.
pub struct FaultScript {
    faults: Faults,
    started: Instant,
    random: Mutex<Random>,
}

impl FaultScript {
    /// The script whose time begins now.
    pub fn new(faults: Faults) -> Self {
        Self { started: Instant::now(), random: Mutex::new(Random::new(faults.seed, 0)), faults }
    }

    fn draw(&self) -> f64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).unit()
    }
}

impl Script for FaultScript {
    fn admit(&self, approach: &Approach<'_>) -> Admission {
        self.faults.admission(self.started.elapsed(), approach.tenant, &mut || self.draw())
    }

    fn answer(&self, arrival: &Arrival<'_>) -> Reply {
        let now = self.started.elapsed();
        self.faults.reply(now, arrival.tenant, arrival.body.len(), &mut || self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10);

    fn faults(yaml: &str) -> Faults {
        Faults::from_yaml(yaml).unwrap()
    }

    fn never() -> f64 {
        panic!("nothing was to be drawn")
    }

    fn answer(faults: &Faults, now: Duration, tenant: &str, draw: &mut dyn FnMut() -> f64) -> Reply {
        faults.reply(now, tenant, 100, draw)
    }

    #[test]
    fn patterns() {
        let yes = [("a", "a"), ("*", ""), ("*", "abc"), ("a*", "abc"), ("*c", "abc"), ("a*c", "abc")];
        let no = [("a", "ab"), ("a*", "b"), ("*a", "ab"), ("ab*bc", "abc"), ("a*b*c", "acb"), ("*b*", "ac")];
        assert!(yes.iter().chain(&[("*b*", "abc"), ("a*b*b", "abb")]).all(|(p, t)| matches(p, t)));
        assert!(no.iter().all(|(p, t)| !matches(p, t)));
    }

    #[test]
    fn a_rule_has_its_tenants_its_time_and_its_share() {
        let faults = faults(
            "rules:\n- {tenant: [a, 'b-*'], from: 5s, to: 10, status: 503}\n- {tenant: c, share: 0.25, status: 500}\n",
        );
        let at =
            |seconds, tenant| answer(&faults, Duration::from_secs_f64(seconds), tenant, &mut never).status;
        assert_eq!([at(4.9, "a"), at(5.0, "a"), at(9.9, "b-1"), at(10.0, "a")], [200, 503, 503, 200]);
        assert_eq!([at(6.0, "b"), at(6.0, "aa")], [200, 200]);
        let drawn = |number: f64| answer(&faults, NOW, "c", &mut || number).status;
        assert_eq!([drawn(0.0), drawn(0.24), drawn(0.25), drawn(0.99)], [500, 500, 200, 200]);
    }

    #[test]
    fn latencies_add_up_and_the_first_that_decides_decides() {
        let faults = faults(
            "rules:\n- latency: 100ms..300ms\n- latency: 0.5\n- {tenant: a, retry_after: 1500ms}\n- status: 503\n- latency: 1h\n",
        );
        let reply = answer(&faults, NOW, "a", &mut || 0.5);
        assert_eq!((reply.status, reply.delay), (429, Duration::from_millis(700)));
        assert_eq!(reply.headers, [("Retry-After".to_owned(), "2".to_owned())]);
        assert_eq!(answer(&faults, NOW, "b", &mut || 0.0).status, 503);
    }

    #[test]
    fn what_refuses_only_some_lets_the_others_pass() {
        let faults = faults("rules:\n- body_bytes_max: 100\n- lose: true\n");
        let reply = |body_bytes| {
            let reply = faults.reply(NOW, "a", body_bytes, &mut never);
            (reply.status, reply.stores())
        };
        assert_eq!(reply(101), (413, false));
        assert_eq!(reply(100), (200, false), "the last rule loses it");
    }

    #[test]
    fn the_head_alone_decides_what_becomes_of_the_body() {
        let faults = faults(
            "rules:\n- status: 503\n- {tenant: slow, read_bytes_per_second: 10}\n- read_bytes_per_second: 20\n\
             - {tenant: gone, half_open: true}\n- {tenant: cut, reset: before_body}\n",
        );
        let admission = |tenant| faults.admission(NOW, tenant, &mut never);
        assert_eq!(admission(Some("slow")), Admission::ReadSlowly { bytes_per_second: 10 });
        assert_eq!(admission(None), Admission::ReadSlowly { bytes_per_second: 20 });
        assert_eq!(admission(Some("gone")), Admission::HalfOpen);
        assert_eq!(admission(Some("cut")), Admission::Reset);
        assert_eq!(answer(&faults, NOW, "gone", &mut never).status, 503);
    }

    #[test]
    fn each_way_to_lie_is_stored_as_it_says() {
        let reply = |fault: &str| answer(&faults(&format!("rules: [{{{fault}}}]")), NOW, "a", &mut never);
        let told = |fault: &str| {
            let reply = reply(fault);
            (reply.status, reply.stores(), reply.storing)
        };
        assert_eq!(told("lie: 503"), (503, true, Storing::Once));
        assert_eq!(told("lose: true"), (200, false, Storing::Once));
        assert_eq!(told("duplicate: true"), (200, true, Storing::Twice));
        assert_eq!(told("misplace: b"), (200, true, Storing::Under("b".to_owned())));
        assert_eq!(told("reorder: true"), (200, true, Storing::AfterNext));
        assert!(!reply("stall: true").stores() && !reply("reset: mid_reply").stores());
    }
}
