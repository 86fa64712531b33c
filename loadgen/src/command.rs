//! The commands: what a person types, and what a person reads.

mod args;
mod capture;
mod chaos;
mod compare;
mod demo;
mod disk;
mod report;
mod rig;
mod send;
mod server;
mod simulate;
mod sink;
mod text;
mod trial;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use loadgen::client::{Url, get};
use serde::de::DeserializeOwned;
use signal_hook::consts::{SIGINT, SIGTERM};

use args::{Args, Command};

/// Runs what the command line asks for. Exits with 1 when it failed or when what it was to prove does not hold.
pub(crate) fn run() -> ExitCode {
    let done = match Args::parse().command {
        Command::Send(args) => send::run(&args),
        Command::Sink(args) => sink::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Trial(args) => trial::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Server { args } => return demo::serve(args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // `loadgen … | head` is no failure worth a word.
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "loadgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A flag that Ctrl-C and SIGTERM set; a second of either ends the process at once.
fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and only sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// What a sink tells at a URL that an option names.
fn fetch<T: DeserializeOwned>(option: &str, url: &Url, timeout: Duration, hint: &str) -> anyhow::Result<T> {
    let (status, body) = get(url, timeout).with_context(|| format!("{option}: no answer from {url}"))?;
    anyhow::ensure!(status == 200, "{option}: {url} answers {status}{hint}");
    serde_json::from_slice(&body).with_context(|| format!("{option}: {url} shows nothing of a sink"))
}

/// A bar on a terminal, and what the template says after it; nothing elsewhere.
fn progress_bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{elapsed:>4}} ▕{{bar:24}}▏ {template}"))
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("█▉▊▋▌▍▎▏ "))
}
