//! The oracle of Remote Write 2.0. It replaces every reference by the text that it stands for.
//!
//! References have 64 bits here, so that none is truncated.

use std::collections::BTreeSet;

use prost::Message;

use super::{LeftOut, Merge, Refusal, Rules, deciding_label, find, scalars};
use crate::fields::{RawField, raw_fields};

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
pub type Label = (Vec<u8>, Vec<u8>);

/// A series, without references.
#[derive(Clone, PartialEq, Debug)]
pub struct ResolvedSeries {
    /// Its labels, in their order.
    pub labels: Vec<Label>,
    /// Everything else, in its order.
    pub members: Vec<Member>,
}

/// What a series holds besides its labels.
#[derive(Clone, PartialEq, Debug)]
pub enum Member {
    /// The whole field, as it came.
    Raw(Vec<u8>),
    /// An exemplar's labels, and the rest of it.
    Exemplar(Vec<Label>, Vec<u8>),
    /// The fields of metadata.
    Metadata(Vec<MetadataField>),
}

/// A field of metadata.
#[derive(Clone, PartialEq, Debug)]
pub enum MetadataField {
    /// The whole field, as it came.
    Raw(Vec<u8>),
    /// The number of a field with a reference, and the text.
    Text(u32, Vec<u8>),
}

/// One tenant's share.
#[derive(Clone, PartialEq, Debug)]
pub struct ExpectedPart {
    /// The tenant.
    pub tenant: String,
    /// Its series, without the labels that are taken out.
    pub series: Vec<ResolvedSeries>,
    /// Its samples and histograms.
    pub samples: u32,
    /// The histograms among them.
    pub histograms: u32,
    /// Its exemplars.
    pub exemplars: u32,
    /// Which parts it merges with, unless it is too large.
    pub merge: Merge,
}

/// The expected result of a request that is accepted.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Expected {
    /// In the order of each tenant's first series.
    pub parts: Vec<ExpectedPart>,
    /// All series that came in.
    pub series: u64,
    /// All samples and histograms that came in.
    pub samples: u64,
    /// The histograms among them.
    pub histograms: u64,
    /// All exemplars that came in.
    pub exemplars: u64,
    /// What is left out.
    pub left_out: LeftOut,
    /// Unknown top-level fields that hold a number. They go into every part.
    pub scalars: Vec<u8>,
    /// Unknown fields that are dropped.
    pub unknown_fields_dropped: u64,
    /// Whether no symbol is there twice.
    pub unique_symbols: bool,
    /// Whether the request is forwarded as the bytes that came in.
    pub passthrough: bool,
}

const BROKEN: Refusal = Refusal::Reason("bad_protobuf");

/// Resolves the references of one request and records them.
struct Resolver<'a> {
    symbols: &'a [Vec<u8>],
    used: BTreeSet<u64>,
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
        let fields = raw_fields(message).unwrap();
        let resolved = fields.iter().map(|field| match field.number {
            3 | 4 => Some(MetadataField::Text(field.number, self.text(field.varint(message).unwrap())?)),
            _ => Some(MetadataField::Raw(field.whole(message).to_vec())),
        });
        resolved.collect::<Option<_>>().map(Member::Metadata)
    }

    fn exemplar(&mut self, message: &[u8]) -> Option<Member> {
        let references = ShallowExemplar::decode(message).unwrap().labels_refs;
        let fields = raw_fields(message).unwrap();
        let rest = fields.iter().filter(|field| field.number != 1);
        let rest = rest.flat_map(|field| field.whole(message)).copied().collect();
        Some(Member::Exemplar(self.labels(&references)?, rest))
    }

    /// `None` if a reference is out of range or a name has no value.
    fn series(&mut self, message: &[u8]) -> Option<ResolvedSeries> {
        let labels = self.labels(&ShallowSeries::decode(message).unwrap().labels_refs)?;
        let fields = raw_fields(message).unwrap();
        let members = fields.iter().filter(|field| field.number != 1).map(|field| match field.number {
            4 => self.exemplar(field.body(message)),
            5 => self.metadata(field.body(message)),
            _ => Some(Member::Raw(field.whole(message).to_vec())),
        });
        Some(ResolvedSeries { members: members.collect::<Option<_>>()?, labels })
    }
}

