//! What the spool's thread does with groups of commands. The thread itself is not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::model::{spooled, stream};
use crate::metrics::Metrics;
use crate::model::{Destination, UpstreamId};
use crate::spool::limits::RESERVE_BYTES;
use crate::spool::memory::{Fault, MemoryDisk};
use crate::spool::worker::{Command, Handle, Reply, ReplyTo, What, Worker, WorkerSettings};
use crate::spool::{DeadLetters, Store, StoreLimits, StreamTotals};

const TO: ReplyTo = ReplyTo { core: 0, upstream: UpstreamId::main(Destination::Metrics) };

fn limits() -> StoreLimits {
    StoreLimits {
        bytes_max: 1 << 20,
        tenant_bytes_max: 1 << 20,
        age_max: Duration::from_secs(1 << 40),
        segment_bytes: 1 << 16,
        streams_max: 10,
    }
}

/// A worker without its thread.
struct Rig {
    worker: Worker<MemoryDisk>,
    disk: MemoryDisk,
    handle: Handle,
    replies: Receiver<Reply>,
    metrics: Arc<Metrics>,
}

impl Rig {
    fn new(syncs_each_group: bool, dead_letters: Option<DeadLetters>) -> Self {
        let disk = MemoryDisk::default();
        let store = Store::open(disk.clone(), limits()).unwrap_or_else(|error| panic!("{error}"));
        let (replied, replies) = crossbeam_channel::unbounded();
        let deliver = Arc::new(move |reply| replied.send(reply).unwrap());
        let metrics = Arc::new(Metrics::new(1, 1, false));
        let settings = WorkerSettings { syncs_each_group, bytes_max: 1 << 20 };
        let (worker, handle) = Worker::new(store, dead_letters, settings, deliver, Arc::clone(&metrics));
        Self { worker, disk, handle, replies, metrics }
    }

    fn append(&self, id: u128) -> Arc<AtomicBool> {
        let is_given_up = Arc::new(AtomicBool::new(false));
        let part = Box::new(spooled(0, id, 100, 0));
        assert!(self.handle.send(Command::Append(TO, part, Arc::clone(&is_given_up))));
        is_given_up
    }

    fn front(&self) {
        let (to, stream) = (TO, stream(0));
        assert!(self.handle.send(Command::Front { to, stream, parts_max: 10, bytes_max: 1 << 20 }));
    }

    /// Does what waits, as one group.
    fn serve(&mut self) {
        assert!(self.worker.is_wanted());
        self.worker.serve(None);
    }

    /// The next reply: whether a part was taken.
    fn taken(&self) -> Result<StreamTotals, String> {
        match self.replies.try_recv().unwrap().what {
            What::Appended(result) => result.map_err(|refused| refused.to_string()),
            What::Front(..) => panic!("no append"),
        }
    }

    /// The next reply: the requests of the parts that were read.
    fn read(&self) -> Vec<u128> {
        match self.replies.try_recv().unwrap().what {
            What::Front(_, read, _) => read.unwrap().into_iter().map(|(_, part)| part.request_id).collect(),
            What::Appended(_) => panic!("an append"),
        }
    }
}

