//! `loadgen sink`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use loadgen::child::wait_for;
use loadgen::sink::faults::FaultScript;
use loadgen::sink::{Faults, Script, Sink, SinkConfig, Snapshot, TenantCount};

use super::args::SinkArgs;
use super::text::{Table, bytes, counted, grouped};

/// Tenants that a table shows; the rest is summed up in one line.
const ROWS_MAX: usize = 20;

/// Longer than any run.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Serves until a signal, and tells the counts.
pub(crate) fn run(args: &SinkArgs) -> anyhow::Result<bool> {
    let script = args.faults.as_deref().map(faults).transpose()?;
    let config = SinkConfig { script, ..args.sink.clone() };
    let stop = super::stop_flag()?;
    let sink = Sink::start(config).with_context(|| format!("cannot start at {}", args.sink.listen))?;
    let mut out = io::stdout();
    let account = match args.sink.full_account {
        true => format!(", its account at {}/account", sink.origin()),
        false => String::new(),
    };
    writeln!(out, "sink at {}, its counts at {}/stats{account}", sink.url(), sink.origin())?;
    let every = if args.every.is_zero() { NEVER } else { args.every.min(NEVER) };
    let mut shown = Snapshot::default();
    while !wait_for(every, || stop.load(Ordering::Relaxed)) {
        let now = sink.snapshot();
        if now != shown {
            write!(out, "{}", table(&now))?;
            out.flush()?;
            shown = now;
        }
    }
    write!(out, "{}", table(&sink.stop()))?;
    Ok(true)
}

/// Reads a file of faults; their time begins now.
fn faults(file: &Path) -> anyhow::Result<Arc<dyn Script>> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("--faults: cannot read {name}"))?;
    let faults = Faults::from_yaml(&text).with_context(|| format!("--faults: {name}"))?;
    Ok(Arc::new(FaultScript::new(faults)))
}

/// The counts, tenants with the most samples first.
fn table(counts: &Snapshot) -> String {
    let mut tenants: Vec<(&str, TenantCount)> =
        counts.tenants.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    tenants.sort_by_key(|&(name, count)| (std::cmp::Reverse(count.stored.samples), name));
    let mut rest = TenantCount::default();
    for &(_, count) in tenants.iter().skip(ROWS_MAX) {
        rest += count;
    }
    let hidden = tenants.len().saturating_sub(ROWS_MAX);
    tenants.truncate(ROWS_MAX);
    let more = format!("… and {hidden} more");
    let total = counts.total();
    if hidden > 0 {
        tenants.push((&more, rest));
    }
    tenants.push(("total", total));
    let mut table = Table::new(["tenant", "requests", "refused", "series", "samples", "bytes", "misplaced"]);
    for (name, count) in tenants {
        table.row([
            name.to_owned(),
            grouped(count.requests),
            grouped(count.refused),
            grouped(count.stored.series),
            grouped(count.stored.samples),
            bytes(count.bytes),
            grouped(count.misplaced),
        ]);
    }
    let mut text = format!("\n{table}");
    if counts.broken > 0 {
        let why = counts.broken_why.as_deref().unwrap_or_default();
        text.push_str(&format!("{}, the last because: {why}\n", counted(counts.broken, "broken request")));
    }
    text
}

#[cfg(test)]
mod tests {
    use loadgen::account::Tally;

    use super::*;

    #[test]
    fn a_table_has_the_largest_tenants_and_the_sum_of_the_rest() {
        let count = |samples| TenantCount {
            requests: 1,
            stored: Tally { series: 1, samples, ..Tally::default() },
            ..TenantCount::default()
        };
        let tenants = (0..30).map(|index| (format!("t{index:02}"), count(1000 + index))).collect();
        let counts =
            Snapshot { tenants, broken: 2, broken_why: Some("bad".to_owned()), ..Snapshot::default() };
        let text = table(&counts);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("t29 ") && lines[2].contains("1,029"), "{text}");
        assert_eq!(lines.len(), 2 + ROWS_MAX + 3);
        assert!(lines[22].starts_with("… and 10 more") && lines[22].contains("10,045"), "{text}");
        assert!(lines[23].starts_with("total") && lines[23].contains("30,435"), "{text}");
        assert!(text.ends_with("2 broken requests, the last because: bad\n"));
    }
}
