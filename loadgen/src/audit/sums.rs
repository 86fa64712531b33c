//! What was acknowledged against what was stored, tenant by tenant, in sums.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::account::Tally;
use crate::journal::{Entry, Ledger};
use crate::sink::{Snapshot, TenantCount};

/// What the comparison says of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Stored is what was acknowledged, to the sample and to the bit.
    Exact,
    /// Requests went wrong, and what is stored lies between what was acknowledged and what was sent.
    Plausible,
    /// Less is stored than was acknowledged.
    Lost,
    /// More is stored than was sent.
    Surplus,
    /// The count is right, and what was counted is not what was sent.
    Changed,
    /// Series of another tenant were stored under this one.
    Misplaced,
    /// Nothing was sent for this tenant.
    Stray,
}

/// One tenant's line of a [`Comparison`].
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The tenant, as the senders name it.
    pub tenant: String,
    /// What was answered with 2xx.
    pub acknowledged: Tally,
    /// What arrived.
    pub stored: Tally,
    /// Upstream requests that it arrived in.
    pub requests: u64,
    /// What the two say.
    pub verdict: Verdict,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Exact => "all is there",
            Verdict::Plausible => "all is there, and some of what failed",
            Verdict::Lost => "samples are lost",
            Verdict::Surplus => "samples are there more than once",
            Verdict::Changed => "samples are not what was sent",
            Verdict::Misplaced => "series of other tenants are there",
            Verdict::Stray => "nothing was sent for it",
        };
        let (acknowledged, stored) = (self.acknowledged.samples, self.stored.samples);
        write!(f, "{}: {verdict} ({acknowledged} samples acknowledged, {stored} arrived)", self.tenant)
    }
}

/// All tenants, compared.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// A line for each tenant, by name.
    pub lines: Vec<Line>,
    /// Requests that the sink could not read.
    pub broken: u64,
    /// Upstream requests that the sink took.
    pub requests: u64,
}

impl Comparison {
    /// Compares what `ledger` says with what a sink counted between two moments. The sink's tenants are the
    /// ledger's with `prefix` in front.
    pub fn new(ledger: &Ledger, before: &Snapshot, after: &Snapshot, prefix: &str) -> Self {
        let own = ledger.keys().map(|tenant| format!("{prefix}{tenant}"));
        let names: BTreeSet<String> = own.chain(after.tenants.keys().cloned()).collect();
        let line = |name: &String| {
            let count = difference(&after.tenant(name), &before.tenant(name));
            let known = name.strip_prefix(prefix).and_then(|tenant| ledger.get_key_value(tenant));
            match known {
                Some((tenant, entry)) => Some(line(tenant, entry, &count)),
                None if has_no_data(&count) => None,
                None => Some(Line { verdict: Verdict::Stray, ..line(name, &Entry::default(), &count) }),
            }
        };
        let lines = names.iter().filter_map(line).collect();
        Self {
            lines,
            broken: after.broken - before.broken.min(after.broken),
            requests: after.requests - before.requests.min(after.requests),
        }
    }

    /// Whether nothing is lost, invented, changed or misplaced.
    pub fn holds(&self) -> bool {
        self.broken == 0 && self.faults().next().is_none()
    }

    /// The tenants with which something is wrong.
    pub fn faults(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !matches!(line.verdict, Verdict::Exact | Verdict::Plausible))
    }

    /// Whether, besides, every tenant's sums are equal to the bit.
    pub fn is_exact(&self) -> bool {
        self.holds() && self.lines.iter().all(|line| line.verdict == Verdict::Exact)
    }
}

fn difference(after: &TenantCount, before: &TenantCount) -> TenantCount {
    TenantCount {
        requests: after.requests.wrapping_sub(before.requests),
        refused: after.refused.wrapping_sub(before.refused),
        bytes: after.bytes.wrapping_sub(before.bytes),
        misplaced: after.misplaced.wrapping_sub(before.misplaced),
        metadata: after.metadata.wrapping_sub(before.metadata),
        stored: after.stored - before.stored,
    }
}

/// Whether nothing of a tenant that the ledger does not know is anybody's data: no requests, or metadata, which has no
/// tenant of its own and which a server sends to one of its choice.
fn has_no_data(count: &TenantCount) -> bool {
    let is_metadata = count.metadata > 0 || count.refused > 0;
    *count == TenantCount::default()
        || (is_metadata && count.stored == Tally::default() && count.misplaced == 0)
}

