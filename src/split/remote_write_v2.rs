//! Finds the series of a Remote Write 2.0 request, and writes those of one tenant with a symbol table of their own.
//!
//! Constraints that shaped it:
//!
//! * The received table has the strings of all tenants. The table of a part has exactly the symbols that its series
//!   refer to, in the order of the references, after the empty symbol. So every reference is rewritten.
//! * A symbol that tenants share is copied into the part of each, so a small request can grow large. The total size of
//!   its parts is limited like the size of the request, and checked before the first is built.
//! * 2,000 series have 36,000 references. A tenant's value is resolved once per symbol, not per series. The symbol's
//!   place in a part is a single table lookup, and the table need not be cleared between tenants.
//!
//! Parts of a tenant are merged in the same way: [`merge`] writes the series of several parts with one table.
#![forbid(unsafe_code)]

mod known;
pub(super) mod merge;
mod part;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::part::{Indexes, Writer};
use super::downgrade;
use super::error::SplitError;
use super::replicas::pair;
use super::scan::{Scan, SplitRules};
use super::scratch::{narrow, trim};
use super::tenants::{Resolver, Subject, Tenants};
use super::unknown::UnknownFields;
use crate::limits::{REQUEST_FIELDS_MAX, REQUEST_SYMBOLS_MAX, SCRATCH_BYTES_MAX};
use crate::model::{HaLabels, MergeKey, V2Handling};
use crate::wire::remote_write_v1::TenantLabels;
use crate::wire::remote_write_v2::{Fault, Field, Fields, Malformed, Series, Symbols};
use crate::wire::varint::VARINT_BYTES_MAX;

/// A series, as the range of inflated bytes after its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    begin: u32,
    end: u32,
    /// The slot of its tenant; set in the second walk.
    tenant: u32,
    /// Index of the label to remove, or [`NO_CUT`].
    pub(super) cut: u32,
    /// Whether the references of its labels are in more than one field.
    scattered: bool,
}

/// The value of [`Item::cut`] if no label is removed.
const NO_CUT: u32 = u32::MAX;

/// The slot of a symbol that was not yet seen as a tenant's value, or that names no usable tenant.
const NO_SLOT: u32 = u32::MAX;

/// The scanned content of a request, to write into its parts.
#[derive(Default, Debug)]
pub(super) struct ScannedV2Series {
    pub(super) symbols: Symbols,
    /// By symbol: the slot of the tenant that it names as a value, or [`NO_SLOT`].
    slots: Vec<u32>,
    items: Vec<Item>,
    /// Unknown numeric fields, which go into every part.
    scalars: Vec<u8>,
    /// Whether the parts have fields of the request as a whole.
    pub(super) alone: bool,
    handling: V2Handling,
    indexes: Indexes,
    /// The series of the current part. They are buffered, as the part's symbols are written first.
    body: Vec<u8>,
    families: downgrade::Families,
}

impl ScannedV2Series {
    /// Returns the protocol that the parts are forwarded in.
    pub(super) fn handling(&self) -> V2Handling {
        self.handling
    }

    /// Appends the part of `tenant` to `out`.
    pub(super) fn gather(&mut self, inflated: &[u8], tenants: &Tenants, tenant: usize, out: &mut Vec<u8>) {
        let items = tenants.items(tenant);
        if self.handling == V2Handling::Downgrade {
            let mut writer = downgrade::Writer::new(inflated, &self.symbols, &mut self.families, out);
            for &at in items {
                let item = self.items[at as usize];
                writer.series(item.bytes(inflated), item.cut());
            }
            return;
        }
        out.extend_from_slice(&self.scalars);
        self.body.clear();
        let mut writer = Writer::new(inflated, &self.symbols, &mut self.indexes, out, &mut self.body);
        for &at in items {
            let item = self.items[at as usize];
            writer.series(item.bytes(inflated), item.cut(), item.scattered);
        }
        out.extend_from_slice(&self.body);
    }

    pub(super) fn release(&mut self) {
        self.symbols.release(SCRATCH_BYTES_MAX);
        trim(&mut self.slots);
        trim(&mut self.items);
        self.scalars.clear();
        self.alone = false;
        self.handling = V2Handling::default();
        self.indexes.release();
        trim(&mut self.body);
        self.families.release();
    }

