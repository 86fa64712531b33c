//! The command line.

mod chaos;
mod fleet;
mod trial;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use loadgen::client::Url;
use loadgen::fleet::{Format, numbered_tenants};
use loadgen::send::Retry;

pub(crate) use chaos::{ChaosArgs, ServerArgs, Theft, name_of};
pub(crate) use fleet::FleetArgs;
pub(crate) use trial::{
    FairnessArgs, IdleArgs, IsolationArgs, OverloadArgs, RetryTrialArgs, TrialArgs, TrialCommand,
};

/// Load, sink and proof for Tenantry.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends remote write and tells rates, latencies, what it cost the server, and whether all arrived
    Send(Box<SendArgs>),
    /// Takes remote write, counts it tenant by tenant, shows the counts at /stats, and misbehaves if told to
    Sink(SinkArgs),
    /// Sends samples that say where they belong, and finds those that are lost, duplicated, misplaced or reordered
    ///
    /// Every sample bears a stamp: the tenant that it is meant for, its sender, its series, and a sequence number.
    /// Senders send again as Prometheus does: after a 5xx, 429 or no answer, with pauses from 30 ms to 5 s or as long
    /// as Retry-After says. What they know of each request is then held against what a `loadgen sink --account` has
    /// stored.
    ///
    /// Exits with 1 when anything is wrong. A request without a clear answer is sent again, so each such attempt
    /// explains one copy and one late arrival: these are told, and held against nobody.
    Verify(Box<VerifyArgs>),
    /// Shows a server, a sink and senders at work for ten seconds, and proves that every sample arrived
    Demo(DemoArgs),
    /// Puts a server through a bad day, drawn from a seed, and finds whatever acknowledged sample did not survive it
    ///
    /// Senders send as Prometheus does, again and again where it does. Their upstream is slow, refuses, resets, stalls,
    /// stores and says otherwise, and is restarted; the server is reloaded (with mistakes, too), handed over to a
    /// successor, and killed. Then all is mended, and what is stored is held against what was acknowledged.
    ///
    /// Exits with 1 when anything acknowledged is lost, misplaced, reordered or damaged, or stored twice for no reason;
    /// when a request does not come through though all is mended; when a tenant gets nowhere for two timeouts while its
    /// upstream is well; and when the server does not start or end as it should. The same seed plans the same troubles
    /// at the same times.
    Chaos(ChaosArgs),
    /// Measures one claim about a server in trouble, and exits with 1 if it does not hold
    Trial(TrialArgs),
    /// Puts several servers through the same loads and tells what each costs
    Compare(CompareArgs),
    /// Makes a page, and charts, of what a comparison found
    Report(PageArgs),
    /// The demo's server, and that of chaos
    #[command(hide = true, disable_help_flag = true)]
    Server {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct SendArgs {
    /// Where to send
    #[arg(long, default_value = "http://127.0.0.1:8081/push")]
    pub(crate) url: Url,
    /// A header more, NAME=VALUE; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// How long; 10s if --requests is not given either
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// How many requests, of all senders together
    #[arg(long, value_name = "N")]
    pub(crate) requests: Option<u64>,
    /// Requests per second, of all senders together; without it each sends as soon as it has its answer
    ///
    /// Latency then counts from when a request should have left; a sender that is behind leaves none out. The time from
    /// when it did leave is told beside it, as service time.
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// How long to wait for an answer
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub(crate) timeout: Duration,
    /// What to do about 5xx and no answer
    #[arg(long, value_enum, default_value_t)]
    pub(crate) retry: RetryKind,
    /// With --retry prometheus, send again after 429 too (its `retry_on_http_429`)
    #[arg(long, requires = "retry")]
    pub(crate) retry_on_429: bool,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// What is told and checked at the end.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is told")]
pub(crate) struct ReportArgs {
    /// The server's process: tells its CPU time per request and its memory
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
    /// Write all percentiles of the latency to FILE and those of the service time to FILE.service
    ///
    /// In milliseconds, in the text format of HdrHistogram and wrk2 that its plotters read.
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,
    /// Print one JSON object instead of a report
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a sender does about failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RetryKind {
    /// Nothing: each request is sent once
    #[default]
    None,
    /// Send it again as Prometheus does, after 30 ms, 60 ms and so on to 5 s, or as long as Retry-After says, until
    /// it is acknowledged or refused or --duration is over
    Prometheus,
}

impl SendArgs {
    pub(crate) fn retry(&self) -> Retry {
        match self.retry {
            RetryKind::None => Retry::Never,
            RetryKind::Prometheus => Retry::Prometheus { on_429: self.retry_on_429 },
        }
    }
}

/// Tenants and their weights. (A type of its own: clap takes a bare `Vec` for a repeated option.)
#[derive(Clone, Debug)]
pub(crate) struct Tenants(pub(crate) Vec<(String, u32)>);

#[derive(Debug, clap::Args)]
pub(crate) struct SinkArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9009")]
    pub(crate) listen: SocketAddr,
    /// Names of the tenant's header
    #[arg(
        long = "tenant-header",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "X-Scope-OrgID,THANOS-TENANT"
    )]
    pub(crate) tenant_headers: Vec<String>,
    /// Names of the tenant's label, the first one that a series has counts
    #[arg(
        long = "tenant-label",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "__tenant__,tenant"
    )]
    pub(crate) tenant_labels: Vec<String>,
    /// What the server puts before each tenant
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Connections at a time
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections_max: u16,
    /// Keep account of every sample that `loadgen verify` sends, and show it at /account
    #[arg(long)]
    pub(crate) account: bool,
    /// Misbehave as this YAML file says: latencies, statuses, resets, stalls, lies and thefts, by tenant, time and
    /// share of requests. loadgen/faults.example.yml shows and explains them all
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
    /// Print the counts this often; 0s for only at the end
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) every: Duration,
    /// Print JSON, an object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Where to send
    #[arg(long, default_value = "http://127.0.0.1:8081/push")]
    pub(crate) url: Url,
    /// In which words: remote-write-1, remote-write-1-zstd, remote-write-2, loki, loki-json or loki-json-gzip
    #[arg(long, default_value_t)]
    pub(crate) format: Format,
    /// The sink behind it, which was started with --account
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9009/account")]
    pub(crate) sink: Url,
    /// How long to send; a last request's retries may take longer
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) duration: Duration,
    /// Requests of each sender at most
    #[arg(long)]
    pub(crate) requests: Option<u64>,
    /// Senders, each with a connection of its own and one request in flight
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) senders: u16,
    /// Tenants: a number, or names as in `payments,search`
    #[arg(long, default_value = "10", value_parser = tenants)]
    pub(crate) tenants: Tenants,
    /// Tenants in one request, in turns; all of them if not given
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tenants_per_request: Option<u32>,
    /// Series of each tenant in a request, with a sample each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) series: u32,
    /// From one request of a sender to its next; as soon as the last is settled, if not given
    #[arg(long, value_parser = duration)]
    pub(crate) interval: Option<Duration>,
    /// Name of the tenant's label
    #[arg(long, default_value = "__tenant__")]
    pub(crate) tenant_label: String,
    /// Name the tenant in this header, and send one tenant in a request: for a server that does not split, or the sink
    /// itself
    #[arg(long, value_name = "NAME", conflicts_with = "tenants_per_request", value_parser = header_name)]
    pub(crate) tenant_header: Option<String>,
    /// What the server puts before each tenant
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// A header more, NAME=VALUE; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// How long to wait for an answer
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub(crate) timeout: Duration,
    /// How long a request is sent again before it is given up
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub(crate) give_up_after: Duration,
    /// Give a request up that is answered with 429, as Prometheus does unless told otherwise
    #[arg(long)]
    pub(crate) no_retry_429: bool,
    /// How long to wait, when all is sent, for what may still arrive
    #[arg(long, value_parser = duration, default_value = "1s")]
    pub(crate) settle: Duration,
    /// Print one JSON object instead of a report
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How long it runs
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Tenants: a number, or names with weights as in `payments:5,search:2`
    #[arg(long, default_value = "5", value_parser = demo_tenants)]
    pub(crate) tenants: Tenants,
    /// Senders
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) senders: u16,
}

