//! What a scan finds in an export. [`write`] makes the parts of it.
//!
//! A resource that is taken apart is recorded as *nodes* and *leaves*. A leaf is a range of adjacent messages that go
//! to one tenant as they came: items, or whole metrics or scopes. Its node is the message that they are in, with what
//! the copies of this message have in common; a node knows its parent. If all that a message holds belongs to one
//! tenant, its nodes and leaves are dropped again, and it becomes a leaf itself. So are the nodes of what is refused as
//! a whole: each node that stays has a leaf, and there are no more of them than a few for each.
#![forbid(unsafe_code)]

mod write;

use std::ops::Range;

use crate::model::Signal;
use crate::split::scratch::{narrow, trim};
use crate::split::tenants::Tenants;
use crate::wire::otlp::{Fault, Level, Member, Members, Notation, held};

/// Whom a message belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owned {
    /// Nobody: it has no items.
    Nobody,
    /// Nobody, and it is left out: it names a tenant, who need not be that of what it is beside.
    LeftOut,
    /// The tenant of this slot, all of it.
    One(u32),
    /// Several tenants, or some of it is refused.
    Several,
}

impl Owned {
    /// Whom two messages belong to.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, Self::Nobody) | (Self::Nobody, one) => one,
            (a, b) if a == b => a,
            _ => Self::Several,
        }
    }
}

/// Decides whom the messages of a resource belong to.
pub(super) trait Decide {
    /// Why a walk may stop.
    type Stop: From<Fault>;

    /// Whom all of a message belongs to that is no item; `None` if that has to be asked of what it holds.
    fn whole(&mut self, level: Level, message: &[u8]) -> Result<Option<Owned>, Self::Stop>;

    /// Whom an item belongs to. `Several` if it is refused.
    fn item(&mut self, level: Level, item: &[u8]) -> Result<Owned, Self::Stop>;

    /// Whom that belongs to which has no items and is beside those of several, at this point of the walk. If it is
    /// nobody, this is dropped and counted; else unknown fields are copied for all.
    fn shared(&self) -> Option<u32>;

    /// Says how many nodes, leaves and ranges have been recorded. Their sizes are not bounded by that of the export: a
    /// field of two bytes may take a range of eight.
    fn recorded(&mut self, pieces: usize) -> Result<(), Self::Stop>;
}

/// Nodes from a resource down to the data of a metric.
const DEPTH_MAX: usize = 4;

/// The parent of a resource.
const NO_NODE: u32 = u32::MAX;

/// A message that is taken apart.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    level: Level,
    /// What its copies have in common: a range of [`ScannedResources::ranges`], and its bytes.
    first: u32,
    end: u32,
    common_bytes: u32,
}

/// Adjacent messages of one tenant in a node.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    tenant: u32,
    node: u32,
    begin: u32,
    end: u32,
}

/// A resource without the attribute that named its tenant, as positions in the inflated bytes.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Cut {
    /// The bytes of the `Resource…` message.
    pub(super) begin: u32,
    pub(super) end: u32,
    /// The start of the field in it that has the resource.
    pub(super) owner_field: u32,
    /// The bytes of the resource.
    pub(super) owner_begin: u32,
    pub(super) owner_end: u32,
    /// The attribute, as often as it is there: a range of [`ScannedResources::ranges`], and its bytes. Set when the cut
    /// is [pushed](ScannedResources::push_cut).
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) bytes: u32,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// Adjacent resources as they came.
    Run { begin: u32, end: u32 },
    /// An index of [`ScannedResources::cuts`].
    Cut(u32),
    /// A range of [`ScannedResources::leaves`].
    Apart { first: u32, end: u32 },
}

/// What goes to one tenant.
#[derive(Clone, Copy, Debug)]
struct Item {
    tenant: u32,
    content: Content,
}

/// The leaves of one tenant in a resource.
pub(super) struct Apart {
    pub(super) tenant: u32,
    pub(super) leaves: Range<usize>,
    /// Bytes that its copies and our bookkeeping take.
    pub(super) copied_bytes: usize,
}

