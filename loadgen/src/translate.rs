//! Translates requests of Remote Write 1.0 to other protocols and back.
//!
//! Constraints that shaped it:
//! - Sums, stamps and audits know one form, that of 1.0. So whatever is sent otherwise is made of a 1.0 request, and
//!   what arrives otherwise is turned back into one before it is counted: if anything was lost or changed on the way,
//!   the sums differ.
//! - Each way there must have a way back that loses nothing, and that refuses what was not written here. Where times
//!   are nanoseconds, those that a millisecond can't have are a number that the sample's value gives, as a check that
//!   both came through.
//! - Logs have no samples: an entry's line bears the bits of the sample's value.

mod loki;
mod otlp;

use prost::Message;

use crate::proto::{self, Label, Sample, WriteRequest};
use crate::proto_v2;

pub use loki::{from_loki, to_loki, to_loki_json};
pub use otlp::{Notation, Signal, from_otlp, to_otlp};

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
    /// Not JSON, or not of this kind.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An export that was not written here, or that was changed.
    #[error("an export says something else than what was written: {0}")]
    Export(String),
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

/// A number below a million that a sample's value gives, so that a reader can check it.
fn odd_nanoseconds(value: f64) -> i64 {
    let mixed = value.to_bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    i64::try_from(mixed).unwrap_or(0) % NANOSECONDS_IN_A_MILLISECOND
}

/// A sample's time in nanoseconds since the epoch.
fn nanoseconds(sample: &Sample) -> i64 {
    sample.timestamp.wrapping_mul(NANOSECONDS_IN_A_MILLISECOND).wrapping_add(odd_nanoseconds(sample.value))
}

/// The sample of this value at this time, if the two belong together.
fn read_nanoseconds(nanoseconds: i64, value: f64) -> Option<Sample> {
    let timestamp = nanoseconds.div_euclid(NANOSECONDS_IN_A_MILLISECOND);
    let is_ours = nanoseconds.rem_euclid(NANOSECONDS_IN_A_MILLISECOND) == odd_nanoseconds(value);
    is_ours.then_some(Sample { value, timestamp })
}

/// A line of a log that bears a sample's value.
fn line(sample: &Sample) -> String {
    let (value, bits) = (sample.value, sample.value.to_bits());
    format!("level=info msg=\"request served\" took={value:?}ms bits={bits:016x}")
}

/// The value that a line bears.
fn read_line(text: &str) -> Option<f64> {
    let (_, bits) = text.rsplit_once("bits=")?;
    let value = f64::from_bits(u64::from_str_radix(bits, 16).ok()?);
    (text == line(&Sample { value, timestamp: 0 })).then_some(value)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::fleet::{Fleet, FleetConfig};

    pub(super) fn request() -> WriteRequest {
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
}
