//! The results of a comparison as they are saved: the raw figures of every round, and the machine.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::{Acknowledges, Scenario};
use super::machine::Machine;
use crate::send::Percentiles;

/// The form of the file; another one has another number.
pub const FORMAT: u32 = 1;

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the configuration.
    pub name: String,
    /// When it began, in UTC (RFC 3339).
    pub date: String,
    /// The commit that was checked out, `-dirty` behind it if there were changes; None outside a repository.
    pub commit: Option<String>,
    /// Where it ran.
    pub machine: Machine,
    /// Whether it was ended before its time; then scenarios are missing.
    pub interrupted: bool,
    /// The contenders; the first is what the others are compared with.
    pub contenders: Vec<Entrant>,
    /// What came of each scenario, in the order in which they were run.
    pub scenarios: Vec<ScenarioResults>,
}

/// What is kept of a contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entrant {
    /// What it is called.
    pub name: String,
    /// What a reader of the figures should know.
    pub note: String,
    /// What it says of its version; None if it said nothing or was not asked.
    pub version: Option<String>,
    /// Whether it sends each tenant's series under that tenant's header.
    pub splits: bool,
    /// When it answers.
    pub acknowledges: Acknowledges,
    /// The contender that is the same without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<String>,
}

/// One scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResults {
    /// What was asked for.
    pub scenario: Scenario,
    /// One for each contender, in their order.
    pub showings: Vec<Showing>,
}

/// How a contender did in a scenario: figures, or why there are none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Showing {
    /// Every round was good.
    Measured(Vec<Round>),
    /// One was not, so none counts.
    Failed(Failure),
    /// It does not know the scenario's format, or is not installed.
    LeftOut,
}

impl Showing {
    /// Its rounds; none if it failed.
    pub fn rounds(&self) -> &[Round] {
        match self {
            Self::Measured(rounds) => rounds,
            Self::Failed(_) | Self::LeftOut => &[],
        }
    }

    /// Why there are no figures.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Measured(_) | Self::LeftOut => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

/// Why a contender has no figures for a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {reason}")]
pub struct Failure {
    /// In a word.
    pub kind: FailureKind,
    /// For a person.
    pub reason: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Its program is missing, ended early, or was not ready in time.
    #[error("does not start")]
    DoesNotStart,
    /// It ended while it was measured.
    #[error("ends while it is measured")]
    Ends,
    /// It answered otherwise than with 2xx, or not at all.
    #[error("answers wrongly")]
    AnswersWrongly,
    /// What it acknowledged is not what arrived.
    #[error("does not deliver what it acknowledged")]
    LosesSamples,
}

/// The raw figures of one round: a contender, freshly started, through a scenario's measured time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// From the first request to the last answer.
    pub seconds: f64,
    /// From the first request until the last acknowledged sample was in the sink; the same as `seconds` for one that
    /// acknowledges after delivery.
    pub delivered_seconds: f64,
    /// Requests, all of them acknowledged.
    pub requests: u64,
    /// Samples in them.
    pub samples: u64,
    /// How many tenants each held, summed.
    pub tenant_parts: u64,
    /// Their bodies, as sent.
    pub body_bytes: u64,
    /// Requests that reached the sink.
    pub upstream_requests: u64,
    /// CPU time of the contender's processes, user and system, from the first request to the last delivery.
    pub cpu_seconds: f64,
    /// What of this rustls alone needs to encrypt and decrypt what was sent over TLS, measured right after.
    #[serde(default)]
    pub tls_seconds: f64,
    /// The most resident memory of each of its processes, from its start on, summed.
    pub resident_bytes_peak: u64,
    /// Latencies of its answers.
    pub latency_ms: Percentiles,
}

impl Results {
    /// Every failure: the scenario, the contender's name, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&Scenario, &str, &Failure)> {
        self.scenarios.iter().flat_map(|results| {
            let named = self.contenders.iter().zip(&results.showings);
            named.filter_map(|(contender, showing)| {
                showing.failure().map(|failure| (&results.scenario, contender.name.as_str(), failure))
            })
        })
    }

    /// Writes it as JSON; folders on the way are made.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        fs::write(path, json)
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read or is something else.
    pub fn load(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let results: Self = serde_json::from_str(&text)?;
        let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        if results.format != FORMAT {
            return wrong(format!("format {} is not {FORMAT}", results.format));
        }
        if results.scenarios.iter().any(|scenario| scenario.showings.len() != results.contenders.len()) {
            return wrong("a scenario has not one showing for each contender".to_owned());
        }
        Ok(results)
    }
}
