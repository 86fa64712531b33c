//! Taps: operators who watch what happens to some series.
//!
//! # Constraints
//! - Without taps they cost one load for each request.
//! - A core never waits for one that watches. If it does not read, events are lost and counted.
//! - Taps, events in a tap, and series of a request that a tap shows are bounded.
//!
//! # Design
//! The admin thread opens a [`Tap`] and reads its channel. While any is open, the core that receives a request looks
//! for matching series in its body once more, apart from the splitter, and sends an event for each when the request is
//! answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::limits::{TAP_EVENTS_MAX, TAPS_MAX};
use crate::model::{Destination, Fate};
use crate::selector::Selector;

/// What a tap shows.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Series that fulfil all conditions.
    Series(Selector),
    /// Series of a tenant, given by its ID with prefix.
    Tenant(Destination, Box<str>),
}

/// A matching series, and what happened to it.
#[derive(Clone, Debug)]
pub struct Event {
    /// When its request was answered.
    pub at: Instant,
    /// The ID of the request.
    pub request_id: u128,
    /// The request's sender.
    pub client: SocketAddr,
    /// Its labels, as a selector.
    pub series: String,
    /// Its tenant, if it has one.
    pub tenant: Option<String>,
    /// The kind of rule that decided, and what the rule says.
    pub rule: Option<(&'static str, String)>,
    /// Fragments that shared its upstream request.
    pub merged_with: usize,
    /// Where that went.
    pub address: Option<SocketAddr>,
    /// The upstream's status, or the one that its sender got.
    pub status: u16,
    /// From the request's head to its answer.
    pub took: Duration,
    /// What became of it.
    pub fate: Fate,
    /// Why it was not stored.
    pub reason: Option<String>,
}

/// An open tap. Dropping it closes it.
#[derive(Debug)]
pub struct Tap {
    taps: Arc<Taps>,
    state: Arc<State>,
    events: Receiver<Event>,
}

/// A tap, as cores see it.
#[derive(Debug)]
pub struct State {
    /// What it shows.
    pub filter: Filter,
    sender: Sender<Event>,
    dropped: AtomicU64,
}

/// All taps of the process.
#[derive(Debug, Default)]
pub struct Taps {
    open: AtomicUsize,
    states: Mutex<Vec<Arc<State>>>,
}

impl Taps {
    /// Opens a tap; `None` if there are too many.
    pub fn open(self: &Arc<Self>, filter: Filter) -> Option<Tap> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        if states.len() >= TAPS_MAX {
            return None;
        }
        let (sender, events) = crossbeam_channel::bounded(TAP_EVENTS_MAX);
        let state = Arc::new(State { filter, sender, dropped: AtomicU64::new(0) });
        states.push(Arc::clone(&state));
        self.open.store(states.len(), Ordering::Relaxed);
        Some(Tap { taps: Arc::clone(self), state, events })
    }

    /// Whether one more may be opened.
    pub fn have_room(&self) -> bool {
        self.open.load(Ordering::Relaxed) < TAPS_MAX
    }

    /// Whether any is open.
    pub fn are_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Those that are open. Takes a lock, for a moment.
    pub fn all(&self) -> Vec<Arc<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl State {
    /// Counts events that are lost.
    pub fn lose(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }

    /// Shows an event, or counts it as lost.
    pub fn show(&self, event: Event) {
        if self.sender.try_send(event).is_err() {
            self.lose(1);
        }
    }
}

impl Tap {
    /// The next event, if there is one.
    pub fn next(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Events that were lost, as they were not read in time.
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut states = self.taps.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|state| !Arc::ptr_eq(state, &self.state));
        self.taps.open.store(states.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            at: Instant::now(),
            request_id: 1,
            client: SocketAddr::from(([127, 0, 0, 1], 1)),
            series: "{}".into(),
            tenant: None,
            rule: None,
            merged_with: 0,
            address: None,
            status: 200,
            took: Duration::ZERO,
            fate: Fate::Delivered,
            reason: None,
        }
    }

    #[test]
    fn a_tap_is_open_until_it_is_dropped_and_there_are_only_so_many() {
        let taps = Arc::new(Taps::default());
        let filter = || Filter::Tenant(Destination::Metrics, "a".into());
        let mut open: Vec<_> = (0..TAPS_MAX).map(|_| taps.open(filter()).unwrap()).collect();
        assert!(taps.open(filter()).is_none() && taps.are_open());
        drop(open.pop());
        assert!(taps.open(filter()).is_some());
        open.clear();
        assert!(!taps.are_open() && taps.all().is_empty());
    }

    #[test]
    fn what_is_not_read_is_lost_and_counted() {
        let taps = Arc::new(Taps::default());
        let tap = taps.open(Filter::Tenant(Destination::Metrics, "a".into())).unwrap();
        (0..TAP_EVENTS_MAX + 3).for_each(|_| taps.all()[0].show(event()));
        assert_eq!(tap.dropped(), 3);
        assert_eq!(std::iter::from_fn(|| tap.next()).count(), TAP_EVENTS_MAX);
    }
}
