//! Which stamped samples a sink has stored: under whom, how often, and in what order.
//!
//! Constraints that shaped it:
//! - It is for proofs, not for measuring: each sample is looked at.
//! - Memory must not grow with time. All goes well for nearly all samples, and then a series costs one run however long
//!   it lasts; what goes wrong costs a *cell* each time (a run, a repeated or a late number), and there are at most
//!   [`CELLS_MAX`] cells. Past that, samples are counted as untracked, and no audit of such an account holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::runs::Runs;
use crate::stamp::{Damaged, SenderId, Stamp};

/// What an account may hold: a cell is a series, a run of numbers, or a number that came again. At 100 bytes or less
/// each, some 200 MB.
pub const CELLS_MAX: usize = 2 << 20;

/// Damaged samples that are described.
const EXAMPLES_MAX: usize = 5;

/// Whose samples, meant for whom, are stored under whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Path {
    /// Who sent them.
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

    fn cells(&self) -> usize {
        let lists = self.again.len() + self.untold.len();
        let runs = self.stored.runs() + self.late.runs() + self.late_untold.runs();
        // Whatever is stored has a run.
        runs + lists + usize::from(runs > 0)
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

/// The account of a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullAccount {
    strands: Strands,
    damaged: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    damaged_examples: Vec<String>,
    untracked: u64,
}

/// Series by number.
type Tracks = BTreeMap<u32, Track>;

/// Each path's series. In JSON a list, as keys have to be texts there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(Path, Tracks)>", into = "Vec<(Path, Tracks)>")]
struct Strands {
    tracks: BTreeMap<Path, Tracks>,
    cells: usize,
}

impl Strands {
    /// Changes the track of the series that `stamp` names.
    fn change(&mut self, header: &str, stamp: &Stamp<'_>, change: impl FnOnce(&mut Track)) {
        let path = Path { sender: stamp.sender, tenant: stamp.tenant.to_owned(), header: header.to_owned() };
        let track = self.tracks.entry(path).or_default().entry(stamp.series).or_default();
        let before = track.cells();
        change(track);
        self.cells = (self.cells + track.cells()).saturating_sub(before);
    }
}

impl FullAccount {
    /// Notes a sample that is stored under `header`, and whose sender is told so.
    pub fn store(&mut self, header: &str, stamp: &Stamp<'_>) {
        self.store_within(CELLS_MAX, header, stamp, true);
    }

    /// Notes a sample that is stored under `header`, though its sender is told otherwise, or nothing.
    pub fn store_untold(&mut self, header: &str, stamp: &Stamp<'_>) {
        self.store_within(CELLS_MAX, header, stamp, false);
    }

    /// Takes back that the sender of a stored sample was told so: the answer could not be sent after all.
    pub fn untell(&mut self, header: &str, stamp: &Stamp<'_>) {
        self.strands.change(header, stamp, |track| {
            if track.untold(stamp.sequence) < track.copies(stamp.sequence) {
                *track.untold.entry(stamp.sequence).or_default() += 1;
            }
        });
    }

    fn store_within(&mut self, cells_max: usize, header: &str, stamp: &Stamp<'_>, is_told: bool) {
        if self.strands.cells >= cells_max {
            self.untracked += 1;
        } else {
            self.strands.change(header, stamp, |track| track.insert(stamp.sequence, is_told));
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
        self.strands.tracks.iter()
    }

    /// Stored samples (or whole series) whose stamp is not whole, and what the first of them were.
    pub fn damaged(&self) -> (u64, &[String]) {
        (self.damaged, &self.damaged_examples)
    }

    /// Samples that found the account full, see [`CELLS_MAX`].
    pub fn untracked(&self) -> u64 {
        self.untracked
    }
}

impl From<Strands> for Vec<(Path, Tracks)> {
    fn from(strands: Strands) -> Self {
        strands.tracks.into_iter().collect()
    }
}

impl From<Vec<(Path, Tracks)>> for Strands {
    fn from(tracks: Vec<(Path, Tracks)>) -> Self {
        let cells = tracks.iter().flat_map(|(_, tracks)| tracks.values()).map(Track::cells).sum();
        Self { tracks: tracks.into_iter().collect(), cells }
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
            account.store(header, &stamp(series, sequence));
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
            ..Track::default()
        };
        assert_eq!(track(&account, 0), expected);
        assert_eq!(track(&account, 1), Track { stored: runs(&[(3, 3)]), ..Track::default() });
    }

    #[test]
    fn copies_that_nobody_was_told_of_are_told_apart() {
        let mut account = FullAccount::default();
        for (sequence, is_told) in [(0, false), (0, true), (2, true), (1, false), (1, false), (1, true)] {
            match is_told {
                true => account.store("a", &stamp(0, sequence)),
                false => account.store_untold("a", &stamp(0, sequence)),
            }
        }
        let track = track(&account, 0);
        let late = runs(&[(1, 1)]);
        assert_eq!((&track.late, &track.late_untold), (&late, &late));
        assert_eq!([0, 1, 2, 3].map(|sequence| track.copies(sequence)), [2, 3, 1, 0]);
        assert_eq!([0, 1, 2, 3].map(|sequence| track.untold(sequence)), [1, 2, 0, 0]);
        assert_eq!(track.cells(), account.strands.cells);

        for (sequence, untold) in [(0, 2), (2, 1), (2, 1), (3, 0)] {
            account.untell("a", &stamp(0, sequence));
            assert_eq!(self::track(&account, 0).untold(sequence), untold, "no more than there are copies");
        }
        assert_eq!(self::track(&account, 0).cells(), account.strands.cells);
    }

    #[test]
    fn as_json_a_series_is_short_and_comes_back_as_it_was() {
        let all: Vec<(u32, u64)> =
            (0..1000).flat_map(|sequence| (0..50).map(move |s| (s, sequence))).collect();
        let mut account = account("eu-a", &all);
        account.store("b", &stamp(0, 0));
        account.store("eu-a", &stamp(7, 999));
        account.store_untold("eu-a", &stamp(8, 3));
        account.store_damaged("b", Damaged::Sample);
        let json = serde_json::to_string(&account).unwrap();
        assert!(json.contains(r#""6":{"stored":[[0,999]]},"7""#), "{json}");
        assert_eq!(serde_json::from_str::<FullAccount>(&json).unwrap(), account);
    }

    #[test]
    fn memory_is_bounded_and_what_is_not_tracked_is_counted() {
        let mut account = FullAccount::default();
        let (most, sent) = (1000, 2000);
        for sequence in 0..sent {
            // Every second number: each is a run of its own.
            account.store_within(most, "a", &stamp(0, 2 * sequence), true);
        }
        assert_eq!(account.strands.cells, most);
        let stored = track(&account, 0).stored.count();
        assert_eq!((stored, account.untracked()), (999, sent - 999));
        // What comes again or late costs room as well.
        for times in 0..2 {
            account.store_within(most + 2, "a", &stamp(0, 0), true);
            assert_eq!(account.strands.cells, most + 2, "{times}");
        }
        assert_eq!(account.untracked(), sent - 999 + 1);
    }
}
