//! What a simulation has found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::world::Trace;
use crate::audit::Audit;
use crate::chaos::Liveness;

/// Findings that are printed.
const FINDINGS_MAX: usize = 20;

/// The laws, each with what was found against it.
#[derive(Debug)]
pub struct Verdict {
    /// How long it was, by its own clock.
    pub simulated: Duration,
    /// How long it took.
    pub took: Duration,
    /// Attempts of all senders, and requests that were acknowledged.
    pub attempts: (u64, u64),
    /// Requests that the upstream had.
    pub requests: u64,
    /// What was acknowledged against what is stored.
    pub audit: Audit,
    /// Whether all tenants got on.
    pub liveness: Liveness,
    /// Whatever else was not as it should be.
    pub failures: Vec<String>,
    pub(super) trace: Trace,
}

impl Verdict {
    /// Whether all laws hold.
    pub fn holds(&self) -> bool {
        self.failures.is_empty() && self.audit.holds() && self.liveness.starved.is_empty()
    }

    /// What was found, one line each.
    pub fn findings(&self) -> Vec<String> {
        let mut findings = self.failures.clone();
        for (name, finding) in self.audit.faults().iter().filter(|(_, finding)| finding.samples > 0) {
            let examples: Vec<String> = finding.examples.iter().map(ToString::to_string).collect();
            findings.push(format!("{name}: {} samples, as {}", finding.samples, examples.join("; ")));
        }
        if self.audit.damaged > 0 {
            findings.push(format!(
                "damaged: {} samples, as {:?}",
                self.audit.damaged, self.audit.damaged_examples
            ));
        }
        for starved in &self.liveness.starved {
            findings.push(format!(
                "starved: {} from {} to {} ms",
                starved.tenant, starved.from_ms, starved.to_ms
            ));
        }
        findings
    }

    /// What tells it from another run.
    pub fn trace(&self) -> String {
        self.trace.to_string()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { simulated, took, attempts, requests, audit, .. } = self;
        let speed = simulated.as_secs_f64() / took.as_secs_f64().max(1e-9);
        write!(
            f,
            "{:.0} s in {:.2} s (× {speed:.0}), {} attempts, {} acknowledged, {requests} upstream, {} samples \
             acknowledged, {} stored; trace: {}",
            simulated.as_secs_f64(),
            took.as_secs_f64(),
            attempts.0,
            attempts.1,
            audit.acknowledged,
            audit.stored,
            self.trace
        )?;
        let findings = self.findings();
        findings.iter().take(FINDINGS_MAX).try_for_each(|finding| write!(f, "\n  {finding}"))?;
        match findings.len().saturating_sub(FINDINGS_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// The least and the most of what equal tenants got.
pub(super) fn spread(served: &BTreeMap<String, u64>) -> Option<(u64, u64)> {
    let least = served.values().min()?;
    Some((*least, *served.values().max()?))
}
