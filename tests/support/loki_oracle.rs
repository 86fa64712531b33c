//! What splitting a Loki push has to give, worked out the slow way: with prost, and a copy of everything.
//!
//! The messages here are as shallow as the scanner is meant to be: see `oracle.rs`.
#![allow(clippy::unwrap_used, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "loki_labels.rs"]
pub(crate) mod loki_labels;
#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "raw.rs"]
mod raw;

use prost::Message;
use prost::encoding::{WireType, encode_varint};
use raw::{RawField, body_at, raw_fields};
use tenantry::limits::REQUEST_SCALARS_BYTES_MAX;
use tenantry::model::MergeKey;
use tenantry::split::SplitRules;
use tenantry::tenant::{Policy, TenantError};

#[derive(Clone, PartialEq, Message)]
struct ShallowPush {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<ShallowStream>,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowStream {
    #[prost(bytes = "vec", tag = "1")]
    labels: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    entries: Vec<Vec<u8>>,
    #[prost(uint64, tag = "3")]
    hash: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowEntry {
    #[prost(bytes = "vec", tag = "1")]
    timestamp: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    line: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    structured_metadata: Vec<ShallowPair>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    parsed: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowPair {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// What has to come of a push that is taken.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Expected {
    /// In the order of each tenant's first entry.
    pub(crate) parts: Vec<ExpectedPart>,
    /// All streams and all entries that came in.
    pub(crate) streams: u64,
    /// See `streams`.
    pub(crate) entries: u64,
    /// Streams of which entries were left out, for either reason, and those entries.
    pub(crate) missing: u64,
    /// See `missing`.
    pub(crate) invalid: u64,
    /// See `missing`.
    pub(crate) refused_entries: u64,
    /// Streams of which the map leaves entries out, and those entries.
    pub(crate) dropped: u64,
    /// See `dropped`.
    pub(crate) dropped_entries: u64,
    /// Unknown fields that go nowhere.
    pub(crate) unknown_fields_dropped: u64,
    /// The bytes that came in go on.
    pub(crate) passthrough: bool,
}

/// One tenant's share.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ExpectedPart {
    /// Whose.
    pub(crate) tenant: String,
    /// Its inflated bytes.
    pub(crate) bytes: Vec<u8>,
    /// Streams in it.
    pub(crate) streams: u32,
    /// Their entries.
    pub(crate) entries: u32,
    /// With whom it merges.
    pub(crate) merge: MergeKey,
}

/// Why a push must not be taken.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Refusal {
    /// prost does not take it either. `true` if for its depth alone, where ours may go a level further.
    Protobuf(bool),
    /// [`tenantry::split::SplitError::reason`] has to be this.
    Reason(&'static str),
}

impl From<prost::DecodeError> for Refusal {
    fn from(error: prost::DecodeError) -> Self {
        Self::Protobuf(error.to_string().contains("recursion limit"))
    }
}

/// The first of `names` that is among the pairs with a value: its place among them.
fn by_priority<'a>(
    names: &[Box<[u8]>],
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Option<usize> {
    let carries = |name: &[u8]| pairs.clone().position(|pair| pair.0 == name && !pair.1.is_empty());
    names.iter().find_map(|name| carries(name))
}

/// Splits the inflated `push`.
pub(crate) fn expect(push: &[u8], rules: &SplitRules<'_>, source: Option<&str>) -> Result<Expected, Refusal> {
    let decoded = ShallowPush::decode(push)?;
    let fields = raw_fields(push);
    let mut all =
        Expected { streams: decoded.streams.len() as u64, passthrough: true, ..Expected::default() };
    for (stream, field) in decoded.streams.iter().zip(fields.iter().filter(|field| field.number == 1)) {
        let field = &push[field.range.clone()];
        Splitting { rules, source, all: &mut all, stream, field, body: &field[body_at(field)..] }.run()?;
    }
    if decoded.streams.is_empty() {
        return Err(Refusal::Reason("empty"));
    }
    all.passthrough &= all.parts.len() == 1 && all.missing + all.invalid + all.dropped == 0;
    unknown_fields(push, &fields, all)
}

/// One stream on its way.
struct Splitting<'a> {
    rules: &'a SplitRules<'a>,
    source: Option<&'a str>,
    all: &'a mut Expected,
    stream: &'a ShallowStream,
    field: &'a [u8],
    body: &'a [u8],
}

impl Splitting<'_> {
    fn run(&mut self) -> Result<(), Refusal> {
        self.all.entries += self.stream.entries.len() as u64;
        let labels = loki_labels::labels(&self.stream.labels).ok_or(Refusal::Reason("bad_labels"))?;
        if self.stream.entries.is_empty() {
            self.all.passthrough = false;
            return Ok(());
        }
        let pairs = labels.iter().map(|(name, value)| (&name[..], &value[..]));
        let names = &self.rules.tenant.labels;
        let values: Vec<Option<Vec<u8>>> = match by_priority(names, pairs) {
            Some(deciding) => return self.whole(&labels, deciding),
            None => self.stream.entries.iter().map(|entry| entry_value(entry, names)).collect(),
        };
        // As entries are read one after the other, so are their faults.
        let mut parts: Vec<usize> = Vec::new();
        let (missing, invalid, dropped) = (self.all.missing, self.all.invalid, self.all.dropped);
        for (entry, value) in self.stream.entries.iter().zip(&values) {
            ShallowEntry::decode(entry.as_slice())?;
            let part = self.resolve(value.as_deref(), 1)?;
            parts.push(part.unwrap_or(usize::MAX));
        }
        self.all.missing = self.all.missing.min(missing + 1);
        self.all.invalid = self.all.invalid.min(invalid + 1);
        self.all.dropped = self.all.dropped.min(dropped + 1);
        let mut own: Vec<usize> = parts.clone();
        own.sort_unstable();
        own.dedup();
        own.retain(|part| *part != usize::MAX);
        if own.is_empty() {
            return Ok(());
        }
        let some_refused = parts.contains(&usize::MAX);
        if own.len() == 1 && !some_refused {
            self.add(own[0], self.field.to_vec(), parts.len());
            return Ok(());
        }
        self.all.passthrough = false;
        self.apart(&parts, &own)
    }

