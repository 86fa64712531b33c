//! Plays a scenario, life by life.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::time::{sleep, sleep_until};
use monoio::{LegacyDriver, RuntimeBuilder};
use tenantry::metrics::ledger::Auditor;

use super::scenario::{Crowd, Kind, SERVER, Scenario};
use super::sender::{self, Habits, Sender};
use super::server::{self, Server, SlowDisk};
use super::upstream::{Sent, Upstream};
use super::verdict::{Verdict, spread};
use super::world::{self, World};
use super::{calls, scenario};
use crate::audit::Audit;
use crate::chaos::{Event, FaultyUpstream, Liveness, Planned, Tuning, excuses};
use crate::client::Url;
use crate::journal::Journal;
use crate::random::Random;
use crate::send::{RetryRules, SendConfig};
use crate::stamp::SenderId;
use crate::stamped::{StampedConfig, Stamps};

/// How long a request is sent again. Calms come far more often.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// The longest pause of a sender.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long something of a tenant may wait while its upstream is well: two of the server's timeouts, and a pause of the
/// sender.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// The same with a spool: its longest pause between two tries, and then some.
const SPOOL_PATIENCE: Duration = Duration::from_secs(45);

/// How long all may take to settle when nothing goes wrong any more.
const SETTLE_MAX: Duration = Duration::from_secs(600);

/// After how long a server is started again that could not start.
const RESTART: Duration = Duration::from_secs(1);

/// How often it is looked whether all has settled.
const LOOK: Duration = Duration::from_millis(100);

/// Of what the busiest of equal tenants got in a crowd, the one with the least must get this part.
const FAIR_SHARE: f64 = 0.5;

/// What goes on from life to life.
struct Stage {
    scenario: Scenario,
    begun: Instant,
    tuning: Tuning,
    upstream: Rc<Upstream>,
    disk: Rc<SlowDisk>,
    senders: Vec<Rc<RefCell<Sender>>>,
    events: VecDeque<Planned>,
    /// When each event that has happened was over, after the start.
    over: Vec<Duration>,
    failures: Vec<String>,
    random: Random,
    /// Whether there is to be a server.
    is_up: bool,
    /// How often a server began or ceased to end.
    disturbances: Rc<Cell<u64>>,
    /// Those that were open before the first life.
    descriptors: BTreeSet<i32>,
}

/// How a life ends.
enum End {
    /// The server is killed.
    Killed,
    /// All is done.
    Done,
}

/// Plays a scenario. `shows` has each event printed.
pub fn play(scenario: &Scenario, shows: bool) -> Verdict {
    let real = Instant::now();
    calls::link();
    World::begin(scenario.seed, shows);
    let mut stage = Stage::new(scenario.clone());
    loop {
        match stage.live() {
            Ok(End::Killed) => stage.bury(),
            Ok(End::Done) => break,
            Err(failure) => {
                stage.failures.push(failure);
                break;
            }
        }
    }
    let simulated = world::now();
    let verdict = stage.judge(simulated);
    let trace = World::end().map(|world| world.trace).unwrap_or_default();
    Verdict { took: real.elapsed(), trace, ..verdict }
}

impl Stage {
    fn new(scenario: Scenario) -> Self {
        // Thefts are last, so that they strike what is well otherwise.
        let rules = [scenario.plan.rules(), scenario.thefts.clone()].concat();
        let script = FaultyUpstream::new(scenario.seed, rules);
        let series = runs(&scenario).map(|(run, crowd)| (run, crowd.series as usize)).collect();
        let upstream = Rc::new(Upstream::new(script, &scenario.tenants, series));
        let disk = Rc::new(SlowDisk::default());
        if let Some(capacity) = scenario.spool.as_ref().and_then(|spool| spool.capacity) {
            disk.disk.limit(capacity);
        }
        let disturbances = Rc::new(Cell::new(0));
        let senders = senders(&scenario, &upstream, &disturbances);
        upstream.script.begin();
        Self {
            begun: Instant::now(),
            tuning: scenario.tuning,
            events: scenario.plan.events.iter().cloned().collect(),
            random: Random::new(scenario.seed, 0x57a6e),
            senders,
            upstream,
            disk,
            over: Vec::new(),
            failures: Vec::new(),
            is_up: true,
            disturbances,
            descriptors: calls::descriptors(),
            scenario,
        }
    }

    /// Lives until the server is killed, or all is done.
    fn live(&mut self) -> Result<End, String> {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().with_entries(1_024).enable_timer().build();
        let mut runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(self.life())
    }

