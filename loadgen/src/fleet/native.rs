//! Native histograms and exemplars as an instrumented service exports them.

use bytes::Bytes;

use crate::proto::{BucketSpan, Exemplar, Histogram, HistogramCount, HistogramZeroCount, Label, ResetHint};
use crate::random::Random;

/// Prometheus' default breadth of the zero bucket, 2^-128 (`DefNativeHistogramZeroThreshold` of its client for Go).
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

/// How old an exemplar may be when its series is scraped.
const EXEMPLAR_AGE_MAX_MS: u64 = 15_000;

/// A valid histogram: bucket counts that add up to the count, as many of them as the spans hold, and no gap below zero
/// but the first. One that is `signed` is a gauge histogram of values on both sides of zero.
pub(super) fn histogram(random: &mut Random, signed: bool, timestamp: i64) -> Histogram {
    let positive = Buckets::draw(random);
    let negative = if signed { Buckets::draw(random) } else { Buckets::default() };
    let zero = random.below(4);
    let count = zero + positive.total() + negative.total();
    Histogram {
        count: Some(HistogramCount::Int(count)),
        sum: (random.unit() * 1e6).round() / 1e3,
        schema: 3,
        zero_threshold: ZERO_THRESHOLD,
        zero_count: Some(HistogramZeroCount::Int(zero)),
        positive_deltas: positive.deltas(),
        positive_spans: positive.spans,
        negative_deltas: negative.deltas(),
        negative_spans: negative.spans,
        reset_hint: if signed { ResetHint::Gauge } else { ResetHint::Unknown } as i32,
        timestamp,
        ..Histogram::default()
    }
}

/// The buckets of one sign.
#[derive(Default)]
struct Buckets {
    spans: Vec<BucketSpan>,
    counts: Vec<u64>,
}

impl Buckets {
    /// Two to five spans of two to seven buckets: what a latency of two decades comes to at schema 3.
    fn draw(random: &mut Random) -> Self {
        let mut buckets = Self::default();
        for span in 0..2 + random.below(4) {
            let gap = if span == 0 { small(random, 80) - 60 } else { 1 + small(random, 4) };
            let length = 2 + random.below(6);
            buckets.counts.extend((0..length).map(|_| random.below(500)));
            buckets.spans.push(BucketSpan { offset: gap, length: u32::try_from(length).unwrap_or_default() });
        }
        buckets
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each count as the difference to the one before, the first one to zero.
    fn deltas(&self) -> Vec<i64> {
        let mut before = 0;
        let delta = |&count: &u64| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            count - std::mem::replace(&mut before, count)
        };
        self.counts.iter().map(delta).collect()
    }
}

fn small(random: &mut Random, bound: u64) -> i32 {
    i32::try_from(random.below(bound)).unwrap_or_default()
}

/// An exemplar of a trace, taken somewhat before `timestamp`.
pub(super) fn exemplar(random: &mut Random, timestamp: i64) -> Exemplar {
    let label = |name: &'static [u8], value: String| Label {
        name: Bytes::from_static(name),
        value: Bytes::from(value),
    };
    let labels = vec![
        label(b"span_id", format!("{:016x}", random.next())),
        label(b"trace_id", format!("{:016x}{:016x}", random.next(), random.next())),
    ];
    let value = (random.unit() * 1e6).round() / 1e6;
    Exemplar {
        labels,
        value,
        timestamp: timestamp.saturating_sub_unsigned(random.below(EXEMPLAR_AGE_MAX_MS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Prometheus asks of a histogram that it takes in (`histogram.Validate`).
    fn check_buckets(spans: &[BucketSpan], counts: &[f64]) {
        let held: u32 = spans.iter().map(|span| span.length).sum();
        assert_eq!(held as usize, counts.len(), "spans hold as many buckets as there are counts");
        assert!(spans.iter().skip(1).all(|span| span.offset >= 0), "{spans:?}");
        assert!(counts.iter().all(|&count| count >= 0.0), "{counts:?}");
    }

    fn absolute(deltas: &[i64]) -> Vec<f64> {
        let sum = |sum: &mut i64, delta: &i64| {
            *sum += delta;
            Some(*sum as f64)
        };
        deltas.iter().scan(0, sum).collect()
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "sums of whole numbers are exact")]
    fn histograms_are_valid() {
        let mut random = Random::new(5, 0);
        for round in 0..400 {
            let signed = round % 3 == 0;
            let drawn = histogram(&mut random, signed, 7);
            let (Some(HistogramCount::Int(count)), Some(HistogramZeroCount::Int(zero))) =
                (drawn.count, drawn.zero_count)
            else {
                panic!("{drawn:?}")
            };
            let (positive, negative) = (absolute(&drawn.positive_deltas), absolute(&drawn.negative_deltas));
            check_buckets(&drawn.positive_spans, &positive);
            check_buckets(&drawn.negative_spans, &negative);
            assert_eq!(positive.iter().chain(&negative).sum::<f64>() + zero as f64, count as f64);
            assert_eq!(negative.is_empty(), !signed);
            assert!(positive.len() >= 4 && drawn.timestamp == 7);
        }
    }

    #[test]
    fn exemplars_name_a_trace() {
        let mut random = Random::new(5, 0);
        let (one, other) = (exemplar(&mut random, 20_000), exemplar(&mut random, 20_000));
        assert!(one.labels.is_sorted_by(|a, b| a.name < b.name));
        let trace = |exemplar: &Exemplar| exemplar.labels[1].clone();
        assert_eq!((&trace(&one).name[..], trace(&one).value.len()), (&b"trace_id"[..], 32));
        assert_ne!(trace(&one), trace(&other));
        assert!((5_000..=20_000).contains(&one.timestamp));
    }
}
