//! Finds the streams of a Loki push, and concatenates those of one tenant.
//!
//! Constraints that shaped it:
//!
//! * A stream's labels name its tenant or, if they do not, the structured metadata of each of its entries does. So one
//!   stream may have to become several with the same labels, one for each tenant, whose entries keep their order.
//! * The labels and other common fields of such a stream are copied for each tenant. The limit on the inflated request
//!   bounds these copies; otherwise a push of some megabytes could become as many gigabytes. Besides the labels, only
//!   numeric fields are common: unknown bytes could be one tenant's data.
//! * Loki skips streams without entries. So do we, without requiring a tenant for them. As in Loki, their labels must
//!   still be valid.
//!
//! Adjacent streams of the same tenant that are forwarded unchanged form one *run*.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use super::error::SplitError;
use super::scan::{Scan, SplitRules};
use super::scratch::{narrow, trim};
use super::tenants::{Resolver, Subject, Tenants};
use super::unknown::UnknownFields;
use crate::limits::{REQUEST_FIELDS_MAX, REQUEST_SCALARS_BYTES_MAX};
use crate::model::MergeKey;
use crate::tenant;
use crate::wire::loki::labels::Labels;
use crate::wire::loki::{
    Field, Fields, LABELS_KEY, Malformed, STREAM_KEY, Stream, StreamField, StreamFields, entry_tenant,
};
use crate::wire::protobuf::Fault;
use crate::wire::varint;

/// A run or a stream to copy for one tenant.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// The slot of the tenant.
    tenant: u32,
    /// For a rebuilt stream, the index of its labels in [`ScannedStreams::texts`]; `None` for a run.
    text: Option<u32>,
    /// For a run, a range of inflated bytes; for a rebuilt stream, a range of [`ScannedStreams::ranges`].
    begin: u32,
    end: u32,
}

/// A stream's labels, as ranges of inflated bytes: their text, and the label to remove from it.
#[derive(Clone, Copy, Debug)]
struct Text {
    begin: u32,
    end: u32,
    cut_begin: u32,
    cut_end: u32,
}

impl Text {
    fn bytes(self) -> u32 {
        self.end - self.begin - (self.cut_end - self.cut_begin)
    }
}

/// One entry, or adjacent ones of the same tenant, of a stream that is taken apart.
#[derive(Clone, Copy, Debug)]
struct Entries {
    tenant: u32,
    begin: u32,
    end: u32,
}

/// The scanned content of a push, to copy into its parts.
#[derive(Default, Debug)]
pub(super) struct ScannedStreams {
    items: Vec<Item>,
    texts: Vec<Text>,
    /// Ranges of inflated bytes with whole fields of a stream, except its labels.
    ranges: Vec<(u32, u32)>,
    /// The entries of the current stream.
    entries: Vec<Entries>,
    /// Unknown numeric fields, which go into every part.
    scalars: Vec<u8>,
    /// Whether the parts have fields of the request as a whole.
    pub(super) alone: bool,
}

impl ScannedStreams {
    /// Adds a stream that is forwarded unchanged; `begin..end` is its whole field.
    fn push_run(&mut self, tenants: &mut Tenants, tenant: u32, begin: usize, end: usize) {
        let (begin, end) = (narrow(begin), narrow(end));
        if let Some(last) = self.items.last_mut()
            && (last.tenant, last.end, last.text) == (tenant, begin, None)
        {
            last.end = end;
            return;
        }
        tenants.add_item(tenant);
        self.items.push(Item { tenant, text: None, begin, end });
    }

    /// Adds a rebuilt stream with the last of the texts, and the ranges from `first_range` on.
    fn push_stream(&mut self, tenants: &mut Tenants, tenant: u32, first_range: usize) {
        tenants.add_item(tenant);
        let text = Some(narrow(self.texts.len() - 1));
        self.items.push(Item { tenant, text, begin: narrow(first_range), end: narrow(self.ranges.len()) });
    }

    /// Adds a range to the stream that is being rebuilt, whose ranges begin at `first`.
    fn push_range(&mut self, first: usize, begin: u32, end: u32) {
        match self.ranges.get_mut(first..).and_then(<[_]>::last_mut) {
            Some(last) if last.1 == begin => last.1 = end,
            _ => self.ranges.push((begin, end)),
        }
    }

