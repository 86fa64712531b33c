//! The symbols in the table of a merged request, by their bytes.
#![forbid(unsafe_code)]

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::limits::SCRATCH_BYTES_MAX;
use crate::split::scratch::narrow;
use crate::wire::varint;

/// See the module.
#[derive(Default, Debug)]
pub(super) struct KnownSymbols {
    all: HashTable<Known>,
    hasher: RandomState,
}

/// A symbol in the table.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Its range in the table's bytes.
    begin: u32,
    bytes: u32,
    index: u32,
}

impl Known {
    fn bytes<'a>(&self, table: &'a [u8]) -> &'a [u8] {
        let begin = self.begin as usize;
        table.get(begin..begin + self.bytes as usize).unwrap_or_default()
    }
}

impl KnownSymbols {
    /// Returns the index of `symbol`, which is not empty. If that is `next`, the symbol is new, and the caller must
    /// append it to `table`.
    pub(super) fn index(&mut self, symbol: &[u8], next: u32, table: &[u8]) -> u32 {
        let Self { all, hasher } = self;
        let hash = hasher.hash_one(symbol);
        let rehash = |known: &Known| hasher.hash_one(known.bytes(table));
        match all.entry(hash, |known| known.bytes(table) == symbol, rehash) {
            Entry::Occupied(known) => known.get().index,
            Entry::Vacant(room) => {
                let begin = table.len() + 1 + varint::len(symbol.len() as u64);
                room.insert(Known { begin: narrow(begin), bytes: narrow(symbol.len()), index: next });
                next
            }
        }
    }

    #[cfg(test)]
    pub(super) fn scratch_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Known>()
    }

    /// Forgets all symbols, and frees memory beyond what is kept between requests.
    pub(super) fn release(&mut self) {
        self.all.clear();
        if self.all.capacity() * size_of::<Known>() > SCRATCH_BYTES_MAX {
            self.all = HashTable::new();
        }
    }
}
