//! Single rules of a store.

use std::io;
use std::time::Duration;

use super::model::{LIMITS, spooled, stream};
use crate::spool::memory::{Fault, MemoryDisk};
use crate::spool::record::{self, HEADER_BYTES, Header};
use crate::spool::{Damaged, OpenError, Refused, Sequence, Store, StoreLimits};

fn open(disk: &MemoryDisk) -> Store<MemoryDisk> {
    Store::open(disk.clone(), LIMITS).unwrap()
}

/// Appends a record of stream 0 and commits it.
fn add(store: &mut Store<MemoryDisk>, id: u128, bytes: usize) -> Sequence {
    let sequence = store.append(&spooled(0, id, bytes, 0), 0).unwrap();
    store.commit(true).unwrap();
    sequence
}

fn ids(store: &mut Store<MemoryDisk>, number: usize) -> Vec<u128> {
    let found = store.front(&stream(number), None, usize::MAX, usize::MAX).unwrap();
    found.into_iter().map(|(_, spooled)| spooled.request_id).collect()
}

#[test]
fn only_committed_records_are_seen() {
    let mut store = open(&MemoryDisk::default());
    let sequence = store.append(&spooled(0, 1, 10, 0), 0).unwrap();
    assert_eq!(ids(&mut store, 0), []);
    store.remove(&stream(0), sequence);
    store.commit(false).unwrap();
    assert_eq!(ids(&mut store, 0), [1]);
    assert_eq!(store.totals().records, 1);
}

#[test]
fn a_removal_reaches_no_further_than_the_records_that_are_there() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    add(&mut store, 1, 10);
    store.remove(&stream(0), Sequence(u64::MAX));
    add(&mut store, 2, 10);
    drop(store);
    disk.crash(0);
    assert_eq!(ids(&mut open(&disk), 0), [2]);
}

#[test]
fn the_front_is_limited_but_never_empty() {
    let mut store = open(&MemoryDisk::default());
    let sequences: Vec<_> = (0..6).map(|id| add(&mut store, id, 100)).collect();
    let mut front = |after, records, bytes| {
        let found = store.front(&stream(0), after, records, bytes).unwrap();
        found.into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>()
    };
    assert_eq!(front(None, 2, usize::MAX), sequences[..2]);
    assert_eq!(front(None, usize::MAX, 300), sequences[..3]);
    assert_eq!(front(None, usize::MAX, 299), sequences[..2]);
    assert_eq!(front(None, usize::MAX, 0), sequences[..1]);
    assert_eq!(front(Some(sequences[3]), 9, 999), sequences[4..]);
    assert_eq!(front(Some(sequences[5]), 9, 999), []);
}

#[test]
fn what_has_no_room_is_refused_by_its_limit() {
    let mut store = open(&MemoryDisk::default());
    let limits = StoreLimits { tenant_bytes_max: 1_000, ..LIMITS };
    store.limit(limits);
    store.append(&spooled(0, 1, 700, 0), 0).unwrap();
    // Another stream of the same tenant, not committed yet; then another tenant.
    assert!(matches!(store.append(&spooled(1, 2, 300, 0), 0), Err(Refused::TenantFull)));
    store.append(&spooled(2, 3, 700, 0), 0).unwrap();
    store.commit(true).unwrap();
    assert!(matches!(store.append(&spooled(1, 4, 300, 0), 0), Err(Refused::TenantFull)));
    store.limit(StoreLimits { bytes_max: 2_300, ..LIMITS });
    assert!(matches!(store.append(&spooled(0, 5, 700, 0), 0), Err(Refused::Full)));
    store.limit(StoreLimits { age_max: Duration::from_millis(50), ..LIMITS });
    assert!(store.append(&spooled(0, 6, 1, 50), 50).is_ok());
    assert!(matches!(store.append(&spooled(0, 7, 1, 51), 51), Err(Refused::TooOld)));
    assert!(store.append(&spooled(3, 8, 1, 51), 51).is_ok());
    store.commit(true).unwrap();
    assert_eq!(ids(&mut store, 0), [1, 6]);
}

#[test]
fn a_full_spool_takes_removals_and_has_room_again() {
    let disk = MemoryDisk::default();
    let mut store = Store::open(disk.clone(), StoreLimits { bytes_max: 8_192, ..LIMITS }).unwrap();
    let mut id = 0;
    while store.append(&spooled(0, id, 200, 0), 0).is_ok() {
        store.commit(true).unwrap();
        id += 1;
    }
    assert!(id > 15, "{id}");
    assert!(!store.tidy().unwrap(), "all is live");
    let removed = store.front(&stream(0), None, 3 * id as usize / 4, usize::MAX).unwrap();
    store.remove(&stream(0), removed.last().unwrap().0);
    store.commit(true).unwrap();
    while store.tidy().unwrap() {}
    assert!(store.totals().disk_bytes < 8_192 / 2);
    store.append(&spooled(0, id, 200, 0), 0).unwrap();
}

