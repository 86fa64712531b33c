//! What splitting a request has to give, worked out the slow way: with prost, and a copy of everything.
//!
//! The messages here are as shallow as a scanner is meant to be: text is bytes, and what stands within samples,
//! histograms and the like is left alone. So whether a request is taken can be compared both ways.
//!
//! An oracle knows the formats, and nothing of the server that is held against it. Which tenant a value names, it asks:
//! see [`Rules`].
#![allow(clippy::unwrap_used, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

use std::ops::Range;

use prost::Message;

use crate::fields::RawField;

pub mod loki;
pub mod loki_labels;
pub mod remote_write_v1;
pub mod remote_write_v2;

/// Tells the tenant of a label's value, or of none.
pub type Resolve<'a> = dyn Fn(Option<&[u8]>) -> Result<String, NoTenant> + 'a;

/// By what a request is split.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Names of the labels that name the tenant; the first that a series has with a value decides.
    pub labels: &'a [Box<[u8]>],
    /// Whether the label that decides is taken out.
    pub label_remove: bool,
    /// The tenant that a value names, or why there is none.
    pub resolve: &'a Resolve<'a>,
    /// Tenants in a request.
    pub tenants_max: usize,
    /// Bytes of unknown fields that go into every part.
    pub scalars_bytes_max: usize,
    /// Whether metadata goes to the tenant of no value. (Remote Write 1.0)
    pub metadata_to_default: bool,
    /// The labels of cluster and replica, if replicas are kept apart. (Remote Write 1.0)
    pub ha: Option<(&'a [u8], &'a [u8])>,
    /// Which piece of a stream's labels the server takes out to be rid of this label; whether that does it is checked.
    /// (Loki)
    pub cut: &'a dyn Fn(&[u8], usize) -> Range<usize>,
}

/// A label; or a pair of structured metadata, which has the same fields.
#[derive(Clone, PartialEq, Message)]
pub struct ShallowLabel {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Its value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// Why a series goes nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTenant {
    /// It has no tenant, and is left out.
    Missing,
    /// Its tenant is none, and it is left out.
    Invalid,
    /// A map leaves it out.
    Dropped,
    /// It makes its request one that is refused, for this reason.
    Refused(&'static str),
}

/// Why a request must not be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// prost does not take it either. `true` if for its depth alone, where ours may go a level further.
    Protobuf(bool),
    /// This has to be the reason.
    Reason(&'static str),
}

impl From<prost::DecodeError> for Refusal {
    fn from(error: prost::DecodeError) -> Self {
        Self::Protobuf(error.to_string().contains("recursion limit"))
    }
}

/// With whom a part may share an upstream request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Merge {
    /// With those of the same cluster and replica, or of none.
    Ha(Option<(Vec<u8>, Vec<u8>)>),
    /// With nobody.
    Alone,
}

/// One tenant's share, byte for byte.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    /// Whose.
    pub tenant: String,
    /// Its inflated bytes.
    pub bytes: Vec<u8>,
    /// Series in it; or streams.
    pub series: u32,
    /// Samples and histograms in it; or entries.
    pub samples: u32,
    /// With whom it merges.
    pub merge: Merge,
    /// Indexes of its series among those of the request, each with the index of the label that is taken out. (Remote
    /// Write 1.0)
    pub origin: Vec<(usize, Option<usize>)>,
    /// Whether it has the request's metadata.
    pub metadata: bool,
}

/// What is left out of a request that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeftOut {
    /// Series for want of a tenant; or streams.
    pub missing: u64,
    /// Series because of their tenant.
    pub invalid: u64,
    /// The samples and histograms of those; or entries.
    pub refused_samples: u64,
    /// Series that the map leaves out.
    pub dropped: u64,
    /// The samples and histograms of those.
    pub dropped_samples: u64,
}

impl LeftOut {
    /// Whether nothing is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The tenant of so many samples, or `None` where they are left out.
    fn tenant(
        &mut self,
        rules: &Rules<'_>,
        value: Option<&[u8]>,
        samples: u64,
    ) -> Result<Option<String>, Refusal> {
        let count = match (rules.resolve)(value) {
            Ok(tenant) => return Ok(Some(tenant)),
            Err(NoTenant::Refused(reason)) => return Err(Refusal::Reason(reason)),
            Err(NoTenant::Dropped) => {
                self.dropped += 1;
                self.dropped_samples += samples;
                return Ok(None);
            }
            Err(NoTenant::Missing) => &mut self.missing,
            Err(NoTenant::Invalid) => &mut self.invalid,
        };
        *count += 1;
        self.refused_samples += samples;
        Ok(None)
    }
}

/// The label that decides: the first of `names` that is among the labels with a value. Gives its place and its value.
fn deciding_label<'a>(
    labels: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    names: &[Box<[u8]>],
) -> Option<(usize, &'a [u8])> {
    names.iter().find_map(|wanted| {
        let carries = |&(_, (name, value)): &(usize, (&[u8], &[u8]))| *name == **wanted && !value.is_empty();
        labels.clone().enumerate().find(carries).map(|(at, (_, value))| (at, value))
    })
}

/// The place of the part that `is` the one, which is made if there is none yet.
fn find<P>(
    parts: &mut Vec<P>,
    tenants_max: usize,
    is: impl Fn(&P) -> bool,
    new: impl FnOnce() -> P,
) -> Result<usize, Refusal> {
    let at = parts.iter().position(is).unwrap_or(parts.len());
    if at == tenants_max {
        return Err(Refusal::Reason("too_many_tenants"));
    }
    if at == parts.len() {
        parts.push(new());
    }
    Ok(at)
}

/// The place of a tenant's part; what is new merges as `merge` says.
fn find_part(parts: &mut Vec<Part>, tenant: &str, merge: Merge, rules: &Rules<'_>) -> Result<usize, Refusal> {
    let new = || Part {
        tenant: tenant.to_owned(),
        bytes: Vec::new(),
        series: 0,
        samples: 0,
        merge,
        origin: Vec::new(),
        metadata: false,
    };
    find(parts, rules.tenants_max, |part| part.tenant == tenant, new)
}

/// The bytes of fields that hold a number, which go on, and how many others there are, which do not.
fn scalars<'f>(
    message: &[u8],
    fields: impl Iterator<Item = &'f RawField>,
    rules: &Rules<'_>,
) -> Result<(Vec<u8>, u64), Refusal> {
    let (numbers, others): (Vec<&RawField>, Vec<&RawField>) = fields.partition(|field| field.is_number());
    let scalars: Vec<u8> = numbers.iter().flat_map(|field| field.whole(message)).copied().collect();
    if scalars.len() > rules.scalars_bytes_max {
        return Err(Refusal::Reason("too_many_fields"));
    }
    Ok((scalars, others.len() as u64))
}

/// What becomes of the fields at the top that are unknown: gives how many go nowhere.
fn unknown_fields<'f>(
    message: &[u8],
    unknown: impl Iterator<Item = &'f RawField>,
    passthrough: bool,
    parts: &mut [Part],
    rules: &Rules<'_>,
) -> Result<u64, Refusal> {
    if passthrough {
        parts[0].bytes = message.to_vec();
        if unknown.count() > 0 {
            parts[0].merge = Merge::Alone;
        }
        return Ok(0);
    }
    let (scalars, others) = scalars(message, unknown, rules)?;
    for part in parts.iter_mut().filter(|_| !scalars.is_empty()) {
        part.bytes = [&scalars, &part.bytes[..]].concat();
        part.merge = Merge::Alone;
    }
    Ok(others)
}