#[test]
fn replies_come_in_order_and_say_what_is_durable() {
    let mut rig = Rig::new(true, None);
    rig.append(1);
    rig.front();
    rig.append(2);
    rig.serve();
    assert_eq!([rig.taken(), rig.taken()].map(|taken| taken.unwrap().records), [2, 2]);
    assert_eq!(rig.read(), [1, 2], "what was read was read after the commit");
    rig.disk.crash(1);
    let store = Store::open(rig.disk.clone(), limits()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(store.totals_of(&stream(0)).records, 2);
}

#[test]
fn what_a_core_has_given_up_is_not_written() {
    let mut rig = Rig::new(true, None);
    rig.append(1);
    rig.append(2).store(true, Ordering::Relaxed);
    rig.append(3);
    rig.serve();
    assert!(rig.taken().is_ok() && rig.taken().is_err() && rig.taken().is_ok());
    rig.front();
    rig.serve();
    assert_eq!(rig.read(), [1, 3]);
}

#[test]
fn a_group_that_cannot_be_made_durable_is_refused_as_a_whole() {
    let mut rig = Rig::new(true, None);
    rig.append(1);
    rig.serve();
    assert!(rig.taken().is_ok());
    rig.append(2);
    rig.append(3);
    rig.disk.fail(1, Fault::Error);
    rig.serve();
    assert!(rig.taken().is_err() && rig.taken().is_err());
    rig.disk.heal();
    rig.front();
    rig.serve();
    assert_eq!(rig.read(), [1]);
    assert_eq!(rig.metrics.spool.commit_errors.get(), 1);
}

#[test]
fn removals_alone_make_nothing_durable() {
    let mut rig = Rig::new(true, None);
    rig.append(1);
    rig.serve();
    rig.front();
    rig.serve();
    let before = rig.disk.operations();
    let sequence = rig.worker.store().front(&stream(0), None, 1, 1).unwrap()[0].0;
    let reads = rig.disk.operations() - before;
    assert!(rig.handle.send(Command::Remove(stream(0), sequence)));
    rig.serve();
    assert_eq!(rig.disk.operations(), before + reads + 1, "one write");
}

#[test]
fn a_part_that_cannot_be_kept_as_a_dead_letter_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dead");
    let mut rig = Rig::new(true, Some(DeadLetters::open(&file).unwrap()));
    rig.append(1);
    rig.serve();
    let sequence = rig.worker.store().front(&stream(0), None, 1, 1).unwrap()[0].0;
    let bury = || {
        let letters = [1, 2].map(|id| (spooled(0, id, 100, 0), format!("400: no {id}")));
        Command::Bury { stream: stream(0), sequence, letters: letters.into() }
    };
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(rig.handle.send(bury()));
    rig.serve();
    assert_eq!(rig.worker.store().totals_of(&stream(0)).records, 1);
    assert_eq!(rig.metrics.spool.dead_letter_errors.get(), 1);
    std::fs::remove_dir(&file).unwrap();
    assert!(rig.handle.send(bury()));
    rig.serve();
    assert_eq!(rig.worker.store().totals_of(&stream(0)).records, 0);
    let lines = std::fs::read_to_string(&file).unwrap();
    for (line, id) in lines.lines().zip(1..) {
        let letter = crate::spool::DeadLetter::read(line).unwrap();
        assert_eq!((letter.spooled().unwrap().request_id, letter.reason), (id, format!("400: no {id}")));
    }
    assert_eq!(lines.lines().count(), 2);
}

/// Otherwise a disk that is full would stay so for as long as there is something to do.
#[test]
fn room_is_made_on_a_full_disk_though_commands_wait() {
    let mut rig = Rig::new(true, None);
    rig.append(1);
    rig.serve();
    let sequence = rig.worker.store().front(&stream(0), None, 1, 1).unwrap()[0].0;
    assert!(rig.handle.send(Command::Remove(stream(0), sequence)));
    rig.serve();
    let full = usize::try_from(rig.disk.bytes()).unwrap() + RESERVE_BYTES;
    rig.disk.limit(full);
    rig.append(2);
    rig.serve();
    assert_eq!((rig.taken().is_ok(), rig.taken().is_ok()), (true, false), "there is no room");
    for _ in 0..4 {
        rig.append(3);
        rig.worker.tidy();
    }
    assert!(
        rig.disk.bytes() < full as u64 - RESERVE_BYTES as u64,
        "the segment with the removed part is gone"
    );
    rig.disk.limit(2 * full);
    rig.worker.tidy();
    rig.serve();
    assert!(rig.taken().is_ok());
}

#[test]
fn a_damaged_part_does_not_hold_up_those_behind_it() {
    let mut rig = Rig::new(true, None);
    (1..=3).for_each(|id| drop(rig.append(id)));
    rig.serve();
    // One byte of the second part's elements, in the one segment that there is.
    let segment = rig.disk.segments()[0];
    rig.disk.edit(segment, |bytes| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    });
    (0..3).for_each(|_| drop(rig.taken()));
    rig.front();
    rig.serve();
    assert_eq!(rig.read(), [1], "those before it");
    let first = rig.worker.store().front(&stream(0), None, 1, 1).unwrap()[0].0;
    assert!(rig.handle.send(Command::Remove(stream(0), first)));
    rig.front();
    rig.serve();
    assert_eq!(rig.read(), [3]);
    assert_eq!(rig.metrics.spool.damaged.get(), 1);
}
