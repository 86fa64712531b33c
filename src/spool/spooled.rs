//! What is kept of a fragment, and its bytes.
//!
//! Design constraints:
//!
//! * The elements are the bulk. They are the last field, so decoding slices them out of the record without a copy.
//! * Each value has one encoding. What decodes is encoded to the same bytes again, so there is one way to be wrong
//!   less.
//! * The bytes have a checksum, so they are what this program has written. They are checked nevertheless, as far as a
//!   mistake would lead a part to another tenant or into another header. The elements are not inflated for it.
//!
//! The format is versioned by the segment (`record.rs`): any change to it is another version. Only protocols may be
//! added, with fields of their own, such as the coding of those in OTLP: an older program finds such a record
//! malformed.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use bytes::Bytes;

use super::fields::{Fields, Malformed, put_block};
use super::stream::{Stream, tenant};
use crate::http::Passed;
use crate::model::{Coding, Compression, HaReplica, MergeKey, Part, Protocol};

/// What is kept of a fragment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spooled {
    /// The name of its upstream; empty for the main one.
    pub upstream: Box<str>,
    /// The part. Its protocol tells the destination.
    pub part: Part,
    /// The headers that are passed on with it.
    pub passed: Option<Passed>,
    /// The sender.
    pub client: SocketAddr,
    /// The request that the part came with.
    pub request_id: u128,
    /// When it was spooled, in milliseconds since the epoch.
    pub spooled_at: u64,
}

impl Spooled {
    /// The stream that it belongs to.
    pub fn stream(&self) -> Stream {
        Stream {
            upstream: self.upstream.clone(),
            destination: self.part.protocol.destination(),
            tenant: self.part.tenant.clone(),
        }
    }

    /// Appends its bytes.
    ///
    /// # Errors
    /// If a field is longer than its length can say.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let part = &self.part;
        put_block(out, self.upstream.as_bytes())?;
        put_block(out, part.tenant.as_str().as_bytes())?;
        out.push(part.protocol.number());
        if part.protocol.export().is_some() {
            out.extend([part.coding.now, part.coding.sent].map(number_of));
        }
        for number in [part.inflated_bytes, part.series, part.samples, part.histograms, part.exemplars] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        encode_merge(&part.merge, out)?;
        encode_passed(self.passed.as_ref(), out)?;
        encode_client(self.client, out);
        out.extend_from_slice(&self.request_id.to_le_bytes());
        out.extend_from_slice(&self.spooled_at.to_le_bytes());
        out.extend_from_slice(&part.elements);
        Ok(())
    }

    /// Reads what [`Self::encode`] has written. The elements stay a slice of `payload`.
    ///
    /// # Errors
    /// If these are not the bytes of one.
    pub fn decode(payload: &Bytes) -> Result<Self, Malformed> {
        let (mut spooled, elements) = Self::decode_around(payload)?;
        spooled.part.elements = payload.slice_ref(elements);
        Ok(spooled)
    }

    /// The same without the elements, which are returned apart.
    pub(super) fn decode_around(payload: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut fields = Fields::new(payload);
        let upstream = fields.text()?.into();
        let tenant = tenant(fields.text()?)?;
        let protocol = decode_protocol(fields.u8()?)?;
        let coding = match protocol.export() {
            Some(_) => {
                Coding { now: decode_compression(fields.u8()?)?, sent: decode_compression(fields.u8()?)? }
            }
            None => Coding::SNAPPY,
        };
        let part = Part {
            tenant,
            protocol,
            elements: Bytes::new(),
            coding,
            inflated_bytes: fields.u32()?,
            series: fields.u32()?,
            samples: fields.u32()?,
            histograms: fields.u32()?,
            exemplars: fields.u32()?,
            merge: decode_merge(&mut fields)?,
        };
        let passed = decode_passed(&mut fields)?;
        let client = decode_client(&mut fields)?;
        let (request_id, spooled_at) = (fields.u128()?, fields.u64()?);
        Ok((Self { upstream, part, passed, client, request_id, spooled_at }, fields.rest()))
    }
}

fn decode_protocol(number: u8) -> Result<Protocol, Malformed> {
    let known = Protocol::ALL.into_iter().find(|protocol| protocol.number() == number);
    known.ok_or(Malformed("its protocol is unknown"))
}

fn number_of(compression: Compression) -> u8 {
    match compression {
        Compression::Snappy => 1,
        Compression::Zstd => 2,
        Compression::Gzip => 3,
        Compression::Identity => 4,
    }
}

fn decode_compression(number: u8) -> Result<Compression, Malformed> {
    Ok(match number {
        1 => Compression::Snappy,
        2 => Compression::Zstd,
        3 => Compression::Gzip,
        4 => Compression::Identity,
        _ => return Err(Malformed("its compression is unknown")),
    })
}

fn encode_merge(merge: &MergeKey, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match merge {
        MergeKey::Alone => out.push(0),
        MergeKey::Ha(None) => out.push(1),
        MergeKey::Ha(Some(ha)) => {
            out.push(2);
            put_block(out, &ha.cluster)?;
            put_block(out, &ha.replica)?;
        }
    }
    Ok(())
}

fn decode_merge(fields: &mut Fields<'_>) -> Result<MergeKey, Malformed> {
    Ok(match fields.u8()? {
        0 => MergeKey::Alone,
        1 => MergeKey::Ha(None),
        2 => {
            let ha = HaReplica { cluster: fields.block()?.into(), replica: fields.block()?.into() };
            MergeKey::Ha(Some(Box::new(ha)))
        }
        _ => return Err(Malformed("its merge key is unknown")),
    })
}

fn encode_passed(passed: Option<&Passed>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let Some(passed) = passed else {
        out.push(0);
        return Ok(());
    };
    out.push(1);
    let mut bytes = Vec::new();
    passed.encode(&mut bytes);
    put_block(out, &bytes)
}

fn decode_passed(fields: &mut Fields<'_>) -> Result<Option<Passed>, Malformed> {
    Ok(match fields.u8()? {
        0 => None,
        1 => Some(Passed::decode(fields.block()?).ok_or(Malformed("its headers cannot be passed on"))?),
        _ => return Err(Malformed("its headers are neither there nor absent")),
    })
}

fn encode_client(client: SocketAddr, out: &mut Vec<u8>) {
    match client {
        SocketAddr::V4(v4) => {
            out.push(4);
            out.extend_from_slice(&v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            out.push(6);
            out.extend_from_slice(&v6.ip().octets());
            out.extend_from_slice(&v6.flowinfo().to_le_bytes());
            out.extend_from_slice(&v6.scope_id().to_le_bytes());
        }
    }
    out.extend_from_slice(&client.port().to_le_bytes());
}

fn decode_client(fields: &mut Fields<'_>) -> Result<SocketAddr, Malformed> {
    Ok(match fields.u8()? {
        4 => {
            let ip = Ipv4Addr::from(fields.array::<4>()?);
            SocketAddr::new(IpAddr::V4(ip), fields.u16()?)
        }
        6 => {
            let ip = Ipv6Addr::from(fields.array::<16>()?);
            let (flow, scope) = (fields.u32()?, fields.u32()?);
            SocketAddr::V6(SocketAddrV6::new(ip, fields.u16()?, flow, scope))
        }
        _ => return Err(Malformed("its client's address is of an unknown kind")),
    })
}
