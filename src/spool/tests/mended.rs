//! Rules that were once broken.

use std::io;

use super::memory::MemoryDisk;
use super::model::{LIMITS, spooled, stream};
use crate::spool::limits::TENANT_RECORDS_MIN;
use crate::spool::{Refused, Sequence, Spooled, Store, StoreLimits};
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
