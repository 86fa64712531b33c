//! The command line: parses the arguments, runs the command, and returns the exit code.
#![forbid(unsafe_code)]

mod args;
mod build;
mod capture;
mod explain;
mod login;
mod man;
mod output;
mod plan;
mod process;
mod spool;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use self::args::{Command, Page, Shell};
pub use self::build::Build;
use self::output::{EXIT_USAGE, print, print_error, report_mistakes};
use tracing::Level;

use crate::{config, log, supervisor};

/// Runs the command that the arguments (program name first) ask for, and returns when it is done. A server runs until a
/// signal ends it. `build` is what the program says of its origin.
///
/// The exit code is 0 after an orderly end, 64 for a bad command line or configuration, and 1 if the server could not
/// start or failed, if a file could not be read, if a spool is damaged, or if dead letters are left. `plan` exits with
/// 2 if the new configuration changes something.
pub fn run_from_args(args: impl IntoIterator<Item = OsString>, build: Build) -> ExitCode {
    let command = match args::parse(args, build) {
        Ok(command) => command,
        Err(error) => {
            // A failure to print cannot be reported: the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match command {
        Command::PrintDefaultConfig => print(&config::print_defaults()),
        Command::PrintMan(Page::Program) => print(&man::program(args::described(build), build)),
        Command::PrintMan(Page::Configuration) => print(&man::configuration(build)),
        Command::PrintCompletions(shell) => print(&completions(shell, build)),
        Command::CheckConfig { config } => check(config.as_deref()),
        Command::Explain(args) => explain::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Spool(command) => spool::run(&command),
        Command::Run { config } => serve(config.as_deref(), build.commit),
    }
}

fn completions(shell: Shell, build: Build) -> String {
    let generator = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut rules = Vec::new();
    clap_complete::generate(generator, &mut args::described(build), "tenantry", &mut rules);
    String::from_utf8_lossy(&rules).into_owned()
}

fn check(file: Option<&Path>) -> ExitCode {
    match config::load(file) {
        Ok(plan) => {
            plan.notices.iter().for_each(|notice| log::print_before_start(Level::WARN, notice));
            print("The configuration is sound.\n")
        }
        Err(mistakes) => report_mistakes(&mistakes),
    }
}

fn serve(file: Option<&Path>, commit: &'static str) -> ExitCode {
    let plan = match config::load(file) {
        Ok(plan) => plan,
        Err(mistakes) => return report_mistakes(&mistakes),
    };
    if let Err(error) = log::init(plan.log_level, plan.log_format) {
        print_error(&format_args!("can't start the log: {error}"));
        return ExitCode::FAILURE;
    }
    process::abort_on_panic();
    process::disable_huge_pages();
    plan.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    tracing::info!("configuration: {}", plan.effective());
    let had_settings = config::has_settings(file);
    let file = file.map(Path::to_owned);
    let ended = supervisor::run(plan, commit, move || config::load_again(file.as_deref(), had_settings));
    if let Err(failure) = &ended {
        // Errors are logged at every level.
        tracing::error!("{failure}");
    }
    log::flush();
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