    #[cfg(test)]
    pub(super) fn scratch_bytes(&self) -> usize {
        self.items.capacity() * size_of::<Item>()
            + self.slots.capacity() * size_of::<u32>()
            + self.indexes.scratch_bytes()
            + self.body.capacity()
    }
}

impl Item {
    fn bytes<'a>(&self, inflated: &'a [u8]) -> &'a [u8] {
        inflated.get(self.begin as usize..self.end as usize).unwrap_or_default()
    }

    fn cut(&self) -> Option<u32> {
        (self.cut != NO_CUT).then_some(self.cut)
    }
}

/// Writes series of a request after the symbols that they refer to. All of them must have been read before.
pub(super) fn write<'a>(
    inflated: &[u8],
    symbols: &Symbols,
    series: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    let (mut indexes, mut body) = (Indexes::default(), Vec::new());
    indexes.reset(symbols.len());
    let mut writer = Writer::new(inflated, symbols, &mut indexes, out, &mut body);
    for series in series {
        let scattered = symbols.read(series).is_ok_and(|series| series.scattered);
        writer.series(series, None, scattered);
    }
    out.extend_from_slice(&body);
}

/// Walks over an inflated request, and records its content in `found`, which must be empty.
pub(super) fn scan(
    inflated: &[u8],
    resolver: Resolver<'_>,
    found: &mut ScannedV2Series,
) -> Result<Scan, SplitError> {
    let mut pass = Pass { inflated, resolver, found, unknown: UnknownFields::default(), scalars: 0 };
    pass.found.handling = pass.resolver.rules.remote_write_v2;
    pass.top_level()?;
    pass.series()?;
    pass.conclude()
}

/// Two passes over an inflated request.
struct Pass<'a> {
    inflated: &'a [u8],
    resolver: Resolver<'a>,
    found: &'a mut ScannedV2Series,
    unknown: UnknownFields,
    /// Number of unknown numeric fields.
    scalars: u64,
}

