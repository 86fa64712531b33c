//! The tenants of one request. Each distinct value is resolved once, and each tenant gets a slot.
//!
//! With a tenant map, several values may name the same tenant. So there are two lookups: from a value to its
//! resolution, and from a tenant's ID to its slot. Only the first is on the path of every series.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::error::SplitError;
use super::scan::{Scan, SplitRules};
use super::scratch::{narrow, trim};
use crate::limits::{KNOWN_VALUE_BYTES_MAX, KNOWN_VALUES_MAX, SCRATCH_BYTES_MAX};
use crate::model::{MergeKey, RefusedSeries};
use crate::tenant::{self, Grant, NoTenant, Policy, TenantId};
use crate::wire::same;

/// A tenant of the request that is being split.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: TenantId,
    /// The hash of `id`.
    hash: u64,
    pub(super) series: u32,
    pub(super) samples: u32,
    pub(super) histograms: u32,
    pub(super) exemplars: u32,
    pub(super) merge: MergeKey,
    items: u32,
    /// The end of its items in [`Tenants::order`].
    order_end: u32,
}

/// The resolution of a value.
#[derive(Clone, Copy, Debug)]
enum Resolved {
    /// The slot of its tenant.
    Slot(u32),
    Refused(NoTenant),
}

/// A value that has been resolved.
#[derive(Debug)]
struct Known {
    hash: u64,
    /// The value's range in [`Tenants::bytes`].
    begin: u32,
    end: u32,
    resolved: Resolved,
}

/// Entries of [`Tenants::recent`]. A power of two.
const RECENT: usize = 128;

/// The tenants of one request, and the values that name them.
#[derive(Debug)]
pub(super) struct Tenants {
    pub(super) slots: Vec<Slot>,
    /// Indexes into `slots`, by ID.
    ids: HashTable<u32>,
    values: Vec<Known>,
    /// Indexes into `values`.
    table: HashTable<u32>,
    /// The values, concatenated.
    bytes: Vec<u8>,
    hasher: RandomState,
    /// Indexes into `values`, by [`recent_index`]: the value last found for this index. Fleets have few tenants per
    /// request, so this saves hashing the values of most series.
    recent: [u32; RECENT],
    /// The value last found, as a range of `bytes`, and its slot. Series of one target are adjacent and share their
    /// tenant.
    last: (u32, u32, u32),
    /// The resolution of series without a value.
    missing: Option<Resolved>,
    /// Indexes of items, grouped by slot, in their original order.
    order: Vec<u32>,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            ids: HashTable::new(),
            values: Vec::new(),
            table: HashTable::new(),
            bytes: Vec::new(),
            hasher: RandomState::default(),
            recent: [0; RECENT],
            last: (0, 0, 0),
            missing: None,
            order: Vec::new(),
        }
    }
}

/// Returns the index of `value` in [`Tenants::recent`]. Tenant names mostly differ in their last two bytes, often
/// digits. A collision only costs a hash.
#[inline]
fn recent_index(value: &[u8]) -> usize {
    let [tens, ones] = value.last_chunk().copied().unwrap_or_default();
    (usize::from(tens) * 10 + usize::from(ones) + value.len()) % RECENT
}

impl Tenants {
    /// Returns the slot of `value`, which is not empty, if it is the value found last.
    #[inline(always)]
    fn find_last(&self, value: &[u8]) -> Option<u32> {
        let (begin, end, slot) = self.last;
        same(&self.bytes[begin as usize..end as usize], value).then_some(slot)
    }

    /// Returns the resolution of `value`, or the hash for [`Self::remember`].
    fn find(&mut self, value: &[u8]) -> Result<Resolved, u64> {
        let Self { values, bytes, table, .. } = self;
        let is = |known: &Known| bytes[known.begin as usize..known.end as usize] == *value;
        let recent = &mut self.recent[recent_index(value)];
        let known = match values.get(*recent as usize) {
            Some(known) if is(known) => known,
            _ => {
                let hash = self.hasher.hash_one(value);
                let at = table.find(hash, |&at| is(&values[at as usize])).ok_or(hash)?;
                *recent = *at;
                &values[*at as usize]
            }
        };
        if let Resolved::Slot(slot) = known.resolved {
            self.last = (known.begin, known.end, slot);
        }
        Ok(known.resolved)
    }

