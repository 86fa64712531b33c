//! Placeholder for the library's entry point: the merge with the server's own branch replaces this file.

use std::ffi::OsString;
use std::process::ExitCode;

/// Parses a command line and runs the server until a signal.
pub fn run_from_args(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::FAILURE
}