#[derive(Debug, clap::Args)]
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
    #[arg(long, value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
}

#[derive(Debug, clap::Args)]
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

/// Names that a platform team would find familiar, and how uneven such teams are.
const DEMO_TENANTS: &str = "payments:34,checkout:25,search:18,observability:13,kube-system:10,recommendations:8,\
                            identity:6,logistics:5,marketing:4,data-platform:3";

/// Most tenants that can be asked for: what a body of a few thousand series can still give a share to, in turns.
const TENANTS_MAX: usize = 100_000;

fn tenants(text: &str) -> Result<Tenants, String> {
    match count(text) {
        Some(count) => Ok(Tenants(numbered_tenants(count?))),
        None => named_tenants(text),
    }
}

fn demo_tenants(text: &str) -> Result<Tenants, String> {
    let Some(count) = count(text) else { return named_tenants(text) };
    let count = count?;
    let mut tenants = named_tenants(DEMO_TENANTS)?.0;
    tenants
        .extend(numbered_tenants(count.saturating_sub(tenants.len())).into_iter().map(|(name, _)| (name, 2)));
    tenants.truncate(count);
    Ok(Tenants(tenants))
}

/// A number of tenants; None when the text is none.
fn count(text: &str) -> Option<Result<usize, String>> {
    let count: usize = text.parse().ok()?;
    Some(match count {
        1..=TENANTS_MAX => Ok(count),
        _ => Err(format!("there can be 1 to {TENANTS_MAX} tenants")),
    })
}

