//! Budgets that limit the bytes and the requests in flight, and charges that hold a share of them.
//!
//! A request that does not fit is refused after its head, before its body costs anything. A request is charged as its
//! bytes arrive, so a declared length reserves nothing. The charge moves with the bytes: from the body to the fragments
//! made of it. Dropping a [`Charge`] releases its units, so no path can leak them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit on units (bytes or requests) in flight in the whole process, and their current number.
#[derive(Debug)]
pub struct Budget {
    units_max: usize,
    units: AtomicUsize,
}

impl Budget {
    /// Creates a budget of `units_max` units.
    pub fn new(units_max: usize) -> Arc<Self> {
        Arc::new(Self { units_max, units: AtomicUsize::new(0) })
    }

    /// Returns the number of units that there are.
    pub fn max(&self) -> usize {
        self.units_max
    }

    /// Charges `units`; `None`, with nothing charged, if they do not fit.
    pub fn charge(self: &Arc<Self>, units: usize) -> Option<Charge> {
        self.take(units).then(|| Charge { budget: Arc::clone(self), units })
    }

    /// Returns a charge of zero units, to [grow](Charge::grow).
    pub fn no_charge(self: &Arc<Self>) -> Charge {
        Charge { budget: Arc::clone(self), units: 0 }
    }

    /// Whether `units` more would fit now.
    pub fn has_room(&self, units: usize) -> bool {
        self.in_flight().checked_add(units).is_some_and(|sum| sum <= self.units_max)
    }

    /// Returns how many units would still fit.
    pub fn room(&self) -> usize {
        self.units_max.saturating_sub(self.in_flight())
    }

    /// Whether at least seven eighths of the budget are in flight.
    pub fn is_nearly_full(&self) -> bool {
        self.in_flight() >= self.units_max - self.units_max / 8
    }

    /// Returns the units in flight. They can exceed the limit if parts have [outgrown](Charge::split_off) their
    /// request.
    pub fn in_flight(&self) -> usize {
        self.units.load(Ordering::Relaxed)
    }

    fn take(&self, units: usize) -> bool {
        // Relaxed is enough: the number guards no other memory.
        self.units
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(units).filter(|&sum| sum <= self.units_max)
            })
            .is_ok()
    }
}

/// Units of a [`Budget`]. Dropping the charge releases them.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    units: usize,
}

impl Charge {
    /// Charges `more` units. Returns false, and leaves the charge unchanged, if they do not fit.
    pub fn grow(&mut self, more: usize) -> bool {
        let fits = self.budget.take(more);
        if fits {
            self.units += more;
        }
        fits
    }

    /// Splits off a charge of `units` for a part that outlives the whole. Units beyond those of this charge are charged
    /// even if they exceed the limit, as the part exists already. Later requests are refused in turn.
    pub fn split_off(&mut self, units: usize) -> Charge {
        let covered = units.min(self.units);
        self.units -= covered;
        self.budget.units.fetch_add(units - covered, Ordering::Relaxed);
        Charge { budget: Arc::clone(&self.budget), units }
    }

    /// Charges `units` of the same budget, for a copy of what this charge stands for. They are charged even if they
    /// exceed the limit, as the copy exists already.
    pub fn beside(&self, units: usize) -> Charge {
        self.budget.units.fetch_add(units, Ordering::Relaxed);
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
    fn units_that_do_not_fit_are_refused_and_not_charged() {
        let budget = Budget::new(100);
        let held = budget.charge(60).unwrap();
        assert!(budget.charge(41).is_none());
        assert!(budget.charge(usize::MAX).is_none(), "no overflow");
        assert_eq!(budget.in_flight(), 60);
        drop(held);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn a_charge_grows_only_within_the_budget() {
        let budget = Budget::new(100);
        let mut held = budget.charge(60).unwrap();
        assert!(held.grow(40));
        assert!(!held.grow(1));
        drop(held);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn parts_release_the_units_that_they_split_off() {
        let budget = Budget::new(100);
        let mut whole = budget.charge(100).unwrap();
        let part = whole.split_off(30);
        let rest = whole.split_off(70);
        drop(whole);
        assert_eq!(budget.in_flight(), 100);
        drop(rest);
        assert_eq!(budget.in_flight(), 30);
        drop(part);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn parts_that_outgrow_their_whole_count_and_block_new_charges() {
        let budget = Budget::new(100);
        let mut whole = budget.charge(60).unwrap();
        let part = whole.split_off(130);
        drop(whole);
        assert_eq!(budget.in_flight(), 130);
        assert!(!budget.has_room(0) && budget.charge(1).is_none());
        drop(part);
        assert!(budget.has_room(100) && !budget.has_room(101) && !budget.has_room(usize::MAX));
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn a_copy_has_a_charge_of_its_own() {
        let budget = Budget::new(100);
        let original = budget.charge(60).unwrap();
        let copy = original.beside(50);
        assert_eq!(budget.in_flight(), 110);
        drop(original);
        assert_eq!(budget.in_flight(), 50);
        drop(copy);
        assert_eq!(budget.in_flight(), 0);
    }
}
