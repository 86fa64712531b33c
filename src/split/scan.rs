//! What splitting is given, and what scanning finds.
#![forbid(unsafe_code)]

use bytes::Bytes;

use super::families::Families;
use crate::model::Compression;
use crate::model::{HaLabels, Protocol, RefusedSeries, SplitLimits, V2Handling};
use crate::tenant::{Grant, TenantRules};

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

/// The rules for splitting a request.
#[derive(Clone, Copy, Debug)]
pub struct SplitRules<'a> {
    /// How the tenant of a series is found.
    pub tenant: &'a TenantRules,
    /// The tenants that its sender may write to.
    pub grant: &'a Grant,
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
    /// Creates rules with defaults: senders may write to every tenant, metadata is dropped, HA replicas are not
    /// distinguished, and Remote Write 2.0 stays 2.0.
    pub fn new(tenant: &'a TenantRules, limits: SplitLimits) -> Self {
        Self {
            tenant,
            grant: &Grant::Any,
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
    /// Number of parts that [`Splitter::next_part`](super::Splitter::next_part) will return; 0 if there is nothing to
    /// send.
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
    /// Whether the request has one tenant and is forwarded byte for byte, unless its target wants another coding.
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
