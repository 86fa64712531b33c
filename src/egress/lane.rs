//! A tenant's lane: which of its fragments go into the next upstream request. Pure: no I/O, no clock of its own.
//!
//! Group commit. While fewer than `inflight_max` requests of the tenant are on their way, a fragment leaves at
//! once, alone: idle costs no delay. Otherwise it waits, and whichever request comes back takes along all that
//! waits, up to the merge limits: load merges by itself, the more the slower the upstream is. A batch that has to wait
//! for a connection stays open meanwhile ([`Lane::join`]). What would gain nothing
//! by waiting (a batch that is full already, a fragment that merges with none) leaves while fewer than
//! `inflight_full_max` are on their way, so that a giant tenant is not held to one batch at a time.
//!
//! What may go together is said by each fragment's merge key: Mimir and Cortex read the HA pair of a request's
//! first series and apply it to the whole request, so two replicas' series must never share one. Between senders
//! there is no order to keep: each awaits its answer before it sends the next request of a shard.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::MergeKey;

/// What a lane has to know of a fragment.
pub trait Queued {
    /// With which others it may share a request.
    fn merge_key(&self) -> &MergeKey;
    /// Whether the two may share a request: by their keys, and by whatever else a request says once.
    fn goes_with(&self, other: &Self) -> bool;
    /// Its share of a merged request's inflated length.
    fn inflated_bytes(&self) -> usize;
    /// Whether it must go in a request of its own, whatever its key says.
    fn alone(&self) -> bool;
    /// When it reached the lane, more or less: where its linger is counted from.
    fn arrived(&self) -> Instant;
    /// After this it is not sent any more.
    fn start_by(&self) -> Instant;
}

/// The limits of merging; see the settings `merge.*`.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Upstream requests of one tenant on their way at a time.
    pub inflight_max: usize,
    /// The same, for batches that are full and fragments that go alone. No less than `inflight_max`.
    pub inflight_full_max: usize,
    /// How long a fragment may wait for company though it could leave.
    pub linger: Duration,
    /// Fragments in one upstream request.
    pub fragments_max: usize,
    /// Inflated bytes of one upstream request, unless a single fragment has more.
    pub inflated_bytes_max: usize,
}

/// What a lane wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<F> {
    /// Send these in one request; then say [`Lane::finished`].
    Send(Vec<F>),
    /// Nothing yet: ask again at this time.
    Wait(Instant),
    /// Nothing until something comes or comes back.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub struct Lane<F> {
    waiting: VecDeque<F>,
    /// What waits inflates to so much.
    waiting_bytes: usize,
    /// None that waits has to be on its way before.
    none_expires_before: Option<Instant>,
    in_flight: usize,
    unmerged_until: Option<Instant>,
}

impl<F> Default for Lane<F> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            none_expires_before: None,
            in_flight: 0,
            unmerged_until: None,
        }
    }
}

impl<F: Queued> Lane<F> {
    /// A fragment has come.
    pub fn push(&mut self, fragment: F) {
        let start_by = fragment.start_by();
        self.none_expires_before = Some(self.none_expires_before.map_or(start_by, |at| at.min(start_by)));
        self.waiting_bytes += fragment.inflated_bytes();
        self.waiting.push_back(fragment);
    }

    /// Takes out what has waited for the shortest time.
    pub fn take_newest(&mut self) -> Option<F> {
        let newest = self.waiting.pop_back()?;
        self.waiting_bytes -= newest.inflated_bytes();
        Some(newest)
    }

    /// A request that [`next`](Self::next) gave out has its outcome.
    pub fn finished(&mut self) {
        self.in_flight -= 1;
    }

    /// Until `until`, every fragment goes alone.
    pub fn stop_merging(&mut self, until: Instant) {
        self.unmerged_until = Some(until);
    }

