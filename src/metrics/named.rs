//! Counters by a text that comes from outside: the addresses of senders, and the IDs in errors of upstreams.
//!
//! The first few texts have counters of their own, and all others share one set. The names are those of the whole
//! process, so that all cores agree on which they are; each core has its own counters. A name is set once and then
//! only read, so finding its counters takes no lock. Two cores that set a name at the same time wait for each other,
//! which can happen once for each name.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use super::cells::Counter;

/// Up to a bound, names with `C` counters each. See [`Named::count`].
#[derive(Debug)]
pub struct Named<K, const C: usize> {
    names: Box<[OnceLock<K>]>,
    /// By core; for each the counters of all names, and those of all further names at the end.
    counts: Box<[Box<[[Counter; C]]>]>,
}

/// A name's place among all names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

impl<K: Eq, const C: usize> Named<K, C> {
    /// Counters of `cores` cores for up to `names_max` names.
    pub fn new(cores: usize, names_max: usize) -> Self {
        let counters = || (0..=names_max).map(|_| std::array::from_fn(|_| Counter::default())).collect();
        Self {
            names: (0..names_max).map(|_| OnceLock::new()).collect(),
            counts: (0..cores.max(1)).map(|_| counters()).collect(),
        }
    }

    /// The place of a name. `is` says whether a name is the one that is looked for, and `make` makes it. Names past the
    /// bound share the last place.
    pub fn place(&self, is: impl Fn(&K) -> bool, make: impl Fn() -> K) -> Place {
        let at = self.names.iter().position(|name| is(name.get_or_init(&make)));
        Place(at.unwrap_or(self.names.len()))
    }

    /// The place that all further names share.
    pub fn other(&self) -> Place {
        Place(self.names.len())
    }

    /// Adds to counter number `which` of a name. Only the core of this number may call it.
    pub fn count(&self, core: usize, place: Place, which: usize, n: u64) {
        let counters = self.counts.get(core).and_then(|places| places.get(place.0));
        if let Some(counter) = counters.and_then(|counters| counters.get(which)) {
            counter.add(n);
        }
    }

    /// All names that are known with their counters, summed over the cores, in the order in which they came. The last
    /// has no name: it is for all names past the bound, and is there only if there were some.
    pub fn totals(&self) -> Vec<(Option<&K>, [u64; C])> {
        let total = |at: usize| -> [u64; C] {
            let places = self.counts.iter().filter_map(|places| places.get(at));
            places.fold([0; C], |mut sums, counters| {
                sums.iter_mut().zip(counters).for_each(|(sum, counter)| *sum += counter.get());
                sums
            })
        };
        let known =
            self.names.iter().enumerate().map_while(|(at, name)| Some((Some(name.get()?), total(at))));
        let other = total(self.names.len());
        known.chain((other != [0; C]).then_some((None, other))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_past_the_bound_share_their_counters_and_cores_agree_on_the_names() {
        let named: Named<u32, 2> = Named::new(2, 3);
        for (core, name) in [(0, 7), (1, 8), (0, 9), (1, 10), (0, 11), (1, 7)] {
            let place = named.place(|known| *known == name, || name);
            assert_eq!(place == Place(3), name > 9, "{name}");
            named.count(core, place, 0, 1);
            named.count(core, place, 1, 100);
        }
        let counts = [(Some(&7), [2, 200]), (Some(&8), [1, 100]), (Some(&9), [1, 100]), (None, [2, 200])];
        assert_eq!(named.totals(), counts);
        let unused: Named<u32, 1> = Named::new(1, 2);
        assert_eq!(unused.totals(), []);
    }

    #[test]
    fn cores_that_set_names_at_the_same_time_lose_nothing() {
        let named: Named<u64, 1> = Named::new(4, 5);
        std::thread::scope(|scope| {
            for core in 0..4 {
                let named = &named;
                scope.spawn(move || {
                    for n in 0..10_000 {
                        let place = named.place(|known| *known == n % 8, || n % 8);
                        named.count(core, place, 0, 1);
                    }
                });
            }
        });
        let totals = named.totals();
        assert_eq!((totals.len(), totals.iter().map(|(_, [n])| n).sum::<u64>()), (6, 40_000));
        assert!(totals.iter().all(|(name, [n])| name.is_none() || *n == 5_000), "{totals:?}");
    }
}
