//! A tenant's lane: which of its fragments go into the next upstream request. Pure: no I/O, no clock of its own.
//!
//! This is group commit. While fewer than `inflight_max` requests of the tenant are in flight, a fragment is sent at
//! once, alone: an idle lane adds no delay. Otherwise it waits, and the next request that finishes takes along all that
//! waits, up to the merge limits. So merging follows the load: the slower the upstream, the larger the batches. A batch
//! that waits for a connection stays open ([`Lane::join`]).
//!
//! With one request in flight, what arrives behind it waits for two round trips. So while the upstream answers well, a
//! further request leaves as soon as the oldest fragment that waits has waited for a fraction of a round trip
//! ([`EARLY_PERCENT`]). Senders that wait for their answers then fall into groups that take turns: with two groups,
//! each request still carries half of the senders, but nobody waits for long. So it costs more requests only while the
//! load is low. No further request leaves while one waits for a connection, because that one takes along what arrives.
//!
//! A full batch, or a fragment that cannot be merged, would gain nothing by waiting. It is sent while fewer than
//! `inflight_full_max` requests are in flight, so that a giant tenant is not held to one batch at a time. Fragments
//! that go alone pass those that wait to be merged, and their requests do not count towards `inflight_max`. So neither
//! kind waits for the other.
//!
//! The merge key of each fragment says which others it may share a request with. Mimir and Cortex read the HA pair of a
//! request's first series and apply it to the whole request, so series of two replicas must never share one. Senders
//! impose no order among fragments: each awaits the answer to a request before it sends the next one of that shard.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::MergeKey;

/// A further request leaves when a fragment has waited for this percentage of a round trip. A smaller one means less
/// latency and more requests.
const EARLY_PERCENT: u32 = 20;

/// A fragment never waits longer than this before it may leave early, so that no timer is far off once round trips have
/// become shorter.
const EARLY_WAIT_MAX: Duration = Duration::from_millis(250);

/// Timers have a resolution of a millisecond and are late by half of it. Longer waits are shortened by this.
const EARLY_SLACK: Duration = Duration::from_micros(500);

/// Requests of a tenant in flight while further ones may leave early. With three, two groups of senders never wait for
/// each other.
pub const EARLY_INFLIGHT_MAX: usize = 3;

/// What a lane needs to know about a fragment.
pub trait Queued {
    /// The key that says which others it may share a request with.
    fn merge_key(&self) -> &MergeKey;
    /// Whether both may share a request: their keys, and everything else that a request has once, must agree.
    fn goes_with(&self, other: &Self) -> bool;
    /// The number of bytes that it adds to a request's inflated length.
    fn inflated_bytes(&self) -> usize;
    /// Whether it must have a request of its own, whatever its key says.
    fn alone(&self) -> bool;
    /// Roughly when it reached the lane. Its linger starts then.
    fn arrived(&self) -> Instant;
    /// After this time it is no longer sent.
    fn start_by(&self) -> Instant;
}

/// The limits of merging; see the settings `merge.*`.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Upstream requests of one tenant in flight at a time.
    pub inflight_max: usize,
    /// The same for requests that leave early, as what waits has waited long enough. None does unless it is larger than
    /// `inflight_max`.
    pub inflight_early_max: usize,
    /// The same for full batches and for fragments that go alone. At least `inflight_max`.
    pub inflight_full_max: usize,
    /// How long a fragment that could be sent waits for others.
    pub linger: Duration,
    /// Fragments in one upstream request.
    pub fragments_max: usize,
    /// Inflated bytes of one upstream request. A single fragment may exceed it.
    pub inflated_bytes_max: usize,
}