    /// Stores the resolution of `value`; `hash` comes from [`Self::find`]. The number of stored values is limited: with
    /// a tenant map, a request may have as many values as series.
    fn remember(&mut self, value: &[u8], hash: u64, resolved: Resolved) {
        if self.values.len() >= KNOWN_VALUES_MAX || value.len() > KNOWN_VALUE_BYTES_MAX {
            return;
        }
        let at = narrow(self.values.len());
        let begin = narrow(self.bytes.len());
        self.bytes.extend_from_slice(value);
        let end = narrow(self.bytes.len());
        self.values.push(Known { hash, begin, end, resolved });
        let values = &self.values;
        self.table.insert_unique(hash, at, |&at| values[at as usize].hash);
    }

    /// Returns the slot of the tenant `id`, or the hash for [`Self::insert`] if it has none.
    fn slot_of(&self, id: &TenantId) -> Result<u32, u64> {
        let hash = self.hasher.hash_one(id.as_str());
        self.ids.find(hash, |&at| self.slots[at as usize].id == *id).copied().ok_or(hash)
    }

    /// Adds a tenant without a slot; `hash` comes from [`Self::slot_of`]. Returns its slot.
    fn insert(&mut self, id: TenantId, hash: u64, merge: MergeKey) -> u32 {
        let at = narrow(self.slots.len());
        self.slots.push(Slot {
            id,
            hash,
            series: 0,
            samples: 0,
            histograms: 0,
            exemplars: 0,
            merge,
            items: 0,
            order_end: 0,
        });
        let slots = &self.slots;
        self.ids.insert_unique(hash, at, |&at| slots[at as usize].hash);
        at
    }

    /// Adds to the counts of the tenant in `slot`.
    #[inline(always)]
    pub(super) fn count(&mut self, slot: u32, series: u32, samples: u32) {
        let slot = &mut self.slots[slot as usize];
        slot.series += series;
        slot.samples += samples;
    }

    /// Adds to the histograms and exemplars of the tenant in `slot`.
    pub(super) fn count_kinds(&mut self, slot: u32, histograms: u32, exemplars: u32) {
        let slot = &mut self.slots[slot as usize];
        slot.histograms += histograms;
        slot.exemplars += exemplars;
    }

    /// Counts an item of `slot`.
    #[inline(always)]
    pub(super) fn add_item(&mut self, slot: u32) {
        self.slots[slot as usize].items += 1;
    }

    /// Groups the items by slot with a counting sort. `owners` are the slots of all items in the order in which they
    /// were [added](Self::add_item).
    pub(super) fn sort(&mut self, owners: impl ExactSizeIterator<Item = u32>) {
        let mut end = 0;
        for slot in &mut self.slots {
            // Holds the start of the slot's items for now. Each item that is placed moves it on.
            slot.order_end = end;
            end += slot.items;
        }
        self.order.resize(owners.len(), 0);
        for (at, owner) in owners.enumerate() {
            let slot = &mut self.slots[owner as usize];
            self.order[slot.order_end as usize] = narrow(at);
            slot.order_end += 1;
        }
    }

    /// Returns the items of `slot`, after [`Self::sort`].
    pub(super) fn items(&self, slot: usize) -> &[u32] {
        let Slot { items, order_end, .. } = self.slots[slot];
        &self.order[(order_end - items) as usize..order_end as usize]
    }

    #[cfg(test)]
    pub(super) fn scratch_bytes(&self) -> usize {
        self.order.capacity() * size_of::<u32>()
            + self.values.capacity() * size_of::<Known>()
            + self.bytes.capacity()
    }

    pub(super) fn release(&mut self) {
        self.ids.clear();
        if self.slots.capacity() * size_of::<Slot>() > SCRATCH_BYTES_MAX {
            self.ids = HashTable::new();
        }
        self.table.clear();
        trim(&mut self.slots);
        trim(&mut self.values);
        trim(&mut self.bytes);
        self.recent = [0; RECENT];
        self.last = (0, 0, 0);
        self.missing = None;
        trim(&mut self.order);
    }
}

