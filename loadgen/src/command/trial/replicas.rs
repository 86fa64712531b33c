//! Whether replicas behind a load balancer can be killed, drained and rolled while senders push.
//!
//! Three servers that share nothing but their upstream stand behind HAProxy, with the configuration that is shipped.
//! Senders push through it and retry as Prometheus does. Each phase has senders of its own, so that its failures are
//! known. Only a kill may fail requests. In the end every acknowledged sample must be stored once, and in its place.

mod balancer;

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use loadgen::audit::Audit;
use loadgen::child::pause;
use loadgen::client::Url;
use loadgen::fleet::{now_ms, numbered_tenants};
use loadgen::journal::Journal;
use loadgen::send::{Outcome, Progress, RetryRules, SendConfig};
use loadgen::sink::Sink;
use loadgen::sink::faults::Fault;
use loadgen::stamped::{StampedConfig, send};
use tempfile::TempDir;

use super::{END_PATIENCE, Patient, conclude};
use crate::command::args::TrialArgs;
use crate::command::rig::{RigConfig, TENANT_LABEL};
use crate::command::server::{Server, Setup};
use crate::command::text::{Report, counted, grouped, listed, time};
use crate::command::verify::{faults, lawful};
use balancer::{Balancer, REPLICAS};

const TENANTS: usize = 6;
const SENDERS: u32 = 16;

/// From one request of a sender to its next.
const INTERVAL: Duration = Duration::from_millis(20);

/// How long the upstream takes: at any time, most senders have a request on its way.
const UPSTREAM_TAKES: Duration = Duration::from_millis(15);

/// How long a replica says that it leaves before it does. The balancer needs half of it to notice.
const NOTICE: &str = "timeout_shutdown: 2500ms\n";

/// The longest pause of a sender, and so how long after a failure all is repeated.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long a killed replica is missing.
const MISSING: Duration = Duration::from_millis(1500);

/// How long senders push when all is well again, at least.
const CALM: Duration = Duration::from_millis(1500);

/// What a phase may take at most. Its senders then stop.
const PHASE_MAX: Duration = Duration::from_secs(120);

/// The least share of the requests that a replica serves once it is back, with three of them.
const SHARE_MIN: f64 = 0.2;

/// What happens in a phase, and what it may cost.
struct Phase {
    name: &'static str,
    /// Whether requests may fail, and be repeated.
    may_fail: bool,
    work: fn(&mut Cluster) -> anyhow::Result<()>,
}

static PHASES: [Phase; 4] = [
    Phase { name: "SIGKILL one", may_fail: true, work: |cluster| cluster.replace(0, Cluster::kill) },
    Phase { name: "SIGTERM one", may_fail: false, work: |cluster| cluster.replace(1, Cluster::drain) },
    Phase { name: "roll all", may_fail: false, work: Cluster::roll },
    Phase { name: "SIGHUP all", may_fail: false, work: Cluster::reload },
];

/// What came of a phase.
struct Played {
    phase: &'static Phase,
    outcome: Outcome,
    /// Requests that each replica was sent.
    served: [u64; REPLICAS],
}

impl Played {
    /// Whether no attempt failed.
    fn is_clean(&self) -> bool {
        self.outcome.requests > 0 && self.outcome.attempts() == self.outcome.acknowledged()
    }

    /// The least share of a replica.
    fn least_share(&self) -> f64 {
        let all: u64 = self.served.iter().sum();
        self.served.iter().min().map_or(0.0, |&least| least as f64 / all.max(1) as f64)
    }
}

pub(super) fn run(args: &TrialArgs) -> anyhow::Result<bool> {
    ensure!(!args.server.tls, "the shipped configuration of HAProxy speaks plain HTTP: leave --tls off");
    let mut cluster = Cluster::start(args)?;
    let mut journal = Journal::default();
    let mut played = Vec::new();
    // Each phase is a run of its own: no two senders may be the same.
    for (phase, run) in PHASES.iter().zip(u64::try_from(now_ms()).unwrap_or_default()..) {
        let (noted, of_phase) = cluster.play(phase, run).with_context(|| phase.name.to_owned())?;
        journal.merge(noted);
        write!(io::stdout(), "{}", told(&of_phase))?;
        played.push(of_phase);
    }
    let audit = cluster.end(&journal)?;
    write!(io::stdout(), "{}", told_of_all(&audit))?;
    let all = |holds: &dyn Fn(&Played) -> bool| played.iter().all(holds);
    conclude(&[
        (
            audit.holds() && audit.acknowledged > 0,
            "every acknowledged sample is stored: none is lost, duplicated, misplaced or reordered",
        ),
        (
            all(&|it| it.phase.may_fail || it.is_clean()),
            "while replicas drain, roll and reload, no request fails",
        ),
        (
            all(&|it| it.outcome.failed() == 0),
            "what a killed replica fails is acknowledged when it is sent again",
        ),
        (
            played.last().is_some_and(|last| last.least_share() >= SHARE_MIN),
            "replicas that were started again serve their share, over the connections that were there before",
        ),
    ])
}

fn told(played: &Played) -> Report {
    let Played { phase, outcome, served } = played;
    let mut report = Report::default();
    let (requests, elapsed) = (counted(outcome.requests, "request"), time(outcome.elapsed));
    report
        .line(phase.name, format_args!("{requests} in {elapsed}, {} sent again", grouped(outcome.retries())));
    report.answers(&outcome.statuses, &outcome.complaints);
    report.line("by replica", served.map(grouped).join(", "));
    report
}

