//! Who wins: each contender's ratio to the first, scenario by scenario.

use crate::compare::{Measure, Results, Spread, figure};

use super::chart::{Chart, MARKS, WIDTH, anchored, hint, line, text};
use super::markup::{Element, element};
use super::scale::{Scale, label};

/// Where things stand, in pixels.
const LEFT: f64 = 110.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 84.0;
const GAP: f64 = 18.0;
const LANE: f64 = 46.0;
const BOTTOM: f64 = 40.0;

/// How far from the middle of its lane a dot may be: scenarios in their order, from top to bottom.
const SPREAD: f64 = 14.0;

/// Draws it; None when there is nobody to hold against the first.
pub(super) fn overview(results: &Results) -> Option<Chart> {
    let first = results.contenders.first()?;
    let others: Vec<(usize, &str)> = results
        .contenders
        .iter()
        .enumerate()
        .skip(1)
        .map(|(index, other)| (index, other.name.as_str()))
        .collect();
    if others.is_empty() {
        return None;
    }
    let count = f64::from(u32::try_from(Measure::RATIOS.len()).unwrap_or(1));
    let width = (WIDTH - LEFT - RIGHT - GAP * (count - 1.0)) / count;
    let lanes = f64::from(u32::try_from(others.len()).unwrap_or(1));
    let bottom = TOP + LANE * lanes;
    let title = format!("Ratios to {}, a dot for each scenario", first.name);
    let mut content = vec![
        text("title", 14.0, 20.0, &title),
        text("muted", 14.0, 40.0, "the bar is the median of the scenarios; logarithmic"),
    ];
    for (lane, &(_, name)) in (0u32..).zip(&others) {
        let y = TOP + LANE * (f64::from(lane) + 0.5) + 4.0;
        content.push(anchored("heading", "end", LEFT - 12.0, y, name));
    }
    let mut left = LEFT;
    for measure in Measure::RATIOS {
        let panel = Panel { results, measure, left, width, bottom };
        content.extend(panel.draw(&others));
        left += width + GAP;
    }
    Some(Chart { name: "ratios".to_owned(), title, height: bottom + BOTTOM, content })
}

struct Panel<'a> {
    results: &'a Results,
    measure: Measure,
    left: f64,
    width: f64,
    bottom: f64,
}

impl Panel<'_> {
    fn draw(&self, others: &[(usize, &str)]) -> Vec<Element> {
        let ratios: Vec<Vec<(String, Spread)>> =
            others.iter().map(|&(index, _)| self.ratios(index)).collect();
        let all = ratios.iter().flatten().map(|(_, ratio)| ratio.median);
        let scale = Scale::of_ratios(all, (self.left, self.left + self.width));
        let mut panel = self.axis(&scale);
        for ((lane, &(index, name)), ratios) in (0u32..).zip(others).zip(&ratios) {
            let middle = TOP + LANE * (f64::from(lane) + 0.5);
            panel.extend(dots(index, name, ratios, middle, &scale));
        }
        panel
    }

    /// The ratio in each scenario in which there is one.
    fn ratios(&self, index: usize) -> Vec<(String, Spread)> {
        let scenarios = self.results.scenarios.iter();
        scenarios
            .filter_map(|results| Some((results.scenario.to_string(), self.measure.ratio(results, index)?)))
            .collect()
    }

    fn axis(&self, scale: &Scale) -> Vec<Element> {
        let better = if self.measure.less_is_better { "← less is better" } else { "more is better →" };
        let middle = self.left + self.width / 2.0;
        let mut axis = vec![
            anchored("heading", "middle", middle, TOP - 26.0, self.measure.title),
            anchored("muted", "middle", middle, TOP - 10.0, better),
            line("axis", (self.left, self.bottom), (self.left + self.width, self.bottom)),
        ];
        for tick in scale.ticks() {
            let x = scale.place(tick);
            axis.push(line("grid", (x, TOP), (x, self.bottom)));
            axis.push(anchored("muted", "middle", x, self.bottom + 16.0, &format!("{}×", label(tick))));
        }
        axis.push(line("one", (scale.place(1.0), TOP), (scale.place(1.0), self.bottom)));
        axis
    }
}

fn dots(index: usize, name: &str, ratios: &[(String, Spread)], middle: f64, scale: &Scale) -> Vec<Element> {
    let number = index % MARKS;
    let last = f64::from(u32::try_from(ratios.len()).unwrap_or(1).saturating_sub(1).max(1));
    let mut dots: Vec<Element> = (0u32..)
        .zip(ratios)
        .map(|(nth, (scenario, ratio))| {
            let y = middle + SPREAD * (2.0 * f64::from(nth) / last - 1.0);
            let Spread { median, min, max } = *ratio;
            let told = format!("{name}, {scenario}: {}× ({}–{})", figure(median), figure(min), figure(max));
            element("circle")
                .class(format_args!("dot c{number}"))
                .at("cx", scale.place(median))
                .at("cy", y)
                .at("r", 3.5)
                .child(hint(&told))
        })
        .collect();
    if let Some(all) = Spread::new(ratios.iter().map(|(_, ratio)| ratio.median)) {
        let x = scale.place(all.median);
        let bar = line(&format!("median c{number}"), (x, middle - SPREAD - 5.0), (x, middle + SPREAD + 5.0));
        dots.push(bar.child(hint(&format!("{name}: {}× in the median", figure(all.median)))));
    }
    dots
}
