//! A histogram as the text that HDR tools read: value, percentile, count up to it, and 1/(1-percentile).
//!
//! The format is that of HdrHistogram's own `outputPercentileDistribution` (Java), which wrk2 and the plotter at
//! hdrhistogram.github.io share. Values are milliseconds.

use std::fmt::Write;

use hdrhistogram::Histogram;

/// Steps for each halving of the distance to 100 %; what the others use.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// The whole distribution of a histogram of microseconds.
pub(super) fn percentiles(histogram: &Histogram<u64>) -> String {
    let ms = |micros: f64| micros / 1e3;
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (ms(step.value_iterated_to() as f64), step.quantile_iterated_to());
        let _ = write!(text, "{value:12.3} {quantile:14.12} {count:10}");
        // The last line has no such number.
        let _ = match quantile < 1.0 {
            true => writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text),
        };
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]",
        ms(histogram.mean()),
        ms(histogram.stdev()),
        ms(histogram.max() as f64),
        histogram.len(),
        histogram.buckets(),
        (2 * 10u64.pow(histogram.sigfig().into())).next_power_of_two(),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_text() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).unwrap();
        for micros in 1..=1000 {
            histogram.record(micros * 10).unwrap();
        }
        let text = percentiles(&histogram);
        assert!(text.ends_with("SubBuckets     =         2048]\n"), "{text}");
        let mut lines = text.lines();
        let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(head, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        assert_eq!(lines.next(), Some(""));
        let rows: Vec<Vec<f64>> = lines
            .by_ref()
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|field| field.parse().unwrap()).collect())
            .collect();
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]), "{text}");
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((4.99..=5.02).contains(&median[0]) && (500.0..=502.0).contains(&median[2]), "{median:?}");
        assert!((1.99..=2.01).contains(&median[3]), "{median:?}");
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 1000.0, 3), "{last:?}");
        assert!(text.contains("Total count    =         1000]"), "{text}");
        assert!(percentiles(&Histogram::new(3).unwrap()).contains("Total count    =            0]"));
    }
}