/// The scanned content of an export, to copy into its parts.
#[derive(Debug)]
pub(in crate::split) struct ScannedResources {
    signal: Signal,
    notation: Notation,
    items: Vec<Item>,
    cuts: Vec<Cut>,
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
    /// Ranges of whole fields.
    ranges: Vec<(u32, u32)>,
    /// What was left out of nodes: unknown fields of bytes, and messages without items that hold something.
    dropped: u64,
    /// Unknown fields of the export that go into every part; in JSON with a comma behind each.
    pub(super) scalars: Vec<u8>,
    /// Whether the parts share no request.
    pub(in crate::split) alone: bool,
}

impl Default for ScannedResources {
    fn default() -> Self {
        Self {
            signal: Signal::Metrics,
            notation: Notation::Protobuf,
            items: Vec::new(),
            cuts: Vec::new(),
            nodes: Vec::new(),
            leaves: Vec::new(),
            ranges: Vec::new(),
            dropped: 0,
            scalars: Vec::new(),
            alone: false,
        }
    }
}

// What a scan records.
impl ScannedResources {
    pub(super) fn begin(&mut self, signal: Signal, notation: Notation) {
        (self.signal, self.notation) = (signal, notation);
    }

    /// Adds a resource that is forwarded unchanged; `begin..end` is its whole field or, in JSON, its text.
    pub(super) fn push_run(&mut self, tenant: u32, begin: usize, end: usize) {
        let (begin, end) = (narrow(begin), narrow(end));
        if let Some(Item { tenant: last, content: Content::Run { end: last_end, .. } }) =
            self.items.last_mut()
            && (*last, *last_end) == (tenant, begin)
        {
            *last_end = end;
            return;
        }
        self.push(tenant, Content::Run { begin, end });
    }