    /// Whether nothing waits and nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0
    }

    /// Fragments that waited for too long. They are always found in time: whatever occupies the lane is itself
    /// over within one timeout of its start, and then this is called again.
    pub fn take_expired(&mut self, now: Instant) -> Vec<F> {
        // All are looked at only when one may have expired, not for each that comes.
        if self.none_expires_before.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let (expired, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|f| f.start_by() <= now);
        self.waiting = rest;
        self.waiting_bytes = self.waiting.iter().map(F::inflated_bytes).sum();
        self.none_expires_before = self.waiting.iter().map(F::start_by).min();
        Vec::from(expired)
    }

    /// What to do now.
    pub fn next(&mut self, now: Instant, limits: &LaneLimits) -> Next<F> {
        let Some(first) = self.waiting.front() else { return Next::Nothing };
        let gains_nothing = self.is_single(first, now) || self.is_full(limits);
        let inflight_max = if gains_nothing { limits.inflight_full_max } else { limits.inflight_max };
        if self.in_flight >= inflight_max {
            return Next::Nothing;
        }
        let lingers_until = first.arrived() + limits.linger;
        if lingers_until > now && !gains_nothing {
            return Next::Wait(lingers_until);
        }
        self.in_flight += 1;
        Next::Send(self.take_batch(now, limits))
    }

    /// Whether a fragment goes alone, whatever else waits.
    fn is_single(&self, fragment: &F, now: Instant) -> bool {
        let unmerged = self.unmerged_until.is_some_and(|until| now < until);
        unmerged || fragment.alone() || *fragment.merge_key() == MergeKey::Alone
    }

    fn is_full(&self, limits: &LaneLimits) -> bool {
        self.waiting.len() >= limits.fragments_max || self.waiting_bytes >= limits.inflated_bytes_max
    }

    /// The first that waits, and all others that may go with it.
    fn take_batch(&mut self, now: Instant, limits: &LaneLimits) -> Vec<F> {
        let first = self.waiting.pop_front();
        self.waiting_bytes -= first.as_ref().map_or(0, F::inflated_bytes);
        let mut batch = Vec::from_iter(first);
        self.join(&mut batch, now, limits);
        batch
    }

    /// Adds to a batch, before it is sent, what has come since and may go with it. What is left keeps its order.
    pub fn join(&mut self, batch: &mut Vec<F>, now: Instant, limits: &LaneLimits) {
        match batch.first() {
            Some(first) if !self.is_single(first, now) => {}
            _ => return,
        }
        let mut bytes: usize = batch.iter().map(F::inflated_bytes).sum();
        let mut left = Vec::new();
        while batch.len() < limits.fragments_max && bytes < limits.inflated_bytes_max {
            let Some(fragment) = self.waiting.pop_front() else { break };
            let fits = bytes + fragment.inflated_bytes() <= limits.inflated_bytes_max;
            if fits && !fragment.alone() && fragment.goes_with(&batch[0]) {
                bytes += fragment.inflated_bytes();
                self.waiting_bytes -= fragment.inflated_bytes();
                batch.push(fragment);
            } else {
                left.push(fragment);
            }
        }
        left.into_iter().rev().for_each(|fragment| self.waiting.push_front(fragment));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HaReplica;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Item {
        id: u32,
        key: MergeKey,
        bytes: usize,
        alone: bool,
        arrived: Instant,
    }

    impl Queued for Item {
        fn merge_key(&self) -> &MergeKey {
            &self.key
        }
        fn goes_with(&self, other: &Self) -> bool {
            self.key.merges_with(&other.key)
        }
        fn inflated_bytes(&self) -> usize {
            self.bytes
        }
        fn alone(&self) -> bool {
            self.alone
        }
        fn arrived(&self) -> Instant {
            self.arrived
        }
        fn start_by(&self) -> Instant {
            self.arrived + Duration::from_secs(10)
        }
    }

    const LIMITS: LaneLimits = LaneLimits {
        inflight_max: 1,
        inflight_full_max: 3,
        linger: Duration::ZERO,
        fragments_max: 4,
        inflated_bytes_max: 100,
    };

    fn item(id: u32, now: Instant) -> Item {
        Item { id, key: MergeKey::Ha(None), bytes: 10, alone: false, arrived: now }
    }

    fn replica(name: &str) -> MergeKey {
        MergeKey::Ha(Some(Box::new(HaReplica { cluster: b"c"[..].into(), replica: name.as_bytes().into() })))
    }

    fn lane(items: impl IntoIterator<Item = Item>) -> Lane<Item> {
        let mut lane = Lane::default();
        items.into_iter().for_each(|item| lane.push(item));
        lane
    }

    /// The IDs of what the lane sends next, which must be something; it is finished at once.
    fn sent(lane: &mut Lane<Item>, now: Instant) -> Vec<u32> {
        let Next::Send(batch) = lane.next(now, &LIMITS) else { panic!("nothing to send: {lane:?}") };
        lane.finished();
        batch.iter().map(|item| item.id).collect()
    }

    #[test]
    fn the_first_leaves_at_once_and_the_rest_gather_until_it_is_back() {
        let now = Instant::now();
        let mut lane = lane([item(0, now)]);
        assert_eq!(lane.next(now, &LIMITS), Next::Send(vec![item(0, now)]));
        (1..4).for_each(|id| lane.push(item(id, now)));
        assert_eq!(lane.next(now, &LIMITS), Next::Nothing);
        lane.finished();
        assert_eq!(sent(&mut lane, now), [1, 2, 3]);
        assert!(lane.is_idle());
    }

    #[test]
    fn what_gains_nothing_by_waiting_leaves_beside_what_is_on_its_way() {
        let now = Instant::now();
        let on_their_way = |items: Vec<Item>| {
            let mut lane = lane(items);
            let sent = std::iter::from_fn(|| match lane.next(now, &LIMITS) {
                Next::Send(batch) => Some(batch.len()),
                _ => None,
            });
            sent.collect::<Vec<_>>()
        };
        let items = |count| (0..count).map(|id| item(id, now));
        assert_eq!(on_their_way(items(3).collect()), [3]);
        assert_eq!(on_their_way(items(9).collect()), [4, 4], "the ninth waits for company");
        assert_eq!(on_their_way(items(40).collect()), [4, 4, 4], "up to the bound");
        let alone = items(9).map(|item| Item { key: MergeKey::Alone, ..item });
        assert_eq!(on_their_way(alone.collect()), [1, 1, 1]);
    }

    #[test]
    fn a_batch_ends_at_either_limit() {
        let now = Instant::now();
        let mut by_number = lane((0..6).map(|id| item(id, now)));
        assert_eq!(sent(&mut by_number, now), [0, 1, 2, 3]);
        assert_eq!(sent(&mut by_number, now), [4, 5]);
        let mut by_bytes = lane((0..3).map(|id| Item { bytes: 45, ..item(id, now) }));
        assert_eq!(sent(&mut by_bytes, now), [0, 1]);
        let mut giant = lane((0..2).map(|id| Item { bytes: 1_000, ..item(id, now) }));
        assert_eq!(sent(&mut giant, now), [0], "one that exceeds the limit by itself still goes");
    }

    #[test]
    fn only_equal_keys_go_together_and_the_others_keep_their_order() {
        let now = Instant::now();
        let keys = [replica("r1"), replica("r2"), replica("r1"), MergeKey::Ha(None), replica("r2")];
        let mut lane = lane((0..).zip(keys).map(|(id, key)| Item { key, ..item(id, now) }));
        assert_eq!(sent(&mut lane, now), [0, 2]);
        assert_eq!(sent(&mut lane, now), [1, 4]);
        assert_eq!(sent(&mut lane, now), [3]);
    }

    #[test]
    fn what_must_go_alone_goes_alone() {
        let now = Instant::now();
        let marked = |id| Item { alone: true, ..item(id, now) };
        let keyed = |id| Item { key: MergeKey::Alone, ..item(id, now) };
        let mut lane = lane([item(0, now), marked(1), keyed(2), item(3, now), keyed(4)]);
        assert_eq!(sent(&mut lane, now), [0, 3]);
        assert_eq!([sent(&mut lane, now), sent(&mut lane, now), sent(&mut lane, now)], [[1], [2], [4]]);
    }

    #[test]
    fn a_lane_that_stopped_merging_begins_again() {
        let now = Instant::now();
        let mut lane = lane((0..4).map(|id| item(id, now)));
        lane.stop_merging(now + Duration::from_secs(1));
        assert_eq!(sent(&mut lane, now), [0]);
        assert_eq!(sent(&mut lane, now + Duration::from_secs(1)), [1, 2, 3]);
    }

    #[test]
    fn a_batch_that_waits_is_joined_by_what_comes_and_goes_with_it() {
        let now = Instant::now();
        let mut lane = lane([item(0, now)]);
        let Next::Send(mut batch) = lane.next(now, &LIMITS) else { panic!("nothing to send") };
        let other = Item { key: replica("r1"), ..item(1, now) };
        let alone = Item { alone: true, ..item(2, now) };
        [other, alone].into_iter().chain((3..9).map(|id| item(id, now))).for_each(|item| lane.push(item));
        lane.join(&mut batch, now, &LIMITS);
        assert_eq!(batch.iter().map(|item| item.id).collect::<Vec<_>>(), [0, 3, 4, 5], "up to the limit");
        lane.finished();
        assert_eq!(sent(&mut lane, now), [1], "what is left keeps its order");

        let mut single = vec![Item { alone: true, ..item(9, now) }];
        lane.join(&mut single, now, &LIMITS);
        assert_eq!(single.len(), 1);
        lane.stop_merging(now + Duration::from_secs(1));
        let mut unmerged = vec![item(10, now)];
        lane.join(&mut unmerged, now, &LIMITS);
        assert_eq!(unmerged.len(), 1);
    }

    #[test]
    fn linger_holds_a_fragment_until_its_time_or_a_full_batch() {
        let now = Instant::now();
        let limits = LaneLimits { linger: Duration::from_millis(5), ..LIMITS };
        let until = now + limits.linger;
        let mut waiting = lane([item(0, now)]);
        assert_eq!(waiting.next(now, &limits), Next::Wait(until));
        assert_eq!(waiting.next(until, &limits), Next::Send(vec![item(0, now)]));
        let mut full = lane((0..4).map(|id| item(id, now)));
        assert!(matches!(full.next(now, &limits), Next::Send(_)));
    }

    #[test]
    fn what_waited_for_too_long_is_taken_out_and_the_rest_stays() {
        let now = Instant::now();
        let late = now + Duration::from_secs(5);
        let mut lane = lane([item(0, now), item(1, late), item(2, now)]);
        assert_eq!(lane.take_expired(now + Duration::from_secs(9)), []);
        let expired: Vec<_> = lane.take_expired(now + Duration::from_secs(10)).iter().map(|i| i.id).collect();
        assert_eq!(expired, [0, 2]);
        assert_eq!(sent(&mut lane, late), [1]);
        assert_eq!((lane.waiting_bytes, lane.none_expires_before.is_some()), (0, true));
        assert!(lane.take_expired(late + Duration::from_secs(10)).is_empty());
    }

    #[test]
    fn what_came_last_can_be_taken_out_again() {
        let now = Instant::now();
        let mut lane = lane((0..3).map(|id| item(id, now)));
        assert_eq!(lane.take_newest().map(|item| item.id), Some(2));
        assert_eq!(lane.waiting_bytes, 20);
        assert_eq!(sent(&mut lane, now), [0, 1]);
        assert_eq!((lane.take_newest(), lane.waiting_bytes), (None, 0));
    }
}