#[test]
fn one_sick_tenant_does_not_keep_the_space_of_others() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    for id in 0..100 {
        store.append(&spooled(if id % 10 == 0 { 0 } else { 2 }, id, 100, 0), 0).unwrap();
        store.commit(true).unwrap();
    }
    let before = store.totals();
    store.remove(&stream(2), Sequence(100));
    store.commit(true).unwrap();
    while store.tidy().unwrap() {}
    let after = store.totals();
    assert_eq!(after.records, 10);
    assert!(after.disk_bytes * 4 < before.disk_bytes, "{after:?} of {before:?}");
    disk.crash(0);
    let mut store = open(&disk);
    assert_eq!(ids(&mut store, 0), (0..10).map(|tenth| tenth * 10).collect::<Vec<_>>());
    assert_eq!(ids(&mut store, 2), []);
}

#[test]
fn sequences_grow_even_if_nothing_is_left() {
    let disk = MemoryDisk::default();
    let mut last = Sequence(0);
    for id in 0..20 {
        let mut store = open(&disk);
        let sequence = add(&mut store, id, 400);
        assert!(sequence > last);
        last = sequence;
        store.remove(&stream(0), sequence);
        store.commit(id % 2 == 0).unwrap();
        while store.tidy().unwrap() {}
        assert!(disk.segments().len() <= 2);
        drop(store);
        disk.crash(1);
    }
}

#[test]
fn a_torn_tail_ends_its_segment_and_the_next_record_goes_to_another() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    add(&mut store, 1, 10);
    add(&mut store, 2, 10);
    drop(store);
    disk.edit(0, |bytes| bytes.truncate(bytes.len() - 1));
    let mut store = open(&disk);
    assert_eq!(ids(&mut store, 0), [1]);
    add(&mut store, 3, 10);
    assert_eq!(disk.segments(), [0, 1]);
    assert_eq!(ids(&mut open(&disk), 0), [1, 3]);
}

#[test]
fn a_damaged_record_is_reported_with_its_sequence() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let sequences: Vec<_> = (1..4).map(|id| add(&mut store, id, 1_000)).collect();
    disk.edit(1, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let found = store.front(&stream(0), None, 9, usize::MAX).unwrap();
    assert_eq!(found.len(), 1);
    let error = store.front(&stream(0), Some(sequences[0]), 9, usize::MAX).unwrap_err();
    let damaged = error.get_ref().and_then(|source| source.downcast_ref::<Damaged>());
    assert_eq!(damaged, Some(&Damaged { sequence: sequences[1] }));
    store.remove(&stream(0), sequences[1]);
    assert_eq!(ids(&mut store, 0), [3]);
    disk.fail_reads();
    assert!(store.front(&stream(0), None, 9, 9).is_err());
    disk.heal();
    assert_eq!(ids(&mut store, 0), [3]);
}

#[test]
fn a_failed_write_or_sync_gives_its_segment_up() {
    // The operations of a commit: append, sync.
    for (skipped, fault) in [(0, Fault::Error), (0, Fault::Torn), (1, Fault::Error)] {
        let disk = MemoryDisk::default();
        let mut store = open(&disk);
        let first = add(&mut store, 1, 10);
        disk.fail(skipped, fault);
        let refused = store.append(&spooled(0, 2, 10, 0), 0).unwrap();
        store.commit(true).unwrap_err();
        assert_eq!(ids(&mut store, 0), [1]);
        let operations = disk.operations();
        store.commit(true).unwrap();
        assert_eq!(disk.operations(), operations, "nothing is tried again");
        let third = add(&mut store, 3, 10);
        assert!(first < refused && refused < third);
        assert_eq!(disk.segments(), [0, 1]);
        assert_eq!(ids(&mut store, 0), [1, 3]);
        disk.crash(0);
        assert_eq!(ids(&mut open(&disk), 0), [1, 3]);
    }
}

