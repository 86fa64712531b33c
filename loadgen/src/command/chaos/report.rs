//! The report of a chaos run, as text and as JSON.

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use loadgen::audit::Audit;
use loadgen::chaos::{Liveness, Starved};
use loadgen::journal::{Entries, Journal};
use loadgen::runs::Runs;
use loadgen::send::Outcome;
use serde_json::json;

use super::rig::ChaosRig;
use crate::command::args::ChaosArgs;
use crate::command::text::{self, counted, grouped, listed, time};
use crate::command::verify::{faults, lawful, settled};

pub(super) struct Report<'a> {
    pub(super) args: &'a ChaosArgs,
    pub(super) seed: u64,
    pub(super) is_interrupted: bool,
    pub(super) elapsed: Duration,
    pub(super) audit: Audit,
    pub(super) journal: &'a Journal,
    pub(super) liveness: Liveness,
    pub(super) outcome: &'a Outcome,
    pub(super) rig: &'a ChaosRig,
    /// What went wrong with server and upstream.
    pub(super) failures: Vec<String>,
}

/// What is done, and how to do it again.
pub(super) fn title(args: &ChaosArgs, seed: u64, senders: u32, tenants: &[String], rig: &ChaosRig) -> String {
    format!(
        "chaos: seed {seed}, {} minutes; {}, {}; {rig}\n",
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
        // A run that is interrupted gives up what is under way.
        if self.outcome.unknown() > 0 && !self.is_interrupted && self.failures.is_empty() {
            let requests = counted(self.outcome.unknown(), "request");
            complaints.push(format!("{requests} did not come through, though all was mended"));
        }
        complaints.extend(self.liveness.starved.iter().map(starvation));
        let broken = self.rig.sink.snapshot();
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
        for happened in &self.rig.happened {
            *kinds.entry(happened.event).or_default() += 1;
        }
        kinds
    }

    /// What became of all samples.
    fn samples(&self) -> [(u64, &'static str); 5] {
        let of = |which: fn(&Entries) -> Runs| {
            let samples = |entries: &Entries| which(entries).count() * u64::from(entries.series);
            self.journal.entries().map(|(.., entries)| samples(entries)).sum()
        };
        [
            (of(Entries::sent), "sent"),
            (self.audit.acknowledged, "acknowledged"),
            (of(|entries| entries.refused.clone()), "refused"),
            (of(|entries| entries.unknown.clone()), "given up"),
            (self.audit.stored, "stored"),
        ]
    }

    pub(super) fn text(&self) -> text::Report {
        let Self { outcome, audit, .. } = self;
        let mut report = text::Report::default();
        let requests = counted(outcome.requests, "request");
        report.line("sent", format_args!("{requests} in {}", time(self.elapsed)));
        settled(&mut report, outcome);
        report.line("events", list(&self.kinds()));
        report.line(
            "profiles",
            format_args!("{} taken meanwhile", counted(self.rig.profiles.taken(), "profile")),
        );
        report.line("samples", listed(self.samples()));
        if self.args.spool {
            let spool = &self.rig.spool_use;
            let [parts, refused, commits] = [spool.parts, spool.refused, spool.commits].map(grouped);
            let (ms, failed) = (spool.commit_ms(), grouped(spool.commits_failed));
            report.line("spool", format_args!(
                "{parts} parts spooled, {refused} refused; {commits} commits of {ms:.1} ms, {failed} failed"
            ));
        }
        let Liveness { patience_ms, longest_ms, starved, .. } = &self.liveness;
        let [longest, patience] = [*longest_ms, *patience_ms].map(|ms| time(Duration::from_millis(ms)));
        let starved = counted(starved.len() as u64, "starvation");
        let rule = format!("of {patience} that a tenant has to while its upstream is well");
        report.line("waited", format_args!("{longest} at most, {rule}; {starved}"));
        for (what, finding) in lawful(audit) {
            report.line("", format_args!("{} {what}", grouped(finding.samples)));
        }
        faults(audit).into_iter().for_each(|(label, value)| report.line(label, value));
        self.complaints().iter().for_each(|complaint| report.line("failed", complaint));
        report.line("verdict", self.verdict());
        report
    }

    fn verdict(&self) -> String {
        let so_far = if self.is_interrupted { " (it was interrupted)" } else { "" };
        if self.holds() {
            let often = if self.args.spool { "at least once" } else { "once" };
            return format!("all that was acknowledged survived, {often}, in order and in its place{so_far}");
        }
        let typed: Vec<String> = env::args().skip(1).collect();
        let seed = self.args.seed.map_or_else(|| format!(" --seed {}", self.seed), |_| String::new());
        format!("FAILED{so_far}; again: loadgen {}{seed}", typed.join(" "))
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let Self { outcome, audit, rig, .. } = self;
        json!({
            "seed": self.seed,
            "minutes": self.args.minutes,
            "interrupted": self.is_interrupted,
            "elapsed_ms": self.elapsed.as_secs_f64() * 1e3,
            "holds": self.holds(),
            "complaints": self.complaints(),
            "profiles": rig.profiles.taken(),
            "requests": {
                "settled": outcome.requests,
                "attempts": outcome.attempts(),
                "acknowledged": outcome.acknowledged(),
                "refused": outcome.refused,
                "unknown": outcome.unknown(),
            },
            "statuses": outcome.statuses,
            "answers": outcome.complaints,
            "samples": self.samples().map(|(count, name)| (name, count)).into_iter().collect::<BTreeMap<_, _>>(),
            "audit": audit,
            "spool": self.args.spool.then_some(&rig.spool_use),
            "liveness": self.liveness,
            "events_by_kind": self.kinds(),
            "events": rig.happened,
        })
    }
}

fn starvation(Starved { tenant, destination, from_ms, to_ms }: &Starved) -> String {
    let (from, waited) =
        (Duration::from_millis(*from_ms), Duration::from_millis(to_ms.saturating_sub(*from_ms)));
    let (waited, from) = (time(waited), time(from));
    format!("{tenant} got nowhere at {destination} for {waited} from {from} on, though its upstream was well")
}

fn list(kinds: &BTreeMap<&'static str, u64>) -> String {
    let all: Vec<String> = kinds.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
