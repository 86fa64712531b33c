//! Checks how much an upstream says it has written of Remote Write 2.0.
//!
//! A receiver of 2.0 must say how much it wrote (Remote Write 2.0 specification, "Required Written Response Headers").
//! A receiver that knows only 1.0 reads a 2.0 request as an empty one, because all of its fields are unknown: it
//! answers 2xx and stores nothing. A reply without the headers may come from either, so it is logged and counted, and
//! it is a failure if `remote_write_v2_require_written` is set. Such a failure does not go away by itself, so it is not
//! spooled: its sender has to hear of it. If it comes to spooled parts, they are refused for good.
//!
//! The numbers are those of a whole request. Each sender whose part was merged into it hears its [share](Shares).

use std::time::Instant;

use super::Egress;
use crate::exchange::fragment::Fragment;
use crate::model::{Part, Protocol, Written};
use crate::upstream::client::Reply;

/// Whether the reply is a 2xx that says nothing of what was written, although the batch has something to write.
fn says_nothing(reply: &Reply, batch: &[Box<Fragment>]) -> bool {
    let is_2 = batch.first().is_some_and(|first| first.part.protocol == Protocol::RemoteWriteV2);
    let has_data = || batch.iter().any(|fragment| fragment.part.samples > 0 || fragment.part.exemplars > 0);
    is_2 && (200..300).contains(&reply.status) && reply.written.is_none() && has_data()
}

/// What each fragment of a batch has of the numbers in the reply.
///
/// An upstream that has written all that it got has written all of each part. If it has written less, nobody knows of
/// which part, so each gets a proportion, rounded down: together the senders never hear of more than was written, and
/// all of them hear 0 from an upstream that has written nothing.
#[derive(Clone, Copy)]
pub(super) struct Shares {
    written: Option<Written>,
    /// What the batch has, if it has several fragments.
    whole: Option<Written>,
}

impl Shares {
    /// The shares of these fragments in what was `written`.
    pub(super) fn of(batch: &[Box<Fragment>], written: Option<Written>) -> Self {
        let has_several = written.is_some() && batch.len() > 1;
        let content = || batch.iter().map(|fragment| content(&fragment.part));
        Self { written, whole: has_several.then(|| content().fold(Written::default(), |sum, one| sum + one)) }
    }

    /// The share of this part.
    pub(super) fn written_of(&self, part: &Part) -> Option<Written> {
        let (Some(written), Some(whole)) = (self.written, self.whole) else { return self.written };
        let part = content(part);
        Some(Written {
            samples: share(part.samples, written.samples, whole.samples),
            histograms: share(part.histograms, written.histograms, whole.histograms),
            exemplars: share(part.exemplars, written.exemplars, whole.exemplars),
        })
    }
}

/// What there is to write of a part in Remote Write 2.0.
pub(super) fn content(part: &Part) -> Written {
    Written {
        samples: part.samples.saturating_sub(part.histograms).into(),
        histograms: part.histograms.into(),
        exemplars: part.exemplars.into(),
    }
}

/// The share of `part` in what was `written` of the `whole`.
fn share(part: u64, written: u64, whole: u64) -> u64 {
    if written >= whole {
        return part;
    }
    let share = u128::from(part) * u128::from(written) / u128::from(whole);
    u64::try_from(share).unwrap_or(part)
}

impl Egress {
    /// Returns the reply, or a 502 in its place if it says nothing of what was written and has to.
    pub(super) fn check_written(&self, reply: Reply, batch: &[Box<Fragment>]) -> Reply {
        if !says_nothing(&reply, batch) {
            return reply;
        }
        self.counters().upstream_unwritten.add(1);
        let tenant = batch.first().map_or("", |first| first.part.tenant.as_str());
        if let Some(suppressed) = self.log_limits.unwritten.borrow_mut().allow("", Instant::now()) {
            tracing::warn!(
                tenant,
                status = reply.status,
                suppressed,
                "the upstream took Remote Write 2.0 and does not say what it wrote: it may have stored nothing \
                 (setting remote_write_v2: downgrade)"
            );
        }
        if !self.settings.get().require_written {
            return reply;
        }
        let message = b"the upstream took Remote Write 2.0 and does not say what it wrote (setting \
                        remote_write_v2_require_written)";
        Reply { status: 502, is_unwritten: true, message: message.to_vec(), ..reply }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_of_a_part_if_all_was_written_and_never_more_than_was_written() {
        for (parts, written, expected) in [
            ([3, 5], 8, [3, 5]),
            ([3, 5], 9, [3, 5]),
            ([3, 5], 0, [0, 0]),
            ([3, 5], 7, [2, 4]),
            ([0, 5], 4, [0, 4]),
            ([0, 0], 0, [0, 0]),
            ([0, 0], 7, [0, 0]),
        ] {
            let shares = parts.map(|part| share(part, written, parts.iter().sum()));
            assert_eq!(shares, expected, "{written} of {parts:?}");
        }
        assert_eq!(share(u32::MAX.into(), u64::MAX - 1, u64::MAX), u64::from(u32::MAX) - 1);
    }
}
