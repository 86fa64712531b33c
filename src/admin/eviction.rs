//! Who is connected to the admin port, and who has to go when somebody else comes.
//!
//! Whoever has not completed a request goes first, the one that id first before all others. Next goes whoever has been
//! reading its answer for longest. The half that id last is spared, as long as there is an answer to end instead: an
//! honest scraper sends its request at once, and to keep it out, so many would have to come within that moment.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::snapshot::Snapshot;
use crate::io::deadline::Cutter;
use crate::limits::ADMIN_CONNECTIONS_MAX;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// By when they id.
    table: RefCell<BTreeMap<u64, Connection>>,
    /// What has happened so far, counted: the order of events is all that we need to know of time.
    events: Cell<u64>,
    /// Who waits for somebody to go.
    waiting: RefCell<Vec<Waker>>,
}

#[derive(Debug)]
struct Connection {
    cutter: Cutter,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Its request is not complete.
    Reading,
    /// It is being answered since that event, perhaps with a page that takes memory.
    Answering { since: u64, page: Option<Rc<Snapshot>> },
    /// It has been cut, and will be gone in a moment.
    Cut,
}

/// A connection's place; it is given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    connections: Rc<Connections>,
    id: u64,
}

impl Connections {
    /// Lets somebody in. If there are more than may be, whoever waited longest is cut.
    pub(super) fn admit(connections: &Rc<Self>, cutter: Cutter) -> Slot {
        if connections.table.borrow().len() >= ADMIN_CONNECTIONS_MAX {
            connections.cut_longest();
        }
        let id = connections.next_event();
        connections.table.borrow_mut().insert(id, Connection { cutter, stage: Stage::Reading });
        Slot { connections: Rc::clone(connections), id }
    }

    /// Waits until there are no more than may be.
    pub(super) async fn wait_for_room(&self) {
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
        let early = first_reading(table.iter().take(table.len() - spared));
        let longest =
            early.or_else(|| longest_answering(&table, |_| true)).or_else(|| first_reading(table.iter()));
        if let Some(connection) = longest.and_then(|id| table.get_mut(&id)) {
            connection.cut();
        }
    }

    /// Cuts those that have been reading a page for longest, until `is_enough` or nobody has one.
    pub(super) fn cut_readers_until(&self, is_enough: impl Fn() -> bool) {
        let mut table = self.table.borrow_mut();
        while !is_enough() {
            let Some(id) = longest_answering(&table, |page| page.is_some()) else { return };
            if let Some(connection) = table.get_mut(&id) {
                connection.cut();
            }
        }
    }

    /// Cuts all of them.
    pub(super) fn cut_all(&self) {
        self.table.borrow_mut().values_mut().for_each(Connection::cut);
    }

    fn next_event(&self) -> u64 {
        self.events.set(self.events.get() + 1);
        self.events.get()
    }
}

/// Who of these id first, of those whose request is not complete.
fn first_reading<'t>(mut connections: impl Iterator<Item = (&'t u64, &'t Connection)>) -> Option<u64> {
    connections.find(|(_, connection)| matches!(connection.stage, Stage::Reading)).map(|(id, _)| *id)
}

/// Who has been at an answer for longest, of those whose page `counts`.
fn longest_answering(
    table: &BTreeMap<u64, Connection>,
    counts: impl Fn(&Option<Rc<Snapshot>>) -> bool,
) -> Option<u64> {
    let answered = table.iter().filter_map(|(id, connection)| match &connection.stage {
        Stage::Answering { since, page } if counts(page) => Some((*since, *id)),
        _ => None,
    });
    answered.min().map(|(_, id)| id)
}

impl Connection {
    fn cut(&mut self) {
        self.cutter.cut();
        self.stage = Stage::Cut;
    }
}

impl Slot {
    /// The request is complete, and is answered from now on. `page` is what the answer keeps in memory.
    pub(super) fn answered(&self, page: Option<Rc<Snapshot>>) {
        let since = self.connections.next_event();
        if let Some(connection) = self.connections.table.borrow_mut().get_mut(&self.id)
            && !matches!(connection.stage, Stage::Cut)
        {
            connection.stage = Stage::Answering { since, page };
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.table.borrow_mut().remove(&self.id);
        self.connections.waiting.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::deadline::{Deadlines, Watch};

    /// A connection without a socket.
    fn enter(connections: &Rc<Connections>) -> (Watch, Slot) {
        let watch = Deadlines::default().watch_task();
        let slot = Connections::admit(connections, watch.cutter());
        (watch, slot)
    }

    fn cut(all: &[(Watch, Slot)]) -> Vec<usize> {
        all.iter().enumerate().filter(|(_, (watch, _))| watch.expired()).map(|(n, _)| n).collect()
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_first_that_has_not_asked_yet() {
        let connections = Rc::default();
        let mut all: Vec<_> = (0..ADMIN_CONNECTIONS_MAX).map(|_| enter(&connections)).collect();
        all[0].1.answered(None);
        assert!(cut(&all).is_empty());
        all.push(enter(&connections));
        assert_eq!(cut(&all), [1]);
        all.push(enter(&connections));
        assert_eq!(cut(&all), [1, 2], "one that is cut is not cut again");
    }

    #[test]
    fn where_all_have_asked_the_longest_answer_goes() {
        let connections = Rc::default();
        let mut all: Vec<_> = (0..ADMIN_CONNECTIONS_MAX).map(|_| enter(&connections)).collect();
        all[7].1.answered(None);
        all.iter().enumerate().filter(|(n, _)| *n != 7).for_each(|(_, (_, slot))| slot.answered(None));
        all.push(enter(&connections));
        assert_eq!(cut(&all), [7]);
        all.push(enter(&connections));
        assert_eq!(cut(&all), [0, 7], "the newcomer before has had no time to ask");
        connections.cut_all();
        assert_eq!(cut(&all).len(), ADMIN_CONNECTIONS_MAX + 2);
        drop(all);
        assert!(connections.table.borrow().is_empty());
    }
}