/// A series, stream or resource, as the resolver sees it when it meets a new tenant or refuses one.
pub(super) trait Subject {
    /// `series`, `stream` or `resource`, for error messages.
    const NOUN: &'static str;

    /// Returns the merge key of a part that begins with it.
    fn merge_key(&self, rules: &SplitRules<'_>) -> MergeKey;

    /// Returns its name for error messages.
    fn name(&self) -> Cow<'_, [u8]>;
}

/// Finds the slots of a request's tenants, and counts its series and samples.
pub(super) struct Resolver<'a> {
    pub(super) rules: &'a SplitRules<'a>,
    source: Option<&'a str>,
    /// Whether all series belong to one tenant, whatever their labels say.
    is_forced: bool,
    pub(super) tenants: &'a mut Tenants,
    pub(super) scan: Scan,
}

impl<'a> Resolver<'a> {
    /// Creates a resolver for a request of `inflated_bytes`. `source` is the value of its own tenant header.
    pub(super) fn new(
        rules: &'a SplitRules<'a>,
        source: Option<&'a str>,
        tenants: &'a mut Tenants,
        inflated_bytes: usize,
    ) -> Self {
        let is_forced = rules.grant.forced(source).is_some();
        Self { rules, source, is_forced, tenants, scan: Scan { inflated_bytes, ..Scan::default() } }
    }

    /// Counts a series whose tenant label has `value`, and returns the slot of its tenant; `None` if the series is
    /// dropped.
    #[inline(always)]
    pub(super) fn slot(
        &mut self,
        value: Option<&[u8]>,
        samples: u32,
        subject: &impl Subject,
    ) -> Result<Option<u32>, SplitError> {
        self.count(samples);
        let Some(found) = self.find(value, samples, subject)? else { return Ok(None) };
        self.tenants.count(found, 1, samples);
        Ok(Some(found))
    }

    /// Counts a received series.
    #[inline(always)]
    pub(super) fn count(&mut self, samples: u32) {
        self.scan.series += 1;
        self.scan.samples += u64::from(samples);
    }

