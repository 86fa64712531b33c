//! The expected result of splitting a request, computed the slow way: with prost, and with copies of everything.
//!
//! The messages here are as shallow as a scanner reads them: text is bytes, and the content of samples and histograms
//! is not decoded. So oracle and scanner must accept and refuse the same requests.
//!
//! An oracle knows the formats and nothing of the server that is compared with it. It asks [`Rules`] which tenant a
//! value names.
#![allow(clippy::unwrap_used, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

use std::ops::Range;

use prost::Message;

use crate::fields::RawField;

pub mod loki;
pub mod loki_labels;
pub mod otlp;
pub mod remote_write_v1;
pub mod remote_write_v2;

/// Returns the tenant of a label's value, or of a series without such a label.
pub type Resolve<'a> = dyn Fn(Option<&[u8]>) -> Result<String, NoTenant> + 'a;

/// The rules by which a request is split.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Names of the labels that name the tenant. The first one that a series has with a value decides.
    pub labels: &'a [Box<[u8]>],
    /// Whether the label that decides is taken out.
    pub label_remove: bool,
    /// The tenant that a value names, or why there is none.
    pub resolve: &'a Resolve<'a>,
    /// Tenants in a request.
    pub tenants_max: usize,
    /// Bytes of unknown fields that go into every part.
    pub scalars_bytes_max: usize,
    /// Whether metadata goes to the tenant of series without a value. (Remote Write 1.0)
    pub metadata_to_default: bool,
    /// The labels of cluster and replica, if replicas are kept apart. (Remote Write 1.0)
    pub ha: Option<(&'a [u8], &'a [u8])>,
    /// Which piece of a stream's labels the server cuts out to remove a label. The oracle checks that this removes it.
    /// (Loki)
    pub cut: &'a dyn Fn(&[u8], usize) -> Range<usize>,
}

/// A label, or a pair of structured metadata, which has the same fields.
#[derive(Clone, PartialEq, Message)]
pub struct ShallowLabel {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Its value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// Why a series is not forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTenant {
    /// It has no tenant and is left out.
    Missing,
    /// Its tenant is invalid and it is left out.
    Invalid,
    /// The map drops it.
    Dropped,
    /// Its request is refused for this reason.
    Refused(&'static str),
}

/// Why a request must not be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// prost refuses it, too. `true` if only for its depth, where the server may accept one level more.
    Protobuf(bool),
    /// The server must give this reason.
    Reason(&'static str),
}

impl From<prost::DecodeError> for Refusal {
    fn from(error: prost::DecodeError) -> Self {
        Self::Protobuf(error.to_string().contains("recursion limit"))
    }
}

/// Which parts may share an upstream request with this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Merge {
    /// Parts of the same cluster and replica, or parts without one.
    Ha(Option<(Vec<u8>, Vec<u8>)>),
    /// None.
    Alone,
}

/// One tenant's share, byte for byte.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    /// The tenant.
    pub tenant: String,
    /// Its inflated bytes.
    pub bytes: Vec<u8>,
    /// Its series, or streams.
    pub series: u32,
    /// Its samples and histograms, or entries.
    pub samples: u32,
    /// Which parts it merges with.
    pub merge: Merge,
    /// Indexes of its series in the request, each with the index of the label that is taken out. (Remote Write 1.0)
    pub origin: Vec<(usize, Option<usize>)>,
    /// Whether it has the request's metadata.
    pub metadata: bool,
}

/// What is left out of a request that is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeftOut {
    /// Series or streams without a tenant.
    pub missing: u64,
    /// Series or streams with an invalid tenant.
    pub invalid: u64,
    /// The samples and histograms, or entries, of both.
    pub refused_samples: u64,
    /// Series or streams that the map drops.
    pub dropped: u64,
    /// The samples and histograms, or entries, of these.
    pub dropped_samples: u64,
}

impl LeftOut {
    /// Whether nothing is left out.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The tenant of a series with so many samples, or `None` when the series is left out.
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

/// The index and value of the label that decides: the first of `names` that the labels have with a value.
fn deciding_label<'a>(
    labels: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    names: &[Box<[u8]>],
) -> Option<(usize, &'a [u8])> {
    names.iter().find_map(|wanted| {
        let carries = |&(_, (name, value)): &(usize, (&[u8], &[u8]))| *name == **wanted && !value.is_empty();
        labels.clone().enumerate().find(carries).map(|(at, (_, value))| (at, value))
    })
}

/// The index of the part for which `is` holds. If there is none, `new` makes it.
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

/// The index of a tenant's part. A new part merges as `merge` says.
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

/// The bytes of the fields that hold a number, which are forwarded, and the count of all others, which are dropped.
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

/// Adds unknown top-level fields to the parts, and returns how many are dropped.
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
