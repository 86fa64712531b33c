//! What splitting a Remote Write 2.0 request has to give, worked out the slow way: with prost, every reference replaced
//! by the text that it stands for, and a copy of everything.
//!
//! The messages here are as shallow as the scanner is meant to be: what stands within samples and histograms is left
//! alone, and references have 64 bits, so that none is cut off unseen.
#![allow(clippy::unwrap_used, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "raw.rs"]
mod raw;

use std::collections::BTreeSet;

use prost::Message;
use prost::encoding::{WireType, decode_varint};
use raw::{RawField, body_at, raw_fields};
use tenantry::limits::REQUEST_SCALARS_BYTES_MAX;
use tenantry::split::SplitRules;
use tenantry::tenant::{Policy, TenantError};

#[derive(Clone, PartialEq, Message)]
struct ShallowRequest {
    #[prost(bytes = "vec", repeated, tag = "4")]
    symbols: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<ShallowSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowSeries {
    #[prost(uint64, repeated, tag = "1")]
    labels_refs: Vec<u64>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    samples: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    histograms: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<ShallowExemplar>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<ShallowMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowExemplar {
    #[prost(uint64, repeated, tag = "1")]
    labels_refs: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowMetadata {
    #[prost(uint64, tag = "1")]
    kind: u64,
    #[prost(uint64, tag = "3")]
    help_ref: u64,
    #[prost(uint64, tag = "4")]
    unit_ref: u64,
}

/// A name and a value.
pub(crate) type Label = (Vec<u8>, Vec<u8>);

/// A series, without references.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ResolvedSeries {
    pub(crate) labels: Vec<Label>,
    /// All else, in its order.
    pub(crate) members: Vec<Member>,
}

/// What a series holds besides its labels.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Member {
    /// As it came: all of the field.
    Raw(Vec<u8>),
    /// An exemplar's labels, and the rest of it.
    Exemplar(Vec<Label>, Vec<u8>),
    /// The fields of metadata.
    Metadata(Vec<MetadataField>),
}

/// A field of metadata.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum MetadataField {
    /// As it came: all of the field.
    Raw(Vec<u8>),
    /// The number of a field with a reference, and the text.
    Text(u32, Vec<u8>),
}

/// One tenant's share.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ExpectedPart {
    pub(crate) tenant: String,
    /// Less the labels that are taken out.
    pub(crate) series: Vec<ResolvedSeries>,
    /// Samples and histograms.
    pub(crate) samples: u32,
}

/// What has to come of a request that is taken.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Expected {
    /// In the order of each tenant's first series.
    pub(crate) parts: Vec<ExpectedPart>,
    /// Counts of all that came in.
    pub(crate) series: u64,
    pub(crate) samples: u64,
    pub(crate) histograms: u64,
    pub(crate) exemplars: u64,
    /// Series left out, and their samples and histograms.
    pub(crate) missing: u64,
    pub(crate) invalid: u64,
    pub(crate) refused_samples: u64,
    pub(crate) dropped: u64,
    /// Unknown fields at the top that hold a number; they go into every part.
    pub(crate) scalars: Vec<u8>,
    pub(crate) unknown_fields_dropped: u64,
    /// No symbol is there twice.
    pub(crate) unique_symbols: bool,
    pub(crate) passthrough: bool,
}

/// Why a request must not be taken.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Refusal {
    /// prost does not take it either. `true` if for its depth alone, where ours may go a level further.
    Protobuf(bool),
    /// [`tenantry::split::SplitError::reason`] has to be this.
    Reason(&'static str),
}

const BROKEN: Refusal = Refusal::Reason("bad_protobuf");

/// The number that a field holds.
fn value(message: &[u8], field: &RawField) -> u64 {
    let mut rest = &message[field.range.clone()];
    decode_varint(&mut rest).unwrap();
    decode_varint(&mut rest).unwrap()
}

fn bytes<'a>(message: &'a [u8], field: &RawField) -> &'a [u8] {
    let raw = &message[field.range.clone()];
    &raw[body_at(raw)..]
}

