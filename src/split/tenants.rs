//! The tenants of one request: each distinct value is resolved once, and owns a slot from then on.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{MergeKey, Refused, Scan, SplitError, SplitRules, narrow, trim};
use crate::limits::SCRATCH_BYTES_MAX;
use crate::tenant::{self, Policy, Refusal, TenantId};
use crate::wire::same;

/// What is known of a tenant while its request is being split.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: TenantId,
    /// Of the ID behind the prefix.
    hash: u64,
    pub(super) series: u32,
    pub(super) samples: u32,
    pub(super) merge: MergeKey,
    items: u32,
    /// Where in [`Tenants::order`] its items end.
    order_end: u32,
}
/// How many values [`Tenants`] remembers where they were found. A power of two.
const RECENT: usize = 128;

/// The tenants of one request, by value: each is resolved once.
#[derive(Debug)]
pub(super) struct Tenants {
    pub(super) slots: Vec<Slot>,
    /// Indexes into `slots`.
    table: HashTable<u32>,
    hasher: RandomState,
    /// Indexes into `slots`, by [`recent_place`]: the slot that was found there last. Fleets have few tenants
    /// per request, and this spares most series the hashing.
    recent: [u32; RECENT],
    /// The slot that was found last. Series of one target stand side by side and share their tenant.
    last: u32,
    /// In every ID of the request the value begins here.
    prefix_bytes: usize,
    /// Indexes of items: those of each slot together, in the order in which they came.
    order: Vec<u32>,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            table: HashTable::new(),
            hasher: RandomState::default(),
            recent: [0; RECENT],
            last: 0,
            prefix_bytes: 0,
            order: Vec::new(),
        }
    }
}

/// Where [`Tenants::recent`] remembers `value`. Names of tenants mostly differ in their last two bytes, often
/// digits; values that collide are merely hashed.
#[inline]
fn recent_place(value: &[u8]) -> usize {
    let [tens, ones] = value.last_chunk().copied().unwrap_or_default();
    (usize::from(tens) * 10 + usize::from(ones) + value.len()) % RECENT
}

impl Tenants {
    /// Whether `value` names the tenant at [`Self::last`].
    #[inline(always)]
    fn was_last(&self, value: &[u8]) -> bool {
        self.slots.get(self.last as usize).is_some_and(|slot| same(slot.value(self.prefix_bytes), value))
    }

    /// The slot whose ID is the prefix and `value`, or else the hash for [`Self::insert`].
    fn find(&mut self, value: &[u8]) -> Result<u32, u64> {
        let recent = &mut self.recent[recent_place(value)];
        if let Some(slot) = self.slots.get(*recent as usize)
            && slot.value(self.prefix_bytes) == value
        {
            self.last = *recent;
            return Ok(*recent);
        }
        let hash = self.hasher.hash_one(value);
        let (slots, prefix_bytes) = (&self.slots, self.prefix_bytes);
        match self.table.find(hash, |&at| slots[at as usize].value(prefix_bytes) == value) {
            Some(&at) => {
                (*recent, self.last) = (at, at);
                Ok(at)
            }
            None => Err(hash),
        }
    }

    /// Adds a tenant that [`Self::find`] did not find; `hash` is what that returned.
    fn insert(&mut self, id: TenantId, hash: u64, merge: MergeKey) -> u32 {
        let at = narrow(self.slots.len());
        self.slots.push(Slot { id, hash, series: 0, samples: 0, merge, items: 0, order_end: 0 });
        let slots = &self.slots;
        self.table.insert_unique(hash, at, |&at| slots[at as usize].hash);
        at
    }

    /// Counts what goes to the tenant of `slot`.
    #[inline(always)]
    pub(super) fn count(&mut self, slot: u32, series: u32, samples: u32) {
        let slot = &mut self.slots[slot as usize];
        slot.series += series;
        slot.samples += samples;
    }

    /// Says that an item belongs to `slot`.
    #[inline(always)]
    pub(super) fn add_item(&mut self, slot: u32) {
        self.slots[slot as usize].items += 1;
    }

