//! What senders know about their requests: whether each was acknowledged, refused, or neither.
//!
//! Constraints that shaped it:
//! - The journal is compared with what a sink stored, so it has to tell what may lawfully be there. A request that was
//!   attempted three times, twice without a clear answer, may be stored three times. Early attempts may arrive after
//!   later requests.
//! - A [`Fate`] is what a sender knows about one request. Where the same bodies are sent over and over, counting fates
//!   is enough: a [`Ledger`] adds them up. Stamped samples are all different, so a [`Journal`] keeps each fate.
//! - It knows neither wire formats nor retry rules, only how requests ended.
//! - Numbers are kept as runs, so memory grows only with what goes wrong.

use std::collections::BTreeMap;

use crate::account::Tally;
use crate::fleet::Fleet;
use crate::runs::Runs;
use crate::stamp::SenderId;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// With a 2xx: it must be stored.
    Acknowledged,
    /// With an answer that says that it will never be taken: it is not sent again. (A server that splits requests may
    /// have stored parts.)
    Refused,
    /// Its sender was not to send it again, though it might have been taken: it may be stored.
    GivenUp,
    /// It was still to be sent again when its time was over: it may be stored.
    Abandoned,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// How it ended.
    pub settled: Settled,
    /// Attempts that left and were answered otherwise than with 2xx, or not at all.
    pub unsettled: u32,
    /// Those of them that may have been stored all the same.
    pub doubtful: u32,
}

/// What senders know of one tenant's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// In requests that were answered 2xx.
    pub acknowledged: Tally,
    /// In attempts that left and were answered otherwise or not at all: some of it may have arrived, lawfully. What was
    /// sent again counts for each such attempt, and once more as acknowledged if it was in the end.
    pub unsettled: Tally,
}

/// What became of one body.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BodyCount {
    /// Times answered 2xx.
    pub(crate) acknowledged: u64,
    /// Times sent and answered otherwise or not at all, attempt by attempt.
    pub(crate) unsettled: u64,
}

/// Every tenant's [`Entry`], by name.
pub type Ledger = BTreeMap<String, Entry>;

/// Adds up what all senders sent: each body's shares, as often as the body was sent. And how many shares were
/// acknowledged.
pub(crate) fn ledger(fleet: &Fleet, counts: &[Vec<BodyCount>]) -> (Ledger, u64) {
    let mut entries = vec![Entry::default(); fleet.tenants.len()];
    let mut parts = 0;
    let bodies = fleet.senders.iter().zip(counts).flat_map(|(bodies, counts)| bodies.iter().zip(counts));
    for (body, count) in bodies {
        parts += body.shares.len() as u64 * count.acknowledged;
        for &(tenant, tally) in &body.shares {
            if let Some(entry) = entries.get_mut(tenant) {
                entry.acknowledged += tally.times(count.acknowledged);
                entry.unsettled += tally.times(count.unsettled);
            }
        }
    }
    (fleet.tenants.iter().cloned().zip(entries).collect(), parts)
}

/// What a sender knows of its stamped requests for one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Series in each request, numbered from 0.
    pub series: u32,
    /// Numbers of requests that were acknowledged.
    pub acknowledged: Runs,
    /// Numbers of requests that were refused.
    pub refused: Runs,
    /// Numbers of requests that were given up.
    pub unknown: Runs,
    /// For each request that was attempted in vain: how many attempts may have been stored all the same.
    pub doubtful: BTreeMap<u64, u32>,
}

impl Entries {
    /// Entries of requests that hold so many series.
    pub fn new(series: u32) -> Self {
        Self { series, ..Self::default() }
    }

    /// Notes what became of a request.
    pub fn settle(&mut self, sequence: u64, fate: Fate) {
        let all = match fate.settled {
            Settled::Acknowledged => &mut self.acknowledged,
            Settled::Refused => &mut self.refused,
            Settled::GivenUp | Settled::Abandoned => &mut self.unknown,
        };
        all.insert(sequence);
        if fate.doubtful > 0 {
            self.doubtful.insert(sequence, fate.doubtful);
        }
    }

    /// All numbers that were ever sent.
    pub fn sent(&self) -> Runs {
        self.acknowledged.union(&self.refused).union(&self.unknown)
    }

    /// How many times more than once a request may lawfully be stored: of one that was given up, each attempt but one.
    pub fn again_max(&self, sequence: u64) -> u32 {
        let expected = u32::from(self.unknown.contains(sequence));
        self.doubtful(sequence).saturating_sub(expected)
    }

    /// How many attempts of a request may have been stored without an acknowledgement.
    pub fn doubtful(&self, sequence: u64) -> u32 {
        self.doubtful.get(&sequence).copied().unwrap_or_default()
    }
}

/// What all senders of a run know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal(BTreeMap<(SenderId, String), Entries>);

impl Journal {
    /// Adds what a sender knows of one tenant; it replaces what was known of the two.
    pub fn add(&mut self, sender: SenderId, tenant: &str, entries: Entries) {
        self.0.insert((sender, tenant.to_owned()), entries);
    }

    /// Takes over all that another journal knows.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Sender and tenant, and what the one knows of the other.
    pub fn entries(&self) -> impl Iterator<Item = (SenderId, &str, &Entries)> {
        self.0.iter().map(|((sender, tenant), entries)| (*sender, tenant.as_str(), entries))
    }

    /// What a sender knows of a tenant.
    pub fn of(&self, sender: SenderId, tenant: &str) -> Option<&Entries> {
        self.0.get(&(sender, tenant.to_owned()))
    }
}
