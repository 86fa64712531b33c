//! The command line of `loadgen chaos`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use loadgen::sink::faults::{Fault, Rule};
use loadgen::typed::{bytes, duration, number};

/// The part of all requests that a thief takes.
const STOLEN_SHARE: f64 = 0.02;

/// From when to when a starved tenant gets no answer.
const STARVED: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(5500));

#[derive(clap::Args)]
pub(crate) struct ChaosArgs {
    /// Seed of the plan; random, and printed, if not given
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How many minutes of faults; at most 30, as the account of all that goes wrong is kept in memory
    #[arg(long, default_value_t = 1.0, value_parser = number(30.0))]
    pub(crate) minutes: f64,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Give the server a spool. Nothing is then refused for good, as that would be lost by the spool's own rules, and a
    /// successor starts only when its predecessor has ended
    #[arg(long)]
    pub(crate) spool: bool,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
    /// Write the results, with all events and their times, to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Have the upstream cheat, with every fiftieth request or one tenant. Then the run must fail
    #[arg(long, value_enum)]
    pub(crate) steal: Option<Theft>,
}

/// The server under test.
#[derive(Clone, Default, clap::Args)]
pub(crate) struct ServerArgs {
    /// The server's driver; its own choice if not given
    #[arg(long, value_parser = ["io_uring", "epoll"], global = true)]
    pub(crate) driver: Option<String>,
    /// The server's program; the one that is built into this one if not given
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) server: Option<PathBuf>,
    /// Speak TLS from the senders to the server and from there to the upstream. Certificates are made for the run, and
    /// both sides of each connection show one
    #[arg(long, global = true)]
    pub(crate) tls: bool,
}

impl ServerArgs {
    /// Lines of the server's configuration, the driver before `more`.
    pub(crate) fn settings(&self, more: &str) -> String {
        match &self.driver {
            None => more.to_owned(),
            Some(driver) => format!("driver: {driver}\n{more}"),
        }
    }
}

/// The disk that the server's spool lies on.
#[derive(Clone, Default, clap::Args)]
pub(crate) struct DiskArgs {
    /// Have the spool's disk take so much longer, such as 200ms, to make something durable. strace sees to that
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "spool")]
    pub(crate) slow_disk: Option<Duration>,
    /// Put the spool on a disk of this size, such as 1Mi, so that it is full now and then. It is a tmpfs in a mount
    /// namespace of its own
    #[arg(long, value_name = "SIZE", value_parser = bytes(DISK_BYTES_MIN), requires = "spool")]
    pub(crate) disk_bytes: Option<u64>,
}

/// The smallest disk: beside what the spool reserves, it holds a hundred parts or two.
const DISK_BYTES_MIN: u64 = 128 << 10;

/// What no honest upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Theft {
    /// Acknowledge, and not store
    Lose,
    /// Store twice
    Duplicate,
    /// Store under another tenant
    Misplace,
    /// Store after the next request
    Reorder,
    /// Leave one tenant without an answer for five seconds
    Starve,
}

impl Theft {
    /// What the upstream then does.
    pub(crate) fn rule(self, tenants: &[String]) -> Rule {
        let fault = match self {
            Self::Lose => Fault::Lose,
            Self::Duplicate => Fault::Duplicate,
            Self::Reorder => Fault::Reorder,
            Self::Misplace => Fault::Misplace("somebody-else".to_owned()),
            Self::Starve => {
                let (from, to) = STARVED;
                let tenants = tenants.iter().take(1).cloned().collect();
                return Rule { tenants, from, to: Some(to), share: 1.0, fault: Fault::Stall };
            }
        };
        Rule { tenants: tenants.to_vec(), from: Duration::ZERO, to: None, share: STOLEN_SHARE, fault }
    }
}
