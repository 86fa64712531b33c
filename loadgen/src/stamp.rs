//! Samples that carry where they come from and where they belong.
//!
//! Constraints that shaped it:
//! - Requests are split by tenant and merged on the way, and the tenant's label may be removed. So each series carries
//!   its stamp in labels of its own, one of which is the tenant that it is meant for.
//! - A receiver may insist on rising and recent timestamps. So the timestamp is the run's start, plus a millisecond for
//!   each request.
//! - Only the function that reads Remote Write 1.0 knows a wire format.
//!
//! Timestamp and value both contain the sequence number. A sample in which they disagree is *damaged*.

use std::fmt;
use std::str;

use serde::{Deserialize, Serialize};

use crate::proto::{Sample, TimeSeries};

/// Name of every stamped series.
pub const METRIC_NAME: &str = "loadgen_stamped";

/// The label that names the sender: [`SenderId`] as text.
pub const SENDER_LABEL: &str = "loadgen_sender";

/// The label that numbers a sender's series of one tenant, from 0.
pub const SERIES_LABEL: &str = "loadgen_series";

/// The label that names the tenant that a series is meant for, beside the one that may be removed.
pub const TENANT_LABEL: &str = "loadgen_tenant";

/// The largest sequence number and the largest timestamp: what a float holds exactly.
const EXACT_MAX: u64 = 1 << 53;

/// A sender, told apart from those of all other runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SenderId {
    /// When its run began, in milliseconds since the epoch: the timestamp of what has the sequence number 0.
    pub run: u64,
    /// Its number within the run.
    pub index: u32,
}

impl fmt::Display for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.run, self.index)
    }
}

impl SenderId {
    /// Reads what [`fmt::Display`] wrote.
    fn parse(text: &str) -> Option<Self> {
        let (run, index) = text.split_once('-')?;
        Some(Self { run: u64::from_str_radix(run, 16).ok()?, index: index.parse().ok()? })
    }
}

/// What tells one sample from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp<'a> {
    /// The tenant that it is meant for.
    pub tenant: &'a str,
    /// Its sender.
    pub sender: SenderId,
    /// Which of the sender's series of this tenant.
    pub series: u32,
    /// The number of its request among those of this sender for this tenant, from 0.
    pub sequence: u64,
}

/// Why a series that has a stamp, or a sample of it, cannot be told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// One of the labels is missing, there twice, or not as we write it.
    #[error("the stamp's labels are not whole")]
    Labels,
    /// Timestamp and value don't tell the same sequence number.
    #[error("timestamp and value don't belong together")]
    Sample,
}

impl<'a> Stamp<'a> {
    /// The stamp of another sample of the same series, `timestamp` in milliseconds since the epoch. Damaged where
    /// timestamp and value tell different numbers, or none.
    fn at(self, timestamp: i64, value: f64) -> Result<Stamp<'a>, Damaged> {
        let run = self.sender.run;
        let by_time = u64::try_from(timestamp).ok().and_then(|timestamp| timestamp.checked_sub(run));
        let sequence = by_time.filter(|&number| number <= EXACT_MAX).ok_or(Damaged::Sample)?;
        let stamp = Stamp { sequence, ..self };
        // Bit by bit: a negative zero is a damaged zero.
        if stamp.value().to_bits() == value.to_bits() { Ok(stamp) } else { Err(Damaged::Sample) }
    }

    /// The sample's timestamp in milliseconds since the epoch.
    pub fn timestamp(&self) -> i64 {
        i64::try_from(self.sender.run.saturating_add(self.sequence)).unwrap_or(i64::MAX)
    }

    /// The sample's value.
    pub fn value(&self) -> f64 {
        self.sequence as f64
    }

    /// The labels that hold all but the sequence number: name and value, sorted by name.
    pub fn labels(&self) -> [(&'static str, String); 3] {
        [
            (SENDER_LABEL, self.sender.to_string()),
            (SERIES_LABEL, self.series.to_string()),
            (TENANT_LABEL, self.tenant.to_owned()),
        ]
    }
}