fn line(tenant: &str, entry: &Entry, count: &TenantCount) -> Line {
    let Entry { acknowledged, unsettled } = *entry;
    let stored = count.stored;
    let mut most = acknowledged;
    most += unsettled;
    let verdict = if count.misplaced > 0 {
        Verdict::Misplaced
    } else if stored == acknowledged {
        Verdict::Exact
    } else if !covers(&stored, &acknowledged) {
        Verdict::Lost
    } else if !covers(&most, &stored) {
        Verdict::Surplus
    } else if unsettled == Tally::default() || covers(&acknowledged, &stored) {
        Verdict::Changed
    } else {
        Verdict::Plausible
    };
    Line { tenant: tenant.to_owned(), acknowledged, stored, requests: count.requests, verdict }
}

/// Whether `more` counts at least as much of everything as `less`.
fn covers(more: &Tally, less: &Tally) -> bool {
    more.series >= less.series
        && more.samples >= less.samples
        && more.histograms >= less.histograms
        && more.exemplars >= less.exemplars
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(series: u64, checksum: u64) -> Tally {
        Tally { series, samples: series, checksum, ..Tally::default() }
    }

    fn snapshot(tenants: &[(&str, Tally, u64)]) -> Snapshot {
        let count = |&(name, stored, misplaced): &(&str, Tally, u64)| {
            (name.to_owned(), TenantCount { requests: 1, misplaced, stored, ..TenantCount::default() })
        };
        Snapshot { tenants: tenants.iter().map(count).collect(), ..Snapshot::default() }
    }

    fn verdict(acknowledged: Tally, unsettled: Tally, stored: Tally) -> Verdict {
        let ledger = Ledger::from([("a".to_owned(), Entry { acknowledged, unsettled })]);
        let before = snapshot(&[("x-a", tally(100, 7), 0)]);
        let mut after = tally(100, 7);
        after += stored;
        let comparison = Comparison::new(&ledger, &before, &snapshot(&[("x-a", after, 0)]), "x-");
        comparison.lines[0].verdict
    }

    #[test]
    fn each_difference_has_its_name() {
        let none = Tally::default();
        assert_eq!(verdict(tally(5, 50), none, tally(5, 50)), Verdict::Exact);
        assert_eq!(verdict(tally(5, 50), none, tally(4, 40)), Verdict::Lost);
        assert_eq!(verdict(tally(5, 50), none, tally(6, 60)), Verdict::Surplus);
        assert_eq!(verdict(tally(5, 50), none, tally(5, 51)), Verdict::Changed);
        assert_eq!(verdict(tally(5, 50), tally(2, 20), tally(6, 60)), Verdict::Plausible);
        assert_eq!(verdict(tally(5, 50), tally(2, 20), tally(5, 50)), Verdict::Exact);
        assert_eq!(verdict(tally(5, 50), tally(2, 20), tally(5, 51)), Verdict::Changed);
        assert_eq!(verdict(tally(5, 50), tally(2, 20), tally(8, 80)), Verdict::Surplus);
        assert_eq!(verdict(tally(5, 50), tally(2, 20), tally(4, 40)), Verdict::Lost);
    }

    #[test]
    fn misplaced_stray_and_broken_fail_the_whole() {
        let entry = Entry { acknowledged: tally(1, 1), ..Entry::default() };
        let ledger = Ledger::from([("a".to_owned(), entry)]);
        let compare = |after: &Snapshot| Comparison::new(&ledger, &Snapshot::default(), after, "");
        assert!(compare(&snapshot(&[("a", tally(1, 1), 0)])).is_exact());
        assert!(!compare(&snapshot(&[("a", tally(1, 1), 1)])).holds());
        assert!(!compare(&snapshot(&[("a", tally(1, 1), 0), ("b", tally(1, 1), 0)])).holds());
        let metadata = TenantCount { requests: 2, metadata: 37, ..TenantCount::default() };
        let with = |count| {
            let mut after = snapshot(&[("a", tally(1, 1), 0)]);
            after.tenants.insert("default".to_owned(), count);
            compare(&after).is_exact()
        };
        assert!(with(metadata), "metadata has no tenant");
        assert!(!with(TenantCount { stored: tally(1, 1), ..metadata }));
        assert!(!with(TenantCount { requests: 1, ..TenantCount::default() }), "an empty request");
        assert!(!compare(&Snapshot { broken: 1, ..snapshot(&[("a", tally(1, 1), 0)]) }).holds());
        assert!(!compare(&Snapshot::default()).holds());
    }
}