    /// Brings the items of each slot together, given the slots of all items in the order in which they were
    /// [added](Self::add_item): a counting sort.
    pub(super) fn sort(&mut self, owners: impl ExactSizeIterator<Item = u32>) {
        let mut end = 0;
        for slot in &mut self.slots {
            // For now, where they begin: each item that is put in place moves it on.
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

    /// The items of `slot`, once sorted.
    pub(super) fn items(&self, slot: usize) -> &[u32] {
        let Slot { items, order_end, .. } = self.slots[slot];
        &self.order[(order_end - items) as usize..order_end as usize]
    }

    #[cfg(test)]
    pub(super) fn scratch_bytes(&self) -> usize {
        self.order.capacity() * size_of::<u32>()
    }

    pub(super) fn release(&mut self) {
        self.table.clear();
        if self.slots.capacity() * size_of::<Slot>() > SCRATCH_BYTES_MAX {
            self.table = HashTable::new();
        }
        trim(&mut self.slots);
        self.recent = [0; RECENT];
        self.last = 0;
        trim(&mut self.order);
    }
}

impl Slot {
    /// The value that names it.
    #[inline]
    fn value(&self, prefix_bytes: usize) -> &[u8] {
        self.id.as_str().as_bytes().get(prefix_bytes..).unwrap_or_default()
    }
}

/// What the resolver asks of a series or a stream, when it meets a tenant for the first time or refuses one.
pub(super) trait Subject {
    /// What it is called.
    const NOUN: &'static str;

    /// The key of a part whose first series this is.
    fn merge_key(&self, rules: &SplitRules<'_>) -> MergeKey;

    /// What people know it by.
    fn name(&self) -> Cow<'_, [u8]>;
}

/// Finds the slots of a request's tenants, and counts.
pub(super) struct Resolver<'a> {
    pub(super) rules: &'a SplitRules<'a>,
    source: Option<&'a str>,
    pub(super) tenants: &'a mut Tenants,
    pub(super) scan: Scan,
}

impl<'a> Resolver<'a> {
    /// For a request of `inflated_bytes` whose own tenant header says `source`.
    pub(super) fn new(
        rules: &'a SplitRules<'a>,
        source: Option<&'a str>,
        tenants: &'a mut Tenants,
        inflated_bytes: usize,
    ) -> Self {
        tenants.prefix_bytes = rules.tenant.prefix_bytes(source);
        Self { rules, source, tenants, scan: Scan { inflated_bytes, ..Scan::default() } }
    }

    /// Counts a series whose deciding label has `value`, and returns the slot of its tenant; `None` if the policy
    /// leaves the series out.
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

    /// Counts a series that came in.
    #[inline(always)]
    pub(super) fn count(&mut self, samples: u32) {
        self.scan.series += 1;
        self.scan.samples += u64::from(samples);
    }

    /// The slot of the tenant that `value` names for so many samples of the series that was [counted](Self::count) last;
    /// `None` if the policy leaves them out, which is counted as one series.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        value: Option<&[u8]>,
        samples: u32,
        subject: &impl Subject,
    ) -> Result<Option<u32>, SplitError> {
        match value {
            Some(value) if self.tenants.was_last(value) => Ok(Some(self.tenants.last)),
            _ => self.resolve(value, samples, subject),
        }
    }

    /// Series that were left out so far, by reason.
    pub(super) fn refused_series(&self) -> [u64; 2] {
        let Refused { missing, invalid, .. } = self.scan.refused;
        [missing, invalid]
    }

    /// Makes of what was refused of one series, since [`Self::refused_series`] said `before`, one series for each reason;
    /// whether there was any.
    pub(super) fn count_refused_once(&mut self, before: [u64; 2]) -> bool {
        let refused = &mut self.scan.refused;
        let mut some = false;
        for (count, before) in [&mut refused.missing, &mut refused.invalid].into_iter().zip(before) {
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
        let hash = match self.rules.tenant.or_default(value) {
            None => 0,
            Some(value) => match self.tenants.find(value) {
                Ok(slot) => return Ok(Some(slot)),
                Err(hash) => hash,
            },
        };
        match self.rules.tenant.try_resolve(value, self.source) {
            Ok(id) => self.insert(id, hash, subject.merge_key(self.rules)).map(Some),
            Err(refusal) => self.refuse(refusal, value, samples, subject).map(|()| None),
        }
    }

    /// The slot of the default tenant, if there is one that is of use; no series comes with it.
    pub(super) fn default_slot(&mut self) -> Result<Option<u32>, SplitError> {
        let Some(value) = self.rules.tenant.or_default(None) else { return Ok(None) };
        let Ok(id) = self.rules.tenant.try_resolve(None, self.source) else { return Ok(None) };
        match self.tenants.find(value) {
            Ok(slot) => Ok(Some(slot)),
            Err(hash) => self.insert(id, hash, MergeKey::Ha(None)).map(Some),
        }
    }

    fn insert(&mut self, id: TenantId, hash: u64, merge: MergeKey) -> Result<u32, SplitError> {
        let tenants_max = self.rules.limits.tenants_max;
        if self.tenants.slots.len() >= tenants_max {
            return Err(SplitError::TooManyTenants { tenants_max });
        }
        Ok(self.tenants.insert(id, hash, merge))
    }

    /// Refuses the request, or leaves the series out and counts it, as the policy has it.
    #[cold]
    fn refuse<S: Subject>(
        &mut self,
        refusal: Refusal,
        value: Option<&[u8]>,
        samples: u32,
        subject: &S,
    ) -> Result<(), SplitError> {
        let rules = self.rules.tenant;
        let refused = &mut self.scan.refused;
        let (policy, count) = match refusal {
            Refusal::Missing => (rules.on_missing, &mut refused.missing),
            Refusal::Invalid(_) => (rules.on_invalid, &mut refused.invalid),
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
            error: rules.explain(refusal, value, self.source),
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