    /// A stream whose labels name its tenant.
    fn whole(&mut self, labels: &[(Vec<u8>, Vec<u8>)], deciding: usize) -> Result<(), Refusal> {
        let entries = self.stream.entries.len();
        let Some(part) = self.resolve(Some(&labels[deciding].1), entries)? else { return Ok(()) };
        if !self.rules.loki_label_remove {
            self.add(part, self.field.to_vec(), entries);
            return Ok(());
        }
        self.all.passthrough = false;
        let fields = raw_fields(self.body);
        let kept = fields.iter().filter(|field| field.number != 1 && field.number != 3);
        let kept: Vec<u8> = kept.flat_map(|field| self.body[field.range.clone()].to_vec()).collect();
        let stream = stream_of(&without(&self.stream.labels, labels, deciding), &kept);
        self.add(part, stream, entries);
        Ok(())
    }

    /// A stream for each tenant among the entries.
    fn apart(&mut self, parts: &[usize], own: &[usize]) -> Result<(), Refusal> {
        let fields = raw_fields(self.body);
        let raw = |field: &RawField| self.body[field.range.clone()].to_vec();
        let is_number = |field: &&RawField| {
            field.number > 2 && !matches!(field.wire_type, WireType::LengthDelimited | WireType::StartGroup)
        };
        let common: Vec<u8> = fields.iter().filter(is_number).flat_map(raw).collect();
        if common.len() > REQUEST_SCALARS_BYTES_MAX {
            return Err(Refusal::Reason("too_many_fields"));
        }
        let dropped = fields.iter().filter(|field| field.number > 2 && !is_number(field)).count();
        self.all.unknown_fields_dropped += dropped as u64;
        let entries: Vec<Vec<u8>> = fields.iter().filter(|field| field.number == 2).map(raw).collect();
        for &part in own {
            let of_part: Vec<&Vec<u8>> = entries
                .iter()
                .zip(parts)
                .filter(|(_, owner)| **owner == part)
                .map(|(entry, _)| entry)
                .collect();
            let bytes: Vec<u8> = of_part.iter().flat_map(|entry| entry.iter().copied()).collect();
            let stream = stream_of(&self.stream.labels, &[common.clone(), bytes].concat());
            self.add(part, stream, of_part.len());
        }
        Ok(())
    }

    fn add(&mut self, part: usize, stream: Vec<u8>, entries: usize) {
        let part = &mut self.all.parts[part];
        part.bytes.extend(stream);
        part.streams += 1;
        part.entries += entries as u32;
    }

