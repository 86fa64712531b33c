//! Collects the outcomes of the parts of each request.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::exchange::fragment::ReturnAddress;
use crate::model::Outcome;

/// The requests of one core that wait for outcomes.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    table: Rc<RefCell<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    parts: usize,
}

#[derive(Debug, Default)]
struct Slot {
    missing: usize,
    outcomes: Vec<Option<Outcome>>,
    waiting: Option<Waker>,
}

/// A request that waits for outcomes: one for each of its parts, which are numbered from 0.
#[derive(Debug)]
pub struct Ticket {
    pending: Pending,
    slot: u32,
}

impl Pending {
    /// Registers a request of `parts` parts. Returns None if more than `parts_max` parts would wait on this core.
    pub fn open(&self, parts: usize, parts_max: usize) -> Option<Ticket> {
        let mut table = self.table.borrow_mut();
        if table.parts + parts > parts_max {
            return None;
        }
        let slot = match table.vacant.pop() {
            Some(slot) => slot,
            None => {
                table.slots.push(Slot::default());
                u32::try_from(table.slots.len() - 1).ok()?
            }
        };
        table.parts += parts;
        let entry = table.slots.get_mut(slot as usize)?;
        entry.missing = parts;
        entry.outcomes.clear();
        entry.outcomes.resize_with(parts, || None);
        Some(Ticket { pending: self.clone(), slot })
    }

    /// Stores the outcome of a part.
    pub fn resolve(&self, address: ReturnAddress, outcome: Outcome) {
        let mut table = self.table.borrow_mut();
        let Some(slot) = table.slots.get_mut(address.slot as usize) else { return };
        let Some(part @ None) = slot.outcomes.get_mut(address.part as usize) else {
            debug_assert!(false, "a second outcome for {address:?}");
            return;
        };
        *part = Some(outcome);
        slot.missing -= 1;
        if slot.missing == 0
            && let Some(waker) = slot.waiting.take()
        {
            waker.wake();
        }
        // Frees the part's room at once: one slow part must not hold the room of its whole request.
        table.parts -= 1;
    }

    /// Returns the number of parts that wait.
    pub fn parts(&self) -> usize {
        self.table.borrow().parts
    }
}

impl Ticket {
    /// Returns the address for the outcome of part `part`, for a request of core `core`.
    pub fn return_address(&self, core: usize, part: u32) -> ReturnAddress {
        ReturnAddress { core, slot: self.slot, part }
    }

    /// Waits for all outcomes, and returns them in the order of the parts.
    pub async fn outcomes(self) -> Vec<Outcome> {
        poll_fn(|cx| {
            let mut table = self.pending.table.borrow_mut();
            let Some(slot) = table.slots.get_mut(self.slot as usize) else { return Poll::Ready(Vec::new()) };
            if slot.missing > 0 {
                slot.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let outcomes = std::mem::take(&mut slot.outcomes);
            table.vacant.push(self.slot);
            Poll::Ready(outcomes.into_iter().flatten().collect())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn outcomes_are_in_the_order_of_the_parts_not_of_arrival() {
        let pending = Pending::default();
        let ticket = pending.open(3, 10).unwrap();
        let addresses: Vec<_> = (0..3).map(|part| ticket.return_address(0, part)).collect();
        let mut outcomes = pin!(ticket.outcomes());
        let mut cx = Context::from_waker(Waker::noop());
        for part in [2, 0, 1] {
            assert!(outcomes.as_mut().poll(&mut cx).is_pending());
            pending.resolve(addresses[part], Outcome::upstream([200, 201, 202][part], None, b""));
        }
        let Poll::Ready(outcomes) = outcomes.as_mut().poll(&mut cx) else {
            panic!("all outcomes have arrived")
        };
        assert_eq!(outcomes.iter().map(|o| o.status).collect::<Vec<_>>(), [200, 201, 202]);
        assert_eq!(pending.parts(), 0);
    }

    #[test]
    fn a_resolved_part_frees_its_room() {
        let pending = Pending::default();
        let ticket = pending.open(10, 10).unwrap();
        assert!(pending.open(1, 10).is_none());
        (0..9).for_each(|part| {
            pending.resolve(ticket.return_address(0, part), Outcome::upstream(200, None, b""))
        });
        assert_eq!(pending.parts(), 1);
        assert!(pending.open(9, 10).is_some() && pending.open(1, 10).is_none());
    }

    #[test]
    fn parts_are_bounded_and_slots_are_reused() {
        let pending = Pending::default();
        let first = pending.open(6, 10).unwrap();
        assert!(pending.open(5, 10).is_none());
        let second = pending.open(4, 10).unwrap();
        assert_ne!(first.slot, second.slot);
        (0..4).for_each(|part| {
            pending.resolve(second.return_address(0, part), Outcome::upstream(200, None, b""))
        });
        let mut cx = Context::from_waker(Waker::noop());
        let slot = second.slot;
        assert!(pin!(second.outcomes()).poll(&mut cx).is_ready());
        assert_eq!(pending.open(4, 10).unwrap().slot, slot);
    }
}