    async fn life(&mut self) -> Result<End, String> {
        for address in &self.scenario.upstream {
            self.upstream.listen(*address).map_err(|error| format!("{address}: {error}"))?;
        }
        let mut server = if self.is_up { Some(self.start().await?) } else { None };
        for sender in &self.senders {
            drop(monoio::spawn(sender::run(Rc::clone(sender))));
        }
        while let Some(planned) = self.events.pop_front() {
            sleep_until((self.begun + planned.at).into()).await;
            world::trace(format_args!("{}  {}", planned.event.name(), planned.event));
            let is_kill = planned.event == Event::Kill;
            self.happen(planned.event, &mut server).await?;
            self.over.push(self.begun.elapsed());
            if is_kill {
                return Ok(End::Killed);
            }
        }
        let end = self.begun + self.scenario.length;
        sleep_until(end.into()).await;
        self.settle(server).await?;
        Ok(End::Done)
    }

    /// Starts a server. One whose disk fails refuses to start, and is started again.
    async fn start(&self) -> Result<Server, String> {
        let plan = server::plan(&self.scenario.settings(&self.tuning))?;
        let start =
            |plan| Server::start(plan, self.scenario.cores, SERVER, &self.scenario.upstream, &self.disk);
        match start(plan.clone()) {
            Err(failure) if self.disk.fails.get() => {
                world::trace(format_args!("no start: {failure}"));
                self.disk.disk.heal();
                sleep(RESTART).await;
                start(plan)
            }
            started => started,
        }
    }

    async fn happen(&mut self, event: Event, server: &mut Option<Server>) -> Result<(), String> {
        match event {
            Event::Trouble(..) => self.trouble_disk(),
            Event::UpstreamDown => {
                World::with(|world| world.sockets.refuse(&self.scenario.upstream));
                self.upstream.sever();
            }
            Event::UpstreamUp => World::with(|world| world.sockets.refuse(&[])),
            Event::Reload(tuning) => {
                self.tuning = tuning;
                let plan = server::plan(&self.scenario.settings(&tuning))?;
                if let Some(server) = server {
                    server.reload(plan)?;
                }
            }
            // The supervisor refuses it before any core hears of it.
            Event::BadReload => {}
            Event::Handover => {
                if let Some(old) = server.take() {
                    self.stop(old).await?;
                }
                *server = Some(self.start().await?);
            }
            Event::Kill => {
                self.disturbances.set(self.disturbances.get() + 2);
                self.is_up = false;
            }
            Event::Start => {
                self.is_up = true;
                *server = Some(self.start().await?);
            }
        }
        Ok(())
    }

    /// The disk has a mood of its own, which changes when another trouble begins.
    fn trouble_disk(&mut self) {
        let Some(spool) = &self.scenario.spool else { return };
        let latency = spool.latency_max.mul_f64(self.random.unit());
        self.disk.latency.set(if self.random.below(2) == 0 { latency } else { Duration::from_millis(2) });
        if spool.fails && self.random.below(2) == 0 {
            let fault = [tenantry::spool::memory::Fault::Error, tenantry::spool::memory::Fault::Torn];
            let fault = fault[self.random.index(2)];
            self.disk.disk.fail(self.random.index(20), fault);
            self.disk.fails.set(true);
        }
    }

    /// What is left when the server was killed.
    fn bury(&mut self) {
        world::forget();
        calls::close_all_but(&self.descriptors);
        self.upstream.forget();
        match &self.scenario.spool {
            Some(spool) if spool.loses_power => self.disk.disk.crash(self.random.next()),
            _ => self.disk.disk.revive(),
        }
    }

    /// Ends a server, and looks whether it has kept anything.
    async fn stop(&mut self, server: Server) -> Result<(), String> {
        let (shared, metrics) = (Arc::clone(&server.cores.shared), Arc::clone(&server.cores.metrics));
        self.disturbances.set(self.disturbances.get() + 1);
        server.stop().await?;
        self.disturbances.set(self.disturbances.get() + 1);
        for (what, left) in [("bytes", shared.bytes.in_flight()), ("requests", shared.requests.in_flight())] {
            if left > 0 {
                self.failures.push(format!("{left} {what} are in flight in a server that has ended"));
            }
        }
        let mut auditor = Auditor::default();
        auditor.audit(&metrics);
        auditor.audit(&metrics);
        if auditor.unaccounted() > 0 {
            self.failures.push(format!("{} samples are unaccounted", auditor.unaccounted()));
        }
        Ok(())
    }

    /// Mends all, waits until everything is settled, and ends the server.
    async fn settle(&mut self, server: Option<Server>) -> Result<(), String> {
        self.upstream.script.heal();
        self.upstream.let_go();
        self.disk.disk.heal();
        self.disk.latency.set(Duration::from_millis(2));
        World::with(|world| world.sockets.refuse(&[]));
        let Some(server) = server else { return Err("there is no server in the end".to_owned()) };
        let begun = Instant::now();
        while self.senders.iter().any(|sender| !sender.borrow().is_done())
            || server.cores.metrics.spool.parts.get() > 0
        {
            if begun.elapsed() > SETTLE_MAX {
                let parts = server.cores.metrics.spool.parts.get();
                return Err(format!(
                    "after {SETTLE_MAX:?} of calm not all is settled; the spool has {parts} parts"
                ));
            }
            sleep(LOOK).await;
        }
        self.stop(server).await
    }

