//! `loadgen report`: a self-contained page of Markdown about a comparison, and charts.

mod chart;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use loadgen::compare::{
    Acknowledges, Entrant, Machine, Measure, Results, Round, ScenarioResults, Showing, Spread,
};

use super::args::PageArgs;
use super::text::{Table, bytes, counted, figure};
use chart::Chart;

/// What every reader should know of the figures.
const METHOD: &str = include_str!("report/method.md");

/// Writes the page and, if asked to, the charts; never false.
pub(crate) fn run(args: &PageArgs) -> anyhow::Result<bool> {
    let results =
        Results::load(&args.results).with_context(|| format!("cannot read {}", args.results.display()))?;
    let path = args.output.clone().unwrap_or_else(|| args.results.with_extension("md"));
    let mut pictures = String::new();
    if let Some(dir) = &args.svg {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // The page shows what lies below its own directory by a relative path, so that both can be moved together.
        let from_page = path.parent().and_then(|page| dir.strip_prefix(page).ok()).unwrap_or(dir);
        for Chart { name, title, svg } in chart::charts(&results)? {
            let file = format!("{name}.svg");
            write(&dir.join(&file), &svg)?;
            let _ = writeln!(pictures, "![{title}]({})\n", from_page.join(&file).display());
        }
    }
    write(&path, &page(&results, &pictures))?;
    Ok(true)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(writeln!(io::stdout(), "{}", path.display())?)
}

fn page(results: &Results, pictures: &str) -> String {
    let commit = results.commit.as_deref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let mut page = format!(
        "# Comparison: {}\n\n{}{commit}; {}\n{}\n## Contenders\n\n{}\n## Summary\n\n{}\n",
        results.name,
        results.date,
        machine(&results.machine),
        warnings(results),
        contenders(results).markdown("---"),
        winners(results),
    );
    if !pictures.is_empty() {
        let note =
            "Whiskers go from the least to the most of the rounds; a cross is a contender that failed.";
        let _ = write!(page, "## How the cost grows\n\n{note}\n\n{pictures}");
    }
    page.push_str("## Every figure\n");
    for scenario in &results.scenarios {
        let asked = &scenario.scenario;
        let rounds = counted(u64::from(asked.rounds), "round");
        let figures = figures(results, scenario).markdown("---:");
        let tls = tls(&results.contenders, &scenario.showings);
        let tls: String = tls.lines().map(|line| format!("- {line}\n")).collect();
        let gap = if tls.is_empty() { "" } else { "\n" };
        let _ = write!(page, "\n### {asked}\n\n{rounds} of {} s\n\n{figures}{gap}{tls}", asked.seconds);
    }
    let _ = write!(page, "\n## How it was measured\n\n{METHOD}");
    page
}

/// Where it ran.
pub(super) fn machine(Machine { cpu, cores, memory_bytes, kernel }: &Machine) -> String {
    let (cores, memory) = (counted(*cores as u64, "core"), bytes(*memory_bytes));
    format!("{cpu}, {cores}, {memory} of memory, Linux {kernel}")
}

fn warnings(results: &Results) -> String {
    let mut warnings = String::new();
    if results.interrupted {
        warnings.push_str("\n**The comparison was interrupted: scenarios are missing.**\n");
    }
    for contender in &results.contenders {
        let own = || results.failures().filter(|(_, name, _)| *name == contender.name);
        if own().next().is_some() {
            let count = counted(own().count() as u64, "scenario");
            let _ = writeln!(warnings, "\n**{} failed in {count}; see there.**", contender.name);
        }
    }
    warnings
}

fn contenders(results: &Results) -> Table {
    let mut table = Table::new(["contender", "version", "splits by tenant", "answers", "note"]);
    for contender in &results.contenders {
        let answers = match contender.acknowledges {
            Acknowledges::AfterDelivery => "after delivery",
            Acknowledges::BeforeDelivery => "before delivery",
        };
        let version = contender.version.as_deref().unwrap_or("unknown");
        let splits = if contender.splits { "yes" } else { "no" };
        table.row([&contender.name, version, splits, answers, &contender.note]);
    }
    table
}

/// Ratios to the first over all scenarios, and how often each contender is the best.
fn winners(results: &Results) -> String {
    let Some(first) = results.contenders.first() else { return String::new() };
    let heading = |measure: &Measure| {
        format!("{} ({} is better)", measure.title, if measure.less_is_better { "less" } else { "more" })
    };
    let mut table = Table::new([String::new()].into_iter().chain(Measure::RATIOS.iter().map(heading)));
    for (index, contender) in results.contenders.iter().enumerate() {
        let ratio = |measure: &Measure| {
            let ratios = results.scenarios.iter().filter_map(|scenario| measure.ratio(scenario, index));
            let best =
                results.scenarios.iter().filter(|scenario| measure.best(scenario) == Some(index)).count();
            let spread = Spread::new(ratios.map(|ratio| ratio.median));
            format!("{}; best in {best}", spread.map_or_else(|| "–".to_owned(), told))
        };
        table.row([contender.name.clone()].into_iter().chain(Measure::RATIOS.iter().map(ratio)));
    }
    format!(
        "{}\nEach cell: how many times {}’s figure (median over all scenarios, and from the least to the most), \
         and in how many of the {} scenarios it is the best of all. A contender that does not split does less for its cost.\n",
        table.markdown("---:"),
        first.name,
        results.scenarios.len(),
    )
}

/// Every figure of a scenario, or why a contender has none.
fn figures(results: &Results, scenario: &ScenarioResults) -> Table {
    let mut table = Table::new([String::new()].into_iter().chain(Measure::ALL.iter().map(Measure::heading)));
    for (index, (contender, showing)) in results.contenders.iter().zip(&scenario.showings).enumerate() {
        let cell = |measure: &Measure| match measure.spread(showing) {
            None => "–".to_owned(),
            Some(spread) if measure.best(scenario) == Some(index) => {
                format!("**{}**", told(spread))
            }
            Some(spread) => told(spread),
        };
        let name = contender.name.clone();
        match showing {
            Showing::Measured(_) => table.row([name].into_iter().chain(Measure::ALL.iter().map(cell))),
            Showing::Failed(failure) => table.row([name, failure.to_string()]),
            Showing::LeftOut => table.row([name, "left out".to_owned()]),
        }
    }
    table
}

/// A line for each contender that speaks TLS: its CPU time by that of the same one without TLS and of rustls alone.
pub(super) fn tls(contenders: &[Entrant], showings: &[Showing]) -> String {
    let line = |(index, Entrant { name, plain, .. }): (usize, &Entrant)| {
        let ratio = told(Measure::tls(contenders, showings, index)?);
        let alone = |round: &Round| round.tls_seconds * 1e3 / round.requests as f64;
        let alone = figure(Spread::new(showings.get(index)?.rounds().iter().map(alone))?.median);
        let plain = plain.as_ref()?;
        Some(format!("{name}: CPU × {ratio} of {plain} and rustls alone ({alone} ms a request)\n"))
    };
    contenders.iter().enumerate().filter_map(line).collect()
}

/// `1.50 (1.00–2.00)`; the figure alone where the rounds agree.
pub(super) fn told(Spread { median, min, max }: Spread) -> String {
    let (median, min, max) = (figure(median), figure(min), figure(max));
    if min == max { median } else { format!("{median} ({min}–{max})") }
}
