//! Translates requests of Remote Write 1.0 to other protocols and back.
//!
//! Constraints that shaped it:
//! - Sums, stamps and audits know one form, that of 1.0. So whatever is sent otherwise is made of a 1.0 request, and what
//!   arrives otherwise is turned back into one before it is counted: if anything was lost or changed on the way, the
//!   sums differ.
//! - Each way there must have a way back that loses nothing. Logs have no samples: an entry's line bears the bits of the
//!   sample's value, and its nanoseconds those that a millisecond can't have, as a check that they came through.

use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message;
use testkit::oracle::loki_labels;

use crate::proto::{self, Label, Sample, WriteRequest};
use crate::proto_loki::{Entry, PushRequest, Stream, Timestamp};
use crate::proto_v2;

const NANOSECONDS_IN_A_MILLISECOND: i64 = 1_000_000;

/// Why bytes could not be turned into a 1.0 request.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not a message of its kind.
    #[error(transparent)]
    Message(#[from] prost::DecodeError),
    /// It refers to a symbol that is not there, or its labels are not pairs.
    #[error("a reference of a 2.0 request leads nowhere")]
    Reference,
    /// The labels' text is not what was written.
    #[error("a stream's labels are unreadable: {0}")]
    Labels(String),
    /// A line or a timestamp of another program.
    #[error("an entry says something else than what was written: {0}")]
    Entry(String),
}

/// The 1.0 request that an inflated 2.0 request says. Start timestamps and metadata, of which 1.0 has none in a series,
/// are left behind.
///
/// # Errors
/// See [`Unreadable`].
pub fn from_v2(inflated: &[u8]) -> Result<WriteRequest, Unreadable> {
    let request = proto_v2::Request::decode(inflated)?;
    let labels = |references: &[u32]| -> Result<Vec<Label>, Unreadable> {
        let labels = request.labels(references).ok_or(Unreadable::Reference)?;
        Ok(labels.into_iter().map(|(name, value)| Label { name, value }).collect())
    };
    let mut timeseries = Vec::with_capacity(request.timeseries.len());
    for series in &request.timeseries {
        let exemplar = |exemplar: &proto_v2::Exemplar| -> Result<_, Unreadable> {
            let labels = labels(&exemplar.labels_refs)?;
            Ok(proto::Exemplar { labels, value: exemplar.value, timestamp: exemplar.timestamp })
        };
        timeseries.push(proto::TimeSeries {
            labels: labels(&series.labels_refs)?,
            samples: series
                .samples
                .iter()
                .map(|s| Sample { value: s.value, timestamp: s.timestamp })
                .collect(),
            exemplars: series.exemplars.iter().map(exemplar).collect::<Result<_, _>>()?,
            histograms: series.histograms.clone(),
        });
    }
    Ok(WriteRequest { timeseries, metadata: Vec::new() })
}

/// A push whose streams are the request's series, and whose entries are their samples. Histograms, exemplars and
/// metadata, which logs don't have, are left behind.
pub fn to_loki(request: &WriteRequest) -> PushRequest {
    let stream = |series: &proto::TimeSeries| Stream {
        labels: labels_text(&series.labels).into(),
        entries: series.samples.iter().map(entry).collect(),
        hash: 0,
    };
    PushRequest { streams: request.timeseries.iter().map(stream).collect() }
}

/// The same push as JSON (Grafana Loki's HTTP API, "Ingest logs").
pub fn to_loki_json(request: &WriteRequest) -> Vec<u8> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let stream = |series: &proto::TimeSeries| {
        let labels = series.labels.iter().map(|label| (text(&label.name), text(&label.value).into()));
        let values = series.samples.iter().map(entry).map(|entry| {
            let nanoseconds = entry.timestamp.and_then(Timestamp::to_nanos).unwrap_or_default();
            serde_json::json!([nanoseconds.to_string(), text(&entry.line)])
        });
        let labels: serde_json::Map<String, serde_json::Value> = labels.collect();
        serde_json::json!({ "stream": labels, "values": values.collect::<Vec<_>>() })
    };
    let streams: Vec<_> = request.timeseries.iter().map(stream).collect();
    serde_json::json!({ "streams": streams }).to_string().into_bytes()
}

