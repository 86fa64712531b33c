//! Folders that are read beside a store, and what is told of their damages.

use std::collections::BTreeMap;
use std::path::Path;

use super::model::{LIMITS, STREAMS, spooled, stream};
use crate::spool::record::HEADER_BYTES;
use crate::spool::{End, Folder, Sequence, Spooled, Store, Stream, View};

fn open(folder: &Path) -> Store<Folder> {
    Store::open(Folder::open(folder).unwrap(), LIMITS).unwrap()
}

/// All that a view has of a stream.
fn all(view: &mut View, stream: &Stream) -> Vec<(Sequence, Spooled)> {
    let mut found = Vec::new();
    let mut after = Sequence(0);
    while let Some((sequence, spooled)) = view.next(stream, after).unwrap() {
        after = sequence;
        found.push((sequence, spooled));
    }
    found
}

fn in_store(store: &mut Store<Folder>, stream: &Stream) -> Vec<(Sequence, Spooled)> {
    store.front(stream, None, usize::MAX, usize::MAX).unwrap()
}

/// The files and their bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// Appends rounds of records to all streams, and removes some.
fn fill(store: &mut Store<Folder>, rounds: u128) {
    for id in 0..rounds {
        for number in 0..STREAMS {
            store.append(&spooled(number, id, 100, 7), 7).unwrap();
        }
        store.commit(true).unwrap();
        if id % 3 == 0 {
            let of = stream(id as usize % STREAMS);
            let front = store.front(&of, None, 2, usize::MAX).unwrap();
            store.remove(&of, front.last().unwrap().0);
            store.commit(false).unwrap();
        }
    }
}

#[test]
fn a_view_has_what_the_open_store_has_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    for _ in 0..6 {
        fill(&mut store, 20);
        let before = files(folder.path());
        let mut view = View::read(folder.path()).unwrap();
        let streams: BTreeMap<_, _> =
            store.streams().map(|(stream, totals)| (format!("{stream:?}"), totals)).collect();
        let seen = view.streams();
        assert_eq!(seen.len(), STREAMS);
        for (stream, totals) in &seen {
            assert_eq!(streams[&format!("{stream:?}")], *totals);
            assert_eq!(all(&mut view, stream), in_store(&mut store, stream));
        }
        assert!(seen.is_sorted_by_key(|(stream, _)| stream.tenant.as_str().to_owned()));
        assert_eq!(store.totals().segments, view.segments().count() as u64);
        assert!(view.segments().all(|segment| segment.end == End::Whole));
        assert!(files(folder.path()) == before);
        for number in 0..STREAMS - 1 {
            let front = store.front(&stream(number), None, 15, usize::MAX).unwrap();
            store.remove(&stream(number), front.last().unwrap().0);
        }
        store.commit(true).unwrap();
        while store.tidy().unwrap() {}
    }
}

#[test]
fn records_that_are_moved_while_they_are_looked_at_are_found_and_removed_ones_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    fill(&mut store, 60);
    let mut view = View::read(folder.path()).unwrap();
    let first = view.segments().next().unwrap().path.clone();
    let kept = stream(STREAMS - 1);
    let (sequence, _) = view.next(&kept, Sequence(0)).unwrap().unwrap();
    for number in 0..STREAMS - 1 {
        let all = in_store(&mut store, &stream(number));
        store.remove(&stream(number), all.last().unwrap().0);
    }
    store.commit(true).unwrap();
    while store.tidy().unwrap() {}
    assert!(!first.exists(), "its records were moved");
    assert_eq!(all(&mut view, &kept), in_store(&mut store, &kept));
    assert_eq!(in_store(&mut store, &kept)[0].0, sequence);
    for number in 0..STREAMS - 1 {
        assert_eq!(all(&mut view, &stream(number)), []);
    }
}

/// A folder with one segment with three records, its file, and where the last record begins.
fn three_records() -> (tempfile::TempDir, std::path::PathBuf, usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let mut ends = Vec::new();
    for id in 0..3 {
        store.append(&spooled(0, id, 40, 7), 7).unwrap();
        store.commit(true).unwrap();
        ends.push(store.totals().disk_bytes as usize);
    }
    let file = folder.path().join("segment-0000000000000000");
    assert!(file.exists());
    (folder, file, ends[1])
}

fn end(folder: &Path) -> End {
    View::read(folder).unwrap().segments().next().unwrap().end.clone()
}

#[test]
fn a_segment_that_is_cut_is_torn() {
    let (folder, file, last) = three_records();
    let whole = std::fs::read(&file).unwrap();
    for length in [0, 5, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 3, last, last + 1, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let expected = match length {
            _ if length < HEADER_BYTES => End::Torn { at: 0 },
            _ if length == HEADER_BYTES || length == last => End::Whole,
            _ if length < last => End::Torn { at: HEADER_BYTES as u64 },
            _ => End::Torn { at: last as u64 },
        };
        assert_eq!(end(folder.path()), expected, "{length}");
    }
    std::fs::write(&file, [&whole[..last], &[0; 4096]].concat()).unwrap();
    assert_eq!(end(folder.path()), End::Torn { at: last as u64 });
}

#[test]
fn each_flipped_byte_is_damage() {
    let (folder, file, last) = three_records();
    let whole = std::fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x41;
        std::fs::write(&file, flipped).unwrap();
        // The last record with another length is one that is cut.
        let is_last_length = (last..last + 4).contains(&at);
        match end(folder.path()) {
            End::Damaged { at: told, .. } => assert!(told as usize <= at, "{at}"),
            End::Torn { at: told } => assert!(is_last_length && told == last as u64, "{at}"),
            End::Whole => panic!("{at}"),
        }
    }
}

#[test]
fn a_folder_that_is_none_is_told() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(View::read(folder.path()).unwrap().segments().count(), 0);
    let none = folder.path().join("none");
    assert!(View::read(&none).unwrap_err().to_string().contains(none.to_str().unwrap()));
    assert!(!none.exists());
}
