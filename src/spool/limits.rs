//! The limits of the spool that are not settings.
#![forbid(unsafe_code)]

/// Size of one record's payload: a part with what is kept of it. It is deflated, so this is far more than the body of
/// any request that is let in.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// Size of a segment, if the setting is larger. Offsets have 32 bits, and what was appended for one commit goes into
/// one segment, which may be larger for it by [`PENDING_BYTES_MAX`].
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The least size of a segment, so that its header hardly counts.
pub const SEGMENT_BYTES_MIN: u64 = 256;

/// Segments in a full spool, at least. A segment is given back as a whole, so a few of them may hold nothing any more.
pub const SEGMENTS_MIN: u64 = 8;

/// What may wait for one commit. It is in memory.
pub const PENDING_BYTES_MAX: usize = 512 << 20;

/// Memory for the index of records, at [`ENTRY_BYTES`] each. The tables may take twice that while they grow.
pub const INDEX_BYTES_MAX: usize = 256 << 20;

/// Memory for one record in the index.
pub const ENTRY_BYTES: usize = 32;

/// Records in the spool: eight million.
pub const RECORDS_MAX: usize = INDEX_BYTES_MAX / ENTRY_BYTES;

/// Records that a tenant may have in any case, however small its share is.
pub const TENANT_RECORDS_MIN: u64 = 1_000;

/// Streams with records. One takes up to half a kilobyte in the index.
pub const STREAMS_MAX: usize = 200_000;

/// Places of damage that are told apart, as far as they are in one segment.
pub const DAMAGE_MAX: usize = 1_000;

/// Segments with damage that are kept aside. Nobody but the operator deletes them, and they count for no other limit.
pub const ASIDE_SEGMENTS_MAX: usize = 8;

/// Steps in which a segment is given back that is full of live records.
pub const STEPS: u64 = 16;

/// What one such step moves, at most, but one record in any case: what is appended waits for it.
pub const STEP_BYTES_MAX: usize = 4 << 20;

/// How much more than that it reads, at most.
pub const STEP_READS: u64 = 4;

/// What a removal takes, at most: names of a tenant and of an upstream.
pub const REMOVAL_BYTES: usize = 512;

/// Removals that a step writes in any case.
pub const REMOVALS_MIN: usize = 8;

/// Room on the disk for what has to be written before space can be given back: a header, and removals in small steps.
pub const RESERVE_BYTES: usize = 64 << 10;

/// Bytes that are read at a time when the spool is opened. A longer record is read as a whole.
pub const READ_BYTES: usize = 1 << 20;

/// Segments that are kept open for reading.
pub const OPEN_SEGMENTS_MAX: usize = 64;

/// How often a core looks after what waits for the spool, and at replays that are due.
pub const SPOOL_LOOK_MILLIS: u64 = 50;

/// The most that the file of dead letters holds.
pub const DEAD_LETTER_BYTES_MAX: u64 = 1 << 30;
