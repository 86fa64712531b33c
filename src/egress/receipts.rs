//! Receipts of parts that were delivered although their request failed. Pure: no I/O, no clock of its own.
//!
//! A request fails as a whole: if the upstream refuses one of its tenants for now, the sender sends all of it again.
//! The core that received the request then tells the home cores of the other tenants to remember their parts. When the
//! same part comes again, it gets the same outcome, and nothing is sent. So a tenant in trouble costs the others
//! nothing, and no sample is stored twice.
//!
//! A receipt is kept longer than a sender's retries take, and each retry renews it. The number of receipts is bounded;
//! the oldest go first. A part whose receipt went too early is sent twice, and upstreams take it for a duplicate. No
//! data is ever lost because of a receipt.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::limits::RECEIPT_BYTES;
use crate::model::Outcome;
use crate::shared::receipt::Receipt;

/// How long receipts are kept, and how many.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptLimits {
    /// How long after the request failed. Zero keeps none.
    pub keep: Duration,
    /// The memory for one core's receipts.
    pub bytes_max: usize,
}

impl ReceiptLimits {
    fn receipts_max(&self) -> usize {
        if self.keep.is_zero() { 0 } else { self.bytes_max / RECEIPT_BYTES }
    }
}

/// The receipts of one core.
#[derive(Debug, Default)]
pub struct Receipts {
    kept: HashMap<Receipt, Kept>,
    /// Receipts by age. A receipt that has been renewed is here more than once.
    by_age: VecDeque<Aged>,
    next_serial: u64,
}

#[derive(Debug)]
struct Kept {
    /// The serial of its newest entry in [`Receipts::by_age`].
    serial: u64,
    outcome: Outcome,
}

#[derive(Debug)]
struct Aged {
    since: Instant,
    serial: u64,
    receipt: Receipt,
}

impl Receipts {
    /// Remembers that a part was delivered with `outcome`.
    pub fn keep(&mut self, receipt: Receipt, outcome: Outcome, now: Instant, limits: &ReceiptLimits) {
        self.forget_old(now, limits);
        let receipts_max = limits.receipts_max();
        if receipts_max == 0 {
            return;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        self.kept.insert(receipt, Kept { serial, outcome });
        self.by_age.push_back(Aged { since: now, serial, receipt });
        // A renewed receipt is in `by_age` more than once, so this bounds both.
        while self.by_age.len() > receipts_max {
            self.forget_oldest();
        }
    }

    /// Returns the outcome that the part had before, if it is still remembered.
    pub fn find(&mut self, receipt: Receipt, now: Instant, limits: &ReceiptLimits) -> Option<Outcome> {
        self.forget_old(now, limits);
        self.kept.get(&receipt).map(|kept| kept.outcome.clone())
    }

    /// The number of receipts.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are no receipts.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn forget_old(&mut self, now: Instant, limits: &ReceiptLimits) {
        while self.by_age.front().is_some_and(|oldest| now - oldest.since >= limits.keep) {
            self.forget_oldest();
        }
        if self.by_age.is_empty() && self.kept.capacity() > 0 {
            self.kept = HashMap::new();
            self.by_age = VecDeque::new();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(Aged { serial, receipt, .. }) = self.by_age.pop_front() else { return };
        // A renewed receipt has a newer entry.
        if self.kept.get(&receipt).is_some_and(|kept| kept.serial == serial) {
            self.kept.remove(&receipt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MergeKey, Part, Protocol};
    use crate::shared::receipt::ReceiptKey;
    use crate::tenant::{IdRules, TenantId};

    const LIMITS: ReceiptLimits =
        ReceiptLimits { keep: Duration::from_secs(60), bytes_max: 3 * RECEIPT_BYTES };

    fn receipts() -> [Receipt; 5] {
        let key = ReceiptKey::random();
        std::array::from_fn(|number| {
            let part = Part {
                tenant: TenantId::new("a", IdRules::Mimir).unwrap(),
                protocol: Protocol::RemoteWriteV1,
                elements: vec![u8::try_from(number).unwrap()].into(),
                coding: crate::model::Coding::SNAPPY,
                inflated_bytes: 1,
                series: 1,
                samples: 1,
                histograms: 0,
                exemplars: 0,
                merge: MergeKey::Ha(None),
            };
            key.receipt(&part, 0, None).unwrap()
        })
    }

    fn delivered() -> Outcome {
        Outcome::delivered(204, b"")
    }

    #[test]
    fn what_was_delivered_is_known_until_its_time_is_up() {
        let (mut known, [a, b, ..], start) = (Receipts::default(), receipts(), Instant::now());
        known.keep(a, delivered(), start, &LIMITS);
        assert_eq!(known.find(a, start + LIMITS.keep / 2, &LIMITS), Some(delivered()));
        assert_eq!(known.find(b, start, &LIMITS), None);
        assert_eq!(known.find(a, start + LIMITS.keep, &LIMITS), None);
        assert!(known.is_empty());
    }

    #[test]
    fn each_retry_counts_anew() {
        let (mut known, [a, b, ..], start) = (Receipts::default(), receipts(), Instant::now());
        let later = start + LIMITS.keep / 2;
        known.keep(a, delivered(), start, &LIMITS);
        known.keep(b, delivered(), start, &LIMITS);
        known.keep(a, delivered(), later, &LIMITS);
        assert_eq!(known.find(a, start + LIMITS.keep, &LIMITS), Some(delivered()));
        assert_eq!(known.find(b, start + LIMITS.keep, &LIMITS), None);
        assert_eq!(known.find(a, later + LIMITS.keep, &LIMITS), None);
    }

    #[test]
    fn past_the_bound_the_oldest_goes() {
        let (mut known, all, start) = (Receipts::default(), receipts(), Instant::now());
        for receipt in all {
            known.keep(receipt, delivered(), start, &LIMITS);
        }
        let found = all.map(|receipt| known.find(receipt, start, &LIMITS).is_some());
        assert_eq!((found, known.len()), ([false, false, true, true, true], 3));
        // However often one is renewed.
        (0..100).for_each(|_| known.keep(all[4], delivered(), start, &LIMITS));
        assert!(known.by_age.len() <= 3 && known.len() <= 3);
        assert!(known.find(all[4], start, &LIMITS).is_some());
    }

    #[test]
    fn none_is_kept_when_that_is_the_setting() {
        let (mut known, [a, ..], start) = (Receipts::default(), receipts(), Instant::now());
        let none = ReceiptLimits { keep: Duration::ZERO, ..LIMITS };
        known.keep(a, delivered(), start, &none);
        assert_eq!((known.find(a, start, &none), known.len()), (None, 0));
    }
}