impl Pass<'_> {
    /// First walk: finds symbols and series.
    fn top_level(&mut self) -> Result<(), SplitError> {
        let labels = TenantLabels::new(&self.resolver.rules.tenant.labels);
        let found = &mut *self.found;
        let mut fields = Fields::new(self.inflated);
        let mut left = REQUEST_FIELDS_MAX;
        let mut symbols_left = REQUEST_SYMBOLS_MAX;
        loop {
            let begin = fields.at_byte();
            let Some(field) = fields.take()? else { break };
            let end = fields.at_byte();
            if let Field::Symbol(symbol) = field {
                let too_many = || SplitError::TooManySymbols { symbols_max: REQUEST_SYMBOLS_MAX };
                symbols_left = symbols_left.checked_sub(1).ok_or_else(too_many)?;
                let pushed = found.symbols.push(symbol, end, &labels);
                pushed.map_err(|fault| Malformed { fault, at_byte: begin })?;
                continue;
            }
            left = left.checked_sub(1).ok_or(SplitError::TooManyFields { fields_max: REQUEST_FIELDS_MAX })?;
            match field {
                Field::Symbol(_) => {}
                Field::Series(series) => {
                    let begin = narrow(end - series.len());
                    found.items.push(Item {
                        begin,
                        end: narrow(end),
                        tenant: 0,
                        cut: NO_CUT,
                        scattered: false,
                    });
                }
                Field::Scalar => {
                    self.scalars += 1;
                    self.unknown.scalar(&self.inflated[begin..end], &mut found.scalars);
                }
                Field::Other => self.unknown.others += 1,
            }
        }
        if found.items.is_empty() {
            return Err(SplitError::Empty);
        }
        if found.symbols.is_empty() {
            return Err(Malformed { fault: Fault::FirstSymbol, at_byte: 0 }.into());
        }
        found.slots.resize(found.symbols.len(), NO_SLOT);
        Ok(())
    }

    /// Second walk: reads each series, and removes those that are not forwarded.
    fn series(&mut self) -> Result<(), SplitError> {
        let mut kept = 0;
        let mut budget = downgrade::GrowthBudget::new(self.resolver.rules.limits.inflated_bytes_max);
        for at in 0..self.found.items.len() {
            let mut item = self.found.items[at];
            let series = item.bytes(self.inflated);
            let seen = self.found.symbols.read(series).map_err(|fault| self.broken(fault, &item))?;
            self.resolver.scan.histograms += u64::from(seen.histograms);
            self.resolver.scan.exemplars += u64::from(seen.exemplars);
            let tenant = if self.found.handling == V2Handling::Downgrade {
                self.downgraded(&item, series, &seen, &mut budget)?
            } else {
                self.passed(series, &seen)?
            };
            let Some(tenant) = tenant else { continue };
            item.tenant = tenant;
            item.scattered = seen.scattered;
            if let Some(label) = seen.tenant.filter(|_| self.resolver.rules.tenant.label_remove) {
                item.cut = label.at;
            }
            self.resolver.tenants.add_item(tenant);
            self.found.items[kept] = item;
            kept += 1;
        }
        self.found.items.truncate(kept);
        Ok(())
    }

    /// Returns the tenant of a series that is forwarded as 2.0; `None` if it is dropped.
    #[inline(always)]
    fn passed(&mut self, series: &[u8], seen: &Series) -> Result<Option<u32>, SplitError> {
        let samples = seen.samples + seen.histograms;
        let tenant = self.tenant(series, seen, samples)?;
        if let Some(tenant) = tenant {
            self.resolver.tenants.count(tenant, 1, samples);
            if seen.histograms | seen.exemplars != 0 {
                self.resolver.tenants.count_kinds(tenant, seen.histograms, seen.exemplars);
            }
        }
        Ok(tenant)
    }

    /// Returns the tenant of a series that is forwarded as 1.0; `None` if nothing of it is.
    fn downgraded(
        &mut self,
        item: &Item,
        series: &[u8],
        seen: &Series,
        budget: &mut downgrade::GrowthBudget,
    ) -> Result<Option<u32>, SplitError> {
        let came_in = seen.samples + seen.histograms;
        let measured = downgrade::measure(self.inflated, &self.found.symbols, series);
        let kept = measured.map_err(|fault| self.broken(fault, item))?;
        if !kept.has_series() && !kept.metadata {
            // It is not forwarded, so it needs no tenant.
            self.resolver.count(came_in);
            kept.count(&mut self.resolver.scan);
            return Ok(None);
        }
        budget.take(kept.bytes_max)?;
        let tenant = self.tenant(series, seen, came_in)?;
        if let Some(tenant) = tenant {
            kept.count(&mut self.resolver.scan);
            self.resolver.tenants.count(tenant, u32::from(kept.has_series()), kept.samples);
            self.resolver.tenants.count_kinds(tenant, kept.histograms, kept.exemplars);
        }
        Ok(tenant)
    }

    /// Returns the error for a malformed series, with the position of its field.
    #[cold]
    fn broken(&self, fault: Fault, item: &Item) -> Malformed {
        let mut fields = Fields::new(self.inflated);
        let mut at_byte = 0;
        while let Ok(Some(_)) = fields.take() {
            if fields.at_byte() >= item.end as usize {
                break;
            }
            at_byte = fields.at_byte();
        }
        Malformed { fault, at_byte }
    }

    /// Returns the slot of a series' tenant, without hashing if its symbol was seen before.
    #[inline(always)]
    fn tenant(&mut self, series: &[u8], seen: &Series, samples: u32) -> Result<Option<u32>, SplitError> {
        self.resolver.count(samples);
        let symbol = seen.tenant.map(|label| label.value);
        let known = symbol.and_then(|symbol| self.found.slots.get(symbol as usize));
        if let Some(&slot) = known
            && slot != NO_SLOT
        {
            return Ok(Some(slot));
        }
        let found = &mut *self.found;
        let value = symbol.map(|symbol| found.symbols.get(self.inflated, symbol));
        let cut = seen.tenant.filter(|_| self.resolver.rules.tenant.label_remove).map(|label| label.at);
        let subject = SeriesSubject { inflated: self.inflated, symbols: &found.symbols, series, cut };
        let slot = self.resolver.find(value, samples, &subject)?;
        if let (Some(symbol), Some(slot)) = (symbol, slot) {
            found.slots[symbol as usize] = slot;
        }
        Ok(slot)
    }

    /// Decides how the request is forwarded.
    fn conclude(self) -> Result<Scan, SplitError> {
        let Self { inflated, resolver: Resolver { rules, tenants, mut scan, .. }, found, unknown, scalars } =
            self;
        scan.tenants = tenants.slots.len();
        scan.passthrough = found.handling == V2Handling::Pass
            && scan.tenants == 1
            && scan.refused.series() == 0
            && found.items.iter().all(|item| item.cut == NO_CUT);
        found.alone = found.handling == V2Handling::Pass && scalars > 0;
        if scan.passthrough {
            found.alone |= unknown.others > 0;
            return Ok(scan);
        }
        scan.unknown_fields_dropped = unknown.others;
        tenants.sort(found.items.iter().map(|item| item.tenant));
        if found.handling == V2Handling::Downgrade {
            // A top-level number of 2.0 may have another meaning in 1.0.
            scan.unknown_fields_dropped += scalars;
            return Ok(scan);
        }
        unknown.check()?;
        found.indexes.reset(found.symbols.len());
        found.check_growth(inflated, tenants, rules.limits.inflated_bytes_max)?;
        Ok(scan)
    }
}