    /// What is known in the end.
    fn judge(mut self, simulated: Duration) -> Verdict {
        let beats = self.upstream.script.pulse().so_far();
        let mut journal = Journal::default();
        let mut attempts = (0, 0);
        for sender in std::mem::take(&mut self.senders) {
            // A runtime that ends leaks its tasks, and they own it, too.
            let mut sender = sender.borrow_mut();
            attempts = (attempts.0 + sender.attempts, attempts.1 + sender.acknowledged);
            self.failures.append(&mut sender.failures);
            let refused = self.upstream.refused.borrow();
            let is_refused = |parts: &&Vec<Sent>| parts.iter().any(|part| refused.contains(part));
            if let Some(parts) = sender.refused.iter().find(|parts| !is_refused(parts)) {
                self.failures.push(format!("refused for good, but not by the upstream: {parts:?}"));
            }
            journal.merge(sender.stamps.take().map(Stamps::journal).unwrap_or_default());
        }
        let account = self.upstream.account.borrow();
        let audit = match self.scenario.spool {
            Some(_) => Audit::at_least_once(&journal, &account, ""),
            None => Audit::new(&journal, &account, ""),
        };
        let patience = if self.scenario.spool.is_some() { SPOOL_PATIENCE } else { PATIENCE };
        let liveness = match self.scenario.kind {
            Kind::Stormy => Liveness::new(&beats, &excuses(&self.scenario.plan, &self.over), patience),
            Kind::Crowded => Liveness::new(&beats, &[], scenario::CROWD_PATIENCE),
        };
        if self.scenario.kind == Kind::Crowded
            && let Some((least, most)) = spread(&self.upstream.served.borrow())
            && (least as f64) < most as f64 * FAIR_SHARE
        {
            let served = self.upstream.served.borrow();
            self.failures.push(format!("equal tenants got from {least} to {most} requests: {served:?}"));
        }
        self.failures.append(&mut self.upstream.failures.borrow_mut());
        Verdict {
            simulated,
            took: Duration::ZERO,
            attempts,
            requests: self.upstream.requests.get(),
            audit,
            liveness,
            failures: std::mem::take(&mut self.failures),
            trace: world::Trace::default(),
        }
    }
}

/// The crowds, each with its [`SenderId::run`]: no two senders may be the same.
fn runs(scenario: &Scenario) -> impl Iterator<Item = (u64, &Crowd)> {
    let first = u64::try_from(world::EPOCH.as_millis()).unwrap_or_default();
    (first..).zip(&scenario.crowds)
}

/// All senders of a scenario.
fn senders(
    scenario: &Scenario,
    upstream: &Upstream,
    disturbances: &Rc<Cell<u64>>,
) -> Vec<Rc<RefCell<Sender>>> {
    let end = Instant::now() + scenario.length;
    let mut senders = Vec::new();
    for (run, crowd) in runs(scenario) {
        let url: Url = match format!("http://{SERVER}").parse() {
            Ok(url) => url,
            Err(error) => unreachable!("{error}"),
        };
        let config = |tenants: &[String]| {
            Arc::new(StampedConfig {
                send: SendConfig { url: url.clone(), ..SendConfig::default() }.for_format(crowd.format),
                format: crowd.format,
                tenants: tenants.to_vec(),
                tenant_label: "tenant".to_owned(),
                tenants_per_request: crowd.tenants_per_request,
                series: crowd.series,
                pulse: Some(Arc::clone(upstream.script.pulse())),
                ..StampedConfig::default()
            })
        };
        let tenants = if crowd.is_loyal { 1 } else { scenario.tenants.len() };
        let configs: Vec<_> = scenario.tenants.chunks(tenants).map(config).collect();
        for (index, config) in (0..crowd.senders).zip(configs.iter().cycle()) {
            let rules = RetryRules {
                backoff_max: BACKOFF_MAX,
                give_up_after: Some(GIVE_UP_AFTER),
                ..RetryRules::prometheus(true)
            };
            let is_otlp = crowd.format.export().is_some();
            let rules = if is_otlp { rules.otlp() } else { rules };
            let habits =
                Habits { to: SERVER, rules, interval: crowd.interval, patience: crowd.patience, end };
            let id = SenderId { run, index };
            let sender = Sender::new(id, habits, Arc::clone(config), Rc::clone(disturbances));
            senders.push(Rc::new(RefCell::new(sender)));
        }
    }
    senders
}
