//! A tenant's lane: which of its fragments go into the next upstream request. Pure: no I/O, no clock of its own.
//!
//! This is group commit. While fewer than `inflight_max` requests of the tenant are in flight, a fragment is sent at
//! once, alone: an idle lane adds no delay. Otherwise it waits, and the next request that finishes takes along all that
//! waits, up to the merge limits. So merging follows the load: the slower the upstream, the larger the batches. A batch
//! that waits for a connection stays open ([`Lane::join`]). A full batch, or a fragment that cannot be merged, would
//! gain nothing by waiting; it is sent while fewer than `inflight_full_max` requests are in flight, so that a giant
//! tenant is not held to one batch at a time.
//!
//! The merge key of each fragment says which others it may share a request with. Mimir and Cortex read the HA pair of a
//! request's first series and apply it to the whole request, so series of two replicas must never share one. Senders
//! impose no order among fragments: each awaits the answer to a request before it sends the next one of that shard.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::MergeKey;

/// What a lane needs to know about a fragment.
pub trait Queued {
    /// The key that says which others it may share a request with.
    fn merge_key(&self) -> &MergeKey;
    /// Whether both may share a request: their keys, and everything else that a request has once, must agree.
    fn goes_with(&self, other: &Self) -> bool;
    /// The number of bytes that it adds to a request's inflated length.
    fn inflated_bytes(&self) -> usize;
    /// Whether it must have a request of its own, whatever its key says.
    fn alone(&self) -> bool;
    /// Roughly when it reached the lane. Its linger starts then.
    fn arrived(&self) -> Instant;
    /// After this time it is no longer sent.
    fn start_by(&self) -> Instant;
}

/// The limits of merging; see the settings `merge.*`.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Upstream requests of one tenant in flight at a time.
    pub inflight_max: usize,
    /// The same for full batches and for fragments that go alone. At least `inflight_max`.
    pub inflight_full_max: usize,
    /// How long a fragment that could be sent waits for others.
    pub linger: Duration,
    /// Fragments in one upstream request.
    pub fragments_max: usize,
    /// Inflated bytes of one upstream request. A single fragment may exceed it.
    pub inflated_bytes_max: usize,
}