impl ScannedV2Series {
    /// Refuses a request whose parts would together exceed `bytes_max`. Two cheap upper bounds settle almost every
    /// request: all symbols in each part, and the longest symbol for each reference. For the others, the parts are
    /// built once to measure them.
    fn check_growth(
        &mut self,
        inflated: &[u8],
        tenants: &Tenants,
        bytes_max: usize,
    ) -> Result<(), SplitError> {
        /// Overhead of a symbol besides its bytes.
        const OVERHEAD_BYTES: usize = 8;
        let bytes_max = bytes_max.min(u32::MAX as usize);
        let with_all_symbols = inflated.len().saturating_mul(tenants.slots.len());
        let with_one_each = inflated.len().saturating_mul(self.symbols.longest_bytes() + OVERHEAD_BYTES);
        // References may take more bytes than before, as symbols have another order.
        let references = inflated.len().saturating_mul(VARINT_BYTES_MAX);
        if with_all_symbols.min(with_one_each).saturating_add(references) <= bytes_max {
            return Ok(());
        }
        let mut bytes_left = bytes_max;
        let mut part = Vec::new();
        for tenant in 0..tenants.slots.len() {
            part.clear();
            self.gather(inflated, tenants, tenant, &mut part);
            bytes_left = bytes_left.checked_sub(part.len()).ok_or(SplitError::TooMuchGrowth { bytes_max })?;
        }
        Ok(())
    }
}

/// A series that has been read.
struct SeriesSubject<'a> {
    inflated: &'a [u8],
    symbols: &'a Symbols,
    series: &'a [u8],
    /// Index of the label that is removed.
    cut: Option<u32>,
}

impl<'a> SeriesSubject<'a> {
    fn labels(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        downgrade::labels(self.inflated, self.symbols, self.series, self.cut)
    }

    /// Returns the replica that it names.
    fn replica(&self, names: &HaLabels) -> MergeKey {
        let (cluster, replica) = pair(self.labels(), names);
        MergeKey::replica(cluster, replica)
    }
}

impl Subject for SeriesSubject<'_> {
    const NOUN: &'static str = "series";

    fn merge_key(&self, rules: &SplitRules<'_>) -> MergeKey {
        rules.ha.map_or(MergeKey::Ha(None), |names| self.replica(names))
    }

    fn name(&self) -> Cow<'_, [u8]> {
        let name = downgrade::labels(self.inflated, self.symbols, self.series, None)
            .find(|label| label.0 == b"__name__");
        Cow::Borrowed(name.map_or(b"no name", |label| label.1))
    }
}
