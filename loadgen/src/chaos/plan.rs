//! Which trouble comes when. Pure: a seed in, a list of times and events out.
//!
//! A run is calm at first; then storms and calms take turns until it ends, and it ends calm. In a storm there are
//! [`TRACKS`] tracks of upstream troubles, each with one at a time, and one track of operations on server and upstream.
//! What comes next is dealt from a shuffled deck, so that no kind stays away for long.

use std::fmt;
use std::time::Duration;

use crate::random::Random;
use crate::sink::faults::{Fault, ResetAt, Rule};

/// How many upstream troubles there may be at a time.
const TRACKS: usize = 3;

/// The shortest storm: each track of it has room for one event at least.
const STORM_MIN: Duration = Duration::from_millis(3500);

/// The longest storm.
const STORM_MAX: Duration = Duration::from_millis(7000);

/// From one storm to the next. A request that waits for a server's timeout and then for a sender's pause still comes
/// through.
const CALM: (u64, u64) = (3500, 5000);

/// Before the first storm.
const LEAD_IN: (u64, u64) = (500, 1000);

/// How long an upstream trouble lasts.
const TROUBLE: (u64, u64) = (700, 2200);

/// From one upstream trouble of a track to the next.
const TROUBLE_GAP: (u64, u64) = (100, 1000);

/// From one operation to the next. The first one waits for as long, too.
const OPERATION_GAP: (u64, u64) = (300, 1200);

/// A kind of upstream trouble: its name, the least and the greatest share of requests that meet it, in percent, and the
/// fault. Faults that block a connection have low shares, so that other requests go on beside them.
struct Trouble(&'static str, (u64, u64), fn(&mut Random) -> Fault);

impl Trouble {
    /// What happens from one time to another, and to whom.
    fn rule(&self, (from, to): (Duration, Duration), tenants: &[String], random: &mut Random) -> Rule {
        let share = between(random, self.1) as f64 / 100.0;
        let fault = (self.2)(random);
        let tenants = Self::tenants(&fault, tenants, random);
        Rule { tenants, from, to: Some(to), share, fault }
    }

    /// Whose requests meet it: none named means all tenants'. What is refused for good is refused to one.
    fn tenants(fault: &Fault, tenants: &[String], random: &mut Random) -> Vec<String> {
        let count = match (fault, random.below(10)) {
            (Fault::Status { code: 400..500, .. }, _) | (_, 0..=4) => 1,
            (_, 5 | 6) => 2,
            _ => return Vec::new(),
        };
        let mut all = tenants.to_vec();
        random.shuffle(&mut all);
        all.truncate(count);
        all
    }
}

const TROUBLES: [Trouble; 13] = [
    Trouble("latency", (10, 70), |random| Fault::Latency {
        from: ms(random, (0, 100)),
        // Some take longer than the server waits.
        to: ms(random, (300, 2500)),
    }),
    Trouble("unavailable", (10, 70), |random| status(random, &[500, 502, 503, 504], false)),
    Trouble("retry after", (10, 70), |random| status(random, &[503], true)),
    Trouble("too many", (10, 70), |random| Fault::TooMany(patience(random))),
    Trouble("refused", (5, 40), |random| status(random, &[400, 409, 422], false)),
    // Below the smallest body, and up to what only merged ones exceed.
    Trouble("too large", (5, 40), |random| Fault::TooLarge(100 + random.index(4000))),
    Trouble("reset before body", (10, 70), |_| Fault::Reset(ResetAt::BeforeBody)),
    Trouble("reset before reply", (10, 70), |_| Fault::Reset(ResetAt::BeforeReply)),
    Trouble("reset mid reply", (10, 70), |_| Fault::Reset(ResetAt::MidReply)),
    Trouble("half open", (5, 40), |_| Fault::HalfOpen),
    Trouble("stall", (5, 40), |_| Fault::Stall),
    Trouble("slow read", (10, 70), |random| Fault::SlowRead(200 + random.below(4000))),
    // Stored, but told otherwise.
    Trouble("lie", (10, 50), |random| Fault::Lie(one_of(random, &[400, 429, 500, 503]))),
];

/// What a Retry-After asks for: whole seconds.
fn patience(random: &mut Random) -> Duration {
    Duration::from_secs(1 + random.below(2))
}

/// Answers with one of these, and maybe says when to come again.
fn status(random: &mut Random, codes: &[u16], asks_to_wait: bool) -> Fault {
    let code = one_of(random, codes);
    let seconds = asks_to_wait.then(|| patience(random).as_secs().to_string());
    let headers = seconds.map(|seconds| ("Retry-After".to_owned(), seconds)).into_iter().collect();
    Fault::Status { code, headers, body: "not so\n".to_owned() }
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The upstream has a trouble for a while.
    Trouble(&'static str, Rule),
    /// The upstream stops listening, and all its connections break.
    UpstreamDown,
    /// It listens again, at the same address.
    UpstreamUp,
    /// The server is told to read its configuration again, in which these settings stand.
    Reload(Tuning),
    /// The same, with mistakes in it: nothing may change.
    BadReload,
    /// A successor takes over: it starts at the same address, and then the old server is told to end.
    Handover,
    /// The server is killed.
    Kill,
    /// It is started again, at the same address.
    Start,
}

impl Event {
    /// What kind of event it is.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UpstreamDown => "upstream down",
            Self::UpstreamUp => "upstream up",
            Self::Reload(_) => "reload",
            Self::BadReload => "bad reload",
            Self::Handover => "handover",
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Trouble(name, _) => name,
        }
    }
}

