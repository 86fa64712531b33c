//! What may be in flight, in bytes or in requests, and who holds how much of it.
//!
//! A request that does not fit is refused by its head, at the price of that; it is charged as its bytes come in, so
//! that nobody holds room by a promise. The charge moves along with the bytes: from the body to the fragments made of
//! it, and back into the budget when the last of them is dropped. That it is given back on every path is not left to
//! care: [`Charge`] does it when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of units (bytes, or requests) in flight in the whole process, and its bound.
#[derive(Debug)]
pub struct Budget {
    units_max: usize,
    units: AtomicUsize,
}

impl Budget {
    /// A budget of `units_max` units.
    pub fn new(units_max: usize) -> Arc<Self> {
        Arc::new(Self { units_max, units: AtomicUsize::new(0) })
    }

    /// Takes `units` out of the budget; None when they don't fit, and then nothing was taken.
    pub fn charge(self: &Arc<Self>, units: usize) -> Option<Charge> {
        self.take(units).then(|| Charge { budget: Arc::clone(self), units })
    }

    /// A charge of nothing yet, to [grow](Charge::grow).
    pub fn no_charge(self: &Arc<Self>) -> Charge {
        Charge { budget: Arc::clone(self), units: 0 }
    }

    /// Whether so many units would fit now.
    pub fn has_room(&self, units: usize) -> bool {
        self.in_flight().checked_add(units).is_some_and(|sum| sum <= self.units_max)
    }

    /// Whether seven eighths are in flight.
    pub fn is_nearly_full(&self) -> bool {
        self.in_flight() >= self.units_max - self.units_max / 8
    }

    /// Units in flight now; more than the bound where what is in work has [outgrown](Charge::part) it.
    pub fn in_flight(&self) -> usize {
        self.units.load(Ordering::Relaxed)
    }

    fn take(&self, units: usize) -> bool {
        // Relaxed throughout: the number guards no other memory, it only has to be a number.
        self.units
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(units).filter(|&sum| sum <= self.units_max)
            })
            .is_ok()
    }
}

/// Some units of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    units: usize,
}

impl Charge {
    /// Takes `more` units; false when they don't fit, and then the charge stays what it was.
    pub fn grow(&mut self, more: usize) -> bool {
        let fits = self.budget.take(more);
        if fits {
            self.units += more;
        }
        fits
    }

    /// A charge of its own for `units`: for a part that outlives the whole. What is more than the whole is taken in any
    /// case, as the part is there already; what comes next is refused for it.
    pub fn part(&mut self, units: usize) -> Charge {
        let covered = units.min(self.units);
        self.units -= covered;
        self.budget.units.fetch_add(units - covered, Ordering::Relaxed);
        Charge { budget: Arc::clone(&self.budget), units }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.units.fetch_sub(self.units, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_not_taken() {
        let budget = Budget::new(100);
        let held = budget.charge(60).unwrap();
        assert!(budget.charge(41).is_none());
        assert!(budget.charge(usize::MAX).is_none(), "no overflow");
        assert_eq!(budget.in_flight(), 60);
        drop(held);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn a_charge_grows_within_the_budget_only() {
        let budget = Budget::new(100);
        let mut held = budget.charge(60).unwrap();
        assert!(held.grow(40));
        assert!(!held.grow(1));
        drop(held);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn parts_give_back_what_they_took_along() {
        let budget = Budget::new(100);
        let mut whole = budget.charge(100).unwrap();
        let part = whole.part(30);
        let rest = whole.part(70);
        drop(whole);
        assert_eq!(budget.in_flight(), 100);
        drop(rest);
        assert_eq!(budget.in_flight(), 30);
        drop(part);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn parts_that_outgrow_their_whole_are_counted_and_keep_others_out() {
        let budget = Budget::new(100);
        let mut whole = budget.charge(60).unwrap();
        let part = whole.part(130);
        drop(whole);
        assert_eq!(budget.in_flight(), 130);
        assert!(!budget.has_room(0) && budget.charge(1).is_none());
        drop(part);
        assert!(budget.has_room(100) && !budget.has_room(101) && !budget.has_room(usize::MAX));
        assert_eq!(budget.in_flight(), 0);
    }
}
