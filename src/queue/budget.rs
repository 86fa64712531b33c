//! What may be in flight, in bytes or in requests, and who holds how much of it.
//!
//! A request is charged before its body is read, so that an overload is refused at the price of a head. The charge
//! moves along with the bytes: from the body to the fragments made of it, and back into the budget when the last
//! of them is dropped. That it is given back on every path is not left to care: [`Charge`] does it when dropped.

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

    /// Units in flight now.
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

    /// A charge of its own for up to `units` of these: for a part that outlives the whole.
    pub fn split(&mut self, units: usize) -> Charge {
        let units = units.min(self.units);
        self.units -= units;
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
        let part = whole.split(30);
        let greedy = whole.split(1_000);
        drop(whole);
        assert_eq!(budget.in_flight(), 100);
        drop(greedy);
        assert_eq!(budget.in_flight(), 30);
        drop(part);
        assert_eq!(budget.in_flight(), 0);
    }
}
