//! What can go wrong with a spool.
#![forbid(unsafe_code)]

use std::io;

use super::fields::Malformed;
use super::stream::Sequence;

/// Why a spool cannot be opened. Nothing was changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or folder cannot be used.
    #[error("{place}: {source}")]
    Io {
        /// The file or folder.
        place: String,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// Another process has the folder open.
    #[error("{0} is in use by another process; each needs a folder of its own")]
    Locked(String),
    /// A segment was written by another version of this program.
    #[error(
        "{place} has version {version} of the format, and this program reads only version {}",
        super::record::VERSION
    )]
    Version {
        /// The segment.
        place: String,
        /// Its version.
        version: u32,
    },
    /// A segment does not begin as one.
    #[error("{0} is not a segment of a spool, or its first bytes are damaged")]
    Header(String),
    /// A record is what was once written, yet it cannot be read.
    #[error("{place} has a record at byte {offset} that this program cannot read: {fault}")]
    Record {
        /// The segment.
        place: String,
        /// Where the record begins.
        offset: u64,
        /// What is wrong with it.
        #[source]
        fault: Malformed,
    },
}

/// Why a record was not appended. Nothing that is stored is lost.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The spool is full, by its bytes or by its number of records or streams, or too much waits for a commit.
    #[error("the spool is full")]
    Full,
    /// The tenant has as many bytes or records in the spool as it may have.
    #[error("the tenant's share of the spool is full")]
    TenantFull,
    /// The oldest record of the stream has waited for too long.
    #[error("the oldest record has been in the spool for too long")]
    TooOld,
    /// It cannot be stored.
    #[error("it cannot be stored: {0}")]
    Failed(#[source] io::Error),
}

/// A stored record cannot be read again: the disk returns other bytes than it was given. It comes as the source of an
/// [`io::Error`] of kind `InvalidData`. [`Store::skip`](super::Store::skip) gets past it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the record {} is damaged on disk", .sequence.0)]
pub struct Damaged {
    /// The record.
    pub sequence: Sequence,
}

/// Bytes of a segment that are no record, though records follow: a disk has changed them, or a write that was never
/// acknowledged has left a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{bytes} bytes from byte {offset} of the segment {segment:016x} on are not what was written")]
pub struct Damage {
    /// The segment's number.
    pub segment: u32,
    /// Where they begin.
    pub offset: u64,
    /// How many they are.
    pub bytes: u64,
}

impl From<Damaged> for io::Error {
    fn from(damaged: Damaged) -> Self {
        Self::new(io::ErrorKind::InvalidData, damaged)
    }
}