    /// Adds a resource without the ranges that `each` [pushes](Self::push_range), which is given the first.
    pub(super) fn push_cut(
        &mut self,
        tenant: u32,
        cut: Cut,
        each: impl FnOnce(&mut Self, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let first = self.ranges.len();
        each(self, first)?;
        let ranges = self.ranges.get(first..).unwrap_or_default();
        let bytes = ranges.iter().map(|(begin, end)| end - begin).sum();
        self.cuts.push(Cut { first: narrow(first), last: narrow(self.ranges.len()), bytes, ..cut });
        self.push(tenant, Content::Cut(narrow(self.cuts.len() - 1)));
        Ok(())
    }

    /// Adds a range to those from `first` on. The last of these may go on in it.
    pub(super) fn push_range(&mut self, first: usize, begin: usize, end: usize) {
        let (begin, end) = (narrow(begin), narrow(end));
        match self.ranges.get_mut(first..).and_then(<[_]>::last_mut) {
            Some((_, last)) if *last == begin => *last = end,
            _ => self.ranges.push((begin, end)),
        }
    }

    /// How many nodes, leaves and ranges have been recorded.
    pub(super) fn pieces(&self) -> usize {
        self.nodes.len() + self.leaves.len() + self.ranges.len()
    }

    pub(super) fn push_apart(&mut self, tenant: u32, leaves: Range<usize>) {
        let content = Content::Apart { first: narrow(leaves.start), end: narrow(leaves.end) };
        self.push(tenant, content);
    }

    fn push(&mut self, tenant: u32, content: Content) {
        self.items.push(Item { tenant, content });
    }

    /// Whether all resources are forwarded unchanged.
    pub(super) fn is_whole(&self) -> bool {
        self.items.iter().all(|item| matches!(item.content, Content::Run { .. }))
    }

    /// Groups the items by tenant.
    pub(super) fn sort(&self, tenants: &mut Tenants) {
        self.items.iter().for_each(|item| tenants.add_item(item.tenant));
        tenants.sort(self.items.iter().map(|item| item.tenant));
    }

    /// The number of leaves so far.
    pub(super) fn leaves(&self) -> usize {
        self.leaves.len()
    }

    /// How much was left out since the last call: unknown fields of bytes, and messages without items.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Walks over a resource whose message begins at `base`, and records nodes and leaves if it belongs to several.
    pub(super) fn walk<D: Decide>(
        &mut self,
        level: Level,
        message: &[u8],
        base: usize,
        decide: &mut D,
    ) -> Result<Owned, D::Stop> {
        self.walk_node(NO_NODE, level, message, base, decide)
    }

    /// As deep as the levels, whatever the input is.
    fn walk_node<D: Decide>(
        &mut self,
        parent: u32,
        level: Level,
        message: &[u8],
        base: usize,
        decide: &mut D,
    ) -> Result<Owned, D::Stop> {
        if level.is_item() {
            return decide.item(level, message);
        }
        if let Some(owned) = decide.whole(level, message)? {
            return Ok(owned);
        }
        let marks = (self.nodes.len(), self.leaves.len(), self.ranges.len(), self.dropped);
        let node = narrow(self.nodes.len());
        self.nodes.push(Node { parent, level, first: 0, end: 0, common_bytes: 0 });
        let mut all = Owned::Nobody;
        let mut previous = Owned::Nobody;
        let mut members = Members::new(self.notation, self.signal, level, message);
        while let Some((member, range)) = members.take()? {
            let Member::Child(child_level, child) = member else { continue };
            let (begin, end) = (base + range.start, base + range.end);
            let mut owned = self.walk_node(node, child_level, child, end - child.len(), decide)?;
            if owned == Owned::Nobody {
                let held = held(self.notation, self.signal, child_level, child)?;
                match decide.shared() {
                    Some(tenant) => owned = Owned::One(tenant),
                    None => self.dropped += u64::from(!held.is_nothing()),
                }
            }
            if let Owned::One(tenant) = owned {
                self.push_leaf(tenant, node, begin, end, owned == previous);
                decide.recorded(self.pieces())?;
            }
            previous = owned;
            all = all.and(owned);
        }
        let (nodes, leaves, ranges, dropped) = marks;
        if all == Owned::Several && self.leaves.len() > leaves {
            self.note_common(node, level, message, base, decide)?;
            return Ok(all);
        }
        self.nodes.truncate(nodes);
        self.leaves.truncate(leaves);
        self.ranges.truncate(ranges);
        if all != Owned::Several {
            self.dropped = dropped;
        }
        Ok(all)
    }

    /// Adds a child of a node. `follows`: the child before it belongs to the same tenant. In JSON there is only a comma
    /// between them; in protobuf there may be other fields.
    fn push_leaf(&mut self, tenant: u32, node: u32, begin: usize, end: usize, follows: bool) {
        let (begin, end) = (narrow(begin), narrow(end));
        let is_comma = follows && self.notation == Notation::Json;
        match self.leaves.last_mut() {
            Some(last) if (last.tenant, last.node) == (tenant, node) && (last.end == begin || is_comma) => {
                last.end = end;
            }
            _ => self.leaves.push(Leaf { tenant, node, begin, end }),
        }
    }

    /// Records what the copies of a node have in common.
    fn note_common<D: Decide>(
        &mut self,
        node: u32,
        level: Level,
        message: &[u8],
        base: usize,
        decide: &mut D,
    ) -> Result<(), D::Stop> {
        let first = self.ranges.len();
        let mut before = 0;
        let mut members = Members::new(self.notation, self.signal, level, message);
        while let Some((member, range)) = members.take()? {
            match member {
                Member::Child(..) => {}
                Member::Other if decide.shared().is_none() => self.dropped += 1,
                Member::Owner(_) | Member::Common | Member::Scalar | Member::Other => {
                    let gap = message.get(before..range.start).unwrap_or_default();
                    // In JSON only a comma stands between members, if nothing else does.
                    let follows =
                        self.notation == Notation::Json && gap.iter().all(|byte| b", \t\r\n".contains(byte));
                    let begin = if follows { before } else { range.start };
                    self.push_range(first, base + begin, base + range.end);
                    before = range.end;
                    decide.recorded(self.pieces())?;
                }
            }
        }
        let ranges = self.ranges.get(first..).unwrap_or_default();
        let common_bytes = ranges.iter().map(|(begin, end)| end - begin).sum();
        let end = narrow(self.ranges.len());
        if let Some(node) = self.nodes.get_mut(node as usize) {
            (node.first, node.end, node.common_bytes) = (narrow(first), end, common_bytes);
        }
        Ok(())
    }

    /// Groups the leaves from `first` on by tenant, in the order of the tenants' slots.
    pub(super) fn group(&mut self, first: usize) {
        let leaves = self.leaves.get_mut(first..).unwrap_or_default();
        leaves.sort_unstable_by_key(|leaf| (leaf.tenant, leaf.begin));
    }

    /// The group that begins at this leaf; `None` behind the last.
    pub(super) fn group_at(&self, first: usize) -> Option<Apart> {
        let leaves = self.leaves.get(first..)?;
        let of_tenant = leaves.chunk_by(|a, b| a.tenant == b.tenant).next()?;
        let tenant = of_tenant.first()?.tenant;
        let copied_bytes = self.copied_bytes(of_tenant);
        Some(Apart { tenant, leaves: first..first + of_tenant.len(), copied_bytes })
    }

    /// What the copies for one tenant take, with our bookkeeping.
    fn copied_bytes(&self, leaves: &[Leaf]) -> usize {
        let mut open = Path::default();
        let mut bytes = size_of::<Item>() + size_of_val(leaves);
        for leaf in leaves {
            let path = self.path(leaf.node);
            let shared = open.shared(&path);
            for &node in path.nodes().get(shared..).unwrap_or_default() {
                // Its key, its length and, in JSON, its brackets.
                bytes += self.nodes[node as usize].common_bytes as usize + NODE_BYTES;
            }
            open = path;
        }
        bytes
    }

    /// The nodes from a resource to this one.
    fn path(&self, node: u32) -> Path {
        let mut path = Path::default();
        let mut node = node;
        while let Some(found) = self.nodes.get(node as usize)
            && path.len < DEPTH_MAX
        {
            path.nodes[path.len] = node;
            path.len += 1;
            node = found.parent;
        }
        path.nodes[..path.len].reverse();
        path
    }

    pub(in crate::split) fn release(&mut self) {
        trim(&mut self.items);
        trim(&mut self.cuts);
        trim(&mut self.nodes);
        trim(&mut self.leaves);
        trim(&mut self.ranges);
        self.scalars.clear();
        self.dropped = 0;
        self.alone = false;
    }
}

/// Bytes that a node takes besides its content: a key and a length in protobuf, or the brackets and the keys of a list
/// in JSON, such as `"exponentialHistogram":{"dataPoints":[`.
const NODE_BYTES: usize = 48;

/// Nodes from a resource downwards.
#[derive(Clone, Copy, Default, Debug)]
struct Path {
    nodes: [u32; DEPTH_MAX],
    len: usize,
}

impl Path {
    fn nodes(&self) -> &[u32] {
        self.nodes.get(..self.len).unwrap_or_default()
    }

