//! Finds the series of a Remote Write 1.0 request, and concatenates those of one tenant.
//!
//! Adjacent series of the same tenant that are forwarded unchanged form one *run*, a range of inflated bytes. Where the
//! series of targets keep together, a part is built with few copies.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::error::SplitError;
use super::families::Learner;
use super::replicas::pair;
use super::scan::{Metadata, Scan, SplitRules};
use super::scratch::{narrow, trim};
use super::tenants::{Resolver, Subject, Tenants};
use super::unknown::UnknownFields;
use crate::limits::REQUEST_FIELDS_MAX;
use crate::model::MergeKey;
use crate::wire::remote_write_v1::{
    Field, Fields, Label, Labels, Malformed, SERIES_KEY, Series, TenantLabels, metadata_family,
};
use crate::wire::varint;

/// Adjacent series of one tenant, as a range of inflated bytes.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The start of the first series' key or, if there is a cut, of the bytes after its length.
    begin: u32,
    end: u32,
    /// The range of a label to remove. If it is not empty, the run is one series.
    cut_begin: u32,
    cut_end: u32,
    /// The slot of its tenant.
    tenant: u32,
}

impl Run {
    fn has_cut(&self) -> bool {
        self.cut_begin != self.cut_end
    }
}

/// The scanned content of a request, to copy into its parts.
#[derive(Default, Debug)]
pub(super) struct ScannedSeries {
    runs: Vec<Run>,
    /// Ranges of inflated bytes with metadata for the default tenant.
    metadata: Vec<(u32, u32)>,
    /// The slot of the default tenant, if it gets metadata.
    metadata_tenant: Option<u32>,
    /// Bytes of the additional copies of metadata that goes to several tenants.
    copied_bytes: usize,
    /// Kept between requests.
    learner: Learner,
    /// Unknown numeric fields, which go into every part.
    scalars: Vec<u8>,
    /// Whether the parts have fields of the request as a whole.
    pub(super) alone: bool,
}

impl ScannedSeries {
    /// Adds a series that is forwarded unchanged; `begin..end` is its whole field.
    #[inline]
    fn push(&mut self, tenants: &mut Tenants, tenant: u32, begin: usize, end: usize) {
        let (begin, end) = (narrow(begin), narrow(end));
        if let Some(last) = self.runs.last_mut()
            && last.tenant == tenant
            && last.end == begin
            && !last.has_cut()
        {
            last.end = end;
            return;
        }
        tenants.add_item(tenant);
        self.runs.push(Run { begin, end, cut_begin: 0, cut_end: 0, tenant });
    }

    /// Adds a series without the label `cut` within it; `begin..end` are the bytes after its length.
    fn push_without(
        &mut self,
        tenants: &mut Tenants,
        tenant: u32,
        begin: usize,
        end: usize,
        cut: &Label<'_>,
    ) {
        tenants.add_item(tenant);
        self.runs.push(Run {
            begin: narrow(begin),
            end: narrow(end),
            cut_begin: narrow(begin + cut.range.start),
            cut_end: narrow(begin + cut.range.end),
            tenant,
        });
    }

    fn push_metadata(&mut self, begin: usize, end: usize) {
        let (begin, end) = (narrow(begin), narrow(end));
        match self.metadata.last_mut() {
            Some(last) if last.1 == begin => last.1 = end,
            _ => self.metadata.push((begin, end)),
        }
    }

    /// Appends the part of `tenant` to `out`.
    pub(super) fn gather(&self, inflated: &[u8], tenants: &Tenants, tenant: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.scalars);
        for &at in tenants.items(tenant) {
            let run = self.runs[at as usize];
            let (begin, end) = (run.begin as usize, run.end as usize);
            if !run.has_cut() {
                out.extend_from_slice(&inflated[begin..end]);
                continue;
            }
            let (cut_begin, cut_end) = (run.cut_begin as usize, run.cut_end as usize);
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

    pub(super) fn release(&mut self) {
        trim(&mut self.runs);
        trim(&mut self.metadata);
        self.metadata_tenant = None;
        self.copied_bytes = 0;
        self.scalars.clear();
        self.alone = false;
    }

    #[cfg(test)]
    pub(super) fn scratch_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
    }
}

/// Walks over an inflated request once, and records its content in `found`, which must be empty.
pub(super) fn scan(
    inflated: &[u8],
    resolver: Resolver<'_>,
    found: &mut ScannedSeries,
) -> Result<Scan, SplitError> {
    let labels = TenantLabels::new(&resolver.rules.tenant.labels);
    Pass { inflated, labels, resolver, found }.run()
}

/// A pass over an inflated request.
struct Pass<'a> {
    inflated: &'a [u8],
    labels: TenantLabels<'a>,
    resolver: Resolver<'a>,
    found: &'a mut ScannedSeries,
}

