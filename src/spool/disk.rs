//! The file layer that a store needs. Tests put one of their own in its place, which fails and crashes on demand.
#![forbid(unsafe_code)]

use std::io;

/// Numbered segments in one folder. No other process changes them.
pub trait Disk {
    /// Creates an empty segment. It may be gone after a crash until [`Self::sync_folder`] has returned.
    ///
    /// # Errors
    /// Those of the file system, also if the segment exists.
    fn create(&mut self, segment: u32) -> io::Result<()>;

    /// Appends bytes to a segment that was created through this value. After an error some of them may be there.
    ///
    /// # Errors
    /// Those of the file system.
    fn append(&mut self, segment: u32, bytes: &[u8]) -> io::Result<()>;

    /// Makes the segment's content and length durable.
    ///
    /// # Errors
    /// Those of the file system. Nothing is known then about what was not durable before, and another sync would not
    /// tell (the kernel reports an error once, and forgets what it could not write).
    fn sync(&mut self, segment: u32) -> io::Result<()>;

    /// Fills `into` with the segment's bytes from `offset`.
    ///
    /// # Errors
    /// Those of the file system, and `UnexpectedEof` if the segment ends before.
    fn read(&mut self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// The segments, ascending.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&mut self) -> io::Result<Vec<u32>>;

    /// The segment's size in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn length(&mut self, segment: u32) -> io::Result<u64>;

    /// Deletes a segment. It may be back after a crash until [`Self::sync_folder`] has returned.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&mut self, segment: u32) -> io::Result<()>;

    /// Deletes a segment likewise, but keeps its bytes elsewhere, because something is wrong with them; unless too many
    /// are there already.
    ///
    /// # Errors
    /// Those of the file system.
    fn set_aside(&mut self, segment: u32) -> io::Result<()>;

    /// Puts an empty file in the place of a segment that was deleted, or is there. It is not appended to.
    ///
    /// # Errors
    /// Those of the file system.
    fn replace(&mut self, segment: u32) -> io::Result<()>;

    /// Makes creations and deletions durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync_folder(&mut self) -> io::Result<()>;

    /// Takes [`RESERVE_BYTES`](super::limits::RESERVE_BYTES) of the disk, if it has not done so yet.
    ///
    /// # Errors
    /// Those of the file system: `StorageFull` if there is no room.
    fn keep_reserve(&mut self) -> io::Result<()>;

    /// Gives them up.
    ///
    /// # Errors
    /// Those of the file system.
    fn release_reserve(&mut self) -> io::Result<()>;

    /// What to call a segment in a message, or the folder.
    fn place(&self, segment: Option<u32>) -> String;
}
