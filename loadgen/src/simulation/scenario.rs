//! What a seed means: a server and its settings, an upstream and its troubles, senders and their habits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::chaos::{Event, Plan, Planned, Tuning};
use crate::destination::Destination;
use crate::fleet::Format;
use crate::random::Random;
use crate::sink::faults::{Fault, Rule};

/// Where the server listens.
pub(super) const SERVER: SocketAddr = at(1, 8_080);

/// How long something of a tenant may wait in a crowd: each has its turn.
pub(super) const CROWD_PATIENCE: Duration = Duration::from_secs(5);

/// The settings for how OTLP leaves.
const CODINGS: [&str; 8] =
    ["as-received", "as-received", "as-received", "as-received", "gzip", "zstd", "snappy", "none"];

/// An address of this world.
const fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port)
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its number.
    pub seed: u64,
    /// What kind of world it is.
    pub kind: Kind,
    /// How long senders send.
    pub length: Duration,
    /// Cores of the server.
    pub cores: usize,
    /// The tenants' names.
    pub tenants: Vec<String>,
    /// Addresses of the upstream.
    pub upstream: Vec<SocketAddr>,
    /// The spool, if there is one.
    pub spool: Option<SpoolHabits>,
    /// Senders that are alike.
    pub crowds: Vec<Crowd>,
    /// What goes wrong, and when.
    pub plan: Plan,
    /// What no honest upstream does.
    pub thefts: Vec<Rule>,
    /// How OTLP leaves, whatever it came as.
    pub coding: &'static str,
    /// Settings that a reload does not change.
    pub settings: String,
    /// What is set at first.
    pub tuning: Tuning,
}

/// Kinds of worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Storms and calms, as in the chaos runs.
    Stormy,
    /// Nothing goes wrong, but more is sent than there is room for.
    Crowded,
}

/// How the spool is used, and what its disk is like.
#[derive(Clone, Debug)]
pub struct SpoolHabits {
    /// Whether a kill takes the power with it.
    pub loses_power: bool,
    /// The longest time that the disk takes, in each storm.
    pub latency_max: Duration,
    /// Whether the disk fails now and then.
    pub fails: bool,
    /// All that the disk holds, if that is limited.
    pub capacity: Option<usize>,
}

/// Senders that are alike.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// How many.
    pub senders: u32,
    /// Whether each sender has a tenant of its own. Otherwise it sends for all in turns, and waits for each.
    pub is_loyal: bool,
    /// Tenants in a request; all if it is none.
    pub tenants_per_request: Option<usize>,
    /// Series of each tenant in a request.
    pub series: u32,
    /// From one request to the next.
    pub interval: Duration,
    /// How bodies are written.
    pub format: Format,
    /// How long they wait for an answer: less than a server may take, or longer.
    pub patience: Duration,
}

impl Scenario {
    /// Draws the scenario of a seed.
    pub fn new(seed: u64, length: Option<Duration>) -> Self {
        let mut random = Random::new(seed, 0x5ce);
        let kind = if seed % 4 == 3 { Kind::Crowded } else { Kind::Stormy };
        let length = length.unwrap_or(Duration::from_secs(60 + random.below(240)));
        let tenants: Vec<String> =
            (0..3 + random.below(6)).map(|number| format!("tenant-{number}")).collect();
        // In a crowd there are fewer connections than tenants.
        let addresses = if kind == Kind::Crowded { 1 } else { 1 + random.index(3) };
        let upstream = (100..).take(addresses).map(|host| at(host, 9_009)).collect();
        let spool = (kind == Kind::Stormy && random.below(2) == 0).then(|| SpoolHabits {
            loses_power: random.below(2) == 0,
            latency_max: Duration::from_millis(random.below(3) * random.below(800)),
            fails: random.below(3) == 0,
            capacity: (random.below(3) == 0).then(|| 150_000 + random.index(400_000)),
        });
        let plan = match kind {
            Kind::Crowded => Plan { events: vec![busy(&mut random)] },
            Kind::Stormy if spool.is_some() => Plan::new(seed, length, &tenants).without_refusals(),
            Kind::Stormy => Plan::new(seed, length, &tenants),
        };
        let mut crowds: Vec<_> = match kind {
            Kind::Stormy => (0..1 + random.below(3)).map(|_| Crowd::stormy(&mut random)).collect(),
            Kind::Crowded => vec![Crowd::crowded(&mut random, tenants.len())],
        };
        let tuning = match kind {
            Kind::Stormy => Tuning::FIRST,
            Kind::Crowded => Tuning {
                max_conns_per_host: 1 + random.index(2),
                timeout_ms: 10_000,
                fragments_max: 1 + random.index(2) * 63,
                ..Tuning::FIRST
            },
        };
        let settings = settings(kind, spool.as_ref(), &mut random);
        let cores = 1 + random.index(3);
        let thefts = Vec::new();
        // Drawn apart: who sends OTLP changes nothing else.
        let mut random = Random::new(seed, 0x07e1);
        if kind == Kind::Stormy && random.below(2) == 0 {
            crowds.extend(Crowd::otlp(&mut random));
        }
        let coding = CODINGS[random.index(CODINGS.len())];
        Self {
            seed,
            kind,
            length,
            cores,
            tenants,
            upstream,
            spool,
            crowds,
            plan,
            thefts,
            coding,
            settings,
            tuning,
        }
    }

