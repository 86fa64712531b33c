//! What it costs the others when half of all tenants stall at the same moment, and how soon these are served again.
//!
//! Requests are small and hold few tenants: the others' hold none that falls ill, and those of the ill hold no others.
//! So whatever the others feel comes through what all share: connections, requests and bytes in flight, a core's time.
//!
//! All are well for some phases, which shows what is usual, and how far the machine itself wavers. Then half of them
//! stall, their senders retrying as Prometheus does; two seconds later the others are measured. Then the ill recover.
//! What stalled before may still hold them up for a `timeout`, and their senders pause for seconds: after that they
//! are to be served as usual.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use loadgen::child::pause;
use loadgen::fleet::{Fleet, numbered_tenants};
use loadgen::send::{Progress, RetryRules, SendConfig, send};
use loadgen::sink::faults::Fault;

use super::phase::{Phase, Usual};
use super::{Patient, beside, conclude, fleets, raise_limit, rig};
use crate::command::args::{IsolationArgs, TrialArgs};
use crate::command::report::told;
use crate::command::rig::Rig;
use crate::command::text::{Table, counted, figure, grouped};

const SERIES: usize = 20;
const TENANTS_PER_REQUEST: usize = 4;

/// How long the upstream takes.
const ANSWER: Duration = Duration::from_millis(5);

/// Enough for their rate.
const SENDERS_MIN: usize = 48;

/// The ill ones' senders, each of which has a request in flight for as long as it stalls; enough to take all that the
/// server admits.
const ILL_SENDERS_MIN: usize = 150;
const CONCURRENCY: usize = 128;

/// So long after they fell ill the others are measured.
const ONSET: Duration = Duration::from_secs(2);

/// So long after their recovery the ill are measured again, at least; and so long after the end of what still stalls.
const RECOVERY_MIN: Duration = Duration::from_secs(5);
const RECOVERY_AFTER_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn run(args: &TrialArgs, trial: &IsolationArgs) -> anyhow::Result<bool> {
    raise_limit();
    let mut out = io::stdout();
    writeln!(
        out,
        "{} of {} stall at the same moment; timeout {} s\n\
         requests of {SERIES} series: the others' {} a second, the ill ones' {}\n",
        counted(u64::from(trial.ill), "tenant"),
        trial.ill * 2,
        trial.timeout,
        trial.rate,
        trial.ill_rate,
    )?;
    let found = Ward::open(args, trial)?.observe()?;
    writeln!(out, "{found}")?;
    conclude(&found.claims())
}

/// The server, and both kinds of tenants.
struct Ward<'a> {
    trial: &'a IsolationArgs,
    rig: Rig,
    patient: Arc<Patient>,
    names: Vec<String>,
    others: Fleet,
    ill: Fleet,
}

/// All that was seen.
#[derive(Debug)]
struct Found {
    others_well: Usual,
    ill_well: Usual,
    /// The others within the first seconds after they fell ill, of which nothing is claimed.
    onset: Phase,
    others: Phase,
    others_recovering: Phase,
    others_after: Phase,
    ill_after: Phase,
    ill: usize,
    /// How many of the ill were served again within this time after their recovery.
    served: usize,
    recovery: Duration,
}

impl<'a> Ward<'a> {
    fn open(args: &TrialArgs, trial: &'a IsolationArgs) -> anyhow::Result<Self> {
        let count = usize::from(trial.ill);
        let names: Vec<String> = (0..count).map(|number| format!("ill-{number:03}")).collect();
        let patient = Patient::new("ill-*", Fault::Stall, ANSWER);
        let settings = format!("{}concurrency: {CONCURRENCY}\n", super::timeout(trial.timeout));
        let rig = rig(args, &settings, Some(Arc::clone(&patient) as _))?;
        let fleet = |tenants: &[(String, u32)], senders_min: usize, seed| {
            let groups = tenants.len().div_ceil(TENANTS_PER_REQUEST);
            fleets(tenants, TENANTS_PER_REQUEST, senders_min.div_ceil(groups), SERIES, seed)
        };
        let ill: Vec<_> = names.iter().map(|name| (name.clone(), 1)).collect();
        Ok(Self {
            trial,
            rig,
            patient,
            others: fleet(&numbered_tenants(count), SENDERS_MIN, 1)?,
            ill: fleet(&ill, ILL_SENDERS_MIN, 1_000_000)?,
            names,
        })
    }

    fn observe(self) -> anyhow::Result<Found> {
        let phase = Duration::from_secs_f64(self.trial.seconds);
        let (mut others, mut ill) = (Vec::new(), Vec::new());
        // One more to begin with, which is not counted: it opens connections and warms caches.
        for round in 0..=self.trial.rounds {
            let (of_others, of_ill) = self.all_well(phase)?;
            if round > 0 {
                others.push(of_others);
                ill.push(of_ill);
            }
        }
        let timeout = Duration::from_secs_f64(self.trial.timeout);
        let recovery = RECOVERY_MIN.max(timeout + RECOVERY_AFTER_TIMEOUT);
        let (onset, during, others_recovering, served) = self.fall_ill(phase * 2, recovery)?;
        let (others_after, ill_after) = self.all_well(phase)?;
        self.rig.server.stop()?;
        Ok(Found {
            others_well: Usual::new(&others)?,
            ill_well: Usual::new(&ill)?,
            onset,
            others: during,
            others_recovering,
            others_after,
            ill_after,
            ill: self.names.len(),
            served,
            recovery,
        })
    }

