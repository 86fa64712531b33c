//! A comparison's YAML as written, with its defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::fleet::Format;

use super::{Acknowledges, Compares, LABELS_DEFAULT, RUN_LENGTH_DEFAULT};

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) seconds: f64,
    #[serde(default = "one_second")]
    pub(super) warm_up_seconds: f64,
    #[serde(default = "three")]
    pub(super) rounds: u32,
    #[serde(default = "tenant_label")]
    pub(super) tenant_label: String,
    #[serde(default = "tenant_header")]
    pub(super) tenant_header: String,
    #[serde(default)]
    pub(super) allow_failure: bool,
    #[serde(default)]
    pub(super) contenders: Vec<WrittenContender>,
    /// Another comparison, whose contenders take part in this one.
    pub(super) contenders_of: Option<PathBuf>,
    pub(super) scenarios: Vec<WrittenScenarios>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenContender {
    pub(super) name: String,
    #[serde(default)]
    pub(super) note: String,
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) version: Vec<String>,
    /// Name in the contender's directory → template, relative to the configuration.
    #[serde(default)]
    pub(super) files: BTreeMap<String, PathBuf>,
    #[serde(default = "tcp")]
    pub(super) ready: String,
    #[serde(default = "ten_seconds")]
    pub(super) ready_seconds: f64,
    #[serde(default = "push")]
    pub(super) push: String,
    #[serde(default = "push_loki")]
    pub(super) push_loki: String,
    #[serde(default = "formats")]
    pub(super) formats: Vec<Format>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default = "yes")]
    pub(super) splits: bool,
    #[serde(default)]
    pub(super) acknowledges: Acknowledges,
    #[serde(default = "thirty_seconds")]
    pub(super) drain_seconds: f64,
    #[serde(default)]
    pub(super) compares: Compares,
}

/// A matrix: every combination is a scenario.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenScenarios {
    #[serde(default = "formats")]
    pub(super) formats: Vec<Format>,
    pub(super) tenants: Numbers,
    pub(super) series: Numbers,
    pub(super) senders: Numbers,
    #[serde(default = "labels")]
    pub(super) labels: Numbers,
    #[serde(default = "run_length")]
    pub(super) run_length: Numbers,
    pub(super) seconds: Option<f64>,
    pub(super) warm_up_seconds: Option<f64>,
    pub(super) rounds: Option<u32>,
}

fn yes() -> bool {
    true
}
fn three() -> u32 {
    3
}
fn one_second() -> f64 {
    1.0
}
fn ten_seconds() -> f64 {
    10.0
}
fn thirty_seconds() -> f64 {
    30.0
}
fn tcp() -> String {
    "tcp".to_owned()
}
fn push() -> String {
    "/push".to_owned()
}
fn push_loki() -> String {
    "/loki/api/v1/push".to_owned()
}
fn formats() -> Vec<Format> {
    vec![Format::default()]
}
fn tenant_label() -> String {
    "tenant".to_owned()
}
fn tenant_header() -> String {
    "X-Scope-OrgID".to_owned()
}
fn labels() -> Numbers {
    Numbers(vec![LABELS_DEFAULT])
}
fn run_length() -> Numbers {
    Numbers(vec![RUN_LENGTH_DEFAULT])
}

/// `5` or `[5, 10]`.
pub(super) struct Numbers(pub(super) Vec<u32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a list of numbers")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Numbers, E> {
                let number =
                    u32::try_from(number).map_err(|_| E::custom(format_args!("{number} is too large")))?;
                Ok(Numbers(vec![number]))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Numbers, E> {
                let number =
                    u64::try_from(number).map_err(|_| E::custom(format_args!("{number} is negative")))?;
                self.visit_u64(number)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbers, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = list.next_element()? {
                    numbers.push(number);
                }
                Ok(Numbers(numbers))
            }
        }
        from.deserialize_any(OneOrMany)
    }
}
