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
    lane.finished(is_never_merged(&batch[0]), None);
    batch.iter().map(|item| item.id).collect()
}

/// A lane with one request on its way, after one that the upstream stored within `round_trip`.
fn lane_with_one_in_flight(round_trip: Option<Duration>, now: Instant) -> Lane<Item> {
    let mut lane = lane([item(0, now)]);
    for round_trip in [Some(round_trip), None] {
        assert!(matches!(lane.next(now, &LIMITS), Next::Send(_)));
        lane.left(now);
        if let Some(round_trip) = round_trip {
            lane.finished(false, round_trip);
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
    lane.finished(false, None);
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
    lane.finished(false, Some(ms(300)));
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
    unwell.finished(false, None);
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
fn what_goes_alone_and_what_is_merged_do_not_wait_for_each_other() {
    let now = Instant::now();
    let single = |id| Item { key: MergeKey::Alone, ..item(id, now) };
    let next = |lane: &mut Lane<Item>| match lane.next(now, &LIMITS) {
        Next::Send(batch) => {
            lane.left(now);
            batch.iter().map(|item| item.id).collect()
        }
        _ => Vec::new(),
    };
    let mut lane = lane([single(0), item(1, now), item(2, now), single(3), single(4), item(5, now)]);
    assert_eq!([next(&mut lane), next(&mut lane)], [vec![0], vec![1, 2, 5]]);
    lane.push(item(6, now));
    assert_eq!(next(&mut lane), [3], "the second request of merged fragments waits, but this passes it");
    lane.push(item(7, now));
    assert_eq!(next(&mut lane), Vec::<u32>::new(), "three are the most");
    lane.finished(true, None);
    assert_eq!(next(&mut lane), [4]);
    lane.finished(false, None);
    lane.push(single(8));
    assert_eq!(next(&mut lane), [6, 7], "what waits to be merged comes first when it may leave");
    assert_eq!((lane.singles_waiting, lane.singles_in_flight, lane.waiting_bytes), (1, 2, 10));
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
    lane.finished(false, None);
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
    lane.finished(false, None);
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
