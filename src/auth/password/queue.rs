//! The queue of password checks: fair between users, and for each user between peers.
//!
//! Users take turns, and within a user its peers do. All unknown users together count as one. If the queue is full, the
//! user with the most checks loses its newest one, of the peer with the most. So neither a flood for one user nor one
//! for names that do not exist keeps the check of another user out.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A queue of jobs `J`, of users `U` and peers `P`.
#[derive(Debug)]
pub(super) struct FairQueue<U, P, J> {
    users: Turns<U, Turns<P, VecDeque<J>>>,
    jobs: usize,
    jobs_max: usize,
    per_peer_max: usize,
}

/// What became of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pushed<J> {
    /// It waits.
    Waits,
    /// It waits, and this one was dropped for it.
    InPlaceOf(J),
    /// There is no room for it.
    Refused,
}

/// Entries that are served in turn. Each key is once in `order`, and has an entry that is not empty.
#[derive(Debug)]
struct Turns<K, E> {
    entries: HashMap<K, E>,
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, E: Default> Turns<K, E> {
    fn new() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }

    fn entry(&mut self, key: K) -> &mut E {
        self.entries.entry(key).or_insert_with_key(|key| {
            self.order.push_back(key.clone());
            E::default()
        })
    }

    /// Lets `take` have what it wants of the entry whose turn it is, which then waits for its next turn.
    fn serve<R>(&mut self, take: impl FnOnce(&mut E) -> R, is_empty: impl Fn(&E) -> bool) -> Option<R> {
        let key = self.order.pop_front()?;
        let entry = self.entries.get_mut(&key)?;
        let taken = take(entry);
        if is_empty(entry) {
            self.entries.remove(&key);
        } else {
            self.order.push_back(key);
        }
        Some(taken)
    }

    /// The same for the entry of `key`, which keeps its place.
    fn change<R>(
        &mut self,
        key: &K,
        take: impl FnOnce(&mut E) -> R,
        is_empty: impl Fn(&E) -> bool,
    ) -> Option<R> {
        let entry = self.entries.get_mut(key)?;
        let taken = take(entry);
        if is_empty(entry) {
            self.entries.remove(key);
            self.order.retain(|other| other != key);
        }
        Some(taken)
    }

    /// The key of the longest entry, and its length.
    fn longest(&self, length: impl Fn(&E) -> usize) -> Option<(K, usize)> {
        let lengths = self.entries.iter().map(|(key, entry)| (key, length(entry)));
        lengths.max_by_key(|(_, length)| *length).map(|(key, length)| (key.clone(), length))
    }
}

impl<K: Clone + Eq + Hash, E: Default> Default for Turns<K, E> {
    fn default() -> Self {
        Self::new()
    }
}

fn jobs_of<P, J>(user: &Turns<P, VecDeque<J>>) -> usize {
    user.entries.values().map(VecDeque::len).sum()
}

impl<U: Clone + Eq + Hash, P: Clone + Eq + Hash, J> FairQueue<U, P, J> {
    /// An empty queue. `jobs_max` limits all jobs, and `per_peer_max` those of one user from one peer.
    pub(super) fn new(jobs_max: usize, per_peer_max: usize) -> Self {
        Self { users: Turns::new(), jobs: 0, jobs_max, per_peer_max }
    }

    /// Adds a job.
    pub(super) fn push(&mut self, user: U, peer: P, job: J) -> Pushed<J> {
        let own = self.users.entries.get(&user);
        let from_peer = own.and_then(|own| own.entries.get(&peer)).map_or(0, VecDeque::len);
        if from_peer >= self.per_peer_max {
            return Pushed::Refused;
        }
        let mut dropped = None;
        if self.jobs >= self.jobs_max {
            dropped = self.make_room(&user, own.map_or(0, jobs_of), from_peer);
            if dropped.is_none() {
                return Pushed::Refused;
            }
        }
        self.users.entry(user).entry(peer).push_back(job);
        self.jobs += 1;
        dropped.map_or(Pushed::Waits, Pushed::InPlaceOf)
    }

    /// Drops a job for one of `user`, which has `own` jobs, of them `from_peer` from the same peer. `None` if no user
    /// has more jobs than this one would have, nor any peer of this user.
    fn make_room(&mut self, user: &U, own: usize, from_peer: usize) -> Option<J> {
        let (longest, jobs) = self.users.longest(jobs_of)?;
        let (victim, peer) = if jobs > own + 1 {
            let peer = self.users.entries.get(&longest)?.longest(VecDeque::len)?.0;
            (longest, peer)
        } else {
            let (peer, jobs) = self.users.entries.get(user)?.longest(VecDeque::len)?;
            if jobs <= from_peer + 1 {
                return None;
            }
            (user.clone(), peer)
        };
        let newest =
            |peers: &mut Turns<P, VecDeque<J>>| peers.change(&peer, VecDeque::pop_back, VecDeque::is_empty);
        let dropped = self.users.change(&victim, newest, |peers| peers.entries.is_empty())???;
        self.jobs -= 1;
        Some(dropped)
    }

