//! The command line of `loadgen simulate`.

use std::time::Duration;

use loadgen::typed::duration;

use super::Theft;

#[derive(clap::Args)]
pub(crate) struct SimulateArgs {
    /// Play this seed alone
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Play one seed after the other from this one on
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    pub(crate) from: u64,
    /// How long to begin new ones, by the real clock
    #[arg(long, value_parser = duration, default_value = "1m", conflicts_with = "seed")]
    pub(crate) duration: Duration,
    /// Seeds that are played at a time
    #[arg(long, default_value_t = 2, conflicts_with = "seed")]
    pub(crate) jobs: usize,
    /// End with the first seed that finds something
    #[arg(long, conflicts_with = "seed")]
    pub(crate) first: bool,
    /// How long senders send, by the simulated clock; as the seed has it if not given
    #[arg(long, value_parser = duration)]
    pub(crate) length: Option<Duration>,
    /// Have the upstream cheat, with every fiftieth request or one tenant. Then the run must fail
    #[arg(long, value_enum, requires = "seed")]
    pub(crate) steal: Option<Theft>,
    /// Print everything that happens
    #[arg(long, requires = "seed")]
    pub(crate) trace: bool,
}
