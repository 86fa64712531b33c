//! The page: who took part where, who wins, the charts, and every figure.

use crate::compare::{
    Acknowledges, Compares, Entrant, Measure, Results, ScenarioResults, Showing, Spread, figure,
};

use super::chart::STYLE as CHART_STYLE;
use super::charts;
use super::markup::{Element, element};

/// How the page looks, in light and in dark surroundings.
const STYLE: &str = "
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1b1f24; --muted: #57606a; --edge: #d8dee4; --band: #f6f8fa; --good: #ddf4e4; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
:root { --ground: #0f1419; --ink: #e6edf3; --muted: #9da7b3; --edge: #30363d; --band: #171d24; --good: #123524; --bad: #ff8a80; }
}
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 48rem; }
.muted, small { color: var(--muted); }
.chart { display: block; width: 100%; height: auto; margin: 1.25rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .84rem; margin: .75rem 0; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--edge); white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words td { white-space: normal; }
td small { display: block; font-size: .72rem; }
.band th { background: var(--band); text-align: left; padding-top: .5rem; white-space: nowrap; }
.best { background: var(--good); font-weight: 600; }
.failed { color: var(--bad); text-align: left; white-space: pre-wrap; }
.warning { border-left: 4px solid var(--bad); padding: .25rem .75rem; }
";

/// What every reader should know of the figures.
const METHOD: [&str; 4] = [
    "Each contender runs alone between senders and a sink that live in the measuring process, on the same machine. Contenders take turns \
     (A B C, A B C, …), each freshly started for each round, so that a machine that drifts drifts for all.",
    "CPU is user and system time of all the contender's processes, from the first measured request until the last acknowledged sample has \
     arrived in the sink: starting and warming up do not count, delivering late does. Requests per second count to the same moment.",
    "Every round is proven: each request was answered with 2xx, and what arrived is what was acknowledged, by counts and, where a contender \
     leaves the bytes as they are, by checksums. Who fails has no figures.",
    "A figure is the median of its rounds; whiskers and small print go from the least to the most. A ratio is taken within each round first. \
     On a machine that senders and sink share, requests per second tell who leaves them most room; CPU per request is what carries over to another.",
];

/// One page of HTML that needs nothing besides itself.
#[must_use]
pub fn page(results: &Results) -> String {
    let title = format!("Comparison: {}", results.name);
    let head = element("head")
        .child(element("meta").with("charset", "utf-8"))
        .child(
            element("meta").with("name", "viewport").with("content", "width=device-width, initial-scale=1"),
        )
        .child(element("title").text(&title))
        .child(element("style").style(STYLE))
        .child(element("style").style(CHART_STYLE));
    let mut body = element("body").child(element("h1").text(title)).child(circumstances(results));
    body = body.children(warnings(results));
    body = body.child(heading("Who took part")).child(contenders(results));
    body = body.child(heading("Who wins")).children(winners(results));
    let mut charts = charts(results).into_iter().peekable();
    if let Some(ratios) = charts.next_if(|chart| chart.name == "ratios") {
        body = body.child(ratios.inline());
    }
    body = body.child(heading("How the cost grows"));
    body = body.child(paragraph(
        "Whiskers go from the least to the most of the rounds; a cross at the foot is a contender that failed there. Rest the pointer on a mark \
         for its figures.",
    ));
    body = body.children(charts.map(|chart| chart.inline()));
    body = body.child(heading("Every figure")).child(figures(results));
    body = body.child(heading("How it was measured")).children(METHOD.map(paragraph));
    let html = element("html").with("lang", "en").child(head).child(body);
    format!("<!DOCTYPE html>\n{html}\n")
}

fn heading(text: &str) -> Element {
    element("h2").text(text)
}

fn paragraph(text: &str) -> Element {
    element("p").text(text)
}

fn cell(text: impl std::fmt::Display) -> Element {
    element("td").text(text)
}

fn head_cell(text: impl std::fmt::Display) -> Element {
    element("th").text(text)
}

/// A table that scrolls where it is too wide for the window.
fn scrolling(table: Element) -> Element {
    element("div").class("scroll").child(table)
}

/// When, where, and from which commit.
fn circumstances(results: &Results) -> Element {
    let machine = &results.machine;
    let commit = results.commit.as_deref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    paragraph(&format!(
        "{}{commit}; {}, {} cores, {} GB of memory, Linux {}",
        results.date,
        machine.cpu,
        machine.cores,
        machine.memory_bytes / 1_000_000_000,
        machine.kernel,
    ))
    .class("muted")
}

fn warnings(results: &Results) -> Vec<Element> {
    let mut warnings = Vec::new();
    if results.interrupted {
        warnings.push("The comparison was interrupted: scenarios are missing.".to_owned());
    }
    let failures: Vec<_> = results.failures().collect();
    for contender in &results.contenders {
        let own: Vec<_> = failures.iter().filter(|(_, name, _)| *name == contender.name).collect();
        if let Some((_, name, failure)) = own.first() {
            let scenarios = if own.len() == 1 { "scenario" } else { "scenarios" };
            warnings.push(format!(
                "{name} failed in {} {scenarios}, the first time because it {failure}",
                own.len()
            ));
        }
    }
    warnings.iter().map(|warning| paragraph(warning).class("warning")).collect()
}