/// The 1.0 request that an inflated push says, if it was written by [`to_loki`] or [`to_loki_json`].
///
/// # Errors
/// See [`Unreadable`].
pub fn from_loki(inflated: &[u8]) -> Result<WriteRequest, Unreadable> {
    let push = PushRequest::decode(inflated)?;
    let mut timeseries = Vec::with_capacity(push.streams.len());
    for stream in &push.streams {
        timeseries.push(proto::TimeSeries {
            labels: read_labels(&stream.labels)?,
            samples: stream.entries.iter().map(read_entry).collect::<Result<_, _>>()?,
            ..proto::TimeSeries::default()
        });
    }
    Ok(WriteRequest { timeseries, metadata: Vec::new() })
}

/// The nanoseconds behind a sample's millisecond: a number that its value gives, so that a reader can check them.
fn odd_nanoseconds(bits: u64) -> i64 {
    i64::try_from(bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44).unwrap_or(0) % NANOSECONDS_IN_A_MILLISECOND
}

fn entry(sample: &Sample) -> Entry {
    let bits = sample.value.to_bits();
    let at = sample.timestamp * NANOSECONDS_IN_A_MILLISECOND + odd_nanoseconds(bits);
    let line = format!("level=info msg=\"request served\" took={:?}ms bits={bits:016x}", sample.value);
    Entry::new(at, &line, &[])
}

fn read_entry(entry: &Entry) -> Result<Sample, Unreadable> {
    let line = String::from_utf8_lossy(&entry.line);
    let strange = || Unreadable::Entry(line.chars().take(100).collect());
    let bits = line.rsplit_once("bits=").and_then(|(_, bits)| u64::from_str_radix(bits, 16).ok());
    let bits = bits.ok_or_else(strange)?;
    let nanoseconds = entry.timestamp.and_then(Timestamp::to_nanos).ok_or_else(strange)?;
    if nanoseconds.rem_euclid(NANOSECONDS_IN_A_MILLISECOND) != odd_nanoseconds(bits) {
        return Err(strange());
    }
    let timestamp = nanoseconds.div_euclid(NANOSECONDS_IN_A_MILLISECOND);
    Ok(Sample { value: f64::from_bits(bits), timestamp })
}

/// Labels as Loki and Prometheus write them: `{name="value", …}`.
fn labels_text(labels: &[Label]) -> String {
    let mut text = String::from("{");
    for (at, label) in labels.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        let value = String::from_utf8_lossy(&label.value);
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        // Writing to a String can't fail.
        let _ = write!(text, "{comma}{}=\"{value}\"", String::from_utf8_lossy(&label.name));
    }
    text.push('}');
    text
}

/// Reads what [`labels_text`] wrote.
fn read_labels(text: &[u8]) -> Result<Vec<Label>, Unreadable> {
    let labels = loki_labels::labels(text)
        .ok_or_else(|| Unreadable::Labels(String::from_utf8_lossy(text).chars().take(100).collect()))?;
    Ok(labels.into_iter().map(|(name, value)| Label { name: name.into(), value: value.into() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Fleet, FleetConfig};

    fn request() -> WriteRequest {
        let config = FleetConfig {
            senders: 1,
            bodies_per_sender: 1,
            series: 200,
            samples: 3,
            histograms: 0.2,
            exemplars: 0.3,
            ..FleetConfig::default()
        };
        let fleet = Fleet::build(&config).unwrap();
        WriteRequest::from_block(&fleet.senders[0][0].block).unwrap()
    }

    #[test]
    fn remote_write_2_says_the_same() {
        let request = request();
        let v2 = proto_v2::Request::from(&request).encode_to_vec();
        assert_eq!(from_v2(&v2).unwrap(), request);
        let odd = proto_v2::Request {
            symbols: vec![Bytes::new()],
            timeseries: vec![proto_v2::TimeSeries { labels_refs: vec![0], ..Default::default() }],
        };
        assert!(matches!(from_v2(&odd.encode_to_vec()), Err(Unreadable::Reference)));
    }

    #[test]
    fn loki_says_of_samples_the_same() {
        let mut request = request();
        for series in &mut request.timeseries {
            series.histograms.clear();
            series.exemplars.clear();
        }
        // Values that text is bad at: the stale marker, quotes.
        request.timeseries[0].samples[0].value = f64::from_bits(0x7ff0_0000_0000_0002);
        request.timeseries[0].labels[0].value = Bytes::from_static(b"a \"quoted\" \\ value\n");
        let same = from_loki(&to_loki(&request).encode_to_vec()).unwrap();
        assert_eq!(same.encode_to_vec(), request.encode_to_vec());
        let mut changed = to_loki(&request);
        if let Some(at) = &mut changed.streams[3].entries[0].timestamp {
            at.nanos ^= 1;
        }
        assert!(matches!(from_loki(&changed.encode_to_vec()), Err(Unreadable::Entry(_))));
    }
}
