//! Stamped series as Remote Write 1.0 has them.

use crate::journal::Entries;
use crate::proto::{Label, Sample, TimeSeries};
use crate::stamp::{METRIC_NAME, SenderId, Stamp};

/// One sender's series of one tenant, and what became of them.
pub(super) struct Strand {
    pub(super) entries: Entries,
    sender: SenderId,
    /// The sequence number of its next request.
    next: u64,
    /// Each series' labels: they are the same in each request.
    labels: Vec<Vec<Label>>,
}

impl Strand {
    pub(super) fn new(tenant_label: &str, tenant: &str, sender: SenderId, series: u32) -> Self {
        let labels = |series| {
            let stamp = Stamp { tenant, sender, series, sequence: 0 };
            let mut labels = vec![Label::new("__name__", METRIC_NAME), Label::new(tenant_label, tenant)];
            labels.extend(stamp.labels().map(|(name, value)| Label::new(name, &value)));
            labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            labels
        };
        Self { entries: Entries::new(series), sender, next: 0, labels: (0..series).map(labels).collect() }
    }

    /// All series with the next sample of each, and its sequence number.
    pub(super) fn next(&mut self) -> (u64, impl Iterator<Item = TimeSeries>) {
        let sequence = self.next;
        self.next += 1;
        let stamp = Stamp { tenant: "", sender: self.sender, series: 0, sequence };
        let sample = Sample { value: stamp.value(), timestamp: stamp.timestamp() };
        let series = move |labels: &Vec<Label>| TimeSeries {
            labels: labels.clone(),
            samples: vec![sample],
            ..TimeSeries::default()
        };
        (sequence, self.labels.iter().map(series))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::read_v1;

    #[test]
    fn what_is_encoded_bears_its_stamps() {
        let sender = SenderId { run: 1_764_000_000_000, index: 4 };
        let mut strand = Strand::new("tenant", "a", sender, 3);
        for sequence in 0..300 {
            let (number, all) = strand.next();
            let all: Vec<TimeSeries> = all.collect();
            assert_eq!((number, all.len()), (sequence, 3));
            for (series, number) in all.iter().zip(0..) {
                assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "{series:?}");
                assert_eq!(series.label("tenant"), Some(&b"a"[..]));
                let mut stamps = Vec::new();
                read_v1(series, |stamp| stamps.push(stamp));
                assert_eq!(stamps, [Ok(Stamp { tenant: "a", sender, series: number, sequence })]);
            }
        }
    }
}