    /// Appends the part of `tenant` to `out`.
    pub(super) fn gather(&self, inflated: &[u8], tenants: &Tenants, tenant: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.scalars);
        for &at in tenants.items(tenant) {
            let Item { text, begin, end, .. } = self.items[at as usize];
            let range = begin as usize..end as usize;
            match text {
                None => out.extend_from_slice(&inflated[range]),
                Some(text) => put_stream(inflated, self.texts[text as usize], &self.ranges[range], out),
            }
        }
    }

    pub(super) fn release(&mut self) {
        trim(&mut self.items);
        trim(&mut self.texts);
        trim(&mut self.ranges);
        trim(&mut self.entries);
        self.scalars.clear();
        self.alone = false;
    }
}

/// Appends a stream with these labels and fields.
fn put_stream(inflated: &[u8], text: Text, ranges: &[(u32, u32)], out: &mut Vec<u8>) {
    let fields_bytes: usize = ranges.iter().map(|(begin, end)| (end - begin) as usize).sum();
    let text_bytes = text.bytes() as usize;
    let labels_bytes = if text_bytes > 0 { 1 + varint::len(text_bytes as u64) + text_bytes } else { 0 };
    out.push(STREAM_KEY);
    varint::put(out, (labels_bytes + fields_bytes) as u64);
    if text_bytes > 0 {
        out.push(LABELS_KEY);
        varint::put(out, text_bytes as u64);
        out.extend_from_slice(&inflated[text.begin as usize..text.cut_begin as usize]);
        out.extend_from_slice(&inflated[text.cut_end as usize..text.end as usize]);
    }
    for &(begin, end) in ranges {
        out.extend_from_slice(&inflated[begin as usize..end as usize]);
    }
}

/// Walks over an inflated push once, and records its content in `found`, which must be empty.
pub(super) fn scan(
    inflated: &[u8],
    resolver: Resolver<'_>,
    found: &mut ScannedStreams,
) -> Result<Scan, SplitError> {
    let copies_bytes_left = resolver.rules.limits.inflated_bytes_max;
    Pass {
        inflated,
        resolver,
        found,
        unknown: UnknownFields::default(),
        skipped_empty: false,
        copies_bytes_left,
    }
    .run()
}

/// A pass over an inflated push.
struct Pass<'a> {
    inflated: &'a [u8],
    resolver: Resolver<'a>,
    found: &'a mut ScannedStreams,
    unknown: UnknownFields,
    /// Whether a stream without entries was skipped.
    skipped_empty: bool,
    /// Bytes that the copies of common fields may still take.
    copies_bytes_left: usize,
}

/// A stream that has been read, with its labels and their positions in the request.
#[derive(Clone, Copy)]
struct StreamAt<'a> {
    stream: &'a [u8],
    labels: &'a [u8],
    /// The start of its field, of its bytes, and of its labels' text.
    field_at: usize,
    stream_at: usize,
    labels_at: usize,
}

impl StreamAt<'_> {
    fn end(&self) -> usize {
        self.stream_at + self.stream.len()
    }

    fn malformed(&self, fault: Fault) -> Malformed {
        Malformed { fault, at_byte: self.field_at }
    }

    /// Converts a range of the stream to one of the request.
    fn range_in_request(&self, range: &Range<usize>) -> (u32, u32) {
        (narrow(self.stream_at + range.start), narrow(self.stream_at + range.end))
    }

    /// Returns its labels without the range `cut` of their text.
    fn text(&self, cut: &Range<usize>) -> Text {
        let at = |offset| narrow(self.labels_at + offset);
        Text { begin: at(0), end: at(self.labels.len()), cut_begin: at(cut.start), cut_end: at(cut.end) }
    }
}

/// The label that names a stream's tenant, and its range in the labels' text.
struct TenantLabel<'a> {
    value: Cow<'a, [u8]>,
    cut: Range<usize>,
}