    /// Returns the slot of the tenant that `value` names, for `samples` of the series [counted](Self::count) last;
    /// `None` if they are dropped, which counts as one series.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        value: Option<&[u8]>,
        samples: u32,
        subject: &impl Subject,
    ) -> Result<Option<u32>, SplitError> {
        let value = value.filter(|value| !value.is_empty() && !self.is_forced);
        match value.and_then(|value| self.tenants.find_last(value)) {
            Some(slot) => Ok(Some(slot)),
            None => self.resolve(value, samples, subject),
        }
    }

    /// Returns the number of series that are not forwarded so far, by reason.
    pub(super) fn refused_series(&self) -> [u64; 4] {
        let RefusedSeries { missing, invalid, denied, dropped, .. } = self.scan.refused;
        [missing, invalid, denied, dropped]
    }

    /// Counts the refusals of one series, made since [`Self::refused_series`] returned `before`, as one series per
    /// reason. Returns whether there were any.
    pub(super) fn count_refused_once(&mut self, before: [u64; 4]) -> bool {
        let RefusedSeries { missing, invalid, denied, dropped, .. } = &mut self.scan.refused;
        let mut some = false;
        for (count, before) in [missing, invalid, denied, dropped].into_iter().zip(before) {
            some |= *count > before;
            *count = (*count).min(before + 1);
        }
        some
    }

    fn resolve(
        &mut self,
        value: Option<&[u8]>,
        samples: u32,
        subject: &impl Subject,
    ) -> Result<Option<u32>, SplitError> {
        let known = match value {
            Some(value) => self.tenants.find(value),
            None => self.tenants.missing.ok_or(0),
        };
        let resolved = match known {
            Ok(resolved) => resolved,
            Err(hash) => {
                let resolved = self.decide(value, |rules| subject.merge_key(rules))?;
                match value {
                    Some(value) => self.tenants.remember(value, hash, resolved),
                    None => self.tenants.missing = Some(resolved),
                }
                resolved
            }
        };
        match resolved {
            Resolved::Slot(slot) => Ok(Some(slot)),
            Resolved::Refused(reason) => self.refuse(reason, value, samples, subject).map(|()| None),
        }
    }

    /// Resolves `value`, and gives a new tenant a slot.
    fn decide(
        &mut self,
        value: Option<&[u8]>,
        merge: impl FnOnce(&SplitRules<'_>) -> MergeKey,
    ) -> Result<Resolved, SplitError> {
        let id = match self.rules.tenant.try_resolve(value, self.source, self.rules.grant) {
            Ok(id) => id,
            Err(reason) => return Ok(Resolved::Refused(reason)),
        };
        let hash = match self.tenants.slot_of(&id) {
            Ok(slot) => return Ok(Resolved::Slot(slot)),
            Err(hash) => hash,
        };
        Ok(Resolved::Slot(self.insert(id, hash, merge(self.rules))?))
    }

    /// Returns the slot of the tenant `id`, without counting a series; `None` if the sender may not write to it.
    pub(super) fn slot_of_id(&mut self, id: &TenantId) -> Result<Option<u32>, SplitError> {
        match self.tenants.slot_of(id) {
            Ok(slot) => Ok(Some(slot)),
            Err(_) if !self.allows(id) => Ok(None),
            Err(hash) => self.insert(id.clone(), hash, MergeKey::Ha(None)).map(Some),
        }
    }

    fn allows(&self, id: &TenantId) -> bool {
        let grant = self.rules.grant;
        let bare = self.rules.tenant.strip_prefix(id, self.source, grant);
        *grant == Grant::Any || bare.is_some_and(|bare| grant.allows(bare.as_bytes(), self.source))
    }

    fn insert(&mut self, id: TenantId, hash: u64, merge: MergeKey) -> Result<u32, SplitError> {
        let tenants_max = self.rules.limits.tenants_max;
        if self.tenants.slots.len() >= tenants_max {
            return Err(SplitError::TooManyTenants { tenants_max });
        }
        Ok(self.tenants.insert(id, hash, merge))
    }

    /// Returns the slot of the default tenant, without counting a series; `None` if there is no usable one.
    pub(super) fn default_slot(&mut self) -> Result<Option<u32>, SplitError> {
        let resolved = match self.tenants.missing {
            Some(resolved) => resolved,
            None => self.decide(None, |_| MergeKey::Ha(None))?,
        };
        match resolved {
            Resolved::Slot(slot) => Ok(Some(slot)),
            Resolved::Refused(_) => Ok(None),
        }
    }

    /// Rejects the request, or drops and counts the series, as the policy says.
    #[cold]
    fn refuse<S: Subject>(
        &mut self,
        reason: NoTenant,
        value: Option<&[u8]>,
        samples: u32,
        subject: &S,
    ) -> Result<(), SplitError> {
        let rules = self.rules.tenant;
        let refused = &mut self.scan.refused;
        let (policy, count) = match reason {
            NoTenant::Missing => (rules.on_missing, &mut refused.missing),
            NoTenant::Invalid(_) => (rules.on_invalid, &mut refused.invalid),
            NoTenant::Denied => (rules.on_invalid, &mut refused.denied),
            NoTenant::Dropped => {
                refused.dropped += 1;
                refused.dropped_samples += u64::from(samples);
                return Ok(());
            }
        };
        *count += 1;
        refused.samples += u64::from(samples);
        if policy == Policy::Drop && refused.example.is_some() {
            return Ok(());
        }
        let error = SplitError::Tenant {
            noun: S::NOUN,
            place: self.scan.series,
            name: tenant::excerpt(&subject.name()),
            error: rules.explain(reason, value, self.source, self.rules.grant),
        };
        match policy {
            Policy::Reject => Err(error),
            Policy::Drop => {
                refused.example = Some(error.to_string());
                Ok(())
            }
        }
    }
}
