//! Sets of sequence numbers that cost memory only where a run of them ends.
//!
//! Nearly everything that is sent arrives, in order: so a set of a million numbers is nearly always one run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A set of numbers, kept as runs `(first, last)`: ascending, apart from each other by at least one number.
///
/// As text, and so in JSON, it is `0-99,101,103-200`; the empty set is the empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Runs(Vec<(u64, u64)>);

/// A text that is no set of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not runs of numbers such as 0-99,101")]
pub struct RunsError;

impl Runs {
    /// Adds a number; false if it is there already.
    pub fn insert(&mut self, number: u64) -> bool {
        // The first run that ends at or after the number: its own, the one that it precedes, or none.
        let at = self.0.partition_point(|&(_, last)| last < number);
        if self.0.get(at).is_some_and(|&(first, _)| first <= number) {
            return false;
        }
        let joins_left =
            at.checked_sub(1).filter(|&left| self.0.get(left).is_some_and(|run| run.1 + 1 == number));
        let joins_right = self.0.get(at).is_some_and(|run| run.0 - 1 == number);
        match (joins_left, joins_right) {
            (Some(left), true) => {
                let (_, last) = self.0.remove(at);
                self.set_last(left, last);
            }
            (Some(left), false) => self.set_last(left, number),
            (None, true) => {
                if let Some(run) = self.0.get_mut(at) {
                    run.0 = number;
                }
            }
            (None, false) => self.0.insert(at, (number, number)),
        }
        true
    }

    fn set_last(&mut self, at: usize, last: u64) {
        if let Some(run) = self.0.get_mut(at) {
            run.1 = last;
        }
    }

    /// Whether a number is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|&(_, last)| last < number);
        self.0.get(at).is_some_and(|&(first, _)| first <= number)
    }

    /// How many numbers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(first, last)| (last - first).saturating_add(1)).fold(0, u64::saturating_add)
    }

    /// How many runs: what the set costs.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no number in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The largest number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|&(_, last)| last)
    }

    /// All numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|&(first, last)| first..=last)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<(u64, u64)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match joined.last_mut() {
                Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(&&a), Some(&&b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                both.push((first, last));
            }
            if a.1 <= b.1 {
                left.next()
            } else {
                right.next()
            };
        }
        Self(both)
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        let mut holes = other.0.iter().peekable();
        for &(mut first, last) in &self.0 {
            while holes.next_if(|hole| hole.1 < first).is_some() {}
            // A hole that goes on past this run may reach into the next: it is looked at again then.
            let mut used_up = false;
            while let Some(&&(hole_first, hole_last)) = holes.peek().filter(|hole| hole.0 <= last) {
                if hole_first > first {
                    rest.push((first, hole_first - 1));
                }
                if hole_last >= last {
                    used_up = true;
                    break;
                }
                first = hole_last + 1;
                holes.next();
            }
            if !used_up {
                rest.push((first, last));
            }
        }
        Self(rest)
    }
}

impl FromIterator<u64> for Runs {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut runs = Self::default();
        for number in numbers {
            runs.insert(number);
        }
        runs
    }
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &(first, last)) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromStr for Runs {
    type Err = RunsError;

    fn from_str(text: &str) -> Result<Self, RunsError> {
        let run = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u64, u64) =
                (first.parse().map_err(|_| RunsError)?, last.parse().map_err(|_| RunsError)?);
            if first <= last { Ok((first, last)) } else { Err(RunsError) }
        };
        if text.is_empty() {
            return Ok(Self::default());
        }
        let runs: Vec<(u64, u64)> = text.split(',').map(run).collect::<Result<_, _>>()?;
        let apart = |pair: &[(u64, u64)]| matches!(pair, [a, b] if b.0 > a.1.saturating_add(1));
        if runs.windows(2).all(apart) { Ok(Self(runs)) } else { Err(RunsError) }
    }
}

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Runs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
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
            assert_eq!(runs.insert(number), set.insert(number), "{number} into {runs}");
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
                assert_eq!(&runs.iter().collect::<BTreeSet<_>>(), set, "{a} and {b} gave {runs}");
                assert_eq!(runs.count(), set.len() as u64);
                assert_eq!(runs.last(), set.last().copied());
                // The text is read back only if the runs are apart and ascending.
                assert_eq!(&runs.to_string().parse::<Runs>().unwrap(), runs);
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
        let all: Runs = (0..100_000).collect();
        assert_eq!((all.runs(), all.to_string().as_str()), (1, "0-99999"));
        for wrong in ["1-", "3-2", "a", "1,2", "5,1", "1-4,3", ","] {
            assert_eq!(wrong.parse::<Runs>(), Err(RunsError), "{wrong}");
        }
        let edge: Runs = [u64::MAX, 0, u64::MAX - 1].into_iter().collect();
        assert_eq!(edge.count(), 3);
    }
}
