//! One request in, one part for each of its tenants out.
//!
//! Constraints that shaped it:
//!
//! * No byte of one tenant reaches another (a part has whole series, or nothing), and an ack is the truth: a
//!   series is in exactly one part, or refused and counted.
//! * A refusal should cost little. So all of a request is scanned, and every tenant resolved, before the first
//!   part is built; a core can do other work between one part and the next.
//! * The hot path allocates per request and per tenant, never per series. Scratch is kept between requests,
//!   up to [`SCRATCH_BYTES_MAX`] of each kind.
//!
//! # Design
//!
//! [`Splitter::scan`] inflates the block and walks over it once: what a format's own module finds there, it puts
//! down as items (ranges of inflated bytes, mostly), each with the slot of its tenant. `tenants` resolves every
//! distinct value once, and then brings the items of a tenant together, in the order in which they came.
//! [`Splitter::next_part`] writes the items of one tenant behind each other and deflates them.
//!
//! A request that turns out to be one tenant's, with nothing to take out, goes on as the very elements that
//! came in (*passthrough*).
//!
//! A Remote Write 2.0 request has the text of all its series in one table. There a part is written anew, with a table
//! of its own; or in the words of 1.0, if its upstream knows no others (`downgrade`).
//!
//! A Loki push is treated alike: its streams count as series, its entries as samples.
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

/// A request's body, as it came in.
#[derive(Clone, Debug)]
pub struct Body {
    /// What it says.
    pub protocol: Protocol,
    /// How it is compressed.
    pub compression: Compression,
    /// Its bytes.
    pub bytes: Bytes,
}

/// How to split.
#[derive(Clone, Copy, Debug)]
pub struct SplitRules<'a> {
    /// How series name their tenants.
    pub tenant: &'a TenantRules,
    /// What becomes of Remote Write 1.0's metadata, which names no tenant.
    pub metadata: Metadata<'a>,
    /// Tell replicas apart by these labels; `None` merges them all.
    pub ha: Option<&'a HaLabels>,
    /// Whether the deciding label is taken out of the labels of Loki's streams. Structured metadata is never touched.
    pub loki_label_remove: bool,
    /// In which words Remote Write 2.0 requests go on.
    pub remote_write_v2: V2Handling,
    /// Bounds of one request.
    pub limits: SplitLimits,
}

impl<'a> SplitRules<'a> {
    /// What holds when only the tenants' rules are set: metadata is dropped, no replica is told from another, and 2.0
    /// stays 2.0.
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

/// What becomes of metadata.
#[derive(Clone, Copy, Debug)]
pub enum Metadata<'a> {
    /// It is dropped.
    Drop,
    /// It goes to the default tenant; without one it is dropped.
    ToDefault,
    /// Each family's goes to the tenants that have sent series of it lately; where none is known, to the default
    /// tenant.
    Route(&'a Families),
}

/// What a request holds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scan {
    /// Parts that [`Splitter::next_part`] will give; none when there is nothing to send.
    pub tenants: usize,
    /// Series or streams that came in, refused ones included.
    pub series: u64,
    /// Their samples and histograms, or their entries, refused ones included.
    pub samples: u64,
    /// The histograms among them; counted in Remote Write 2.0 only.
    pub histograms: u64,
    /// Exemplars that came in, those of refused series included; counted in Remote Write 2.0 only.
    pub exemplars: u64,
    /// Size of the inflated request.
    pub inflated_bytes: usize,
    /// Series that are left out, by the policy `drop` or by the tenants' map.
    pub refused: RefusedSeries,
    /// Metadata entries that go nowhere.
    pub metadata_dropped: u64,
    /// Unknown fields of the request, or of a stream with many tenants, that go nowhere: they cannot be given to one.
    pub unknown_fields_dropped: u64,
    /// What was given up so that the request can go on as Remote Write 1.0.
    pub lost: Lost,
    /// One tenant, and the same bytes go on.
    pub passthrough: bool,
}

/// What a Remote Write 2.0 request says and Remote Write 1.0 has no words for, of series that were not refused.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lost {
    /// Histograms with custom buckets, which 1.0's receivers don't know. Prometheus leaves them out of 1.0 as well.
    pub custom_histograms: u64,
    /// Series left out because they held nothing, or nothing else.
    pub series: u64,
    /// Start timestamps of samples and histograms, and created timestamps of series.
    pub start_timestamps: u64,
    /// Unknown fields within series.
    pub fields: u64,
}

