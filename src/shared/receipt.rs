//! Names of fragments, by which one that comes again is known.
//!
//! Constraints that shaped it:
//!
//! * When a request fails for some of its tenants, its sender sends all of it again, byte for byte. What got through
//!   the first time is told from what did not by a hash of each part: so much need not be kept.
//! * Two parts with the same hash would be one loss. Hence 128 bits, keyed with a number that is new with each start
//!   and that nobody outside learns: parts can't be made to collide.
//! * Every part of every request of several tenants is hashed, failed or not. HighwayHash reads ten bytes in a
//!   nanosecond, which is a hundredth of what it took to deflate them.

use std::hash::{BuildHasher, RandomState};

use highway::{HighwayHash, HighwayHasher, Key};

use crate::http::Passed;
use crate::model::Part;

/// Names one tenant's part of a request: the same bytes for the same tenant, the same receipt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Receipt(u128);

/// What receipts are made with: one for the process.
#[derive(Clone, Copy)]
pub struct ReceiptKey(Key);

impl ReceiptKey {
    /// A new one, which nobody can guess.
    pub fn random() -> Self {
        // Two keys of SipHash from the operating system, and four numbers from each.
        Self(Key(std::array::from_fn(|_| RandomState::new().hash_one(0u8))))
    }

    /// The receipt for `part` at a `place` (see [`Terms`](crate::config::plan::Terms)), where `passed` may have the
    /// upstream do something else with it. `None` for one of metadata alone: senders send the same again and again, and
    /// that is no retry. To be answered from a receipt would keep it from an upstream that has lost it.
    pub fn receipt(&self, part: &Part, place: u32, passed: Option<&Passed>) -> Option<Receipt> {
        if part.series == 0 {
            return None;
        }
        let mut hasher = HighwayHasher::new(self.0);
        let tenant = part.tenant.as_str().as_bytes();
        // The lengths in front keep one tenant's bytes from being taken for another's name.
        hasher.append(&[part.protocol as u8]);
        hasher.append(&place.to_le_bytes());
        hasher.append(&tenant.len().to_le_bytes());
        hasher.append(tenant);
        let passed = Passed::deciding(passed);
        hasher.append(&passed.len().to_le_bytes());
        hasher.append(passed);
        hasher.append(&part.inflated_bytes.to_le_bytes());
        hasher.append(&part.elements);
        let [low, high] = hasher.finalize128();
        Some(Receipt(u128::from(high) << 64 | u128::from(low)))
    }
}

impl std::fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReceiptKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::RequestHead;
    use crate::model::{MergeKey, Protocol};
    use crate::tenant::{IdRules, TenantId};

    fn part(tenant: &str, elements: &'static [u8]) -> Part {
        Part {
            tenant: TenantId::new(tenant, IdRules::Mimir).unwrap(),
            protocol: Protocol::RemoteWriteV1,
            elements: elements.into(),
            inflated_bytes: 9,
            series: 1,
            samples: 1,
            histograms: 0,
            exemplars: 0,
            merge: MergeKey::Ha(None),
        }
    }

    #[test]
    fn the_same_part_has_the_same_receipt_and_any_other_another() {
        let key = ReceiptKey::random();
        let receipt = key.receipt(&part("ab", b"cd"), 0, None);
        assert!(receipt.is_some());
        assert_eq!(key.receipt(&part("ab", b"cd"), 0, None), receipt);
        for other in [part("ab", b"ce"), part("ac", b"cd"), part("a", b"bcd"), part("abc", b"d")] {
            assert_ne!(key.receipt(&other, 0, None), receipt);
        }
        assert_ne!(key.receipt(&Part { inflated_bytes: 10, ..part("ab", b"cd") }, 0, None), receipt);
        assert_ne!(key.receipt(&part("ab", b"cd"), 1, None), receipt, "another place");
        let passed = |header: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{header}\r\n\r\n");
            let (head, _) =
                RequestHead::parse_passing(head.as_bytes(), "", &["X-A".into()]).unwrap().unwrap();
            key.receipt(&part("ab", b"cd"), 0, head.passed.as_deref())
        };
        assert_eq!(passed("X-B: 1"), receipt);
        assert_ne!(passed("X-A: 1"), receipt, "it is to be treated otherwise");
        assert_ne!(passed("X-A: 1"), passed("X-A: 2"));
        assert_eq!(passed("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), receipt);
        assert_ne!(ReceiptKey::random().receipt(&part("ab", b"cd"), 0, None), receipt, "another process");
    }

    #[test]
    fn metadata_alone_has_no_receipt() {
        let metadata = Part { series: 0, samples: 0, ..part("ab", b"cd") };
        assert_eq!(ReceiptKey::random().receipt(&metadata, 0, None), None);
    }
}
