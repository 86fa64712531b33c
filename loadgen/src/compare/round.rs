//! One round: a new sink and a newly started contender run a scenario and are measured. Then it is proven that every
//! sample arrived.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::config::{Acknowledges, Contender, Scenario};
use super::contender::Running;
use super::record_layer::{MessageCost, RecordLayer};
use super::results::{Failure, FailureKind, Round};
use super::{Stopped, TENANT_LABEL};
use crate::audit::Comparison;
use crate::child::pause;
use crate::client::Url;
use crate::fleet::Fleet;
use crate::process::TreeCost;
use crate::send::{Outcome, Percentiles, Progress, SendConfig, send};
use crate::sink::faults::{Fault, FaultScript, Rule};
use crate::sink::{Faults, Script, Sink, SinkConfig, Snapshot};
use crate::tls::Certificates;

/// Connections that a sink takes at a time: more than any contender opens.
const CONNECTIONS_MAX: usize = 8192;

/// How often the sink is looked at while a contender delivers what it has acknowledged.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);

/// About as many bytes have the head of a request and a whole answer.
const HEAD_BYTES: usize = 250;
const ANSWER_BYTES: usize = 100;

/// Tenants that a failure names.
const TENANTS_TOLD_MAX: usize = 3;

/// A contender in front of a sink, and what it is to be put through.
struct Run<'a> {
    contender: &'a Contender,
    fleet: &'a Fleet,
    url: Url,
    /// Requests per second; 0 for as many as are answered.
    rate: u32,
    running: Running,
    sink: Sink,
    stop: &'a AtomicBool,
}

/// What came of one phase of a run.
struct Phase {
    outcome: Outcome,
    /// From the first request until all that was acknowledged had arrived.
    delivered: Duration,
    upstream_requests: u64,
    /// Their bodies, as they arrived.
    upstream_bytes: u64,
    /// What the contender's processes had cost before and after it.
    cost: (TreeCost, TreeCost),
}

/// Runs one round.
pub(super) fn run(
    contender: &Contender,
    scenario: &Scenario,
    fleet: &Fleet,
    stop: &AtomicBool,
) -> Result<Round, Stopped> {
    let dir = tempfile::Builder::new().prefix("loadgen-").tempdir()?;
    let tls = contender.tls_in || contender.tls_out;
    let certificates = tls.then(|| Certificates::issue(dir.path())).transpose()?;
    let file = |name| certificates.as_ref().filter(|_| contender.tls_out).map(|files| files.path(name));
    let sink = Sink::start(SinkConfig {
        tls_cert: file("server.pem"),
        tls_key: file("server.pem.key"),
        tenant_labels: vec![TENANT_LABEL.to_owned()],
        connections_max: CONNECTIONS_MAX,
        script: latency(scenario),
        ..SinkConfig::default()
    })?;
    let client = certificates.as_ref().map(|certificates| certificates.client.clone());
    let running = Running::start(contender, sink.addr(), dir, client, stop)?;
    let url = running.push_url(contender, scenario.format)?;
    let mut run = Run { contender, fleet, url, rate: scenario.rate, running, sink, stop };
    if scenario.warm_up_seconds > 0.0 {
        run.phase(scenario.warm_up_seconds)?;
    }
    let phase = run.phase(scenario.seconds)?;
    let tls_seconds = match &certificates {
        Some(certificates) => phase.tls_seconds(contender, certificates)?,
        None => 0.0,
    };
    Ok(Round { tls_seconds, ..phase.round() })
}

/// Lets each answer of the sink take as long as the scenario says. Without latency there is no script, which would cost
/// the sink time.
fn latency(scenario: &Scenario) -> Option<Arc<dyn Script>> {
    let latency = Duration::from_millis(scenario.upstream_latency_ms.into());
    let rule = Rule {
        tenants: Vec::new(),
        from: Duration::ZERO,
        to: None,
        share: 1.0,
        fault: Fault::Latency { from: latency, to: latency },
    };
    (!latency.is_zero()).then(|| Arc::new(FaultScript::new(Faults::new(1, vec![rule]))) as Arc<dyn Script>)
}

