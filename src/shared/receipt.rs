//! Receipts: keyed hashes of delivered parts, which identify a part that is sent again.
//!
//! Constraints that shaped it:
//!
//! * When a request fails for some of its tenants, its sender sends all of it again, byte for byte. A hash of each part
//!   tells the parts that were delivered from those that were not. Keeping the parts themselves would take too much
//!   memory.
//! * A hash collision between two parts would lose data. So a receipt has 128 bits and a secret key that changes with
//!   each start: no one can construct colliding parts.
//! * Every part of every request with several tenants is hashed, failed or not. HighwayHash reads ten bytes per
//!   nanosecond, a hundredth of the cost of compressing them.

use std::hash::{BuildHasher, RandomState};

use highway::{HighwayHash, HighwayHasher, Key};

use crate::http::Passed;
use crate::model::Part;

/// Identifies one tenant's part of a request: equal bytes of the same tenant have equal receipts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Receipt(u128);

/// The key of the receipts' hash. One per process.
#[derive(Clone, Copy)]
pub struct ReceiptKey(Key);

impl ReceiptKey {
    /// Creates a random, unguessable key.
    pub fn random() -> Self {
        // Each number is a SipHash of a constant, with random keys that std seeds from the operating system.
        Self(Key(std::array::from_fn(|_| RandomState::new().hash_one(0u8))))
    }

    /// Returns the receipt for `part` at a `place` (see [`Terms`](crate::config::plan::Terms)). `passed` are the
    /// forwarded headers, which may change what the upstream does with the part.
    ///
    /// Returns `None` for a part that holds only metadata. Senders repeat metadata without a retry; answering from a
    /// receipt would keep it from an upstream that has lost it.
    pub fn receipt(&self, part: &Part, place: u32, passed: Option<&Passed>) -> Option<Receipt> {
        if part.series == 0 {
            return None;
        }
        let mut hasher = HighwayHasher::new(self.0);
        let (tenant, passed) = (part.tenant.as_str().as_bytes(), Passed::deciding(passed));
        // Lengths keep the fields apart: no tenant's bytes can pass for part of another's name. What has a fixed size
        // comes at once, as each piece takes the hasher some time of its own.
        let mut fixed = [part.protocol.number(); 26];
        fixed[1..9].copy_from_slice(&(tenant.len() as u64).to_le_bytes());
        fixed[9..17].copy_from_slice(&(passed.len() as u64).to_le_bytes());
        fixed[17..21].copy_from_slice(&place.to_le_bytes());
        fixed[21..25].copy_from_slice(&part.inflated_bytes.to_le_bytes());
        fixed[25] = part.coding.now as u8;
        for bytes in [&fixed, tenant, passed, &part.elements[..]] {
            hasher.append(bytes);
        }
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
            coding: crate::model::Coding::SNAPPY,
            inflated_bytes: 9,
            series: 1,
            samples: 1,
            histograms: 0,
            exemplars: 0,
            merge: MergeKey::Ha(None),
        }
    }

    #[test]
    fn equal_parts_have_equal_receipts_and_others_differ() {
        let key = ReceiptKey::random();
        let receipt = key.receipt(&part("ab", b"cd"), 0, None);
        assert!(receipt.is_some());
        assert_eq!(key.receipt(&part("ab", b"cd"), 0, None), receipt);
        for other in [part("ab", b"ce"), part("ac", b"cd"), part("a", b"bcd"), part("abc", b"d")] {
            assert_ne!(key.receipt(&other, 0, None), receipt);
        }
        assert_ne!(key.receipt(&Part { inflated_bytes: 10, ..part("ab", b"cd") }, 0, None), receipt);
        let coding = crate::model::Coding::of(crate::model::Compression::Identity);
        assert_ne!(key.receipt(&Part { coding, ..part("ab", b"cd") }, 0, None), receipt, "another coding");
        assert_ne!(key.receipt(&part("ab", b"cd"), 1, None), receipt, "another place");
        let passed = |header: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{header}\r\n\r\n");
            let (head, _) =
                RequestHead::parse_passing(head.as_bytes(), "", &["X-A".into()]).unwrap().unwrap();
            key.receipt(&part("ab", b"cd"), 0, head.passed.as_deref())
        };
        assert_eq!(passed("X-B: 1"), receipt);
        assert_ne!(passed("X-A: 1"), receipt, "a header changes its treatment");
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
