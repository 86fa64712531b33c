//! Finds the resources of an OTLP export, and takes those apart whose items belong to several tenants.
//!
//! Constraints that shaped it:
//!
//! * A resource's attributes name its tenant or, if they do not, those of each of its scopes or, if these do not
//!   either, those of each item: a data point, a log record or a span. So one resource may have to become several, one
//!   for each tenant, whose items keep their order. All three signals and both notations take this one way.
//! * The resource, the scope and what a metric says of itself are copied for each tenant that has items in them. The
//!   limit on the inflated request bounds these copies. Besides known fields, only numeric fields are copied: unknown
//!   bytes could be one tenant's data.
//! * What is not taken apart is forwarded as the bytes that came in. That holds for a whole scope or metric within a
//!   resource that is taken apart, too.
//! * An export may be empty, and so may a resource: that is no fault (OTLP specification, "OTLP/HTTP Request"), and
//!   such a resource needs no tenant. An empty scope goes along with what is beside it, unless it names a tenant.
//! * What is acknowledged is stored. So a resource without items goes to its tenant if it holds metrics without points
//!   or unknown fields of bytes, which may be items of a kind that is new to us. What no tenant can be given is
//!   counted.
#![forbid(unsafe_code)]

mod found;
mod halve;
mod join;

use std::borrow::Cow;
use std::ops::Range;

use super::error::SplitError;
use super::scan::{Scan, SplitRules};
use super::scratch::narrow;
use super::tenants::{Resolver, Subject};
use super::unknown::UnknownFields;
use crate::limits::REQUEST_FIELDS_MAX;
use crate::model::{MergeKey, Signal};
use crate::wire::otlp::{
    AttributeValue, Attributes, Fault, Held, Level, Malformed, Member, Members, Notation, Owner, Survey,
    each_cut, find_attribute, held, owner,
};

pub(super) use found::ScannedResources;
use found::{Apart, Owned};
pub(super) use halve::halve;
pub(super) use join::Joined;

/// Walks over an inflated export once, and records its content in `found`, which must be empty.
pub(super) fn scan(
    inflated: &[u8],
    signal: Signal,
    notation: Notation,
    resolver: Resolver<'_>,
    found: &mut ScannedResources,
) -> Result<Scan, SplitError> {
    found.begin(signal, notation);
    let copies_bytes_left = resolver.rules.limits.inflated_bytes_max;
    Pass {
        inflated,
        signal,
        notation,
        resolver,
        found,
        unknown: UnknownFields::default(),
        skipped: false,
        copies_bytes_left,
    }
    .run()
}

/// A pass over an inflated export.
struct Pass<'a> {
    inflated: &'a [u8],
    signal: Signal,
    notation: Notation,
    resolver: Resolver<'a>,
    found: &'a mut ScannedResources,
    unknown: UnknownFields,
    /// Whether a resource was skipped, as it holds nothing or nobody can be given what it holds.
    skipped: bool,
    /// Bytes that copies may still take.
    copies_bytes_left: usize,
}

impl<'a> Pass<'a> {
    fn run(mut self) -> Result<Scan, SplitError> {
        let mut members = Members::new(self.notation, self.signal, Level::Export, self.inflated);
        let mut left = REQUEST_FIELDS_MAX;
        let mut at_byte = 0;
        loop {
            let taken = members.take_surveyed();
            let taken = taken.map_err(|(fault, begin)| self.malformed(fault, begin.unwrap_or(at_byte)))?;
            let Some((member, range, survey)) = taken else { break };
            at_byte = range.end;
            left = left.checked_sub(1).ok_or(SplitError::TooManyFields { fields_max: REQUEST_FIELDS_MAX })?;
            match member {
                Member::Child(_, resource) => self.resource(resource, survey, range.start, range.end)?,
                // In JSON a field cannot be copied without its place between commas.
                Member::Scalar if self.notation == Notation::Protobuf => {
                    let field = self.inflated.get(range).unwrap_or_default();
                    self.unknown.scalar(field, &mut self.found.scalars);
                }
                _ => self.unknown.others += 1,
            }
        }
        self.conclude()
    }

    fn malformed(&self, fault: Fault, at_byte: usize) -> SplitError {
        SplitError::MalformedExport(Malformed {
            signal: self.signal,
            notation: self.notation,
            fault,
            at_byte,
        })
    }

