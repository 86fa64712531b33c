//! What a failing tenant costs the other tenants of its requests: samples that are sent again though they were stored.
//!
//! Requests hold ten tenants, and one of them fails for a while. Senders repeat whole requests, as Prometheus does.
//! Every sample that was acknowledged in the end must be stored. Whatever else of the other nine is stored was sent in
//! vain.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadgen::fleet::{Fleet, FleetConfig, numbered_tenants};
use loadgen::send::{Progress, RetryRules, SendConfig, send};
use loadgen::sink::faults::Fault;

use super::{Patient, conclude, rig};
use crate::command::args::{LengthArgs, TrialArgs};
use crate::command::rig::fleet_config;
use crate::command::text::{counted, grouped, ratio};

const SENDERS: usize = 32;
const BODIES: usize = 100;
const TENANTS: usize = 10;

/// The share of what the healthy tenants were sent that may be sent again.
const GROWTH_MAX: f64 = 0.01;

/// After the trouble: more than Prometheus' longest pause between two attempts.
const AFTER: Duration = Duration::from_secs(8);

pub(super) fn run(args: &TrialArgs, trial: &LengthArgs) -> anyhow::Result<bool> {
    let tenants = numbered_tenants(TENANTS);
    let ill = tenants.last().map(|(name, _)| name.clone()).unwrap_or_default();
    let fault = Fault::Status { code: 500, headers: Vec::new(), body: "not now".to_owned() };
    let patient = Patient::new(&ill, fault, Duration::ZERO);
    let rig = rig(args, "", Some(Arc::clone(&patient) as _))?;
    let fleet = Fleet::build(&FleetConfig {
        senders: SENDERS,
        bodies_per_sender: BODIES,
        series: 200,
        run_length: 5,
        ..fleet_config(tenants)
    })?;
    let trouble = Duration::from_secs_f64(trial.seconds);
    let config = SendConfig {
        retry: Some(RetryRules::prometheus(true)),
        // The same body sent anew would be taken for a retry: none comes twice.
        requests: Some((SENDERS * BODIES / 2) as u64),
        ..rig.sending(trouble + AFTER)?
    };
    patient.is(true);
    let begun = Instant::now();
    let outcome = send(&fleet, &config, &Progress::default(), |_| {
        if begun.elapsed() >= trouble {
            patient.is(false);
        }
    })?;
    rig.server.stop()?;
    let counts = rig.sink.stop();
    let (mut acknowledged, mut stored) = (0, 0);
    for (tenant, entry) in outcome.ledger.iter().filter(|(tenant, _)| **tenant != ill) {
        acknowledged += entry.acknowledged.samples;
        stored += counts.tenant(tenant).stored.samples;
    }
    let growth = ratio(stored.saturating_sub(acknowledged), acknowledged);
    let mut out = io::stdout();
    writeln!(
        out,
        "{} of {TENANTS} tenants each from {SENDERS} senders in {:.0} s; {ill} fails for the first {:.0} s\n\
         sent        {}, most of them the {} that met the failure, again and again\n\
         acknowledged {} samples of the other {}, stored {}: {:.3} % were sent for nothing",
        counted(outcome.requests, "request"),
        outcome.elapsed.as_secs_f64(),
        trial.seconds,
        counted(outcome.attempts(), "attempt"),
        counted(SENDERS as u64, "request"),
        grouped(acknowledged),
        TENANTS - 1,
        grouped(stored),
        growth * 100.0,
    )?;
    let all_came = outcome.failed() == 0 && stored >= acknowledged;
    anyhow::ensure!(all_came, "requests failed for good: {:?} {:?}", outcome.statuses, outcome.complaints);
    conclude(&[(
        growth < GROWTH_MAX,
        "with one of ten tenants failing, less than 1 % more is sent for the other nine",
    )])
}
