//! Sums over the content of requests that a sender and a sink can compare.
//!
//! Constraints that shaped it:
//! - Requests are split and merged on the way. So only sums over series and samples can be compared: they do not depend
//!   on where requests begin and end.
//! - The sink shares its machine with the server under test, so counting must be cheap: one walk over the inflated
//!   bytes, without allocations and without a model.
//! - The tenant's label may be removed on the way, so it is not part of the sum. Whether it names the right tenant is
//!   checked separately (*misplaced*). A wrong tenant also changes the sums of two tenants.
//!
//! The checksum is the wrapping sum, over all samples, of a hash of the series' labels (as encoded, in their order),
//! the timestamp and the value's bits. Histograms, exemplars and unknown fields count with their bytes. Equal sums
//! prove that nothing was lost, duplicated, misplaced or changed: two different sets of samples have the same sum with
//! a probability of 2^-64.

use std::iter::Sum;
use std::ops::{AddAssign, Sub};

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde::{Deserialize, Serialize};

use crate::proto::{Exemplar, Histogram, MetricMetadata};

/// Sums over series. Adding is how tallies of requests become a tally of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Series; one that is sent twice counts twice.
    pub series: u64,
    /// Float samples.
    pub samples: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Wrapping sum of the hashes of all that was counted above.
    #[serde(with = "hex")]
    pub checksum: u64,
}

impl Tally {
    /// The same `times` over.
    pub fn times(self, times: u64) -> Self {
        self.with(Self::default(), |sum, _| sum.wrapping_mul(times))
    }

    /// Each sum of the one together with that of the other.
    fn with(self, other: Self, both: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            series: both(self.series, other.series),
            samples: both(self.samples, other.samples),
            histograms: both(self.histograms, other.histograms),
            exemplars: both(self.exemplars, other.exemplars),
            checksum: both(self.checksum, other.checksum),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = self.with(other, u64::wrapping_add);
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| sum.with(tally, u64::wrapping_add))
    }
}

impl Sub for Tally {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.with(other, u64::wrapping_sub)
    }
}

/// Why bytes are no `WriteRequest`.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// A length points past the end of its message.
    #[error("a field is longer than its message")]
    Truncated,
    /// A field that is known has a wire type that is not its own.
    #[error("a known field has the wrong wire type")]
    WireType,
    /// What prost says of a key, a varint, or a message that is decoded whole.
    #[error(transparent)]
    Field(#[from] prost::DecodeError),
}

/// One series of a request, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesSeen<'a> {
    /// The tenant's label, the first in priority order that has a value.
    pub tenant: Option<&'a [u8]>,
    /// Its sums; `series` is 1.
    pub tally: Tally,
}

/// Walks over an inflated `WriteRequest` and calls `each` for every series; returns how many metadata there were.
///
/// `tenant_labels` are the names, in priority order, that the checksum leaves out.
///
/// # Errors
/// When the bytes are no `WriteRequest`. Series before the fault were then seen already.
pub fn walk<'a>(
    mut request: &'a [u8],
    tenant_labels: &[impl AsRef<[u8]>],
    mut each: impl FnMut(SeriesSeen<'a>),
) -> Result<u64, Malformed> {
    let mut metadata = 0;
    while !request.is_empty() {
        match key(&mut request)? {
            (1, WireType::LengthDelimited) => each(series(take(&mut request)?, tenant_labels)?),
            (3, WireType::LengthDelimited) => {
                MetricMetadata::decode(take(&mut request)?)?;
                metadata += 1;
            }
            (1 | 3, _) => return Err(Malformed::WireType),
            (tag, wire) => skip_field(wire, tag, &mut request, DecodeContext::default())?,
        }
    }
    Ok(metadata)
}

