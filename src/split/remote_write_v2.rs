//! Finds the series of a Remote Write 2.0 request, and writes those of one tenant behind a table of their own symbols.
//!
//! Constraints that shaped it:
//!
//! * The table that came in has the words of all tenants. A part's has exactly those that its own series refer to, in
//!   the order in which they do, behind the empty one; so every reference is written anew.
//! * A symbol that tenants share goes into the part of each. A small request can so become large ones: what its
//!   parts may be together is bounded like the request itself, before the first is built.
//! * 2,000 series have 36,000 references. A tenant's value is resolved once for each symbol, not for each series; and
//!   where a symbol goes in a part is one look into a table, which is not cleared from tenant to tenant.
#![forbid(unsafe_code)]

mod part;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::part::{Places, Writer};
use super::tenants::{Resolver, Subject, Tenants};
use super::unknown::Unknown;
use super::{Scan, SplitError, SplitRules, downgrade, narrow, trim};
use crate::limits::{REQUEST_FIELDS_MAX, REQUEST_SYMBOLS_MAX, SCRATCH_BYTES_MAX};
use crate::model::{HaLabels, MergeKey, V2Handling};
use crate::wire::remote_write_v1::TenantLabels;
use crate::wire::remote_write_v2::{Fault, Field, Fields, Malformed, Series, Symbols};
use crate::wire::varint::VARINT_BYTES_MAX;

/// A series, as a range of inflated bytes: what stands behind its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    begin: u32,
    end: u32,
    /// Slot of its tenant; not known yet after the first walk.
    tenant: u32,
    /// Place of the label to take out; [`NO_CUT`] if none.
    pub(super) cut: u32,
    /// The references of its labels stand in more than one field.
    scattered: bool,
}

/// The place of no label.
const NO_CUT: u32 = u32::MAX;

/// The slot of a symbol that has not been met as a tenant's value, or names no usable tenant.
const NO_SLOT: u32 = u32::MAX;

/// What there is to write into the parts of a request.
#[derive(Default, Debug)]
pub(super) struct Found {
    pub(super) symbols: Symbols,
    /// By symbol: the slot of the tenant that it names as a value.
    slots: Vec<u32>,
    items: Vec<Item>,
    /// Unknown fields that hold one number each: they go into every part.
    scalars: Vec<u8>,
    handling: V2Handling,
    places: Places,
    /// The series of the part at hand, as its symbols are written first.
    body: Vec<u8>,
    families: downgrade::Families,
}

impl Found {
    /// In which words the parts go on.
    pub(super) fn handling(&self) -> V2Handling {
        self.handling
    }

    /// Puts what goes to `tenant` behind each other.
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
        let mut writer = Writer::new(inflated, &self.symbols, &mut self.places, out, &mut self.body);
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
        self.handling = V2Handling::default();
        self.places.release();
        trim(&mut self.body);
        self.families.release();
    }

    #[cfg(test)]
    pub(super) fn scratch_bytes(&self) -> usize {
        self.items.capacity() * size_of::<Item>()
            + self.slots.capacity() * size_of::<u32>()
            + self.places.scratch_bytes()
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

/// Writes series of a request behind the symbols that they refer to; all of them have been read before.
pub(super) fn write<'a>(
    inflated: &[u8],
    symbols: &Symbols,
    series: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    let (mut places, mut body) = (Places::default(), Vec::new());
    places.reset(symbols.len());
    let mut writer = Writer::new(inflated, symbols, &mut places, out, &mut body);
    for series in series {
        let scattered = symbols.read(series).is_ok_and(|series| series.scattered);
        writer.series(series, None, scattered);
    }
    out.extend_from_slice(&body);
}

/// Walks over an inflated request, and puts what it finds into `found`, which is empty.
pub(super) fn find(inflated: &[u8], resolver: Resolver<'_>, found: &mut Found) -> Result<Scan, SplitError> {
    let mut pass = Pass { inflated, resolver, found, unknown: Unknown::default(), scalars: 0 };
    pass.found.handling = pass.resolver.rules.remote_write_v2;
    pass.top()?;
    pass.series()?;
    pass.conclude()
}

/// One scan of an inflated request.
struct Pass<'a> {
    inflated: &'a [u8],
    resolver: Resolver<'a>,
    found: &'a mut Found,
    unknown: Unknown,
    /// Unknown fields that hold a number.
    scalars: u64,
}

