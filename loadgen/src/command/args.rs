//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use loadgen::client::Url;
use loadgen::fleet::{FleetConfig, numbered_tenants};

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
    /// Takes remote write, counts it tenant by tenant, and shows the counts at /stats
    Sink(SinkArgs),
    /// Shows a server, a sink and senders at work for ten seconds, and proves that every sample arrived
    Demo(DemoArgs),
    /// Puts several servers through the same loads and tells what each costs
    Compare(CompareArgs),
    /// Makes a page, and charts, of what a comparison found
    Report(ReportArgs),
    /// Measures what the work on a request costs without any I/O, stage by stage
    Floor(Box<FloorArgs>),
    /// The demo's server
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
    /// How long; 10s if --requests is not given either
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// How many requests, of all senders together
    #[arg(long)]
    pub(crate) requests: Option<u64>,
    /// Requests per second, of all senders together; without it each sends as soon as it has its answer
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// How long to wait for an answer
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub(crate) timeout: Duration,
    /// A header more, NAME=VALUE; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    /// The server's process: tells its CPU time per request and its memory
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// A sink's /stats: at the end, what it stored must be what was acknowledged
    #[arg(long, value_name = "URL")]
    pub(crate) verify: Option<Url>,
    /// What the server puts before each tenant, for --verify
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Exit with 1 when any request was not answered with 2xx
    #[arg(long)]
    pub(crate) fail_on_error: bool,
    /// Print one JSON object instead of a report
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the bodies look like.
#[derive(Debug, clap::Args)]
pub(crate) struct FleetArgs {
    /// Senders, each with a connection of its own and one request in flight
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) senders: u16,
    /// Tenants: a number, or names with weights as in `payments:5,search:2`
    #[arg(long, default_value = "10", value_parser = tenants)]
    pub(crate) tenants: Tenants,
    /// Series in a request
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) series: u32,
    /// Labels of a series
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(4..))]
    pub(crate) labels: u16,
    /// Samples of a series in one request
    #[arg(long, default_value_t = 1)]
    pub(crate) samples: u16,
    /// Consecutive series that share a tenant
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) run_length: u32,
    /// Different bodies of each sender
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) bodies: u16,
    /// Same seed and timestamp, same bytes
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// When the first samples were taken, in milliseconds since the epoch; now, if not given
    #[arg(long, value_name = "MS")]
    pub(crate) timestamp: Option<i64>,
    /// Name of the tenant's label
    #[arg(long, default_value = "__tenant__")]
    pub(crate) tenant_label: String,
}

/// Tenants and their weights. (A type of its own: clap takes a bare `Vec` for a repeated option.)
#[derive(Clone, Debug)]
pub(crate) struct Tenants(pub(crate) Vec<(String, u32)>);

impl FleetArgs {
    pub(crate) fn config(&self, now_ms: i64) -> FleetConfig {
        FleetConfig {
            seed: self.seed,
            senders: usize::from(self.senders),
            bodies_per_sender: usize::from(self.bodies),
            series: usize::try_from(self.series).unwrap_or(usize::MAX),
            labels: usize::from(self.labels),
            samples: usize::from(self.samples),
            tenants: self.tenants.0.clone(),
            run_length: usize::try_from(self.run_length).unwrap_or(usize::MAX),
            tenant_label: self.tenant_label.clone(),
            timestamp_ms: self.timestamp.unwrap_or(now_ms),
        }
    }
}

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
    /// Print the counts this often; 0s for only at the end
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) every: Duration,
    /// Print JSON, an object a line
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
pub(crate) struct ReportArgs {
    /// What `compare` kept
    #[arg(value_name = "RESULTS")]
    pub(crate) results: PathBuf,
    /// The page; beside the results, with .html for .json, if not given
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Keep each chart as an SVG file in this directory, too
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FloorArgs {
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    /// Take the tenant's label out of each series
    #[arg(long)]
    pub(crate) label_remove: bool,
    /// How long to measure
    #[arg(long, default_value = "3", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Names that a platform team would find familiar, and how uneven such teams are.
const DEMO_TENANTS: &[(&str, u32)] = &[
    ("payments", 34),
    ("checkout", 25),
    ("search", 18),
    ("observability", 13),
    ("kube-system", 10),
    ("recommendations", 8),
    ("identity", 6),
    ("logistics", 5),
    ("marketing", 4),
    ("data-platform", 3),
];

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
    let mut tenants: Vec<(String, u32)> =
        DEMO_TENANTS.iter().take(count).map(|&(name, weight)| (name.to_owned(), weight)).collect();
    tenants
        .extend(numbered_tenants(count.saturating_sub(tenants.len())).into_iter().map(|(name, _)| (name, 2)));
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

/// A duration as Go writes it (`1m30s`, `500ms`), or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration such as 10s, 1m30s or 500ms");
    let seconds = |number: f64| Duration::try_from_secs_f64(number).map_err(|_| wrong());
    if let Ok(number) = text.parse() {
        return seconds(number);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, unit_on) = rest.split_at(number_end);
        let unit_end = unit_on.find(|c: char| c.is_ascii_digit()).unwrap_or(unit_on.len());
        let (unit, after) = unit_on.split_at(unit_end);
        let scale = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        total = total.checked_add(seconds(number * scale)?).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
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
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) || value.chars().any(char::is_control) {
        return Err(format!("`{text}` cannot be a header"));
    }
    Ok((name.to_owned(), value.to_owned()))
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
    fn durations() {
        assert_eq!(duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("2.5").unwrap(), Duration::from_millis(2500));
        assert_eq!(duration("0s").unwrap(), Duration::ZERO);
        for wrong in ["", "s", "-1s", "5x", "1m30", "1e400s", "NaN"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
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
