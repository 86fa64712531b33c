//! Loki pushes: series are streams, and samples are entries.

use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message;
use testkit::oracle::loki_labels;

use super::{Unreadable, line, nanoseconds, read_line, read_nanoseconds};
use crate::proto::{self, Label, Sample, WriteRequest};
use crate::proto_loki::{Entry, PushRequest, Stream, Timestamp};

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

fn entry(sample: &Sample) -> Entry {
    Entry::new(nanoseconds(sample), &line(sample), &[])
}

fn read_entry(entry: &Entry) -> Result<Sample, Unreadable> {
    let line = String::from_utf8_lossy(&entry.line);
    let read = || {
        let value = read_line(&line)?;
        read_nanoseconds(entry.timestamp.and_then(Timestamp::to_nanos)?, value)
    };
    read().ok_or_else(|| Unreadable::Entry(line.chars().take(100).collect()))
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
    use super::super::tests::request;
    use super::*;

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
