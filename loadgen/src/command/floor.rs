//! `loadgen floor`.

use std::io::{self, Write};
use std::time::Duration;

use loadgen::compare::figure;
use loadgen::fleet::FleetConfig;
use loadgen::floor::{Floor, floor};

use super::args::FloorArgs;

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
    let mut text = format!(
        "{} bodies of {} series and {} tenants, {} bytes inflated, {} deflated, on one thread\n\n\
         {:<10}  {:>12}  {:>10}  {:>8}  {:>7}\n",
        floor.bodies,
        figure(floor.series),
        figure(floor.tenants),
        figure(floor.inflated_bytes),
        figure(floor.block_bytes),
        "stage",
        "µs/request",
        "ns/series",
        "MB/s",
        "share",
    );
    let total = floor.total_us();
    for (name, us) in floor.stages().into_iter().chain([("all", total)]) {
        let rate = if us > 0.0 { figure(floor.inflated_bytes / us) } else { "–".to_owned() };
        text.push_str(&format!(
            "{name:<10}  {:>12}  {:>10}  {rate:>8}  {:>6.0}%\n",
            figure(us),
            figure(us * 1e3 / floor.series),
            if total > 0.0 { us / total * 100.0 } else { 0.0 },
        ));
    }
    text.push_str(&format!(
        "\nCPU a request: {} ms; a million series: {} s\n",
        figure(total / 1e3),
        figure(total / floor.series)
    ));
    text
}
