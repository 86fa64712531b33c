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
//! A Loki push is split in the same way: its streams count as series, its entries as samples. So is an export of OTLP:
//! its resources count as series, its data points, log records or spans as samples. Its parts may be coded in other
//! ways than as snappy (`coder`).
#![forbid(unsafe_code)]

mod coder;
mod downgrade;
mod error;
mod families;
mod halve;
mod loki;
mod nested;
mod otlp;
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
mod work;

use bytes::Bytes;

use crate::limits::{MERGED_PART_BYTES_MAX, MERGED_PASSTHROUGH_BYTES_MAX};
use crate::model::{Coding, MergeKey, Part, Protocol, TargetCoding};
use crate::tenant::TenantId;
use crate::wire::otlp::Notation;
use crate::wire::snappy::stored;

pub use coder::{are_coded_when_sent, body_of};
pub use error::SplitError;
pub use families::Families;
pub use halve::{can_be_halved, halve};
pub use remote_write_v2::merge::{Merged, Merger};
pub use replicas::{OfReplica, ReplicaReader};
pub use scan::{Body, Lost, Metadata, Scan, SplitRules};
pub use series::{Labelled, each_series};
pub use work::{compressing_work, merging_work, scanning_work};

pub use crate::wire::inflate::Compression;

use coder::Coder;
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
    resources: otlp::ScannedResources,
    /// The compression of the current request.
    received: Option<Compression>,
    /// Whether the parts have fields of the request as a whole.
    alone: bool,
    /// Whether the whole request belongs to one tenant and is forwarded unchanged.
    whole: bool,
    /// The received elements, if they are forwarded unchanged.
    elements: Option<Bytes>,
    /// Whether the last part has them.
    passed_on: bool,
    /// The slot of the tenant whose part is next.
    next: usize,
    /// See [`Self::work`].
    work: usize,
    /// The buffer in which a part is built.
    gathered: Vec<u8>,
    coder: Coder,
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
        let (protocol, received, bytes) = (body.protocol, body.compression, body.bytes.len());
        let scan = self.scan_body(body, rules, source);
        self.work = scanning_work(protocol, received, self.request.made().max(bytes));
        if scan.is_err() {
            self.release();
        }
        scan
    }

    /// The work of the last [`Self::scan`], also of one that was refused, or of the last part, in bytes: see
    /// [`scanning_work`].
    pub fn work(&self) -> usize {
        self.work
    }

    /// Builds the next part. Parts come in the order of each tenant's first series; `None` after the last. Those in
    /// OTLP are coded as their request was.
    pub fn next_part(&mut self) -> Option<Part> {
        self.next_part_as(|_| TargetCoding::AsReceived)
    }

    /// The same. `coding` is asked for how a tenant's part in OTLP is coded.
    pub fn next_part_as(&mut self, coding: impl FnOnce(&TenantId) -> TargetCoding) -> Option<Part> {
        let slot = self.tenants.slots.get(self.next)?;
        let protocol = self.protocol?;
        let inflated = self.request.bytes();
        let received = self.received.unwrap_or(Compression::Snappy);
        let sent = match protocol.export() {
            Some(_) => coding(&slot.id).sent(received),
            None => Compression::Snappy,
        };
        // What came in OTLP is as it came in any coding, but sent so only in its own.
        let elements = self.elements.take().filter(|_| protocol.export().is_none() || sent == received);
        self.passed_on = elements.is_some();
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
                Protocol::Otlp(_) | Protocol::OtlpJson(_) => {
                    self.resources.gather(inflated, &self.tenants, self.next, out);
                }
            }
            &self.gathered
        };
        let protocol = protocol.for_parts(self.v2.handling());
        let is_recoded = protocol == Protocol::RemoteWriteV2 || is_recoded(protocol, sent);
        let merges = !self.alone && (!is_recoded || pays(content.len(), elements.is_some()));
        let mut now = sent;
        let elements = match elements {
            Some(elements) => elements,
            // Merging starts from the inflated bytes, so they are deflated when they leave.
            None if merges && protocol == Protocol::RemoteWriteV2 => stored(content),
            None if merges && is_recoded => {
                now = Compression::Identity;
                self.coder.elements(content, now)
            }
            None => self.coder.elements(content, sent),
        };
        self.work = if self.passed_on { content.len() } else { compressing_work(now, content.len()) };
        let part = Part {
            tenant: slot.id.clone(),
            protocol,
            elements,
            coding: Coding { now, sent },
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

    /// Whether the last part is the request as it came. One that is a [passthrough](Scan::passthrough) is not, if its
    /// target wants another coding.
    pub fn has_passed_on(&self) -> bool {
        self.passed_on
    }

    fn scan_body(
        &mut self,
        body: Body,
        rules: &SplitRules<'_>,
        source: Option<&str>,
    ) -> Result<Scan, SplitError> {
        let (protocol, received) = (body.protocol, body.compression);
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
            Protocol::Otlp(signal) => {
                let notation = Notation::Protobuf;
                let scan = otlp::scan(inflated, signal, notation, resolver, &mut self.resources)?;
                self.alone = self.resources.alone;
                scan
            }
            Protocol::OtlpJson(signal) => {
                let scan = otlp::scan(inflated, signal, Notation::Json, resolver, &mut self.resources)?;
                self.alone = self.resources.alone;
                scan
            }
        };
        if scan.passthrough {
            self.whole = true;
            scan.passthrough = elements.is_some();
            self.elements = elements;
        }
        (self.protocol, self.received) = (Some(protocol), Some(received));
        Ok(scan)
    }

    /// Discards the current request, and frees memory beyond what is kept between requests.
    pub fn release(&mut self) {
        self.request.release();
        self.tenants.release();
        self.v1.release();
        self.v2.release();
        self.streams.release();
        self.resources.release();
        self.protocol = None;
        (self.alone, self.whole) = (false, false);
        self.elements = None;
        self.next = 0;
        trim(&mut self.gathered);
        self.coder.release();
    }
}

/// Whether parts in OTLP are coded again if they share a request.
fn is_recoded(protocol: Protocol, sent: Compression) -> bool {
    protocol.export().is_some() && matches!(sent, Compression::Gzip | Compression::Zstd)
}

/// Whether a part of this size is worth merging if the whole part has to be written and deflated again, as in Remote
/// Write 2.0. Elsewhere its elements are sent as they are.
fn pays(inflated_bytes: usize, is_passthrough: bool) -> bool {
    inflated_bytes <= if is_passthrough { MERGED_PASSTHROUGH_BYTES_MAX } else { MERGED_PART_BYTES_MAX }
}