    /// Takes the job whose turn it is.
    pub(super) fn pop(&mut self) -> Option<J> {
        let oldest = |peers: &mut Turns<P, VecDeque<J>>| peers.serve(VecDeque::pop_front, VecDeque::is_empty);
        let job = self.users.serve(oldest, |peers| peers.entries.is_empty())???;
        self.jobs -= 1;
        Some(job)
    }

    /// The number of jobs.
    pub(super) fn len(&self) -> usize {
        self.jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Queue = FairQueue<&'static str, u8, u32>;

    fn drained(queue: &mut Queue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn users_take_turns_and_their_peers_do() {
        let mut queue = Queue::new(100, 10);
        for (user, peer, job) in
            [("a", 1, 1), ("a", 1, 2), ("a", 1, 3), ("a", 2, 4), ("b", 1, 5), ("b", 1, 6)]
        {
            assert_eq!(queue.push(user, peer, job), Pushed::Waits);
        }
        assert_eq!(drained(&mut queue), [1, 5, 4, 6, 2, 3]);
        assert_eq!((queue.len(), queue.users.entries.len(), queue.users.order.len()), (0, 0, 0));
    }

    #[test]
    fn one_peer_of_a_user_has_a_bound_of_its_own() {
        let mut queue = Queue::new(100, 2);
        assert_eq!(
            [1, 2, 3].map(|job| queue.push("a", 1, job)),
            [Pushed::Waits, Pushed::Waits, Pushed::Refused]
        );
        assert_eq!(queue.push("a", 2, 4), Pushed::Waits);
        assert_eq!(queue.push("b", 1, 5), Pushed::Waits);
    }

    #[test]
    fn a_full_queue_takes_from_the_user_with_the_most() {
        let mut queue = Queue::new(4, 4);
        for job in 0..4 {
            assert_eq!(queue.push("flood", 1, job), Pushed::Waits);
        }
        assert_eq!(queue.push("flood", 1, 9), Pushed::Refused);
        assert_eq!(queue.push("a", 1, 10), Pushed::InPlaceOf(3), "the newest");
        assert_eq!(queue.push("a", 1, 11), Pushed::InPlaceOf(2));
        assert_eq!(queue.push("a", 1, 12), Pushed::Refused, "both have two");
        let Pushed::InPlaceOf(dropped) = queue.push("b", 1, 20) else { panic!("no room") };
        assert!([1, 11].contains(&dropped), "with equal lengths either may lose its newest");
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn a_flood_of_one_peer_leaves_room_for_the_same_user_elsewhere() {
        let mut queue = Queue::new(4, 4);
        for job in 0..4 {
            queue.push("a", 1, job);
        }
        assert_eq!(queue.push("a", 2, 9), Pushed::InPlaceOf(3));
        assert_eq!(drained(&mut queue), [0, 9, 1, 2]);
    }

    proptest! {
        /// Against a model that knows nothing but who may push: no job is lost or made up, bounds hold, and a user with
        /// fewer jobs than the others always gets in.
        #[test]
        fn nothing_is_lost_and_a_small_user_always_gets_in(
            steps in proptest::collection::vec((0_usize..4, 0_u8..3, any::<bool>()), 1..300)
        ) {
            const USERS: [&str; 4] = ["a", "b", "c", "d"];
            let mut queue = Queue::new(8, 3);
            let mut waiting: HashMap<u32, (usize, u8)> = HashMap::new();
            for (job, (user, peer, pops)) in (0_u32..).zip(steps) {
                if pops {
                    match queue.pop() {
                        Some(job) => prop_assert!(waiting.remove(&job).is_some()),
                        None => prop_assert!(waiting.is_empty()),
                    }
                    continue;
                }
                let jobs = |of: usize| waiting.values().filter(|(user, _)| *user == of).count();
                let same_peer = waiting.values().filter(|other| **other == (user, peer)).count();
                let most = (0..USERS.len()).map(jobs).max().unwrap_or(0);
                let must_enter = same_peer < 3 && (waiting.len() < 8 || most > jobs(user) + 1);
                match queue.push(USERS[user], peer, job) {
                    Pushed::Waits => {
                        prop_assert!(waiting.len() < 8 && same_peer < 3);
                        waiting.insert(job, (user, peer));
                    }
                    Pushed::InPlaceOf(other) => {
                        prop_assert!(waiting.len() == 8 && waiting.remove(&other).is_some());
                        waiting.insert(job, (user, peer));
                    }
                    Pushed::Refused => prop_assert!(!must_enter),
                }
                prop_assert_eq!(queue.len(), waiting.len());
            }
            let mut left: Vec<_> = drained(&mut queue);
            left.sort_unstable();
            let mut expected: Vec<_> = waiting.into_keys().collect();
            expected.sort_unstable();
            prop_assert_eq!(left, expected);
        }
    }
}
