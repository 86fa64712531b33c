//! What one core's egress has to do with the spool: what is on its way there, and the lanes that replay.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::tenant_lane::TenantLane;
use crate::exchange::fragment::Fragment;
use crate::model::Outcome;
use crate::shared::budget::Charge;
use crate::spool::worker::Handle;

/// The shortest that a replay waits after a failure.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a replay waits after a failure, if all have failed for so long, and the upstream has asked for so many
/// seconds of peace: a quarter of the time. So after an outage of some seconds its end is noticed within a second, and
/// data never waits for much longer than the outage has made it wait anyway. A longer outage has fewer probes.
pub(super) fn pause(failing: Duration, asked_secs: Option<u32>) -> Duration {
    let asked = Duration::from_secs(asked_secs.unwrap_or_default().into());
    (failing / 4).max(asked).clamp(PAUSE_MIN, PAUSE_MAX)
}

/// Which parts an egress spools.
#[derive(Clone, Debug)]
pub struct SpoolLink {
    /// The spool's thread.
    pub handle: Handle,
    /// The name of the egress's upstream there; empty for the main one.
    pub name: Box<str>,
    /// Whether parts go there before they are sent.
    pub always: bool,
    /// Whether 429 counts as a failure.
    pub on_429: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Spooling {
    /// What is on its way into the spool, in the order in which it was sent there.
    pub(super) appends: RefCell<VecDeque<Append>>,
    /// Lanes whose replay waits until a time. The number tells apart those of one time.
    pub(super) waits: RefCell<BTreeMap<(Instant, u64), Rc<TenantLane>>>,
    /// Lanes whose upstream takes their parts.
    pub(super) proved: Turns,
    /// The others. Their requests may hang, so they have places of their own.
    pub(super) probes: Turns,
    /// Grows with each wait.
    pub(super) number: Cell<u64>,
    /// Whether no more replays begin.
    pub(super) is_closed: Cell<bool>,
}

/// A part on its way into the spool.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) lane: Rc<TenantLane>,
    /// `None`: it has waited for too long, and its sender has an outcome.
    pub(super) fragment: Option<Box<Fragment>>,
    /// Tells the spool's thread that.
    pub(super) is_given_up: Arc<AtomicBool>,
    /// What the bytes are charged by that still wait for the thread.
    pub(super) charge: Option<Charge>,
    /// What its upstream has done to it, if it was sent.
    pub(super) failed: Option<Outcome>,
    /// How long it may take.
    pub(super) until: Instant,
}

/// Lanes that take turns to replay.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) waiting: RefCell<VecDeque<Rc<TenantLane>>>,
    /// Those whose turn it is.
    pub(super) going: Cell<usize>,
}

impl Turns {
    /// Begins the turn of the lane that has waited the longest, if fewer than `going_max` have theirs.
    pub(super) fn next(&self, going_max: usize) -> Option<Rc<TenantLane>> {
        if self.going.get() >= going_max {
            return None;
        }
        let lane = self.waiting.borrow_mut().pop_front()?;
        self.going.set(self.going.get() + 1);
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long probes fail if each fails at once, and how many there are: until the upstream takes data again.
    fn probes_until(over: Duration) -> (Duration, usize) {
        let (mut failing, mut count) = (Duration::ZERO, 0);
        while failing < over {
            failing += pause(failing, None);
            count += 1;
        }
        (failing, count)
    }

    #[test]
    fn the_end_of_an_outage_is_noticed_within_a_second_or_a_quarter_of_the_outage() {
        for over in (1..60_000).map(Duration::from_millis) {
            let late = probes_until(over).0 - over;
            assert!(late <= PAUSE_MIN.max(over / 4), "{late:?} after {over:?}");
        }
    }

    #[test]
    fn a_long_outage_has_few_probes() {
        let hour = Duration::from_secs(3600);
        let (noticed, count) = probes_until(hour);
        assert!(noticed - hour <= PAUSE_MAX && count <= 140, "{count} probes until {noticed:?}");
    }

    #[test]
    fn an_upstream_that_asks_for_peace_gets_it_within_bounds() {
        let pause_of = |failing, asked| pause(Duration::from_secs(failing), asked).as_secs();
        assert_eq!([pause_of(0, Some(0)), pause_of(0, Some(7)), pause_of(40, Some(7))], [1, 7, 10]);
        assert_eq!(pause_of(0, Some(u32::MAX)), 30);
    }
}
