//! Sets of sequence numbers that cost memory only where a run of them ends.
//!
//! Nearly everything that is sent arrives, in order: so a set of a million numbers is nearly always one run.

use rangemap::RangeInclusiveSet;
use serde::{Deserialize, Serialize};

/// A set of numbers, kept as runs that are apart from each other by at least one number.
///
/// In JSON it is the first and the last number of each run: `[[0,99],[101,101]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "Vec<(u64, u64)>", try_from = "Vec<(u64, u64)>")]
pub struct Runs(RangeInclusiveSet<u64>);

impl Runs {
    /// Adds a number; false if it is there already.
    pub fn insert(&mut self, number: u64) -> bool {
        let is_new = !self.contains(number);
        if is_new {
            self.0.insert(number..=number);
        }
        is_new
    }

    /// Whether a number is in the set.
    pub fn contains(&self, number: u64) -> bool {
        self.0.contains(&number)
    }

    /// How many numbers.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|run| (run.end() - run.start()).saturating_add(1)).fold(0, u64::saturating_add)
    }

    /// How many runs: what the set costs.
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no number in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The largest number.
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|run| *run.end())
    }

    /// All numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().cloned().flatten()
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.0.extend(other.0.iter().cloned());
        all
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).collect())
    }

    /// What is in this and not in the other.
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        other.0.iter().for_each(|run| rest.0.remove(run.clone()));
        rest
    }
}

impl From<Runs> for Vec<(u64, u64)> {
    fn from(runs: Runs) -> Self {
        runs.0.iter().map(|run| (*run.start(), *run.end())).collect()
    }
}

impl TryFrom<Vec<(u64, u64)>> for Runs {
    type Error = &'static str;

    fn try_from(runs: Vec<(u64, u64)>) -> Result<Self, Self::Error> {
        if runs.iter().any(|(first, last)| first > last) {
            return Err("a run of numbers ends before it begins");
        }
        Ok(Self(runs.into_iter().map(|(first, last)| first..=last).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::Random;

    fn drawn(random: &mut Random, count: u64) -> (Runs, BTreeSet<u64>) {
        let numbers: Vec<u64> = (0..count).map(|_| random.below(60)).collect();
        let mut runs = Runs::default();
        let mut set = BTreeSet::new();
        for number in numbers {
            assert_eq!(runs.insert(number), set.insert(number), "{number} into {runs:?}");
        }
        (runs, set)
    }

    /// Everything that a set can do, against the standard library's.
    #[test]
    fn it_is_a_set() {
        let mut random = Random::new(5, 1);
        for round in 0..500 {
            let (a, set_a) = drawn(&mut random, round % 80);
            let (b, set_b) = drawn(&mut random, (round * 7) % 50);
            let same = |runs: &Runs, set: &BTreeSet<u64>| {
                assert_eq!(&runs.iter().collect::<BTreeSet<_>>(), set, "{a:?} and {b:?} gave {runs:?}");
                assert_eq!(runs.count(), set.len() as u64);
                assert_eq!(runs.last(), set.last().copied());
                let json = serde_json::to_string(runs).unwrap();
                assert_eq!(&serde_json::from_str::<Runs>(&json).unwrap(), runs, "{json}");
            };
            same(&a, &set_a);
            same(&a.union(&b), &(&set_a | &set_b));
            same(&a.intersection(&b), &(&set_a & &set_b));
            same(&a.minus(&b), &(&set_a - &set_b));
            assert!((0..60).all(|number| a.contains(number) == set_a.contains(&number)));
        }
    }

    #[test]
    fn what_arrives_in_order_is_one_run() {
        let mut all = Runs::default();
        assert!((0..100_000).all(|number| all.insert(number)));
        assert_eq!((all.runs(), serde_json::to_string(&all).unwrap().as_str()), (1, "[[0,99999]]"));
        for wrong in ["[[3,2]]", "[1,2]", "[[1]]", "[[-1,2]]", "[[0,18446744073709551616]]"] {
            assert!(serde_json::from_str::<Runs>(wrong).is_err(), "{wrong}");
        }
        let mut edge = Runs::default();
        assert!([u64::MAX, 0, u64::MAX - 1].into_iter().all(|number| edge.insert(number)));
        assert_eq!((edge.count(), edge.runs()), (3, 2));
    }
}
