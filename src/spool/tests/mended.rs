//! Rules that were once broken.

use std::io;

use super::model::{LIMITS, spooled, stream};
use crate::spool::limits::{RESERVE_BYTES, TENANT_RECORDS_MIN};
use crate::spool::memory::{Fault, MemoryDisk};
use crate::spool::record::HEADER_BYTES;
use crate::spool::{Damage, Refused, Sequence, Spooled, Store, StoreLimits};
use crate::tenant::{IdRules, TenantId};

fn open(disk: &MemoryDisk) -> Store<MemoryDisk> {
    Store::open(disk.clone(), LIMITS).unwrap()
}

/// Appends a record and commits it.
fn add(store: &mut Store<MemoryDisk>, number: usize, id: u128, bytes: usize) -> Sequence {
    let sequence = store.append(&spooled(number, id, bytes, 0), 0).unwrap();
    store.commit(true).unwrap();
    sequence
}

fn ids(store: &mut Store<MemoryDisk>, number: usize) -> Vec<u128> {
    let found = store.front(&stream(number), None, usize::MAX, usize::MAX).unwrap();
    found.into_iter().map(|(_, spooled)| spooled.request_id).collect()
}

fn of_tenant(id: &str) -> Spooled {
    let mut spooled = spooled(0, 1, 10, 0);
    spooled.part.tenant = TenantId::new(id, IdRules::Mimir).unwrap();
    spooled
}

#[test]
fn a_record_that_has_changed_is_skipped() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let sequences: Vec<_> = (1..4).map(|id| add(&mut store, 0, id, 1_000)).collect();
    disk.edit(0, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let front = |store: &mut Store<MemoryDisk>| store.front(&stream(0), None, 9, usize::MAX);
    disk.fail_reads();
    assert_ne!(front(&mut store).unwrap_err().kind(), io::ErrorKind::InvalidData);
    disk.heal();
    assert_eq!(front(&mut store).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(store.skip(&stream(0)), Some(sequences[0]));
    assert_eq!(ids(&mut store, 0), [2, 3]);
    assert_eq!(store.skip(&stream(1)), None);
    store.commit(true).unwrap();
    disk.crash(0);
    assert_eq!(ids(&mut open(&disk), 0), [2, 3]);
}

#[test]
fn streams_are_limited_also_those_that_wait_for_a_commit() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    store.limit(StoreLimits { streams_max: 2, ..LIMITS });
    store.append(&of_tenant("t1"), 0).unwrap();
    store.commit(true).unwrap();
    store.append(&of_tenant("t2"), 0).unwrap();
    assert!(matches!(store.append(&of_tenant("t3"), 0), Err(Refused::Full)));
    store.append(&of_tenant("t1"), 0).unwrap();
    store.append(&of_tenant("t2"), 0).unwrap();
    store.commit(true).unwrap();
    assert!(matches!(store.append(&of_tenant("t3"), 0), Err(Refused::Full)));
    // What is there stays, whatever the limit is.
    let mut store = Store::open(disk.clone(), StoreLimits { streams_max: 1, ..LIMITS }).unwrap();
    assert_eq!(store.streams().count(), 2);
    store.limit(StoreLimits { streams_max: 2, ..LIMITS });
    store.remove(&of_tenant("t1").stream(), Sequence(99));
    store.append(&of_tenant("t3"), 0).unwrap();
    assert!(matches!(store.append(&of_tenant("t1"), 0), Err(Refused::Full)));
}

#[test]
fn a_tenant_with_tiny_records_has_its_share_of_them() {
    let mut store = open(&MemoryDisk::default());
    store.limit(StoreLimits { bytes_max: 1 << 40, tenant_bytes_max: 1 << 20, ..LIMITS });
    let mut full = 0;
    // Two streams of one tenant, committed and not.
    while store.append(&spooled(full % 2, 1, 0, 0), 0).is_ok() {
        full += 1;
        if full % 300 == 0 {
            store.commit(false).unwrap();
        }
    }
    assert_eq!(full as u64, TENANT_RECORDS_MIN);
    assert!(matches!(store.append(&spooled(0, 1, 0, 0), 0), Err(Refused::TenantFull)));
    store.append(&spooled(2, 1, 0, 0), 0).unwrap();
    store.remove(&stream(0), Sequence(1));
    store.append(&spooled(0, 1, 0, 0), 0).unwrap();
}

/// A disk with one segment of the records 1 to 6, and where each begins.
fn six() -> (MemoryDisk, Vec<usize>) {
    let disk = MemoryDisk::default();
    let mut store = Store::open(disk.clone(), StoreLimits { segment_bytes: 1 << 16, ..LIMITS }).unwrap();
    let mut starts = Vec::new();
    for id in 1..7 {
        starts.push(if id == 1 { HEADER_BYTES } else { disk.bytes() as usize });
        add(&mut store, if id == 3 { 2 } else { 0 }, id, 100);
    }
    starts.push(disk.bytes() as usize);
    assert_eq!(disk.segments(), [0]);
    (disk, starts)
}

