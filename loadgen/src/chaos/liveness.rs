//! Whether each tenant that had something to send got on, while nothing stood in its way.
//!
//! Constraints that shaped it:
//! - A tenant *gets on* when the upstream answers something of it with 2xx. What goes to one destination and what goes
//!   to another are told apart, as servers keep them apart. Its clock begins when a sender sends a new request that
//!   holds something of it, and ends when it gets on. A request that is sent again begins no clock: what it still lacks
//!   may be another tenant's, and then this one has nothing to send.
//! - While its upstream has a trouble, or server or upstream are restarted or reloaded, and for [`GRACE`] after that,
//!   a tenant is *excused*: its clock stands at nothing. A trouble excuses no other tenant.
//! - Which times are excused is known only afterwards. So it is noted, beat by beat, what happened to each tenant; a
//!   beat costs a byte or two, however much is sent. What happens at times that are given is all that [`Liveness`]
//!   looks at; [`Pulse`] lends the clock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Event, Plan};
use crate::destination::Destination;
use crate::duration::ms;

/// How finely time is told. No wait is known better than that.
const BEAT: Duration = Duration::from_millis(100);

/// After a trouble: connections are opened again, and a machine under load is late.
const GRACE: Duration = Duration::from_millis(500);

/// What happened to one tenant in one beat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beat {
    /// It got on.
    got_on: bool,
    /// Something new was sent, and after that it did not get on within this beat.
    waits: bool,
}

/// What happened to one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beats(Vec<Beat>);

impl Beats {
    fn at(&mut self, time: Duration) -> Option<&mut Beat> {
        let number = number(time);
        if self.0.len() <= number {
            self.0.resize(number + 1, Beat::default());
        }
        self.0.get_mut(number)
    }

    /// Something new is sent.
    pub fn sent(&mut self, time: Duration) {
        if let Some(beat) = self.at(time) {
            beat.waits = true;
        }
    }

    /// Something was answered with 2xx.
    pub fn got_on(&mut self, time: Duration) {
        if let Some(beat) = self.at(time) {
            *beat = Beat { got_on: true, waits: false };
        }
    }

    /// How many beats it got on in, at times that are not excused.
    fn watched(&self, is_excused: impl Fn(Duration) -> bool) -> usize {
        let begins = (0..).map(|number| BEAT * number);
        self.0.iter().zip(begins).filter(|(beat, begin)| beat.got_on && !is_excused(*begin)).count()
    }

    /// From when to when something waited and nothing got on, of times that are not excused.
    fn waits(&self, is_excused: impl Fn(Duration) -> bool) -> Vec<(Duration, Duration)> {
        let mut since = None;
        let mut waits = Vec::new();
        let mut begin = Duration::ZERO;
        for beat in &self.0 {
            let is_excused = is_excused(begin);
            if beat.got_on || is_excused {
                waits.extend(since.take().map(|since| (since, begin)));
            }
            if beat.waits && !is_excused {
                since.get_or_insert(begin);
            }
            begin += BEAT;
        }
        waits.extend(since.map(|since| (since, begin)));
        waits
    }
}

fn number(time: Duration) -> usize {
    usize::try_from(time.as_millis() / BEAT.as_millis()).unwrap_or(usize::MAX / 2)
}

/// What happened to each tenant, at each destination that something of it goes to.
pub type AllBeats = BTreeMap<(Destination, String), Beats>;

/// The beats of all tenants, and the clock.
#[derive(Debug, Default)]
pub struct Pulse {
    begun: OnceLock<Instant>,
    tenants: Mutex<BTreeMap<Destination, BTreeMap<String, Beats>>>,
}

impl Pulse {
    /// Begins to count time, once. What happens before counts as happening then.
    pub fn begin(&self) {
        self.begun.get_or_init(Instant::now);
    }

    fn tenants(&self) -> MutexGuard<'_, BTreeMap<Destination, BTreeMap<String, Beats>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, tenant: &str, to: Destination, after: Duration, note: fn(&mut Beats, Duration)) {
        let now = self.begun.get().map(Instant::elapsed).unwrap_or_default();
        let mut all = self.tenants();
        let tenants = all.entry(to).or_default();
        match tenants.get_mut(tenant) {
            Some(beats) => note(beats, now + after),
            None => note(tenants.entry(tenant.to_owned()).or_default(), now + after),
        }
    }

    /// A request that holds something of the tenant is sent for the first time.
    pub fn sent(&self, tenant: &str, to: Destination) {
        self.note(tenant, to, Duration::ZERO, Beats::sent);
    }

    /// Something of the tenant is answered with 2xx, so much later.
    pub fn got_on(&self, tenant: &str, at: Destination, after: Duration) {
        self.note(tenant, at, after, Beats::got_on);
    }

    /// What has happened so far.
    pub fn so_far(&self) -> AllBeats {
        let now = self.begun.get().map(Instant::elapsed).unwrap_or_default();
        let mut all = AllBeats::new();
        for (destination, tenants) in self.tenants().iter() {
            for (tenant, beats) in tenants {
                let beats = all.entry((*destination, tenant.clone())).or_insert(beats.clone());
                beats.at(now);
            }
        }
        all
    }
}

