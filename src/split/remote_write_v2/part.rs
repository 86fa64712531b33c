//! Writes the series of one tenant, and the table of just the symbols that they refer to.
//!
//! Symbols and series are written side by side, into buffers of their own: receivers may resolve a reference when they
//! read it (Mimir does), so the table has to stand in front, and is complete only with the last series.
#![forbid(unsafe_code)]

use crate::limits::REQUEST_SYMBOLS_MAX;
use crate::split::nested::Nested;
use crate::wire::remote_write_v2::{
    EXEMPLAR_KEY, HELP_KEY, METADATA_KEY, Member, Members, REFS_KEY, References, SERIES_KEY, SYMBOL_KEY,
    Symbols, UNIT_KEY,
};
use crate::wire::varint;

/// Where the symbols of a request are in the part at hand.
///
/// A place has the number of a part, and behind it that of a symbol in the part: it is void when the part has gone
/// by. One word for both, as a table of two would not fit the first cache.
#[derive(Default, Debug)]
pub(super) struct Places {
    all: Vec<u32>,
    /// Of the part at hand: its number, where it stands in a place.
    part: u32,
    /// Symbols in the part.
    symbols: u32,
}

/// Bits of a place that have the symbol.
const SYMBOL_BITS: u32 = 20;
const SYMBOL_MASK: u32 = (1 << SYMBOL_BITS) - 1;
const _: () = assert!(REQUEST_SYMBOLS_MAX <= 1 << SYMBOL_BITS);

impl Places {
    /// Makes room for a request that has so many symbols. Nothing of the one before shows.
    pub(super) fn reset(&mut self, symbols: usize) {
        self.all.clear();
        self.all.resize(symbols, 0);
        self.part = 0;
    }

    /// Begins a part, with the empty symbol in it. When all numbers of parts have been used, they begin anew.
    fn begin(&mut self) {
        if self.part >> SYMBOL_BITS == u32::MAX >> SYMBOL_BITS {
            self.reset(self.all.len());
        }
        self.part += 1 << SYMBOL_BITS;
        self.symbols = 1;
    }

    pub(super) fn release(&mut self) {
        super::trim(&mut self.all);
    }

    #[cfg(test)]
    pub(super) fn scratch_bytes(&self) -> usize {
        self.all.capacity() * size_of::<u32>()
    }
}

/// The table of the part at hand.
struct Table<'a> {
    inflated: &'a [u8],
    symbols: &'a Symbols,
    places: &'a mut Places,
    out: &'a mut Vec<u8>,
}

impl<'a> Table<'a> {
    /// With the empty symbol in it.
    fn begin(inflated: &'a [u8], symbols: &'a Symbols, places: &'a mut Places, out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(&[SYMBOL_KEY, 0]);
        places.begin();
        Self { inflated, symbols, places, out }
    }

    /// Where the symbol is in the part: it is added to it if it is not in there yet.
    #[inline(always)]
    fn place(&mut self, symbol: u32) -> u32 {
        match self.places.all.get(symbol as usize) {
            Some(place) if place & !SYMBOL_MASK == self.places.part => place & SYMBOL_MASK,
            _ => self.add(symbol),
        }
    }

    fn add(&mut self, symbol: u32) -> u32 {
        let bytes = self.symbols.get(self.inflated, symbol);
        let place = if bytes.is_empty() { 0 } else { self.places.symbols };
        match self.symbols.field(self.inflated, symbol) {
            _ if place == 0 => {}
            Some(field) => self.out.extend_from_slice(field),
            None => {
                self.out.push(SYMBOL_KEY);
                varint::put(self.out, bytes.len() as u64);
                self.out.extend_from_slice(bytes);
            }
        }
        self.places.symbols += u32::from(place != 0);
        if let Some(known) = self.places.all.get_mut(symbol as usize) {
            *known = self.places.part | place;
        }
        place
    }
}

/// Writes one part.
pub(super) struct Writer<'a> {
    table: Table<'a>,
    /// The part's series.
    body: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes symbols to `table` and series to `body`. `places` have been [reset](Places::reset) for the request.
    pub(super) fn new(
        inflated: &'a [u8],
        symbols: &'a Symbols,
        places: &'a mut Places,
        table: &'a mut Vec<u8>,
        body: &'a mut Vec<u8>,
    ) -> Self {
        Self { table: Table::begin(inflated, symbols, places, table), body }
    }

    /// Writes a series less the label at `cut`, with its references in one field if they are `scattered`.
    pub(super) fn series(&mut self, series: &[u8], cut: Option<u32>, scattered: bool) {
        self.body.push(SERIES_KEY);
        let nested = Nested::open(self.body, series.len());
        if scattered {
            self.scattered(series, cut);
        }
        // Members that go on as they are, and have not been copied yet.
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

    /// Writes a member of a series that has references.
    #[inline(always)]
    fn member(&mut self, member: &Member<'_>, cut: Option<u32>, scattered: bool) {
        match (member.number, member.bytes) {
            (1, Some(packed)) if !scattered => self.packed(packed, cut),
            (4, Some(exemplar)) => self.exemplar(exemplar),
            (5, Some(metadata)) => self.metadata(metadata),
            _ => {}
        }
    }

    /// Writes the references of a field that has all that there are.
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
                let (name, value) = (self.table.place(name), self.table.place(value));
                put(self.body, name);
                put(self.body, value);
            }
            at += 1;
        }
        self.close_references(nested, begin);
    }

    /// Writes the references of a message's labels less the label at `cut`, in however many fields they stand.
    fn scattered(&mut self, message: &[u8], cut: Option<u32>) {
        let begin = self.body.len();
        self.body.push(REFS_KEY);
        let nested = Nested::open(self.body, message.len());
        let mut references = References::new(message);
        let mut at = 0;
        while let (Some(name), Some(value)) = (references.next(), references.next()) {
            if Some(at) != cut {
                let (name, value) = (self.table.place(name), self.table.place(value));
                varint::put(self.body, u64::from(name));
                varint::put(self.body, u64::from(value));
            }
            at += 1;
        }
        self.close_references(nested, begin);
    }

    /// Ends a field that begins at `begin`, or takes it back if it has no references.
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
                    let place = self.table.place(u32::try_from(reference).unwrap_or_default());
                    self.body.push(if number == 3 { HELP_KEY } else { UNIT_KEY });
                    varint::put(self.body, u64::from(place));
                }
                _ => self.body.extend_from_slice(member.raw),
            }
        }
        nested.close(self.body);
    }
}

/// Takes a reference that has been checked before.
#[inline(always)]
fn take(packed: &mut &[u8]) -> u32 {
    let Ok(reference) = varint::take(packed) else {
        *packed = &[];
        return 0;
    };
    u32::try_from(reference).unwrap_or_default()
}

/// Appends a reference, most of which have one byte or two.
#[inline(always)]
fn put(out: &mut Vec<u8>, reference: u32) {
    let [low, high, ..] = (reference & 0x7f | (reference & 0x3f80) << 1).to_le_bytes();
    match reference {
        0..0x80 => out.push(low),
        0x80..0x4000 => out.extend_from_slice(&[low | 0x80, high]),
        _ => varint::put(out, u64::from(reference)),
    }
}
