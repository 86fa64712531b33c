//! Which stamped samples a sink has stored: under whom, how often, and in what order.
//!
//! Constraints that shaped it:
//! - It is for proofs, not for measuring: each sample is looked at.
//! - Memory must not grow with time. All goes well for nearly all samples, and then a series costs one run however long
//!   it lasts; only what goes wrong costs a run, a repeated or a late number each time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::runs::Runs;
use crate::stamp::{Damaged, SenderId, Stamp};

/// Damaged samples that are described.
const EXAMPLES_MAX: usize = 5;

/// Whose samples, meant for whom, are stored under whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Path {
    /// Their sender.
    pub sender: SenderId,
    /// The tenant that they are meant for.
    pub tenant: String,
    /// The tenant that they are stored under, as its header names it.
    pub header: String,
}

/// What is stored of one series.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Track {
    /// Sequence numbers that are stored, however often.
    pub stored: Runs,
    /// How many times more than once, for each number that was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub again: BTreeMap<u64, u32>,
    /// Numbers that were stored after a larger one.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    pub late: Runs,
    /// Numbers whose first copy was stored after a larger one.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    pub late_first: Runs,
    /// How many of each number's copies were stored without their sender being told so, for each number that had such.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub untold: BTreeMap<u64, u32>,
    /// Numbers of which such a copy was stored after a larger one. They are not in `late`.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    pub late_untold: Runs,
}

impl Track {
    fn insert(&mut self, sequence: u64, is_told: bool) {
        if self.stored.last().is_some_and(|last| sequence < last) {
            let late = if is_told { &mut self.late } else { &mut self.late_untold };
            late.insert(sequence);
            if !self.stored.contains(sequence) {
                self.late_first.insert(sequence);
            }
        }
        if !is_told {
            let copies = self.untold.entry(sequence).or_default();
            *copies = copies.saturating_add(1);
        }
        if !self.stored.insert(sequence) {
            let times = self.again.entry(sequence).or_default();
            *times = times.saturating_add(1);
        }
    }

    /// How many times a number is stored.
    pub fn copies(&self, sequence: u64) -> u32 {
        let again = self.again.get(&sequence).copied().unwrap_or_default();
        again.saturating_add(u32::from(self.stored.contains(sequence)))
    }

    /// How many times all numbers together are stored.
    pub fn all_copies(&self) -> u64 {
        self.stored.count() + self.again.values().map(|&times| u64::from(times)).sum::<u64>()
    }

    /// How many copies of a number are stored without their sender being told so.
    pub fn untold(&self, sequence: u64) -> u32 {
        self.untold.get(&sequence).copied().unwrap_or_default()
    }
}

/// Series by number.
type Tracks = BTreeMap<u32, Track>;

/// The account of a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullAccount {
    #[serde(with = "pairs")]
    strands: BTreeMap<Path, Tracks>,
    damaged: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    damaged_examples: Vec<String>,
}

impl FullAccount {
    fn track(&mut self, header: &str, stamp: &Stamp<'_>) -> &mut Track {
        let path = Path { sender: stamp.sender, tenant: stamp.tenant.to_owned(), header: header.to_owned() };
        self.strands.entry(path).or_default().entry(stamp.series).or_default()
    }

    /// Notes a sample that is stored under `header`, and whether its sender is told so.
    pub fn store(&mut self, header: &str, stamp: &Stamp<'_>, is_told: bool) {
        self.track(header, stamp).insert(stamp.sequence, is_told);
    }

    /// Takes back that the sender of a stored sample was told so: the answer could not be sent after all.
    pub fn untell(&mut self, header: &str, stamp: &Stamp<'_>) {
        let track = self.track(header, stamp);
        if track.untold(stamp.sequence) < track.copies(stamp.sequence) {
            *track.untold.entry(stamp.sequence).or_default() += 1;
        }
    }

