//! Who is connected to the admin port, and who has to go when somebody else comes.
//!
//! Whoever has not completed a request goes first, the one that came first before all others. Next goes whoever has been
//! reading its answer for longest. The half that came last is spared, as long as there is an answer to end instead: an
//! honest scraper sends its request at once, and to keep it out, so many would have to come within that moment.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::press::Printed;
use crate::io::deadline::Cutter;
use crate::limits::ADMIN_CONNECTIONS_MAX;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// By when they came.
    table: RefCell<BTreeMap<u64, Guest>>,
    /// What has happened so far, counted: the order of events is all that we need to know of time.
    events: Cell<u64>,
    /// Who waits for somebody to go.
    waiting: RefCell<Vec<Waker>>,
}

#[derive(Debug)]
struct Guest {
    cutter: Cutter,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Its request is not complete.
    Asking,
    /// It is being answered since that event, perhaps with a page that takes memory.
    Answered { since: u64, page: Option<Rc<Printed>> },
    /// It has been cut, and will be gone in a moment.
    Cut,
}

/// A connection's place; it is given back when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    guests: Rc<Guests>,
    came: u64,
}

impl Guests {
    /// Lets somebody in. If there are more than may be, whoever waited longest is cut.
    pub(super) fn enter(guests: &Rc<Self>, cutter: Cutter) -> Ticket {
        if guests.table.borrow().len() >= ADMIN_CONNECTIONS_MAX {
            guests.cut_longest();
        }
        let came = guests.next_event();
        guests.table.borrow_mut().insert(came, Guest { cutter, stage: Stage::Asking });
        Ticket { guests: Rc::clone(guests), came }
    }

    /// Waits until there are no more than may be.
    pub(super) async fn room(&self) {
        poll_fn(|cx| {
            if self.table.borrow().len() <= ADMIN_CONNECTIONS_MAX {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Cuts whoever has waited longest, if there is anybody.
    pub(super) fn cut_longest(&self) {
        let mut table = self.table.borrow_mut();
        let spared = table.len().min(ADMIN_CONNECTIONS_MAX / 2);
        let early = longest_asking(table.iter().take(table.len() - spared));
        let longest =
            early.or_else(|| longest_answered(&table, |_| true)).or_else(|| longest_asking(table.iter()));
        if let Some(guest) = longest.and_then(|came| table.get_mut(&came)) {
            guest.cut();
        }
    }

    /// Cuts those that have been reading a page for longest, until `is_enough` or nobody has one.
    pub(super) fn cut_readers_until(&self, is_enough: impl Fn() -> bool) {
        let mut table = self.table.borrow_mut();
        while !is_enough() {
            let Some(came) = longest_answered(&table, |page| page.is_some()) else { return };
            if let Some(guest) = table.get_mut(&came) {
                guest.cut();
            }
        }
    }

    /// Cuts all of them.
    pub(super) fn cut_all(&self) {
        self.table.borrow_mut().values_mut().for_each(Guest::cut);
    }

    fn next_event(&self) -> u64 {
        self.events.set(self.events.get() + 1);
        self.events.get()
    }
}

/// Who of these came first, of those whose request is not complete.
fn longest_asking<'t>(mut guests: impl Iterator<Item = (&'t u64, &'t Guest)>) -> Option<u64> {
    guests.find(|(_, guest)| matches!(guest.stage, Stage::Asking)).map(|(came, _)| *came)
}

/// Who has been at an answer for longest, of those whose page `counts`.
fn longest_answered(
    table: &BTreeMap<u64, Guest>,
    counts: impl Fn(&Option<Rc<Printed>>) -> bool,
) -> Option<u64> {
    let answered = table.iter().filter_map(|(came, guest)| match &guest.stage {
        Stage::Answered { since, page } if counts(page) => Some((*since, *came)),
        _ => None,
    });
    answered.min().map(|(_, came)| came)
}

impl Guest {
    fn cut(&mut self) {
        self.cutter.cut();
        self.stage = Stage::Cut;
    }
}

impl Ticket {
    /// The request is complete, and is answered from now on. `page` is what the answer keeps in memory.
    pub(super) fn answered(&self, page: Option<Rc<Printed>>) {
        let since = self.guests.next_event();
        if let Some(guest) = self.guests.table.borrow_mut().get_mut(&self.came)
            && !matches!(guest.stage, Stage::Cut)
        {
            guest.stage = Stage::Answered { since, page };
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.guests.table.borrow_mut().remove(&self.came);
        self.guests.waiting.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::deadline::{Deadlines, Watch};

    /// A connection without a socket.
    fn enter(guests: &Rc<Guests>) -> (Watch, Ticket) {
        let watch = Deadlines::default().watch_task();
        let ticket = Guests::enter(guests, watch.cutter());
        (watch, ticket)
    }

    fn cut(all: &[(Watch, Ticket)]) -> Vec<usize> {
        all.iter().enumerate().filter(|(_, (watch, _))| watch.expired()).map(|(n, _)| n).collect()
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_first_that_has_not_asked_yet() {
        let guests = Rc::default();
        let mut all: Vec<_> = (0..ADMIN_CONNECTIONS_MAX).map(|_| enter(&guests)).collect();
        all[0].1.answered(None);
        assert!(cut(&all).is_empty());
        all.push(enter(&guests));
        assert_eq!(cut(&all), [1]);
        all.push(enter(&guests));
        assert_eq!(cut(&all), [1, 2], "one that is cut is not cut again");
    }

    #[test]
    fn where_all_have_asked_the_longest_answer_goes() {
        let guests = Rc::default();
        let mut all: Vec<_> = (0..ADMIN_CONNECTIONS_MAX).map(|_| enter(&guests)).collect();
        all[7].1.answered(None);
        all.iter().enumerate().filter(|(n, _)| *n != 7).for_each(|(_, (_, ticket))| ticket.answered(None));
        all.push(enter(&guests));
        assert_eq!(cut(&all), [7]);
        all.push(enter(&guests));
        assert_eq!(cut(&all), [0, 7], "the newcomer before has had no time to ask");
        guests.cut_all();
        assert_eq!(cut(&all).len(), ADMIN_CONNECTIONS_MAX + 2);
        drop(all);
        assert!(guests.table.borrow().is_empty());
    }
}