impl<'a> Pass<'a> {
    fn run(mut self) -> Result<Scan, SplitError> {
        let mut fields = Fields::new(self.inflated);
        let mut left = REQUEST_FIELDS_MAX;
        loop {
            let begin = fields.at_byte();
            let Some(field) = fields.take()? else { break };
            let end = fields.at_byte();
            left = left.checked_sub(1).ok_or(SplitError::TooManyFields { fields_max: REQUEST_FIELDS_MAX })?;
            match field {
                Field::Stream(stream) => self.stream(stream, begin, end)?,
                Field::Scalar => self.unknown.scalar(&self.inflated[begin..end], &mut self.found.scalars),
                Field::Other => self.unknown.others += 1,
            }
        }
        if self.resolver.scan.series == 0 {
            return Err(SplitError::EmptyPush);
        }
        self.conclude()
    }

    fn stream(&mut self, stream: &'a [u8], begin: usize, end: usize) -> Result<(), SplitError> {
        let seen = Stream::read(stream).map_err(|fault| Malformed { fault, at_byte: begin })?;
        let stream_at = end - stream.len();
        let labels_at = stream_at + seen.labels.start;
        let at = StreamAt { stream, labels: &stream[seen.labels], field_at: begin, stream_at, labels_at };
        self.resolver.count(seen.entries);
        let tenant_label = self.tenant_label(at.labels)?;
        if seen.entries == 0 {
            self.skipped_empty = true;
            return Ok(());
        }
        match tenant_label {
            Some(label) => self.stream_of_one(at, &label, seen.entries),
            None => self.stream_of_entries(at),
        }
    }