    /// The part of the tenant of so many entries, or `None` where the policy leaves them out.
    fn resolve(&mut self, value: Option<&[u8]>, entries: usize) -> Result<Option<usize>, Refusal> {
        let tenant = match self.rules.tenant.resolve(value, self.source) {
            Ok(tenant) => tenant.as_str().to_owned(),
            Err(error) => {
                let rules = self.rules.tenant;
                let (policy, count, reason) = match error {
                    TenantError::Missing { .. } => {
                        (rules.on_missing, &mut self.all.missing, "missing_tenant")
                    }
                    TenantError::Invalid { .. } => {
                        (rules.on_invalid, &mut self.all.invalid, "invalid_tenant")
                    }
                    TenantError::Dropped { .. } => {
                        self.all.dropped += 1;
                        self.all.dropped_entries += entries as u64;
                        return Ok(None);
                    }
                };
                if policy == Policy::Reject {
                    return Err(Refusal::Reason(reason));
                }
                *count += 1;
                self.all.refused_entries += entries as u64;
                return Ok(None);
            }
        };
        let parts = &mut self.all.parts;
        let at = parts.iter().position(|part| part.tenant == tenant).unwrap_or(parts.len());
        if at == self.rules.limits.tenants_max {
            return Err(Refusal::Reason("too_many_tenants"));
        }
        if at == parts.len() {
            let merge = MergeKey::Ha(None);
            parts.push(ExpectedPart { tenant, bytes: Vec::new(), streams: 0, entries: 0, merge });
        }
        Ok(Some(at))
    }
}

/// The value by which an entry's metadata names its tenant; none for one that cannot be read, which is told later.
fn entry_value(entry: &[u8], names: &[Box<[u8]>]) -> Option<Vec<u8>> {
    let entry = ShallowEntry::decode(entry).ok()?;
    let metadata = &entry.structured_metadata;
    let deciding = by_priority(names, metadata.iter().map(|pair| (&pair.name[..], &pair.value[..])))?;
    Some(metadata[deciding].value.clone())
}

/// A stream's field of these labels and these other fields.
fn stream_of(labels: &[u8], fields: &[u8]) -> Vec<u8> {
    let put = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.push(0x0a);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    };
    let mut body = Vec::new();
    if !labels.is_empty() {
        put(&mut body, labels);
    }
    body.extend_from_slice(fields);
    let mut stream = Vec::new();
    put(&mut stream, &body);
    stream
}

/// The labels' text less label number `at`: what is left has to read as the other labels, and to be what there was, but
/// for one piece.
fn without(text: &[u8], labels: &[(Vec<u8>, Vec<u8>)], at: usize) -> Vec<u8> {
    let mut read = tenantry::wire::loki::labels::Labels::new(text);
    for _ in 0..at {
        read.take().unwrap();
    }
    let cut = read.take().unwrap().unwrap().cut;
    let kept = [&text[..cut.start], &text[cut.end..]].concat();
    let mut others = labels.to_vec();
    others.remove(at);
    assert_eq!(loki_labels::labels(&kept), Some(others), "{}", kept.escape_ascii());
    kept
}

/// What becomes of the fields at the top that are unknown.
fn unknown_fields(push: &[u8], fields: &[RawField], mut all: Expected) -> Result<Expected, Refusal> {
    let numbers = [WireType::Varint, WireType::ThirtyTwoBit, WireType::SixtyFourBit];
    let unknown = || fields.iter().filter(|field| field.number != 1);
    let scalars: Vec<u8> = unknown()
        .filter(|field| numbers.contains(&field.wire_type))
        .flat_map(|field| push[field.range.clone()].to_vec())
        .collect();
    let others = unknown().filter(|field| !numbers.contains(&field.wire_type)).count();
    if all.passthrough {
        all.parts[0].bytes = push.to_vec();
        if !scalars.is_empty() || others > 0 {
            all.parts[0].merge = MergeKey::Alone;
        }
        return Ok(all);
    }
    if scalars.len() > REQUEST_SCALARS_BYTES_MAX {
        return Err(Refusal::Reason("too_many_fields"));
    }
    all.unknown_fields_dropped += others as u64;
    for part in all.parts.iter_mut().filter(|_| !scalars.is_empty()) {
        part.bytes = [&scalars, &part.bytes[..]].concat();
        part.merge = MergeKey::Alone;
    }
    Ok(all)
}
