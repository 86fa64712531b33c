//! Renders /metrics once for all scrapes that arrive at about the same time.
//!
//! A page may take megabytes and a tenth of a second. Each scrape first pauses for a moment, in which others may
//! arrive; the first to continue renders the page for all of them. A page is never older than the request, because a
//! scraper expects the values of that time. Pages stay in memory while clients read them. Beyond a bound, the longest
//! running readers are cut.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::eviction::Connections;
use super::pages::{Page, Snapshot};
use crate::io::tasks::pause;
use crate::limits::ADMIN_PAGES_BYTES_MAX;

/// Renders pages, and keeps the latest while scrapes wait for it.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The number of pages rendered so far.
    written: Cell<u64>,
    /// The latest page.
    latest: RefCell<Option<Rc<Snapshot>>>,
    /// Scrapes that wait for it.
    waiting: Cell<usize>,
    /// Bytes of all pages in memory.
    held: Rc<Cell<usize>>,
}

impl Snapshots {
    /// A page that `write` renders after this call; concurrent callers share it.
    pub(super) async fn take(&self, connections: &Connections, write: impl FnOnce() -> Page) -> Rc<Snapshot> {
        let before = self.written.get();
        self.waiting.set(self.waiting.get() + 1);
        pause().await;
        if self.written.get() == before {
            connections.cut_readers_until(|| self.held.get() <= ADMIN_PAGES_BYTES_MAX);
            *self.latest.borrow_mut() = Some(Rc::new(Snapshot::new(write(), &self.held)));
            self.written.set(before + 1);
        }
        let latest = self.latest.borrow().clone();
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() == 0 {
            self.latest.take();
        }
        // It was rendered above, by this caller or another, and is kept while callers wait.
        latest.unwrap_or_else(|| Rc::new(Snapshot::new(Page::text(503, "no page\n"), &self.held)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::deadline::Deadlines;
    use crate::io::driver::Driver;
    use crate::io::tasks::Tasks;

    fn runs(test: impl Future<Output = ()>) {
        Driver::Epoll.block_on(test).unwrap();
    }

    #[test]
    fn concurrent_requests_share_one_page_and_a_later_one_gets_another() {
        runs(async {
            let (snapshots, connections, tasks) =
                (Rc::<Snapshots>::default(), Rc::<Connections>::default(), Tasks::default());
            let got = Rc::new(RefCell::new(Vec::new()));
            for _ in 0..50 {
                let (snapshots, connections, got) =
                    (Rc::clone(&snapshots), Rc::clone(&connections), Rc::clone(&got));
                tasks.spawn(async move {
                    let page = snapshots.take(&connections, || Page::text(200, "first")).await;
                    got.borrow_mut().push(page);
                });
            }
            tasks.join().await;
            assert_eq!(snapshots.written.get(), 1);
            let second = snapshots.take(&connections, || Page::text(200, "the second")).await;
            assert_eq!(snapshots.written.get(), 2);
            assert!(got.borrow().iter().all(|page| page.page.len() == 5) && second.page.len() == 10);
            assert_eq!(snapshots.held.get(), 15);
            assert!(snapshots.latest.borrow().is_none(), "no request waits");
            drop((second, got.take()));
            assert_eq!(snapshots.held.get(), 0);
        });
    }

    #[test]
    fn unread_pages_take_bounded_memory() {
        runs(async {
            let (snapshots, connections) = (Snapshots::default(), Rc::<Connections>::default());
            let deadlines = Deadlines::default();
            let mut readers = Vec::new();
            let large = || Page::text(200, "x".repeat(ADMIN_PAGES_BYTES_MAX / 4));
            for _ in 0..20 {
                let watch = deadlines.watch_task();
                let slot = Connections::admit(&connections, watch.cutter());
                slot.answered(Some(snapshots.take(&connections, large).await));
                assert!(snapshots.held.get() <= ADMIN_PAGES_BYTES_MAX * 5 / 4);
                readers.push((watch, slot));
            }
            let cut = readers.iter().position(|(watch, _)| !watch.expired());
            assert_eq!(cut, Some(15), "the longest running are cut");
        });
    }
}