#[test]
fn what_is_behind_a_changed_byte_is_not_lost() {
    let (whole, starts) = six();
    let whole = whole.edit(0, |bytes| bytes.clone());
    // Each byte of the second record, its length included.
    for at in starts[1]..starts[2] {
        for bit in [0x01, 0x80] {
            let disk = MemoryDisk::default();
            disk.put(0, &whole);
            disk.edit(0, |bytes| bytes[at] ^= bit);
            let mut store = open(&disk);
            assert_eq!((ids(&mut store, 0), ids(&mut store, 2)), (vec![1, 4, 5, 6], vec![3]), "byte {at}");
            let bytes = (starts[2] - starts[1]) as u64;
            assert_eq!(store.damage(), [Damage { segment: 0, offset: starts[1] as u64, bytes }]);
        }
    }
}

#[test]
fn several_records_that_have_changed_are_told_and_their_segment_is_kept() {
    let (disk, starts) = six();
    // The lengths of two neighbours, and the checksum of a third.
    disk.edit(0, |bytes| {
        bytes[starts[0]..starts[0] + 8].fill(0xff);
        bytes[starts[1] + 3] = 0;
        bytes[starts[1]] ^= 3;
        bytes[starts[4] + 5] ^= 1;
    });
    let mut store = open(&disk);
    assert_eq!((ids(&mut store, 0), ids(&mut store, 2)), (vec![4, 6], vec![3]));
    let places: Vec<_> = store.damage().iter().map(|damage| damage.offset as usize).collect();
    assert_eq!(places, [starts[0], starts[4]]);
    assert!(store.damage()[1].to_string().contains(&format!("from byte {} of", starts[4])));
    store.remove(&stream(0), Sequence(9));
    store.commit(true).unwrap();
    while store.tidy().unwrap() {}
    assert_eq!((ids(&mut store, 2), disk.aside()), (vec![3], vec![0]));
    drop(store);
    disk.crash(0);
    let mut store = open(&disk);
    assert_eq!((ids(&mut store, 2), store.damage()), (vec![3], &[][..]));
}

#[test]
fn a_torn_tail_is_no_damage() {
    let (whole, starts) = six();
    let whole = whole.edit(0, |bytes| bytes.clone());
    for end in starts[5]..starts[6] {
        for zeros in [0, 7, 5_000] {
            let disk = MemoryDisk::default();
            disk.put(0, &[&whole[..end], &vec![0; zeros]].concat());
            let mut store = open(&disk);
            assert_eq!(ids(&mut store, 0), [1, 2, 4, 5], "{end}");
            assert_eq!(store.damage(), []);
        }
    }
}

#[test]
fn a_search_in_what_looks_like_records_ends() {
    let (disk, starts) = six();
    // Frames that say that nearly all of the segment is theirs, one at every byte that can begin one.
    let frame = [0, 0, 9, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    disk.edit(0, |bytes| {
        bytes.truncate(starts[1] + 1);
        bytes.extend(frame.repeat(100_000));
    });
    let begun = std::time::Instant::now();
    let mut store = open(&disk);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((ids(&mut store, 0), store.damage().len()), (vec![1], 1));
}

#[test]
fn a_segment_with_a_skipped_record_is_kept() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    (1..4).for_each(|id| _ = add(&mut store, 0, id, 1_000));
    disk.edit(0, |bytes| *bytes.last_mut().unwrap() ^= 1);
    store.skip(&stream(0)).unwrap();
    assert_eq!(store.damage().len(), 1);
    while store.tidy().unwrap() {}
    assert_eq!(disk.aside(), [0]);
}

#[test]
fn space_is_given_back_in_small_steps_that_read_a_segment_in_order() {
    let disk = MemoryDisk::default();
    let limits =
        StoreLimits { bytes_max: 8 << 20, segment_bytes: 1 << 20, tenant_bytes_max: 8 << 20, ..LIMITS };
    let mut store = Store::open(disk.clone(), limits).unwrap();
    // A third of the first segments is live.
    for id in 0..6_000 {
        store.append(&spooled(if id % 3 == 0 { 0 } else { 2 }, id, 300, 0), 0).unwrap();
        if id % 100 == 0 {
            store.commit(false).unwrap();
        }
    }
    store.commit(true).unwrap();
    let before = ids(&mut store, 0);
    let all = store.totals();
    store.remove(&stream(2), Sequence(u64::MAX));
    store.commit(true).unwrap();
    let (mut most, mut steps) = (0, 0);
    loop {
        let reads = disk.reads();
        let disk_bytes = store.totals().disk_bytes;
        let more = store.tidy().unwrap();
        most = most.max(store.totals().disk_bytes.saturating_sub(disk_bytes));
        assert!(disk.reads() - reads <= 3, "{}", disk.reads() - reads);
        steps += 1;
        // Something comes meanwhile.
        add(&mut store, 1, 1, 10);
        if !more {
            break;
        }
    }
    assert!(most <= (1 << 20) / 16 + 1_000, "{most}");
    assert!(steps > 8, "{steps}");
    assert!(store.totals().disk_bytes * 2 < all.disk_bytes);
    assert_eq!(ids(&mut store, 0), before);
    drop(store);
    disk.crash(0);
    assert_eq!(ids(&mut open(&disk), 0), before);
}