    /// Notes what is stored under `header` and bears no whole stamp.
    pub fn store_damaged(&mut self, header: &str, damaged: Damaged) {
        self.damaged += 1;
        if self.damaged_examples.len() < EXAMPLES_MAX {
            self.damaged_examples.push(format!("under {header}: {damaged}"));
        }
    }

    /// All paths, and each one's series by number.
    pub fn strands(&self) -> impl Iterator<Item = (&Path, &BTreeMap<u32, Track>)> {
        self.strands.iter()
    }

    /// Stored samples (or whole series) whose stamp is not whole, and what the first of them were.
    pub fn damaged(&self) -> (u64, &[String]) {
        (self.damaged, &self.damaged_examples)
    }
}

/// A map as a list of pairs: in JSON, keys have to be texts.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Path, Tracks};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<Path, Tracks>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<Path, Tracks>, D::Error> {
        Ok(Vec::<(Path, Tracks)>::deserialize(from)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(runs: &[(u64, u64)]) -> Runs {
        runs.to_vec().try_into().unwrap()
    }

    const SENDER: SenderId = SenderId { run: 1, index: 2 };

    fn stamp(series: u32, sequence: u64) -> Stamp<'static> {
        Stamp { tenant: "a", sender: SENDER, series, sequence }
    }

    fn account(header: &str, stored: &[(u32, u64)]) -> FullAccount {
        let mut account = FullAccount::default();
        for &(series, sequence) in stored {
            account.store(header, &stamp(series, sequence), true);
        }
        account
    }

    fn track(account: &FullAccount, series: u32) -> Track {
        account.strands().next().unwrap().1[&series].clone()
    }

    #[test]
    fn again_and_late_are_told_apart() {
        let account = account("a", &[(0, 0), (0, 1), (0, 1), (0, 1), (0, 4), (0, 3), (1, 3), (0, 4)]);
        let expected = Track {
            stored: runs(&[(0, 1), (3, 4)]),
            again: BTreeMap::from([(1, 2), (4, 1)]),
            late: runs(&[(3, 3)]),
            late_first: runs(&[(3, 3)]),
            ..Track::default()
        };
        assert_eq!(track(&account, 0), expected);
        assert_eq!(track(&account, 1), Track { stored: runs(&[(3, 3)]), ..Track::default() });
    }

    #[test]
    fn copies_that_nobody_was_told_of_are_told_apart() {
        let mut account = FullAccount::default();
        for (sequence, is_told) in [(0, false), (0, true), (2, true), (1, false), (1, false), (1, true)] {
            account.store("a", &stamp(0, sequence), is_told);
        }
        let track = track(&account, 0);
        let late = runs(&[(1, 1)]);
        assert_eq!((&track.late, &track.late_untold), (&late, &late));
        assert_eq!([0, 1, 2, 3].map(|sequence| track.copies(sequence)), [2, 3, 1, 0]);
        assert_eq!([0, 1, 2, 3].map(|sequence| track.untold(sequence)), [1, 2, 0, 0]);

        for (sequence, untold) in [(0, 2), (2, 1), (2, 1), (3, 0)] {
            account.untell("a", &stamp(0, sequence));
            assert_eq!(self::track(&account, 0).untold(sequence), untold, "no more than there are copies");
        }
    }

    #[test]
    fn as_json_a_series_is_short_and_comes_back_as_it_was() {
        let all: Vec<(u32, u64)> =
            (0..1000).flat_map(|sequence| (0..50).map(move |s| (s, sequence))).collect();
        let mut account = account("eu-a", &all);
        account.store("b", &stamp(0, 0), true);
        account.store("eu-a", &stamp(7, 999), true);
        account.store("eu-a", &stamp(8, 3), false);
        account.store_damaged("b", Damaged::Sample);
        let json = serde_json::to_string(&account).unwrap();
        assert!(json.contains(r#""6":{"stored":[[0,999]]},"7""#), "{json}");
        assert_eq!(serde_json::from_str::<FullAccount>(&json).unwrap(), account);
    }
}
