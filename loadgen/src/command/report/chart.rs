//! Charts: each measure against the number of tenants, with a panel for each combination of the scenarios' other
//! values.

use itertools::Itertools;
use loadgen::compare::{Measure, Results};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Okabe and Ito's colours, which colour-blind people can tell apart. Further contenders begin again.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(182, 85, 141),
    RGBColor(176, 125, 0),
    RGBColor(61, 61, 61),
];

const COLUMNS_MAX: usize = 2;
const PANEL: (u32, u32) = (480, 260);
const HEAD: u32 = 60;

/// A chart.
pub(super) struct Chart {
    /// Name of its file, without extension.
    pub(super) name: String,
    /// What it shows.
    pub(super) title: String,
    pub(super) svg: String,
}

/// Each measure against tenants.
pub(super) fn charts(results: &Results) -> anyhow::Result<Vec<Chart>> {
    Measure::ALL.into_iter().map(|measure| draw(results, measure)).collect()
}

fn draw(results: &Results, measure: Measure) -> anyhow::Result<Chart> {
    let title = format!("{} against tenants", measure.heading());
    let captions = results.scenarios.iter().map(|scenario| scenario.scenario.besides_tenants());
    let panels: Vec<String> = captions.unique().collect();
    let columns = panels.len().clamp(1, COLUMNS_MAX);
    let rows = panels.len().div_ceil(columns).max(1);
    let pixels = |panels: usize, each: u32| u32::try_from(panels).unwrap_or(u32::MAX).saturating_mul(each);
    let size = (pixels(columns, PANEL.0), pixels(rows, PANEL.1).saturating_add(HEAD));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(HEAD);
        head.draw(&Text::new(title.clone(), (10, 10), ("sans-serif", 16)))?;
        legend(results, &head)?;
        for (caption, area) in panels.iter().zip(body.split_evenly((rows, columns))) {
            panel(results, measure, caption, &area)?;
        }
        root.present()?;
    }
    Ok(Chart { name: format!("{}-by-tenants", measure.key), title, svg })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn colour(contender: usize) -> RGBColor {
    COLOURS.get(contender % COLOURS.len()).copied().unwrap_or(BLACK)
}

fn legend(results: &Results, head: &Area<'_>) -> anyhow::Result<()> {
    let mut left = 10;
    for (index, contender) in results.contenders.iter().enumerate() {
        let colour = colour(index);
        let style = ("sans-serif", 13).into_text_style(head).color(&colour);
        head.draw(&Text::new(format!("● {}", contender.name), (left, 36), style))?;
        left += i32::try_from(contender.name.chars().count()).unwrap_or(0) * 8 + 34;
    }
    Ok(())
}

/// The scenarios that a caption stands for: each contender's medians joined by a line, with whiskers.
fn panel(results: &Results, measure: Measure, wanted: &str, area: &Area<'_>) -> anyhow::Result<()> {
    let mut scenarios: Vec<_> = results
        .scenarios
        .iter()
        .filter(|scenario| scenario.scenario.besides_tenants() == wanted)
        .map(|scenario| (f64::from(scenario.scenario.tenants), &scenario.showings))
        .collect();
    scenarios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (Some((least, _)), Some((most, _))) = (scenarios.first(), scenarios.last()) else { return Ok(()) };
    let spreads = scenarios.iter().flat_map(|(_, showings)| showings.iter());
    let top =
        spreads.filter_map(|showing| measure.spread(showing)).map(|spread| spread.max).fold(0.0, f64::max);
    let top = if top > 0.0 { top * 1.05 } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(wanted, ("sans-serif", 13))
        .margin(10)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d((least * 0.8..most * 1.25).log_scale(), 0.0..top)?;
    let numbers = |number: &f64| format!("{}", (number * 1000.0).round() / 1000.0);
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_labels(4)
        .y_labels(5)
        .x_desc("tenants")
        .x_label_formatter(&numbers)
        .y_label_formatter(&numbers)
        .draw()?;
    for index in 0..results.contenders.len() {
        let colour = colour(index);
        let own = || scenarios.iter().filter_map(|(x, showings)| Some((*x, showings.get(index)?)));
        let measured: Vec<_> =
            own().filter_map(|(x, showing)| measure.spread(showing).map(|spread| (x, spread))).collect();
        let medians = measured.iter().map(|(x, spread)| (*x, spread.median));
        chart.draw_series(LineSeries::new(medians, &colour))?;
        chart.draw_series(measured.iter().map(|(x, spread)| {
            ErrorBar::new_vertical(*x, spread.min, spread.median, spread.max, colour.filled(), 6)
        }))?;
        let failed = own().filter(|(_, showing)| showing.failure().is_some());
        chart.draw_series(failed.map(|(x, _)| Cross::new((x, 0.0), 5, colour)))?;
    }
    Ok(())
}