/// Resolves the references of one request, and remembers them.
pub(crate) struct Resolver<'a> {
    symbols: &'a [Vec<u8>],
    pub(crate) used: BTreeSet<u64>,
}

impl Resolver<'_> {
    fn text(&mut self, reference: u64) -> Option<Vec<u8>> {
        self.used.insert(reference);
        self.symbols.get(usize::try_from(reference).ok()?).cloned()
    }

    fn labels(&mut self, references: &[u64]) -> Option<Vec<Label>> {
        let pairs = references.chunks(2).map(|pair| match *pair {
            [name, value] => Some((self.text(name)?, self.text(value)?)),
            _ => None,
        });
        pairs.collect()
    }

    fn metadata(&mut self, message: &[u8]) -> Option<Member> {
        let fields = raw_fields(message);
        let resolved = fields.iter().map(|field| match field.number {
            3 | 4 => Some(MetadataField::Text(field.number, self.text(value(message, field))?)),
            _ => Some(MetadataField::Raw(message[field.range.clone()].to_vec())),
        });
        resolved.collect::<Option<_>>().map(Member::Metadata)
    }

    fn exemplar(&mut self, message: &[u8]) -> Option<Member> {
        let references = ShallowExemplar::decode(message).unwrap().labels_refs;
        let rest = raw_fields(message)
            .iter()
            .filter(|field| field.number != 1)
            .map(|f| f.range.clone())
            .collect::<Vec<_>>();
        let rest = rest.into_iter().flat_map(|range| message[range].to_vec()).collect();
        Some(Member::Exemplar(self.labels(&references)?, rest))
    }

    /// `None` if a reference is out of range, or has no partner.
    fn series(&mut self, message: &[u8]) -> Option<ResolvedSeries> {
        let labels = self.labels(&ShallowSeries::decode(message).unwrap().labels_refs)?;
        let fields = raw_fields(message);
        let members = fields.iter().filter(|field| field.number != 1).map(|field| match field.number {
            4 => self.exemplar(bytes(message, field)),
            5 => self.metadata(bytes(message, field)),
            _ => Some(Member::Raw(message[field.range.clone()].to_vec())),
        });
        Some(ResolvedSeries { members: members.collect::<Option<_>>()?, labels })
    }
}

/// What a part says: its series, and which of how many symbols they refer to.
pub(crate) fn resolve_part(part: &[u8]) -> (Vec<ResolvedSeries>, Vec<Vec<u8>>, BTreeSet<u64>) {
    let symbols = ShallowRequest::decode(part).unwrap().symbols;
    let mut resolver = Resolver { symbols: &symbols, used: BTreeSet::new() };
    let fields = raw_fields(part);
    let series = fields.iter().filter(|field| field.number == 5).map(|field| bytes(part, field));
    let series = series.map(|series| resolver.series(series).unwrap()).collect();
    let used = resolver.used;
    (series, symbols, used)
}

/// The label that decides: its place and value.
fn deciding_label<'a>(labels: &'a [Label], names: &[Box<[u8]>]) -> Option<(usize, &'a [u8])> {
    names.iter().find_map(|wanted| {
        let of_name = |(name, value): &Label| **wanted == **name && !value.is_empty();
        labels.iter().position(of_name).map(|at| (at, labels[at].1.as_slice()))
    })
}