    fn resource(
        &mut self,
        resource: &'a [u8],
        (held, owner): Survey<'a>,
        begin: usize,
        end: usize,
    ) -> Result<(), SplitError> {
        let (signal, notation) = (self.signal, self.notation);
        let items = held.items;
        self.resolver.count(items);
        if held.is_nothing() {
            self.skipped = true;
            return Ok(());
        }
        let names = &self.resolver.rules.tenant.labels;
        let named =
            named(notation, Level::Resource, owner, names).map_err(|fault| self.malformed(fault, begin))?;
        let Some(Named { place, value, owner_field, owner }) = named else {
            return self.take_apart(resource, held, begin, end);
        };
        let subject = ResourceSubject { signal, notation, resource };
        let mut room = itoa::Buffer::new();
        let value = value.text(&mut room);
        let Some(tenant) = self.resolver.find(Some(value), items, &subject)? else { return Ok(()) };
        self.resolver.tenants.count(tenant, 1, items);
        if !self.resolver.rules.tenant.label_remove {
            self.found.push_run(tenant, begin, end);
            return Ok(());
        }
        let message_at = end - resource.len();
        let at = |offset: usize| narrow(message_at + offset);
        let cut = found::Cut {
            begin: at(0),
            end: narrow(end),
            owner_field: at(owner_field),
            owner_begin: at(owner.start),
            owner_end: at(owner.end),
            ..found::Cut::default()
        };
        let key = names.get(place).map(|name| &**name).unwrap_or_default();
        let bytes = resource.get(owner.clone()).unwrap_or_default();
        self.found
            .push_cut(tenant, cut, |found, first| match Level::Resource.owner() {
                Some(holder) => each_cut(notation, holder, bytes, key, |range| {
                    let base = message_at + owner.start;
                    if found.pieces() <= REQUEST_FIELDS_MAX {
                        found.push_range(first, base + range.start, base + range.end);
                    }
                }),
                None => Ok(()),
            })
            .map_err(|fault| self.malformed(fault, begin))?;
        check_pieces(self.found.pieces())
    }

    /// Splits a resource into one for each tenant of its scopes or items.
    fn take_apart(
        &mut self,
        resource: &'a [u8],
        held: Held,
        begin: usize,
        end: usize,
    ) -> Result<(), SplitError> {
        let subject = ResourceSubject { signal: self.signal, notation: self.notation, resource };
        let before = self.resolver.refused_series();
        let first = self.found.leaves();
        let mut owners =
            Owners { signal: self.signal, notation: self.notation, subject, resolver: &mut self.resolver };
        let owned = self.found.walk(Level::Resource, resource, end - resource.len(), &mut owners);
        let owned = owned.map_err(|error| match error {
            Stopped::Fault(fault) => self.malformed(fault, begin),
            Stopped::Split(error) => error,
        })?;
        self.resolver.count_refused_once(before);
        match owned {
            Owned::Nobody => {
                if let Some(tenant) = self.without_items(resource, held)? {
                    self.resolver.tenants.count(tenant, 1, 0);
                    self.found.push_run(tenant, begin, end);
                }
                Ok(())
            }
            // It holds metrics without points or unknown fields, which could be those of a tenant that a scope names.
            Owned::LeftOut => {
                self.skipped = true;
                self.resolver.scan.unknown_fields_dropped += 1;
                Ok(())
            }
            Owned::One(tenant) => {
                self.resolver.tenants.count(tenant, 1, 0);
                self.found.push_run(tenant, begin, end);
                Ok(())
            }
            Owned::Several => self.push_apart(first),
        }
    }

    /// Finds the tenant of a resource without items that names none. Its unknown fields may be items, so they are
    /// treated as items without a tenant are. Metrics without points are no reason to refuse a request.
    fn without_items(&mut self, resource: &'a [u8], held: Held) -> Result<Option<u32>, SplitError> {
        if held.unknown {
            let subject = ResourceSubject { signal: self.signal, notation: self.notation, resource };
            return self.resolver.find(None, 0, &subject);
        }
        let tenant = self.resolver.default_slot()?;
        if tenant.is_none() {
            self.skipped = true;
            self.resolver.scan.unknown_fields_dropped += 1;
        }
        Ok(tenant)
    }

    /// Adds the leaves from `first` on as a resource for each of their tenants.
    fn push_apart(&mut self, first: usize) -> Result<(), SplitError> {
        let bytes_max = self.resolver.rules.limits.inflated_bytes_max;
        self.found.group(first);
        let mut at = first;
        while let Some(Apart { tenant, leaves, copied_bytes }) = self.found.group_at(at) {
            at = leaves.end;
            let left = self.copies_bytes_left.checked_sub(copied_bytes);
            self.copies_bytes_left = left.ok_or(SplitError::TooManyCopies { bytes_max })?;
            self.resolver.tenants.count(tenant, 1, 0);
            self.found.push_apart(tenant, leaves);
        }
        self.resolver.scan.unknown_fields_dropped += self.found.take_dropped();
        Ok(())
    }

    /// Decides how the export is forwarded.
    fn conclude(self) -> Result<Scan, SplitError> {
        let Resolver { tenants, mut scan, .. } = self.resolver;
        let found = self.found;
        scan.tenants = tenants.slots.len();
        scan.passthrough =
            scan.tenants == 1 && scan.refused.series() == 0 && !self.skipped && found.is_whole();
        // Exports in JSON are merged only at a replay, as their lists have to be joined.
        found.alone = self.unknown.scalars_bytes > 0 || self.notation == Notation::Json;
        if scan.passthrough {
            found.alone |= self.unknown.others > 0;
            return Ok(scan);
        }
        self.unknown.check()?;
        scan.unknown_fields_dropped += self.unknown.others;
        found.sort(tenants);
        Ok(scan)
    }
}