/// What to do next for a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<F> {
    /// Send these in one request, then call [`Lane::left`] and [`Lane::finished`].
    Send(Vec<F>),
    /// Nothing yet. Ask again at this time.
    Wait(Instant),
    /// Nothing until a fragment arrives or a request finishes.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub struct Lane<F> {
    waiting: VecDeque<F>,
    /// The inflated bytes of all that waits.
    waiting_bytes: usize,
    /// No waiting fragment expires before this time.
    none_expires_before: Option<Instant>,
    /// Requests that were given out and have not finished.
    in_flight: usize,
    /// Those of them whose fragment could not be merged.
    singles_in_flight: usize,
    /// Waiting fragments that cannot be merged.
    singles_waiting: usize,
    /// Those of them that have not left yet: they wait for a connection.
    leaving: usize,
    /// When the latest left.
    left_at: Option<Instant>,
    /// How long the upstream took to store a request, if it stored the latest that finished.
    round_trip: Option<Duration>,
    unmerged_until: Option<Instant>,
}

impl<F> Default for Lane<F> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            none_expires_before: None,
            in_flight: 0,
            singles_in_flight: 0,
            singles_waiting: 0,
            leaving: 0,
            left_at: None,
            round_trip: None,
            unmerged_until: None,
        }
    }
}

impl<F: Queued> Lane<F> {
    /// Adds a fragment.
    pub fn push(&mut self, fragment: F) {
        let start_by = fragment.start_by();
        self.none_expires_before = Some(self.none_expires_before.map_or(start_by, |at| at.min(start_by)));
        self.count(&fragment);
        self.waiting.push_back(fragment);
    }

    /// Counts a fragment that waits from now on.
    fn count(&mut self, fragment: &F) {
        self.waiting_bytes += fragment.inflated_bytes();
        self.singles_waiting += usize::from(is_never_merged(fragment));
    }

    /// Counts a fragment that does not wait any more.
    fn uncount(&mut self, fragment: &F) {
        self.waiting_bytes -= fragment.inflated_bytes();
        self.singles_waiting -= usize::from(is_never_merged(fragment));
    }

