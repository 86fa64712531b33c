//! The table of admin connections, and which of them is cut when there are too many.
//!
//! Connections whose request is incomplete are cut first, the oldest of them first. Next are those whose answer is
//! being written, the longest running first. The newest half of the table is spared while there is an answer to cut
//! instead: a real scraper sends its request at once, so keeping it out would take that many new connections within a
//! moment.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::pages::Snapshot;
use crate::io::deadline::Cutter;
use crate::limits::ADMIN_CONNECTIONS_MAX;

/// The table of all connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// By ID, which is the number of the event that added the connection.
    table: RefCell<BTreeMap<u64, Connection>>,
    /// The number of events so far. Their order replaces a clock.
    events: Cell<u64>,
    /// Acceptors that wait for a connection to end.
    waiting: RefCell<Vec<Waker>>,
}

#[derive(Debug)]
struct Connection {
    cutter: Cutter,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The request is incomplete.
    Reading,
    /// The answer is being written since this event. `page` is what it keeps in memory.
    Answering { since: u64, page: Option<Rc<Snapshot>> },
    /// It has been cut and will end in a moment.
    Cut,
}

/// A connection's entry in the table; dropping it removes the entry.
#[derive(Debug)]
pub(super) struct Slot {
    connections: Rc<Connections>,
    id: u64,
}

impl Connections {
    /// Adds a connection. At the bound, the one that has waited longest is cut.
    pub(super) fn admit(connections: &Rc<Self>, cutter: Cutter) -> Slot {
        if connections.table.borrow().len() >= ADMIN_CONNECTIONS_MAX {
            connections.cut_longest();
        }
        let id = connections.next_event();
        connections.table.borrow_mut().insert(id, Connection { cutter, stage: Stage::Reading });
        Slot { connections: Rc::clone(connections), id }
    }

    /// Waits until the number of connections is within the bound.
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

    /// Cuts the connection that has waited longest, if there is one.
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

    /// Cuts connections with a page in memory, the longest running first, until `is_enough` or none is left.
    pub(super) fn cut_readers_until(&self, is_enough: impl Fn() -> bool) {
        let mut table = self.table.borrow_mut();
        while !is_enough() {
            let Some(id) = longest_answering(&table, |page| page.is_some()) else { return };
            if let Some(connection) = table.get_mut(&id) {
                connection.cut();
            }
        }
    }

    /// Cuts all connections.
    pub(super) fn cut_all(&self) {
        self.table.borrow_mut().values_mut().for_each(Connection::cut);
    }

    fn next_event(&self) -> u64 {
        self.events.set(self.events.get() + 1);
        self.events.get()
    }
}

/// The first of these connections whose request is incomplete.
fn first_reading<'t>(mut connections: impl Iterator<Item = (&'t u64, &'t Connection)>) -> Option<u64> {
    connections.find(|(_, connection)| matches!(connection.stage, Stage::Reading)).map(|(id, _)| *id)
}

/// The longest running answer whose page `counts`.
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
    /// Records that the request is complete and its answer begins. `page` is what the answer keeps in memory.
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
    fn a_new_connection_replaces_the_oldest_without_a_request() {
        let connections = Rc::default();
        let mut all: Vec<_> = (0..ADMIN_CONNECTIONS_MAX).map(|_| enter(&connections)).collect();
        all[0].1.answered(None);
        assert!(cut(&all).is_empty());
        all.push(enter(&connections));
        assert_eq!(cut(&all), [1]);
        all.push(enter(&connections));
        assert_eq!(cut(&all), [1, 2], "a connection is not cut twice");
    }

    #[test]
    fn without_incomplete_requests_the_longest_answer_is_cut() {
        let connections = Rc::default();
        let mut all: Vec<_> = (0..ADMIN_CONNECTIONS_MAX).map(|_| enter(&connections)).collect();
        all[7].1.answered(None);
        all.iter().enumerate().filter(|(n, _)| *n != 7).for_each(|(_, (_, slot))| slot.answered(None));
        all.push(enter(&connections));
        assert_eq!(cut(&all), [7]);
        all.push(enter(&connections));
        assert_eq!(cut(&all), [0, 7], "the new connection before has had no time to send its request");
        connections.cut_all();
        assert_eq!(cut(&all).len(), ADMIN_CONNECTIONS_MAX + 2);
        drop(all);
        assert!(connections.table.borrow().is_empty());
    }
}
