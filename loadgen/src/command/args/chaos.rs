//! The command line of `loadgen chaos`.

use std::path::PathBuf;

use clap::ValueEnum;
use loadgen::typed::number;

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
