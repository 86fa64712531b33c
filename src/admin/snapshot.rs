//! Renders /metrics once for all scrapes that arrive at about the same time.
//!
//! A page may take megabytes and tens of milliseconds. Each scrape first pauses for a moment, in which others may
//! arrive; the first to continue renders the page for all of them that want the same format and coding. Rendering goes
//! on in slices, and scrapes that arrive meanwhile wait for its end, and share the page after that. A page is never
//! older than the request, because a scraper expects the values of that time. Pages stay in memory while clients read
//! them. Beyond a bound, the longest running readers are cut.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::eviction::Connections;
use super::negotiation::Wanted;
use super::pages::{Page, Snapshot};
use crate::io::tasks::pause;
use crate::limits::ADMIN_PAGES_BYTES_MAX;

/// Renders pages, and keeps the latest of each kind while scrapes wait for it.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// By the number of what is wanted.
    kinds: [Kind; Wanted::ALL],
    /// Bytes of all pages in memory.
    held: Rc<Cell<usize>>,
}

/// The pages of one format and coding.
#[derive(Debug, Default)]
struct Kind {
    /// The number of pages that were begun.
    begun: Cell<u64>,
    /// The number of pages that are done.
    done: Cell<u64>,
    /// The latest of these.
    latest: RefCell<Option<Rc<Snapshot>>>,
    /// Scrapes that wait for it.
    waiting: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
}

impl Snapshots {
    /// A page of the kind with this number, which `write` renders after this call; concurrent callers share it.
    pub(super) async fn take(
        &self,
        kind: usize,
        connections: &Connections,
        write: impl AsyncFnOnce() -> Page,
    ) -> Rc<Snapshot> {
        let kind = self.kinds.get(kind).unwrap_or(&self.kinds[0]);
        let before = kind.begun.get();
        kind.waiting.set(kind.waiting.get() + 1);
        pause().await;
        // One that was begun earlier has the values of an earlier time.
        kind.wait_until_done(before).await;
        if kind.begun.get() == before {
            kind.begun.set(before + 1);
            connections.cut_readers_until(|| self.held.get() <= ADMIN_PAGES_BYTES_MAX);
            let page = write().await;
            *kind.latest.borrow_mut() = Some(Rc::new(Snapshot::new(page, &self.held)));
            kind.done.set(before + 1);
            kind.wakers.take().into_iter().for_each(Waker::wake);
        }
        kind.wait_until_done(before + 1).await;
        let latest = kind.latest.borrow().clone();
        kind.waiting.set(kind.waiting.get() - 1);
        if kind.waiting.get() == 0 {
            kind.latest.take();
        }
        // It was rendered above, by this caller or another, and is kept while callers wait.
        latest.unwrap_or_else(|| Rc::new(Snapshot::new(Page::text(503, "no page\n"), &self.held)))
    }
}

impl Kind {
    /// Waits until this page is done, counted from 1.
    async fn wait_until_done(&self, page: u64) {
        poll_fn(|cx| {
            if self.done.get() >= page {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
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
                    let page = snapshots.take(0, &connections, async || Page::text(200, "first")).await;
                    got.borrow_mut().push(page);
                });
            }
            tasks.join().await;
            assert_eq!(snapshots.kinds[0].done.get(), 1);
            let second = snapshots.take(0, &connections, async || Page::text(200, "the second")).await;
            assert_eq!(snapshots.kinds[0].done.get(), 2);
            assert!(got.borrow().iter().all(|page| page.page.len() == 5) && second.page.len() == 10);
            assert_eq!(snapshots.held.get(), 15);
            assert!(snapshots.kinds[0].latest.borrow().is_none(), "no request waits");
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
            let large = async || Page::text(200, "x".repeat(ADMIN_PAGES_BYTES_MAX / 4));
            for _ in 0..20 {
                let watch = deadlines.watch_task();
                let slot = Connections::admit(&connections, watch.cutter());
                slot.answered(Some(snapshots.take(0, &connections, large).await));
                assert!(snapshots.held.get() <= ADMIN_PAGES_BYTES_MAX * 5 / 4);
                readers.push((watch, slot));
            }
            let cut = readers.iter().position(|(watch, _)| !watch.expired());
            assert_eq!(cut, Some(15), "the longest running are cut");
        });
    }
}
