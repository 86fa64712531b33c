//! Which upstream of the configuration something belongs to.
#![forbid(unsafe_code)]

use super::Destination;

/// An upstream, for one kind of data. It stays the same for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpstreamId {
    /// 0 is the main upstream, the others are those of the setting `upstreams`.
    index: u8,
    destination: Destination,
}

impl UpstreamId {
    /// The main upstream: the targets of the main configuration.
    pub const fn main(destination: Destination) -> Self {
        Self { index: 0, destination }
    }

    /// The named upstream of this number, which counts from 1.
    pub const fn named(index: u8, destination: Destination) -> Self {
        Self { index, destination }
    }

    /// Its number; 0 for the main upstream.
    pub fn index(self) -> usize {
        usize::from(self.index)
    }

    /// The kind of data.
    pub fn destination(self) -> Destination {
        self.destination
    }

    /// Its place among all upstreams and kinds of data.
    pub fn slot(self) -> usize {
        self.index() * Destination::ALL.len() + self.destination as usize
    }

    /// The upstream at a place, the reverse of [`Self::slot`].
    pub fn at(slot: usize) -> Self {
        let index = u8::try_from(slot / Destination::ALL.len()).unwrap_or(u8::MAX);
        Self { index, destination: Destination::ALL[slot % Destination::ALL.len()] }
    }
}

/// One value for each upstream that is used.
#[derive(Clone, Debug, Default)]
pub struct PerUpstream<T>(Vec<Option<T>>);

impl<T> PerUpstream<T> {
    /// Creates a value for each of `ids` with `make`. The first failure ends it.
    ///
    /// # Errors
    /// That of `make`.
    pub fn try_new<E>(
        ids: impl IntoIterator<Item = UpstreamId>,
        mut make: impl FnMut(UpstreamId) -> Result<T, E>,
    ) -> Result<Self, E> {
        let mut slots = Vec::new();
        for id in ids {
            if slots.len() <= id.slot() {
                slots.resize_with(id.slot() + 1, || None);
            }
            let value = make(id)?;
            if let Some(slot) = slots.get_mut(id.slot()) {
                *slot = Some(value);
            }
        }
        Ok(Self(slots))
    }

    /// The value of an upstream; `None` if it is not used.
    pub fn of(&self, id: UpstreamId) -> Option<&T> {
        self.0.get(id.slot())?.as_ref()
    }

    /// All upstreams that are used.
    pub fn iter(&self) -> impl Iterator<Item = (UpstreamId, &T)> {
        let slots = self.0.iter().enumerate();
        slots.filter_map(|(slot, value)| Some((UpstreamId::at(slot), value.as_ref()?)))
    }

    /// The number of upstreams that are used.
    pub fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Whether none is used.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_upstream_has_a_slot_of_its_own() {
        let ids: Vec<_> = (0..=64)
            .flat_map(|index| Destination::ALL.map(|destination| UpstreamId::named(index, destination)))
            .collect();
        for (slot, id) in ids.iter().enumerate() {
            assert_eq!((id.slot(), UpstreamId::at(slot)), (slot, *id));
        }
        assert_eq!(UpstreamId::main(Destination::Logs), ids[1]);
    }

    #[test]
    fn only_used_upstreams_have_values() {
        let used = [UpstreamId::main(Destination::Metrics), UpstreamId::named(2, Destination::Logs)];
        let values = PerUpstream::try_new(used, |id| Ok::<_, ()>(id.slot())).unwrap();
        let second = 2 * Destination::ALL.len() + 1;
        assert_eq!(values.iter().collect::<Vec<_>>(), [(used[0], &0), (used[1], &second)]);
        assert_eq!((values.of(used[1]), values.len()), (Some(&second), 2));
        assert_eq!(values.of(UpstreamId::main(Destination::Logs)), None);
        assert_eq!(values.of(UpstreamId::named(9, Destination::Logs)), None);
        assert_eq!(PerUpstream::try_new(used, Err::<(), _>).unwrap_err(), used[0]);
    }
}
