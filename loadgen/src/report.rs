//! Results as people look at them: one page that needs nothing besides itself, and the same charts as files.
//!
//! Constraints that shaped it:
//! - A page may be opened anywhere and years later: no network, no script, one file. What a pointer can find out
//!   (exact figures) is in titles that browsers show by themselves.
//! - A figure without its spread invites to read too much into it: every chart has whiskers from the least to the
//!   most of the rounds, every cell of the table says the same.
//! - Who failed is as visible as who won: a cross in the charts, the reason in the table.
//! - All markup is written through [`markup`], so that it is escaped and balanced, whatever contenders are called.

mod chart;
mod grid;
mod markup;
mod overview;
mod page;
mod scale;

pub use chart::Chart;
pub use page::page;

use crate::compare::{Dimension, Measure, Results};

use grid::{Layout, grid, values};

/// What is drawn against the main dimension.
const AGAINST_MAIN: [Measure; 6] = [
    Measure::CPU_PER_REQUEST,
    Measure::REQUESTS,
    Measure::P50,
    Measure::P99,
    Measure::RESIDENT,
    Measure::FAN_OUT,
];

/// All charts of these results: ratios to the first contender, each measure against tenants (or against what there is
/// most of, if tenants are always the same), and how the cost grows with senders and with the size of requests.
#[must_use]
pub fn charts(results: &Results) -> Vec<Chart> {
    let count = |dimension| values(results, dimension).len();
    let most = || Dimension::ALL.into_iter().rev().max_by_key(|&dimension| count(dimension));
    let main =
        if count(Dimension::Tenants) > 1 { Dimension::Tenants } else { most().unwrap_or(Dimension::Tenants) };
    let columns_for = |along| {
        let others = [Dimension::Senders, Dimension::Series, Dimension::Tenants];
        let mut others = others.into_iter().filter(|&other| other != along);
        others.clone().find(|&other| count(other) > 1).or(others.next()).unwrap_or(along)
    };
    let mut charts: Vec<Chart> = overview::overview(results).into_iter().collect();
    charts.extend(
        AGAINST_MAIN
            .map(|measure| grid(results, Layout { measure, along: main, columns: columns_for(main) })),
    );
    for (measure, along) in [
        (Measure::CPU_PER_REQUEST, Dimension::Senders),
        (Measure::CPU_PER_MILLION_SAMPLES, Dimension::Series),
    ] {
        if along != main && count(along) > 1 {
            charts.push(grid(results, Layout { measure, along, columns: Dimension::Tenants }));
        }
    }
    charts
}
