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
//! table of its own, or as Remote Write 1.0 for an upstream that supports no other (`downgrade`).
//!
//! A Loki push is split in the same way: its streams count as series, its entries as samples.
#![forbid(unsafe_code)]

mod downgrade;
mod families;
mod halve;
mod loki;
mod nested;
mod remote_write_v1;
mod remote_write_v2;
mod request;
mod tenants;
#[cfg(test)]
mod tests;
mod unknown;

use bytes::Bytes;

use crate::limits::SCRATCH_BYTES_MAX;
use crate::model::{HaLabels, MergeKey, Part, Protocol, RefusedSeries, SplitLimits, V2Handling};
use crate::tenant::{TenantError, TenantRules};
use crate::wire::inflate::InflateError;
use crate::wire::loki::json::JsonError;
use crate::wire::loki::{self as wire_loki, labels};
use crate::wire::remote_write_v1::Malformed;
use crate::wire::remote_write_v2::Malformed as MalformedV2;
use crate::wire::snappy::Deflater;

pub use families::Families;
pub use halve::halve;

pub use crate::wire::inflate::Compression;

use request::Request;
use tenants::{Resolver, Tenants};

/// The body of a request, as received.
#[derive(Clone, Debug)]
pub struct Body {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its compression.
    pub compression: Compression,
    /// The compressed bytes.
    pub bytes: Bytes,
}

/// The rules for splitting a request.
#[derive(Clone, Copy, Debug)]
pub struct SplitRules<'a> {
    /// How the tenant of a series is found.
    pub tenant: &'a TenantRules,
    /// The treatment of Remote Write 1.0 metadata, which names no tenant.
    pub metadata: Metadata<'a>,
    /// The labels that distinguish HA replicas; with `None`, parts of all replicas merge.
    pub ha: Option<&'a HaLabels>,
    /// Whether the tenant label is removed from the labels of Loki streams. Structured metadata is never changed.
    pub loki_label_remove: bool,
    /// The protocol that Remote Write 2.0 requests are forwarded in.
    pub remote_write_v2: V2Handling,
    /// Limits of one request.
    pub limits: SplitLimits,
}

impl<'a> SplitRules<'a> {
    /// Creates rules with defaults: metadata is dropped, HA replicas are not distinguished, and Remote Write 2.0 stays
    /// 2.0.
    pub fn new(tenant: &'a TenantRules, limits: SplitLimits) -> Self {
        Self {
            tenant,
            metadata: Metadata::Drop,
            ha: None,
            loki_label_remove: false,
            remote_write_v2: V2Handling::Pass,
            limits,
        }
    }
}

/// The treatment of Remote Write 1.0 metadata.
#[derive(Clone, Copy, Debug)]
pub enum Metadata<'a> {
    /// It is dropped.
    Drop,
    /// It goes to the default tenant. Without one it is dropped.
    ToDefault,
    /// The metadata of a family goes to the tenants that have recently sent series of it. If none is known, it goes to
    /// the default tenant.
    Route(&'a Families),
}

/// The result of scanning a request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scan {
    /// Number of parts that [`Splitter::next_part`] will return; 0 if there is nothing to send.
    pub tenants: usize,
    /// Number of received series or streams, including refused ones.
    pub series: u64,
    /// Number of their samples and histograms, or of their entries, including refused ones.
    pub samples: u64,
    /// Number of the histograms among `samples`; counted only in Remote Write 2.0.
    pub histograms: u64,
    /// Number of received exemplars, including those of refused series; counted only in Remote Write 2.0.
    pub exemplars: u64,
    /// Size of the inflated request.
    pub inflated_bytes: usize,
    /// Series that are not forwarded, by the policy `drop` or by the tenant map.
    pub refused: RefusedSeries,
    /// Number of metadata entries that are dropped.
    pub metadata_dropped: u64,
    /// Number of dropped unknown fields: those of the request, or of a stream with several tenants, that cannot be
    /// assigned to one tenant.
    pub unknown_fields_dropped: u64,
    /// Data that is lost because the request is forwarded as Remote Write 1.0.
    pub lost: Lost,
    /// Whether the request has one tenant and is forwarded byte for byte.
    pub passthrough: bool,
}

/// Data of a Remote Write 2.0 request, without its refused series, that Remote Write 1.0 cannot express.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lost {
    /// Histograms with custom buckets. Receivers of 1.0 do not know them, and Prometheus omits them from 1.0 as well.
    pub custom_histograms: u64,
    /// Series that are omitted because they have no data, or none but custom histograms.
    pub series: u64,
    /// Start timestamps of samples and histograms, and created timestamps of series.
    pub start_timestamps: u64,
    /// Unknown fields within series.
    pub fields: u64,
}