fn contenders(results: &Results) -> Element {
    let mut table =
        element("table").class("words").child(element("tr").children(
            ["contender", "version", "splits by tenant", "answers", "proven by", ""].map(head_cell),
        ));
    for contender in &results.contenders {
        let Entrant { name, note, version, splits, acknowledges, compares } = contender;
        let answers = match acknowledges {
            Acknowledges::AfterDelivery => "after delivery",
            Acknowledges::BeforeDelivery => "before delivery",
        };
        let proven = match compares {
            Compares::Sums => "counts and checksums",
            Compares::Counts => "counts",
        };
        let version = version.as_deref().unwrap_or("unknown");
        let cells =
            [name.as_str(), version, if *splits { "yes" } else { "no" }, answers, proven, note.as_str()];
        table.push(element("tr").children(cells.map(cell)));
    }
    scrolling(table)
}

/// A title that says of what a ratio is.
fn per_second(measure: Measure) -> String {
    if measure.unit == "1/s" { measure.heading() } else { measure.title.to_owned() }
}

/// Ratios to the first over all scenarios, and how often each contender is the best.
fn winners(results: &Results) -> Vec<Element> {
    let Some(first) = results.contenders.first() else { return Vec::new() };
    let mut head = element("tr").child(head_cell(""));
    for measure in Measure::RATIOS {
        let better = if measure.less_is_better { "less is better" } else { "more is better" };
        head.push(head_cell(per_second(measure)).child(element("br")).child(element("small").text(better)));
    }
    let mut table = element("table").child(head);
    for (index, contender) in results.contenders.iter().enumerate() {
        let does = if contender.splits { "splits" } else { "does not split" };
        let mut row = element("tr").child(cell(&contender.name).child(element("small").text(does)));
        for measure in Measure::RATIOS {
            row.push(ratio_cell(results, measure, index));
        }
        table.push(row);
    }
    let note = format!(
        "Each cell: how many times {}’s figure (median over all scenarios, and from the least to the most), and in how many scenarios it is the best \
         of all. A contender that does not split does less for its cost.",
        first.name
    );
    vec![scrolling(table), paragraph(&note).class("muted")]
}

fn ratio_cell(results: &Results, measure: Measure, index: usize) -> Element {
    let ratios = results.scenarios.iter().filter_map(|scenario| measure.ratio(scenario, index));
    let wins = results.scenarios.iter().filter(|scenario| measure.best(scenario) == Some(index)).count();
    let best = format!("best in {wins} of {}", results.scenarios.len());
    match Spread::new(ratios.map(|ratio| ratio.median)) {
        None => cell("–").child(element("small").text(best)),
        Some(_) if index == 0 => cell("1").child(element("small").text(best)),
        Some(Spread { median, min, max }) => cell(format!("{}×", figure(median)))
            .child(element("small").text(format!("{}–{}", figure(min), figure(max))))
            .child(element("small").text(best)),
    }
}

/// The full table.
fn figures(results: &Results) -> Element {
    let mut head = element("tr").child(head_cell(""));
    head = head.children(Measure::ALL.map(|measure| head_cell(measure.heading())));
    let mut table = element("table").child(head);
    for scenario in &results.scenarios {
        let rounds = if scenario.scenario.rounds == 1 { "round" } else { "rounds" };
        let name = format!(
            "{}; {} {rounds} of {} s",
            scenario.scenario, scenario.scenario.rounds, scenario.scenario.seconds
        );
        let columns = Measure::ALL.len() + 1;
        table.push(element("tr").class("band").child(head_cell(name).with("colspan", columns)));
        for (index, contender) in results.contenders.iter().enumerate() {
            table.push(row(scenario, index, &contender.name));
        }
    }
    scrolling(table)
}

fn row(scenario: &ScenarioResults, index: usize, name: &str) -> Element {
    let row = element("tr").child(cell(name));
    match scenario.showings.get(index) {
        None => row,
        Some(Showing::Failed(failure)) => {
            row.child(cell(failure).class("failed").with("colspan", Measure::ALL.len()))
        }
        Some(Showing::LeftOut) => {
            row.child(cell("does not know this format").with("colspan", Measure::ALL.len()))
        }
        Some(showing) => row.children(Measure::ALL.map(|measure| {
            let Some(Spread { median, min, max }) = measure.spread(showing) else { return cell("–") };
            let range = element("small").text(format!("{}–{}", figure(min), figure(max)));
            let filled = cell(figure(median)).child(range);
            if measure.best(scenario) == Some(index) { filled.class("best") } else { filled }
        })),
    }
}
