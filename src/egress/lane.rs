//! A tenant's lane: which of its fragments go into the next upstream request. Pure: no I/O, no clock of its own.
//!
//! This is group commit. While fewer than `inflight_max` requests of the tenant are in flight, a fragment is sent at
//! once, alone: an idle lane adds no delay. Otherwise it waits, and the next request that finishes takes along all that
//! waits, up to the merge limits. So merging follows the load: the slower the upstream, the larger the batches. A batch
//! that waits for a connection stays open ([`Lane::join`]).
//!
//! With one request in flight, what arrives behind it waits for two round trips. So while the upstream answers well, a
//! further request leaves as soon as the oldest fragment that waits has waited for a fraction of a round trip
//! ([`EARLY_PERCENT`]). Senders that wait for their answers then fall into groups that take turns: with two groups,
//! each request still carries half of the senders, but nobody waits for long. So it costs more requests only while the
//! load is low. No further request leaves while one waits for a connection, because that one takes along what arrives.
//!
//! A full batch, or a fragment that cannot be merged, would
//! gain nothing by waiting; it is sent while fewer than `inflight_full_max` requests are in flight, so that a giant
//! tenant is not held to one batch at a time.
//!
//! The merge key of each fragment says which others it may share a request with. Mimir and Cortex read the HA pair of a
//! request's first series and apply it to the whole request, so series of two replicas must never share one. Senders
//! impose no order among fragments: each awaits the answer to a request before it sends the next one of that shard.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::MergeKey;

/// A further request leaves when a fragment has waited for so many percent of a round trip. Fewer of them mean less
/// latency and more requests.
const EARLY_PERCENT: u32 = 20;

/// It never waits for longer than this: no timer outlives a change of the upstream's round trip by much.
const EARLY_WAIT_MAX: Duration = Duration::from_millis(250);

/// Timers have a resolution of a millisecond and are late by half of it. A wait that is longer begins so much earlier
/// to be over.
const EARLY_SLACK: Duration = Duration::from_micros(500);

/// Requests of a tenant in flight while further ones may leave early. With three, two groups of senders never wait for
/// each other.
pub const EARLY_INFLIGHT_MAX: usize = 3;

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
    /// The same for requests that leave early, as what waits has waited long enough. None does unless it is larger than
    /// `inflight_max`.
    pub inflight_early_max: usize,
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
    /// Send these in one request, then call [`Lane::left`] and [`Lane::finished`].
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
    /// Requests that were given out and have not finished.
    in_flight: usize,
    /// Those of them that have not left yet: they wait for a connection.
    leaving: usize,
    /// When the latest left.
    left_at: Option<Instant>,
    /// How long the upstream took to store a request, if it stored the latest that finished.
    round_trip: Option<Duration>,
    unmerged_until: Option<Instant>,
}