/// What a person wants to know besides the name; nothing, for most.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = match self {
            Self::Trouble(_, rule) => rule,
            Self::Reload(tuning) => return tuning.fmt(f),
            _ => return Ok(()),
        };
        let whose =
            if rule.tenants.is_empty() { "all tenants".to_owned() } else { rule.tenants.join(" and ") };
        let time = rule.to.unwrap_or_default().saturating_sub(rule.from);
        write!(f, "{:?} for {:.0} % of {whose}, for {time:.1?}", rule.fault, rule.share * 100.0)
    }
}

/// Settings of the server that a reload changes, and that no sender may notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How long the upstream may take, in milliseconds.
    pub timeout_ms: u64,
    /// Requests of one tenant on their way at once; the server's choice if it is none.
    pub inflight_max: Option<usize>,
    /// Parts of one request; with 1, nothing merges.
    pub fragments_max: usize,
    /// Connections to the upstream.
    pub max_conns_per_host: usize,
}

impl Tuning {
    /// The one that a server is started with, before any reload.
    pub const FIRST: Self =
        Self { timeout_ms: 1500, inflight_max: None, fragments_max: 64, max_conns_per_host: 64 };

    fn new(random: &mut Random) -> Self {
        Self {
            inflight_max: one_of(random, &[None, Some(1), Some(4)]),
            fragments_max: one_of(random, &[1, 4, 64]),
            max_conns_per_host: one_of(random, &[8, 24, 64]),
            // No longer than the first: senders wait a little less than twice that.
            timeout_ms: 900 + 100 * random.below(7),
        }
    }

    /// The value of the setting `merge.inflight_max`.
    pub fn inflight_text(&self) -> String {
        self.inflight_max.map_or_else(|| "auto".to_owned(), |max| max.to_string())
    }
}

/// As a person wants to know it.
impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeout_ms, fragments_max, max_conns_per_host, .. } = self;
        let inflight_max = self.inflight_text();
        write!(
            f,
            "timeout {timeout_ms} ms, {inflight_max} in flight, {fragments_max} merge, {max_conns_per_host} connections"
        )
    }
}

/// An event and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// After the run's start.
    pub at: Duration,
    /// What happens then.
    pub event: Event,
}

/// All events of a run, in the order of their times.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The events. After the last one nothing is broken any more.
    pub events: Vec<Planned>,
}

impl Plan {
    /// Draws a plan for a run of this length with these tenants. Too short for a storm, it is empty.
    pub fn new(seed: u64, length: Duration, tenants: &[String]) -> Self {
        let mut random = Random::new(seed, 0);
        let mut drawing = Drawing {
            tenants,
            events: Vec::new(),
            troubles: Deck { all: &TROUBLES, left: Vec::new() },
            operations: Deck { all: &OPERATIONS, left: Vec::new() },
        };
        let mut begin = ms(&mut random, LEAD_IN);
        while begin + STORM_MIN <= length {
            let span = STORM_MAX.saturating_sub(STORM_MIN);
            let end = (begin + STORM_MIN + span.mul_f64(random.unit())).min(length);
            for _ in 0..TRACKS {
                drawing.troubles(begin, end, &mut random);
            }
            drawing.operations(begin, end, &mut random);
            begin = end + ms(&mut random, CALM);
        }
        drawing.events.sort_by_key(|planned| planned.at);
        Self { events: drawing.events }
    }

