//! One request in, one part for each of its tenants out.
//!
//! Constraints that shaped it:
//!
//! * No byte of one tenant reaches another (a part has whole series, or nothing), and an ack is the truth: a
//!   series is in exactly one part, or refused and counted.
//! * A refusal should cost little. So all of a request is scanned, and every tenant resolved, before the first
//!   part is built; a core can do other work between one part and the next.
//! * The hot path allocates per request and per tenant, never per series. Scratch is kept between requests,
//!   up to [`SCRATCH_BYTES_MAX`] of each kind.
//!
//! # Design
//!
//! [`Splitter::scan`] inflates the block and walks over it once. Series that stand side by side, belong to the
//! same tenant and are to go on as they are become one *run*, a range of inflated bytes; a counting sort then
//! brings the runs of a tenant together, in the order in which they came. [`Splitter::next_part`] copies the
//! runs of one tenant behind each other and deflates them.
//!
//! A request that turns out to be one tenant's, with nothing to take out, goes on as the very elements that
//! came in (*passthrough*).
#![forbid(unsafe_code)]

use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::limits::{REQUEST_FIELDS_MAX, REQUEST_SCALARS_BYTES_MAX, SCRATCH_BYTES_MAX};
use crate::tenant::{self, Policy, Refusal, TenantError, TenantId, TenantRules};
use crate::wire::remote_write_v1::{
    Field, Fields, Label, Labels, Malformed, SERIES_KEY, Series, TenantLabels,
};
use crate::wire::snappy::{Deflater, Inflater, SnappyError};
use crate::wire::varint;

/// Bounds of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SplitLimits {
    /// What its body may inflate to.
    pub inflated_bytes_max: usize,
    /// Distinct tenants in it.
    pub tenants_max: usize,
}

/// The labels by which an upstream tells the replicas of a highly available sender apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HaLabels {
    /// Names the group of replicas: `cluster` by default in Mimir and Cortex.
    pub cluster: Box<[u8]>,
    /// Names the replica within it: `__replica__` by default.
    pub replica: Box<[u8]>,
}

/// How to split.
#[derive(Clone, Copy, Debug)]
pub struct SplitRules<'a> {
    /// How series name their tenants.
    pub tenant: &'a TenantRules,
    /// Send metadata to the default tenant; otherwise, or without one, it is dropped.
    pub metadata: bool,
    /// Tell replicas apart by these labels; `None` merges them all.
    pub ha: Option<&'a HaLabels>,
    /// Bounds of one request.
    pub limits: SplitLimits,
}

/// What a request holds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scan {
    /// Parts that [`Splitter::next_part`] will give; none when there is nothing to send.
    pub tenants: usize,
    /// Series that came in, refused ones included.
    pub series: u64,
    /// Their samples and histograms, refused ones included.
    pub samples: u64,
    /// Size of the inflated request.
    pub inflated_bytes: usize,
    /// Series that the policy `drop` leaves out.
    pub refused: Refused,
    /// Metadata entries that go nowhere.
    pub metadata_dropped: u64,
    /// Unknown fields at the top of the request that go nowhere: they cannot be given to one tenant.
    pub unknown_fields_dropped: u64,
    /// One tenant, and the same bytes go on.
    pub passthrough: bool,
}

/// Series left out because they have no usable tenant.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Refused {
    /// Series without a tenant.
    pub missing: u64,
    /// Series whose tenant ID is invalid.
    pub invalid: u64,
    /// The samples and histograms of both.
    pub samples: u64,
    /// Why, for the first of them.
    pub example: Option<String>,
}

impl Refused {
    /// Series left out, for whatever reason.
    pub fn series(&self) -> u64 {
        self.missing + self.invalid
    }
}

/// What goes to one tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// To whom.
    pub tenant: TenantId,
    /// A snappy block without its length: parts merge by putting elements behind the sum of their lengths.
    pub elements: Bytes,
    /// That length: what the elements inflate to.
    pub inflated_bytes: u32,
    /// Series in it; none when it is metadata only.
    pub series: u32,
    /// Their samples and histograms.
    pub samples: u32,
    /// With which parts of the same tenant it may share a request.
    pub merge: MergeKey,
}

/// Parts of a tenant may share a request when their keys are equal, and neither is `Alone`:
/// see [`Self::merges_with`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MergeKey {
    /// It carries fields for the request as a whole, which would apply to others.
    Alone,
    /// The replica that the first series names: upstreams read it there and apply it to the whole request.
    Ha(Option<Box<HaReplica>>),
}

impl MergeKey {
    /// Whether two parts of the same tenant may share a request.
    pub fn merges_with(&self, other: &Self) -> bool {
        !matches!(self, Self::Alone) && self == other
    }
}

/// One replica of a highly available sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HaReplica {
    /// Value of the cluster label.
    pub cluster: Box<[u8]>,
    /// Value of the replica label.
    pub replica: Box<[u8]>,
}

/// A request that cannot be split: always the sender's fault, and no retry will help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SplitError {
    /// The body is too large once inflated, or not a snappy block.
    #[error(transparent)]
    Snappy(#[from] SnappyError),
    /// The inflated body is not a `WriteRequest`.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Neither series nor metadata.
    #[error("no timeseries found in the request")]
    Empty,
    /// More series, metadata entries and unknown fields than one request may have.
    #[error("the request has more than {fields_max} series and metadata entries")]
    TooManyFields {
        /// The bound.
        fields_max: usize,
    },
    /// Unknown numbers at the top of the request would have to be copied into every part.
    #[error("the request cannot be split: it has more than {bytes_max} bytes of unknown fields")]
    TooManyScalars {
        /// The bound.
        bytes_max: usize,
    },
    /// More distinct tenants than one request may have.
    #[error("the request has more than {tenants_max} tenants")]
    TooManyTenants {
        /// The bound.
        tenants_max: usize,
    },
    /// A series has no usable tenant, and the policy is to reject.
    #[error("series {series} ({name}): {error}")]
    Tenant {
        /// Its place in the request, from 1.
        series: u64,
        /// Its metric name, escaped and cut short.
        name: String,
        /// What is wrong with its tenant.
        error: TenantError,
    },
}

