//! Segments as files of a folder.
//!
//! Design constraints:
//!
//! * Two processes on one folder would destroy it. A lock on a file in it, held while the folder is open, refuses the
//!   second. The kernel releases it when the process ends, in whatever way.
//! * Parts are what senders have pushed: only the own user may read them.
//! * There may be hundreds of segments. Few are open at a time.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::error::OpenError;
use super::limits::{ASIDE_SEGMENTS_MAX, OPEN_SEGMENTS_MAX, RESERVE_BYTES};

const NAME_START: &str = "segment-";
/// The file that takes room, to be given up when the disk is full.
const RESERVE: &str = "reserve";
/// What follows in the name of one that is kept aside. It is no segment any more.
const ASIDE_END: &str = ".damaged";
/// Hexadecimal digits of a segment's number in its name.
const NAME_DIGITS: usize = 16;

/// A folder with segments, locked.
pub struct Folder {
    path: PathBuf,
    /// For its sync.
    folder: File,
    /// Holds the lock.
    _lock: File,
    /// The segments that are appended to: the last one that was created.
    appended: Option<(u32, File)>,
    read: BTreeMap<u32, File>,
}

impl Folder {
    /// Opens the folder, which is created if there is none, and locks it.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if another process has it open, else those of the file system.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { place: path.display().to_string(), source };
        create_folder(path, |folder| File::open(folder)?.sync_all()).map_err(failed)?;
        let folder = File::open(path).map_err(failed)?;
        let lock = path.join("lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(lock).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Self { path: path.into(), folder, _lock: lock, appended: None, read: BTreeMap::new() })
    }

    fn path_of(&self, segment: u32) -> PathBuf {
        path_of(&self.path, segment)
    }

    fn file_to_read(&mut self, segment: u32) -> io::Result<&File> {
        if self.read.len() >= OPEN_SEGMENTS_MAX && !self.read.contains_key(&segment) {
            self.read.clear();
        }
        let path = self.path_of(segment);
        match self.read.entry(segment) {
            std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::btree_map::Entry::Vacant(closed) => Ok(closed.insert(File::open(path)?)),
        }
    }

    fn file_to_append(&mut self, segment: u32) -> io::Result<&mut File> {
        match &mut self.appended {
            Some((of, file)) if *of == segment => Ok(file),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the segment is not appended to any more")),
        }
    }
}

/// Creates the folder, and those that it is in, as far as there are none. `sync` makes the names in a folder durable.
fn create_folder(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| *path != Path::new("") && !path.is_dir()).collect();
    for path in missing.into_iter().rev() {
        DirBuilder::new().mode(0o700).create(path)?;
        sync(path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// The file of a segment.
pub(super) fn path_of(folder: &Path, segment: u32) -> PathBuf {
    folder.join(format!("{NAME_START}{segment:016x}"))
}

/// The segments in a folder, ascending.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u32>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        segments.extend(entry?.file_name().to_str().and_then(number).transpose()?);
    }
    segments.sort_unstable();
    Ok(segments)
}

/// The number in a segment's name; `None` if it is no segment.
fn number(name: &str) -> Option<Result<u32, io::Error>> {
    let digits = name.strip_prefix(NAME_START)?;
    let is_number =
        digits.len() == NAME_DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = u64::from_str_radix(digits, 16).ok().filter(|_| is_number)?;
    let too_high =
        |_| io::Error::new(io::ErrorKind::InvalidData, format!("the number of {name} is too high"));
    Some(u32::try_from(number).map_err(too_high))
}

