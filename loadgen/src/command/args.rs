//! The command line.

mod chaos;
mod simulate;
mod trial;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use loadgen::capture::CaptureConfig;
use loadgen::client::Url;
use loadgen::fleet::{FleetConfig, Tenants};
use loadgen::process::Process;
use loadgen::send::{RetryRules, SendConfig};
use loadgen::sink::SinkConfig;
use loadgen::stamped::StampedConfig;
use loadgen::typed::{duration, number, tenants};

pub(crate) use chaos::{ChaosArgs, DiskArgs, ServerArgs, Theft};
pub(crate) use simulate::SimulateArgs;
pub(crate) use trial::{
    FairnessArgs, HandshakesArgs, IdleArgs, IsolationArgs, LengthArgs, SpoolArgs, TrialArgs, TrialCommand,
};

/// The demo's tenants: teams that most platforms have, as uneven as such teams are.
const FAMILIAR_TENANTS: &str = "payments:34,checkout:25,search:18,observability:13,kube-system:10";

/// Load, sink and proof for Tenantry.
#[derive(Parser)]
#[command(name = "loadgen", version, about, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Sends load and reports rates, latencies, what it cost the server, and whether everything arrived
    Send(Box<SendArgs>),
    /// Accepts remote write, Loki pushes and OTLP, counts samples by tenant, and misbehaves on demand
    Sink(Box<SinkArgs>),
    /// Records the bodies of pushes, for `tenantry explain` and `tenantry plan`
    ///
    /// Passwords and tokens are never recorded. Without --forward nothing is stored and each push is answered with
    /// 204, so this must be a second place that a sender writes to, not its only one.
    Capture(Box<CaptureConfig>),
    /// Sends stamped samples, and finds those that are lost, duplicated, misplaced or reordered
    ///
    /// A stamp is the tenant that a sample is meant for, its sender, its series, and a sequence number.
    /// Senders send again as Prometheus does: after a 5xx, 429 or no answer, with pauses from 30 ms to 5 s or as long
    /// as Retry-After says. Their journal is then compared with what a `loadgen sink --account` has stored.
    ///
    /// Exits with 1 when anything is wrong. A request without a clear answer is sent again, so each such attempt
    /// explains one copy and one late arrival: these are reported, and are no faults.
    Verify(Box<VerifyArgs>),
    /// Shows a server, a sink and senders at work for ten seconds, and proves that every sample arrived
    Demo(DemoArgs),
    /// Injects faults planned from a seed, and checks that every acknowledged sample survives
    ///
    /// Senders send remote write, Loki pushes and OTLP, and retry as Prometheus and OTLP do. Their upstream is slow,
    /// refuses, resets, stalls, stores and says otherwise, and is restarted; the server is reloaded (with mistakes,
    /// too), handed over to a successor, and killed. Then all faults end, and what is stored is compared with what was
    /// acknowledged.
    ///
    /// Exits with 1 when anything acknowledged is lost, misplaced, reordered or damaged, or stored twice for no reason;
    /// when a request fails after the faults have ended; when a tenant gets nowhere for two timeouts while its
    /// upstream is well; and when the server does not start or end as it should. The same seed plans the same troubles
    /// at the same times.
    Chaos(ChaosArgs),
    /// Plays such faults under a clock of its own: hours in seconds, and the same again from the same seed
    ///
    /// The cores of the server run in one thread with senders and upstream, on sockets and a disk in memory. Time leaps
    /// to the next thing that is due. Besides what `chaos` looks for, equal tenants must get equal service, every
    /// request its answer, and a server that has ended must have nothing in flight.
    Simulate(SimulateArgs),
    /// Measures one claim about a server in trouble, and exits with 1 if it does not hold
    Trial(TrialArgs),
    /// Puts several servers through the same loads and reports what each costs
    Compare(CompareArgs),
    /// Makes a page, with charts, of a comparison's results
    Report(PageArgs),
    /// The demo's server, and that of chaos
    #[command(hide = true, disable_help_flag = true)]
    Server {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(clap::Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    send: SendConfig,
    /// Requests per second, of all senders together; without it each sends as soon as it has its answer
    ///
    /// Latency then counts from when a request should have left; a sender that is behind leaves none out.
    #[arg(long, value_parser = number(1e9))]
    rate: Option<f64>,
    /// What to do after a 5xx or no answer
    #[arg(long, value_enum, default_value_t)]
    retry: RetryKind,
    /// With --retry prometheus, send again after 429 too (its `retry_on_http_429`)
    #[arg(long, requires = "retry")]
    retry_on_429: bool,
    #[command(flatten)]
    pub(crate) fleet: FleetConfig,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// What is reported and checked at the end.
#[derive(clap::Args)]
#[command(next_help_heading = "Report")]
pub(crate) struct ReportArgs {
    /// The server's process: reports its CPU time per request and its memory
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// A sink's /stats: at the end, what it stored must be what was acknowledged
    #[arg(long, value_name = "URL")]
    pub(crate) verify: Option<Url>,
    /// What the server puts before each tenant, for --verify
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Exit with 1 when any request was not acknowledged in the end
    #[arg(long)]
    pub(crate) fail_on_error: bool,
    /// Print one JSON object instead of a report
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a sender does after a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RetryKind {
    /// Nothing: each request is sent once
    #[default]
    None,
    /// Send it again as Prometheus does, after 30 ms, 60 ms and so on to 5 s, or as long as Retry-After says, until
    /// it is acknowledged or refused or --duration is over. OTLP is sent again after 429, 502, 503 and 504 only
    Prometheus,
}

impl SendArgs {
    pub(crate) fn config(&self) -> anyhow::Result<SendConfig> {
        let retry = match self.retry {
            RetryKind::None => None,
            RetryKind::Prometheus => Some(RetryRules::prometheus(self.retry_on_429)),
        };
        let server = self.report.server_pid.map(Process::new).transpose()?;
        Ok(SendConfig { rate: self.rate, retry, server, ..self.send.clone().ready()? })
    }
}

#[derive(clap::Args)]
pub(crate) struct SinkArgs {
    #[command(flatten)]
    pub(crate) sink: SinkConfig,
    /// Misbehave as this YAML file says: latencies, statuses, resets, stalls, lies and thefts, by tenant, time and
    /// share of requests. loadgen/faults.example.yml shows and explains them all
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
    /// Print the counts this often; 0s for only at the end
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) every: Duration,
}

#[derive(clap::Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) stamped: StampedConfig,
    /// Start Tenantry and a sink in place of those at --url and --sink, with TLS on all connections
    #[arg(long, conflicts_with_all = ["url", "sink", "ca"])]
    pub(crate) tls: bool,
    /// The sink behind it, which was started with --account
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9009/account")]
    pub(crate) sink: Url,
    /// Senders, each with a connection of its own and one request in flight
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) senders: u16,
    /// How long a request is sent again before it is given up
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub(crate) give_up_after: Duration,
    /// How long to wait, when all is sent, for what may still arrive
    #[arg(long, value_parser = duration, default_value = "1s")]
    pub(crate) settle: Duration,
}

