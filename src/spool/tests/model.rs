//! A store beside a model of what it has to hold. Each step is done with both, and they are compared.

use std::time::Duration;

use crate::model::{MergeKey, Part, Protocol};
use crate::spool::memory::{Fault, MemoryDisk};
use crate::spool::{Refused, Sequence, Spooled, Store, StoreLimits, Stream, StreamTotals};
use crate::tenant::{IdRules, TenantId};

/// Streams that the model has: of two tenants, both destinations and two upstreams.
pub(super) const STREAMS: usize = 4;

/// One thing to do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Step {
    /// Append a record of so many bytes of elements to a stream.
    Append(usize, usize),
    /// Commit, and sync or not.
    Commit(bool),
    /// Remove so many of the oldest records of a stream.
    Remove(usize, usize),
    Tidy,
    /// The power fails. The seed tells what is left.
    Crash(u64),
    /// The process ends without an end, and starts again.
    Restart,
    /// One of the next operations on the disk fails.
    Fail(usize, Fault),
    /// Set this limit for all bytes, and for those of a tenant.
    Limit(u64, u64),
    /// Time passes, in milliseconds.
    Wait(u64),
}

#[derive(Clone, PartialEq, Debug)]
struct Kept {
    sequence: Sequence,
    spooled: Spooled,
    is_durable: bool,
    /// Its sync may have failed.
    is_in_doubt: bool,
}

#[derive(Default)]
struct Queue {
    pending: Vec<Kept>,
    kept: Vec<Kept>,
    /// Removed, but that is not synced.
    removed: Vec<Kept>,
    /// Their commit failed.
    failed: Vec<Kept>,
    /// Their removal is synced up to here.
    gone: Sequence,
}

pub(super) struct Model {
    pub(super) disk: MemoryDisk,
    pub(super) store: Store<MemoryDisk>,
    queues: [Queue; STREAMS],
    limits: StoreLimits,
    now: u64,
    appended: u128,
    /// The highest sequence that was durable.
    highest: Sequence,
}

pub(super) fn stream(number: usize) -> Stream {
    spooled(number, 0, 0, 0).stream()
}

pub(super) fn spooled(number: usize, id: u128, bytes: usize, now: u64) -> Spooled {
    let tenant = TenantId::new(if number == 2 { "b" } else { "a" }, IdRules::Mimir).unwrap();
    let part = Part {
        tenant,
        protocol: if number == 1 { Protocol::Loki } else { Protocol::RemoteWriteV1 },
        elements: vec![id as u8; bytes].into(),
        coding: crate::model::Coding::SNAPPY,
        inflated_bytes: bytes as u32,
        series: 1,
        samples: id as u32 % 7,
        histograms: 0,
        exemplars: 0,
        merge: MergeKey::Ha(None),
    };
    let upstream = if number == 3 { "east" } else { "" }.into();
    let client = "127.0.0.1:9".parse().unwrap();
    Spooled { upstream, part, passed: None, client, request_id: id, spooled_at: now }
}

pub(super) const LIMITS: StoreLimits = StoreLimits {
    bytes_max: 1 << 20,
    tenant_bytes_max: 1 << 20,
    age_max: Duration::from_millis(1_000),
    segment_bytes: 512,
    streams_max: 100,
};

impl Model {
    pub(super) fn new(limits: StoreLimits) -> Self {
        let disk = MemoryDisk::default();
        let store = Store::open(disk.clone(), limits).unwrap();
        let queues = Default::default();
        Self { disk, store, queues, limits, now: 1_000_000, appended: 0, highest: Sequence(0) }
    }

