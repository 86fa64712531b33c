//! The oracle of Loki's pushes.

use prost::Message;

use super::loki_labels::labels as loki_labels;
use super::{
    LeftOut, Merge, Part, Refusal, Rules, ShallowLabel, deciding_label, find_part, scalars, unknown_fields,
};
use crate::fields::{field, raw_fields};

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
    structured_metadata: Vec<ShallowLabel>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    parsed: Vec<Vec<u8>>,
}

/// The expected result of a push that is accepted.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Expected {
    /// In the order of each tenant's first entry.
    pub parts: Vec<Part>,
    /// All streams that came in.
    pub streams: u64,
    /// All entries that came in.
    pub entries: u64,
    /// What is left out: streams of which entries are left out, and those entries.
    pub left_out: LeftOut,
    /// Unknown fields that are dropped.
    pub unknown_fields_dropped: u64,
    /// Whether the request is forwarded as the bytes that came in.
    pub passthrough: bool,
}

/// Splits the inflated `push`.
///
/// # Errors
/// When it must be refused.
pub fn expect(push: &[u8], rules: &Rules<'_>) -> Result<Expected, Refusal> {
    let decoded = ShallowPush::decode(push)?;
    let fields = raw_fields(push).unwrap();
    let mut all =
        Expected { streams: decoded.streams.len() as u64, passthrough: true, ..Expected::default() };
    for (stream, field) in decoded.streams.iter().zip(fields.iter().filter(|field| field.number == 1)) {
        let (field, body) = (field.whole(push), field.body(push));
        Splitting { rules, all: &mut all, stream, field, body }.run()?;
    }
    if decoded.streams.is_empty() {
        return Err(Refusal::Reason("empty"));
    }
    all.passthrough &= all.parts.len() == 1 && all.left_out.is_nothing();
    let unknown = fields.iter().filter(|field| field.number != 1);
    all.unknown_fields_dropped += unknown_fields(push, unknown, all.passthrough, &mut all.parts, rules)?;
    Ok(all)
}

/// One stream that is being split.
struct Splitting<'a> {
    rules: &'a Rules<'a>,
    all: &'a mut Expected,
    stream: &'a ShallowStream,
    field: &'a [u8],
    body: &'a [u8],
}

impl Splitting<'_> {
    fn run(&mut self) -> Result<(), Refusal> {
        self.all.entries += self.stream.entries.len() as u64;
        let labels = loki_labels(&self.stream.labels).ok_or(Refusal::Reason("bad_labels"))?;
        if self.stream.entries.is_empty() {
            self.all.passthrough = false;
            return Ok(());
        }
        let pairs = labels.iter().map(|(name, value)| (&name[..], &value[..]));
        let names = self.rules.labels;
        let values: Vec<Option<Vec<u8>>> = match deciding_label(pairs, names) {
            Some((at, _)) => return self.whole(&labels, at),
            None => self.stream.entries.iter().map(|entry| entry_value(entry, names)).collect(),
        };
        // The first entry with a fault decides about the refusal.
        let mut parts: Vec<usize> = Vec::new();
        let before = self.all.left_out;
        for (entry, value) in self.stream.entries.iter().zip(&values) {
            ShallowEntry::decode(entry.as_slice())?;
            let part = self.resolve(value.as_deref(), 1)?;
            parts.push(part.unwrap_or(usize::MAX));
        }
        let left_out = &mut self.all.left_out;
        left_out.missing = left_out.missing.min(before.missing + 1);
        left_out.invalid = left_out.invalid.min(before.invalid + 1);
        left_out.dropped = left_out.dropped.min(before.dropped + 1);
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
        if !self.rules.label_remove {
            self.add(part, self.field.to_vec(), entries);
            return Ok(());
        }
        self.all.passthrough = false;
        let fields = raw_fields(self.body).unwrap();
        let kept = fields.iter().filter(|field| field.number != 1 && field.number != 3);
        let kept: Vec<u8> = kept.flat_map(|field| field.whole(self.body)).copied().collect();
        let stream = stream_of(&without(&self.stream.labels, labels, deciding, self.rules), &kept);
        self.add(part, stream, entries);
        Ok(())
    }

    /// A stream for each tenant among the entries.
    fn apart(&mut self, parts: &[usize], own: &[usize]) -> Result<(), Refusal> {
        let fields = raw_fields(self.body).unwrap();
        let (common, dropped) =
            scalars(self.body, fields.iter().filter(|field| field.number > 2), self.rules)?;
        self.all.unknown_fields_dropped += dropped;
        let entries: Vec<&[u8]> =
            fields.iter().filter(|field| field.number == 2).map(|field| field.whole(self.body)).collect();
        for &part in own {
            let owned = entries.iter().zip(parts).filter(|(_, owner)| **owner == part);
            let of_part: Vec<&[u8]> = owned.map(|(entry, _)| *entry).collect();
            let stream = stream_of(&self.stream.labels, &[common.clone(), of_part.concat()].concat());
            self.add(part, stream, of_part.len());
        }
        Ok(())
    }

    fn add(&mut self, part: usize, stream: Vec<u8>, entries: usize) {
        let part = &mut self.all.parts[part];
        part.bytes.extend(stream);
        part.series += 1;
        part.samples += entries as u32;
    }

    /// The index of the part for so many entries, or `None` when they are left out.
    fn resolve(&mut self, value: Option<&[u8]>, entries: usize) -> Result<Option<usize>, Refusal> {
        match self.all.left_out.tenant(self.rules, value, entries as u64)? {
            Some(tenant) => find_part(&mut self.all.parts, &tenant, Merge::Ha(None), self.rules).map(Some),
            None => Ok(None),
        }
    }
}

/// The value by which an entry's metadata names its tenant. `None` for a broken entry, which is refused later.
fn entry_value(entry: &[u8], names: &[Box<[u8]>]) -> Option<Vec<u8>> {
    let entry = ShallowEntry::decode(entry).ok()?;
    let pairs = entry.structured_metadata.iter().map(|pair| (&pair.name[..], &pair.value[..]));
    deciding_label(pairs, names).map(|(_, value)| value.to_vec())
}

/// The field of a stream with these labels and these other fields.
fn stream_of(labels: &[u8], fields: &[u8]) -> Vec<u8> {
    let labels = if labels.is_empty() { Vec::new() } else { field(1, labels, (0, 0)) };
    field(1, &[&labels, fields].concat(), (0, 0))
}

/// The labels' text without label number `at`. One piece is cut out, and the rest has to read as the other labels.
fn without(text: &[u8], labels: &[(Vec<u8>, Vec<u8>)], at: usize, rules: &Rules<'_>) -> Vec<u8> {
    let cut = (rules.cut)(text, at);
    let kept = [&text[..cut.start], &text[cut.end..]].concat();
    let mut others = labels.to_vec();
    others.remove(at);
    assert_eq!(loki_labels(&kept), Some(others), "{}", kept.escape_ascii());
    kept
}