/// Labels first, wherever they stand; then what was measured under them.
fn series<'a>(bytes: &'a [u8], tenant_labels: &[impl AsRef<[u8]>]) -> Result<SeriesSeen<'a>, Malformed> {
    let mut labels_hash = Hash::LABELS;
    let mut tenant: Option<(usize, &[u8])> = None;
    let mut rest = bytes;
    // Where the labels end, as they are sent: what stands before needs no second look.
    let mut after_labels = None;
    while !rest.is_empty() {
        let before = rest;
        match key(&mut rest)? {
            (1, WireType::LengthDelimited) => {
                let message = take(&mut rest)?;
                let (name, value) = label(message)?;
                match tenant_labels.iter().position(|known| known.as_ref() == name) {
                    None => labels_hash = labels_hash.bytes(message),
                    Some(rank) if !value.is_empty() && tenant.is_none_or(|(best, _)| rank < best) => {
                        tenant = Some((rank, value));
                    }
                    Some(_) => {}
                }
            }
            (1, _) => return Err(Malformed::WireType),
            (_, WireType::LengthDelimited) => {
                after_labels.get_or_insert(before);
                take(&mut rest)?;
            }
            (tag, wire) => {
                after_labels.get_or_insert(before);
                skip_field(wire, tag, &mut rest, DecodeContext::default())?;
            }
        }
    }
    let tally = measured(after_labels.unwrap_or_default(), labels_hash)?;
    Ok(SeriesSeen { tenant: tenant.map(|(_, value)| value), tally })
}

/// The second walk over a series: samples, exemplars, histograms, and what else there is.
fn measured(mut rest: &[u8], labels: Hash) -> Result<Tally, Malformed> {
    let mut tally = Tally { series: 1, ..Tally::default() };
    let mut add = |hash: Hash| tally.checksum = tally.checksum.wrapping_add(hash.0);
    while !rest.is_empty() {
        let before = rest;
        match key(&mut rest)? {
            (1, _) => drop(take(&mut rest)?),
            (2, WireType::LengthDelimited) => {
                let (timestamp, bits) = sample(take(&mut rest)?)?;
                add(labels.word(timestamp).word(bits));
                tally.samples += 1;
            }
            (3, WireType::LengthDelimited) => {
                let exemplar = take(&mut rest)?;
                Exemplar::decode(exemplar)?;
                add(labels.word(3).bytes(exemplar));
                tally.exemplars += 1;
            }
            (4, WireType::LengthDelimited) => {
                let histogram = take(&mut rest)?;
                Histogram::decode(histogram)?;
                add(labels.word(4).bytes(histogram));
                tally.histograms += 1;
            }
            (2..=4, _) => return Err(Malformed::WireType),
            (tag, wire) => {
                skip_field(wire, tag, &mut rest, DecodeContext::default())?;
                let field = before.get(..before.len() - rest.len()).unwrap_or_default();
                add(labels.word(u64::from(tag)).bytes(field));
            }
        }
    }
    Ok(tally)
}

/// Name and value of a label.
fn label(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    match plain_label(message) {
        Some(label) => Ok(label),
        None => any_label(message),
    }
}

/// A label as everybody encodes it: name, value, each shorter than 128 bytes, and nothing else.
#[inline]
fn plain_label(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, length @ ..0x80, rest @ ..] = message else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    match rest {
        [0x12, length @ ..0x80, value @ ..] if usize::from(*length) == value.len() => Some((name, value)),
        _ => None,
    }
}

/// A label in any encoding.
fn any_label(mut rest: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while !rest.is_empty() {
        match key(&mut rest)? {
            (1, WireType::LengthDelimited) => name = take(&mut rest)?,
            (2, WireType::LengthDelimited) => value = take(&mut rest)?,
            (1 | 2, _) => return Err(Malformed::WireType),
            (tag, wire) => skip_field(wire, tag, &mut rest, DecodeContext::default())?,
        }
    }
    Ok((name, value))
}

