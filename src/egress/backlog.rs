//! What a replay has read of its lane's stream: which parts share a request, and up to where all is stored. Pure.
//!
//! # Constraints
//! - Order within a series is kept. A sender sends a series' next sample when the one before is acknowledged, so parts
//!   of a stream may have series in common, whichever requests they came with.
//! - A request takes a round trip, and a lane has one at a time. A stream that is sent part by part never gets shorter
//!   if its tenant has more than one part in a round trip.
//! - The spool removes from a stream's front only. What was stored before others must not be sent twice, as an upstream
//!   may refuse it then: it is older than what came meanwhile.
//!
//! # Design
//! A run is a part and those behind it that may share its request, in their order. It ends at the first that may not:
//! any series may be in both. But the two replicas of an HA pair send by turns, and must not share a request. So a part
//! may *pass* others if they have no series in common for certain: if all series of each name one replica, and not the
//! same. An upstream that keeps only one replica's samples holds on to that one for much longer than a request takes,
//! so it does not matter to it which of them comes first.
//!
//! What has passed others is remembered once it is stored, until they are stored, too.

use std::collections::{BTreeMap, BTreeSet};

use crate::spool::Sequence;

/// What has to be known of a part.
pub(super) trait Waits {
    /// Whether it may share a request with `first`, which is before it.
    fn joins(&self, first: &Self) -> bool;
    /// Whether the two have no series in common, for certain.
    fn is_apart_from(&self, other: &Self) -> bool;
    /// The bytes that it adds to a request, inflated.
    fn inflated_bytes(&self) -> usize;
}

/// The oldest parts of a stream.
#[derive(Debug)]
pub(super) struct Backlog<P> {
    /// Those that are not stored yet.
    left: BTreeMap<Sequence, P>,
    /// Those that are stored.
    stored: BTreeSet<Sequence>,
    /// The last that was read. Behind it the stream may go on, also with parts that are stored.
    end: Sequence,
}

impl<P: Waits> Backlog<P> {
    /// Of what was read, from the stream's front on, and what is known to be stored.
    pub(super) fn new(read: Vec<(Sequence, P)>, stored: BTreeSet<Sequence>) -> Self {
        let end = read.last().map(|(last, _)| *last).unwrap_or_default();
        let left = read.into_iter().filter(|(sequence, _)| !stored.contains(sequence)).collect();
        Self { left, stored, end }
    }

    /// The parts that the next request carries; none if all are stored. One part if that `is_alone`.
    pub(super) fn run(&self, is_alone: bool, inflated_bytes_max: usize) -> Vec<Sequence> {
        let mut waiting = self.left.iter();
        let Some((&sequence, first)) = waiting.next() else { return Vec::new() };
        let (mut run, mut passed, mut bytes) = (vec![sequence], Vec::new(), first.inflated_bytes());
        for (&sequence, part) in waiting.take_while(|_| !is_alone) {
            if !part.joins(first) {
                if !part.is_apart_from(first) {
                    break;
                }
                passed.push(part);
                continue;
            }
            bytes += part.inflated_bytes();
            if bytes > inflated_bytes_max || !passed.iter().all(|other| part.is_apart_from(other)) {
                break;
            }
            run.push(sequence);
        }
        run
    }

    /// A part that is not stored yet.
    pub(super) fn get(&self, sequence: Sequence) -> Option<&P> {
        self.left.get(&sequence)
    }

    /// Whether these are the oldest that are not stored.
    pub(super) fn begins_with(&self, run: &[Sequence]) -> bool {
        self.left.keys().take(run.len()).eq(run)
    }

    /// How many of those that are not stored come up to the last of these.
    pub(super) fn count_to(&self, run: &[Sequence]) -> usize {
        run.last().map_or(0, |last| self.left.range(..=*last).count())
    }

    /// The upstream has stored these.
    pub(super) fn has_stored(&mut self, run: &[Sequence]) {
        for sequence in run {
            self.left.remove(sequence);
            self.stored.insert(*sequence);
        }
    }

