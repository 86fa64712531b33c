//! Compares what senders know with what a sink stored, sample by sample.
//!
//! Constraints that shaped it:
//! - Each kind of fault has a name, a count, and examples that can be looked up.
//! - What remote write allows is reported, but is no fault. A request without a clear answer is sent again, so each
//!   doubtful attempt explains one more copy and one late arrival. A refused request may be stored in part.
//! - A sink may store a request although its sender is told otherwise, or hears nothing. Such an *untold* copy explains
//!   itself. Only the other copies are counted against attempts.
//! - The account may hold other runs. Their senders are skipped.
//!
//! A sample under a wrong tenant is *misplaced*, and not lost as well. *Lost* is what is stored nowhere.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;

use crate::account::{FullAccount, Track};
use crate::journal::{Entries, Journal};
use crate::runs::Runs;
use crate::stamp::SenderId;

/// Examples that a finding brings along.
pub const EXAMPLES_MAX: usize = 5;

/// One sample, to look for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The tenant that it is meant for.
    pub tenant: String,
    /// Its sender.
    pub sender: SenderId,
    /// Which of the sender's series of the tenant.
    pub series: u32,
    /// Which of the sender's requests for the tenant.
    pub sequence: u64,
    /// The tenant that it is stored under, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_under: Option<String>,
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, sender, series, sequence, .. } = self;
        write!(f, "{tenant}: sender {sender}, series {series}, sequence {sequence}")?;
        match &self.stored_under {
            Some(header) => write!(f, ", under {header}"),
            None => Ok(()),
        }
    }
}

/// What was found of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How many samples; one that is there three times too often counts three times.
    pub samples: u64,
    /// Some of them, each of another request.
    pub examples: Vec<Example>,
}

/// The comparison of a [`Journal`] with a [`FullAccount`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Samples that were acknowledged.
    pub acknowledged: u64,
    /// Different samples that are stored where they belong.
    pub stored: u64,
    /// Acknowledged, and stored nowhere.
    pub lost: Finding,
    /// Stored more often than there were attempts that could have done it.
    pub duplicated: Finding,
    /// Stored under another tenant than the intended.
    pub misplaced: Finding,
    /// Stored after a later one of the same series, though no attempt of its request was doubtful.
    pub reordered: Finding,
    /// Stored, but never sent.
    pub invented: Finding,
    /// Stored, with a stamp that is not whole. (Of all runs: a damaged stamp may not tell whose it is.)
    pub damaged: u64,
    /// What was damaged about the first of them.
    pub damaged_examples: Vec<String>,
    /// Lawful: stored more than once, as an attempt was doubtful or the copy untold.
    pub duplicated_lawfully: Finding,
    /// Lawful: stored after a later one, as an attempt was doubtful or the copy untold.
    pub reordered_lawfully: Finding,
    /// Lawful where requests hold several tenants, or are split: refused, and stored.
    pub stored_though_refused: Finding,
    /// Lawful: given up by their senders, and stored.
    pub stored_though_unknown: u64,
    /// Lawful: given up by their senders, and not stored.
    pub missing_as_unknown: u64,
}

impl Audit {
    /// Compares. `prefix` is what the server puts before each tenant's name in its header.
    pub fn new(journal: &Journal, account: &FullAccount, prefix: &str) -> Self {
        Self::by(journal, account, prefix, Delivery::Once)
    }

    /// Compares what a server with a spool has done: it tells senders that it has what it sends later, at least once.
    /// So each sample may be stored again, whatever its sender knows. But the first copies are in order.
    pub fn at_least_once(journal: &Journal, account: &FullAccount, prefix: &str) -> Self {
        Self::by(journal, account, prefix, Delivery::AtLeastOnce)
    }

    fn by(journal: &Journal, account: &FullAccount, prefix: &str, delivery: Delivery) -> Self {
        let (damaged, examples) = account.damaged();
        let mut audit = Self { damaged, damaged_examples: examples.to_vec(), ..Self::default() };
        let mut stored: BTreeMap<(SenderId, &str), Vec<Place<'_>>> = BTreeMap::new();
        for (path, tracks) in account.strands() {
            let is_right = path.header.strip_prefix(prefix) == Some(&path.tenant);
            let place = Place { wrong: (!is_right).then_some(&path.header), tracks };
            stored.entry((path.sender, &path.tenant)).or_default().push(place);
        }
        for (sender, tenant, entries) in journal.entries() {
            let places = stored.get(&(sender, tenant)).map_or(&[][..], Vec::as_slice);
            let strand = Strand { sender, tenant, entries, places };
            for series in 0..entries.series {
                audit.series(&strand, series, delivery);
            }
        }
        audit.invented(journal, account);
        audit
    }

