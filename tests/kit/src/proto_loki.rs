//! Loki's push as Loki defines it (grafana/loki, `pkg/push/push.proto`), for prost.
//!
//! The messages are written by hand and have `Bytes` for `string`, for the reasons that [`crate::proto`] gives.

use bytes::Bytes;
use prost::Message;

use crate::proto::{BlockError, Label, deflate, read_block};

/// `logproto.PushRequest`. Field 2, `format`, is Loki's own.
#[derive(Clone, PartialEq, Message)]
pub struct PushRequest {
    /// The streams, each with its entries.
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<Stream>,
}

/// `logproto.StreamAdapter`: labels, and what was logged under them.
#[derive(Clone, PartialEq, Message)]
pub struct Stream {
    /// The labels as text: `{app="shop"}`.
    #[prost(bytes = "bytes", tag = "1")]
    pub labels: Bytes,
    /// Its entries.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
    /// A hash of the labels, or 0.
    #[prost(uint64, tag = "3")]
    pub hash: u64,
}

/// `logproto.EntryAdapter`. Field 4, `parsed`, is in answers to queries only.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// When it was logged.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// The line.
    #[prost(bytes = "bytes", tag = "2")]
    pub line: Bytes,
    /// Its structured metadata. `logproto.LabelPairAdapter` has the fields of a label.
    #[prost(message, repeated, tag = "3")]
    pub structured_metadata: Vec<Label>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Whole seconds since the epoch, rounded down.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds on top, up to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl PushRequest {
    /// The push as a snappy block: the body of a POST to Loki.
    #[must_use]
    pub fn to_block(&self) -> Bytes {
        deflate(&self.encode_to_vec())
    }

    /// Reads a snappy block.
    ///
    /// # Errors
    /// When it does not inflate, inflates to more than [`crate::proto::INFLATED_BYTES_MAX`], or is no `PushRequest`.
    pub fn from_block(block: &[u8]) -> Result<Self, BlockError> {
        read_block(block)
    }
}

impl Stream {
    /// A stream of these labels' text and these `(time in ns, line)` entries.
    #[must_use]
    pub fn new(labels: &str, entries: &[(i64, &str)]) -> Self {
        Self {
            labels: Bytes::copy_from_slice(labels.as_bytes()),
            entries: entries.iter().map(|&(nanos, line)| Entry::new(nanos, line, &[])).collect(),
            hash: 0,
        }
    }
}

impl Entry {
    /// An entry at a time in nanoseconds since the epoch, with this structured metadata.
    #[must_use]
    pub fn new(nanos: i64, line: &str, metadata: &[(&str, &str)]) -> Self {
        Self {
            timestamp: Some(Timestamp::from_nanos(nanos)),
            line: Bytes::copy_from_slice(line.as_bytes()),
            structured_metadata: metadata.iter().map(|(name, value)| Label::new(name, value)).collect(),
        }
    }
}

impl Timestamp {
    const NANOS_PER_SEC: i64 = 1_000_000_000;

    /// The time so many nanoseconds after the epoch, or before.
    #[must_use]
    pub fn from_nanos(nanos: i64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the rest is below 10^9")]
        let rest = nanos.rem_euclid(Self::NANOS_PER_SEC) as i32;
        Self { seconds: nanos.div_euclid(Self::NANOS_PER_SEC), nanos: rest }
    }

    /// The nanoseconds since the epoch. `None` if they do not fit, which is the case beyond some 290 years.
    #[must_use]
    pub fn to_nanos(self) -> Option<i64> {
        let nanos = i128::from(self.seconds) * i128::from(Self::NANOS_PER_SEC) + i128::from(self.nanos);
        i64::try_from(nanos).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field numbers, written out as the bytes that Promtail sends.
    #[test]
    fn the_wire_is_lokis_wire() {
        let entry = Entry::new(1_000_000_002, "x", &[("k", "v")]);
        let stream = Stream { labels: Bytes::from_static(b"{}"), entries: vec![entry], hash: 5 };
        let wire: &[u8] = &[
            0x0a, 25, // stream
            0x0a, 2, b'{', b'}', // labels
            0x12, 17, // entry
            0x0a, 4, 0x08, 1, 0x10, 2, // timestamp
            0x12, 1, b'x', // line
            0x1a, 6, 0x0a, 1, b'k', 0x12, 1, b'v', // structured metadata
            0x18, 5, // hash
        ];
        let request = PushRequest { streams: vec![stream] };
        assert_eq!(request.encode_to_vec(), wire);
        assert_eq!(PushRequest::from_block(&request.to_block()).unwrap(), request);
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        for nanos in [0, 1, -1, 1_700_000_000_123_456_789, -1_000_000_000, i64::MIN, i64::MAX] {
            let timestamp = Timestamp::from_nanos(nanos);
            assert!((0..1_000_000_000).contains(&timestamp.nanos));
            assert_eq!(timestamp.to_nanos(), Some(nanos));
        }
        assert_eq!(Timestamp::from_nanos(-1), Timestamp { seconds: -1, nanos: 999_999_999 });
        assert_eq!(Timestamp { seconds: i64::MAX, nanos: 0 }.to_nanos(), None);
    }
}
