//! Puts several servers through the same loads and measures them from outside.
//!
//! Constraints that shaped it:
//! - A figure counts only if it was earned. A contender that answers anything but 2xx, or whose acknowledged samples
//!   are not in the sink, gets no figures for that scenario. The others go on.
//! - Machines drift: clocks, caches, neighbours. So contenders take turns (A B C A B C …), and a ratio is taken within
//!   each round before the median is taken over rounds.
//! - A contender is started anew for each round. So no queue, cache or heap of an earlier load is left, its memory peak
//!   is that of this load, and if it breaks, only its own round is lost. This costs some 0.1 s a round.
//! - Senders and sink live in this process, on the same machine. They take cores away from all contenders alike. So the
//!   figure that carries over to other machines is CPU time per request, not requests per second.
//! - CPU time is that of all processes of the contender, from the first measured request until the last acknowledged
//!   sample has arrived. It includes late delivery, but neither the start nor the warm-up.
//!
//! ```text
//! YAML ─► config ─► for each scenario: fleet
//!                     for each round: for each contender:
//!                       sink, contender ─► warm up ─► send ─► drain ─► prove ─► a round's raw figures
//!                 ─► results (JSON) ─► measures (medians, ratios)
//! ```

mod config;
mod contender;
mod machine;
mod measure;
mod record_layer;
mod results;
mod round;
mod template;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

pub use config::{Acknowledges, Config, ConfigError, Contender, Scenario};
pub use machine::{Machine, commit};
pub use measure::{Measure, Spread};
pub use results::{Entrant, FORMAT, Failure, FailureKind, Results, Round, ScenarioResults, Showing};
pub use template::PLACEHOLDERS;

use crate::fleet::{Fleet, FleetConfig, numbered_tenants};

/// The label that names the tenant.
const TENANT_LABEL: &str = "tenant";

/// What happens while a comparison runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// A round of a contender begins.
    Round {
        /// The scenario.
        scenario: &'a Scenario,
        /// Its name.
        contender: &'a str,
        /// Counted from 1.
        round: u32,
    },
    /// A round is over, or left out because its contender had failed before.
    RoundOver,
    /// A scenario is over.
    ScenarioOver {
        /// The contenders, in the order of their showings.
        contenders: &'a [Entrant],
        /// What came of it.
        results: &'a ScenarioResults,
    },
}

/// Why a round gave no figures.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    /// The contender's fault.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Ours: no threads, no sockets.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Compares all contenders in all scenarios, or until `stop` is set; scenarios that are not complete then are left out.
///
/// # Errors
/// When this side fails: no threads, no sockets. What goes wrong with a contender is in the results.
pub fn compare(config: &Config, stop: &AtomicBool, mut watch: impl FnMut(Event<'_>)) -> io::Result<Results> {
    let mut results = Results {
        format: FORMAT,
        name: config.name.clone(),
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        commit: commit(),
        machine: Machine::own(),
        interrupted: false,
        contenders: config.contenders.iter().map(entrant).collect(),
        scenarios: Vec::new(),
    };
    for scenario in &config.scenarios {
        match compare_in(config, scenario, stop, &mut watch) {
            Ok(scenario) => {
                watch(Event::ScenarioOver { contenders: &results.contenders, results: &scenario });
                results.scenarios.push(scenario);
            }
            Err(Stopped::Io(error)) => return Err(error),
            Err(Stopped::Interrupted | Stopped::Failed(_)) => {
                results.interrupted = true;
                break;
            }
        }
    }
    Ok(results)
}

fn entrant(contender: &Contender) -> Entrant {
    let program = contender::own_program().unwrap_or_default();
    let fill = |text: &String| text.replace("{loadgen}", &program);
    Entrant {
        name: contender.name.clone(),
        note: contender.note.clone(),
        version: machine::output(&contender.version.iter().map(fill).collect::<Vec<_>>()),
        splits: contender.splits,
        acknowledges: contender.acknowledges,
        plain: contender.plain.clone(),
    }
}

/// All rounds of one scenario, the contenders taking turns.
fn compare_in(
    config: &Config,
    scenario: &Scenario,
    stop: &AtomicBool,
    watch: &mut impl FnMut(Event<'_>),
) -> Result<ScenarioResults, Stopped> {
    let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let fleet = Fleet::build(&FleetConfig {
        format: scenario.format,
        senders: size(scenario.senders),
        series: size(scenario.series),
        labels: size(scenario.labels),
        run_length: size(scenario.run_length),
        tenants: numbered_tenants(size(scenario.tenants)),
        tenant_label: TENANT_LABEL.to_owned(),
        ..FleetConfig::default()
    })
    .map_err(io::Error::other)?;
    let showing = |contender: &Contender| {
        let takes_part = !contender.optional || contender.is_installed();
        match takes_part && contender.formats.contains(&scenario.format) {
            true => Showing::Measured(Vec::new()),
            false => Showing::LeftOut,
        }
    };
    let mut showings: Vec<Showing> = config.contenders.iter().map(showing).collect();
    for round in 1..=scenario.rounds {
        for (contender, showing) in config.contenders.iter().zip(&mut showings) {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped::Interrupted);
            }
            if let Showing::Measured(rounds) = showing {
                watch(Event::Round { scenario, contender: &contender.name, round });
                match round::run(contender, scenario, &fleet, stop) {
                    Ok(round) => rounds.push(round),
                    Err(Stopped::Failed(failure)) => *showing = Showing::Failed(failure),
                    Err(stopped) => return Err(stopped),
                }
            }
            watch(Event::RoundOver);
        }
    }
    Ok(ScenarioResults { scenario: *scenario, showings })
}
