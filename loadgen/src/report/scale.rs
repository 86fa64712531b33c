//! From figures to pixels, and the ticks of an axis.

use crate::compare::figure;

/// An axis is logarithmic when its figures span more than this.
const LINEAR_SPAN_MAX: f64 = 40.0;

/// An axis: the figures at its ends, and where these are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    logarithmic: bool,
    figures: (f64, f64),
    pixels: (f64, f64),
}

impl Scale {
    /// For figures such as costs: from 0 to a round number above the largest; logarithmic where they span too much
    /// for that, which needs all of them above 0.
    pub(super) fn of_figures(figures: impl IntoIterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let (min, max) = ends(figures);
        if min > 0.0 && max / min > LINEAR_SPAN_MAX {
            return Self { logarithmic: true, figures: (min / 1.25, max * 1.25), pixels };
        }
        let step = round_step(max / 4.0);
        let top = if max > 0.0 { (max / step).ceil() * step } else { 1.0 };
        Self { logarithmic: false, figures: (0.0, top), pixels }
    }

    /// For counts such as tenants: logarithmic, the ends at the least and the largest; a single one is in the middle.
    pub(super) fn of_counts(counts: impl IntoIterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let (min, max) = ends(counts);
        let figures = if max > min { (min, max) } else { (min / 2.0, max * 2.0) };
        Self { logarithmic: true, figures, pixels }
    }

    /// For ratios: logarithmic, 1 always on it.
    pub(super) fn of_ratios(ratios: impl IntoIterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let (min, max) = ends(ratios.into_iter().filter(|ratio| *ratio > 0.0).chain([1.0]));
        Self { logarithmic: true, figures: (min.min(0.8) / 1.15, max.max(1.25) * 1.15), pixels }
    }

    /// Where a figure is; one beyond the ends is at the end.
    pub(super) fn place(&self, figure: f64) -> f64 {
        let (from, to) = self.figures;
        let share = if self.logarithmic {
            (figure.max(f64::MIN_POSITIVE) / from).ln() / (to / from).ln()
        } else {
            (figure - from) / (to - from)
        };
        self.pixels.0 + (self.pixels.1 - self.pixels.0) * share.clamp(0.0, 1.0)
    }

    pub(super) fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }

    /// Round figures between the ends, some five of them.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let (from, to) = self.figures;
        if self.logarithmic {
            return logarithmic_ticks(from, to);
        }
        let step = round_step(to / 4.0);
        let mut ticks = Vec::new();
        let mut tick = 0.0;
        while tick <= to + step / 2.0 {
            ticks.push(tick);
            tick += step;
        }
        ticks
    }
}

/// A tick's figure: as short as it can be written.
pub(super) fn label(tick: f64) -> String {
    if tick.abs() >= 1000.0 {
        return figure(tick);
    }
    let text = format!("{tick:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// 1, 2 or 5 of each decade; where that is too many, fewer of each.
fn logarithmic_ticks(from: f64, to: f64) -> Vec<f64> {
    const TICKS_MAX: usize = 6;
    let steps: [&[f64]; 3] = [&[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
    let mut ticks = Vec::new();
    for step in steps {
        ticks.clear();
        let mut decade = 10f64.powf(from.log10().floor());
        while decade <= to {
            ticks.extend(step.iter().map(|digit| digit * decade).filter(|tick| (from..=to).contains(tick)));
            decade *= 10.0;
        }
        if ticks.len() <= TICKS_MAX {
            break;
        }
    }
    ticks
}

/// The step of 1, 2, 2.5 or 5 times a power of ten that is no less than `least`.
fn round_step(least: f64) -> f64 {
    if least.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) || !least.is_finite() {
        return 1.0;
    }
    let decade = 10f64.powf(least.log10().floor());
    // A hair of tolerance: 0.1 / 0.1 may be a bit above 1.
    let step = [1.0, 2.0, 2.5, 5.0].into_iter().find(|digit| digit * decade >= least * 0.999_999);
    step.map_or(10.0 * decade, |digit| digit * decade)
}

/// The least and the largest; 0 and 0 of none.
fn ends(figures: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let finite = figures.into_iter().filter(|figure| figure.is_finite());
    finite
        .fold(None, |ends: Option<(f64, f64)>, figure| {
            let (min, max) = ends.unwrap_or((figure, figure));
            Some((min.min(figure), max.max(figure)))
        })
        .unwrap_or((0.0, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_start_at_0_and_end_at_a_round_number() {
        let scale = Scale::of_figures([0.9, 3.3], (100.0, 0.0));
        assert_eq!(scale.ticks(), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!((scale.place(0.0), scale.place(2.0), scale.place(4.0)), (100.0, 50.0, 0.0));
        assert_eq!(Scale::of_figures([0.0], (0.0, 1.0)).ticks(), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(Scale::of_figures([], (0.0, 1.0)).place(f64::INFINITY), 1.0);
    }

    #[test]
    fn figures_that_span_much_are_logarithmic() {
        let scale = Scale::of_figures([0.1, 90.0], (0.0, 300.0));
        assert!(scale.is_logarithmic());
        assert_eq!(scale.ticks(), [0.1, 1.0, 10.0, 100.0]);
        let few = Scale::of_figures([1.0, 45.0], (0.0, 300.0));
        assert_eq!(few.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        let (a, b, c) = (scale.place(1.0), scale.place(10.0), scale.place(100.0));
        assert!((b - a - (c - b)).abs() < 1e-9 && b > a);
        assert!(!Scale::of_figures([0.0, 90.0], (0.0, 1.0)).is_logarithmic());
    }

    #[test]
    fn counts_reach_from_end_to_end_and_one_alone_stands_in_the_middle() {
        let scale = Scale::of_counts([1.0, 10.0, 1000.0], (0.0, 300.0));
        assert_eq!([1.0, 10.0, 1000.0].map(|count| scale.place(count).round()), [0.0, 100.0, 300.0]);
        assert_eq!(Scale::of_counts([7.0], (0.0, 100.0)).place(7.0), 50.0);
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(
            [0.0, 0.1, 0.3, 2.5, 10.0, 1000.0, 25_000.0].map(label),
            ["0", "0.1", "0.3", "2.5", "10", "1,000", "25,000"]
        );
    }

    #[test]
    fn ratios_have_1_among_them() {
        let scale = Scale::of_ratios([0.1, 0.2], (0.0, 100.0));
        assert!(scale.ticks().contains(&1.0), "{:?}", scale.ticks());
        assert!((0.0..100.0).contains(&scale.place(1.0)));
    }
}