/// Reads a series of Remote Write 1.0: `each` gets every sample's stamp, or what is wrong with it, or with the whole
/// series. It gets nothing of a series that bears no stamp.
pub fn read_v1<'a>(series: &'a TimeSeries, mut each: impl FnMut(Result<Stamp<'a>, Damaged>)) {
    match origin(series) {
        Ok(None) => {}
        Ok(Some(origin)) => {
            let stamp = |sample: &Sample| origin.at(sample.timestamp, sample.value);
            series.samples.iter().map(stamp).for_each(each);
        }
        Err(damaged) => each(Err(damaged)),
    }
}

/// What a series' labels tell, in whatever order they are: the stamp of its first sample; None for a series that bears
/// no stamp.
fn origin(series: &TimeSeries) -> Result<Option<Stamp<'_>>, Damaged> {
    let find = |name: &str| -> Result<Option<&str>, Damaged> {
        let mut found = series.labels.iter().filter(|label| label.name == name);
        match (found.next(), found.next()) {
            (Some(label), None) => str::from_utf8(&label.value).map(Some).map_err(|_| Damaged::Labels),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(Damaged::Labels),
        }
    };
    match (find(TENANT_LABEL)?, find(SENDER_LABEL)?, find(SERIES_LABEL)?) {
        (None, None, None) => Ok(None),
        (Some(tenant), Some(sender), Some(series)) => {
            let sender = SenderId::parse(sender).ok_or(Damaged::Labels)?;
            let series = series.parse().map_err(|_| Damaged::Labels)?;
            Ok(Some(Stamp { tenant, sender, series, sequence: 0 }))
        }
        _ => Err(Damaged::Labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: SenderId = SenderId { run: 1_764_000_000_000, index: 3 };
    const STAMP: Stamp<'static> = Stamp { tenant: "a", sender: SENDER, series: 7, sequence: 42 };

    type Labels = Vec<(String, String)>;

    fn series(change: impl FnOnce(&mut Labels), samples: &[(i64, f64)]) -> TimeSeries {
        let mut labels: Labels =
            STAMP.labels().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        change(&mut labels);
        let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        TimeSeries::new(&labels, samples)
    }

    fn read(series: &TimeSeries) -> Vec<Result<Stamp<'_>, Damaged>> {
        let mut stamps = Vec::new();
        read_v1(series, |stamp| stamps.push(stamp));
        stamps
    }

    #[test]
    fn what_is_written_is_read() {
        let whole = series(|labels| labels.reverse(), &[(STAMP.timestamp(), STAMP.value())]);
        assert_eq!(read(&whole), vec![Ok(STAMP)]);
        let first = Stamp { sequence: 0, ..STAMP };
        assert_eq!(read(&series(|_| (), &[(first.timestamp(), first.value())])), vec![Ok(first)]);
        assert_eq!(SenderId::parse(&SENDER.to_string()), Some(SENDER));
        assert_eq!(read(&TimeSeries::new(&[("__name__", "up")], &[(1, 1.0)])), vec![]);
    }

    #[test]
    fn damage_is_seen_and_not_taken_for_another_sample() {
        let sample = [(STAMP.timestamp(), STAMP.value())];
        let changes: [fn(&mut Labels); 4] = [
            |labels| drop(labels.remove(1)),
            |labels| labels.push(labels[0].clone()),
            |labels| labels[1].1 = "x".to_owned(),
            |labels| labels[0].1 = "3".to_owned(),
        ];
        for change in changes {
            assert_eq!(read(&series(change, &sample)), vec![Err(Damaged::Labels)]);
        }
        let (time, value) = sample[0];
        let damaged =
            [(time + 1, value), (time, value + 1.0), (-1, 0.0), (time, f64::NAN), (time - 42, -0.0)];
        let series = series(|_| (), &damaged);
        assert_eq!(read(&series), vec![Err(Damaged::Sample); damaged.len()]);
    }
}
