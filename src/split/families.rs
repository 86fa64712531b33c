//! Learns which tenants have recently sent series of a metric family, to route the family's metadata.
//!
//! Constraints that shaped it:
//!
//! * Remote Write 1.0 sends metadata in separate requests that name no tenant. The only hints are the names of the
//!   families and the tenants that sent series of them. Series and metadata arrive over different connections, on
//!   different cores, so the table is shared.
//! * Learning happens in the hottest loop. A core checks its own filter first, and takes the lock only for pairs that
//!   it has not reported recently: a few times per family and tenant, not once per series.
//! * Names are untrusted input. The table is limited in size and forgets entries that were not seen for one to two
//!   times [`FAMILIES_TURN_SECS`].
#![forbid(unsafe_code)]

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use crate::limits::{FAMILIES_REPORTED_MAX, FAMILIES_TURN_SECS, FAMILY_TENANTS_MAX};
use crate::tenant::TenantId;

/// Suffixes that series names add to their family's name (Prometheus' exposition formats: histograms, summaries, and
/// OpenMetrics' counters).
const SUFFIXES: [&[u8]; 4] = [b"_bucket", b"_sum", b"_count", b"_total"];

/// The metric families and their tenants. One per process.
#[derive(Debug, Default)]
pub struct Families {
    kept: Mutex<Turns>,
    /// The time of the first call of [`Self::turn`].
    start: OnceLock<Instant>,
    /// The number of the current turn.
    turns: AtomicU64,
}

/// The families seen in the current turn and in the one before.
#[derive(Debug, Default)]
struct Turns {
    current: Turn,
    previous: Turn,
}

#[derive(Debug, Default)]
struct Turn {
    tenants: HashMap<Box<[u8]>, Vec<TenantId>>,
    /// Pairs of a family and a tenant, over all families.
    pairs: usize,
}

impl Families {
    /// Forgets entries that are too old. To be called regularly; cheap if nothing is due.
    pub fn rotate(&self, now: Instant) {
        let turn =
            now.saturating_duration_since(*self.start.get_or_init(|| now)).as_secs() / FAMILIES_TURN_SECS;
        let before = self.turns.load(Ordering::Relaxed);
        if turn <= before {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.turns.swap(turn, Ordering::Relaxed) < turn {
            // After more than one turn without a call, nothing is recent.
            kept.previous =
                if turn == before + 1 { std::mem::take(&mut kept.current) } else { Turn::default() };
            kept.current = Turn::default();
        }
    }

    /// Forgets everything, because a new plan names tenants differently.
    pub fn forget(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Turns::default();
        // Makes the cores report again what they have reported.
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the tenants that have recently sent series of the family `name`.
    pub(super) fn tenants_of(&self, name: &[u8]) -> Vec<TenantId> {
        let family = fold(name);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let [current, previous] = [&kept.current, &kept.previous].map(|turn| turn.tenants.get(family));
        let mut tenants: Vec<_> = current.into_iter().chain(previous).flatten().cloned().collect();
        tenants.sort_unstable();
        tenants.dedup();
        tenants
    }

    fn learn(&self, family: &[u8], tenant: &TenantId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let current = &mut kept.current;
        if current.pairs >= FAMILY_TENANTS_MAX {
            return;
        }
        let tenants = match current.tenants.get_mut(family) {
            Some(tenants) => tenants,
            None => current.tenants.entry(family.into()).or_default(),
        };
        if let Err(place) = tenants.binary_search(tenant) {
            tenants.insert(place, tenant.clone());
            current.pairs += 1;
        }
    }
}

/// One core's filter of pairs that it has reported in the current turn.
#[derive(Default, Debug)]
pub(super) struct Learner {
    reported: HashSet<u64>,
    turn: u64,
    hasher: RandomState,
}

impl Learner {
    /// Reports to `families` that `tenant` sends series of this name.
    pub(super) fn learn(&mut self, families: &Families, name: &[u8], tenant: &TenantId) {
        let turn = families.turns.load(Ordering::Relaxed);
        if turn != self.turn || self.reported.len() >= FAMILIES_REPORTED_MAX {
            self.reported.clear();
            self.turn = turn;
        }
        let family = fold(name);
        // A hash collision only delays a report by a turn.
        if self.reported.insert(self.hasher.hash_one((family, tenant.as_str()))) {
            families.learn(family, tenant);
        }
    }
}

/// Returns the name of the family that a series name, or the name in a family's metadata, belongs to.
fn fold(name: &[u8]) -> &[u8] {
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(*suffix)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tenant::IdRules;

    /// The shortest time for which a family's tenants are known.
    const KNOWN_FOR: Duration = Duration::from_secs(FAMILIES_TURN_SECS);

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id, IdRules::Mimir).unwrap()
    }

    fn known(families: &Families, name: &[u8]) -> Vec<String> {
        families.tenants_of(name).iter().map(TenantId::to_string).collect()
    }

    #[test]
    fn a_family_is_known_by_any_of_its_series() {
        let families = Families::default();
        let mut learner = Learner::default();
        learner.learn(&families, b"latency_bucket", &tenant("b"));
        learner.learn(&families, b"latency_sum", &tenant("a"));
        learner.learn(&families, b"requests_total", &tenant("c"));
        learner.learn(&families, b"up", &tenant("a"));
        assert_eq!(known(&families, b"latency"), ["a", "b"]);
        assert_eq!(known(&families, b"latency_count"), ["a", "b"]);
        assert_eq!(known(&families, b"requests"), ["c"]);
        assert_eq!(known(&families, b"requests_total"), ["c"]);
        assert_eq!(known(&families, b"up"), ["a"]);
        assert_eq!(known(&families, b"down"), [""; 0]);
    }

    #[test]
    fn families_not_seen_for_two_turns_are_forgotten() {
        let start = Instant::now();
        let families = Families::default();
        families.rotate(start);
        let mut learner = Learner::default();
        learner.learn(&families, b"old", &tenant("a"));
        learner.learn(&families, b"seen", &tenant("a"));
        families.rotate(start + KNOWN_FOR);
        assert_eq!(known(&families, b"old"), ["a"]);
        learner.learn(&families, b"seen", &tenant("a"));
        assert_eq!(known(&families, b"seen"), ["a"], "once");
        families.rotate(start + KNOWN_FOR * 2);
        assert_eq!((known(&families, b"old").len(), known(&families, b"seen").len()), (0, 1));
        families.rotate(start + KNOWN_FOR * 9);
        assert_eq!(known(&families, b"seen").len(), 0);
    }

    #[test]
    fn the_table_and_the_filter_are_bounded() {
        let families = Families::default();
        let mut learner = Learner::default();
        for number in 0..FAMILY_TENANTS_MAX + 1000 {
            learner.learn(&families, format!("m{number}").as_bytes(), &tenant("a"));
        }
        assert_eq!(families.kept.lock().unwrap().current.pairs, FAMILY_TENANTS_MAX);
        assert!(learner.reported.len() <= FAMILIES_REPORTED_MAX);
        assert_eq!(known(&families, b"m0"), ["a"]);
    }
}