impl SplitError {
    /// One word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Snappy(SnappyError::TooLarge { .. }) => "too_large",
            Self::Snappy(_) => "bad_snappy",
            Self::Malformed(_) => "bad_protobuf",
            Self::Empty => "empty",
            Self::TooManyFields { .. } | Self::TooManyScalars { .. } => "too_many_fields",
            Self::TooManyTenants { .. } => "too_many_tenants",
            Self::Tenant { error: TenantError::Missing { .. }, .. } => "missing_tenant",
            Self::Tenant { error: TenantError::Invalid { .. }, .. } => "invalid_tenant",
        }
    }
}

/// Splits one request at a time; keeps its scratch for the next.
#[derive(Default, Debug)]
pub struct Splitter {
    inflater: Inflater,
    sorted: Sorted,
    /// The elements that came in, when they go on as they are.
    passthrough: Option<Bytes>,
    /// The tenant whose part comes next.
    next: usize,
    /// What a part is put together in.
    gathered: Vec<u8>,
    deflater: Deflater,
}

impl Splitter {
    /// Without scratch: it grows with the first requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inflates and scans `block`, a whole snappy block, and resolves the tenants of its series; `source` is
    /// what the request's own tenant header says. No part is built yet, so a refusal costs no deflating.
    ///
    /// Parts of an earlier request that have not been taken are forgotten.
    pub fn scan(
        &mut self,
        block: Bytes,
        rules: &SplitRules<'_>,
        source: Option<&str>,
    ) -> Result<Scan, SplitError> {
        self.release();
        let scan = self.scan_block(block, rules, source);
        if scan.is_err() {
            self.release();
        }
        scan
    }

    /// The next tenant's part, in the order of each tenant's first series; `None` when all have been taken.
    pub fn next_part(&mut self) -> Option<Part> {
        let slot = self.sorted.tenants.slots.get(self.next)?;
        let (elements, inflated_bytes) = match self.passthrough.take() {
            Some(elements) => (elements, self.inflater.bytes().len()),
            None => {
                self.gathered.clear();
                self.sorted.gather(self.inflater.bytes(), self.next, &mut self.gathered);
                (self.deflater.elements(&self.gathered), self.gathered.len())
            }
        };
        let part = Part {
            tenant: slot.id.clone(),
            elements,
            inflated_bytes: narrow(inflated_bytes),
            series: slot.series,
            samples: slot.samples,
            merge: if self.sorted.alone { MergeKey::Alone } else { slot.merge.clone() },
        };
        self.next += 1;
        if self.next == self.sorted.tenants.slots.len() {
            self.release();
        }
        Some(part)
    }

    fn scan_block(
        &mut self,
        block: Bytes,
        rules: &SplitRules<'_>,
        source: Option<&str>,
    ) -> Result<Scan, SplitError> {
        let header = self.inflater.inflate(&block, rules.limits.inflated_bytes_max)?;
        let inflated = self.inflater.bytes();
        self.sorted.tenants.prefix_bytes = rules.tenant.prefix_bytes(source);
        let pass = Pass {
            inflated,
            rules,
            source,
            labels: TenantLabels::new(&rules.tenant.labels),
            sorted: &mut self.sorted,
            scan: Scan { inflated_bytes: inflated.len(), ..Scan::default() },
        };
        let scan = pass.run()?;
        if scan.passthrough {
            self.passthrough = Some(block.slice(header.elements_at..));
        }
        Ok(scan)
    }

    /// Forgets the request at hand, and gives memory beyond what is kept between requests back.
    fn release(&mut self) {
        self.inflater.release();
        self.sorted.release();
        self.passthrough = None;
        self.next = 0;
        trim(&mut self.gathered);
        self.deflater.release();
    }
}

/// Neighbouring series of one tenant, as a range of inflated bytes.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Where the first series' key stands; if there is a cut, where the bytes behind its length stand.
    begin: u32,
    end: u32,
    /// A label to take out, if the range is not empty: then the run is one series.
    cut_begin: u32,
    cut_end: u32,
    /// Index of its slot.
    tenant: u32,
}

/// What is known of a tenant while its request is being split.
#[derive(Debug)]
struct Slot {
    id: TenantId,
    /// Of the ID behind the prefix.
    hash: u64,
    series: u32,
    samples: u32,
    merge: MergeKey,
    runs: u32,
    /// Where in [`Sorted::order`] its runs end.
    order_end: u32,
}

/// A request, sorted by tenant.
#[derive(Default, Debug)]
struct Sorted {
    tenants: Tenants,
    runs: Vec<Run>,
    /// Indexes into `runs`: the runs of each tenant together, in the order in which they came.
    order: Vec<u32>,
    /// Ranges of inflated bytes that hold metadata, and the slot of the tenant that gets them.
    metadata: Vec<(u32, u32)>,
    metadata_tenant: Option<u32>,
    /// Unknown fields that hold one number each: they go into every part.
    scalars: Vec<u8>,
    /// The parts carry fields for the request as a whole.
    alone: bool,
}

impl Sorted {
    /// Adds a series that goes on as it is; `begin..end` is its whole field.
    #[inline]
    fn push(&mut self, tenant: u32, begin: usize, end: usize) {
        let (begin, end) = (narrow(begin), narrow(end));
        if let Some(last) = self.runs.last_mut()
            && last.tenant == tenant
            && last.end == begin
            && last.cut_begin == last.cut_end
        {
            last.end = end;
            return;
        }
        self.push_run(Run { begin, end, cut_begin: 0, cut_end: 0, tenant });
    }

    #[inline]
    fn push_run(&mut self, run: Run) {
        self.tenants.slots[run.tenant as usize].runs += 1;
        self.runs.push(run);
    }

