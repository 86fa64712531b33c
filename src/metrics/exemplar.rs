//! Exemplars: for each bucket of a histogram, one value of late and the request that it is of.
//!
//! An exemplar is several words, which one core writes while another thread may read them. A sequence number tells the
//! reader whether it has read the words of one exemplar (a *seqlock*; Boehm, "Can seqlocks get along with programming
//! language memory models?", 2012). The writer never waits, and a reader that meets a write reads nothing. All words
//! are atomics, so a read that comes to nothing is still defined.
//!
//! - The writer makes the number odd, and its release fence orders that before the words. A reader that sees one of
//!   the new words has, through its acquire fence, also the odd number or a later one, so its second look differs from
//!   the first.
//! - The writer stores the even number with release after the words. A reader that loads it with acquire sees these
//!   words or later ones.
//!
//! A bucket is written at most once a second. All other values cost a load and a comparison.
#![forbid(unsafe_code)]

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A value of a histogram, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The ID of the request.
    pub request_id: u128,
    /// The value.
    pub value: f64,
    /// When it was observed, in milliseconds after the process took its first exemplar.
    millis: u64,
}

/// The time from which exemplars count: that of the first.
static BEGAN: OnceLock<Instant> = OnceLock::new();

impl Exemplar {
    /// An exemplar that is observed at `now`.
    pub fn new(request_id: u128, value: f64, now: Instant) -> Self {
        let began = BEGAN.get_or_init(|| now);
        let millis = u64::try_from(now.saturating_duration_since(*began).as_millis());
        Self { request_id, value, millis: millis.unwrap_or(u64::MAX) }
    }

    /// How long ago it was observed.
    pub fn age(&self, now: Instant) -> Duration {
        let since_began = BEGAN.get().map(|&began| now.saturating_duration_since(began));
        since_began.unwrap_or_default().saturating_sub(Duration::from_millis(self.millis))
    }

    /// The later of two.
    pub fn latest(self, other: Self) -> Self {
        if other.millis > self.millis { other } else { self }
    }
}

/// The place for the exemplar of one bucket. It has one writer.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// 0 while there is none; odd while one is written.
    sequence: AtomicU64,
    id_high: AtomicU64,
    id_low: AtomicU64,
    value_bits: AtomicU64,
    millis: AtomicU64,
}

impl Slot {
    /// Keeps an exemplar, unless there is one of the same second. Only the one writer may call it.
    pub(super) fn offer(&self, exemplar: &Exemplar) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        if sequence > 0 && self.millis.load(Ordering::Relaxed) / 1_000 == exemplar.millis / 1_000 {
            return;
        }
        self.write(sequence, exemplar);
    }

    fn write(&self, sequence: u64, exemplar: &Exemplar) {
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let (high, low) = halves(exemplar.request_id);
        self.id_high.store(high, Ordering::Relaxed);
        self.id_low.store(low, Ordering::Relaxed);
        self.value_bits.store(exemplar.value.to_bits(), Ordering::Relaxed);
        self.millis.store(exemplar.millis, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The exemplar. `None` if there is none, or if it is just being written.
    pub(super) fn read(&self) -> Option<Exemplar> {
        let before = self.sequence.load(Ordering::Acquire);
        if before == 0 || before % 2 == 1 {
            return None;
        }
        let (high, low) = (self.id_high.load(Ordering::Relaxed), self.id_low.load(Ordering::Relaxed));
        let exemplar = Exemplar {
            request_id: (u128::from(high) << 64) | u128::from(low),
            value: f64::from_bits(self.value_bits.load(Ordering::Relaxed)),
            millis: self.millis.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        (self.sequence.load(Ordering::Relaxed) == before).then_some(exemplar)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn halves(id: u128) -> (u64, u64) {
    ((id >> 64) as u64, id as u64)
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn exemplar(n: u64) -> Exemplar {
        Exemplar { request_id: (u128::from(n) << 64) | u128::from(n), value: n as f64, millis: n * 1_000 }
    }

    #[test]
    fn a_slot_keeps_the_first_exemplar_of_a_second() {
        let slot = Slot::default();
        assert_eq!(slot.read(), None);
        let first = Exemplar { millis: 5_100, ..exemplar(1) };
        slot.offer(&first);
        slot.offer(&Exemplar { millis: 5_900, ..exemplar(2) });
        assert_eq!(slot.read(), Some(first));
        slot.offer(&exemplar(6));
        assert_eq!(slot.read(), Some(exemplar(6)));
        assert_eq!(first.latest(exemplar(6)), exemplar(6));
    }

    #[test]
    fn the_age_of_an_exemplar_is_known() {
        let now = Instant::now();
        let _first = Exemplar::new(1, 2.0, now);
        let later = now + Duration::from_secs(7);
        let age = Exemplar::new(1, 2.0, later).age(later + Duration::from_secs(3));
        assert!((age.as_secs_f64() - 3.0).abs() < 0.01, "{age:?}");
    }

    #[test]
    fn a_reader_never_sees_parts_of_two_exemplars() {
        let (slot, over) = (Arc::new(Slot::default()), Arc::new(AtomicBool::new(false)));
        let writer = std::thread::spawn({
            let (slot, over) = (Arc::clone(&slot), Arc::clone(&over));
            move || {
                for n in (1..).take_while(|_| !over.load(std::sync::atomic::Ordering::Relaxed)) {
                    slot.offer(&exemplar(n));
                }
            }
        });
        let mut seen = 0;
        let until = Instant::now() + Duration::from_secs(20);
        while seen < 20_000 && Instant::now() < until {
            let Some(read) = slot.read() else { continue };
            let n = read.millis / 1_000;
            assert_eq!(read, exemplar(n));
            seen += 1;
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap();
        assert!(seen > 0);
    }
}

/// `cargo test --release --lib --features loom metrics::exemplar`
#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn exemplar(n: u64) -> Exemplar {
        Exemplar { request_id: (u128::from(n) << 64) | u128::from(n), value: n as f64, millis: n * 1_000 }
    }

    /// The writer does not look at the number before it writes, as [`Slot::offer`] does: loom 0.7 remembers only the
    /// last access to an atomic, so the writer's load would hide that of the reader, and there would be no race to try.
    #[test]
    fn a_reader_sees_one_exemplar_or_none() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let writer = thread::spawn({
                let slot = Arc::clone(&slot);
                move || [1, 2].iter().for_each(|&n| slot.write(2 * (n - 1), &exemplar(n)))
            });
            if let Some(read) = slot.read() {
                assert_eq!(read, exemplar(read.millis / 1_000));
            }
            writer.join().unwrap();
            assert_eq!(slot.read(), Some(exemplar(2)));
        });
    }
}