/// A request that cannot be split. It is always the sender's fault, and a retry does not help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SplitError {
    /// The inflated body is too large, or the body does not match its encoding.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// The inflated body is not a `WriteRequest`.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The inflated body is not a Remote Write 2.0 `Request`.
    #[error(transparent)]
    MalformedV2(#[from] MalformedV2),
    /// The inflated body is not a `PushRequest`.
    #[error(transparent)]
    MalformedPush(#[from] wire_loki::Malformed),
    /// The body is not a push in JSON, or it is too large.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A stream's labels cannot be parsed.
    #[error("stream {place} ({labels}): malformed labels: {fault}")]
    Labels {
        /// The stream's position in the request, from 1.
        place: u64,
        /// The labels, escaped and truncated.
        labels: String,
        /// The error.
        fault: labels::Malformed,
    },
    /// The request has neither series nor metadata.
    #[error("no timeseries found in the request")]
    Empty,
    /// The push has no streams. Loki answers 422.
    #[error("no streams found in the push")]
    EmptyPush,
    /// Content that several tenants each need a copy of, such as the labels of a stream with entries of several
    /// tenants, or routed metadata, would take too much room.
    #[error(
        "the request cannot be split: its copies for several tenants would take more than {bytes_max} bytes"
    )]
    TooManyCopies {
        /// The limit.
        bytes_max: usize,
    },
    /// The request has too many series, metadata entries and unknown fields.
    #[error("the request has more than {fields_max} series and metadata entries")]
    TooManyFields {
        /// The limit.
        fields_max: usize,
    },
    /// The request has too many symbols.
    #[error("the request has more than {symbols_max} symbols")]
    TooManySymbols {
        /// The limit.
        symbols_max: usize,
    },
    /// The parts would grow too much, as several tenants, or in Remote Write 1.0 several series, each get a copy of a
    /// symbol.
    #[error("the request cannot be split: its parts would inflate to more than {bytes_max} bytes together")]
    TooMuchGrowth {
        /// The limit.
        bytes_max: usize,
    },
    /// The request has too many bytes of unknown numeric fields, which would be copied into every part.
    #[error("the request cannot be split: it has more than {bytes_max} bytes of unknown fields")]
    TooManyScalars {
        /// The limit.
        bytes_max: usize,
    },
    /// The request has too many distinct tenants.
    #[error("the request has more than {tenants_max} tenants")]
    TooManyTenants {
        /// The limit.
        tenants_max: usize,
    },
    /// A series or stream has no usable tenant, and the policy is to reject.
    #[error("{noun} {place} ({name}): {error}")]
    Tenant {
        /// `series` or `stream`.
        noun: &'static str,
        /// Its position in the request, from 1.
        place: u64,
        /// The metric name or the stream's labels, escaped and truncated.
        name: String,
        /// The error.
        error: TenantError,
    },
}

impl SplitError {
    /// Returns the reason as one word, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Inflate(error) if error.is_too_large() => "too_large",
            Self::Inflate(_) => "bad_compression",
            Self::Malformed(_) | Self::MalformedV2(_) | Self::MalformedPush(_) => "bad_protobuf",
            Self::Json(JsonError::TooLarge { .. })
            | Self::TooManyCopies { .. }
            | Self::TooMuchGrowth { .. } => "too_large",
            Self::Json(JsonError::Malformed { .. }) => "bad_json",
            Self::Labels { .. } => "bad_labels",
            Self::Empty | Self::EmptyPush => "empty",
            Self::TooManyFields { .. } | Self::TooManySymbols { .. } | Self::TooManyScalars { .. } => {
                "too_many_fields"
            }
            Self::TooManyTenants { .. } => "too_many_tenants",
            Self::Tenant { error: TenantError::Missing { .. }, .. } => "missing_tenant",
            Self::Tenant { error: TenantError::Invalid { .. }, .. } => "invalid_tenant",
            Self::Tenant { error: TenantError::Dropped { .. }, .. } => "dropped_tenant",
        }
    }
}

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

impl Body {
    /// Creates the body of a Remote Write 1.0 request, as every Prometheus sends it.
    pub fn snappy_v1(bytes: Bytes) -> Self {
        Self { protocol: Protocol::RemoteWriteV1, compression: Compression::Snappy, bytes }
    }

    /// Creates the body of a Remote Write 2.0 request.
    pub fn snappy_v2(bytes: Bytes) -> Self {
        Self { protocol: Protocol::RemoteWriteV2, compression: Compression::Snappy, bytes }
    }
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
        let (elements, inflated_bytes) = match self.elements.take() {
            Some(elements) => (elements, inflated.len()),
            None if self.whole => (self.deflater.elements(inflated), inflated.len()),
            None => {
                self.gathered.clear();
                let out = &mut self.gathered;
                match protocol {
                    Protocol::RemoteWriteV1 => self.v1.gather(inflated, &self.tenants, self.next, out),
                    Protocol::RemoteWriteV2 => {
                        self.v2.gather(inflated, &self.tenants, self.next, out);
                    }
                    Protocol::Loki | Protocol::LokiJson => {
                        self.streams.gather(inflated, &self.tenants, self.next, out);
                    }
                }
                (self.deflater.elements(&self.gathered), self.gathered.len())
            }
        };
        let part = Part {
            tenant: slot.id.clone(),
            protocol: protocol.for_parts(self.v2.handling()),
            elements,
            inflated_bytes: narrow(inflated_bytes),
            series: slot.series,
            samples: slot.samples,
            histograms: slot.histograms,
            exemplars: slot.exemplars,
            merge: if self.alone { MergeKey::Alone } else { slot.merge.clone() },
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
            Protocol::RemoteWriteV2 => remote_write_v2::scan(inflated, resolver, &mut self.v2)?,
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

/// Converts a length or an offset within one inflated request.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a snappy block declares at most u32::MAX bytes")]
const fn narrow(bytes: usize) -> u32 {
    bytes as u32
}

/// Empties `scratch`, and frees its memory if it is more than is kept between requests.
fn trim<T>(scratch: &mut Vec<T>) {
    scratch.clear();
    if scratch.capacity() * size_of::<T>() > SCRATCH_BYTES_MAX {
        *scratch = Vec::new();
    }
}
