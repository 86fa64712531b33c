//! Stamped series as Remote Write 1.0 has them.

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::journal::Entries;
use crate::proto::{Label, Sample, TimeSeries};
use crate::stamp::{METRIC_NAME, SenderId, Stamp};

/// One sender's series of one tenant, and what became of them.
pub(super) struct Strand {
    pub(super) entries: Entries,
    sender: SenderId,
    /// The sequence number of its next request.
    next: u64,
    /// Each series' labels, encoded: they are the same in each request.
    labels: Vec<Vec<u8>>,
}

impl Strand {
    pub(super) fn new(tenant_label: &str, tenant: &str, sender: SenderId, series: u32) -> Self {
        let labels = |series| {
            let stamp = Stamp { tenant, sender, series, sequence: 0 };
            let mut labels = vec![Label::new("__name__", METRIC_NAME), Label::new(tenant_label, tenant)];
            labels.extend(stamp.labels().map(|(name, value)| Label::new(name, &value)));
            labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            TimeSeries { labels, ..TimeSeries::default() }.encode_to_vec()
        };
        Self { entries: Entries::new(series), sender, next: 0, labels: (0..series).map(labels).collect() }
    }

    /// Appends all series with the next sample of each to a `WriteRequest`; returns the sequence number.
    pub(super) fn write_next(&mut self, request: &mut Vec<u8>) -> u64 {
        let sequence = self.next;
        self.next += 1;
        let stamp = Stamp { tenant: "", sender: self.sender, series: 0, sequence };
        let sample = Sample { value: stamp.value(), timestamp: stamp.timestamp() };
        let mut field = Vec::new();
        prost::encoding::message::encode(2, &sample, &mut field);
        for labels in &self.labels {
            let length = labels.len() + field.len();
            request.reserve(1 + encoded_len_varint(length as u64) + length);
            encode_key(1, WireType::LengthDelimited, request);
            encode_varint(length as u64, request);
            request.put_slice(labels);
            request.put_slice(&field);
        }
        sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::WriteRequest;
    use crate::stamp::read_v1;

    #[test]
    fn what_is_encoded_bears_its_stamps() {
        let sender = SenderId { run: 1_764_000_000_000, index: 4 };
        let mut strand = Strand::new("tenant", "a", sender, 3);
        for sequence in 0..300 {
            let mut request = Vec::new();
            assert_eq!(strand.write_next(&mut request), sequence);
            let decoded = WriteRequest::decode(&request[..]).unwrap();
            assert_eq!(decoded.timeseries.len(), 3);
            for (series, number) in decoded.timeseries.iter().zip(0..) {
                assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "{series:?}");
                assert_eq!(series.label("tenant"), Some(&b"a"[..]));
                let mut stamps = Vec::new();
                read_v1(series, |stamp| stamps.push(stamp));
                assert_eq!(stamps, [Ok(Stamp { tenant: "a", sender, series: number, sequence })]);
            }
        }
    }
}