    /// Without the troubles in which the upstream refuses data for good.
    #[must_use]
    pub fn without_refusals(mut self) -> Self {
        let refuses = |fault: &Fault| match fault {
            Fault::Status { code, .. } | Fault::Lie(code) => (400..500).contains(code) && *code != 429,
            Fault::TooLarge(_) => true,
            _ => false,
        };
        self.events.retain(|planned| match &planned.event {
            Event::Trouble(_, rule) => !refuses(&rule.fault),
            _ => true,
        });
        self
    }

    /// The upstream's troubles, as rules for a sink.
    pub fn rules(&self) -> Vec<Rule> {
        let rule = |planned: &Planned| match &planned.event {
            Event::Trouble(_, rule) => Some(rule.clone()),
            _ => None,
        };
        self.events.iter().filter_map(rule).collect()
    }
}

/// What is done to server or upstream: what begins, how long until what ends it, and what that is.
type Operation = fn(&mut Random) -> (Event, Duration, Option<Event>);

const OPERATIONS: [Operation; 5] = [
    |random| (Event::Reload(Tuning::new(random)), Duration::ZERO, None),
    |_| (Event::BadReload, Duration::ZERO, None),
    |random| (Event::UpstreamDown, ms(random, (100, 1500)), Some(Event::UpstreamUp)),
    |_| (Event::Handover, Duration::from_millis(500), None),
    |random| (Event::Kill, ms(random, (0, 1000)), Some(Event::Start)),
];

/// A plan that is being drawn.
struct Drawing<'a> {
    tenants: &'a [String],
    events: Vec<Planned>,
    troubles: Deck<Trouble>,
    operations: Deck<Operation>,
}

impl Drawing<'_> {
    /// One track of a storm.
    fn troubles(&mut self, begin: Duration, end: Duration, random: &mut Random) {
        let mut from = begin + ms(random, TROUBLE_GAP);
        loop {
            let to = from + ms(random, TROUBLE);
            if to > end {
                return;
            }
            let Some(trouble) = self.troubles.deal(random) else { return };
            let rule = trouble.rule((from, to), self.tenants, random);
            self.events.push(Planned { at: from, event: Event::Trouble(trouble.0, rule) });
            from = to + ms(random, TROUBLE_GAP);
        }
    }

    /// The track of operations.
    fn operations(&mut self, begin: Duration, end: Duration, random: &mut Random) {
        let mut at = begin + ms(random, OPERATION_GAP);
        while let Some(operation) = self.operations.deal(random) {
            let (event, takes, ending) = operation(random);
            let over = at + takes;
            if over > end {
                return;
            }
            self.events.push(Planned { at, event });
            self.events.extend(ending.map(|event| Planned { at: over, event }));
            at = over + ms(random, OPERATION_GAP);
        }
    }
}

/// Cards that are dealt until there is none, and then shuffled again.
struct Deck<T: 'static> {
    all: &'static [T],
    left: Vec<&'static T>,
}