/// A time in which a tenant need not get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// Whose; none named means all tenants'.
    pub tenants: Vec<String>,
    /// From this time after the run's start.
    pub from: Duration,
    /// Until this time, without any grace.
    pub to: Duration,
}

impl Excuse {
    fn holds(&self, tenant: &str, beat: Duration) -> bool {
        let is_tenant = self.tenants.is_empty() || self.tenants.iter().any(|name| name == tenant);
        is_tenant && beat + BEAT > self.from && beat < self.to.saturating_add(GRACE)
    }
}

/// The times that a plan excuses. `over` tells of the first events, one after the other, when each was over; the rest
/// did not happen.
pub fn excuses(plan: &Plan, over: &[Duration]) -> Vec<Excuse> {
    let all = |from, to| Excuse { tenants: Vec::new(), from, to };
    let mut excuses = Vec::new();
    let mut broken = None;
    for (index, planned) in plan.events.iter().enumerate() {
        let happened = over.get(index);
        match &planned.event {
            // The upstream has it by itself.
            Event::Trouble(_, rule) => excuses.push(Excuse {
                tenants: rule.tenants.clone(),
                from: rule.from,
                to: rule.to.unwrap_or(Duration::MAX),
            }),
            event => {
                let Some(&over) = happened else { continue };
                let from = broken.take().unwrap_or(planned.at);
                if matches!(event, Event::UpstreamDown | Event::Kill) {
                    broken = Some(from);
                } else {
                    excuses.push(all(from, over));
                }
            }
        }
    }
    excuses.extend(broken.map(|from| all(from, Duration::MAX)));
    excuses
}

/// A tenant that did not get on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Starved {
    /// Which one.
    pub tenant: String,
    /// What of it.
    pub destination: Destination,
    /// When something of it was sent, in milliseconds after the run's start.
    pub from_ms: u64,
    /// When it got on, or was excused, or all was over.
    pub to_ms: u64,
}

/// Whether all got on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Liveness {
    /// How long something may wait.
    pub patience_ms: u64,
    /// Tenths of a second, of all tenants together, in which a tenant got on and was not excused.
    pub watched_beats: usize,
    /// How long something waited, at most, of whatever tenant; to a tenth of a second.
    pub longest_ms: u64,
    /// Each wait that was too long.
    pub starved: Vec<Starved>,
}

