//! What is told of a run: for a person, and for a program.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use loadgen::audit::Audit;
use loadgen::chaos::{Liveness, Starved};
use loadgen::journal::{Entries, Journal};
use loadgen::runs::Runs;
use loadgen::send::Outcome;
use serde_json::json;

use super::stage::Stage;
use crate::command::args::ChaosArgs;
use crate::command::text::{counted, grouped, time};
use crate::command::verify::{answered_and_settled, faults, lawful, requests_as_json};

pub(super) struct Report<'a> {
    pub(super) args: &'a ChaosArgs,
    pub(super) seed: u64,
    pub(super) is_interrupted: bool,
    pub(super) elapsed: Duration,
    pub(super) audit: Audit,
    pub(super) journal: &'a Journal,
    pub(super) liveness: Liveness,
    pub(super) outcome: &'a Outcome,
    pub(super) stage: &'a Stage,
    /// What went wrong with server and upstream.
    pub(super) failures: Vec<String>,
}

/// What is done, and how to do it again.
pub(super) fn title(args: &ChaosArgs, seed: u64, senders: u32, tenants: &[String], stage: &Stage) -> String {
    format!(
        "chaos: seed {seed}, {} minutes; {}, {}; {stage}\n",
        args.minutes,
        counted(u64::from(senders), "sender"),
        counted(tenants.len() as u64, "tenant"),
    )
}

impl Report<'_> {
    /// Whether all is as it should be.
    pub(super) fn holds(&self) -> bool {
        self.audit.holds() && self.complaints().is_empty()
    }

    /// What is wrong besides what the audit finds.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.failures.clone();
        if self.audit.acknowledged == 0 {
            complaints.push("nothing was acknowledged".to_owned());
        }
        // Who is interrupted gives up what is under way.
        if self.outcome.unknown() > 0 && !self.is_interrupted && self.failures.is_empty() {
            let requests = counted(self.outcome.unknown(), "request");
            complaints.push(format!("{requests} did not come through, though all was mended"));
        }
        complaints.extend(self.liveness.starved.iter().map(starvation));
        let broken = self.stage.stored();
        if broken.broken > 0 {
            let why = broken.broken_why.unwrap_or_default();
            complaints
                .push(format!("{} came to the upstream: {why}", counted(broken.broken, "broken request")));
        }
        complaints
    }

    /// How often what happened.
    fn kinds(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for happened in &self.stage.happened {
            *kinds.entry(happened.event).or_default() += 1;
        }
        kinds
    }

    /// Samples of the requests that `which` names.
    fn samples(&self, which: impl Fn(&Entries) -> Runs) -> u64 {
        self.journal.entries().map(|(.., entries)| which(entries).count() * u64::from(entries.series)).sum()
    }

    pub(super) fn text(&self) -> String {
        let Self { outcome, audit, stage, .. } = self;
        let mut text = String::new();
        let mut line = |label: &str, value: String| text.push_str(&format!("{label:<10} {value}\n"));
        line(
            "sent",
            format!(
                "{} in {}, {} sent again",
                counted(outcome.requests, "request"),
                time(self.elapsed),
                grouped(outcome.retries())
            ),
        );
        for (label, value) in answered_and_settled(outcome) {
            line(label, value);
        }
        line("events", list(&self.kinds()));
        let restarts = stage.restarts;
        line(
            "server",
            format!(
                "{} started, {} handed over, {} killed",
                restarts.started, restarts.handed_over, restarts.killed
            ),
        );
        line(
            "samples",
            format!(
                "{} sent, {} acknowledged, {} refused, {} given up, {} stored",
                grouped(self.samples(Entries::sent)),
                grouped(audit.acknowledged),
                grouped(self.samples(|entries| entries.refused.clone())),
                grouped(self.samples(|entries| entries.unknown.clone())),
                grouped(audit.stored)
            ),
        );
        let Liveness { patience_ms, longest_ms, starved } = &self.liveness;
        line(
            "waited",
            format!(
                "{} at most, of {} that a tenant has to while its upstream is well; {}",
                time(Duration::from_millis(*longest_ms)),
                time(Duration::from_millis(*patience_ms)),
                counted(starved.len() as u64, "starvation"),
            ),
        );
        for (what, finding) in lawful(audit) {
            line("", format!("{} {what}", grouped(finding.samples)));
        }
        line("wrong", wrong(audit));
        for (label, value) in faults(audit) {
            line(label, value);
        }
        for complaint in self.complaints() {
            line("failed", complaint);
        }
        line("verdict", self.verdict());
        text
    }

    fn verdict(&self) -> String {
        let so_far = if self.is_interrupted { " (it was interrupted)" } else { "" };
        if self.holds() {
            return format!("all that was acknowledged survived, once, in order and in its place{so_far}");
        }
        format!("FAILED{so_far}; again: loadgen chaos{}", again(self.args, self.seed))
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let Self { outcome, audit, stage, .. } = self;
        json!({
            "seed": self.seed,
            "minutes": self.args.minutes,
            "interrupted": self.is_interrupted,
            "elapsed_ms": self.elapsed.as_secs_f64() * 1e3,
            "holds": self.holds(),
            "complaints": self.complaints(),
            "requests": requests_as_json(outcome),
            "statuses": outcome.statuses,
            "answers": outcome.complaints,
            "samples": {
                "sent": self.samples(Entries::sent),
                "acknowledged": audit.acknowledged,
                "refused": self.samples(|entries| entries.refused.clone()),
                "unknown": self.samples(|entries| entries.unknown.clone()),
                "stored": audit.stored,
            },
            "audit": audit,
            "liveness": self.liveness,
            "server": stage.restarts,
            "events_by_kind": self.kinds(),
            "events": stage.happened,
        })
    }
}

/// Arguments that plan the same.
fn again(args: &ChaosArgs, seed: u64) -> String {
    let mut again = format!(" --seed {seed} --minutes {}", args.minutes);
    let mut option = |name: &str, value: String| again.push_str(&format!(" --{name} {value}"));
    let value = |value: Option<PossibleValue>| value.map(|value| value.get_name().to_owned());
    if let Some(driver) = args.driver.and_then(|driver| value(driver.to_possible_value())) {
        option("driver", driver);
    }
    if let Some(server) = &args.server {
        option("server", server.display().to_string());
    }
    if let Some(theft) = args.steal.and_then(|theft| value(theft.to_possible_value())) {
        option("steal", theft);
    }
    again
}

/// What must not be, in numbers.
fn wrong(audit: &Audit) -> String {
    let found = audit.faults().map(|(name, finding)| format!("{} {name}", grouped(finding.samples)));
    format!("{}, {} damaged", found.join(", "), grouped(audit.damaged))
}

fn starvation(Starved { tenant, from_ms, to_ms }: &Starved) -> String {
    let (from, waited) =
        (Duration::from_millis(*from_ms), Duration::from_millis(to_ms.saturating_sub(*from_ms)));
    format!("{tenant} got nowhere for {} from {} on, though its upstream was well", time(waited), time(from))
}

fn list(kinds: &BTreeMap<&'static str, u64>) -> String {
    let all: Vec<String> = kinds.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
