//! Reads the answers of receivers of OTLP (OTLP specification, "OTLP/HTTP Response").
//!
//! A 2xx may be a partial success: the upstream has stored some of the items and rejected the others. Rejected items
//! are refused in the ledger, although the request succeeded. The answer does not say which they are. So of a request
//! that carried the parts of several senders, each sender hears of its share of them.

use super::Egress;
use super::tenant_lane::TenantLane;
use crate::exchange::fragment::Fragment;
use crate::limits::{RESPONSE_BODY_BYTES_MAX, RESPONSE_MESSAGE_BYTES_MAX};
use crate::model::{Outcome, Part, Via};
use crate::upstream::client::Reply;
use crate::wire::otlp::answer::{read_partial_success, read_status};

/// Bytes of an answer that are kept: of OTLP's all that are read, as numbers are in them, and of others the beginning,
/// as they are a text.
pub(super) fn answer_bytes_max(batch: &[Box<Fragment>]) -> usize {
    match is_otlp(batch) {
        true => RESPONSE_BODY_BYTES_MAX,
        false => RESPONSE_MESSAGE_BYTES_MAX,
    }
}

fn is_otlp(batch: &[Box<Fragment>]) -> bool {
    batch.first().is_some_and(|first| first.part.protocol.export().is_some())
}

/// Puts the text and the numbers of an answer in OTLP in the place of its bytes. `samples` are those of the request: an
/// upstream cannot have rejected more.
pub(super) fn read_answer(reply: Reply, batch: &[Box<Fragment>], samples: u64) -> Reply {
    if !is_otlp(batch) {
        return reply;
    }
    let (mut message, rejected) = if (200..300).contains(&reply.status) {
        let partial = read_partial_success(&reply.message).unwrap_or_default();
        (partial.message.into_bytes(), partial.rejected.min(samples))
    } else {
        (read_status(&reply.message).map(String::into_bytes).unwrap_or(reply.message), 0)
    };
    message.truncate(RESPONSE_MESSAGE_BYTES_MAX);
    Reply { rejected, message, ..reply }
}

/// The shares of the fragments of a batch in what was rejected. Together they are all of it.
pub(super) struct RejectedShares {
    rejected: u64,
    samples: u64,
    /// Of these, the ones of the parts so far, and their share.
    seen: u64,
    given: u64,
}

impl RejectedShares {
    pub(super) fn of(batch: &[Box<Fragment>], rejected: u64) -> Self {
        let samples = batch.iter().map(|fragment| u64::from(fragment.part.samples)).sum();
        Self { rejected, samples, seen: 0, given: 0 }
    }

    /// The share of the next part.
    pub(super) fn next(&mut self, part: &Part) -> u64 {
        self.seen += u64::from(part.samples);
        let until = u128::from(self.rejected) * u128::from(self.seen) / u128::from(self.samples.max(1));
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        let share = until - self.given;
        self.given = until;
        share
    }
}

impl Egress {
    /// Logs and notes that an upstream has rejected some of what it otherwise stored. If that came out of the spool,
    /// its senders were told that it is stored. It is lost then, as nobody knows which items they are, and so it is
    /// logged and counted as parts are that are refused as a whole.
    pub(super) fn note_rejected(
        &self,
        lane: &TenantLane,
        batch: &[Box<Fragment>],
        via: Option<Via>,
        reply: &Reply,
    ) {
        let Some(first) = batch.first() else { return };
        let is_replay = first.sender.is_none();
        let text = String::from_utf8_lossy(&reply.message);
        let rejected = format!("{} items rejected: {}", reply.rejected, text.trim());
        let outcome = Outcome { via, ..Outcome::upstream(reply.status, None, rejected.as_bytes()) };
        lane.note_error(first, &outcome);
        if is_replay {
            self.counters().spool_rejected.add(1);
            self.log(lane, batch, &format!("spooled data was stored only in part: {rejected}"));
        } else if self.settings.get().log_response_errors {
            self.log(lane, batch, &format!("upstream stored only a part: {rejected}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Coding, Compression, MergeKey, Protocol, Signal};
    use crate::tenant::{IdRules, TenantId};

    fn part() -> Part {
        Part {
            tenant: TenantId::new("a", IdRules::Mimir).unwrap(),
            protocol: Protocol::Otlp(Signal::Logs),
            elements: bytes::Bytes::new(),
            coding: Coding::of(Compression::Identity),
            inflated_bytes: 0,
            series: 1,
            samples: 0,
            histograms: 0,
            exemplars: 0,
            merge: MergeKey::Ha(None),
        }
    }

    #[test]
    fn shares_of_what_was_rejected_are_all_of_it_and_fit_their_parts() {
        for (parts, rejected) in [
            (vec![3, 5], 8),
            (vec![3, 5], 7),
            (vec![1, 1, 1], 1),
            (vec![0, 9, 0], 4),
            (vec![0], 0),
            (vec![u64::from(u32::MAX); 3], u64::from(u32::MAX) * 2),
        ] {
            let mut shares = RejectedShares { rejected, samples: parts.iter().sum(), seen: 0, given: 0 };
            let mut sum = 0;
            for samples in &parts {
                let part = Part { samples: u32::try_from(*samples).unwrap(), ..part() };
                let share = shares.next(&part);
                assert!(share <= *samples, "{share} of {samples}");
                sum += share;
            }
            assert_eq!(sum, rejected, "{parts:?}");
        }
    }
}
