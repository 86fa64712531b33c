//! The command line of `loadgen chaos`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::positive;

/// An hour of troubles could fill the sink's account.
const MINUTES_MAX: f64 = 30.0;

#[derive(Debug, clap::Args)]
pub(crate) struct ChaosArgs {
    /// What the troubles are drawn from; another one each time, and told, if not given
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How long there are troubles; at most 30, as the account of all that went wrong is kept in memory
    #[arg(long, default_value_t = 1.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// The server's driver; its own choice if not given
    #[arg(long, value_enum)]
    pub(crate) driver: Option<DriverKind>,
    /// The server's program; the one that is built into this one if not given
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,
    /// Write all that came of it, and the troubles' times, to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Have the upstream do what no plan allows: to every fiftieth request, or to one tenant. Then the run must fail
    #[arg(long, value_enum)]
    pub(crate) steal: Option<Theft>,
}

/// What the server does its input and output with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DriverKind {
    #[value(name = "io_uring")]
    IoUring,
    #[value(name = "epoll")]
    Epoll,
}

impl DriverKind {
    /// As the server's configuration has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
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

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = positive(text)?;
    if minutes > MINUTES_MAX {
        return Err(format!("there can be {MINUTES_MAX} minutes at most"));
    }
    Ok(minutes)
}
