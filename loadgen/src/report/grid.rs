//! A measure against one dimension, in small panels: one for each value of a second dimension, in rows for the others.

use std::collections::BTreeSet;

use crate::compare::{Dimension, Measure, Results, Scenario, ScenarioResults, Spread, figure};

use crate::fleet::Format;

use super::chart::{Chart, MARKS, WIDTH, anchored, cross, hint, legend, line, mark, text};
use super::markup::{Element, element};
use super::scale::{Scale, label};

/// Where things stand, in pixels.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 58.0;
const GAP: f64 = 20.0;
const PANEL_WIDTH_MAX: f64 = 520.0;
const PANEL_HEIGHT: f64 = 168.0;
const ROW_HEAD: f64 = 40.0;
const ROW_FOOT: f64 = 34.0;
const BOTTOM: f64 = 24.0;

/// Between a panel's sides and its outermost figures.
const INSET: f64 = 22.0;

/// How far the marks of two contenders at the same place are drawn apart, lest one whisker hide the other.
const APART: f64 = 5.0;

/// How a measure is laid out.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) measure: Measure,
    pub(super) along: Dimension,
    pub(super) columns: Dimension,
}

/// Draws it.
pub(super) fn grid(results: &Results, layout: Layout) -> Chart {
    let Layout { measure, along, columns } = layout;
    let names: Vec<&str> = results.contenders.iter().map(|contender| contender.name.as_str()).collect();
    let panels = values(results, columns);
    let count = f64::from(u32::try_from(panels.len()).unwrap_or(1).max(1));
    let width = ((WIDTH - LEFT - RIGHT - GAP * (count - 1.0)) / count).min(PANEL_WIDTH_MAX);
    let title = format!("{} against {}", measure.heading(), along.title());
    let mut content = vec![text("title", LEFT, 20.0, &title)];
    content.extend(legend(&names, LEFT, 42.0));
    let rows = rows(results, layout);
    let mut top = TOP;
    for row in &rows {
        content.push(text("heading", LEFT, top + 14.0, &row.heading));
        let frame = Frame { top: top + ROW_HEAD, width, layout, row, results };
        let scale = frame.scale();
        content.extend(frame.left_axis(&scale));
        let mut left = LEFT;
        for &value in &panels {
            content.extend(frame.panel(left, value, &scale));
            left += width + GAP;
        }
        top += ROW_HEAD + PANEL_HEIGHT + ROW_FOOT;
    }
    let middle = LEFT + (width * count + GAP * (count - 1.0)) / 2.0;
    let foot = format!("{} (logarithmic)", along.title());
    content.push(anchored("muted", "middle", middle, top + 4.0, &foot));
    Chart { name: format!("{}-by-{}", measure.key, key(along)), title, height: top + BOTTOM, content }
}

/// A dimension in a file's name.
fn key(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Tenants => "tenants",
        Dimension::Series => "series",
        Dimension::Senders => "senders",
        Dimension::Labels => "labels",
        Dimension::RunLength => "run-length",
    }
}

/// The values that a dimension has in these results, ascending.
pub(super) fn values(results: &Results, dimension: Dimension) -> Vec<u32> {
    let mut values: Vec<u32> =
        results.scenarios.iter().map(|results| dimension.of(&results.scenario)).collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// Scenarios that differ in the two dimensions of a layout only.
struct Row<'a> {
    heading: String,
    scenarios: Vec<&'a ScenarioResults>,
}

fn rows(results: &Results, layout: Layout) -> Vec<Row<'_>> {
    let others =
        || Dimension::ALL.into_iter().filter(move |&other| other != layout.along && other != layout.columns);
    let place =
        |scenario: &Scenario| (scenario.format, others().map(|other| other.of(scenario)).collect::<Vec<_>>());
    let mut places: Vec<(Format, Vec<u32>)> =
        results.scenarios.iter().map(|results| place(&results.scenario)).collect();
    places.sort_unstable();
    places.dedup();
    let formats: BTreeSet<_> = places.iter().map(|(format, _)| *format).collect();
    let row = |wanted: (Format, Vec<u32>)| {
        let varying = others().zip(&wanted.1).filter(|&(other, _)| {
            // What is the same everywhere goes without saying, but for the sizes that everybody asks for.
            matches!(other, Dimension::Tenants | Dimension::Series | Dimension::Senders)
                || values(results, other).len() > 1
        });
        let numbers =
            varying.map(|(other, &value)| format!("{} {}", label(f64::from(value)), named(other, value)));
        let format = (formats.len() > 1).then(|| wanted.0.to_string());
        let heading: Vec<String> = format.into_iter().chain(numbers).collect();
        let scenarios =
            results.scenarios.iter().filter(|results| place(&results.scenario) == wanted).collect();
        Row { heading: heading.join(", "), scenarios }
    };
    places.into_iter().map(row).collect()
}

/// What is counted.
fn named(dimension: Dimension, value: u32) -> &'static str {
    match (dimension, value) {
        (Dimension::Tenants, 1) => "tenant",
        (Dimension::Senders, 1) => "sender",
        _ => dimension.title(),
    }
}