impl Run<'_> {
    /// Sends for so long, waits until all has arrived, and proves it.
    fn phase(&mut self, seconds: f64) -> Result<Phase, Stopped> {
        let before = self.sink.snapshot();
        let cost_before = self.cost()?;
        let config = SendConfig {
            url: self.url.clone(),
            headers: self.contender.headers.clone().into_iter().collect(),
            duration: Some(Duration::from_secs_f64(seconds)),
            rate: (self.rate > 0).then(|| self.rate.into()),
            ..SendConfig::default()
        };
        let (stop, running) = (self.stop, &mut self.running);
        let outcome = send(self.fleet, &config, &Progress::default(), |progress| {
            // One that has ended answers nothing more: waiting for the time to pass would tell nothing.
            let ended = running.still_runs().is_err();
            if ended || stop.load(Ordering::Relaxed) {
                progress.stop.store(true, Ordering::Relaxed);
            }
        })?;
        self.running.still_runs()?;
        if self.stop.load(Ordering::Relaxed) {
            return Err(Stopped::Interrupted);
        }
        answered_well(&outcome)?;
        let drained = self.drain(&outcome, &before)?;
        let cost_after = self.cost()?;
        let after = self.sink.snapshot();
        self.prove(&outcome, &before, &after)?;
        Ok(Phase {
            delivered: outcome.elapsed + drained,
            outcome,
            upstream_requests: after.requests - before.requests,
            upstream_bytes: after.total().bytes - before.total().bytes,
            cost: (cost_before, cost_after),
        })
    }

    fn cost(&mut self) -> Result<TreeCost, Failure> {
        match self.running.tree().cost() {
            Ok(cost) => Ok(cost),
            Err(error) => {
                self.running.still_runs()?;
                Err(Failure { kind: FailureKind::Ends, reason: error.to_string() })
            }
        }
    }

    /// Waits until a contender that acknowledges before it delivers has delivered; tells how long that took.
    fn drain(&mut self, outcome: &Outcome, before: &Snapshot) -> Result<Duration, Stopped> {
        let begun = Instant::now();
        if self.contender.acknowledges == Acknowledges::AfterDelivery {
            return Ok(Duration::ZERO);
        }
        let wanted = before.total().stored.samples + outcome.acknowledged_tally().samples;
        // When the time is over, the proof tells what is missing.
        while self.sink.snapshot().total().stored.samples < wanted
            && begun.elapsed() < self.contender.drain_within
        {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Stopped::Interrupted);
            }
            self.running.still_runs()?;
            pause(DRAIN_INTERVAL);
        }
        Ok(begun.elapsed())
    }

    /// Holds what was acknowledged against what has arrived.
    fn prove(&self, outcome: &Outcome, before: &Snapshot, after: &Snapshot) -> Result<(), Failure> {
        let lost = |reason| Err(Failure { kind: FailureKind::LosesSamples, reason });
        if after.broken > before.broken {
            let why = after.broken_why.as_deref().unwrap_or_default();
            return lost(format!(
                "{} upstream requests could not be read: {why}",
                after.broken - before.broken
            ));
        }
        if !self.contender.splits {
            let sent = outcome.acknowledged_tally();
            let arrived = after.total().stored - before.total().stored;
            if sent == arrived {
                return Ok(());
            }
            let (sent, arrived) = (sent.samples, arrived.samples);
            return lost(format!("{sent} samples acknowledged, {arrived} arrived, or not as they were sent"));
        }
        let comparison = Comparison::new(&outcome.ledger, before, after, "");
        if comparison.is_exact() {
            return Ok(());
        }
        let wrong: Vec<_> = comparison.faults().collect();
        let told: Vec<String> = wrong.iter().take(TENANTS_TOLD_MAX).map(ToString::to_string).collect();
        let (wrong, all) = (wrong.len(), comparison.lines.len());
        lost(format!("{wrong} of {all} tenants differ: {}", told.join(", ")))
    }
}

/// A failure if any request was answered otherwise than with 2xx, or none was sent.
fn answered_well(outcome: &Outcome) -> Result<(), Failure> {
    let wrongly = |reason| Err(Failure { kind: FailureKind::AnswersWrongly, reason });
    if outcome.requests == 0 {
        return wrongly("no request was answered in time".to_owned());
    }
    if outcome.failed() == 0 {
        return Ok(());
    }
    let told: Vec<String> = outcome
        .complaints
        .iter()
        .map(|(status, complaint)| match status {
            0 => format!("no answer: {complaint}"),
            _ => format!("{status}: {complaint}"),
        })
        .collect();
    wrongly(format!("{} of {} requests failed; {}", outcome.failed(), outcome.requests, told.join("; ")))
}

impl Phase {
    /// CPU time that rustls alone needs to encrypt and decrypt as many messages of these sizes.
    fn tls_seconds(&self, contender: &Contender, certificates: &Certificates) -> io::Result<f64> {
        let mut layer = RecordLayer::new(certificates)?;
        let answer = layer.cost(ANSWER_BYTES)?;
        let mut seconds = |requests: u64, bytes: u64, cost: fn(MessageCost, MessageCost) -> Duration| {
            let each = usize::try_from(bytes / requests.max(1)).unwrap_or(usize::MAX);
            Ok::<_, io::Error>(cost(layer.cost(each + HEAD_BYTES)?, answer).as_secs_f64() * requests as f64)
        };
        let mut sum = 0.0;
        if contender.tls_in {
            sum += seconds(self.outcome.requests, self.outcome.bytes, |request, answer| {
                request.decrypt + answer.encrypt
            })?;
        }
        if contender.tls_out {
            sum += seconds(self.upstream_requests, self.upstream_bytes, |request, answer| {
                request.encrypt + answer.decrypt
            })?;
        }
        Ok(sum)
    }

    fn round(&self) -> Round {
        let Self { outcome, delivered, upstream_requests, cost: (before, after), .. } = self;
        Round {
            seconds: outcome.elapsed.as_secs_f64(),
            delivered_seconds: delivered.as_secs_f64(),
            requests: outcome.requests,
            samples: outcome.acknowledged_tally().samples,
            tenant_parts: outcome.parts,
            body_bytes: outcome.bytes,
            upstream_requests: *upstream_requests,
            cpu_seconds: after.cpu.saturating_sub(before.cpu).as_secs_f64(),
            tls_seconds: 0.0,
            resident_bytes_peak: after.resident_bytes_peak,
            latency_ms: Percentiles::new(&outcome.latency),
        }
    }
}