/// A request that cannot be split: always the sender's fault, and no retry will help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SplitError {
    /// The body is too large once inflated, or not what its encoding says.
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
    /// The body is no push in JSON, or too large a one.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A stream's labels are no labels.
    #[error("stream {place} ({labels}): malformed labels: {fault}")]
    Labels {
        /// Its place in the request, from 1.
        place: u64,
        /// Their text, escaped and cut short.
        labels: String,
        /// What is wrong with them.
        fault: labels::Malformed,
    },
    /// Neither series nor metadata.
    #[error("no timeseries found in the request")]
    Empty,
    /// A push without streams. Loki answers it with 422.
    #[error("no streams found in the push")]
    EmptyPush,
    /// Streams with entries of many tenants, whose labels each of them would have to get.
    #[error(
        "the request cannot be split: what several tenants would each get of it is more than {bytes_max} bytes"
    )]
    TooManyCopies {
        /// The bound.
        bytes_max: usize,
    },
    /// More series, metadata entries and unknown fields than one request may have.
    #[error("the request has more than {fields_max} series and metadata entries")]
    TooManyFields {
        /// The bound.
        fields_max: usize,
    },
    /// More symbols than one request may have.
    #[error("the request has more than {symbols_max} symbols")]
    TooManySymbols {
        /// The bound.
        symbols_max: usize,
    },
    /// Symbols that many tenants or, in Remote Write 1.0, many series would each get a copy of.
    #[error("the request cannot be split: its parts would inflate to more than {bytes_max} bytes together")]
    TooMuchGrowth {
        /// The bound.
        bytes_max: usize,
    },
    /// Unknown numbers at the top of the request would have to be copied into every part.
    #[error("the request cannot be split: it has more than {bytes_max} bytes of unknown fields")]
    TooManyScalars {
        /// The bound.
        bytes_max: usize,
    },
    /// More distinct tenants than one request may have.
    #[error("the request has more than {tenants_max} tenants")]
    TooManyTenants {
        /// The bound.
        tenants_max: usize,
    },
    /// A series has no usable tenant, and the policy is to reject.
    #[error("{noun} {place} ({name}): {error}")]
    Tenant {
        /// `series` or `stream`.
        noun: &'static str,
        /// Its place in the request, from 1.
        place: u64,
        /// Its metric name, escaped and cut short.
        name: String,
        /// What is wrong with its tenant.
        error: TenantError,
    },
}

impl SplitError {
    /// One word for logs and metrics.
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

/// Splits one request at a time; keeps its scratch for the next.
#[derive(Default, Debug)]
pub struct Splitter {
    request: Request,
    tenants: Tenants,
    /// Of the request at hand.
    protocol: Option<Protocol>,
    series: remote_write_v1::Found,
    symbolised: remote_write_v2::Found,
    streams: loki::Found,
    /// The parts carry fields for the request as a whole.
    alone: bool,
    /// All of the request is one tenant's, and goes on as it is.
    whole: bool,
    /// The elements that came in, when they go on as they are.
    elements: Option<Bytes>,
    /// The tenant whose part comes next.
    next: usize,
    /// What a part is put together in.
    gathered: Vec<u8>,
    deflater: Deflater,
}

impl Body {
    /// A Remote Write 1.0 request, as every Prometheus sends it.
    pub fn snappy_v1(bytes: Bytes) -> Self {
        Self { protocol: Protocol::RemoteWriteV1, compression: Compression::Snappy, bytes }
    }

    /// A Remote Write 2.0 request.
    pub fn snappy_v2(bytes: Bytes) -> Self {
        Self { protocol: Protocol::RemoteWriteV2, compression: Compression::Snappy, bytes }
    }
}

impl Splitter {
    /// Without scratch: it grows with the first requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inflates and scans `body`, and resolves the tenants of its series; `source` is what the request's own tenant
    /// header says. No part is built yet, so a refusal costs no deflating.
    ///
    /// Parts of an earlier request that have not been taken are forgotten.
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

    /// The next tenant's part, in the order of each tenant's first series; `None` when all have been taken.
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
                    Protocol::RemoteWriteV1 => self.series.gather(inflated, &self.tenants, self.next, out),
                    Protocol::RemoteWriteV2 => {
                        self.symbolised.gather(inflated, &self.tenants, self.next, out);
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
            protocol: protocol.of_parts(self.symbolised.handling()),
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
                let scan = remote_write_v1::find(inflated, resolver, &mut self.series)?;
                self.alone = self.series.alone;
                scan
            }
            Protocol::RemoteWriteV2 => remote_write_v2::find(inflated, resolver, &mut self.symbolised)?,
            Protocol::Loki | Protocol::LokiJson => {
                let scan = loki::find(inflated, resolver, &mut self.streams)?;
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

    /// Forgets the request at hand, and gives memory beyond what is kept between requests back.
    pub fn release(&mut self) {
        self.request.release();
        self.tenants.release();
        self.series.release();
        self.symbolised.release();
        self.streams.release();
        self.protocol = None;
        (self.alone, self.whole) = (false, false);
        self.elements = None;
        self.next = 0;
        trim(&mut self.gathered);
        self.deflater.release();
    }
}

/// A length or an offset within one inflated request.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a snappy block declares at most u32::MAX bytes")]
const fn narrow(bytes: usize) -> u32 {
    bytes as u32
}

/// Empties `scratch`, and gives its memory back if it is more than is kept between requests.
fn trim<T>(scratch: &mut Vec<T>) {
    scratch.clear();
    if scratch.capacity() * size_of::<T>() > SCRATCH_BYTES_MAX {
        *scratch = Vec::new();
    }
}