    /// How many nodes both begin with.
    fn shared(&self, other: &Self) -> usize {
        self.nodes().iter().zip(other.nodes()).take_while(|(a, b)| a == b).count()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use testkit::proto_otlp::{ExportLogsServiceRequest, LogRecord, ResourceLogs, ScopeLogs};

    use super::*;

    /// Refuses what is empty.
    struct Refuse;

    impl Decide for Refuse {
        type Stop = Fault;

        fn whole(&mut self, _: Level, _: &[u8]) -> Result<Option<Owned>, Fault> {
            Ok(None)
        }

        fn item(&mut self, _: Level, item: &[u8]) -> Result<Owned, Fault> {
            Ok(if item.is_empty() { Owned::Several } else { Owned::One(0) })
        }

        fn shared(&self) -> Option<u32> {
            None
        }

        fn recorded(&mut self, _: usize) -> Result<(), Fault> {
            Ok(())
        }
    }

    #[test]
    fn what_is_refused_as_a_whole_leaves_nothing_behind() {
        let scope = |time_unix_nano| ScopeLogs {
            log_records: vec![LogRecord { time_unix_nano, ..LogRecord::default() }],
            ..ScopeLogs::default()
        };
        let mut scope_logs = vec![scope(0); 1_000];
        let walked = |scope_logs: Vec<ScopeLogs>| {
            let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
            let export = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
            let mut found = ScannedResources::default();
            found.begin(Signal::Logs, Notation::Protobuf);
            let mut members = Members::new(Notation::Protobuf, Signal::Logs, Level::Export, &export);
            let Some((Member::Child(level, resource), _)) = members.take().unwrap() else { panic!("one") };
            assert_eq!(found.walk(level, resource, 0, &mut Refuse).unwrap(), Owned::Several);
            (found.nodes.len(), found.leaves.len())
        };
        assert_eq!(walked(scope_logs.clone()), (0, 0));
        scope_logs.push(scope(1));
        // The last scope is one leaf of the resource.
        assert_eq!(walked(scope_logs), (1, 1));
    }
}
