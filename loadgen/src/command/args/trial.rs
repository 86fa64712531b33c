//! The command line of `loadgen trial`.

use loadgen::fleet::Format;
use loadgen::typed::{count, number};

use super::ServerArgs;

#[derive(clap::Args)]
pub(crate) struct TrialArgs {
    #[command(subcommand)]
    pub(crate) trial: TrialCommand,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(clap::Subcommand)]
pub(crate) enum TrialCommand {
    /// Whether equal tenants get equal shares when connections to the upstream are few
    Fairness(FairnessArgs),
    /// What one tenant's stalls, errors and resets, or the stalls of many, cost the others, at their p99
    Isolation(IsolationArgs),
    /// What is sent in vain while one of ten tenants fails
    Retry(LengthArgs),
    /// How much throughput is left when three times the capacity is offered
    Overload(LengthArgs),
    /// What idle connections cost
    Idle(IdleArgs),
    /// Whether three replicas behind HAProxy can be killed, drained and rolled under load
    Replicas,
    /// What it costs to spool one tenant of ten, and how fast the spool is sent afterwards
    Spool(SpoolArgs),
    /// What TLS handshakes cost, full and resumed
    Handshakes(HandshakesArgs),
}

#[derive(clap::Args)]
pub(crate) struct FairnessArgs {
    /// How many tenants there are; each number is tried with each of the connections and cores
    #[arg(long, value_delimiter = ',', default_values_t = [5, 50, 500], value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub(crate) tenants: Vec<u16>,
    /// Connections to the upstream that the server may have
    #[arg(long, value_delimiter = ',', default_values_t = [4, 64], value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections: Vec<u16>,
    /// The server's cores
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) cores: Vec<u16>,
    /// How long each is measured, at least; longer where tenants wait long for their turns
    #[arg(long, default_value_t = 6.0, value_parser = number(3600.0))]
    pub(crate) seconds: f64,
}

#[derive(clap::Args)]
pub(crate) struct IsolationArgs {
    /// How long a phase is measured
    #[arg(long, default_value_t = 5.0, value_parser = number(3600.0))]
    pub(crate) seconds: f64,
    /// Tenants that fall ill
    ///
    /// With 1, it is a tenth of all, and has one trouble after the other. With more, there are as many others, and the
    /// ill ones stall, all from the same moment on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) ill: u16,
    /// The server's `timeout`, in seconds; with one ill tenant, stalls are to end within a phase
    #[arg(long, default_value_t = 2.0, value_parser = number(3600.0))]
    pub(crate) timeout: f64,
    /// How often all are well, and where one falls ill, how often it does
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Requests a second of the others
    #[arg(long, default_value_t = 200.0, value_parser = number(1e9))]
    pub(crate) rate: f64,
    /// Requests a second of those that fall ill
    #[arg(long, default_value_t = 50.0, value_parser = number(1e9))]
    pub(crate) ill_rate: f64,
}

#[derive(clap::Args)]
pub(crate) struct LengthArgs {
    /// How long the failure or the overload lasts
    #[arg(long, default_value_t = 60.0, value_parser = number(3600.0))]
    pub(crate) seconds: f64,
}

#[derive(clap::Args)]
pub(crate) struct SpoolArgs {
    /// How long a phase is measured
    #[arg(long, default_value_t = 5.0, value_parser = number(3600.0))]
    pub(crate) seconds: f64,
    /// How often all are well, and one is ill
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// How long the upstream takes to answer, in milliseconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub(crate) upstream_ms: u64,
    /// How bodies are written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Series in a request, of all ten tenants together
    #[arg(long, default_value_t = 200, value_parser = count(1_000_000))]
    pub(crate) series: usize,
    /// Senders are HA pairs
    #[arg(long)]
    pub(crate) ha_pairs: bool,
}

#[derive(clap::Args)]
pub(crate) struct IdleArgs {
    /// How many connections
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(200..))]
    pub(crate) connections: u32,
}

#[derive(clap::Args)]
pub(crate) struct HandshakesArgs {
    /// New connections a second, with one small push each
    #[arg(long, default_value_t = 1000.0, value_parser = number(1e6))]
    pub(crate) rate: f64,
    /// How long each kind of connections is measured at a time
    #[arg(long, default_value_t = 3.0, value_parser = number(3600.0))]
    pub(crate) seconds: f64,
    /// How often each kind is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Have clients show a certificate, too
    #[arg(long)]
    pub(crate) mutual: bool,
}
