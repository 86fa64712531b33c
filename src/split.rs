//! Splits a request into one part for each of its tenants.
//!
//! Constraints that shaped it:
//!
//! * No byte of one tenant reaches another, so a part has whole series or nothing. An ack is the truth, so a series is
//!   in exactly one part, or refused and counted.
//! * A refusal should cost little. So the whole request is scanned, and every tenant resolved, before the first part is
//!   built. A core can do other work between two parts.
//! * The hot path allocates per request and per tenant, never per series. Scratch buffers are kept between requests, up
//!   to [`SCRATCH_BYTES_MAX`] of each kind.
//!
//! # Design
//!
//! [`Splitter::scan`] inflates the block and walks over it once. The module of the format records what it finds as
//! items (mostly ranges of inflated bytes), each with the slot of its tenant. `tenants` resolves every distinct value
//! once, then groups the items by tenant, in their original order. [`Splitter::next_part`] concatenates the items of
//! one tenant and compresses them.
//!
//! A request of a single tenant, with nothing to remove, is forwarded with the received elements (*passthrough*).
//!
//! A Remote Write 2.0 request keeps the strings of all its series in one symbol table. So each part is rewritten with a
//! table of its own, or as Remote Write 1.0 for an upstream that supports no other (`downgrade`). Parts in 2.0 are
//! merged into one request by a [`Merger`], which reads them again. So a small one is not compressed before it leaves:
//! its elements are *stored*, as one literal.
//!
//! A Loki push is split in the same way: its streams count as series, its entries as samples.
#![forbid(unsafe_code)]

mod downgrade;
mod error;
mod families;
mod halve;
mod loki;
mod nested;
mod remote_write_v1;
mod remote_write_v2;
mod replicas;
mod request;
mod scan;
mod scratch;
mod series;
mod tenants;
#[cfg(test)]
mod tests;
mod unknown;

use bytes::Bytes;

use crate::limits::{MERGED_PART_BYTES_MAX, MERGED_PASSTHROUGH_BYTES_MAX};
use crate::model::{MergeKey, Part, Protocol};
use crate::wire::snappy::{Deflater, stored};

pub use error::SplitError;
pub use families::Families;
pub use halve::halve;
pub use remote_write_v2::merge::{Merged, Merger};
pub use replicas::{OfReplica, ReplicaReader};
pub use scan::{Body, Lost, Metadata, Scan, SplitRules};
pub use series::{Labelled, each_series};

pub use crate::wire::inflate::Compression;

use request::Request;
use scratch::{narrow, trim};
use tenants::{Resolver, Tenants};

/// Splits one request at a time, and keeps its scratch buffers for the next.
#[derive(Default, Debug)]
pub struct Splitter {
    request: Request,
    tenants: Tenants,
    /// The protocol of the current request.
    protocol: Option<Protocol>,
    v1: remote_write_v1::ScannedSeries,
    v2: remote_write_v2::ScannedV2Series,
    streams: loki::ScannedStreams,
    /// Whether the parts have fields of the request as a whole.
    alone: bool,
    /// Whether the whole request belongs to one tenant and is forwarded unchanged.
    whole: bool,
    /// The received elements, if they are forwarded unchanged.
    elements: Option<Bytes>,
    /// The slot of the tenant whose part is next.
    next: usize,
    /// The buffer in which a part is built.
    gathered: Vec<u8>,
    deflater: Deflater,
}

impl Splitter {
    /// Creates a splitter. Its scratch buffers grow with the first requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inflates and scans `body`, and resolves the tenants of its series. `source` is the value of the request's own
    /// tenant header. Builds no part yet, so a refusal costs no compression.
    ///
    /// Discards the remaining parts of the previous request.
    ///
    /// # Errors
    /// If the request cannot be split; see [`SplitError`].
    pub fn scan(
        &mut self,
        body: Body,
        rules: &SplitRules<'_>,
        source: Option<&str>,
    ) -> Result<Scan, SplitError> {
        self.release();
        let scan = self.scan_body(body, rules, source);
        if scan.is_err() {
            self.release();
        }
        scan
    }

