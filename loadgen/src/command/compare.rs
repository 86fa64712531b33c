//! `loadgen compare`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::iter;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use console::style;
use loadgen::compare::{Config, Entrant, Event, Measure, Results, ScenarioResults, Showing, compare};

use super::args::CompareArgs;
use super::progress_bar;
use super::report::{machine, tls, told};
use super::text::{Table, counted, figure};

/// Runs the comparison, prints each scenario when it is over, and keeps all of it; false when a contender failed.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<bool> {
    let config = config(args)?;
    let output = args.output.clone();
    let stop = super::stop_flag()?;
    let rounds: u64 = config.scenarios.iter().map(|scenario| u64::from(scenario.rounds)).sum();
    let bar = progress_bar(rounds * config.contenders.len() as u64, "{pos}/{len}, {eta} to go: {wide_msg}");
    bar.enable_steady_tick(Duration::from_millis(500));
    for contender in
        config.contenders.iter().filter(|contender| contender.optional && !contender.is_installed())
    {
        writeln!(io::stderr(), "{} is left out: its program is not installed", contender.name)?;
    }
    let mut printed = Ok(());
    let results = compare(&config, &stop, |event| match event {
        Event::Round { scenario, contender, round } => {
            bar.set_message(format!("{scenario}: {contender}, round {round} of {}", scenario.rounds));
        }
        Event::RoundOver => bar.inc(1),
        Event::ScenarioOver { contenders, results } => bar.suspend(|| {
            if printed.is_ok() {
                printed = write!(io::stdout(), "{}", scenario(contenders, results))
                    .and_then(|()| io::stdout().flush());
            }
        }),
    })?;
    bar.finish_and_clear();
    let path = output.unwrap_or_else(|| default_output(args, &results));
    results.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
    printed?;
    write!(io::stdout(), "{}", end(&results, &path.display().to_string()))?;
    let failed = results.failures().next().is_some();
    Ok(!results.interrupted && (!failed || config.allow_failure))
}

/// The configuration, with what the command line says otherwise.
fn config(args: &CompareArgs) -> anyhow::Result<Config> {
    let mut config = Config::load(&args.config)?;
    for name in &args.only {
        if !config.contenders.iter().any(|contender| contender.name == *name) {
            let names: Vec<&str> =
                config.contenders.iter().map(|contender| contender.name.as_str()).collect();
            bail!("--only: there is no contender `{name}`, only {}", names.join(", "));
        }
    }
    if !args.only.is_empty() {
        config.contenders.retain(|contender| args.only.contains(&contender.name));
    }
    for scenario in &mut config.scenarios {
        scenario.rounds = args.rounds.unwrap_or(scenario.rounds);
        scenario.seconds = args.seconds.unwrap_or(scenario.seconds);
    }
    Ok(config)
}

/// `results/DATE-NAME.json` beside the configuration.
fn default_output(args: &CompareArgs, results: &Results) -> PathBuf {
    let dir = args.config.parent().map(|dir| dir.join("results")).unwrap_or_default();
    // A colon in a name is trouble elsewhere.
    dir.join(format!("{}-{}.json", results.date.replace(':', "-"), results.name))
}

/// A scenario's table: what counts most, the ratios to the first contender, and failures. The page has every figure.
fn scenario(contenders: &[Entrant], results: &ScenarioResults) -> String {
    let scenario = &results.scenario;
    let rounds = counted(u64::from(scenario.rounds), "round");
    let title = style(scenario.to_string()).bold();
    let time = style(format!("({rounds} of {} s)", scenario.seconds)).dim();
    let mut table = Table::new(iter::once(String::new()).chain(Measure::RATIOS.iter().map(Measure::heading)));
    let mut failed = String::new();
    for (index, (Entrant { name, .. }, showing)) in contenders.iter().zip(&results.showings).enumerate() {
        let cell = |measure: &Measure| {
            let median =
                measure.spread(showing).map_or_else(|| "–".to_owned(), |spread| figure(spread.median));
            match measure.ratio(results, index).filter(|_| index > 0) {
                Some(ratio) => format!("{median}, × {}", told(ratio)),
                None => median,
            }
        };
        match showing {
            Showing::LeftOut => {}
            Showing::Measured(_) => {
                table.row(iter::once(name.clone()).chain(Measure::RATIOS.iter().map(cell)));
            }
            Showing::Failed(failure) => {
                let _ = writeln!(failed, "{} {}", style("✗").red(), style(format!("{name} {failure}")).red());
            }
        }
    }
    let tls = tls(contenders, &results.showings);
    format!("\n{title} {time}\n{table}{tls}{failed}")
}