/// Timestamp and the value's bits of a sample.
fn sample(mut rest: &[u8]) -> Result<(u64, u64), Malformed> {
    let (mut timestamp, mut bits) = (0, 0);
    while !rest.is_empty() {
        match key(&mut rest)? {
            (1, WireType::SixtyFourBit) => {
                let (eight, after) = rest.split_first_chunk().ok_or(Malformed::Truncated)?;
                bits = u64::from_le_bytes(*eight);
                rest = after;
            }
            (2, WireType::Varint) => timestamp = varint(&mut rest)?,
            (1 | 2, _) => return Err(Malformed::WireType),
            (tag, wire) => skip_field(wire, tag, &mut rest, DecodeContext::default())?,
        }
    }
    Ok((timestamp, bits))
}

/// A varint; nearly all are lengths below 128.
#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, prost::DecodeError> {
    match rest.split_first() {
        Some((&byte, after)) if byte < 0x80 => {
            *rest = after;
            Ok(u64::from(byte))
        }
        _ => decode_varint(rest),
    }
}

/// A field's number and wire type.
#[inline]
fn key(rest: &mut &[u8]) -> Result<(u32, WireType), prost::DecodeError> {
    match rest.split_first() {
        // Fields 1 to 15, length-delimited: nearly all there are.
        Some((&byte, after)) if (0x0a..0x80).contains(&byte) && byte & 7 == 2 => {
            *rest = after;
            Ok((u32::from(byte >> 3), WireType::LengthDelimited))
        }
        _ => decode_key(rest),
    }
}

/// The payload of a length-delimited field.
#[inline]
fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(varint(rest)?).map_err(|_| Malformed::Truncated)?;
    let (payload, after) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
    *rest = after;
    Ok(payload)
}

/// A hash in progress: each word is folded in by a 64 × 64 → 128 bit multiplication whose halves are xored, as
/// wyhash does it. Ours, because two processes, maybe on two machines, must agree on it.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const LABELS: Self = Self(0x243f_6a88_85a3_08d3);
    const FACTOR: u64 = 0x9fb2_1c65_1e98_df25;

    fn word(self, word: u64) -> Self {
        let wide = u128::from(self.0 ^ word) * u128::from(Self::FACTOR);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are wanted, one by one")]
        Self((wide as u64) ^ ((wide >> 64) as u64).rotate_left(23))
    }

    /// Length and content, so that where one ends and the next begins counts.
    fn bytes(self, bytes: &[u8]) -> Self {
        let mut hash = self.word(bytes.len() as u64 ^ 0xa076_1d64_78bd_642f);
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            hash = hash.word(u64::from_le_bytes(*word));
        }
        if tail.is_empty() {
            return hash;
        }
        // The last eight bytes, some of them for the second time: quicker than to gather the tail.
        let last = match bytes.last_chunk::<8>() {
            Some(last) => u64::from_le_bytes(*last),
            None => tail.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        hash.word(last)
    }
}