fn named_tenants(text: &str) -> Result<Tenants, String> {
    let tenant = |part: &str| {
        let (name, weight) = part.split_once(':').unwrap_or((part, "1"));
        match weight.parse() {
            Ok(weight) if weight > 0 && !name.is_empty() => Ok((name.to_owned(), weight)),
            _ => Err(format!("`{part}` is neither NAME nor NAME:WEIGHT")),
        }
    };
    let tenants: Vec<(String, u32)> = text.split(',').map(tenant).collect::<Result<_, _>>()?;
    for (index, (name, _)) in tenants.iter().enumerate() {
        if tenants.iter().take(index).any(|(other, _)| other == name) {
            return Err(format!("`{name}` is there twice"));
        }
    }
    Ok(Tenants(tenants))
}

fn duration(text: &str) -> Result<Duration, String> {
    loadgen::duration::parse(text).map_err(|error| error.to_string())
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0)
        .ok_or_else(|| format!("`{text}` is no number above 0"))
}

/// As long as somebody would wait.
fn seconds(text: &str) -> Result<f64, String> {
    const SECONDS_MAX: f64 = 3600.0;
    positive(text)
        .ok()
        .filter(|seconds| *seconds <= SECONDS_MAX)
        .ok_or_else(|| format!("`{text}` is no number above 0 and up to {SECONDS_MAX}"))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    if header_name(name).is_err() || value.chars().any(char::is_control) {
        return Err(format!("`{text}` cannot be a header"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn header_name(text: &str) -> Result<String, String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text.is_empty() || !text.chars().all(is_token) {
        return Err(format!("`{text}` cannot be a header's name"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn tenants_by_number_and_by_name() {
        assert_eq!(tenants("3").unwrap().0.len(), 3);
        assert_eq!(tenants("a:5,b").unwrap().0, [("a".to_owned(), 5), ("b".to_owned(), 1)]);
        assert_eq!(demo_tenants("2").unwrap().0, [("payments".to_owned(), 34), ("checkout".to_owned(), 25)]);
        assert_eq!(demo_tenants("12").unwrap().0.len(), 12);
        for wrong in ["0", "100001", "a:", "a:0", ":5", "a,a", "", "a,,b"] {
            assert!(tenants(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_end() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "1e9", "NaN", "s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers() {
        assert_eq!(header("X-A=b=c").unwrap(), ("X-A".to_owned(), "b=c".to_owned()));
        for wrong in ["X-A", "=v", "X A=v", "X=a\r\nB: c"] {
            assert!(header(wrong).is_err(), "{wrong:?}");
        }
    }
}