    /// Whether nothing is found that the rules do not allow.
    pub fn holds(&self) -> bool {
        self.faults().iter().all(|(_, finding)| finding.samples == 0) && self.damaged == 0
    }

    /// What the rules do not allow, by name.
    pub fn faults(&self) -> [(&'static str, &Finding); 5] {
        [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("misplaced", &self.misplaced),
            ("reordered", &self.reordered),
            ("invented", &self.invented),
        ]
    }

    /// One series of one sender and tenant.
    fn series(&mut self, strand: &Strand<'_>, series: u32, delivery: Delivery) {
        let entries = strand.entries;
        let example = |sequence, stored_under: Option<&str>| Example {
            tenant: strand.tenant.to_owned(),
            sender: strand.sender,
            series,
            sequence,
            stored_under: stored_under.map(str::to_owned),
        };
        let nothing = Track::default();
        let mut right = &nothing;
        let mut anywhere = Runs::default();
        for Place { wrong, tracks } in strand.places {
            let Some(track) = tracks.get(&series) else { continue };
            anywhere = anywhere.union(&track.stored);
            match wrong {
                None => right = track,
                Some(header) => {
                    self.misplaced
                        .note(track.all_copies(), track.stored.iter(), |at| example(at, Some(header)));
                }
            }
        }
        let all = |finding: &mut Finding, what: Runs| {
            finding.note(what.count(), what.iter(), |at| example(at, None));
        };
        all(&mut self.lost, entries.acknowledged.minus(&anywhere));
        all(&mut self.stored_though_refused, entries.refused.intersection(&right.stored));
        for &sequence in right.again.keys() {
            let (copies, untold) = (right.copies(sequence), right.untold(sequence));
            let again = copies.saturating_sub(1);
            let told_max = entries.again_max(sequence).saturating_add(1);
            let unlawful = match delivery {
                Delivery::Once => copies.saturating_sub(untold).saturating_sub(told_max).min(again),
                Delivery::AtLeastOnce => 0,
            };
            for (finding, count) in
                [(&mut self.duplicated, unlawful), (&mut self.duplicated_lawfully, again - unlawful)]
            {
                let at = (count > 0).then_some(sequence).into_iter();
                finding.note(u64::from(count), at, |at| example(at, None));
            }
        }
        for sequence in right.late.iter() {
            let is_repeat = delivery == Delivery::AtLeastOnce && !right.late_first.contains(sequence);
            let lawful = is_repeat || entries.doubtful(sequence) > 0;
            let finding = if lawful { &mut self.reordered_lawfully } else { &mut self.reordered };
            finding.note(1, std::iter::once(sequence), |at| example(at, None));
        }
        all(&mut self.reordered_lawfully, right.late_untold.minus(&right.late));
        self.acknowledged += entries.acknowledged.count();
        self.stored += right.stored.count();
        let unknown_stored = entries.unknown.intersection(&right.stored).count();
        self.stored_though_unknown += unknown_stored;
        self.missing_as_unknown += entries.unknown.count() - unknown_stored;
    }

    /// What the journal's runs are said to have sent and did not.
    fn invented(&mut self, journal: &Journal, account: &FullAccount) {
        let runs: HashSet<u64> = journal.entries().map(|(sender, ..)| sender.run).collect();
        for (path, tracks) in account.strands().filter(|(path, _)| runs.contains(&path.sender.run)) {
            let entries = journal.of(path.sender, &path.tenant);
            let sent = entries.map(Entries::sent).unwrap_or_default();
            let series_max = entries.map_or(0, |entries| entries.series);
            for (&series, track) in tracks {
                let invented =
                    if series < series_max { track.stored.minus(&sent) } else { track.stored.clone() };
                self.invented.note(invented.count(), invented.iter(), |sequence| Example {
                    tenant: path.tenant.clone(),
                    sender: path.sender,
                    series,
                    sequence,
                    stored_under: Some(path.header.clone()),
                });
            }
        }
    }
}

impl Finding {
    /// Counts samples; `sequences` are theirs, and the first requests that no example shows yet become examples.
    fn note(&mut self, samples: u64, sequences: impl Iterator<Item = u64>, example: impl Fn(u64) -> Example) {
        self.samples += samples;
        for example in sequences.take(EXAMPLES_MAX).map(example) {
            if self.examples.len() >= EXAMPLES_MAX {
                return;
            }
            let is_shown = self.examples.iter().any(|shown| {
                (&shown.tenant, shown.sender, shown.sequence)
                    == (&example.tenant, example.sender, example.sequence)
            });
            if !is_shown {
                self.examples.push(example);
            }
        }
    }
}

/// What a server may do with what it has acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// It acknowledges what is stored.
    Once,
    /// It acknowledges what it sends later.
    AtLeastOnce,
}