/// The series of a part, its symbols, and the references that are used.
///
/// # Panics
/// When the part is broken.
#[must_use]
pub fn resolve_part(part: &[u8]) -> (Vec<ResolvedSeries>, Vec<Vec<u8>>, BTreeSet<u64>) {
    let symbols = ShallowRequest::decode(part).unwrap().symbols;
    let mut resolver = Resolver { symbols: &symbols, used: BTreeSet::new() };
    let fields = raw_fields(part).unwrap();
    let series = fields.iter().filter(|field| field.number == 5).map(|field| field.body(part));
    let series = series.map(|series| resolver.series(series).unwrap()).collect();
    let used = resolver.used;
    (series, symbols, used)
}

/// The replica that a series names. Of several labels with the same name the last one counts.
fn replica(labels: &[Label], names: Option<(&[u8], &[u8])>) -> Merge {
    let Some((cluster, replica)) = names else { return Merge::Ha(None) };
    let value = |of: &[u8]| labels.iter().rfind(|(name, _)| name == of).map(|(_, value)| value.clone());
    let both = value(cluster).zip(value(replica));
    Merge::Ha(both.filter(|(cluster, replica)| !cluster.is_empty() && !replica.is_empty()))
}

/// Splits the inflated `request`.
///
/// # Errors
/// When it must be refused.
pub fn expect(request: &[u8], rules: &Rules<'_>) -> Result<Expected, Refusal> {
    let decoded = ShallowRequest::decode(request)?;
    let fields = raw_fields(request).unwrap();
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
    let raw_series = fields.iter().filter(|field| field.number == 5).map(|field| field.body(request));
    let mut cuts = false;
    for (raw, shallow) in raw_series.zip(&decoded.timeseries) {
        let mut series = resolver.series(raw).ok_or(BROKEN)?;
        let samples = (shallow.samples.len() + shallow.histograms.len()) as u32;
        all.samples += u64::from(samples);
        all.histograms += shallow.histograms.len() as u64;
        all.exemplars += shallow.exemplars.len() as u64;
        let labels = series.labels.iter().map(|(name, value)| (&name[..], &value[..]));
        let label = deciding_label(labels, rules.labels);
        let cut = label.filter(|_| rules.label_remove).map(|(at, _)| at);
        let value = label.map(|(_, value)| value);
        let Some(tenant) = all.left_out.tenant(rules, value, u64::from(samples))? else { continue };
        if let Some(cut) = cut {
            series.labels.remove(cut);
            cuts = true;
        }
        let new = || ExpectedPart {
            tenant: tenant.clone(),
            series: Vec::new(),
            samples: 0,
            histograms: 0,
            exemplars: 0,
            merge: replica(&series.labels, rules.ha),
        };
        let at = find(&mut all.parts, rules.tenants_max, |part| part.tenant == tenant, new)?;
        let part = &mut all.parts[at];
        part.series.push(series);
        part.samples += samples;
        part.histograms += shallow.histograms.len() as u32;
        part.exemplars += shallow.exemplars.len() as u32;
    }
    all.passthrough = all.parts.len() == 1 && !cuts && all.left_out.is_nothing();
    let mut unknown = fields.iter().filter(|field| !matches!(field.number, 4 | 5)).peekable();
    let mut alone = unknown.peek().is_some();
    if !all.passthrough {
        (all.scalars, all.unknown_fields_dropped) = scalars(request, unknown, rules)?;
        alone = !all.scalars.is_empty();
    }
    all.parts.iter_mut().filter(|_| alone).for_each(|part| part.merge = Merge::Alone);
    Ok(all)
}