#[test]
fn a_full_spool_gives_back_a_quarter_of_each_segment() {
    let disk = MemoryDisk::default();
    let limits = StoreLimits { bytes_max: 16 << 10, segment_bytes: 2 << 10, ..LIMITS };
    let mut store = Store::open(disk.clone(), limits).unwrap();
    let mut id = 0;
    while store.append(&spooled(if id % 4 == 0 { 2 } else { 0 }, id, 50, 0), 0).is_ok() {
        store.commit(true).unwrap();
        id += 1;
    }
    let before = store.totals().disk_bytes;
    store.remove(&stream(2), Sequence(u64::MAX));
    store.commit(true).unwrap();
    while store.tidy().unwrap() {}
    let after = store.totals().disk_bytes;
    assert!(before - after > 1 << 10, "{after} of {before}");
    store.append(&spooled(2, id, 50, 0), 0).unwrap();
    assert_eq!(store.totals().records as usize, ids(&mut store, 0).len());
}

#[test]
fn a_disk_that_is_full_before_the_spool_has_room_again() {
    // One segment that is full or is not, and several; removed altogether, or but for one stream.
    for (segment_bytes, removed) in [(1 << 16, 4), (1 << 20, 4), (1 << 14, 4), (1 << 14, 2)] {
        let disk = MemoryDisk::default();
        disk.limit(256 << 10);
        let limits = StoreLimits { bytes_max: 8 << 20, tenant_bytes_max: 8 << 20, segment_bytes, ..LIMITS };
        let mut store = Store::open(disk.clone(), limits).unwrap();
        let mut id = 0;
        loop {
            store.append(&spooled(if id < 3 { 0 } else { 1 + id as usize % 3 }, id, 500, 0), 0).unwrap();
            if store.commit(true).is_err() {
                break;
            }
            id += 1;
        }
        let stays = if removed == 4 { vec![] } else { vec![0, 1, 2] };
        for number in 4 - if removed == 4 { 4 } else { 3 }..4 {
            store.remove(&stream(number), Sequence(u64::MAX));
        }
        drop(store.commit(true));
        let failed = (0..1_000).filter(|_| store.tidy().is_err()).count();
        assert!(failed < 3, "{failed}");
        assert!(disk.bytes() < 64 << 10, "{}", disk.bytes());
        assert_eq!(ids(&mut store, 0), stays);
        // There is room again, and the reserve, too.
        for id in 1_000..1_100 {
            add(&mut store, 1, id, 500);
        }
        drop(store);
        disk.crash(0);
        let mut store = Store::open(disk.clone(), limits).unwrap();
        assert_eq!((ids(&mut store, 0), ids(&mut store, 1).len(), ids(&mut store, 2).len()), (stays, 100, 0));
    }
}

#[test]
fn after_a_failed_sync_of_the_folder_a_deletion_is_made_sure() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let first = add(&mut store, 2, 1, 1_000);
    add(&mut store, 0, 2, 10);
    store.remove(&stream(2), first);
    store.commit(true).unwrap();
    // Of the oldest segment: remove, sync of the folder.
    disk.fail(1, Fault::Error);
    store.tidy().unwrap_err();
    while store.tidy().unwrap() {}
    // The oldest segment's removals do not have to be written again.
    add(&mut store, 0, 3, 1_000);
    store.remove(&stream(0), Sequence(9));
    store.commit(true).unwrap();
    while store.tidy().unwrap() {}
    assert!(store.deletions_are_durable());
    disk.crash(0);
    let mut store = open(&disk);
    assert_eq!((ids(&mut store, 0), ids(&mut store, 2)), (vec![], vec![]));
}

#[test]
fn a_full_disk_gets_no_file_for_each_try_to_write_to_it() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    add(&mut store, 0, 1, 100);
    disk.limit(usize::try_from(disk.bytes()).unwrap() + RESERVE_BYTES + HEADER_BYTES / 2);
    for id in 2..20 {
        store.append(&spooled(0, id, 100, 0), 0).unwrap();
        assert_eq!(store.commit(true).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
    assert_eq!(disk.segments(), [0]);
    disk.limit(1 << 20);
    add(&mut store, 0, 20, 100);
    assert_eq!(ids(&mut store, 0), [1, 20]);
    disk.crash(0);
    assert_eq!(ids(&mut open(&disk), 0), [1, 20]);
}
