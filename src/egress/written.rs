//! What an upstream says to have written of Remote Write 2.0.
//!
//! A receiver of 2.0 has to say how much it wrote (Remote Write 2.0 specification, "Required Written Response
//! Headers"). One that knows only 1.0 finds a 2.0 request to be an empty one, as all its fields are unknown: it answers
//! 2xx and stores nothing. That is not known, as a receiver may also forget to say; so it is told and counted, and is a
//! failure where the operator wants it to be one.

use std::time::Instant;

use super::delivery::Egress;
use crate::exchange::fragment::Fragment;
use crate::model::Protocol;
use crate::upstream::client::Reply;

/// Whether a 2xx to this batch says nothing of what was written although there was something to write.
fn says_nothing(reply: &Reply, batch: &[Box<Fragment>]) -> bool {
    let is_2 = batch.first().is_some_and(|first| first.part.protocol == Protocol::RemoteWriteV2);
    let has_data = || batch.iter().any(|fragment| fragment.part.samples > 0 || fragment.part.exemplars > 0);
    is_2 && (200..300).contains(&reply.status) && reply.written.is_none() && has_data()
}

impl Egress {
    /// What a reply counts as.
    pub(super) fn hold_to_its_word(&self, reply: Reply, batch: &[Box<Fragment>]) -> Reply {
        if !says_nothing(&reply, batch) {
            return reply;
        }
        self.counters().upstream_unwritten.add(1);
        let tenant = batch.first().map_or("", |first| first.part.tenant.as_str());
        if let Some(suppressed) = self.word_limiter.borrow_mut().allow("", Instant::now()) {
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
        Reply { status: 502, message: message.to_vec(), ..reply }
    }
}
