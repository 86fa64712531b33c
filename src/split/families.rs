//! Which tenants have sent series of a metric family lately: where its metadata belongs.
//!
//! Constraints that shaped it:
//!
//! * Remote Write 1.0 sends metadata apart, in requests that name no tenant. All there is to go by are the families'
//!   names and who sent series of them; and series and metadata come over different connections, to different cores.
//!   So what is learned is shared.
//! * Learning stands in the hottest loop. A core asks its own filter first, and takes the lock only for what it has not
//!   told lately: a handful of times per family and tenant, not per series.
//! * Names are other people's input. The table is bounded, and forgets: what was not seen for one to two of
//!   [`FAMILIES_TURN_SECS`] is gone.
#![forbid(unsafe_code)]

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use crate::limits::{FAMILIES_TOLD_MAX, FAMILIES_TURN_SECS, FAMILY_TENANTS_MAX};
use crate::tenant::TenantId;

/// Suffixes of series that belong to a family without them (Prometheus' exposition formats: histograms, summaries,
/// and OpenMetrics' counters).
const SUFFIXES: [&[u8]; 4] = [b"_bucket", b"_sum", b"_count", b"_total"];

/// The families and their tenants; one for the process.
#[derive(Debug, Default)]
pub struct Families {
    kept: Mutex<Kept>,
    /// When it was asked to turn for the first time.
    start: OnceLock<Instant>,
    /// How often the table has turned.
    turns: AtomicU64,
}

/// What was seen in this turn, and in the one before.
#[derive(Debug, Default)]
struct Kept {
    current: Turn,
    previous: Turn,
}

#[derive(Debug, Default)]
struct Turn {
    tenants: HashMap<Box<[u8]>, Vec<TenantId>>,
    /// Over all families.
    pairs: usize,
}

impl Families {
    /// Forgets what is too old. To be called now and then, and cheap where nothing is due.
    pub fn turn(&self, now: Instant) {
        let turn =
            now.saturating_duration_since(*self.start.get_or_init(|| now)).as_secs() / FAMILIES_TURN_SECS;
        let before = self.turns.load(Ordering::Relaxed);
        if turn <= before {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.turns.swap(turn, Ordering::Relaxed) < turn {
            // After a pause of more than one turn, nothing is recent.
            kept.previous =
                if turn == before + 1 { std::mem::take(&mut kept.current) } else { Turn::default() };
            kept.current = Turn::default();
        }
    }

    /// Forgets everything: tenants are called otherwise from now on.
    pub fn forget(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Kept::default();
        // So that cores tell anew of what they have told.
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The tenants that have sent series of the family of this name.
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

/// What one core has told of lately.
#[derive(Default, Debug)]
pub(super) struct Learner {
    told: HashSet<u64>,
    turn: u64,
    hasher: RandomState,
}

impl Learner {
    /// Has `families` know that `tenant` sends series of this name.
    pub(super) fn learn(&mut self, families: &Families, name: &[u8], tenant: &TenantId) {
        let turn = families.turns.load(Ordering::Relaxed);
        if turn != self.turn || self.told.len() >= FAMILIES_TOLD_MAX {
            self.told.clear();
            self.turn = turn;
        }
        let family = fold(name);
        // Two pairs of one hash would only be told of a turn later.
        if self.told.insert(self.hasher.hash_one((family, tenant.as_str()))) {
            families.learn(family, tenant);
        }
    }
}

/// The family that a series' name, or that of a family's metadata, belongs to.
fn fold(name: &[u8]) -> &[u8] {
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(*suffix)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tenant::IdRules;

    /// How long a family's tenants are known at least.
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
    fn what_is_not_seen_for_two_turns_is_forgotten() {
        let start = Instant::now();
        let families = Families::default();
        families.turn(start);
        let mut learner = Learner::default();
        learner.learn(&families, b"old", &tenant("a"));
        learner.learn(&families, b"seen", &tenant("a"));
        families.turn(start + KNOWN_FOR);
        assert_eq!(known(&families, b"old"), ["a"]);
        learner.learn(&families, b"seen", &tenant("a"));
        assert_eq!(known(&families, b"seen"), ["a"], "once");
        families.turn(start + KNOWN_FOR * 2);
        assert_eq!((known(&families, b"old").len(), known(&families, b"seen").len()), (0, 1));
        families.turn(start + KNOWN_FOR * 9);
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
        assert!(learner.told.len() <= FAMILIES_TOLD_MAX);
        assert_eq!(known(&families, b"m0"), ["a"]);
    }
}
