//! What splitting a request has to give, worked out the slow way: with prost, and a copy of everything.
//!
//! The messages here are as shallow as the scanner is meant to be: text is bytes, and what stands within samples,
//! exemplars, histograms and metadata is left alone. So whether a request is taken can be compared both ways.
#![allow(clippy::unwrap_used, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

#[allow(clippy::duplicate_mod, reason = "each check brings what it needs")]
#[path = "raw.rs"]
mod raw;

use prost::Message;
use prost::encoding::{WireType, encode_varint};
use raw::{RawField, body_at, raw_fields};
use tenantry::limits::REQUEST_SCALARS_BYTES_MAX;
use tenantry::model::{HaLabels, HaReplica, MergeKey};
use tenantry::split::{Metadata, SplitRules};
use tenantry::tenant::{Policy, TenantError};

/// A request, as deep as the scanner looks.
#[derive(Clone, PartialEq, Message)]
struct ShallowRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<ShallowSeries>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    metadata: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowSeries {
    #[prost(bytes = "vec", repeated, tag = "1")]
    labels: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    samples: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    exemplars: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    histograms: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ShallowLabel {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// What has to come of a request that is taken.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Expected {
    /// In the order of each tenant's first series.
    pub(crate) parts: Vec<ExpectedPart>,
    /// All series that came in.
    pub(crate) series: u64,
    /// All samples and histograms that came in.
    pub(crate) samples: u64,
    /// Series left out for want of a tenant.
    pub(crate) missing: u64,
    /// Series left out because of their tenant.
    pub(crate) invalid: u64,
    /// The samples and histograms of those.
    pub(crate) refused_samples: u64,
    /// Series that the map leaves out, and the samples and histograms of those.
    pub(crate) dropped: u64,
    /// See `dropped`.
    pub(crate) dropped_samples: u64,
    /// Metadata that goes nowhere.
    pub(crate) metadata_dropped: u64,
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
    /// Series in it.
    pub(crate) series: u32,
    /// Samples and histograms in it.
    pub(crate) samples: u32,
    /// With whom it merges.
    pub(crate) merge: MergeKey,
    /// Indexes of its series among those of the request, each with the index of the label that is taken out.
    pub(crate) origin: Vec<(usize, Option<usize>)>,
    /// Whether it has the request's metadata.
    pub(crate) metadata: bool,
}

/// Why a request must not be taken.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Refusal {
    /// prost does not take it either. `true` if for its depth alone, where ours may go a level further.
    Protobuf(bool),
    /// [`tenantry::split::SplitError::reason`] has to be this.
    Reason(&'static str),
}

/// The label that decides: its index and value.
fn deciding_label(
    series: &ShallowSeries,
    names: &[Box<[u8]>],
) -> Result<Option<(usize, Vec<u8>)>, prost::DecodeError> {
    let mut best: Option<(usize, usize, Vec<u8>)> = None;
    for (at, label) in series.labels.iter().enumerate() {
        let label = ShallowLabel::decode(label.as_slice())?;
        let Some(priority) = names.iter().position(|name| **name == *label.name) else { continue };
        let better = best.as_ref().is_none_or(|(so_far, ..)| priority < *so_far);
        if better && !label.value.is_empty() {
            best = Some((priority, at, label.value));
            if priority == 0 {
                break;
            }
        }
    }
    Ok(best.map(|(_, at, value)| (at, value)))
}

/// The replica that a series names, when the label at `cut` is taken out.
fn replica(series: &ShallowSeries, cut: Option<usize>, names: Option<&HaLabels>) -> MergeKey {
    let Some(names) = names else { return MergeKey::Ha(None) };
    let (mut cluster, mut replica) = (Vec::new(), Vec::new());
    for (at, label) in series.labels.iter().enumerate() {
        // Labels behind the one that decides may be broken; nobody has looked.
        let Ok(label) = ShallowLabel::decode(label.as_slice()) else { break };
        if Some(at) != cut && *label.name == *names.cluster {
            cluster.clone_from(&label.value);
        }
        if Some(at) != cut && *label.name == *names.replica {
            replica.clone_from(&label.value);
        }
    }
    if cluster.is_empty() || replica.is_empty() {
        return MergeKey::Ha(None);
    }
    MergeKey::Ha(Some(Box::new(HaReplica { cluster: cluster.into(), replica: replica.into() })))
}

/// The field of a series less its label number `cut`.
fn without_label(field: &[u8], cut: Option<usize>) -> Vec<u8> {
    let Some(cut) = cut else { return field.to_vec() };
    let body = &field[body_at(field)..];
    let label = raw_fields(body).into_iter().filter(|field| field.number == 1).nth(cut).unwrap().range;
    let kept = [&body[..label.start], &body[label.end..]].concat();
    let mut out = vec![0x0a];
    encode_varint(kept.len() as u64, &mut out);
    out.extend_from_slice(&kept);
    out
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
    let raw = |field: &RawField| &request[field.range.clone()];
    let raw_series: Vec<&[u8]> = fields.iter().filter(|field| field.number == 1).map(raw).collect();
    let mut all = Expected { series: decoded.timeseries.len() as u64, ..Expected::default() };
    let mut cuts = false;
    for (at, series) in decoded.timeseries.iter().enumerate() {
        let samples = (series.samples.len() + series.histograms.len()) as u32;
        all.samples += u64::from(samples);
        let label = deciding_label(series, &rules.tenant.labels).map_err(too_deep)?;
        let cut = label.as_ref().filter(|_| rules.tenant.label_remove).map(|(at, _)| *at);
        let value = label.as_ref().map(|(_, value)| value.as_slice());
        let tenant = match rules.tenant.resolve(value, source) {
            Ok(tenant) => tenant.as_str().to_owned(),
            Err(error) => {
                let (policy, count, reason) = match error {
                    TenantError::Missing { .. } => {
                        (rules.tenant.on_missing, &mut all.missing, "missing_tenant")
                    }
                    TenantError::Invalid { .. } => {
                        (rules.tenant.on_invalid, &mut all.invalid, "invalid_tenant")
                    }
                    TenantError::Dropped { .. } => {
                        all.dropped += 1;
                        all.dropped_samples += u64::from(samples);
                        continue;
                    }
                };
                if policy == Policy::Reject {
                    return Err(Refusal::Reason(reason));
                }
                *count += 1;
                all.refused_samples += u64::from(samples);
                continue;
            }
        };
        let merge = replica(series, cut, rules.ha);
        let part = find_part(&mut all.parts, tenant, merge, rules.limits.tenants_max)?;
        part.bytes.extend_from_slice(&without_label(raw_series[at], cut));
        part.series += 1;
        part.samples += samples;
        part.origin.push((at, cut));
        cuts |= cut.is_some();
    }
    if decoded.timeseries.is_empty() && decoded.metadata.is_empty() {
        return Err(Refusal::Reason("empty"));
    }
    let raw_metadata: Vec<&[u8]> = fields.iter().filter(|field| field.number == 3).map(raw).collect();
    all.metadata_dropped = raw_metadata.len() as u64;
    if !matches!(rules.metadata, Metadata::Drop)
        && !raw_metadata.is_empty()
        && let Ok(tenant) = rules.tenant.resolve(None, source)
    {
        let tenant = tenant.as_str().to_owned();
        let part = find_part(&mut all.parts, tenant, MergeKey::Ha(None), rules.limits.tenants_max)?;
        part.bytes.extend_from_slice(&raw_metadata.concat());
        part.metadata = true;
        all.metadata_dropped = 0;
    }
    all.passthrough =
        all.parts.len() == 1 && !cuts && all.missing + all.invalid + all.dropped + all.metadata_dropped == 0;
    unknown_fields(request, &fields, all)
}

fn find_part(
    parts: &mut Vec<ExpectedPart>,
    tenant: String,
    merge: MergeKey,
    tenants_max: usize,
) -> Result<&mut ExpectedPart, Refusal> {
    let at = parts.iter().position(|part| part.tenant == tenant).unwrap_or(parts.len());
    if at == tenants_max {
        return Err(Refusal::Reason("too_many_tenants"));
    }
    if at == parts.len() {
        let (bytes, origin) = (Vec::new(), Vec::new());
        parts.push(ExpectedPart { tenant, bytes, series: 0, samples: 0, merge, origin, metadata: false });
    }
    Ok(&mut parts[at])
}

/// What becomes of the fields at the top that are unknown.
fn unknown_fields(request: &[u8], fields: &[RawField], mut all: Expected) -> Result<Expected, Refusal> {
    let numbers = [WireType::Varint, WireType::ThirtyTwoBit, WireType::SixtyFourBit];
    let unknown = || fields.iter().filter(|field| field.number != 1 && field.number != 3);
    let scalars: Vec<u8> = unknown()
        .filter(|field| numbers.contains(&field.wire_type))
        .flat_map(|field| request[field.range.clone()].to_vec())
        .collect();
    let others = unknown().filter(|field| !numbers.contains(&field.wire_type)).count();
    if all.passthrough {
        all.parts[0].bytes = request.to_vec();
        if !scalars.is_empty() || others > 0 {
            all.parts[0].merge = MergeKey::Alone;
        }
        return Ok(all);
    }
    if scalars.len() > REQUEST_SCALARS_BYTES_MAX {
        return Err(Refusal::Reason("too_many_fields"));
    }
    all.unknown_fields_dropped = others as u64;
    for part in all.parts.iter_mut().filter(|_| !scalars.is_empty()) {
        part.bytes = [&scalars, &part.bytes[..]].concat();
        part.merge = MergeKey::Alone;
    }
    Ok(all)
}