#[test]
fn a_copy_whose_sync_failed_does_not_replace_its_original() {
    let mut failed = 0;
    // Each operation of moving it fails once: reading, appending, the sync, the deletion.
    for skipped in 0..8 {
        let disk = MemoryDisk::default();
        let mut store = open(&disk);
        let dead: Vec<_> = (0..4).map(|id| store.append(&spooled(2, id, 200, 0), 0).unwrap()).collect();
        add(&mut store, 9, 10);
        add(&mut store, 10, 450);
        store.remove(&stream(2), dead[3]);
        store.commit(true).unwrap();
        disk.fail(skipped, Fault::Error);
        let moved = loop {
            match store.tidy() {
                Ok(true) => {}
                done => break done,
            }
        };
        if moved.is_ok() {
            break;
        }
        failed += 1;
        // The process ends. The copy can be read, yet it may not be on disk.
        drop(store);
        let mut store = open(&disk);
        assert_eq!(ids(&mut store, 0), [9, 10], "{skipped}");
        disk.heal();
        while store.tidy().unwrap() {}
        drop(store);
        disk.crash(0);
        assert_eq!(ids(&mut open(&disk), 0), [9, 10], "{skipped}");
    }
    assert!(failed >= 2, "{failed}");
}

#[test]
fn a_deletion_that_a_crash_undoes_brings_nothing_back() {
    for seed in 0..30 {
        let disk = MemoryDisk::default();
        let mut store = open(&disk);
        let removed = add(&mut store, 1, 600);
        store.remove(&stream(0), removed);
        store.commit(true).unwrap();
        store.append(&spooled(2, 2, 600, 0), 0).unwrap();
        store.commit(true).unwrap();
        assert_eq!(disk.segments(), [0, 1, 2]);
        // The process ends between deleting the first segment and the sync of the folder.
        disk.crash_at(Some(disk.operations() + 1));
        store.tidy().unwrap_err();
        assert_eq!(disk.segments(), [1, 2]);
        disk.revive();
        let mut store = open(&disk);
        // The power fails at the same point of the next one, which has the removal.
        disk.crash_at(Some(disk.operations() + 1));
        store.tidy().unwrap_err();
        assert_eq!(disk.segments(), [2]);
        disk.crash(seed);
        assert_eq!(ids(&mut open(&disk), 0), []);
    }
}

#[test]
fn without_room_for_a_segment_nothing_is_lost() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    add(&mut store, 1, 600);
    // The operations of a new segment: create, append, sync, sync of the folder.
    for skipped in 0..4 {
        disk.fail(skipped, Fault::Torn);
        store.append(&spooled(0, 2, 600, 0), 0).unwrap();
        store.commit(true).unwrap_err();
        assert_eq!(ids(&mut store, 0), [1]);
    }
    add(&mut store, 3, 600);
    while store.tidy().unwrap() {}
    disk.crash(0);
    assert_eq!(ids(&mut open(&disk), 0), [1, 3]);
}

#[test]
fn what_is_no_segment_of_this_version_is_refused_and_kept() {
    let good = Header { number: 3, sequence: Sequence(9) }.encode();
    let mut version = good;
    version[8..12].copy_from_slice(&7_u32.to_le_bytes());
    let mut unknown = good.to_vec();
    record::put(&mut unknown, Sequence(1), 9, |_| Ok(())).unwrap();
    record::seal(&mut unknown[HEADER_BYTES..], Header { number: 3, sequence: Sequence(9) }.seed());
    for (bytes, text) in [
        (&version[..], "memory/segment-0000000000000003 has version 7 of the format"),
        (b"something else", "memory/segment-0000000000000003 is not a segment of a spool"),
        (&[0; 100], "memory/segment-0000000000000003 is not a segment of a spool"),
        (&unknown, "memory/segment-0000000000000003 has a record at byte 32 that"),
    ] {
        let disk = MemoryDisk::default();
        disk.put(3, bytes);
        let error = Store::open(disk.clone(), LIMITS).err().unwrap();
        assert!(error.to_string().starts_with(text), "{error}");
        assert_eq!(disk.edit(3, |bytes| bytes.clone()), bytes);
    }
    let disk = MemoryDisk::default();
    disk.put(3, &good);
    let mut store = open(&disk);
    assert_eq!(add(&mut store, 1, 1), Sequence(9));
    disk.fail_reads();
    assert!(matches!(Store::open(disk.clone(), LIMITS), Err(OpenError::Io { .. })));
}

#[test]
fn a_record_that_is_too_large_is_refused() {
    let mut store = open(&MemoryDisk::default());
    store.limit(StoreLimits { bytes_max: u64::MAX, tenant_bytes_max: u64::MAX, ..LIMITS });
    let large = spooled(0, 1, crate::spool::limits::RECORD_BYTES_MAX, 0);
    let Err(Refused::Failed(error)) = store.append(&large, 0) else { panic!("it is taken") };
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    store.append(&spooled(0, 2, 10, 0), 0).unwrap();
    store.commit(true).unwrap();
    assert_eq!(ids(&mut store, 0), [2]);
}