/// A sender's requests for a tenant, and what is stored of them.
struct Strand<'a> {
    sender: SenderId,
    tenant: &'a str,
    entries: &'a Entries,
    places: &'a [Place<'a>],
}

/// Where some of it is stored.
struct Place<'a> {
    /// The header that it is under, if that is another tenant's.
    wrong: Option<&'a String>,
    tracks: &'a BTreeMap<u32, Track>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Fate, Settled};
    use crate::stamp::{Damaged, Stamp};

    const SENDER: SenderId = SenderId { run: 9, index: 0 };

    /// Two series in each request, for tenant `a`; requests 0 to 4, acknowledged unless `settle` says otherwise, with
    /// how many attempts were doubtful.
    fn journal(settle: &[(u64, Settled, u32)]) -> Journal {
        let mut entries = Entries::new(2);
        for sequence in 0..5 {
            let told = settle.iter().find(|(at, ..)| *at == sequence);
            let (_, settled, doubtful) = *told.unwrap_or(&(sequence, Settled::Acknowledged, 0));
            entries.settle(sequence, Fate { settled, unsettled: doubtful, doubtful });
        }
        let mut journal = Journal::default();
        journal.add(SENDER, "a", entries);
        journal
    }

    fn stamp(series: u32, sequence: u64) -> Stamp<'static> {
        Stamp { tenant: "a", sender: SENDER, series, sequence }
    }

    /// Stores both series of these requests under these headers.
    fn account(stored: &[(&str, u64)]) -> FullAccount {
        let mut account = FullAccount::default();
        for &(header, sequence) in stored {
            account.store(header, &stamp(0, sequence), true);
            account.store(header, &stamp(1, sequence), true);
        }
        account
    }

    const ALL: [(&str, u64); 5] = [("p-a", 0), ("p-a", 1), ("p-a", 2), ("p-a", 3), ("p-a", 4)];

    fn audit(settle: &[(u64, Settled, u32)], stored: &[(&str, u64)]) -> Audit {
        Audit::new(&journal(settle), &account(stored), "p-")
    }

    /// The names of what is found, and how many samples of each.
    fn found(audit: &Audit) -> Vec<(&'static str, u64)> {
        let lawful = [
            ("duplicated lawfully", &audit.duplicated_lawfully),
            ("reordered lawfully", &audit.reordered_lawfully),
            ("though refused", &audit.stored_though_refused),
        ];
        let all = audit.faults().into_iter().chain(lawful);
        all.map(|(name, finding)| (name, finding.samples)).filter(|(_, samples)| *samples > 0).collect()
    }

    #[test]
    fn all_is_well() {
        let audit = audit(&[], &ALL);
        assert!(audit.holds());
        assert_eq!((audit.acknowledged, audit.stored), (10, 10));
        assert_eq!(found(&audit), []);
    }

    #[test]
    fn each_fault_has_its_name_and_no_other() {
        let lost = audit(&[], &[ALL[0], ALL[1], ALL[3], ALL[4]]);
        assert_eq!(found(&lost), [("lost", 2)]);
        let example = "a: sender 9-0, series 0, sequence 2";
        assert_eq!(lost.lost.examples.iter().map(ToString::to_string).collect::<Vec<_>>(), [example]);
        let all_lost = audit(&[], &[]).lost;
        let sequences: Vec<u64> = all_lost.examples.iter().map(|example| example.sequence).collect();
        assert_eq!((all_lost.samples, sequences), (10, vec![0, 1, 2, 3, 4]), "each of another request");

        let duplicated = audit(&[], &[ALL[0], ALL[1], ALL[1], ALL[1], ALL[2], ALL[3], ALL[4]]);
        assert_eq!(found(&duplicated), [("duplicated", 4)]);

        let misplaced = audit(&[], &[ALL[0], ("p-b", 1), ALL[2], ALL[3], ALL[4]]);
        assert_eq!(found(&misplaced), [("misplaced", 2)]);
        assert_eq!(misplaced.misplaced.examples[0].stored_under.as_deref(), Some("p-b"));
        assert_eq!(found(&audit(&[], &[&ALL[..], &[("a", 1)]].concat())), [("misplaced", 2)]);

        let reordered = audit(&[], &[ALL[0], ALL[2], ALL[1], ALL[3], ALL[4]]);
        assert_eq!(found(&reordered), [("reordered", 2)]);
        assert_eq!(reordered.reordered.examples[0].sequence, 1);

        let spooled = |stored| found(&Audit::at_least_once(&journal(&[]), &account(stored), "p-"));
        let again = [ALL[0], ALL[1], ALL[0], ALL[1], ALL[2], ALL[3], ALL[4]];
        assert_eq!(spooled(&again), [("duplicated lawfully", 4), ("reordered lawfully", 2)]);
        assert_eq!(spooled(&[ALL[0], ALL[2], ALL[1], ALL[3], ALL[4]]), [("reordered", 2)]);
        assert_eq!(spooled(&ALL[1..]), [("lost", 2)]);

        let invented = audit(&[], &[&ALL[..], &[("p-a", 5)]].concat());
        assert_eq!(found(&invented), [("invented", 2)]);
        for audit in [lost, duplicated, misplaced, reordered, invented] {
            assert!(!audit.holds());
        }
    }

    #[test]
    fn a_sender_a_tenant_or_a_series_that_is_not_ours_is_invented_if_the_run_is_ours() {
        let mut account = account(&ALL);
        let others = SenderId { run: 8, index: 0 };
        account.store("p-a", &Stamp { sender: others, ..stamp(0, 0) }, true);
        assert!(Audit::new(&journal(&[]), &account, "p-").holds(), "another run is nobody's business");
        account.store("p-a", &stamp(2, 0), true);
        account.store("p-c", &Stamp { tenant: "c", ..stamp(0, 0) }, true);
        account.store("p-a", &Stamp { sender: SenderId { run: 9, index: 1 }, ..stamp(0, 0) }, true);
        assert_eq!(found(&Audit::new(&journal(&[]), &account, "p-")), [("invented", 3)]);
    }

    #[test]
    fn doubtful_attempts_explain_as_many_copies_as_there_were_attempts() {
        let twice = [ALL[0], ALL[1], ALL[1], ALL[2], ALL[1], ALL[3], ALL[4]];
        let once_doubtful = audit(&[(1, Settled::Acknowledged, 1)], &twice);
        assert_eq!(
            found(&once_doubtful),
            [("duplicated", 2), ("duplicated lawfully", 2), ("reordered lawfully", 2)]
        );
        let twice_doubtful = audit(&[(1, Settled::Acknowledged, 2)], &twice);
        assert_eq!(found(&twice_doubtful), [("duplicated lawfully", 4), ("reordered lawfully", 2)]);
        assert!(twice_doubtful.holds());
    }

    #[test]
    fn a_copy_that_nobody_was_told_of_explains_itself_and_no_other() {
        let mut account = account(&ALL);
        account.store("p-a", &stamp(0, 4), false);
        account.store("p-a", &stamp(1, 3), false);
        let audited = Audit::new(&journal(&[]), &account, "p-");
        assert_eq!(found(&audited), [("duplicated lawfully", 2), ("reordered lawfully", 1)]);
        assert!(audited.holds());
        account.store("p-a", &stamp(0, 4), true);
        account.store("p-a", &stamp(1, 3), true);
        let audited = Audit::new(&journal(&[]), &account, "p-");
        assert_eq!(
            found(&audited),
            [("duplicated", 2), ("reordered", 1), ("duplicated lawfully", 2)],
            "the late copy that was told of is the worse one"
        );
        // Told otherwise, the server sent it again, and the sender heard of an error in another part.
        let failed = [(4, Settled::Acknowledged, 1)];
        assert_eq!(found(&Audit::new(&journal(&failed), &account, "p-"))[0], ("duplicated", 1));
    }

    #[test]
    fn what_was_refused_or_given_up_is_not_lost_and_may_be_there() {
        let refused = [(2, Settled::Refused, 0)];
        assert_eq!(found(&audit(&refused, &[ALL[0], ALL[1], ALL[3], ALL[4]])), []);
        assert_eq!(found(&audit(&refused, &ALL)), [("though refused", 2)]);
        assert!(audit(&refused, &ALL).holds());
        let unknown = [(2, Settled::GivenUp, 1), (3, Settled::Abandoned, 1)];
        let given_up = audit(&unknown, &[ALL[0], ALL[1], ALL[2], ALL[4]]);
        assert_eq!(found(&given_up), []);
        assert_eq!((given_up.stored_though_unknown, given_up.missing_as_unknown), (2, 2));
    }

    #[test]
    fn damage_fails_the_whole() {
        let mut damaged = account(&ALL);
        damaged.store_damaged("p-a", Damaged::Sample);
        assert!(!Audit::new(&journal(&[]), &damaged, "p-").holds());
    }
}