#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// How long it runs
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Tenants: a number, or names with weights as in `payments:5,search:2`
    #[arg(long, default_value = FAMILIAR_TENANTS, value_parser = tenants)]
    pub(crate) tenants: Tenants,
    /// Senders; with --all-signals they are dealt to the signals, each of which has one at least
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) senders: u16,
    /// Send everything at once: remote write, Loki pushes, and metrics, logs and traces by OTLP
    #[arg(long)]
    pub(crate) all_signals: bool,
}

#[derive(clap::Args)]
pub(crate) struct CompareArgs {
    /// What to compare: contenders and scenarios
    #[arg(long, value_name = "FILE", default_value = "perf/compare.yml")]
    pub(crate) config: PathBuf,
    /// Where to keep the results; results/DATE-NAME.json beside the configuration, if not given
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Only this contender; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Rounds of each scenario, whatever the configuration says
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Seconds that each round measures, whatever the configuration says
    #[arg(long, value_parser = number(3600.0))]
    pub(crate) seconds: Option<f64>,
}

#[derive(clap::Args)]
pub(crate) struct PageArgs {
    /// What `compare` kept
    #[arg(value_name = "RESULTS")]
    pub(crate) results: PathBuf,
    /// The page; beside the results, with .md for .json, if not given
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Draw charts, too: SVG files in this directory, which the page shows
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
