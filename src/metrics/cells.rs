//! The cells that hold numbers: each has one writer and any number of readers.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::exemplar::{Exemplar, Slot};
use crate::model::{PerDestination, UpstreamId};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the one writer may call it: it is a load and a store.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// A gauge that starts at `n`.
    pub fn new(n: u64) -> Self {
        Self(AtomicU64::new(n))
    }

    /// Sets the value.
    pub fn set(&self, n: usize) {
        self.0.store(n as u64, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn up(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Adds `n`.
    pub fn up_by(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts one.
    pub fn down(&self) {
        self.down_by(1);
    }

    /// Subtracts `n`. A gauge that others add to elsewhere may wrap around; the sum of all is right again.
    pub fn down_by(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The name of an upstream, and its gauges.
type NamedGauges = (Arc<str>, PerDestination<Gauge>);

/// A gauge for each upstream, summed over the kinds of data where it is read.
#[derive(Debug, Default)]
pub struct UpstreamGauges {
    main: PerDestination<Gauge>,
    /// By the upstreams' numbers, which count from 1. Set once, before the cores start.
    named: OnceLock<Box<[NamedGauges]>>,
}

impl UpstreamGauges {
    /// Adds gauges for named upstreams.
    pub(super) fn name(&self, names: &[Arc<str>]) {
        let gauges = names.iter().map(|name| (Arc::clone(name), PerDestination::default()));
        let _ = self.named.set(gauges.collect());
    }

    /// The gauge of an upstream.
    pub fn of(&self, id: UpstreamId) -> &Gauge {
        let named = || self.named.get()?.get(id.index().checked_sub(1)?);
        named().map_or(&self.main, |(_, gauges)| gauges).of(id.destination())
    }

    /// The sum over all upstreams.
    pub fn total(&self) -> u64 {
        self.main() + self.named().map(|(_, value)| value).sum::<u64>()
    }

    /// The value of the main upstream.
    pub fn main(&self) -> u64 {
        self.main.iter().map(Gauge::get).sum()
    }

    /// The names of the other upstreams, and their values.
    pub fn named(&self) -> impl Iterator<Item = (Arc<str>, u64)> {
        let all = self.named.get().into_iter().flatten();
        all.map(|(name, gauges)| (Arc::clone(name), gauges.iter().map(Gauge::get).sum()))
    }
}

/// A time; none at first.
#[derive(Debug, Default)]
pub struct Moment(AtomicU64);

/// What [`Moment`]s count from: the first time that any was set to.
static FIRST_MOMENT: OnceLock<Instant> = OnceLock::new();

impl Moment {
    /// Sets the time, to the millisecond. One from before the first that any was set to counts as that one.
    pub fn set(&self, at: Option<Instant>) {
        let since = |at: Instant| {
            let first = FIRST_MOMENT.get_or_init(|| at);
            u64::try_from(at.saturating_duration_since(*first).as_millis())
        };
        self.0.store(at.map_or(0, |at| since(at).unwrap_or(u64::MAX - 1) + 1), Ordering::Relaxed);
    }

    /// The time.
    pub fn get(&self) -> Option<Instant> {
        let millis = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        FIRST_MOMENT.get()?.checked_add(Duration::from_millis(millis))
    }
}

/// The kernel's ID of a thread; 0 before the thread runs.
#[derive(Debug, Default)]
pub struct ThreadId(AtomicI32);

impl ThreadId {
    /// Sets the ID.
    pub fn set(&self, id: i32) {
        self.0.store(id, Ordering::Relaxed);
    }

    /// The ID.
    pub fn get(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The values of a label: each has an index, and a text for the exposition.
pub trait Label {
    /// The label's name.
    const KEY: &'static str;

    /// The index of this value.
    fn index(&self) -> usize;

    /// The text of the value at `index`. None hides a value that was counted `count` times.
    fn text(index: usize, count: u64) -> Option<Cow<'static, str>>;
}

/// A counter for each value of the label `L`, which has `N` of them.
#[derive(Debug)]
pub struct Counters<L, const N: usize> {
    counts: [Counter; N],
    label: PhantomData<L>,
}

impl<L, const N: usize> Default for Counters<L, N> {
    fn default() -> Self {
        Self { counts: [const { Counter(AtomicU64::new(0)) }; N], label: PhantomData }
    }
}

impl<L: Label, const N: usize> Counters<L, N> {
    /// Adds one. A value whose index is out of range is not counted.
    pub fn count(&self, value: L) {
        if let Some(counter) = self.counts.get(value.index()) {
            counter.add(1);
        }
    }

    /// Adds `n`, as [`count`](Self::count) adds one.
    pub fn add(&self, value: L, n: u64) {
        if let Some(counter) = self.counts.get(value.index()) {
            counter.add(n);
        }
    }

    /// The counts, in the order of the values' indexes.
    pub fn counts(&self) -> [u64; N] {
        std::array::from_fn(|index| self.counts.get(index).map_or(0, Counter::get))
    }

    /// Reads all counters.
    pub fn read(&self) -> ByLabel {
        ByLabel { key: L::KEY, text: L::text, counts: self.counts.iter().map(Counter::get).collect() }
    }
}

/// [`Counters`] as they were read.
#[derive(Clone, Debug)]
pub struct ByLabel {
    /// The label's name.
    pub key: &'static str,
    text: fn(usize, u64) -> Option<Cow<'static, str>>,
    counts: Vec<u64>,
}

impl ByLabel {
    /// Adds the counts of another reading of the same label.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(ours, theirs)| *ours += theirs);
    }

    /// The label's values to show, in the order of their indexes, and their counts.
    pub fn shown(&self) -> impl Iterator<Item = (Cow<'static, str>, u64)> {
        let counts = self.counts.iter().enumerate();
        counts.filter_map(|(index, &count)| Some(((self.text)(index, count)?, count)))
    }
}

/// A distribution over fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One count per bound and one for values above all bounds; not cumulative.
    counts: Box<[Counter]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
    /// One for each count, or none at all.
    exemplars: Box<[Slot]>,
}

/// A [`Histogram`] as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds, each with the number of values up to it and above the bound before; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub sum: f64,
    /// An exemplar for each bucket that has one. Empty if the histogram keeps none.
    pub exemplars: Vec<Option<Exemplar>>,
}

impl Histogram {
    /// A histogram with these upper bounds, in ascending order.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, counts, sum: AtomicU64::new(0f64.to_bits()), exemplars: Box::default() }
    }

    /// A histogram with these upper bounds that keeps an exemplar for each bucket.
    pub fn with_exemplars(bounds: &'static [f64]) -> Self {
        Self { exemplars: (0..=bounds.len()).map(|_| Slot::default()).collect(), ..Self::new(bounds) }
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        self.observe_in(self.place(value), value);
    }

    /// Counts a value, and perhaps keeps it as the exemplar of its bucket.
    pub fn observe_as(&self, exemplar: &Exemplar) {
        let place = self.place(exemplar.value);
        self.observe_in(place, exemplar.value);
        if let Some(slot) = self.exemplars.get(place) {
            slot.offer(exemplar);
        }
    }

    fn place(&self, value: f64) -> usize {
        self.bounds.partition_point(|&bound| bound < value)
    }

    fn observe_in(&self, place: usize, value: f64) {
        if let Some(count) = self.counts.get(place) {
            count.add(1);
        }
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed)) + value;
        self.sum.store(sum.to_bits(), Ordering::Relaxed);
    }

    /// Reads all buckets and the sum.
    pub fn read(&self) -> Distribution {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        Distribution {
            buckets: bounds.zip(self.counts.iter().map(Counter::get)).collect(),
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
            exemplars: self.exemplars.iter().map(Slot::read).collect(),
        }
    }
}

impl Distribution {
    /// Adds a distribution over the same bounds.
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(ours, theirs)| ours.1 += theirs.1);
        self.sum += other.sum;
        for (ours, theirs) in self.exemplars.iter_mut().zip(&other.exemplars) {
            *ours = match (*ours, *theirs) {
                (Some(ours), Some(theirs)) => Some(ours.latest(theirs)),
                (ours, theirs) => ours.or(theirs),
            };
        }
    }

    /// The number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_histogram_counts_each_value_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[1.0, 5.0]);
        [0.5, 1.0, 1.5, 5.0, 7.0].into_iter().for_each(|v| histogram.observe(v));
        let read = histogram.read();
        assert_eq!(read.buckets, [(1.0, 2), (5.0, 2), (f64::INFINITY, 1)]);
        assert_eq!((read.sum, read.count()), (15.0, 5));
        let mut twice = read.clone();
        twice.add(&read);
        assert_eq!((twice.sum, twice.count()), (30.0, 10));
    }

    #[test]
    fn a_histogram_keeps_an_exemplar_for_each_bucket() {
        let (cores, now) = ([(); 2].map(|()| Histogram::with_exemplars(&[1.0, 5.0])), Instant::now());
        let later = now + Duration::from_secs(7);
        cores[0].observe_as(&Exemplar::new(1, 0.5, now));
        cores[0].observe_as(&Exemplar::new(2, 9.0, later));
        cores[1].observe_as(&Exemplar::new(3, 0.7, later));
        let mut read = cores[0].read();
        read.add(&cores[1].read());
        let ids: Vec<_> = read.exemplars.iter().map(|kept| kept.map(|e| (e.request_id, e.value))).collect();
        assert_eq!(ids, [Some((3, 0.7)), None, Some((2, 9.0))]);
        assert_eq!(read.count(), 3);
    }
}
