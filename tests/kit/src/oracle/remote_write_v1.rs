//! The oracle of Remote Write 1.0.

use prost::Message;

use super::{LeftOut, Merge, Part, Refusal, Rules, ShallowLabel, find_part, unknown_fields};
use crate::fields::{RawField, field, raw_fields};

/// A request, decoded as deep as the scanner reads it.
#[derive(Clone, PartialEq, Message)]
pub struct ShallowRequest {
    /// Its series.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<ShallowSeries>,
    /// Its metadata.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub metadata: Vec<Vec<u8>>,
}

/// A series, decoded as deep as the scanner reads it.
#[derive(Clone, PartialEq, Message)]
pub struct ShallowSeries {
    /// Its labels.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub labels: Vec<Vec<u8>>,
    /// Its samples.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub samples: Vec<Vec<u8>>,
    /// Its exemplars.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub exemplars: Vec<Vec<u8>>,
    /// Its histograms.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub histograms: Vec<Vec<u8>>,
}

/// The expected result of a request that is accepted.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Expected {
    /// In the order of each tenant's first series.
    pub parts: Vec<Part>,
    /// All series that came in.
    pub series: u64,
    /// All samples and histograms that came in.
    pub samples: u64,
    /// What is left out.
    pub left_out: LeftOut,
    /// Metadata that is dropped.
    pub metadata_dropped: u64,
    /// Unknown fields that are dropped.
    pub unknown_fields_dropped: u64,
    /// Whether the request is forwarded as the bytes that came in.
    pub passthrough: bool,
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
fn replica(series: &ShallowSeries, cut: Option<usize>, names: Option<(&[u8], &[u8])>) -> Merge {
    let Some(names) = names else { return Merge::Ha(None) };
    let (mut cluster, mut replica) = (Vec::new(), Vec::new());
    for (at, label) in series.labels.iter().enumerate() {
        // Labels after the one that decides may be broken, as the scanner does not read them.
        let Ok(label) = ShallowLabel::decode(label.as_slice()) else { break };
        if Some(at) != cut && label.name == names.0 {
            cluster.clone_from(&label.value);
        }
        if Some(at) != cut && label.name == names.1 {
            replica.clone_from(&label.value);
        }
    }
    let is_named = !cluster.is_empty() && !replica.is_empty();
    Merge::Ha(is_named.then_some((cluster, replica)))
}

/// The field of a series without its label number `cut`.
fn without_label(request: &[u8], series: &RawField, cut: Option<usize>) -> Vec<u8> {
    let Some(cut) = cut else { return series.whole(request).to_vec() };
    let body = series.body(request);
    let fields = raw_fields(body).unwrap();
    let label = fields.into_iter().filter(|field| field.number == 1).nth(cut).unwrap().range;
    field(1, &[&body[..label.start], &body[label.end..]].concat(), (0, 0))
}

/// Splits the inflated `request`.
///
/// # Errors
/// When it must be refused.
pub fn expect(request: &[u8], rules: &Rules<'_>) -> Result<Expected, Refusal> {
    let decoded = ShallowRequest::decode(request)?;
    let fields = raw_fields(request).unwrap();
    let raw_series = fields.iter().filter(|field| field.number == 1);
    let mut all = Expected { series: decoded.timeseries.len() as u64, ..Expected::default() };
    let mut cuts = false;
    for (at, (series, raw)) in decoded.timeseries.iter().zip(raw_series).enumerate() {
        let samples = (series.samples.len() + series.histograms.len()) as u32;
        all.samples += u64::from(samples);
        let label = deciding_label(series, rules.labels)?;
        let cut = label.as_ref().filter(|_| rules.label_remove).map(|(at, _)| *at);
        let value = label.as_ref().map(|(_, value)| value.as_slice());
        let Some(tenant) = all.left_out.tenant(rules, value, u64::from(samples))? else { continue };
        let merge = replica(series, cut, rules.ha);
        let place = find_part(&mut all.parts, &tenant, merge, rules)?;
        let part = &mut all.parts[place];
        part.bytes.extend_from_slice(&without_label(request, raw, cut));
        part.series += 1;
        part.samples += samples;
        part.origin.push((at, cut));
        cuts |= cut.is_some();
    }
    if decoded.timeseries.is_empty() && decoded.metadata.is_empty() {
        return Err(Refusal::Reason("empty"));
    }
    metadata(request, &fields, &mut all, rules)?;
    all.passthrough = all.parts.len() == 1 && !cuts && all.left_out.is_nothing() && all.metadata_dropped == 0;
    let unknown = fields.iter().filter(|field| !matches!(field.number, 1 | 3));
    all.unknown_fields_dropped = unknown_fields(request, unknown, all.passthrough, &mut all.parts, rules)?;
    Ok(all)
}

/// Adds the request's metadata to a part, or counts it as dropped.
fn metadata(
    request: &[u8],
    fields: &[RawField],
    all: &mut Expected,
    rules: &Rules<'_>,
) -> Result<(), Refusal> {
    let raw: Vec<&[u8]> =
        fields.iter().filter(|field| field.number == 3).map(|field| field.whole(request)).collect();
    all.metadata_dropped = raw.len() as u64;
    if !rules.metadata_to_default || raw.is_empty() {
        return Ok(());
    }
    if let Ok(tenant) = (rules.resolve)(None) {
        let place = find_part(&mut all.parts, &tenant, Merge::Ha(None), rules)?;
        all.parts[place].bytes.extend_from_slice(&raw.concat());
        all.parts[place].metadata = true;
        all.metadata_dropped = 0;
    }
    Ok(())
}