    /// Does a step, and compares. After a crash the step may be half done.
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Append(stream, bytes) => self.append(stream, bytes),
            Step::Commit(sync) => self.commit(sync),
            Step::Remove(stream, count) => self.remove(stream, count),
            Step::Tidy => drop(self.tidy()),
            Step::Crash(seed) => self.crash(seed),
            Step::Restart if self.disk.has_forgotten() => self.crash(7),
            Step::Restart => self.reopen(),
            Step::Fail(skipped, fault) => self.disk.fail(skipped, fault),
            Step::Limit(bytes_max, tenant_bytes_max) => {
                self.limits = StoreLimits { bytes_max, tenant_bytes_max, ..self.limits };
                self.store.limit(self.limits);
            }
            Step::Wait(millis) => self.now += millis,
        }
        if !self.disk.is_down() {
            self.compare();
        }
    }

    fn append(&mut self, number: usize, bytes: usize) {
        self.appended += 1;
        let spooled = spooled(number, self.appended, bytes, self.now);
        let oldest = self.queues[number].kept.first().map(|kept| kept.spooled.spooled_at);
        let is_old = oldest.is_some_and(|at| Duration::from_millis(self.now - at) > self.limits.age_max);
        match self.store.append(&spooled, self.now) {
            Ok(sequence) => {
                assert!(!is_old);
                assert!(sequence > self.highest, "{sequence:?} after {:?}", self.highest);
                let last =
                    self.queues.iter().flat_map(|queue| &queue.pending).map(|kept| kept.sequence).max();
                assert!(last < Some(sequence));
                self.queues[number].pending.push(Kept {
                    sequence,
                    spooled,
                    is_durable: false,
                    is_in_doubt: false,
                });
            }
            Err(Refused::TooOld) => assert!(is_old),
            Err(Refused::Full) => {
                // It had no room besides what is kept for moving records.
                let disk_bytes = self.store.totals().disk_bytes;
                let pending: usize = self.pending_bytes();
                let reserve = self.limits.segment_bytes.max(256);
                let with = disk_bytes + pending as u64 + (200 + bytes) as u64 + reserve;
                assert!(with > self.limits.bytes_max || self.store.is_tight(), "{with} {:?}", self.limits);
            }
            Err(Refused::TenantFull) => {
                let tenant = &stream(number).tenant;
                let live: u64 =
                    self.store.streams().filter(|(s, _)| s.tenant == *tenant).map(|(_, t)| t.bytes).sum();
                let with = live + self.pending_bytes() as u64 + (200 + bytes) as u64;
                assert!(with > self.limits.tenant_bytes_max);
            }
            Err(Refused::Failed(error)) => panic!("{error}"),
        }
    }

    fn pending_bytes(&self) -> usize {
        let pending = self.queues.iter().flat_map(|queue| &queue.pending);
        pending.map(|kept| kept.spooled.part.elements.len() + 200).sum()
    }

    fn commit(&mut self, sync: bool) {
        let committed = self.store.commit(sync);
        if committed.is_err() {
            self.doubt();
        }
        for queue in &mut self.queues {
            let pending = queue.pending.drain(..);
            if committed.is_err() {
                queue.failed.extend(pending);
                continue;
            }
            queue.kept.extend(pending);
            if sync {
                let durable = queue.kept.iter_mut().filter(|kept| !kept.is_in_doubt);
                durable.for_each(|kept| kept.is_durable = true);
                let gone = queue.removed.drain(..).map(|kept| kept.sequence).max().unwrap_or_default();
                queue.gone = queue.gone.max(gone);
                let last = queue.kept.iter().filter(|kept| kept.is_durable).map(|kept| kept.sequence).max();
                self.highest = self.highest.max(last.unwrap_or_default()).max(queue.gone);
            }
        }
    }

    /// An operation has failed, and what was not synced may be lost.
    fn doubt(&mut self) {
        for kept in self.queues.iter_mut().flat_map(|queue| &mut queue.kept) {
            kept.is_in_doubt |= !kept.is_durable;
        }
    }

    fn remove(&mut self, number: usize, count: usize) {
        let queue = &mut self.queues[number];
        let removed: Vec<Kept> = queue.kept.drain(..count.min(queue.kept.len())).collect();
        match removed.last() {
            Some(last) => self.store.remove(&stream(number), last.sequence),
            None => self.store.remove(&stream(number), Sequence(0)),
        }
        queue.removed.extend(removed);
    }

    /// Returns whether there is more to do.
    pub(super) fn tidy(&mut self) -> bool {
        let before = self.store.totals();
        match self.store.tidy() {
            Ok(more) => {
                let after = self.store.totals();
                assert_eq!((before.records, before.bytes), (after.records, after.bytes));
                // Removals that had to be written anyway may make up for it.
                assert!(after.disk_bytes <= before.disk_bytes + 800);
                more
            }
            Err(_) => {
                self.doubt();
                false
            }
        }
    }

    /// Tidies until there is nothing left to do.
    pub(super) fn tidy_all(&mut self) {
        let segments = self.disk.segments().len();
        let most = 40 * segments + 40;
        let steps = (0..most).take_while(|_| self.tidy()).count();
        assert!(steps < most, "it does not end");
        self.compare();
    }

    pub(super) fn crash(&mut self, seed: u64) {
        self.disk.crash(seed);
        self.reopen();
    }

    /// The process ends, and the machine does not.
    pub(super) fn end_process(&mut self) {
        self.disk.revive();
        self.reopen();
    }

    /// Opens the store again, and checks what it has found.
    fn reopen(&mut self) {
        self.disk.heal();
        self.store = Store::open(self.disk.clone(), self.limits).unwrap();
        for (number, queue) in self.queues.iter_mut().enumerate() {
            let found = self.store.front(&stream(number), None, usize::MAX, usize::MAX).unwrap();
            assert!(found.windows(2).all(|two| two[0].0 < two[1].0), "{found:?}");
            let known = [&queue.kept, &queue.pending, &queue.removed, &queue.failed];
            for (sequence, spooled) in &found {
                let mut of =
                    known.iter().flat_map(|list| list.iter()).filter(|kept| kept.sequence == *sequence);
                assert_eq!(of.next().map(|kept| &kept.spooled), Some(spooled), "stream {number}");
                assert!(*sequence > queue.gone, "{sequence:?} was removed");
            }
            for kept in queue.kept.iter().filter(|kept| kept.is_durable) {
                let is_there = found.iter().any(|(sequence, _)| *sequence == kept.sequence);
                assert!(is_there, "stream {number} has lost {:?}", kept.sequence);
            }
            let keep = |(sequence, spooled)| Kept { sequence, spooled, is_durable: true, is_in_doubt: false };
            *queue =
                Queue { kept: found.into_iter().map(keep).collect(), gone: queue.gone, ..Queue::default() };
            self.highest = self.highest.max(queue.kept.last().map(|kept| kept.sequence).unwrap_or_default());
        }
    }

    /// Compares what the store holds with the model.
    pub(super) fn compare(&mut self) {
        let (mut records, mut bytes) = (0, 0);
        for (number, queue) in self.queues.iter().enumerate() {
            let found = self.store.front(&stream(number), None, usize::MAX, usize::MAX).unwrap();
            let kept: Vec<_> = queue.kept.iter().map(|kept| (kept.sequence, kept.spooled.clone())).collect();
            assert_eq!(found, kept, "stream {number}");
            let named = stream(number);
            let totals = self.store.streams().find(|(stream, _)| **stream == named);
            let totals = totals.map(|(_, totals)| totals).unwrap_or_default();
            let of_kept = StreamTotals {
                records: kept.len() as u64,
                samples: kept.iter().map(|(_, spooled)| u64::from(spooled.part.samples)).sum(),
                bytes: totals.bytes,
                oldest: kept.first().map_or(0, |(_, spooled)| spooled.spooled_at),
            };
            assert_eq!(totals, of_kept);
            records += totals.records;
            bytes += totals.bytes;
        }
        let totals = self.store.totals();
        assert_eq!((totals.records, totals.bytes), (records, bytes));
        assert_eq!(totals.disk_bytes, self.disk.bytes());
        // A deletion that is made sure may have left an empty file, until it succeeds.
        let files = self.disk.segments().len() as u64;
        let is_sure = self.store.deletions_are_durable();
        assert!(if is_sure { totals.segments == files } else { totals.segments <= files });
    }
}