    /// Returns the label that names the tenant, if there is one. Reads all labels, as Loki will.
    fn tenant_label(&self, text: &'a [u8]) -> Result<Option<TenantLabel<'a>>, SplitError> {
        let names = &self.resolver.rules.tenant.labels;
        let (mut tenant_label, mut priority) = (None, names.len());
        let mut labels = Labels::new(text);
        let malformed = |fault| SplitError::Labels {
            place: self.resolver.scan.series,
            labels: tenant::excerpt(text),
            fault,
        };
        while let Some(label) = labels.take().map_err(malformed)? {
            let found = names.iter().position(|name| **name == *label.name);
            if let Some(found) = found.filter(|&found| found < priority && !label.value.is_empty()) {
                priority = found;
                tenant_label = Some(TenantLabel { value: label.value, cut: label.cut });
            }
        }
        Ok(tenant_label)
    }

    /// Handles a stream whose labels name its tenant.
    fn stream_of_one(
        &mut self,
        at: StreamAt<'_>,
        label: &TenantLabel<'_>,
        entries: u32,
    ) -> Result<(), SplitError> {
        let subject = StreamSubject { labels: at.labels };
        let Some(tenant) = self.resolver.find(Some(&label.value), entries, &subject)? else { return Ok(()) };
        let removes = self.resolver.rules.loki_label_remove;
        let (found, tenants) = (&mut *self.found, &mut *self.resolver.tenants);
        tenants.count(tenant, 1, entries);
        if !removes {
            found.push_run(tenants, tenant, at.field_at, at.end());
            return Ok(());
        }
        found.texts.push(at.text(&label.cut));
        let first = found.ranges.len();
        let mut fields = StreamFields::new(at.stream);
        while let Some((field, range)) = fields.take().map_err(|fault| at.malformed(fault))? {
            // The hash is that of the original labels.
            if !matches!(field, StreamField::Labels(_) | StreamField::Hash) {
                let (begin, end) = at.range_in_request(&range);
                found.push_range(first, begin, end);
            }
        }
        found.push_stream(tenants, tenant, first);
        Ok(())
    }

    /// Handles a stream whose entries may name their tenants.
    fn stream_of_entries(&mut self, at: StreamAt<'_>) -> Result<(), SplitError> {
        let subject = StreamSubject { labels: at.labels };
        let before = self.resolver.refused_series();
        self.found.entries.clear();
        let mut fields = StreamFields::new(at.stream);
        while let Some((field, range)) = fields.take().map_err(|fault| at.malformed(fault))? {
            let StreamField::Entry(entry) = field else { continue };
            let names = &self.resolver.rules.tenant.labels;
            let value = entry_tenant(entry, names).map_err(|fault| at.malformed(fault))?;
            let Some(tenant) = self.resolver.find(value, 1, &subject)? else { continue };
            self.resolver.tenants.count(tenant, 0, 1);
            let (begin, end) = at.range_in_request(&range);
            match self.found.entries.last_mut() {
                Some(last) if (last.tenant, last.end) == (tenant, begin) => last.end = end,
                _ => self.found.entries.push(Entries { tenant, begin, end }),
            }
        }
        let some_refused = self.resolver.count_refused_once(before);
        let Some(&Entries { tenant, .. }) = self.found.entries.first() else { return Ok(()) };
        if !some_refused && self.found.entries.iter().all(|entries| entries.tenant == tenant) {
            self.resolver.tenants.count(tenant, 1, 0);
            self.found.push_run(self.resolver.tenants, tenant, at.field_at, at.end());
            return Ok(());
        }
        self.take_apart(at)
    }

    /// Splits a stream into one for each tenant of its entries.
    fn take_apart(&mut self, at: StreamAt<'_>) -> Result<(), SplitError> {
        let common = self.found.ranges.len();
        let common_bytes = self.common_fields(at)?;
        let common = common..self.found.ranges.len();
        self.found.texts.push(at.text(&(0..0)));
        let mut entries = std::mem::take(&mut self.found.entries);
        entries.sort_unstable_by_key(|entries| (entries.tenant, entries.begin));
        for of_tenant in entries.chunk_by(|a, b| a.tenant == b.tenant) {
            let first = self.found.ranges.len();
            let taken_bytes = common_bytes + size_of::<Item>() + common.len() * size_of::<(u32, u32)>();
            let bytes_max = self.resolver.rules.limits.inflated_bytes_max;
            let left = self.copies_bytes_left.checked_sub(taken_bytes);
            self.copies_bytes_left = left.ok_or(SplitError::TooManyCopies { bytes_max })?;
            self.found.ranges.extend_from_within(common.clone());
            for entries in of_tenant {
                self.found.push_range(first, entries.begin, entries.end);
            }
            let tenant = of_tenant[0].tenant;
            self.resolver.tenants.count(tenant, 1, 0);
            self.found.push_stream(self.resolver.tenants, tenant, first);
        }
        self.found.entries = entries;
        Ok(())
    }

    /// Records the ranges of the fields that each of the resulting streams gets, besides its labels. Returns the size
    /// of these fields and the labels.
    fn common_fields(&mut self, at: StreamAt<'_>) -> Result<usize, SplitError> {
        let first = self.found.ranges.len();
        let mut scalars_bytes = 0;
        let mut fields = StreamFields::new(at.stream);
        while let Some((field, range)) = fields.take().map_err(|fault| at.malformed(fault))? {
            match field {
                StreamField::Labels(_) | StreamField::Entry(_) => {}
                StreamField::Hash | StreamField::Scalar => {
                    scalars_bytes += range.len();
                    let (begin, end) = at.range_in_request(&range);
                    self.found.push_range(first, begin, end);
                }
                StreamField::Other => self.resolver.scan.unknown_fields_dropped += 1,
            }
        }
        if scalars_bytes > REQUEST_SCALARS_BYTES_MAX {
            return Err(SplitError::TooManyScalars { bytes_max: REQUEST_SCALARS_BYTES_MAX });
        }
        Ok(at.labels.len() + scalars_bytes)
    }

    /// Decides how the push is forwarded.
    fn conclude(self) -> Result<Scan, SplitError> {
        let Resolver { tenants, mut scan, .. } = self.resolver;
        let found = self.found;
        scan.tenants = tenants.slots.len();
        scan.passthrough = scan.tenants == 1
            && scan.refused.series() == 0
            && !self.skipped_empty
            && found.items.iter().all(|item| item.text.is_none());
        found.alone = self.unknown.scalars_bytes > 0;
        if scan.passthrough {
            found.alone |= self.unknown.others > 0;
            return Ok(scan);
        }
        self.unknown.check()?;
        scan.unknown_fields_dropped += self.unknown.others;
        tenants.sort(found.items.iter().map(|item| item.tenant));
        Ok(scan)
    }
}

/// A stream that has been read.
struct StreamSubject<'a> {
    labels: &'a [u8],
}

impl Subject for StreamSubject<'_> {
    const NOUN: &'static str = "stream";

    /// Always the key without a replica, as Loki has no HA replicas.
    fn merge_key(&self, _: &SplitRules<'_>) -> MergeKey {
        MergeKey::Ha(None)
    }

    fn name(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(if self.labels.is_empty() { b"no labels" } else { self.labels })
    }
}

#[cfg(test)]
mod tests;