    /// When the fragment that is next arrived.
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(F::arrived)
    }

    /// Removes the fragment that was added last.
    pub fn take_newest(&mut self) -> Option<F> {
        let newest = self.waiting.pop_back()?;
        self.uncount(&newest);
        Some(newest)
    }

    /// Puts the last fragments of a batch back in front of all others.
    pub fn put_back(&mut self, fragments: Vec<F>) {
        for fragment in fragments.into_iter().rev() {
            let start_by = fragment.start_by();
            self.none_expires_before = Some(self.none_expires_before.map_or(start_by, |at| at.min(start_by)));
            self.count(&fragment);
            self.waiting.push_front(fragment);
        }
    }

    /// Counts a request that [`next`](Self::next) gave out as on its way: it waits for a connection no more.
    pub fn left(&mut self, now: Instant) {
        self.leaving -= 1;
        self.left_at = Some(now);
    }

    /// Counts a request that has [`left`](Self::left) as finished. `is_single` tells whether its fragment
    /// [could not be merged](is_never_merged), `round_trip` how long the upstream took, if it stored the request.
    pub fn finished(&mut self, is_single: bool, round_trip: Option<Duration>) {
        self.in_flight -= 1;
        self.singles_in_flight -= usize::from(is_single);
        self.round_trip =
            round_trip.map(|latest| self.round_trip.map_or(latest, |before| (before + latest) / 2));
    }

    /// Sends every fragment alone until `until`.
    pub fn stop_merging(&mut self, until: Instant) {
        self.unmerged_until = Some(until);
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0
    }

    /// Removes the fragments whose time is up. They are always found in time: every request in flight ends within one
    /// timeout of its start, and then this is called again.
    pub fn take_expired(&mut self, now: Instant) -> Vec<F> {
        // The queue is scanned only if a fragment may have expired, not for each that arrives.
        if self.none_expires_before.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let (expired, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|f| f.start_by() <= now);
        self.waiting = rest;
        self.waiting_bytes = self.waiting.iter().map(F::inflated_bytes).sum();
        self.singles_waiting = self.waiting.iter().filter(|fragment| is_never_merged(*fragment)).count();
        self.none_expires_before = self.waiting.iter().map(F::start_by).min();
        Vec::from(expired)
    }

    /// Decides what to do now.
    pub fn next(&mut self, now: Instant, limits: &LaneLimits) -> Next<F> {
        let Some(first) = self.waiting.front() else { return Next::Nothing };
        if self.in_flight >= limits.inflight_full_max {
            return Next::Nothing;
        }
        let leaves_at = match self.is_single(first, now) || self.is_full(limits) {
            true => Some(now),
            false if self.in_flight - self.singles_in_flight < limits.inflight_max => {
                Some(first.arrived() + limits.linger)
            }
            false => self.early(first, now, limits),
        };
        if leaves_at.is_some_and(|at| at <= now) {
            return self.send(0, now, limits);
        }
        if self.singles_waiting > 0
            && let Some(single) = self.waiting.iter().position(is_never_merged)
        {
            return self.send(single, now, limits);
        }
        leaves_at.map_or(Next::Nothing, Next::Wait)
    }

    /// Sends the waiting fragment at this place, with all that may share its request.
    fn send(&mut self, place: usize, now: Instant, limits: &LaneLimits) -> Next<F> {
        let Some(first) = self.waiting.remove(place) else { return Next::Nothing };
        self.uncount(&first);
        self.in_flight += 1;
        self.singles_in_flight += usize::from(is_never_merged(&first));
        self.leaving += 1;
        let mut batch = vec![first];
        self.join(&mut batch, now, limits);
        Next::Send(batch)
    }

    /// Returns when a fragment may leave although `inflight_max` requests are in flight.
    fn early(&self, first: &F, now: Instant, limits: &LaneLimits) -> Option<Instant> {
        let (round_trip, left_at) = self.round_trip.zip(self.left_at)?;
        // If no request has ended for so long since the last one left, the upstream does not answer well any more.
        let is_late = now > left_at + 2 * round_trip;
        let merged_in_flight = self.in_flight - self.singles_in_flight;
        if merged_in_flight >= limits.inflight_early_max || self.leaving > 0 || is_late {
            return None;
        }
        let wait = (round_trip * EARLY_PERCENT / 100).min(EARLY_WAIT_MAX);
        let wait = wait.saturating_sub(EARLY_SLACK).max(wait.min(EARLY_SLACK));
        Some(first.arrived() + wait.max(limits.linger))
    }

    /// Whether a fragment has to be sent alone.
    fn is_single(&self, fragment: &F, now: Instant) -> bool {
        let unmerged = self.unmerged_until.is_some_and(|until| now < until);
        unmerged || is_never_merged(fragment)
    }

    fn is_full(&self, limits: &LaneLimits) -> bool {
        self.waiting.len() >= limits.fragments_max || self.waiting_bytes >= limits.inflated_bytes_max
    }

    /// Adds to a batch that has not been sent yet all waiting fragments that may share its request. The others keep
    /// their order.
    pub fn join(&mut self, batch: &mut Vec<F>, now: Instant, limits: &LaneLimits) {
        match batch.first() {
            Some(first) if !self.is_single(first, now) => {}
            _ => return,
        }
        let mut bytes: usize = batch.iter().map(F::inflated_bytes).sum();
        let mut left = Vec::new();
        while batch.len() < limits.fragments_max && bytes < limits.inflated_bytes_max {
            let Some(fragment) = self.waiting.pop_front() else { break };
            let fits = bytes + fragment.inflated_bytes() <= limits.inflated_bytes_max;
            if fits && !fragment.alone() && fragment.goes_with(&batch[0]) {
                bytes += fragment.inflated_bytes();
                self.uncount(&fragment);
                batch.push(fragment);
            } else {
                left.push(fragment);
            }
        }
        left.into_iter().rev().for_each(|fragment| self.waiting.push_front(fragment));
    }
}

/// Whether a fragment has to have a request of its own, whatever else the lane does.
pub fn is_never_merged(fragment: &impl Queued) -> bool {
    fragment.alone() || *fragment.merge_key() == MergeKey::Alone
}

#[cfg(test)]
mod tests;
