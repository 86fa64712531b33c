//! Samples, added up by thread and stack.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::limits::PROFILE_STACKS_MAX;

/// The samples of one profile.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) began: SystemTime,
    pub(super) took: Duration,
    pub(super) stacks: Stacks,
}

/// A thread of the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Thread {
    pub(super) id: i32,
    pub(super) name: Arc<str>,
}

/// A thread's ID and its stack.
type Key = (i32, Box<[usize]>);

/// How often each stack was seen.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    seen: HashMap<Key, (Thread, u64)>,
    /// Samples that are not in here, as there was no room for them.
    pub(super) lost: u64,
    /// Samples of stacks beyond the limit.
    pub(super) beyond: u64,
}

impl Stacks {
    /// Adds a sample: the address that was interrupted, then the addresses to return to, the innermost first.
    pub(super) fn add(&mut self, thread: &Thread, frames: &[usize]) {
        let is_full = self.seen.len() >= PROFILE_STACKS_MAX;
        let key = (thread.id, frames.into());
        match self.seen.get_mut(&key) {
            Some((_, count)) => *count += 1,
            None if is_full => self.beyond += 1,
            None => _ = self.seen.insert(key, (thread.clone(), 1)),
        }
    }

    /// Each thread and stack with the number of its samples.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Thread, &[usize], u64)> {
        self.seen.iter().map(|((_, frames), (thread, count))| (thread, &**frames, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_stack_of_a_thread_is_counted_once_and_their_number_is_bounded() {
        let mut stacks = Stacks::default();
        let [one, two] = [1, 2].map(|id| Thread { id, name: "t".into() });
        for _ in 0..3 {
            stacks.add(&one, &[1, 2]);
        }
        stacks.add(&two, &[1, 2]);
        for n in 0..PROFILE_STACKS_MAX {
            stacks.add(&one, &[n, 7]);
        }
        stacks.add(&one, &[1, 2]);
        let count = |thread: i32| {
            let found = stacks.iter().find(|(t, frames, _)| t.id == thread && *frames == [1, 2]);
            found.map(|(_, _, count)| count)
        };
        assert_eq!((count(1), count(2)), (Some(4), Some(1)));
        assert_eq!((stacks.iter().count(), stacks.beyond), (PROFILE_STACKS_MAX, 2));
    }
}