    /// Brings the runs of each tenant together: a counting sort, which keeps their order.
    fn sort(&mut self) {
        let mut end = 0;
        for slot in &mut self.tenants.slots {
            // For now, where they begin: each run that is put in place moves it on.
            slot.order_end = end;
            end += slot.runs;
        }
        self.order.resize(self.runs.len(), 0);
        for (at, run) in self.runs.iter().enumerate() {
            let slot = &mut self.tenants.slots[run.tenant as usize];
            self.order[slot.order_end as usize] = narrow(at);
            slot.order_end += 1;
        }
    }

    /// Puts what goes to `tenant` behind each other.
    fn gather(&self, inflated: &[u8], tenant: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.scalars);
        let slot = &self.tenants.slots[tenant];
        let order = (slot.order_end - slot.runs) as usize..slot.order_end as usize;
        for &at in &self.order[order] {
            let run = self.runs[at as usize];
            let (begin, end) = (run.begin as usize, run.end as usize);
            let (cut_begin, cut_end) = (run.cut_begin as usize, run.cut_end as usize);
            if cut_begin == cut_end {
                out.extend_from_slice(&inflated[begin..end]);
                continue;
            }
            out.push(SERIES_KEY);
            varint::put(out, (cut_begin - begin + end - cut_end) as u64);
            out.extend_from_slice(&inflated[begin..cut_begin]);
            out.extend_from_slice(&inflated[cut_end..end]);
        }
        if self.metadata_tenant == Some(narrow(tenant)) {
            for &(begin, end) in &self.metadata {
                out.extend_from_slice(&inflated[begin as usize..end as usize]);
            }
        }
    }

    fn release(&mut self) {
        self.tenants.release();
        trim(&mut self.runs);
        trim(&mut self.order);
        trim(&mut self.metadata);
        self.metadata_tenant = None;
        self.scalars.clear();
        self.alone = false;
    }
}

/// How many values [`Tenants`] remembers where they were found. A power of two.
const RECENT: usize = 128;

/// The tenants of one request, by value: each is resolved once.
#[derive(Debug)]
struct Tenants {
    slots: Vec<Slot>,
    /// Indexes into `slots`.
    table: HashTable<u32>,
    hasher: RandomState,
    /// Indexes into `slots`, by [`recent_place`]: the slot that was found there last. Fleets have few tenants
    /// per request, and this spares most series the hashing.
    recent: [u32; RECENT],
    /// In every ID of the request the value begins here.
    prefix_bytes: usize,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            table: HashTable::new(),
            hasher: RandomState::default(),
            recent: [0; RECENT],
            prefix_bytes: 0,
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
    /// The slot whose ID is the prefix and `value`, or else the hash for [`Self::insert`].
    #[inline]
    fn find(&mut self, value: &[u8]) -> Result<u32, u64> {
        let recent = &mut self.recent[recent_place(value)];
        if let Some(slot) = self.slots.get(*recent as usize)
            && slot.value(self.prefix_bytes) == value
        {
            return Ok(*recent);
        }
        let hash = self.hasher.hash_one(value);
        let (slots, prefix_bytes) = (&self.slots, self.prefix_bytes);
        match self.table.find(hash, |&at| slots[at as usize].value(prefix_bytes) == value) {
            Some(&at) => {
                *recent = at;
                Ok(at)
            }
            None => Err(hash),
        }
    }

    /// Adds a tenant that [`Self::find`] did not find; `hash` is what that returned.
    fn insert(&mut self, id: TenantId, hash: u64, merge: MergeKey) -> u32 {
        let at = narrow(self.slots.len());
        self.slots.push(Slot { id, hash, series: 0, samples: 0, merge, runs: 0, order_end: 0 });
        let slots = &self.slots;
        self.table.insert_unique(hash, at, |&at| slots[at as usize].hash);
        at
    }

    fn release(&mut self) {
        self.table.clear();
        if self.slots.capacity() * size_of::<Slot>() > SCRATCH_BYTES_MAX {
            self.table = HashTable::new();
        }
        trim(&mut self.slots);
        self.recent = [0; RECENT];
    }
}

impl Slot {
    /// The value that names it.
    #[inline]
    fn value(&self, prefix_bytes: usize) -> &[u8] {
        self.id.as_str().as_bytes().get(prefix_bytes..).unwrap_or_default()
    }
}

/// One pass over an inflated request.
struct Pass<'a> {
    inflated: &'a [u8],
    rules: &'a SplitRules<'a>,
    source: Option<&'a str>,
    labels: TenantLabels<'a>,
    sorted: &'a mut Sorted,
    scan: Scan,
}

