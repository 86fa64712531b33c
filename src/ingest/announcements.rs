//! When a request rings the home cores of its parts.
//!
//! One ring for all parts costs least: a core that is rung for the first one handles it, sleeps, and is rung for the
//! next. But a part should not wait while many others are made, or a large one. So the cores are rung after some thirty
//! microseconds of work, and for each part of a large request.

/// Work for parts that a request sends to other cores before it rings them, in inflated bytes: some thirty
/// microseconds, and the last part.
const UNANNOUNCED_WORK_BYTES_MAX: usize = 64 << 10;

/// Inflated size from which a request rings for each part: the next one may take milliseconds.
const LARGE_REQUEST_BYTES: usize = 1 << 20;

/// What a part counts for at least: a small one takes a microsecond as well.
const PART_WORK_BYTES_MIN: usize = 2 << 10;

/// The parts of a request that no core was rung for.
#[derive(Debug)]
pub(super) struct Announcements {
    /// The work that they were, in inflated bytes.
    work: usize,
    /// How much work calls for a ring.
    work_max: usize,
}

impl Announcements {
    /// For a request of this inflated size.
    pub(super) fn new(inflated_bytes: usize) -> Self {
        let is_large = inflated_bytes > LARGE_REQUEST_BYTES;
        Self { work: 0, work_max: if is_large { 0 } else { UNANNOUNCED_WORK_BYTES_MAX } }
    }

    /// Adds a part. Returns whether it is time to ring.
    pub(super) fn add(&mut self, inflated_bytes: u32) -> bool {
        self.work += (inflated_bytes as usize).max(PART_WORK_BYTES_MIN);
        self.work >= self.work_max
    }

    /// Notes that the cores were rung.
    pub(super) fn made(&mut self) {
        self.work = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_rung_after_a_little_work_however_it_is_divided() {
        let mut announcements = Announcements::new(LARGE_REQUEST_BYTES);
        let tiny = UNANNOUNCED_WORK_BYTES_MAX / PART_WORK_BYTES_MIN;
        assert!((1..tiny).all(|_| !announcements.add(1)), "tiny parts take time as well");
        assert!(announcements.add(1));
        announcements.made();
        assert!(!announcements.add(1_000) && announcements.add(100_000));
    }

    #[test]
    fn a_large_request_rings_for_each_part() {
        let mut announcements = Announcements::new(LARGE_REQUEST_BYTES + 1);
        assert!(announcements.add(1));
        announcements.made();
        assert!(announcements.add(1));
    }
}
