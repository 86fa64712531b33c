//! The file as it is written, and what it means.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{Fault, Faults, FaultsError, ResetAt, Rule};
use crate::duration;

/// The seed of a file that names none.
const SEED: u64 = 1;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    seed: Option<u64>,
    rules: Vec<Spanned<Written>>,
}

/// A rule: when and for whom, and one of the faults.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    tenant: Names,
    from: Option<Time>,
    to: Option<Time>,
    share: Option<f64>,

    latency: Option<Latency>,
    status: Option<Status>,
    reset: Option<ResetAt>,
    #[serde(default)]
    half_open: bool,
    #[serde(default)]
    stall: bool,
    read_bytes_per_second: Option<u64>,
    body_bytes_max: Option<usize>,
    retry_after: Option<Time>,
    #[serde(default)]
    ha: bool,
    lie: Option<u16>,
    #[serde(default)]
    lose: bool,
    #[serde(default)]
    duplicate: bool,
    misplace: Option<String>,
    #[serde(default)]
    reorder: bool,
}

pub(super) fn read(text: &str) -> Result<Faults, FaultsError> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| FaultsError::Yaml(Box::new(error)))?;
    let rule = |written: Spanned<Written>| {
        let line = written.defined.line();
        written.value.rule().map_err(|why| FaultsError::Rule { line, why })
    };
    let rules = file.rules.into_iter().map(rule).collect::<Result<_, _>>()?;
    Ok(Faults { seed: file.seed.unwrap_or(SEED), rules })
}

impl Written {
    fn rule(self) -> Result<Rule, String> {
        let from = self.from.map(|Time(from)| from).unwrap_or_default();
        let to = self.to.map(|Time(to)| to);
        if let Some(to) = to.filter(|to| *to <= from) {
            return Err(format!("the rule ends at {to:?} but begins at {from:?}"));
        }
        let share = self.share.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("share must be from 0 to 1, and is {share}"));
        }
        let tenants = self.tenant.0.clone();
        Ok(Rule { tenants, from, to, share, fault: self.fault()? })
    }

    /// The one fault.
    fn fault(self) -> Result<Fault, String> {
        let flag = |set: bool, fault: Fault| set.then_some(fault);
        let named = [
            ("latency", self.latency.map(|Latency { from, to }| Fault::Latency { from, to })),
            (
                "status",
                self.status.map(|Status { code, headers, body }| Fault::Status {
                    code,
                    headers: headers.into_iter().collect(),
                    body,
                }),
            ),
            ("reset", self.reset.map(Fault::Reset)),
            ("half_open", flag(self.half_open, Fault::HalfOpen)),
            ("stall", flag(self.stall, Fault::Stall)),
            (
                "read_bytes_per_second",
                self.read_bytes_per_second.map(|bytes_per_second| Fault::SlowRead { bytes_per_second }),
            ),
            ("body_bytes_max", self.body_bytes_max.map(|body_bytes_max| Fault::TooLarge { body_bytes_max })),
            ("retry_after", self.retry_after.map(|Time(retry_after)| Fault::TooMany { retry_after })),
            ("ha", flag(self.ha, Fault::Ha)),
            ("lie", self.lie.map(|status| Fault::Lie { status })),
            ("lose", flag(self.lose, Fault::Lose)),
            ("duplicate", flag(self.duplicate, Fault::Duplicate)),
            ("misplace", self.misplace.map(|tenant| Fault::Misplace { tenant })),
            ("reorder", flag(self.reorder, Fault::Reorder)),
        ];
        let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        let mut set = named.into_iter().filter_map(|(name, fault)| Some((name, fault?)));
        match (set.next(), set.next()) {
            (None, _) => Err(format!("the rule has no fault; it needs one of {}", names.join(", "))),
            (Some((first, _)), Some((second, _))) => {
                Err(format!("a rule has one fault, this has `{first}` and `{second}`; write two rules"))
            }
            (Some((_, fault)), None) => fault.checked(),
        }
    }
}

impl Fault {
    fn checked(self) -> Result<Self, String> {
        let is_header = |(name, value): &(String, String)| {
            let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            !name.is_empty() && name.chars().all(is_token) && !value.chars().any(char::is_control)
        };
        match &self {
            Self::Status { code, .. } if !(200..=599).contains(code) => {
                Err(format!("a status is from 200 to 599, not {code}"))
            }
            Self::Status { headers, .. } if !headers.iter().all(is_header) => {
                Err("a header has a name and a value that HTTP cannot carry".to_owned())
            }
            Self::Lie { status } if !(300..=599).contains(status) => Err(format!(
                "a lie says that a stored request was not: a status from 300 to 599, not {status}"
            )),
            Self::SlowRead { bytes_per_second: 0 } => {
                Err("read_bytes_per_second must be above 0; half_open reads nothing".to_owned())
            }
            Self::Misplace { tenant } if tenant.is_empty() => {
                Err("misplace names the tenant that requests are stored under".to_owned())
            }
            _ => Ok(self),
        }
    }
}

/// One name, or a list.
#[derive(Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tenant's name (quoted, if it looks like a number), or a list of names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Names, A::Error> {
                let mut all = Vec::new();
                while let Some(name) = names.next_element()? {
                    all.push(name);
                }
                if all.is_empty() {
                    return Err(de::Error::custom("a list of tenants must not be empty"));
                }
                Ok(Names(all))
            }
        }

        from.deserialize_any(OneOrMore)
    }
}

/// A duration, or a number of seconds.
#[derive(Clone, Copy)]
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        duration::deserialize(from).map(Self)
    }
}

