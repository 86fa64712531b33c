//! Writes the series of one tenant, and a table of only the symbols that they refer to.
//!
//! Symbols and series are written at the same time, into separate buffers. Receivers may resolve a reference as they
//! read it (Mimir does), so the table must come first, but it is complete only after the last series.
#![forbid(unsafe_code)]

use super::known::KnownSymbols;
use crate::limits::REQUEST_SYMBOLS_MAX;
use crate::split::nested::Nested;
use crate::wire::remote_write_v2::{
    EXEMPLAR_KEY, HELP_KEY, METADATA_KEY, Member, Members, REFS_KEY, References, SERIES_KEY, SYMBOL_KEY,
    Symbols, UNIT_KEY,
};
use crate::wire::varint;

/// The index of each symbol of a request in the current part.
///
/// An entry combines the number of a part (high bits) and the symbol's index in that part (low bits). So an entry is
/// void once its part is done. They share one word, as a table of two words per symbol would not fit the L1 cache.
#[derive(Default, Debug)]
pub(super) struct Indexes {
    all: Vec<u32>,
    /// The number of the current part, shifted to its bits of an entry.
    part: u32,
    /// Number of symbols in the current part.
    symbols: u32,
}

/// Number of low bits in an entry that hold the symbol's index.
const SYMBOL_BITS: u32 = 20;
const SYMBOL_MASK: u32 = (1 << SYMBOL_BITS) - 1;
const _: () = assert!(REQUEST_SYMBOLS_MAX <= 1 << SYMBOL_BITS);

impl Indexes {
    /// Makes room for a request with so many symbols, and clears the entries of the previous one.
    pub(super) fn reset(&mut self, symbols: usize) {
        self.all.clear();
        self.all.resize(symbols, 0);
        self.part = 0;
    }

    /// Begins a part that has the empty symbol. Restarts the numbers of parts when they run out.
    fn begin(&mut self) {
        if self.part >> SYMBOL_BITS == u32::MAX >> SYMBOL_BITS {
            self.reset(self.all.len());
        }
        self.part += 1 << SYMBOL_BITS;
        self.symbols = 1;
    }

    /// Makes room for the next of several requests whose series go into one part, with so many symbols. To
    /// [begin](Writer::new) the part, call [`reset`](Self::reset).
    pub(super) fn proceed(&mut self, symbols: usize) {
        self.all.clear();
        self.all.resize(symbols, 0);
    }

    /// Returns the number of symbols in the current part.
    pub(super) fn symbols(&self) -> usize {
        self.symbols as usize
    }

    pub(super) fn release(&mut self) {
        super::trim(&mut self.all);
    }

    #[cfg(test)]
    pub(super) fn scratch_bytes(&self) -> usize {
        self.all.capacity() * size_of::<u32>()
    }
}

/// The symbol table of the current part.
struct Table<'a> {
    inflated: &'a [u8],
    symbols: &'a Symbols,
    indexes: &'a mut Indexes,
    out: &'a mut Vec<u8>,
    /// What the table has from requests before this one, if there were any.
    known: Option<&'a mut KnownSymbols>,
}

impl Table<'_> {
    /// Returns the symbol's index in the part, and adds it if it is not there yet.
    #[inline(always)]
    fn index(&mut self, symbol: u32) -> u32 {
        match self.indexes.all.get(symbol as usize) {
            Some(index) if index & !SYMBOL_MASK == self.indexes.part => index & SYMBOL_MASK,
            _ => self.add(symbol),
        }
    }

    fn add(&mut self, symbol: u32) -> u32 {
        let bytes = self.symbols.get(self.inflated, symbol);
        let next = self.indexes.symbols;
        let index = match &mut self.known {
            _ if bytes.is_empty() => 0,
            None => next,
            Some(known) => known.index(bytes, next, self.out),
        };
        if index == next {
            self.write(symbol, bytes);
            self.indexes.symbols += 1;
        }
        if let Some(known) = self.indexes.all.get_mut(symbol as usize) {
            *known = self.indexes.part | index;
        }
        index
    }

    fn write(&mut self, symbol: u32, bytes: &[u8]) {
        if let Some(field) = self.symbols.field(self.inflated, symbol) {
            self.out.extend_from_slice(field);
        } else {
            self.out.push(SYMBOL_KEY);
            varint::put(self.out, bytes.len() as u64);
            self.out.extend_from_slice(bytes);
        }
    }
}

/// Begins a part: writes the empty symbol to its `table`.
pub(super) fn begin(indexes: &mut Indexes, table: &mut Vec<u8>) {
    table.extend_from_slice(&[SYMBOL_KEY, 0]);
    indexes.begin();
}