/// A checksum as text: JSON readers elsewhere keep only 53 bits of a number.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        u64::from_str_radix(&String::deserialize(from)?, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Label, Sample, TimeSeries, WriteRequest};
    use crate::random::Random;

    const TENANT: [&str; 2] = ["first", "tenant"];

    fn total(request: &WriteRequest) -> Tally {
        let mut total = Tally::default();
        walk(&request.encode_to_vec(), &TENANT, |seen| total += seen.tally).unwrap();
        total
    }

    fn request() -> WriteRequest {
        WriteRequest {
            timeseries: vec![
                TimeSeries::new(&[("__name__", "up"), ("tenant", "a")], &[(1, 1.0), (2, 0.0)]),
                TimeSeries::new(&[("__name__", "up"), ("job", "x"), ("tenant", "b")], &[(1, 1.0)]),
            ],
            metadata: vec![],
        }
    }

    #[test]
    fn the_tenant_is_the_first_of_the_list_that_has_a_value() {
        let tenant_of = |labels: &[(&str, &str)]| {
            let request = WriteRequest { timeseries: vec![TimeSeries::new(labels, &[])], metadata: vec![] };
            let mut tenant = None;
            walk(&request.encode_to_vec(), &TENANT, |seen| tenant = seen.tenant.map(<[u8]>::to_vec)).unwrap();
            tenant
        };
        assert_eq!(tenant_of(&[("tenant", "t"), ("first", "f")]), Some(b"f".to_vec()));
        assert_eq!(tenant_of(&[("first", ""), ("tenant", "t")]), Some(b"t".to_vec()));
        assert_eq!(tenant_of(&[("tenant", "1"), ("tenant", "2")]), Some(b"1".to_vec()));
        assert_eq!(tenant_of(&[("a", "b")]), None);
    }

    #[test]
    fn everything_but_the_tenants_label_and_the_order_of_series_counts() {
        let sum = total(&request());
        assert_eq!((sum.series, sum.samples), (2, 3));
        let change = |change: fn(&mut WriteRequest)| {
            let mut changed = request();
            change(&mut changed);
            total(&changed)
        };
        assert_eq!(change(|r| r.timeseries.reverse()), sum);
        assert_eq!(change(|r| drop(r.timeseries[0].labels.pop())), sum);
        let differs: [fn(&mut WriteRequest); 9] = [
            |r| r.timeseries[0].samples[1].value = 5e-324,
            |r| r.timeseries[0].samples[1].value = f64::from_bits(0x7ff0_0000_0000_0002),
            |r| r.timeseries[0].samples[0].timestamp = 3,
            |r| r.timeseries[1].labels.swap(0, 1),
            |r| r.timeseries[1].labels[1] = Label::new("jo", "bx"),
            |r| r.timeseries[1].labels[1].value = "y".into(),
            // The same samples, one of them under another series.
            |r| {
                r.timeseries[0].samples[0].timestamp =
                    1 + std::mem::take(&mut r.timeseries[1].samples[0].timestamp)
            },
            |r| r.timeseries[1].samples.push(Sample { value: 0.0, timestamp: 0 }),
            |r| drop(r.timeseries.pop()),
        ];
        for (index, differ) in differs.into_iter().enumerate() {
            assert_ne!(change(differ).checksum, sum.checksum, "change {index}");
        }
    }

    /// The oracle: whatever prost takes, the walk takes, with the same counts; whatever it refuses, the walk refuses.
    #[test]
    fn agrees_with_prost_on_mutated_bytes() {
        let good = request().encode_to_vec();
        let mut random = Random::new(7, 0);
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(2) {
                let at = random.index(bytes.len());
                bytes[at] = random.next().to_le_bytes()[0];
            }
            bytes.truncate(bytes.len() - if random.below(4) == 0 { random.index(9) } else { 0 });
            let mut sum = Tally::default();
            let walked = walk(&bytes, &TENANT, |seen| sum += seen.tally);
            match WriteRequest::decode(&bytes[..]) {
                Ok(request) => {
                    taken += 1;
                    assert_eq!(walked.unwrap(), request.metadata.len() as u64, "{bytes:x?}");
                    let samples = request.timeseries.iter().map(|series| series.samples.len() as u64).sum();
                    assert_eq!((sum.series, sum.samples), (request.timeseries.len() as u64, samples));
                }
                Err(_) => {
                    refused += 1;
                    assert!(walked.is_err(), "{bytes:x?}");
                }
            }
        }
        assert!(taken > 5_000 && refused > 5_000, "{taken} taken, {refused} refused");
    }

    #[test]
    fn a_tally_survives_json() {
        let tally = Tally { series: 1, samples: 2, histograms: 3, exemplars: 4, checksum: u64::MAX - 1 };
        let text = serde_json::to_string(&tally).unwrap();
        assert!(text.contains("\"fffffffffffffffe\""), "{text}");
        assert_eq!(serde_json::from_str::<Tally>(&text).unwrap(), tally);
    }
}