/// A duration, or two with `..` between them.
struct Latency {
    from: Duration,
    to: Duration,
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrTwo;

        impl Visitor<'_> for OneOrTwo {
            type Value = Latency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 200ms, or a range such as 20ms..80ms")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Latency, E> {
                let (from, to) = text.split_once("..").unwrap_or((text, text));
                let time = |text: &str| duration::parse(text.trim()).map_err(E::custom);
                let (from, to) = (time(from)?, time(to)?);
                if from > to {
                    return Err(E::custom(format_args!("`{text}` ends before it begins")));
                }
                Ok(Latency { from, to })
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Latency, E> {
                self.visit_str(&seconds.to_string())
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Latency, E> {
                self.visit_str(&seconds.to_string())
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Latency, E> {
                self.visit_str(&seconds.to_string())
            }
        }

        from.deserialize_any(OneOrTwo)
    }
}

/// A status, or a whole answer.
struct Status {
    code: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Answer {
            code: u16,
            #[serde(default)]
            headers: BTreeMap<String, String>,
            #[serde(default)]
            body: String,
        }

        struct CodeOrAnswer;

        impl<'de> Visitor<'de> for CodeOrAnswer {
            type Value = Status;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 503, or {code: 503, headers: {...}, body: ...}")
            }

            fn visit_u64<E: de::Error>(self, code: u64) -> Result<Status, E> {
                let code = u16::try_from(code).map_err(|_| E::custom("a status is from 200 to 599"))?;
                Ok(Status { code, headers: BTreeMap::new(), body: String::new() })
            }

            fn visit_i64<E: de::Error>(self, code: i64) -> Result<Status, E> {
                self.visit_u64(u64::try_from(code).unwrap_or_default())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Status, A::Error> {
                let Answer { code, headers, body } = Answer::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Status { code, headers, body })
            }
        }

        from.deserialize_any(CodeOrAnswer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let faults = read(
            "seed: 9\nrules:\n\
             - {tenant: a, from: 1m, to: 90, share: 0.5, latency: 5ms}\n\
             - {tenant: [a, b], latency: 10ms..20ms}\n\
             - status: {code: 503, headers: {Retry-After: '1'}, body: later}\n\
             - reset: mid_reply\n- half_open: true\n- stall: true\n- read_bytes_per_second: 7\n\
             - body_bytes_max: 8\n- retry_after: 2\n- ha: true\n- lie: 500\n- lose: true\n\
             - duplicate: true\n- misplace: c\n- reorder: true\n",
        )
        .unwrap();
        let ms = Duration::from_millis;
        let first = Rule {
            tenants: vec!["a".to_owned()],
            from: ms(60_000),
            to: Some(ms(90_000)),
            share: 0.5,
            fault: Fault::Latency { from: ms(5), to: ms(5) },
        };
        assert_eq!((faults.seed, &faults.rules[0]), (9, &first));
        assert_eq!(faults.rules[1].tenants, ["a", "b"]);
        let rest: Vec<Fault> = faults.rules.into_iter().skip(1).map(|rule| rule.fault).collect();
        let headers = vec![("Retry-After".to_owned(), "1".to_owned())];
        let expected = [
            Fault::Latency { from: ms(10), to: ms(20) },
            Fault::Status { code: 503, headers, body: "later".to_owned() },
            Fault::Reset(ResetAt::MidReply),
            Fault::HalfOpen,
            Fault::Stall,
            Fault::SlowRead { bytes_per_second: 7 },
            Fault::TooLarge { body_bytes_max: 8 },
            Fault::TooMany { retry_after: ms(2000) },
            Fault::Ha,
            Fault::Lie { status: 500 },
            Fault::Lose,
            Fault::Duplicate,
            Fault::Misplace { tenant: "c".to_owned() },
            Fault::Reorder,
        ];
        assert_eq!(rest, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (rule, why) in [
            ("{tenant: a}", "line 2: the rule has no fault; it needs one of latency, status, reset"),
            ("{lose: false}", "line 2: the rule has no fault"),
            ("{lose: true, lie: 503}", "line 2: a rule has one fault, this has `lie` and `lose`"),
            ("{lose: true, share: 1.5}", "line 2: share must be from 0 to 1"),
            ("{lose: true, share: .nan}", "line 2: share must be from 0 to 1"),
            ("{lose: true, from: 10s, to: 5s}", "line 2: the rule ends at 5s but begins at 10s"),
            ("{lie: 200}", "line 2: a lie says"),
            ("{status: 99}", "line 2: a status is from 200 to 599"),
            ("{status: 70000}", "a status is from 200 to 599"),
            ("{status: {code: 503, headers: {'a b': c}}}", "line 2: a header"),
            ("{read_bytes_per_second: 0}", "line 2: read_bytes_per_second must be above 0"),
            ("{misplace: ''}", "line 2: misplace names"),
            ("{lose: true, shar: 1}", "shar"),
            ("{status: {code: 503, text: x}}", "text"),
            ("{reset: never}", "never"),
            ("{latency: soon}", "`soon` is no duration"),
            ("{latency: 2s..1s}", "ends before it begins"),
            ("{lose: true, from: -1}", "no duration"),
            ("{lose: true, tenant: 10}", "quoted, if it looks like a number"),
            ("{lose: true, tenant: []}", "must not be empty"),
        ] {
            let error = read(&format!("rules:\n- {rule}\n")).unwrap_err().to_string();
            assert!(error.contains(why), "{rule}: {error}");
        }
        assert!(read("rule: []").unwrap_err().to_string().contains("rule"));
    }
}