/// Writes one part.
pub(super) struct Writer<'a> {
    table: Table<'a>,
    /// The buffer of the part's series.
    body: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Creates a writer of symbols to `table` and series to `body`, and begins the part with the empty symbol.
    /// `indexes` must have been [reset](Indexes::reset) for the request.
    pub(super) fn new(
        inflated: &'a [u8],
        symbols: &'a Symbols,
        indexes: &'a mut Indexes,
        table: &'a mut Vec<u8>,
        body: &'a mut Vec<u8>,
    ) -> Self {
        begin(indexes, table);
        Self { table: Table { inflated, symbols, indexes, out: table, known: None }, body }
    }

    /// Creates a writer that adds the series of another request to a part that has [begun](begin). `indexes` must have
    /// [proceeded](Indexes::proceed) to that request, and `known` has the symbols that are in the table already.
    pub(super) fn proceed(
        (inflated, symbols): (&'a [u8], &'a Symbols),
        indexes: &'a mut Indexes,
        known: &'a mut KnownSymbols,
        table: &'a mut Vec<u8>,
        body: &'a mut Vec<u8>,
    ) -> Self {
        Self { table: Table { inflated, symbols, indexes, out: table, known: Some(known) }, body }
    }

    /// Writes a series without the label at index `cut`, with its references in one field if they are `scattered`.
    pub(super) fn series(&mut self, series: &[u8], cut: Option<u32>, scattered: bool) {
        self.body.push(SERIES_KEY);
        let nested = Nested::open(self.body, series.len());
        if scattered {
            self.scattered(series, cut);
        }
        // Members that are copied unchanged, and are not copied yet.
        let mut kept = series;
        let mut kept_bytes = 0;
        for member in Members::new(series) {
            if !matches!(member.number, 1 | 4 | 5) {
                kept_bytes += member.raw.len();
                continue;
            }
            let (before, behind) = kept.split_at(kept_bytes);
            self.body.extend_from_slice(before);
            (kept, kept_bytes) = (behind.get(member.raw.len()..).unwrap_or_default(), 0);
            self.member(&member, cut, scattered);
        }
        self.body.extend_from_slice(kept);
        nested.close(self.body);
    }

    /// Writes a member that has references.
    #[inline(always)]
    fn member(&mut self, member: &Member<'_>, cut: Option<u32>, scattered: bool) {
        match (member.number, member.bytes) {
            (1, Some(packed)) if !scattered => self.packed(packed, cut),
            (4, Some(exemplar)) => self.exemplar(exemplar),
            (5, Some(metadata)) => self.metadata(metadata),
            _ => {}
        }
    }

    /// Writes the references of a series that has them all in one field.
    #[inline(always)]
    fn packed(&mut self, mut packed: &[u8], cut: Option<u32>) {
        let begin = self.body.len();
        self.body.push(REFS_KEY);
        let nested = Nested::open(self.body, packed.len());
        let cut = cut.unwrap_or(u32::MAX);
        let mut at = 0;
        while !packed.is_empty() {
            let (name, value) = (take(&mut packed), take(&mut packed));
            if at != cut {
                let (name, value) = (self.table.index(name), self.table.index(value));
                put(self.body, name);
                put(self.body, value);
            }
            at += 1;
        }
        self.close_references(nested, begin);
    }

    /// Writes the references of a message's labels, which may be in several fields, without the label at index `cut`.
    fn scattered(&mut self, message: &[u8], cut: Option<u32>) {
        let begin = self.body.len();
        self.body.push(REFS_KEY);
        let nested = Nested::open(self.body, message.len());
        let mut references = References::new(message);
        let mut at = 0;
        while let (Some(name), Some(value)) = (references.next(), references.next()) {
            if Some(at) != cut {
                let (name, value) = (self.table.index(name), self.table.index(value));
                varint::put(self.body, u64::from(name));
                varint::put(self.body, u64::from(value));
            }
            at += 1;
        }
        self.close_references(nested, begin);
    }

    /// Closes a field that begins at `begin`, or removes it if it has no references.
    #[inline(always)]
    fn close_references(&mut self, nested: Nested, begin: usize) {
        if nested.is_empty(self.body) { self.body.truncate(begin) } else { nested.close(self.body) }
    }

    /// Writes an exemplar, its labels first.
    fn exemplar(&mut self, exemplar: &[u8]) {
        self.body.push(EXEMPLAR_KEY);
        let nested = Nested::open(self.body, exemplar.len());
        self.scattered(exemplar, None);
        for member in Members::new(exemplar).filter(|member| member.number != 1) {
            self.body.extend_from_slice(member.raw);
        }
        nested.close(self.body);
    }

    #[inline]
    fn metadata(&mut self, metadata: &[u8]) {
        self.body.push(METADATA_KEY);
        let nested = Nested::open(self.body, metadata.len());
        for member in Members::new(metadata) {
            match (member.number, member.value) {
                (number @ (3 | 4), Some(reference)) => {
                    let index = self.table.index(u32::try_from(reference).unwrap_or_default());
                    self.body.push(if number == 3 { HELP_KEY } else { UNIT_KEY });
                    varint::put(self.body, u64::from(index));
                }
                _ => self.body.extend_from_slice(member.raw),
            }
        }
        nested.close(self.body);
    }
}

/// Takes a reference that has been validated before.
#[inline(always)]
fn take(packed: &mut &[u8]) -> u32 {
    let Ok(reference) = varint::take(packed) else {
        *packed = &[];
        return 0;
    };
    u32::try_from(reference).unwrap_or_default()
}

/// Appends a reference. Most take one byte or two.
#[inline(always)]
fn put(out: &mut Vec<u8>, reference: u32) {
    let [low, high, ..] = (reference & 0x7f | (reference & 0x3f80) << 1).to_le_bytes();
    match reference {
        0..0x80 => out.push(low),
        0x80..0x4000 => out.extend_from_slice(&[low | 0x80, high]),
        _ => varint::put(out, u64::from(reference)),
    }
}