    /// The last part up to which all are stored, if there is one; and those behind it that are stored.
    pub(super) fn into_done(self) -> (Option<Sequence>, BTreeSet<Sequence>) {
        let Self { left, stored: mut done, end } = self;
        let ahead = match left.first_key_value() {
            Some((front, _)) => done.split_off(front),
            None => done.split_off(&Sequence(end.0.saturating_add(1))),
        };
        (done.last().copied(), ahead)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A part of one replica or of several, in bits: each has its own series, and one name for its first.
    #[derive(Clone, Debug)]
    struct Part {
        replicas: u8,
        bytes: usize,
    }

    impl Part {
        fn key(&self) -> u32 {
            self.replicas.trailing_zeros()
        }

        fn is_whole(&self) -> bool {
            self.replicas.count_ones() == 1
        }
    }

    impl Waits for Part {
        fn joins(&self, first: &Self) -> bool {
            self.key() == first.key()
        }

        fn is_apart_from(&self, other: &Self) -> bool {
            self.is_whole() && other.is_whole() && self.key() != other.key()
        }

        fn inflated_bytes(&self) -> usize {
            self.bytes
        }
    }

    fn backlog(replicas: &[u8]) -> Backlog<Part> {
        let parts = (1..).map(Sequence).zip(replicas.iter().map(|&replicas| Part { replicas, bytes: 10 }));
        Backlog::new(parts.collect(), BTreeSet::new())
    }

    fn run(replicas: &[u8], inflated_bytes_max: usize) -> Vec<u64> {
        backlog(replicas).run(false, inflated_bytes_max).into_iter().map(|sequence| sequence.0).collect()
    }

    fn at(sequence: Sequence) -> usize {
        usize::try_from(sequence.0).unwrap()
    }

    #[test]
    fn parts_of_one_replica_pass_those_of_another_and_no_others() {
        assert_eq!(run(&[1, 1, 1], 100), [1, 2, 3]);
        assert_eq!(run(&[1, 2, 1, 2, 1], 100), [1, 3, 5]);
        assert_eq!(run(&[1, 2, 1, 2, 1], 20), [1, 3], "no room for the third");
        assert_eq!(run(&[1, 2, 3, 1], 100), [1], "the third has series of both");
        assert_eq!(run(&[3, 2, 1], 100), [1], "so has the first");
        assert_eq!(run(&[1, 3, 1, 2], 100), [1, 2, 3], "it may join in its place");
        assert_eq!(run(&[1], 1), [1], "too large, and alone in any case");
        assert_eq!(run(&[], 100), [0; 0]);
        assert_eq!(backlog(&[1, 1]).run(true, 100), [Sequence(1)]);
    }

    #[test]
    fn what_has_passed_others_is_done_when_they_are() {
        let mut first = backlog(&[1, 2, 1, 2]);
        let all = [1, 2, 3, 4].map(Sequence);
        assert!(first.begins_with(&all[..1]) && !first.begins_with(&[all[0], all[2]]));
        first.has_stored(&[all[0], all[2]]);
        assert_eq!((first.begins_with(&[all[1], all[3]]), first.count_to(&[all[1], all[3]])), (true, 2));
        let (done, ahead) = first.into_done();
        assert_eq!((done, &ahead), (Some(all[0]), &BTreeSet::from([all[2]])));
        // A shorter read: the third is behind it.
        let mut probe = Backlog::new(vec![(all[1], Part { replicas: 2, bytes: 1 })], ahead);
        probe.has_stored(&all[1..2]);
        let (done, ahead) = probe.into_done();
        assert_eq!((done, ahead.len()), (Some(all[1]), 1));
        let last = Backlog::new(vec![(all[2], Part { replicas: 1, bytes: 1 })], ahead);
        assert!(last.run(false, 100).is_empty());
        assert_eq!(last.into_done(), (Some(all[2]), BTreeSet::new()));
    }

    proptest! {
        /// Whatever is read and stored: each part is sent once, a series' parts in their order, and only what is stored
        /// is removed.
        #[test]
        fn each_part_is_stored_once_and_each_series_in_order(
            replicas in prop::collection::vec(1u8..8, 1..40),
            turns in prop::collection::vec((1usize..12, 0usize..4, 5usize..60, any::<bool>()), 1..60),
        ) {
            let parts: Vec<(Sequence, Part)> =
                (1..).map(Sequence).zip(replicas.iter().map(|&replicas| Part { replicas, bytes: 10 })).collect();
            let (mut removed, mut stored, mut sent) = (0, BTreeSet::new(), Vec::new());
            // At last, all that is left goes through.
            let turns = turns.into_iter().chain(std::iter::repeat_n((40, 40, 60, false), 45));
            for (read, requests, bytes_max, is_alone) in turns {
                let read = parts[removed..].iter().take(read).cloned().collect();
                let mut backlog = Backlog::new(read, std::mem::take(&mut stored));
                for _ in 0..requests {
                    let run = backlog.run(is_alone, bytes_max);
                    sent.extend(run.iter().map(|sequence| at(*sequence) - 1));
                    backlog.has_stored(&run);
                }
                let (done, ahead) = backlog.into_done();
                removed = done.map_or(removed, at);
                stored = ahead;
                prop_assert!((0..removed).all(|at| sent.contains(&at)), "{removed} {sent:?}");
            }
            prop_assert_eq!((removed, sent.len(), stored.len()), (parts.len(), parts.len(), 0));
            for bit in 0..3 {
                let of: Vec<_> = sent.iter().filter(|at| replicas[**at] & 1 << bit != 0).collect();
                prop_assert!(of.is_sorted_by(|a, b| a < b), "{of:?} of {sent:?}");
            }
        }
    }
}
