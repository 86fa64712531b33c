//! `tenantry spool ls`: the streams of a spool.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::folder::{Which, report_damages, upstream_name};
use crate::cli::output::{print, print_json};
use crate::spool::worker::now_millis;
use crate::spool::{Stream, StreamTotals, View};
use crate::text::escaped;

/// The arguments of `tenantry spool ls`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct LsArgs {
    #[command(flatten)]
    which: Which,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &LsArgs) -> Result<ExitCode, ExitCode> {
    let view = args.which.view()?;
    let (streams, now) = (view.streams(), now_millis());
    if args.json {
        print_json(&document(&view, &streams, now));
    } else {
        print(&table(&streams, now));
    }
    Ok(report_damages(&view))
}

/// How long the oldest record has been there, to the second.
fn age(totals: &StreamTotals, now: u64) -> Duration {
    Duration::from_secs(now.saturating_sub(totals.oldest) / 1_000)
}

/// The sum of all streams. Its oldest record is that of them all.
fn sum(streams: &[(Stream, StreamTotals)]) -> StreamTotals {
    let zero = StreamTotals { oldest: u64::MAX, ..StreamTotals::default() };
    streams.iter().fold(zero, |sum, (_, totals)| StreamTotals {
        records: sum.records + totals.records,
        samples: sum.samples + totals.samples,
        bytes: sum.bytes + totals.bytes,
        oldest: sum.oldest.min(totals.oldest),
    })
}

fn document(view: &View, streams: &[(Stream, StreamTotals)], now: u64) -> Value {
    let all = |totals: &StreamTotals| {
        json!({
            "parts": totals.records,
            "samples": totals.samples,
            "bytes": totals.bytes,
            "oldest_spooled_at": (totals.records > 0).then_some(totals.oldest),
            "oldest_seconds": (totals.records > 0).then(|| age(totals, now).as_secs()),
        })
    };
    let of_stream = |(stream, totals): &(Stream, StreamTotals)| {
        let mut document = all(totals);
        if let Value::Object(keys) = &mut document {
            keys.insert("tenant".into(), stream.tenant.as_str().into());
            keys.insert("upstream".into(), upstream_name(&stream.upstream).into());
            keys.insert("destination".into(), stream.destination.name().into());
        }
        document
    };
    let mut totals = all(&sum(streams));
    if let Value::Object(keys) = &mut totals {
        keys.insert("streams".into(), streams.len().into());
        keys.insert("segments".into(), view.segments().count().into());
        keys.insert("disk_bytes".into(), view.segments().map(|segment| segment.bytes).sum::<u64>().into());
    }
    json!({"streams": streams.iter().map(of_stream).collect::<Vec<_>>(), "totals": totals})
}

fn table(streams: &[(Stream, StreamTotals)], now: u64) -> String {
    let heads = ["TENANT", "UPSTREAM", "DESTINATION", "PARTS", "SAMPLES", "BYTES", "OLDEST"];
    let mut rows = vec![heads.map(str::to_owned)];
    let numbers = |totals: &StreamTotals| {
        [totals.records, totals.samples, totals.bytes].map(|number| number.to_string())
    };
    let oldest = |totals: &StreamTotals| match totals.records {
        0 => "-".to_owned(),
        _ => humantime::format_duration(age(totals, now)).to_string(),
    };
    for (stream, totals) in streams {
        let [parts, samples, bytes] = numbers(totals);
        let (tenant, upstream) = (escaped(stream.tenant.as_str()), escaped(upstream_name(&stream.upstream)));
        let destination = stream.destination.name().to_owned();
        rows.push([
            tenant.into_owned(),
            upstream.into_owned(),
            destination,
            parts,
            samples,
            bytes,
            oldest(totals),
        ]);
    }
    let totals = sum(streams);
    let [parts, samples, bytes] = numbers(&totals);
    let count = format!("{} streams", streams.len());
    rows.push(["all".into(), count, String::new(), parts, samples, bytes, oldest(&totals)]);
    aligned(&rows)
}

/// The rows in columns: texts to the left, the numbers to the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(at, (cell, width))| match at {
            3..6 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Destination;
    use crate::tenant::{IdRules, TenantId};

    fn stream(tenant: &str, upstream: &str, destination: Destination) -> Stream {
        let tenant = TenantId::new(tenant, IdRules::Thanos).unwrap();
        Stream { upstream: upstream.into(), destination, tenant }
    }

    #[test]
    fn streams_and_their_sum_are_in_columns() {
        let totals = |records, oldest| StreamTotals { records, samples: 10, bytes: 1_000, oldest };
        let streams = [
            (stream("a", "", Destination::Metrics), totals(3, 40_000)),
            (stream("team-b", "east", Destination::Logs), totals(12, 99_001)),
        ];
        let expected = "\
            TENANT  UPSTREAM   DESTINATION  PARTS  SAMPLES  BYTES  OLDEST\n\
            a       main       metrics          3       10   1000  1m\n\
            team-b  east       logs            12       10   1000  0s\n\
            all     2 streams                  15       20   2000  1m\n";
        assert_eq!(table(&streams, 100_000), expected);
        // A clock that was set back.
        assert!(table(&streams, 0).contains(" 0s\n"));
    }

    #[test]
    fn nothing_has_no_age() {
        let expected = "\
            TENANT  UPSTREAM   DESTINATION  PARTS  SAMPLES  BYTES  OLDEST\n\
            all     0 streams                   0        0      0  -\n";
        assert_eq!(table(&[], 5), expected);
    }
}
