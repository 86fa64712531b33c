//! Checks how much an upstream says it has written of Remote Write 2.0.
//!
//! A receiver of 2.0 must say how much it wrote (Remote Write 2.0 specification, "Required Written Response Headers"). A
//! receiver that knows only 1.0 reads a 2.0 request as an empty one, because all of its fields are unknown: it answers
//! 2xx and stores nothing. A reply without the headers may come from either, so it is logged and counted, and it is a
//! failure if `remote_write_v2_require_written` is set.

use std::time::Instant;

use super::Egress;
use crate::exchange::fragment::Fragment;
use crate::model::Protocol;
use crate::upstream::client::Reply;

/// Whether the reply is a 2xx that says nothing of what was written, although the batch has something to write.
fn says_nothing(reply: &Reply, batch: &[Box<Fragment>]) -> bool {
    let is_2 = batch.first().is_some_and(|first| first.part.protocol == Protocol::RemoteWriteV2);
    let has_data = || batch.iter().any(|fragment| fragment.part.samples > 0 || fragment.part.exemplars > 0);
    is_2 && (200..300).contains(&reply.status) && reply.written.is_none() && has_data()
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
        Reply { status: 502, message: message.to_vec(), ..reply }
    }
}
