//! The file as it is written, and what it means.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Fault, Faults, FaultsError, Rule};
use crate::duration::{self, Written as Time};
use crate::typed::header_name;

/// The seed of a file that names none.
const SEED: u64 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    seed: Option<u64>,
    rules: Vec<Spanned<Written>>,
}

/// A rule: when and for whom, and one of the faults.
#[derive(Deserialize)]
struct Written {
    tenant: Option<Names>,
    from: Option<Time>,
    to: Option<Time>,
    share: Option<f64>,
    #[serde(flatten)]
    faults: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a tenant is a name (quoted, if it looks like a number) or a list of names")]
enum Names {
    One(String),
    Many(Vec<String>),
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
        let time = |time: Option<Time>| time.map(Duration::try_from).transpose();
        let from = time(self.from).map_err(|error| error.to_string())?.unwrap_or_default();
        let to = time(self.to).map_err(|error| error.to_string())?;
        if let Some(to) = to.filter(|to| *to <= from) {
            return Err(format!("the rule ends at {to:?} but begins at {from:?}"));
        }
        let share = self.share.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("share must be from 0 to 1, and is {share}"));
        }
        let tenants = match self.tenant {
            None => Vec::new(),
            Some(Names::One(name)) => vec![name],
            Some(Names::Many(names)) if names.is_empty() => {
                return Err("a list of tenants must not be empty".to_owned());
            }
            Some(Names::Many(names)) => names,
        };
        Ok(Rule { tenants, from, to, share, fault: fault(self.faults)? })
    }
}

/// The fault of a rule. A key that is `false` does not count.
fn fault(mut written: BTreeMap<String, Value>) -> Result<Fault, String> {
    written.retain(|_, value| *value != Value::Bool(false));
    let mut written = written.into_iter();
    match (written.next(), written.next()) {
        (None, _) => Err("the rule has no fault; loadgen/faults.example.yml shows them all".to_owned()),
        (Some((first, _)), Some((second, _))) => {
            Err(format!("a rule has one fault, this has `{first}` and `{second}`; write two rules"))
        }
        (Some((name, value)), None) => {
            // A fault without values is null to serde.
            let value = if value == Value::Bool(true) { Value::Null } else { value };
            let fault = serde_json::from_value(Value::Object([(name, value)].into_iter().collect()));
            fault.map_err(|error| error.to_string()).and_then(Fault::checked)
        }
    }
}

impl Fault {
    fn checked(self) -> Result<Self, String> {
        let is_header = |(name, value): &(String, String)| {
            header_name(name).is_ok() && !value.chars().any(char::is_control)
        };
        match &self {
            Self::Status { code, .. } if !(200..=599).contains(code) => {
                Err(format!("a status is from 200 to 599, not {code}"))
            }
            Self::Status { headers, .. } if !headers.iter().all(is_header) => {
                Err("a header has a name and a value that HTTP cannot carry".to_owned())
            }
            Self::Lie(status) if !(300..=599).contains(status) => Err(format!(
                "a lie says that a stored request was not: a status from 300 to 599, not {status}"
            )),
            Self::SlowRead(0) => {
                Err("read_bytes_per_second must be above 0; half_open reads nothing".to_owned())
            }
            Self::Misplace(tenant) if tenant.is_empty() => {
                Err("misplace names the tenant that requests are stored under".to_owned())
            }
            _ => Ok(self),
        }
    }
}

/// Reads a duration, or two with `..` between them.
pub(super) fn latency<'de, D: Deserializer<'de>>(from: D) -> Result<(Duration, Duration), D::Error> {
    let text = Time::deserialize(from)?.to_string();
    let (least, most) = text.split_once("..").unwrap_or((&text, &text));
    let time = |text: &str| duration::parse(text.trim()).map_err(D::Error::custom);
    let (least, most) = (time(least)?, time(most)?);
    if least > most {
        return Err(D::Error::custom(format_args!("`{text}` ends before it begins")));
    }
    Ok((least, most))
}

/// A status, or a whole answer.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a status such as 503, or {code: 503, headers: {...}, body: ...}")]
enum Status {
    Code(u16),
    Answer(Answer),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    code: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

type StatusFields = (u16, Vec<(String, String)>, String);

pub(super) fn status<'de, D: Deserializer<'de>>(from: D) -> Result<StatusFields, D::Error> {
    Ok(match Status::deserialize(from)? {
        Status::Code(code) => (code, Vec::new(), String::new()),
        Status::Answer(Answer { code, headers, body }) => (code, headers.into_iter().collect(), body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::faults::ResetAt;

    #[test]
    fn every_key_is_read() {
        let faults = read(
            "seed: 9\nrules:\n\
             - {tenant: a, from: 1m, to: 90, share: 0.5, latency: 5ms}\n\
             - {tenant: [a, b], latency: 10ms..20ms}\n\
             - status: {code: 503, headers: {Retry-After: '1'}, body: later}\n\
             - reset: mid_reply\n- half_open: true\n- stall: true\n- read_bytes_per_second: 7\n\
             - body_bytes_max: 8\n- retry_after: 2\n- lie: 500\n- lose: true\n\
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
            Fault::SlowRead(7),
            Fault::TooLarge(8),
            Fault::TooMany(ms(2000)),
            Fault::Lie(500),
            Fault::Lose,
            Fault::Duplicate,
            Fault::Misplace("c".to_owned()),
            Fault::Reorder,
        ];
        assert_eq!(rest, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (rule, why) in [
            ("{tenant: a}", "line 2: the rule has no fault; loadgen/faults.example.yml shows them all"),
            ("{lose: false}", "line 2: the rule has no fault"),
            ("{lose: true, lie: 503}", "line 2: a rule has one fault, this has `lie` and `lose`"),
            ("{lose: true, share: 1.5}", "line 2: share must be from 0 to 1"),
            ("{lose: true, share: .nan}", "line 2: share must be from 0 to 1"),
            ("{lose: true, from: 10s, to: 5s}", "line 2: the rule ends at 5s but begins at 10s"),
            ("{lie: 200}", "line 2: a lie says"),
            ("{status: 99}", "line 2: a status is from 200 to 599"),
            ("{status: 70000}", "line 2: a status such as 503"),
            ("{status: {code: 503, headers: {'a b': c}}}", "line 2: a header"),
            ("{read_bytes_per_second: 0}", "line 2: read_bytes_per_second must be above 0"),
            ("{misplace: ''}", "line 2: misplace names"),
            ("{lose: true, shar: 1}", "`lose` and `shar`"),
            ("{loose: true}", "line 2: unknown variant `loose`, expected one of `latency`, `status`"),
            ("{status: {code: 503, text: x}}", "line 2: a status such as 503, or {code: 503"),
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