impl Pass<'_> {
    fn run(mut self) -> Result<Scan, SplitError> {
        let mut fields = Fields::new(self.inflated);
        let mut left = REQUEST_FIELDS_MAX;
        let (mut metadata, mut routed): (u64, u64) = (0, 0);
        let mut unknown = UnknownFields::default();
        loop {
            let begin = fields.at_byte();
            let Some(field) = fields.take()? else { break };
            let end = fields.at_byte();
            left = left.checked_sub(1).ok_or(SplitError::TooManyFields { fields_max: REQUEST_FIELDS_MAX })?;
            match field {
                Field::Series(series) => self.series(series, begin, end)?,
                Field::Metadata(entry) => {
                    metadata += 1;
                    routed += u64::from(self.metadata(entry, begin, end)?);
                }
                Field::Scalar => unknown.scalar(&self.inflated[begin..end], &mut self.found.scalars),
                Field::Other => unknown.others += 1,
            }
        }
        if self.resolver.scan.series == 0 && metadata == 0 {
            return Err(SplitError::Empty);
        }
        self.place_metadata(metadata - routed)?;
        self.conclude(&unknown)
    }

    #[inline(always)]
    fn series(&mut self, series: &[u8], begin: usize, end: usize) -> Result<(), SplitError> {
        let seen = self.labels.read(series).map_err(|fault| Malformed { fault, at_byte: begin })?;
        let value = seen.tenant.as_ref().map(|label| label.value);
        let subject = SeriesSubject { series, seen: &seen };
        let Some(tenant) = self.resolver.slot(value, seen.samples, &subject)? else { return Ok(()) };
        if let Metadata::Route(families) = self.resolver.rules.metadata {
            let tenant = &self.resolver.tenants.slots[tenant as usize].id;
            self.found.learner.learn(families, &subject.name(), tenant);
        }
        let tenants = &mut *self.resolver.tenants;
        match &seen.tenant {
            Some(label) if self.resolver.rules.tenant.label_remove => {
                self.found.push_without(tenants, tenant, end - series.len(), end, label);
            }
            _ => self.found.push(tenants, tenant, begin, end),
        }
        Ok(())
    }

    /// Routes a metadata entry to the tenants that have its family and that the sender may write to, and returns
    /// whether there are any. Otherwise keeps it for the default tenant, unless it is dropped.
    fn metadata(&mut self, entry: &[u8], begin: usize, end: usize) -> Result<bool, SplitError> {
        let families = match self.resolver.rules.metadata {
            Metadata::Drop => return Ok(false),
            Metadata::ToDefault => {
                self.found.push_metadata(begin, end);
                return Ok(false);
            }
            Metadata::Route(families) => families,
        };
        let family = metadata_family(entry).map_err(|fault| Malformed { fault, at_byte: begin })?;
        let tenants = families.tenants_of(family);
        let bytes_max = self.resolver.rules.limits.inflated_bytes_max;
        self.found.copied_bytes += (end - begin) * tenants.len().saturating_sub(1);
        if self.found.copied_bytes > bytes_max {
            return Err(SplitError::TooManyCopies { bytes_max });
        }
        let mut routed = false;
        for tenant in &tenants {
            let Some(slot) = self.resolver.slot_of_id(tenant)? else { continue };
            self.found.push(self.resolver.tenants, slot, begin, end);
            routed = true;
        }
        if !routed {
            self.found.push_metadata(begin, end);
        }
        Ok(routed)
    }

    /// Assigns the metadata that was not routed, `entries` in number, to the default tenant, if there is a usable one.
    fn place_metadata(&mut self, entries: u64) -> Result<(), SplitError> {
        if !self.found.metadata.is_empty() {
            self.found.metadata_tenant = self.resolver.default_slot()?;
        }
        if self.found.metadata_tenant.is_none() {
            self.resolver.scan.metadata_dropped = entries;
            self.found.metadata.clear();
        }
        Ok(())
    }

    /// Decides how the request is forwarded.
    fn conclude(self, unknown: &UnknownFields) -> Result<Scan, SplitError> {
        let Resolver { tenants, mut scan, .. } = self.resolver;
        let found = self.found;
        scan.tenants = tenants.slots.len();
        scan.passthrough = scan.tenants == 1
            && scan.refused.series() == 0
            && scan.metadata_dropped == 0
            && !found.runs.iter().any(Run::has_cut);
        found.alone = unknown.scalars_bytes > 0;
        if scan.passthrough {
            found.alone |= unknown.others > 0;
            return Ok(scan);
        }
        unknown.check()?;
        scan.unknown_fields_dropped = unknown.others;
        tenants.sort(found.runs.iter().map(|run| run.tenant));
        Ok(scan)
    }
}

/// A series that has been read.
struct SeriesSubject<'a> {
    series: &'a [u8],
    seen: &'a Series<'a>,
}

impl Subject for SeriesSubject<'_> {
    const NOUN: &'static str = "series";

    /// Returns the replica that it names, ignoring a label that is removed.
    fn merge_key(&self, rules: &SplitRules<'_>) -> MergeKey {
        let Some(names) = rules.ha else { return MergeKey::Ha(None) };
        let tenant = self.seen.tenant.as_ref().filter(|_| rules.tenant.label_remove);
        let cut = tenant.map(|label| label.range.start);
        let labels = Labels::about(self.series, [&names.cluster, &names.replica]);
        let kept = labels.filter(|label| Some(label.range.start) != cut);
        let (cluster, replica) = pair(kept.map(|label| (label.name, label.value)), names);
        MergeKey::replica(cluster, replica)
    }

    fn name(&self) -> Cow<'_, [u8]> {
        let name = Labels::new(self.series).find(|label| label.name == b"__name__");
        Cow::Borrowed(name.map_or(b"no name", |label| label.value))
    }
}