/// Splits the inflated `request`.
pub(crate) fn expect(
    request: &[u8],
    rules: &SplitRules<'_>,
    source: Option<&str>,
) -> Result<Expected, Refusal> {
    let too_deep =
        |error: prost::DecodeError| Refusal::Protobuf(error.to_string().contains("recursion limit"));
    let decoded = ShallowRequest::decode(request).map_err(too_deep)?;
    let fields = raw_fields(request);
    let ours = |field: &RawField| matches!(field.number, 1 | 3);
    if fields.iter().any(ours) || decoded.symbols.first().is_some_and(|symbol| !symbol.is_empty()) {
        return Err(BROKEN);
    }
    if decoded.timeseries.is_empty() {
        return Err(Refusal::Reason("empty"));
    }
    if decoded.symbols.is_empty() {
        return Err(BROKEN);
    }
    let mut all = Expected { series: decoded.timeseries.len() as u64, ..Expected::default() };
    all.unique_symbols = decoded.symbols.iter().collect::<BTreeSet<_>>().len() == decoded.symbols.len();
    let mut resolver = Resolver { symbols: &decoded.symbols, used: BTreeSet::new() };
    let raw_series = fields.iter().filter(|field| field.number == 5).map(|field| bytes(request, field));
    let mut cuts = false;
    for (raw, shallow) in raw_series.zip(&decoded.timeseries) {
        let mut series = resolver.series(raw).ok_or(BROKEN)?;
        let samples = (shallow.samples.len() + shallow.histograms.len()) as u32;
        all.samples += u64::from(samples);
        all.histograms += shallow.histograms.len() as u64;
        all.exemplars += shallow.exemplars.len() as u64;
        let label = deciding_label(&series.labels, &rules.tenant.labels);
        let cut = label.filter(|_| rules.tenant.label_remove).map(|(at, _)| at);
        let tenant = match rules.tenant.resolve(label.map(|(_, value)| value), source) {
            Ok(tenant) => tenant.as_str().to_owned(),
            Err(error) => {
                all.refuse(&error, rules, samples)?;
                continue;
            }
        };
        if let Some(cut) = cut {
            series.labels.remove(cut);
            cuts = true;
        }
        let part = find_part(&mut all.parts, tenant, rules.limits.tenants_max)?;
        part.series.push(series);
        part.samples += samples;
    }
    all.passthrough = all.parts.len() == 1 && !cuts && all.missing + all.invalid + all.dropped == 0;
    unknown_fields(request, &fields, all)
}

impl Expected {
    fn refuse(&mut self, error: &TenantError, rules: &SplitRules<'_>, samples: u32) -> Result<(), Refusal> {
        let (policy, count, reason) = match error {
            TenantError::Missing { .. } => (rules.tenant.on_missing, &mut self.missing, "missing_tenant"),
            TenantError::Invalid { .. } => (rules.tenant.on_invalid, &mut self.invalid, "invalid_tenant"),
            TenantError::Dropped { .. } => {
                self.dropped += 1;
                return Ok(());
            }
        };
        if policy == Policy::Reject {
            return Err(Refusal::Reason(reason));
        }
        *count += 1;
        self.refused_samples += u64::from(samples);
        Ok(())
    }
}

fn find_part(
    parts: &mut Vec<ExpectedPart>,
    tenant: String,
    tenants_max: usize,
) -> Result<&mut ExpectedPart, Refusal> {
    let at = parts.iter().position(|part| part.tenant == tenant).unwrap_or(parts.len());
    if at == tenants_max {
        return Err(Refusal::Reason("too_many_tenants"));
    }
    if at == parts.len() {
        parts.push(ExpectedPart { tenant, series: Vec::new(), samples: 0 });
    }
    Ok(&mut parts[at])
}

/// What becomes of the fields at the top that are unknown.
fn unknown_fields(request: &[u8], fields: &[RawField], mut all: Expected) -> Result<Expected, Refusal> {
    if all.passthrough {
        return Ok(all);
    }
    let numbers = [WireType::Varint, WireType::ThirtyTwoBit, WireType::SixtyFourBit];
    for field in fields.iter().filter(|field| !matches!(field.number, 4 | 5)) {
        if numbers.contains(&field.wire_type) {
            all.scalars.extend_from_slice(&request[field.range.clone()]);
        } else {
            all.unknown_fields_dropped += 1;
        }
    }
    if all.scalars.len() > REQUEST_SCALARS_BYTES_MAX {
        return Err(Refusal::Reason("too_many_fields"));
    }
    Ok(all)
}