impl<T> Deck<T> {
    fn deal(&mut self, random: &mut Random) -> Option<&'static T> {
        if self.left.is_empty() {
            self.left = self.all.iter().collect();
            random.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

fn one_of<T: Copy + Default>(random: &mut Random, all: &[T]) -> T {
    random.pick(all).copied().unwrap_or_default()
}

/// A number from the first to the second, both included.
fn between(random: &mut Random, (least, most): (u64, u64)) -> u64 {
    least + random.below(most.saturating_sub(least) + 1)
}

/// A time of so many milliseconds.
fn ms(random: &mut Random, range: (u64, u64)) -> Duration {
    Duration::from_millis(between(random, range))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MINUTES_10: Duration = Duration::from_secs(600);

    fn tenants() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    fn plan(seed: u64) -> Plan {
        Plan::new(seed, MINUTES_10, &tenants())
    }

    #[test]
    fn a_seed_is_a_plan_and_another_seed_another() {
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        let times: Vec<Duration> = plan(7).events.iter().map(|planned| planned.at).collect();
        assert!(times.is_sorted() && times.len() > 100, "{}", times.len());
    }

    #[test]
    fn every_kind_comes_within_ten_minutes_and_about_as_often_as_others() {
        for seed in 0..100 {
            let mut count: BTreeMap<&str, usize> = BTreeMap::new();
            for planned in &plan(seed).events {
                *count.entry(planned.event.name()).or_default() += 1;
            }
            assert_eq!(count.len(), TROUBLES.len() + 7, "seed {seed}: {count:?}");
            assert!(count.values().all(|&times| times >= 8), "seed {seed}: {count:?}");
        }
    }

    #[test]
    fn operations_never_overlap_and_what_is_broken_is_mended() {
        for seed in 0..100 {
            let mut pending = None;
            for Planned { at, event } in plan(seed).events {
                match event {
                    Event::Trouble(..) => {}
                    Event::UpstreamUp => {
                        assert_eq!(pending.take(), Some(Event::UpstreamDown), "{seed}, {at:?}")
                    }
                    Event::Start => assert_eq!(pending.take(), Some(Event::Kill), "{seed}, {at:?}"),
                    event => {
                        assert_eq!(pending, None, "seed {seed}, at {at:?}");
                        pending =
                            Some(event).filter(|event| matches!(event, Event::UpstreamDown | Event::Kill));
                    }
                }
            }
            assert_eq!(pending, None, "seed {seed}");
        }
    }

    /// From when to when something is broken.
    fn broken(plan: &Plan) -> Vec<(Duration, Duration)> {
        let mut since = None;
        let mut spans = Vec::new();
        for Planned { at, event } in &plan.events {
            match event {
                Event::Trouble(_, rule) => spans.push((rule.from, rule.to.unwrap())),
                Event::UpstreamDown | Event::Kill => since = Some(*at),
                Event::UpstreamUp | Event::Start => spans.push((since.take().unwrap(), *at)),
                Event::Reload(_) | Event::BadReload | Event::Handover => spans.push((*at, *at)),
            }
        }
        spans.sort_unstable();
        spans
    }

    #[test]
    fn storms_are_short_and_calms_long_enough_and_the_end_is_calm() {
        for seed in 0..100 {
            let spans = broken(&plan(seed));
            let mut storm = spans[0];
            for &(from, to) in &spans[1..] {
                assert!(to <= MINUTES_10);
                let calm = from.saturating_sub(storm.1);
                if calm >= Duration::from_millis(CALM.0) {
                    storm = (from, to);
                }
                storm.1 = storm.1.max(to);
                assert!(
                    storm.1 - storm.0 <= STORM_MAX,
                    "seed {seed}: a storm from {:?} to {:?}",
                    storm.0,
                    storm.1
                );
            }
        }
    }

    #[test]
    fn troubles_at_a_time_are_bounded_and_refusals_are_one_tenants() {
        for seed in 0..100 {
            let rules = plan(seed).rules();
            for rule in &rules {
                let at_once = rules
                    .iter()
                    .filter(|other| other.from <= rule.from && other.to.is_some_and(|to| rule.from < to));
                assert!(at_once.count() <= TRACKS, "seed {seed}, {rule:?}");
                assert!((0.05..=1.0).contains(&rule.share) && rule.to.unwrap() > rule.from);
            }
            let refusals =
                rules.iter().filter(|rule| matches!(rule.fault, Fault::Status { code: 400..500, .. }));
            assert!(refusals.clone().count() > 0 && refusals.clone().all(|rule| rule.tenants.len() == 1));
            let thefts = |rule: &Rule| {
                matches!(rule.fault, Fault::Lose | Fault::Duplicate | Fault::Misplace(_) | Fault::Reorder)
            };
            assert!(!rules.iter().any(thefts));
        }
    }

    #[test]
    fn a_short_run_has_a_storm_and_a_shorter_one_is_calm() {
        for seed in 0..100 {
            let events = Plan::new(seed, Duration::from_secs(10), &tenants()).events;
            let operations = events.iter().filter(|planned| !matches!(planned.event, Event::Trouble(..)));
            assert!(
                operations.clone().count() > 0 && events.len() - operations.count() >= TRACKS,
                "seed {seed}"
            );
        }
        assert_eq!(Plan::new(1, Duration::from_secs(3), &tenants()).events, []);
    }
}