impl<F> Default for Lane<F> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            none_expires_before: None,
            in_flight: 0,
            leaving: 0,
            left_at: None,
            round_trip: None,
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

    /// Counts a request that [`next`](Self::next) gave out as on its way: it waits for a connection no more.
    pub fn left(&mut self, now: Instant) {
        self.leaving -= 1;
        self.left_at = Some(now);
    }

    /// Counts a request that has [`left`](Self::left) as finished. `round_trip` is how long the upstream took, if it
    /// stored the request.
    pub fn finished(&mut self, round_trip: Option<Duration>) {
        self.in_flight -= 1;
        self.round_trip =
            round_trip.map(|latest| self.round_trip.map_or(latest, |before| (before + latest) / 2));
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
        let is_early = self.in_flight >= inflight_max;
        let leaves_at = match is_early {
            false if gains_nothing => Some(now),
            false => Some(first.arrived() + limits.linger),
            true if gains_nothing => None,
            true => self.early(first, now, limits),
        };
        match leaves_at {
            None => return Next::Nothing,
            Some(at) if at > now => return Next::Wait(at),
            Some(_) => {}
        }
        self.in_flight += 1;
        self.leaving += 1;
        Next::Send(self.take_batch(now, limits))
    }

    /// Returns when a fragment may leave although `inflight_max` requests are in flight.
    fn early(&self, first: &F, now: Instant, limits: &LaneLimits) -> Option<Instant> {
        let (round_trip, left_at) = self.round_trip.zip(self.left_at)?;
        // If no request has ended for so long since the last one left, the upstream does not answer well any more.
        let is_late = now > left_at + 2 * round_trip;
        if self.in_flight >= limits.inflight_early_max || self.leaving > 0 || is_late {
            return None;
        }
        let wait = (round_trip * EARLY_PERCENT / 100).min(EARLY_WAIT_MAX);
        let wait = wait.saturating_sub(EARLY_SLACK).max(wait.min(EARLY_SLACK));
        Some(first.arrived() + wait.max(limits.linger))
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
        inflight_early_max: 0,
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
        lane.left(now);
        lane.finished(None);
        batch.iter().map(|item| item.id).collect()
    }

    /// A lane with one request on its way, after one that the upstream stored within `round_trip`.
    fn lane_with_one_in_flight(round_trip: Option<Duration>, now: Instant) -> Lane<Item> {
        let mut lane = lane([item(0, now)]);
        for round_trip in [Some(round_trip), None] {
            assert!(matches!(lane.next(now, &LIMITS), Next::Send(_)));
            lane.left(now);
            if let Some(round_trip) = round_trip {
                lane.finished(round_trip);
                lane.push(item(1, now));
            }
        }
        lane
    }

    #[test]
    fn the_first_is_sent_at_once_and_the_others_gather_until_it_has_finished() {
        let now = Instant::now();
        let mut lane = lane([item(0, now)]);
        assert_eq!(lane.next(now, &LIMITS), Next::Send(vec![item(0, now)]));
        (1..4).for_each(|id| lane.push(item(id, now)));
        assert_eq!(lane.next(now, &LIMITS), Next::Nothing);
        lane.left(now);
        lane.finished(None);
        assert_eq!(sent(&mut lane, now), [1, 2, 3]);
        assert!(lane.is_idle());
    }

    #[test]
    fn a_further_request_leaves_when_what_waits_has_waited_for_a_fraction_of_a_round_trip() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let limits = LaneLimits { inflight_early_max: 3, ..LIMITS };
        let mut lane = lane_with_one_in_flight(Some(ms(100)), now);
        (2..4).for_each(|id| lane.push(item(id, now + ms(u64::from(id)))));
        let due = now + ms(2 + 20) - EARLY_SLACK;
        assert_eq!(lane.next(now + ms(5), &limits), Next::Wait(due));
        let Next::Send(batch) = lane.next(due, &limits) else { panic!("nothing to send: {lane:?}") };
        assert_eq!(batch.len(), 2);

        lane.push(item(4, due));
        assert_eq!(lane.next(due + ms(50), &limits), Next::Nothing, "one waits for its connection");
        lane.left(due + ms(50));
        assert!(matches!(lane.next(due + ms(50), &limits), Next::Send(_)), "the third");
        lane.left(due + ms(50));
        lane.push(item(5, due));
        assert_eq!(lane.next(due + ms(99), &limits), Next::Nothing, "three are the most");
        lane.finished(Some(ms(300)));
        assert_eq!(lane.next(due, &limits), Next::Wait(due + ms(40) - EARLY_SLACK), "the mean of two");
    }

    #[test]
    fn nothing_leaves_early_unless_the_upstream_answers_well() {
        let now = Instant::now();
        let late = now + Duration::from_millis(2);
        let limits = LaneLimits { inflight_early_max: 3, ..LIMITS };
        let waits = |mut lane: Lane<Item>, limits: &LaneLimits| {
            lane.push(item(2, now));
            lane.next(late, limits) == Next::Nothing
        };
        assert!(waits(lane_with_one_in_flight(None, now), &limits), "the last was not stored");
        let answered = || lane_with_one_in_flight(Some(Duration::from_millis(1)), now);
        assert!(waits(answered(), &LIMITS), "it is off");
        assert!(!waits(answered(), &limits));
        let mut silent = answered();
        silent.push(item(2, now));
        assert_eq!(silent.next(late + Duration::from_nanos(1), &limits), Next::Nothing, "two round trips");
        let mut unwell = answered();
        unwell.push(item(3, now));
        assert!(matches!(unwell.next(late, &limits), Next::Send(_)));
        unwell.left(now);
        unwell.finished(None);
        assert!(waits(unwell, &limits), "an answer that stored nothing ends it");
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
        lane.left(now);
        lane.finished(None);
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
        lane.left(now);
        lane.finished(None);
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
