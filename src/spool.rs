//! A durable queue on disk: parts whose upstream fails are stored here, and only then acknowledged to their sender.
//! Later they are replayed in order.
//!
//! Design constraints:
//!
//! * What was acknowledged is there after a crash at any point, of the process or of the machine. What was removed may
//!   be back if its removal was not synced: replay is at least once.
//! * Thousands of tenants may be sick at the same time. They share segments, so that one sync makes the parts of many
//!   of them durable.
//! * A *stream* (tenant, upstream, destination) is replayed in the order of its sequences. Other streams do not matter
//!   to it.
//! * Everything has a limit: bytes on disk, bytes of a tenant, age, records and streams in the index ([`limits`]).
//! * An error of the disk loses nothing that is stored. After a failed write or sync a file is not appended to any
//!   more.
//! * One thread uses it, which may block. The clock is given.
//!
//! [`Store`] appends to numbered *segments*; [`record`] says what their bytes are, and why a torn one loses nothing
//! that was acknowledged. `index.rs` knows in memory where each live record is, at 32 bytes each. A removal is a
//! record, too: the sequence up to which a stream is done. `recovery.rs` reads it all back; `reader.rs` gets past
//! damaged bytes. When most of a segment is dead, its live records are copied behind the others, with their sequences,
//! and it is deleted.
//!
//! A [`Disk`] is the file layer: [`Folder`] in the program. In tests it is one in memory, which crashes at each of its
//! operations and loses of the unsynced ones what it likes.
//!
//! A [`View`] reads a folder that another process may have open, for people.

mod appender;
mod dead_letters;
mod disk;
mod error;
mod fields;
mod folder;
mod index;
pub mod limits;
#[cfg(any(test, feature = "simulation"))]
pub mod memory;
mod reader;
pub mod record;
mod recovery;
mod spooled;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod view;
pub mod worker;

pub use dead_letters::{DeadLetter, DeadLetters};
pub use disk::Disk;
pub use error::{Damage, Damaged, OpenError, Refused};
pub use fields::Malformed;
pub use folder::Folder;
pub use spooled::Spooled;
pub use store::{Store, StoreLimits, Totals};
pub use stream::{Sequence, Stream, StreamTotals};
pub use view::{End, Segment, View};
