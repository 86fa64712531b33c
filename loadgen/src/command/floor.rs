//! `loadgen floor`.

use std::io::{self, Write};
use std::time::Duration;

use loadgen::fleet::FleetConfig;
use loadgen::floor::{Floor, floor};

use super::args::FloorArgs;
use super::text::{Table, figure};

/// Measures and prints; never false.
pub(crate) fn run(args: &FloorArgs) -> anyhow::Result<bool> {
    let fleet = args.fleet.config(FleetConfig::default().timestamp_ms);
    let time = Duration::try_from_secs_f64(args.seconds)?;
    let floor = floor(&fleet, args.label_remove, time)?;
    let mut out = io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&floor)?)?;
    } else {
        write!(out, "{}", report(&floor))?;
    }
    Ok(true)
}

fn report(floor: &Floor) -> String {
    let mut table = Table::new(["stage", "µs/request", "ns/series", "MB/s", "share"]);
    let total = floor.total_us();
    for (name, us) in floor.stages().into_iter().chain([("all", total)]) {
        // Nothing takes no time: NaN is told as a dash.
        let (rate, share) = (floor.inflated_bytes / us, us / total * 100.0);
        let each = figure(us * 1e3 / floor.series);
        table.row([name.to_owned(), figure(us), each, figure(rate), format!("{share:.0}%")]);
    }
    format!(
        "{} bodies of {} series and {} tenants, {} bytes inflated, {} deflated, on one thread\n\n{table}\n\
         CPU a request: {} ms; a million series: {} s\n",
        floor.bodies,
        figure(floor.series),
        figure(floor.tenants),
        figure(floor.inflated_bytes),
        figure(floor.block_bytes),
        figure(total / 1e3),
        figure(total / floor.series)
    )
}