impl Pass<'_> {
    /// Finds symbols and series.
    fn top(&mut self) -> Result<(), SplitError> {
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

    /// Looks into each series, and leaves out those that go nowhere.
    fn series(&mut self) -> Result<(), SplitError> {
        let mut kept = 0;
        let mut budget = downgrade::Budget::new(self.resolver.rules.limits.inflated_bytes_max);
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

    /// The tenant of a series that goes on in the same words; `None` if the policy leaves it out.
    #[inline(always)]
    fn passed(&mut self, series: &[u8], seen: &Series) -> Result<Option<u32>, SplitError> {
        let samples = seen.samples + seen.histograms;
        let tenant = self.tenant(series, seen, samples)?;
        if let Some(tenant) = tenant {
            self.resolver.tenants.count(tenant, 1, samples);
        }
        Ok(tenant)
    }

    /// The tenant of a series that goes on in the words of Remote Write 1.0; `None` if nothing of it does.
    fn downgraded(
        &mut self,
        item: &Item,
        series: &[u8],
        seen: &Series,
        budget: &mut downgrade::Budget,
    ) -> Result<Option<u32>, SplitError> {
        let came_in = seen.samples + seen.histograms;
        let weighed = downgrade::weigh(self.inflated, &self.found.symbols, series);
        let kept = weighed.map_err(|fault| self.broken(fault, item))?;
        if !kept.has_series() && !kept.metadata {
            // Nobody gets it, so that it needs no tenant either.
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

    /// The fault of a series, with the place of its field.
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

    /// The slot of a series' tenant, found without hashing where its symbol has been met before.
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

    /// Decides how the request goes on.
    fn conclude(self) -> Result<Scan, SplitError> {
        let Self { inflated, resolver: Resolver { rules, tenants, mut scan, .. }, found, unknown, scalars } =
            self;
        scan.tenants = tenants.slots.len();
        scan.passthrough = found.handling == V2Handling::Pass
            && scan.tenants == 1
            && scan.refused.series() == 0
            && found.items.iter().all(|item| item.cut == NO_CUT);
        if scan.passthrough {
            return Ok(scan);
        }
        scan.unknown_fields_dropped = unknown.others;
        tenants.sort(found.items.iter().map(|item| item.tenant));
        if found.handling == V2Handling::Downgrade {
            // What 2.0 means by a number at the top, 1.0 may mean something else by.
            scan.unknown_fields_dropped += scalars;
            return Ok(scan);
        }
        unknown.check()?;
        found.places.reset(found.symbols.len());
        found.check_growth(inflated, tenants, rules.limits.inflated_bytes_max)?;
        Ok(scan)
    }
}

impl Found {
    /// Refuses a request whose parts would be more than `bytes_max` together. Nearly none would: be it that there is
    /// room for all symbols in each, or for one symbol with each reference. The others are built once for their size
    /// alone.
    fn check_growth(
        &mut self,
        inflated: &[u8],
        tenants: &Tenants,
        bytes_max: usize,
    ) -> Result<(), SplitError> {
        /// What a symbol takes besides its bytes, and a reference in place of one byte.
        const OVERHEAD_BYTES: usize = 8;
        let bytes_max = bytes_max.min(u32::MAX as usize);
        let with_all_symbols = inflated.len().saturating_mul(tenants.slots.len());
        let with_one_each = inflated.len().saturating_mul(self.symbols.longest_bytes() + OVERHEAD_BYTES);
        // References may take more bytes than they did, as symbols stand in another order.
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
    /// Place of the label that is taken out.
    cut: Option<u32>,
}

impl<'a> SeriesSubject<'a> {
    fn labels(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        downgrade::labels(self.inflated, self.symbols, self.series, self.cut)
    }

    /// The replica that it names. As upstreams do, of labels of the same name the last is read.
    fn replica(&self, names: &HaLabels) -> MergeKey {
        let (mut cluster, mut replica): (&[u8], &[u8]) = (&[], &[]);
        for (name, value) in self.labels() {
            if *name == *names.cluster {
                cluster = value;
            }
            if *name == *names.replica {
                replica = value;
            }
        }
        MergeKey::replica(cluster, replica)
    }
}

impl Subject for SeriesSubject<'_> {
    const NOUN: &'static str = "series";

    /// Parts in the words of 2.0 share no request: each has references into a table of its own.
    fn merge_key(&self, rules: &SplitRules<'_>) -> MergeKey {
        match (rules.remote_write_v2, rules.ha) {
            (V2Handling::Pass, _) => MergeKey::Alone,
            (V2Handling::Downgrade, None) => MergeKey::Ha(None),
            (V2Handling::Downgrade, Some(names)) => self.replica(names),
        }
    }

    fn name(&self) -> Cow<'_, [u8]> {
        let name = downgrade::labels(self.inflated, self.symbols, self.series, None)
            .find(|label| label.0 == b"__name__");
        Cow::Borrowed(name.map_or(b"no name", |label| label.1))
    }
}