impl Pass<'_> {
    fn run(mut self) -> Result<Scan, SplitError> {
        let mut fields = Fields::new(self.inflated);
        let mut left = REQUEST_FIELDS_MAX;
        let mut metadata: u64 = 0;
        let mut unknown = Unknown::default();
        loop {
            let begin = fields.at_byte();
            let Some(field) = fields.take()? else { break };
            let end = fields.at_byte();
            left = left.checked_sub(1).ok_or(SplitError::TooManyFields { fields_max: REQUEST_FIELDS_MAX })?;
            match field {
                Field::Series(series) => self.series(series, begin, end)?,
                Field::Metadata => {
                    metadata += 1;
                    self.metadata(begin, end);
                }
                Field::Scalar => unknown.scalar(&self.inflated[begin..end], &mut self.sorted.scalars),
                Field::Other => unknown.others += 1,
            }
        }
        if self.scan.series == 0 && metadata == 0 {
            return Err(SplitError::Empty);
        }
        self.place_metadata(metadata)?;
        self.conclude(unknown)
    }

    #[inline]
    fn series(&mut self, series: &[u8], begin: usize, end: usize) -> Result<(), SplitError> {
        let seen = self.labels.read(series).map_err(|fault| Malformed { fault, at_byte: begin })?;
        self.scan.series += 1;
        self.scan.samples += u64::from(seen.samples);
        let Some(tenant) = self.tenant(series, &seen)? else { return Ok(()) };
        let slot = &mut self.sorted.tenants.slots[tenant as usize];
        slot.series += 1;
        slot.samples += seen.samples;
        match seen.tenant {
            Some(label) if self.rules.tenant.label_remove => {
                let body = end - series.len();
                self.sorted.push_run(Run {
                    begin: narrow(body),
                    end: narrow(end),
                    cut_begin: narrow(body + label.range.start),
                    cut_end: narrow(body + label.range.end),
                    tenant,
                });
            }
            _ => self.sorted.push(tenant, begin, end),
        }
        Ok(())
    }

    /// The slot of the series' tenant; `None` if the policy leaves it out.
    #[inline]
    fn tenant(&mut self, series: &[u8], seen: &Series<'_>) -> Result<Option<u32>, SplitError> {
        let value = seen.tenant.as_ref().map(|label| label.value);
        let hash = match self.rules.tenant.or_default(value) {
            None => 0,
            Some(value) => match self.sorted.tenants.find(value) {
                Ok(slot) => return Ok(Some(slot)),
                Err(hash) => hash,
            },
        };
        match self.rules.tenant.try_resolve(value, self.source) {
            Ok(id) => {
                let merge = self.merge_key(series, seen.tenant.as_ref());
                self.insert(id, hash, merge).map(Some)
            }
            Err(refusal) => self.refuse(refusal, series, seen).map(|()| None),
        }
    }

    fn insert(&mut self, id: TenantId, hash: u64, merge: MergeKey) -> Result<u32, SplitError> {
        let tenants_max = self.rules.limits.tenants_max;
        if self.sorted.tenants.slots.len() >= tenants_max {
            return Err(SplitError::TooManyTenants { tenants_max });
        }
        Ok(self.sorted.tenants.insert(id, hash, merge))
    }

    /// Refuses the request, or leaves the series out and counts it, as the policy has it.
    #[cold]
    fn refuse(&mut self, refusal: Refusal, series: &[u8], seen: &Series<'_>) -> Result<(), SplitError> {
        let rules = self.rules.tenant;
        let refused = &mut self.scan.refused;
        let (policy, count) = match refusal {
            Refusal::Missing => (rules.on_missing, &mut refused.missing),
            Refusal::Invalid(_) => (rules.on_invalid, &mut refused.invalid),
        };
        *count += 1;
        refused.samples += u64::from(seen.samples);
        if policy == Policy::Drop && refused.example.is_some() {
            return Ok(());
        }
        let value = seen.tenant.as_ref().map(|label| label.value);
        let name = Labels::new(series).find(|label| label.name == b"__name__");
        let error = SplitError::Tenant {
            series: self.scan.series,
            name: tenant::excerpt(name.map_or(b"no name", |label| label.value)),
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

    /// The replica that a part will name whose first series this is, less the label that is taken out. As
    /// upstreams do, of labels of the same name the last is read, and a pair that lacks one half is none.
    fn merge_key(&self, series: &[u8], tenant: Option<&Label<'_>>) -> MergeKey {
        let Some(names) = self.rules.ha else { return MergeKey::Ha(None) };
        let cut = tenant.filter(|_| self.rules.tenant.label_remove).map(|label| label.range.start);
        let (mut cluster, mut replica): (&[u8], &[u8]) = (&[], &[]);
        for label in Labels::new(series).filter(|label| Some(label.range.start) != cut) {
            if *label.name == *names.cluster {
                cluster = label.value;
            }
            if *label.name == *names.replica {
                replica = label.value;
            }
        }
        if cluster.is_empty() || replica.is_empty() {
            return MergeKey::Ha(None);
        }
        MergeKey::Ha(Some(Box::new(HaReplica { cluster: cluster.into(), replica: replica.into() })))
    }

    fn metadata(&mut self, begin: usize, end: usize) {
        if !self.rules.metadata {
            return;
        }
        let (begin, end) = (narrow(begin), narrow(end));
        match self.sorted.metadata.last_mut() {
            Some(last) if last.1 == begin => last.1 = end,
            _ => self.sorted.metadata.push((begin, end)),
        }
    }

    /// Finds the tenant that gets the `entries` of metadata: the default, if it is of use.
    fn place_metadata(&mut self, entries: u64) -> Result<(), SplitError> {
        if !self.sorted.metadata.is_empty()
            && let Some(value) = self.rules.tenant.or_default(None)
            && let Ok(id) = self.rules.tenant.try_resolve(None, self.source)
        {
            let slot = match self.sorted.tenants.find(value) {
                Ok(slot) => slot,
                Err(hash) => self.insert(id, hash, MergeKey::Ha(None))?,
            };
            self.sorted.metadata_tenant = Some(slot);
        } else {
            self.scan.metadata_dropped = entries;
            self.sorted.metadata.clear();
        }
        Ok(())
    }

    /// Decides how the request goes on.
    fn conclude(mut self, unknown: Unknown) -> Result<Scan, SplitError> {
        let sorted = self.sorted;
        let scan = &mut self.scan;
        scan.tenants = sorted.tenants.slots.len();
        scan.passthrough = scan.tenants == 1
            && scan.refused.series() == 0
            && scan.metadata_dropped == 0
            && sorted.runs.iter().all(|run| run.cut_begin == run.cut_end);
        sorted.alone = unknown.scalars_bytes > 0;
        if scan.passthrough {
            sorted.alone |= unknown.others > 0;
            return Ok(self.scan);
        }
        if unknown.scalars_bytes > REQUEST_SCALARS_BYTES_MAX {
            return Err(SplitError::TooManyScalars { bytes_max: REQUEST_SCALARS_BYTES_MAX });
        }
        scan.unknown_fields_dropped = unknown.others;
        sorted.sort();
        Ok(self.scan)
    }
}

/// Unknown fields at the top of a request.
#[derive(Default)]
struct Unknown {
    /// Size of those that hold a number.
    scalars_bytes: usize,
    /// How many hold bytes or a group.
    others: u64,
}

impl Unknown {
    /// Keeps a field for all parts, as long as it is few enough bytes for that.
    #[cold]
    fn scalar(&mut self, field: &[u8], scalars: &mut Vec<u8>) {
        self.scalars_bytes += field.len();
        if self.scalars_bytes <= REQUEST_SCALARS_BYTES_MAX {
            scalars.extend_from_slice(field);
        }
    }
}

/// A length or an offset within one inflated request.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a snappy block declares at most u32::MAX bytes")]
const fn narrow(bytes: usize) -> u32 {
    bytes as u32
}

/// Empties `scratch`, and gives its memory back if it is more than is kept between requests.
fn trim<T>(scratch: &mut Vec<T>) {
    scratch.clear();
    if scratch.capacity() * size_of::<T>() > SCRATCH_BYTES_MAX {
        *scratch = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TENANT_EXCERPT_BYTES_MAX;
    use crate::tenant::{IdFault, IdRules};

    /// A length-delimited field of a number below 16.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        varint::put(&mut field, bytes.len() as u64);
        field.extend_from_slice(bytes);
        field
    }

    fn label(name: &str, value: &str) -> Vec<u8> {
        field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
    }

    /// A series with these labels and one sample, whose bytes are nobody's business.
    fn series(labels: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes: Vec<u8> = labels.iter().flat_map(|(name, value)| label(name, value)).collect();
        bytes.extend_from_slice(&field(2, b"sample"));
        field(1, &bytes)
    }

    fn metadata(text: &str) -> Vec<u8> {
        field(3, text.as_bytes())
    }

    /// A field for the request as a whole: Cortex' `source`, with value 7.
    const SCALAR: [u8; 2] = [2 << 3, 7];

    fn block(request: &[u8]) -> Bytes {
        snap::raw::Encoder::new().compress_vec(request).unwrap().into()
    }

    /// Rules under test, with the tenant in label `t`.
    struct Rules {
        tenant: TenantRules,
        metadata: bool,
        ha: Option<HaLabels>,
        limits: SplitLimits,
        source: Option<&'static str>,
    }

    impl Default for Rules {
        fn default() -> Self {
            let tenant = TenantRules {
                labels: vec![b"t".as_slice().into()],
                prefix: String::new(),
                prefix_prefer_source: false,
                label_remove: false,
                default: None,
                id_rules: IdRules::Mimir,
                on_missing: Policy::Reject,
                on_invalid: Policy::Reject,
            };
            let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 3 };
            Self { tenant, metadata: false, ha: None, limits, source: None }
        }
    }

    impl Rules {
        fn with(change: impl FnOnce(&mut Self)) -> Self {
            let mut rules = Self::default();
            change(&mut rules);
            rules
        }

        fn scan(&self, splitter: &mut Splitter, request: &[Vec<u8>]) -> Result<Scan, SplitError> {
            let Self { tenant, metadata, ha, limits, source } = self;
            let rules = SplitRules { tenant, metadata: *metadata, ha: ha.as_ref(), limits: *limits };
            splitter.scan(block(&request.concat()), &rules, *source)
        }

        fn split(&self, request: &[Vec<u8>]) -> (Scan, Vec<Part>) {
            let mut splitter = Splitter::new();
            let scan = self.scan(&mut splitter, request).unwrap();
            let parts: Vec<Part> = std::iter::from_fn(|| splitter.next_part()).collect();
            assert_eq!(parts.len(), scan.tenants);
            assert_eq!(splitter.next_part(), None);
            (scan, parts)
        }

        fn error(&self, request: &[Vec<u8>]) -> SplitError {
            let mut splitter = Splitter::new();
            let error = self.scan(&mut splitter, request).unwrap_err();
            assert_eq!(splitter.next_part(), None);
            error
        }
    }

    /// What a part inflates to, and whose it is.
    fn inflated(part: &Part) -> (&str, Vec<u8>) {
        let mut block = Vec::new();
        varint::put(&mut block, u64::from(part.inflated_bytes));
        block.extend_from_slice(&part.elements);
        (part.tenant.as_str(), snap::raw::Decoder::new().decompress_vec(&block).unwrap())
    }

    fn all_inflated(parts: &[Part]) -> Vec<(&str, Vec<u8>)> {
        parts.iter().map(inflated).collect()
    }

    #[test]
    fn each_tenant_gets_its_series_in_their_order() {
        let of = |tenant: &str, name: &str| series(&[("__name__", name), ("t", tenant)]);
        let request = [of("b", "1"), of("a", "2"), of("b", "3"), of("b", "4"), of("a", "5")];
        let (scan, parts) = Rules::default().split(&request);
        let [b1, a2, b3, b4, a5] = request.clone();
        assert_eq!(all_inflated(&parts), [("b", [b1, b3, b4].concat()), ("a", [a2, a5].concat())]);
        let counts: Vec<_> = parts.iter().map(|part| (part.series, part.samples)).collect();
        assert_eq!(counts, [(3, 3), (2, 2)]);
        let inflated_bytes = request.concat().len();
        assert_eq!(scan, Scan { tenants: 2, series: 5, samples: 5, inflated_bytes, ..Scan::default() });
        assert!(parts.iter().all(|part| part.merge == MergeKey::Ha(None)));
    }

    #[test]
    fn one_tenants_request_goes_on_as_the_same_bytes() {
        let request = [series(&[("t", "a")]), series(&[("x", "y"), ("t", "a")])].concat();
        let block = block(&request);
        let Rules { tenant, limits, .. } = Rules::default();
        let rules = SplitRules { tenant: &tenant, metadata: false, ha: None, limits };
        let mut splitter = Splitter::new();
        assert!(splitter.scan(block.clone(), &rules, None).unwrap().passthrough);
        let part = splitter.next_part().unwrap();
        assert_eq!((part.inflated_bytes as usize, part.series), (request.len(), 2));
        // Not a copy: the very memory that came in, behind the length.
        assert_eq!(part.elements.as_ptr(), block[1..].as_ptr());
        assert_eq!(part.elements, block[1..]);
        assert_eq!(splitter.next_part(), None);
    }

    #[test]
    fn the_tenant_label_can_be_taken_out() {
        let rules = Rules::with(|rules| rules.tenant.label_remove = true);
        let request = [
            series(&[("a", "1"), ("t", "x"), ("b", "2"), ("t", "y")]),
            series(&[("t", "x")]),
            series(&[("a", &"long".repeat(50)), ("t", "x"), ("z", "")]),
        ];
        let (scan, parts) = rules.split(&request);
        assert!(!scan.passthrough);
        let expected = [
            series(&[("a", "1"), ("b", "2"), ("t", "y")]),
            series(&[]),
            series(&[("a", &"long".repeat(50)), ("z", "")]),
        ];
        assert_eq!(all_inflated(&parts), [("x", expected.concat())]);
    }

    #[test]
    fn a_series_of_the_default_tenant_keeps_its_labels() {
        let rules = Rules::with(|rules| {
            rules.tenant.label_remove = true;
            rules.tenant.default = Some("d".into());
        });
        // Values that resolve to the same tenant make one part.
        let request = [series(&[("a", "1")]), series(&[("t", "")]), series(&[("t", "d")])];
        let (scan, parts) = rules.split(&request);
        let expected = [request[0].clone(), request[1].clone(), series(&[])];
        assert_eq!(all_inflated(&parts), [("d", expected.concat())]);
        assert!(!scan.passthrough);
        assert!(rules.split(&request[..2]).0.passthrough);
    }

    #[test]
    fn prefixes_are_part_of_the_tenant_and_not_of_the_series() {
        let mut rules = Rules::with(|rules| {
            rules.tenant.prefix = "eu-".into();
            rules.tenant.prefix_prefer_source = true;
            rules.tenant.default = Some("d".into());
        });
        let request = [series(&[("t", "a")]), series(&[]), series(&[("t", "eu-a")])];
        let tenants = |rules: &Rules| -> Vec<String> {
            rules.split(&request).1.iter().map(|part| part.tenant.to_string()).collect()
        };
        assert_eq!(tenants(&rules), ["eu-a", "eu-d", "eu-eu-a"]);
        rules.source = Some("org");
        assert_eq!(tenants(&rules), ["org-a", "org-d", "org-eu-a"]);
    }

    #[test]
    fn rejects_the_whole_request_by_default() {
        let bad = [series(&[("t", "a")]), series(&[("__name__", "up\n"), ("t", "")])];
        assert_eq!(
            Rules::default().error(&bad).to_string(),
            "series 2 (up\\n): no tenant: the series has no value in label t, and no default tenant is set"
        );
        let bad = [series(&[("t", "a b")]), series(&[("t", "a")])];
        let error = Rules::default().error(&bad);
        let fault = IdFault::Character(b' ');
        assert!(matches!(
            &error,
            SplitError::Tenant { series: 1, error: TenantError::Invalid { fault: seen, .. }, .. } if *seen == fault
        ));
        assert_eq!(
            error.to_string(),
            "series 1 (no name): invalid tenant ID \"a b\" (from label t): it contains ' ', which is not allowed"
        );
        let long = series(&[("__name__", &"n".repeat(5000)), ("t", "/")]);
        let text = Rules::default().error(&[long]).to_string();
        assert!(text.contains(&format!("({}…)", "n".repeat(TENANT_EXCERPT_BYTES_MAX))), "{text}");
    }

    #[test]
    fn can_drop_bad_series_and_count_them() {
        let rules = Rules::with(|rules| {
            rules.tenant.on_missing = Policy::Drop;
            rules.tenant.on_invalid = Policy::Drop;
        });
        let good = series(&[("t", "a"), ("n", "1")]);
        let request = [series(&[]), good.clone(), series(&[("t", "/")]), good.clone(), series(&[("t", "/")])];
        let (scan, parts) = rules.split(&request);
        assert_eq!(all_inflated(&parts), [("a", [good.clone(), good].concat())]);
        let Refused { missing, invalid, samples, example } = &scan.refused;
        assert_eq!((*missing, *invalid, *samples, scan.refused.series()), (1, 2, 3, 3));
        assert!(example.as_ref().unwrap().starts_with("series 1 (no name): no tenant"), "{example:?}");
        // One tenant is left, but not all of the bytes may go on.
        assert_eq!((scan.series, scan.samples, scan.passthrough), (5, 5, false));
        let (scan, parts) = rules.split(&[series(&[])]);
        assert_eq!((scan.tenants, scan.refused.missing, parts.len()), (0, 1, 0));
    }

    #[test]
    fn each_policy_is_for_its_own_fault() {
        let (missing, invalid) = ([series(&[])], [series(&[("t", "/")])]);
        let rules = Rules::with(|rules| rules.tenant.on_missing = Policy::Drop);
        assert_eq!(rules.split(&missing).0.refused.missing, 1);
        assert_eq!(rules.error(&invalid).reason(), "invalid_tenant");
        let rules = Rules::with(|rules| rules.tenant.on_invalid = Policy::Drop);
        assert_eq!(rules.split(&invalid).0.refused.invalid, 1);
        assert_eq!(rules.error(&missing).reason(), "missing_tenant");
    }

    #[test]
    fn metadata_is_dropped_unless_it_is_asked_for() {
        let mut rules = Rules::with(|rules| rules.tenant.default = Some("d".into()));
        let request = [metadata("1"), series(&[("t", "a")]), metadata("2")];
        let (scan, parts) = rules.split(&request);
        assert_eq!((scan.metadata_dropped, scan.passthrough), (2, false));
        assert_eq!(all_inflated(&parts), [("a", request[1].clone())]);
        // Nothing is left, but it was no empty request.
        let (scan, _) = rules.split(&[metadata("1")]);
        assert_eq!((scan.tenants, scan.series, scan.metadata_dropped), (0, 0, 1));
        // Without a default there is nobody to have it.
        rules.tenant.default = None;
        rules.metadata = true;
        let (scan, parts) = rules.split(&request);
        assert_eq!((scan.metadata_dropped, parts.len()), (2, 1));
    }

    #[test]
    fn metadata_goes_to_the_default_tenant() {
        let rules = Rules::with(|rules| {
            rules.metadata = true;
            rules.tenant.default = Some("d".into());
            rules.tenant.prefix = "p-".into();
        });
        let of = |tenant: &str| series(&[("t", tenant)]);
        let (scan, parts) = rules.split(&[metadata("1"), of("a"), metadata("2"), metadata("3"), of("a")]);
        let all = [metadata("1"), metadata("2"), metadata("3")].concat();
        assert_eq!(all_inflated(&parts), [("p-a", of("a").repeat(2)), ("p-d", all)]);
        assert_eq!((parts[1].series, parts[1].samples, scan.metadata_dropped), (0, 0, 0));
        let (_, parts) = rules.split(&[metadata("1"), series(&[]), of("a"), metadata("2")]);
        let with_series = [series(&[]), metadata("1"), metadata("2")].concat();
        assert_eq!(all_inflated(&parts), [("p-d", with_series), ("p-a", of("a"))]);
    }

    #[test]
    fn metadata_for_the_only_tenant_passes_through() {
        let rules = Rules::with(|rules| {
            rules.metadata = true;
            rules.tenant.default = Some("d".into());
        });
        for request in [
            vec![metadata("1"), series(&[]), metadata("2"), series(&[("t", "d")])],
            vec![metadata("1"), metadata("2")],
        ] {
            let (scan, parts) = rules.split(&request);
            assert!(scan.passthrough);
            assert_eq!(all_inflated(&parts), [("d", request.concat())]);
        }
    }

    #[test]
    fn unknown_numbers_go_to_all_and_keep_parts_alone() {
        let (a, b) = (series(&[("t", "a")]), series(&[("t", "b")]));
        let (scan, parts) = Rules::default().split(&[a.clone(), SCALAR.to_vec(), b.clone()]);
        assert_eq!(
            all_inflated(&parts),
            [("a", [&SCALAR, &a[..]].concat()), ("b", [&SCALAR, &b[..]].concat())]
        );
        assert!(parts.iter().all(|part| part.merge == MergeKey::Alone));
        assert_eq!(scan.unknown_fields_dropped, 0);
        let (scan, parts) = Rules::default().split(&[a.clone(), SCALAR.to_vec()]);
        assert!(scan.passthrough);
        assert_eq!(parts[0].merge, MergeKey::Alone);
        // More of them than may be multiplied go on only when nothing is.
        let many = SCALAR.repeat(REQUEST_SCALARS_BYTES_MAX / 2 + 1);
        assert!(Rules::default().split(&[a.clone(), many.clone()]).0.passthrough);
        assert_eq!(Rules::default().error(&[a, many, b]).reason(), "too_many_fields");
    }

    #[test]
    fn unknown_bytes_belong_to_no_tenant() {
        let (a, b) = (series(&[("t", "a")]), series(&[("t", "b")]));
        let unknown = [field(4, b"symbol"), vec![5 << 3 | 3, 5 << 3 | 4]].concat();
        let (scan, parts) = Rules::default().split(&[a.clone(), unknown.clone(), b.clone()]);
        assert_eq!(all_inflated(&parts), [("a", a.clone()), ("b", b)]);
        assert_eq!(scan.unknown_fields_dropped, 2);
        assert!(parts.iter().all(|part| part.merge == MergeKey::Ha(None)));
        let (scan, parts) = Rules::default().split(&[a.clone(), unknown.clone()]);
        assert_eq!((scan.passthrough, scan.unknown_fields_dropped), (true, 0));
        assert_eq!(all_inflated(&parts), [("a", [a, unknown].concat())]);
        assert_eq!(parts[0].merge, MergeKey::Alone);
    }

    #[test]
    fn replicas_are_told_apart_by_the_first_series() {
        let rules = Rules::with(|rules| {
            rules.ha = Some(HaLabels { cluster: (*b"c").into(), replica: (*b"r").into() });
        });
        let key = |labels: &[(&str, &str)]| {
            let labels = [labels, &[("t", "a")]].concat();
            rules.split(&[series(&labels), series(&[("t", "a"), ("c", "?"), ("r", "?")])]).1[0].merge.clone()
        };
        let replica = |cluster: &[u8], replica: &[u8]| {
            MergeKey::Ha(Some(Box::new(HaReplica { cluster: cluster.into(), replica: replica.into() })))
        };
        assert_eq!(key(&[("c", "1"), ("r", "2")]), replica(b"1", b"2"));
        assert_eq!(key(&[("r", "2"), ("x", "y"), ("c", "0"), ("c", "1")]), replica(b"1", b"2"));
        assert_eq!(key(&[]), MergeKey::Ha(None));
        assert_eq!(key(&[("c", "1")]), MergeKey::Ha(None));
        assert_eq!(key(&[("c", ""), ("r", "2")]), MergeKey::Ha(None));
        // Each tenant's own first series, also when the request passes through.
        let request =
            [series(&[("t", "a")]), series(&[("t", "b"), ("c", "1"), ("r", "2")]), series(&[("t", "b")])];
        let keys: Vec<_> = rules.split(&request).1.into_iter().map(|part| part.merge).collect();
        assert_eq!(keys, [MergeKey::Ha(None), replica(b"1", b"2")]);
        assert_eq!(rules.split(&request[1..]).1[0].merge, replica(b"1", b"2"));
        let plain = Rules::default().split(&request).1;
        assert!(plain.iter().all(|part| part.merge == MergeKey::Ha(None)));
    }

    #[test]
    fn a_label_that_is_taken_out_names_no_replica() {
        let rules = Rules::with(|rules| {
            rules.tenant.label_remove = true;
            rules.ha = Some(HaLabels { cluster: (*b"t").into(), replica: (*b"r").into() });
        });
        let key = |labels: &[(&str, &str)]| rules.split(&[series(labels)]).1[0].merge.clone();
        assert_eq!(key(&[("t", "a"), ("r", "1")]), MergeKey::Ha(None));
        let HaReplica { cluster, .. } = match key(&[("t", "a"), ("r", "1"), ("t", "b")]) {
            MergeKey::Ha(Some(replica)) => *replica,
            key => panic!("{key:?}"),
        };
        assert_eq!(*cluster, *b"b");
    }

    #[test]
    fn alone_merges_with_nothing() {
        let replica = MergeKey::Ha(Some(Box::new(HaReplica { cluster: [1].into(), replica: [2].into() })));
        assert!(MergeKey::Ha(None).merges_with(&MergeKey::Ha(None)));
        assert!(replica.merges_with(&replica.clone()));
        assert!(!replica.merges_with(&MergeKey::Ha(None)));
        assert!(!MergeKey::Alone.merges_with(&MergeKey::Alone));
        assert!(!MergeKey::Alone.merges_with(&MergeKey::Ha(None)));
    }

    #[test]
    fn refuses_empty_broken_and_boundless_requests() {
        let rules = Rules::default();
        assert_eq!(rules.error(&[]).to_string(), "no timeseries found in the request");
        assert_eq!(rules.error(&[SCALAR.to_vec(), field(4, b"symbol")]), SplitError::Empty);
        assert_eq!(rules.error(&[series(&[("t", "a")]), vec![0x0a, 9]]).reason(), "bad_protobuf");
        let broken = rules.error(&[series(&[("t", "a")]), field(1, &[0x0a, 3, 0x0a, 9, b't'])]);
        let at_byte = series(&[("t", "a")]).len();
        assert!(matches!(broken, SplitError::Malformed(malformed) if malformed.at_byte == at_byte));
        assert_eq!(rules.error(&[vec![b'x'; (1 << 20) + 1]]).reason(), "too_large");
        let mut splitter = Splitter::new();
        let Rules { tenant, limits, .. } = rules;
        let rules = SplitRules { tenant: &tenant, metadata: false, ha: None, limits };
        let not_snappy = splitter.scan(Bytes::from_static(b"\x05\xff"), &rules, None).unwrap_err();
        assert_eq!(not_snappy.reason(), "bad_snappy");
    }

    #[test]
    fn tenants_and_fields_have_a_bound() {
        let of = |tenant: usize| series(&[("t", &tenant.to_string())]);
        let mut rules = Rules::with(|rules| rules.tenant.default = Some("d".into()));
        assert_eq!(rules.split(&[of(1), of(2), of(3), of(1), of(2)]).1.len(), 3);
        let four = [of(1), of(2), of(3), of(4)];
        assert_eq!(rules.error(&four), SplitError::TooManyTenants { tenants_max: 3 });
        rules.metadata = true;
        let with_metadata = [of(1), of(2), of(3), metadata("")];
        assert_eq!(rules.error(&with_metadata), SplitError::TooManyTenants { tenants_max: 3 });
        rules.limits.inflated_bytes_max = usize::MAX;
        let most = vec![field(1, &[]); REQUEST_FIELDS_MAX];
        assert_eq!(rules.split(&most).0.series, REQUEST_FIELDS_MAX as u64);
        let one_more = [most.concat(), metadata("")];
        assert_eq!(rules.error(&one_more), SplitError::TooManyFields { fields_max: REQUEST_FIELDS_MAX });
    }

    #[test]
    fn many_tenants_each_get_their_own() {
        // More than are remembered, of many lengths: all have to be found again.
        let rules = Rules::with(|rules| {
            rules.limits = SplitLimits { inflated_bytes_max: 64 << 20, tenants_max: 1000 };
        });
        let of = |tenant: usize| series(&[("t", &format!("{}{tenant}", "x".repeat(tenant % 40)))]);
        let request: Vec<_> = (0..3000).map(|at| of(at * 7 % 1000)).collect();
        let (scan, parts) = rules.split(&request);
        assert_eq!((scan.tenants, scan.series), (1000, 3000));
        for (at, part) in parts.iter().enumerate() {
            assert_eq!(inflated(part).1, of(at * 7 % 1000).repeat(3));
        }
    }

    #[test]
    fn a_splitter_forgets_the_request_before() {
        let mut splitter = Splitter::new();
        let rules = Rules::with(|rules| {
            rules.metadata = true;
            rules.tenant.default = Some("d".into());
        });
        let of = |tenant: &str| series(&[("t", tenant)]);
        let first = [of("a"), of("b"), metadata("1"), SCALAR.to_vec(), field(4, b"?")];
        rules.scan(&mut splitter, &first).unwrap();
        assert_eq!(inflated(&splitter.next_part().unwrap()), ("a", [&SCALAR, &of("a")[..]].concat()));
        // Two parts are left, and never taken.
        rules.scan(&mut splitter, &[of("c"), of("d"), of("c")]).unwrap();
        let parts: Vec<_> = std::iter::from_fn(|| splitter.next_part()).collect();
        assert_eq!(all_inflated(&parts), [("c", of("c").repeat(2)), ("d", of("d"))]);
        assert!(parts.iter().all(|part| part.merge == MergeKey::Ha(None)));
        rules.scan(&mut splitter, &first).unwrap();
        rules.scan(&mut splitter, &[of("a"), vec![0x0a]]).unwrap_err();
        assert_eq!(splitter.next_part(), None);
    }

    #[test]
    fn holds_no_request_and_little_memory_after_the_last_part() {
        let mut splitter = Splitter::new();
        let mut rules = Rules::default();
        rules.limits.inflated_bytes_max = usize::MAX;
        let block = block(&series(&[("t", "a")]));
        let split_rules =
            SplitRules { tenant: &rules.tenant, metadata: false, ha: None, limits: rules.limits };
        splitter.scan(block.clone(), &split_rules, None).unwrap();
        drop(splitter.next_part());
        assert!(block.is_unique());
        let large: Vec<_> = (0..400_000).map(|at| series(&[("t", ["a", "b"][at % 2])])).collect();
        rules.scan(&mut splitter, &large).unwrap();
        while splitter.next_part().is_some() {}
        assert_eq!(splitter.inflater.bytes(), b"");
        let Splitter { sorted, gathered, .. } = &splitter;
        assert_eq!((sorted.runs.capacity(), gathered.capacity()), (0, 0));
        assert!(sorted.order.capacity() * 4 <= SCRATCH_BYTES_MAX);
    }
}