/// The attribute of a resource or scope that names its tenant.
struct Named<'a> {
    /// The place of its key among the names.
    place: usize,
    value: AttributeValue<'a>,
    /// Where the field of the resource or scope that has it begins in its message.
    owner_field: usize,
    /// The range of that resource or scope.
    owner: Range<usize>,
}

/// Finds the attribute that names the tenant of a message of this level, which has this resource or scope.
fn named<'a>(
    notation: Notation,
    level: Level,
    owner: Option<Owner<'a>>,
    names: &[Box<[u8]>],
) -> Result<Option<Named<'a>>, Fault> {
    let Some(holder) = level.owner() else { return Ok(None) };
    let Some((bytes, range)) = owner else { return Ok(None) };
    let found = find_attribute(notation, holder, bytes, names)?;
    let owner = range.end - bytes.len()..range.end;
    Ok(found.map(|(place, value)| Named { place, value, owner_field: range.start, owner }))
}

/// Why a walk over a resource stops.
enum Stopped {
    Fault(Fault),
    Split(SplitError),
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<SplitError> for Stopped {
    fn from(error: SplitError) -> Self {
        Self::Split(error)
    }
}

/// Finds the tenants of the scopes and items of a resource.
struct Owners<'o, 'r> {
    signal: Signal,
    notation: Notation,
    subject: ResourceSubject<'o>,
    resolver: &'o mut Resolver<'r>,
}

impl found::Decide for Owners<'_, '_> {
    type Stop = Stopped;

    fn whole(&mut self, level: Level, message: &[u8]) -> Result<Option<Owned>, Stopped> {
        if level == Level::Resource {
            return Ok(None);
        }
        // Only what has attributes of its own is read for them.
        let Some(_) = level.owner() else { return Ok(None) };
        let owner = owner(self.notation, self.signal, level, message)?;
        let names = &self.resolver.rules.tenant.labels;
        let Some(Named { value, .. }) = named(self.notation, level, owner, names)? else { return Ok(None) };
        let held = held(self.notation, self.signal, level, message)?;
        if held.is_nothing() {
            return Ok(Some(Owned::LeftOut));
        }
        let items = held.items;
        let mut room = itoa::Buffer::new();
        let value = value.text(&mut room);
        let tenant = self.resolver.find(Some(value), items, &self.subject)?;
        Ok(Some(self.owned(tenant, items)))
    }

    fn item(&mut self, level: Level, item: &[u8]) -> Result<Owned, Stopped> {
        let names = &self.resolver.rules.tenant.labels;
        let found = match level.holder() {
            Some(holder) => find_attribute(self.notation, holder, item, names)?,
            None => None,
        };
        let mut room = itoa::Buffer::new();
        let value = found.as_ref().map(|(_, value)| value.text(&mut room));
        let tenant = self.resolver.find(value, 1, &self.subject)?;
        Ok(self.owned(tenant, 1))
    }

    /// Unknown bytes, and a metric without points beside those of several tenants, could be any of these tenants'.
    fn shared(&self) -> Option<u32> {
        None
    }

    fn recorded(&mut self, pieces: usize) -> Result<(), Stopped> {
        Ok(check_pieces(pieces)?)
    }
}

/// Checks how many nodes, leaves and ranges have been recorded.
fn check_pieces(pieces: usize) -> Result<(), SplitError> {
    let pieces_max = REQUEST_FIELDS_MAX;
    if pieces > pieces_max { Err(SplitError::TooManyPieces { pieces_max }) } else { Ok(()) }
}

impl Owners<'_, '_> {
    fn owned(&mut self, tenant: Option<u32>, items: u32) -> Owned {
        let Some(tenant) = tenant else { return Owned::Several };
        self.resolver.tenants.count(tenant, 0, items);
        Owned::One(tenant)
    }
}

/// A resource that has been read.
struct ResourceSubject<'a> {
    signal: Signal,
    notation: Notation,
    resource: &'a [u8],
}

/// The attribute that names a resource in error texts.
const SERVICE: &[u8] = b"service.name";

impl Subject for ResourceSubject<'_> {
    const NOUN: &'static str = "resource";

    /// Always the key without a replica: receivers of OTLP know no HA replicas.
    fn merge_key(&self, _: &SplitRules<'_>) -> MergeKey {
        MergeKey::Ha(None)
    }

    fn name(&self) -> Cow<'_, [u8]> {
        let level = Level::Resource;
        let owner = owner(self.notation, self.signal, level, self.resource).ok().flatten();
        let attributes = owner.zip(level.owner());
        let found = attributes.and_then(|((bytes, _), holder)| {
            let mut attributes = Attributes::new(self.notation, holder, bytes);
            std::iter::from_fn(|| attributes.take().ok().flatten()).find(|one| *one.key == *SERVICE)
        });
        let value = found.and_then(|attribute| attribute.value().ok());
        value.map_or(Cow::Borrowed(b"no service.name"), AttributeValue::into_text)
    }
}

#[cfg(test)]
mod tests;
