//! Tenantry, the program: arguments, configuration, run, exit code.

use std::io::Write;
use std::process::ExitCode;

use tenantry::cli::{self, Command};
use tenantry::config;

/// The command line or the configuration is wrong: `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let (file, check_only) = match command {
        Command::PrintDefaultConfig => return say(&config::print_defaults()),
        Command::CheckConfig { config } => (config, true),
        Command::Run { config } => (config, false),
    };
    match config::load(file.as_deref()) {
        Ok(plan) if check_only => {
            for notice in &plan.notices {
                complain(notice);
            }
            say("The configuration is sound.\n")
        }
        Ok(_plan) => ExitCode::SUCCESS,
        Err(mistakes) => {
            complain(&mistakes);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// To standard output; a reader that went away (`| head`) is no failure.
fn say(text: &str) -> ExitCode {
    _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(text: &dyn std::fmt::Display) {
    _ = writeln!(std::io::stderr().lock(), "{text}");
}