/// Where it is kept, what it ran on, and what went wrong.
fn end(results: &Results, path: &str) -> String {
    let machine = machine(&results.machine);
    let mut text = format!("\n{machine}\nkept in {path}; to look at it: loadgen report {path}\n");
    if results.interrupted {
        text.push_str("interrupted: scenarios that were not over are left out\n");
    }
    let failures = results.failures().count() as u64;
    if failures > 0 {
        let _ = writeln!(text, "{} above", counted(failures, "failure"));
    }
    text
}

#[cfg(test)]
mod tests {
    use loadgen::compare::{Acknowledges, Failure, FailureKind, Round, Scenario};
    use loadgen::send::Percentiles;

    use super::*;

    fn round(cpu_seconds: f64) -> Round {
        Round {
            seconds: 2.0,
            delivered_seconds: 2.0,
            requests: 1000,
            samples: 100_000,
            tenant_parts: 3000,
            body_bytes: 1_000_000,
            upstream_requests: 2500,
            cpu_seconds,
            tls_seconds: 0.0,
            resident_bytes_peak: 12_300_000,
            latency_ms: Percentiles { p50: 1.0, p99: 2.0, p99_9: 3.0, max: 4.0 },
        }
    }

    #[test]
    fn figures_are_medians_ratios_have_spreads_and_a_failure_has_neither() {
        let scenario_of = Scenario {
            tenants: 10,
            series: 100,
            senders: 8,
            labels: 9,
            format: loadgen::fleet::Format::default(),
            run_length: 20,
            upstream_latency_ms: 0,
            rate: 0,
            seconds: 2.0,
            warm_up_seconds: 1.0,
            rounds: 3,
        };
        let failure = Failure { kind: FailureKind::AnswersWrongly, reason: "500: no".to_owned() };
        let results = ScenarioResults {
            scenario: scenario_of,
            showings: vec![
                Showing::Measured([1.0, 2.0, 3.0].map(round).to_vec()),
                Showing::Measured([2.0, 3.0, 3.0].map(round).to_vec()),
                Showing::Failed(failure),
            ],
        };
        let contenders = ["a", "b", "c"].map(|name| Entrant {
            name: name.to_owned(),
            note: String::new(),
            version: None,
            splits: true,
            acknowledges: Acknowledges::AfterDelivery,
            plain: (name == "b").then(|| "a".to_owned()),
        });
        let text = console::strip_ansi_codes(&scenario(&contenders, &results)).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "10 tenants, 100 series a request, 8 senders (3 rounds of 2 s)");
        let cells = |line: &str| {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(cells(lines[2]), ["CPU per request, ms", "requests/s", "latency p99, ms", "peak RSS, MB"]);
        assert_eq!(cells(lines[3]), ["a", "2.00", "500", "2.00", "12.3"]);
        assert_eq!(
            cells(lines[4]),
            ["b", "3.00, × 1.50 (1.00–2.00)", "500, × 1.00", "2.00, × 1.00", "12.3, × 1.00"]
        );
        assert_eq!(lines[5], "b: CPU × 1.50 (1.00–2.00) of a and rustls alone (0 ms a request)");
        assert_eq!(lines[6], "✗ c answers wrongly: 500: no");
        assert_eq!(lines.len(), 7, "{text}");
    }
}
