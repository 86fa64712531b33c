//! A disk in memory, for tests and simulations: it fails and crashes on demand. After a crash, of what was not synced
//! any part is there: writes are kept, dropped, torn or replaced by zeros, each for itself, and so are creations and
//! deletions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::Disk;
use super::limits::RESERVE_BYTES;

/// What goes wrong with one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing is done.
    Error,
    /// Half of the bytes are written.
    Torn,
}

/// Random numbers (xorshift).
pub struct Random(pub u64);

impl Random {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end.max(1)
    }
}

/// A handle; its clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    folder: BTreeMap<u32, usize>,
    durable_folder: BTreeMap<u32, usize>,
    /// Since the last sync of the folder.
    changes: Vec<Change>,
    /// Those that a failed sync of the folder has forgotten: no later one makes them durable.
    forgotten: Vec<Change>,
    files: Vec<File>,
    operations: usize,
    crash_at: Option<usize>,
    is_down: bool,
    faults: BTreeMap<usize, Fault>,
    read_fails: bool,
    aside: Vec<u32>,
    reads: usize,
    /// All that it holds, if that is limited.
    capacity: Option<usize>,
    reserve: usize,
}

#[derive(Clone, Copy)]
enum Change {
    Create(u32, usize),
    Remove(u32),
}

impl Change {
    fn segment(self) -> u32 {
        match self {
            Self::Create(segment, _) | Self::Remove(segment) => segment,
        }
    }
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    durable: usize,
    /// Where writes that are not durable begin.
    writes: Vec<usize>,
    /// A sync has failed. Others say that all is well, but make nothing durable.
    is_forgotten: bool,
}

fn apply(folder: &mut BTreeMap<u32, usize>, change: Change) {
    match change {
        Change::Create(segment, file) => drop(folder.insert(segment, file)),
        Change::Remove(segment) => drop(folder.remove(&segment)),
    }
}

impl State {
    /// Counts an operation. `Ok(None)` if it goes well.
    fn begin(&mut self) -> io::Result<Option<Fault>> {
        if self.is_down {
            return Err(io::Error::other("it is down"));
        }
        let operation = self.operations;
        self.operations += 1;
        if self.crash_at == Some(operation) {
            self.is_down = true;
        }
        Ok(self.faults.get(&operation).copied())
    }

    /// The end of an operation that went well, unless the crash was in it. Its effect may then be there.
    fn end(&self) -> io::Result<()> {
        if self.is_down { Err(io::Error::other("it went down")) } else { Ok(()) }
    }

    fn room(&self) -> usize {
        let used: usize = self.folder.values().map(|file| self.files[*file].bytes.len()).sum();
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used + self.reserve))
    }

    fn file(&mut self, segment: u32) -> io::Result<&mut File> {
        let file = self.folder.get(&segment).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.files[file])
    }
}

impl MemoryDisk {
    /// How many operations there were.
    pub fn operations(&self) -> usize {
        self.0.borrow().operations
    }

    /// Whether it has crashed.
    pub fn is_down(&self) -> bool {
        self.0.borrow().is_down
    }

    /// All bytes of all segments.
    pub fn bytes(&self) -> u64 {
        let state = self.0.borrow();
        state.folder.values().map(|file| state.files[*file].bytes.len() as u64).sum()
    }

    /// The numbers of its segments.
    pub fn segments(&self) -> Vec<u32> {
        self.0.borrow().folder.keys().copied().collect()
    }

    /// Has it hold so many bytes at most.
    pub fn limit(&self, capacity: usize) {
        self.0.borrow_mut().capacity = Some(capacity);
    }

    /// How many reads there were.
    pub fn reads(&self) -> usize {
        self.0.borrow().reads
    }

    /// The segments that were set aside.
    pub fn aside(&self) -> Vec<u32> {
        self.0.borrow().aside.clone()
    }

    /// The bytes of a segment, to be looked at or changed.
    pub fn edit<T>(&self, segment: u32, edit: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        #[expect(clippy::unwrap_used, reason = "tests alone call it, of a segment that is there")]
        edit(&mut self.0.borrow_mut().file(segment).unwrap().bytes)
    }

    /// Puts a durable segment there.
    pub fn put(&self, segment: u32, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        let file = state.files.len();
        state.files.push(File { bytes: bytes.into(), durable: bytes.len(), ..File::default() });
        state.folder.insert(segment, file);
        state.durable_folder.insert(segment, file);
    }

    /// Has it crash at an operation.
    pub fn crash_at(&self, operation: Option<usize>) {
        self.0.borrow_mut().crash_at = operation;
    }

    /// The operation after `skipped` more fails.
    pub fn fail(&self, skipped: usize, fault: Fault) {
        let mut state = self.0.borrow_mut();
        let operation = state.operations + skipped;
        state.faults.insert(operation, fault);
    }

    /// All operations go well from now on.
    pub fn heal(&self) {
        let mut state = self.0.borrow_mut();
        state.faults.clear();
        state.read_fails = false;
    }

    /// Has all reads fail.
    pub fn fail_reads(&self) {
        self.0.borrow_mut().read_fails = true;
    }

    /// Whether a sync has failed, and what was not durable then may vanish.
    pub fn has_forgotten(&self) -> bool {
        let state = self.0.borrow();
        !state.forgotten.is_empty() || state.files.iter().any(|file| file.is_forgotten)
    }