/// One row of panels.
struct Frame<'a> {
    top: f64,
    width: f64,
    layout: Layout,
    row: &'a Row<'a>,
    results: &'a Results,
}

/// One contender's figure in one scenario.
struct Point {
    x: f64,
    spread: Spread,
    hint: String,
}

impl Frame<'_> {
    fn bottom(&self) -> f64 {
        self.top + PANEL_HEIGHT
    }

    /// The same for all panels of the row, so that they can be compared.
    fn scale(&self) -> Scale {
        let showings = self.row.scenarios.iter().flat_map(|results| &results.showings);
        let figures = showings.filter_map(|showing| self.layout.measure.spread(showing));
        Scale::of_figures(figures.flat_map(|spread| [spread.min, spread.max]), (self.bottom(), self.top))
    }

    fn left_axis(&self, scale: &Scale) -> Vec<Element> {
        let mut axis: Vec<Element> = scale
            .ticks()
            .into_iter()
            .map(|tick| anchored("muted", "end", LEFT - 8.0, scale.place(tick) + 4.0, &label(tick)))
            .collect();
        let unit = match self.layout.measure.unit {
            "" => "per request".to_owned(),
            "1/s" => "per second".to_owned(),
            unit => unit.to_owned(),
        };
        let unit = if scale.is_logarithmic() { format!("{unit} (log)") } else { unit };
        axis.push(text("muted", 6.0, self.top - 12.0, &unit));
        axis
    }

    fn panel(&self, left: f64, column: u32, scale: &Scale) -> Vec<Element> {
        let layout = self.layout;
        let counts = values(self.results, layout.along);
        let across = Scale::of_counts(
            counts.iter().copied().map(f64::from),
            (left + INSET, left + self.width - INSET),
        );
        let head = format!("{} {}", label(f64::from(column)), named(layout.columns, column));
        let mut panel = vec![anchored("muted", "middle", left + self.width / 2.0, self.top - 12.0, &head)];
        for tick in scale.ticks() {
            let y = scale.place(tick);
            panel.push(line("grid", (left, y), (left + self.width, y)));
        }
        panel.push(line("axis", (left, self.bottom()), (left + self.width, self.bottom())));
        for count in counts {
            let x = across.place(f64::from(count));
            panel.push(line("axis", (x, self.bottom()), (x, self.bottom() + 4.0)));
            panel.push(anchored("muted", "middle", x, self.bottom() + 17.0, &label(f64::from(count))));
        }
        let mut scenarios: Vec<&ScenarioResults> = self.row.scenarios.clone();
        scenarios.retain(|results| layout.columns.of(&results.scenario) == column);
        scenarios.sort_by_key(|results| layout.along.of(&results.scenario));
        for contender in 0..self.results.contenders.len() {
            panel.extend(self.curve(contender, &scenarios, &across, scale));
        }
        panel
    }

    /// Line, whiskers and marks of a contender; a cross where it failed.
    fn curve(
        &self,
        contender: usize,
        scenarios: &[&ScenarioResults],
        across: &Scale,
        scale: &Scale,
    ) -> Vec<Element> {
        let all = f64::from(u32::try_from(self.results.contenders.len()).unwrap_or(1));
        let shift = (f64::from(u32::try_from(contender).unwrap_or(0)) - (all - 1.0) / 2.0) * APART;
        let mut curve = Vec::new();
        let mut points = Vec::new();
        for results in scenarios {
            let x = across.place(f64::from(self.layout.along.of(&results.scenario))) + shift;
            let Some(showing) = results.showings.get(contender) else { continue };
            let name = self.results.contenders.get(contender).map_or("", |contender| contender.name.as_str());
            if let Some(failure) = showing.failure() {
                let told = hint(&format!("{name}, {}: {failure}", results.scenario));
                curve.push(cross(contender, (x, self.bottom() - 8.0)).child(told));
            } else if let Some(spread) = self.layout.measure.spread(showing) {
                let told = format!("{name}, {}: {}", results.scenario, told(self.layout.measure, spread));
                points.push(Point { x, spread, hint: told });
            }
        }
        let number = contender % MARKS;
        let places: Vec<String> = points
            .iter()
            .map(|point| format!("{:.1},{:.1}", point.x, scale.place(point.spread.median)))
            .collect();
        curve
            .push(element("polyline").class(format_args!("line c{number}")).with("points", places.join(" ")));
        for point in points {
            let (high, low) = (scale.place(point.spread.max), scale.place(point.spread.min));
            let x = point.x;
            let whisker = format!("M{:.1},{high:.1}h6m-3,0V{low:.1}m-3,0h6", x - 3.0,);
            curve.push(element("path").class(format_args!("whisker c{number}")).with("d", whisker));
            let place = (x, scale.place(point.spread.median));
            curve.push(mark(contender, place).child(hint(&point.hint)));
        }
        curve
    }
}

/// A figure with its spread, in words.
fn told(measure: Measure, spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{} {} ({}–{})", measure.heading(), figure(median), figure(min), figure(max))
}