/// What to do next for a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<F> {
    /// Send these in one request, then call [`Lane::finished`].
    Send(Vec<F>),
    /// Nothing yet. Ask again at this time.
    Wait(Instant),
    /// Nothing until a fragment arrives or a request finishes.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub struct Lane<F> {
    waiting: VecDeque<F>,
    /// The inflated bytes of all that waits.
    waiting_bytes: usize,
    /// No waiting fragment expires before this time.
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
    /// Adds a fragment.
    pub fn push(&mut self, fragment: F) {
        let start_by = fragment.start_by();
        self.none_expires_before = Some(self.none_expires_before.map_or(start_by, |at| at.min(start_by)));
        self.waiting_bytes += fragment.inflated_bytes();
        self.waiting.push_back(fragment);
    }

    /// When the fragment that is next arrived.
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(F::arrived)
    }

    /// Removes the fragment that was added last.
    pub fn take_newest(&mut self) -> Option<F> {
        let newest = self.waiting.pop_back()?;
        self.waiting_bytes -= newest.inflated_bytes();
        Some(newest)
    }

    /// Puts the last fragments of a batch back in front of all others.
    pub fn put_back(&mut self, fragments: Vec<F>) {
        for fragment in fragments.into_iter().rev() {
            let start_by = fragment.start_by();
            self.none_expires_before = Some(self.none_expires_before.map_or(start_by, |at| at.min(start_by)));
            self.waiting_bytes += fragment.inflated_bytes();
            self.waiting.push_front(fragment);
        }
    }

    /// Counts a request that [`next`](Self::next) gave out as finished.
    pub fn finished(&mut self) {
        self.in_flight -= 1;
    }

    /// Sends every fragment alone until `until`.
    pub fn stop_merging(&mut self, until: Instant) {
        self.unmerged_until = Some(until);
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0
    }

    /// Removes the fragments whose time is up. They are always found in time: every request in flight ends within one
    /// timeout of its start, and then this is called again.
    pub fn take_expired(&mut self, now: Instant) -> Vec<F> {
        // The queue is scanned only if a fragment may have expired, not for each that arrives.
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

    /// Decides what to do now.
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

    /// Whether a fragment has to be sent alone.
    fn is_single(&self, fragment: &F, now: Instant) -> bool {
        let unmerged = self.unmerged_until.is_some_and(|until| now < until);
        unmerged || fragment.alone() || *fragment.merge_key() == MergeKey::Alone
    }

    fn is_full(&self, limits: &LaneLimits) -> bool {
        self.waiting.len() >= limits.fragments_max || self.waiting_bytes >= limits.inflated_bytes_max
    }

    /// Removes the first fragment and all others that may share its request.
    fn take_batch(&mut self, now: Instant, limits: &LaneLimits) -> Vec<F> {
        let first = self.waiting.pop_front();
        self.waiting_bytes -= first.as_ref().map_or(0, F::inflated_bytes);
        let mut batch = Vec::from_iter(first);
        self.join(&mut batch, now, limits);
        batch
    }

    /// Adds to a batch that has not been sent yet all waiting fragments that may share its request. The others keep
    /// their order.
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

    /// Returns the IDs of the batch that the lane sends next, and finishes it at once.
    fn sent(lane: &mut Lane<Item>, now: Instant) -> Vec<u32> {
        let Next::Send(batch) = lane.next(now, &LIMITS) else { panic!("nothing to send: {lane:?}") };
        lane.finished();
        batch.iter().map(|item| item.id).collect()
    }

    #[test]
    fn the_first_is_sent_at_once_and_the_others_gather_until_it_has_finished() {
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
    fn a_full_batch_or_a_single_is_sent_beside_requests_in_flight() {
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
    fn fragments_that_must_go_alone_do() {
        let now = Instant::now();
        let marked = |id| Item { alone: true, ..item(id, now) };
        let keyed = |id| Item { key: MergeKey::Alone, ..item(id, now) };
        let mut lane = lane([item(0, now), marked(1), keyed(2), item(3, now), keyed(4)]);
        assert_eq!(sent(&mut lane, now), [0, 3]);
        assert_eq!([sent(&mut lane, now), sent(&mut lane, now), sent(&mut lane, now)], [[1], [2], [4]]);
    }

    #[test]
    fn merging_resumes_after_its_stop() {
        let now = Instant::now();
        let mut lane = lane((0..4).map(|id| item(id, now)));
        lane.stop_merging(now + Duration::from_secs(1));
        assert_eq!(sent(&mut lane, now), [0]);
        assert_eq!(sent(&mut lane, now + Duration::from_secs(1)), [1, 2, 3]);
    }

    #[test]
    fn a_waiting_batch_is_joined_by_later_fragments_that_may_share_it() {
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
    fn expired_fragments_are_removed_and_the_others_stay() {
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
    fn fragments_that_are_put_back_are_next_and_still_expire() {
        let now = Instant::now();
        let mut lane = lane((0..4).map(|id| item(id, now)));
        let Next::Send(mut batch) = lane.next(now, &LIMITS) else { panic!("nothing to send") };
        lane.push(item(4, now + Duration::from_secs(5)));
        assert!(lane.take_expired(now + Duration::from_secs(10)).is_empty());
        lane.put_back(batch.split_off(1));
        lane.finished();
        assert_eq!(lane.waiting_bytes, 40);
        assert_eq!(sent(&mut lane, now), [1, 2, 3, 4]);
        assert_eq!(lane.waiting_bytes, 0);
        lane.put_back(vec![item(5, now), item(6, now)]);
        let expired: Vec<_> = lane.take_expired(now + Duration::from_secs(10)).iter().map(|i| i.id).collect();
        assert_eq!(expired, [5, 6]);
    }

    #[test]
    fn the_newest_fragment_can_be_removed() {
        let now = Instant::now();
        let mut lane = lane((0..3).map(|id| item(id, now)));
        assert_eq!(lane.take_newest().map(|item| item.id), Some(2));
        assert_eq!(lane.waiting_bytes, 20);
        assert_eq!(sent(&mut lane, now), [0, 1]);
        assert_eq!((lane.take_newest(), lane.waiting_bytes), (None, 0));
    }
}