    /// The process ended at a crash, and the machine did not: nothing is lost, but what was not durable is not yet.
    pub fn revive(&self) {
        let mut state = self.0.borrow_mut();
        (state.is_down, state.crash_at) = (false, None);
    }

    /// The power fails and comes back. `seed` tells what is left of what was not durable: nothing (0), all (1), or
    /// some.
    pub fn crash(&self, seed: u64) {
        let state = &mut *self.0.borrow_mut();
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut keeps = |of: usize| match seed {
            0 => 0,
            1 => of,
            _ => [0, of, random.below(of + 1)][random.below(3)],
        };
        let mut folder = state.durable_folder.clone();
        for change in state.forgotten.drain(..).chain(state.changes.drain(..)) {
            if keeps(1) == 1 {
                apply(&mut folder, change);
            }
        }
        for file in &mut state.files {
            let ends: Vec<usize> = file.writes.iter().copied().skip(1).chain([file.bytes.len()]).collect();
            let mut kept = file.bytes[..file.durable].to_vec();
            for (start, end) in file.writes.drain(..).zip(ends) {
                let start = start.max(file.durable);
                let bytes = &file.bytes[start..end.max(start)];
                let count = keeps(bytes.len());
                if count > 0 {
                    kept.resize(start, 0);
                    kept.extend_from_slice(&bytes[..count]);
                    // The length may be there without the bytes.
                    if keeps(1) == 1 {
                        kept.resize(end, 0);
                    }
                }
            }
            *file = File { durable: kept.len(), bytes: kept, ..File::default() };
        }
        state.durable_folder = folder.clone();
        state.folder = folder;
        (state.is_down, state.crash_at) = (false, None);
        state.faults.clear();
        state.read_fails = false;
    }
}

impl Disk for MemoryDisk {
    fn create(&mut self, segment: u32) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        if state.begin()?.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.folder.contains_key(&segment) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let change = Change::Create(segment, state.files.len());
        state.files.push(File::default());
        apply(&mut state.folder, change);
        state.changes.push(change);
        state.end()
    }

    fn append(&mut self, segment: u32, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        let fault = state.begin()?;
        let room = state.room();
        let file = state.file(segment)?;
        let count = match fault {
            None => bytes.len(),
            Some(Fault::Torn) => bytes.len() / 2,
            Some(Fault::Error) => 0,
        }
        .min(room);
        file.writes.push(file.bytes.len());
        file.bytes.extend_from_slice(&bytes[..count]);
        if fault.is_some() || count < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.end()
    }

    fn sync(&mut self, segment: u32) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        let fault = state.begin()?;
        // A crash within it leaves what it has not done yet.
        state.end()?;
        let file = state.file(segment)?;
        if fault.is_some() {
            file.is_forgotten = true;
            return Err(io::Error::other("EIO"));
        }
        if !file.is_forgotten {
            file.durable = file.bytes.len();
            file.writes.clear();
        }
        Ok(())
    }

    fn read(&mut self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        if state.read_fails || state.is_down {
            return Err(io::Error::other("EIO"));
        }
        state.reads += 1;
        let bytes = &state.file(segment)?.bytes;
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
        let read = rest.and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(read.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn list(&mut self) -> io::Result<Vec<u32>> {
        Ok(self.segments())
    }

    fn length(&mut self, segment: u32) -> io::Result<u64> {
        Ok(self.0.borrow_mut().file(segment)?.bytes.len() as u64)
    }

    fn remove(&mut self, segment: u32) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        let fault = state.begin()?;
        state.file(segment)?;
        if fault.is_some() {
            return Err(io::Error::other("EIO"));
        }
        apply(&mut state.folder, Change::Remove(segment));
        state.changes.push(Change::Remove(segment));
        state.end()
    }

    fn replace(&mut self, segment: u32) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        if state.begin()?.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let change = Change::Create(segment, state.files.len());
        state.files.push(File::default());
        apply(&mut state.folder, change);
        state.changes.push(change);
        state.end()
    }

    fn set_aside(&mut self, segment: u32) -> io::Result<()> {
        self.remove(segment)?;
        self.0.borrow_mut().aside.push(segment);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        let fault = state.begin()?;
        state.end()?;
        if fault.is_some() {
            state.forgotten.append(&mut state.changes);
            return Err(io::Error::other("EIO"));
        }
        for change in state.changes.drain(..) {
            // What is durable of a name replaces what is in doubt of it: no file system puts older changes over newer
            // ones.
            state.forgotten.retain(|doubtful| doubtful.segment() != change.segment());
            apply(&mut state.durable_folder, change);
        }
        Ok(())
    }

    fn keep_reserve(&mut self) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        let fault = state.begin()?;
        if state.reserve == 0 {
            if fault.is_some() || state.room() < RESERVE_BYTES {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.reserve = RESERVE_BYTES;
        }
        state.end()
    }

    fn release_reserve(&mut self) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        if state.begin()?.is_some() {
            return Err(io::Error::other("EIO"));
        }
        state.reserve = 0;
        state.end()
    }

    fn place(&self, segment: Option<u32>) -> String {
        segment.map_or("memory".to_owned(), |segment| format!("memory/segment-{segment:016x}"))
    }
}