    /// Both kinds of senders for a while.
    fn all_well(&self, time: Duration) -> anyhow::Result<(Phase, Phase)> {
        let (others, ill) = beside(&self.ill, &self.sick(time)?, || self.send_others(time))?;
        Ok((others, Phase::new(&ill)))
    }

    /// Has the ill stall for this time after the onset, and waits until they have recovered: the others' phases, and
    /// how many of the ill were served again.
    fn fall_ill(&self, time: Duration, recovery: Duration) -> anyhow::Result<(Phase, Phase, Phase, usize)> {
        let sick = self.sick((ONSET + time + recovery) * 2)?;
        let (found, _) = beside(&self.ill, &sick, || {
            self.patient.is(true);
            let (others, onset) = beside(&self.others, &self.healthy(ONSET)?, || {
                pause(ONSET);
                self.send_others(time)
            })?;
            self.patient.is(false);
            let (served, recovering) =
                beside(&self.others, &self.healthy(recovery)?, || Ok(self.served_within(recovery)))?;
            Ok((Phase::new(&onset), others, Phase::new(&recovering), served))
        })?;
        Ok(found)
    }

    fn healthy(&self, time: Duration) -> anyhow::Result<SendConfig> {
        Ok(SendConfig { rate: Some(self.trial.rate), ..self.rig.sending(time)? })
    }

    fn sick(&self, time: Duration) -> anyhow::Result<SendConfig> {
        let retry = Some(RetryRules::prometheus(true));
        Ok(SendConfig { rate: Some(self.trial.ill_rate), retry, ..self.rig.sending(time)? })
    }

    fn send_others(&self, time: Duration) -> anyhow::Result<Phase> {
        let begun = Instant::now();
        // What a bad server leaves undone is not worked off for minutes.
        let end = time + Duration::from_secs_f64(self.trial.timeout) * 2;
        let stop_late = |progress: &Progress| {
            if begun.elapsed() > end {
                progress.stop.store(true, Ordering::Relaxed);
            }
        };
        Ok(Phase::new(&send(&self.others, &self.healthy(time)?, &Progress::default(), stop_late)?))
    }

    /// Waits for so long; tells of how many of the ill something was stored meanwhile.
    fn served_within(&self, time: Duration) -> usize {
        let before = self.rig.sink.snapshot();
        pause(time);
        let after = self.rig.sink.snapshot();
        let is_served = |name: &&String| after.tenant(name).stored.series > before.tenant(name).stored.series;
        self.names.iter().filter(is_served).count()
    }
}

impl Found {
    fn claims(&self) -> [(bool, &'static str); 3] {
        let Self { others, others_recovering, others_after, .. } = self;
        let refused = others.refused + others_recovering.refused + others_after.refused;
        let all_served = self.served == self.ill && self.ill_after.refused == 0;
        [
            (
                self.others_well.holds_for(others),
                "two seconds after, the others' p99 is within twice its usual, or the machine's own wavering",
            ),
            (refused == 0, "none of the others' requests is refused"),
            (
                all_served && self.ill_well.holds_for(&self.ill_after),
                "the ill are served again within seconds of their recovery, and then as before",
            ),
        ]
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["", "p50 ms", "p99 ms", "refused"]);
        for (who, usual) in
            [("the others, all well", &self.others_well), ("the ill, all well", &self.ill_well)]
        {
            table.row([
                who.to_owned(),
                figure(usual.p50_ms.median),
                told(usual.p99_ms),
                grouped(usual.refused),
            ]);
        }
        for (who, phase) in [
            ("the others, as the ill fall ill", self.onset),
            ("the others, from 2 s after that on", self.others),
            ("the others, as the ill recover", self.others_recovering),
            ("the others, afterwards", self.others_after),
            ("the ill, afterwards", self.ill_after),
        ] {
            table.row([who.to_owned(), figure(phase.p50_ms), figure(phase.p99_ms), grouped(phase.refused)]);
        }
        let recovery = self.recovery.as_secs_f64();
        write!(f, "{table}served again within {recovery:.0} s: {} of {}", self.served, self.ill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(p99_ms: f64, refused: u64) -> Phase {
        Phase { p50_ms: 6.0, p99_ms, refused }
    }

    /// An epidemic that costs the others nothing, but for one change.
    fn claims(change: impl FnOnce(&mut Found)) -> [bool; 3] {
        let usual = || Usual::new(&[phase(8.0, 0), phase(10.0, 0), phase(25.0, 0)]).unwrap();
        let mut found = Found {
            others_well: usual(),
            ill_well: usual(),
            onset: phase(2000.0, 30),
            others: phase(11.0, 0),
            others_recovering: phase(500.0, 0),
            ill: 2,
            served: 2,
            recovery: Duration::from_secs(5),
            others_after: phase(9.0, 0),
            ill_after: phase(25.0, 0),
        };
        change(&mut found);
        found.claims().map(|(holds, _)| holds)
    }

    #[test]
    fn each_claim_fails_by_its_own_fault() {
        assert_eq!(claims(|_| {}), [true; 3], "of the onset nothing is claimed");
        assert_eq!(claims(|found| found.others.p99_ms = 25.1), [false, true, true]);
        assert_eq!(claims(|found| found.others.refused = 1), [true, false, true]);
        assert_eq!(claims(|found| found.others_recovering.refused = 1), [true, false, true]);
        assert_eq!(claims(|found| found.served = 1), [true, true, false]);
        assert_eq!(claims(|found| found.ill_after.p99_ms = 25.1), [true, true, false]);
        assert_eq!(claims(|found| found.ill_after.refused = 1), [true, true, false]);
    }
}