impl Disk for Folder {
    fn create(&mut self, segment: u32) -> io::Result<()> {
        self.appended = None;
        let path = self.path_of(segment);
        let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path)?;
        self.appended = Some((segment, file));
        Ok(())
    }

    fn append(&mut self, segment: u32, bytes: &[u8]) -> io::Result<()> {
        self.file_to_append(segment)?.write_all(bytes)
    }

    fn sync(&mut self, segment: u32) -> io::Result<()> {
        match self.file_to_append(segment) {
            Ok(file) => file.sync_data(),
            Err(_) => self.file_to_read(segment)?.sync_data(),
        }
    }

    fn read(&mut self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file_to_read(segment)?.read_exact_at(into, offset)
    }

    fn list(&mut self) -> io::Result<Vec<u32>> {
        list(&self.path)
    }

    fn length(&mut self, segment: u32) -> io::Result<u64> {
        Ok(self.file_to_read(segment)?.metadata()?.len())
    }

    fn remove(&mut self, segment: u32) -> io::Result<()> {
        self.read.remove(&segment);
        std::fs::remove_file(self.path_of(segment))
    }

    fn replace(&mut self, segment: u32) -> io::Result<()> {
        let path = self.path_of(segment);
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path).map(drop)
    }

    fn set_aside(&mut self, segment: u32) -> io::Result<()> {
        self.read.remove(&segment);
        let mut aside = 0;
        for entry in std::fs::read_dir(&self.path)? {
            aside += usize::from(entry?.file_name().as_encoded_bytes().ends_with(ASIDE_END.as_bytes()));
        }
        let path = self.path_of(segment);
        if aside >= ASIDE_SEGMENTS_MAX {
            return std::fs::remove_file(path);
        }
        std::fs::rename(&path, self.path.join(format!("{NAME_START}{segment:016x}{ASIDE_END}")))
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.folder.sync_all()
    }

    fn keep_reserve(&mut self) -> io::Result<()> {
        let path = self.path.join(RESERVE);
        if std::fs::metadata(&path).is_ok_and(|file| file.len() == RESERVE_BYTES as u64) {
            return Ok(());
        }
        // A file system that compresses would keep no room for zeros.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(RESERVE_BYTES / 8)
        .flatten()
        .collect();
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path);
        let kept = file.and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_data()));
        kept.inspect_err(|_| drop(std::fs::remove_file(&path)))
    }

    fn release_reserve(&mut self) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(RESERVE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn place(&self, segment: Option<u32>) -> String {
        let path = segment.map_or_else(|| self.path.clone(), |segment| self.path_of(segment));
        path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn segments_are_files_that_only_their_user_reads() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/spool");
        let mut folder = Folder::open(&path).unwrap();
        folder.create(0x1f).unwrap();
        folder.append(0x1f, b"abc").unwrap();
        folder.append(0x1f, b"def").unwrap();
        folder.sync(0x1f).unwrap();
        folder.create(3).unwrap();
        folder.sync_folder().unwrap();
        assert_eq!(folder.list().unwrap(), [3, 0x1f]);
        assert_eq!(folder.length(0x1f).unwrap(), 6);
        let mut read = [0; 4];
        folder.read(0x1f, 1, &mut read).unwrap();
        assert_eq!(&read, b"bcde");
        let beyond = folder.read(0x1f, 3, &mut read).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        assert!(folder.append(0x1f, b"g").is_err());
        assert!(folder.create(3).is_err());
        let file = path.join("segment-000000000000001f");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&file)), (0o700, 0o600));
        assert_eq!(folder.place(Some(0x1f)), file.display().to_string());
        folder.remove(0x1f).unwrap();
        assert!(!file.exists());
        assert!(folder.length(0x1f).is_err());
    }

    #[test]
    fn a_second_process_is_refused_until_the_first_ends() {
        let parent = tempfile::tempdir().unwrap();
        let first = Folder::open(parent.path()).unwrap();
        let error = Folder::open(parent.path()).err().unwrap();
        assert!(matches!(error, OpenError::Locked(_)));
        assert!(error.to_string().contains(&parent.path().display().to_string()), "{error}");
        drop(first);
        Folder::open(parent.path()).unwrap();
    }

    #[test]
    fn only_names_of_segments_are_segments() {
        let parent = tempfile::tempdir().unwrap();
        let names = ["segment-1", "segment-000000000000000G", "segment-+00000000000000f", "x", "segment-"];
        for name in names.iter().chain(&["segment-0000000000000002", "segment-00000000000000FF"]) {
            std::fs::write(parent.path().join(name), b"").unwrap();
        }
        let mut folder = Folder::open(parent.path()).unwrap();
        assert_eq!(folder.list().unwrap(), [2]);
        std::fs::write(parent.path().join("segment-0000000100000000"), b"").unwrap();
        assert!(folder.list().is_err());
    }

    #[test]
    fn each_new_folder_is_made_durable() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b/spool");
        let mut synced = Vec::new();
        let sync = |synced: &mut Vec<PathBuf>, folder: &Path| {
            synced.push(folder.to_owned());
            Ok(())
        };
        create_folder(&path, |folder| sync(&mut synced, folder)).unwrap();
        assert_eq!(synced, [parent.path(), &parent.path().join("a"), &parent.path().join("a/b")]);
        create_folder(&path, |folder| sync(&mut synced, folder)).unwrap();
        assert_eq!((synced.len(), path.is_dir()), (3, true));
    }

    #[test]
    fn the_reserve_is_a_file_of_its_size() {
        let parent = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(parent.path()).unwrap();
        let path = parent.path().join(RESERVE);
        std::fs::write(&path, b"it was cut").unwrap();
        for _ in 0..2 {
            folder.keep_reserve().unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), RESERVE_BYTES as u64);
        }
        assert!(folder.list().unwrap().is_empty());
        (0..2).for_each(|_| folder.release_reserve().unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn few_damaged_segments_are_kept_aside() {
        let parent = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(parent.path()).unwrap();
        let last = u32::try_from(ASIDE_SEGMENTS_MAX).unwrap();
        for segment in 0..=last {
            folder.create(segment).unwrap();
            folder.append(segment, &segment.to_le_bytes()).unwrap();
            folder.set_aside(segment).unwrap();
        }
        assert!(folder.list().unwrap().is_empty());
        let aside = |segment: u32| parent.path().join(format!("segment-{segment:016x}.damaged"));
        assert_eq!(std::fs::read(aside(1)).unwrap(), [1, 0, 0, 0]);
        assert!(aside(last - 1).exists() && !aside(last).exists());
        assert_eq!(folder.set_aside(99).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = Folder::open(&file).err().unwrap();
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }

    #[test]
    fn many_segments_are_read_with_few_of_them_open() {
        let parent = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(parent.path()).unwrap();
        for segment in (0..).take(2 * OPEN_SEGMENTS_MAX) {
            folder.create(segment).unwrap();
            assert_eq!(folder.length(segment).unwrap(), 0);
            assert!(folder.read.len() <= OPEN_SEGMENTS_MAX);
        }
    }
}
