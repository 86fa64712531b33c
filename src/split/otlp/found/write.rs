//! How the parts of an export are written from what the scan has found.
#![forbid(unsafe_code)]

use super::{Content, Cut, DEPTH_MAX, Item, Leaf, Node, Path, ScannedResources};
use crate::model::Signal;
use crate::split::nested::Nested;
use crate::split::tenants::Tenants;
use crate::wire::otlp::{Level, Notation};
use crate::wire::varint;

impl ScannedResources {
    /// Appends the part of `tenant` to `out`.
    pub(in crate::split) fn gather(
        &self,
        inflated: &[u8],
        tenants: &Tenants,
        tenant: usize,
        out: &mut Vec<u8>,
    ) {
        self.write(inflated, tenants.items(tenant).iter().map(|&at| &self.items[at as usize]), out);
    }

    /// The same for items that are not [sorted](Self::sort).
    pub(in crate::split::otlp) fn gather_slot(&self, inflated: &[u8], tenant: u32, out: &mut Vec<u8>) {
        self.write(inflated, self.items.iter().filter(|item| item.tenant == tenant), out);
    }

    fn write<'i>(&self, inflated: &[u8], items: impl Iterator<Item = &'i Item>, out: &mut Vec<u8>) {
        if self.notation == Notation::Json {
            out.extend_from_slice(b"{");
        }
        out.extend_from_slice(&self.scalars);
        let mut list = Elements::default();
        if self.notation == Notation::Json {
            open_list(Level::Export, self.signal, out);
        }
        for item in items {
            if self.notation == Notation::Json {
                list.next(out);
            }
            match item.content {
                Content::Run { begin, end } => put(inflated, (begin, end), out),
                Content::Cut(at) => self.put_cut(inflated, self.cuts[at as usize], out),
                Content::Apart { first, end } => {
                    let leaves = self.leaves.get(first as usize..end as usize).unwrap_or_default();
                    match self.notation {
                        Notation::Protobuf => self.put_apart(inflated, leaves, out),
                        Notation::Json => self.put_apart_json(inflated, leaves, out),
                    }
                }
            }
        }
        if self.notation == Notation::Json {
            out.extend_from_slice(b"]}");
        }
    }

    fn put_cut(&self, inflated: &[u8], cut: Cut, out: &mut Vec<u8>) {
        if self.notation == Notation::Json {
            self.put_without(inflated, cut, (cut.begin, cut.end), out);
            return;
        }
        let owner_bytes = (cut.owner_end - cut.owner_begin) - cut.bytes;
        let owner_field = 1 + varint::len(owner_bytes.into()) + owner_bytes as usize;
        let around = (cut.owner_field - cut.begin) + (cut.end - cut.owner_end);
        put_key(Level::Resource.field(), out);
        varint::put(out, (around as usize + owner_field) as u64);
        put(inflated, (cut.begin, cut.owner_field), out);
        put_key(1, out);
        varint::put(out, owner_bytes.into());
        self.put_without(inflated, cut, (cut.owner_begin, cut.owner_end), out);
        put(inflated, (cut.owner_end, cut.end), out);
    }

    /// Appends a range without the attribute.
    fn put_without(&self, inflated: &[u8], cut: Cut, (begin, end): (u32, u32), out: &mut Vec<u8>) {
        let mut at = begin;
        for &(cut_begin, cut_end) in
            self.ranges.get(cut.first as usize..cut.last as usize).unwrap_or_default()
        {
            put(inflated, (at, cut_begin), out);
            at = cut_end;
        }
        put(inflated, (at, end), out);
    }

    fn put_apart(&self, inflated: &[u8], leaves: &[Leaf], out: &mut Vec<u8>) {
        let mut nested: [Option<Nested>; DEPTH_MAX] = [const { None }; DEPTH_MAX];
        let mut open = Path::default();
        for leaf in leaves {
            let path = self.path(leaf.node);
            let shared = open.shared(&path);
            nested[shared..].iter_mut().rev().filter_map(Option::take).for_each(|node| node.close(out));
            for (at, &node) in path.nodes().iter().enumerate().skip(shared) {
                let node = self.nodes[node as usize];
                put_key(node.level.field(), out);
                let expected = node.common_bytes + (leaf.end - leaf.begin);
                nested[at] = Some(Nested::open(out, expected as usize));
                for &range in &self.ranges[node.first as usize..node.end as usize] {
                    put(inflated, range, out);
                }
            }
            open = path;
            put(inflated, (leaf.begin, leaf.end), out);
        }
        nested.iter_mut().rev().filter_map(Option::take).for_each(|node| node.close(out));
    }

    fn put_apart_json(&self, inflated: &[u8], leaves: &[Leaf], out: &mut Vec<u8>) {
        let mut elements = [Elements::default(); DEPTH_MAX];
        let mut open = Path::default();
        for leaf in leaves {
            let path = self.path(leaf.node);
            let shared = open.shared(&path);
            self.close_json(&open, shared, out);
            for (at, &node) in path.nodes().iter().enumerate().skip(shared) {
                if let Some(above) = at.checked_sub(1) {
                    elements[above].next(out);
                }
                elements[at] = self.open_json(inflated, self.nodes[node as usize], out);
            }
            if let Some(last) = path.len.checked_sub(1) {
                elements[last].next(out);
            }
            open = path;
            put(inflated, (leaf.begin, leaf.end), out);
        }
        self.close_json(&open, 0, out);
    }

    /// Begins an object with what its copies have in common, and the list of its children if they are in one.
    fn open_json(&self, inflated: &[u8], node: Node, out: &mut Vec<u8>) -> Elements {
        if !node.level.is_listed() {
            out.push(b'"');
            out.extend_from_slice(node.level.key(self.signal).as_bytes());
            out.extend_from_slice(b"\":");
        }
        out.push(b'{');
        let mut members = Elements::default();
        for &range in &self.ranges[node.first as usize..node.end as usize] {
            members.next(out);
            put(inflated, range, out);
        }
        if node.level.list_key(self.signal).is_none() {
            return members;
        }
        members.next(out);
        open_list(node.level, self.signal, out);
        Elements::default()
    }

    /// Ends the objects of a path but the first `kept` ones.
    fn close_json(&self, open: &Path, kept: usize, out: &mut Vec<u8>) {
        for &node in open.nodes().get(kept..).unwrap_or_default().iter().rev() {
            let has_list = self.nodes[node as usize].level.list_key(self.signal).is_some();
            out.extend_from_slice(if has_list { b"]}" } else { b"}" });
        }
    }
}

/// What stands between commas in JSON.
#[derive(Clone, Copy, Default, Debug)]
struct Elements {
    has_some: bool,
}

impl Elements {
    /// Begins the next one.
    fn next(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_some, true) {
            out.push(b',');
        }
    }
}

/// Begins the list of the children of a message of this level.
fn open_list(level: Level, signal: Signal, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(level.list_key(signal).unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\":[");
}

fn put(inflated: &[u8], (begin, end): (u32, u32), out: &mut Vec<u8>) {
    out.extend_from_slice(inflated.get(begin as usize..end as usize).unwrap_or_default());
}

/// Appends the key of a field that holds bytes.
fn put_key(field: u32, out: &mut Vec<u8>) {
    varint::put(out, u64::from(field << 3 | 2));
}