fn told_of_all(audit: &Audit) -> Report {
    let mut report = Report::default();
    let counts = [
        (audit.acknowledged, "acknowledged"),
        (audit.stored, "stored"),
        (audit.lost.samples, "lost"),
        (audit.misplaced.samples, "misplaced"),
    ];
    report.line("samples", listed(counts));
    for (what, finding) in lawful(audit) {
        report.line("", format_args!("{} {what}", grouped(finding.samples)));
    }
    faults(audit).into_iter().for_each(|(label, value)| report.line(label, value));
    report
}

/// The replicas, what is before them and behind them.
struct Cluster {
    setups: Vec<Setup>,
    servers: Vec<Option<Server>>,
    balancer: Balancer,
    sink: Sink,
    _dir: TempDir,
}

impl Cluster {
    fn start(args: &TrialArgs) -> anyhow::Result<Self> {
        let config = RigConfig {
            server: args.server.clone(),
            settings: NOTICE.to_owned(),
            // It never falls ill; it only takes its time.
            script: Some(Patient::new("", Fault::Stall, UPSTREAM_TAKES)),
            full_account: true,
            end_patience: END_PATIENCE,
            ..RigConfig::default()
        };
        let (first, sink, dir) = config.prepare()?;
        let setups = (0..REPLICAS).map(|at| replica(&first, args, at)).collect::<anyhow::Result<Vec<_>>>()?;
        let servers = setups.iter().map(|setup| Server::start(setup).map(Some)).collect::<Result<_, _>>()?;
        let addresses: Vec<_> = setups.iter().map(|setup| setup.listen).collect();
        let balancer = Balancer::start(dir.path(), &addresses)?;
        writeln!(
            io::stdout(),
            "{REPLICAS} replicas behind HAProxy at {}, {SENDERS} senders at a time, {TENANTS} tenants",
            balancer.addr()
        )?;
        Ok(Self { setups, servers, balancer, sink, _dir: dir })
    }

    /// Has senders push while the phase's work is done, and until all that it failed is repeated.
    fn play(&mut self, phase: &'static Phase, run: u64) -> anyhow::Result<(Journal, Played)> {
        let config = sending(&self.balancer.push_url()?);
        let progress = &Progress::default();
        let before = self.balancer.served()?;
        let (done, sent) = thread::scope(|scope| {
            let sending = scope.spawn(|| send(&config, run, SENDERS, progress, |_| {}));
            pause(CALM / 2);
            let done = (phase.work)(self);
            pause(CALM);
            progress.stop.store(true, Ordering::Relaxed);
            (done, sending.join())
        });
        let (journal, outcome) = sent.map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        done?;
        let after = self.balancer.served()?;
        let served = std::array::from_fn(|at| after[at].saturating_sub(before[at]));
        Ok((journal, Played { phase, outcome, served }))
    }

    /// Ends a replica in some way, starts it again at the same address, and waits until the balancer uses it.
    fn replace(&mut self, at: usize, end: fn(Server) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (server, setup) = self.servers.get_mut(at).zip(self.setups.get(at)).context("no such replica")?;
        end(server.take().context("it runs no longer")?)?;
        *server = Some(Server::start(setup)?);
        self.balancer.wait_until_all_are_up()
    }

    fn kill(mut server: Server) -> anyhow::Result<()> {
        server.kill()?;
        pause(MISSING);
        Ok(())
    }

    fn drain(server: Server) -> anyhow::Result<()> {
        let ended = server.stop()?;
        ensure!(ended.success(), "a replica was asked to end and ended with {ended}");
        Ok(())
    }

    fn roll(&mut self) -> anyhow::Result<()> {
        (0..REPLICAS).try_for_each(|at| self.replace(at, Self::drain))
    }

    fn reload(&mut self) -> anyhow::Result<()> {
        for (server, setup) in self.servers.iter_mut().flatten().zip(&self.setups) {
            server.reload(&format!("{}merge: {{fragments_max: 8}}\n", setup.settings))?;
        }
        Ok(())
    }

    /// Ends all in order, and compares what was sent with what was stored.
    fn end(mut self, journal: &Journal) -> anyhow::Result<Audit> {
        for server in self.servers.drain(..) {
            let Some(server) = server else { bail!("a replica was not started again") };
            Self::drain(server)?;
        }
        let account = self.sink.account().context("the sink keeps no account")?;
        Ok(Audit::new(journal, &account, ""))
    }
}

/// A setup like the first, with address and files of its own. Unless one driver is asked for, they take turns.
fn replica(first: &Setup, args: &TrialArgs, at: usize) -> anyhow::Result<Setup> {
    let dir = first.dir.join(format!("replica-{}", at + 1));
    std::fs::create_dir(&dir)?;
    let turn = if at.is_multiple_of(2) { "auto" } else { "epoll" };
    let driver = if args.server.driver.is_some() { String::new() } else { format!("driver: {turn}\n") };
    let settings = format!("{driver}{}", first.settings);
    Ok(Setup { listen: loadgen::port::free_addr()?, dir, settings, ..first.clone() })
}

fn sending(url: &Url) -> StampedConfig {
    let retry = RetryRules { backoff_max: BACKOFF_MAX, ..RetryRules::prometheus(true) };
    StampedConfig {
        send: SendConfig {
            url: url.clone(),
            duration: Some(PHASE_MAX),
            retry: Some(retry),
            ..SendConfig::default()
        },
        tenants: numbered_tenants(TENANTS).into_iter().map(|(name, _)| name).collect(),
        tenant_label: TENANT_LABEL.to_owned(),
        tenants_per_request: Some(3),
        series: 4,
        interval: INTERVAL,
        ..StampedConfig::default()
    }
}
