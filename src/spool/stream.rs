//! What names records: their stream and their sequence.
#![forbid(unsafe_code)]

use super::fields::{Fields, Malformed, put_block};
use crate::model::Destination;
use crate::tenant::{IdRules, TenantId};

/// The records of a tenant for one upstream and destination. They are replayed in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Stream {
    /// The upstream's name; empty for the main one.
    pub upstream: Box<str>,
    /// The destination.
    pub destination: Destination,
    /// The tenant.
    pub tenant: TenantId,
}

/// The place of a record among all that were ever appended to a folder. It counts from 1; 0 is that of no record. None
/// is given out again after it was durable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Sequence(pub u64);

/// What a stream holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StreamTotals {
    /// Committed records that were not removed.
    pub records: u64,
    /// Their samples.
    pub samples: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// When the first of them was spooled, in milliseconds since the epoch. 0 if there is none.
    pub oldest: u64,
}

/// Of all rules, these allow the most; what they do not allow is an ID under none. The rules of the configuration have
/// already been applied, and may have changed since.
const ID_RULES: IdRules = IdRules::Thanos;

pub(super) fn tenant(id: &str) -> Result<TenantId, Malformed> {
    TenantId::new(id, ID_RULES).map_err(|_| Malformed("its tenant is not an ID"))
}

impl Stream {
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        put_block(out, self.upstream.as_bytes())?;
        put_block(out, self.tenant.as_str().as_bytes())?;
        out.push(match self.destination {
            Destination::Metrics => 1,
            Destination::Logs => 2,
            Destination::OtlpMetrics => 3,
            Destination::OtlpLogs => 4,
            Destination::OtlpTraces => 5,
        });
        Ok(())
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let upstream = fields.text()?.into();
        let tenant = tenant(fields.text()?)?;
        let destination = match fields.u8()? {
            1 => Destination::Metrics,
            2 => Destination::Logs,
            3 => Destination::OtlpMetrics,
            4 => Destination::OtlpLogs,
            5 => Destination::OtlpTraces,
            _ => return Err(Malformed("its destination is unknown")),
        };
        fields.end()?;
        Ok(Self { upstream, destination, tenant })
    }
}
