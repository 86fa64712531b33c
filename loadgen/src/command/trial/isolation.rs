//! What one tenant's trouble costs the others: the p99 of requests that have nothing of it, with and without.
//!
//! Nine tenants' senders keep a moderate rate, and a tenth's own senders another, in phases by turns: the tenth is
//! well, the tenth is ill. Latency counts from when a request should have left. A phase's p99 is compared with that of
//! the phase before it, of the same minute and the same neighbours; the median of these ratios is what is told. The
//! machine itself wavers, which the phases show in which all are well: what is no worse than the worst of these proves
//! nothing.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use loadgen::child::pause;
use loadgen::compare::Spread;
use loadgen::fleet::{Fleet, numbered_tenants};
use loadgen::send::{RetryRules, SendConfig};
use loadgen::sink::faults::{Fault, ResetAt};

use super::phase::{Phase, Usual, spread};
use super::{Patient, beside, conclude, fleet, rig, timeout};
use crate::command::args::{IsolationArgs, TrialArgs};
use crate::command::report::told;
use crate::command::rig::send_all;
use crate::command::text::figure;

const ILL: &str = "ill";
const SENDERS: usize = 8;

/// A request takes so many times as long at most, at its p99.
const RATIO_MAX: f64 = 1.10;

/// So long the ill one has been ill when measuring begins.
const LEAD: Duration = Duration::from_millis(500);

fn illnesses() -> Vec<(&'static str, Fault)> {
    let status = |code, name: &str, value: &str| Fault::Status {
        code,
        headers: vec![(name.to_owned(), value.to_owned())],
        body: "not now".to_owned(),
    };
    vec![
        ("stall", Fault::Stall),
        ("500", status(500, "X-Why", "ill")),
        ("429", status(429, "Retry-After", "1")),
        ("reset", Fault::Reset(ResetAt::BeforeReply)),
        // A connection can't be refused for one tenant of an address; it is reset as soon as its head says whose it is.
        ("refused", Fault::Reset(ResetAt::BeforeBody)),
    ]
}

pub(super) fn run(args: &TrialArgs, trial: &IsolationArgs) -> anyhow::Result<bool> {
    let mut out = io::stdout();
    writeln!(
        out,
        "the others' requests: {} a second of 200 series, 9 tenants; the ill one's: {} a second\n\n\
         {:8} {:>32} {:>32} {:>24}",
        trial.rate, trial.ill_rate, "", "all well: p50, p99 ms", "one ill: p50, p99 ms", "p99, ill to well",
    )?;
    let mut holds = true;
    for (name, fault) in illnesses() {
        let Found { well, ill, ratio } = measure(args, trial, fault)?;
        holds &= ratio.median <= RATIO_MAX || ill.p99_ms.median <= well.p99_ms.max;
        let phases = |usual: Usual| format!("{}, {}", figure(usual.p50_ms.median), told(usual.p99_ms));
        writeln!(out, "{name:8} {:>32} {:>32} {:>24}", phases(well), phases(ill), told(ratio))?;
    }
    conclude(&[(
        holds,
        "one tenant's trouble leaves the others' p99 within 10 %, or within the machine's own wavering",
    )])
}

/// The phases in which all are well, and those in which one is ill.
struct Found {
    well: Usual,
    ill: Usual,
    ratio: Spread,
}

fn measure(args: &TrialArgs, trial: &IsolationArgs, fault: Fault) -> anyhow::Result<Found> {
    let patient = Patient::new(ILL, fault, Duration::ZERO);
    let rig = rig(args, &timeout(trial.timeout), Some(Arc::clone(&patient) as _))?;
    let phase = Duration::from_secs_f64(trial.seconds);
    let others = fleet(numbered_tenants(9), SENDERS, 200, 1)?;
    let ill = fleet(vec![(ILL.to_owned(), 1)], SENDERS, 200, 2)?;
    let healthy = SendConfig { rate: Some(trial.rate), ..rig.sending(phase)? };
    let sick = SendConfig {
        rate: Some(trial.ill_rate),
        retry: Some(RetryRules::prometheus(true)),
        ..rig.sending(LEAD + phase + Duration::from_secs(60))?
    };
    let (mut of_well, mut of_ill) = (Vec::new(), Vec::new());
    // One more to begin with, which is not counted: it opens connections and warms caches.
    for round in 0..=trial.rounds {
        for (is_ill, phases) in [(false, &mut of_well), (true, &mut of_ill)] {
            patient.is(is_ill);
            let (measured, _) = beside(&ill, &sick, || {
                pause(LEAD);
                answered(&others, &healthy)
            })?;
            patient.is(false);
            if round > 0 {
                phases.push(measured);
            }
        }
    }
    rig.server.stop()?;
    let ratio = spread(of_well.iter().zip(&of_ill).map(|(well, ill)| ill.p99_ms / well.p99_ms))?;
    Ok(Found { well: Usual::new(&of_well)?, ill: Usual::new(&of_ill)?, ratio })
}

/// A phase in which nothing may fail.
fn answered(fleet: &Fleet, config: &SendConfig) -> anyhow::Result<Phase> {
    let outcome = send_all(fleet, config)?;
    let (failed, statuses) = (outcome.failed(), &outcome.statuses);
    let complaints = &outcome.complaints;
    anyhow::ensure!(failed == 0, "{failed} of the others' requests failed: {statuses:?} {complaints:?}");
    Ok(Phase::new(&outcome))
}