    /// The server's configuration.
    pub fn settings(&self, tuning: &Tuning) -> String {
        let Tuning { timeout_ms, fragments_max, max_conns_per_host, .. } = tuning;
        let inflight_max = tuning.inflight_text();
        let Self { settings, coding, .. } = self;
        let exports = [Destination::OtlpMetrics, Destination::OtlpLogs, Destination::OtlpTraces];
        let target = |destination: Destination| {
            let path = destination.path();
            let key = path.replace("/v1/", "target_otlp_");
            format!("{key}: http://upstream:9009{path}\n{key}_coding: {coding}\n")
        };
        let exports = exports.map(target).concat();
        format!(
            "listen: {SERVER}\ntarget: http://upstream:9009/api/v1/push\n{exports}tenant: {{label: tenant}}\n\
             timeout: {timeout_ms}ms\nmax_conns_per_host: {max_conns_per_host}\n\
             merge: {{inflight_max: {inflight_max}, fragments_max: {fragments_max}}}\n{settings}"
        )
    }
}

impl Crowd {
    fn stormy(random: &mut Random) -> Self {
        let is_patient = random.below(2) == 0;
        Self {
            senders: 1 + u32::try_from(random.below(4)).unwrap_or_default(),
            is_loyal: false,
            tenants_per_request: [None, Some(1), Some(2), Some(3)][random.index(4)],
            series: 1 + u32::try_from(random.below(5)).unwrap_or_default(),
            interval: Duration::from_millis(200 + random.below(2_500)),
            format: if random.below(3) == 0 { Format::RemoteWrite2 } else { Format::RemoteWrite1 },
            patience: if is_patient { super::sender::ANSWER_MAX } else { Duration::from_millis(2_500) },
        }
    }

    /// Two crowds that send one signal by OTLP, in different ways: what one has sent may wait with what the other has.
    fn otlp(random: &mut Random) -> [Self; 2] {
        let signals = [
            [Format::OtlpMetrics, Format::OtlpMetricsGzip, Format::OtlpMetricsJson],
            [Format::OtlpLogs, Format::OtlpLogsGzip, Format::OtlpLogsJson],
            [Format::OtlpTraces, Format::OtlpTracesGzip, Format::OtlpTracesJson],
        ];
        let [plain, gzip, json] = signals[random.index(signals.len())];
        let pair = [[plain, gzip], [plain, gzip], [gzip, json]][random.index(3)];
        pair.map(|format| Self { format, ..Self::stormy(random) })
    }

    /// Each sends for one tenant, as fast as it can. If it went on to the others, it would soon wait for one that gets
    /// nothing, and make room for it.
    fn crowded(random: &mut Random, tenants: usize) -> Self {
        Self {
            senders: u32::try_from(tenants * (2 + random.index(3))).unwrap_or(u32::MAX),
            is_loyal: true,
            tenants_per_request: Some(1),
            series: 1 + u32::try_from(random.below(3)).unwrap_or_default(),
            interval: Duration::ZERO,
            format: Format::RemoteWrite1,
            patience: super::sender::ANSWER_MAX,
        }
    }
}

/// An upstream that takes its time with everything, so that its connections are what is scarce.
fn busy(random: &mut Random) -> Planned {
    let from = Duration::from_millis(20 + random.below(200));
    let fault = Fault::Latency { from, to: from.mul_f64(1.0 + random.unit()) };
    let rule = Rule { tenants: Vec::new(), from: Duration::ZERO, to: None, share: 1.0, fault };
    Planned { at: Duration::ZERO, event: Event::Trouble("busy", rule) }
}

/// Settings that stay as they are. In a crowd nothing but connections is scarce: whom `concurrency` refuses is a matter
/// of luck.
fn settings(kind: Kind, spool: Option<&SpoolHabits>, random: &mut Random) -> String {
    let mut settings = String::new();
    if kind == Kind::Stormy && random.below(4) == 0 {
        settings += &format!("concurrency: {}\n", 2 + random.below(6));
    }
    if spool.is_some() {
        let when = if random.below(4) == 0 { "always" } else { "failing" };
        let on_429 = random.below(2) == 0;
        settings += &format!("spool: {{dir: /simulated, when: {when}, on_429: {on_429}}}\n");
    }
    settings
}