impl Liveness {
    /// Of tenants, the times that are excused, and how long a tenant has to wait.
    pub fn new(tenants: &AllBeats, excuses: &[Excuse], patience: Duration) -> Self {
        let mut liveness = Self { patience_ms: ms(patience), ..Self::default() };
        for ((destination, tenant), beats) in tenants {
            let is_excused = |beat| excuses.iter().any(|excuse| excuse.holds(tenant, beat));
            liveness.watched_beats += beats.watched(is_excused);
            for (from, to) in beats.waits(is_excused) {
                let waited = to.saturating_sub(from);
                liveness.longest_ms = liveness.longest_ms.max(ms(waited));
                if waited > patience {
                    let (from_ms, to_ms) = (ms(from), ms(to));
                    let (tenant, destination) = (tenant.clone(), *destination);
                    liveness.starved.push(Starved { tenant, destination, from_ms, to_ms });
                }
            }
        }
        liveness
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{Planned, Tuning};

    const PATIENCE: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn excuse(tenants: &[&str], from: u64, to: u64) -> Excuse {
        let tenants = tenants.iter().map(|&tenant| tenant.to_owned()).collect();
        Excuse { tenants, from: at(from), to: at(to) }
    }

    /// A tenant `a` for whom something is sent every 50 ms of 20 s, and that gets on 20 ms later but for the `starved`
    /// time.
    fn busy(starved: (u64, u64)) -> AllBeats {
        let mut beats = Beats::default();
        for ms in (0..20_000).step_by(50) {
            beats.sent(at(ms));
            if !(starved.0..starved.1).contains(&ms) {
                beats.got_on(at(ms + 20));
            }
        }
        all(beats)
    }

    fn all(beats: Beats) -> AllBeats {
        BTreeMap::from([((Destination::Metrics, "a".to_owned()), beats)])
    }

    fn starved(tenants: &AllBeats, excuses: &[Excuse]) -> Vec<(u64, u64)> {
        let found = Liveness::new(tenants, excuses, PATIENCE).starved;
        found.iter().map(|starved| (starved.from_ms, starved.to_ms)).collect()
    }

    #[test]
    fn a_starvation_is_found_and_no_shorter_wait() {
        assert_eq!(starved(&busy((0, 0)), &[]), []);
        assert_eq!(starved(&busy((5000, 8000)), &[]), [], "no longer than one has to wait");
        assert_eq!(starved(&busy((5000, 8200)), &[]), [(5000, 8200)]);
        assert_eq!(starved(&busy((15_000, 20_000)), &[]), [(15_000, 20_000)], "to the end");
        let liveness = Liveness::new(&busy((5000, 8000)), &[], PATIENCE);
        assert_eq!((liveness.longest_ms, liveness.watched_beats), (3000, 170));
        let excused = Liveness::new(&busy((5000, 8000)), &[excuse(&["a"], 0, 10_000)], PATIENCE);
        assert!(excused.watched_beats < 100, "{excused:?}");
    }

    #[test]
    fn a_trouble_excuses_whose_it_is_and_the_clock_begins_anew() {
        let ill = busy((5000, 11_000));
        assert_eq!(starved(&ill, &[excuse(&["a"], 5000, 8000)]), [], "2.5 s after trouble and grace");
        assert_eq!(starved(&ill, &[excuse(&[], 5000, 8000)]), [], "all tenants'");
        assert_eq!(starved(&ill, &[excuse(&["b"], 5000, 8000)]), [(5000, 11_000)], "another's");
        assert_eq!(starved(&ill, &[excuse(&["a"], 5000, 7000)]), [(7500, 11_000)], "too long after it");
        assert_eq!(starved(&ill, &[excuse(&["a"], 8500, 8600)]), [(5000, 8500)], "too long before it");
        assert_eq!(starved(&ill, &[excuse(&["a"], 7000, 7100)]), [(7600, 11_000)]);
    }

    #[test]
    fn who_has_nothing_to_send_does_not_starve() {
        let mut beats = Beats::default();
        beats.sent(at(1000));
        beats.got_on(at(1010));
        beats.sent(at(9000));
        beats.got_on(at(9010));
        let tenants = all(beats.clone());
        assert_eq!(starved(&tenants, &[]), []);
        // In one beat with what it got, something more was sent.
        beats.sent(at(1020));
        let tenants = all(beats);
        assert_eq!(starved(&tenants, &[]), [(1000, 9000)]);
    }

    #[test]
    fn a_tenant_that_gets_on_at_one_destination_may_starve_at_another() {
        let pulse = Pulse::default();
        pulse.sent("a", Destination::OtlpLogs);
        pulse.sent("a", Destination::Metrics);
        pulse.got_on("a", Destination::Metrics, Duration::ZERO);
        let mut so_far = pulse.so_far();
        for beats in so_far.values_mut() {
            beats.at(at(9000));
        }
        let found = Liveness::new(&so_far, &[], PATIENCE).starved;
        let found: Vec<_> = found.iter().map(|starved| starved.destination).collect();
        assert_eq!(found, [Destination::OtlpLogs]);
    }

    #[test]
    fn a_plan_excuses_what_it_breaks_for_as_long_as_it_is_broken() {
        let planned = |ms, event| Planned { at: at(ms), event };
        let events = vec![
            planned(1000, Event::Reload(Tuning::FIRST)),
            planned(2000, Event::Kill),
            planned(2500, Event::Start),
            planned(4000, Event::UpstreamDown),
            planned(5000, Event::UpstreamUp),
        ];
        let plan = Plan { events };
        let over = [1040, 2010, 2700, 4001, 5002].map(at);
        let all = [excuse(&[], 1000, 1040), excuse(&[], 2000, 2700), excuse(&[], 4000, 5002)];
        assert_eq!(excuses(&plan, &over), all);
        let for_ever = Excuse { to: Duration::MAX, ..excuse(&[], 2000, 0) };
        assert_eq!(excuses(&plan, &over[..2]), [all[0].clone(), for_ever], "killed, and never started");
        assert_eq!(excuses(&plan, &[]), [], "what did not happen excuses nothing");
        let drawn = Plan::new(3, Duration::from_secs(60), &["a".to_owned()]);
        let troubles: Vec<Excuse> = excuses(&drawn, &[]);
        assert_eq!(troubles.len(), drawn.rules().len(), "troubles come by themselves");
    }
}
