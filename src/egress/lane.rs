//! A tenant's lane: which of its fragments go into the next upstream request. Pure: no I/O, no clock of its own.
//!
//! Group commit. While fewer than `inflight_max` requests of the tenant are on their way, a fragment leaves at
//! once, alone: idle costs no delay. Otherwise it waits, and whichever request comes back takes along all that
//! waits, up to the merge limits: load merges by itself, the more the slower the upstream is.
//!
//! What may go together is said by each fragment's merge key: Mimir and Cortex read the HA pair of a request's
//! first series and apply it to the whole request, so two replicas' series must never share one. Between senders
//! there is no order to keep: each awaits its answer before it sends the next request of a shard.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::split::MergeKey;

/// What a lane has to know of a fragment.
pub trait Queued {
    /// Only fragments of equal keys go together.
    fn merge_key(&self) -> &MergeKey;
    /// Its share of a merged request's inflated length.
    fn inflated_bytes(&self) -> usize;
    /// Whether it must go in a request of its own, whatever its key says.
    fn alone(&self) -> bool;
    /// When it reached the lane, more or less: where its linger is counted from.
    fn arrived(&self) -> Instant;
    /// After this it is not sent any more.
    fn start_by(&self) -> Instant;
}

/// The limits of merging; see the settings `merge.*`.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Upstream requests of one tenant on their way at a time.
    pub inflight_max: usize,
    /// How long a fragment may wait for company though it could leave.
    pub linger: Duration,
    /// Fragments in one upstream request.
    pub fragments_max: usize,
    /// Inflated bytes of one upstream request, unless a single fragment has more.
    pub inflated_bytes_max: usize,
}

/// What a lane wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<F> {
    /// Send these in one request; then say [`Lane::finished`].
    Send(Vec<F>),
    /// Nothing yet: ask again at this time.
    Wait(Instant),
    /// Nothing until something comes or comes back.
    Rest,
}

/// See the module.
#[derive(Debug)]
pub struct Lane<F> {
    waiting: VecDeque<F>,
    in_flight: usize,
    unmerged_until: Option<Instant>,
}

impl<F> Default for Lane<F> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), in_flight: 0, unmerged_until: None }
    }
}

impl<F: Queued> Lane<F> {
    /// A fragment has come.
    pub fn push(&mut self, fragment: F) {
        self.waiting.push_back(fragment);
    }

    /// A request that [`next`](Self::next) gave out has its outcome.
    pub fn finished(&mut self) {
        self.in_flight -= 1;
    }

    /// Until `until`, every fragment goes alone.
    pub fn stop_merging(&mut self, until: Instant) {
        self.unmerged_until = Some(until);
    }

    /// Fragments that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits and nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0
    }

    /// Fragments that waited for too long. They are always found in time: whatever occupies the lane is itself
    /// over within one timeout of its start, and then this is called again.
    pub fn take_expired(&mut self, now: Instant) -> Vec<F> {
        if self.waiting.iter().all(|f| f.start_by() > now) {
            return Vec::new();
        }
        let (expired, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|f| f.start_by() <= now);
        self.waiting = rest;
        Vec::from(expired)
    }

    /// What to do now.
    pub fn next(&mut self, now: Instant, limits: &LaneLimits) -> Next<F> {
        if self.in_flight >= limits.inflight_max {
            return Next::Rest;
        }
        let Some(first) = self.waiting.front() else { return Next::Rest };
        let lingers_until = first.arrived() + limits.linger;
        if lingers_until > now && !first.alone() && !self.is_full(limits) {
            return Next::Wait(lingers_until);
        }
        self.in_flight += 1;
        Next::Send(self.take_batch(now, limits))
    }

    fn is_full(&self, limits: &LaneLimits) -> bool {
        self.waiting.len() >= limits.fragments_max
            || self.waiting.iter().map(F::inflated_bytes).sum::<usize>() >= limits.inflated_bytes_max
    }

    /// The first that waits, and all others that may go with it. Those left keep their order.
    fn take_batch(&mut self, now: Instant, limits: &LaneLimits) -> Vec<F> {
        let Some(first) = self.waiting.pop_front() else { return Vec::new() };
        let unmerged = self.unmerged_until.is_some_and(|until| now < until);
        let mut batch = vec![first];
        if unmerged || batch[0].alone() || *batch[0].merge_key() == MergeKey::Alone {
            return batch;
        }
        let mut bytes = batch[0].inflated_bytes();
        for _ in 0..self.waiting.len() {
            let Some(fragment) = self.waiting.pop_front() else { break };
            let fits = batch.len() < limits.fragments_max
                && bytes + fragment.inflated_bytes() <= limits.inflated_bytes_max;
            if fits && !fragment.alone() && fragment.merge_key() == batch[0].merge_key() {
                bytes += fragment.inflated_bytes();
                batch.push(fragment);
            } else {
                self.waiting.push_back(fragment);
            }
        }
        batch
    }
}