    /// Builds the next part. Parts come in the order of each tenant's first series; `None` after the last.
    pub fn next_part(&mut self) -> Option<Part> {
        let slot = self.tenants.slots.get(self.next)?;
        let protocol = self.protocol?;
        let inflated = self.request.bytes();
        let received = self.elements.take();
        let content = if self.whole {
            inflated
        } else {
            self.gathered.clear();
            let out = &mut self.gathered;
            match protocol {
                Protocol::RemoteWriteV1 => self.v1.gather(inflated, &self.tenants, self.next, out),
                Protocol::RemoteWriteV2 => self.v2.gather(inflated, &self.tenants, self.next, out),
                Protocol::Loki | Protocol::LokiJson => {
                    self.streams.gather(inflated, &self.tenants, self.next, out);
                }
            }
            &self.gathered
        };
        let protocol = protocol.for_parts(self.v2.handling());
        let merges = !self.alone && merges(protocol, content.len(), received.is_some());
        let elements = match received {
            Some(elements) => elements,
            // Merging starts from the inflated bytes, so they are deflated when they leave.
            None if merges && protocol == Protocol::RemoteWriteV2 => stored(content),
            None => self.deflater.elements(content),
        };
        let part = Part {
            tenant: slot.id.clone(),
            protocol,
            elements,
            inflated_bytes: narrow(content.len()),
            series: slot.series,
            samples: slot.samples,
            histograms: slot.histograms,
            exemplars: slot.exemplars,
            merge: if merges { slot.merge.clone() } else { MergeKey::Alone },
        };
        self.next += 1;
        if self.next == self.tenants.slots.len() {
            self.release();
        }
        Some(part)
    }

    fn scan_body(
        &mut self,
        body: Body,
        rules: &SplitRules<'_>,
        source: Option<&str>,
    ) -> Result<Scan, SplitError> {
        let protocol = body.protocol;
        let elements = self.request.open(body, rules.limits.inflated_bytes_max)?;
        let inflated = self.request.bytes();
        let resolver = Resolver::new(rules, source, &mut self.tenants, inflated.len());
        let mut scan = match protocol {
            Protocol::RemoteWriteV1 => {
                let scan = remote_write_v1::scan(inflated, resolver, &mut self.v1)?;
                self.alone = self.v1.alone;
                scan
            }
            Protocol::RemoteWriteV2 => {
                let scan = remote_write_v2::scan(inflated, resolver, &mut self.v2)?;
                self.alone = self.v2.alone;
                scan
            }
            Protocol::Loki | Protocol::LokiJson => {
                let scan = loki::scan(inflated, resolver, &mut self.streams)?;
                self.alone = self.streams.alone;
                scan
            }
        };
        if scan.passthrough {
            self.whole = true;
            scan.passthrough = elements.is_some();
            self.elements = elements;
        }
        self.protocol = Some(protocol);
        Ok(scan)
    }

    /// Discards the current request, and frees memory beyond what is kept between requests.
    pub fn release(&mut self) {
        self.request.release();
        self.tenants.release();
        self.v1.release();
        self.v2.release();
        self.streams.release();
        self.protocol = None;
        (self.alone, self.whole) = (false, false);
        self.elements = None;
        self.next = 0;
        trim(&mut self.gathered);
        self.deflater.release();
    }
}

/// Whether a part of this size is worth merging. In Remote Write 2.0 the whole part has to be written and deflated
/// again, so that pays only up to some size. In other protocols its elements are sent as they are.
fn merges(protocol: Protocol, inflated_bytes: usize, is_passthrough: bool) -> bool {
    match (protocol, is_passthrough) {
        (Protocol::RemoteWriteV2, true) => inflated_bytes <= MERGED_PASSTHROUGH_BYTES_MAX,
        (Protocol::RemoteWriteV2, false) => inflated_bytes <= MERGED_PART_BYTES_MAX,
        _ => true,
    }
}
